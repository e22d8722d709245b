//! The systrap platform against the cases that all platforms share, and some of its own. One machine
//! serves them all, side by side; the doorbell is the includer's.

use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use sentry_platform::systrap::{Options, Systrap};
use sentry_platform::{ContextOwner, Event};
use syscalls::UserAddr;

use crate::common;
use crate::common::Machine;
use crate::common::guest::{self, Program};

static MACHINE: OnceLock<Machine> = OnceLock::new();

#[expect(unsafe_code, reason = "atexit")]
fn machine() -> &'static Machine {
    /// Ends the guests: without a pid namespace, those that wait for an answer would outlive the tests.
    extern "C" fn shut_down() {
        if let Some(machine) = MACHINE.get() {
            machine.platform.shutdown();
        }
    }
    MACHINE.get_or_init(|| {
        // SAFETY: the handler uses a static only.
        unsafe { libc::atexit(shut_down) };
        let options = Options { doorbell: crate::DOORBELL };
        Machine::start(Arc::new(Systrap::new(options).unwrap())).0
    })
}

macro_rules! cases {
    ($($module:ident::$case:ident)*) => {
        $(
            #[test]
            fn $case() {
                common::$module::$case(machine());
            }
        )*
    };
}

cases! {
    basic::system_calls_show_and_restore_all_registers
    basic::results_reach_the_application
    basic::nurseries_make_processes
    basic::memory_is_read_and_written
    basic::host_calls_change_the_address_space
    basic::host_calls_cannot_reach_beyond_the_application
    basic::atomic_operations
    basic::processes_are_copies
    basic::threads_share_memory
    basic::births_need_no_resume_of_the_parent
    basic::exceptions_are_reported
    basic::foreign_entries_do_not_reach_the_host
    basic::a_spinning_context_is_interrupted
    basic::interrupts_of_a_busy_context_are_not_lost
    basic::interrupts_from_several_threads_arrive
    basic::killing_ends_every_thread
    basic::extended_state_survives_a_signal_frame
    basic::many_processes_come_and_go
    basic::nothing_is_kept_of_what_has_ended
    basic::processor_time_passes
    basic::the_vdso_tells_the_time
    hostile::segment_bases_and_selectors
    hostile::flags
    hostile::code_of_32_bits
    hostile::signals_from_outside
    hostile::guests_cannot_confuse_each_others_files
    hostile::processes_that_die_at_any_moment
    hostile::system_call_instructions_of_the_platform
    basic::a_site_that_is_used_again_keeps_working
    basic::a_site_without_room_keeps_working
    basic::an_instruction_before_a_call_may_move
    basic::memory_of_arguments_is_what_it_is
    basic::many_threads_wait_at_once
    basic::newborns_may_be_interrupted
    basic::a_segment_base_of_the_application_keeps_calls_working
}

