//! What every platform must do.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sentry_platform::vdso::Image;
use sentry_platform::{Context, ContextOwner, Event, HostCall, Work};
use syscalls::{Errno, UserAddr};

use super::guest::{self, DATA, Program, STACK};
use super::machine::{Machine, Task, map};

pub(crate) const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

pub(crate) fn system_calls_show_and_restore_all_registers(machine: &Machine) {
    let task = machine.load(Program::AllRegisters);
    let args = task.go(1000);
    assert_eq!(args, [0x1005, 0x1004, 0x1003, 0x100a, 0x1008, 0x1009]);
    let regs = task.context.regs();
    assert_eq!(
        [regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15],
        [0x1001, 0x1006, 0x100c, 0x100d, 0x100e, 0x100f]
    );
    assert_eq!((regs.orig_rax, regs.rsp, regs.rcx), (1000, STACK, regs.rip));

    // Into a program that calls with everything as it was set, `rcx` and `r11` included.
    let mut all = regs;
    let site = guest::address(Program::Load);
    all.rip = site;
    all.rdi = DATA;
    (all.rcx, all.r11, all.rbx, all.rsp) = (0x11, 0x22, 0x33, STACK - 0x100);
    (all.fs_base, all.gs_base) = (0x1234_5000, 0x5678_9000);
    task.put(DATA, 77);
    task.context.set_regs(&all);
    task.go(1001);
    let seen = task.context.regs();
    assert_eq!((seen.rbx, seen.rsp, seen.rdi), (0x33, STACK - 0x100, DATA));
    assert_eq!((seen.fs_base, seen.gs_base), (0x1234_5000, 0x5678_9000));

    all.rip = guest::address(Program::Breakpoint);
    task.context.set_regs(&all);
    assert!(matches!(task.run(), Event::Fault(_)));
    let seen = task.context.regs();
    assert_eq!((seen.rcx, seen.r11, seen.rax, seen.orig_rax), (0x11, 0x22, all.rax, u64::MAX));
    task.end();
}

pub(crate) fn nurseries_make_processes(machine: &Machine) {
    let nurseries: Vec<_> = (0..40).map(|_| machine.platform.nursery().unwrap()).collect();
    let pids: Vec<_> = nurseries.iter().map(|nursery| nursery.host_pid().unwrap()).collect();
    assert!(pids.iter().all(|pid| pids.iter().filter(|other| *other == pid).count() == 1));
    for nursery in &nurseries {
        for _ in 0..2 {
            let task = machine.load_from(&**nursery, Program::Call);
            task.go(0);
            task.reply(1000, 1000);
            task.end();
        }
    }
    let task = machine.load_from(&*nurseries[0], Program::Call);
    drop(nurseries);
    // What it has made does not end with it.
    task.go(0);
    task.end();
}

pub(crate) fn results_reach_the_application(machine: &Machine) {
    let task = machine.load(Program::Call);
    task.set(|regs| regs.rax = 39);
    task.go(39);
    for number in 1000..1100 {
        task.reply(number, number);
    }
    // The host must not take these for restarts of its own.
    for errno in [512u64, 513, 514, 516] {
        task.context.set_return(errno.wrapping_neg());
        task.context.resume(&[]);
        assert_eq!(task.next(), Event::Syscall);
        assert_eq!(task.context.syscall().number, errno.wrapping_neg() & 0xffff_ffff);
    }
    task.end();
}

