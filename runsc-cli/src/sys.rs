//! The host calls with which a sandbox is started that the standard library does not offer: clone
//! with namespaces, the mount calls, sealing, descriptor placement, exec of a descriptor.
//!
//! # Safety
//!
//! The one module of this crate with unsafe code, with what is below it. Every call passes pointers to live values of this
//! process only. `spawn` relies on `runsc` having a single thread: the child is a copy of it
//! that may then do anything which the parent may.
#![expect(
    unsafe_code,
    reason = "clone, exec and the mount calls have no safe form in the standard library"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use libc::{c_int, c_long, c_uint};

mod cradle;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod terminal;

/// A child process and the descriptor that refers to it whatever becomes of its number.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Exited(i32),
    Signaled(i32),
}

/// Clones this process with `flags` (`CLONE_NEW*`) and runs `body` in the child. A body that comes
/// back has failed: the child ends with status 126.
///
/// # Panics
/// In a process with more than one thread.
pub(crate) fn spawn(flags: c_int, body: impl FnOnce()) -> io::Result<Child> {
    spawn_in(None, flags, body)
}

/// As [`spawn`], with the child in a control group of version 2 where the host can do that.
pub(crate) fn spawn_in(
    group: Option<BorrowedFd<'_>>,
    flags: c_int,
    body: impl FnOnce(),
) -> io::Result<Child> {
    let mut pidfd: c_int = -1;
    let flags = flags | libc::CLONE_PIDFD;
    let pid = match group.map(|group| cradle::clone_into(group, flags, &mut pidfd)) {
        Some(pid) if pid >= 0 => pid,
        // SAFETY: without CLONE_VM the child gets a copy of this address space and goes on on a copy
        // of this stack; `pidfd` is live during the call. This process has one thread (module doc),
        // so no lock is held by a thread that the child lacks.
        _ => unsafe {
            let flags = c_long::from(flags | libc::SIGCHLD);
            libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0)
        },
    };
    if pid == 0 {
        body();
        exit_now(126);
    }
    let pid = i32::try_from(check(pid)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just stored a new descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: pid_in_proc(pidfd.as_fd()).unwrap_or(pid), pidfd })
}

/// Returns the number below `/proc` of the process behind a pidfd, which is another one than
/// `clone` returns where `/proc` is that of another pid namespace.
fn pid_in_proc(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    // Zero or below stands for one that is not there.
    (pid > 0).then_some(pid)
}

/// Ends this process at once, without running what the parent has registered.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` takes any value.
    unsafe { libc::_exit(status) }
}

/// The most open files that are asked for, which is the host's usual `fs.nr_open`.
const MAX_FILES: u64 = 1 << 20;

/// Ends this process as one that ignores no broken pipe ends.
pub(crate) fn die_of_broken_pipe() -> ! {
    // SAFETY: SIG_DFL is a valid action, and a signal to this process needs no memory.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::raise(libc::SIGPIPE);
    }
    // Where it is blocked.
    exit_now(128 + libc::SIGPIPE)
}

impl ExitStatus {
    /// Translates what `wait4(2)` gives for a process that has ended.
    pub(crate) fn of_wait_status(status: u32) -> Self {
        let low = |value: u32, mask: u32| i32::try_from(value & mask).unwrap_or(0);
        match status & 0x7f {
            0 => Self::Exited(low(status >> 8, 0xff)),
            signo => Self::Signaled(low(signo, 0x7f)),
        }
    }
}

impl Child {
    /// Refers to a child by its pidfd alone, after an exec. Its number is not known.
    pub(crate) fn of_descriptor(pidfd: OwnedFd) -> Self {
        Self { pid: 0, pidfd }
    }

