//! `open(2)`, `openat(2)`, `openat2(2)`, `creat(2)`, descriptor flags, umask, permissions on open.

use guest_tests::fs::{close, fstat, get, open, put, read, stat, write};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};
use libc::{
    AT_FDCWD, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_PATH,
    O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY,
};

fn creates_with_mode_and_umask() -> Outcome {
    ok!(sys!(SYS_umask, 0o027));
    ok!(close(ok!(sys!(SYS_open, c"a", O_CREAT | O_WRONLY, 0o666)) as i32));
    eq!(ok!(stat(c"a")).st_mode, libc::S_IFREG | 0o640);
    eq!(ok!(sys!(SYS_umask, 0)), 0o027);
    ok!(close(ok!(sys!(SYS_creat, c"b", 0o4755)) as i32));
    eq!(ok!(stat(c"b")).st_mode, libc::S_IFREG | 0o4755);
    Ok(())
}

fn missing_file() -> Outcome {
    fails!(open(c"nothing", O_RDONLY), ENOENT);
    fails!(open(c"nothing/x", O_CREAT | O_WRONLY), ENOENT);
    fails!(open(c"", O_RDONLY), ENOENT);
    Ok(())
}

fn exclusive_create() -> Outcome {
    ok!(close(ok!(open(c"a", O_CREAT | O_EXCL | O_WRONLY))));
    fails!(open(c"a", O_CREAT | O_EXCL | O_WRONLY), EEXIST);
    ok!(sys!(SYS_symlink, c"nowhere", c"l"));
    fails!(open(c"l", O_CREAT | O_EXCL | O_WRONLY), EEXIST);
    fails!(open(c".", O_CREAT | O_EXCL | O_RDONLY), EEXIST);
    Ok(())
}

fn create_through_dangling_symlink() -> Outcome {
    ok!(sys!(SYS_symlink, c"target", c"l"));
    ok!(close(ok!(open(c"l", O_CREAT | O_WRONLY))));
    eq!(ok!(stat(c"target")).st_size, 0);
    Ok(())
}

fn directory_for_writing() -> Outcome {
    fails!(open(c".", O_WRONLY), EISDIR);
    fails!(open(c".", O_RDWR), EISDIR);
    fails!(open(c".", O_CREAT | O_RDONLY), EISDIR);
    fails!(open(c".", O_RDONLY | O_TRUNC), EISDIR);
    Ok(())
}

fn directory_flag_on_file() -> Outcome {
    ok!(put(c"a", b""));
    fails!(open(c"a", O_RDONLY | O_DIRECTORY), ENOTDIR);
    fails!(open(c"a/b", O_RDONLY), ENOTDIR);
    fails!(open(c"a/", O_RDONLY), ENOTDIR);
    fails!(open(c"new/", O_CREAT | O_WRONLY), EISDIR);
    Ok(())
}

fn nofollow() -> Outcome {
    ok!(put(c"a", b"x"));
    ok!(sys!(SYS_symlink, c"a", c"l"));
    fails!(open(c"l", O_RDONLY | O_NOFOLLOW), ELOOP);
    ok!(close(ok!(open(c"l", O_RDONLY))));
    Ok(())
}

fn path_descriptor() -> Outcome {
    ok!(put(c"a", b"x"));
    let fd = ok!(open(c"a", O_PATH));
    let mut buf = [0u8; 1];
    fails!(read(fd, &mut buf), EBADF);
    fails!(write(fd, b"x"), EBADF);
    fails!(sys!(SYS_ftruncate, fd, 0), EBADF);
    fails!(sys!(SYS_fchmod, fd, 0o600), EBADF);
    eq!(ok!(fstat(fd)).st_size, 1);
    eq!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFL, 0)) as i32, O_PATH);
    ok!(sys!(SYS_symlink, c"a", c"l"));
    let link = ok!(open(c"l", O_PATH | O_NOFOLLOW));
    eq!(ok!(fstat(link)).st_mode & libc::S_IFMT, libc::S_IFLNK);
    let mut target = [0u8; 8];
    eq!(ok!(sys!(SYS_readlinkat, link, c"", &mut target, 8)), 1);
    Ok(())
}

fn relative_to_directory_descriptor() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(put(c"d/a", b"in d"));
    let dir = ok!(open(c"d", O_RDONLY | O_DIRECTORY));
    let fd = ok!(sys!(SYS_openat, dir, c"a", O_RDONLY)) as i32;
    eq!(ok!(guest_tests::fs::read_all(fd)), b"in d");
    fails!(sys!(SYS_openat, fd, c"a", O_RDONLY), ENOTDIR);
    fails!(sys!(SYS_openat, 999, c"a", O_RDONLY), EBADF);
    check!(sys!(SYS_openat, 999, c"/", O_RDONLY).is_ok());
    let dir = ok!(open(c"d", O_PATH | O_DIRECTORY));
    check!(sys!(SYS_openat, dir, c"a", O_RDONLY).is_ok());
    Ok(())
}

