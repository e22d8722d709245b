//! Path walks: `.` and `..`, symbolic links, trailing slashes, `chdir(2)`, `getcwd(2)`, `chroot(2)`.

use guest_tests::fs::{get, open, put, stat, stat_at, text};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_CREAT, O_RDONLY, O_WRONLY};

fn cwd() -> Result<String, i32> {
    let mut buf = [0u8; 4096];
    let n = sys!(SYS_getcwd, &mut buf, 4096)?;
    Ok(String::from_utf8_lossy(&buf[..n - 1]).into_owned())
}

fn dots_and_slashes() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(put(c"d/a", b"A"));
    for path in [c"d/a", c"./d/a", c"d/./a", c"d//a", c"d/../d/a", c".//d/.././d///a"] {
        eq!(ok!(get(path)), b"A");
    }
    eq!(ok!(stat(c"/..")).st_ino, ok!(stat(c"/")).st_ino);
    eq!(ok!(stat(c"/../..")).st_ino, ok!(stat(c"/")).st_ino);
    fails!(stat(c"d/a/.."), ENOTDIR);
    fails!(stat(c"none/.."), ENOENT);
    Ok(())
}

fn trailing_slash() -> Outcome {
    ok!(put(c"a", b"A"));
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(sys!(SYS_symlink, c"a", c"la"));
    ok!(sys!(SYS_symlink, c"d", c"ld"));
    fails!(stat(c"a/"), ENOTDIR);
    fails!(stat(c"la/"), ENOTDIR);
    ok!(stat(c"d/"));
    let through = ok!(stat_at(AT_FDCWD, c"ld/", AT_SYMLINK_NOFOLLOW));
    eq!(through.st_mode & libc::S_IFMT, libc::S_IFDIR);
    fails!(sys!(SYS_mkdir, c"ld/", 0o755), EEXIST);
    fails!(sys!(SYS_symlink, c"x", c"new/"), ENOENT);
    fails!(sys!(SYS_rename, c"a", c"b/"), ENOTDIR);
    fails!(sys!(SYS_rmdir, c"ld/"), ENOTDIR);
    Ok(())
}

fn symlink_chains() -> Outcome {
    ok!(put(c"end", b"E"));
    ok!(sys!(SYS_symlink, c"end", c"l0"));
    for i in 1..=40 {
        let target = std::ffi::CString::new(format!("l{}", i - 1)).unwrap_or_default();
        let name = std::ffi::CString::new(format!("l{i}")).unwrap_or_default();
        ok!(sys!(SYS_symlink, target.as_c_str(), name.as_c_str()));
    }
    eq!(ok!(get(c"l39")), b"E");
    fails!(get(c"l40"), ELOOP);
    ok!(sys!(SYS_symlink, c"loop", c"loop"));
    fails!(get(c"loop"), ELOOP);
    fails!(open(c"loop", O_CREAT | O_WRONLY), ELOOP);
    Ok(())
}

fn symlinks_in_the_middle() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(sys!(SYS_mkdir, c"d/e", 0o755));
    ok!(put(c"d/a", b"A"));
    ok!(sys!(SYS_symlink, c"d/e", c"l"));
    eq!(ok!(get(c"l/../a")), b"A");
    let here = ok!(cwd());
    let target = std::ffi::CString::new(format!("{here}/d")).unwrap_or_default();
    ok!(sys!(SYS_symlink, target.as_c_str(), c"abs"));
    eq!(ok!(get(c"abs/a")), b"A");
    ok!(sys!(SYS_symlink, c"../d/a", c"d/up"));
    eq!(ok!(get(c"d/up")), b"A");
    ok!(sys!(SYS_symlink, c"d/a/", c"slash"));
    fails!(get(c"slash"), ENOTDIR);
    Ok(())
}

fn names_of_all_lengths() -> Outcome {
    let longest = std::ffi::CString::new(vec![b'n'; 255]).unwrap_or_default();
    ok!(put(&longest, b"L"));
    eq!(ok!(get(&longest)), b"L");
    let path = std::ffi::CString::new("./".repeat(2040) + "x").unwrap_or_default();
    ok!(put(c"x", b"X"));
    eq!(ok!(get(&path)), b"X");
    ok!(put(c"with space \xff\x01", b"S"));
    eq!(ok!(get(c"with space \xff\x01")), b"S");
    Ok(())
}

