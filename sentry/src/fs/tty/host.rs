//! A terminal of the host as a controlling terminal.
//!
//! Its line discipline is the host's; which of the sandbox's process groups is in the foreground
//! is known here only. Whoever started the sandbox passes the signals of its keys on.

use std::sync::{Arc, Weak};

use syscalls::abi::fs::makedev;
use syscalls::abi::ioctl::{TCFLSH, TCSBRK, TCSBRKP, TCSETS, TCSETSF, TCSETSW, TCXONC, TIOCSWINSZ};
use syscalls::abi::signal::{SIGTTIN, SIGTTOU, SIGWINCH};
use syscalls::{Errno, SysResult};

use super::job::{JobControl, Side};
use crate::fs::host_fd::HostFile;
use crate::sync::{Events, Registration, Waiter};
use crate::task::job::{ProcessGroup, Terminal};
use crate::task::{Control, CurrentTask, HandlerResult};
use crate::vfs::{Attr, File, Inode, IoSink, IoSource, OpenFile, WriteOffset};

/// A terminal of the host.
pub(crate) struct HostTerminal {
    this: Weak<HostTerminal>,
    host: Arc<HostFile>,
    pub(crate) job: JobControl,
}

impl HostTerminal {
    /// Creates a terminal over a standard stream.
    pub(crate) fn new(host: Arc<HostFile>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { this: this.clone(), host, job: JobControl::default() })
    }

    /// Opens the terminal, as `node` or as a standard stream without a name.
    pub(super) fn open(&self, node: &Arc<dyn Inode>) -> SysResult<Arc<dyn File>> {
        let terminal = self.this.upgrade().ok_or(Errno::EIO)?;
        let host = self.host.clone();
        Ok(Arc::new(TerminalFile { terminal, host, node: Some(node.clone()) }))
    }

    /// Returns a standard stream of the terminal over the descriptor that it was started with;
    /// `node` is the device that it is shown as.
    pub(crate) fn stream(
        self: &Arc<Self>,
        host: Arc<HostFile>,
        node: Option<Arc<dyn Inode>>,
    ) -> Arc<dyn File> {
        Arc::new(TerminalFile { terminal: self.clone(), host, node })
    }
}

impl Terminal for HostTerminal {
    fn device(&self) -> u64 {
        makedev(super::AUX_MAJOR, 1)
    }

    fn disassociate(&self) -> Option<Arc<ProcessGroup>> {
        self.job.release().1
    }

    fn foreground(&self) -> Option<Arc<ProcessGroup>> {
        self.job.foreground()
    }
}

/// An open terminal of the host.
pub(crate) struct TerminalFile {
    terminal: Arc<HostTerminal>,
    host: Arc<HostFile>,
    node: Option<Arc<dyn Inode>>,
}

impl TerminalFile {
    fn check(&self, task: &CurrentTask, signo: i32) -> SysResult<()> {
        self.terminal.job.check(task, signo).map_err(|control| match control {
            Control::Error(errno) => errno,
            _ => Errno::EAGAIN,
        })
    }
}

impl File for TerminalFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        self.node.clone()
    }

    fn attr(&self) -> SysResult<Attr> {
        match &self.node {
            Some(node) => node.attr(),
            None => self.host.attr(),
        }
    }

    fn anonymous_name(&self) -> String {
        self.host.anonymous_name()
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.check(task, SIGTTIN)?;
        self.host.read(task, dst, offset)
    }

    fn write(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        self.host.write(task, src, offset)
    }

    fn poll(&self) -> Events {
        self.host.poll()
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        self.host.register(waiter, mask, key)
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn ioctl(&self, task: &CurrentTask, open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        let job = &self.terminal.job;
        let terminal: Arc<dyn Terminal> = self.terminal.clone();
        let result = job.ioctl(task, Side::Terminal, open.is_readable(), &terminal, request, arg);
        if let Some(result) = result {
            return result;
        }
        let is_change =
            matches!(request, TCSETS | TCSETSW | TCSETSF | TCSBRK | TCSBRKP | TCFLSH | TCXONC);
        if is_change {
            job.check(task, SIGTTOU)?;
        }
        let value = self.host.ioctl(task, open, request, arg)?;
        if request == TIOCSWINSZ {
            job.signal_foreground(SIGWINCH);
        }
        Ok(value)
    }

    fn reopen(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(self)
    }
}
