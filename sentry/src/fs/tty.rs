//! Terminals: pseudo-terminals, their line discipline, job control, and the devices `/dev/tty`,
//! `/dev/console` and `/dev/ptmx`.
//!
//! The sandbox's own terminal, where it has one, is a terminal of the host, which edits lines
//! and processes output itself; [`host`] gives it job control.

pub(crate) mod host;
pub(crate) mod job;

mod ioctl;
mod line;
pub(crate) mod pty;

use std::sync::Arc;

use syscalls::abi::fs::OpenFlags;
use syscalls::{Errno, SysResult};

use self::host::HostTerminal;
use self::pty::Pty;
use crate::kernel::Kernel;
use crate::task::CurrentTask;
use crate::task::job::Terminal;
use crate::vfs::special::Opener;
use crate::vfs::{File, Inode};

/// The major number of `/dev/tty`, `/dev/console` and `/dev/ptmx`.
pub(crate) const AUX_MAJOR: u32 = 5;

/// Registers the drivers of `/dev/tty` and `/dev/console`.
pub fn register(kernel: &Kernel) {
    kernel.special_files.register_device(AUX_MAJOR, Some(0), Arc::new(OwnTerminal));
    kernel.special_files.register_device(AUX_MAJOR, Some(1), Arc::new(OwnTerminal));
}

/// The driver of `/dev/tty`: whatever controls the opener's session.
struct OwnTerminal;

impl Opener for OwnTerminal {
    fn open(
        &self,
        task: &CurrentTask,
        node: &Arc<dyn Inode>,
        _rdev: u64,
        _flags: u32,
    ) -> SysResult<Arc<dyn File>> {
        let terminal = task.group.session().terminal.lock().clone().ok_or(Errno::ENXIO)?;
        let terminal: Arc<dyn std::any::Any + Send + Sync> = terminal;
        match terminal.downcast::<Pty>() {
            Ok(pty) => Ok(pty.open_slave(task, node.clone(), false)?),
            Err(terminal) => {
                let host = terminal.downcast::<HostTerminal>().map_err(|_| Errno::ENXIO)?;
                host.open(node)
            }
        }
    }
}

/// Returns whether opening with these flags may give the opener a controlling terminal.
pub(crate) fn may_control(flags: u32) -> bool {
    let is_readable = matches!(flags & 0o3, 0 | 2);
    is_readable && flags & OpenFlags::NOCTTY.bits() == 0
}

/// Makes the host's terminal the controlling one of the session of a new container's first process.
pub(crate) fn attach(task: &Arc<crate::task::Task>, terminal: &Arc<HostTerminal>) {
    let as_terminal: Arc<dyn Terminal> = terminal.clone();
    terminal.job.acquire_for(&task.group.process_group(), as_terminal);
}
