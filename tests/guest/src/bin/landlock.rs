//! Landlock: `landlock_create_ruleset(2)`, `landlock_add_rule(2)`, `landlock_restrict_self(2)`, and what
//! a thread may do then. Where the kernel has no Landlock, or an older one, there is nothing to see.

use std::ffi::CStr;

use guest_tests::fs::{close, open, pipe, put, read, stat, write};
use guest_tests::mem::zeroed;
use guest_tests::net::{addr4, bind, connect, name_of, port_of, socket};
use guest_tests::proc::{End, child, in_child, pid, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{AF_INET, AF_UNIX, O_CREAT, O_PATH, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, SOCK_STREAM};

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 2;
const READ_FILE: u64 = 4;
const READ_DIR: u64 = 8;
const REMOVE_DIR: u64 = 0x10;
const REMOVE_FILE: u64 = 0x20;
const MAKE_DIR: u64 = 0x80;
const MAKE_REG: u64 = 0x100;
const MAKE_SYM: u64 = 0x1000;
const REFER: u64 = 0x2000;
const TRUNCATE: u64 = 0x4000;
const ALL: u64 = 0xffff;

const BIND: u64 = 1;
const CONNECT: u64 = 2;

const ABSTRACT: u64 = 1;
const SIGNAL: u64 = 2;

/// Whether there is as much of Landlock as the cases need.
fn is_there() -> bool {
    sys!(SYS_landlock_create_ruleset, 0, 0, 1).is_ok_and(|abi| abi >= 6)
}

fn ruleset(files: u64, ports: u64, scoped: u64) -> Result<i32, i32> {
    let attr = [files, ports, scoped];
    sys!(SYS_landlock_create_ruleset, attr.as_ptr(), 24, 0).map(|fd| fd as i32)
}

fn allow_below(rules: i32, path: &CStr, access: u64) -> Result<(), i32> {
    let place = open(path, O_PATH)?;
    let mut attr = [0_u8; 12];
    attr[..8].copy_from_slice(&access.to_ne_bytes());
    attr[8..].copy_from_slice(&place.to_ne_bytes());
    let result = sys!(SYS_landlock_add_rule, rules, 1, attr.as_ptr(), 0);
    close(place)?;
    result.map(drop)
}

fn allow_port(rules: i32, port: u64, access: u64) -> Result<usize, i32> {
    sys!(SYS_landlock_add_rule, rules, 2, [access, port].as_ptr(), 0)
}

fn restrict(rules: i32) -> Result<usize, i32> {
    sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
    sys!(SYS_landlock_restrict_self, rules, 0)
}

fn arguments_are_checked() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    fails!(sys!(SYS_landlock_create_ruleset, 0, 0, 0x8000_0000_u32), EINVAL);
    fails!(sys!(SYS_landlock_create_ruleset, 8, 8, 1), EINVAL);
    fails!(sys!(SYS_landlock_create_ruleset, 0, 8, 0), EFAULT);
    fails!(sys!(SYS_landlock_create_ruleset, 8, 7, 0), EINVAL);
    fails!(sys!(SYS_landlock_create_ruleset, 8, 5000, 0), E2BIG);
    fails!(ruleset(0, 0, 0), ENOMSG);
    fails!(ruleset(1 << 63, 0, 0), EINVAL);
    let rules = ok!(ruleset(READ_FILE | READ_DIR, BIND, 0));
    ok!(put(c"file", b""));
    fails!(allow_below(rules, c".", 0), ENOMSG);
    fails!(allow_below(rules, c".", WRITE_FILE), EINVAL);
    fails!(allow_below(rules, c"file", READ_DIR), EINVAL);
    fails!(allow_port(rules, 80, CONNECT), EINVAL);
    fails!(allow_port(rules, 65536, BIND), EINVAL);
    fails!(allow_port(rules, 80, 0), ENOMSG);
    fails!(sys!(SYS_landlock_add_rule, rules, 9, [0_u64; 2].as_ptr(), 0), EINVAL);
    fails!(sys!(SYS_landlock_add_rule, rules, 1, 8, 0), EFAULT);
    fails!(sys!(SYS_landlock_add_rule, rules, 1, 8, 1), EINVAL);
    let file = ok!(open(c"file", O_RDONLY));
    fails!(sys!(SYS_landlock_add_rule, file, 1, 8, 0), EBADFD);
    fails!(sys!(SYS_landlock_add_rule, -1, 1, 8, 0), EBADF);
    in_child(|| {
        ok!(sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        fails!(sys!(SYS_landlock_restrict_self, file, 0), EBADFD);
        fails!(sys!(SYS_landlock_restrict_self, -1, 0), EBADF);
        fails!(sys!(SYS_landlock_restrict_self, rules, 0x8000_0000_u32), EINVAL);
        for _ in 0..16 {
            ok!(restrict(rules));
        }
        fails!(restrict(rules), E2BIG);
        Ok(())
    })
}

fn make_tree() -> Outcome {
    for dir in [c"a", c"a/in", c"b"] {
        ok!(sys!(SYS_mkdir, dir, 0o755));
    }
    for file in [c"a/f", c"a/in/f", c"b/f"] {
        ok!(put(file, b"content"));
    }
    Ok(())
}

fn files_are_refused() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    make_tree()?;
    let kept = ok!(open(c"b/f", O_RDWR));
    in_child(|| {
        let rules = ok!(ruleset(ALL, 0, 0));
        ok!(allow_below(rules, c"a", READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG | REMOVE_FILE));
        ok!(allow_below(rules, c"a/in", TRUNCATE));
        ok!(restrict(rules));
        ok!(open(c"a/f", O_RDWR));
        ok!(open(c"a/in/f", O_WRONLY | O_TRUNC));
        ok!(open(c"a/in/f", O_RDONLY));
        ok!(open(c"a/in", O_RDONLY));
        ok!(put(c"a/in/new", b""));
        ok!(sys!(SYS_unlink, c"a/in/new"));
        fails!(open(c"a/f", O_WRONLY | O_TRUNC), EACCES);
        fails!(sys!(SYS_truncate, c"a/f", 1), EACCES);
        let file = ok!(open(c"a/f", O_RDWR));
        fails!(sys!(SYS_ftruncate, file, 1), EACCES);
        fails!(sys!(SYS_mkdir, c"a/d", 0o755), EACCES);
        fails!(sys!(SYS_rmdir, c"a/in"), EACCES);
        fails!(sys!(SYS_symlink, c"x", c"a/s"), EACCES);
        fails!(sys!(SYS_mknod, c"a/p", libc::S_IFIFO | 0o644, 0), EACCES);
        for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
            fails!(open(c"b/f", flags), EACCES);
            fails!(open(c"a/../b/f", flags), EACCES);
        }
        fails!(open(c"b", O_RDONLY), EACCES);
        fails!(open(c"b/new", O_CREAT | O_WRONLY), EACCES);
        fails!(sys!(SYS_unlink, c"b/f"), EACCES);
        fails!(sys!(SYS_execve, c"/proc/self/exe", 0, 0), EACCES);
        // What is not about the content goes on, and what was open before.
        ok!(stat(c"b/f"));
        ok!(open(c"b/f", O_PATH));
        ok!(sys!(SYS_chdir, c"b"));
        ok!(sys!(SYS_chmod, c"f", 0o600));
        ok!(write(kept, b"more"));
        ok!(sys!(SYS_ftruncate, kept, 1));
        // And so it is for who comes after.
        in_child(|| {
            fails!(open(c"f", O_RDONLY), EACCES);
            Ok(())
        })
    })?;
    ok!(open(c"b/f", O_RDWR));
    Ok(())
}

