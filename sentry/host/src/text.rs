//! The program's own text and constants in memory.
//!
//! # Safety
//! The ranges are those of the program's segments that nobody writes to, as its headers say, which the kernel has
//! mapped and which stay mapped. What is dropped there comes back from the program's file.
#![expect(unsafe_code, reason = "madvise on the program's own segments")]

/// Gives back what is mapped of the program's text and constants: most of it was used to start, and what is used
/// from now on comes back by itself. Where that is not possible, nothing happens.
pub fn release() {
    // SAFETY: the function takes what it is given, and no data.
    unsafe { libc::dl_iterate_phdr(Some(release_segments), std::ptr::null_mut()) };
}

/// Gives back those segments of the first object, which is the program, to which nobody writes.
unsafe extern "C" fn release_segments(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut libc::c_void,
) -> libc::c_int {
    const PAGE: u64 = 4096;
    // SAFETY: the C library's description of an object.
    let (object, headers) = unsafe {
        let object = &*object;
        (object, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = object.dlpi_addr.wrapping_add(header.p_vaddr);
        let (first, end) = (start & !(PAGE - 1), start.wrapping_add(header.p_memsz));
        let (Ok(at), Ok(len)) = (usize::try_from(first), usize::try_from(end.wrapping_sub(first)))
        else {
            continue;
        };
        let at = std::ptr::with_exposed_provenance_mut(at);
        // SAFETY: see the module.
        unsafe { libc::madvise(at, len, libc::MADV_DONTNEED) };
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of the program's file is mapped.
    fn mapped_kib() -> u64 {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let number = |name: &str| {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        number("Rss:") - number("Anonymous:")
    }

    #[test]
    fn text_goes_and_comes_back() {
        static CONSTANTS: [u64; 1 << 16] = [7; 1 << 16];
        let sum = || std::hint::black_box(&CONSTANTS).iter().sum::<u64>();
        let expected = sum();
        let before = mapped_kib();
        release();
        assert!(mapped_kib() + 300 < before, "{} of {before} KiB", mapped_kib());
        assert_eq!(sum(), expected);
    }
}
