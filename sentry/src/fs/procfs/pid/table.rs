//! The files in a task's directory, in Linux's order (`tgid_base_stuff`, `tid_base_stuff` in
//! `fs/proc/base.c`).

use syscalls::SysResult;

use super::super::mounts::Format;
use super::{Look, id_maps, links, maps, memory, settings, status};
use crate::task::Credentials;
use crate::vfs::FileType;
use crate::vfs::path::Path;

/// Makes the content of a file.
pub(super) type ShowFn = fn(&Look<'_>) -> SysResult<Vec<u8>>;

/// Takes what has been written to a file.
pub(super) type StoreFn = fn(&Look<'_>, &[u8]) -> SysResult<()>;

/// Takes what has been written to a file, judged by the credentials with which it was opened.
pub(super) type StoreAsFn = fn(&Look<'_>, &[u8], &Credentials) -> SysResult<()>;

/// Returns where a link leads.
pub(super) type TargetFn = fn(&crate::task::Task) -> SysResult<Path>;

/// What an entry is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text {
        show: ShowFn,
        store: Option<StoreFn>,
        /// Whether only who may inspect the process can open the file.
        is_private: bool,
    },
    /// A text whose writer is whoever opened the file.
    AsOpened {
        show: ShowFn,
        store: StoreAsFn,
    },
    Link(TargetFn),
    Mounts(Format),
    Mem,
    Fd,
    FdInfo,
    Net,
    Ns,
    Task,
}

/// A file in a task's directory.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

impl Entry {
    pub(super) fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode)
    }
}

const REG: u32 = 0o100_000;
const DIR: u32 = 0o040_000;
const LNK: u32 = 0o120_000;

const fn text(name: &'static str, mode: u32, show: ShowFn) -> Entry {
    Entry { name, mode: REG | mode, kind: Kind::Text { show, store: None, is_private: false } }
}

const fn private(name: &'static str, mode: u32, show: ShowFn) -> Entry {
    Entry { name, mode: REG | mode, kind: Kind::Text { show, store: None, is_private: true } }
}

const fn writable(name: &'static str, mode: u32, show: ShowFn, store: StoreFn) -> Entry {
    let kind = Kind::Text { show, store: Some(store), is_private: false };
    Entry { name, mode: REG | mode, kind }
}

const fn as_opened(name: &'static str, show: ShowFn, store: StoreAsFn) -> Entry {
    Entry { name, mode: REG | 0o644, kind: Kind::AsOpened { show, store } }
}

const fn dir(name: &'static str, mode: u32, kind: Kind) -> Entry {
    Entry { name, mode: DIR | mode, kind }
}

const fn link(name: &'static str, target: TargetFn) -> Entry {
    Entry { name, mode: LNK | 0o777, kind: Kind::Link(target) }
}

const fn other(name: &'static str, mode: u32, kind: Kind) -> Entry {
    Entry { name, mode: REG | mode, kind }
}

