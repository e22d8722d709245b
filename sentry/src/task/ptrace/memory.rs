//! The memory of a tracee, which its tracer may change where the tracee itself may not: breakpoints.

use std::sync::Arc;

use sentry_platform::HostCall;
use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};
use syscalls::{Errno, SysResult, UserAddr};

use super::errand::{self, Errand, Key};
use super::{Tracee, stopped};
use crate::mm::MemoryManager;
use crate::mm::vma::page_down;
use crate::task::block::Wait;
use crate::task::{CurrentTask, HandlerResult, Restart, Task};

/// How many bytes are written at once where the tracee does it.
const CHUNK: usize = 128;

/// What became of a write.
enum Written {
    /// That much has been written.
    Done(usize),
    /// The tracee has to do it.
    Forced(Key, Errand),
}

/// Reads a word.
///
/// # Errors
/// `EIO` where it cannot be read.
pub(crate) fn peek(tracee: &Tracee, addr: u64) -> SysResult<u64> {
    let mut bytes = [0; 8];
    let memory = tracee.mm().address_space()?;
    match memory.read(UserAddr(addr), &mut bytes) {
        Ok(8) => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(Errno::EIO),
    }
}

/// Writes a word.
///
/// # Errors
/// `EIO` where it cannot be written, even by force.
pub(crate) fn poke(
    current: &CurrentTask,
    tracee: &Tracee,
    addr: u64,
    value: u64,
) -> HandlerResult<()> {
    let bytes = value.to_ne_bytes();
    let mut done = 0;
    let attempt = || {
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = addr.checked_add(done as u64).ok_or(Errno::EIO)?;
            match write_some(current, tracee, &tracee.mm(), at, rest)? {
                Some(n) => done += n,
                None => return Ok(None),
            }
        }
        Ok(Some(()))
    };
    let register = |waiter: &_| errand::register(tracee, waiter, 0);
    match current.wait_for(None, Restart::NoIntr, register, attempt)? {
        Wait::Ready(()) => Ok(()),
        Wait::TimedOut => Err(Errno::EIO.into()),
    }
}

/// Returns the stopped tracee of the caller that uses an address space.
pub(crate) fn tracee_with(current: &CurrentTask, mm: &Arc<MemoryManager>) -> Option<Arc<Task>> {
    let tracees = current.ptrace.tracees.lock().clone();
    let task = tracees
        .into_iter()
        .find(|task| Arc::ptr_eq(&task.mm(), mm) && stopped(current, Arc::clone(task)).is_ok())?;
    Some(task)
}

/// Writes to the memory of a stopped tracee, by force where that is needed and possible. Returns how
/// much has been written; nothing where the caller must wait with [`errand::register`] and write
/// again.
///
/// # Errors
/// `EIO`; `ESRCH` where it is no stopped tracee of the caller any more.
pub(crate) fn write_some(
    current: &CurrentTask,
    tracee: &Arc<Task>,
    mm: &MemoryManager,
    addr: u64,
    bytes: &[u8],
) -> SysResult<Option<usize>> {
    match plan(mm, addr, bytes)? {
        Written::Done(n) => Ok(Some(n)),
        Written::Forced(key, errand) => {
            let Some(results) = errand::poll(current, tracee, key, || errand)? else {
                return Ok(None);
            };
            if results.values.iter().any(Result::is_err) {
                return Err(Errno::EIO);
            }
            Ok(Some(forced_len(addr, bytes)))
        }
    }
}

fn plan(mm: &MemoryManager, addr: u64, bytes: &[u8]) -> SysResult<Written> {
    let room = mm.writable_prefix(addr, bytes.len() as u64).len;
    let room = usize::try_from(room).unwrap_or(0);
    if let Some(part) = bytes.get(..room).filter(|part| !part.is_empty()) {
        return match mm.address_space()?.write(UserAddr(addr), part) {
            Ok(n) if n > 0 => Ok(Written::Done(n)),
            _ => Err(Errno::EIO),
        };
    }
    let prot = mm.private_prot(addr).ok_or(Errno::EIO)?;
    let part = bytes.get(..forced_len(addr, bytes)).unwrap_or_default();
    let key = part
        .iter()
        .fold(0u64, |hash, byte| hash.rotate_left(5).wrapping_mul(0x100_0193) ^ u64::from(*byte));
    let calls = forced(addr, part, prot);
    Ok(Written::Forced((addr, part.len() as u64, key), Errand::HostCalls(calls)))
}

fn forced_len(addr: u64, bytes: &[u8]) -> usize {
    let to_page_end = usize::try_from(PAGE_SIZE - addr % PAGE_SIZE).unwrap_or(CHUNK);
    bytes.len().min(CHUNK).min(to_page_end)
}

/// Returns the host calls that write `bytes`, which lie in one page.
fn forced(addr: u64, bytes: &[u8], prot: ProtFlags) -> Vec<HostCall> {
    let page = page_down(addr);
    let own = crate::mm::vma::host_prot(prot);
    let open = crate::mm::vma::host_prot(prot | ProtFlags::READ | ProtFlags::WRITE);
    let mut calls = vec![HostCall::Mprotect { addr: page, len: PAGE_SIZE, prot: open }];
    let end = addr.saturating_add(bytes.len() as u64);
    let mut word = addr & !3;
    while word < end {
        let (mut keep, mut value) = (u32::MAX, 0u32);
        for i in 0..4u32 {
            let at = word.saturating_add(i.into()).checked_sub(addr);
            let at = at.and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = at.and_then(|at| bytes.get(at)) {
                keep &= !(0xff << (8 * i));
                value |= u32::from(*byte) << (8 * i);
            }
        }
        calls.push(HostCall::AtomicUpdate { addr: word, and: keep, xor: value, add: false });
        word = word.saturating_add(4);
    }
    calls.push(HostCall::Mprotect { addr: page, len: PAGE_SIZE, prot: own });
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forced_writes_keep_what_is_around() {
        let calls = forced(0x1003, &[0xaa, 0xbb], ProtFlags::READ | ProtFlags::EXEC);
        let updates: Vec<_> = calls
            .iter()
            .filter_map(|call| match call {
                HostCall::AtomicUpdate { addr, and, xor, add: false } => Some((*addr, *and, *xor)),
                _ => None,
            })
            .collect();
        assert_eq!(updates, [(0x1000, 0x00ff_ffff, 0xaa00_0000), (0x1004, 0xffff_ff00, 0xbb)]);
        assert_eq!(calls.len(), 4);
    }

    #[test]
    fn forced_writes_stay_in_their_page() {
        assert_eq!(forced_len(0x1ffe, &[0; 8]), 2);
        assert_eq!(forced_len(0x1000, &[0; 8]), 8);
    }
}
