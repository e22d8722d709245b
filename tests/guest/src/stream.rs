//! Pipes in lively use.

use crate::fs::{read, write};
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
