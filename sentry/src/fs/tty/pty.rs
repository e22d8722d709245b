//! Pseudo-terminals: `pty(7)`.
//!
//! A [`Pty`] is a pair. Its [`Master`] is the side of the user (a terminal emulator, `sshd`), a
//! [`Slave`] the side of the programs. A hang-up ends an epoch: slaves that were opened before it
//! read the end of file and fail to write, those opened later work.
//!
//! Locks: `Pty::state` is a leaf but for the process tree; signals are sent and queues notified
//! after it has been released.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::fs::makedev;
use syscalls::abi::ioctl::{Termios, Winsize};
use syscalls::abi::signal::{SI_KERNEL, SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, Siginfo};
use syscalls::{Errno, SysResult};

use super::ioctl;
use super::job::JobControl;
use super::line::{Effects, Line};
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::job::{ProcessGroup, Terminal};
use crate::task::{Control, CurrentTask, HandlerResult, signal};
use crate::time::TimerHandle;
use crate::vfs::{Attr, File, Inode, IoSink, IoSource, OpenFile, WriteOffset};

/// The major number of slaves.
pub(crate) const SLAVE_MAJOR: u32 = 136;

/// The unit of `VTIME`.
const NS_PER_TENTH: u64 = 100_000_000;

/// The most bytes that are moved at a time.
const CHUNK: usize = 4096;

/// Where slaves are: the file system of the pair.
pub(crate) trait Home: Send + Sync {
    /// Is told that the master of a pair has been closed.
    fn master_closed(&self, index: u32);

    /// Returns the node of a slave.
    fn node(&self, index: u32) -> Option<Arc<dyn Inode>>;
}

/// A pseudo-terminal.
pub(crate) struct Pty {
    this: Weak<Pty>,
    /// The number of the pair in its file system.
    pub(crate) index: u32,
    home: Weak<dyn Home>,
    pub(super) job: JobControl,
    pub(super) state: Mutex<State>,
    /// The number of hang-ups so far.
    epoch: AtomicU64,
    /// Whether slaves may not be opened yet (`TIOCSPTLCK`).
    pub(super) is_locked: AtomicBool,
    /// `TIOCEXCL`.
    pub(super) is_exclusive: AtomicBool,
    master_queue: WaitQueue,
    slave_queue: WaitQueue,
}

/// What changes under the lock.
pub(super) struct State {
    pub(super) line: Line,
    pub(super) size: Winsize,
    /// What of the settings cannot be changed (`TIOCSLCKTRMIOS`).
    pub(super) fixed: Termios,
    is_master_open: bool,
    n_slaves: usize,
    /// Whether the last slave has been closed: the master reads `EIO`.
    is_slave_gone: bool,
    /// `TIOCPKT`.
    pub(super) is_packet: bool,
    /// What a master in packet mode is told next.
    pub(super) packet: u8,
    /// The timer of a read under `VTIME`.
    timer: Option<TimerHandle>,
    has_timed_out: bool,
    /// How many bytes had come when the timer was started.
    n_at_timer: usize,
}

