//! The options of `prctl(2)` that concern memory.

use std::sync::Arc;

use sentry_platform::USER_ADDRESS_LIMIT;
use syscalls::abi::capability::CAP_SYS_RESOURCE;
use syscalls::abi::prctl::{
    PR_SET_MM_ARG_END, PR_SET_MM_ARG_START, PR_SET_MM_AUXV, PR_SET_MM_BRK, PR_SET_MM_END_CODE,
    PR_SET_MM_END_DATA, PR_SET_MM_ENV_END, PR_SET_MM_ENV_START, PR_SET_MM_START_BRK,
    PR_SET_MM_START_CODE, PR_SET_MM_START_DATA, PR_SET_MM_START_STACK, PR_SET_VMA_ANON_NAME,
};
use syscalls::{Errno, UserAddr};

use crate::mm::ops::Conflicts;
use crate::mm::space::{MMAP_MIN_ADDR, checked_range};
use crate::task::{CurrentTask, HandlerResult};

/// The most bytes of an area's name with its terminator.
const ANON_NAME_MAX: usize = 80;

/// The most entries of an auxiliary vector: Linux's `AT_VECTOR_SIZE` in pairs.
const AUXV_MAX: usize = 28;

/// Implements `prctl(PR_SET_VMA)`.
pub(super) fn set_vma(
    task: &CurrentTask,
    option: u64,
    addr: u64,
    len: u64,
    name: u64,
) -> HandlerResult {
    if option != PR_SET_VMA_ANON_NAME {
        return Err(Errno::EINVAL.into());
    }
    let name: Option<Arc<[u8]>> = if name == 0 {
        None
    } else {
        let text = match task.read_cstr(UserAddr(name), ANON_NAME_MAX) {
            Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL.into()),
            text => text?,
        };
        let is_good = |byte: &u8| matches!(byte, 0x20..=0x7e) && !b"\\`$[]".contains(byte);
        if !text.iter().all(is_good) {
            return Err(Errno::EINVAL.into());
        }
        Some(text.into())
    };
    let range = checked_range(addr, len, Errno::EINVAL)?;
    if range.is_empty() {
        return Ok(0);
    }
    task.mm().operate(task, &Conflicts::Whole, |space, _, _| {
        space.set_name(&range, name.as_ref()).map(|()| 0)
    })
}

/// Implements `prctl(PR_SET_MM)` for the options that set one value.
pub(super) fn set_mm(task: &CurrentTask, option: u64, value: u64, len: u64) -> HandlerResult {
    if !task.creds().has_capability(CAP_SYS_RESOURCE) {
        return Err(Errno::EPERM.into());
    }
    let mm = task.mm();
    if option == PR_SET_MM_AUXV {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        if len > AUXV_MAX * 16 || len % 16 != 0 {
            return Err(Errno::EINVAL.into());
        }
        let pairs =
            task.read_array::<[u64; 2]>(syscalls::UserPtr::new(UserAddr(value)), len / 16)?;
        mm.change_layout(|layout| {
            layout.auxv = pairs.into_iter().map(|[kind, value]| (kind, value)).collect();
        });
        return Ok(0);
    }
    if !(MMAP_MIN_ADDR..USER_ADDRESS_LIMIT).contains(&value) {
        return Err(Errno::EINVAL.into());
    }
    let needs_mapping = !matches!(option, PR_SET_MM_START_BRK | PR_SET_MM_BRK);
    if needs_mapping && !mm.inspect(|space| space.is_mapped(value)) {
        return Err(Errno::EINVAL.into());
    }
    mm.change_layout(|layout| {
        let field = match option {
            PR_SET_MM_START_CODE => &mut layout.start_code,
            PR_SET_MM_END_CODE => &mut layout.end_code,
            PR_SET_MM_START_DATA => &mut layout.start_data,
            PR_SET_MM_END_DATA => &mut layout.end_data,
            PR_SET_MM_START_STACK => &mut layout.start_stack,
            PR_SET_MM_START_BRK if value <= layout.brk => &mut layout.start_brk,
            PR_SET_MM_BRK if value >= layout.start_brk => &mut layout.brk,
            PR_SET_MM_ARG_START => &mut layout.arg_start,
            PR_SET_MM_ARG_END => &mut layout.arg_end,
            PR_SET_MM_ENV_START => &mut layout.env_start,
            PR_SET_MM_ENV_END => &mut layout.env_end,
            _ => return Err(Errno::EINVAL.into()),
        };
        *field = value;
        Ok(0)
    })
}
