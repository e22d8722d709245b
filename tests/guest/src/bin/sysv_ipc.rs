//! System V IPC: `shmget(2)`, `shmat(2)`, `shmdt(2)`, `shmctl(2)`.

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::mem::{Map, PAGE, peek, poke, zeroed};
use guest_tests::proc::{End, child, drop_root, in_child, pid, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    IPC_CREAT, IPC_EXCL, IPC_PRIVATE, IPC_RMID, IPC_SET, IPC_STAT, SHM_RDONLY, SHM_REMAP, SHM_RND,
    shmid_ds,
};

/// A segment, which is removed at the end of the case, however it ends.
struct Segment(i32);

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = sys!(SYS_shmctl, self.0, IPC_RMID, 0);
    }
}

fn segment(key: i32, size: usize, flags: i32) -> Result<Segment, i32> {
    sys!(SYS_shmget, key, size, flags).map(|id| Segment(id as i32))
}

/// A key that no other test of the machine uses.
fn own_key() -> i32 {
    0x5e00_0000 | pid()
}

fn attach(segment: &Segment, addr: usize, flags: i32) -> Result<usize, i32> {
    sys!(SYS_shmat, segment.0, addr, flags)
}

fn status(segment: &Segment) -> Result<shmid_ds, i32> {
    let mut status: shmid_ds = zeroed();
    sys!(SYS_shmctl, segment.0, IPC_STAT, &mut status)?;
    Ok(status)
}

#[expect(deprecated, reason = "the field has no other name yet")]
fn key_of(status: &shmid_ds) -> i32 {
    status.shm_perm.__ipc_perm_key
}

fn memory_is_shared() -> Outcome {
    let segment = ok!(segment(IPC_PRIVATE, 3 * PAGE - 100, 0o600));
    let first = ok!(attach(&segment, 0, 0));
    let second = ok!(attach(&segment, 0, 0));
    check!(first != second);
    eq!(peek(first + 3 * PAGE - 1), 0);
    poke(first + PAGE, 7);
    eq!(peek(second + PAGE), 7);
    ok!(in_child(|| {
        eq!(peek(first + PAGE), 7);
        let third = ok!(attach(&segment, 0, SHM_RDONLY));
        eq!(peek(third + PAGE), 7);
        poke(second, 9);
        Ok(())
    }));
    eq!(peek(first), 9);
    let mut byte = [0u8];
    ok!(sys!(SYS_shmdt, second));
    let (reader, writer) = ok!(pipe(0));
    fails!(sys!(SYS_write, writer, second, 1), EFAULT);
    ok!(write(writer, b"x"));
    ok!(read(reader, &mut byte));
    ok!(sys!(SYS_shmdt, first));
    fails!(sys!(SYS_shmdt, first), EINVAL);
    fails!(sys!(SYS_shmdt, first + 1), EINVAL);
    // The content stays while nobody has it attached.
    let again = ok!(attach(&segment, 0, 0));
    eq!((peek(again), peek(again + PAGE)), (9, 7));
    Ok(())
}

fn keys() -> Outcome {
    let key = own_key();
    fails!(sys!(SYS_shmget, key, PAGE, 0), ENOENT);
    let segment = ok!(segment(key, PAGE, IPC_CREAT | IPC_EXCL | 0o640));
    fails!(sys!(SYS_shmget, key, PAGE, IPC_CREAT | IPC_EXCL | 0o600), EEXIST);
    eq!(ok!(sys!(SYS_shmget, key, PAGE, IPC_CREAT | 0o600)) as i32, segment.0);
    eq!(ok!(sys!(SYS_shmget, key, 0, 0)) as i32, segment.0);
    fails!(sys!(SYS_shmget, key, PAGE + 1, 0), EINVAL);
    fails!(sys!(SYS_shmget, IPC_PRIVATE, 0, 0o600), EINVAL);
    fails!(sys!(SYS_shmget, IPC_PRIVATE, usize::MAX, 0o600), EINVAL);
    ok!(sys!(SYS_shmctl, segment.0, IPC_RMID, 0));
    fails!(sys!(SYS_shmget, key, PAGE, 0), ENOENT);
    check!(status(&segment).is_err());
    Ok(())
}