    /// Waits for the end of the child and reaps it.
    pub(crate) fn wait(&self) -> io::Result<ExitStatus> {
        // SAFETY: all-zero bytes are a valid `siginfo_t`.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = libc::id_t::try_from(self.pidfd.as_raw_fd()).map_err(io::Error::other)?;
        // SAFETY: `info` is live during the call.
        retry(|| unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED) }.into())?;
        // SAFETY: waitid has filled in the fields of SIGCHLD.
        let status = unsafe { info.si_status() };
        Ok(match info.si_code {
            libc::CLD_EXITED => ExitStatus::Exited(status),
            _ => ExitStatus::Signaled(status),
        })
    }

    /// Sends a signal; a child that is gone is no error.
    pub(crate) fn kill(&self, signo: c_int) -> io::Result<()> {
        send_signal(self.pidfd.as_fd(), signo)
    }
}

/// Sends a signal to the process behind a pidfd; one that is gone is no error.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signo: c_int) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signo,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match check(ret) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Opens a pidfd for a process that need not be a child.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers.
    new_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Replaces this process by the program behind `file`.
pub(crate) fn exec_descriptor(
    file: BorrowedFd<'_>,
    args: &[CString],
    env: &[CString],
) -> io::Error {
    let null_terminated = |strings: &[CString]| {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, envp) = (null_terminated(args), null_terminated(env));
    // SAFETY: both arrays end with a null pointer and outlive the call, as do their strings.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Gives this process exactly `fds` as descriptors 0, 1, 2… and marks all others close-on-exec.
///
/// Every descriptor number held by other values of the process is void afterwards, save those that
/// `keep` lists; they are returned under new numbers.
pub(crate) fn place_descriptors(
    fds: &[BorrowedFd<'_>],
    keep: &[BorrowedFd<'_>],
) -> io::Result<Vec<OwnedFd>> {
    let first_free = c_int::try_from(fds.len()).map_err(io::Error::other)?;
    let raise = |fd: &BorrowedFd<'_>| {
        // SAFETY: F_DUPFD_CLOEXEC takes an integer.
        new_fd(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first_free) }.into())
    };
    let kept = keep.iter().map(raise).collect::<io::Result<Vec<_>>>()?;
    let raised = fds.iter().map(raise).collect::<io::Result<Vec<_>>>()?;
    for (target, fd) in (0..first_free).zip(&raised) {
        // SAFETY: two integers; what was open as `target` is void by this function's contract.
        check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into())?;
    }
    let from = c_uint::try_from(first_free).map_err(io::Error::other)?;
    // SAFETY: three integers.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, from, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(kept)
}

/// Takes over a descriptor that was placed by the parent at a fixed number.
///
/// # Errors
/// `EBADF` where nothing is open there.
pub(crate) fn take_descriptor(number: c_int) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer; fails with EBADF where the number is not open.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor is open, and by the start protocol each number is taken once, by the
    // one subcommand that this process runs.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns copies of the `count` descriptors from number 3 on, which the caller of `runsc` has left
/// open. To be called before this process opens any.
///
/// # Errors
/// `EBADF` where there are fewer.
pub(crate) fn inherited_descriptors(count: u16) -> io::Result<Vec<OwnedFd>> {
    let copy = |number: c_int| {
        // SAFETY: F_DUPFD_CLOEXEC takes an integer.
        new_fd(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) }.into())
    };
    (3..3 + c_int::from(count)).map(copy).collect()
}

/// Creates an anonymous file that may be sealed, and executed where `executable`.
pub(crate) fn memfd(name: &CStr, executable: bool) -> io::Result<OwnedFd> {
    let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let kind = if executable { libc::MFD_EXEC } else { libc::MFD_NOEXEC_SEAL };
    // SAFETY: `name` is a C string.
    match new_fd(unsafe { libc::memfd_create(name.as_ptr(), base | kind) }.into()) {
        // Before Linux 6.3 there is neither flag, and every memfd is executable.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            // SAFETY: as above.
            new_fd(unsafe { libc::memfd_create(name.as_ptr(), base) }.into())
        }
        other => other,
    }
}

/// The seals of a file that nobody can change any more.
pub(crate) const SEALS: c_int =
    libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Makes a memfd immutable.
pub(crate) fn seal(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_ADD_SEALS takes an integer.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) }.into()).map(drop)
}

/// Returns whether a file is an immutable memfd.
pub(crate) fn is_sealed(file: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GET_SEALS takes no argument.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & SEALS == SEALS
}