/// Blocks the serving thread at its first event until the test lets it go.
struct Blocking {
    begun: Mutex<mpsc::Sender<()>>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl ContextOwner for Blocking {
    fn on_event(self: Arc<Self>, _event: Event) {
        let _ = self.begun.lock().unwrap().send(());
        let _ = self.go.lock().unwrap().recv();
    }
}

#[test]
fn workers_that_block_do_not_stop_others() {
    let machine = machine();
    let blocked: Vec<_> = (0..4)
        .map(|_| {
            let (begun, has_begun) = mpsc::channel();
            let (go_on, go) = mpsc::channel();
            let owner = Blocking { begun: Mutex::new(begun), go: Mutex::new(go) };
            let context = machine.platform.create(Arc::new(owner)).unwrap();
            machine.fill(&context);
            let mut regs = context.regs();
            regs.rip = guest::address(Program::Getpid);
            context.set_regs(&regs);
            context.resume(&[]);
            has_begun.recv_timeout(Duration::from_secs(10)).unwrap();
            (context, go_on)
        })
        .collect();
    let task = machine.load(Program::Getpid);
    task.go(39);
    for round in 0..100 {
        task.reply(round, 39);
    }
    for (context, go_on) in blocked {
        context.address_space().kill();
        // Once for the call, once for the end.
        for _ in 0..2 {
            go_on.send(()).unwrap();
        }
    }
    task.end();
}

const SLOTS: u64 = 0x7e90_0000_0000;
const STACKS: u64 = 0x7ea0_0000_0000;
const STUB: u64 = 0x7e80_0000_0000;

/// Lets `task` make calls while others write over `page`, until it dies or has done so often.
fn run_beside_scribblers(machine: &Machine, page: u64) {
    let task = machine.load(Program::Getpid);
    task.go(39);
    let scribblers: Vec<_> = [(0, 0), (1, 1), (u64::MAX, 0), (3, 0x1_0000_0001)]
        .into_iter()
        .map(|(value, step)| {
            let other = task.thread();
            other.set(|regs| {
                regs.rip = guest::address(Program::Scribble);
                (regs.rdi, regs.rsi, regs.r8) = (page, value, step);
            });
            other.context.resume(&[]);
            other
        })
        .collect();
    task.context.resume(&[]);
    for round in 0..300 {
        let Ok(event) = task.events.recv_timeout(Duration::from_millis(200)) else { break };
        if matches!(event, Event::Exited { .. }) {
            break;
        }
        let mut bytes = [0; 64];
        let _ = task.context.read(UserAddr(guest::DATA), &mut bytes);
        task.context.set_return(round);
        task.context.resume(&[]);
    }
    task.context.address_space().kill();
    for other in &scribblers {
        while !matches!(other.next(), Event::Exited { .. }) {}
    }
}

#[test]
fn forged_slots_and_stacks_concern_nobody_else() {
    let machine = machine();
    let victim = machine.load(Program::Getpid);
    victim.go(39);
    for page in [SLOTS, SLOTS + 0x1000, SLOTS + 0x4000, STACKS + 0x1_e000, STACKS + 0x1_f000] {
        run_beside_scribblers(machine, page);
        victim.reply(1, 39);
    }
    victim.end();
}

#[test]
fn calls_that_the_filter_passes_are_harmless() {
    let machine = machine();
    let victim = machine.load(Program::Copy);
    victim.set(|regs| (regs.rdi, regs.rsi) = (guest::DATA, STUB));
    victim.go(1010);
    let mut code = vec![0; 0x1000];
    victim.context.read(UserAddr(guest::DATA), &mut code).unwrap();
    let site = code.windows(2).position(|bytes| bytes == [0x0f, 0x05]).unwrap();
    let site = STUB + u64::try_from(site).unwrap();
    let fork = 0x8000 | 17;
    let thread = sentry_sysmsg::layout::THREAD_FLAGS;
    let calls: &[(u64, [u64; 6])] = &[
        (9, [SLOTS, 0x1000, 7, 0x32, u64::MAX, 0]),
        (9, [STUB, 0x2_0000, 7, 0x32, u64::MAX, 0]),
        (9, [0, 0x1000, 3, 1, 2, 0]),
        (9, [0, 0x1000, 3, 1, 5, 0]),
        (10, [STUB, 0x2_0000, 7, 0, 0, 0]),
        (11, [STUB, 0x2_0000, 0, 0, 0, 0]),
        (11, [SLOTS, 0x800_0000, 0, 0, 0, 0]),
        (11, [STACKS, 0x4000_0000, 0, 0, 0, 0]),
        (25, [SLOTS, 0, 0x800_0000, 3, 0x6000_0000_0000, 0]),
        (28, [SLOTS, 0x800_0000, 9, 0, 0, 0]),
        (28, [SLOTS, 0x800_0000, 11, 0, 0, 0]),
        (15, [0; 6]),
        (56, [fork, 0, 0, 0, 0, 0]),
        (56, [fork, 0x1000, 0, 0, 0, 0]),
        (56, [thread, 0, 0, 0, 0, 0]),
        (56, [thread, 0x1000, 0, 0, 0, 0]),
        (60, [1, 0, 0, 0, 0, 0]),
        (231, [1, 0, 0, 0, 0, 0]),
        (131, [guest::DATA, 0, 0, 0, 0, 0]),
        (180, [0, 0, 0, 0, 0, 0]),
        (180, [1, 0, 0, 0, 0, 0]),
        (180, [1, u64::MAX, 0, 0, 0, 0]),
        (180, [0, u64::MAX, u64::MAX, 0, 0, 0]),
        (33, [0, 1, 0, 0, 0, 0]),
        (33, [1, 0, 0, 0, 0, 0]),
        (33, [1, 5, 0, 0, 0, 0]),
        (44, [0, SLOTS, 24, 0x4000, 0, 0]),
        (44, [0, STUB, 24, 0x4000, 0, 0]),
        (44, [0, guest::DATA, 24, 0x4000, 0, 0]),
        (47, [1, SLOTS, 0, 0, 0, 0]),
        (47, [1, guest::DATA, 0, 0, 0, 0]),
        (3, [0, 0, 0, 0, 0, 0]),
        (3, [1, 0, 0, 0, 0, 0]),
        (202, [SLOTS, 0, 0, 0, 0, 0]),
        (202, [SLOTS + 0x150, 1, u64::MAX, 0, 0, 0]),
        (324, [32, 0, 0, 0, 0, 0]),
        (334, [guest::DATA, 32, 0, 0, 0, 0]),
        (3, [3, 0, 0, 0, 0, 0]),
    ];
    for (number, args) in calls {
        let task = machine.load(Program::Getpid);
        task.set(|regs| {
            (regs.rip, regs.rax, regs.rsp) = (site, *number, guest::STACK);
            (regs.rdi, regs.rsi, regs.rdx) = (args[0], args[1], args[2]);
            (regs.r10, regs.r8, regs.r9) = (args[3], args[4], args[5]);
        });
        task.context.resume(&[]);
        for _ in 0..3 {
            match task.events.recv_timeout(Duration::from_millis(30)) {
                Err(_) | Ok(Event::Exited { .. }) => break,
                Ok(_) => task.context.resume(&[]),
            }
        }
        task.context.address_space().kill();
        // Whatever came of it, another process goes on.
        victim.set(|regs| regs.rip = guest::address(Program::Getpid));
        victim.go(39);
        victim.reply(*number, 39);
    }
    victim.end();
}
