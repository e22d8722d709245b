//! Memory policies (`numa(7)`) of a machine with one node: they are checked, kept and shown, and
//! all memory comes from that node anyway.

use syscalls::abi::capability::CAP_SYS_NICE;
use syscalls::abi::mm::{
    MAX_NUMNODES, MPOL_BIND, MPOL_DEFAULT, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED,
    MPOL_PREFERRED_MANY, MPOL_WEIGHTED_INTERLEAVE, MpolFlags, MpolGetFlags, MpolMoveFlags,
    PAGE_SIZE,
};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::ids::target;
use super::mmap::{checked_madvise_range, on_range};
use crate::mm::vma::MemoryPolicy;
use crate::task::{CurrentTask, HandlerResult, access};

/// The nodes that there are, as a mask.
const NODES: u64 = 1;

/// Reads a mask of nodes as `get_nodes()` of Linux.
///
/// # Errors
/// `EINVAL` for a mask that is too long or names nodes beyond the largest number, `EFAULT`.
fn read_nodes(task: &CurrentTask, mask: UserAddr, max: u64) -> SysResult<u64> {
    let n_bits = max.wrapping_sub(1);
    if n_bits == 0 || mask.is_null() {
        return Ok(0);
    }
    if n_bits > PAGE_SIZE * 8 {
        return Err(Errno::EINVAL);
    }
    let mut first = 0;
    for index in 0..n_bits.div_ceil(64) {
        let at = mask.checked_add(index * 8).ok_or(Errno::EFAULT)?;
        let mut word = task.read_obj::<u64>(UserPtr::new(at))?;
        let n_left = n_bits - index * 64;
        if n_left < 64 {
            word &= (1 << n_left) - 1;
        }
        if index == 0 {
            first = word;
        } else if index * 64 >= MAX_NUMNODES && word != 0 {
            return Err(Errno::EINVAL);
        }
    }
    Ok(first)
}

/// Writes a mask of nodes as `copy_nodes_to_user()` of Linux.
fn write_nodes(task: &CurrentTask, mask: UserAddr, max: u64, nodes: u64) -> SysResult<()> {
    // It overflows to nothing, there as well.
    let n_bytes = max.saturating_sub(1).checked_next_multiple_of(64).unwrap_or(0) / 8;
    if n_bytes > PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; usize::try_from(n_bytes).map_err(|_| Errno::EINVAL)?];
    if let Some(first) = bytes.first_mut() {
        *first = u8::try_from(nodes & 0xff).unwrap_or(0);
    }
    task.write_bytes(mask, &bytes)
}

/// Makes a policy of a mode with flags and a mask, as `mpol_new()` and `mpol_set_nodemask()`.
fn new_policy(mode: u32, nodes: u64) -> SysResult<Option<MemoryPolicy>> {
    let flags = MpolFlags::from_bits_retain(mode) & MpolFlags::all_known();
    let mut mode = mode & !flags.bits();
    let is_many = matches!(mode, MPOL_BIND | MPOL_PREFERRED_MANY);
    let is_known = mode <= MPOL_WEIGHTED_INTERLEAVE
        && !flags.contains(MpolFlags::STATIC_NODES | MpolFlags::RELATIVE_NODES)
        && (is_many || !flags.contains(MpolFlags::NUMA_BALANCING));
    if !is_known {
        return Err(Errno::EINVAL);
    }
    let is_placed = flags.intersects(MpolFlags::STATIC_NODES | MpolFlags::RELATIVE_NODES);
    match mode {
        MPOL_DEFAULT if nodes != 0 => return Err(Errno::EINVAL),
        MPOL_DEFAULT => return Ok(None),
        MPOL_PREFERRED if nodes == 0 && is_placed => return Err(Errno::EINVAL),
        MPOL_PREFERRED if nodes == 0 => mode = MPOL_LOCAL,
        MPOL_LOCAL if nodes != 0 || is_placed => return Err(Errno::EINVAL),
        _ => {}
    }
    // Relative to the only node, each node is that one.
    let allowed = if flags.contains(MpolFlags::RELATIVE_NODES) { nodes } else { nodes & NODES };
    if mode != MPOL_LOCAL && allowed == 0 {
        return Err(Errno::EINVAL);
    }
    let mode = u8::try_from(mode).map_err(|_| Errno::EINVAL)?;
    Ok(Some(MemoryPolicy { mode, flags }))
}

/// Implements `set_mempolicy(2)`.
///
/// <https://man7.org/linux/man-pages/man2/set_mempolicy.2.html>
pub(super) fn sys_set_mempolicy(
    task: &CurrentTask,
    mode: u32,
    nodemask: UserAddr,
    maxnode: u64,
) -> HandlerResult<()> {
    let nodes = read_nodes(task, nodemask, maxnode)?;
    task.misc.lock().memory_policy = new_policy(mode, nodes)?;
    Ok(())
}