fn chdir_and_getcwd() -> Outcome {
    let here = ok!(cwd());
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(sys!(SYS_symlink, c"d", c"l"));
    ok!(sys!(SYS_chdir, c"l"));
    eq!(ok!(cwd()), format!("{here}/d"));
    ok!(sys!(SYS_chdir, c".."));
    eq!(ok!(cwd()), here);
    let fd = ok!(open(c"d", O_RDONLY));
    ok!(sys!(SYS_fchdir, fd));
    eq!(ok!(cwd()), format!("{here}/d"));
    let mut small = [0u8; 2];
    fails!(sys!(SYS_getcwd, &mut small, 2), ERANGE);
    fails!(sys!(SYS_chdir, c"none"), ENOENT);
    ok!(put(c"f", b""));
    fails!(sys!(SYS_chdir, c"f"), ENOTDIR);
    fails!(sys!(SYS_fchdir, 999), EBADF);
    ok!(sys!(SYS_chdir, c"/"));
    eq!(ok!(cwd()), "/");
    Ok(())
}

fn cwd_follows_rename_and_removal() -> Outcome {
    let here = ok!(cwd());
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(sys!(SYS_chdir, c"d"));
    ok!(sys!(SYS_rename, c"../d", c"../e"));
    eq!(ok!(cwd()), format!("{here}/e"));
    ok!(sys!(SYS_rmdir, c"../e"));
    fails!(cwd(), ENOENT);
    ok!(stat(c"."));
    fails!(put(c"x", b""), ENOENT);
    ok!(sys!(SYS_chdir, c".."));
    eq!(ok!(cwd()), here);
    Ok(())
}

fn search_permission() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o744));
    ok!(put(c"d/a", b""));
    proc::in_child(|| {
        ok!(proc::drop_root());
        fails!(stat(c"d/a"), EACCES);
        fails!(sys!(SYS_chdir, c"d"), EACCES);
        check!(ok!(guest_tests::fs::names(c"d")).len() == 3);
        Ok(())
    })
}

fn chroot_confines() -> Outcome {
    ok!(sys!(SYS_mkdir, c"r", 0o755));
    ok!(put(c"r/inside", b"I"));
    ok!(put(c"outside", b"O"));
    ok!(sys!(SYS_symlink, c"/inside", c"r/l"));
    fails!(sys!(SYS_chroot, c"none"), ENOENT);
    proc::in_child(|| {
        ok!(sys!(SYS_chroot, c"r"));
        ok!(sys!(SYS_chdir, c"/"));
        eq!(ok!(get(c"/inside")), b"I");
        eq!(ok!(get(c"/l")), b"I");
        fails!(get(c"/../outside"), ENOENT);
        fails!(get(c"/etc/passwd"), ENOENT);
        eq!(ok!(cwd()), "/");
        ok!(sys!(SYS_setresuid, 1000, 1000, 1000));
        fails!(sys!(SYS_chroot, c"/"), EPERM);
        Ok(())
    })
}

fn magic_links() -> Outcome {
    ok!(put(c"a", b"A"));
    let here = ok!(cwd());
    let mut buf = [0u8; 4096];
    let n = ok!(sys!(SYS_readlink, c"/proc/self/cwd", &mut buf, 4096));
    eq!(String::from_utf8_lossy(&buf[..n]), here);
    eq!(ok!(get(c"/proc/self/cwd/a")), b"A");
    eq!(ok!(stat(c"/proc/self/root")).st_ino, ok!(stat(c"/")).st_ino);
    let n = ok!(sys!(SYS_readlink, c"/proc/self", &mut buf, 4096));
    eq!(String::from_utf8_lossy(&buf[..n]), proc::pid().to_string());
    let n = ok!(sys!(SYS_readlink, c"/proc/thread-self", &mut buf, 4096));
    eq!(String::from_utf8_lossy(&buf[..n]), format!("{0}/task/{0}", proc::pid()));
    check!(ok!(text(c"/proc/self/comm")) == "path\n");
    Ok(())
}

guest_tests::cases!(
    dots_and_slashes,
    trailing_slash,
    symlink_chains,
    symlinks_in_the_middle,
    names_of_all_lengths,
    chdir_and_getcwd,
    cwd_follows_rename_and_removal,
    search_permission,
    chroot_confines,
    magic_links,
);
