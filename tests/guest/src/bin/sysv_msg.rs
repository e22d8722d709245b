//! System V message queues: `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.

use guest_tests::fs::{open, pipe, read, write};
use guest_tests::proc::{End, child, drop_root, in_child, pid, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{
    IPC_CREAT, IPC_EXCL, IPC_NOWAIT, IPC_PRIVATE, IPC_RMID, IPC_SET, IPC_STAT, MSG_EXCEPT,
    MSG_NOERROR, O_RDWR, msqid_ds,
};

const MSG_COPY: i32 = 0o40000;

/// A queue, which is removed at the end of the case, however it ends.
struct Queue(i32);

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = sys!(SYS_msgctl, self.0, IPC_RMID, 0);
    }
}

fn make() -> Result<Queue, i32> {
    sys!(SYS_msgget, IPC_PRIVATE, 0o600).map(|id| Queue(id as i32))
}

fn status(queue: &Queue) -> Result<msqid_ds, i32> {
    let mut status: msqid_ds = guest_tests::mem::zeroed();
    sys!(SYS_msgctl, queue.0, IPC_STAT, &mut status)?;
    Ok(status)
}

fn send(queue: &Queue, kind: i64, text: &[u8], flags: i32) -> Result<usize, i32> {
    let mut buf = kind.to_ne_bytes().to_vec();
    buf.extend_from_slice(text);
    sys!(SYS_msgsnd, queue.0, buf.as_slice(), text.len(), flags)
}

fn receive(queue: &Queue, len: usize, kind: i64, flags: i32) -> Result<(i64, Vec<u8>), i32> {
    let mut buf = vec![0u8; 8 + len];
    let n = sys!(SYS_msgrcv, queue.0, buf.as_mut_slice(), len, kind, flags)?;
    let mut kind = [0; 8];
    kind.copy_from_slice(&buf[..8]);
    Ok((i64::from_ne_bytes(kind), buf[8..8 + n].to_vec()))
}

/// Takes a message that must be there, and gives its type and first byte.
fn take(queue: &Queue, kind: i64, flags: i32) -> Result<(i64, u8), i32> {
    let (kind, text) = receive(queue, 100, kind, flags | IPC_NOWAIT)?;
    Ok((kind, text.first().copied().unwrap_or(0)))
}

/// A key that no other test of the machine uses.
fn own_key() -> i32 {
    0x5e20_0000 | pid()
}

fn keys() -> Outcome {
    let key = own_key();
    fails!(sys!(SYS_msgget, key, 0), ENOENT);
    let queue = Queue(ok!(sys!(SYS_msgget, key, IPC_CREAT | IPC_EXCL | 0o640)) as i32);
    fails!(sys!(SYS_msgget, key, IPC_CREAT | IPC_EXCL | 0o600), EEXIST);
    eq!(ok!(sys!(SYS_msgget, key, 0)) as i32, queue.0);
    let seen = ok!(status(&queue));
    eq!((seen.msg_qnum, seen.msg_qbytes, seen.msg_perm.mode), (0, 16384, 0o640));
    eq!((seen.msg_stime, seen.msg_rtime, seen.msg_lspid, seen.msg_lrpid), (0, 0, 0, 0));
    check!(seen.msg_ctime > 0);
    ok!(sys!(SYS_msgctl, queue.0, IPC_RMID, 0));
    fails!(sys!(SYS_msgget, key, 0), ENOENT);
    check!(matches!(status(&queue), Err(libc::EINVAL | libc::EIDRM)));
    Ok(())
}

fn types() -> Outcome {
    let queue = ok!(make());
    for (kind, text) in [(5, b"a"), (3, b"b"), (9, b"c"), (3, b"d"), (1, b"e")] {
        ok!(send(&queue, kind, text, 0));
    }
    eq!(ok!(take(&queue, 3, 0)), (3, b'b'));
    eq!(ok!(take(&queue, 5, MSG_EXCEPT)), (9, b'c'));
    eq!(ok!(take(&queue, -4, 0)), (1, b'e'));
    eq!(ok!(take(&queue, i64::MIN, 0)), (3, b'd'));
    fails!(take(&queue, 4, 0), ENOMSG);
    fails!(take(&queue, -4, 0), ENOMSG);
    fails!(take(&queue, 5, MSG_EXCEPT), ENOMSG);
    eq!(ok!(take(&queue, 0, 0)), (5, b'a'));
    fails!(take(&queue, 0, 0), ENOMSG);
    Ok(())
}