/// Copies `len` bytes between files inside the kernel.
pub(crate) fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    let mut left = usize::try_from(len).map_err(io::Error::other)?;
    while left > 0 {
        // SAFETY: a null offset means the files' own positions.
        let n = retry(|| unsafe {
            libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), left) as c_long
        })?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(usize::try_from(n).map_err(io::Error::other)?);
    }
    Ok(())
}

/// Writes a file in a directory, for its owner only.
pub(crate) fn write_new_file(dir: BorrowedFd<'_>, name: &str, data: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let name = CString::new(name)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    // SAFETY: a C string.
    let file =
        new_fd(unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, 0o600) }.into())?;
    std::fs::File::from(file).write_all(data)
}

/// Creates a connected pair of `SOCK_SEQPACKET` sockets.
pub(crate) fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }.into())?;
    // SAFETY: two new descriptors.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Keeps what this mount namespace does from every other one.
pub(crate) fn make_mounts_private() -> io::Result<()> {
    set_propagation(libc::MS_PRIVATE)
}

/// As [`make_mounts_private`], but what the others do still comes here.
pub(crate) fn make_mounts_follow() -> io::Result<()> {
    set_propagation(libc::MS_SLAVE)
}

fn set_propagation(kind: libc::c_ulong) -> io::Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: a C string; source, type and data are not read for a change of propagation.
    let ret = unsafe { libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | kind, null.cast()) };
    check(ret.into()).map(drop)
}

/// Makes an empty read-only file system the root of this mount namespace and drops everything
/// else from it. `place` is any directory; the new root covers it for a moment.
pub(crate) fn enter_empty_root(place: BorrowedFd<'_>) -> io::Result<()> {
    let options = [(c"size", c"4096"), (c"nr_inodes", c"2"), (c"mode", c"555")];
    let root = detached_mount(c"tmpfs", &options, libc::MOUNT_ATTR_RDONLY)?;
    mounts::attach(root.as_fd(), place)?;
    mounts::enter_root(root.as_fd())
}

/// What a clone of a mount tree is like, besides nosuid and nodev.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TreeOptions {
    /// Nothing of it can be changed.
    pub(crate) readonly: bool,
    /// Nothing of its first mount can be changed.
    pub(crate) readonly_top: bool,
    /// It follows the original (a slave), as far as the mounts of this namespace do, once it is attached
    /// somewhere; otherwise it is private.
    pub(crate) follows: bool,
}

/// Clones the mount tree at `path` into a detached one. Returns a descriptor of its root.
pub(crate) fn clone_mount_tree(path: &Path, options: TreeOptions) -> io::Result<OwnedFd> {
    let c_path = c_path(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as c_uint;
    // SAFETY: a C string.
    let tree = new_fd(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c_path.as_ptr(), flags)
    })?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let readonly = if options.readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let propagation = if options.follows { 0 } else { libc::MS_PRIVATE };
    set_mount(tree.as_fd(), attributes | readonly, propagation, libc::AT_RECURSIVE)?;
    if options.readonly_top {
        set_mount(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0)?;
    }
    Ok(tree)
}

/// Makes a tree of mounts nosuid, nodev, private and what `attributes` say.
fn restrict_mount(tree: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attributes = attributes | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    set_mount(tree, attributes, libc::MS_PRIVATE, libc::AT_RECURSIVE)
}

/// Adds attributes to a mount and, with `AT_RECURSIVE`, to those below it, and changes their propagation
/// unless that is zero.
fn set_mount(
    tree: BorrowedFd<'_>,
    attr_set: u64,
    propagation: u64,
    flags: c_int,
) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set, attr_clr: 0, propagation, userns_fd: 0 };
    // SAFETY: `attr` is live during the call, and its size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attr,
            size_of_val(&attr),
        )
    })
    .map(drop)
}

/// Returns this process's own descriptor table as a directory that leads nowhere else: a detached
/// mount of `/proc/self/fd` alone, above whose root there is nothing.
pub(crate) fn descriptor_directory() -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let path = c"/proc/self/fd";
    // SAFETY: a C string.
    let dir = new_fd(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
    })?;
    restrict_mount(dir.as_fd(), libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC)?;
    Ok(dir)
}

