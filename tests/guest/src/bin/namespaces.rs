//! Namespaces: user, pid, mount, network, UTS and IPC namespaces; `unshare(2)`, `setns(2)`,
//! `/proc/PID/ns`. Every case begins with a user namespace, so that none needs a privilege.

use std::ffi::CString;

use guest_tests::fs::{close, open, pipe, put, read, stat, text, write_all};
use guest_tests::mem::zeroed;
use guest_tests::net::{addr4, bind, connect, socket};
use guest_tests::proc::{self, End, child, in_child, pid, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_UNIX, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER,
    CLONE_NEWUTS, MNT_DETACH, MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT, MS_SHARED,
    MS_SLAVE, O_RDONLY, O_WRONLY, SOCK_STREAM,
};

const NS_GET_USERNS: u32 = 0xb701;
const NS_GET_PARENT: u32 = 0xb702;
const NS_GET_NSTYPE: u32 = 0xb703;
const NS_GET_OWNER_UID: u32 = 0xb704;

fn write_file(path: &str, content: &str) -> Result<(), i32> {
    let path = CString::new(path).map_err(|_| libc::EINVAL)?;
    let fd = open(&path, O_WRONLY)?;
    let result = write_all(fd, content.as_bytes());
    close(fd)?;
    result
}

fn ids() -> (usize, usize) {
    (sys!(SYS_getuid).unwrap_or(0), sys!(SYS_getgid).unwrap_or(0))
}

/// Enters a user namespace, and others with it, as its user `inside`.
fn enter_as(inside: u32, others: i32) -> Outcome {
    let (uid, gid) = ids();
    ok!(sys!(SYS_unshare, CLONE_NEWUSER | others));
    ok!(write_file("/proc/self/setgroups", "deny"));
    ok!(write_file("/proc/self/uid_map", &format!("{inside} {uid} 1")));
    ok!(write_file("/proc/self/gid_map", &format!("{inside} {gid} 1")));
    Ok(())
}

/// Enters a user namespace as its root, and a mount namespace from which nothing propagates.
fn enter_with_mounts() -> Outcome {
    enter_as(0, CLONE_NEWNS)?;
    ok!(sys!(SYS_mount, 0, c"/", 0, MS_REC | MS_PRIVATE, 0));
    Ok(())
}

fn mount_tmpfs(at: &std::ffi::CStr) -> Outcome {
    ok!(sys!(SYS_mount, c"none", at, c"tmpfs", 0, 0));
    Ok(())
}

fn link(name: &str) -> Result<String, String> {
    let path = format!("/proc/self/ns/{name}");
    let target = std::fs::read_link(path).map_err(|error| error.to_string())?;
    Ok(target.to_string_lossy().into_owned())
}

fn node_name() -> String {
    let mut name = zeroed::<libc::utsname>();
    let _ = sys!(SYS_uname, &mut name);
    let bytes = name.nodename.iter().take_while(|byte| **byte != 0);
    bytes.map(|byte| char::from(byte.cast_unsigned())).collect()
}

fn set_node_name(name: &str) -> Result<usize, i32> {
    sys!(SYS_sethostname, name.as_ptr(), name.len())
}

fn links_name_namespaces() -> Outcome {
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let own = ok!(link(name));
        check!(own.starts_with(&format!("{name}:[")) && own.ends_with(']'), "{own}");
        in_child(|| {
            eq!(ok!(link(name)), own);
            Ok(())
        })?;
    }
    eq!(ok!(link("pid_for_children")), ok!(link("pid")));
    let before: Vec<_> = ["uts", "ipc", "net", "mnt", "user"].map(link).into();
    in_child(|| {
        enter_as(0, CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS)?;
        for (name, before) in ["uts", "ipc", "net", "mnt", "user"].into_iter().zip(&before) {
            check!(link(name) != *before, "{name} is the same");
        }
        Ok(())
    })
}

fn user_without_map_is_nobody() -> Outcome {
    in_child(|| {
        ok!(sys!(SYS_unshare, CLONE_NEWUSER));
        eq!(ids(), (65_534, 65_534));
        fails!(sys!(SYS_setuid, 0), EINVAL);
        eq!(ok!(text(c"/proc/self/uid_map")), "");
        let status = ok!(text(c"/proc/self/status"));
        check!(status.contains("CapEff:\t000001ffffffffff\n"), "{status}");
        check!(status.contains("Uid:\t65534\t65534\t65534\t65534\n"), "{status}");
        Ok(())
    })
}

