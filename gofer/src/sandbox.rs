//! The gofer's own jail: limits, capabilities, seccomp.
//!
//! Namespaces and an empty root are the caller's part. Everything here is taken away for good; what
//! cannot be taken away is an error.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::MountOptions;

/// Descriptors that are not fids: sockets, roots, directory streams, and those of one operation.
const RESERVED_DESCRIPTORS: u64 = 256;

/// The most descriptors that are asked for, which is the host's usual `fs.nr_open`.
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// Raises the limit on descriptors as far as it goes, and returns how many fids fit in it.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = |number| Rlimit { current: number, maximum: number };
    // Above the hard limit goes whoever has CAP_SYS_RESOURCE, and up to fs.nr_open.
    for raised in [most(Some(MAX_DESCRIPTORS)), most(limit.maximum)] {
        if raised.maximum >= limit.maximum
            && rustix::process::setrlimit(Resource::Nofile, raised).is_ok()
        {
            break;
        }
    }
    let current = rustix::process::getrlimit(Resource::Nofile).current;
    let descriptors = current.unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS);
    let reserved = RESERVED_DESCRIPTORS.min(descriptors / 4);
    // Half of them, so that each directory can have a stream, too.
    usize::try_from(descriptors.saturating_sub(reserved) / 2).unwrap_or(0)
}

/// Locks the process down.
///
/// # Errors
/// Any step that failed; the process must not serve then.
pub(crate) fn enter(mounts: &[MountOptions]) -> io::Result<()> {
    // Each request that makes a file has its own.
    rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    drop_capabilities(mounts)?;
    rustix::thread::set_no_new_privs(true)?;
    let filter = filter().map_err(io::Error::other)?;
    seccompiler::apply_filter(&filter).map_err(io::Error::other)
}

/// Keeps what the owner of all files below the roots can do, and nothing else.
fn drop_capabilities(mounts: &[MountOptions]) -> io::Result<()> {
    let is_readonly = mounts.iter().all(|m| m.readonly && !m.tmpfiles && !m.connect_unix_sockets);
    let mut keep = CapabilitySet::DAC_READ_SEARCH;
    if !is_readonly {
        keep |= CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::FOWNER
            | CapabilitySet::CHOWN
            | CapabilitySet::FSETID;
    }
    for capability in CapabilitySet::all().difference(keep).iter() {
        // Without CAP_SETPCAP there is nothing in the bounding set that could be gained: no call
        // of the filter executes a program.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    let held = rustix::thread::capabilities(None)?;
    let kept = held.permitted.intersection(keep);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The calls that operations make, with any arguments. A path argument is always one that this
/// process composed (`reopen.rs`) or a checked name.
const FILE_CALLS: &[libc::c_long] = &[
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_fchownat,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_umask,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_listxattr,
    libc::SYS_removexattr,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
];

/// The calls of the allocator and of the language's runtime.
const RUNTIME_CALLS: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_fcntl,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for &number in FILE_CALLS.iter().chain(RUNTIME_CALLS) {
        rules.insert(number, Vec::new());
    }
    let equal = SeccompCmpOp::Eq;
    let not_executable = SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs()));
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(number, vec![rule(2, not_executable.clone(), 0)?]);
    }
    // The calling thread only.
    rules.insert(libc::SYS_sched_setaffinity, vec![rule(0, equal.clone(), 0)?]);
    let unix = u64::from(libc::AF_UNIX.unsigned_abs());
    rules.insert(libc::SYS_socket, vec![rule(0, equal.clone(), unix)?]);
    // Messages of last resort: a panic's.
    for number in [libc::SYS_write, libc::SYS_writev] {
        rules.insert(number, vec![rule(0, equal.clone(), 2)?]);
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?
        .try_into()
}

fn rule(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let length = SeccompCmpArgLen::Dword;
    SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])
}
