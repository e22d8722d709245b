//! System V semaphores: `semget(2)`, `semop(2)`, `semtimedop(2)`, `semctl(2)`.

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::proc::{
    End, child, drop_root, in_child, pid, state, tid, until, until_asleep, wait,
};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{
    GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, IPC_CREAT, IPC_EXCL, IPC_NOWAIT, IPC_PRIVATE,
    IPC_RMID, IPC_SET, IPC_STAT, SEM_UNDO, SETALL, SETVAL, timespec,
};

/// The kernel's `struct ipc64_perm`.
#[repr(C)]
struct Perm {
    key: i32,
    ids: [u32; 4],
    mode: u32,
    seq: u64,
    unused: [u64; 2],
}

/// The kernel's `struct semid64_ds`.
#[repr(C)]
struct Status {
    sem_perm: Perm,
    sem_otime: i64,
    unused0: u64,
    sem_ctime: i64,
    unused1: u64,
    sem_nsems: u64,
    unused2: [u64; 2],
}

/// A set, which is removed at the end of the case, however it ends.
struct Set(i32);

impl Drop for Set {
    fn drop(&mut self) {
        let _ = sys!(SYS_semctl, self.0, 0, IPC_RMID, 0);
    }
}

#[repr(C)]
struct Op(u16, i16, i16);

fn op(number: u16, change: i16) -> Op {
    Op(number, change, 0)
}

fn flagged(number: u16, change: i16, flags: i32) -> Op {
    Op(number, change, flags as i16)
}

fn semop(set: &Set, ops: &[Op]) -> Result<usize, i32> {
    sys!(SYS_semop, set.0, ops, ops.len())
}

fn get(set: &Set, number: i32, command: i32) -> Result<i32, i32> {
    sys!(SYS_semctl, set.0, number, command, 0).map(|value| value as i32)
}

fn values<const N: usize>(set: &Set) -> Result<[u16; N], i32> {
    let mut values = [0u16; N];
    sys!(SYS_semctl, set.0, 0, GETALL, &mut values)?;
    Ok(values)
}

fn set_values(set: &Set, values: &[u16]) -> Result<usize, i32> {
    sys!(SYS_semctl, set.0, 0, SETALL, values)
}

fn make(n: i32) -> Result<Set, i32> {
    sys!(SYS_semget, IPC_PRIVATE, n, 0o600).map(|id| Set(id as i32))
}

fn status(set: &Set) -> Result<Status, i32> {
    let mut status: Status = guest_tests::mem::zeroed();
    sys!(SYS_semctl, set.0, 0, IPC_STAT, &mut status)?;
    Ok(status)
}

/// A key that no other test of the machine uses.
fn own_key() -> i32 {
    0x5e10_0000 | pid()
}

/// A child that makes one call and exits with its errno, or zero.
fn operating(set: &Set, ops: &[Op]) -> Result<i32, i32> {
    child(|| semop(set, ops).err().unwrap_or(0))
}

/// Waits until so many operations wait for a semaphore to grow.
fn until_waiting(set: &Set, number: i32, n: i32) -> bool {
    until(|| get(set, number, GETNCNT) == Ok(n))
}

fn keys() -> Outcome {
    let key = own_key();
    fails!(sys!(SYS_semget, key, 1, 0), ENOENT);
    fails!(sys!(SYS_semget, key, 0, IPC_CREAT | 0o600), EINVAL);
    fails!(sys!(SYS_semget, key, -1, IPC_CREAT | 0o600), EINVAL);
    fails!(sys!(SYS_semget, key, 32001, IPC_CREAT | 0o600), EINVAL);
    let set = Set(ok!(sys!(SYS_semget, key, 3, IPC_CREAT | IPC_EXCL | 0o640)) as i32);
    fails!(sys!(SYS_semget, key, 3, IPC_CREAT | IPC_EXCL | 0o600), EEXIST);
    eq!(ok!(sys!(SYS_semget, key, 0, 0)) as i32, set.0);
    eq!(ok!(sys!(SYS_semget, key, 3, IPC_CREAT)) as i32, set.0);
    fails!(sys!(SYS_semget, key, 4, 0), EINVAL);
    let seen = ok!(status(&set));
    eq!((seen.sem_nsems, seen.sem_perm.mode, seen.sem_otime), (3, 0o640, 0));
    check!(seen.sem_ctime > 0);
    ok!(semop(&set, &[op(0, 1)]));
    check!(ok!(status(&set)).sem_otime > 0);
    ok!(sys!(SYS_semctl, set.0, 0, IPC_RMID, 0));
    fails!(sys!(SYS_semget, key, 3, 0), ENOENT);
    check!(matches!(status(&set), Err(libc::EINVAL | libc::EIDRM)));
    check!(matches!(semop(&set, &[op(0, 1)]), Err(libc::EINVAL | libc::EIDRM)));
    Ok(())
}