pub(crate) fn memory_is_read_and_written(machine: &Machine) {
    let task = machine.load(Program::Store);
    task.set(|regs| (regs.rdi, regs.rsi) = (DATA + 8, 0x1122_3344_5566));
    task.go(1001);
    assert_eq!(task.word(DATA + 8), 0x1122_3344_5566);

    let space = task.context.address_space();
    let mut bytes = vec![0; 0x4000];
    // Up to the end of the mapping, and not beyond.
    assert_eq!(space.read(UserAddr(DATA + 0x1f000), &mut bytes), Ok(0x1000));
    assert_eq!(space.write(UserAddr(DATA + 0x1f000), &bytes), Ok(0x1000));
    assert_eq!(space.read(UserAddr(0x1000), &mut bytes), Err(Errno::EFAULT));
    assert_eq!(space.write(UserAddr(0x1000), &bytes), Err(Errno::EFAULT));
    for addr in [sentry_platform::USER_ADDRESS_LIMIT, 1 << 63, u64::MAX - 8] {
        assert_eq!(space.read(UserAddr(addr), &mut bytes), Err(Errno::EFAULT));
        assert_eq!(space.write(UserAddr(addr), &bytes), Err(Errno::EFAULT));
    }
    let read_only = HostCall::Mprotect { addr: DATA, len: 0x1000, prot: libc::PROT_READ };
    task.host(&[read_only]);
    assert_eq!(space.write(UserAddr(DATA), &[1]), Err(Errno::EFAULT));
    assert_eq!(space.read(UserAddr(DATA), &mut bytes[..1]), Ok(1));
    assert_eq!(task.context.write(UserAddr(DATA + 0x1000), &[1, 2]), Ok(2));
    assert_eq!(task.context.read(UserAddr(DATA + 0x1000), &mut bytes[..2]), Ok(2));
    assert_eq!(bytes[..2], [1, 2]);
    task.end();
}

