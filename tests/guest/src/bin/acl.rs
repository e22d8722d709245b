//! Access control lists (`acl(5)`): their binary form, what they permit, what new files get. Most cases run twice: where
//! the program runs, and on a tmpfs.

use std::ffi::CStr;

use guest_tests::fs::{close, open, put, stat, write_all};
use guest_tests::mem::zeroed;
use guest_tests::proc::{drop_root, in_child, sleep};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_UNIX, AT_FDCWD, CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_REC, O_CREAT, O_EXCL, O_RDONLY,
    O_RDWR, O_TMPFILE, O_WRONLY, R_OK, S_IFIFO, SOCK_STREAM, W_OK, X_OK, XATTR_CREATE,
};

const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";

/// An entry: tag, permissions, id.
type Entry = (u16, u16, u32);

const NOBODY: u32 = u32::MAX;

const fn owner(may: u16) -> Entry {
    (0x01, may, NOBODY)
}

const fn user(id: u32, may: u16) -> Entry {
    (0x02, may, id)
}

const fn group(may: u16) -> Entry {
    (0x04, may, NOBODY)
}

const fn named_group(id: u32, may: u16) -> Entry {
    (0x08, may, id)
}

const fn mask(may: u16) -> Entry {
    (0x10, may, NOBODY)
}

const fn other(may: u16) -> Entry {
    (0x20, may, NOBODY)
}

fn bytes(list: &[Entry]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, may, id) in list {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&may.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn set_bytes(path: &CStr, name: &CStr, value: &[u8]) -> Result<usize, i32> {
    sys!(SYS_setxattr, path, name, value.as_ptr(), value.len(), 0)
}

fn set(path: &CStr, name: &CStr, list: &[Entry]) -> Result<usize, i32> {
    set_bytes(path, name, &bytes(list))
}

fn get(path: &CStr, name: &CStr) -> Result<Vec<Entry>, i32> {
    let mut buf = [0_u8; 1024];
    let n = sys!(SYS_getxattr, path, name, &mut buf, buf.len())?;
    let entry = |e: &[u8]| {
        let number = |at: usize| u16::from_le_bytes([e[at], e[at + 1]]);
        (number(0), number(2), u32::from_le_bytes([e[4], e[5], e[6], e[7]]))
    };
    Ok(buf[4..n].chunks_exact(8).map(entry).collect())
}

fn mode(path: &CStr) -> Result<u32, i32> {
    Ok(stat(path)?.st_mode & 0o7777)
}

fn chmod(path: &CStr, mode: u32) -> Result<usize, i32> {
    sys!(SYS_fchmodat, AT_FDCWD, path, mode)
}

fn mkdir(path: &CStr) -> Outcome {
    ok!(sys!(SYS_mkdir, path, 0o755));
    Ok(())
}

fn opens(path: &CStr, flags: i32) -> Result<(), i32> {
    close(open(path, flags)?)
}

/// Runs a case here and in a directory of a tmpfs, as root with the usual umask.
fn twice(case: fn() -> Outcome) -> Outcome {
    mkdir(c"here")?;
    let there = std::ffi::CString::new(format!("/dev/shm/acl-{}", std::process::id()));
    let Ok(there) = there else { return Ok(()) };
    mkdir(&there)?;
    let mut result = Ok(());
    for dir in [c"here", there.as_c_str()] {
        result = result.and_then(|()| {
            in_child(|| {
                ok!(sys!(SYS_chdir, dir));
                ok!(chmod(c".", 0o755));
                ok!(sys!(SYS_umask, 0o022));
                case()
            })
            .map_err(|why| format!("in {}: {why}", dir.to_string_lossy()))
        });
    }
    let _ = std::fs::remove_dir_all(there.to_string_lossy().as_ref());
    result
}

const LIST: [Entry; 6] =
    [owner(6), user(1000, 6), group(4), named_group(2000, 7), mask(4), other(0)];

fn list_is_kept() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        fails!(get(c"f", ACCESS), ENODATA);
        ok!(set(c"f", ACCESS, &LIST));
        eq!(ok!(get(c"f", ACCESS)), LIST);
        eq!(ok!(mode(c"f")), 0o640);
        fails!(get(c"f", DEFAULT), ENODATA);
        let mut names = [0_u8; 256];
        let n = ok!(sys!(SYS_listxattr, c"f", &mut names, names.len()));
        check!(names[..n].split(|byte| *byte == 0).any(|name| name == ACCESS.to_bytes()));
        fails!(sys!(SYS_getxattr, c"f", ACCESS, &mut names, 51), ERANGE);
        eq!(ok!(sys!(SYS_getxattr, c"f", ACCESS, 0, 0)), 52);
        // What setxattr(2) says of new and old attributes is of no account.
        let value = bytes(&LIST);
        ok!(sys!(SYS_setxattr, c"f", ACCESS, value.as_ptr(), value.len(), XATTR_CREATE));
        let fd = ok!(open(c"f", O_RDONLY));
        eq!(ok!(sys!(SYS_fgetxattr, fd, ACCESS, 0, 0)), 52);
        ok!(sys!(SYS_fremovexattr, fd, ACCESS));
        fails!(sys!(SYS_fgetxattr, fd, ACCESS, 0, 0), ENODATA);
        ok!(sys!(SYS_removexattr, c"f", ACCESS));
        eq!(ok!(mode(c"f")), 0o640);
        Ok(())
    })
}

