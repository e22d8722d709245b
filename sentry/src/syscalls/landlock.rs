//! Landlock: `landlock_create_ruleset(2)`, `landlock_add_rule(2)`, `landlock_restrict_self(2)`; and the
//! list of security modules.

use std::sync::Arc;

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::fs::OpenFlags;
use syscalls::abi::landlock::{
    AccessFs, AccessNet, LANDLOCK_ABI, LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_NET_PORT,
    LANDLOCK_RULE_PATH_BENEATH, LSM_ID_CAPABILITY, LSM_ID_LANDLOCK, NetPortAttr, PathBeneathAttr,
    RULESET_ATTR_SIZE_VER0, RulesetAttr, Scopes,
};
use syscalls::abi::mm::PAGE_SIZE;
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::IntoBytes;

use super::{fd, versioned};
use crate::landlock::{Domain, Ruleset, RulesetFile};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::file::downcast;
use crate::vfs::{OpenFile, Path};

/// Implements `landlock_create_ruleset(2)`.
///
/// <https://man7.org/linux/man-pages/man2/landlock_create_ruleset.2.html>
pub(super) fn sys_landlock_create_ruleset(
    task: &CurrentTask,
    attr: UserAddr,
    size: usize,
    flags: u32,
) -> HandlerResult<u64> {
    if flags != 0 {
        let asks_version = flags == LANDLOCK_CREATE_RULESET_VERSION && attr.is_null() && size == 0;
        return if asks_version { Ok(LANDLOCK_ABI) } else { Err(Errno::EINVAL.into()) };
    }
    let attr = read_attr(task, attr, size)?;
    let handled_fs = AccessFs::from_bits_retain(attr.handled_access_fs);
    let handled_net = AccessNet::from_bits_retain(attr.handled_access_net);
    let scoped = Scopes::from_bits_retain(attr.scoped);
    if handled_fs.has_unknown_bits() || handled_net.has_unknown_bits() || scoped.has_unknown_bits()
    {
        return Err(Errno::EINVAL.into());
    }
    if handled_fs.is_empty() && handled_net.is_empty() && scoped.is_empty() {
        return Err(Errno::ENOMSG.into());
    }
    let file = RulesetFile::new(task, Ruleset::new(handled_fs, handled_net, scoped));
    let open = OpenFile::new(file, None, OpenFlags::RDWR.bits());
    let Fd(fd) = fd::install(task, open, true)?;
    Ok(u64::try_from(fd).unwrap_or(0))
}

/// Reads a structure that may be of any version: what this one does not have must be zero.
fn read_attr(task: &CurrentTask, attr: UserAddr, size: usize) -> SysResult<RulesetAttr> {
    if size < RULESET_ATTR_SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    versioned::read(task, attr, size)
}

fn ruleset(task: &CurrentTask, fd: Fd) -> SysResult<Arc<RulesetFile>> {
    downcast(&task.file(fd.0)?.file).ok_or(Errno::EBADFD)
}