fn own_user_becomes_root() -> Outcome {
    in_child(|| {
        ok!(proc::drop_root());
        ok!(sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0));
        let (uid, _) = ids();
        enter_as(0, 0)?;
        eq!(ids(), (0, 0));
        let map = ok!(text(c"/proc/self/uid_map"));
        let words: Vec<_> = map.split_whitespace().collect();
        let uid = uid.to_string();
        eq!(words, ["0", uid.as_str(), "1"]);
        eq!(ok!(text(c"/proc/self/setgroups")), "deny\n");
        fails!(write_file("/proc/self/uid_map", "0 0 1"), EPERM);
        fails!(write_file("/proc/self/setgroups", "allow"), EPERM);
        fails!(sys!(SYS_setgroups, 0, 0), EPERM);
        fails!(sys!(SYS_setuid, 1), EINVAL);
        // What belongs to the namespace above is not this root's.
        fails!(set_node_name("other"), EPERM);
        fails!(sys!(SYS_mount, c"none", c"/tmp", c"tmpfs", 0, 0), EPERM);
        fails!(sys!(SYS_chroot, c"/nowhere"), ENOENT);
        ok!(sys!(SYS_chroot, c"/"));
        Ok(())
    })
}

fn foreign_users_cannot_be_mapped() -> Outcome {
    in_child(|| {
        ok!(proc::drop_root());
        ok!(sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0));
        let (uid, gid) = ids();
        ok!(sys!(SYS_unshare, CLONE_NEWUSER));
        fails!(write_file("/proc/self/uid_map", &format!("0 {} 1", uid + 1)), EPERM);
        fails!(write_file("/proc/self/uid_map", &format!("0 {uid} 2")), EPERM);
        fails!(write_file("/proc/self/uid_map", "0 0"), EINVAL);
        fails!(write_file("/proc/self/uid_map", "0 0 0"), EINVAL);
        fails!(write_file("/proc/self/uid_map", "0 0 1\n0 1 1"), EINVAL);
        // Not before `setgroups` is denied.
        fails!(write_file("/proc/self/gid_map", &format!("0 {gid} 1")), EPERM);
        Ok(())
    })
}

fn files_of_others_belong_to_nobody() -> Outcome {
    ok!(put(c"own", b"x"));
    ok!(sys!(SYS_chmod, c".", 0o777));
    in_child(|| {
        enter_as(7, 0)?;
        let own = ok!(stat(c"own"));
        eq!((own.st_uid, own.st_gid), (7, 7));
        fails!(sys!(SYS_chown, c"own", 8, 7), EINVAL);
        ok!(sys!(SYS_chown, c"own", 7, 7));
        Ok(())
    })?;
    ok!(sys!(SYS_chown, c"own", 1234, 1234));
    in_child(|| {
        enter_as(0, 0)?;
        let foreign = ok!(stat(c"own"));
        eq!((foreign.st_uid, foreign.st_gid), (65_534, 65_534));
        fails!(sys!(SYS_chown, c"own", 0, 0), EPERM);
        fails!(sys!(SYS_chmod, c"own", 0o666), EPERM);
        Ok(())
    })
}

fn nesting_has_an_end() -> Outcome {
    in_child(|| {
        for _ in 0..40 {
            match sys!(SYS_unshare, CLONE_NEWUSER) {
                Ok(_) => {}
                Err(libc::ENOSPC) => return Ok(()),
                Err(errno) => return Err(format!("{errno}")),
            }
            ok!(write_file("/proc/self/setgroups", "deny").or(Ok::<_, i32>(())));
            ok!(write_file("/proc/self/uid_map", "0 0 1"));
            ok!(write_file("/proc/self/gid_map", "0 0 1"));
        }
        Err(String::from("no end"))
    })
}

fn limits_count() -> Outcome {
    in_child(|| {
        enter_as(0, 0)?;
        let Ok(()) = write_file("/proc/sys/user/max_uts_namespaces", "1") else {
            // A read-only `/proc/sys`.
            return Ok(());
        };
        eq!(ok!(text(c"/proc/sys/user/max_uts_namespaces")), "1\n");
        in_child(|| {
            ok!(sys!(SYS_unshare, CLONE_NEWUTS));
            fails!(sys!(SYS_unshare, CLONE_NEWUTS), ENOSPC);
            Ok(())
        })
    })
}

fn host_names_are_apart() -> Outcome {
    let name = node_name();
    in_child(|| {
        enter_as(0, CLONE_NEWUTS)?;
        eq!(node_name(), name);
        ok!(set_node_name("inner"));
        eq!(node_name(), "inner");
        Ok(())
    })?;
    eq!(node_name(), name);
    Ok(())
}

