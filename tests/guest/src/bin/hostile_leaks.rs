//! Looks for anything of the host inside: descriptors, paths, environment, memory, processes.
//!
//! The runner starts the runtime with a secret in its environment and in a file beside the mounts (`SECRET` tells
//! only its first half, so that a program that has both halves has found them); no container file names either.

use core::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use guest_tests::hostile::{catch_faults, pages_above, read};
use guest_tests::mem::PAGE;
use guest_tests::proc::{child, pid, wait};
use guest_tests::{Outcome, check, eq, ok, sys};

/// What must not be found: assembled here, so that this program's own memory does not hold it as a whole.
fn secret() -> Vec<u8> {
    let first = std::env::var("SECRET").unwrap_or_else(|_| "none".to_owned());
    [first.as_bytes(), b"-second-half"].concat()
}

fn no_descriptor_is_open() -> Outcome {
    for fd in 3..4096 {
        check!(
            sys!(SYS_fcntl, fd, libc::F_GETFD, 0) == Err(libc::EBADF),
            "descriptor {fd} is open"
        );
    }
    let mut names: Vec<String> = ok!(std::fs::read_dir("/proc/self/fd"))
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    // The fourth is that of the listing itself.
    eq!(names, ["0", "1", "2", "3"]);
    Ok(())
}

fn no_host_path_in_process_files() -> Outcome {
    let exe = ok!(std::fs::read_link("/proc/self/exe"));
    eq!(exe.display().to_string(), "/bin/hostile_leaks");
    eq!(ok!(std::fs::read_link("/proc/self/root")).display().to_string(), "/");
    let outside = std::env::var("OUTSIDE_NAME").unwrap_or_else(|_| "runsc-test-".to_owned());
    for name in [
        "maps",
        "smaps",
        "environ",
        "cmdline",
        "status",
        "cgroup",
        "stat",
        "mounts",
        "mountinfo",
        "mountstats",
    ] {
        let text = ok!(std::fs::read(format!("/proc/self/{name}")));
        let text = String::from_utf8_lossy(&text).replace(&format!("OUTSIDE_NAME={outside}"), "");
        check!(!text.contains(&outside), "/proc/self/{name}: {text}");
    }
    Ok(())
}

fn no_other_processes() -> Outcome {
    for entry in ok!(std::fs::read_dir("/proc")).flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(id) = name.parse::<i32>() else { continue };
        let line = ok!(std::fs::read(format!("/proc/{id}/cmdline")));
        check!(
            line.starts_with(b"/bin/hostile_leaks"),
            "process {id}: {}",
            String::from_utf8_lossy(&line)
        );
    }
    Ok(())
}

fn environment_is_the_containers() -> Outcome {
    let secret = secret();
    for (name, value) in std::env::vars() {
        check!(!value.as_bytes().windows(secret.len()).any(|part| part == secret), "in {name}");
    }
    Ok(())
}

fn auxiliary_vector_points_inside() -> Outcome {
    let auxv = ok!(std::fs::read("/proc/self/auxv"));
    for pair in auxv.chunks_exact(16) {
        let value = u64::from_ne_bytes(pair[8..].try_into().unwrap_or_default()) as usize;
        check!(!(guest_tests::hostile::LIMIT..0x8000_0000_0000).contains(&value), "{value:x}");
    }
    Ok(())
}

/// Looks for the secret in a range of memory.
fn search(start: usize, end: usize, secret: &[u8]) -> Option<usize> {
    let mut window: Vec<u8> = Vec::new();
    let mut page = start;
    while page < end {
        if read(page).is_none() {
            page += PAGE;
            window.clear();
            continue;
        }
        for word in (page..page + PAGE).step_by(8) {
            window.extend(read(word).unwrap_or_default().to_le_bytes());
        }
        if let Some(at) = window.windows(secret.len()).position(|part| part == secret) {
            return Some(page + at);
        }
        let keep = window.len().saturating_sub(secret.len());
        window.drain(..keep);
        page += PAGE;
    }
    None
}

fn memory_above_holds_no_secret() -> Outcome {
    ok!(catch_faults());
    let secret = secret();
    for page in pages_above() {
        check!(search(page, page + PAGE, &secret).is_none(), "found at {page:x}");
    }
    Ok(())
}

fn fresh_memory_is_empty() -> Outcome {
    let map = ok!(guest_tests::mem::Map::anonymous(8 << 20, libc::MAP_PRIVATE));
    check!(map.bytes().iter().all(|byte| *byte == 0));
    Ok(())
}

fn host_files_stay_out() -> Outcome {
    for path in [
        c"/proc/1/root/../../etc/shadow",
        c"/../../../etc/shadow",
        c"/proc/self/cwd/../../../etc/shadow",
        c"/etc/shadow",
    ] {
        check!(guest_tests::fs::get(path).is_err(), "{path:?}");
    }
    let by_handle = [8u32, 1, 2, 0, 0, 0];
    check!(sys!(SYS_open_by_handle_at, libc::AT_FDCWD, &by_handle, 0).is_err());
    Ok(())
}