fn moves_must_not_gain() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    make_tree()?;
    let change = MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR;
    in_child(|| {
        let rules = ok!(ruleset(change | REFER | READ_FILE, 0, 0));
        ok!(allow_below(rules, c"a", change | REFER));
        ok!(allow_below(rules, c"b", change | REFER | READ_FILE));
        ok!(restrict(rules));
        fails!(open(c"a/f", O_RDONLY), EACCES);
        ok!(sys!(SYS_rename, c"a/f", c"a/g"));
        ok!(sys!(SYS_rename, c"a/g", c"a/in/g"));
        // In b it could be read.
        fails!(sys!(SYS_rename, c"a/in/g", c"b/g"), EXDEV);
        fails!(sys!(SYS_link, c"a/in/g", c"b/g"), EXDEV);
        ok!(sys!(SYS_rename, c"b/f", c"a/f2"));
        ok!(put(c"b/h", b""));
        let (cwd, exchange) = (libc::AT_FDCWD, 2);
        fails!(sys!(SYS_renameat2, cwd, c"a/f2", cwd, c"b/h", exchange), EXDEV);
        fails!(sys!(SYS_rename, c"a/f2", c"outside"), EACCES);
        Ok(())
    })?;
    in_child(|| {
        // Without the right, no file gets another directory.
        let rules = ok!(ruleset(change, 0, 0));
        ok!(allow_below(rules, c".", change));
        ok!(restrict(rules));
        fails!(sys!(SYS_rename, c"a/f2", c"b/f2"), EXDEV);
        ok!(sys!(SYS_rename, c"a/f2", c"a/f3"));
        Ok(())
    })
}