impl Pty {
    /// Creates a pair, locked.
    pub(crate) fn new(index: u32, home: Weak<dyn Home>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            index,
            home,
            job: JobControl::default(),
            state: Mutex::new(State {
                line: Line::default(),
                size: Winsize::default(),
                is_master_open: true,
                n_slaves: 0,
                fixed: Termios::default(),
                is_slave_gone: false,
                is_packet: false,
                packet: 0,
                timer: None,
                has_timed_out: false,
                n_at_timer: 0,
            }),
            epoch: AtomicU64::new(0),
            is_locked: AtomicBool::new(true),
            is_exclusive: AtomicBool::new(false),
            master_queue: WaitQueue::new(),
            slave_queue: WaitQueue::new(),
        })
    }

    /// Returns the device number of the slave.
    pub(crate) fn slave_device(&self) -> u64 {
        makedev(SLAVE_MAJOR, self.index)
    }

    /// Returns the slave's node in its file system.
    pub(super) fn node(&self) -> Option<Arc<dyn Inode>> {
        self.home.upgrade()?.node(self.index)
    }

    pub(super) fn terminal(&self) -> Option<Arc<dyn Terminal>> {
        let terminal: Arc<dyn Terminal> = self.this.upgrade()?;
        Some(terminal)
    }

    /// Opens the slave. With `may_control` it may become the opener's controlling terminal.
    ///
    /// # Errors
    /// `EIO` while it is locked or without a master, `EBUSY` where somebody has it exclusively.
    pub(crate) fn open_slave(
        self: &Arc<Self>,
        task: &CurrentTask,
        node: Arc<dyn Inode>,
        may_control: bool,
    ) -> SysResult<Arc<Slave>> {
        use syscalls::abi::capability::CAP_SYS_ADMIN;
        {
            let mut state = self.state.lock();
            if self.is_locked.load(Ordering::Relaxed) || !state.is_master_open {
                return Err(Errno::EIO);
            }
            if self.is_exclusive.load(Ordering::Relaxed)
                && state.n_slaves > 0
                && !task.creds().has_capability(CAP_SYS_ADMIN)
            {
                return Err(Errno::EBUSY);
            }
            state.n_slaves += 1;
            state.is_slave_gone = false;
        }
        if may_control {
            self.job.acquire_on_open(task, || self.clone());
        }
        let epoch = self.epoch.load(Ordering::SeqCst);
        Ok(Arc::new(Slave { pty: self.clone(), epoch, node }))
    }

    /// Does what the line discipline has left to do.
    pub(super) fn apply(&self, effects: &Effects) {
        if effects.packet != 0 {
            let mut state = self.state.lock();
            if state.is_packet {
                state.packet |= effects.packet;
                drop(state);
                self.master_queue.notify(Events::PRI | Events::READABLE);
            }
        }
        for signo in &effects.signals {
            self.job.signal_foreground(*signo);
        }
        if effects.input {
            self.slave_queue.notify(Events::READABLE);
        }
        if effects.output {
            self.master_queue.notify(Events::READABLE);
        }
        // A restart or a flush has made room.
        if effects.packet != 0 {
            self.slave_queue.notify(Events::WRITABLE);
            self.master_queue.notify(Events::WRITABLE);
        }
    }

    /// Ends the epoch: all open slaves are hung up. The master learns of it when the last is closed.
    fn end_epoch(&self) {
        {
            let mut state = self.state.lock();
            self.epoch.fetch_add(1, Ordering::SeqCst);
            state.line.flush_input(&mut Effects::default());
        }
        let all = Events::READABLE | Events::WRITABLE | Events::ERR | Events::HUP;
        self.slave_queue.notify(all);
        self.master_queue.notify(all);
    }

    /// Hangs the terminal up as when its line is lost: `tty_vhangup()`.
    pub(super) fn hang_up(&self) {
        let (session, _) = self.job.release();
        if let Some(session) = session {
            *session.terminal.lock() = None;
            let leader = session.namespace().and_then(|namespace| namespace.group(session.id));
            if let Some(leader) = leader {
                for signo in [SIGHUP, SIGCONT] {
                    // Standard signals always find room.
                    let _ = signal::send_to_group(&leader, Siginfo::new(signo, SI_KERNEL));
                }
            }
        }
        self.end_epoch();
    }

    /// Reads as a program, with `VMIN` and `VTIME` where lines are not asked for.
    fn read_line(&self, task: &CurrentTask, dst: &mut dyn IoSink) -> SysResult<usize> {
        let mut state = self.state.lock();
        let (min, time) = state.line.min_and_time();
        let is_canonical = state.line.is_canonical();
        let wanted = if is_canonical { 1 } else { min.clamp(1, dst.remaining().max(1)) };
        if !state.line.is_readable(wanted) {
            let available = state.line.readable();
            if is_canonical {
                return Err(Errno::EAGAIN);
            }
            // Without VMIN the time begins with the read, otherwise with each byte.
            let has_timer = time > 0 && (min == 0 || available > 0);
            let is_over = (min == 0 && time == 0)
                || (has_timer && state.has_timed_out && state.n_at_timer == available);
            if !is_over {
                if has_timer && (state.timer.is_none() || state.n_at_timer != available) {
                    let waiter: Arc<dyn Waiter> = match self.this.upgrade() {
                        Some(this) => this,
                        None => return Err(Errno::EIO),
                    };
                    let now = task.kernel.clock.monotonic_ns();
                    let deadline = now.saturating_add(time.saturating_mul(NS_PER_TENTH));
                    let timer = task.kernel.timers.schedule(deadline, &waiter, 0);
                    state.has_timed_out = false;
                    state.n_at_timer = available;
                    let old = state.timer.replace(timer);
                    drop(state);
                    drop(old);
                }
                return Err(Errno::EAGAIN);
            }
        }
        let data = state.line.peek(dst.remaining());
        let n = if data.is_empty() { 0 } else { dst.put(&data)? };
        state.line.consume(n);
        state.has_timed_out = false;
        let old = state.timer.take();
        drop(state);
        drop(old);
        self.master_queue.notify(Events::WRITABLE);
        Ok(n)
    }
}

