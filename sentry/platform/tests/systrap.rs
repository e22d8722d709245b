//! The systrap platform against the cases that all platforms share. One machine serves them all,
//! side by side.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

mod common;

use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use common::Machine;
use common::guest::{self, Program};
use sentry_platform::systrap::{Options, Systrap};
use sentry_platform::{ContextOwner, Event};

fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| Machine::start(Arc::new(Systrap::new(Options::default()).unwrap())))
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
