//! The tracer thread: waits for stops, hands them to the contexts, runs submitted work.
//!
//! Ptrace ties every traced thread to the one thread that attached to it, so everything that
//! touches a stopped context happens there. Calls from other threads are queued as [`Job`]s, and
//! the zygote doubles as the doorbell: a signal sent to it stops it, and that ends the tracer's
//! wait. A signal to the tracer itself could arrive between its last look at the queue and its
//! wait; a stopped tracee cannot be missed.
//!
//! Lock order: `queue`, `threads`, `stops`, `events` are leaves, and never held across a call of
//! an owner or of a context. `Space`'s and `Thread`'s locks are taken with none of them held.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::ThreadId;

use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult};
use zerocopy::IntoBytes;

use super::filter;
use super::stub::{self, Piece};
use super::sys::{self, Wait};
use super::thread::Thread;
use super::zygote::Zygote;
use crate::{Event, Work};

/// The signal number of a system call stop.
pub(super) const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
/// The code of a signal that the processor's `int3` raises.
const SI_KERNEL: i32 = 0x80;
/// The selectors of 64-bit user code and data.
const USER_CS: u64 = 0x33;
const USER_DS: u64 = 0x2b;
/// The flags that are always set: interrupts on, and the reserved one.
const USER_FLAGS: u64 = 0x202;

/// What other threads ask of the tracer.
pub(super) enum Job {
    /// An owner's work.
    Work(Arc<dyn Work>),
    /// A call that was made on another thread.
    Call(Box<dyn FnOnce() + Send>),
}

/// The state that all contexts of a platform share.
pub(super) struct Tracer {
    pub(super) zygote: Zygote,
    thread: OnceLock<ThreadId>,
    queue: Mutex<VecDeque<Job>>,
    /// Whether the tracer is about to wait, or waits, and so needs a kick.
    waiting: AtomicBool,
    closing: AtomicBool,
    /// No tracer serves any more; nothing is queued.
    closed: AtomicBool,
    /// The zygote is stopped for a reason of the tracer's: it goes on only when that is over, even
    /// where the host reports an old stop of it once more.
    is_zygote_held: AtomicBool,
    threads: Mutex<HashMap<i32, Arc<Thread>>>,
    /// Stops that were taken while the tracer waited for another thread.
    stops: Mutex<VecDeque<(i32, i32)>>,
    /// Events that came up while an owner was running.
    events: Mutex<VecDeque<(Arc<Thread>, Event)>>,
}

/// Locks a mutex; a panic ends the process, so none is ever poisoned.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns registers with which a thread can run a piece of the stub.
pub(super) fn user_regs() -> Regs {
    Regs { orig_rax: u64::MAX, cs: USER_CS, ss: USER_DS, eflags: USER_FLAGS, ..Regs::default() }
}

impl Tracer {
    pub(super) fn new(zygote: Zygote) -> Self {
        Self {
            zygote,
            thread: OnceLock::new(),
            queue: Mutex::default(),
            waiting: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            is_zygote_held: AtomicBool::new(false),
            threads: Mutex::default(),
            stops: Mutex::default(),
            events: Mutex::default(),
        }
    }

    /// Returns whether the caller is the tracer thread.
    pub(super) fn is_current(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// Queues a job.
    pub(super) fn post(&self, job: Job) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        lock(&self.queue).push_back(job);
        self.kick();
    }

    /// Ends the tracer's wait, if it waits.
    fn kick(&self) {
        if self.waiting.swap(false, Ordering::SeqCst) {
            // The zygote is reaped by the tracer alone, after which `closed` is set.
            let _ = sys::tgkill(self.zygote.pid, self.zygote.pid, sys::KICK_SIGNAL);
        }
    }

