//! What lies in the memory of a process: `cmdline`, `environ`, `auxv` and `mem` itself.

use std::sync::Arc;

use syscalls::{Errno, SysResult, UserAddr};

use super::Look;
use crate::mm::MemoryManager;
use crate::task::CurrentTask;
use crate::vfs::{File, Inode, IoSink, IoSource, WriteOffset};

/// The most bytes of arguments or environment that are shown.
const MAX_STRINGS: u64 = 8 << 20;

/// The size of a step through another process's memory.
const STEP: usize = 64 << 10;

/// Reads what is readable of a range, from its start on.
fn read_range(mm: &MemoryManager, start: u64, end: u64) -> Vec<u8> {
    let len = end.saturating_sub(start).min(MAX_STRINGS);
    let Ok(host) = mm.address_space() else { return Vec::new() };
    let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
    let mut done = 0;
    while let Some(rest) = data.get_mut(done..)
        && !rest.is_empty()
    {
        match host.read(UserAddr(start.saturating_add(done as u64)), rest) {
            Ok(n) if n > 0 => done += n,
            _ => break,
        }
    }
    data.truncate(done);
    data
}

pub(super) fn cmdline(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let Some(mm) = look.mm() else { return Ok(Vec::new()) };
    let layout = mm.layout();
    let args = read_range(&mm, layout.arg_start, layout.arg_end);
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
        let rest = read_range(&mm, layout.env_start, layout.env_end);
        let end = rest.iter().position(|byte| *byte == 0).map_or(rest.len(), |end| end + 1);
        title.extend_from_slice(rest.get(..end).unwrap_or_default());
    }
    Ok(title)
}

pub(super) fn environ(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let Some(mm) = look.mm() else { return Ok(Vec::new()) };
    let layout = mm.layout();
    Ok(read_range(&mm, layout.env_start, layout.env_end))
}

pub(super) fn auxv(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let Some(mm) = look.mm() else { return Ok(Vec::new()) };
    let mut entries = mm.layout().auxv;
    if entries.last() != Some(&(0, 0)) {
        entries.push((0, 0));
    }
    Ok(entries
        .iter()
        .flat_map(|(key, value)| [key.to_le_bytes(), value.to_le_bytes()])
        .flatten()
        .collect())
}

/// An open `/proc/PID/mem`: the address space that the process had at the open.
pub(super) struct MemFile {
    node: Arc<dyn Inode>,
    mm: Arc<MemoryManager>,
}

impl MemFile {
    pub(super) fn new(node: Arc<dyn Inode>, mm: Arc<MemoryManager>) -> Self {
        Self { node, mm }
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
        _task: &CurrentTask,
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

    fn seek(&self, _offset: i64, _whence: i32) -> SysResult<u64> {
        Err(Errno::EINVAL)
    }
}
