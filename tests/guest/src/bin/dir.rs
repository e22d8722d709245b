//! Directories: `mkdir(2)`, `rmdir(2)`, `rename(2)`, `link(2)`, `unlink(2)`, `symlink(2)`, `getdents64(2)`, `mknod(2)`.

use guest_tests::fs::{close, entries, get, names, open, parse_entries, put, stat, stat_at};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};
use libc::{AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, O_DIRECTORY, O_RDONLY};

fn mkdir_and_rmdir() -> Outcome {
    ok!(sys!(SYS_umask, 0o022));
    ok!(sys!(SYS_mkdir, c"d", 0o777));
    eq!(ok!(stat(c"d")).st_mode, libc::S_IFDIR | 0o755);
    fails!(sys!(SYS_mkdir, c"d", 0o777), EEXIST);
    fails!(sys!(SYS_mkdir, c"x/y", 0o777), ENOENT);
    ok!(sys!(SYS_mkdirat, AT_FDCWD, c"d/e/", 0o700));
    fails!(sys!(SYS_rmdir, c"d"), ENOTEMPTY);
    ok!(sys!(SYS_rmdir, c"d/e/"));
    ok!(sys!(SYS_rmdir, c"d"));
    fails!(sys!(SYS_rmdir, c"d"), ENOENT);
    Ok(())
}

fn rmdir_errors() -> Outcome {
    ok!(put(c"f", b""));
    fails!(sys!(SYS_rmdir, c"f"), ENOTDIR);
    fails!(sys!(SYS_rmdir, c"."), EINVAL);
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    fails!(sys!(SYS_rmdir, c"d/."), EINVAL);
    fails!(sys!(SYS_rmdir, c"d/.."), ENOTEMPTY);
    fails!(sys!(SYS_unlink, c"d"), EISDIR);
    fails!(sys!(SYS_unlinkat, AT_FDCWD, c"f", AT_REMOVEDIR), ENOTDIR);
    fails!(sys!(SYS_unlinkat, AT_FDCWD, c"f", 1), EINVAL);
    fails!(sys!(SYS_unlink, c"none"), ENOENT);
    fails!(sys!(SYS_unlink, c"f/"), ENOTDIR);
    ok!(sys!(SYS_unlinkat, AT_FDCWD, c"d", AT_REMOVEDIR));
    Ok(())
}

fn link_counts_of_directories() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    let before = ok!(stat(c"d")).st_nlink;
    ok!(sys!(SYS_mkdir, c"d/e", 0o755));
    let after = ok!(stat(c"d")).st_nlink;
    check!(after == before + 1 || (before == 1 && after == 1));
    Ok(())
}

fn removed_directory_is_dead() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    let fd = ok!(open(c"d", O_RDONLY | O_DIRECTORY));
    ok!(sys!(SYS_rmdir, c"d"));
    fails!(sys!(SYS_openat, fd, c"x", libc::O_CREAT | libc::O_WRONLY, 0o644), ENOENT);
    fails!(sys!(SYS_mkdirat, fd, c"x", 0o755), ENOENT);
    fails!(entries(fd).map(|all| all.len()), ENOENT);
    Ok(())
}

fn getdents_lists_everything() -> Outcome {
    for i in 0..500 {
        let name = std::ffi::CString::new(format!("file-{i:03}")).unwrap_or_default();
        ok!(put(&name, b""));
    }
    ok!(sys!(SYS_mkdir, c"dir", 0o755));
    ok!(sys!(SYS_symlink, c"x", c"link"));
    let all = ok!(names(c"."));
    eq!(all.len(), 504);
    check!(all.contains(&"file-499".to_owned()) && all.contains(&".".to_owned()));
    let fd = ok!(open(c".", O_RDONLY | O_DIRECTORY));
    for entry in ok!(entries(fd)) {
        let kind = match entry.name.as_str() {
            "dir" | "." | ".." => libc::DT_DIR,
            "link" => libc::DT_LNK,
            _ => libc::DT_REG,
        };
        eq!(entry.kind, kind);
        if entry.name == "file-007" {
            eq!(entry.ino, ok!(stat(c"file-007")).st_ino);
        }
    }
    Ok(())
}