fn values_and_errors() -> Outcome {
    let set = ok!(make(3));
    eq!(ok!(values::<3>(&set)), [0, 0, 0]);
    ok!(set_values(&set, &[1, 2, 32767]));
    eq!(ok!(values::<3>(&set)), [1, 2, 32767]);
    fails!(set_values(&set, &[1, 2, 32768]), ERANGE);
    fails!(semop(&set, &[op(2, 1)]), ERANGE);
    ok!(sys!(SYS_semctl, set.0, 1, SETVAL, 7));
    fails!(sys!(SYS_semctl, set.0, 1, SETVAL, 32768), ERANGE);
    fails!(sys!(SYS_semctl, set.0, 1, SETVAL, -1), ERANGE);
    fails!(sys!(SYS_semctl, set.0, 3, SETVAL, 1), EINVAL);
    fails!(sys!(SYS_semctl, set.0, -1, SETVAL, 1), EINVAL);
    fails!(get(&set, 3, GETVAL), EINVAL);
    fails!(get(&set, -1, GETNCNT), EINVAL);
    fails!(get(&set, 0, 999), EINVAL);
    fails!(get(&Set(-1), 0, GETVAL), EINVAL);
    eq!(ok!(get(&set, 1, GETVAL)), 7);
    eq!(ok!(get(&set, 1, GETPID)), pid());
    fails!(sys!(SYS_semctl, set.0, 0, GETALL, 8), EFAULT);
    fails!(sys!(SYS_semctl, set.0, 0, SETALL, 8), EFAULT);
    fails!(sys!(SYS_semctl, set.0, 0, IPC_STAT, 8), EFAULT);
    fails!(semop(&set, &[]), EINVAL);
    fails!(semop(&Set(-1), &[op(0, 1)]), EINVAL);
    fails!(sys!(SYS_semop, set.0, 8, 1), EFAULT);
    fails!(semop(&set, &[op(3, 1)]), EFBIG);
    fails!(sys!(SYS_semop, set.0, 8, 501), E2BIG);
    fails!(semop(&set, &[flagged(0, 0, IPC_NOWAIT)]), EAGAIN);
    fails!(semop(&set, &[flagged(0, -2, IPC_NOWAIT)]), EAGAIN);
    eq!(ok!(values::<3>(&set)), [1, 7, 32767]);
    let many: Vec<Op> = (0..500).map(|index| op(0, if index % 2 == 0 { 1 } else { -1 })).collect();
    ok!(semop(&set, &many));
    eq!(ok!(get(&set, 0, GETVAL)), 1);
    Ok(())
}

fn all_or_nothing() -> Outcome {
    let set = ok!(make(2));
    ok!(set_values(&set, &[2, 0]));
    fails!(semop(&set, &[op(0, -1), flagged(1, -1, IPC_NOWAIT)]), EAGAIN);
    fails!(semop(&set, &[flagged(0, 5, SEM_UNDO), op(1, 32767), op(1, 1)]), ERANGE);
    eq!(ok!(values::<2>(&set)), [2, 0]);
    // In order, and seen by the later ones.
    ok!(semop(&set, &[op(0, -2), op(0, 0), op(0, 4), op(0, -1), op(1, 1)]));
    eq!(ok!(values::<2>(&set)), [3, 1]);
    // A blocked call takes nothing, and afterwards everything once.
    let waiting = ok!(operating(&set, &[op(0, -2), op(1, -2)]));
    check!(until_waiting(&set, 1, 1));
    eq!(ok!(get(&set, 0, GETNCNT)), 0);
    eq!(ok!(values::<2>(&set)), [3, 1]);
    ok!(semop(&set, &[op(1, 4)]));
    eq!(ok!(wait(waiting)), End::Code(0));
    eq!(ok!(values::<2>(&set)), [1, 3]);
    eq!(ok!(get(&set, 0, GETPID)), waiting);
    Ok(())
}