impl Waiter for Pty {
    /// The time of a read under `VTIME` is over.
    fn notify(&self, _key: u64, _events: Events) {
        self.state.lock().has_timed_out = true;
        self.slave_queue.notify(Events::READABLE);
    }
}

impl Terminal for Pty {
    fn device(&self) -> u64 {
        self.slave_device()
    }

    fn disassociate(&self) -> Option<Arc<ProcessGroup>> {
        // disassociate_ctty(): what is open stays usable, as for every pseudo-terminal.
        self.job.release().1
    }

    fn foreground(&self) -> Option<Arc<ProcessGroup>> {
        self.job.foreground()
    }
}

/// The user's side.
pub(crate) struct Master {
    pub(super) pty: Arc<Pty>,
    node: Arc<dyn Inode>,
}

impl Master {
    pub(crate) fn new(pty: Arc<Pty>, node: Arc<dyn Inode>) -> Self {
        Self { pty, node }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.pty.state.lock().is_master_open = false;
        if let Some(home) = self.pty.home.upgrade() {
            home.master_closed(self.pty.index);
        }
        self.pty.hang_up();
    }
}

impl File for Master {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn attr(&self) -> SysResult<Attr> {
        self.node.attr()
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.pty.state.lock();
        if state.is_packet && state.packet != 0 {
            let status = std::mem::take(&mut state.packet);
            return dst.put(&[status]);
        }
        let head = usize::from(state.is_packet);
        let mut data = vec![0; head];
        data.extend(state.line.peek_output(dst.remaining().saturating_sub(head)));
        if data.len() == head {
            return Err(if state.is_slave_gone { Errno::EIO } else { Errno::EAGAIN });
        }
        let n = dst.put(&data)?;
        state.line.consume_output(n.saturating_sub(head));
        drop(state);
        self.pty.slave_queue.notify(Events::WRITABLE);
        Ok(n)
    }