/// Makes a file with some content.
pub(crate) fn file(content: &[u8]) -> Arc<OwnedFd> {
    use std::io::{Seek, Write};
    use std::sync::atomic::AtomicU32;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("platform-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let mut options = std::fs::File::options();
    let mut file = options.read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    Arc::new(file.into())
}

pub(crate) fn host_calls_change_the_address_space(machine: &Machine) {
    let task = machine.load(Program::Getpid);
    task.go(39);
    let fd = file(&[b'x'; 0x3000]);
    let mmap = |addr, offset| HostCall::Mmap {
        addr,
        len: 0x2000,
        prot: RW,
        flags: libc::MAP_PRIVATE,
        file: Some(Arc::clone(&fd)),
        offset,
    };
    let a = 0x2000_0000;
    let results = task.host(&[mmap(a, 0), mmap(a + 0x2000, 0x1000), map(a + 0x4000, 0x1000, RW)]);
    assert_eq!(results.values, [Ok(a), Ok(a + 0x2000), Ok(a + 0x4000)]);
    assert_eq!(task.word(a + 0x3ff8), u64::from_le_bytes([b'x'; 8]));
    assert_eq!(task.word(a + 0x4000), 0);

    // A change to a private mapping stays there; one that was given back is fresh.
    task.put(a, 1);
    let results = task.host(&[HostCall::Munmap { addr: a, len: 0x2000 }, mmap(a, 0)]);
    assert_eq!(results.values, [Ok(0), Ok(a)]);
    assert_eq!(task.word(a), u64::from_le_bytes([b'x'; 8]));

    let moved = HostCall::Mremap {
        addr: a + 0x4000,
        old_len: 0x1000,
        new_len: 0x2000,
        new_addr: a + 0x10000,
        flags: 0,
    };
    task.put(a + 0x4008, 9);
    assert_eq!(task.host(&[moved]).values, [Ok(a + 0x10000)]);
    assert_eq!(task.word(a + 0x10008), 9);
    let results = task.host(&[
        HostCall::Mincore { addr: a + 0x10000, len: 0x2000 },
        HostCall::Madvise { addr: a + 0x10000, len: 0x1000, advice: libc::MADV_DONTNEED },
        HostCall::Msync { addr: a, len: 0x1000, flags: libc::MS_ASYNC },
    ]);
    assert_eq!(results.values, [Ok(0), Ok(0), Ok(0)]);
    assert_eq!(results.data, [1, 0]);
    assert_eq!(task.word(a + 0x10008), 0);

    // Calls after one that failed are not made.
    let bad = HostCall::Mprotect { addr: 0x3000_0000, len: 0x1000, prot: RW };
    let results = task.host(&[bad.clone(), HostCall::Munmap { addr: DATA, len: 0x20000 }]);
    assert_eq!(results.values, [Err(Errno::ENOMEM)]);
    task.context.resume(&[map(a, 0x1000, RW), bad]);
    let failed = Event::HostCallFailed { index: 1, errno: Errno::ENOMEM };
    assert_eq!(task.next(), failed);
    task.context.resume(&[map(a, 0x1000, RW)]);
    task.syscall(39);
    assert_eq!(task.word(a), 0);
    task.end();
}

pub(crate) fn host_calls_cannot_reach_beyond_the_application(machine: &Machine) {
    let task = machine.load(Program::Getpid);
    task.go(39);
    let limit = sentry_platform::USER_ADDRESS_LIMIT;
    for addr in [limit, limit - 0x1000, 0x7e80_0000_0000, 0u64.wrapping_sub(0x1000)] {
        let result = task.host(&[HostCall::Munmap { addr, len: 0x2000 }]);
        assert!(result.values.iter().all(Result::is_err), "{addr:#x} {result:?}");
    }
    task.reply(0, 39);
    task.end();
}

pub(crate) fn atomic_operations(machine: &Machine) {
    let task = machine.load(Program::Increment);
    task.set(|regs| regs.rdi = DATA);
    task.go(1005);
    assert_eq!(task.word(DATA), 1_000_000);
    let results = task.host(&[
        HostCall::AtomicUpdate { addr: DATA, and: 0, xor: 12, add: false },
        HostCall::AtomicUpdate { addr: DATA, and: !4, xor: 3, add: false },
        HostCall::AtomicUpdate { addr: DATA, and: !0, xor: 5, add: true },
        HostCall::CompareExchange { addr: DATA, old: 1, new: 2 },
        HostCall::CompareExchange { addr: DATA, old: 16, new: 2 },
    ]);
    assert_eq!(results.values, [Ok(1_000_000), Ok(12), Ok(11), Ok(16), Ok(16)]);
    assert_eq!(task.word(DATA), 2);
    for call in [
        HostCall::AtomicUpdate { addr: 0x1000, and: 0, xor: 12, add: false },
        HostCall::CompareExchange { addr: 0x1000, old: 16, new: 2 },
    ] {
        assert_eq!(task.host(&[call]).values, [Err(Errno::EFAULT)]);
    }
    task.end();
}

pub(crate) fn processes_are_copies(machine: &Machine) {
    let parent = machine.load(Program::Store);
    parent.set(|regs| (regs.rdi, regs.rsi) = (DATA, 1));
    parent.go(1001);
    let child = parent.fork();
    let mut regs = parent.context.regs();
    (regs.rip, regs.rsi, regs.rbx) = (guest::address(Program::Store), 2, 42);
    child.context.set_regs(&regs);
    assert_eq!(child.context.write(UserAddr(DATA + 16), &7u64.to_le_bytes()), Ok(8));
    child.context.resume(&[]);
    parent.set(|regs| (regs.rip, regs.rsi) = (guest::address(Program::Store), 3));
    parent.go(1001);
    child.syscall(1001);
    assert_eq!(child.context.regs().rbx, 42);
    assert_eq!((parent.word(DATA), parent.word(DATA + 16)), (3, 0));
    assert_eq!((child.word(DATA), child.word(DATA + 16)), (2, 7));

    // The child outlives its parent, and has children itself, resumed after they were born.
    parent.end();
    let grandchild = child.fork();
    child.set(|regs| regs.rip = guest::address(Program::Getpid));
    child.go(39);
    grandchild.set(|regs| regs.rip = guest::address(Program::Getpid));
    grandchild.go(39);
    grandchild.reply(1, 39);
    grandchild.end();
    child.end();
}

pub(crate) fn threads_share_memory(machine: &Machine) {
    let leader = machine.load(Program::Getpid);
    leader.go(39);
    let others: Vec<Task> = (0..4)
        .map(|i| {
            let task = leader.thread();
            let mut regs = leader.context.regs();
            regs.rip = guest::address(Program::Increment);
            (regs.rdi, regs.rsp, regs.fs_base) = (DATA, STACK + 0x1000 * i, 0x1000 * (i + 1));
            task.context.set_regs(&regs);
            task.context.resume(&[]);
            task
        })
        .collect();
    leader.reply(0, 39);
    for (i, task) in (0..).zip(&others) {
        task.syscall(1005);
        assert_eq!(task.context.regs().fs_base, 0x1000 * (i + 1));
        assert!(Arc::ptr_eq(&task.context.address_space(), &leader.context.address_space()));
    }
    assert_eq!(leader.word(DATA), 4_000_000);
    // The leader may end first, as Linux allows; the last one takes the process along.
    leader.end();
    let space = others[0].context.address_space();
    for task in &others {
        task.set(|regs| regs.rip = guest::address(Program::Getpid));
        task.go(39);
        task.end();
    }
    let gone_by = Instant::now() + Duration::from_secs(10);
    while space.read(UserAddr(DATA), &mut [0]) != Err(Errno::ESRCH) {
        assert!(Instant::now() < gone_by);
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn births_need_no_resume_of_the_parent(machine: &Machine) {
    // vfork: the parent stays stopped.
    let parent = machine.load(Program::Getpid);
    parent.go(39);
    let child = parent.thread();
    child.context.resume(&[]);
    assert!(parent.host(&[]).values.is_empty());
    child.syscall(39);
    child.end();
    parent.reply(1, 39);
    parent.end();
}

pub(crate) fn exceptions_are_reported(machine: &Machine) {
    let task = machine.load(Program::Load);
    let expect = |program, addr: u64, signo, code, rip: u64, fault_addr| {
        task.set(|regs| (regs.rip, regs.rdi) = (guest::address(program), addr));
        let Event::Fault(fault) = task.run() else { panic!("no fault") };
        assert_eq!((fault.signo, fault.code, fault.addr), (signo, code, fault_addr), "{program:?}");
        assert_eq!(task.context.regs().rip, guest::address(program) + rip, "{program:?}");
        assert_eq!(task.context.regs().orig_rax, u64::MAX);
    };
    let ud2 = guest::address(Program::Undefined);
    let div = guest::address(Program::Divide) + 9;
    expect(Program::Load, 0x10, libc::SIGSEGV, 1, 0, 0x10);
    expect(Program::Store, DATA + 0x20000, libc::SIGSEGV, 1, 0, DATA + 0x20000);
    expect(Program::Load, 1 << 63, libc::SIGSEGV, 128, 0, 0);
    expect(Program::Undefined, 0, libc::SIGILL, 2, 0, ud2);
    expect(Program::Divide, 0, libc::SIGFPE, 1, 9, div);
    expect(Program::Breakpoint, 0, libc::SIGTRAP, 128, 1, 0);
    expect(Program::Privileged, 0, libc::SIGSEGV, 128, 0, 0);

    // A protection fault that is repaired goes on as if nothing had been.
    let protect = |prot| HostCall::Mprotect { addr: DATA, len: 0x1000, prot };
    task.host(&[protect(libc::PROT_READ)]);
    task.set(|regs| {
        (regs.rip, regs.rdi, regs.rsi) = (guest::address(Program::Store), DATA, 5);
    });
    let Event::Fault(fault) = task.run() else { panic!("no fault") };
    assert_eq!((fault.signo, fault.code, fault.addr), (libc::SIGSEGV, 2, DATA));
    task.context.resume(&[protect(RW)]);
    task.syscall(1001);
    assert_eq!(task.word(DATA), 5);
    // An instruction pointer that no processor takes.
    task.set(|regs| regs.rip = 1 << 62);
    let Event::Fault(fault) = task.run() else { panic!("no fault") };
    assert_eq!(fault.signo, libc::SIGSEGV);
    task.end();
}

pub(crate) fn foreign_entries_do_not_reach_the_host(machine: &Machine) {
    let task = machine.load(Program::Int80);
    let event = task.run();
    let Event::Fault(fault) = event else { panic!("{event:?}") };
    assert_eq!((fault.signo, fault.addr), (libc::SIGSEGV, 0));
    let regs = task.context.regs();
    assert_eq!(regs.rip, guest::address(Program::Int80) + 15);
    assert_eq!((regs.rax, regs.rbx, regs.rcx), (1, 7, 0x55));
    task.set(|regs| regs.rip = guest::address(Program::X32));
    task.go(0x4000_0027);
    task.end();
}

pub(crate) fn a_spinning_context_is_interrupted(machine: &Machine) {
    let task = machine.load(Program::Spin);
    let mut last = 0;
    for i in 0..5_000u64 {
        task.context.resume(&[]);
        if i % 7 == 0 {
            // Long enough to be under way most times.
            std::thread::sleep(Duration::from_micros(i % 50));
        }
        task.context.interrupt();
        assert_eq!(task.next(), Event::Interrupted);
        let regs = task.context.regs();
        assert!(regs.rbx >= last && regs.orig_rax == u64::MAX);
        last = regs.rbx;
    }
    assert_ne!(last, 0);
    task.end();
}

/// Serves getpid as fast as it can and counts interrupts.
struct Server {
    context: std::sync::OnceLock<Arc<dyn Context>>,
    n_syscalls: AtomicU64,
    n_interrupts: AtomicU64,
    end: std::sync::Mutex<mpsc::Sender<Event>>,
}

impl ContextOwner for Server {
    fn on_event(self: Arc<Self>, event: Event) {
        let Some(context) = self.context.get() else { return };
        match event {
            Event::Syscall => {
                self.n_syscalls.fetch_add(1, Ordering::SeqCst);
                context.set_return(1);
                context.resume(&[]);
            }
            Event::Interrupted => {
                self.n_interrupts.fetch_add(1, Ordering::SeqCst);
                context.resume(&[]);
            }
            other => self.end.lock().unwrap().send(other).unwrap(),
        }
    }
}

struct Resume(Arc<dyn Context>);

impl Work for Resume {
    fn run(self: Arc<Self>) {
        self.0.resume(&[]);
    }
}

fn serve(machine: &Machine, program: Program) -> (Arc<Server>, mpsc::Receiver<Event>) {
    let (sender, receiver) = mpsc::channel();
    let server = Arc::new(Server {
        context: std::sync::OnceLock::new(),
        n_syscalls: AtomicU64::new(0),
        n_interrupts: AtomicU64::new(0),
        end: std::sync::Mutex::new(sender),
    });
    let context = machine.platform.create(server.clone()).unwrap();
    machine.fill(&context);
    let mut regs = context.regs();
    (regs.rip, regs.rsp) = (guest::address(program), STACK);
    context.set_regs(&regs);
    assert!(server.context.set(context.clone()).is_ok());
    machine.platform.submit(Arc::new(Resume(context)));
    (server, receiver)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

pub(crate) fn interrupts_of_a_busy_context_are_not_lost(machine: &Machine) {
    let (server, end) = serve(machine, Program::Getpid);
    let context = server.context.get().unwrap();
    for _ in 0..2_000 {
        // Each interrupt is followed by an event of whatever kind.
        let before = server.n_syscalls.load(Ordering::SeqCst);
        context.interrupt();
        wait_until("an event", || server.n_syscalls.load(Ordering::SeqCst) > before);
    }
    // Interrupted at the end, when it spins: exactly the ones that stay.
    context.address_space().kill();
    assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(Event::Exited { signal: 9 }));
}

pub(crate) fn interrupts_from_several_threads_arrive(machine: &Machine) {
    let (server, end) = serve(machine, Program::Spin);
    let context = server.context.get().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    let before = server.n_interrupts.load(Ordering::SeqCst);
                    context.interrupt();
                    wait_until("an interrupt", || {
                        server.n_interrupts.load(Ordering::SeqCst) > before
                    });
                }
            });
        }
    });
    context.address_space().kill();
    assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(Event::Exited { signal: 9 }));
}