fn layers_are_all_asked() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    make_tree()?;
    in_child(|| {
        let outer = ok!(ruleset(READ_FILE | MAKE_SYM, 0, 0));
        ok!(allow_below(outer, c"a", READ_FILE));
        let inner = ok!(ruleset(READ_FILE | WRITE_FILE, 0, 0));
        ok!(allow_below(inner, c"a/in", READ_FILE));
        ok!(allow_below(inner, c"b", READ_FILE | WRITE_FILE));
        ok!(restrict(outer));
        ok!(open(c"a/f", O_RDWR));
        fails!(open(c"b/f", O_RDONLY), EACCES);
        ok!(restrict(inner));
        ok!(open(c"a/in/f", O_RDONLY));
        fails!(open(c"a/f", O_RDONLY), EACCES);
        fails!(open(c"a/in/f", O_WRONLY), EACCES);
        ok!(open(c"b/f", O_WRONLY));
        fails!(open(c"b/f", O_RDONLY), EACCES);
        fails!(sys!(SYS_symlink, c"x", c"b/s"), EACCES);
        Ok(())
    })
}

fn rules_follow_the_file() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    make_tree()?;
    in_child(|| {
        let rules = ok!(ruleset(READ_FILE, 0, 0));
        ok!(allow_below(rules, c"a/in", READ_FILE));
        ok!(allow_below(rules, c"b/f", READ_FILE));
        ok!(sys!(SYS_rename, c"a/in", c"b/moved"));
        ok!(restrict(rules));
        ok!(open(c"b/moved/f", O_RDONLY));
        ok!(open(c"b/f", O_RDONLY));
        fails!(open(c"a/f", O_RDONLY), EACCES);
        let (reader, _writer) = ok!(pipe(0));
        let name = std::ffi::CString::new(format!("/proc/self/fd/{reader}")).unwrap_or_default();
        // A pipe is in no place.
        ok!(open(&name, O_RDONLY | libc::O_NONBLOCK));
        Ok(())
    })
}

fn programs_are_refused() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    let own = ok!(std::fs::read_link("/proc/self/exe"));
    let own = std::ffi::CString::new(own.into_os_string().into_encoded_bytes()).unwrap_or_default();
    let argv = [own.as_ptr(), c"--list".as_ptr(), core::ptr::null()];
    let run = |allowed: u64| -> Result<i32, String> {
        let pid = ok!(child(|| {
            let _ = close(1);
            let Ok(rules) = ruleset(EXECUTE, 0, 0) else { return 1 };
            if allowed != 0 && allow_below(rules, c"/", allowed).is_err() {
                return 2;
            }
            if restrict(rules).is_err() {
                return 3;
            }
            let error = sys!(SYS_execve, own.as_c_str(), argv.as_ptr(), 0).err();
            if error == Some(libc::EACCES) { 13 } else { 4 }
        }));
        match ok!(wait(pid)) {
            End::Code(code) => Ok(code),
            end => Err(format!("{end:?}")),
        }
    };
    eq!(run(0)?, 13);
    eq!(run(EXECUTE)?, 0);
    Ok(())
}

fn ports_are_refused() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    in_child(|| {
        let server = ok!(socket(AF_INET, SOCK_STREAM));
        ok!(bind(server, &addr4([127, 0, 0, 1], 0)));
        ok!(sys!(SYS_listen, server, 1));
        let port = port_of(&ok!(name_of(server)));
        let rules = ok!(ruleset(0, BIND | CONNECT, 0));
        ok!(allow_port(rules, port.into(), CONNECT));
        ok!(restrict(rules));
        let client = ok!(socket(AF_INET, SOCK_STREAM));
        fails!(bind(client, &addr4([127, 0, 0, 1], port)), EACCES);
        fails!(bind(client, &addr4([127, 0, 0, 1], 0)), EACCES);
        fails!(connect(client, &addr4([127, 0, 0, 1], port ^ 1)), EACCES);
        ok!(connect(client, &addr4([127, 0, 0, 1], port)));
        // Datagrams are no business of these rules.
        let datagrams = ok!(socket(AF_INET, libc::SOCK_DGRAM));
        ok!(bind(datagrams, &addr4([127, 0, 0, 1], 0)));
        Ok(())
    })
}

