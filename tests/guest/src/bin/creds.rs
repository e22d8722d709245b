//! Credentials: user and group ids, supplementary groups, capabilities, `PR_SET_KEEPCAPS`, securebits, no_new_privs.

use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};

fn ids() -> Result<[u32; 6], i32> {
    let mut ids = [0u32; 6];
    let at = ids.as_mut_ptr();
    sys!(SYS_getresuid, at, at.wrapping_add(1), at.wrapping_add(2))?;
    sys!(SYS_getresgid, at.wrapping_add(3), at.wrapping_add(4), at.wrapping_add(5))?;
    Ok(ids)
}

#[repr(C)]
#[derive(Default, Clone, Copy, Debug, PartialEq)]
struct Caps {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const V3: u32 = 0x2008_0522;

fn caps() -> Result<[Caps; 2], i32> {
    let header = [V3, 0];
    let mut data = [Caps::default(); 2];
    sys!(SYS_capget, &header, &mut data)?;
    Ok(data)
}

fn set_caps(data: &[Caps; 2]) -> Result<usize, i32> {
    let header = [V3, 0];
    sys!(SYS_capset, &header, data)
}

fn root_starts_as_root() -> Outcome {
    eq!(ok!(ids()), [0; 6]);
    eq!(ok!(sys!(SYS_getuid)), 0);
    eq!(ok!(sys!(SYS_getegid)), 0);
    check!(ok!(caps())[0].effective & 1 != 0);
    Ok(())
}

fn setuid_of_root_sets_all() -> Outcome {
    proc::in_child(|| {
        ok!(sys!(SYS_setgid, 7));
        ok!(sys!(SYS_setuid, 5));
        eq!(ok!(ids()), [5, 5, 5, 7, 7, 7]);
        eq!(ok!(caps())[0], Caps::default());
        fails!(sys!(SYS_setuid, 0), EPERM);
        fails!(sys!(SYS_setgid, 0), EPERM);
        ok!(sys!(SYS_setuid, 5));
        Ok(())
    })
}

fn effective_ids_come_and_go() -> Outcome {
    proc::in_child(|| {
        ok!(sys!(SYS_setresuid, -1, 1000, -1));
        eq!(ok!(ids())[..3], [0, 1000, 0]);
        let now = ok!(caps());
        eq!(now[0].effective, 0);
        check!(now[0].permitted != 0);
        ok!(sys!(SYS_setresuid, -1, 0, -1));
        check!(ok!(caps())[0].effective != 0);
        ok!(sys!(SYS_setreuid, 1000, 1001));
        eq!(ok!(ids())[..3], [1000, 1001, 1001]);
        fails!(sys!(SYS_setreuid, 0, -1), EPERM);
        ok!(sys!(SYS_setreuid, 1001, 1000));
        Ok(())
    })
}

fn file_system_ids_follow() -> Outcome {
    proc::in_child(|| {
        eq!(ok!(sys!(SYS_setfsuid, -1)), 0);
        ok!(sys!(SYS_setresuid, -1, 1000, -1));
        eq!(ok!(sys!(SYS_setfsuid, 0)), 1000);
        eq!(ok!(sys!(SYS_setfsuid, -1)), 0);
        eq!(ok!(sys!(SYS_setfsgid, 12)), 0);
        eq!(ok!(sys!(SYS_setfsgid, -1)), 0);
        Ok(())
    })
}

fn groups_can_be_set() -> Outcome {
    proc::in_child(|| {
        let groups = [10u32, 20, 30];
        ok!(sys!(SYS_setgroups, 3, &groups));
        eq!(ok!(sys!(SYS_getgroups, 0, 0)), 3);
        let mut got = [0u32; 8];
        eq!(ok!(sys!(SYS_getgroups, 8, &mut got)), 3);
        eq!(got[..3], groups);
        fails!(sys!(SYS_getgroups, 2, &mut got), EINVAL);
        fails!(sys!(SYS_getgroups, -1, &mut got), EINVAL);
        fails!(sys!(SYS_setgroups, 70_000, &groups), EINVAL);
        ok!(guest_tests::fs::put(c"f", b""));
        ok!(sys!(SYS_chown, c"f", 0, 20));
        ok!(sys!(SYS_chmod, c"f", 0o640));
        ok!(sys!(SYS_setresuid, 1000, 1000, 1000));
        ok!(guest_tests::fs::open(c"f", libc::O_RDONLY));
        fails!(guest_tests::fs::open(c"f", libc::O_RDWR), EACCES);
        fails!(sys!(SYS_setgroups, 0, 0), EPERM);
        Ok(())
    })
}

fn keep_capabilities() -> Outcome {
    proc::in_child(|| {
        ok!(sys!(SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0));
        eq!(ok!(sys!(SYS_prctl, libc::PR_GET_KEEPCAPS, 0, 0, 0, 0)), 1);
        ok!(sys!(SYS_setresuid, 1000, 1000, 1000));
        let mut now = ok!(caps());
        eq!(now[0].effective, 0);
        check!(now[0].permitted != 0);
        now[0].effective = 1;
        ok!(set_caps(&now));
        ok!(guest_tests::fs::put(c"f", b""));
        ok!(sys!(SYS_chown, c"f", 3, 3));
        fails!(sys!(SYS_prctl, libc::PR_SET_KEEPCAPS, 2, 0, 0, 0), EINVAL);
        Ok(())
    })
}

fn dropped_capability_stays_away() -> Outcome {
    proc::in_child(|| {
        let mut now = ok!(caps());
        now[0].effective &= !1;
        ok!(set_caps(&now));
        ok!(guest_tests::fs::put(c"f", b""));
        fails!(sys!(SYS_chown, c"f", 3, 3), EPERM);
        now[0].effective |= 1;
        ok!(set_caps(&now));
        ok!(sys!(SYS_chown, c"f", 3, 3));
        now[0].effective &= !1;
        now[0].permitted &= !1;
        ok!(set_caps(&now));
        now[0].permitted |= 1;
        fails!(set_caps(&now), EPERM);
        let mut header = [1u32, 0];
        fails!(sys!(SYS_capget, &mut header, &mut now), EINVAL);
        eq!(header[0], V3);
        Ok(())
    })
}

fn bounding_set() -> Outcome {
    proc::in_child(|| {
        eq!(ok!(sys!(SYS_prctl, libc::PR_CAPBSET_READ, 0, 0, 0, 0)), 1);
        ok!(sys!(SYS_prctl, libc::PR_CAPBSET_DROP, 0, 0, 0, 0));
        eq!(ok!(sys!(SYS_prctl, libc::PR_CAPBSET_READ, 0, 0, 0, 0)), 0);
        fails!(sys!(SYS_prctl, libc::PR_CAPBSET_READ, 999, 0, 0, 0), EINVAL);
        let status = ok!(std::fs::read_to_string("/proc/self/status"));
        let bound = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t"));
        check!(
            bound.is_some_and(|mask| u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & 1 == 0))
        );
        Ok(())
    })
}

