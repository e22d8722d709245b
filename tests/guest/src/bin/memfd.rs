//! `memfd_create(2)` and file seals.

use guest_tests::fs::{fstat, read, seek, write};
use guest_tests::mem::{Map, PAGE};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, MAP_PRIVATE,
    MAP_SHARED, MFD_ALLOW_SEALING, MFD_CLOEXEC, PROT_READ, PROT_WRITE,
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

guest_tests::cases!(
    behaves_like_a_file,
    argument_errors,
    without_sealing,
    size_seals,
    write_seal,
    execution_seal,
);