fn status_flags() -> Outcome {
    let fd = ok!(open(c"a", O_CREAT | O_RDWR | O_APPEND | O_NONBLOCK | O_TRUNC | O_CLOEXEC));
    let large = 0o100_000;
    let flags = ok!(sys!(SYS_fcntl, fd, libc::F_GETFL, 0)) as i32;
    eq!(flags & !large, O_RDWR | O_APPEND | O_NONBLOCK);
    eq!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFD, 0)), 1);
    ok!(sys!(SYS_fcntl, fd, libc::F_SETFL, O_WRONLY));
    let flags = ok!(sys!(SYS_fcntl, fd, libc::F_GETFL, 0)) as i32;
    eq!(flags & !large, O_RDWR);
    Ok(())
}

fn bad_arguments() -> Outcome {
    fails!(sys!(SYS_open, 0, O_RDONLY), EFAULT);
    fails!(sys!(SYS_open, 8, O_RDONLY), EFAULT);
    let long = std::ffi::CString::new(vec![b'x'; 256]).unwrap_or_default();
    fails!(open(&long, O_RDONLY), ENAMETOOLONG);
    let long = std::ffi::CString::new("x/".repeat(2100)).unwrap_or_default();
    fails!(open(&long, O_RDONLY), ENAMETOOLONG);
    Ok(())
}

fn tmpfile() -> Outcome {
    let fd = ok!(open(c".", O_TMPFILE | O_RDWR));
    ok!(write(fd, b"secret"));
    eq!(ok!(fstat(fd)).st_nlink, 0);
    eq!(ok!(guest_tests::fs::names(c".")), [".", ".."]);
    let path = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    ok!(sys!(SYS_linkat, AT_FDCWD, path.as_c_str(), AT_FDCWD, c"named", libc::AT_SYMLINK_FOLLOW));
    eq!(ok!(get(c"named")), b"secret");
    fails!(open(c".", O_TMPFILE | O_RDONLY), EINVAL);
    Ok(())
}

fn unlinked_file_lives_on() -> Outcome {
    let fd = ok!(open(c"a", O_CREAT | O_RDWR));
    ok!(write(fd, b"still here"));
    ok!(sys!(SYS_unlink, c"a"));
    let mut buf = [0u8; 10];
    eq!(ok!(sys!(SYS_pread64, fd, &mut buf, 10, 0)), 10);
    eq!(&buf, b"still here");
    eq!(ok!(fstat(fd)).st_nlink, 0);
    Ok(())
}

fn permissions_are_checked() -> Outcome {
    ok!(put(c"a", b"x"));
    ok!(sys!(SYS_chmod, c"a", 0o600));
    ok!(sys!(SYS_mkdir, c"locked", 0o700));
    ok!(put(c"locked/b", b"y"));
    ok!(put(c"exec", b""));
    ok!(sys!(SYS_chmod, c"exec", 0o444));
    proc::in_child(|| {
        ok!(proc::drop_root());
        fails!(open(c"a", O_RDONLY), EACCES);
        fails!(open(c"a", O_WRONLY), EACCES);
        fails!(open(c"locked/b", O_RDONLY), EACCES);
        fails!(stat(c"locked/b"), EACCES);
        fails!(open(c"exec", O_WRONLY), EACCES);
        ok!(open(c"exec", O_RDONLY));
        fails!(sys!(SYS_chmod, c"a", 0o777), EPERM);
        fails!(sys!(SYS_chown, c"a", 1000, 1000), EPERM);
        fails!(sys!(SYS_access, c"exec", libc::X_OK), EACCES);
        ok!(sys!(SYS_access, c"exec", libc::R_OK));
        Ok(())
    })
}

fn read_only_create_mode_applies_later() -> Outcome {
    let fd = ok!(sys!(SYS_open, c"a", O_CREAT | O_RDWR, 0o000)) as i32;
    eq!(ok!(write(fd, b"x")), 1);
    Ok(())
}

