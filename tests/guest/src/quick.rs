//! Calls at sites of their own, in the shape of the C library's wrappers, which need not trap each time as others may.

/// Makes a call at a site of its own; returns its result as the C library would.
#[macro_export]
macro_rules! site {
    ($nr:ident $(, $arg:expr)*) => {{
        let given: &[usize] = &[$($arg as usize),*];
        let mut args = [0usize; 6];
        args[..given.len()].copy_from_slice(given);
        let ret: isize;
        // SAFETY: each use names a call and arguments that it keeps alive.
        unsafe {
            core::arch::asm!(
                "mov eax, {nr}",
                "syscall",
                nr = const libc::$nr,
                lateout("rax") ret,
                in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
                in("r10") args[3], in("r8") args[4], in("r9") args[5],
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        if (-4095..0).contains(&ret) { Err(-ret as i32) } else { Ok(ret as usize) }
    }};
}

/// Defines a function that makes a call.
macro_rules! call {
    ($name:ident, $nr:ident, $doc:literal) => {
        #[doc = $doc]
        #[inline(never)]
        pub fn $name(args: [usize; 4]) -> Result<usize, i32> {
            $crate::site!($nr, args[0], args[1], args[2], args[3])
        }
    };
}

call!(read, SYS_read, "`read(2)`.");
call!(write, SYS_write, "`write(2)`.");
call!(pread, SYS_pread64, "`pread64(2)`.");
call!(pwrite, SYS_pwrite64, "`pwrite64(2)`.");
call!(seek, SYS_lseek, "`lseek(2)`.");
call!(epoll_wait, SYS_epoll_wait, "`epoll_wait(2)`.");
call!(umask, SYS_umask, "`umask(2)`.");