fn ipc_objects_are_apart() -> Outcome {
    const KEY: i32 = 0x6e73_0001;
    in_child(|| {
        enter_as(0, CLONE_NEWIPC)?;
        ok!(sys!(SYS_shmget, KEY, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600));
        in_child(|| {
            ok!(sys!(SYS_shmget, KEY, 4096, 0));
            ok!(sys!(SYS_unshare, CLONE_NEWIPC));
            fails!(sys!(SYS_shmget, KEY, 4096, 0), ENOENT);
            Ok(())
        })
    })
}

fn network_is_a_loopback_that_is_down() -> Outcome {
    const SIOCSIFFLAGS: u32 = 0x8914;
    in_child(|| {
        enter_as(0, CLONE_NEWNET)?;
        let server = ok!(socket(AF_INET, SOCK_STREAM));
        let home = addr4([127, 0, 0, 1], 8080);
        let client = ok!(socket(AF_INET, SOCK_STREAM));
        fails!(connect(client, &home), ENETUNREACH);
        let devices = ok!(text(c"/proc/self/net/dev"));
        eq!(devices.lines().filter(|line| line.contains(':')).count(), 1);
        let mut request = [0_u8; 40];
        request[..2].copy_from_slice(b"lo");
        request[16] = 1;
        ok!(sys!(SYS_ioctl, server, SIOCSIFFLAGS, &request));
        ok!(bind(server, &home));
        ok!(sys!(SYS_listen, server, 1));
        ok!(connect(client, &home));
        Ok(())
    })
}

fn abstract_sockets_are_apart() -> Outcome {
    let mut name = zeroed::<libc::sockaddr_un>();
    name.sun_family = AF_UNIX as u16;
    for (to, from) in name.sun_path.iter_mut().skip(1).zip(format!("ns{}", pid()).bytes()) {
        *to = from.cast_signed();
    }
    let len = size_of::<libc::sockaddr_un>();
    let server = ok!(socket(AF_UNIX, SOCK_STREAM));
    ok!(sys!(SYS_bind, server, &name, len));
    ok!(sys!(SYS_listen, server, 4));
    in_child(|| {
        let client = ok!(socket(AF_UNIX, SOCK_STREAM));
        ok!(sys!(SYS_connect, client, &name, len));
        enter_as(0, CLONE_NEWNET)?;
        let client = ok!(socket(AF_UNIX, SOCK_STREAM));
        fails!(sys!(SYS_connect, client, &name, len), ECONNREFUSED);
        ok!(sys!(SYS_bind, client, &name, len));
        Ok(())
    })
}

fn pids_begin_anew() -> Outcome {
    in_child(|| {
        enter_as(0, CLONE_NEWPID)?;
        let own = pid();
        check!(own > 1);
        in_child(|| {
            eq!((pid(), ok!(sys!(SYS_getppid))), (1, 0));
            fails!(sys!(SYS_kill, own, 0), ESRCH);
            let second = ok!(child(|| if pid() == 2 { 0 } else { 1 }));
            eq!(second, 2);
            eq!(ok!(wait(2)), End::Code(0));
            Ok(())
        })?;
        // That was the init: nobody enters after it.
        fails!(child(|| 0), ENOMEM);
        fails!(sys!(SYS_unshare, CLONE_NEWPID), EINVAL);
        Ok(())
    })
}

fn status_lists_all_numbers() -> Outcome {
    let numbers = |pid: i32| -> Result<usize, String> {
        let path = CString::new(format!("/proc/{pid}/status")).map_err(|_| "nul")?;
        let status = ok!(text(&path));
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or("");
        Ok(line.split_whitespace().count())
    };
    in_child(|| {
        let own = numbers(pid())?;
        enter_as(0, CLONE_NEWPID)?;
        let (go, gate) = ok!(pipe(0));
        let init = ok!(child(|| {
            let _ = close(gate);
            let _ = read(go, &mut [0]);
            0
        }));
        eq!(numbers(init)?, own + 1);
        ok!(close(gate));
        eq!(ok!(wait(init)), End::Code(0));
        Ok(())
    })
}