fn getdents_rewinds_and_seeks() -> Outcome {
    for i in 0..40 {
        let name = std::ffi::CString::new(format!("f{i}")).unwrap_or_default();
        ok!(put(&name, b""));
    }
    let fd = ok!(open(c".", O_RDONLY | O_DIRECTORY));
    let first: Vec<String> = ok!(entries(fd)).into_iter().map(|entry| entry.name).collect();
    eq!(first.len(), 42);
    eq!(ok!(entries(fd)).len(), 0);
    ok!(guest_tests::fs::seek(fd, 0, libc::SEEK_SET));
    let mut buf = [0u8; 256];
    let n = ok!(sys!(SYS_getdents64, fd, &mut buf, 256));
    let part = parse_entries(&buf[..n]);
    let Some(last) = part.last() else { return Err("nothing".into()) };
    ok!(guest_tests::fs::seek(fd, last.off, libc::SEEK_SET));
    let rest: Vec<String> = ok!(entries(fd)).into_iter().map(|entry| entry.name).collect();
    eq!(part.len() + rest.len(), 42);
    Ok(())
}

/// Whatever has been put behind a name since it was made, its entry is of what it stands for now.
fn getdents_follows_replacements() -> Outcome {
    ok!(put(c"replaced", b""));
    ok!(put(c"other", b""));
    ok!(put(c"swapped", b""));
    ok!(sys!(SYS_mkdir, c"directory", 0o755));
    ok!(sys!(SYS_rename, c"other", c"replaced"));
    let swap = libc::RENAME_EXCHANGE;
    ok!(sys!(SYS_renameat2, AT_FDCWD, c"swapped", AT_FDCWD, c"directory", swap));
    ok!(sys!(SYS_unlink, c"directory"));
    ok!(sys!(SYS_symlink, c"x", c"directory"));
    let fd = ok!(open(c".", O_RDONLY | O_DIRECTORY));
    let listed = ok!(entries(fd));
    eq!(listed.len(), 5);
    for (name, kind) in
        [(c"replaced", libc::DT_REG), (c"swapped", libc::DT_DIR), (c"directory", libc::DT_LNK)]
    {
        let entry = listed.iter().find(|entry| entry.name.as_bytes() == name.to_bytes());
        let Some(entry) = entry else { return Err("a name is not listed".into()) };
        eq!(entry.kind, kind);
        eq!(entry.ino, ok!(stat_at(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW)).st_ino);
    }
    Ok(())
}

/// The older layout: the type behind the name's NUL, at the end of the entry.
fn getdents_of_old() -> Outcome {
    ok!(sys!(SYS_mkdir, c"a-directory", 0o755));
    ok!(put(c"file-567", b""));
    let fd = ok!(open(c".", O_RDONLY | O_DIRECTORY));
    let mut buf = [0xffu8; 512];
    let n = ok!(sys!(SYS_getdents, fd, &mut buf, 512));
    let (mut rest, mut seen) = (&buf[..n], 0);
    while let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, low, high, ..] = *rest {
        let len = usize::from(u16::from_ne_bytes([low, high]));
        check!(len % 8 == 0 && len <= rest.len());
        let (name, kind) = (&rest[18..len - 1], rest[len - 1]);
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        match &name[..end] {
            b"." | b".." | b"a-directory" => eq!(kind, libc::DT_DIR),
            b"file-567" => eq!(kind, libc::DT_REG),
            other => return Err(format!("{other:?} is listed")),
        }
        seen += 1;
        rest = &rest[len..];
    }
    eq!(seen, 4);
    Ok(())
}

fn getdents_errors() -> Outcome {
    ok!(put(c"f", b""));
    let mut buf = [0u8; 64];
    let file = ok!(open(c"f", O_RDONLY));
    fails!(sys!(SYS_getdents64, file, &mut buf, 64), ENOTDIR);
    fails!(sys!(SYS_getdents64, 999, &mut buf, 64), EBADF);
    let fd = ok!(open(c".", O_RDONLY | O_DIRECTORY));
    fails!(sys!(SYS_getdents64, fd, &mut buf, 8), EINVAL);
    fails!(sys!(SYS_getdents64, fd, 8, 64), EFAULT);
    Ok(())
}

