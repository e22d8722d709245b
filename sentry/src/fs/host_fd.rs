//! Files over host descriptors that the sandbox was started with: standard input and outputs.
//!
//! They are shared with whoever started the sandbox, so their flags (`O_NONBLOCK`) are left
//! alone: the sentry asks before each transfer whether the host would block, and makes it so that
//! the host does not where somebody else was faster (terminals, which have no such way, aside). One
//! thread waits for all of them, started with the first wait; it is told of each change and not of
//! a state, so that an edge-triggered epoll of the guest hears of new input while there is some
//! already.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sentry_host::poll::{Poller, ready_now};
use sentry_host::stream::{self, GetRequest, SetRequest};
use syscalls::{Errno, SysResult, UserAddr};

use crate::sync::{Events, HostReadiness, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{Attr, File, IoSink, IoSource, OpenFile, WriteOffset};

/// What a pipe is sure to take at once when it is ready: `PIPE_BUF`.
const CHUNK: usize = 4096;

/// How long to wait before a thread is asked for again that the host refused.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const FIONREAD: u32 = 0x541b;

/// Waits for host descriptors on behalf of all [`HostFile`]s.
pub struct HostPoller {
    poller: Poller,
    /// Who is told of a descriptor, by its key.
    queues: Mutex<BTreeMap<u64, WaitQueue>>,
    next_key: AtomicU64,
    is_running: AtomicBool,
}

impl HostPoller {
    /// Creates a poller; before the sentry's filter is installed.
    ///
    /// # Errors
    /// The host's.
    pub fn new() -> SysResult<Arc<Self>> {
        Ok(Arc::new(Self {
            poller: Poller::new()?,
            queues: Mutex::new(BTreeMap::new()),
            next_key: AtomicU64::new(1),
            is_running: AtomicBool::new(false),
        }))
    }

    /// Starts the thread that waits, if it does not run. Returns false where the host has none.
    fn start(self: &Arc<Self>) -> bool {
        if !self.is_running.swap(true, Ordering::SeqCst) {
            let this = self.clone();
            if crate::kernel::spawn_thread("host-poll", move || this.serve()).is_err() {
                self.is_running.store(false, Ordering::SeqCst);
                return false;
            }
        }
        true
    }

    /// Tells `queue` of every change of `fd`, until [`HostPoller::forget`]. Returns the key.
    ///
    /// # Errors
    /// `ENOMEM`, `ENOSPC`.
    pub fn follow(self: &Arc<Self>, fd: BorrowedFd<'_>, queue: &WaitQueue) -> SysResult<u64> {
        if !self.start() {
            return Err(Errno::ENOMEM);
        }
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        self.queues.lock().insert(key, queue.clone());
        self.poller.watch(fd, key).inspect_err(|_| self.forget(key))?;
        Ok(key)
    }

    /// Tells nobody of a descriptor any more.
    pub fn forget(&self, key: u64) {
        self.queues.lock().remove(&key);
    }

    /// Has `file` told of everything that happens to it from now on.
    fn watch(self: &Arc<Self>, file: &HostFile) {
        if !self.start() {
            // The waiter looks again, and this is tried again, until the host has a thread.
            std::thread::sleep(RETRY_PAUSE);
            file.queue.notify(Events::all());
            return;
        }
        if file.is_watched.swap(true, Ordering::SeqCst) {
            return;
        }
        match self.poller.watch(file.fd.as_fd(), file.key) {
            // EPERM: a regular file or `/dev/null`. Their state never changes, so whoever waits for
            // what they are not (an exceptional condition, say) must not be woken.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(_) => {
                file.is_watched.store(false, Ordering::SeqCst);
                file.queue.notify(Events::all());
            }
        }
    }

    fn serve(&self) {
        loop {
            for (key, events) in self.poller.wait() {
                let queue = self.queues.lock().get(&key).cloned();
                if let Some(queue) = queue {
                    let mut ready = Events::from_bits_truncate(events);
                    if ready.contains(Events::IN) {
                        ready |= Events::RDNORM;
                    }
                    if ready.contains(Events::OUT) {
                        ready |= Events::WRNORM;
                    }
                    queue.notify(ready);
                }
            }
        }
    }
}

impl HostReadiness for HostPoller {
    fn follow(self: Arc<Self>, fd: BorrowedFd<'_>, queue: &WaitQueue) -> SysResult<u64> {
        Self::follow(&self, fd, queue)
    }

    fn forget(&self, key: u64, fd: BorrowedFd<'_>) {
        Self::forget(self, key);
        // Others have the same file open, so closing it would not end the watch.
        self.poller.unwatch(fd);
    }
}

/// A file over a host descriptor.
pub struct HostFile {
    fd: OwnedFd,
    key: u64,
    poller: Arc<HostPoller>,
    queue: WaitQueue,
    /// Whether the poller knows it.
    is_watched: AtomicBool,
    /// The host's attributes at the start, with an inode number of ours.
    attr: Attr,
    is_terminal: bool,
    is_regular: bool,
}

