//! Calls at sites of their own, in the shape of the C library's wrappers, which need not trap each time as others may.

/// Defines a function that makes a call.
macro_rules! call {
    ($name:ident, $nr:ident, $doc:literal) => {
        #[doc = $doc]
        #[inline(never)]
        pub fn $name(args: [usize; 4]) -> Result<usize, i32> {
            let ret: isize;
            // SAFETY: the instruction itself clobbers rcx and r11 only; the callers own the memory.
            unsafe {
                core::arch::asm!(
                    "mov eax, {nr}",
                    "syscall",
                    nr = const libc::$nr,
                    lateout("rax") ret,
                    in("rdi") args[0],
                    in("rsi") args[1],
                    in("rdx") args[2],
                    in("r10") args[3],
                    lateout("rcx") _,
                    lateout("r11") _,
                    options(nostack),
                );
            }
            if (-4095..0).contains(&ret) { Err(-ret as i32) } else { Ok(ret as usize) }
        }
    };
}

call!(read, SYS_read, "`read(2)`.");
call!(write, SYS_write, "`write(2)`.");
call!(pread, SYS_pread64, "`pread64(2)`.");
call!(seek, SYS_lseek, "`lseek(2)`.");