fn minimal_list_is_the_mode() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        ok!(set(c"f", ACCESS, &[owner(7), group(5), other(1)]));
        eq!(ok!(mode(c"f")), 0o751);
        fails!(get(c"f", ACCESS), ENODATA);
        ok!(set(c"f", ACCESS, &[owner(6), group(5), mask(3), other(0)]));
        eq!(ok!(mode(c"f")), 0o630);
        eq!(ok!(get(c"f", ACCESS)).len(), 4);
        Ok(())
    })
}

fn mode_and_list_follow_each_other() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        ok!(set(c"f", ACCESS, &LIST));
        ok!(chmod(c"f", 0o4761));
        eq!(ok!(mode(c"f")), 0o4761);
        let mut list = LIST;
        (list[0], list[4], list[5]) = (owner(7), mask(6), other(1));
        eq!(ok!(get(c"f", ACCESS)), list);
        ok!(chmod(c"f", 0o600));
        eq!(ok!(get(c"f", ACCESS))[3..], [named_group(2000, 7), mask(0), other(0)]);
        Ok(())
    })
}

fn what_is_no_list_is_refused() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        ok!(set(c"f", ACCESS, &LIST));
        let mut old = bytes(&LIST);
        old[0] = 1;
        fails!(set_bytes(c"f", ACCESS, &old), EOPNOTSUPP);
        fails!(set_bytes(c"f", ACCESS, &bytes(&LIST)[..51]), EINVAL);
        fails!(set_bytes(c"f", ACCESS, &[2, 0]), EINVAL);
        let wrong: &[&[Entry]] = &[
            &[owner(7), user(1, 7), group(7), other(7)],
            &[owner(7), group(7), named_group(1, 7), other(7)],
            &[group(7), owner(7), other(7)],
            &[owner(7), owner(7), group(7), other(7)],
            &[owner(7), group(7), user(1, 7), mask(7), other(7)],
            &[owner(7), group(7), mask(7), mask(7), other(7)],
            &[owner(7), group(7)],
            &[owner(8), group(7), other(7)],
            &[owner(7), user(NOBODY, 7), group(7), mask(7), other(7)],
            &[owner(7), (0x40, 7, 1), group(7), mask(7), other(7)],
            &[owner(7), group(7), other(7), other(7)],
        ];
        for list in wrong {
            fails!(set(c"f", ACCESS, list), EINVAL);
        }
        // The same one twice, and ids that are not in order, are no error.
        ok!(set(
            c"f",
            ACCESS,
            &[owner(7), user(9, 1), user(2, 2), user(2, 4), group(0), mask(7), other(0)]
        ));
        ok!(set(c"f", ACCESS, &LIST));
        // No entries are no list.
        ok!(set(c"f", ACCESS, &[]));
        fails!(get(c"f", ACCESS), ENODATA);
        ok!(set(c"f", ACCESS, &LIST));
        ok!(sys!(SYS_setxattr, c"f", ACCESS, 0, 0, 0));
        fails!(get(c"f", ACCESS), ENODATA);
        Ok(())
    })
}

