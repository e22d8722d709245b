//! The core file: what goes into it, and where it is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::fs::OpenFlags;
use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};
use syscalls::abi::resource::{RLIMIT_CORE, RLIMIT_FSIZE};
use syscalls::abi::signal::Siginfo;
use syscalls::{Errno, SysResult, UserAddr};
use zerocopy::IntoBytes as _;

use super::elf::{self, Prpsinfo, Prstatus, Segment};
use super::{ThreadRecord, name};
use crate::mm::maps::{MapEntry, MapName};
use crate::task::CurrentTask;
use crate::task::ptrace::xstate;
use crate::vfs::attr::FileType;
use crate::vfs::io::SliceSource;
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{OpenFile, WriteOffset, names, open};

/// How much memory is read at once.
const CHUNK: usize = 256 << 10;
const PAGE: usize = 4096;
/// The legacy area of the extended state: what `NT_FPREGSET` holds.
const FPREGS_LEN: usize = 512;
const MODE: u32 = 0o600;
/// The length of `pr_psargs`.
const PSARGS_LEN: u64 = 80;
/// Bits of `/proc/PID/coredump_filter`.
const ANON_PRIVATE: u32 = 1;
const ANON_SHARED: u32 = 1 << 1;
const MAPPED_PRIVATE: u32 = 1 << 2;
const MAPPED_SHARED: u32 = 1 << 3;
const ELF_HEADERS: u32 = 1 << 4;
/// `PF_RANDOMIZE`, `PF_DUMPCORE` and `PF_SIGNALED`.
const PROCESS_FLAGS: u64 = 0x0040_0600;

/// Writes the core file of the calling process, whose other threads have gone.
///
/// # Errors
/// Those of opening the file; `EPERM` where it is not one to write to.
pub(super) fn write(
    current: &CurrentTask,
    info: &Siginfo,
    threads: &[ThreadRecord],
) -> SysResult<()> {
    let file = create(current, &name::of(current, info))?;
    let limits = *current.group.limits.lock();
    let limit = limits.soft(RLIMIT_CORE).min(limits.soft(RLIMIT_FSIZE));
    let maps = current.mm().maps();
    let segments = segments(current, &maps);
    let head = elf::head(&notes(current, info, threads, &maps), &segments);
    let mut out = Output { current, file: &file, at: 0, written: 0, limit };
    // What has come until then stays, as on Linux.
    let _ = out.put(&head).and_then(|()| out.put_memory(&segments));
    Ok(())
}

/// Makes the file anew.
fn create(current: &CurrentTask, path: &[u8]) -> SysResult<Arc<OpenFile>> {
    let walk = || Walk::from_cwd(current, WalkFlags::empty());
    // Whatever is wrong with it, the open tells.
    let _ = names::unlink(&mut walk(), path);
    let flags = OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOFOLLOW | OpenFlags::RDWR;
    let file = open::open(current, &mut walk(), path, flags, MODE)?;
    let attr = file.file.attr()?;
    let is_own = attr.file_type() == FileType::Regular && attr.uid == current.creds().fsuid;
    if is_own { Ok(file) } else { Err(Errno::EPERM) }
}

/// The file while it is written.
struct Output<'a> {
    current: &'a CurrentTask,
    file: &'a OpenFile,
    at: u64,
    /// How much has been written, without the holes.
    written: u64,
    limit: u64,
}

impl Output<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> SysResult<()> {
        while !bytes.is_empty() {
            let len = bytes.len() as u64;
            if self.written.saturating_add(len) > self.limit {
                return Err(Errno::EFBIG);
            }
            let offset = WriteOffset::At(self.at);
            let (n, _) =
                self.file.file.write(self.current, &mut SliceSource::new(bytes), offset)?;
            if n == 0 {
                return Err(Errno::EIO);
            }
            self.at = self.at.saturating_add(n as u64);
            self.written = self.written.saturating_add(n as u64);
            bytes = bytes.get(n..).unwrap_or_default();
        }
        Ok(())
    }

    fn put_memory(&mut self, segments: &[Segment]) -> SysResult<()> {
        let memory = self.current.mm().address_space()?;
        let mut buffer = vec![0; CHUNK];
        let mut has_hole_at_end = false;
        for segment in segments {
            let end = segment.start.saturating_add(segment.dumped);
            let mut addr = segment.start;
            while addr < end {
                if self.current.group.signals.lock().is_killed {
                    return Err(Errno::EINTR);
                }
                let wanted = usize::try_from(end - addr).unwrap_or(CHUNK).min(CHUNK);
                let part = buffer.get_mut(..wanted).ok_or(Errno::EIO)?;
                // What cannot be read is a hole.
                let n = memory.read(UserAddr(addr), part).unwrap_or(0) / PAGE * PAGE;
                for page in part.get(..n).unwrap_or_default().chunks(PAGE) {
                    has_hole_at_end = page.iter().all(|byte| *byte == 0);
                    if has_hole_at_end {
                        self.at = self.at.saturating_add(PAGE_SIZE);
                    } else {
                        self.put(page)?;
                    }
                }
                let mut n = n as u64;
                if n == 0 {
                    has_hole_at_end = true;
                    n = PAGE_SIZE.min(end - addr);
                    self.at = self.at.saturating_add(n);
                }
                addr = addr.saturating_add(n);
            }
        }
        if has_hole_at_end {
            self.at = self.at.saturating_sub(1);
            self.put(&[0])?;
        }
        Ok(())
    }
}

