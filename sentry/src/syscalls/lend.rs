//! Lending streams that are in lively use to the processes that use them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::arg::Fd;

use crate::task::CurrentTask;
use crate::vfs::OpenFile;
use crate::vfs::file::StreamUser;

/// Has the stream that the task has just used by `fd` lent to its process, where that pays.
pub(super) fn offer(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) {
    if !file.file.is_lively() || !task.has_fast_path.load(Ordering::Relaxed) {
        return;
    }
    let Some(streams) = task.context().address_space().streams() else { return };
    let table = task.files();
    // Where processes share memory, one of them has the streams.
    if !table.attach(&streams) {
        return;
    }
    task.context().set_table(table.id);
    let (file, creds) = (file.clone(), task.creds());
    let user = StreamUser { streams, fd: fd.0, table, file, creds };
    for call in user.file.file.lend(&user) {
        task.queue_host_call(call);
    }
}

/// Says that the task has another descriptor table from now on.
pub(super) fn table_changed(task: &CurrentTask) {
    task.context().set_table(0);
}