/// The files of a process.
pub(super) const TASK_ENTRIES: &[Entry] = &[
    dir("task", 0o555, Kind::Task),
    dir("fd", 0o500, Kind::Fd),
    dir("fdinfo", 0o555, Kind::FdInfo),
    dir("ns", 0o511, Kind::Ns),
    dir("net", 0o555, Kind::Net),
    private("environ", 0o400, memory::environ),
    private("auxv", 0o400, memory::auxv),
    text("status", 0o444, status::status),
    text("personality", 0o400, status::personality),
    text("limits", 0o444, status::limits),
    as_opened("timens_offsets", settings::timens_offsets, settings::set_timens_offsets),
    writable("comm", 0o644, settings::comm, settings::set_comm),
    text("syscall", 0o400, status::syscall),
    text("cmdline", 0o444, memory::cmdline),
    text("stat", 0o444, status::stat),
    text("statm", 0o444, status::statm),
    private("maps", 0o444, maps::maps),
    other("mem", 0o600, Kind::Mem),
    link("cwd", links::cwd),
    link("root", links::root),
    link("exe", links::exe),
    other("mounts", 0o444, Kind::Mounts(Format::Mounts)),
    other("mountinfo", 0o444, Kind::Mounts(Format::MountInfo)),
    other("mountstats", 0o400, Kind::Mounts(Format::MountStats)),
    private("smaps", 0o444, maps::smaps),
    private("smaps_rollup", 0o444, maps::smaps_rollup),
    text("wchan", 0o444, status::wchan),
    text("schedstat", 0o444, status::schedstat),
    text("cpuset", 0o444, status::cpuset),
    text("cgroup", 0o444, status::cgroup),
    text("oom_score", 0o444, settings::oom_score),
    writable("oom_adj", 0o644, settings::oom_adj, settings::set_oom_adj),
    writable("oom_score_adj", 0o644, settings::oom_score_adj, settings::set_oom_score_adj),
    text("loginuid", 0o644, settings::unset_id),
    text("sessionid", 0o444, settings::unset_id),
    writable("coredump_filter", 0o644, settings::coredump_filter, settings::set_coredump_filter),
    text("io", 0o400, status::io),
    as_opened("uid_map", id_maps::uid_map, id_maps::set_uid_map),
    as_opened("gid_map", id_maps::gid_map, id_maps::set_gid_map),
    writable("projid_map", 0o644, id_maps::projid_map, settings::refuse),
    as_opened("setgroups", id_maps::setgroups, id_maps::set_setgroups),
    text("timers", 0o444, settings::timers),
    writable("timerslack_ns", 0o666, settings::timer_slack, settings::set_timer_slack),
];

/// The files of a thread.
pub(super) const THREAD_ENTRIES: &[Entry] = &[
    dir("fd", 0o500, Kind::Fd),
    dir("fdinfo", 0o555, Kind::FdInfo),
    dir("ns", 0o511, Kind::Ns),
    dir("net", 0o555, Kind::Net),
    private("environ", 0o400, memory::environ),
    private("auxv", 0o400, memory::auxv),
    text("status", 0o444, status::status),
    text("personality", 0o400, status::personality),
    text("limits", 0o444, status::limits),
    writable("comm", 0o644, settings::comm, settings::set_comm),
    text("syscall", 0o400, status::syscall),
    text("cmdline", 0o444, memory::cmdline),
    text("stat", 0o444, status::stat),
    text("statm", 0o444, status::statm),
    private("maps", 0o444, maps::maps),
    text("children", 0o444, status::children),
    other("mem", 0o600, Kind::Mem),
    link("cwd", links::cwd),
    link("root", links::root),
    link("exe", links::exe),
    other("mounts", 0o444, Kind::Mounts(Format::Mounts)),
    other("mountinfo", 0o444, Kind::Mounts(Format::MountInfo)),
    private("smaps", 0o444, maps::smaps),
    private("smaps_rollup", 0o444, maps::smaps_rollup),
    text("wchan", 0o444, status::wchan),
    text("schedstat", 0o444, status::schedstat),
    text("cpuset", 0o444, status::cpuset),
    text("cgroup", 0o444, status::cgroup),
    text("oom_score", 0o444, settings::oom_score),
    writable("oom_adj", 0o644, settings::oom_adj, settings::set_oom_adj),
    writable("oom_score_adj", 0o644, settings::oom_score_adj, settings::set_oom_score_adj),
    text("loginuid", 0o644, settings::unset_id),
    text("sessionid", 0o444, settings::unset_id),
    text("io", 0o400, status::io),
    as_opened("uid_map", id_maps::uid_map, id_maps::set_uid_map),
    as_opened("gid_map", id_maps::gid_map, id_maps::set_gid_map),
    writable("projid_map", 0o644, id_maps::projid_map, settings::refuse),
    as_opened("setgroups", id_maps::setgroups, id_maps::set_setgroups),
];
