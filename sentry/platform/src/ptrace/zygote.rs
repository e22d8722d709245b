//! The zygote: the first stub process, started before the sentry locks itself down. Every other
//! stub is a clone of it or of such a clone.
//!
//! # Safety
//! Between `fork` and `execveat` the child makes system calls on plain numbers and on data that
//! was prepared before; it allocates nothing and takes no lock.
#![expect(unsafe_code, reason = "starts the zygote: fork, exec and the calls between them")]

use std::ffi::{CStr, c_char, c_int, c_long};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use syscalls::{Errno, SysResult};

use super::{stub, sys};

/// The running zygote, not yet traced.
#[derive(Debug)]
pub(super) struct Zygote {
    /// Its process.
    pub(super) pid: i32,
    /// The sentry's end of the socket that all stubs hold the other end of.
    pub(super) socket: OwnedFd,
    /// The stubs' end.
    pub(super) stub_socket: OwnedFd,
    /// The range of the stack that the host gave it, which nobody needs.
    pub(super) stack: (u64, u64),
    /// Where the host's vDSO lies in it and in all its clones, or zero.
    pub(super) host_vdso: u64,
}

fn check(result: c_int) -> SysResult<c_int> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)))
}

/// Starts the zygote and waits until it runs.
pub(super) fn start() -> SysResult<Zygote> {
    // SAFETY: a literal name and flags; the returned descriptor is owned by nobody else.
    let memfd = unsafe {
        OwnedFd::from_raw_fd(check(libc::memfd_create(c"stub".as_ptr(), libc::MFD_CLOEXEC))?)
    };
    let mut file = std::fs::File::from(memfd);
    std::io::Write::write_all(&mut file, &stub::image()).map_err(|_| Errno::ENOMEM)?;
    let memfd = OwnedFd::from(file);

    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `ends` has room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    // SAFETY: the call above made both, and nobody else owns them.
    let (socket, stub_socket) =
        unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };

    // SAFETY: the child runs `exec_stub` only, which keeps to the calls that a forked child of a
    // process with threads may make.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        exec_stub(stub_socket.as_raw_fd(), memfd.as_raw_fd());
    }
    let mut zygote = Zygote { pid, socket, stub_socket, stack: (0, 0), host_vdso: 0 };
    let found = zygote.wait_until_running().and_then(|sp| zygote.read_auxv(sp));
    if let Err(errno) = found {
        zygote.kill_untraced();
        return Err(errno);
    }
    Ok(zygote)
}

impl Zygote {
    /// Waits for the stub's first message: its stack pointer.
    fn wait_until_running(&self) -> SysResult<u64> {
        let mut poll =
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut sp = [0u8; 8];
        // SAFETY: `poll` is one live `pollfd`.
        let ready = check(unsafe { libc::poll(&raw mut poll, 1, 10_000) })?;
        // SAFETY: `sp` is a live buffer of the length given.
        let n =
            unsafe { libc::recv(poll.fd, sp.as_mut_ptr().cast(), sp.len(), libc::MSG_DONTWAIT) };
        if ready != 1 || n != 8 {
            return Err(Errno::EAGAIN);
        }
        Ok(u64::from_le_bytes(sp))
    }

    /// Finds the vDSO and the end of the stack in the auxiliary vector at `sp`.
    fn read_auxv(&mut self, sp: u64) -> SysResult<()> {
        const AT_EXECFN: u64 = 31;
        const AT_SYSINFO_EHDR: u64 = 33;
        let mut bytes = [0u8; 4096];
        let n = sys::read_memory(self.pid, sp, &mut bytes)?;
        let mut words = bytes
            .get(..n)
            .unwrap_or_default()
            .chunks_exact(8)
            .map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        // Skip the number of arguments, the arguments, and the environment.
        for _ in 0..2 {
            words.find(|&word| word == 0).ok_or(Errno::ENOEXEC)?;
        }
        let mut execfn = 0;
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            match key {
                0 => break,
                AT_EXECFN => execfn = value,
                AT_SYSINFO_EHDR => self.host_vdso = value,
                _ => {}
            }
        }
        // The name lies at the very end of the stack, with eight zero bytes behind it.
        let n = sys::read_memory(self.pid, execfn, &mut bytes[..256])?;
        let name = CStr::from_bytes_until_nul(bytes.get(..n).unwrap_or_default());
        let len = name.map_err(|_| Errno::ENOEXEC)?.to_bytes_with_nul().len();
        let end = execfn + u64::try_from(len).unwrap_or(0) + 8;
        self.stack = ((sp & !0xfff).saturating_sub(1 << 20), end.next_multiple_of(4096));
        Ok(())
    }

    /// Kills and reaps a zygote that no tracer has attached to.
    pub(super) fn kill_untraced(&self) {
        // SAFETY: plain numbers; the status is not wanted.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// The header and the two data words of `capset(2)`, version 3.
#[repr(C)]
struct Capabilities {
    version: u32,
    pid: i32,
    sets: [u32; 6],
}

/// Becomes the stub: in the forked child, where nothing but plain system calls is safe.
fn exec_stub(socket: c_int, memfd: c_int) -> ! {
    let none = Capabilities { version: 0x2008_0522, pid: 0, sets: [0; 6] };
    let argv: [*const c_char; 2] = [c"stub".as_ptr(), std::ptr::null()];
    // SAFETY: each call takes numbers or pointers to the live variables above and below; this
    // process has one thread and shares no memory that another one writes.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);

        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        // An unlimited stack would move the vDSO into the application's half.
        let mut stack = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_STACK, &raw mut stack);
        stack.rlim_cur = stack.rlim_max.min(8 << 20);
        libc::setrlimit(libc::RLIMIT_STACK, &raw const stack);

        let socket = libc::fcntl(socket, libc::F_DUPFD, 10);
        let memfd = libc::fcntl(memfd, libc::F_DUPFD, 10);
        libc::dup2(socket, stub::SOCKET_FD);
        libc::dup3(memfd, 1, libc::O_CLOEXEC);
        libc::syscall(libc::SYS_close_range, 2 as c_long, c_long::from(u32::MAX), 0 as c_long);

        // The sentry has no capabilities, and may trace and read only what has none either.
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_capset, &raw const none, &raw const none.sets);
        libc::syscall(
            libc::SYS_execveat,
            1 as c_long,
            c"".as_ptr(),
            argv.as_ptr(),
            argv[1..].as_ptr(),
            c_long::from(libc::AT_EMPTY_PATH),
        );
        libc::_exit(127)
    }
}
