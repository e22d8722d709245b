//! Pipes in lively use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fs::{read, write};
use crate::proc::sleep;
use crate::{Outcome, eq, ok, sys};

/// How often a pipe is used until it is in lively use.
const LIVELY: u32 = 300;

/// Writes a byte and reads it again, many times.
pub fn enliven(reader: i32, writer: i32) -> Outcome {
    for i in 0..LIVELY {
        let mut byte = [0u8];
        eq!(ok!(write(writer, &[i as u8])), 1);
        eq!(ok!(read(reader, &mut byte)), 1);
        eq!(byte[0], i as u8);
    }
    Ok(())
}

/// Returns how many bytes can be read (`FIONREAD`).
pub fn readable(fd: i32) -> Result<i32, i32> {
    let mut n = 0i32;
    sys!(SYS_ioctl, fd, libc::FIONREAD, &mut n)?;
    Ok(n)
}

/// What several writers write: who, and the how-manyth.
const RECORD: usize = 8;
/// How many each writes.
pub const N_RECORDS: u32 = 1500;

/// Writes all records of the writer `who`; returns whether that went well.
pub fn write_records(writer: i32, who: u32) -> bool {
    (0..N_RECORDS).all(|i| {
        let mut record = [0u8; RECORD];
        record[..4].copy_from_slice(&who.to_ne_bytes());
        record[4..].copy_from_slice(&i.to_ne_bytes());
        write(writer, &record) == Ok(RECORD)
    })
}

/// Reads records to the end of the pipe; returns how many of each writer there were, where each writer's came in order.
pub fn read_records(reader: i32) -> Option<[u32; 4]> {
    let mut n = [0u32; 4];
    let mut next = [0u32; 4];
    let mut buf = [0u8; 4 * RECORD];
    loop {
        let got = read(reader, &mut buf).ok()?;
        if got == 0 {
            return Some(n);
        }
        if got % RECORD != 0 {
            return None;
        }
        for record in buf[..got].chunks_exact(RECORD) {
            let who = u32::from_ne_bytes(record[..4].try_into().ok()?) as usize;
            let number = u32::from_ne_bytes(record[4..].try_into().ok()?);
            if number < *next.get(who)? {
                return None;
            }
            next[who] = number + 1;
            n[who] += 1;
        }
    }
}

/// A thread that makes a descriptor's number that of one file and that of another in turn.
pub struct Changer {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Changer {
    /// Starts it: `number` is that of the first one, a `pause` later that of the second one, and so on.
    pub fn start(number: i32, of: [i32; 2], pause: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = is_over.clone();
        let thread = std::thread::spawn(move || {
            for fd in of.into_iter().cycle() {
                if seen.load(SeqCst) {
                    break;
                }
                if sys!(SYS_dup2, fd, number).is_err() {
                    return false;
                }
                sleep(pause);
            }
            true
        });
        Self { is_over, thread }
    }

    /// Stops it; returns whether every change was made.
    pub fn stop(self) -> Option<bool> {
        self.is_over.store(true, SeqCst);
        self.thread.join().ok()
    }
}