impl HostFile {
    /// Creates a file over `fd`.
    ///
    /// # Errors
    /// The host's, for a descriptor without attributes.
    pub fn new(poller: &Arc<HostPoller>, fd: OwnedFd) -> SysResult<Arc<Self>> {
        let stat = sentry_host::file::stat(fd.as_fd())?;
        let key = poller.next_key.fetch_add(1, Ordering::Relaxed);
        let mut scratch = [0; 36];
        let is_terminal =
            stream::terminal_get(fd.as_fd(), GetRequest::Attributes, &mut scratch).is_ok();
        let attr = Attr {
            dev: 0x17,
            ino: key,
            mode: stat.st_mode,
            nlink: 1,
            rdev: stat.st_rdev,
            blksize: 4096,
            ..Attr::default()
        };
        let is_regular = attr.file_type() == crate::vfs::FileType::Regular;
        let file = Arc::new(Self {
            fd,
            key,
            poller: poller.clone(),
            queue: WaitQueue::new(),
            is_watched: AtomicBool::new(false),
            attr,
            is_terminal,
            is_regular,
        });
        poller.queues.lock().insert(key, file.queue.clone());
        Ok(file)
    }

    /// Returns whether the descriptor is a terminal of the host.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    fn ready(&self) -> Events {
        // POLLIN | POLLPRI | POLLOUT | POLLRDHUP
        let ready = ready_now(self.fd.as_fd(), 0x2007);
        Events::from_bits_truncate(u32::from(ready.cast_unsigned()))
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        self.poller.forget(self.key);
        if self.is_watched.load(Ordering::SeqCst) {
            // Others have the same file open, so closing it here would not end the watch.
            self.poller.poller.unwatch(self.fd.as_fd());
        }
    }
}

impl File for HostFile {
    fn attr(&self) -> SysResult<Attr> {
        let mut attr = self.attr;
        if self.is_regular {
            attr.size = sentry_host::file::stat(self.fd.as_fd())?.st_size.try_into().unwrap_or(0);
        }
        Ok(attr)
    }

    fn anonymous_name(&self) -> String {
        match self.attr.file_type() {
            crate::vfs::FileType::Fifo => format!("pipe:[{}]", self.key),
            crate::vfs::FileType::Socket => format!("socket:[{}]", self.key),
            _ if self.is_terminal => String::from("/dev/console"),
            _ => format!("host:[{}]", self.key),
        }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        if !self.is_regular && !self.ready().intersects(Events::IN | Events::HUP | Events::ERR) {
            return Err(Errno::EAGAIN);
        }
        let mut buffer = vec![0; dst.remaining().min(64 << 10)];
        // Whoever else has the descriptor may have taken what was there.
        let now = match self.is_regular {
            true => Err(Errno::EOPNOTSUPP),
            false => stream::read_now(self.fd.as_fd(), &mut buffer),
        };
        let n = match now {
            Err(Errno::EOPNOTSUPP) => stream::read(self.fd.as_fd(), &mut buffer)?,
            result => result?,
        };
        if n == 0 {
            return Ok(0);
        }
        dst.put(buffer.get(..n).unwrap_or_default())
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
            if !self.is_regular && !self.ready().intersects(Events::OUT | Events::HUP | Events::ERR)
            {
                return if done == 0 { Err(Errno::EAGAIN) } else { Ok((done, 0)) };
            }
            let n = match src.get(&mut buffer) {
                Ok(n) => n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            let data = buffer.get(..n).unwrap_or_default();
            let now = match self.is_regular {
                true => Err(Errno::EOPNOTSUPP),
                false => stream::write_now(self.fd.as_fd(), data),
            };
            let result = match now {
                Err(Errno::EOPNOTSUPP) => stream::write(self.fd.as_fd(), data),
                result => result,
            };
            match result {
                Ok(written) => {
                    done += written;
                    if written < n {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok((done, 0))
    }

    fn poll(&self) -> Events {
        let mut ready = self.ready();
        if ready.contains(Events::IN) {
            ready |= Events::RDNORM;
        }
        if ready.contains(Events::OUT) {
            ready |= Events::WRNORM;
        }
        ready
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        let registration = self.queue.register(waiter, mask, key);
        self.poller.watch(self);
        vec![registration]
    }

    fn is_pollable(&self) -> bool {
        !self.is_regular
    }

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        let mut data = [0; 36];
        let get = |kind, size: usize, data: &mut [u8; 36]| -> HandlerResult {
            stream::terminal_get(self.fd.as_fd(), kind, data)?;
            task.write_bytes(UserAddr(arg), data.get(..size).unwrap_or_default())?;
            Ok(0)
        };
        let set = |kind, size: usize| -> HandlerResult {
            let mut data = [0; 36];
            if let Some(head) = data.get_mut(..size) {
                task.read_bytes(UserAddr(arg), head)?;
            }
            stream::terminal_set(self.fd.as_fd(), kind, &data)?;
            Ok(0)
        };
        match request {
            FIONREAD => get(GetRequest::Pending, 4, &mut data),
            _ if !self.is_terminal => Err(Errno::ENOTTY.into()),
            TCGETS => get(GetRequest::Attributes, 36, &mut data),
            TIOCGWINSZ => get(GetRequest::WindowSize, 8, &mut data),
            TCSETS => set(SetRequest::Attributes, 36),
            TCSETSW => set(SetRequest::AttributesDrain, 36),
            TCSETSF => set(SetRequest::AttributesFlush, 36),
            TIOCSWINSZ => set(SetRequest::WindowSize, 8),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn sync(&self, _data_only: bool) -> SysResult<()> {
        if self.is_regular { Ok(()) } else { Err(Errno::EINVAL) }
    }
}