fn lengths() -> Outcome {
    let queue = ok!(make());
    ok!(send(&queue, 1, b"", 0));
    ok!(send(&queue, 2, b"abcdef", 0));
    fails!(send(&queue, 0, b"x", 0), EINVAL);
    fails!(send(&queue, -1, b"x", 0), EINVAL);
    fails!(send(&queue, 1, &[0; 8193], 0), EINVAL);
    fails!(sys!(SYS_msgsnd, queue.0, 8, 1, 0), EFAULT);
    fails!(sys!(SYS_msgsnd, -1, &[1u64, 1], 1, 0), EINVAL);
    let seen = ok!(status(&queue));
    eq!((seen.msg_qnum, seen.__msg_cbytes, seen.msg_lspid), (2, 6, pid()));
    check!(seen.msg_stime > 0);
    eq!(ok!(receive(&queue, 10, 0, 0)), (1, Vec::new()));
    fails!(receive(&queue, 5, 0, 0), E2BIG);
    fails!(sys!(SYS_msgrcv, queue.0, &mut [0u64; 4], -1, 0, 0), EINVAL);
    eq!(ok!(receive(&queue, 5, 0, MSG_NOERROR)), (2, b"abcde".to_vec()));
    let seen = ok!(status(&queue));
    eq!((seen.msg_qnum, seen.__msg_cbytes, seen.msg_lrpid), (0, 0, pid()));
    ok!(send(&queue, 7, &[9; 8192], 0));
    eq!(ok!(receive(&queue, 8192, 7, 0)), (7, vec![9; 8192]));
    // Lost where it cannot be stored, as on Linux.
    ok!(send(&queue, 1, b"x", 0));
    fails!(sys!(SYS_msgrcv, queue.0, 8, 10, 0, 0), EFAULT);
    fails!(take(&queue, 0, 0), ENOMSG);
    Ok(())
}

fn copies() -> Outcome {
    let queue = ok!(make());
    ok!(send(&queue, 5, b"abc", 0));
    ok!(send(&queue, 6, b"d", 0));
    eq!(ok!(receive(&queue, 10, 1, MSG_COPY | IPC_NOWAIT)), (6, b"d".to_vec()));
    eq!(ok!(receive(&queue, 10, 0, MSG_COPY | IPC_NOWAIT)), (5, b"abc".to_vec()));
    fails!(receive(&queue, 10, 2, MSG_COPY | IPC_NOWAIT), ENOMSG);
    fails!(receive(&queue, 2, 0, MSG_COPY | IPC_NOWAIT), E2BIG);
    fails!(receive(&queue, 10, 0, MSG_COPY), EINVAL);
    fails!(receive(&queue, 10, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT), EINVAL);
    eq!(ok!(status(&queue)).msg_qnum, 2);
    Ok(())
}

fn full_queue_blocks() -> Outcome {
    let queue = ok!(make());
    ok!(send(&queue, 1, &[1; 8192], 0));
    ok!(send(&queue, 1, &[2; 8000], 0));
    fails!(send(&queue, 1, &[3; 193], IPC_NOWAIT), EAGAIN);
    ok!(send(&queue, 1, &[4; 192], IPC_NOWAIT));
    let blocked = ok!(child(|| send(&queue, 2, &[5; 8192], 0).err().unwrap_or(0)));
    check!(until_asleep(blocked));
    eq!(ok!(take(&queue, 0, MSG_NOERROR)), (1, 1));
    eq!(ok!(wait(blocked)), End::Code(0));
    eq!(ok!(status(&queue)).msg_lspid, blocked);
    eq!(ok!(take(&queue, 2, MSG_NOERROR)), (2, 5));
    // A larger queue lets them in as well.
    ok!(send(&queue, 1, &[6; 8192], 0));
    let blocked = ok!(child(|| send(&queue, 3, &[7; 100], 0).err().unwrap_or(0)));
    check!(until_asleep(blocked));
    let mut new = ok!(status(&queue));
    new.msg_qbytes = 16000;
    ok!(sys!(SYS_msgctl, queue.0, IPC_SET, &new));
    eq!(ok!(take(&queue, 1, MSG_NOERROR)), (1, 2));
    eq!(ok!(wait(blocked)), End::Code(0));
    eq!(ok!(take(&queue, 3, 0)), (3, 7));
    eq!(ok!(take(&queue, 1, MSG_NOERROR)), (1, 4));
    ok!(send(&queue, 1, &[8; 7800], 0));
    let blocked = ok!(child(|| send(&queue, 3, &[9; 100], 0).err().unwrap_or(0)));
    check!(until_asleep(blocked));
    new.msg_qbytes = 16384;
    ok!(sys!(SYS_msgctl, queue.0, IPC_SET, &new));
    eq!(ok!(wait(blocked)), End::Code(0));
    eq!(ok!(take(&queue, 3, 0)), (3, 9));
    Ok(())
}

