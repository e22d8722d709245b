//! The memory devices: `null`, `zero`, `full`, `random`, `urandom` (`mem(4)`, `random(4)`).

use std::sync::Arc;

use sentry_platform::lent::FileSource;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use crate::kernel::Kernel;
use crate::sync::Events;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::special::Opener;
use crate::vfs::{File, Inode, IoSink, IoSource, OpenFile, WriteOffset};

/// The major number of the memory devices.
const MAJOR: u32 = 1;

/// The request for the number of bits of entropy.
const RNDGETENTCNT: u32 = 0x8004_5200;

/// The bits of entropy that there always are, as `kernel/random/entropy_avail` has them.
const ENTROPY: i32 = 256;

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

struct Driver(Kind);

struct Device {
    kind: Kind,
    node: Arc<dyn Inode>,
}

/// Registers the drivers.
pub fn register(kernel: &Kernel) {
    let drivers =
        [(3, Kind::Null), (5, Kind::Zero), (7, Kind::Full), (8, Kind::Random), (9, Kind::Random)];
    for (minor, kind) in drivers {
        kernel.special_files.register_device(MAJOR, Some(minor), Arc::new(Driver(kind)));
    }
}

impl Opener for Driver {
    fn open(
        &self,
        _task: &CurrentTask,
        node: &Arc<dyn Inode>,
        _rdev: u64,
        _flags: u32,
    ) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(Device { kind: self.0, node: node.clone() }))
    }
}

impl File for Device {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        match self.kind {
            Kind::Null => Ok(0),
            Kind::Zero | Kind::Full => dst.put_zeros(dst.remaining()),
            Kind::Random => {
                let mut done = 0;
                let mut chunk = [0; 512];
                while dst.remaining() > 0 {
                    let n = dst.remaining().min(chunk.len());
                    sentry_host::random::fill(&mut chunk)?;
                    match dst.put(chunk.get(..n).unwrap_or_default()) {
                        Ok(put) => done += put,
                        Err(errno) if done == 0 => return Err(errno),
                        Err(_) => break,
                    }
                }
                Ok(done)
            }
        }
    }

    fn write(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let at = match offset {
            WriteOffset::At(at) => at,
            WriteOffset::Append => 0,
        };
        match self.kind {
            Kind::Full => Err(Errno::ENOSPC),
            Kind::Null | Kind::Zero | Kind::Random => {
                let n = src.remaining();
                Ok((n, at.saturating_add(n as u64)))
            }
        }
    }

    fn lend_source(&self) -> Option<FileSource> {
        match self.kind {
            Kind::Null => Some(FileSource::Nothing),
            Kind::Zero => Some(FileSource::Zeros),
            Kind::Full | Kind::Random => None,
        }
    }

    fn is_same_everywhere(&self) -> bool {
        true
    }

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        if self.kind != Kind::Random || request != RNDGETENTCNT {
            return Err(Errno::ENOTTY.into());
        }
        task.write_obj(UserPtr::new(UserAddr(arg)), &ENTROPY)?;
        Ok(0)
    }

    fn poll(&self) -> Events {
        Events::READABLE | Events::WRITABLE
    }

    fn is_pollable(&self) -> bool {
        self.kind == Kind::Random
    }

    fn can_splice_from(&self) -> bool {
        self.kind != Kind::Null
    }

    fn can_splice_to(&self) -> bool {
        self.kind != Kind::Full
    }
}