fn status_counts_attachments() -> Outcome {
    let key = own_key();
    let segment = ok!(segment(key, 100, IPC_CREAT | 0o612));
    let seen = ok!(status(&segment));
    eq!((seen.shm_segsz, seen.shm_nattch, seen.shm_cpid, seen.shm_lpid), (100, 0, pid(), 0));
    eq!((key_of(&seen), seen.shm_perm.mode), (key, 0o612));
    eq!((seen.shm_perm.uid, seen.shm_perm.cgid), (0, 0));
    eq!((seen.shm_atime, seen.shm_dtime), (0, 0));
    check!(seen.shm_ctime > 0);
    let addr = ok!(attach(&segment, 0, 0));
    let seen = ok!(status(&segment));
    eq!((seen.shm_nattch, seen.shm_lpid), (1, pid()));
    check!(seen.shm_atime > 0);
    // A child has what its parent has, until it ends, executes or detaches.
    let (reader, writer) = ok!(pipe(0));
    let (told, tell) = ok!(pipe(0));
    let child_pid = ok!(child(|| {
        let mut byte = [0u8];
        let _ = write(tell, b"x");
        let _ = read(reader, &mut byte);
        i32::from(sys!(SYS_shmdt, addr).is_err())
    }));
    let mut byte = [0u8];
    ok!(read(told, &mut byte));
    eq!(ok!(status(&segment)).shm_nattch, 2);
    ok!(write(writer, b"x"));
    eq!(ok!(wait(child_pid)), End::Code(0));
    let seen = ok!(status(&segment));
    eq!((seen.shm_nattch, seen.shm_lpid), (1, child_pid));
    check!(seen.shm_dtime > 0);
    let killed = ok!(child(|| {
        let _ = attach(&segment, 0, 0);
        7
    }));
    eq!(ok!(wait(killed)), End::Code(7));
    eq!(ok!(status(&segment)).shm_nattch, 1);
    ok!(sys!(SYS_munmap, addr, PAGE));
    ok!(close(reader));
    eq!(ok!(status(&segment)).shm_nattch, 0);
    fails!(sys!(SYS_shmdt, addr), EINVAL);
    Ok(())
}

fn removed_segment_lives_while_attached() -> Outcome {
    let key = own_key();
    let segment = ok!(segment(key, PAGE, IPC_CREAT | 0o600));
    let addr = ok!(attach(&segment, 0, 0));
    poke(addr, 3);
    ok!(sys!(SYS_shmctl, segment.0, IPC_RMID, 0));
    fails!(sys!(SYS_shmget, key, PAGE, 0), ENOENT);
    let seen = ok!(status(&segment));
    eq!((seen.shm_nattch, seen.shm_perm.mode & 0o7777), (1, 0o1600));
    eq!(key_of(&seen), IPC_PRIVATE);
    let again = ok!(attach(&segment, 0, 0));
    eq!(peek(again), 3);
    ok!(sys!(SYS_shmdt, addr));
    eq!(peek(again), 3);
    ok!(sys!(SYS_shmdt, again));
    check!(matches!(status(&segment), Err(libc::EINVAL | libc::EIDRM)));
    Ok(())
}

fn addresses() -> Outcome {
    let segment = ok!(segment(IPC_PRIVATE, 2 * PAGE, 0o600));
    let place = ok!(Map::anonymous(8 * PAGE, libc::MAP_PRIVATE)).leak();
    fails!(attach(&segment, place, 0), EINVAL);
    ok!(sys!(SYS_munmap, place, 4 * PAGE));
    fails!(attach(&segment, place + 5, 0), EINVAL);
    eq!(ok!(attach(&segment, place + 5, SHM_RND)), place);
    fails!(attach(&segment, place + PAGE, 0), EINVAL);
    fails!(attach(&segment, 0, SHM_REMAP), EINVAL);
    poke(place + PAGE, 4);
    poke(place, 5);
    // What is replaced goes; detaching takes what is left of each.
    eq!(ok!(attach(&segment, place + PAGE, SHM_REMAP)), place + PAGE);
    eq!((peek(place), peek(place + PAGE), peek(place + 2 * PAGE)), (5, 5, 4));
    eq!(ok!(status(&segment)).shm_nattch, 2);
    ok!(sys!(SYS_shmdt, place));
    eq!(peek(place + 2 * PAGE), 4);
    ok!(sys!(SYS_mprotect, place + 2 * PAGE, PAGE, libc::PROT_READ));
    eq!(ok!(status(&segment)).shm_nattch, 2);
    ok!(sys!(SYS_shmdt, place + PAGE));
    eq!(ok!(status(&segment)).shm_nattch, 0);
    fails!(attach(&Segment(-1), 0, 0), EINVAL);
    Ok(())
}