/// Returns the processes of this pid namespace as a directory: a detached process file system
/// without anything else of the kernel's.
pub(crate) fn process_directory() -> io::Result<OwnedFd> {
    detached_mount(c"proc", &[(c"subset", c"pid")], libc::MOUNT_ATTR_RDONLY)
}

fn detached_mount(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    const FSMOUNT_CLOEXEC: c_uint = 1;
    const FSCONFIG_SET_STRING: c_uint = 1;
    const FSCONFIG_CMD_CREATE: c_uint = 6;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: a C string.
    let context =
        new_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let fd = context.as_raw_fd();
    for (key, value) in options {
        // SAFETY: two C strings.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                fd,
                FSCONFIG_SET_STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        })?;
    }
    // SAFETY: this command takes null pointers.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) })?;
    let attributes =
        attributes | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: three integers.
    new_fd(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) })
}

/// Returns whether this process's ids are the host's own.
pub(crate) fn is_initial_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Sets all three user and all three group ids of this process and drops its further groups, where
/// its user namespace permits that.
pub(crate) fn set_ids(id: u32, drop_groups: bool) -> io::Result<()> {
    if drop_groups {
        // SAFETY: zero groups, so the pointer is not read. The raw call, for this thread.
        let ret = unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) };
        match check(ret) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            other => drop(other?),
        }
    }
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) })?;
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) }).map(drop)
}

/// Gives up every capability, for this process and for whatever it executes.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    keep_capability(None)
}

/// As [`drop_capabilities`], but for one that this process has, which it has after an exec as well.
pub(crate) fn drop_capabilities_but(kept: u32) -> io::Result<()> {
    keep_capability(Some(kept))
}

fn keep_capability(kept: Option<u32>) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, c_long::from(libc::PR_CAP_AMBIENT_CLEAR_ALL))?;
    // Effective, permitted and inheritable, each in two halves: first the lower ones.
    let kept = kept.filter(|kept| *kept < 32);
    let mut after = [0_u32; 6];
    if let Some(kept) = kept {
        let mut now = [0_u32; 6];
        let header = CapabilityHeader::default();
        // SAFETY: header and data have the layout of version 3 (capget(2)) and are live.
        check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, now.as_mut_ptr()) })?;
        let [_, permitted, inheritable, ..] = &mut now;
        let bit = 1 << kept;
        if *permitted & bit != 0 {
            *inheritable |= bit;
            set_capabilities(&now)?;
            let raise = c_long::from(libc::PR_CAP_AMBIENT_RAISE);
            // SAFETY: integers only.
            let raised = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, kept, 0, 0) };
            check(raised.into())?;
            after = [bit, bit, bit, 0, 0, 0];
        }
    }
    // SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, SECBIT_KEEP_CAPS off, SECBIT_NO_CAP_AMBIENT_RAISE, and
    // the locks of all four (linux/securebits.h).
    prctl(libc::PR_SET_SECUREBITS, 0b1110_1111)?;
    for capability in (0..64).filter(|capability| kept.map(c_long::from) != Some(*capability)) {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            // The first number that the kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    set_capabilities(&after)
}

/// `struct __user_cap_header_struct`
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

impl Default for CapabilityHeader {
    fn default() -> Self {
        Self { version: 0x2008_0522, pid: 0 }
    }
}

fn set_capabilities(data: &[u32; 6]) -> io::Result<()> {
    let header = CapabilityHeader::default();
    // SAFETY: header and data have the layout of version 3 (capset(2)) and are live.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Forbids this process and its descendants to gain privileges by exec.
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Asks for SIGKILL when the parent dies.
pub(crate) fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, c_long::from(libc::SIGKILL))
}

/// Takes back [`die_with_parent`].
pub(crate) fn outlive_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, 0)
}