fn unlink_during_listing() -> Outcome {
    for i in 0..100 {
        let name = std::ffi::CString::new(format!("f{i}")).unwrap_or_default();
        ok!(put(&name, b""));
    }
    let fd = ok!(open(c".", O_RDONLY | O_DIRECTORY));
    let mut buf = [0u8; 512];
    loop {
        let n = ok!(sys!(SYS_getdents64, fd, &mut buf, 512));
        if n == 0 {
            break;
        }
        for entry in parse_entries(&buf[..n]) {
            if !entry.name.starts_with('.') {
                let name = std::ffi::CString::new(entry.name).unwrap_or_default();
                ok!(sys!(SYS_unlink, name.as_c_str()));
            }
        }
    }
    eq!(ok!(names(c".")), [".", ".."]);
    Ok(())
}

fn rename_replaces() -> Outcome {
    ok!(put(c"a", b"A"));
    ok!(put(c"b", b"B"));
    ok!(sys!(SYS_rename, c"a", c"b"));
    eq!(ok!(get(c"b")), b"A");
    fails!(stat(c"a"), ENOENT);
    fails!(sys!(SYS_rename, c"a", c"b"), ENOENT);
    ok!(sys!(SYS_rename, c"b", c"b"));
    Ok(())
}

fn rename_hard_links_of_one_file() -> Outcome {
    ok!(put(c"a", b"A"));
    ok!(sys!(SYS_link, c"a", c"b"));
    ok!(sys!(SYS_rename, c"a", c"b"));
    eq!(ok!(names(c".")), [".", "..", "a", "b"]);
    Ok(())
}

fn rename_directories() -> Outcome {
    for dir in [c"a", c"a/b", c"c", c"full", c"full/x"] {
        ok!(sys!(SYS_mkdir, dir, 0o755));
    }
    ok!(put(c"f", b""));
    fails!(sys!(SYS_rename, c"a", c"a/b/c"), EINVAL);
    fails!(sys!(SYS_rename, c"a", c"full"), ENOTEMPTY);
    fails!(sys!(SYS_rename, c"a", c"f"), ENOTDIR);
    fails!(sys!(SYS_rename, c"f", c"c"), EISDIR);
    ok!(sys!(SYS_rename, c"a", c"c"));
    eq!(ok!(names(c"c")), [".", "..", "b"]);
    fails!(sys!(SYS_rename, c"c/b/.", c"z"), EBUSY);
    ok!(sys!(SYS_rename, c"c/b", c"moved"));
    let up = ok!(stat(c"moved/..")).st_ino;
    eq!(up, ok!(stat(c".")).st_ino);
    Ok(())
}

fn renameat2_flags() -> Outcome {
    ok!(put(c"a", b"A"));
    ok!(put(c"b", b"B"));
    fails!(sys!(SYS_renameat2, AT_FDCWD, c"a", AT_FDCWD, c"b", libc::RENAME_NOREPLACE), EEXIST);
    ok!(sys!(SYS_renameat2, AT_FDCWD, c"a", AT_FDCWD, c"b", libc::RENAME_EXCHANGE));
    eq!(ok!(get(c"a")), b"B");
    eq!(ok!(get(c"b")), b"A");
    ok!(sys!(SYS_renameat2, AT_FDCWD, c"a", AT_FDCWD, c"c", libc::RENAME_NOREPLACE));
    fails!(sys!(SYS_renameat2, AT_FDCWD, c"b", AT_FDCWD, c"none", libc::RENAME_EXCHANGE), ENOENT);
    fails!(sys!(SYS_renameat2, AT_FDCWD, c"b", AT_FDCWD, c"c", 3), EINVAL);
    fails!(sys!(SYS_renameat2, AT_FDCWD, c"b", AT_FDCWD, c"c", 64), EINVAL);
    Ok(())
}