fn dangerous_devices_are_absent() -> Outcome {
    for path in [
        c"/dev/mem",
        c"/dev/kmem",
        c"/dev/port",
        c"/dev/sda",
        c"/dev/vda",
        c"/dev/kvm",
        c"/proc/kcore",
        c"/proc/sysrq-trigger",
    ] {
        check!(guest_tests::fs::open(path, libc::O_RDWR).is_err(), "{path:?}");
    }
    // A device node that the guest makes itself opens nothing of the host.
    for (major, minor) in [(1, 1), (8, 0), (254, 0), (10, 232)] {
        let made = sys!(SYS_mknod, c"node", libc::S_IFBLK | 0o600, libc::makedev(major, minor));
        if made.is_ok() {
            check!(
                guest_tests::fs::open(c"node", libc::O_RDONLY).is_err(),
                "block device {major}:{minor}"
            );
            ok!(sys!(SYS_unlink, c"node"));
        }
    }
    Ok(())
}

/// Opens a path again and again while another process swaps what it leads through.
fn race(swap: impl Fn() + Send + 'static, path: &'static CStr) -> Result<(), String> {
    static STOP: AtomicBool = AtomicBool::new(false);
    STOP.store(false, SeqCst);
    let swapper = std::thread::spawn(move || {
        while !STOP.load(SeqCst) {
            swap();
        }
    });
    let secret = secret();
    let mut found = false;
    for _ in 0..3000 {
        if let Ok(content) = guest_tests::fs::get(path) {
            found |= content.windows(secret.len()).any(|part| part == secret);
        }
    }
    STOP.store(true, SeqCst);
    let _ = swapper.join();
    if found { Err("the host's file was read".to_owned()) } else { Ok(()) }
}

fn symlink_races_against_a_mount() -> Outcome {
    // `/mnt/shared` is a directory of the host; the secret lies beside it, one step up.
    if std::env::var("SHARED").is_err() {
        return Ok(());
    }
    ok!(sys!(SYS_chdir, c"/mnt/shared"));
    ok!(sys!(SYS_mkdir, c"real", 0o755));
    ok!(sys!(SYS_symlink, c"..", c"up"));
    ok!(guest_tests::fs::put(c"real/secret", b"nothing"));
    let swapped = race(
        || {
            let _ = sys!(
                SYS_renameat2,
                libc::AT_FDCWD,
                c"real",
                libc::AT_FDCWD,
                c"up",
                libc::RENAME_EXCHANGE
            );
        },
        c"/mnt/shared/real/secret",
    );
    let nested = race(
        || {
            let _ = sys!(SYS_mkdir, c"a", 0o755);
            let _ = sys!(SYS_mkdir, c"a/b", 0o755);
            let _ = sys!(SYS_rename, c"a/b", c"b");
            let _ = sys!(SYS_rmdir, c"b");
        },
        c"/mnt/shared/a/b/../../../secret",
    );
    for name in [c"real", c"up"] {
        let _ = sys!(SYS_unlinkat, libc::AT_FDCWD, name, 0);
    }
    swapped.and(nested)
}

fn read_only_mount_stays_so() -> Outcome {
    if std::env::var("SHARED").is_err() {
        return Ok(());
    }
    eq!(ok!(guest_tests::fs::get(c"/mnt/fixed/file")), b"fixed");
    for result in [
        guest_tests::fs::put(c"/mnt/fixed/file", b"changed"),
        guest_tests::fs::put(c"/mnt/fixed/new", b""),
        sys!(SYS_unlink, c"/mnt/fixed/file").map(drop),
        sys!(SYS_mkdir, c"/mnt/fixed/dir", 0o755).map(drop),
        sys!(SYS_chmod, c"/mnt/fixed/file", 0o777).map(drop),
        sys!(SYS_truncate, c"/mnt/fixed/file", 0).map(drop),
        sys!(SYS_rename, c"/mnt/fixed/file", c"/mnt/fixed/other").map(drop),
        sys!(SYS_setxattr, c"/mnt/fixed/file", c"user.a", b"x".as_ptr(), 1, 0).map(drop),
        sys!(SYS_utimensat, libc::AT_FDCWD, c"/mnt/fixed/file", 0, 0).map(drop),
    ] {
        eq!(result, Err(libc::EROFS));
    }
    let fd = ok!(guest_tests::fs::open(c"/mnt/fixed/file", libc::O_RDONLY));
    check!(sys!(SYS_mmap, 0, PAGE, 3, libc::MAP_SHARED, fd, 0) == Err(libc::EACCES));
    check!(guest_tests::fs::open(c"/proc/self/fd/3", libc::O_RDWR).is_err());
    Ok(())
}

fn own_program_is_not_the_hosts() -> Outcome {
    // Writing to the running program fails as on Linux; a fresh process cannot either.
    let pid = ok!(child(|| i32::from(
        guest_tests::fs::open(c"/proc/self/exe", libc::O_RDWR) != Err(libc::ETXTBSY)
    )));
    eq!(ok!(wait(pid)), guest_tests::proc::End::Code(0));
    check!(pid != self::pid());
    Ok(())
}

guest_tests::cases!(
    no_descriptor_is_open,
    no_host_path_in_process_files,
    no_other_processes,
    environment_is_the_containers,
    auxiliary_vector_points_inside,
    memory_above_holds_no_secret,
    fresh_memory_is_empty,
    host_files_stay_out,
    dangerous_devices_are_absent,
    symlink_races_against_a_mount,
    read_only_mount_stays_so,
    own_program_is_not_the_hosts,
);