/// Returns all areas, and how much of each is dumped.
fn segments(current: &CurrentTask, maps: &[MapEntry]) -> Vec<Segment> {
    let filter = current.group.core_filter.load(Ordering::Relaxed);
    let mut next = maps.iter().skip(1);
    maps.iter()
        .map(|entry| {
            let len = entry.end.saturating_sub(entry.start);
            let dumped = dumped(current, entry, next.next(), filter).min(len);
            Segment { start: entry.start, len, dumped, prot: entry.prot }
        })
        .collect()
}

fn dumped(current: &CurrentTask, entry: &MapEntry, next: Option<&MapEntry>, filter: u32) -> u64 {
    let has = |bit| filter & bit != 0;
    if matches!(entry.name, MapName::Special("[vdso]")) {
        return u64::MAX;
    }
    if entry.flags.contains(&"dd") {
        return 0;
    }
    let MapName::File(file) = &entry.name else {
        let bit = if entry.is_shared { ANON_SHARED } else { ANON_PRIVATE };
        // Nobody can have written to what nobody can access.
        return if has(bit) && !entry.prot.is_empty() { u64::MAX } else { 0 };
    };
    let attr = file.file.attr();
    if entry.is_shared {
        let is_removed = attr.is_ok_and(|attr| attr.nlink == 0);
        let bit = if is_removed { ANON_SHARED } else { MAPPED_SHARED };
        return if has(bit) { u64::MAX } else { 0 };
    }
    // What a loader has written to and then protected comes before what stays writable.
    let is_same_file =
        |next: &MapEntry| next.start == entry.end && (next.dev, next.ino) == (entry.dev, entry.ino);
    let is_before_data = !entry.prot.contains(ProtFlags::EXEC)
        && next.is_some_and(|next| is_same_file(next) && next.prot.contains(ProtFlags::WRITE));
    let is_changed = entry.prot.contains(ProtFlags::WRITE) || is_before_data;
    if (is_changed && has(ANON_PRIVATE)) || has(MAPPED_PRIVATE) {
        return u64::MAX;
    }
    if has(ELF_HEADERS) && entry.offset == 0 && entry.prot.contains(ProtFlags::READ) {
        let is_program = attr.is_ok_and(|attr| attr.mode & 0o111 != 0);
        if is_program || begins_as_elf(current, entry.start) {
            return PAGE_SIZE;
        }
    }
    0
}

fn begins_as_elf(current: &CurrentTask, addr: u64) -> bool {
    let mut magic = [0; 4];
    let memory = current.mm().address_space();
    let read = memory.and_then(|memory| memory.read(UserAddr(addr), &mut magic));
    read == Ok(4) && magic == *b"\x7fELF"
}

fn notes(
    current: &CurrentTask,
    info: &Siginfo,
    threads: &[ThreadRecord],
    maps: &[MapEntry],
) -> Vec<u8> {
    let mut out = Vec::new();
    let own = threads.iter().filter(|thread| thread.id == current.tid());
    for thread in own {
        elf::push_note(
            &mut out,
            "CORE",
            elf::NT_PRSTATUS,
            prstatus(current, info, thread).as_bytes(),
        );
        elf::push_note(&mut out, "CORE", elf::NT_PRPSINFO, prpsinfo(current).as_bytes());
        elf::push_note(&mut out, "CORE", elf::NT_SIGINFO, elf::siginfo(info));
        elf::push_note(&mut out, "CORE", elf::NT_AUXV, &current.mm().auxv());
        elf::push_note(&mut out, "CORE", elf::NT_FILE, &files(current, maps));
        push_floats(&mut out, current, thread);
    }
    for thread in threads.iter().filter(|thread| thread.id != current.tid()) {
        elf::push_note(
            &mut out,
            "CORE",
            elf::NT_PRSTATUS,
            prstatus(current, info, thread).as_bytes(),
        );
        push_floats(&mut out, current, thread);
    }
    out
}