#[repr(C)]
#[derive(Default)]
struct How {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn openat2_flags() -> Outcome {
    let how = How { flags: (O_CREAT | O_RDWR) as u64, mode: 0o600, resolve: 0 };
    check!(sys!(SYS_openat2, AT_FDCWD, c"a", &how, 24).is_ok());
    fails!(sys!(SYS_openat2, AT_FDCWD, c"a", &how, 8), EINVAL);
    let how = How { flags: 1 << 40, ..How::default() };
    fails!(sys!(SYS_openat2, AT_FDCWD, c"a", &how, 24), EINVAL);
    let how = How { mode: 0o600, ..How::default() };
    fails!(sys!(SYS_openat2, AT_FDCWD, c"a", &how, 24), EINVAL);
    let how = How { resolve: 1 << 30, ..How::default() };
    fails!(sys!(SYS_openat2, AT_FDCWD, c"a", &how, 24), EINVAL);
    let large = [0u64; 4];
    check!(sys!(SYS_openat2, AT_FDCWD, c"a", &large, 32).is_ok());
    let large = [0u64, 0, 0, 1];
    fails!(sys!(SYS_openat2, AT_FDCWD, c"a", &large, 32), E2BIG);
    Ok(())
}

fn openat2_resolve() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(put(c"d/a", b""));
    ok!(put(c"out", b""));
    ok!(sys!(SYS_symlink, c"../out", c"d/up"));
    ok!(sys!(SYS_symlink, c"a", c"d/in"));
    ok!(sys!(SYS_symlink, c"/d/a", c"d/abs"));
    let dir = ok!(open(c"d", O_PATH));
    let try_open = |path: &core::ffi::CStr, resolve: u64| {
        sys!(SYS_openat2, dir, path, &How { resolve, ..How::default() }, 24).map(|fd| fd > 0)
    };
    ok!(try_open(c"in", libc::RESOLVE_BENEATH));
    fails!(try_open(c"up", libc::RESOLVE_BENEATH), EXDEV);
    fails!(try_open(c"../out", libc::RESOLVE_BENEATH), EXDEV);
    fails!(try_open(c"/etc", libc::RESOLVE_BENEATH), EXDEV);
    fails!(try_open(c"in", libc::RESOLVE_NO_SYMLINKS), ELOOP);
    check!(try_open(c"a", libc::RESOLVE_NO_SYMLINKS).is_ok());
    fails!(try_open(c"abs", libc::RESOLVE_IN_ROOT), ENOENT);
    check!(try_open(c"/a", libc::RESOLVE_IN_ROOT).is_ok());
    check!(try_open(c"../../a", libc::RESOLVE_IN_ROOT).is_ok());
    fails!(
        sys!(
            SYS_openat2,
            dir,
            c"/proc/self/fd/0",
            &How { resolve: libc::RESOLVE_NO_MAGICLINKS, ..How::default() },
            24
        ),
        ELOOP
    );
    fails!(
        sys!(
            SYS_openat2,
            dir,
            c"/proc/self",
            &How { resolve: libc::RESOLVE_NO_XDEV, ..How::default() },
            24
        ),
        EXDEV
    );
    Ok(())
}

fn descriptor_limit() -> Outcome {
    let limit = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
    ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &limit, 0));
    let mut last = 0;
    for _ in 0..30 {
        match open(c".", O_RDONLY) {
            Ok(fd) => last = fd,
            Err(errno) => {
                eq!(errno, libc::EMFILE);
                eq!(last, 19);
                fails!(sys!(SYS_dup, 0), EMFILE);
                fails!(sys!(SYS_dup2, 0, 20), EBADF);
                fails!(sys!(SYS_fcntl, 0, libc::F_DUPFD, 20), EINVAL);
                fails!(guest_tests::fs::pipe(0), EMFILE);
                return Ok(());
            }
        }
    }
    Err("no limit".into())
}

fn reopen_through_proc() -> Outcome {
    ok!(put(c"a", b"abc"));
    let fd = ok!(open(c"a", O_PATH));
    let path = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let again = ok!(open(&path, O_RDWR));
    eq!(ok!(write(again, b"X")), 1);
    eq!(ok!(get(c"a")), b"Xbc");
    ok!(sys!(SYS_unlink, c"a"));
    check!(open(&path, O_RDONLY).is_ok());
    Ok(())
}

fn text_file_busy() -> Outcome {
    let exe = ok!(std::fs::read("/proc/self/exe"));
    ok!(std::fs::write("copy", exe));
    ok!(sys!(SYS_chmod, c"copy", 0o755));
    let fd = ok!(open(c"copy", O_WRONLY));
    let argv = [c"copy".as_ptr(), core::ptr::null()];
    fails!(sys!(SYS_execve, c"copy", &argv, 0), ETXTBSY);
    ok!(close(fd));
    Ok(())
}

