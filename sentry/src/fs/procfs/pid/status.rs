//! `status`, `stat`, `statm` and other reports on a process.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::resource::{RLIMIT_RSS, RLIMIT_SIGPENDING};
use syscalls::abi::sched::{SCHED_FIFO, SCHED_RR};
use syscalls::abi::signal::{SIG_DFL, SIG_IGN, SIGRTMAX, SigSet};
use syscalls::{Errno, SysResult};

use super::Look;
use crate::fs::procfs::cpus;
use crate::mm::MemoryUse;
use crate::syscalls::sched;
use crate::task::pid_namespace::PidNamespace;
use crate::task::signal::lent;
use crate::task::user_namespace::UserNamespace;
use crate::task::{Task, TaskMisc, ThreadGroup, run};

/// `USER_HZ`: the unit of times in `stat`.
const NS_PER_TICK: u64 = 10_000_000;

const PAGE_SIZE: u64 = 4096;

/// `PF_FORKNOEXEC` and `PF_RANDOMIZE`: the flags that can be told from outside.
const PF_FORKNOEXEC: u32 = 0x40;
const PF_RANDOMIZE: u32 = 0x0040_0000;

fn newline(mut text: String) -> SysResult<Vec<u8>> {
    text.push('\n');
    Ok(text.into_bytes())
}

/// The signal sets that are shown.
struct Signals {
    n_queued: usize,
    thread_pending: SigSet,
    process_pending: SigSet,
    blocked: SigSet,
    ignored: SigSet,
    caught: SigSet,
}

impl Signals {
    fn of(task: &Task) -> Self {
        let (process_pending, n_process) = {
            let signals = task.group.signals.lock();
            (signals.pending.set(), signals.pending.len())
        };
        let blocked = lent::mask_of(task);
        let (thread_pending, n_thread) = {
            let signals = task.signals.lock();
            (signals.pending.set(), signals.pending.len())
        };
        let actions = task.group.actions.lock().clone();
        let actions = actions.lock();
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for signo in 1..=SIGRTMAX {
            match actions.get(signo).handler {
                SIG_DFL => {}
                SIG_IGN => ignored.insert(signo),
                _ => caught.insert(signo),
            }
        }
        let n_queued = n_process + n_thread;
        Self { n_queued, thread_pending, process_pending, blocked, ignored, caught }
    }
}

/// Appends a name with backslashes and line ends escaped.
fn push_name(out: &mut Vec<u8>, name: &[u8]) {
    for byte in name {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            _ => out.push(*byte),
        }
    }
}

/// Returns an id in the file system's namespace and in all below it that the task is in.
fn ids(look: &Look<'_>, id: impl Fn(&Arc<PidNamespace>) -> u32) -> String {
    let namespaces: Vec<_> = {
        let pids = look.task.pids.lock();
        pids.iter().skip(look.namespace().level).map(|(namespace, _)| namespace.clone()).collect()
    };
    namespaces.iter().map(|namespace| format!("\t{}", id(namespace))).collect()
}

fn parent_pid(look: &Look<'_>) -> u32 {
    look.task.group.parent().map_or(0, |parent| parent.pid_in(look.namespace()))
}

/// Returns the processors that a task may use, as a mask and as a list.
fn cpus_allowed(task: &Task) -> (String, String) {
    let n_cpus = sched::n_cpus();
    let own = task.misc.lock().affinity.clone();
    let is_set = |cpu: usize| own.get(cpu / 8).is_some_and(|byte| (byte >> (cpu % 8)) & 1 != 0);
    let allowed: Vec<usize> = (0..n_cpus).filter(|cpu| own.is_empty() || is_set(*cpu)).collect();
    (cpus::mask(&allowed, n_cpus), cpus::list(&allowed))
}