fn orphans_go_to_the_init() -> Outcome {
    in_child(|| {
        enter_as(0, CLONE_NEWPID)?;
        in_child(|| {
            let middle = ok!(child(|| {
                let (born, parent) = match pipe(0) {
                    Ok(ends) => ends,
                    Err(_) => return 9,
                };
                let leaf = child(|| {
                    let _ = close(parent);
                    let _ = read(born, &mut [0]);
                    let has_init = proc::until(|| sys!(SYS_getppid) == Ok(1));
                    if has_init { 17 } else { 1 }
                });
                i32::from(leaf.is_err())
            }));
            eq!(ok!(wait(middle)), End::Code(0));
            eq!(ok!(wait(-1)), End::Code(17));
            Ok(())
        })
    })
}

fn death_of_the_init_ends_all() -> Outcome {
    in_child(|| {
        enter_as(0, CLONE_NEWPID)?;
        let (reader, writer) = ok!(pipe(libc::O_NONBLOCK));
        let init = ok!(child(|| {
            for _ in 0..3 {
                let forked = child(|| {
                    let _ = sys!(SYS_pause);
                    0
                });
                if forked.is_err() {
                    return 1;
                }
            }
            5
        }));
        ok!(close(writer));
        eq!(ok!(wait(init)), End::Code(5));
        // Whoever has waited for the init knows that all are gone.
        eq!(ok!(read(reader, &mut [0])), 0);
        Ok(())
    })
}

fn init_is_spared_by_its_own() -> Outcome {
    in_child(|| {
        enter_as(0, CLONE_NEWPID)?;
        let (reader, writer) = ok!(pipe(0));
        let init = ok!(child(|| {
            for signo in [libc::SIGTERM, libc::SIGKILL, libc::SIGSTOP] {
                if sys!(SYS_kill, 1, signo).is_err() {
                    return 1;
                }
            }
            let _ = write_all(writer, b"x");
            let _ = sys!(SYS_pause);
            0
        }));
        eq!(ok!(read(reader, &mut [0])), 1);
        ok!(sys!(SYS_kill, init, libc::SIGKILL));
        eq!(ok!(wait(init)), End::Signal(libc::SIGKILL));
        Ok(())
    })
}

fn mounts_are_apart() -> Outcome {
    ok!(sys!(SYS_mkdir, c"dir", 0o755));
    in_child(|| {
        enter_with_mounts()?;
        mount_tmpfs(c"dir")?;
        ok!(put(c"dir/file", b"x"));
        let file = ok!(stat(c"dir/file"));
        eq!((file.st_uid, file.st_gid), (0, 0));
        fails!(sys!(SYS_mknod, c"dir/null", libc::S_IFCHR | 0o666, 0x103), EPERM);
        ok!(sys!(SYS_umount2, c"dir", 0));
        mount_tmpfs(c"dir")?;
        ok!(put(c"dir/file", b"x"));
        Ok(())
    })?;
    fails!(stat(c"dir/file"), ENOENT);
    Ok(())
}

fn inherited_mounts_are_locked() -> Outcome {
    ok!(sys!(SYS_mkdir, c"dir", 0o755));
    in_child(|| {
        enter_with_mounts()?;
        fails!(sys!(SYS_umount2, c"/proc", MNT_DETACH), EINVAL);
        // It could show what lies below other mounts.
        fails!(sys!(SYS_mount, c"/", c"dir", 0, MS_BIND, 0), EINVAL);
        ok!(sys!(SYS_mount, c"/", c"dir", 0, MS_BIND | MS_REC, 0));
        ok!(sys!(SYS_umount2, c"dir", MNT_DETACH));
        // What is made read-only in an outer namespace stays so in an inner one.
        mount_tmpfs(c"dir")?;
        ok!(sys!(SYS_mount, 0, c"dir", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0));
        in_child(|| {
            ok!(sys!(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS));
            fails!(sys!(SYS_mount, 0, c"dir", 0, MS_BIND | MS_REMOUNT, 0), EPERM);
            fails!(sys!(SYS_umount2, c"dir", 0), EINVAL);
            Ok(())
        })?;
        ok!(sys!(SYS_mount, 0, c"dir", 0, MS_BIND | MS_REMOUNT, 0));
        Ok(())
    })
}

fn kernel_is_shown_to_its_owners() -> Outcome {
    ok!(sys!(SYS_mkdir, c"dir", 0o755));
    in_child(|| {
        enter_with_mounts()?;
        // Processes, devices and queues are those of the namespaces above.
        for kind in [c"proc", c"sysfs", c"mqueue"] {
            fails!(sys!(SYS_mount, c"none", c"dir", kind, 0, 0), EPERM);
        }
        ok!(sys!(SYS_unshare, CLONE_NEWIPC));
        ok!(sys!(SYS_mount, c"none", c"dir", c"mqueue", 0, 0));
        Ok(())
    })?;
    in_child(|| {
        enter_with_mounts()?;
        mount_tmpfs(c"/proc/sys")?;
        ok!(sys!(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID));
        in_child(|| {
            // A fresh one would show what is hidden.
            fails!(sys!(SYS_mount, c"none", c"dir", c"proc", 0, 0), EPERM);
            Ok(())
        })
    })
}

