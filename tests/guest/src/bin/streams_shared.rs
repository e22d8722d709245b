//! Pipes in lively use that several processes share.

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use guest_tests::fs::{close, pipe, read, read_all, write};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{End, child, drop_root, sleep, wait};
use guest_tests::stream::{N_RECORDS, enliven, read_records, readable, write_records};
use guest_tests::{Outcome, check, eq, fails, ok, runner, sig, sys};
use libc::{CLONE_VM, O_NONBLOCK, SIGCHLD};

fn child_shares_the_pipe() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    for _ in 0..10 {
        enliven(reader, writer)?;
        ok!(write(writer, b"before "));
        let pid = ok!(child(|| {
            let mut buf = [0u8; 7];
            if read(reader, &mut buf) != Ok(7) || &buf != b"before " {
                return 1;
            }
            if enliven(reader, writer).is_err() || write(writer, b"from the child") != Ok(14) {
                return 2;
            }
            0
        }));
        let mut buf = [0u8; 20];
        eq!(ok!(wait(pid)), End::Code(0));
        eq!(ok!(readable(reader)), 14);
        eq!(ok!(read(reader, &mut buf)), 14);
        eq!(&buf[..14], b"from the child");
    }
    Ok(())
}

fn processes_hand_over() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let (back_reader, back_writer) = ok!(pipe(0));
    enliven(reader, writer)?;
    enliven(back_reader, back_writer)?;
    let pid = ok!(child(|| {
        let _ = close(writer);
        let mut message = [0u8; 8];
        while read(reader, &mut message) == Ok(8) {
            if write(back_writer, &message) != Ok(8) {
                return 1;
            }
        }
        0
    }));
    for i in 0..1200u64 {
        eq!(ok!(write(writer, &i.to_ne_bytes())), 8);
        let mut message = [0u8; 8];
        eq!(ok!(read(back_reader, &mut message)), 8);
        eq!(u64::from_ne_bytes(message), i);
    }
    ok!(close(writer));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn processes_stream() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    enliven(reader, writer)?;
    let pid = ok!(child(|| {
        let _ = close(reader);
        i32::from(!write_records(writer, 2))
    }));
    ok!(close(writer));
    let Some(n) = read_records(reader) else { return Err("wrong order".to_owned()) };
    eq!(n, [0, 0, N_RECORDS, 0]);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn killed_writer_leaves_whole_records() -> Outcome {
    for round in 0..10 {
        let (reader, writer) = ok!(pipe(0));
        let (started, start) = ok!(pipe(0));
        let pid = ok!(child(|| {
            if enliven(reader, writer).is_err() || write(start, b"x").is_err() {
                return 1;
            }
            let mut i = 0u32;
            loop {
                let record = [i.to_ne_bytes(), (!i).to_ne_bytes()].concat();
                if write(writer, &record) != Ok(8) {
                    return 2;
                }
                // What the parent gets is what this does not read.
                if i % 4 != 3 && read(reader, &mut [0u8; 8]) != Ok(8) {
                    return 3;
                }
                i += 1;
            }
        }));
        ok!(close(writer));
        ok!(read(started, &mut [0u8]));
        sleep(Duration::from_micros(300 * round));
        ok!(sys!(SYS_kill, pid, libc::SIGKILL));
        eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
        let rest = ok!(read_all(reader));
        eq!(rest.len() % 8, 0);
        for record in rest.chunks_exact(8) {
            let (a, b) = record.split_at(4);
            check!(a.iter().zip(b).all(|(a, b)| *a == !*b));
        }
        for fd in [reader, started, start] {
            ok!(close(fd));
        }
    }
    Ok(())
}