/// Ends this process as another one has ended: whoever waits sees the same status.
pub(crate) fn end_as(status: ExitStatus) -> ! {
    let signo = match status {
        ExitStatus::Exited(code) => exit_now(code),
        ExitStatus::Signaled(signo) => signo,
    };
    // The process that ended so was another one: its core is not here.
    let _ = prctl(libc::PR_SET_DUMPABLE, 0);
    // SAFETY: SIG_DFL is a valid action; fails for SIGKILL, which has no other.
    unsafe { libc::signal(signo, libc::SIG_DFL) };
    let _ = set_signal_mask(0);
    // SAFETY: two integers.
    unsafe { libc::kill(libc::getpid(), signo) };
    // A signal that ends nobody here.
    exit_now(128 + signo)
}

/// Moves this process into namespaces of the process behind a pidfd; `kinds` are their `CLONE_NEW*`.
pub(crate) fn enter_namespaces(pidfd: BorrowedFd<'_>, kinds: c_int) -> io::Result<()> {
    if kinds == 0 { Ok(()) } else { enter_namespace(pidfd, kinds) }
}

/// Moves this process into the namespace behind a descriptor; `kind` is its `CLONE_NEW*`.
pub(crate) fn enter_namespace(namespace: BorrowedFd<'_>, kind: c_int) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) }.into()).map(drop)
}

/// Names this process in `/proc/PID/comm`.
pub(crate) fn set_process_name(name: &CStr) {
    // SAFETY: a C string; longer ones are cut.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Starts a session of its own, away from the caller's terminal and its signals.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() }.into()).map(drop)
}

/// Raises the limit of open files, the hard one as well where this user may.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }.into())?;
    if limit.rlim_max < MAX_FILES {
        let more = libc::rlimit { rlim_cur: MAX_FILES, rlim_max: MAX_FILES };
        // SAFETY: `more` is live.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) } == 0 {
            return Ok(());
        }
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is live.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into()).map(drop)
}

/// Raises the limit of open files as far as it goes, and forbids core files.
pub(crate) fn set_limits() -> io::Result<()> {
    raise_file_limit()?;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is live.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) }.into()).map(drop)
}

/// Lets the threads of a child go back from a lower priority to the caller's own.
pub(crate) fn permit_own_nice(pid: i32) -> io::Result<()> {
    // SAFETY: integers. The call itself returns 20 less the nice value, as the limit counts.
    let own = check(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) })?;
    let own = u64::try_from(own).unwrap_or(0);
    let limit = libc::rlimit { rlim_cur: own, rlim_max: own };
    // SAFETY: `limit` is live, and nothing is asked back.
    let done =
        unsafe { libc::prlimit(pid, libc::RLIMIT_NICE, &raw const limit, std::ptr::null_mut()) };
    check(done.into()).map(drop)
}

/// Returns the effective user and group id.
pub(crate) fn effective_ids() -> (u32, u32) {
    // SAFETY: neither takes arguments nor fails.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Returns the node name and the kernel release of the host.
pub(crate) fn host_name() -> io::Result<String> {
    // SAFETY: all-zero bytes are a valid `utsname`.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is live.
    check(unsafe { libc::uname(&raw mut name) }.into())?;
    // SAFETY: uname has stored a C string in the field.
    let node = unsafe { CStr::from_ptr(name.nodename.as_ptr()) };
    Ok(node.to_string_lossy().into_owned())
}

/// Returns the node name of another UTS namespace.
pub(crate) fn host_name_in(namespace: &Path) -> io::Result<String> {
    let own = std::fs::File::open("/proc/self/ns/uts")?;
    let other = std::fs::File::open(namespace)?;
    enter_namespace(other.as_fd(), libc::CLONE_NEWUTS)?;
    let name = host_name();
    enter_namespace(own.as_fd(), libc::CLONE_NEWUTS)?;
    name
}

/// Returns the file creation mask.
pub(crate) fn umask() -> u32 {
    // SAFETY: umask takes any mode; the second call restores the first's result.
    unsafe {
        let mask = libc::umask(0o077);
        libc::umask(mask);
        mask
    }
}

/// Blocks every signal that can be blocked, so that they are read from a [`signal_descriptor`].
pub(crate) fn block_signals() -> io::Result<()> {
    set_signal_mask(!0)
}

/// Gives a child of a process with blocked signals an empty mask and default actions.
pub(crate) fn reset_signals() -> io::Result<()> {
    // The standard library ignores SIGPIPE, whoever started runsc may ignore others, and an ignored
    // signal stays ignored across exec.
    for signo in 1..=64 {
        // SAFETY: SIG_DFL is a valid action; what cannot be changed is SIGKILL and its like.
        unsafe { libc::signal(signo, libc::SIG_DFL) };
    }
    set_signal_mask(0)
}

/// Makes this process's children wait to be reaped even where its parent ignored SIGCHLD.
pub(crate) fn keep_children() {
    // SAFETY: SIG_DFL is a valid action.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

fn set_signal_mask(mask: u64) -> io::Result<()> {
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: `mask` is live and has the kernel's size; the raw call, since SIG_BLOCK of the C
    // library exempts its own signals.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, old, 8)
    })
    .map(drop)
}