fn shared_mounts_propagate() -> Outcome {
    in_child(|| {
        ok!(sys!(SYS_mkdir, c"a", 0o755));
        ok!(sys!(SYS_mkdir, c"b", 0o755));
        ok!(sys!(SYS_mkdir, c"c", 0o755));
        enter_with_mounts()?;
        mount_tmpfs(c"a")?;
        ok!(sys!(SYS_mount, 0, c"a", 0, MS_SHARED, 0));
        ok!(sys!(SYS_mkdir, c"a/x", 0o755));
        ok!(sys!(SYS_mount, c"a", c"b", 0, MS_BIND, 0));
        ok!(sys!(SYS_mount, c"a", c"c", 0, MS_BIND, 0));
        ok!(sys!(SYS_mount, 0, c"c", 0, MS_SLAVE, 0));
        mount_tmpfs(c"b/x")?;
        ok!(put(c"b/x/file", b"1"));
        eq!(ok!(text(c"a/x/file")), "1");
        eq!(ok!(text(c"c/x/file")), "1");
        // Peers are peers below as well, a slave tells nobody.
        ok!(sys!(SYS_umount2, c"a/x", 0));
        fails!(stat(c"b/x/file"), ENOENT);
        fails!(stat(c"c/x/file"), ENOENT);
        mount_tmpfs(c"c/x")?;
        ok!(put(c"c/x/file", b"2"));
        fails!(stat(c"a/x/file"), ENOENT);
        ok!(sys!(SYS_mount, 0, c"b", 0, MS_PRIVATE, 0));
        mount_tmpfs(c"b/x")?;
        ok!(put(c"b/x/file", b"3"));
        fails!(stat(c"a/x/file"), ENOENT);
        Ok(())
    })
}

fn copies_of_namespaces_propagate() -> Outcome {
    in_child(|| {
        ok!(sys!(SYS_mkdir, c"a", 0o755));
        enter_with_mounts()?;
        mount_tmpfs(c"a")?;
        ok!(sys!(SYS_mkdir, c"a/x", 0o755));
        ok!(sys!(SYS_mount, 0, c"a", 0, MS_SHARED, 0));
        let (go, gate) = ok!(pipe(0));
        let (seen, done) = ok!(pipe(0));
        let peer = ok!(child(|| {
            let _ = close(gate);
            if sys!(SYS_unshare, CLONE_NEWNS).is_err() || write_all(done, b"r").is_err() {
                return 1;
            }
            let _ = read(go, &mut [0]);
            i32::from(text(c"a/x/file").as_deref() != Ok("1")) * 2
        }));
        eq!(ok!(read(seen, &mut [0])), 1);
        mount_tmpfs(c"a/x")?;
        ok!(put(c"a/x/file", b"1"));
        ok!(close(gate));
        eq!(ok!(wait(peer)), End::Code(0));
        Ok(())
    })
}

fn pivot_root_replaces_the_root() -> Outcome {
    in_child(|| {
        ok!(sys!(SYS_mkdir, c"new", 0o755));
        enter_with_mounts()?;
        mount_tmpfs(c"new")?;
        ok!(put(c"new/here", b"x"));
        ok!(sys!(SYS_chdir, c"new"));
        ok!(sys!(SYS_pivot_root, c".", c"."));
        ok!(sys!(SYS_umount2, c".", MNT_DETACH));
        ok!(sys!(SYS_chdir, c"/"));
        ok!(stat(c"/here"));
        fails!(stat(c"/proc"), ENOENT);
        Ok(())
    })
}