pub(crate) fn killing_ends_every_thread(machine: &Machine) {
    let leader = machine.load(Program::Getpid);
    leader.go(39);
    let spinning = leader.thread();
    spinning.set(|regs| regs.rip = guest::address(Program::Spin));
    spinning.context.resume(&[]);
    let stopped = leader.thread();
    stopped.context.resume(&[]);
    leader.reply(0, 39);
    stopped.syscall(39);
    let space = leader.context.address_space();
    space.kill();
    space.kill();
    for task in [&leader, &spinning, &stopped] {
        assert_eq!(task.next(), Event::Exited { signal: 9 });
    }
    assert_eq!(space.read(UserAddr(DATA), &mut [0]), Err(Errno::ESRCH));
    // Nothing that comes late does harm.
    leader.context.resume(&[]);
    leader.context.interrupt();
    leader.context.exit();
    assert!(leader.context.fork(NoOwner::new()).is_err());
}

/// Wants no events.
pub(crate) struct NoOwner;

impl NoOwner {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl ContextOwner for NoOwner {
    fn on_event(self: Arc<Self>, _event: Event) {}
}

pub(crate) fn extended_state_survives_a_signal_frame(machine: &Machine) {
    let task = machine.load(Program::Vectors);
    let (vectors, frame) = (DATA, DATA + 0x4000);
    for i in 0..4 {
        task.put(vectors + 8 * i, 0x0101_0101_0101_0101 * (i + 1));
    }
    task.set(|regs| regs.rdi = vectors);
    task.go(1002);
    task.context.save_xstate(UserAddr(frame)).unwrap();
    task.host(&[]);
    let layout = machine.platform.xsave_layout();
    // x87 and SSE at least, with the legacy region in its place and both magic numbers.
    assert_eq!(layout.features & 3, 3);
    assert_eq!(task.word(frame + 160), 0x0101_0101_0101_0101);
    assert_eq!(task.word(frame + 464) & 0xffff_ffff, 0x4650_5853);
    assert_eq!(task.word(frame + 472), layout.features);
    let end = frame + u64::from(layout.size);
    assert_eq!(task.word(end) & 0xffff_ffff, 0x4650_5845);

    // The initial state, and then the saved one again.
    task.context.restore_xstate(UserAddr::NULL).unwrap();
    let again = task.context.regs();
    task.reply(0, 1003);
    assert_eq!([task.word(vectors), task.word(vectors + 16)], [0, 0]);
    task.context.set_regs(&again);
    task.context.restore_xstate(UserAddr(frame)).unwrap();
    task.reply(0, 1003);
    for i in 0..4 {
        assert_eq!(task.word(vectors + 8 * i), 0x0101_0101_0101_0101 * (i + 1));
    }
    assert_eq!(f64::from_bits(task.word(vectors + 32)), 1.0);
    assert_eq!(f64::from_bits(task.word(vectors + 40)), 0.0);

    // What the frame says is what the application gets.
    task.put(frame + 160, 99);
    task.context.set_regs(&again);
    task.context.restore_xstate(UserAddr(frame)).unwrap();
    task.reply(0, 1003);
    assert_eq!(task.word(vectors), 99);
    task.end();
}

pub(crate) fn many_processes_come_and_go(machine: &Machine) {
    let parent = machine.load(Program::Getpid);
    parent.go(39);
    for _ in 0..200 {
        let child = parent.fork();
        child.context.resume(&[]);
        parent.reply(1, 39);
        child.syscall(39);
        child.end();
    }
    parent.end();
}

pub(crate) fn nothing_is_kept_of_what_has_ended(machine: &Machine) {
    let task = machine.load(Program::Getpid);
    task.go(39);
    let owner = task.owner();
    let context = Arc::downgrade(&task.context);
    task.end();
    drop(task);
    let deadline = Instant::now() + Duration::from_secs(20);
    while owner.strong_count() + context.strong_count() != 0 {
        assert!(Instant::now() < deadline, "{} {}", owner.strong_count(), context.strong_count());
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn the_vdso_tells_the_time(machine: &Machine) {
    let image = machine.platform.vdso().to_vec();
    assert_eq!(image.len() % 4096, 0);
    let Some(entry) = Image::new(image.clone()).symbol("__vdso_clock_gettime") else {
        panic!("no __vdso_clock_gettime");
    };
    let task = machine.load(Program::Function);
    let base = 0x5000_0000;
    let len = u64::try_from(image.len()).unwrap();
    task.context.call_now(&[map(base, len, RW)]).unwrap();
    let space = task.context.address_space();
    assert_eq!(space.write(UserAddr(base), &image), Ok(image.len()));
    let prot = libc::PROT_READ | libc::PROT_EXEC;
    task.context.call_now(&[HostCall::Mprotect { addr: base, len, prot }]).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    task.set(|regs| (regs.rbx, regs.rdi, regs.rsi) = (base + entry, 0, DATA));
    task.context.resume(&[]);
    assert_eq!(task.next(), Event::Syscall);
    let args = task.context.syscall();
    if args.number == 228 {
        // A host without a vDSO, or a platform that serves the call.
        assert_eq!(args.args[..2], [0, DATA]);
    } else {
        assert_eq!((args.number, args.args[0]), (1004, 0));
        assert!(task.word(DATA).abs_diff(now.as_secs()) <= 1);
    }
    // A clock that no vDSO serves makes a system call that the sentry sees.
    task.set(|regs| {
        (regs.rip, regs.rbx) = (guest::address(Program::Function), base + entry);
        (regs.rdi, regs.rsi, regs.rsp) = (2, DATA, STACK);
    });
    assert_eq!(task.go(228)[..2], [2, DATA]);
    task.reply(5, 1004);
    assert_eq!(task.context.syscall().args[0], 5);
    task.end();
}

pub(crate) fn processor_time_passes(machine: &Machine) {
    let task = machine.load(Program::Spin);
    task.context.resume(&[]);
    wait_until("processor time", || task.context.address_space().cpu_time_ns().0 > 3_000_000);
    task.context.interrupt();
    assert_eq!(task.next(), Event::Interrupted);
    task.end();
}

pub(crate) fn a_site_that_is_used_again_keeps_working(machine: &Machine) {
    let task = machine.load(Program::AllRegisters);
    let program = guest::address(Program::AllRegisters);
    for round in 0..10 {
        task.set(|regs| {
            (regs.rip, regs.eflags) = (program, 0x202 | if round % 2 == 0 { 0xc1 } else { 0 });
        });
        let args = task.go(1000);
        assert_eq!(args, [0x1005, 0x1004, 0x1003, 0x100a, 0x1008, 0x1009]);
        let regs = task.context.regs();
        assert_eq!(
            [regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15],
            [0x1001, 0x1006, 0x100c, 0x100d, 0x100e, 0x100f]
        );
        assert_eq!((regs.orig_rax, regs.rsp, regs.rcx), (1000, STACK, regs.rip));
        assert_eq!((regs.rax, regs.r11), (Errno::ENOSYS.to_return(), regs.eflags));
        assert_eq!(regs.eflags & 0xc1 != 0, round % 2 == 0);
    }
    // A call that is to be made again is found at the instruction itself.
    task.set(|regs| (regs.rip, regs.rax) = (regs.rip - 2, 77));
    task.go(77);
    // Only the result changes, whatever the way back.
    task.set(|regs| regs.rip = guest::address(Program::Getpid));
    task.go(39);
    for round in 0..10 {
        task.set(|regs| (regs.rdi, regs.r15) = (round, round + 1));
        for result in 0..3 {
            task.reply(result, 39);
            let regs = task.context.regs();
            assert_eq!((regs.rdi, regs.r15), (round, round + 1));
        }
    }
    task.end();
}

pub(crate) fn a_segment_base_of_the_application_keeps_calls_working(machine: &Machine) {
    let task = machine.load(Program::Getpid);
    task.go(39);
    for gs_base in [0, 0x1234_5000, 0, DATA, 0x7dff_ffff_f000, 0] {
        for round in 0..4 {
            task.set(|regs| regs.gs_base = gs_base);
            task.reply(round, 39);
            assert_eq!(task.context.regs().gs_base, gs_base);
        }
    }
    task.end();
}

pub(crate) fn a_site_without_room_keeps_working(machine: &Machine) {
    let task = machine.load(Program::Read);
    let site = guest::address(Program::Read);
    task.go(0);
    let mut errors = 0;
    for round in 0..500u64 {
        assert_eq!((task.context.regs().rip, task.context.regs().rbx), (site + 4, errors));
        match round % 5 {
            0 => {
                errors += 1;
                task.reply(Errno::EBADF.to_return(), 0);
            }
            1 => task.set(|regs| (regs.rip, regs.rax) = (site + 2, 0)),
            2 => task.set(|regs| regs.rip = site),
            3 => {
                // From a process that is a copy, too.
                let child = task.fork();
                child.context.resume(&[]);
                task.reply(round, 0);
                child.syscall(0);
                assert_eq!(child.context.regs().rip, site + 4);
                child.reply(1, 0);
                child.end();
            }
            _ => task.set(|regs| (regs.rip, regs.rax) = (site + 4, 5)),
        }
        if matches!(round % 5, 1 | 2 | 4) {
            task.context.resume(&[]);
            task.syscall(0);
        }
    }
    task.end();
}

pub(crate) fn an_instruction_before_a_call_may_move(machine: &Machine) {
    let task = machine.load(Program::Constant);
    for round in 0..10 {
        task.context.resume(&[]);
        let args = task.syscall(1011);
        assert_eq!(args[2], 0x4321);
        assert_eq!(task.context.regs().rip, guest::address(Program::Constant) + 12);
        task.context.set_return(round);
    }
    task.end();
}

pub(crate) fn memory_of_arguments_is_what_it_is(machine: &Machine) {
    let task = machine.load(Program::Call);
    let read = |addr: u64, len: usize| {
        let mut bytes = vec![0; len];
        let n = task.context.read(UserAddr(addr), &mut bytes)?;
        bytes.truncate(n);
        Ok::<_, Errno>(bytes)
    };
    let end = DATA + 0x20000;
    for round in 0..4u64 {
        // write(1, DATA, 6), then open of a string that ends with its mapping.
        task.put(DATA, u64::from_le_bytes(*b"hello!..") + round);
        task.set(|regs| {
            (regs.rip, regs.rax) = (guest::address(Program::Call), 1);
            (regs.rdi, regs.rsi, regs.rdx) = (1, DATA, 6);
        });
        task.go(1);
        let first = b'h' + u8::try_from(round).unwrap();
        assert_eq!(read(DATA, 6), Ok([&[first][..], b"ello!"].concat()));
        assert_eq!(read(DATA + 1, 9), Ok(b"ello!..\0\0".to_vec()));
        // A result is seen at once, and by the application.
        assert_eq!(task.context.write(UserAddr(DATA + 2), b"LL"), Ok(2));
        assert_eq!(read(DATA, 6), Ok([&[first][..], b"eLLo!"].concat()));
        assert_eq!(task.context.write(UserAddr(DATA + 0x100), &[7; 300]), Ok(300));
        assert_eq!(task.context.write(UserAddr(DATA + 0x1000), &[8; 3000]), Ok(3000));
        task.put(end - 8, u64::from_le_bytes(*b"..path.\0"));
        task.set(|regs| {
            (regs.rip, regs.rax) = (guest::address(Program::Call), 2);
            (regs.rdi, regs.rsi) = (end - 6, 0);
        });
        task.go(2);
        assert_eq!(task.word(DATA + 0x100 + 288), u64::from_le_bytes([7; 8]));
        assert_eq!(task.word(DATA + 0x1000), u64::from_le_bytes([8; 8]));
        assert_eq!(read(end - 6, 6), Ok(b"path.\0".to_vec()));
        assert_eq!(read(end - 6, 64), Ok(b"path.\0".to_vec()));
        assert_eq!(read(end, 1), Err(Errno::EFAULT));
        // No string at all, and one without an end.
        for addr in [0x10, u64::MAX - 3, end - 2] {
            task.put(end - 8, u64::MAX);
            task.set(|regs| {
                (regs.rip, regs.rax, regs.rdi) = (guest::address(Program::Call), 2, addr);
            });
            task.go(2);
            let expected = if addr == end - 2 { Ok(vec![255; 2]) } else { Err(Errno::EFAULT) };
            assert_eq!(read(addr, 8), expected);
        }
    }
    task.end();
}

pub(crate) fn many_threads_wait_at_once(machine: &Machine) {
    let leader = machine.load(Program::Getpid);
    leader.go(39);
    let others: Vec<Task> = (0..200).map(|_| leader.thread()).collect();
    for task in &others {
        task.context.resume(&[]);
    }
    leader.reply(0, 39);
    for task in &others {
        task.syscall(39);
    }
    let fd = file(&[b'x'; 0x1000]);
    for round in 0..3 {
        for (i, task) in (0..).zip(&others) {
            task.reply(round, 39);
            if i % 10 == 0 {
                let at = 0x2000_0000;
                let mmap = HostCall::Mmap {
                    addr: at,
                    len: 0x1000,
                    prot: libc::PROT_READ,
                    flags: libc::MAP_PRIVATE,
                    file: Some(Arc::clone(&fd)),
                    offset: 0,
                };
                assert_eq!(task.host(&[mmap]).values, [Ok(at)]);
            }
        }
    }
    for task in &others {
        task.end();
    }
    leader.end();
}

pub(crate) fn newborns_may_be_interrupted(machine: &Machine) {
    let parent = machine.load(Program::Getpid);
    parent.go(39);
    for round in 0..100 {
        let child = if round % 2 == 0 { parent.fork() } else { parent.thread() };
        child.context.interrupt();
        child.set(|regs| regs.rip = guest::address(Program::Spin));
        child.context.resume(&[]);
        parent.context.set_return(1);
        parent.context.resume(&[]);
        child.context.interrupt();
        parent.syscall(39);
        assert_eq!(child.next(), Event::Interrupted);
        child.end();
    }
    parent.end();
}