fn only_directories_have_defaults() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        mkdir(c"d")?;
        fails!(set(c"f", DEFAULT, &LIST), EACCES);
        ok!(sys!(SYS_removexattr, c"f", DEFAULT));
        ok!(set(c"d", DEFAULT, &LIST));
        eq!(ok!(get(c"d", DEFAULT)), LIST);
        fails!(get(c"d", ACCESS), ENODATA);
        eq!(ok!(mode(c"d")), 0o755);
        // A minimal one is a default like any other.
        ok!(set(c"d", DEFAULT, &[owner(7), group(5), other(0)]));
        eq!(ok!(get(c"d", DEFAULT)).len(), 3);
        ok!(sys!(SYS_removexattr, c"d", DEFAULT));
        fails!(get(c"d", DEFAULT), ENODATA);
        Ok(())
    })
}

fn symbolic_links_have_none() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        ok!(sys!(SYS_symlink, c"f", c"l"));
        let value = bytes(&LIST);
        let (data, len) = (value.as_ptr(), value.len());
        fails!(sys!(SYS_lsetxattr, c"l", ACCESS, data, len, 0), EOPNOTSUPP);
        fails!(sys!(SYS_lgetxattr, c"l", ACCESS, 0, 0), EOPNOTSUPP);
        fails!(sys!(SYS_lremovexattr, c"l", ACCESS), EOPNOTSUPP);
        ok!(sys!(SYS_setxattr, c"l", ACCESS, data, len, 0));
        eq!(ok!(get(c"f", ACCESS)), LIST);
        Ok(())
    })
}

const INHERITED: [Entry; 5] = [owner(7), user(1000, 7), group(5), mask(7), other(0)];

fn new_files_inherit() -> Outcome {
    twice(|| {
        mkdir(c"d")?;
        ok!(set(c"d", DEFAULT, &INHERITED));
        ok!(sys!(SYS_umask, 0o077));
        let flags = O_CREAT | O_EXCL | O_WRONLY;
        ok!(close(ok!(sys!(SYS_openat, AT_FDCWD, c"d/f", flags, 0o664)) as i32));
        let expected = [owner(6), user(1000, 7), group(5), mask(6), other(0)];
        eq!(ok!(mode(c"d/f")), 0o660);
        eq!(ok!(get(c"d/f", ACCESS)), expected);
        fails!(get(c"d/f", DEFAULT), ENODATA);
        ok!(sys!(SYS_mkdir, c"d/d", 0o777));
        eq!(ok!(mode(c"d/d")), 0o770);
        eq!(ok!(get(c"d/d", ACCESS)), INHERITED);
        eq!(ok!(get(c"d/d", DEFAULT)), INHERITED);
        ok!(sys!(SYS_mknodat, AT_FDCWD, c"d/d/p", S_IFIFO | 0o644, 0));
        eq!(ok!(mode(c"d/d/p")), 0o640);
        eq!(ok!(get(c"d/d/p", ACCESS))[3], mask(4));
        ok!(sys!(SYS_symlink, c"nothing", c"d/l"));
        // What is moved in stays as it is.
        ok!(put(c"g", b""));
        eq!(ok!(mode(c"g")), 0o600);
        ok!(sys!(SYS_renameat, AT_FDCWD, c"g", AT_FDCWD, c"d/g"));
        fails!(get(c"d/g", ACCESS), ENODATA);
        ok!(set(c"d", DEFAULT, &[owner(7), group(5), other(4)]));
        ok!(close(ok!(sys!(SYS_openat, AT_FDCWD, c"d/h", flags, 0o666)) as i32));
        eq!(ok!(mode(c"d/h")), 0o644);
        fails!(get(c"d/h", ACCESS), ENODATA);
        Ok(())
    })
}