fn set_namespace_by_file() -> Outcome {
    in_child(|| {
        enter_as(0, CLONE_NEWUTS)?;
        ok!(set_node_name("first"));
        let first = ok!(open(c"/proc/self/ns/uts", O_RDONLY));
        let users = ok!(open(c"/proc/self/ns/user", O_RDONLY));
        ok!(sys!(SYS_unshare, CLONE_NEWUTS));
        ok!(set_node_name("second"));
        fails!(sys!(SYS_setns, first, CLONE_NEWNET), EINVAL);
        ok!(sys!(SYS_setns, first, CLONE_NEWUTS));
        eq!(node_name(), "first");
        ok!(sys!(SYS_setns, first, 0));
        // One's own user namespace cannot be entered again.
        fails!(sys!(SYS_setns, users, 0), EINVAL);
        fails!(sys!(SYS_setns, -1, 0), EBADF);
        let other = ok!(open(c"/proc/self/status", O_RDONLY));
        fails!(sys!(SYS_setns, other, 0), EINVAL);
        Ok(())
    })
}

fn set_namespaces_by_pidfd() -> Outcome {
    in_child(|| {
        let (seen, done) = ok!(pipe(0));
        let (go, gate) = ok!(pipe(0));
        let target = ok!(child(|| {
            let _ = close(gate);
            if enter_as(0, CLONE_NEWUTS | CLONE_NEWNET).is_err() || set_node_name("target").is_err()
            {
                return 1;
            }
            let _ = write_all(done, b"r");
            let _ = read(go, &mut [0]);
            0
        }));
        ok!(close(done));
        eq!(ok!(read(seen, &mut [0])), 1);
        let pidfd = ok!(sys!(SYS_pidfd_open, target, 0));
        fails!(sys!(SYS_setns, pidfd, 0), EINVAL);
        in_child(|| {
            ok!(sys!(SYS_setns, pidfd, CLONE_NEWUSER | CLONE_NEWUTS));
            eq!(node_name(), "target");
            eq!(ids(), (0, 0));
            ok!(set_node_name("entered"));
            Ok(())
        })?;
        ok!(close(gate));
        eq!(ok!(wait(target)), End::Code(0));
        Ok(())
    })
}

fn files_tell_about_namespaces() -> Outcome {
    in_child(|| {
        enter_as(0, CLONE_NEWUTS)?;
        let uts = ok!(open(c"/proc/self/ns/uts", O_RDONLY));
        let users = ok!(open(c"/proc/self/ns/user", O_RDONLY));
        eq!(ok!(sys!(SYS_ioctl, uts, NS_GET_NSTYPE)), CLONE_NEWUTS as usize);
        eq!(ok!(sys!(SYS_ioctl, users, NS_GET_NSTYPE)), CLONE_NEWUSER as usize);
        let owner = ok!(sys!(SYS_ioctl, uts, NS_GET_USERNS)) as i32;
        let (owner, own) = (ok!(guest_tests::fs::fstat(owner)), ok!(guest_tests::fs::fstat(users)));
        eq!((owner.st_dev, owner.st_ino), (own.st_dev, own.st_ino));
        let mut uid = 99_u32;
        ok!(sys!(SYS_ioctl, users, NS_GET_OWNER_UID, &mut uid));
        eq!(uid, 0);
        // Nobody sees what is above it.
        fails!(sys!(SYS_ioctl, users, NS_GET_PARENT), EPERM);
        fails!(sys!(SYS_ioctl, uts, NS_GET_PARENT), EINVAL);
        fails!(sys!(SYS_ioctl, uts, NS_GET_OWNER_UID, &mut uid), EINVAL);
        Ok(())
    })
}

fn namespaces_can_have_names() -> Outcome {
    in_child(|| {
        enter_as(0, CLONE_NEWNS | CLONE_NEWUTS)?;
        ok!(sys!(SYS_mount, 0, c"/", 0, MS_REC | MS_PRIVATE, 0));
        ok!(put(c"name", b""));
        ok!(set_node_name("kept"));
        ok!(sys!(SYS_mount, c"/proc/self/ns/uts", c"name", 0, MS_BIND, 0));
        fails!(sys!(SYS_mount, c"/proc/self/ns/mnt", c"name", 0, MS_BIND, 0), EINVAL);
        ok!(sys!(SYS_unshare, CLONE_NEWUTS));
        ok!(set_node_name("other"));
        let name = ok!(open(c"name", O_RDONLY));
        ok!(sys!(SYS_setns, name, CLONE_NEWUTS));
        eq!(node_name(), "kept");
        ok!(close(name));
        ok!(sys!(SYS_umount2, c"name", 0));
        Ok(())
    })
}

