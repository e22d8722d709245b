//! `signalfd(2)`: pending signals as records to be read.
//!
//! A read takes the signals of whoever reads, as on Linux. Readiness is that of the process that
//! made the descriptor or read from it last.

use std::sync::{Arc, Weak};

use syscalls::abi::signal::{
    SI_TIMER, SI_TKILL, SI_USER, SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGIO, SIGSEGV, SIGSYS, SIGTRAP,
    SigSet, Siginfo, SignalfdSiginfo,
};
use syscalls::arg::FromArg;
use syscalls::{Errno, SysResult};
use zerocopy::{FromZeros, IntoBytes};

use crate::sync::{Events, Mutex, Registration, Waiter};
use crate::task::{CurrentTask, ThreadGroup};
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::{Attr, File, IoSink};

/// A signalfd.
pub struct SignalFd {
    attr: Attr,
    mask: Mutex<SigSet>,
    group: Mutex<Weak<ThreadGroup>>,
}

impl SignalFd {
    /// Creates a descriptor for the signals of `mask`.
    pub fn new(task: &CurrentTask, mask: SigSet) -> Arc<Self> {
        Arc::new(Self {
            attr: anon::attr(task, AnonMount::Inode, 0o600),
            mask: Mutex::new(mask),
            group: Mutex::new(Arc::downgrade(&task.group)),
        })
    }

    /// Replaces the mask.
    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask;
        let group = self.group.lock().upgrade();
        if let Some(group) = group {
            group.signal_events.notify(Events::READABLE);
        }
    }

    fn take(&self, task: &CurrentTask) -> Option<Siginfo> {
        let wanted = *self.mask.lock();
        let mut group = task.group.signals.lock();
        let mut signals = task.signals.lock();
        let taken = signals.pending.take(wanted).or_else(|| group.pending.take(wanted));
        drop(signals);
        drop(group);
        let mut info = taken?;
        task.group.timers.signal_delivered(&mut info);
        Some(info)
    }
}

/// Converts a record as the kernel's `signalfd_copyinfo` does.
fn convert(info: &Siginfo) -> SignalfdSiginfo {
    let mut out = SignalfdSiginfo::new_zeroed();
    out.ssi_signo = info.si_signo.cast_unsigned();
    out.ssi_errno = info.si_errno;
    out.ssi_code = info.si_code;
    let sender = |out: &mut SignalfdSiginfo| {
        out.ssi_pid = info.pid().cast_unsigned();
        out.ssi_uid = info.uid();
    };
    let value = |out: &mut SignalfdSiginfo| {
        out.ssi_ptr = info.value();
        out.ssi_int = i32::from_arg(info.value());
    };
    match info.si_signo {
        _ if info.si_code == SI_USER || info.si_code == SI_TKILL => sender(&mut out),
        _ if info.si_code == SI_TIMER => {
            out.ssi_tid = info.timer_id().cast_unsigned();
            out.ssi_overrun = info.overrun().cast_unsigned();
            value(&mut out);
        }
        _ if info.si_code < 0 => {
            sender(&mut out);
            value(&mut out);
        }
        SIGCHLD => {
            sender(&mut out);
            out.ssi_status = info.status();
            let [_, _, utime, stime, ..] = info.fields;
            out.ssi_utime = utime;
            out.ssi_stime = stime;
        }
        SIGSEGV | SIGBUS | SIGILL | SIGFPE | SIGTRAP => out.ssi_addr = info.addr(),
        SIGIO => {
            out.ssi_band = u32::from_arg(info.addr());
            out.ssi_fd = info.fd();
        }
        SIGSYS => {
            out.ssi_call_addr = info.addr();
            out.ssi_syscall = info.fd();
        }
        _ => sender(&mut out),
    }
    out
}

impl File for SignalFd {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[signalfd]")
    }

    fn fd_info(&self, _task: &CurrentTask) -> String {
        format!("sigmask:\t{:016x}\n", self.mask.lock().0)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        const SIZE: usize = size_of::<SignalfdSiginfo>();
        if dst.remaining() < SIZE {
            return Err(Errno::EINVAL);
        }
        *self.group.lock() = Arc::downgrade(&task.group);
        let mut done = 0;
        while dst.remaining() >= SIZE {
            let Some(info) = self.take(task) else { break };
            match dst.put(convert(&info).as_bytes()) {
                Ok(SIZE) => done += SIZE,
                Ok(_) if done == 0 => return Err(Errno::EFAULT),
                Err(errno) if done == 0 => return Err(errno),
                _ => break,
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn poll(&self) -> Events {
        let Some(group) = self.group.lock().upgrade() else { return Events::empty() };
        let mask = *self.mask.lock();
        let shared = group.signals.lock().pending.set();
        let is_ready = !shared.intersection(mask).is_empty()
            || group
                .live_tasks()
                .iter()
                .any(|task| !task.signals.lock().pending.set().intersection(mask).is_empty());
        if is_ready { Events::READABLE } else { Events::empty() }
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        let group = self.group.lock().upgrade();
        group.map(|group| group.signal_events.register(waiter, mask, key)).into_iter().collect()
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn can_splice_from(&self) -> bool {
        false
    }

    fn can_splice_to(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use syscalls::abi::signal::{SI_USER, SIGTERM, Siginfo};

    use super::convert;

    #[test]
    fn record_names_the_sender() {
        let out = convert(&Siginfo::kill(SIGTERM, SI_USER, 7, 1000));
        assert_eq!((out.ssi_signo, out.ssi_pid, out.ssi_uid), (15, 7, 1000));
    }

    #[test]
    fn queued_record_carries_its_value() {
        let out = convert(&Siginfo::queue(40, -1, 7, 1000, 42));
        assert_eq!((out.ssi_int, out.ssi_ptr), (42, 42));
    }
}