fn new_sockets_and_nameless_files_inherit() -> Outcome {
    twice(|| {
        mkdir(c"d")?;
        ok!(set(c"d", DEFAULT, &INHERITED));
        ok!(sys!(SYS_umask, 0o027));
        let mut address = zeroed::<libc::sockaddr_un>();
        address.sun_family = AF_UNIX as u16;
        for (to, from) in address.sun_path.iter_mut().zip(b"d/s") {
            *to = *from as _;
        }
        let socket = ok!(sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
        ok!(sys!(SYS_bind, socket, &address, size_of_val(&address)));
        // For a socket's name alone the umask counts all the same.
        eq!(ok!(mode(c"d/s")), 0o750);
        eq!(ok!(get(c"d/s", ACCESS))[3], mask(5));
        let fd = match sys!(SYS_openat, AT_FDCWD, c"d", O_TMPFILE | O_RDWR, 0o666) {
            Err(libc::EOPNOTSUPP) => return Ok(()),
            result => ok!(result),
        };
        eq!(ok!(sys!(SYS_fgetxattr, fd, ACCESS, 0, 0)), 44);
        eq!(ok!(guest_tests::fs::fstat(fd as i32)).st_mode & 0o7777, 0o660);
        Ok(())
    })
}

/// Runs a part of a case as user and group 1000.
fn as_user(part: impl FnOnce() -> Outcome) -> Outcome {
    in_child(|| {
        ok!(drop_root());
        part()
    })
}

fn access(path: &CStr, wanted: i32) -> Result<usize, i32> {
    sys!(SYS_faccessat, AT_FDCWD, path, wanted)
}

fn list_decides_for_all_but_the_owner() -> Outcome {
    twice(|| {
        ok!(put(c"f", b"x"));
        ok!(set(c"f", ACCESS, &[owner(6), user(1000, 4), group(0), mask(7), other(0)]));
        as_user(|| {
            ok!(opens(c"f", O_RDONLY));
            fails!(opens(c"f", O_WRONLY), EACCES);
            fails!(opens(c"f", O_RDWR), EACCES);
            ok!(access(c"f", R_OK));
            fails!(access(c"f", W_OK), EACCES);
            Ok(())
        })?;
        // The entry of a user counts alone, even where it permits less than the others have.
        ok!(set(c"f", ACCESS, &[owner(6), user(1000, 0), group(7), mask(7), other(6)]));
        as_user(|| {
            fails!(opens(c"f", O_RDONLY), EACCES);
            Ok(())
        })?;
        // The mask limits users and groups.
        ok!(set(c"f", ACCESS, &[owner(6), user(1000, 6), group(7), mask(4), other(0)]));
        as_user(|| {
            ok!(opens(c"f", O_RDONLY));
            fails!(opens(c"f", O_WRONLY), EACCES);
            Ok(())
        })?;
        // One group of several that permits all that is wanted is enough, two halves are not.
        let groups =
            [owner(6), group(0), named_group(1000, 4), named_group(1000, 2), mask(7), other(7)];
        ok!(set(c"f", ACCESS, &groups));
        as_user(|| {
            ok!(opens(c"f", O_RDONLY));
            ok!(opens(c"f", O_WRONLY));
            fails!(opens(c"f", O_RDWR), EACCES);
            fails!(access(c"f", X_OK), EACCES);
            Ok(())
        })?;
        // Members of no group are the others.
        ok!(set(c"f", ACCESS, &[owner(6), group(0), named_group(7, 7), mask(7), other(4)]));
        as_user(|| {
            ok!(opens(c"f", O_RDONLY));
            fails!(opens(c"f", O_WRONLY), EACCES);
            Ok(())
        })?;
        // A list whose mask is empty does not count.
        ok!(set(c"f", ACCESS, &[owner(6), user(1000, 0), group(0), mask(0), other(4)]));
        as_user(|| {
            ok!(opens(c"f", O_RDONLY));
            Ok(())
        })
    })
}

fn owner_has_the_mode() -> Outcome {
    twice(|| {
        ok!(put(c"f", b"x"));
        ok!(sys!(SYS_chown, c"f", 1000, 1000));
        ok!(set(c"f", ACCESS, &[owner(4), user(1000, 7), group(7), mask(7), other(7)]));
        as_user(|| {
            ok!(opens(c"f", O_RDONLY));
            fails!(opens(c"f", O_WRONLY), EACCES);
            Ok(())
        })?;
        // Root may all the same.
        ok!(set(c"f", ACCESS, &[owner(0), user(0, 0), group(0), mask(6), other(0)]));
        ok!(opens(c"f", O_RDWR));
        fails!(access(c"f", X_OK), EACCES);
        Ok(())
    })
}

fn directories() -> Outcome {
    twice(|| {
        mkdir(c"d")?;
        ok!(put(c"d/f", b"x"));
        ok!(chmod(c"d/f", 0o666));
        ok!(set(c"d", ACCESS, &[owner(7), user(1000, 1), group(0), mask(7), other(0)]));
        as_user(|| {
            ok!(opens(c"d/f", O_RDWR));
            fails!(opens(c"d/g", O_CREAT | O_WRONLY), EACCES);
            fails!(opens(c"d", O_RDONLY), EACCES);
            fails!(sys!(SYS_unlinkat, AT_FDCWD, c"d/f", 0), EACCES);
            Ok(())
        })?;
        ok!(set(c"d", ACCESS, &[owner(7), user(1000, 7), group(0), mask(7), other(0)]));
        as_user(|| {
            ok!(opens(c"d/g", O_CREAT | O_WRONLY));
            ok!(sys!(SYS_unlinkat, AT_FDCWD, c"d/f", 0));
            Ok(())
        })?;
        ok!(set(c"d", ACCESS, &[owner(7), user(1000, 0), group(0), mask(7), other(7)]));
        as_user(|| {
            fails!(stat(c"d/g"), EACCES);
            fails!(sys!(SYS_chdir, c"d"), EACCES);
            Ok(())
        })?;
        Ok(())
    })
}

fn programs() -> Outcome {
    in_child(|| {
        // A program that is no program: what is looked at first is the permission.
        ok!(chmod(c".", 0o755));
        ok!(put(c"p", b"no program"));
        let argv = [c"p".as_ptr(), core::ptr::null()];
        ok!(set(c"p", ACCESS, &[owner(7), user(1000, 4), group(7), mask(7), other(7)]));
        as_user(|| {
            fails!(sys!(SYS_execve, c"p", &argv, 0), EACCES);
            Ok(())
        })?;
        ok!(set(c"p", ACCESS, &[owner(7), user(1000, 1), group(0), mask(7), other(0)]));
        as_user(|| {
            fails!(sys!(SYS_execve, c"p", &argv, 0), ENOEXEC);
            Ok(())
        })
    })
}

fn only_the_owner_changes_it() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        ok!(chmod(c"f", 0o666));
        ok!(put(c"own", b""));
        ok!(sys!(SYS_chown, c"own", 1000, 2000));
        ok!(chmod(c"own", 0o2775));
        as_user(|| {
            fails!(set(c"f", ACCESS, &LIST), EPERM);
            fails!(sys!(SYS_removexattr, c"f", ACCESS), EPERM);
            fails!(get(c"f", ACCESS), ENODATA);
            // The group is not his: its bit goes.
            ok!(set(c"own", ACCESS, &[owner(7), user(1, 7), group(5), mask(7), other(5)]));
            eq!(ok!(mode(c"own")), 0o775);
            Ok(())
        })
    })
}