fn killed_writer_ends_the_stream() -> Outcome {
    for round in 0..10 {
        let (reader, writer) = ok!(pipe(0));
        let pid = ok!(child(|| {
            let _ = close(reader);
            (0..u64::MAX).find(|i| write(writer, &i.to_ne_bytes()) != Ok(8)).map_or(0, |_| 1)
        }));
        ok!(close(writer));
        let mut next = 0u64;
        loop {
            let mut record = [0u8; 8];
            if ok!(read(reader, &mut record)) == 0 {
                break;
            }
            eq!(u64::from_ne_bytes(record), next);
            next += 1;
            if next == 500 + 50 * round {
                ok!(sys!(SYS_kill, pid, libc::SIGKILL));
            }
        }
        check!(next >= 500 + 50 * round);
        eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
        ok!(close(reader));
    }
    Ok(())
}

fn killed_reader_breaks_the_pipe() -> Outcome {
    ok!(sig::handle(libc::SIGPIPE, sig::record, 0));
    for round in 0..10u32 {
        let (reader, writer) = ok!(pipe(0));
        let pid = ok!(child(|| {
            let _ = close(writer);
            while read(reader, &mut [0u8; 8]) == Ok(8) {}
            0
        }));
        ok!(close(reader));
        for i in 0..500 + 50 * u64::from(round) {
            eq!(ok!(write(writer, &i.to_ne_bytes())), 8);
        }
        ok!(sys!(SYS_kill, pid, libc::SIGKILL));
        eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
        fails!(write(writer, b"x"), EPIPE);
        eq!(sig::count(), round + 1);
        ok!(close(writer));
    }
    Ok(())
}

/// Sends numbers to a process that sends them back, until there is no more to read.
fn hand_over(reader: i32, writer: i32, n: u64) -> Outcome {
    for i in 0..n {
        eq!(ok!(write(writer, &i.to_ne_bytes())), 8);
        let mut message = [0u8; 8];
        eq!(ok!(read(reader, &mut message)), 8);
        eq!(u64::from_ne_bytes(message), i);
    }
    Ok(())
}

fn send_back(reader: i32, writer: i32, n: u64) -> bool {
    (0..n).all(|_| {
        let mut message = [0u8; 8];
        read(reader, &mut message) == Ok(8) && write(writer, &message) == Ok(8)
    })
}

fn partners_change() -> Outcome {
    // More of them than a process can have had streams with.
    let (there_reader, there_writer) = ok!(pipe(0));
    let (back_reader, back_writer) = ok!(pipe(0));
    for _ in 0..40 {
        let pid = ok!(child(|| i32::from(!send_back(there_reader, back_writer, 120))));
        hand_over(back_reader, there_writer, 120)?;
        eq!(ok!(wait(pid)), End::Code(0));
        enliven(there_reader, there_writer)?;
    }
    // Two at a time.
    let pids = [0, 1].map(|_| child(|| i32::from(!send_back(there_reader, back_writer, 400))));
    hand_over(back_reader, there_writer, 800)?;
    for pid in pids {
        eq!(ok!(wait(ok!(pid))), End::Code(0));
    }
    eq!(ok!(readable(there_reader)), 0);
    eq!(ok!(readable(back_reader)), 0);
    Ok(())
}

fn partner_with_other_rights() -> Outcome {
    let (there_reader, there_writer) = ok!(pipe(0));
    let (back_reader, back_writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let first = send_back(there_reader, back_writer, 400);
        if drop_root().is_err() {
            return 2;
        }
        i32::from(!first || !send_back(there_reader, back_writer, 400))
    }));
    hand_over(back_reader, there_writer, 800)?;
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn third_process_looks_in() -> Outcome {
    // Two processes hand over, and a third one asks the pipe now and then, or takes part.
    let (there_reader, there_writer) = ok!(pipe(0));
    let (back_reader, back_writer) = ok!(pipe(0));
    let echo = ok!(child(|| {
        let _ = close(there_writer);
        i32::from(send_back(there_reader, back_writer, u64::MAX))
    }));
    let third = ok!(child(|| {
        let mut polled = libc::pollfd { fd: there_reader, events: libc::POLLIN, revents: 0 };
        loop {
            let asked = sys!(SYS_poll, &mut polled, 1, 0).is_ok() && readable(back_reader).is_ok();
            if !asked {
                return 1;
            }
            sleep(Duration::from_micros(200));
        }
    }));
    hand_over(back_reader, there_writer, 1500)?;
    ok!(sys!(SYS_kill, third, libc::SIGKILL));
    eq!(ok!(wait(third)), End::Signal(libc::SIGKILL));
    hand_over(back_reader, there_writer, 500)?;
    ok!(close(there_writer));
    eq!(ok!(wait(echo)), End::Code(0));
    Ok(())
}