    fn write(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        _offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let mut done = 0;
        let mut buffer = [0; CHUNK];
        while src.remaining() > 0 {
            let mut effects = Effects::default();
            let mut state = self.pty.state.lock();
            if state.is_slave_gone {
                return if done == 0 { Err(Errno::EIO) } else { Ok((done, 0)) };
            }
            let room = state.line.input_room().min(buffer.len());
            if room == 0 {
                return if done == 0 { Err(Errno::EAGAIN) } else { Ok((done, 0)) };
            }
            let n = match src.get(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(n) => n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            for byte in buffer.iter().take(n) {
                state.line.receive(*byte, &mut effects);
            }
            drop(state);
            self.pty.apply(&effects);
            done += n;
            if n == 0 {
                break;
            }
        }
        Ok((done, 0))
    }

    fn poll(&self) -> Events {
        let state = self.pty.state.lock();
        let mut events = Events::empty();
        if state.line.output_len() > 0 {
            events |= Events::READABLE;
        }
        if state.is_packet && state.packet != 0 {
            events |= Events::READABLE | Events::PRI;
        }
        if state.is_slave_gone {
            events |= Events::HUP;
        } else if state.line.input_room() > 0 {
            events |= Events::WRITABLE;
        }
        events
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.pty.master_queue.register(waiter, mask, key)]
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn ioctl(&self, task: &CurrentTask, open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        ioctl::master(task, self, open, request, arg)
    }
}

/// The programs' side.
pub(crate) struct Slave {
    pub(super) pty: Arc<Pty>,
    epoch: u64,
    node: Arc<dyn Inode>,
}

impl Slave {
    /// Returns whether the terminal has been hung up since the open.
    fn is_hung_up(&self) -> bool {
        self.epoch != self.pty.epoch.load(Ordering::SeqCst)
    }

    /// Turns a job-control verdict into what a transfer returns: a signal under way is found by
    /// the wait that follows.
    fn check(&self, task: &CurrentTask, signo: i32) -> SysResult<()> {
        self.pty.job.check(task, signo).map_err(|control| match control {
            Control::Error(errno) => errno,
            _ => Errno::EAGAIN,
        })
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        let mut state = self.pty.state.lock();
        state.n_slaves = state.n_slaves.saturating_sub(1);
        if state.n_slaves == 0 {
            state.is_slave_gone = true;
            drop(state);
            self.pty.master_queue.notify(Events::READABLE | Events::HUP);
        }
    }
}

impl File for Slave {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn attr(&self) -> SysResult<Attr> {
        self.node.attr()
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        if self.is_hung_up() || dst.remaining() == 0 {
            return Ok(0);
        }
        self.check(task, SIGTTIN)?;
        self.pty.read_line(task, dst)
    }

    fn write(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        _offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let mut done = 0;
        let mut buffer = [0; CHUNK];
        if self.pty.state.lock().line.stops_background() {
            self.check(task, SIGTTOU)?;
        }
        while src.remaining() > 0 {
            if self.is_hung_up() {
                return if done == 0 { Err(Errno::EIO) } else { Ok((done, 0)) };
            }
            let mut effects = Effects::default();
            let mut state = self.pty.state.lock();
            let room = state.line.output_room().min(buffer.len());
            if room == 0 {
                return if done == 0 { Err(Errno::EAGAIN) } else { Ok((done, 0)) };
            }
            let n = match src.get(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(n) => n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            state.line.write(buffer.get(..n).unwrap_or_default(), &mut effects);
            drop(state);
            self.pty.apply(&effects);
            done += n;
            if n == 0 {
                break;
            }
        }
        Ok((done, 0))
    }

    fn poll(&self) -> Events {
        if self.is_hung_up() {
            return Events::READABLE | Events::WRITABLE | Events::ERR | Events::HUP;
        }
        let state = self.pty.state.lock();
        let (min, time) = state.line.min_and_time();
        let wanted = if time == 0 { min } else { 1 };
        let mut events = Events::empty();
        if state.line.is_readable(wanted) {
            events |= Events::READABLE;
        }
        if state.line.output_room() > 0 {
            events |= Events::WRITABLE;
        }
        events
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.pty.slave_queue.register(waiter, mask, key)]
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn ioctl(&self, task: &CurrentTask, open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        ioctl::slave(task, self, self.is_hung_up(), open, request, arg)
    }
}