fn read_only_attachment() -> Outcome {
    let segment = ok!(segment(IPC_PRIVATE, PAGE, 0o600));
    let addr = ok!(attach(&segment, 0, SHM_RDONLY));
    let (reader, writer) = ok!(pipe(0));
    ok!(write(writer, b"x"));
    fails!(sys!(SYS_read, reader, addr, 1), EFAULT);
    fails!(sys!(SYS_mprotect, addr, PAGE, libc::PROT_READ | libc::PROT_WRITE), EACCES);
    eq!(peek(addr), 0);
    Ok(())
}

fn permissions() -> Outcome {
    let segment = ok!(segment(own_key(), PAGE, IPC_CREAT | 0o604));
    ok!(in_child(|| {
        ok!(drop_root());
        fails!(attach(&segment, 0, 0), EACCES);
        ok!(attach(&segment, 0, SHM_RDONLY));
        ok!(status(&segment));
        fails!(sys!(SYS_shmctl, segment.0, IPC_RMID, 0), EPERM);
        fails!(sys!(SYS_shmget, own_key_of_parent(), PAGE, 0o600), EACCES);
        ok!(sys!(SYS_shmget, own_key_of_parent(), PAGE, 0o400));
        Ok(())
    }));
    let mut new = ok!(status(&segment));
    new.shm_perm.mode = 0o7600;
    new.shm_perm.uid = 12;
    ok!(sys!(SYS_shmctl, segment.0, IPC_SET, &new));
    let seen = ok!(status(&segment));
    eq!((seen.shm_perm.mode, seen.shm_perm.uid, seen.shm_perm.cuid), (0o600, 12, 0));
    ok!(in_child(|| {
        ok!(drop_root());
        fails!(attach(&segment, 0, SHM_RDONLY), EACCES);
        check!(status(&segment).is_err());
        Ok(())
    }));
    Ok(())
}

fn own_key_of_parent() -> i32 {
    0x5e00_0000 | sys!(SYS_getppid).unwrap_or_default() as i32
}

fn control_errors() -> Outcome {
    let segment = ok!(segment(IPC_PRIVATE, PAGE, 0o600));
    fails!(sys!(SYS_shmctl, segment.0, IPC_STAT, 8), EFAULT);
    fails!(sys!(SYS_shmctl, segment.0, 77, 0), EINVAL);
    fails!(sys!(SYS_shmctl, segment.0, -1, 0), EINVAL);
    fails!(sys!(SYS_shmctl, -1, IPC_STAT, 0), EINVAL);
    ok!(sys!(SYS_shmctl, segment.0, libc::SHM_LOCK, 0));
    check!(ok!(status(&segment)).shm_perm.mode & 0o2000 != 0);
    ok!(sys!(SYS_shmctl, segment.0, libc::SHM_UNLOCK, 0));
    eq!(ok!(status(&segment)).shm_perm.mode, 0o600);
    let mut limits = [0u64; 9];
    ok!(sys!(SYS_shmctl, 0, libc::IPC_INFO, &mut limits));
    eq!(limits[1], 1);
    Ok(())
}

guest_tests::cases!(
    memory_is_shared,
    keys,
    status_counts_attachments,
    removed_segment_lives_while_attached,
    addresses,
    read_only_attachment,
    permissions,
    control_errors,
);
