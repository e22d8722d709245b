//! What lies in the memory of a process: `cmdline`, `environ`, `auxv` and `mem` itself.

use std::sync::{Arc, Weak};

use syscalls::{Errno, SysResult, UserAddr};

use super::Look;
use crate::mm::MemoryManager;
use crate::sync::{Events, Mutex, Registration, Waiter};
use crate::task::ptrace::{errand, memory};
use crate::task::{CurrentTask, Task};
use crate::vfs::{File, Inode, IoSink, IoSource, WriteOffset};

/// The size of a step through another process's memory.
const STEP: usize = 64 << 10;
/// The most bytes that a tracer has its tracee write at once.
const FORCED: usize = 128;

pub(super) fn cmdline(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let Some(mm) = look.mm() else { return Ok(Vec::new()) };
    let layout = mm.layout();
    let args = mm.read_range(layout.arg_start, layout.arg_end);
    if args.last().is_none_or(|last| *last == 0) {
        return Ok(args);
    }
    // A program that has written over the end of its arguments (setproctitle(3)) shows one string,
    // which may go on into the environment.
    if let Some(end) = args.iter().position(|byte| *byte == 0) {
        return Ok(args.get(..=end).unwrap_or_default().to_vec());
    }
    let mut title = args;
    if layout.env_start == layout.arg_end {
        let rest = mm.read_range(layout.env_start, layout.env_end);
        let end = rest.iter().position(|byte| *byte == 0).map_or(rest.len(), |end| end + 1);
        title.extend_from_slice(rest.get(..end).unwrap_or_default());
    }
    Ok(title)
}

pub(super) fn environ(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let Some(mm) = look.mm() else { return Ok(Vec::new()) };
    let layout = mm.layout();
    Ok(mm.read_range(layout.env_start, layout.env_end))
}

pub(super) fn auxv(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let Some(mm) = look.mm() else { return Ok(Vec::new()) };
    Ok(mm.auxv())
}

/// An open `/proc/PID/mem`: the address space that the process had at the open.
pub(super) struct MemFile {
    node: Arc<dyn Inode>,
    mm: Arc<MemoryManager>,
    /// The tracee that is writing for its tracer.
    waits_for: Mutex<Weak<Task>>,
}

impl MemFile {
    pub(super) fn new(node: Arc<dyn Inode>, mm: Arc<MemoryManager>) -> Self {
        Self { node, mm, waits_for: Mutex::new(Weak::new()) }
    }
}

impl File for MemFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        let host = self.mm.address_space()?;
        let mut done = 0usize;
        let mut buffer = vec![0; dst.remaining().min(STEP)];
        while dst.remaining() > 0 {
            let n = dst.remaining().min(buffer.len());
            let Some(chunk) = buffer.get_mut(..n) else { break };
            let at = offset.saturating_add(done as u64);
            let got = match host.read(UserAddr(at), chunk) {
                Ok(got) if got > 0 => got,
                Err(Errno::ESRCH) => break,
                _ if done == 0 => return Err(Errno::EIO),
                _ => break,
            };
            let put = dst.put(chunk.get(..got).unwrap_or_default())?;
            done += put;
            if put < n {
                break;
            }
        }
        Ok(done)
    }

    fn write(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let WriteOffset::At(offset) = offset else { return Err(Errno::EINVAL) };
        let host = self.mm.address_space()?;
        let mut done = 0usize;
        let mut buffer = vec![0; src.remaining().min(STEP)];
        while src.remaining() > 0 {
            let at = offset.saturating_add(done as u64);
            let room = self.mm.writable_prefix(at, buffer.len() as u64).len;
            let room = usize::try_from(room).unwrap_or(0).min(buffer.len());
            if room == 0
                && let Some(tracee) = memory::tracee_with(task, &self.mm)
            {
                let n = FORCED.min(buffer.len());
                let n = src.get(buffer.get_mut(..n).unwrap_or_default())?;
                let bytes = buffer.get(..n).unwrap_or_default();
                match memory::write_some(task, &tracee, &self.mm, at, bytes) {
                    // The source is somewhere else than the memory now: the caller writes the rest.
                    Ok(Some(written)) => return Ok((done + written, at + written as u64)),
                    Ok(None) if done == 0 => {
                        *self.waits_for.lock() = Arc::downgrade(&tracee);
                        return Err(Errno::EAGAIN);
                    }
                    Err(errno) if done == 0 => return Err(errno),
                    _ => return Ok((done, at)),
                }
            }
            if room == 0 {
                return if done == 0 { Err(Errno::EIO) } else { Ok((done, at)) };
            }
            let n = src.get(buffer.get_mut(..room).unwrap_or_default())?;
            let written = host.write(UserAddr(at), buffer.get(..n).unwrap_or_default());
            match written {
                Ok(written) if written > 0 => done += written,
                Err(Errno::ESRCH) => break,
                _ if done == 0 => return Err(Errno::EIO),
                _ => break,
            }
        }
        Ok((done, offset.saturating_add(done as u64)))
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, _mask: Events, key: u64) -> Vec<Registration> {
        let tracee = self.waits_for.lock().upgrade();
        tracee.map(|tracee| errand::register(&tracee, waiter, key)).unwrap_or_default()
    }

    fn seek(&self, _offset: i64, _whence: i32) -> SysResult<u64> {
        Err(Errno::EINVAL)
    }
}
