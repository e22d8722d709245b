//! From a number to its handler.
//!
//! The handlers' parameter types say how a register is read (`FromArg`), their result type how the
//! answer is written (`IntoReturn`).

use sentry_platform::SyscallArgs;
use syscalls::arch::x86_64::nr;
use syscalls::arg::{Fd, FromArg};
use syscalls::{Errno, UserAddr};

use crate::task::{CurrentTask, HandlerResult, seccomp};

/// A value that a handler returns.
pub trait IntoReturn {
    /// Returns the register's value.
    fn into_return(self) -> u64;
}

impl IntoReturn for () {
    fn into_return(self) -> u64 {
        0
    }
}

impl IntoReturn for u64 {
    fn into_return(self) -> u64 {
        self
    }
}

impl IntoReturn for u32 {
    fn into_return(self) -> u64 {
        self.into()
    }
}

impl IntoReturn for usize {
    fn into_return(self) -> u64 {
        self as u64
    }
}

impl IntoReturn for i32 {
    fn into_return(self) -> u64 {
        i64::from(self).cast_unsigned()
    }
}

impl IntoReturn for i64 {
    fn into_return(self) -> u64 {
        self.cast_unsigned()
    }
}

impl IntoReturn for Fd {
    fn into_return(self) -> u64 {
        self.0.into_return()
    }
}

impl IntoReturn for UserAddr {
    fn into_return(self) -> u64 {
        self.0
    }
}

/// Calls a handler with its arguments: `call!(current, args, module::sys_x, 3)`.
macro_rules! call {
    ($current:ident, $args:ident, $handler:path, 0) => {
        $handler($current).map(IntoReturn::into_return)
    };
    ($current:ident, $args:ident, $handler:path, 1) => {
        $handler($current, a($args, 0)).map(IntoReturn::into_return)
    };
    ($current:ident, $args:ident, $handler:path, 2) => {
        $handler($current, a($args, 0), a($args, 1)).map(IntoReturn::into_return)
    };
    ($current:ident, $args:ident, $handler:path, 3) => {
        $handler($current, a($args, 0), a($args, 1), a($args, 2)).map(IntoReturn::into_return)
    };
    ($current:ident, $args:ident, $handler:path, 4) => {
        $handler($current, a($args, 0), a($args, 1), a($args, 2), a($args, 3))
            .map(IntoReturn::into_return)
    };
    ($current:ident, $args:ident, $handler:path, 5) => {
        $handler($current, a($args, 0), a($args, 1), a($args, 2), a($args, 3), a($args, 4))
            .map(IntoReturn::into_return)
    };
    ($current:ident, $args:ident, $handler:path, 6) => {
        $handler(
            $current,
            a($args, 0),
            a($args, 1),
            a($args, 2),
            a($args, 3),
            a($args, 4),
            a($args, 5),
        )
        .map(IntoReturn::into_return)
    };
}

/// One row per served call: number, handler, how many arguments the handler takes.
macro_rules! rows {
    ($($number:ident => $($handler:ident)::+ ($n:tt);)*) => {
        fn serve(current: &CurrentTask, number: u64, args: &[u64; 6]) -> HandlerResult {
            match number {
                $(nr::$number => call!(current, args, super::$($handler)::+, $n),)*
                _ => unserved(number, args),
            }
        }

        /// The numbers of all served calls.
        pub const SERVED: &[u64] = &[$(nr::$number),*];
    };
}

