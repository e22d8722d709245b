//! What the guest programs share: raw system calls, checks, and the runner of cases.
//!
//! The system calls are made by number and not through the C library, whose wrappers hide arguments and
//! results. [`raw`] is declared safe although a wrong argument can break the program: each case runs in a
//! process of its own, and breaking that process is a failure of the case and of nothing else.
#![doc = include_str!("../README.md")]

pub mod arg;
pub mod errno;
pub mod fs;
pub mod hostile;
pub mod mem;
pub mod net;
pub mod proc;
pub mod quick;
pub mod rng;
pub mod runner;
pub mod sig;
pub mod stream;
pub mod team;
pub mod trace;

/// What a case returns: nothing, or why it failed.
pub type Outcome = Result<(), String>;

/// Result of a raw system call: the value, or the error number.
pub type SysResult = Result<usize, i32>;

/// Makes the system call `nr` with six raw arguments.
pub fn raw(nr: i64, args: [usize; 6]) -> SysResult {
    let ret: isize;
    // SAFETY: the instruction itself clobbers rcx and r11 only; what the call does to memory is the
    // caller's subject (see the module's documentation).
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") nr as isize => ret,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&ret) { Err(-ret as i32) } else { Ok(ret as usize) }
}

/// Makes a system call by the name of its number: `sys!(SYS_dup2, 1, 7)`.
#[macro_export]
macro_rules! sys {
    // One expression, so that temporaries among the arguments live until the call is over.
    ($nr:ident $(, $arg:expr)* $(,)?) => {
        $crate::raw(libc::$nr, $crate::arg::pack(&[$($crate::arg::Arg::arg($arg)),*]))
    };
}

/// Unwraps a result; a failure ends the case with the place and the error.
#[macro_export]
macro_rules! ok {
    ($call:expr) => {
        match $call {
            Ok(value) => value,
            Err(error) => {
                return Err(format!(
                    "line {}: {}: {}",
                    line!(),
                    stringify!($call),
                    $crate::errno::Describe::describe(&error)
                ))
            }
        }
    };
}

/// Checks that a call fails with the named errno.
#[macro_export]
macro_rules! fails {
    ($call:expr, $errno:ident) => {
        match $call {
            Err(error) if error == libc::$errno => {}
            Err(error) => {
                return Err(format!(
                    "line {}: {}: {} and not {}",
                    line!(),
                    stringify!($call),
                    $crate::errno::name(error),
                    stringify!($errno)
                ))
            }
            Ok(value) => {
                return Err(format!(
                    "line {}: {}: gave {value:?} and not {}",
                    line!(),
                    stringify!($call),
                    stringify!($errno)
                ))
            }
        }
    };
}

/// Checks that two values are equal.
#[macro_export]
macro_rules! eq {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if *left != *right {
            return Err(format!(
                "line {}: {} is {:?} and not {:?}",
                line!(),
                stringify!($left),
                left,
                right
            ));
        }
    }};
}

/// Checks a condition.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            return Err(format!("line {}: not so: {}", line!(), stringify!($condition)));
        }
    };
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(format!("line {}: {}", line!(), format!($($why)+)));
        }
    };
}

/// Defines `main`: the program's cases, in the order of their lines of output.
#[macro_export]
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        fn main() {
            $crate::runner::main(&[$((stringify!($case), $case as fn() -> $crate::Outcome)),*]);
        }
    };
}