fn attributes_of_mounts_change() -> Outcome {
    const AT_RECURSIVE: i32 = 0x8000;
    const RDONLY: u64 = 1;
    const NOSUID: u64 = 2;
    const NOATIME: u64 = 0x10;
    const ATIME: u64 = 0x70;
    in_child(|| {
        enter_with_mounts()?;
        ok!(sys!(SYS_mkdir, c"m", 0o755));
        mount_tmpfs(c"m")?;
        ok!(sys!(SYS_mkdir, c"m/in", 0o755));
        mount_tmpfs(c"m/in")?;
        let change = |flags: i32, set: u64, clear: u64, propagation: u64| {
            let attr = [set, clear, propagation, 0];
            sys!(SYS_mount_setattr, libc::AT_FDCWD, c"m", flags, attr.as_ptr(), 32)
        };
        ok!(change(0, 0, 0, 0));
        fails!(change(0, 0, 0, u64::MAX), EINVAL);
        fails!(change(0, 1 << 40, 0, 0), EINVAL);
        fails!(change(0, NOATIME, 0, 0), EINVAL);
        fails!(change(0x10, 0, 0, 0), EINVAL);
        fails!(sys!(SYS_mount_setattr, libc::AT_FDCWD, c"m", 0, 8, 31), EINVAL);
        fails!(sys!(SYS_mount_setattr, libc::AT_FDCWD, c"m", 0, 8, 5000), E2BIG);
        ok!(change(0, RDONLY, 0, 0));
        fails!(put(c"m/f", b""), EROFS);
        ok!(put(c"m/in/f", b""));
        ok!(change(AT_RECURSIVE, RDONLY | NOSUID | NOATIME, ATIME, 0));
        fails!(put(c"m/in/g", b""), EROFS);
        ok!(change(AT_RECURSIVE, 0, RDONLY, 0));
        ok!(put(c"m/f", b""));
        ok!(change(0, 0, 0, MS_SHARED));
        let mounts = ok!(text(c"/proc/self/mountinfo"));
        let line = mounts.lines().find(|line| line.contains("/m ")).unwrap_or_default();
        check!(line.contains("rw,nosuid,noatime") && line.contains("shared:"), "{line}");
        // Only the root of a mount has attributes.
        ok!(sys!(SYS_mkdir, c"m/d", 0o755));
        let attr = [RDONLY, 0, 0, 0];
        fails!(sys!(SYS_mount_setattr, libc::AT_FDCWD, c"m/d", 0, attr.as_ptr(), 32), EINVAL);
        Ok(())
    })
}

const CLONE_NEWTIME: i32 = 0x80;

/// Returns a clock in seconds: by the system call, and as the C library reads it.
fn clock(id: i32) -> Result<(i64, i64), i32> {
    let (mut raw, mut shown) = (zeroed::<libc::timespec>(), zeroed::<libc::timespec>());
    sys!(SYS_clock_gettime, id, &mut raw)?;
    // SAFETY: the structure is a local.
    unsafe { libc::clock_gettime(id, &raw mut shown) };
    Ok((raw.tv_sec, shown.tv_sec))
}

/// Enters a user namespace and makes one of clocks, an hour and two ahead.
fn with_clocks_ahead() -> Outcome {
    enter_as(0, CLONE_NEWTIME)?;
    ok!(write_file("/proc/self/timens_offsets", "monotonic 3600 0\nboottime 7200 0\n"));
    Ok(())
}

fn is_ahead(by: i64, now: (i64, i64), before: (i64, i64)) -> bool {
    (by..by + 600).contains(&(now.0 - before.0)) && (by..by + 600).contains(&(now.1 - before.1))
}

fn clocks_are_apart() -> Outcome {
    in_child(|| {
        let monotonic = ok!(clock(libc::CLOCK_MONOTONIC));
        let boottime = ok!(clock(libc::CLOCK_BOOTTIME));
        let realtime = ok!(clock(libc::CLOCK_REALTIME));
        with_clocks_ahead()?;
        // It is for the children.
        check!(is_ahead(0, ok!(clock(libc::CLOCK_MONOTONIC)), monotonic));
        check!(ok!(link("time")) != ok!(link("time_for_children")));
        let inside = || {
            check!(is_ahead(3600, ok!(clock(libc::CLOCK_MONOTONIC)), monotonic));
            check!(is_ahead(3600, ok!(clock(libc::CLOCK_MONOTONIC_COARSE)), monotonic));
            check!(is_ahead(7200, ok!(clock(libc::CLOCK_BOOTTIME)), boottime));
            check!(is_ahead(0, ok!(clock(libc::CLOCK_REALTIME)), realtime));
            eq!(ok!(link("time")), ok!(link("time_for_children")));
            Ok(())
        };
        in_child(|| {
            inside()?;
            // And so it is for theirs.
            in_child(inside)
        })?;
        let offsets = ok!(text(c"/proc/self/timens_offsets"));
        let words: Vec<&str> = offsets.split_whitespace().collect();
        eq!(words, ["monotonic", "3600", "0", "boottime", "7200", "0"]);
        // Somebody has entered.
        fails!(write_file("/proc/self/timens_offsets", "monotonic 1 0"), EACCES);
        Ok(())
    })
}