fn partner_forks_and_goes_on() -> Outcome {
    let (there_reader, there_writer) = ok!(pipe(0));
    let (back_reader, back_writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        // Each generation answers for a while and leaves the rest to the next one.
        for _ in 0..8 {
            if !send_back(there_reader, back_writer, 200) {
                return 1;
            }
            match sys!(SYS_fork) {
                Ok(0) => {}
                Ok(next) => return i32::from(wait(next as i32) != Ok(End::Code(0))),
                Err(_) => return 2,
            }
        }
        0
    }));
    hand_over(back_reader, there_writer, 8 * 200)?;
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

static READER: AtomicI32 = AtomicI32::new(0);
static WRITER: AtomicI32 = AtomicI32::new(0);

/// A child that shares memory but not descriptors: its numbers are its own.
extern "C" fn with_own_descriptors(_: *mut libc::c_void) -> i32 {
    let (reader, writer) = (READER.load(SeqCst), WRITER.load(SeqCst));
    let Ok((other_reader, other_writer)) = pipe(0) else { return 1 };
    let mut buf = [0u8; 5];
    if write(writer, b"child") != Ok(5) || read(reader, &mut buf) != Ok(5) {
        return 2;
    }
    if sys!(SYS_dup2, other_reader, reader).is_err()
        || sys!(SYS_dup2, other_writer, writer).is_err()
    {
        return 3;
    }
    if enliven(reader, writer).is_err() || write(writer, b"unseen") != Ok(6) {
        return 4;
    }
    0
}

fn child_in_the_same_memory() -> Outcome {
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    READER.store(reader, SeqCst);
    WRITER.store(writer, SeqCst);
    let stack = ok!(Map::anonymous(16 * PAGE, libc::MAP_PRIVATE));
    for flags in [CLONE_VM | libc::CLONE_VFORK, CLONE_VM] {
        enliven(reader, writer)?;
        // SAFETY: the child has a stack of its own and only makes calls.
        let pid = unsafe {
            libc::clone(
                with_own_descriptors,
                (stack.addr + stack.len) as *mut _,
                flags | SIGCHLD,
                core::ptr::null_mut(),
            )
        };
        eq!(ok!(wait(pid)), End::Code(0));
        fails!(read(reader, &mut [0u8]), EAGAIN);
        enliven(reader, writer)?;
    }
    Ok(())
}

fn program_writes_to_it() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    enliven(reader, writer)?;
    ok!(write(writer, b"list: "));
    let pid = ok!(child(|| {
        let _ = sys!(SYS_dup2, writer, 1);
        let _ = close(reader);
        let _ = close(writer);
        let arguments = [c"streams_shared".as_ptr(), c"--list".as_ptr(), core::ptr::null()];
        let environment = [core::ptr::null::<u8>()];
        let _ = sys!(SYS_execve, c"/proc/self/exe", &arguments, &environment);
        runner::exit(9)
    }));
    ok!(close(writer));
    let text = ok!(read_all(reader));
    check!(text.starts_with(b"list: child_shares_the_pipe\n"));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

guest_tests::cases!(
    child_shares_the_pipe,
    processes_hand_over,
    processes_stream,
    killed_writer_leaves_whole_records,
    killed_writer_ends_the_stream,
    killed_reader_breaks_the_pipe,
    partners_change,
    partner_with_other_rights,
    third_process_looks_in,
    partner_forks_and_goes_on,
    child_in_the_same_memory,
    program_writes_to_it,
);