fn special_files_of_no_driver() -> Outcome {
    ok!(sys!(SYS_mknod, c"fifo", libc::S_IFIFO | 0o644, 0));
    fails!(open(c"fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    let fd = ok!(open(c"fifo", O_RDONLY | O_NONBLOCK));
    ok!(close(ok!(open(c"fifo", O_WRONLY | O_NONBLOCK))));
    ok!(close(fd));
    Ok(())
}

fn file_handles() -> Outcome {
    const FID: i32 = 0x200;
    // Two fields of four bytes, and the handle.
    let mut handle = [0u32; 34];
    let mut mount = 0i32;
    ok!(put(c"f", b"handled"));
    ok!(sys!(SYS_symlink, c"f", c"l"));
    let at = AT_FDCWD;
    match sys!(SYS_name_to_handle_at, at, c"f", &mut handle, &mut mount, 0) {
        // Not every file system has handles.
        Err(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM) => return Ok(()),
        result => eq!(result, Err(libc::EOVERFLOW)),
    }
    let len = handle[0];
    check!(len > 0 && len <= 128);
    ok!(sys!(SYS_name_to_handle_at, at, c"f", &mut handle, &mut mount, 0));
    eq!(handle[0], len);
    let mut again = [0u32; 34];
    again[0] = len;
    ok!(sys!(SYS_name_to_handle_at, at, c"l", &mut again, &mut mount, libc::AT_SYMLINK_FOLLOW));
    eq!(handle, again);
    ok!(sys!(SYS_name_to_handle_at, at, c"l", &mut again, &mut mount, 0));
    check!(handle != again, "a link has a handle of its own");
    let link = again;
    again[0] = len;
    fails!(sys!(SYS_name_to_handle_at, at, c"f", &mut again, &mut mount, 0x10), EINVAL);
    fails!(sys!(SYS_name_to_handle_at, at, c"", &mut again, &mut mount, 0), ENOENT);
    fails!(sys!(SYS_name_to_handle_at, at, c"f", 8, &mut mount, 0), EFAULT);
    fails!(sys!(SYS_name_to_handle_at, at, c"f", &mut again, 8, 0), EFAULT);
    again[0] = 129;
    fails!(sys!(SYS_name_to_handle_at, at, c"f", &mut again, &mut mount, 0), EINVAL);
    again[0] = 128;
    // To compare files, those of any file system will do.
    match sys!(SYS_name_to_handle_at, at, c"/proc/self", &mut again, &mut mount, FID) {
        Err(libc::EINVAL) => {}
        result => {
            ok!(result);
        }
    }

    let file = match sys!(SYS_open_by_handle_at, at, &handle, O_RDONLY) {
        // Without CAP_DAC_READ_SEARCH.
        Err(libc::EPERM) => return Ok(()),
        result => ok!(result) as i32,
    };
    let mut text = [0u8; 16];
    eq!(ok!(read(file, &mut text)), 7);
    fails!(sys!(SYS_open_by_handle_at, at, &link, O_RDONLY), ELOOP);
    fails!(sys!(SYS_open_by_handle_at, -1, &handle, O_RDONLY), EBADF);
    fails!(sys!(SYS_open_by_handle_at, at, 8, O_RDONLY), EFAULT);
    fails!(sys!(SYS_open_by_handle_at, at, &[0u32; 34], O_RDONLY), EINVAL);
    fails!(sys!(SYS_open_by_handle_at, at, &[129u32; 34], O_RDONLY), EINVAL);
    ok!(close(file));
    ok!(sys!(SYS_rename, c"f", c"g"));
    ok!(close(ok!(sys!(SYS_open_by_handle_at, at, &handle, O_RDWR)) as i32));
    ok!(sys!(SYS_unlink, c"g"));
    fails!(sys!(SYS_open_by_handle_at, at, &handle, O_RDONLY), ESTALE);
    ok!(proc::in_child(|| {
        ok!(proc::drop_root());
        fails!(sys!(SYS_open_by_handle_at, at, &handle, O_RDONLY), EPERM);
        Ok(())
    }));
    Ok(())
}

guest_tests::cases!(
    file_handles,
    creates_with_mode_and_umask,
    missing_file,
    exclusive_create,
    create_through_dangling_symlink,
    directory_for_writing,
    directory_flag_on_file,
    nofollow,
    path_descriptor,
    relative_to_directory_descriptor,
    status_flags,
    bad_arguments,
    tmpfile,
    unlinked_file_lives_on,
    permissions_are_checked,
    read_only_create_mode_applies_later,
    openat2_flags,
    openat2_resolve,
    descriptor_limit,
    reopen_through_proc,
    text_file_busy,
    special_files_of_no_driver,
);