fn offsets_are_checked() -> Outcome {
    in_child(|| {
        enter_as(0, CLONE_NEWTIME)?;
        let offsets = "/proc/self/timens_offsets";
        for wrong in ["monotonic", "monotonic 1", "monotonic 1 -1", "realtime 1 0", "monotonic 1 x"]
        {
            fails!(write_file(offsets, wrong), EINVAL);
        }
        fails!(write_file(offsets, "monotonic 1 1000000000"), EINVAL);
        fails!(write_file(offsets, "monotonic -2000000000 0"), ERANGE);
        fails!(write_file(offsets, "boottime 9223372036 0"), ERANGE);
        ok!(write_file(offsets, "7 5 999999999"));
        Ok(())
    })
}

fn absolute_times_are_the_namespaces_own() -> Outcome {
    in_child(|| {
        with_clocks_ahead()?;
        in_child(|| {
            let mut now = zeroed::<libc::timespec>();
            ok!(sys!(SYS_clock_gettime, libc::CLOCK_MONOTONIC, &mut now));
            // Later than now by the namespace's clock, an hour ago by the other one's would be now.
            let then = libc::timespec { tv_sec: now.tv_sec, tv_nsec: now.tv_nsec / 2 };
            let absolute = libc::TIMER_ABSTIME;
            ok!(sys!(SYS_clock_nanosleep, libc::CLOCK_MONOTONIC, absolute, &then, 0));
            let timer = ok!(sys!(SYS_timerfd_create, libc::CLOCK_BOOTTIME, 0)) as i32;
            ok!(sys!(SYS_clock_gettime, libc::CLOCK_BOOTTIME, &mut now));
            now.tv_sec += 3000;
            let zero = zeroed::<libc::timespec>();
            let mut set = libc::itimerspec { it_interval: zero, it_value: now };
            ok!(sys!(SYS_timerfd_settime, timer, libc::TFD_TIMER_ABSTIME, &set, 0));
            ok!(sys!(SYS_timerfd_gettime, timer, &mut set));
            check!((2000..3001).contains(&set.it_value.tv_sec), "{}", set.it_value.tv_sec);
            now.tv_sec -= 3001;
            set.it_value = now;
            ok!(sys!(SYS_timerfd_settime, timer, libc::TFD_TIMER_ABSTIME, &set, 0));
            eq!(ok!(read(timer, &mut [0; 8])), 8);
            Ok(())
        })
    })
}

fn set_time_namespace_by_file() -> Outcome {
    in_child(|| {
        let before = ok!(clock(libc::CLOCK_MONOTONIC));
        with_clocks_ahead()?;
        let file = ok!(open(c"/proc/self/ns/time_for_children", O_RDONLY));
        ok!(sys!(SYS_setns, file, CLONE_NEWTIME));
        check!(is_ahead(3600, ok!(clock(libc::CLOCK_MONOTONIC)), before));
        eq!(ok!(link("time")), ok!(link("time_for_children")));
        Ok(())
    })
}

guest_tests::cases!(
    links_name_namespaces,
    user_without_map_is_nobody,
    own_user_becomes_root,
    foreign_users_cannot_be_mapped,
    files_of_others_belong_to_nobody,
    nesting_has_an_end,
    limits_count,
    host_names_are_apart,
    ipc_objects_are_apart,
    network_is_a_loopback_that_is_down,
    abstract_sockets_are_apart,
    pids_begin_anew,
    status_lists_all_numbers,
    orphans_go_to_the_init,
    death_of_the_init_ends_all,
    init_is_spared_by_its_own,
    mounts_are_apart,
    inherited_mounts_are_locked,
    kernel_is_shown_to_its_owners,
    shared_mounts_propagate,
    copies_of_namespaces_propagate,
    pivot_root_replaces_the_root,
    set_namespace_by_file,
    set_namespaces_by_pidfd,
    files_tell_about_namespaces,
    namespaces_can_have_names,
    attributes_of_mounts_change,
    clocks_are_apart,
    offsets_are_checked,
    absolute_times_are_the_namespaces_own,
    set_time_namespace_by_file,
);