    /// Runs `f` on the tracer thread and returns its result, at once where that is the caller.
    ///
    /// # Errors
    /// `ESRCH` where the platform has been shut down.
    pub(super) fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> SysResult<T> + Send + 'static,
    ) -> SysResult<T> {
        if self.is_current() {
            return f();
        }
        let (sender, receiver) = mpsc::channel();
        // A receiver that has gone away wants no result.
        self.post(Job::Call(Box::new(move || drop(sender.send(f())))));
        receiver.recv().unwrap_or(Err(Errno::ESRCH))
    }

    /// Queues an event: owners are called from the main loop only.
    pub(super) fn push_event(&self, thread: Arc<Thread>, event: Event) {
        lock(&self.events).push_back((thread, event));
    }

    /// Adds a context whose host thread exists now.
    pub(super) fn register(&self, tid: i32, thread: Arc<Thread>) {
        lock(&self.threads).insert(tid, thread);
    }

    /// Asks the tracer to kill everything and to return.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Serves until [`Tracer::close`].
    pub(super) fn serve(&self) {
        if self.thread.set(std::thread::current().id()).is_err() {
            return;
        }
        if self.attach().is_err() {
            self.zygote.kill_untraced();
        } else {
            while !self.closing.load(Ordering::SeqCst) {
                self.work();
                self.wait();
            }
            self.end();
        }
        self.closed.store(true, Ordering::SeqCst);
        lock(&self.queue).clear();
        lock(&self.events).clear();
    }

    /// Attaches to the zygote and removes what the host gave it beyond the stub.
    fn attach(&self) -> SysResult<()> {
        let pid = self.zygote.pid;
        sys::seize(pid)?;
        self.with_zygote(|| {
            // It was to die with the thread that started it; from here on it dies with the tracer.
            let clear = [u64::try_from(libc::PR_SET_PDEATHSIG).unwrap_or(0), 0, 0, 0, 0, 0];
            self.host_call(pid, libc::SYS_prctl, clear)?;
            let (start, end) = self.zygote.stack;
            self.host_call(pid, libc::SYS_munmap, [start, end.saturating_sub(start), 0, 0, 0, 0])?;
            self.install_filter(pid)
        })
    }

    /// Installs the filter in the zygote, for itself and all its clones.
    fn install_filter(&self, pid: i32) -> SysResult<()> {
        let program = filter::program();
        // `struct sock_fprog`, and the program behind it.
        let mut page = [word(program.len() / 8), stub::DATA + 16].as_bytes().to_vec();
        page.extend_from_slice(&program);
        if sys::write_memory(pid, stub::DATA, &page)? != page.len() {
            return Err(Errno::EFAULT);
        }
        // SECCOMP_SET_MODE_FILTER
        self.host_call(pid, libc::SYS_seccomp, [1, 0, stub::DATA, 0, 0, 0])?;
        let zeroes = vec![0; page.len()];
        sys::write_memory(pid, stub::DATA, &zeroes).map(drop)
    }

    /// Runs `f` while the zygote is stopped.
    pub(super) fn with_zygote<T>(&self, f: impl FnOnce() -> SysResult<T>) -> SysResult<T> {
        let pid = self.zygote.pid;
        sys::interrupt(pid)?;
        // A kick may have been reported again instead, after which it runs.
        loop {
            self.wait_for(pid)?;
            if sys::regs(pid).is_ok() {
                break;
            }
        }
        self.is_zygote_held.store(true, Ordering::Relaxed);
        let result = f();
        self.is_zygote_held.store(false, Ordering::Relaxed);
        let idle = Regs { rip: stub::address(Piece::Idle), ..user_regs() };
        sys::set_regs(pid, &idle)?;
        sys::cont(pid)?;
        result
    }

    /// Handles everything that is there: events, jobs, stops.
    fn work(&self) {
        loop {
            if let Some((thread, event)) = pop(&self.events) {
                thread.deliver(event);
            } else if let Some((tid, status)) = pop(&self.stops) {
                let thread = lock(&self.threads).get(&tid).cloned();
                match thread {
                    Some(thread) => thread.on_stop(status),
                    None => kill_orphan(tid),
                }
            } else if let Some(job) = pop(&self.queue) {
                match job {
                    Job::Work(work) => work.run(),
                    Job::Call(call) => call(),
                }
            } else {
                return;
            }
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Takes all stops that there are, so that a busy thread cannot starve another one, and waits
    /// where there are none.
    fn wait(&self) {
        if self.take(None).is_some() {
            while self.take(None).is_some() {}
            return;
        }
        self.waiting.store(true, Ordering::SeqCst);
        let idle = lock(&self.queue).is_empty()
            && lock(&self.events).is_empty()
            && !self.closing.load(Ordering::SeqCst);
        if idle {
            // An interrupted wait is as good as another one.
            let _ = sys::wait_any();
        }
        self.waiting.store(false, Ordering::SeqCst);
    }

    /// Takes one stop or end, and puts it where it belongs unless it is a stop of `wanted`.
    fn take(&self, wanted: Option<i32>) -> Option<Wait> {
        let found = match sys::take_stop() {
            Ok(Some(found)) => found,
            _ => sys::peek_end().ok().flatten()?,
        };
        match found {
            Wait::Stopped { tid, .. } if Some(tid) == wanted => {}
            Wait::Stopped { tid, .. } if tid == self.zygote.pid => {
                // A kick. Where the zygote has been killed meanwhile, its end is seen next.
                if !self.is_zygote_held.load(Ordering::Relaxed) {
                    let _ = sys::cont(tid);
                }
            }
            Wait::Stopped { tid, status } => lock(&self.stops).push_back((tid, status)),
            Wait::Ended { tid, signal } => self.reap(tid, signal),
        }
        Some(found)
    }

    /// Waits for the next stop of one thread; returns its status.
    ///
    /// # Errors
    /// `ESRCH` where it ended instead.
    pub(super) fn wait_for(&self, tid: i32) -> SysResult<i32> {
        loop {
            match self.take(Some(tid)) {
                Some(Wait::Stopped { tid: found, status }) if found == tid => return Ok(status),
                Some(Wait::Ended { tid: found, .. }) if found == tid => return Err(Errno::ESRCH),
                Some(_) => {}
                None => match sys::wait_any() {
                    Ok(()) | Err(Errno::EINTR) => {}
                    Err(_) => return Err(Errno::ESRCH),
                },
            }
        }
    }

    /// Reaps an ended thread and tells its context.
    fn reap(&self, tid: i32, signal: i32) {
        let thread = lock(&self.threads).remove(&tid);
        lock(&self.stops).retain(|&(stopped, _)| stopped != tid);
        let reap = || {
            // It has just been seen ended, and nobody else reaps.
            let _ = sys::reap(tid);
        };
        match thread {
            Some(thread) => thread.on_end(signal, reap),
            None => reap(),
        }
        if tid == self.zygote.pid {
            self.closing.store(true, Ordering::SeqCst);
        }
    }

    /// Kills every process and reports the end of every context.
    fn end(&self) {
        let _ = sys::kill(self.zygote.pid, libc::SIGKILL);
        let threads: Vec<_> = lock(&self.threads).values().cloned().collect();
        for thread in threads {
            thread.kill_space();
        }
        loop {
            while self.take(None).is_some() {}
            while let Some((tid, _)) = pop(&self.stops) {
                kill_orphan(tid);
            }
            match sys::wait_any() {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        while let Some((thread, event)) = pop(&self.events) {
            if matches!(event, Event::Exited { .. }) {
                thread.deliver(event);
            }
        }
    }

    /// Forgets stops of a thread that is about to go on: the host sometimes reports one twice.
    pub(super) fn forget_stops(&self, tid: i32) {
        lock(&self.stops).retain(|&(stopped, _)| stopped != tid);
    }

    /// Makes a stopped thread run a piece of the stub with these registers, up to the trap at its
    /// end, and returns `rax`. The caller restores the thread's own registers.
    ///
    /// # Errors
    /// `ESRCH` where the thread ended, `EFAULT` where the piece faulted.
    pub(super) fn run_piece(&self, tid: i32, piece: Piece, regs: &Regs) -> SysResult<u64> {
        sys::set_regs(tid, &Regs { rip: stub::address(piece), ..*regs })?;
        self.forget_stops(tid);
        sys::cont(tid)?;
        loop {
            self.wait_for(tid)?;
            // What the thread stopped for is asked of the thread: a report may be an old one.
            match sys::siginfo(tid) {
                Ok(info) if info.signo == libc::SIGTRAP && info.code == SI_KERNEL => {
                    let regs = sys::regs(tid)?;
                    if stub::contains(regs.rip) {
                        return Ok(regs.rax);
                    }
                }
                Ok(info) if matches!(info.signo, libc::SIGSEGV | libc::SIGBUS) && info.code > 0 => {
                    return Err(Errno::EFAULT);
                }
                // It runs, or it is about to end, which is seen next.
                Err(Errno::ESRCH) => continue,
                // A signal from elsewhere. It is dropped; an interrupt is remembered in its flag.
                _ => {}
            }
            match sys::cont(tid) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Makes a stopped thread make a host call.
    ///
    /// # Errors
    /// The call's own, or `ESRCH` where the thread ended.
    pub(super) fn host_call(&self, tid: i32, number: i64, args: [u64; 6]) -> SysResult<u64> {
        let [rdi, rsi, rdx, r10, r8, r9] = args;
        let rax = u64::try_from(number).map_err(|_| Errno::ENOSYS)?;
        let regs = Regs { rax, rdi, rsi, rdx, r10, r8, r9, ..user_regs() };
        self.run_piece(tid, Piece::Syscall, &regs).and_then(Errno::from_return)
    }

    /// Clones a stopped thread; returns the new thread, stopped, or `None` where it has been killed
    /// already.
    pub(super) fn clone_host_thread(&self, tid: i32, flags: i32) -> SysResult<Option<i32>> {
        let flags = u64::try_from(flags | libc::CLONE_PTRACE).map_err(|_| Errno::EINVAL)?;
        let child = self.host_call(tid, libc::SYS_clone, [flags, 0, 0, 0, 0, 0])?;
        let child = i32::try_from(child).map_err(|_| Errno::EAGAIN)?;
        // It may have stopped before the call that made it returned.
        let mut stops = lock(&self.stops);
        let n_stops = stops.len();
        stops.retain(|&(stopped, _)| stopped != child);
        if stops.len() == n_stops {
            drop(stops);
            return Ok(self.wait_for(child).ok().map(|_| child));
        }
        Ok(Some(child))
    }

    /// Gives a file to the process of a stopped thread, as descriptor [`stub::FILE_FD`].
    ///
    /// The message header lies in memory that the application can scribble over while the call
    /// runs. That costs itself its file at most: the descriptor's number follows from the table,
    /// not from memory, and a message that was not received is thrown away here.
    pub(super) fn send_file(
        &self,
        tid: i32,
        space: &super::space::Space,
        fd: &impl AsFd,
    ) -> SysResult<()> {
        // `struct msghdr` with one byte of data at +64 and 24 bytes of control data at +128.
        let mut page = [0u64; 32];
        page[2] = stub::DATA + 56;
        page[3] = 1;
        page[4] = stub::DATA + 128;
        page[5] = 24;
        // `struct iovec`.
        page[7] = stub::DATA + 72;
        page[8] = 1;
        let bytes = page.as_bytes();
        if space.write_any(stub::DATA, bytes)? != bytes.len() {
            return Err(Errno::EFAULT);
        }
        sys::send_fd(self.zygote.socket.as_fd(), fd.as_fd())?;
        let socket = u64::try_from(stub::SOCKET_FD).map_err(|_| Errno::EBADF)?;
        let result = self.host_call(tid, libc::SYS_recvmsg, [socket, stub::DATA, 0, 0, 0, 0]);
        if result != Ok(1) {
            sys::drain(self.zygote.stub_socket.as_fd());
        }
        result.map(drop)
    }
}

/// Kills a stopped thread that no context knows: its parent was killed while cloning it.
fn kill_orphan(tid: i32) {
    // It may have been killed along with its parent.
    let _ = sys::kill(tid, libc::SIGKILL);
}

fn word(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn pop<T>(queue: &Mutex<VecDeque<T>>) -> Option<T> {
    lock(queue).pop_front()
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.thread.get().is_none() {
            self.zygote.kill_untraced();
        }
    }
}