fn scopes_end_at_the_domain() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    in_child(|| {
        let mut name = zeroed::<libc::sockaddr_un>();
        name.sun_family = AF_UNIX as u16;
        for (place, byte) in name.sun_path[1..].iter_mut().zip(format!("landlock{}", pid()).bytes())
        {
            *place = byte.cast_signed();
        }
        let bind_to = |socket: i32| sys!(SYS_bind, socket, &name, 30);
        let server = ok!(socket(AF_UNIX, SOCK_STREAM));
        ok!(bind_to(server));
        ok!(sys!(SYS_listen, server, 4));
        let outside = pid();
        in_child(|| {
            let rules = ok!(ruleset(0, 0, ABSTRACT | SIGNAL));
            ok!(restrict(rules));
            let client = ok!(socket(AF_UNIX, SOCK_STREAM));
            fails!(sys!(SYS_connect, client, &name, 30), EPERM);
            fails!(sys!(SYS_kill, outside, 0), EPERM);
            ok!(sys!(SYS_kill, pid(), 0));
            // Inside nothing is refused.
            let (seen, _gate) = ok!(pipe(0));
            let inner = ok!(child(|| {
                let _ = read(seen, &mut [0]);
                0
            }));
            ok!(sys!(SYS_kill, inner, libc::SIGKILL));
            eq!(ok!(wait(inner)), End::Signal(libc::SIGKILL));
            Ok(())
        })?;
        let client = ok!(socket(AF_UNIX, SOCK_STREAM));
        ok!(sys!(SYS_connect, client, &name, 30));
        Ok(())
    })
}

fn nobody_looks_out_of_a_domain() -> Outcome {
    if !is_there() {
        return Ok(());
    }
    in_child(|| {
        let outside = pid();
        in_child(|| {
            let rules = ok!(ruleset(MAKE_SYM, 0, 0));
            ok!(restrict(rules));
            fails!(sys!(SYS_ptrace, libc::PTRACE_SEIZE, outside, 0, 0), EPERM);
            let mut word = 0_u64;
            let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
            fails!(sys!(SYS_process_vm_readv, outside, &local, 1, &local, 1, 0), EPERM);
            // Who is outside may look in.
            ok!(sys!(SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0));
            Ok(())
        })
    })
}

#[expect(non_upper_case_globals, reason = "as libc's")]
mod numbers {
    pub(super) const SYS_lsm_get_self_attr: i64 = 459;
    pub(super) const SYS_lsm_set_self_attr: i64 = 460;
    pub(super) const SYS_lsm_list_modules: i64 = 461;
}

fn modules_are_listed() -> Outcome {
    use numbers::{SYS_lsm_get_self_attr, SYS_lsm_list_modules, SYS_lsm_set_self_attr};
    if !is_there() {
        return Ok(());
    }
    let ids = [0_u64; 64];
    let mut size = 512_u32;
    let list = |size: &mut u32, flags: usize| {
        let args = [(&raw const ids).addr(), std::ptr::from_mut(size).addr(), flags, 0, 0, 0];
        guest_tests::raw(SYS_lsm_list_modules, args)
    };
    let n = ok!(list(&mut size, 0));
    check!(n >= 2 && size as usize == 8 * n);
    size = 0;
    fails!(list(&mut size, 0), E2BIG);
    fails!(list(&mut size, 1), EINVAL);
    // There is no such attribute.
    fails!(guest_tests::raw(SYS_lsm_get_self_attr, [0, 0, 0, 0, 0, 0]), EINVAL);
    fails!(guest_tests::raw(SYS_lsm_set_self_attr, [0, 0, 0, 0, 0, 0]), EINVAL);
    Ok(())
}

guest_tests::cases!(
    arguments_are_checked,
    files_are_refused,
    moves_must_not_gain,
    layers_are_all_asked,
    rules_follow_the_file,
    programs_are_refused,
    ports_are_refused,
    scopes_end_at_the_domain,
    nobody_looks_out_of_a_domain,
    modules_are_listed,
);
