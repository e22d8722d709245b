//! Lending streams, files and masks that are in lively use to the processes that use them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::HostCall;
use syscalls::abi::resource::RLIMIT_FSIZE;
use syscalls::arg::Fd;

use crate::task::CurrentTask;
use crate::task::limits::INFINITY;
use crate::vfs::file::StreamUser;
use crate::vfs::fs_context::FsContext;
use crate::vfs::{OpenFile, lent};

/// Has the stream that the task has just used by `fd` lent to its process, where that pays.
pub(super) fn offer(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) {
    if !file.file.is_lively() {
        return;
    }
    let Some(user) = user(task, fd, file) else { return };
    for call in user.file.file.lend(&user) {
        task.queue_host_call(call);
    }
}

/// Has the file that the task has just read, or the device that it has used, by `fd` lent to its process, where that pays.
pub(super) fn offer_file(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) {
    for call in lend_file(task, fd, file, false) {
        task.queue_host_call(call);
    }
}

/// Does the same where the process has been handed over what it takes.
pub(super) fn offer_held_file(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) {
    lend_file(task, fd, file, false);
}

/// Has the file that the task has just written to by `fd` lent to its process, where that pays.
pub(super) fn offer_written_file(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) {
    for call in lend_file(task, fd, file, true) {
        task.queue_host_call(call);
    }
}

fn lend_file(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>, writes: bool) -> Vec<HostCall> {
    let is_lively = if writes { file.offset.note_write() } else { file.offset.note_read() };
    if !is_lively {
        return Vec::new();
    }
    // Its process does not look at limits.
    let may_write = task.group.limits.lock().soft(RLIMIT_FSIZE) == INFINITY;
    let Some(use_) = lent::can_be_lent(file, writes, may_write) else { return Vec::new() };
    user(task, fd, file).map_or_else(Vec::new, |user| lent::lend(&user, use_))
}

/// Has the mask for new files that the task has just changed lent to its process, where that pays.
pub(super) fn offer_umask(task: &CurrentTask, fs: &FsContext) {
    if !fs.is_umask_lively() || !may_be_lent(task) {
        return;
    }
    if let Some(streams) = task.context().address_space().streams() {
        task.context().set_umask(fs.lend_umask(&*streams).unwrap_or(0));
    }
}

/// Returns how the task uses `file`, where it may be lent something.
fn user(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) -> Option<StreamUser> {
    if !may_be_lent(task) {
        return None;
    }
    let streams = task.context().address_space().streams()?;
    let table = task.files();
    // Where processes share memory, one of them has the streams.
    if !table.attach(&streams) {
        return None;
    }
    task.context().set_table(table.id);
    Some(StreamUser {
        streams,
        fd: fd.0,
        table,
        file: file.clone(),
        creds: task.creds(),
        pids: Arc::downgrade(&task.pid_namespace()),
        thread: u64::from(task.tid()),
        is_dumpable: task.group.is_dumpable.load(Ordering::Relaxed),
    })
}

/// Returns whether the task may be lent anything. Whoever gets a filter is told that it is lent nothing any more.
fn may_be_lent(task: &CurrentTask) -> bool {
    task.has_fast_path.load(Ordering::Relaxed) && task.seccomp.allows_lending()
}

/// Says that the task has another mask for new files from now on.
pub(super) fn umask_changed(task: &CurrentTask) {
    task.context().set_umask(0);
}

/// Says that the task has another descriptor table from now on.
pub(super) fn table_changed(task: &CurrentTask) {
    task.context().set_table(0);
}