fn receivers_in_order() -> Outcome {
    let queue = ok!(make());
    let (reader, writer) = ok!(pipe(0));
    let mut children = Vec::new();
    for (index, kind) in [(0u8, 4), (1, 0), (2, -3), (3, 4)] {
        let pid = ok!(child(|| {
            let Ok((_, text)) = receive(&queue, 10, kind, 0) else { return 1 };
            let _ = write(writer, &[index, text[0]]);
            0
        }));
        check!(until_asleep(pid));
        children.push(pid);
    }
    let mut got = Vec::new();
    for (kind, text) in [(2, b"a"), (4, b"b"), (2, b"c"), (4, b"d")] {
        ok!(send(&queue, kind, text, 0));
        let mut pair = [0u8; 2];
        eq!(ok!(read(reader, &mut pair)), 2);
        got.push((pair[0], pair[1]));
    }
    eq!(got, [(1, b'a'), (0, b'b'), (2, b'c'), (3, b'd')]);
    for child in children {
        eq!(ok!(wait(child)), End::Code(0));
    }
    // One whose buffer is too small fails, and the message goes on to the next.
    let small = ok!(child(|| receive(&queue, 1, 0, 0).err().unwrap_or(0)));
    check!(until_asleep(small));
    ok!(send(&queue, 1, b"long", 0));
    eq!(ok!(wait(small)), End::Code(libc::E2BIG));
    eq!(ok!(take(&queue, 0, 0)), (1, b'l'));
    Ok(())
}

fn removal_and_signals_end_waits() -> Outcome {
    let queue = ok!(make());
    let removed = ok!(child(|| receive(&queue, 1, 3, 0).err().unwrap_or(0)));
    check!(until_asleep(removed));
    let full = ok!(make());
    ok!(send(&full, 1, &[1; 8192], 0));
    ok!(send(&full, 1, &[1; 8192], 0));
    let sender = ok!(child(|| send(&full, 1, b"x", 0).err().unwrap_or(0)));
    check!(until_asleep(sender));
    let interrupted = ok!(child(|| {
        let _ = sig::handle(libc::SIGUSR1, sig::record, libc::SA_RESTART);
        receive(&queue, 1, 7, 0).err().unwrap_or(0)
    }));
    check!(until_asleep(interrupted));
    ok!(sys!(SYS_kill, interrupted, libc::SIGUSR1));
    eq!(ok!(wait(interrupted)), End::Code(libc::EINTR));
    // An ignored signal does not end the call.
    let ignoring = ok!(child(|| {
        let _ = sig::plain(libc::SIGUSR1, 1);
        receive(&queue, 1, 9, 0).err().unwrap_or(0)
    }));
    check!(until_asleep(ignoring));
    ok!(sys!(SYS_kill, ignoring, libc::SIGUSR1));
    ok!(sys!(SYS_kill, ignoring, libc::SIGSTOP));
    eq!(
        ok!(guest_tests::proc::wait_options(ignoring, libc::WUNTRACED)),
        End::Stopped(libc::SIGSTOP)
    );
    ok!(sys!(SYS_kill, ignoring, libc::SIGCONT));
    ok!(send(&queue, 9, b"x", 0));
    eq!(ok!(wait(ignoring)), End::Code(0));
    ok!(sys!(SYS_msgctl, queue.0, IPC_RMID, 0));
    eq!(ok!(wait(removed)), End::Code(libc::EIDRM));
    ok!(sys!(SYS_msgctl, full.0, IPC_RMID, 0));
    eq!(ok!(wait(sender)), End::Code(libc::EIDRM));
    Ok(())
}

fn permissions() -> Outcome {
    let queue = ok!(make());
    let mut new = ok!(status(&queue));
    new.msg_perm.mode = 0o7602;
    ok!(sys!(SYS_msgctl, queue.0, IPC_SET, &new));
    eq!(ok!(status(&queue)).msg_perm.mode, 0o602);
    ok!(in_child(|| {
        ok!(drop_root());
        ok!(send(&queue, 1, b"x", 0));
        fails!(take(&queue, 0, 0), EACCES);
        fails!(sys!(SYS_msgctl, queue.0, IPC_RMID, 0), EPERM);
        fails!(sys!(SYS_msgctl, queue.0, IPC_SET, &new), EPERM);
        check!(status(&queue).is_err());
        Ok(())
    }));
    // Only root may have more than the limit.
    new.msg_perm.mode = 0o600;
    new.msg_perm.uid = 1000;
    ok!(sys!(SYS_msgctl, queue.0, IPC_SET, &new));
    ok!(in_child(|| {
        ok!(drop_root());
        new.msg_qbytes = 16384;
        ok!(sys!(SYS_msgctl, queue.0, IPC_SET, &new));
        new.msg_qbytes = 16385;
        fails!(sys!(SYS_msgctl, queue.0, IPC_SET, &new), EPERM);
        Ok(())
    }));
    // One that waits is not served any more once it may not be.
    let blocked = ok!(child(|| {
        if drop_root().is_err() {
            return 99;
        }
        receive(&queue, 10, 5, 0).err().unwrap_or(0)
    }));
    check!(until_asleep(blocked));
    let mut new = ok!(status(&queue));
    new.msg_perm.uid = 0;
    ok!(sys!(SYS_msgctl, queue.0, IPC_SET, &new));
    eq!(ok!(wait(blocked)), End::Code(libc::EACCES));
    Ok(())
}

