//! `memfd_create(2)` and file seals, and files in memory that are written over again and again.

use guest_tests::fs::{fstat, open, read, seek, write};
use guest_tests::mem::{Map, PAGE};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, MAP_PRIVATE,
    MAP_SHARED, MFD_ALLOW_SEALING, MFD_CLOEXEC, O_CREAT, O_RDWR, O_TRUNC, PROT_READ, PROT_WRITE,
};

fn create(flags: u32) -> Result<i32, i32> {
    sys!(SYS_memfd_create, c"name", flags).map(|fd| fd as i32)
}

fn behaves_like_a_file() -> Outcome {
    let fd = ok!(create(MFD_CLOEXEC));
    eq!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFD, 0)), 1);
    eq!(ok!(write(fd, b"content")), 7);
    ok!(seek(fd, 0, libc::SEEK_SET));
    let mut buf = [0u8; 8];
    eq!(ok!(read(fd, &mut buf)), 7);
    let stat = ok!(fstat(fd));
    eq!((stat.st_size, stat.st_nlink, stat.st_mode), (7, 0, libc::S_IFREG | 0o777));
    let link = ok!(std::fs::read_link(format!("/proc/self/fd/{fd}")));
    eq!(link.display().to_string(), "/memfd:name (deleted)");
    Ok(())
}

fn argument_errors() -> Outcome {
    fails!(create(0x80), EINVAL);
    fails!(sys!(SYS_memfd_create, 8, 0), EFAULT);
    let long = std::ffi::CString::new(vec![b'x'; 250]).unwrap_or_default();
    fails!(sys!(SYS_memfd_create, long.as_c_str(), 0), EINVAL);
    Ok(())
}

fn sizes_of_huge_pages() -> Outcome {
    // 64 KiB: no processor of this kind has such pages.
    fails!(create(libc::MFD_HUGETLB | 16 << 26), ENODEV);
    fails!(create(16 << 26), EINVAL);
    fails!(create(libc::MFD_HUGETLB | 0x100), EINVAL);
    Ok(())
}

