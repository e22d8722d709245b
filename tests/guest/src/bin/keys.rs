//! Keys and keyrings: `add_key(2)`, `request_key(2)`, `keyctl(2)`.
//!
//! Each case has a session keyring of its own: what the machine's users keep is left alone.

use guest_tests::proc::{End, child, drop_root, in_child, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_SESSION_KEYRING, KEY_SPEC_THREAD_KEYRING, KEYCTL_CHOWN,
    KEYCTL_CLEAR, KEYCTL_DESCRIBE, KEYCTL_GET_KEYRING_ID, KEYCTL_INVALIDATE,
    KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_LINK, KEYCTL_READ, KEYCTL_REVOKE, KEYCTL_SEARCH,
    KEYCTL_SET_REQKEY_KEYRING, KEYCTL_SET_TIMEOUT, KEYCTL_SETPERM, KEYCTL_UNLINK, KEYCTL_UPDATE,
};
use std::ffi::CStr;

/// All that whoever possesses a key may do.
const POS_ALL: u32 = 0x3f00_0000;

fn join() -> Result<i32, i32> {
    sys!(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0).map(|serial| serial as i32)
}

fn add(kind: &CStr, name: &CStr, payload: &[u8], ring: i32) -> Result<i32, i32> {
    let at = if payload.is_empty() { 0 } else { payload.as_ptr() as usize };
    sys!(SYS_add_key, kind, name, at, payload.len(), ring).map(|serial| serial as i32)
}

fn read(key: i32) -> Result<Vec<u8>, i32> {
    let mut content = vec![0u8; 64];
    let n = sys!(SYS_keyctl, KEYCTL_READ, key, content.as_mut_slice(), content.len())?;
    content.truncate(n);
    Ok(content)
}

fn describe(key: i32) -> Result<String, i32> {
    let mut text = [0u8; 128];
    let n = sys!(SYS_keyctl, KEYCTL_DESCRIBE, key, &mut text, text.len())?;
    Ok(String::from_utf8_lossy(&text[..n - 1]).into_owned())
}

/// Returns whether the kernel has keys at all.
fn is_served() -> bool {
    sys!(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) != Err(libc::ENOSYS)
}

fn payloads() -> Outcome {
    if !is_served() {
        return Ok(());
    }
    let session = ok!(join());
    let key = ok!(add(c"user", c"name", b"first", session));
    eq!(ok!(read(key)), b"first");
    // The same name again is the same key.
    eq!(ok!(add(c"user", c"name", b"second", session)), key);
    eq!(ok!(read(key)), b"second");
    ok!(sys!(SYS_keyctl, KEYCTL_UPDATE, key, b"third", 5));
    let mut two = [0u8; 2];
    eq!(ok!(sys!(SYS_keyctl, KEYCTL_READ, key, &mut two, 2)), 5);
    // What does not fit is not begun.
    eq!(two, [0, 0]);
    check!(ok!(describe(key)).ends_with(";3f010000;name"));
    eq!(ok!(read(session)), key.to_ne_bytes());

    let logon = ok!(add(c"logon", c"a:b", b"secret", session));
    fails!(read(logon), EOPNOTSUPP);
    fails!(add(c"logon", c"ab", b"secret", session), EINVAL);
    fails!(add(c"user", c"name", b"", session), EINVAL);
    fails!(add(c"user", c"", b"x", session), EINVAL);
    fails!(add(c"user", c"name", &[0; 32_768], session), EINVAL);
    fails!(add(c"keyring", c"name", b"x", session), EINVAL);
    fails!(add(c"no-such-type", c"name", b"x", session), ENODEV);
    fails!(add(c".type", c"name", b"x", session), EPERM);
    fails!(add(c"user", c"name", b"x", key), ENOTDIR);
    fails!(sys!(SYS_add_key, c"user", c"name", 8, 4, session), EFAULT);
    fails!(sys!(SYS_add_key, c"user", c"name", 8, 1 << 20, session), EINVAL);
    fails!(sys!(SYS_keyctl, 999, 0), EOPNOTSUPP);
    Ok(())
}