/// Implements `mbind(2)`.
///
/// <https://man7.org/linux/man-pages/man2/mbind.2.html>
pub(super) fn sys_mbind(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    mode: u32,
    nodemask: UserAddr,
    maxnode: u64,
    flags: u32,
) -> HandlerResult<()> {
    let nodes = read_nodes(task, nodemask, maxnode)?;
    let flags = MpolMoveFlags::from_bits_retain(flags);
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(MpolMoveFlags::MOVE_ALL) && !task.creds().has_capability(CAP_SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let range = checked_madvise_range(addr, len)?;
    let policy = new_policy(mode, nodes)?;
    if range.is_empty() {
        return Ok(());
    }
    on_range(task, &range, |mm, conflicts| {
        mm.operate(task, conflicts, |space, _, _| space.set_policy(&range, policy))
    })
}

/// Implements `get_mempolicy(2)`.
///
/// <https://man7.org/linux/man-pages/man2/get_mempolicy.2.html>
pub(super) fn sys_get_mempolicy(
    task: &CurrentTask,
    mode: UserPtr<i32>,
    nodemask: UserAddr,
    maxnode: u64,
    addr: UserAddr,
    flags: u64,
) -> HandlerResult<()> {
    if !nodemask.is_null() && maxnode < 1 {
        return Err(Errno::EINVAL.into());
    }
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let flags = MpolGetFlags::from_bits_retain(flags);
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let (shown, nodes) = policy_of(task, addr, flags)?;
    if !mode.is_null() {
        task.write_obj(mode, &shown)?;
    }
    if !nodemask.is_null() {
        write_nodes(task, nodemask, maxnode, nodes)?;
    }
    Ok(())
}

/// Returns the first answer of `get_mempolicy(2)` and the nodes of the policy.
fn policy_of(task: &CurrentTask, addr: UserAddr, flags: MpolGetFlags) -> SysResult<(i32, u64)> {
    if flags.contains(MpolGetFlags::MEMS_ALLOWED) {
        let is_alone = flags == MpolGetFlags::MEMS_ALLOWED;
        return if is_alone { Ok((0, NODES)) } else { Err(Errno::EINVAL) };
    }
    let policy = if flags.contains(MpolGetFlags::ADDR) {
        task.mm().inspect(|space| space.policy_at(addr.0))?
    } else if addr.is_null() {
        task.misc.lock().memory_policy
    } else {
        return Err(Errno::EINVAL);
    };
    let mode = policy.map_or(MPOL_DEFAULT, |policy| policy.mode.into());
    let nodes = if matches!(mode, MPOL_DEFAULT | MPOL_LOCAL) { 0 } else { NODES };
    if flags.contains(MpolGetFlags::NODE) {
        // The node of the page, or the one that comes next: the only one.
        let is_next = matches!(mode, MPOL_INTERLEAVE | MPOL_WEIGHTED_INTERLEAVE);
        let is_told = flags.contains(MpolGetFlags::ADDR) || is_next;
        return if is_told { Ok((0, nodes)) } else { Err(Errno::EINVAL) };
    }
    let bits = mode | policy.map_or(0, |policy| policy.flags.bits());
    Ok((i32::try_from(bits).unwrap_or(0), nodes))
}

/// Implements `migrate_pages(2)`: from the only node to the only node.
///
/// <https://man7.org/linux/man-pages/man2/migrate_pages.2.html>
pub(super) fn sys_migrate_pages(
    task: &CurrentTask,
    pid: i32,
    maxnode: u64,
    old_nodes: UserAddr,
    new_nodes: UserAddr,
) -> HandlerResult<()> {
    read_nodes(task, old_nodes, maxnode)?;
    let new = read_nodes(task, new_nodes, maxnode)?;
    let target = target(task, pid)?;
    let may_choose = task.creds().has_capability(CAP_SYS_NICE);
    if !access::may_attach(task, &target) || (new & !NODES != 0 && !may_choose) {
        return Err(Errno::EPERM.into());
    }
    if new & NODES == 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

/// Implements `set_mempolicy_home_node(2)`.
///
/// <https://man7.org/linux/man-pages/man2/set_mempolicy_home_node.2.html>
pub(super) fn sys_set_mempolicy_home_node(
    task: &CurrentTask,
    start: UserAddr,
    len: u64,
    home_node: u64,
    flags: u64,
) -> HandlerResult<()> {
    // In Linux's order: the alignment, the flags, the node, the range, the policies of the areas.
    if !start.0.is_multiple_of(PAGE_SIZE) || flags != 0 || home_node != 0 {
        return Err(Errno::EINVAL.into());
    }
    let range = checked_madvise_range(start, len)?;
    if range.is_empty() {
        return Ok(());
    }
    let takes_one = |mode: u8| matches!(u32::from(mode), MPOL_BIND | MPOL_PREFERRED_MANY);
    let policies = task.mm().inspect(|space| space.policies(&range));
    let all_take_one = policies.iter().flatten().all(|policy| takes_one(policy.mode));
    if policies.iter().flatten().next().is_none() {
        return Err(Errno::ENOENT.into());
    }
    if all_take_one { Ok(()) } else { Err(Errno::EOPNOTSUPP.into()) }
}