pub(super) fn status(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let task = &look.task;
    let group = &task.group;
    let namespace = look.namespace();
    let mut out = b"Name:\t".to_vec();
    push_name(&mut out, &task.comm.lock().clone());
    let mut text = String::from("\n");
    if !task.exiting.load(Ordering::SeqCst) {
        let _ = writeln!(text, "Umask:\t{:04o}", task.fs().umask());
    }
    let (letter, word) = run::state_of(task);
    let _ = writeln!(text, "State:\t{letter} ({word})");
    let _ = writeln!(text, "Tgid:\t{}\nNgid:\t0", group.pid_in(namespace));
    let _ = writeln!(text, "Pid:\t{}\nPPid:\t{}", task.tid_in(namespace), parent_pid(look));
    let tracer = task.ptrace.tracer().map_or(0, |tracer| tracer.group.pid_in(namespace));
    let _ = writeln!(text, "TracerPid:\t{tracer}");
    push_creds(&mut text, task, &look.current.creds().user_ns);
    let process_group = group.process_group();
    let session = group.session();
    let _ = writeln!(text, "NStgid:{}", ids(look, |namespace| group.pid_in(namespace)));
    let _ = writeln!(text, "NSpid:{}", ids(look, |namespace| task.tid_in(namespace)));
    let _ = writeln!(text, "NSpgid:{}", ids(look, |namespace| process_group.id_in(namespace)));
    let _ = writeln!(text, "NSsid:{}", ids(look, |namespace| session.id_in(namespace)));
    text.push_str("Kthread:\t0\n");
    if let Some(mm) = look.mm() {
        push_memory(&mut text, &mm.usage());
        text.push_str("HugetlbPages:\t       0 kB\nCoreDumping:\t0\n");
        let thp = u8::from(!task.misc.lock().thp_disable);
        let _ = writeln!(text, "THP_enabled:\t{thp}\nuntag_mask:\t0xffffffffffffffff");
    }
    push_signals(&mut text, task);
    push_capabilities(&mut text, task);
    let (mode, n_filters) = task.seccomp.mode().describe();
    let _ = writeln!(text, "Seccomp:\t{mode}\nSeccomp_filters:\t{n_filters}");
    text.push_str("Speculation_Store_Bypass:\tvulnerable\n");
    text.push_str("SpeculationIndirectBranch:\talways enabled\n");
    let (mask, list) = cpus_allowed(task);
    let _ = writeln!(text, "Cpus_allowed:\t{mask}\nCpus_allowed_list:\t{list}");
    text.push_str("Mems_allowed:\t00000000,00000001\nMems_allowed_list:\t0\n");
    let waits = task.n_waits.load(Ordering::Relaxed);
    let _ = writeln!(text, "voluntary_ctxt_switches:\t{waits}\nnonvoluntary_ctxt_switches:\t0");
    out.extend_from_slice(text.as_bytes());
    Ok(out)
}

fn push_creds(text: &mut String, task: &Task, reader: &UserNamespace) {
    let creds = task.creds();
    let [uid, euid, suid, fsuid] =
        [creds.uid, creds.euid, creds.suid, creds.fsuid].map(|uid| reader.shown_uid(uid));
    let [gid, egid, sgid, fsgid] =
        [creds.gid, creds.egid, creds.sgid, creds.fsgid].map(|gid| reader.shown_gid(gid));
    let _ = writeln!(text, "Uid:\t{uid}\t{euid}\t{suid}\t{fsuid}");
    let _ = writeln!(text, "Gid:\t{gid}\t{egid}\t{sgid}\t{fsgid}");
    let highest = task.files().descriptors().last().copied().unwrap_or(0);
    let n_slots = usize::try_from(highest).unwrap_or(0).saturating_add(1);
    let _ = writeln!(text, "FDSize:\t{}", n_slots.next_power_of_two().max(64));
    let groups: String =
        creds.groups.iter().map(|gid| format!("{} ", reader.shown_gid(*gid))).collect();
    let _ = writeln!(text, "Groups:\t{}", if groups.is_empty() { " " } else { &groups });
}

fn push_capabilities(text: &mut String, task: &Task) {
    let creds = task.creds();
    for (name, set) in [
        ("CapInh", creds.inheritable),
        ("CapPrm", creds.permitted),
        ("CapEff", creds.effective),
        ("CapBnd", creds.bounding),
        ("CapAmb", creds.ambient),
    ] {
        let _ = writeln!(text, "{name}:\t{set:016x}");
    }
    let _ = writeln!(text, "NoNewPrivs:\t{}", u8::from(creds.no_new_privs));
}

fn push_memory(text: &mut String, usage: &MemoryUse) {
    let resident = &usage.resident;
    for (name, bytes) in [
        ("VmPeak", usage.peak),
        ("VmSize", usage.size),
        ("VmLck", usage.locked),
        ("VmPin", 0),
        ("VmHWM", resident.peak),
        ("VmRSS", resident.resident()),
        ("RssAnon", resident.anonymous),
        ("RssFile", resident.file),
        ("RssShmem", resident.shared),
        ("VmData", usage.data),
        ("VmStk", usage.stack),
        ("VmExe", usage.text),
        ("VmLib", usage.exec.saturating_sub(usage.text)),
        ("VmPTE", resident.page_tables),
        ("VmSwap", 0),
    ] {
        let _ = writeln!(text, "{name}:\t{:>8} kB", bytes / 1024);
    }
}

fn push_signals(text: &mut String, task: &Task) {
    let n_threads = task.group.live_tasks().len().max(1);
    let signals = Signals::of(task);
    let limit = task.group.limits.lock().soft(RLIMIT_SIGPENDING);
    let _ = writeln!(text, "Threads:\t{n_threads}\nSigQ:\t{}/{limit}", signals.n_queued);
    for (name, set) in [
        ("SigPnd", signals.thread_pending),
        ("ShdPnd", signals.process_pending),
        ("SigBlk", signals.blocked),
        ("SigIgn", signals.ignored),
        ("SigCgt", signals.caught),
    ] {
        let _ = writeln!(text, "{name}:\t{:016x}", set.0);
    }
}