fn links() -> Outcome {
    if !is_served() {
        return Ok(());
    }
    let session = ok!(join());
    let outer = ok!(add(c"keyring", c"outer", b"", session));
    let inner = ok!(add(c"keyring", c"inner", b"", outer));
    let key = ok!(add(c"user", c"deep", b"x", inner));
    let search = |name: &CStr| sys!(SYS_keyctl, KEYCTL_SEARCH, session, c"user", name, 0);
    eq!(ok!(search(c"deep")) as i32, key);
    fails!(search(c"absent"), ENOKEY);
    fails!(sys!(SYS_keyctl, KEYCTL_SEARCH, key, c"user", c"deep", 0), ENOTDIR);
    fails!(sys!(SYS_keyctl, KEYCTL_LINK, outer, inner), EDEADLK);
    fails!(sys!(SYS_keyctl, KEYCTL_LINK, outer, outer), EDEADLK);
    fails!(sys!(SYS_keyctl, KEYCTL_LINK, key, key), ENOTDIR);
    ok!(sys!(SYS_keyctl, KEYCTL_LINK, key, outer));
    ok!(sys!(SYS_keyctl, KEYCTL_UNLINK, key, inner));
    eq!(ok!(read(inner)), b"");
    fails!(sys!(SYS_keyctl, KEYCTL_UNLINK, key, inner), ENOENT);
    eq!(ok!(search(c"deep")) as i32, key);
    // A keyring that is called the same takes the other one's place.
    let again = ok!(add(c"keyring", c"inner", b"", outer));
    check!(again != inner);
    ok!(sys!(SYS_keyctl, KEYCTL_CLEAR, outer));
    fails!(search(c"deep"), ENOKEY);
    fails!(sys!(SYS_keyctl, KEYCTL_CLEAR, 0), EINVAL);
    Ok(())
}

fn ends() -> Outcome {
    if !is_served() {
        return Ok(());
    }
    let session = ok!(join());
    let key = ok!(add(c"user", c"a", b"x", session));
    ok!(sys!(SYS_keyctl, KEYCTL_REVOKE, key));
    fails!(sys!(SYS_keyctl, KEYCTL_UPDATE, key, b"y", 1), EKEYREVOKED);
    fails!(sys!(SYS_request_key, c"user", c"a", 0, 0), EKEYREVOKED);
    check!(ok!(add(c"user", c"a", b"z", session)) != key, "a revoked key is not used again");
    let key = ok!(add(c"user", c"b", b"x", session));
    ok!(sys!(SYS_keyctl, KEYCTL_INVALIDATE, key));
    fails!(sys!(SYS_keyctl, KEYCTL_SETPERM, key, POS_ALL), ENOKEY);
    let key = ok!(add(c"user", c"c", b"x", session));
    ok!(sys!(SYS_keyctl, KEYCTL_SET_TIMEOUT, key, 1));
    while read(key).is_ok() {
        guest_tests::proc::sleep(std::time::Duration::from_millis(50));
    }
    fails!(read(key), EKEYEXPIRED);
    fails!(sys!(SYS_keyctl, KEYCTL_REVOKE, 0x7fff_fffe), ENOKEY);
    fails!(sys!(SYS_keyctl, KEYCTL_READ, -99, 0, 0), ENOKEY);
    Ok(())
}

