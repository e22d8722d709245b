//! Moving data between host files and guests.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;

use sentry_host::file;
use syscalls::SysResult;

use super::io::{IoSink, IoSource};

/// The size of the buffer through which data passes, one per serving thread.
const CHUNK: usize = 128 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `use_it` with a scratch buffer of `CHUNK` bytes, which hold anything.
pub fn with_buffer<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with(|cell| match cell.try_borrow_mut() {
        Ok(mut buffer) => {
            if buffer.is_empty() {
                buffer.resize(CHUNK, 0);
            }
            use_it(&mut buffer)
        }
        // A transfer within a transfer: a sink that is a file itself.
        Err(_) => use_it(&mut vec![0; CHUNK]),
    })
}

/// Reads from a host file, at most `max` bytes from `offset` on, until the sink is full or the file
/// ends.
///
/// # Errors
/// Those of the host's read or of the sink, where nothing was transferred before.
pub fn read(
    host: BorrowedFd<'_>,
    dst: &mut dyn IoSink,
    mut offset: u64,
    max: u64,
) -> SysResult<usize> {
    let total = usize::try_from(max).unwrap_or(usize::MAX).min(dst.remaining());
    if let Some(result) = dst.fill(total, &mut |part| file::read_part(host, part, offset)) {
        return result;
    }
    with_buffer(|buffer| {
        let mut done = 0;
        while done < total {
            let want = (total - done).min(buffer.len());
            let chunk = buffer.get_mut(..want).unwrap_or_default();
            let result = file::read_at(host, chunk, offset).and_then(|got| {
                let taken = dst.put(chunk.get(..got).unwrap_or_default())?;
                Ok((got, taken))
            });
            let (got, taken) = match result {
                Ok(counts) => counts,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            done += taken;
            offset += taken as u64;
            if got < want || taken < got {
                break;
            }
        }
        Ok(done)
    })
}

/// Writes to a host file at `offset`, at most `max` bytes of what the source has.
///
/// # Errors
/// Those of the host's write or of the source, where nothing was transferred before.
pub fn write(
    host: BorrowedFd<'_>,
    src: &mut dyn IoSource,
    offset: u64,
    max: u64,
) -> SysResult<usize> {
    let mut at = offset;
    transfer(src, max, |data| {
        let written = file::write_at(host, data, at)?;
        at += written as u64;
        Ok(written)
    })
}

/// Appends to a host file at most `max` bytes of what the source has.
///
/// # Errors
/// As [`write()`].
pub fn append(host: BorrowedFd<'_>, src: &mut dyn IoSource, max: u64) -> SysResult<usize> {
    transfer(src, max, |data| file::append(host, data))
}

fn transfer(
    src: &mut dyn IoSource,
    max: u64,
    mut put: impl FnMut(&[u8]) -> SysResult<usize>,
) -> SysResult<usize> {
    let total = usize::try_from(max).unwrap_or(usize::MAX).min(src.remaining());
    with_buffer(|buffer| {
        let mut done = 0;
        while done < total {
            let want = (total - done).min(buffer.len());
            let chunk = buffer.get_mut(..want).unwrap_or_default();
            let result = src.get(chunk).and_then(|got| {
                let written = put(chunk.get(..got).unwrap_or_default())?;
                Ok((got, written))
            });
            let (got, written) = match result {
                Ok(counts) => counts,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            done += written;
            if got < want || written < got {
                break;
            }
        }
        Ok(done)
    })
}