fn lists_and_limits() -> Outcome {
    let mut limits = [0i32; 8];
    ok!(sys!(SYS_msgctl, 0, libc::IPC_INFO, &mut limits));
    eq!(limits, [512_000, 16384, 8192, 16384, 32000, 16, 16384, 0xffff]);
    let key = own_key();
    let queue = Queue(ok!(sys!(SYS_msgget, key, IPC_CREAT | 0o640)) as i32);
    ok!(send(&queue, 1, b"four", 0));
    let mut used = [0i32; 8];
    ok!(sys!(SYS_msgctl, 0, libc::MSG_INFO, &mut used));
    check!(used[0] >= 1 && used[1] >= 1 && used[6] >= 4);
    let list = ok!(std::fs::read_to_string("/proc/sysvipc/msg"));
    let mut lines = list.lines();
    eq!(
        lines.next(),
        Some(
            "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime"
        )
    );
    let begin = format!(
        "{key:10} {:10}   640           4          1 {:5}     0     0     0     0     0 ",
        queue.0,
        pid()
    );
    eq!(lines.filter(|line| line.starts_with(&begin)).count(), 1);
    let mut status: msqid_ds = guest_tests::mem::zeroed();
    let index = queue.0 & 0x7fff;
    eq!(ok!(sys!(SYS_msgctl, index, libc::MSG_STAT, &mut status)) as i32, queue.0);
    eq!(status.msg_qnum, 1);
    fails!(sys!(SYS_msgctl, queue.0, 77, 0), EINVAL);
    fails!(sys!(SYS_msgctl, -1, IPC_STAT, &mut status), EINVAL);
    fails!(sys!(SYS_msgctl, queue.0, IPC_STAT, 8), EFAULT);
    Ok(())
}

fn traffic() -> Outcome {
    let queue = ok!(make());
    let mut children = Vec::new();
    for kind in 1..=8i64 {
        children.push(ok!(child(|| {
            for index in 0..100u8 {
                if send(&queue, kind, &[index; 900], 0).is_err() {
                    return 1;
                }
            }
            0
        })));
        children.push(ok!(child(|| {
            for index in 0..100u8 {
                if receive(&queue, 900, kind, 0) != Ok((kind, vec![index; 900])) {
                    return 2;
                }
            }
            0
        })));
    }
    for child in children {
        eq!(ok!(wait(child)), End::Code(0));
    }
    eq!(ok!(status(&queue)).msg_qnum, 0);
    Ok(())
}

fn wanted_ids() -> Outcome {
    // Natively in a namespace of its own: the number is for whoever comes next.
    let _ = sys!(SYS_unshare, libc::CLONE_NEWIPC);
    let Ok(next) = open(c"/proc/sys/kernel/msg_next_id", O_RDWR) else { return Ok(()) };
    let wanted = 5 << 15 | 77;
    let put = |text: &str| sys!(SYS_pwrite64, next, text.as_bytes(), text.len(), 0);
    ok!(put(&wanted.to_string()));
    let queue = ok!(make());
    eq!(queue.0, wanted);
    let mut text = [0u8; 8];
    eq!(ok!(sys!(SYS_pread64, next, &mut text, 8, 0)), 3);
    eq!(&text[..3], b"-1\n");
    // The same index is taken: the next one.
    ok!(put(&(6 << 15 | 77).to_string()));
    eq!(ok!(make()).0, 6 << 15 | 78);
    fails!(put("-7"), EINVAL);
    Ok(())
}

guest_tests::cases!(
    wanted_ids,
    keys,
    types,
    lengths,
    copies,
    full_queue_blocks,
    receivers_in_order,
    removal_and_signals_end_waits,
    permissions,
    lists_and_limits,
    traffic,
);