pub(super) fn stat(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let namespace = look.namespace();
    let mut out = format!("{} (", look.task.tid_in(namespace)).into_bytes();
    out.extend_from_slice(&look.task.comm.lock());
    let mut text = format!(") {}", run::state_of(&look.task).0);
    push_stat_relations(&mut text, look);
    push_stat_times(&mut text, look);
    push_stat_memory(&mut text, look);
    text.push('\n');
    out.extend_from_slice(text.as_bytes());
    Ok(out)
}

/// Fields 4 to 13: relations, terminal, flags, faults.
fn push_stat_relations(text: &mut String, look: &Look<'_>) {
    let group = &look.task.group;
    let namespace = look.namespace();
    let session = group.session();
    let terminal = session.terminal.lock().clone();
    let tty = terminal.as_ref().map_or(0, |terminal| terminal.device());
    let foreground = terminal.and_then(|terminal| terminal.foreground());
    let tpgid = foreground.map_or(-1, |foreground| i64::from(foreground.id_in(namespace)));
    let faults = if look.seen.is_thread { look.task.usage() } else { group.usage() }.faults;
    let child_faults = group.account.children().faults;
    let mut flags = PF_RANDOMIZE;
    if !group.has_execed.load(Ordering::Relaxed) {
        flags |= PF_FORKNOEXEC;
    }
    let _ = write!(
        text,
        " {} {} {} {} {tpgid} {flags} {} {} {} {}",
        parent_pid(look),
        group.process_group().id_in(namespace),
        session.id_in(namespace),
        encode_dev(tty),
        faults.0,
        child_faults.0,
        faults.1,
        child_faults.1,
    );
}

/// Fields 14 to 22: times, priorities, threads.
fn push_stat_times(text: &mut String, look: &Look<'_>) {
    let task = &look.task;
    let group = &task.group;
    let (user, system) = if look.seen.is_thread { task.cpu_ns() } else { group.cpu_ns() };
    let (child_user, child_system) = group.account.children().cpu_ns;
    let misc = task.misc.lock().clone();
    let is_real_time = is_real_time(&misc);
    let priority = if is_real_time { -1 - misc.sched_priority } else { 20 + misc.nice };
    let start_ns = if look.seen.is_thread { misc.start_ns } else { group.start_ns };
    let _ = write!(
        text,
        " {} {} {} {} {priority} {} {} 0 {}",
        user / NS_PER_TICK,
        system / NS_PER_TICK,
        child_user / NS_PER_TICK,
        child_system / NS_PER_TICK,
        misc.nice,
        group.live_tasks().len().max(1),
        start_ns / NS_PER_TICK,
    );
}

/// Fields 23 to 52: memory, signals, scheduling, addresses.
fn push_stat_memory(text: &mut String, look: &Look<'_>) {
    let task = &look.task;
    let group = &task.group;
    let mm = look.mm();
    let usage = mm.as_ref().map(|mm| mm.usage()).unwrap_or_default();
    let may_inspect = look.may_inspect();
    let layout = mm.as_ref().filter(|_| may_inspect).map(|mm| mm.layout());
    let (start_code, end_code) = match (&layout, &mm) {
        (Some(layout), _) => (layout.start_code, layout.end_code),
        (None, Some(_)) => (1, 1),
        (None, None) => (0, 0),
    };
    let places = layout.unwrap_or_default();
    let signals = Signals::of(task);
    let (exit_signal, exit_code) = {
        let tree = group.tree.lock();
        (tree.exit_signal, tree.zombie.filter(|_| may_inspect).unwrap_or(0))
    };
    let misc = task.misc.lock().clone();
    let is_real_time = is_real_time(&misc);
    let _ = write!(
        text,
        " {} {} {} {start_code} {end_code} {} 0 0",
        usage.size,
        usage.resident.resident() / PAGE_SIZE,
        group.limits.lock().soft(RLIMIT_RSS),
        places.start_stack,
    );
    let low = |set: SigSet| set.0 & 0x7fff_ffff;
    let _ = write!(
        text,
        " {} {} {} {} {} 0 0 {exit_signal} 0 {} {} 0 0 0",
        low(signals.thread_pending.union(signals.process_pending)),
        low(signals.blocked),
        low(signals.ignored),
        low(signals.caught),
        u8::from(run::state_of(task).0 == 'S'),
        if is_real_time { misc.sched_priority } else { 0 },
        misc.sched_policy,
    );
    let _ = write!(
        text,
        " {} {} {} {} {} {} {} {exit_code}",
        places.start_data,
        places.end_data,
        places.start_brk,
        places.arg_start,
        places.arg_end,
        places.env_start,
        places.env_end,
    );
}