fn a_change_has_its_time() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        let time = |stat: libc::stat| (stat.st_ctime, stat.st_ctime_nsec);
        let before = time(ok!(stat(c"f")));
        sleep(std::time::Duration::from_millis(20));
        ok!(set(c"f", ACCESS, &LIST));
        check!(time(ok!(stat(c"f"))) > before);
        Ok(())
    })
}

fn write_file(path: &CStr, content: &str) -> Outcome {
    let fd = ok!(open(path, O_WRONLY));
    ok!(write_all(fd, content.as_bytes()));
    ok!(close(fd));
    Ok(())
}

/// Enters a user namespace as its root, and a mount namespace.
fn enter() -> Outcome {
    ok!(sys!(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS));
    write_file(c"/proc/self/setgroups", "deny")?;
    write_file(c"/proc/self/uid_map", "5 0 1")?;
    write_file(c"/proc/self/gid_map", "6 0 1")?;
    ok!(sys!(SYS_mount, 0, c"/", 0, MS_REC | MS_PRIVATE, 0));
    Ok(())
}

fn ids_are_those_of_the_namespace() -> Outcome {
    twice(|| {
        ok!(put(c"f", b""));
        ok!(set(
            c"f",
            ACCESS,
            &[owner(6), user(0, 4), user(1000, 4), group(4), named_group(0, 4), mask(4), other(0)]
        ));
        in_child(|| {
            enter()?;
            let list = [
                owner(6),
                user(5, 4),
                user(NOBODY, 4),
                group(4),
                named_group(6, 4),
                mask(4),
                other(0),
            ];
            eq!(ok!(get(c"f", ACCESS)), list);
            fails!(set(c"f", ACCESS, &LIST), EINVAL);
            ok!(set(c"f", ACCESS, &[owner(6), user(5, 2), group(4), mask(6), other(0)]));
            Ok(())
        })?;
        eq!(ok!(get(c"f", ACCESS)), [owner(6), user(0, 2), group(4), mask(6), other(0)]);
        Ok(())
    })
}

