//! What the system says of itself: names, memory, processors, randomness.

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::fs::GetrandomFlags;
use syscalls::abi::uts::{Sysinfo, UTS_LEN, Utsname, utsname_field};
use syscalls::{Errno, UserAddr, UserPtr};
use zerocopy::FromZeros;

use crate::mm::user_io::UserBuf;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::io::IoSink;

/// The kernel version that the guest sees.
pub(crate) const RELEASE: &str = "6.12.0";

/// The build line of `uname -v`.
pub(crate) const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC runsc-rs";

fn field(bytes: &[u8]) -> [u8; 65] {
    let mut field = [0; 65];
    for (to, from) in field.iter_mut().zip(bytes.iter().take(UTS_LEN)) {
        *to = *from;
    }
    field
}

/// Implements `uname(2)`.
pub(super) fn sys_uname(task: &CurrentTask, buf: UserPtr<Utsname>) -> HandlerResult<()> {
    let names = task.kernel.host_name.lock().clone();
    let mut out = Utsname {
        sysname: utsname_field("Linux"),
        nodename: field(&names.0),
        release: utsname_field(RELEASE),
        version: utsname_field(VERSION),
        machine: utsname_field("x86_64"),
        domainname: field(&names.1),
    };
    if names.1.is_empty() {
        out.domainname = utsname_field("(none)");
    }
    Ok(task.write_obj(buf, &out)?)
}

fn read_name(task: &CurrentTask, name: UserAddr, len: i32) -> HandlerResult<Vec<u8>> {
    if !task.creds().has_capability(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > UTS_LEN {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; len];
    task.read_bytes(name, &mut bytes)?;
    Ok(bytes)
}

/// Implements `sethostname(2)`.
pub(super) fn sys_sethostname(task: &CurrentTask, name: UserAddr, len: i32) -> HandlerResult<()> {
    let name = read_name(task, name, len)?;
    task.kernel.host_name.lock().0 = name;
    Ok(())
}

/// Implements `setdomainname(2)`.
pub(super) fn sys_setdomainname(task: &CurrentTask, name: UserAddr, len: i32) -> HandlerResult<()> {
    let name = read_name(task, name, len)?;
    task.kernel.host_name.lock().1 = name;
    Ok(())
}

/// Implements `sysinfo(2)`.
pub(super) fn sys_sysinfo(task: &CurrentTask, info: UserPtr<Sysinfo>) -> HandlerResult<()> {
    let mut out = Sysinfo::new_zeroed();
    let total = task.kernel.total_memory();
    out.uptime = i64::try_from(task.kernel.clock.boot_ns() / 1_000_000_000).unwrap_or(0);
    out.totalram = total;
    out.freeram = task.kernel.free_memory();
    out.procs = u16::try_from(task.kernel.n_tasks()).unwrap_or(u16::MAX);
    out.mem_unit = 1;
    Ok(task.write_obj(info, &out)?)
}

/// Implements `getcpu(2)`.
pub(super) fn sys_getcpu(
    task: &CurrentTask,
    cpu: UserPtr<u32>,
    node: UserPtr<u32>,
    _tcache: UserAddr,
) -> HandlerResult<()> {
    if !cpu.is_null() {
        task.write_obj(cpu, &0)?;
    }
    if !node.is_null() {
        task.write_obj(node, &0)?;
    }
    Ok(())
}

/// Implements `getrandom(2)`.
pub(super) fn sys_getrandom(
    task: &CurrentTask,
    buf: UserAddr,
    len: usize,
    flags: u32,
) -> HandlerResult<usize> {
    let flags = GetrandomFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if flags.contains(GetrandomFlags::RANDOM | GetrandomFlags::INSECURE) {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(0x1ff_ffff);
    let mut out = UserBuf::new(task, buf, len);
    let mut done = 0;
    let mut chunk = [0; 256];
    while done < len {
        let n = (len - done).min(chunk.len());
        sentry_host::random::fill(&mut chunk)?;
        match out.put(chunk.get(..n).unwrap_or_default()) {
            Ok(put) => {
                done += put;
                if put < n {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno.into()),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Implements `personality(2)`: only the default execution domain and its address-space flags.
pub(super) fn sys_personality(task: &CurrentTask, persona: u32) -> HandlerResult<u32> {
    let mut misc = task.misc.lock();
    let old = misc.personality;
    if persona != u32::MAX {
        misc.personality = persona;
    }
    Ok(old)
}
