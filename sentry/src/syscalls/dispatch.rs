//! From a number to its handler.
//!
//! The handlers' parameter types say how a register is read (`FromArg`), their result type how the
//! answer is written (`IntoReturn`).

use sentry_platform::SyscallArgs;
use syscalls::arch::x86_64::nr;
use syscalls::arg::{Fd, FromArg};
use syscalls::{Errno, UserAddr};

use crate::task::{CurrentTask, HandlerResult};

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
    // Processes.
    CLONE => process::sys_clone(5);
    FORK => process::sys_fork(0);
    VFORK => process::sys_vfork(0);
    CLONE3 => process::sys_clone3(2);
    EXIT => process::sys_exit(1);
    EXIT_GROUP => process::sys_exit_group(1);
    WAIT4 => process::sys_wait4(4);
    WAITID => process::sys_waitid(5);
    SET_TID_ADDRESS => process::sys_set_tid_address(1);
    PAUSE => process::sys_pause(0);
    RESTART_SYSCALL => process::sys_restart_syscall(0);
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
}

fn a<T: FromArg>(args: &[u64; 6], index: usize) -> T {
    T::from_arg(args.get(index).copied().unwrap_or(0))
}

fn unserved(number: u64, args: &[u64; 6]) -> HandlerResult {
    crate::unsupported::note(&format!("syscall_{number:#x}"), args);
    Err(Errno::ENOSYS.into())
}

/// Is told of a system call before its first run.
pub(crate) fn enter(current: &CurrentTask, call: &SyscallArgs) {
    let _ = (current, call);
}

/// Runs the present call's handler.
pub(crate) fn call(current: &CurrentTask) -> HandlerResult {
    let call = *current.call.lock();
    // The number is the register's low half, as on Linux.
    serve(current, u64::from(u32::from_arg(call.number)), &call.args)
}