rows! {
    // Files: opening, reading, writing.
    READ => read_write::sys_read(3);
    WRITE => read_write::sys_write(3);
    PREAD64 => read_write::sys_pread64(4);
    PWRITE64 => read_write::sys_pwrite64(4);
    READV => read_write::sys_readv(3);
    WRITEV => read_write::sys_writev(3);
    PREADV => read_write::sys_preadv(4);
    PWRITEV => read_write::sys_pwritev(4);
    PREADV2 => read_write::sys_preadv2(6);
    PWRITEV2 => read_write::sys_pwritev2(6);
    LSEEK => read_write::sys_lseek(3);
    OPEN => open::sys_open(3);
    OPENAT => open::sys_openat(4);
    OPENAT2 => open::sys_openat2(4);
    CREAT => open::sys_creat(2);
    NAME_TO_HANDLE_AT => handle::sys_name_to_handle_at(5);
    OPEN_BY_HANDLE_AT => handle::sys_open_by_handle_at(3);
    CLOSE => open::sys_close(1);
    CLOSE_RANGE => open::sys_close_range(3);
    MEMFD_CREATE => open::sys_memfd_create(2);
    SHMGET => ipc::sys_shmget(3);
    SHMAT => ipc::sys_shmat(3);
    SHMDT => ipc::sys_shmdt(1);
    SHMCTL => ipc::sys_shmctl(3);
    SEMGET => ipc::sys_semget(3);
    SEMOP => ipc::sys_semop(3);
    SEMTIMEDOP => ipc::sys_semtimedop(4);
    SEMCTL => ipc::sys_semctl(4);
    MSGGET => ipc::sys_msgget(2);
    MSGSND => ipc::sys_msgsnd(4);
    MSGRCV => ipc::sys_msgrcv(5);
    MSGCTL => ipc::sys_msgctl(3);
    MQ_OPEN => mqueue::sys_mq_open(4);
    MQ_UNLINK => mqueue::sys_mq_unlink(1);
    MQ_TIMEDSEND => mqueue::sys_mq_timedsend(5);
    MQ_TIMEDRECEIVE => mqueue::sys_mq_timedreceive(5);
    MQ_NOTIFY => mqueue::sys_mq_notify(2);
    MQ_GETSETATTR => mqueue::sys_mq_getsetattr(3);
    DUP => fd::sys_dup(1);
    DUP2 => fd::sys_dup2(2);
    DUP3 => fd::sys_dup3(3);
    FCNTL => fcntl::sys_fcntl(3);
    FLOCK => fcntl::sys_flock(2);
    IOCTL => fcntl::sys_ioctl(3);
    IO_SETUP => aio::sys_io_setup(2);
    IO_DESTROY => aio::sys_io_destroy(1);
    IO_SUBMIT => aio::sys_io_submit(3);
    IO_CANCEL => aio::sys_io_cancel(3);
    IO_GETEVENTS => aio::sys_io_getevents(5);
    IO_PGETEVENTS => aio::sys_io_pgetevents(6);
    // Attributes.
    STAT => stat::sys_stat(2);
    LSTAT => stat::sys_lstat(2);
    FSTAT => stat::sys_fstat(2);
    NEWFSTATAT => stat::sys_newfstatat(4);
    STATX => stat::sys_statx(5);
    STATFS => stat::sys_statfs(2);
    FSTATFS => stat::sys_fstatfs(2);
    SYSFS => sysfs::sys_sysfs(3);
    USTAT => sysfs::sys_ustat(2);
    ACCESS => stat::sys_access(2);
    FACCESSAT => stat::sys_faccessat(3);
    FACCESSAT2 => stat::sys_faccessat2(4);
    CHMOD => attr::sys_chmod(2);
    FCHMOD => attr::sys_fchmod(2);
    FCHMODAT => attr::sys_fchmodat(3);
    FCHMODAT2 => attr::sys_fchmodat2(4);
    CHOWN => attr::sys_chown(3);
    LCHOWN => attr::sys_lchown(3);
    FCHOWN => attr::sys_fchown(3);
    FCHOWNAT => attr::sys_fchownat(5);
    UTIME => attr::sys_utime(2);
    UTIMES => attr::sys_utimes(2);
    FUTIMESAT => attr::sys_futimesat(3);
    UTIMENSAT => attr::sys_utimensat(4);
    TRUNCATE => attr::sys_truncate(2);
    FTRUNCATE => attr::sys_ftruncate(2);
    FALLOCATE => attr::sys_fallocate(4);
    SETXATTR => xattr::sys_setxattr(5);
    LSETXATTR => xattr::sys_lsetxattr(5);
    FSETXATTR => xattr::sys_fsetxattr(5);
    GETXATTR => xattr::sys_getxattr(4);
    LGETXATTR => xattr::sys_lgetxattr(4);
    FGETXATTR => xattr::sys_fgetxattr(4);
    LISTXATTR => xattr::sys_listxattr(3);
    LLISTXATTR => xattr::sys_llistxattr(3);
    FLISTXATTR => xattr::sys_flistxattr(3);
    REMOVEXATTR => xattr::sys_removexattr(2);
    LREMOVEXATTR => xattr::sys_lremovexattr(2);
    FREMOVEXATTR => xattr::sys_fremovexattr(2);
    // Names and directories.
    GETDENTS => dir::sys_getdents(3);
    GETDENTS64 => dir::sys_getdents64(3);
    GETCWD => dir::sys_getcwd(2);
    CHDIR => dir::sys_chdir(1);
    FCHDIR => dir::sys_fchdir(1);
    CHROOT => dir::sys_chroot(1);
    UMASK => dir::sys_umask(1);
    MKDIR => path_ops::sys_mkdir(2);
    MKDIRAT => path_ops::sys_mkdirat(3);
    MKNOD => path_ops::sys_mknod(3);
    MKNODAT => path_ops::sys_mknodat(4);
    SYMLINK => path_ops::sys_symlink(2);
    SYMLINKAT => path_ops::sys_symlinkat(3);
    LINK => path_ops::sys_link(2);
    LINKAT => path_ops::sys_linkat(5);
    UNLINK => path_ops::sys_unlink(1);
    RMDIR => path_ops::sys_rmdir(1);
    UNLINKAT => path_ops::sys_unlinkat(3);
    RENAME => path_ops::sys_rename(2);
    RENAMEAT => path_ops::sys_renameat(4);
    RENAMEAT2 => path_ops::sys_renameat2(5);
    READLINK => path_ops::sys_readlink(3);
    READLINKAT => path_ops::sys_readlinkat(4);
    // Storage and mounts.
    FSYNC => sync::sys_fsync(1);
    CACHESTAT => sync::sys_cachestat(4);
    FDATASYNC => sync::sys_fdatasync(1);
    SYNC => sync::sys_sync(0);
    SYNCFS => sync::sys_syncfs(1);
    SYNC_FILE_RANGE => sync::sys_sync_file_range(4);
    FADVISE64 => sync::sys_fadvise64(4);
    READAHEAD => sync::sys_readahead(3);
    MOUNT => mount::sys_mount(5);
    UMOUNT2 => mount::sys_umount2(2);
    PIVOT_ROOT => mount::sys_pivot_root(2);
    OPEN_TREE => mount_tree::sys_open_tree(3);
    MOVE_MOUNT => mount_tree::sys_move_mount(5);
    FSOPEN => mount_context::sys_fsopen(2);
    FSPICK => mount_context::sys_fspick(3);
    FSCONFIG => mount_context::sys_fsconfig(5);
    FSMOUNT => mount_context::sys_fsmount(3);
    MOUNT_SETATTR => mount_setattr::sys_mount_setattr(5);
    STATMOUNT => statmount::sys_statmount(4);
    LISTMOUNT => statmount::sys_listmount(4);
    // Security modules.
    LANDLOCK_CREATE_RULESET => landlock::sys_landlock_create_ruleset(3);
    LANDLOCK_ADD_RULE => landlock::sys_landlock_add_rule(4);
    LANDLOCK_RESTRICT_SELF => landlock::sys_landlock_restrict_self(2);
    LSM_LIST_MODULES => landlock::sys_lsm_list_modules(3);
    LSM_GET_SELF_ATTR => landlock::sys_lsm_get_self_attr(4);
    LSM_SET_SELF_ATTR => landlock::sys_lsm_set_self_attr(4);
    // Memory.
    MMAP => mmap::sys_mmap(6);
    MPROTECT => mmap::sys_mprotect(3);
    MUNMAP => mmap::sys_munmap(2);
    BRK => mmap::sys_brk(1);
    MREMAP => mmap::sys_mremap(5);
    MSYNC => mmap::sys_msync(3);
    MINCORE => mmap::sys_mincore(3);
    MADVISE => mmap::sys_madvise(3);
    REMAP_FILE_PAGES => mmap::sys_remap_file_pages(5);
    MSEAL => mmap::sys_mseal(3);
    MLOCK => mmap::sys_mlock(2);
    MUNLOCK => mmap::sys_munlock(2);
    MLOCKALL => mmap::sys_mlockall(1);
    MUNLOCKALL => mmap::sys_munlockall(0);
    MLOCK2 => mmap::sys_mlock2(3);
    MEMBARRIER => mmap::sys_membarrier(2);
    PKEY_MPROTECT => mmap::sys_pkey_mprotect(4);
    PKEY_ALLOC => mmap::sys_pkey_alloc(2);
    PKEY_FREE => mmap::sys_pkey_free(0);
    MBIND => mempolicy::sys_mbind(6);
    SET_MEMPOLICY => mempolicy::sys_set_mempolicy(3);
    GET_MEMPOLICY => mempolicy::sys_get_mempolicy(5);
    MIGRATE_PAGES => mempolicy::sys_migrate_pages(4);
    SET_MEMPOLICY_HOME_NODE => mempolicy::sys_set_mempolicy_home_node(4);
    // Processes.
    CLONE => process::sys_clone(5);
    FORK => process::sys_fork(0);
    VFORK => process::sys_vfork(0);
    CLONE3 => process::sys_clone3(2);
    EXECVE => exec::sys_execve(3);
    EXECVEAT => exec::sys_execveat(5);
    EXIT => process::sys_exit(1);
    EXIT_GROUP => process::sys_exit_group(1);
    WAIT4 => process::sys_wait4(4);
    WAITID => process::sys_waitid(5);
    KCMP => kcmp::sys_kcmp(5);
    PROCESS_MADVISE => process_vm::sys_process_madvise(5);
    PROCESS_MRELEASE => process_vm::sys_process_mrelease(2);
    PTRACE => ptrace::sys_ptrace(4);
    PROCESS_VM_READV => process_vm::sys_process_vm_readv(6);
    PROCESS_VM_WRITEV => process_vm::sys_process_vm_writev(6);
    UNSHARE => namespaces::sys_unshare(1);
    SETNS => namespaces::sys_setns(2);
    SET_TID_ADDRESS => process::sys_set_tid_address(1);
    PAUSE => process::sys_pause(0);
    RESTART_SYSCALL => process::sys_restart_syscall(0);
    // Identity.
    GETPID => ids::sys_getpid(0);
    GETTID => ids::sys_gettid(0);
    GETPPID => ids::sys_getppid(0);
    GETPGID => ids::sys_getpgid(1);
    GETPGRP => ids::sys_getpgrp(0);
    GETSID => ids::sys_getsid(1);
    SETSID => ids::sys_setsid(0);
    SETPGID => ids::sys_setpgid(2);
    GETUID => ids::sys_getuid(0);
    GETEUID => ids::sys_geteuid(0);
    GETGID => ids::sys_getgid(0);
    GETEGID => ids::sys_getegid(0);
    GETRESUID => ids::sys_getresuid(3);
    GETRESGID => ids::sys_getresgid(3);
    SETUID => ids::sys_setuid(1);
    SETGID => ids::sys_setgid(1);
    SETREUID => ids::sys_setreuid(2);
    SETREGID => ids::sys_setregid(2);
    SETRESUID => ids::sys_setresuid(3);
    SETRESGID => ids::sys_setresgid(3);
    SETFSUID => ids::sys_setfsuid(1);
    SETFSGID => ids::sys_setfsgid(1);
    GETGROUPS => ids::sys_getgroups(2);
    SETGROUPS => ids::sys_setgroups(2);
    CAPGET => ids::sys_capget(2);
    CAPSET => ids::sys_capset(2);
    ADD_KEY => keys::sys_add_key(5);
    REQUEST_KEY => keys::sys_request_key(4);
    KEYCTL => keys::sys_keyctl(5);
    PRCTL => prctl::sys_prctl(5);
    SECCOMP => seccomp::sys_seccomp(3);
    ARCH_PRCTL => prctl::sys_arch_prctl(2);
    // Scheduling, limits, usage.
    SCHED_YIELD => sched::sys_sched_yield(0);
    SCHED_GETAFFINITY => sched::sys_sched_getaffinity(3);
    SCHED_SETAFFINITY => sched::sys_sched_setaffinity(3);
    SCHED_GETSCHEDULER => sched::sys_sched_getscheduler(1);
    SCHED_SETSCHEDULER => sched::sys_sched_setscheduler(3);
    SCHED_SETATTR => sched::sys_sched_setattr(3);
    SCHED_GETATTR => sched::sys_sched_getattr(4);
    SCHED_GETPARAM => sched::sys_sched_getparam(2);
    SCHED_SETPARAM => sched::sys_sched_setparam(2);
    SCHED_GET_PRIORITY_MAX => sched::sys_sched_get_priority_max(1);
    SCHED_GET_PRIORITY_MIN => sched::sys_sched_get_priority_min(1);
    SCHED_RR_GET_INTERVAL => sched::sys_sched_rr_get_interval(2);
    GETPRIORITY => sched::sys_getpriority(2);
    SETPRIORITY => sched::sys_setpriority(3);
    IOPRIO_GET => sched::sys_ioprio_get(2);
    IOPRIO_SET => sched::sys_ioprio_set(3);
    GETRLIMIT => sched::sys_getrlimit(2);
    SETRLIMIT => sched::sys_setrlimit(2);
    PRLIMIT64 => sched::sys_prlimit64(4);
    GETRUSAGE => sched::sys_getrusage(2);
    TIMES => sched::sys_times(1);
    // The system itself.
    UNAME => info::sys_uname(1);
    SETHOSTNAME => info::sys_sethostname(2);
    SETDOMAINNAME => info::sys_setdomainname(2);
    SYSINFO => info::sys_sysinfo(1);
    GETCPU => info::sys_getcpu(3);
    GETRANDOM => info::sys_getrandom(3);
    SWAPON => info::sys_swapon(2);
    SWAPOFF => info::sys_swapoff(1);
    ACCT => info::sys_acct(1);
    VHANGUP => info::sys_vhangup(0);
    REBOOT => info::sys_reboot(4);
    SYSLOG => info::sys_syslog(3);
    PERSONALITY => info::sys_personality(1);
    // Futexes.
    FUTEX => futex::sys_futex(6);
    FUTEX_WAITV => futex::sys_futex_waitv(5);
    FUTEX_WAKE => futex::sys_futex_wake(4);
    FUTEX_WAIT => futex::sys_futex_wait(6);
    FUTEX_REQUEUE => futex::sys_futex_requeue(4);
    SET_ROBUST_LIST => futex::sys_set_robust_list(2);
    GET_ROBUST_LIST => futex::sys_get_robust_list(3);
    RSEQ => futex::sys_rseq(4);
    // Time.
    CLOCK_GETTIME => time::sys_clock_gettime(2);
    CLOCK_GETRES => time::sys_clock_getres(2);
    CLOCK_SETTIME => time::sys_clock_settime(2);
    GETTIMEOFDAY => time::sys_gettimeofday(2);
    SETTIMEOFDAY => time::sys_settimeofday(2);
    TIME => time::sys_time(1);
    CLOCK_ADJTIME => time::sys_clock_adjtime(2);
    ADJTIMEX => time::sys_adjtimex(1);
    NANOSLEEP => time::sys_nanosleep(2);
    CLOCK_NANOSLEEP => time::sys_clock_nanosleep(4);
    GETITIMER => time::sys_getitimer(2);
    SETITIMER => time::sys_setitimer(3);
    ALARM => time::sys_alarm(1);
    TIMER_CREATE => time::sys_timer_create(3);
    TIMER_SETTIME => time::sys_timer_settime(4);
    TIMER_GETTIME => time::sys_timer_gettime(2);
    TIMER_GETOVERRUN => time::sys_timer_getoverrun(1);
    TIMER_DELETE => time::sys_timer_delete(1);
    // Signals.
    RT_SIGACTION => signal::sys_rt_sigaction(4);
    RT_SIGPROCMASK => signal::sys_rt_sigprocmask(4);
    RT_SIGRETURN => process::sys_rt_sigreturn(0);
    RT_SIGPENDING => signal::sys_rt_sigpending(2);
    RT_SIGTIMEDWAIT => signal::sys_rt_sigtimedwait(4);
    RT_SIGQUEUEINFO => signal::sys_rt_sigqueueinfo(3);
    RT_TGSIGQUEUEINFO => signal::sys_rt_tgsigqueueinfo(4);
    RT_SIGSUSPEND => signal::sys_rt_sigsuspend(2);
    SIGALTSTACK => signal::sys_sigaltstack(2);
    KILL => signal::sys_kill(2);
    TKILL => signal::sys_tkill(2);
    TGKILL => signal::sys_tgkill(3);
    // Pipes, events, waiting for descriptors.
    PIPE => pipe::sys_pipe(1);
    PIPE2 => pipe::sys_pipe2(2);
    EVENTFD => event::sys_eventfd(1);
    EVENTFD2 => event::sys_eventfd2(2);
    TIMERFD_CREATE => event::sys_timerfd_create(2);
    TIMERFD_SETTIME => event::sys_timerfd_settime(4);
    TIMERFD_GETTIME => event::sys_timerfd_gettime(2);
    SIGNALFD => event::sys_signalfd(3);
    SIGNALFD4 => event::sys_signalfd4(4);
    POLL => poll::sys_poll(3);
    PPOLL => poll::sys_ppoll(5);
    SELECT => poll::sys_select(5);
    PSELECT6 => poll::sys_pselect6(6);
    EPOLL_CREATE => epoll::sys_epoll_create(1);
    EPOLL_CREATE1 => epoll::sys_epoll_create1(1);
    EPOLL_CTL => epoll::sys_epoll_ctl(4);
    EPOLL_WAIT => epoll::sys_epoll_wait(4);
    EPOLL_PWAIT => epoll::sys_epoll_pwait(6);
    EPOLL_PWAIT2 => epoll::sys_epoll_pwait2(6);
    INOTIFY_INIT => inotify::sys_inotify_init(0);
    INOTIFY_INIT1 => inotify::sys_inotify_init1(1);
    INOTIFY_ADD_WATCH => inotify::sys_inotify_add_watch(3);
    INOTIFY_RM_WATCH => inotify::sys_inotify_rm_watch(2);
    // Sockets.
    SOCKET => socket::sys_socket(3);
    SOCKETPAIR => socket::sys_socketpair(4);
    BIND => socket::sys_bind(3);
    LISTEN => socket::sys_listen(2);
    ACCEPT => socket::sys_accept(3);
    ACCEPT4 => socket::sys_accept4(4);
    CONNECT => socket::sys_connect(3);
    SHUTDOWN => socket::sys_shutdown(2);
    GETSOCKNAME => socket::sys_getsockname(3);
    GETPEERNAME => socket::sys_getpeername(3);
    GETSOCKOPT => socket_option::sys_getsockopt(5);
    SETSOCKOPT => socket_option::sys_setsockopt(5);
    SENDTO => socket_message::sys_sendto(6);
    RECVFROM => socket_message::sys_recvfrom(6);
    SENDMSG => socket_message::sys_sendmsg(3);
    RECVMSG => socket_message::sys_recvmsg(3);
    SENDMMSG => socket_message::sys_sendmmsg(4);
    RECVMMSG => socket_message::sys_recvmmsg(5);
    // Processes as descriptors, moving data between descriptors.
    PIDFD_OPEN => pidfd::sys_pidfd_open(2);
    PIDFD_SEND_SIGNAL => pidfd::sys_pidfd_send_signal(4);
    PIDFD_GETFD => pidfd::sys_pidfd_getfd(3);
    SENDFILE => splice::sys_sendfile(4);
    SPLICE => splice::sys_splice(6);
    TEE => splice::sys_tee(4);
    VMSPLICE => splice::sys_vmsplice(4);
    COPY_FILE_RANGE => splice::sys_copy_file_range(6);
}