fn waiting_for_zero() -> Outcome {
    let set = ok!(make(2));
    ok!(set_values(&set, &[1, 1]));
    let zero = ok!(operating(&set, &[op(0, 0)]));
    check!(until(|| get(&set, 0, GETZCNT) == Ok(1)));
    let both = ok!(operating(&set, &[op(0, 0), op(1, 0), op(1, 5)]));
    check!(until(|| get(&set, 0, GETZCNT) == Ok(2)));
    eq!(ok!(get(&set, 1, GETZCNT)), 0);
    ok!(semop(&set, &[op(0, -1)]));
    eq!(ok!(wait(zero)), End::Code(0));
    check!(until(|| get(&set, 1, GETZCNT) == Ok(1)));
    ok!(sys!(SYS_semctl, set.0, 1, SETVAL, 0));
    eq!(ok!(wait(both)), End::Code(0));
    eq!(ok!(values::<2>(&set)), [0, 5]);
    Ok(())
}

fn order_of_waiters() -> Outcome {
    let set = ok!(make(1));
    let (reader, writer) = ok!(pipe(0));
    let mut children = Vec::new();
    // A large request does not hold the small ones up that came later.
    for (index, change) in [(0u8, -5), (1, -1), (2, -1), (3, -2)] {
        children.push(ok!(child(|| {
            let result = semop(&set, &[op(0, change)]);
            // The next one may go only when this one has said so.
            let _ = write(writer, &[index]);
            i32::from(result.is_err())
        })));
        check!(until_waiting(&set, 0, children.len() as i32));
    }
    let mut order = Vec::new();
    for change in [1, 1, 2, 5] {
        ok!(semop(&set, &[op(0, change)]));
        let mut byte = [0u8];
        eq!(ok!(read(reader, &mut byte)), 1);
        order.push(byte[0]);
    }
    eq!(order, [1, 2, 3, 0]);
    for child in children {
        eq!(ok!(wait(child)), End::Code(0));
    }
    eq!(ok!(get(&set, 0, GETVAL)), 0);
    Ok(())
}

fn removal_and_signals_end_waits() -> Outcome {
    let set = ok!(make(1));
    let removed = ok!(operating(&set, &[op(0, -1)]));
    check!(until_waiting(&set, 0, 1));
    // Never restarted, whatever the handler's flags say.
    let interrupted = ok!(child(|| {
        let _ = sig::handle(libc::SIGUSR1, sig::record, libc::SA_RESTART);
        semop(&set, &[op(0, -1)]).err().unwrap_or(0)
    }));
    check!(until_waiting(&set, 0, 2));
    ok!(sys!(SYS_kill, interrupted, libc::SIGUSR1));
    eq!(ok!(wait(interrupted)), End::Code(libc::EINTR));
    check!(until_waiting(&set, 0, 1));
    let killed = ok!(operating(&set, &[op(0, -1)]));
    check!(until_waiting(&set, 0, 2));
    ok!(sys!(SYS_kill, killed, libc::SIGKILL));
    eq!(ok!(wait(killed)), End::Signal(libc::SIGKILL));
    check!(until_waiting(&set, 0, 1));
    ok!(sys!(SYS_semctl, set.0, 0, IPC_RMID, 0));
    eq!(ok!(wait(removed)), End::Code(libc::EIDRM));
    Ok(())
}

fn time_out() -> Outcome {
    let set = ok!(make(1));
    let timed = |ops: &[Op], tv_sec, tv_nsec| {
        let timeout = timespec { tv_sec, tv_nsec };
        sys!(SYS_semtimedop, set.0, ops, ops.len(), &timeout)
    };
    fails!(timed(&[op(0, -1)], 0, 0), EAGAIN);
    fails!(timed(&[op(0, -1)], 0, 1_000_000), EAGAIN);
    fails!(timed(&[op(0, -1)], 0, 1_000_000_000), EINVAL);
    fails!(timed(&[op(0, -1)], -1, 0), EINVAL);
    fails!(sys!(SYS_semtimedop, set.0, &op(0, 1), 1, 8), EFAULT);
    eq!(ok!(get(&set, 0, GETNCNT)), 0);
    ok!(timed(&[op(0, 1)], 0, 0));
    let waiting = ok!(child(|| timed(&[op(0, -2)], 60, 0).err().unwrap_or(0)));
    check!(until_waiting(&set, 0, 1));
    ok!(semop(&set, &[op(0, 1)]));
    eq!(ok!(wait(waiting)), End::Code(0));
    eq!(ok!(get(&set, 0, GETVAL)), 0);
    Ok(())
}