fn rename_of_open_file() -> Outcome {
    ok!(put(c"a", b"A"));
    let fd = ok!(open(c"a", O_RDONLY));
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(sys!(SYS_rename, c"a", c"d/b"));
    eq!(ok!(guest_tests::fs::read_all(fd)), b"A");
    let mut buf = [0u8; 512];
    let path = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let n = ok!(sys!(SYS_readlink, path.as_c_str(), &mut buf, 512));
    check!(buf[..n].ends_with(b"/d/b"));
    Ok(())
}

fn hard_links() -> Outcome {
    ok!(put(c"a", b"A"));
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(sys!(SYS_linkat, AT_FDCWD, c"a", AT_FDCWD, c"d/b", 0));
    ok!(put(c"d/b", b"changed"));
    eq!(ok!(get(c"a")), b"changed");
    fails!(sys!(SYS_link, c"a", c"d/b"), EEXIST);
    fails!(sys!(SYS_link, c"none", c"x"), ENOENT);
    fails!(sys!(SYS_link, c"d", c"x"), EPERM);
    ok!(sys!(SYS_symlink, c"a", c"l"));
    ok!(sys!(SYS_linkat, AT_FDCWD, c"l", AT_FDCWD, c"ll", 0));
    eq!(ok!(stat_at(AT_FDCWD, c"ll", AT_SYMLINK_NOFOLLOW)).st_mode & libc::S_IFMT, libc::S_IFLNK);
    ok!(sys!(SYS_linkat, AT_FDCWD, c"l", AT_FDCWD, c"lf", AT_SYMLINK_FOLLOW));
    eq!(ok!(stat_at(AT_FDCWD, c"lf", AT_SYMLINK_NOFOLLOW)).st_mode & libc::S_IFMT, libc::S_IFREG);
    fails!(sys!(SYS_linkat, AT_FDCWD, c"a", AT_FDCWD, c"y", 0x20), EINVAL);
    Ok(())
}

fn symlinks() -> Outcome {
    ok!(sys!(SYS_symlink, c"some/where", c"l"));
    let mut buf = [0xeeu8; 32];
    eq!(ok!(sys!(SYS_readlink, c"l", &mut buf, 32)), 10);
    eq!(&buf[..11], b"some/where\xee");
    eq!(ok!(sys!(SYS_readlink, c"l", &mut buf, 4)), 4);
    fails!(sys!(SYS_readlink, c"l", &mut buf, 0), EINVAL);
    fails!(sys!(SYS_symlink, c"x", c"l"), EEXIST);
    fails!(sys!(SYS_symlink, c"", c"e"), ENOENT);
    ok!(put(c"f", b""));
    fails!(sys!(SYS_readlink, c"f", &mut buf, 32), EINVAL);
    fails!(sys!(SYS_readlink, c"none", &mut buf, 32), ENOENT);
    ok!(sys!(SYS_unlink, c"l"));
    fails!(stat_at(AT_FDCWD, c"l", AT_SYMLINK_NOFOLLOW), ENOENT);
    Ok(())
}

fn mknod_kinds() -> Outcome {
    ok!(sys!(SYS_umask, 0));
    ok!(sys!(SYS_mknod, c"r", libc::S_IFREG | 0o604, 0));
    eq!(ok!(stat(c"r")).st_mode, libc::S_IFREG | 0o604);
    ok!(sys!(SYS_mknod, c"p", libc::S_IFIFO | 0o600, 0));
    eq!(ok!(stat(c"p")).st_mode & libc::S_IFMT, libc::S_IFIFO);
    ok!(sys!(SYS_mknodat, AT_FDCWD, c"s", libc::S_IFSOCK | 0o600, 0));
    eq!(ok!(stat(c"s")).st_mode & libc::S_IFMT, libc::S_IFSOCK);
    fails!(open(c"s", O_RDONLY), ENXIO);
    fails!(sys!(SYS_mknod, c"r", libc::S_IFREG, 0), EEXIST);
    fails!(sys!(SYS_mknod, c"d", libc::S_IFDIR, 0), EPERM);
    fails!(sys!(SYS_mknod, c"l", libc::S_IFLNK, 0), EINVAL);
    Ok(())
}