fn without_sealing() -> Outcome {
    let fd = ok!(create(0));
    eq!(ok!(sys!(SYS_fcntl, fd, F_GET_SEALS, 0)) as i32, F_SEAL_SEAL);
    fails!(sys!(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    let (reader, _w) = ok!(guest_tests::fs::pipe(0));
    fails!(sys!(SYS_fcntl, reader, F_GET_SEALS, 0), EINVAL);
    Ok(())
}

fn size_seals() -> Outcome {
    let fd = ok!(create(MFD_ALLOW_SEALING));
    ok!(sys!(SYS_ftruncate, fd, 4096));
    ok!(sys!(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK));
    fails!(sys!(SYS_ftruncate, fd, 100), EPERM);
    ok!(sys!(SYS_ftruncate, fd, 8192));
    ok!(sys!(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_GROW));
    fails!(sys!(SYS_ftruncate, fd, 10_000), EPERM);
    ok!(seek(fd, 8192, libc::SEEK_SET));
    fails!(write(fd, b"x"), EPERM);
    eq!(ok!(sys!(SYS_fcntl, fd, F_GET_SEALS, 0)) as i32, F_SEAL_SHRINK | F_SEAL_GROW);
    ok!(sys!(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SEAL));
    fails!(sys!(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    Ok(())
}

fn write_seal() -> Outcome {
    let fd = ok!(create(MFD_ALLOW_SEALING));
    ok!(write(fd, &[7; 4096]));
    let shared = ok!(Map::new(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    fails!(sys!(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    drop(shared);
    ok!(sys!(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE));
    fails!(sys!(SYS_pwrite64, fd, b"x".as_ptr(), 1, 0), EPERM);
    fails!(sys!(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
    let private = ok!(Map::new(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    private.bytes()[0] = 1;
    let readable = ok!(Map::new(0, PAGE, PROT_READ, MAP_SHARED, fd, 0));
    eq!(readable.bytes()[0], 7);
    check!(sys!(SYS_mprotect, readable.addr, PAGE, PROT_READ | PROT_WRITE) == Err(libc::EACCES));
    Ok(())
}

fn execution_seal() -> Outcome {
    let fd = ok!(create(8));
    check!(ok!(fstat(fd)).st_mode & 0o111 == 0);
    eq!(ok!(sys!(SYS_fcntl, fd, F_GET_SEALS, 0)), 0x20);
    fails!(sys!(SYS_fchmod, fd, 0o755), EPERM);
    Ok(())
}

/// How long the files are that are written over and over again.
const LONG: usize = 300_000;

/// Returns a memory file and a file of the folder, of [`LONG`] zero bytes.
fn long_files() -> Result<[i32; 2], i32> {
    let files = [create(MFD_ALLOW_SEALING)?, open(c"long", O_RDWR | O_CREAT | O_TRUNC)?];
    for fd in files {
        eq_len(sys!(SYS_pwrite64, fd, vec![0u8; LONG].as_ptr(), LONG, 0)?)?;
    }
    Ok(files)
}

fn eq_len(n: usize) -> Result<(), i32> {
    if n == LONG { Ok(()) } else { Err(libc::EIO) }
}

fn pwrite(fd: i32, bytes: &[u8], offset: usize) -> Result<usize, i32> {
    sys!(SYS_pwrite64, fd, bytes.as_ptr(), bytes.len(), offset)
}

fn pread(fd: i32, bytes: &mut [u8], offset: usize) -> Result<usize, i32> {
    sys!(SYS_pread64, fd, bytes.as_mut_ptr(), bytes.len(), offset)
}

fn written_over_again_and_again() -> Outcome {
    for fd in ok!(long_files()) {
        let mut model = vec![0u8; LONG];
        let mapped = ok!(Map::new(0, LONG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        for round in 0..200usize {
            let len = [1, 100, 2048, 8193, 4096, 5000, 20_000, 70_000][round % 8];
            let offset = round * 7919 % (LONG - len);
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + round) as u8).collect();
            eq!(ok!(pwrite(fd, &bytes, offset)), len);
            model[offset..offset + len].copy_from_slice(&bytes);
            // What was written by the mapping is read as well, in pieces of any size.
            mapped.bytes()[offset / 2] = round as u8;
            model[offset / 2] = round as u8;
            let mut found = vec![0u8; len + 1000];
            let n = ok!(pread(fd, &mut found, offset));
            eq!(n, (len + 1000).min(LONG - offset));
            check!(found[..n] == model[offset..offset + n]);
        }
        check!(mapped.bytes()[..] == model[..]);
        eq!(ok!(fstat(fd)).st_size, LONG as i64);
        // Vectors, across pieces that share a page.
        let (a, b) = ([1u8; 3000], [2u8; 3000]);
        let pieces = [(a.as_ptr(), a.len()), (b.as_ptr(), b.len())];
        eq!(ok!(sys!(SYS_pwritev, fd, &pieces, 2, 10, 0)), 6000);
        model[10..3010].fill(1);
        model[3010..6010].fill(2);
        let (mut c, mut d) = ([0u8; 5000], [0u8; 2500]);
        let pieces = [(c.as_mut_ptr(), c.len()), (d.as_mut_ptr(), d.len())];
        eq!(ok!(sys!(SYS_preadv, fd, &pieces, 2, 0, 0)), 7500);
        check!(c[..] == model[..5000] && d[..] == model[5000..7500]);
        // From and to the file's own pages.
        eq!(ok!(sys!(SYS_pwrite64, fd, mapped.addr, 50_000, 100_000)), 50_000);
        check!(mapped.bytes()[100_000..150_000] == mapped.bytes()[..50_000]);
        eq!(ok!(sys!(SYS_pread64, fd, mapped.addr + 200_000, 30_000, 5)), 30_000);
        check!(mapped.bytes()[200_000..230_000] == mapped.bytes()[5..30_005]);
    }
    Ok(())
}

fn written_over_from_half_a_buffer() -> Outcome {
    for fd in ok!(long_files()) {
        for _ in 0..20 {
            eq!(ok!(pwrite(fd, &[3; 10_000], 0)), 10_000);
        }
        let buffer = ok!(Map::anonymous(4 * PAGE, MAP_PRIVATE));
        buffer.bytes()[..2 * PAGE].fill(4);
        ok!(sys!(SYS_munmap, buffer.addr + 2 * PAGE, 2 * PAGE));
        eq!(ok!(sys!(SYS_pwrite64, fd, buffer.addr, 4 * PAGE, 0)), 2 * PAGE);
        fails!(sys!(SYS_pwrite64, fd, buffer.addr + 2 * PAGE, PAGE, 0), EFAULT);
        let mut found = [0u8; 10_000];
        eq!(ok!(pread(fd, &mut found, 0)), 10_000);
        check!(found[..2 * PAGE].iter().all(|byte| *byte == 4));
        check!(found[2 * PAGE..].iter().all(|byte| *byte == 3));
        eq!(ok!(sys!(SYS_pread64, fd, buffer.addr, 4 * PAGE, 2 * PAGE)), 2 * PAGE);
        check!(buffer.bytes()[..10_000 - 2 * PAGE].iter().all(|byte| *byte == 3));
        fails!(sys!(SYS_pread64, fd, buffer.addr + 2 * PAGE, PAGE, 0), EFAULT);
        // Memory that may not be written to.
        ok!(sys!(SYS_mprotect, buffer.addr + PAGE, PAGE, PROT_READ));
        eq!(ok!(sys!(SYS_pread64, fd, buffer.addr, 2 * PAGE, 0)), PAGE);
    }
    Ok(())
}

fn written_over_and_cut() -> Outcome {
    for fd in ok!(long_files()) {
        for _ in 0..20 {
            eq!(ok!(pwrite(fd, &[5; 50_000], 0)), 50_000);
        }
        ok!(sys!(SYS_ftruncate, fd, 5_000));
        let mut found = [9u8; 20_000];
        eq!(ok!(pread(fd, &mut found, 0)), 5_000);
        eq!(ok!(pread(fd, &mut found, 5_000)), 0);
        // What goes beyond the end makes the file longer.
        eq!(ok!(pwrite(fd, &[6; 4_000], 3_000)), 4_000);
        eq!(ok!(fstat(fd)).st_size, 7_000);
        ok!(sys!(SYS_ftruncate, fd, 60_000));
        eq!(ok!(pwrite(fd, &[7; 10_000], 30_000)), 10_000);
        let mut all = vec![9u8; LONG];
        eq!(ok!(pread(fd, &mut all, 0)), 60_000);
        let expected = |at: usize| match at {
            0..3_000 => 5,
            3_000..7_000 => 6,
            30_000..40_000 => 7,
            _ => 0,
        };
        check!((0..60_000).all(|at| all[at] == expected(at)));
        // A hole: keep the size, punch.
        ok!(sys!(SYS_fallocate, fd, 3, 32_768, 4_096));
        eq!(ok!(pread(fd, &mut all, 30_000)), 30_000);
        check!(all[2_768..2_768 + 4_096].iter().all(|byte| *byte == 0));
        eq!(ok!(pwrite(fd, &[8; 4_096], 32_768)), 4_096);
        eq!(ok!(pread(fd, &mut all, 32_768)), 60_000 - 32_768);
        check!(all[..4_096].iter().all(|byte| *byte == 8));
    }
    let [fd, _] = ok!(long_files());
    for _ in 0..20 {
        eq!(ok!(pwrite(fd, &[5; 50_000], 0)), 50_000);
    }
    ok!(sys!(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE));
    fails!(pwrite(fd, &[6; 50_000], 0), EPERM);
    let mut found = [0u8; 50_000];
    eq!(ok!(pread(fd, &mut found, 0)), 50_000);
    check!(found.iter().all(|byte| *byte == 5));
    Ok(())
}

guest_tests::cases!(
    written_over_again_and_again,
    written_over_from_half_a_buffer,
    written_over_and_cut,
    behaves_like_a_file,
    argument_errors,
    sizes_of_huge_pages,
    without_sealing,
    size_seals,
    write_seal,
    execution_seal,
);
