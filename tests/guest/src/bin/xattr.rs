//! Extended attributes: `setxattr(2)`, `getxattr(2)`, `listxattr(2)`, `removexattr(2)` and their relatives.

use guest_tests::fs::{open, put};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};
use libc::{O_PATH, O_RDONLY, XATTR_CREATE, XATTR_REPLACE};

fn set_and_get() -> Outcome {
    ok!(put(c"f", b""));
    ok!(sys!(SYS_setxattr, c"f", c"user.color", b"blue".as_ptr(), 4, 0));
    let mut buf = [0u8; 16];
    eq!(ok!(sys!(SYS_getxattr, c"f", c"user.color", &mut buf, 16)), 4);
    eq!(&buf[..4], b"blue");
    eq!(ok!(sys!(SYS_getxattr, c"f", c"user.color", 0, 0)), 4);
    fails!(sys!(SYS_getxattr, c"f", c"user.color", &mut buf, 2), ERANGE);
    fails!(sys!(SYS_getxattr, c"f", c"user.none", &mut buf, 16), ENODATA);
    fails!(sys!(SYS_getxattr, c"none", c"user.color", &mut buf, 16), ENOENT);
    Ok(())
}

fn create_and_replace() -> Outcome {
    ok!(put(c"f", b""));
    fails!(sys!(SYS_setxattr, c"f", c"user.a", b"1".as_ptr(), 1, XATTR_REPLACE), ENODATA);
    ok!(sys!(SYS_setxattr, c"f", c"user.a", b"1".as_ptr(), 1, XATTR_CREATE));
    fails!(sys!(SYS_setxattr, c"f", c"user.a", b"2".as_ptr(), 1, XATTR_CREATE), EEXIST);
    ok!(sys!(SYS_setxattr, c"f", c"user.a", b"22".as_ptr(), 2, XATTR_REPLACE));
    eq!(ok!(sys!(SYS_getxattr, c"f", c"user.a", 0, 0)), 2);
    fails!(sys!(SYS_setxattr, c"f", c"user.a", b"2".as_ptr(), 1, 8), EINVAL);
    Ok(())
}

fn list_and_remove() -> Outcome {
    ok!(put(c"f", b""));
    ok!(sys!(SYS_setxattr, c"f", c"user.a", b"".as_ptr(), 0, 0));
    ok!(sys!(SYS_setxattr, c"f", c"user.bb", b"x".as_ptr(), 1, 0));
    let mut buf = [0u8; 256];
    let n = ok!(sys!(SYS_listxattr, c"f", &mut buf, 256));
    eq!(ok!(sys!(SYS_listxattr, c"f", 0, 0)), n);
    let mut names: Vec<&[u8]> =
        buf[..n].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")).collect();
    names.sort_unstable();
    eq!(names, [b"user.a".as_slice(), b"user.bb"]);
    fails!(sys!(SYS_listxattr, c"f", &mut buf, 3), ERANGE);
    ok!(sys!(SYS_removexattr, c"f", c"user.a"));
    fails!(sys!(SYS_removexattr, c"f", c"user.a"), ENODATA);
    Ok(())
}

fn by_descriptor() -> Outcome {
    ok!(put(c"f", b""));
    let fd = ok!(open(c"f", O_RDONLY));
    ok!(sys!(SYS_fsetxattr, fd, c"user.a", b"v".as_ptr(), 1, 0));
    let mut buf = [0u8; 8];
    eq!(ok!(sys!(SYS_fgetxattr, fd, c"user.a", &mut buf, 8)), 1);
    check!(ok!(sys!(SYS_flistxattr, fd, 0, 0)) >= 7);
    ok!(sys!(SYS_fremovexattr, fd, c"user.a"));
    let path = ok!(open(c"f", O_PATH));
    fails!(sys!(SYS_fgetxattr, path, c"user.a", &mut buf, 8), EBADF);
    Ok(())
}

fn symlinks_take_no_user_attributes() -> Outcome {
    ok!(put(c"f", b""));
    ok!(sys!(SYS_symlink, c"f", c"l"));
    ok!(sys!(SYS_setxattr, c"l", c"user.a", b"v".as_ptr(), 1, 0));
    eq!(ok!(sys!(SYS_getxattr, c"f", c"user.a", 0, 0)), 1);
    fails!(sys!(SYS_lsetxattr, c"l", c"user.a", b"v".as_ptr(), 1, 0), EPERM);
    Ok(())
}

fn names_and_spaces() -> Outcome {
    ok!(put(c"f", b""));
    fails!(sys!(SYS_setxattr, c"f", c"nospace", b"v".as_ptr(), 1, 0), EOPNOTSUPP);
    fails!(sys!(SYS_setxattr, c"f", c"", b"v".as_ptr(), 1, 0), ERANGE);
    let long = std::ffi::CString::new("user.".to_owned() + &"x".repeat(300)).unwrap_or_default();
    fails!(sys!(SYS_setxattr, c"f", long.as_c_str(), b"v".as_ptr(), 1, 0), ERANGE);
    fails!(sys!(SYS_setxattr, c"f", c"user.a", b"v".as_ptr(), 65537, 0), E2BIG);
    Ok(())
}

fn permissions() -> Outcome {
    ok!(put(c"f", b""));
    ok!(sys!(SYS_chmod, c"f", 0o644));
    ok!(sys!(SYS_setxattr, c"f", c"user.a", b"v".as_ptr(), 1, 0));
    proc::in_child(|| {
        ok!(proc::drop_root());
        eq!(ok!(sys!(SYS_getxattr, c"f", c"user.a", 0, 0)), 1);
        fails!(sys!(SYS_setxattr, c"f", c"user.a", b"w".as_ptr(), 1, 0), EACCES);
        fails!(sys!(SYS_setxattr, c"f", c"trusted.a", b"w".as_ptr(), 1, 0), EPERM);
        Ok(())
    })
}

guest_tests::cases!(
    set_and_get,
    create_and_replace,
    list_and_remove,
    by_descriptor,
    symlinks_take_no_user_attributes,
    names_and_spaces,
    permissions,
);
