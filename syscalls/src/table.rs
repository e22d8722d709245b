//! The ONE list of system calls: [`for_each_syscall!`](crate::for_each_syscall), and the lookups made
//! from it.
//!
//! A row is `NR_CONSTANT name(argument: Kind, …) -> Returns, Support, family, "note";`. The kinds are
//! those of [`Kind`]; a parenthesis after one holds its parameters. A macro that is given the
//! rows matches
//!
//! ```text
//! $($nr:ident $name:ident($($arg:ident: $kind:ident $(($($param:tt)*))?),*)
//!     -> $returns:ident, $support:ident, $family:ident, $note:literal;)*
//! ```

use crate::abi::{
    clone, fs, futex, inotify, ioctl, ipc, keyctl, mm, mount, poll, prctl, ptrace, resource, rseq,
    sched, signal, socket, time, uts, wait,
};
use crate::arch::x86_64::nr;
use crate::info::{Arg, CLONE, FUTEX, FlagSet, Kind, MAP, OPEN, Returns, SOCKET, Struct, Support};

pub use crate::info::SyscallInfo;

/// Calls the macro `$callback` with every row of the table, after the tokens given to it.
#[macro_export]
macro_rules! for_each_syscall {
    ($callback:ident $(, $($head:tt)*)?) => {
        $callback! {
            $($($head)*)?
            READ read(fd: Fd, buf: OutBuf(2), count: Size) -> Int, Full, io, "";
            WRITE write(fd: Fd, buf: InBuf(2), count: Size) -> Int, Full, io, "";
            OPEN open(pathname: InStr, flags: Mixed(OPEN), mode: Mode) -> Int, Full, open, "";
            CLOSE close(fd: Fd) -> Int, Full, open, "";
            STAT stat(pathname: InStr, statbuf: OutStruct(Stat)) -> Int, Full, stat, "";
            FSTAT fstat(fd: Fd, statbuf: OutStruct(Stat)) -> Int, Full, stat, "";
            LSTAT lstat(pathname: InStr, statbuf: OutStruct(Stat)) -> Int, Full, stat, "";
            POLL poll(fds: InOutArray(Pollfd, 1), nfds: UInt, timeout: Int) -> Int, Full, poll, "";
            LSEEK lseek(fd: Fd, offset: Long, whence: Enum(fs::SEEK_NAMES)) -> Int, Full, io, "";
            MMAP mmap(addr: Ptr, length: Size, prot: Flags(mm::ProtFlags), flags: Mixed(MAP), fd: Fd, offset: Hex) -> Addr, Full, memory, "";
            MPROTECT mprotect(addr: Ptr, length: Size, prot: Flags(mm::ProtFlags)) -> Int, Full, memory, "";
            MUNMAP munmap(addr: Ptr, length: Size) -> Int, Full, memory, "";
            BRK brk(addr: Ptr) -> Addr, Full, memory, "";
            RT_SIGACTION rt_sigaction(signum: Signal, act: InStruct(Sigaction), oldact: OutStruct(Sigaction), sigsetsize: Size) -> Int, Full, signal, "";
            RT_SIGPROCMASK rt_sigprocmask(how: Enum(signal::SIGPROCMASK_NAMES), set: InStruct(SigSet), oldset: OutStruct(SigSet), sigsetsize: Size) -> Int, Full, signal, "";
            RT_SIGRETURN rt_sigreturn() -> Int, Full, signal, "";
            IOCTL ioctl(fd: Fd, request: Enum(ioctl::IOCTL_NAMES), argp: Ioctl(1)) -> Int, Partial, fd, "requests of terminals, files and the devices that exist here";
            PREAD64 pread64(fd: Fd, buf: OutBuf(2), count: Size, offset: Long) -> Int, Full, io, "";
            PWRITE64 pwrite64(fd: Fd, buf: InBuf(2), count: Size, offset: Long) -> Int, Full, io, "";
            READV readv(fd: Fd, iov: OutIovec(2), iovcnt: Int) -> Int, Full, io, "";
            WRITEV writev(fd: Fd, iov: InIovec(2), iovcnt: Int) -> Int, Full, io, "";
            ACCESS access(pathname: InStr, mode: Access) -> Int, Full, stat, "";
            PIPE pipe(pipefd: OutStruct(IntPair)) -> Int, Full, open, "";
            SELECT select(nfds: Int, readfds: FdSet(0), writefds: FdSet(0), exceptfds: FdSet(0), timeout: InOutStruct(Timeval)) -> Int, Full, poll, "";
            SCHED_YIELD sched_yield() -> Int, Full, sched, "";
            MREMAP mremap(old_address: Ptr, old_size: Size, new_size: Size, flags: Flags(mm::MremapFlags), new_address: Ptr) -> Addr, Full, memory, "";
            MSYNC msync(addr: Ptr, length: Size, flags: Flags(mm::MsyncFlags)) -> Int, Full, memory, "";
            MINCORE mincore(addr: Ptr, length: Size, vec: Ptr) -> Int, Full, memory, "";
            MADVISE madvise(addr: Ptr, length: Size, advice: Enum(mm::MADVISE_NAMES)) -> Int, Full, memory, "";
            SHMGET shmget(key: Int, size: Size, shmflg: Flags(ipc::IpcFlags)) -> Int, Full, ipc, "";
            SHMAT shmat(shmid: Int, shmaddr: Ptr, shmflg: Flags(ipc::ShmFlags)) -> Addr, Full, ipc, "";
            SHMCTL shmctl(shmid: Int, op: Enum(ipc::SHM_CMD_NAMES), buf: Ptr) -> Int, Full, ipc, "";
            DUP dup(oldfd: Fd) -> Int, Full, fd, "";
            DUP2 dup2(oldfd: Fd, newfd: Fd) -> Int, Full, fd, "";
            PAUSE pause() -> Int, Full, signal, "";
            NANOSLEEP nanosleep(duration: InStruct(Timespec), rem: OutStruct(Timespec)) -> Int, Full, time, "";
            GETITIMER getitimer(which: Enum(time::ITIMER_NAMES), curr_value: OutStruct(Itimerval)) -> Int, Full, time, "";
            ALARM alarm(seconds: UInt) -> Int, Full, time, "";
            SETITIMER setitimer(which: Enum(time::ITIMER_NAMES), new_value: InStruct(Itimerval), old_value: OutStruct(Itimerval)) -> Int, Full, time, "";
            GETPID getpid() -> Int, Full, process, "";
            SENDFILE sendfile(out_fd: Fd, in_fd: Fd, offset: InOutStruct(Long), count: Size) -> Int, Full, io, "";
            SOCKET socket(domain: Enum(socket::AF_NAMES), kind: Mixed(SOCKET), protocol: Int) -> Int, Partial, socket, "unix, TCP, UDP, UDP-Lite, ICMP, raw, packet and netlink (route, diag, uevent)";
            CONNECT connect(sockfd: Fd, addr: InSized(Sockaddr, 2), addrlen: Int) -> Int, Full, socket, "";
            ACCEPT accept(sockfd: Fd, addr: OutSized(Sockaddr, 2), addrlen: InOutStruct(Int)) -> Int, Full, socket, "";
            SENDTO sendto(sockfd: Fd, buf: InBuf(2), size: Size, flags: Flags(socket::MsgFlags), dest_addr: InSized(Sockaddr, 5), addrlen: Int) -> Int, Partial, socket, "no out-of-band data in connections that leave the sandbox";
            RECVFROM recvfrom(sockfd: Fd, buf: OutBuf(2), size: Size, flags: Flags(socket::MsgFlags), src_addr: OutSized(Sockaddr, 5), addrlen: InOutStruct(Int)) -> Int, Partial, socket, "no out-of-band data in connections that leave the sandbox";
            SENDMSG sendmsg(sockfd: Fd, msg: InStruct(Msghdr), flags: Flags(socket::MsgFlags)) -> Int, Partial, socket, "no out-of-band data in connections that leave the sandbox";
            RECVMSG recvmsg(sockfd: Fd, msg: InOutStruct(Msghdr), flags: Flags(socket::MsgFlags)) -> Int, Partial, socket, "no out-of-band data in connections that leave the sandbox";
            SHUTDOWN shutdown(sockfd: Fd, how: Enum(socket::SHUT_NAMES)) -> Int, Full, socket, "";
            BIND bind(sockfd: Fd, addr: InSized(Sockaddr, 2), addrlen: Int) -> Int, Full, socket, "";
            LISTEN listen(sockfd: Fd, backlog: Int) -> Int, Full, socket, "";
            GETSOCKNAME getsockname(sockfd: Fd, addr: OutSized(Sockaddr, 2), addrlen: InOutStruct(Int)) -> Int, Full, socket, "";
            GETPEERNAME getpeername(sockfd: Fd, addr: OutSized(Sockaddr, 2), addrlen: InOutStruct(Int)) -> Int, Full, socket, "";
            SOCKETPAIR socketpair(domain: Enum(socket::AF_NAMES), kind: Mixed(SOCKET), protocol: Int, sv: OutStruct(IntPair)) -> Int, Full, socket, "";
            SETSOCKOPT setsockopt(sockfd: Fd, level: Enum(socket::SOL_NAMES), optname: SockOpt, optval: InSized(OptVal, 4), optlen: Int) -> Int, Partial, socket, "IP_OPTIONS has no effect; SO_TIMESTAMPING stamps no connections; no MCAST_*, SO_ZEROCOPY";
            GETSOCKOPT getsockopt(sockfd: Fd, level: Enum(socket::SOL_NAMES), optname: SockOpt, optval: OutSized(OptVal, 4), optlen: InOutStruct(Int)) -> Int, Partial, socket, "no SO_ZEROCOPY, SO_PEERGROUPS";
            CLONE clone(flags: Mixed(CLONE), stack: Ptr, parent_tid: OutStruct(Int), child_tid: Ptr, tls: Ptr) -> Int, Full, process, "";
            FORK fork() -> Int, Full, process, "";
            VFORK vfork() -> Int, Full, process, "";
            EXECVE execve(pathname: InStr, argv: StrArray, envp: Ptr) -> Int, Full, process, "";
            EXIT exit(status: Int) -> Int, Full, process, "";
            WAIT4 wait4(pid: Int, wstatus: OutStruct(WaitStatus), options: Flags(wait::WaitFlags), rusage: OutStruct(Rusage)) -> Int, Full, process, "";
            KILL kill(pid: Int, sig: Signal) -> Int, Full, signal, "";
            UNAME uname(buf: OutStruct(Utsname)) -> Int, Full, system, "";
            SEMGET semget(key: Int, nsems: Int, semflg: Flags(ipc::IpcFlags)) -> Int, Full, ipc, "";
            SEMOP semop(semid: Int, sops: InArray(Sembuf, 2), nsops: UInt) -> Int, Full, ipc, "";
            SEMCTL semctl(semid: Int, semnum: Int, op: Enum(ipc::SEM_CMD_NAMES), arg: Hex) -> Int, Full, ipc, "";
            SHMDT shmdt(shmaddr: Ptr) -> Int, Full, ipc, "";
            MSGGET msgget(key: Int, msgflg: Flags(ipc::IpcFlags)) -> Int, Full, ipc, "";
            MSGSND msgsnd(msqid: Int, msgp: Ptr, msgsz: Size, msgflg: Flags(ipc::MsgrcvFlags)) -> Int, Full, ipc, "";
            MSGRCV msgrcv(msqid: Int, msgp: Ptr, msgsz: Size, msgtyp: Long, msgflg: Flags(ipc::MsgrcvFlags)) -> Int, Full, ipc, "";
            MSGCTL msgctl(msqid: Int, op: Enum(ipc::MSG_CMD_NAMES), buf: Ptr) -> Int, Full, ipc, "";
            FCNTL fcntl(fd: Fd, op: Enum(fs::FCNTL_NAMES), arg: Fcntl(1)) -> Int, Full, fd, "";
            FLOCK flock(fd: Fd, operation: Flags(fs::LockFlags)) -> Int, Full, fd, "";
            FSYNC fsync(fd: Fd) -> Int, Full, io, "";
            FDATASYNC fdatasync(fd: Fd) -> Int, Full, io, "";
            TRUNCATE truncate(path: InStr, length: Long) -> Int, Full, io, "";
            FTRUNCATE ftruncate(fd: Fd, length: Long) -> Int, Full, io, "";
            GETDENTS getdents(fd: Fd, dirp: Ptr, count: Size) -> Int, Full, dir, "";
            GETCWD getcwd(buf: OutStr, size: Size) -> Int, Full, dir, "";
            CHDIR chdir(path: InStr) -> Int, Full, dir, "";
            FCHDIR fchdir(fd: Fd) -> Int, Full, dir, "";
            RENAME rename(oldpath: InStr, newpath: InStr) -> Int, Full, dir, "";
            MKDIR mkdir(pathname: InStr, mode: Mode) -> Int, Full, dir, "";
            RMDIR rmdir(pathname: InStr) -> Int, Full, dir, "";
            CREAT creat(pathname: InStr, mode: Mode) -> Int, Full, open, "";
            LINK link(oldpath: InStr, newpath: InStr) -> Int, Full, dir, "";
            UNLINK unlink(pathname: InStr) -> Int, Full, dir, "";
            SYMLINK symlink(target: InStr, linkpath: InStr) -> Int, Full, dir, "";
            READLINK readlink(pathname: InStr, buf: OutBuf(2), bufsiz: Size) -> Int, Full, dir, "";
            CHMOD chmod(pathname: InStr, mode: Mode) -> Int, Full, stat, "";
            FCHMOD fchmod(fd: Fd, mode: Mode) -> Int, Full, stat, "";
            CHOWN chown(pathname: InStr, owner: Int, group: Int) -> Int, Full, stat, "";
            FCHOWN fchown(fd: Fd, owner: Int, group: Int) -> Int, Full, stat, "";
            LCHOWN lchown(pathname: InStr, owner: Int, group: Int) -> Int, Full, stat, "";
            UMASK umask(mask: Mode) -> Mode, Full, stat, "";
            GETTIMEOFDAY gettimeofday(tv: OutStruct(Timeval), tz: OutStruct(Timezone)) -> Int, Full, time, "";
            GETRLIMIT getrlimit(resource: Enum(resource::RLIMIT_NAMES), rlim: OutStruct(Rlimit)) -> Int, Full, resource, "";
            GETRUSAGE getrusage(who: Enum(resource::RUSAGE_NAMES), usage: OutStruct(Rusage)) -> Int, Full, resource, "";
            SYSINFO sysinfo(info: OutStruct(Sysinfo)) -> Int, Full, system, "";
            TIMES times(buf: OutStruct(Tms)) -> Int, Full, time, "";
            PTRACE ptrace(request: Enum(ptrace::PTRACE_NAMES), pid: Int, addr: Hex, data: Hex) -> Int, Partial, process, "no hardware breakpoints; no filters are read out";
            GETUID getuid() -> Int, Full, credentials, "";
            SYSLOG syslog(r#type: Enum(uts::SYSLOG_NAMES), bufp: Ptr, size: Int) -> Int, Partial, system, "the log is empty";
            GETGID getgid() -> Int, Full, credentials, "";
            SETUID setuid(uid: Int) -> Int, Full, credentials, "";
            SETGID setgid(gid: Int) -> Int, Full, credentials, "";
            GETEUID geteuid() -> Int, Full, credentials, "";
            GETEGID getegid() -> Int, Full, credentials, "";
            SETPGID setpgid(pid: Int, pgid: Int) -> Int, Full, process, "";
            GETPPID getppid() -> Int, Full, process, "";
            GETPGRP getpgrp() -> Int, Full, process, "";
            SETSID setsid() -> Int, Full, process, "";
            SETREUID setreuid(ruid: Int, euid: Int) -> Int, Full, credentials, "";
            SETREGID setregid(rgid: Int, egid: Int) -> Int, Full, credentials, "";
            GETGROUPS getgroups(size: Int, list: OutArray(UInt, 0)) -> Int, Full, credentials, "";
            SETGROUPS setgroups(size: Int, list: InArray(UInt, 0)) -> Int, Full, credentials, "";
            SETRESUID setresuid(ruid: Int, euid: Int, suid: Int) -> Int, Full, credentials, "";
            GETRESUID getresuid(ruid: OutStruct(UInt), euid: OutStruct(UInt), suid: OutStruct(UInt)) -> Int, Full, credentials, "";
            SETRESGID setresgid(rgid: Int, egid: Int, sgid: Int) -> Int, Full, credentials, "";
            GETRESGID getresgid(rgid: OutStruct(UInt), egid: OutStruct(UInt), sgid: OutStruct(UInt)) -> Int, Full, credentials, "";
            GETPGID getpgid(pid: Int) -> Int, Full, process, "";
            SETFSUID setfsuid(fsuid: Int) -> Int, Full, credentials, "";
            SETFSGID setfsgid(fsgid: Int) -> Int, Full, credentials, "";
            GETSID getsid(pid: Int) -> Int, Full, process, "";
            CAPGET capget(hdrp: InOutStruct(CapUserHeader), datap: OutStruct(CapUserData)) -> Int, Full, credentials, "";
            CAPSET capset(hdrp: InOutStruct(CapUserHeader), datap: InStruct(CapUserData)) -> Int, Full, credentials, "";
            RT_SIGPENDING rt_sigpending(set: OutStruct(SigSet), sigsetsize: Size) -> Int, Full, signal, "";
            RT_SIGTIMEDWAIT rt_sigtimedwait(set: InStruct(SigSet), info: OutStruct(Siginfo), timeout: InStruct(Timespec), sigsetsize: Size) -> Int, Full, signal, "";
            RT_SIGQUEUEINFO rt_sigqueueinfo(tgid: Int, sig: Signal, info: InStruct(Siginfo)) -> Int, Full, signal, "";
            RT_SIGSUSPEND rt_sigsuspend(mask: InStruct(SigSet), sigsetsize: Size) -> Int, Full, signal, "";
            SIGALTSTACK sigaltstack(ss: InStruct(Stackt), old_ss: OutStruct(Stackt)) -> Int, Full, signal, "";
            UTIME utime(filename: InStr, times: InStruct(Utimbuf)) -> Int, Full, stat, "";
            MKNOD mknod(pathname: InStr, mode: Mode, dev: Hex) -> Int, Full, dir, "";
            USELIB uselib(library: InStr) -> Int, Unsupported, process, "not built into Linux either";
            PERSONALITY personality(persona: Hex) -> Int, Partial, process, "kept and returned; only PER_LINUX32, ADDR_NO_RANDOMIZE and UNAME26 act";
            USTAT ustat(dev: UInt, ubuf: Ptr) -> Int, Full, stat, "";
            STATFS statfs(path: InStr, buf: OutStruct(Statfs)) -> Int, Full, stat, "";
            FSTATFS fstatfs(fd: Fd, buf: OutStruct(Statfs)) -> Int, Full, stat, "";
            SYSFS sysfs(option: Int, arg1: Hex, arg2: Hex) -> Int, Full, system, "";
            GETPRIORITY getpriority(which: Enum(resource::PRIO_NAMES), who: Int) -> Int, Full, sched, "";
            SETPRIORITY setpriority(which: Enum(resource::PRIO_NAMES), who: Int, prio: Int) -> Int, Partial, sched, "nothing goes before what runsc itself was given";
            SCHED_SETPARAM sched_setparam(pid: Int, param: InStruct(SchedParam)) -> Int, Partial, sched, "real-time policies are kept and shown, and scheduled as SCHED_NORMAL";
            SCHED_GETPARAM sched_getparam(pid: Int, param: OutStruct(SchedParam)) -> Int, Full, sched, "";
            SCHED_SETSCHEDULER sched_setscheduler(pid: Int, policy: Enum(sched::SCHED_NAMES), param: InStruct(SchedParam)) -> Int, Partial, sched, "real-time policies are kept and shown, and scheduled as SCHED_NORMAL";
            SCHED_GETSCHEDULER sched_getscheduler(pid: Int) -> Int, Full, sched, "";
            SCHED_GET_PRIORITY_MAX sched_get_priority_max(policy: Enum(sched::SCHED_NAMES)) -> Int, Full, sched, "";
            SCHED_GET_PRIORITY_MIN sched_get_priority_min(policy: Enum(sched::SCHED_NAMES)) -> Int, Full, sched, "";
            SCHED_RR_GET_INTERVAL sched_rr_get_interval(pid: Int, tp: OutStruct(Timespec)) -> Int, Full, sched, "";
            MLOCK mlock(addr: Ptr, size: Size) -> Int, Partial, memory, "counted and limited; pages are not pinned on the host";
            MUNLOCK munlock(addr: Ptr, size: Size) -> Int, Full, memory, "";
            MLOCKALL mlockall(flags: Flags(mm::MlockallFlags)) -> Int, Partial, memory, "counted and limited; pages are not pinned on the host";
            MUNLOCKALL munlockall() -> Int, Full, memory, "";
            VHANGUP vhangup() -> Int, Partial, system, "signals the foreground process group; the terminal stays open";
            MODIFY_LDT modify_ldt(func: Int, ptr: Ptr, bytecount: Size) -> Int, Unsupported, process, "";
            PIVOT_ROOT pivot_root(new_root: InStr, put_old: InStr) -> Int, Full, mount, "";
            _SYSCTL _sysctl(args: Ptr) -> Int, Unsupported, system, "removed from Linux";
            PRCTL prctl(op: Enum(prctl::PRCTL_NAMES), arg2: Prctl(0), arg3: Hex, arg4: Hex, arg5: Hex) -> Int, Partial, process, "those options that programs use";
            ARCH_PRCTL arch_prctl(op: Enum(prctl::ARCH_PRCTL_NAMES), addr: Hex) -> Int, Partial, process, "segment bases";
            ADJTIMEX adjtimex(buf: InOutStruct(Timex)) -> Int, Partial, time, "reading only";
            SETRLIMIT setrlimit(resource: Enum(resource::RLIMIT_NAMES), rlim: InStruct(Rlimit)) -> Int, Full, resource, "";
            CHROOT chroot(path: InStr) -> Int, Full, dir, "";
            SYNC sync() -> Int, Full, io, "";
            ACCT acct(filename: InStr) -> Int, Partial, system, "refused: process accounting is compiled out";
            SETTIMEOFDAY settimeofday(tv: InStruct(Timeval), tz: InStruct(Timezone)) -> Int, Partial, time, "the clock cannot be set";
            MOUNT mount(source: InStr, target: InStr, filesystemtype: InStr, mountflags: Flags(mount::MountFlags), data: Ptr) -> Int, Partial, mount, "the types of /proc/filesystems, and binds";
            UMOUNT2 umount2(target: InStr, flags: Flags(mount::UmountFlags)) -> Int, Full, mount, "";
            SWAPON swapon(path: InStr, swapflags: Hex) -> Int, Partial, system, "refused: there are no swap devices";
            SWAPOFF swapoff(path: InStr) -> Int, Partial, system, "refused: there are no swap devices";
            REBOOT reboot(magic: Hex32, magic2: Hex32, op: Enum(prctl::REBOOT_NAMES), arg: Ptr) -> Int, Full, system, "";
            SETHOSTNAME sethostname(name: InBuf(1), size: Size) -> Int, Full, system, "";
            SETDOMAINNAME setdomainname(name: InBuf(1), size: Size) -> Int, Full, system, "";
            IOPL iopl(level: Int) -> Int, Unsupported, system, "";
            IOPERM ioperm(from: Hex, num: Hex, turn_on: Int) -> Int, Unsupported, system, "";
            CREATE_MODULE create_module(name: InStr, size: Size) -> Int, Unsupported, system, "removed from Linux";
            INIT_MODULE init_module(module_image: Ptr, size: Size, param_values: InStr) -> Int, Unsupported, system, "";
            DELETE_MODULE delete_module(name: InStr, flags: Hex32) -> Int, Unsupported, system, "";
            GET_KERNEL_SYMS get_kernel_syms(table: Ptr) -> Int, Unsupported, system, "removed from Linux";
            QUERY_MODULE query_module(name: InStr, which: Int, buf: Ptr, bufsize: Size, ret: Ptr) -> Int, Unsupported, system, "removed from Linux";
            QUOTACTL quotactl(op: Hex32, special: InStr, id: Int, addr: Ptr) -> Int, Unsupported, mount, "";
            NFSSERVCTL nfsservctl(cmd: Int, argp: Ptr, resp: Ptr) -> Int, Unsupported, system, "removed from Linux";
            GETPMSG getpmsg() -> Int, Unsupported, system, "never built into Linux";
            PUTPMSG putpmsg() -> Int, Unsupported, system, "never built into Linux";
            AFS_SYSCALL afs_syscall() -> Int, Unsupported, system, "never built into Linux";
            TUXCALL tuxcall() -> Int, Unsupported, system, "never built into Linux";
            SECURITY security() -> Int, Unsupported, system, "never built into Linux";
            GETTID gettid() -> Int, Full, process, "";
            READAHEAD readahead(fd: Fd, offset: Long, count: Size) -> Int, Full, io, "";
            SETXATTR setxattr(path: InStr, name: InStr, value: InBuf(3), size: Size, flags: Flags(fs::XattrFlags)) -> Int, Full, xattr, "";
            LSETXATTR lsetxattr(path: InStr, name: InStr, value: InBuf(3), size: Size, flags: Flags(fs::XattrFlags)) -> Int, Full, xattr, "";
            FSETXATTR fsetxattr(fd: Fd, name: InStr, value: InBuf(3), size: Size, flags: Flags(fs::XattrFlags)) -> Int, Full, xattr, "";
            GETXATTR getxattr(path: InStr, name: InStr, value: OutBuf(3), size: Size) -> Int, Full, xattr, "";
            LGETXATTR lgetxattr(path: InStr, name: InStr, value: OutBuf(3), size: Size) -> Int, Full, xattr, "";
            FGETXATTR fgetxattr(fd: Fd, name: InStr, value: OutBuf(3), size: Size) -> Int, Full, xattr, "";
            LISTXATTR listxattr(path: InStr, list: OutBuf(2), size: Size) -> Int, Full, xattr, "";
            LLISTXATTR llistxattr(path: InStr, list: OutBuf(2), size: Size) -> Int, Full, xattr, "";
            FLISTXATTR flistxattr(fd: Fd, list: OutBuf(2), size: Size) -> Int, Full, xattr, "";
            REMOVEXATTR removexattr(path: InStr, name: InStr) -> Int, Full, xattr, "";
            LREMOVEXATTR lremovexattr(path: InStr, name: InStr) -> Int, Full, xattr, "";
            FREMOVEXATTR fremovexattr(fd: Fd, name: InStr) -> Int, Full, xattr, "";
            TKILL tkill(tid: Int, sig: Signal) -> Int, Full, signal, "";
            TIME time(tloc: OutStruct(Long)) -> Int, Full, time, "";
            FUTEX futex(uaddr: Ptr, futex_op: Mixed(FUTEX), val: UInt, timeout: FutexTimeout(1), uaddr2: Ptr, val3: UInt) -> Int, Partial, futex, "priority inheritance without boosting";
            SCHED_SETAFFINITY sched_setaffinity(pid: Int, cpusetsize: Size, mask: InBuf(1)) -> Int, Full, sched, "";
            SCHED_GETAFFINITY sched_getaffinity(pid: Int, cpusetsize: Size, mask: OutBuf(1)) -> Int, Full, sched, "";
            SET_THREAD_AREA set_thread_area(u_info: Ptr) -> Int, Unsupported, process, "not built into Linux either";
            IO_SETUP io_setup(nr_events: UInt, ctx_idp: InOutStruct(Long)) -> Int, Full, aio, "";
            IO_DESTROY io_destroy(ctx_id: Hex) -> Int, Full, aio, "";
            IO_GETEVENTS io_getevents(ctx_id: Hex, min_nr: Long, nr: Long, events: Ptr, timeout: InStruct(Timespec)) -> Int, Full, aio, "";
            IO_SUBMIT io_submit(ctx_id: Hex, nr: Long, iocbpp: Ptr) -> Int, Full, aio, "";
            IO_CANCEL io_cancel(ctx_id: Hex, iocb: Ptr, result: Ptr) -> Int, Full, aio, "";
            GET_THREAD_AREA get_thread_area(u_info: Ptr) -> Int, Unsupported, process, "not built into Linux either";
            LOOKUP_DCOOKIE lookup_dcookie(cookie: Hex, buffer: Ptr, size: Size) -> Int, Unsupported, system, "removed from Linux";
            EPOLL_CREATE epoll_create(size: Int) -> Int, Full, poll, "";
            EPOLL_CTL_OLD epoll_ctl_old() -> Int, Unsupported, poll, "never built into Linux";
            EPOLL_WAIT_OLD epoll_wait_old() -> Int, Unsupported, poll, "never built into Linux";
            REMAP_FILE_PAGES remap_file_pages(addr: Ptr, size: Size, prot: Flags(mm::ProtFlags), pgoff: Hex, flags: Mixed(MAP)) -> Int, Partial, memory, "not of shared memory without a file";
            GETDENTS64 getdents64(fd: Fd, dirp: Ptr, count: Size) -> Int, Full, dir, "";
            SET_TID_ADDRESS set_tid_address(tidptr: Ptr) -> Int, Full, process, "";
            RESTART_SYSCALL restart_syscall() -> Int, Full, signal, "";
            SEMTIMEDOP semtimedop(semid: Int, sops: InArray(Sembuf, 2), nsops: UInt, timeout: InStruct(Timespec)) -> Int, Full, ipc, "";
            FADVISE64 fadvise64(fd: Fd, offset: Long, size: Long, advice: Enum(fs::FADVISE_NAMES)) -> Int, Full, io, "";
            TIMER_CREATE timer_create(clockid: Enum(time::CLOCK_NAMES), sevp: InStruct(Sigevent), timerid: OutStruct(Int)) -> Int, Full, time, "";
            TIMER_SETTIME timer_settime(timerid: Int, flags: Flags(time::TimerFlags), new_value: InStruct(Itimerspec), old_value: OutStruct(Itimerspec)) -> Int, Full, time, "";
            TIMER_GETTIME timer_gettime(timerid: Int, curr_value: OutStruct(Itimerspec)) -> Int, Full, time, "";
            TIMER_GETOVERRUN timer_getoverrun(timerid: Int) -> Int, Full, time, "";
            TIMER_DELETE timer_delete(timerid: Int) -> Int, Full, time, "";
            CLOCK_SETTIME clock_settime(clockid: Enum(time::CLOCK_NAMES), tp: InStruct(Timespec)) -> Int, Partial, time, "the clock cannot be set";
            CLOCK_GETTIME clock_gettime(clockid: Enum(time::CLOCK_NAMES), tp: OutStruct(Timespec)) -> Int, Full, time, "";
            CLOCK_GETRES clock_getres(clockid: Enum(time::CLOCK_NAMES), res: OutStruct(Timespec)) -> Int, Full, time, "";
            CLOCK_NANOSLEEP clock_nanosleep(clockid: Enum(time::CLOCK_NAMES), flags: Flags(time::TimerFlags), t: InStruct(Timespec), remain: OutStruct(Timespec)) -> Int, Full, time, "";
            EXIT_GROUP exit_group(status: Int) -> Int, Full, process, "";
            EPOLL_WAIT epoll_wait(epfd: Fd, events: OutArray(EpollEvent, 2), maxevents: Int, timeout: Int) -> Int, Full, poll, "";
            EPOLL_CTL epoll_ctl(epfd: Fd, op: Enum(poll::EPOLL_CTL_NAMES), fd: Fd, event: InStruct(EpollEvent)) -> Int, Full, poll, "";
            TGKILL tgkill(tgid: Int, tid: Int, sig: Signal) -> Int, Full, signal, "";
            UTIMES utimes(filename: InStr, times: InStruct(TimevalPair)) -> Int, Full, stat, "";
            VSERVER vserver() -> Int, Unsupported, system, "never built into Linux";
            MBIND mbind(addr: Ptr, size: Size, mode: Enum(mm::MPOL_NAMES), nodemask: Ptr, maxnode: ULong, flags: Hex32) -> Int, Partial, memory, "kept and shown: there is one node";
            SET_MEMPOLICY set_mempolicy(mode: Enum(mm::MPOL_NAMES), nodemask: Ptr, maxnode: ULong) -> Int, Partial, memory, "kept and shown: there is one node";
            GET_MEMPOLICY get_mempolicy(mode: OutStruct(Int), nodemask: Ptr, maxnode: ULong, addr: Ptr, flags: Hex) -> Int, Partial, memory, "kept and shown: there is one node";
            MQ_OPEN mq_open(name: InStr, oflag: Mixed(OPEN), mode: Mode, attr: InStruct(MqAttr)) -> Int, Full, ipc, "";
            MQ_UNLINK mq_unlink(name: InStr) -> Int, Full, ipc, "";
            MQ_TIMEDSEND mq_timedsend(mqdes: Fd, msg_ptr: InBuf(2), msg_len: Size, msg_prio: UInt, abs_timeout: InStruct(Timespec)) -> Int, Full, ipc, "";
            MQ_TIMEDRECEIVE mq_timedreceive(mqdes: Fd, msg_ptr: OutBuf(2), msg_len: Size, msg_prio: OutStruct(UInt), abs_timeout: InStruct(Timespec)) -> Int, Full, ipc, "";
            MQ_NOTIFY mq_notify(mqdes: Fd, sevp: InStruct(Sigevent)) -> Int, Full, ipc, "";
            MQ_GETSETATTR mq_getsetattr(mqdes: Fd, newattr: InStruct(MqAttr), oldattr: OutStruct(MqAttr)) -> Int, Full, ipc, "";
            KEXEC_LOAD kexec_load(entry: Hex, nr_segments: ULong, segments: Ptr, flags: Hex) -> Int, Unsupported, system, "";
            WAITID waitid(idtype: Enum(wait::IDTYPE_NAMES), id: Int, infop: OutStruct(Siginfo), options: Flags(wait::WaitFlags), rusage: OutStruct(Rusage)) -> Int, Full, process, "";
            ADD_KEY add_key(r#type: InStr, description: InStr, payload: InBuf(3), plen: Size, keyring: Int) -> Int, Partial, keys, "keyring, user, logon and big_key";
            REQUEST_KEY request_key(r#type: InStr, description: InStr, callout_info: InStr, dest_keyring: Int) -> Int, Partial, keys, "nobody makes keys on request";
            KEYCTL keyctl(operation: Enum(keyctl::KEYCTL_NAMES), arg2: Hex, arg3: Hex, arg4: Hex, arg5: Hex) -> Int, Partial, keys, "no public keys, no persistent keyrings";
            IOPRIO_SET ioprio_set(which: Enum(sched::IOPRIO_WHO_NAMES), who: Int, ioprio: Int) -> Int, Partial, sched, "kept and returned; the host schedules";
            IOPRIO_GET ioprio_get(which: Enum(sched::IOPRIO_WHO_NAMES), who: Int) -> Int, Full, sched, "";
            INOTIFY_INIT inotify_init() -> Int, Full, notify, "";
            INOTIFY_ADD_WATCH inotify_add_watch(fd: Fd, pathname: InStr, mask: Flags(inotify::InotifyMask)) -> Int, Partial, notify, "of files shared with the host, changes by others but neither their opens nor their reads";
            INOTIFY_RM_WATCH inotify_rm_watch(fd: Fd, wd: Int) -> Int, Full, notify, "";
            MIGRATE_PAGES migrate_pages(pid: Int, maxnode: ULong, old_nodes: Ptr, new_nodes: Ptr) -> Int, Partial, memory, "kept and shown: there is one node";
            OPENAT openat(dirfd: DirFd, pathname: InStr, flags: Mixed(OPEN), mode: Mode) -> Int, Full, open, "";
            MKDIRAT mkdirat(dirfd: DirFd, pathname: InStr, mode: Mode) -> Int, Full, dir, "";
            MKNODAT mknodat(dirfd: DirFd, pathname: InStr, mode: Mode, dev: Hex) -> Int, Full, dir, "";
            FCHOWNAT fchownat(dirfd: DirFd, pathname: InStr, owner: Int, group: Int, flags: Flags(fs::AtFlags)) -> Int, Full, stat, "";
            FUTIMESAT futimesat(dirfd: DirFd, pathname: InStr, times: InStruct(TimevalPair)) -> Int, Full, stat, "";
            NEWFSTATAT newfstatat(dirfd: DirFd, pathname: InStr, statbuf: OutStruct(Stat), flags: Flags(fs::AtFlags)) -> Int, Full, stat, "";
            UNLINKAT unlinkat(dirfd: DirFd, pathname: InStr, flags: Flags(fs::AtFlags)) -> Int, Full, dir, "";
            RENAMEAT renameat(olddirfd: DirFd, oldpath: InStr, newdirfd: DirFd, newpath: InStr) -> Int, Full, dir, "";
            LINKAT linkat(olddirfd: DirFd, oldpath: InStr, newdirfd: DirFd, newpath: InStr, flags: Flags(fs::AtFlags)) -> Int, Full, dir, "";
            SYMLINKAT symlinkat(target: InStr, newdirfd: DirFd, linkpath: InStr) -> Int, Full, dir, "";
            READLINKAT readlinkat(dirfd: DirFd, pathname: InStr, buf: OutBuf(3), bufsiz: Size) -> Int, Full, dir, "";
            FCHMODAT fchmodat(dirfd: DirFd, pathname: InStr, mode: Mode) -> Int, Full, stat, "";
            FACCESSAT faccessat(dirfd: DirFd, pathname: InStr, mode: Access) -> Int, Full, stat, "";
            PSELECT6 pselect6(nfds: Int, readfds: FdSet(0), writefds: FdSet(0), exceptfds: FdSet(0), timeout: InOutStruct(Timespec), sigmask: InStruct(SigsetArgpack)) -> Int, Full, poll, "";
            PPOLL ppoll(fds: InOutArray(Pollfd, 1), nfds: UInt, tmo_p: InOutStruct(Timespec), sigmask: InStruct(SigSet), sigsetsize: Size) -> Int, Full, poll, "";
            UNSHARE unshare(flags: Flags(clone::CloneFlags)) -> Int, Full, process, "";
            SET_ROBUST_LIST set_robust_list(head: Ptr, size: Size) -> Int, Full, futex, "";
            GET_ROBUST_LIST get_robust_list(pid: Int, head_ptr: OutStruct(Pointer), sizep: OutStruct(Long)) -> Int, Full, futex, "";
            SPLICE splice(fd_in: Fd, off_in: InOutStruct(Long), fd_out: Fd, off_out: InOutStruct(Long), size: Size, flags: Flags(fs::SpliceFlags)) -> Int, Full, io, "";
            TEE tee(fd_in: Fd, fd_out: Fd, size: Size, flags: Flags(fs::SpliceFlags)) -> Int, Full, io, "";
            SYNC_FILE_RANGE sync_file_range(fd: Fd, offset: Long, nbytes: Long, flags: Flags(fs::SyncFileRangeFlags)) -> Int, Full, io, "";
            VMSPLICE vmsplice(fd: Fd, iov: InIovec(2), nr_segs: Size, flags: Flags(fs::SpliceFlags)) -> Int, Partial, io, "copies";
            MOVE_PAGES move_pages(pid: Int, count: ULong, pages: Ptr, nodes: Ptr, status: Ptr, flags: Hex32) -> Int, Unsupported, memory, "";
            UTIMENSAT utimensat(dirfd: DirFd, pathname: InStr, times: InStruct(TimespecPair), flags: Flags(fs::AtFlags)) -> Int, Full, stat, "";
            EPOLL_PWAIT epoll_pwait(epfd: Fd, events: OutArray(EpollEvent, 2), maxevents: Int, timeout: Int, sigmask: InStruct(SigSet), sigsetsize: Size) -> Int, Full, poll, "";
            SIGNALFD signalfd(fd: Fd, mask: InStruct(SigSet), sizemask: Size) -> Int, Full, signal, "";
            TIMERFD_CREATE timerfd_create(clockid: Enum(time::CLOCK_NAMES), flags: Flags(time::TimerfdFlags)) -> Int, Full, time, "";
            EVENTFD eventfd(initval: UInt) -> Int, Full, poll, "";
            FALLOCATE fallocate(fd: Fd, mode: Flags(fs::FallocFlags), offset: Long, size: Long) -> Int, Partial, io, "collapsing and inserting depend on the host's file system";
            TIMERFD_SETTIME timerfd_settime(fd: Fd, flags: Flags(time::TimerfdFlags), new_value: InStruct(Itimerspec), old_value: OutStruct(Itimerspec)) -> Int, Full, time, "";
            TIMERFD_GETTIME timerfd_gettime(fd: Fd, curr_value: OutStruct(Itimerspec)) -> Int, Full, time, "";
            ACCEPT4 accept4(sockfd: Fd, addr: OutSized(Sockaddr, 2), addrlen: InOutStruct(Int), flags: Flags(socket::SockFlags)) -> Int, Full, socket, "";
            SIGNALFD4 signalfd4(fd: Fd, mask: InStruct(SigSet), sizemask: Size, flags: Flags(signal::SignalfdFlags)) -> Int, Full, signal, "";
            EVENTFD2 eventfd2(initval: UInt, flags: Flags(poll::EventfdFlags)) -> Int, Full, poll, "";
            EPOLL_CREATE1 epoll_create1(flags: Flags(poll::EpollCreateFlags)) -> Int, Full, poll, "";
            DUP3 dup3(oldfd: Fd, newfd: Fd, flags: Flags(fs::OpenFlags)) -> Int, Full, fd, "";
            PIPE2 pipe2(pipefd: OutStruct(IntPair), flags: Flags(fs::OpenFlags)) -> Int, Full, open, "";
            INOTIFY_INIT1 inotify_init1(flags: Flags(inotify::InotifyInitFlags)) -> Int, Full, notify, "";
            PREADV preadv(fd: Fd, iov: OutIovec(2), iovcnt: ULong, pos_l: Long, pos_h: Long) -> Int, Full, io, "";
            PWRITEV pwritev(fd: Fd, iov: InIovec(2), iovcnt: ULong, pos_l: Long, pos_h: Long) -> Int, Full, io, "";
            RT_TGSIGQUEUEINFO rt_tgsigqueueinfo(tgid: Int, tid: Int, sig: Signal, info: InStruct(Siginfo)) -> Int, Full, signal, "";
            PERF_EVENT_OPEN perf_event_open(attr: Ptr, pid: Int, cpu: Int, group_fd: Fd, flags: Hex) -> Int, Unsupported, system, "";
            RECVMMSG recvmmsg(sockfd: Fd, msgvec: InOutArray(Mmsghdr, 2), vlen: UInt, flags: Flags(socket::MsgFlags), timeout: InOutStruct(Timespec)) -> Int, Partial, socket, "no out-of-band data in connections that leave the sandbox";
            FANOTIFY_INIT fanotify_init(flags: Hex32, event_f_flags: Mixed(OPEN)) -> Int, Unsupported, notify, "";
            FANOTIFY_MARK fanotify_mark(fanotify_fd: Fd, flags: Hex32, mask: Hex, dirfd: DirFd, pathname: InStr) -> Int, Unsupported, notify, "";
            PRLIMIT64 prlimit64(pid: Int, resource: Enum(resource::RLIMIT_NAMES), new_limit: InStruct(Rlimit), old_limit: OutStruct(Rlimit)) -> Int, Full, resource, "";
            NAME_TO_HANDLE_AT name_to_handle_at(dirfd: DirFd, pathname: InStr, handle: InOutStruct(FileHandle), mount_id: OutStruct(Int), flags: Flags(fs::HandleFlags)) -> Int, Partial, open, "files that have been renamed out of the cache are not found again";
            OPEN_BY_HANDLE_AT open_by_handle_at(mount_fd: DirFd, handle: InStruct(FileHandle), flags: Mixed(OPEN)) -> Int, Partial, open, "files that have been renamed out of the cache are not found again";
            CLOCK_ADJTIME clock_adjtime(clockid: Enum(time::CLOCK_NAMES), buf: InOutStruct(Timex)) -> Int, Partial, time, "reads only: the clocks are those of the host";
            SYNCFS syncfs(fd: Fd) -> Int, Full, io, "";
            SENDMMSG sendmmsg(sockfd: Fd, msgvec: InOutArray(Mmsghdr, 2), vlen: UInt, flags: Flags(socket::MsgFlags)) -> Int, Partial, socket, "no out-of-band data in connections that leave the sandbox";
            SETNS setns(fd: Fd, nstype: Flags(clone::CloneFlags)) -> Int, Full, process, "";
            GETCPU getcpu(cpu: OutStruct(UInt), node: OutStruct(UInt), tcache: Ptr) -> Int, Full, sched, "";
            PROCESS_VM_READV process_vm_readv(pid: Int, local_iov: InArray(Iovec, 2), liovcnt: ULong, remote_iov: InArray(Iovec, 4), riovcnt: ULong, flags: Hex) -> Int, Full, process, "";
            PROCESS_VM_WRITEV process_vm_writev(pid: Int, local_iov: InArray(Iovec, 2), liovcnt: ULong, remote_iov: InArray(Iovec, 4), riovcnt: ULong, flags: Hex) -> Int, Full, process, "";
            KCMP kcmp(pid1: Int, pid2: Int, kind: Enum(prctl::KCMP_NAMES), idx1: Hex, idx2: Hex) -> Int, Full, process, "";
            FINIT_MODULE finit_module(fd: Fd, param_values: InStr, flags: Hex32) -> Int, Unsupported, system, "";
            SCHED_SETATTR sched_setattr(pid: Int, attr: InStruct(SchedAttr), flags: Hex32) -> Int, Partial, sched, "real-time policies are kept and shown, and scheduled as SCHED_NORMAL";
            SCHED_GETATTR sched_getattr(pid: Int, attr: OutStruct(SchedAttr), size: UInt, flags: Hex32) -> Int, Full, sched, "";
            RENAMEAT2 renameat2(olddirfd: DirFd, oldpath: InStr, newdirfd: DirFd, newpath: InStr, flags: Flags(fs::RenameFlags)) -> Int, Full, dir, "";
            SECCOMP seccomp(operation: Enum(prctl::SECCOMP_NAMES), flags: Flags(prctl::SeccompFlags), args: Ptr) -> Int, Full, security, "";
            GETRANDOM getrandom(buf: OutBuf(1), buflen: Size, flags: Flags(fs::GetrandomFlags)) -> Int, Full, system, "";
            MEMFD_CREATE memfd_create(name: InStr, flags: Flags(fs::MemfdFlags)) -> Int, Full, open, "";
            KEXEC_FILE_LOAD kexec_file_load(kernel_fd: Fd, initrd_fd: Fd, cmdline_len: Size, cmdline: Ptr, flags: Hex) -> Int, Unsupported, system, "";
            BPF bpf(cmd: Int, attr: Ptr, size: UInt) -> Int, Unsupported, system, "";
            EXECVEAT execveat(dirfd: DirFd, pathname: InStr, argv: StrArray, envp: Ptr, flags: Flags(fs::AtFlags)) -> Int, Full, process, "";
            USERFAULTFD userfaultfd(flags: Flags(fs::OpenFlags)) -> Int, Unsupported, memory, "";
            MEMBARRIER membarrier(cmd: Flags(prctl::MembarrierCmd), flags: Hex32, cpu_id: Int) -> Int, Full, sched, "";
            MLOCK2 mlock2(addr: Ptr, size: Size, flags: Flags(mm::Mlock2Flags)) -> Int, Partial, memory, "counted and limited; pages are not pinned on the host";
            COPY_FILE_RANGE copy_file_range(fd_in: Fd, off_in: InOutStruct(Long), fd_out: Fd, off_out: InOutStruct(Long), size: Size, flags: Hex32) -> Int, Full, io, "";
            PREADV2 preadv2(fd: Fd, iov: OutIovec(2), iovcnt: ULong, pos_l: Long, pos_h: Long, flags: Flags(fs::RwFlags)) -> Int, Full, io, "";
            PWRITEV2 pwritev2(fd: Fd, iov: InIovec(2), iovcnt: ULong, pos_l: Long, pos_h: Long, flags: Flags(fs::RwFlags)) -> Int, Full, io, "";
            PKEY_MPROTECT pkey_mprotect(addr: Ptr, length: Size, prot: Flags(mm::ProtFlags), pkey: Int) -> Int, Partial, memory, "no protection keys";
            PKEY_ALLOC pkey_alloc(flags: Hex32, access_rights: Hex32) -> Int, Partial, memory, "no protection keys";
            PKEY_FREE pkey_free(pkey: Int) -> Int, Partial, memory, "no protection keys";
            STATX statx(dirfd: DirFd, pathname: InStr, flags: Flags(fs::AtFlags), mask: Flags(fs::StatxMask), statxbuf: OutStruct(Statx)) -> Int, Full, stat, "";
            IO_PGETEVENTS io_pgetevents(ctx_id: Hex, min_nr: Long, nr: Long, events: Ptr, timeout: InStruct(Timespec), sig: InStruct(SigsetArgpack)) -> Int, Full, aio, "";
            RSEQ rseq(rseq: Ptr, rseq_len: UInt, flags: Flags(rseq::RseqFlags), sig: Hex32) -> Int, Full, sched, "";
            URETPROBE uretprobe() -> Int, Unsupported, system, "";
            PIDFD_SEND_SIGNAL pidfd_send_signal(pidfd: Fd, sig: Signal, info: InStruct(Siginfo), flags: Flags(signal::PidfdSignalFlags)) -> Int, Full, signal, "";
            IO_URING_SETUP io_uring_setup(entries: UInt, p: Ptr) -> Int, Unsupported, aio, "";
            IO_URING_ENTER io_uring_enter(fd: Fd, to_submit: UInt, min_complete: UInt, flags: Hex32, argp: Ptr, argsz: Size) -> Int, Unsupported, aio, "";
            IO_URING_REGISTER io_uring_register(fd: Fd, opcode: UInt, arg: Ptr, nr_args: UInt) -> Int, Unsupported, aio, "";
            OPEN_TREE open_tree(dirfd: DirFd, pathname: InStr, flags: Flags(mount::OpenTreeFlags)) -> Int, Full, mount, "";
            MOVE_MOUNT move_mount(from_dirfd: DirFd, from_pathname: InStr, to_dirfd: DirFd, to_pathname: InStr, flags: Flags(mount::MoveMountFlags)) -> Int, Partial, mount, "no `MOVE_MOUNT_SET_GROUP`, no `MOVE_MOUNT_BENEATH`";
            FSOPEN fsopen(fsname: InStr, flags: Hex32) -> Int, Full, mount, "";
            FSCONFIG fsconfig(fd: Fd, cmd: Enum(mount::FSCONFIG_NAMES), key: InStr, value: Ptr, aux: Int) -> Int, Partial, mount, "options by name, without messages about errors";
            FSMOUNT fsmount(fsfd: Fd, flags: Hex32, attr_flags: Flags(mount::MountAttrFlags)) -> Int, Full, mount, "";
            FSPICK fspick(dirfd: DirFd, pathname: InStr, flags: Hex32) -> Int, Full, mount, "";
            PIDFD_OPEN pidfd_open(pid: Int, flags: Flags(signal::PidfdFlags)) -> Int, Full, process, "";
            CLONE3 clone3(cl_args: InSized(CloneArgs, 1), size: Size) -> Int, Full, process, "";
            CLOSE_RANGE close_range(first: UInt, last: UInt, flags: Flags(fs::CloseRangeFlags)) -> Int, Full, fd, "";
            OPENAT2 openat2(dirfd: DirFd, pathname: InStr, how: InSized(OpenHow, 3), size: Size) -> Int, Full, open, "";
            PIDFD_GETFD pidfd_getfd(pidfd: Fd, targetfd: Fd, flags: Hex32) -> Int, Full, process, "";
            FACCESSAT2 faccessat2(dirfd: DirFd, pathname: InStr, mode: Access, flags: Flags(fs::AtFlags)) -> Int, Full, stat, "";
            PROCESS_MADVISE process_madvise(pidfd: Fd, iovec: InArray(Iovec, 2), vlen: Size, advice: Enum(mm::MADVISE_NAMES), flags: Hex32) -> Int, Partial, memory, "advice about another process is checked only";
            EPOLL_PWAIT2 epoll_pwait2(epfd: Fd, events: OutArray(EpollEvent, 2), maxevents: Int, timeout: InStruct(Timespec), sigmask: InStruct(SigSet), sigsetsize: Size) -> Int, Full, poll, "";
            MOUNT_SETATTR mount_setattr(dirfd: DirFd, pathname: InStr, flags: Flags(fs::AtFlags), attr: InSized(MountAttr, 4), size: Size) -> Int, Partial, mount, "no mounts with other owners";
            QUOTACTL_FD quotactl_fd(fd: Fd, cmd: Hex32, id: Int, addr: Ptr) -> Int, Unsupported, mount, "";
            LANDLOCK_CREATE_RULESET landlock_create_ruleset(attr: InBuf(1), size: Size, flags: Hex32) -> Int, Full, security, "";
            LANDLOCK_ADD_RULE landlock_add_rule(ruleset_fd: Fd, rule_type: Int, rule_attr: Ptr, flags: Hex32) -> Int, Full, security, "";
            LANDLOCK_RESTRICT_SELF landlock_restrict_self(ruleset_fd: Fd, flags: Hex32) -> Int, Full, security, "";
            MEMFD_SECRET memfd_secret(flags: Hex32) -> Int, Unsupported, memory, "";
            PROCESS_MRELEASE process_mrelease(pidfd: Fd, flags: Hex32) -> Int, Full, memory, "";
            FUTEX_WAITV futex_waitv(waiters: InArray(FutexWaitv, 1), nr_futexes: UInt, flags: Hex32, timeout: InStruct(Timespec), clockid: Enum(time::CLOCK_NAMES)) -> Int, Full, futex, "";
            SET_MEMPOLICY_HOME_NODE set_mempolicy_home_node(start: Ptr, size: Size, home_node: ULong, flags: Hex) -> Int, Partial, memory, "kept and shown: there is one node";
            CACHESTAT cachestat(fd: Fd, cstat_range: InStruct(CachestatRange), cstat: OutStruct(Cachestat), flags: Hex32) -> Int, Partial, io, "what a file has counts as cached and clean";
            FCHMODAT2 fchmodat2(dirfd: DirFd, pathname: InStr, mode: Mode, flags: Flags(fs::AtFlags)) -> Int, Full, stat, "";
            MAP_SHADOW_STACK map_shadow_stack(addr: Ptr, size: Size, flags: Hex32) -> Addr, Unsupported, memory, "";
            FUTEX_WAKE futex_wake(uaddr: Ptr, mask: Hex, count: Int, flags: Flags(futex::Futex2Flags)) -> Int, Full, futex, "";
            FUTEX_WAIT futex_wait(uaddr: Ptr, val: ULong, mask: Hex, flags: Flags(futex::Futex2Flags), timeout: InStruct(Timespec), clockid: Enum(time::CLOCK_NAMES)) -> Int, Full, futex, "";
            FUTEX_REQUEUE futex_requeue(waiters: InStruct(FutexWaitvPair), flags: Hex32, nr_wake: Int, nr_requeue: Int) -> Int, Full, futex, "";
            STATMOUNT statmount(req: Ptr, buf: Ptr, bufsize: Size, flags: Hex32) -> Int, Partial, mount, "of the caller\'s mount namespace";
            LISTMOUNT listmount(req: Ptr, mnt_ids: Ptr, nr_mnt_ids: Size, flags: Hex32) -> Int, Partial, mount, "of the caller\'s mount namespace";
            LSM_GET_SELF_ATTR lsm_get_self_attr(attr: UInt, ctx: Ptr, size: Ptr, flags: Hex32) -> Int, Full, security, "no module has attributes";
            LSM_SET_SELF_ATTR lsm_set_self_attr(attr: UInt, ctx: Ptr, size: UInt, flags: Hex32) -> Int, Full, security, "no module has attributes";
            LSM_LIST_MODULES lsm_list_modules(ids: Ptr, size: Ptr, flags: Hex32) -> Int, Full, security, "";
            MSEAL mseal(addr: Ptr, length: Size, flags: Hex) -> Int, Full, memory, "";
        }
    };
}

/// Turns the kind of a row into a [`Kind`].
macro_rules! kind {
    (Flags($ty:ty)) => {
        Kind::Flags(FlagSet::of::<$ty>())
    };
    (InStruct($s:ident)) => {
        Kind::InStruct(Struct::$s)
    };
    (OutStruct($s:ident)) => {
        Kind::OutStruct(Struct::$s)
    };
    (InOutStruct($s:ident)) => {
        Kind::InOutStruct(Struct::$s)
    };
    ($kind:ident($s:ident, $n:literal)) => {
        Kind::$kind(Struct::$s, $n)
    };
    ($kind:ident($e:expr)) => {
        Kind::$kind($e)
    };
    ($kind:ident) => {
        Kind::$kind
    };
}

macro_rules! infos {
    ($(
        $nr:ident $name:ident($($arg:ident: $kind:ident $(($($param:tt)*))?),*)
            -> $returns:ident, $support:ident, $family:ident, $note:literal;
    )*) => {
        &[$(SyscallInfo {
            number: nr::$nr,
            name: stringify!($name),
            args: &[$(Arg {
                name: plain_ident(stringify!($arg)),
                kind: kind!($kind $(($($param)*))?),
            }),*],
            returns: Returns::$returns,
            support: Support::$support,
            family: stringify!($family),
            note: $note,
        }),*]
    };
}

/// Every call, in the order of the numbers.
pub static ALL: &[SyscallInfo] = for_each_syscall!(infos);

/// The calls by number.
pub static SYSCALLS: [Option<&'static SyscallInfo>; nr::COUNT] = by_number(ALL);

/// Returns the row of a call, or `None` for a number that Linux 6.12 does not have.
pub fn lookup(number: u64) -> Option<&'static SyscallInfo> {
    usize::try_from(number).ok().and_then(|number| SYSCALLS.get(number).copied().flatten())
}

/// Returns the row of the call with a name.
pub fn by_name(name: &str) -> Option<&'static SyscallInfo> {
    ALL.iter().find(|info| info.name == name)
}

/// Removes the mark of a raw identifier.
const fn plain_ident(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "constant evaluation stops at an overflow")]
const fn by_number(all: &'static [SyscallInfo]) -> [Option<&'static SyscallInfo>; nr::COUNT] {
    let mut table = [None; nr::COUNT];
    let mut i = 0;
    while i < all.len() {
        assert!(table[all[i].number as usize].is_none(), "two rows with one number");
        table[all[i].number as usize] = Some(&all[i]);
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{ALL, by_name, lookup};
    use crate::info::{Kind, Struct, Support};

    #[test]
    fn numbers_and_names_are_found() {
        for info in ALL {
            assert_eq!(lookup(info.number).map(|found| found.name), Some(info.name));
            assert_eq!(by_name(info.name).map(|found| found.number), Some(info.number));
        }
        assert!(lookup(400).is_none());
        assert!(lookup(u64::MAX).is_none());
        assert_eq!(by_name("add_key").map(|info| info.args[0].name), Some("type"));
    }

    #[test]
    fn lengths_name_arguments_that_exist() {
        for info in ALL {
            assert!(info.args.len() <= 6, "{}", info.name);
            for arg in info.args {
                let (Kind::InBuf(n)
                | Kind::OutBuf(n)
                | Kind::InArray(_, n)
                | Kind::OutArray(_, n)
                | Kind::InOutArray(_, n)
                | Kind::InSized(_, n)
                | Kind::OutSized(_, n)
                | Kind::InIovec(n)
                | Kind::OutIovec(n)
                | Kind::FdSet(n)
                | Kind::Fcntl(n)
                | Kind::Ioctl(n)
                | Kind::Prctl(n)
                | Kind::FutexTimeout(n)) = arg.kind
                else {
                    continue;
                };
                let length = info.args[usize::from(n)].kind;
                let fits = match arg.kind {
                    Kind::OutSized(..) => matches!(length, Kind::InOutStruct(Struct::Int)),
                    Kind::Fcntl(_) | Kind::Ioctl(_) | Kind::Prctl(_) => {
                        matches!(length, Kind::Enum(_))
                    }
                    Kind::FutexTimeout(_) => matches!(length, Kind::Mixed(_)),
                    _ => matches!(length, Kind::Int | Kind::UInt | Kind::Size | Kind::ULong),
                };
                assert!(fits, "{}: {}", info.name, arg.name);
            }
        }
    }

    #[test]
    fn partial_calls_say_what_is_missing() {
        for info in ALL {
            assert!(info.support != Support::Partial || !info.note.is_empty(), "{}", info.name);
        }
    }
}