fn undo_at_exit() -> Outcome {
    let set = ok!(make(3));
    ok!(set_values(&set, &[5, 5, 1]));
    let body = || {
        let undone = [flagged(0, -3, SEM_UNDO), flagged(1, 2, SEM_UNDO), op(2, -1)];
        i32::from(semop(&set, &undone).is_err())
    };
    eq!(ok!(wait(ok!(child(body)))), End::Code(0));
    eq!(ok!(values::<3>(&set)), [5, 5, 0]);
    // Setting a value forgets what was to be undone.
    ok!(in_child(|| {
        ok!(semop(&set, &[flagged(0, -1, SEM_UNDO), flagged(1, -1, SEM_UNDO)]));
        ok!(sys!(SYS_semctl, set.0, 0, SETVAL, 9));
        Ok(())
    }));
    eq!(ok!(values::<3>(&set)), [9, 5, 0]);
    // Never below zero, and whoever waits goes on; also where the process is killed.
    let holder = ok!(child(|| {
        let _ = semop(&set, &[flagged(1, -5, SEM_UNDO), flagged(2, 3, SEM_UNDO)]);
        loop {
            let _ = sys!(SYS_pause);
        }
    }));
    check!(until(|| get(&set, 2, GETVAL) == Ok(3)));
    ok!(sys!(SYS_semctl, set.0, 2, GETVAL, 0));
    let waiting = ok!(operating(&set, &[op(1, -4)]));
    check!(until_waiting(&set, 1, 1));
    ok!(semop(&set, &[op(2, -2)]));
    ok!(sys!(SYS_kill, holder, libc::SIGKILL));
    eq!(ok!(wait(holder)), End::Signal(libc::SIGKILL));
    eq!(ok!(wait(waiting)), End::Code(0));
    eq!(ok!(values::<3>(&set)), [9, 1, 0]);
    // A child has nothing of its parent's to undo.
    ok!(semop(&set, &[flagged(0, -9, SEM_UNDO)]));
    eq!(ok!(wait(ok!(child(|| 0)))), End::Code(0));
    eq!(ok!(get(&set, 0, GETVAL)), 0);
    Ok(())
}

fn undo_survives_exec_and_is_shared_by_threads() -> Outcome {
    let set = ok!(make(1));
    ok!(set_values(&set, &[5]));
    let value = std::thread::scope(|scope| {
        let thread = scope.spawn(|| semop(&set, &[flagged(0, -2, SEM_UNDO)]));
        let _ = thread.join();
        get(&set, 0, GETVAL)
    });
    // The thread has ended, its process has not.
    eq!(ok!(value), 3);
    let tid_of_thread = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _ = sys!(SYS_unshare, libc::CLONE_SYSVSEM);
            let _ = semop(&set, &[flagged(0, -2, SEM_UNDO)]);
            tid()
        });
        thread.join().unwrap_or(0)
    });
    check!(until(|| state(tid_of_thread).is_none()));
    eq!(ok!(get(&set, 0, GETVAL)), 3);
    let (reader, writer) = ok!(pipe(0));
    let (held, hold) = ok!(pipe(0));
    let program = ok!(child(|| {
        let _ = close(hold);
        let _ = semop(&set, &[flagged(0, -1, SEM_UNDO)]);
        let _ = sys!(SYS_dup2, held, 0);
        let _ = sys!(SYS_dup2, writer, 1);
        let args = [c"/proc/self/exe".as_ptr(), c"--list".as_ptr(), core::ptr::null()];
        let env = [core::ptr::null::<u8>()];
        let _ = sys!(SYS_execve, c"/proc/self/exe", &args, &env);
        99
    }));
    // Its output is there, so it executes the program.
    let mut byte = [0u8];
    ok!(close(writer));
    eq!(ok!(read(reader, &mut byte)), 1);
    eq!(ok!(wait(program)), End::Code(0));
    eq!(ok!(get(&set, 0, GETVAL)), 3);
    Ok(())
}