fn ambient_set() -> Outcome {
    proc::in_child(|| {
        fails!(sys!(SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 0, 0, 0), EPERM);
        let mut now = ok!(caps());
        now[0].inheritable |= 1;
        ok!(set_caps(&now));
        ok!(sys!(SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 0, 0, 0));
        eq!(ok!(sys!(SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET, 0, 0, 0)), 1);
        ok!(sys!(SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
        eq!(ok!(sys!(SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET, 0, 0, 0)), 0);
        Ok(())
    })
}

fn no_new_privileges() -> Outcome {
    proc::in_child(|| {
        eq!(ok!(sys!(SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 0);
        fails!(sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
        ok!(sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        eq!(ok!(sys!(SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 1);
        proc::in_child(|| {
            eq!(ok!(sys!(SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 1);
            Ok(())
        })
    })
}

fn securebits() -> Outcome {
    proc::in_child(|| {
        eq!(ok!(sys!(SYS_prctl, libc::PR_GET_SECUREBITS, 0, 0, 0, 0)), 0);
        // SECBIT_NO_SETUID_FIXUP: identity changes leave capabilities alone.
        ok!(sys!(SYS_prctl, libc::PR_SET_SECUREBITS, 4, 0, 0, 0));
        ok!(sys!(SYS_setresuid, 1000, 1000, 1000));
        check!(ok!(caps())[0].effective & 1 != 0);
        Ok(())
    })
}

fn credentials_are_per_thread() -> Outcome {
    proc::in_child(|| {
        let inner = std::thread::spawn(|| {
            let _ = sys!(SYS_setresuid, 1000, 1000, 1000);
            ids().unwrap_or_default()
        });
        eq!(inner.join().unwrap_or_default()[..3], [1000; 3]);
        eq!(ok!(ids())[..3], [0; 3]);
        Ok(())
    })
}

fn status_file_tells() -> Outcome {
    proc::in_child(|| {
        ok!(sys!(SYS_setgroups, 2, &[5u32, 6]));
        ok!(sys!(SYS_setresgid, 1, 2, 3));
        ok!(sys!(SYS_setresuid, 4, 5, 6));
        let status = ok!(std::fs::read_to_string("/proc/thread-self/status"));
        check!(status.contains("\nUid:\t4\t5\t6\t5\n"), "{status}");
        check!(status.contains("\nGid:\t1\t2\t3\t2\n"), "{status}");
        check!(status.contains("\nGroups:\t5 6 \n"), "{status}");
        Ok(())
    })
}

guest_tests::cases!(
    root_starts_as_root,
    setuid_of_root_sets_all,
    effective_ids_come_and_go,
    file_system_ids_follow,
    groups_can_be_set,
    keep_capabilities,
    dropped_capability_stays_away,
    bounding_set,
    ambient_set,
    no_new_privileges,
    securebits,
    credentials_are_per_thread,
    status_file_tells,
);