/// Returns whether a thread has one of the real-time policies.
fn is_real_time(misc: &TaskMisc) -> bool {
    let policy = i32::try_from(misc.sched_policy).unwrap_or(0);
    matches!(policy, SCHED_FIFO | SCHED_RR)
}

/// Returns a device number as `new_encode_dev()` packs it into 32 bits.
fn encode_dev(dev: u64) -> u64 {
    let major = u64::from(syscalls::abi::fs::major(dev));
    let minor = u64::from(syscalls::abi::fs::minor(dev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

pub(super) fn statm(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let Some(mm) = look.mm() else { return newline("0 0 0 0 0 0 0".into()) };
    let usage = mm.usage();
    newline(format!(
        "{} {} {} {} 0 {} 0",
        usage.size / PAGE_SIZE,
        usage.resident.resident() / PAGE_SIZE,
        usage.resident.file.saturating_add(usage.resident.shared) / PAGE_SIZE,
        usage.text.div_ceil(PAGE_SIZE),
        usage.data.saturating_add(usage.stack) / PAGE_SIZE,
    ))
}

pub(super) fn limits(look: &Look<'_>) -> SysResult<Vec<u8>> {
    const NAMES: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let limits = *look.task.group.limits.lock();
    let shown =
        |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
    let mut out = String::new();
    let _ =
        writeln!(out, "{:<25} {:<20} {:<20} {:<10}", "Limit", "Soft Limit", "Hard Limit", "Units");
    for ((name, unit), resource) in NAMES.iter().zip(0..) {
        let (soft, hard) = limits.get(resource).unwrap_or_default();
        let (soft, hard) = (shown(soft), shown(hard));
        let _ = write!(out, "{name:<25} {soft:<20} {hard:<20} ");
        let _ = if unit.is_empty() { writeln!(out) } else { writeln!(out, "{unit:<10}") };
    }
    Ok(out.into_bytes())
}

pub(super) fn personality(look: &Look<'_>) -> SysResult<Vec<u8>> {
    look.check_inspect().map_err(|_| Errno::EPERM)?;
    newline(format!("{:08x}", look.task.misc.lock().personality))
}

/// DEVIATION: what `read(2)`, `write(2)` and their kin transfer is counted, and nothing else.
pub(super) fn io(look: &Look<'_>) -> SysResult<Vec<u8>> {
    look.check_inspect()?;
    let transfers = &look.task.group.account.transfers;
    let numbers = [&transfers.read, &transfers.written, &transfers.n_reads, &transfers.n_writes];
    let [read, written, n_reads, n_writes] = numbers.map(|number| number.load(Ordering::Relaxed));
    let text = format!(
        "rchar: {read}\nwchar: {written}\nsyscr: {n_reads}\nsyscw: {n_writes}\nread_bytes: 0\n\
         write_bytes: 0\ncancelled_write_bytes: 0\n"
    );
    Ok(text.into_bytes())
}

pub(super) fn schedstat(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let (user, system) = look.task.cpu_ns();
    newline(format!("{} 0 0", user.saturating_add(system)))
}

pub(super) fn wchan(_look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(b"0".to_vec())
}

pub(super) fn cpuset(_look: &Look<'_>) -> SysResult<Vec<u8>> {
    newline("/".into())
}

pub(super) fn cgroup(look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(look.task.container().cgroup_text.own.clone().into_bytes())
}

pub(super) fn children(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let namespace = look.namespace();
    let tid = look.task.tid();
    let is_own = |child: &&Arc<ThreadGroup>| child.tree.lock().parent_tid == tid;
    let children = look.task.group.children();
    let own = children.iter().filter(is_own);
    let list: String = own.map(|child| format!("{} ", child.pid_in(namespace))).collect();
    Ok(list.into_bytes())
}

pub(super) fn syscall(look: &Look<'_>) -> SysResult<Vec<u8>> {
    look.check_inspect().map_err(|_| Errno::EPERM)?;
    let task = &look.task;
    if task.run_state.load(Ordering::SeqCst) != run::BLOCKED || !task.is_in_call() {
        return newline("running".into());
    }
    let call = *task.call.lock();
    let mut text = call.number.to_string();
    for arg in call.args {
        let _ = write!(text, " {arg:#x}");
    }
    // The registers of a blocked task are with the platform.
    text.push_str(" 0x0 0x0");
    newline(text)
}

#[cfg(test)]
mod tests {
    use super::encode_dev;

    #[test]
    fn devices_are_packed() {
        assert_eq!(encode_dev(syscalls::abi::fs::makedev(136, 3)), 34819);
    }
}