/// Appends the extended state of a thread, where that is known.
fn push_floats(out: &mut Vec<u8>, current: &CurrentTask, thread: &ThreadRecord) {
    let frame = thread.xstate.clone().unwrap_or_default();
    let features = current.kernel.platform().xsave_layout().features;
    let Some(state) = xstate::shown(frame, features) else { return };
    let floats = state.get(..FPREGS_LEN).unwrap_or_default();
    elf::push_note(out, "CORE", elf::NT_FPREGSET, floats);
    elf::push_note(out, "LINUX", elf::NT_X86_XSTATE, &state);
}

/// The numbers of a process, its parent, its process group and its session.
struct Ids {
    pid: u32,
    parent: u32,
    process_group: u32,
    session: u32,
}

impl Ids {
    fn of(current: &CurrentTask) -> Self {
        let namespace = current.pid_namespace();
        let group = &current.group;
        Self {
            pid: group.pid_in(&namespace),
            parent: group.parent().map_or(0, |parent| parent.pid_in(&namespace)),
            process_group: group.process_group().id_in(&namespace),
            session: group.session().id_in(&namespace),
        }
    }
}

fn prstatus(current: &CurrentTask, info: &Siginfo, thread: &ThreadRecord) -> Prstatus {
    let ids = Ids::of(current);
    let (user, system) = thread.cpu_ns;
    let (child_user, child_system) = current.group.account.children().cpu_ns;
    let is_full = thread.xstate.as_ref().is_some_and(|state| !state.is_empty());
    Prstatus {
        si_signo: info.si_signo,
        si_code: 0,
        si_errno: 0,
        pr_cursig: i16::try_from(info.si_signo).unwrap_or(0),
        pad0: 0,
        pr_sigpend: thread.pending.0,
        pr_sighold: thread.blocked.0,
        pr_pid: thread.tid,
        pr_ppid: ids.parent,
        pr_pgrp: ids.process_group,
        pr_sid: ids.session,
        pr_utime: elf::timeval(user),
        pr_stime: elf::timeval(system),
        pr_cutime: elf::timeval(child_user),
        pr_cstime: elf::timeval(child_system),
        pr_reg: thread.regs,
        pr_fpvalid: is_full.into(),
        pad1: 0,
    }
}

fn prpsinfo(current: &CurrentTask) -> Prpsinfo {
    let ids = Ids::of(current);
    let creds = current.creds();
    let mm = current.mm();
    let layout = mm.layout();
    let end = layout.arg_start.saturating_add(PSARGS_LEN).min(layout.arg_end);
    let mut args = mm.read_range(layout.arg_start, end);
    if args.last() == Some(&0) {
        args.pop();
    }
    for byte in &mut args {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    let nice = current.misc.lock().nice;
    let forked = if current.group.has_execed.load(Ordering::Relaxed) { 0 } else { 0x40 };
    Prpsinfo {
        pr_state: 0,
        pr_sname: b'R',
        pr_zomb: 0,
        pr_nice: i8::try_from(nice).unwrap_or(0),
        pad0: 0,
        pr_flag: PROCESS_FLAGS | forked,
        pr_uid: creds.uid,
        pr_gid: creds.gid,
        pr_pid: ids.pid,
        pr_ppid: ids.parent,
        pr_pgrp: ids.process_group,
        pr_sid: ids.session,
        pr_fname: elf::padded(&current.comm.lock()),
        pr_psargs: elf::padded(&args),
    }
}

/// Returns the contents of `NT_FILE`.
fn files(current: &CurrentTask, maps: &[MapEntry]) -> Vec<u8> {
    let root = current.fs().root();
    let mappings: Vec<_> = maps
        .iter()
        .filter_map(|entry| {
            let name = match &entry.name {
                MapName::File(file) => match &file.path {
                    Some(path) => path.name_from(&root).for_proc(),
                    None => file.file.anonymous_name().into_bytes(),
                },
                MapName::SharedAnonymous => b"/dev/zero (deleted)".to_vec(),
                _ => return None,
            };
            Some((entry.start, entry.end, entry.offset, name))
        })
        .collect();
    elf::files(&mappings)
}