/// Implements `landlock_add_rule(2)`.
///
/// <https://man7.org/linux/man-pages/man2/landlock_add_rule.2.html>
pub(super) fn sys_landlock_add_rule(
    task: &CurrentTask,
    ruleset_fd: Fd,
    rule_type: i32,
    rule_attr: UserAddr,
    flags: u32,
) -> HandlerResult<()> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = ruleset(task, ruleset_fd)?;
    match rule_type {
        LANDLOCK_RULE_PATH_BENEATH => {
            let attr: PathBeneathAttr = task.read_obj(UserPtr::new(rule_attr))?;
            let allowed = AccessFs::from_bits_retain(attr.allowed_access);
            if allowed.is_empty() {
                return Err(Errno::ENOMSG.into());
            }
            let (handled, _) = file.ruleset.lock().handled();
            if !handled.contains(allowed) {
                return Err(Errno::EINVAL.into());
            }
            let path = path_of(task, Fd(attr.parent_fd))?;
            file.ruleset.lock().allow_below(&path, allowed)?;
        }
        LANDLOCK_RULE_NET_PORT => {
            let attr: NetPortAttr = task.read_obj(UserPtr::new(rule_attr))?;
            let allowed = AccessNet::from_bits_retain(attr.allowed_access);
            if allowed.is_empty() {
                return Err(Errno::ENOMSG.into());
            }
            let (_, handled) = file.ruleset.lock().handled();
            if !handled.contains(allowed) {
                return Err(Errno::EINVAL.into());
            }
            let port = u16::try_from(attr.port).map_err(|_| Errno::EINVAL)?;
            file.ruleset.lock().allow_port(port, allowed)?;
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(())
}

/// Returns the place that a rule is for, which must be one that somebody can get to by a name.
fn path_of(task: &CurrentTask, fd: Fd) -> SysResult<Path> {
    let open = task.files().get_any(fd.0)?;
    let path = open.path.clone().ok_or(Errno::EBADFD)?;
    if path.mount.is_internal() { Err(Errno::EBADFD) } else { Ok(path) }
}

/// Implements `landlock_restrict_self(2)`.
///
/// <https://man7.org/linux/man-pages/man2/landlock_restrict_self.2.html>
pub(super) fn sys_landlock_restrict_self(
    task: &CurrentTask,
    ruleset_fd: Fd,
    flags: u32,
) -> HandlerResult<()> {
    let old = task.creds();
    if !old.no_new_privs && !old.has_own_capability(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let layer = ruleset(task, ruleset_fd)?.ruleset.lock().clone();
    let domain = Domain::below(old.landlock.clone(), layer)?;
    let mut new = (*old).clone();
    new.landlock = Some(domain);
    *task.creds.lock() = Arc::new(new);
    Ok(())
}

/// Implements `lsm_list_modules(2)`.
///
/// <https://docs.kernel.org/userspace-api/lsm.html>
pub(super) fn sys_lsm_list_modules(
    task: &CurrentTask,
    ids: UserAddr,
    size: UserPtr<u32>,
    flags: u32,
) -> HandlerResult<u32> {
    const MODULES: [u64; 2] = [LSM_ID_CAPABILITY, LSM_ID_LANDLOCK];
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let room = task.read_obj(size)?;
    let needed = u32::try_from(size_of_val(&MODULES)).map_err(|_| Errno::EINVAL)?;
    task.write_obj(size, &needed)?;
    if room < needed {
        return Err(Errno::E2BIG.into());
    }
    task.write_bytes(ids, MODULES.as_bytes())?;
    Ok(u32::try_from(MODULES.len()).unwrap_or(0))
}

/// Implements `lsm_get_self_attr(2)`: no module of these has attributes.
pub(super) fn sys_lsm_get_self_attr(
    task: &CurrentTask,
    attr: u32,
    _ctx: UserAddr,
    size: UserPtr<u32>,
    flags: u32,
) -> HandlerResult<()> {
    /// The only flag: what is asked about is one module's.
    const SINGLE: u32 = 1;
    if attr == 0 || size.is_null() {
        return Err(Errno::EINVAL.into());
    }
    task.read_obj(size)?;
    Err(if flags & !SINGLE == 0 { Errno::EOPNOTSUPP } else { Errno::EINVAL }.into())
}

/// Implements `lsm_set_self_attr(2)`: no module of these has attributes.
pub(super) fn sys_lsm_set_self_attr(
    task: &CurrentTask,
    _attr: u32,
    ctx: UserAddr,
    size: u32,
    flags: u32,
) -> HandlerResult<()> {
    /// The size of `struct lsm_ctx` without what follows it.
    const HEAD: u32 = 32;
    if flags != 0 || size < HEAD {
        return Err(Errno::EINVAL.into());
    }
    if u64::from(size) > PAGE_SIZE {
        return Err(Errno::E2BIG.into());
    }
    task.read_bytes(ctx, &mut vec![0; usize::try_from(size).map_err(|_| Errno::E2BIG)?])?;
    Err(Errno::EOPNOTSUPP.into())
}