/// Opens a descriptor from which blocked signals are read.
pub(crate) fn signal_descriptor() -> io::Result<OwnedFd> {
    let mask = !0_u64;
    // SAFETY: `mask` is live and has the kernel's size.
    new_fd(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, libc::SFD_CLOEXEC) })
}

/// Reads one signal from a [`signal_descriptor`].
pub(crate) fn read_signal(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: all-zero bytes are a valid `signalfd_siginfo`.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is live and of the given size.
    retry(|| unsafe {
        libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) as c_long
    })?;
    c_int::try_from(info.ssi_signo).map_err(io::Error::other)
}

/// Waits until one of `fds` is readable or at its end; returns which.
pub(crate) fn poll(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let timeout_ms = timeout.map_or(-1, |t| c_int::try_from(t.as_millis()).unwrap_or(c_int::MAX));
    let count = libc::nfds_t::try_from(polled.len()).map_err(io::Error::other)?;
    // SAFETY: `polled` has `count` entries.
    retry(|| unsafe { libc::poll(polled.as_mut_ptr(), count, timeout_ms) }.into())?;
    Ok(polled.iter().map(|p| p.revents != 0).collect())
}

fn prctl(option: c_int, argument: c_long) -> io::Result<()> {
    // SAFETY: the options of this module take integers only.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) }.into()).map(drop)
}

fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn check(ret: c_long) -> io::Result<c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn retry(mut call: impl FnMut() -> c_long) -> io::Result<c_long> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn new_fd(ret: c_long) -> io::Result<OwnedFd> {
    let fd = c_int::try_from(check(ret)?).map_err(io::Error::other)?;
    // SAFETY: the callers pass the result of a call that returns a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes a descriptor of which the child of a [`spawn`] has inherited a copy. The value that owns
/// it belongs to the parent's side and is never dropped in the child.
pub(crate) fn close_in_child(fd: BorrowedFd<'_>) {
    // SAFETY: the child never returns to code that uses or drops the owner.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Returns the resource limits of this process: number, soft limit, hard limit.
pub(crate) fn resource_limits() -> Vec<(u32, u64, u64)> {
    let get = |resource: u32| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let number = c_int::try_from(resource).ok()?;
        // SAFETY: `limit` is live.
        check(unsafe { libc::getrlimit(number, &raw mut limit) }.into()).ok()?;
        Some((resource, limit.rlim_cur, limit.rlim_max))
    };
    (0..16).filter_map(get).collect()
}

/// Returns the supplementary groups of this process.
pub(crate) fn groups() -> io::Result<Vec<u32>> {
    // SAFETY: with a size of zero the pointer is not written.
    let count = check(unsafe { libc::getgroups(0, std::ptr::null_mut()) }.into())?;
    let mut groups = vec![0; usize::try_from(count).map_err(io::Error::other)?];
    // SAFETY: room for `count` groups.
    let count = check(
        unsafe {
            libc::getgroups(c_int::try_from(count).map_err(io::Error::other)?, groups.as_mut_ptr())
        }
        .into(),
    )?;
    groups.truncate(usize::try_from(count).map_err(io::Error::other)?);
    Ok(groups)
}
