//! A platform with its serving thread, and guest threads that a test drives step by step.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use sentry_platform::{Context, ContextOwner, Event, HostCall, Nursery, PatchPermit, Platform};
use syscalls::UserAddr;

use super::guest;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A platform that a thread serves.
pub(crate) struct Machine {
    pub(crate) platform: Arc<dyn Platform>,
}

/// A guest thread whose events the test takes one by one.
pub(crate) struct Task {
    pub(crate) context: Arc<dyn Context>,
    pub(crate) events: Receiver<Event>,
    owner: Arc<Forward>,
}

/// Hands every event to the test.
struct Forward {
    events: Mutex<Sender<Event>>,
}

impl ContextOwner for Forward {
    fn on_event(self: Arc<Self>, event: Event) {
        // A test that has finished wants no more events.
        let _ = self.events.lock().unwrap().send(event);
    }
}

fn forward() -> (Arc<Forward>, Receiver<Event>) {
    let (sender, receiver) = mpsc::channel();
    (Arc::new(Forward { events: Mutex::new(sender) }), receiver)
}

/// A mapping of fresh memory.
pub(crate) fn map(addr: u64, len: u64, prot: i32) -> HostCall {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    HostCall::Mmap { addr, len, prot, flags, file: None, offset: 0 }
}

impl Machine {
    /// Starts the thread that serves `platform` until its shutdown.
    pub(crate) fn start(platform: Arc<dyn Platform>) -> (Self, JoinHandle<()>) {
        let server = Arc::clone(&platform);
        (Self { platform }, std::thread::spawn(move || server.serve()))
    }

    /// Makes an address space with the guest's code and a stack, ready to run `program`.
    pub(crate) fn load(&self, program: guest::Program) -> Task {
        let (owner, events) = forward();
        let context = self.platform.create(owner.clone()).unwrap();
        let task = Task { context, events, owner };
        self.fill(&task.context);
        task.enter(program);
        task
    }

    /// As [`Machine::load`], in a process of a nursery's.
    pub(crate) fn load_from(&self, nursery: &dyn Nursery, program: guest::Program) -> Task {
        let (owner, events) = forward();
        let context = nursery.create(owner.clone()).unwrap();
        let task = Task { context, events, owner };
        self.fill(&task.context);
        task.enter(program);
        task
    }

    /// Maps and fills what the guest programs expect, and sets the stack pointer.
    pub(crate) fn fill(&self, context: &Arc<dyn Context>) {
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let data = libc::PROT_READ | libc::PROT_WRITE;
        let code = guest::code();
        let calls = [map(guest::CODE, 0x4000, all), map(guest::DATA, 0x20000, data)];
        context.call_now(&calls).unwrap();
        let space = context.address_space();
        assert_eq!(space.write(UserAddr(guest::CODE), code), Ok(code.len()));
    }
}

impl Task {
    /// Returns the owner, without keeping it.
    pub(crate) fn owner(&self) -> Weak<dyn ContextOwner> {
        let owner: Arc<dyn ContextOwner> = self.owner.clone();
        Arc::downgrade(&owner)
    }

    /// Points the context at a program.
    pub(crate) fn enter(&self, program: guest::Program) {
        self.set(|regs| {
            regs.rip = guest::address(program);
            regs.rsp = guest::STACK;
        });
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut syscalls::arch::x86_64::Regs)) {
        let mut regs = self.context.regs();
        change(&mut regs);
        self.context.set_regs(&regs);
    }

    /// Waits for the next event.
    pub(crate) fn next(&self) -> Event {
        let event = self.events.recv_timeout(PATIENCE).expect("an event");
        if event == Event::Syscall
            && let Some(wish) = self.context.wants_patch()
        {
            let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let room = wish.needs_room.then_some(guest::ROOM);
            self.context.patch(Some(&PatchPermit { prot, room }));
        }
        event
    }

    /// Lets the context go on and waits for the next event.
    pub(crate) fn run(&self) -> Event {
        self.context.resume(&[]);
        self.next()
    }

    /// Waits for a system call with this number; returns its arguments.
    #[track_caller]
    pub(crate) fn syscall(&self, number: u64) -> [u64; 6] {
        let event = self.next();
        assert_eq!(event, Event::Syscall, "{:x?}", self.context.regs());
        let args = self.context.syscall();
        assert_eq!(args.number, number, "{args:x?} {:x?}", self.context.regs());
        args.args
    }

    /// Lets the context go on with this result and waits for the next system call.
    #[track_caller]
    pub(crate) fn reply(&self, value: u64, number: u64) -> [u64; 6] {
        self.context.set_return(value);
        self.context.resume(&[]);
        self.syscall(number)
    }

    /// Lets the context go on to its first system call.
    #[track_caller]
    pub(crate) fn go(&self, number: u64) -> [u64; 6] {
        self.context.resume(&[]);
        self.syscall(number)
    }

    /// Makes host calls and returns their results.
    #[track_caller]
    pub(crate) fn host(&self, calls: &[HostCall]) -> sentry_platform::HostCallResults {
        self.context.start_host_calls(calls);
        assert_eq!(self.next(), Event::HostCallsDone);
        self.context.host_call_results()
    }

    /// Prepares a child process.
    pub(crate) fn fork(&self) -> Task {
        self.try_fork().unwrap()
    }

    /// Prepares a child process, unless the platform refuses.
    pub(crate) fn try_fork(&self) -> Option<Task> {
        let (owner, events) = forward();
        let context = self.context.fork(owner.clone()).ok()?;
        Some(Task { context, events, owner })
    }

    /// Makes `event` come again.
    pub(crate) fn put_back(&self, event: Event) {
        self.owner.clone().on_event(event);
    }

    /// Prepares a further thread.
    pub(crate) fn thread(&self) -> Task {
        let (owner, events) = forward();
        let context = self.context.clone_thread(owner.clone()).unwrap();
        Task { context, events, owner }
    }

    /// Ends the context and waits until it is gone.
    #[track_caller]
    pub(crate) fn end(&self) {
        self.context.exit();
        assert_eq!(self.next(), Event::Exited { signal: 0 });
    }

    /// Reads a word of guest memory.
    pub(crate) fn word(&self, addr: u64) -> u64 {
        let mut bytes = [0; 8];
        let space = self.context.address_space();
        assert_eq!(space.read(UserAddr(addr), &mut bytes), Ok(8));
        u64::from_le_bytes(bytes)
    }

    /// Writes a word of guest memory.
    pub(crate) fn put(&self, addr: u64, value: u64) {
        let space = self.context.address_space();
        assert_eq!(space.write(UserAddr(addr), &value.to_le_bytes()), Ok(8));
    }
}