fn keyrings_of_threads_and_processes() -> Outcome {
    if !is_served() {
        return Ok(());
    }
    let session = ok!(join());
    let get = |id: i32, create: i32| sys!(SYS_keyctl, KEYCTL_GET_KEYRING_ID, id, create);
    fails!(get(KEY_SPEC_THREAD_KEYRING, 0), ENOKEY);
    let process = ok!(get(KEY_SPEC_PROCESS_KEYRING, 1));
    let own = ok!(get(KEY_SPEC_THREAD_KEYRING, 1));
    eq!(ok!(get(KEY_SPEC_THREAD_KEYRING, 0)), own);
    eq!(ok!(get(KEY_SPEC_SESSION_KEYRING, 0)) as i32, session);
    let in_thread = std::thread::spawn(move || {
        (get(KEY_SPEC_THREAD_KEYRING, 0), get(KEY_SPEC_PROCESS_KEYRING, 0))
    });
    let Ok(seen) = in_thread.join() else { return Err("the thread has panicked".into()) };
    // A thread of one that has a keyring has one as well.
    check!(seen.0.is_ok() && seen.0 != Ok(own));
    eq!(seen.1, Ok(process));
    let pid = ok!(child(move || {
        let is_left = get(KEY_SPEC_PROCESS_KEYRING, 0) == Err(libc::ENOKEY)
            && get(KEY_SPEC_THREAD_KEYRING, 0) == Err(libc::ENOKEY)
            && get(KEY_SPEC_SESSION_KEYRING, 0) == Ok(session as usize);
        i32::from(!is_left)
    }));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn rights() -> Outcome {
    if !is_served() {
        return Ok(());
    }
    let session = ok!(join());
    let key = ok!(add(c"user", c"a", b"x", session));
    fails!(sys!(SYS_keyctl, KEYCTL_SETPERM, key, 0x40), EINVAL);
    // Possession is enough to read, the right to search is possession.
    ok!(sys!(SYS_keyctl, KEYCTL_SETPERM, key, 0x2800_0000));
    eq!(ok!(read(key)), b"x");
    fails!(describe(key), EACCES);
    fails!(sys!(SYS_keyctl, KEYCTL_UPDATE, key, b"y", 1), EACCES);
    ok!(sys!(SYS_keyctl, KEYCTL_SETPERM, key, POS_ALL - 0x0800_0000));
    fails!(read(key), EACCES);
    let key = ok!(add(c"user", c"b", b"x", session));
    in_child(|| {
        ok!(drop_root());
        fails!(sys!(SYS_keyctl, KEYCTL_CHOWN, key, 1, -1), EACCES);
        fails!(sys!(SYS_keyctl, KEYCTL_SETPERM, key, POS_ALL), EACCES);
        // The session is his parent's, and so is the key his.
        eq!(ok!(read(key)), b"x");
        ok!(join());
        fails!(read(key), EACCES);
        fails!(describe(key), EACCES);
        Ok(())
    })
}

fn requests_in_vain() -> Outcome {
    if !is_served() {
        return Ok(());
    }
    ok!(join());
    let key = ok!(add(c"user", c"a", b"x", KEY_SPEC_PROCESS_KEYRING));
    eq!(ok!(sys!(SYS_request_key, c"user", c"a", 0, 0)) as i32, key);
    fails!(sys!(SYS_request_key, c"user", c"b", 0, 0), ENOKEY);
    fails!(sys!(SYS_request_key, c"no-such-type", c"b", 0, 0), ENOKEY);
    fails!(sys!(SYS_request_key, c".type", c"b", 0, 0), EPERM);
    fails!(sys!(SYS_request_key, c"user", 8, 0, 0), EFAULT);
    eq!(ok!(sys!(SYS_keyctl, KEYCTL_SET_REQKEY_KEYRING, 3)), 0);
    eq!(ok!(sys!(SYS_keyctl, KEYCTL_SET_REQKEY_KEYRING, -1)), 3);
    fails!(sys!(SYS_keyctl, KEYCTL_SET_REQKEY_KEYRING, 99), EINVAL);
    Ok(())
}

guest_tests::cases!(
    payloads,
    links,
    ends,
    keyrings_of_threads_and_processes,
    rights,
    requests_in_vain,
);