fn permissions() -> Outcome {
    let set = ok!(make(2));
    let mut new = ok!(status(&set));
    new.sem_perm.mode = 0o7604;
    ok!(sys!(SYS_semctl, set.0, 0, IPC_SET, &new));
    eq!(ok!(status(&set)).sem_perm.mode, 0o604);
    ok!(in_child(|| {
        ok!(drop_root());
        fails!(semop(&set, &[op(0, 1)]), EACCES);
        ok!(semop(&set, &[op(0, 0)]));
        ok!(values::<2>(&set));
        ok!(get(&set, 0, GETNCNT));
        fails!(set_values(&set, &[1, 1]), EACCES);
        fails!(sys!(SYS_semctl, set.0, 0, SETVAL, 1), EACCES);
        fails!(sys!(SYS_semctl, set.0, 0, IPC_RMID, 0), EPERM);
        fails!(sys!(SYS_semctl, set.0, 0, IPC_SET, &new), EPERM);
        Ok(())
    }));
    new.sem_perm.mode = 0o600;
    ok!(sys!(SYS_semctl, set.0, 0, IPC_SET, &new));
    ok!(in_child(|| {
        ok!(drop_root());
        fails!(semop(&set, &[op(0, 0)]), EACCES);
        fails!(get(&set, 0, GETVAL), EACCES);
        check!(status(&set).is_err());
        Ok(())
    }));
    Ok(())
}

fn lists_and_limits() -> Outcome {
    let mut limits = [0i32; 10];
    ok!(sys!(SYS_semctl, 0, 0, libc::IPC_INFO, &mut limits));
    eq!(
        limits,
        [1_024_000_000, 32000, 1_024_000_000, 1_024_000_000, 32000, 500, 500, 20, 32767, 32767]
    );
    let sysctl = ok!(std::fs::read_to_string("/proc/sys/kernel/sem"));
    eq!(sysctl, "32000\t1024000000\t500\t32000\n");
    let key = own_key();
    let set = Set(ok!(sys!(SYS_semget, key, 3, IPC_CREAT | 0o640)) as i32);
    let mut used = [0i32; 10];
    let max = ok!(sys!(SYS_semctl, 0, 0, libc::SEM_INFO, &mut used));
    check!(used[7] >= 1 && used[9] >= 3);
    let mut found = false;
    for index in 0..=max {
        let mut status: Status = guest_tests::mem::zeroed();
        let id = sys!(SYS_semctl, index, 0, libc::SEM_STAT, &mut status);
        if id == Ok(set.0 as usize) {
            found = true;
            eq!((status.sem_nsems, status.sem_perm.mode), (3, 0o640));
        }
    }
    check!(found);
    let list = ok!(std::fs::read_to_string("/proc/sysvipc/sem"));
    let mut lines = list.lines();
    eq!(
        lines.next(),
        Some(
            "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime"
        )
    );
    let begin =
        format!("{key:10} {:10}   640          3     0     0     0     0          0 ", set.0);
    eq!(lines.filter(|line| line.starts_with(&begin)).count(), 1);
    Ok(())
}

fn many_waiters() -> Outcome {
    let set = ok!(make(1));
    let mut children = Vec::new();
    for _ in 0..50 {
        children.push(ok!(child(|| {
            for _ in 0..20 {
                if semop(&set, &[op(0, -1)]).is_err() || semop(&set, &[op(0, 1)]).is_err() {
                    return 1;
                }
            }
            0
        })));
    }
    check!(until_asleep(children[0]));
    ok!(semop(&set, &[op(0, 3)]));
    for child in children {
        eq!(ok!(wait(child)), End::Code(0));
    }
    eq!(ok!(get(&set, 0, GETVAL)), 3);
    Ok(())
}

guest_tests::cases!(
    keys,
    values_and_errors,
    all_or_nothing,
    waiting_for_zero,
    order_of_waiters,
    removal_and_signals_end_waits,
    time_out,
    undo_at_exit,
    undo_survives_exec_and_is_shared_by_threads,
    permissions,
    lists_and_limits,
    many_waiters,
);
