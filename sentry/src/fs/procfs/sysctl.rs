//! `/proc/sys`: what can be said of the sandbox, as Linux's sysctls.
//!
//! Most are constants of Linux or of the sandbox and read-only. Those of a container's own (its
//! host name, the limits of its System V and POSIX IPC, its network) can be written.

use std::collections::BTreeMap;

use syscalls::abi::capability::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
use syscalls::{Errno, SysResult};

use super::super::pseudo::{Named, Numbers, Text};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::net::inet::Inet;
use crate::sync::Mutex;
use crate::syscalls::info::VERSION;
use crate::task::CurrentTask;
use crate::task::creds::ALL_CAPABILITIES;
use crate::task::namespaces::Uts;
use crate::task::pid_namespace::PID_MAX;
use crate::task::user_namespace::{Kind, UserNamespace};
use crate::vfs::fd_table;

/// What `fs.nr_open` can at most be.
const MAX_NR_OPEN: i128 = fd_table::MAX_NR_OPEN as i128;

/// What `fs.pipe-max-size` can at most be.
const MAX_PIPE_SIZE: u32 = 1 << 26;

/// The longest host name.
const UTS_LEN: usize = 64;

/// The sysctls that have been changed, by path below `/proc/sys`.
#[derive(Default)]
pub struct Sysctls(Mutex<BTreeMap<&'static str, String>>);

impl Sysctls {
    /// Returns the value of a sysctl that can be written, given by its path.
    pub fn words(&self, path: &str) -> String {
        if let Some(changed) = self.0.lock().get(path) {
            return changed.clone();
        }
        let known = TABLE.iter().find(|(known, _)| *known == path);
        match known {
            Some((_, Tunable(value) | Checked(value, _) | Words(value) | Fixed(value))) => {
                (*value).to_owned()
            }
            _ => String::new(),
        }
    }

    /// Returns one number of a sysctl that is a list of them, where it has been changed.
    pub fn changed_number(&self, path: &str, index: usize) -> Option<i128> {
        self.0.lock().get(path)?.split('\t').nth(index)?.parse().ok()
    }

    /// Returns the number of a sysctl that has been changed, and lets it have its default again.
    pub fn take_number(&self, path: &str) -> Option<i128> {
        self.0.lock().remove(path)?.parse().ok()
    }

    /// Returns one number of a sysctl that is a list of them.
    pub fn number(&self, path: &str, index: usize) -> Option<i64> {
        self.words(path).split('\t').nth(index)?.parse().ok()
    }
}

/// What a sysctl shows.
#[derive(Clone, Copy)]
enum Value {
    /// This, for good.
    Fixed(&'static str),
    /// What the function says.
    Shown(fn(&Kernel) -> String),
    /// What was the last number given in the reader's pid namespace.
    LastPid,
    /// A list of numbers that can be written, with its default.
    Numbers(&'static str),
    /// A number that can be written, with its default and what a new one becomes: `None` where it
    /// is refused.
    Checked(&'static str, fn(i128) -> Option<i128>),
    /// A text that can be written, with its default.
    Words(&'static str),
    /// The host name or the NIS domain name.
    HostName,
    DomainName,
    /// A number without a meaning, that of the reader's network namespace.
    Tag,
    /// How many namespaces of a kind the reader's user namespace may have.
    MaxNamespaces(Kind),
}

/// The namespaces that a change concerns.
struct Scope<'a> {
    uts: &'a Uts,
    users: &'a UserNamespace,
    inet: &'a Inet,
}

use Value::{
    Checked, DomainName, Fixed, HostName, LastPid, MaxNamespaces, Numbers as Tunable, Shown, Tag,
    Words,
};

/// All sysctls, by path.
const TABLE: &[(&str, Value)] = &[
    ("fs/aio-max-nr", Tunable("65536")),
    ("fs/aio-nr", Shown(|kernel| kernel.aio_requests.n().to_string())),
    ("fs/dentry-state", Fixed("0\t0\t45\t0\t0\t0")),
    ("fs/dir-notify-enable", Fixed("1")),
    ("fs/epoll/max_user_watches", Fixed("1048576")),
    ("fs/file-max", Fixed("9223372036854775807")),
    ("fs/file-nr", Shown(|kernel| format!("{}\t0\t9223372036854775807", n_files(kernel)))),
    ("fs/inode-nr", Fixed("0\t0")),
    ("fs/inode-state", Fixed("0\t0\t0\t0\t0\t0\t0")),
    ("fs/inotify/max_queued_events", Fixed("16384")),
    ("fs/inotify/max_user_instances", Tunable("128")),
    ("fs/inotify/max_user_watches", Fixed("65536")),
    ("fs/lease-break-time", Tunable("45")),
    ("fs/leases-enable", Fixed("1")),
    ("fs/mount-max", Fixed("100000")),
    ("fs/mqueue/msg_default", Tunable("10")),
    ("fs/mqueue/msg_max", Tunable("10")),
    ("fs/mqueue/msgsize_default", Tunable("8192")),
    ("fs/mqueue/msgsize_max", Tunable("8192")),
    ("fs/mqueue/queues_max", Tunable("256")),
    ("fs/nr_open", Checked("1048576", |new| (64..=MAX_NR_OPEN).contains(&new).then_some(new))),
    ("fs/overflowgid", Fixed("65534")),
    ("fs/overflowuid", Fixed("65534")),
    ("fs/pipe-max-size", Checked("1048576", pipe_size)),
    ("fs/pipe-user-pages-hard", Fixed("0")),
    ("fs/pipe-user-pages-soft", Fixed("16384")),
    ("fs/protected_fifos", Fixed("1")),
    ("fs/protected_hardlinks", Fixed("1")),
    ("fs/protected_regular", Fixed("1")),
    ("fs/protected_symlinks", Fixed("1")),
    ("fs/suid_dumpable", Fixed("0")),
    ("kernel/acct", Fixed("4\t2\t30")),
    ("kernel/arch", Fixed("x86_64")),
    ("kernel/auto_msgmni", Fixed("0")),
    ("kernel/cap_last_cap", Shown(|_| (63 - ALL_CAPABILITIES.leading_zeros()).to_string())),
    ("kernel/core_pattern", Words("core")),
    ("kernel/core_pipe_limit", Fixed("0")),
    ("kernel/core_uses_pid", Tunable("0")),
    ("kernel/ctrl-alt-del", Fixed("0")),
    ("kernel/dmesg_restrict", Fixed("1")),
    ("kernel/domainname", DomainName),
    ("kernel/hostname", HostName),
    ("kernel/io_uring_disabled", Fixed("2")),
    ("kernel/keys/gc_delay", Checked("300", not_negative)),
    ("kernel/keys/maxbytes", Checked("20000", not_negative)),
    ("kernel/keys/maxkeys", Checked("200", not_negative)),
    ("kernel/keys/root_maxbytes", Checked("25000000", not_negative)),
    ("kernel/keys/root_maxkeys", Checked("1000000", not_negative)),
    ("kernel/kptr_restrict", Fixed("1")),
    ("kernel/msg_next_id", Checked("-1", not_negative)),
    ("kernel/msgmax", Tunable("8192")),
    ("kernel/msgmnb", Tunable("16384")),
    ("kernel/msgmni", Tunable("32000")),
    ("kernel/ngroups_max", Fixed("65536")),
    ("kernel/ns_last_pid", LastPid),
    ("kernel/numa_balancing", Fixed("0")),
    ("kernel/osrelease", Shown(|kernel| kernel.release.clone())),
    ("kernel/ostype", Fixed("Linux")),
    ("kernel/overflowgid", Fixed("65534")),
    ("kernel/overflowuid", Fixed("65534")),
    ("kernel/panic", Fixed("0")),
    ("kernel/panic_on_oops", Fixed("0")),
    ("kernel/perf_event_paranoid", Fixed("4")),
    ("kernel/pid_max", Shown(|_| PID_MAX.to_string())),
    ("kernel/print-fatal-signals", Fixed("0")),
    ("kernel/printk", Tunable("4\t4\t1\t7")),
    ("kernel/printk_delay", Tunable("0")),
    ("kernel/printk_ratelimit", Tunable("5")),
    ("kernel/printk_ratelimit_burst", Tunable("10")),
    ("kernel/pty/max", Fixed("4096")),
    ("kernel/pty/reserve", Fixed("1024")),
    ("kernel/random/boot_id", Shown(boot_id)),
    ("kernel/random/entropy_avail", Fixed("256")),
    ("kernel/random/poolsize", Fixed("256")),
    ("kernel/random/urandom_min_reseed_secs", Fixed("60")),
    ("kernel/random/uuid", Shown(|_| uuid())),
    ("kernel/random/write_wakeup_threshold", Fixed("256")),
    ("kernel/randomize_va_space", Fixed("2")),
    ("kernel/sched_child_runs_first", Fixed("0")),
    ("kernel/sched_rr_timeslice_ms", Fixed("100")),
    ("kernel/sched_rt_period_us", Fixed("1000000")),
    ("kernel/sched_rt_runtime_us", Fixed("950000")),
    ("kernel/sem", Tunable("32000\t1024000000\t500\t32000")),
    ("kernel/sem_next_id", Checked("-1", not_negative)),
    ("kernel/shm_next_id", Checked("-1", not_negative)),
    ("kernel/shm_rmid_forced", Tunable("0")),
    ("kernel/shmall", Tunable("18446744073692774399")),
    ("kernel/shmmax", Tunable("18446744073692774399")),
    ("kernel/shmmni", Tunable("4096")),
    ("kernel/tainted", Fixed("0")),
    ("kernel/threads-max", Shown(|_| crate::kernel::MAX_TASKS.to_string())),
    ("kernel/unprivileged_bpf_disabled", Fixed("2")),
    ("kernel/version", Fixed(VERSION)),
    ("net/core/bpf_jit_enable", Fixed("1")),
    ("net/core/default_qdisc", Fixed("pfifo_fast")),
    ("net/core/netdev_max_backlog", Fixed("1000")),
    ("net/core/optmem_max", Fixed("131072")),
    ("net/core/rmem_default", Fixed("212992")),
    ("net/core/rmem_max", Fixed("212992")),
    ("net/core/somaxconn", Tunable("4096")),
    ("net/core/wmem_default", Fixed("212992")),
    ("net/core/wmem_max", Fixed("212992")),
    ("net/ipv4/conf/all/forwarding", Tunable("0")),
    ("net/ipv4/conf/all/tag", Tag),
    ("net/ipv4/conf/default/forwarding", Tunable("0")),
    ("net/ipv4/conf/default/tag", Tag),
    ("net/ipv4/conf/lo/forwarding", Tunable("0")),
    ("net/ipv4/conf/lo/tag", Tag),
    ("net/ipv4/icmp_echo_ignore_all", Tunable("0")),
    ("net/ipv4/ip_default_ttl", Tunable("64")),
    ("net/ipv4/ip_forward", Tunable("0")),
    ("net/ipv4/ip_local_port_range", Tunable("32768\t60999")),
    ("net/ipv4/ip_local_reserved_ports", Words("")),
    ("net/ipv4/ip_nonlocal_bind", Tunable("0")),
    ("net/ipv4/ip_unprivileged_port_start", Tunable("1024")),
    ("net/ipv4/ping_group_range", Tunable("1\t0")),
    ("net/ipv4/tcp_allowed_congestion_control", Words("reno")),
    ("net/ipv4/tcp_available_congestion_control", Fixed("reno")),
    ("net/ipv4/tcp_congestion_control", Words("reno")),
    ("net/ipv4/tcp_fin_timeout", Tunable("60")),
    ("net/ipv4/tcp_keepalive_intvl", Tunable("75")),
    ("net/ipv4/tcp_keepalive_probes", Tunable("9")),
    ("net/ipv4/tcp_keepalive_time", Tunable("7200")),
    ("net/ipv4/tcp_max_syn_backlog", Tunable("2048")),
    ("net/ipv4/tcp_rmem", Tunable("4096\t131072\t6291456")),
    ("net/ipv4/tcp_sack", Tunable("1")),
    ("net/ipv4/tcp_syn_retries", Tunable("6")),
    ("net/ipv4/tcp_syncookies", Tunable("1")),
    ("net/ipv4/tcp_timestamps", Tunable("1")),
    ("net/ipv4/tcp_tw_reuse", Tunable("2")),
    ("net/ipv4/tcp_window_scaling", Tunable("1")),
    ("net/ipv4/tcp_wmem", Tunable("4096\t16384\t4194304")),
    ("net/ipv6/conf/all/disable_ipv6", Tunable("0")),
    ("net/ipv6/conf/all/forwarding", Tunable("0")),
    ("net/ipv6/conf/default/disable_ipv6", Tunable("0")),
    ("net/ipv6/conf/lo/disable_ipv6", Tunable("0")),
    ("net/unix/max_dgram_qlen", Tunable("512")),
    ("user/max_cgroup_namespaces", MaxNamespaces(Kind::Cgroup)),
    ("user/max_ipc_namespaces", MaxNamespaces(Kind::Ipc)),
    ("user/max_mnt_namespaces", MaxNamespaces(Kind::Mnt)),
    ("user/max_net_namespaces", MaxNamespaces(Kind::Net)),
    ("user/max_pid_namespaces", MaxNamespaces(Kind::Pid)),
    ("user/max_time_namespaces", MaxNamespaces(Kind::Time)),
    ("user/max_user_namespaces", MaxNamespaces(Kind::User)),
    ("user/max_uts_namespaces", MaxNamespaces(Kind::Uts)),
    ("vm/admin_reserve_kbytes", Fixed("8192")),
    ("vm/compaction_proactiveness", Fixed("20")),
    ("vm/dirty_background_bytes", Fixed("0")),
    ("vm/dirty_background_ratio", Fixed("10")),
    ("vm/dirty_bytes", Fixed("0")),
    ("vm/dirty_expire_centisecs", Fixed("3000")),
    ("vm/dirty_ratio", Fixed("20")),
    ("vm/dirty_writeback_centisecs", Fixed("500")),
    ("vm/legacy_va_layout", Fixed("0")),
    ("vm/max_map_count", Fixed("65530")),
    ("vm/memfd_noexec", Fixed("0")),
    ("vm/min_free_kbytes", Fixed("67584")),
    ("vm/mmap_min_addr", Fixed("65536")),
    ("vm/nr_hugepages", Fixed("0")),
    ("vm/nr_overcommit_hugepages", Fixed("0")),
    ("vm/oom_dump_tasks", Fixed("1")),
    ("vm/oom_kill_allocating_task", Fixed("0")),
    ("vm/overcommit_kbytes", Fixed("0")),
    ("vm/overcommit_memory", Fixed("0")),
    ("vm/overcommit_ratio", Fixed("50")),
    ("vm/page-cluster", Fixed("3")),
    ("vm/panic_on_oom", Fixed("0")),
    ("vm/swappiness", Fixed("60")),
    ("vm/unprivileged_userfaultfd", Fixed("0")),
    ("vm/user_reserve_kbytes", Fixed("131072")),
    ("vm/vfs_cache_pressure", Fixed("100")),
    ("vm/zone_reclaim_mode", Fixed("0")),
];

fn not_negative(new: i128) -> Option<i128> {
    (0..=i128::from(i32::MAX)).contains(&new).then_some(new)
}

/// As `round_pipe_size()` of Linux, with a smaller limit: the memory is the sentry's.
fn pipe_size(new: i128) -> Option<i128> {
    let new = u32::try_from(new).ok().filter(|new| (1..=MAX_PIPE_SIZE).contains(new))?;
    Some(new.max(4096).next_power_of_two().into())
}

fn n_files(kernel: &Kernel) -> usize {
    let leaders =
        kernel.root_pid_namespace.tasks().into_iter().filter(|(_, task)| task.is_leader());
    leaders.map(|(_, task)| task.files().descriptors().len()).sum()
}

fn render_uuid(mut bytes: [u8; 16]) -> String {
    // RFC 9562, version 4.
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0xf) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let mut out = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

fn uuid() -> String {
    let mut bytes = [0; 16];
    // Zeros on a host without random numbers, which has none for anybody else either.
    let _ = sentry_host::random::fill(&mut bytes);
    render_uuid(bytes)
}

fn boot_id(kernel: &Kernel) -> String {
    let mut changed = kernel.sysctls.0.lock();
    changed.entry("kernel/random/boot_id").or_insert_with(uuid).clone()
}

impl Value {
    fn is_writable(self) -> bool {
        !matches!(self, Fixed(_) | Shown(_))
    }

    fn show(self, path: &'static str, current: &CurrentTask) -> Vec<u8> {
        match self {
            Fixed(value) => value.into(),
            Shown(show) => show(&current.kernel).into(),
            LastPid => current.pid_namespace().last_pid().to_string().into(),
            Tunable(default) | Checked(default, _) | Words(default) => {
                let changed = current.kernel.sysctls.0.lock();
                changed.get(path).map_or(default, String::as_str).into()
            }
            Tag => {
                let tag = current.inet().tags.lock().get(path).copied().unwrap_or(0);
                tag.to_string().into()
            }
            HostName => current.namespaces().uts.lock().host.clone(),
            DomainName => {
                let name = current.namespaces().uts.lock().domain.clone();
                if name.is_empty() { b"(none)".to_vec() } else { name }
            }
            MaxNamespaces(kind) => current.creds().user_ns.limit(kind).to_string().into(),
        }
    }

    fn store(
        self,
        path: &'static str,
        kernel: &Kernel,
        scope: &Scope<'_>,
        data: &[u8],
    ) -> SysResult<()> {
        let end = data.iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(data.len());
        let data = data.get(..end).unwrap_or_default();
        match self {
            Fixed(_) | Shown(_) => return Err(Errno::EACCES),
            // The writer's namespace decides: see `Sysctl::store`.
            LastPid => return Err(Errno::EACCES),
            HostName | DomainName => {
                let name = data.get(..data.len().min(UTS_LEN)).unwrap_or_default().to_vec();
                let mut names = scope.uts.lock();
                match self {
                    HostName => names.host = name,
                    _ => names.domain = name,
                }
            }
            MaxNamespaces(kind) => {
                let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
                let limit: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
                let limit = usize::try_from(limit).map_err(|_| Errno::EINVAL)?;
                scope.users.set_limit(kind, limit);
            }
            Tag => {
                let tag = change_numbers("0", data)?.parse().map_err(|_| Errno::EINVAL)?;
                scope.inet.tags.lock().insert(path, tag);
            }
            Words(_) => {
                let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
                if path == "kernel/core_pattern" && text.starts_with('|') {
                    // Nobody is there to run the program.
                    return Err(Errno::EINVAL);
                }
                kernel.sysctls.0.lock().insert(path, text.trim().to_owned());
            }
            Checked(_, check) => {
                let number = change_numbers("0", data)?.parse().map_err(|_| Errno::EINVAL)?;
                let number = check(number).ok_or(Errno::EINVAL)?;
                kernel.sysctls.0.lock().insert(path, number.to_string());
            }
            Tunable(default) => {
                let mut changed = kernel.sysctls.0.lock();
                let old = changed.get(path).map_or(default, String::as_str);
                let new = change_numbers(old, data)?;
                changed.insert(path, new);
            }
        }
        Ok(())
    }
}

/// Returns the list `old` with its first numbers replaced by those in `data`.
fn change_numbers(old: &str, data: &[u8]) -> SysResult<String> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let mut new = text.split_ascii_whitespace();
    let mut merged: Vec<String> = Vec::new();
    for old in old.split('\t') {
        let number = match new.next() {
            Some(new) => new.parse::<i128>().map_err(|_| Errno::EINVAL)?.to_string(),
            None => old.to_owned(),
        };
        merged.push(number);
    }
    if new.next().is_some() {
        return Err(Errno::EINVAL);
    }
    Ok(merged.join("\t"))
}

/// Sets a sysctl before the container's first process starts; `name` is in dotted or slashed form.
///
/// # Errors
/// `ENOENT` for an unknown one, `EACCES` for a read-only one, `EINVAL` for a wrong value.
pub(crate) fn set(
    kernel: &Kernel,
    container: &Container,
    name: &str,
    value: &str,
) -> SysResult<()> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let (path, known) = TABLE.iter().find(|(known, _)| *known == path).ok_or(Errno::ENOENT)?;
    let scope = Scope { uts: &container.uts, users: &container.user_ns, inet: &kernel.inet };
    known.store(path, kernel, &scope, value.as_bytes())
}

struct Sysctl {
    path: &'static str,
    value: Value,
}

impl Text for Sysctl {
    fn show(&self, current: &CurrentTask) -> SysResult<Vec<u8>> {
        let mut text = self.value.show(self.path, current);
        text.push(b'\n');
        Ok(text)
    }

    fn store(&self, current: &CurrentTask, data: &[u8]) -> SysResult<()> {
        if matches!(self.value, LastPid) {
            let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
            let pid = text.trim_matches(['\0', '\n', ' ']).parse().map_err(|_| Errno::EINVAL)?;
            return current.pid_namespace().set_last_pid(pid);
        }
        let (namespaces, creds) = (current.namespaces(), current.creds());
        let scope = Scope { uts: &namespaces.uts, users: &creds.user_ns, inet: &namespaces.net };
        self.value.store(self.path, &current.kernel, &scope, data)
    }

    /// Sysctls go by their permission bits even for root: `CAP_DAC_OVERRIDE` does not help.
    fn check_open(&self, current: &CurrentTask, flags: u32) -> SysResult<()> {
        let is_writing = flags & 0o3 != 0;
        if !is_writing {
            return Ok(());
        }
        let creds = current.creds();
        let may_change = match self.value {
            MaxNamespaces(_) => creds.has_own_capability(CAP_SYS_RESOURCE),
            _ => creds.euid == 0 || creds.has_capability(CAP_SYS_ADMIN),
        };
        let may_write = self.value.is_writable() && may_change;
        if may_write { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// Returns the entries of `/proc/sys`.
pub(super) fn entries(numbers: &Numbers) -> Vec<Named> {
    subtree(numbers, TABLE, "")
}

/// Returns what lies directly below `prefix`, which is empty or ends with a slash. All rows begin
/// with it and are in order.
fn subtree(
    numbers: &Numbers,
    mut rows: &'static [(&'static str, Value)],
    prefix: &str,
) -> Vec<Named> {
    let mut entries = Vec::new();
    while let Some((path, value)) = rows.first() {
        let below = path.get(prefix.len()..).unwrap_or_default();
        let Some((dir, _)) = below.split_once('/') else {
            let mode = if value.is_writable() { 0o644 } else { 0o444 };
            entries.push(numbers.text(below, mode, Sysctl { path, value: *value }));
            rows = rows.get(1..).unwrap_or_default();
            continue;
        };
        let inner_prefix = format!("{prefix}{dir}/");
        let n = rows.iter().take_while(|(path, _)| path.starts_with(&inner_prefix)).count();
        let (inner, rest) = rows.split_at(n);
        entries.push(numbers.named_dir(dir, subtree(numbers, inner, &inner_prefix)));
        rows = rest;
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::{TABLE, change_numbers, render_uuid};

    #[test]
    fn table_is_grouped_by_directory() {
        let mut sorted: Vec<_> = TABLE.iter().map(|(path, _)| *path).collect();
        sorted.sort_by_key(|path| path.split('/').collect::<Vec<_>>());
        let listed: Vec<_> = TABLE.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed, sorted);
    }

    #[test]
    fn numbers_are_checked_and_merged() {
        assert_eq!(change_numbers("1\t2", b"7").ok().as_deref(), Some("7\t2"));
        assert_eq!(change_numbers("1\t2", b"7 8").ok().as_deref(), Some("7\t8"));
        assert!(change_numbers("1\t2", b"x").is_err());
        assert!(change_numbers("1", b"1 2").is_err());
    }

    #[test]
    fn uuid_has_version_and_variant() {
        let text = render_uuid([0xff; 16]);
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