fn a<T: FromArg>(args: &[u64; 6], index: usize) -> T {
    T::from_arg(args.get(index).copied().unwrap_or(0))
}

fn unserved(number: u64, args: &[u64; 6]) -> HandlerResult {
    match syscalls::table::lookup(number) {
        Some(info) => crate::unsupported::note(info.name, args),
        None => crate::unsupported::note(&format!("syscall_{number:#x}"), args),
    }
    Err(Errno::ENOSYS.into())
}

/// Is told of a system call before its first run.
pub(crate) fn enter(current: &CurrentTask, call: &SyscallArgs) {
    if current.kernel.strace {
        super::strace::enter(current, call);
    }
}

/// Is told of a system call that has ended.
pub(crate) fn leave(current: &CurrentTask, outcome: &HandlerResult) {
    if current.kernel.strace {
        super::strace::leave(current, outcome);
    }
}

/// Is told of an `execve` before the new program runs: its calls come before the old one's end.
pub(crate) fn replaced(current: &CurrentTask) {
    if current.kernel.strace {
        super::strace::replaced(current);
    }
}

/// Runs the present call's handler.
pub(crate) fn call(current: &CurrentTask) -> HandlerResult {
    if let Some(heard) = seccomp::hear(current) {
        return heard;
    }
    let call = *current.call.lock();
    // The number is the register's low half, as on Linux.
    serve(current, u64::from(u32::from_arg(call.number)), &call.args)
}

#[cfg(test)]
mod tests {
    use syscalls::info::Support;
    use syscalls::table;

    use super::SERVED;

    #[test]
    fn table_marks_exactly_the_served_calls() {
        for info in table::ALL {
            let is_marked = info.support != Support::Unsupported;
            assert_eq!(is_marked, SERVED.contains(&info.number), "{}", info.name);
        }
    }
}