fn sticky_directory() -> Outcome {
    ok!(sys!(SYS_umask, 0));
    ok!(sys!(SYS_mkdir, c"d", 0o777));
    ok!(sys!(SYS_chmod, c"d", 0o1777));
    ok!(put(c"d/a", b""));
    proc::in_child(|| {
        ok!(proc::drop_root());
        fails!(sys!(SYS_unlink, c"d/a"), EPERM);
        fails!(sys!(SYS_rename, c"d/a", c"d/b"), EPERM);
        ok!(put(c"d/mine", b""));
        ok!(sys!(SYS_unlink, c"d/mine"));
        Ok(())
    })
}

fn directory_write_permission() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(put(c"d/a", b""));
    proc::in_child(|| {
        ok!(proc::drop_root());
        fails!(sys!(SYS_unlink, c"d/a"), EACCES);
        fails!(sys!(SYS_mkdir, c"d/b", 0o755), EACCES);
        fails!(put(c"d/c", b""), EACCES);
        fails!(sys!(SYS_rename, c"d/a", c"a"), EACCES);
        fails!(sys!(SYS_symlink, c"x", c"d/l"), EACCES);
        Ok(())
    })
}

fn deep_tree() -> Outcome {
    for _ in 0..60 {
        ok!(sys!(SYS_mkdir, c"deeper", 0o755));
        ok!(sys!(SYS_chdir, c"deeper"));
    }
    ok!(put(c"leaf", b"x"));
    let mut cwd = [0u8; 4096];
    let n = ok!(sys!(SYS_getcwd, &mut cwd, 4096));
    check!(n > 60 * 7);
    for _ in 0..60 {
        ok!(sys!(SYS_chdir, c".."));
    }
    Ok(())
}

fn recreate_after_remove() -> Outcome {
    for i in 0..20 {
        ok!(sys!(SYS_mkdir, c"d", 0o755));
        ok!(put(c"d/f", format!("{i}").as_bytes()));
        eq!(ok!(get(c"d/f")), format!("{i}").into_bytes());
        ok!(sys!(SYS_unlink, c"d/f"));
        eq!(ok!(names(c"d")), [".", ".."]);
        ok!(sys!(SYS_rmdir, c"d"));
        ok!(put(c"d", b"now a file"));
        ok!(sys!(SYS_unlink, c"d"));
    }
    Ok(())
}

fn changes_below_image_directories() -> Outcome {
    // Directories and files that exist before the program: an overlay copies them up.
    let dir = c"/var/tmp";
    if stat(dir).is_err() {
        return Ok(());
    }
    let fd = ok!(open(dir, O_RDONLY | O_DIRECTORY));
    let name = std::ffi::CString::new(format!("guest-{}", proc::pid())).unwrap_or_default();
    let name = name.as_c_str();
    ok!(sys!(SYS_mkdirat, fd, name, 0o755));
    check!(sys!(SYS_mkdirat, fd, name, 0o755) == Err(libc::EEXIST));
    let listed = ok!(names(dir));
    check!(listed.iter().any(|entry| entry.as_bytes() == name.to_bytes()));
    ok!(sys!(SYS_unlinkat, fd, name, AT_REMOVEDIR));
    check!(!ok!(names(dir)).iter().any(|entry| entry.as_bytes() == name.to_bytes()));
    ok!(close(fd));
    Ok(())
}

guest_tests::cases!(
    mkdir_and_rmdir,
    rmdir_errors,
    link_counts_of_directories,
    removed_directory_is_dead,
    getdents_lists_everything,
    getdents_rewinds_and_seeks,
    getdents_follows_replacements,
    getdents_of_old,
    getdents_errors,
    unlink_during_listing,
    rename_replaces,
    rename_hard_links_of_one_file,
    rename_directories,
    renameat2_flags,
    rename_of_open_file,
    hard_links,
    symlinks,
    mknod_kinds,
    sticky_directory,
    directory_write_permission,
    deep_tree,
    recreate_after_remove,
    changes_below_image_directories,
);