fn overlay_copies_lists() -> Outcome {
    const LOWER: [Entry; 5] = [owner(6), user(5, 4), group(4), mask(6), other(4)];
    in_child(|| {
        mkdir(c"t")?;
        enter()?;
        ok!(sys!(SYS_mount, c"none", c"t", c"tmpfs", 0, 0));
        ok!(sys!(SYS_chdir, c"t"));
        for dir in [c"l", c"u", c"w", c"m", c"l/d"] {
            mkdir(dir)?;
        }
        for file in [c"l/f", c"l/d/x"] {
            ok!(put(file, b"x"));
            ok!(set(file, ACCESS, &LOWER));
        }
        let default = [owner(7), user(5, 7), group(5), mask(7), other(0)];
        ok!(set(c"l/d", DEFAULT, &default));
        // The directory of work keeps to itself.
        ok!(set(c"w", DEFAULT, &[owner(7), user(5, 1), group(1), mask(1), other(1)]));
        let options = c"lowerdir=l,upperdir=u,workdir=w,userxattr";
        ok!(sys!(SYS_mount, c"over", c"m", c"overlay", 0, options));
        eq!(ok!(get(c"m/f", ACCESS)), LOWER);
        eq!(ok!(get(c"m/d", DEFAULT)), default);
        ok!(opens(c"m/f", O_WRONLY));
        eq!(ok!(get(c"u/f", ACCESS)), LOWER);
        ok!(chmod(c"m/d/x", 0o600));
        eq!(ok!(get(c"u/d/x", ACCESS))[3], mask(0));
        eq!(ok!(get(c"l/d/x", ACCESS)), LOWER);
        eq!(ok!(get(c"u/d", DEFAULT)), default);
        ok!(sys!(SYS_umask, 0o077));
        // New, and in the place of something that has been removed.
        ok!(sys!(SYS_unlinkat, AT_FDCWD, c"m/d/x", 0));
        for file in [c"m/d/x", c"m/d/y"] {
            ok!(close(ok!(sys!(SYS_openat, AT_FDCWD, file, O_CREAT | O_WRONLY, 0o666)) as i32));
            eq!(ok!(mode(file)), 0o660);
            eq!(ok!(get(file, ACCESS))[1..4], [user(5, 7), group(5), mask(6)]);
        }
        Ok(())
    })
}

guest_tests::cases!(
    list_is_kept,
    minimal_list_is_the_mode,
    mode_and_list_follow_each_other,
    what_is_no_list_is_refused,
    only_directories_have_defaults,
    symbolic_links_have_none,
    new_files_inherit,
    new_sockets_and_nameless_files_inherit,
    list_decides_for_all_but_the_owner,
    owner_has_the_mode,
    directories,
    programs,
    only_the_owner_changes_it,
    a_change_has_its_time,
    ids_are_those_of_the_namespace,
    overlay_copies_lists,
);
