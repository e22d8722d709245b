//! What the system says of itself: names, memory, processors, randomness.

use sentry_host::clock::Clock;
use sentry_host::schedule;
use syscalls::abi::capability::{
    CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYS_PACCT, CAP_SYS_TTY_CONFIG, CAP_SYSLOG,
};
use syscalls::abi::fs::GetrandomFlags;
use syscalls::abi::uts::{PER_LINUX32, Sysinfo, UNAME26, UTS_LEN, Utsname, utsname_field};
use syscalls::{Errno, UserAddr, UserPtr};
use zerocopy::FromZeros;

use crate::mm::user_io::UserBuf;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::io::IoSink;

/// The build line of `uname -v`.
pub(crate) const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC runsc-rs";

/// The bits of a personality that are no flags (`linux/personality.h`).
const PER_MASK: u32 = 0xFF;

fn field(bytes: &[u8]) -> [u8; 65] {
    let mut field = [0; 65];
    for (to, from) in field.iter_mut().zip(bytes.iter().take(UTS_LEN)) {
        *to = *from;
    }
    field
}

/// Returns the kernel version as a program with the personality `UNAME26` sees it: 2.6 and a number
/// that keeps the minor versions of all that came later apart.
fn release_26(release: &str) -> String {
    let numbers = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    let third_dot = release.match_indices('.').nth(2).map_or(release.len(), |(at, _)| at);
    let minor = release.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0u32);
    let rest = release.get(numbers.min(third_dot)..).unwrap_or_default();
    format!("2.6.{}{rest}", minor.saturating_add(60))
}

/// Implements `uname(2)`.
pub(super) fn sys_uname(task: &CurrentTask, buf: UserPtr<Utsname>) -> HandlerResult<()> {
    let names = task.namespaces().uts.lock().clone();
    let mut release = task.kernel.release.clone();
    let personality = task.misc.lock().personality;
    if personality & UNAME26 != 0 {
        release = release_26(&release);
    }
    let mut out = Utsname {
        sysname: utsname_field("Linux"),
        nodename: field(&names.host),
        release: field(release.as_bytes()),
        version: utsname_field(VERSION),
        machine: utsname_field(if personality & PER_MASK == PER_LINUX32 {
            "i686"
        } else {
            "x86_64"
        }),
        domainname: field(&names.domain),
    };
    if names.domain.is_empty() {
        out.domainname = utsname_field("(none)");
    }
    Ok(task.write_obj(buf, &out)?)
}

fn read_name(task: &CurrentTask, name: UserAddr, len: i32) -> HandlerResult<Vec<u8>> {
    if !task.creds().is_capable_in(&task.namespaces().uts.owner, CAP_SYS_ADMIN) {
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
    task.namespaces().uts.lock().host = name;
    Ok(())
}

/// Implements `setdomainname(2)`.
pub(super) fn sys_setdomainname(task: &CurrentTask, name: UserAddr, len: i32) -> HandlerResult<()> {
    let name = read_name(task, name, len)?;
    task.namespaces().uts.lock().domain = name;
    Ok(())
}

/// Implements `sysinfo(2)`.
pub(super) fn sys_sysinfo(task: &CurrentTask, info: UserPtr<Sysinfo>) -> HandlerResult<()> {
    let mut out = Sysinfo::new_zeroed();
    let total = task.container().total_memory();
    // A begun second counts, as on Linux.
    let booted_ns = i64::try_from(task.kernel.clock.boot_ns()).unwrap_or(i64::MAX);
    let up_ns = booted_ns.saturating_add(task.clock_offset_ns(Clock::Boottime));
    out.uptime = up_ns.saturating_add(999_999_999).div_euclid(1_000_000_000);
    out.totalram = total;
    out.freeram = task.container().free_memory();
    out.procs = u16::try_from(task.kernel.n_tasks()).unwrap_or(u16::MAX);
    out.mem_unit = 1;
    Ok(task.write_obj(info, &out)?)
}

/// Implements `getcpu(2)`. Where the platform does not know, it is one on which the thread may be.
pub(super) fn sys_getcpu(
    task: &CurrentTask,
    cpu: UserPtr<u32>,
    node: UserPtr<u32>,
    _tcache: UserAddr,
) -> HandlerResult<()> {
    if !cpu.is_null() {
        let own = task.context().cpu();
        let own = own.unwrap_or_else(|| schedule::first_cpu(&task.misc.lock().affinity));
        task.write_obj(cpu, &own)?;
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

/// Refuses what only an administrator of the host may do, to whom no guest belongs: `reboot(2)`
/// and its relatives.
fn refuse_administration(
    task: &CurrentTask,
    capability: u32,
    otherwise: Errno,
) -> HandlerResult<()> {
    let allowed = task.creds().has_capability(capability);
    Err(if allowed { otherwise } else { Errno::EPERM }.into())
}

/// Implements `swapon(2)`: there are no swap devices.
pub(super) fn sys_swapon(task: &CurrentTask, path: UserAddr, _flags: u32) -> HandlerResult<()> {
    refuse_administration(task, CAP_SYS_ADMIN, Errno::EPERM)?;
    let _ = task.read_path(path)?;
    Err(Errno::EPERM.into())
}

/// Implements `swapoff(2)`: there are no swap devices.
pub(super) fn sys_swapoff(task: &CurrentTask, path: UserAddr) -> HandlerResult<()> {
    let _ = path;
    refuse_administration(task, CAP_SYS_ADMIN, Errno::EINVAL)
}

/// Implements `acct(2)`: process accounting is compiled out.
pub(super) fn sys_acct(task: &CurrentTask, _path: UserAddr) -> HandlerResult<()> {
    refuse_administration(task, CAP_SYS_PACCT, Errno::ENOSYS)
}

/// Implements `vhangup(2)`.
pub(super) fn sys_vhangup(task: &CurrentTask) -> HandlerResult<()> {
    if !task.creds().has_capability(CAP_SYS_TTY_CONFIG) {
        return Err(Errno::EPERM.into());
    }
    // Without a terminal there is nothing to hang up; with one, its session is told.
    if let Some(foreground) =
        task.group.session().terminal.lock().as_ref().and_then(|t| t.foreground())
    {
        let hangup = syscalls::abi::signal::Siginfo::new(
            syscalls::abi::signal::SIGHUP,
            syscalls::abi::signal::SI_KERNEL,
        );
        crate::task::signal::send_to_process_group(&foreground, hangup);
    }
    Ok(())
}

/// Implements `reboot(2)` in a pid namespace that is not the host's (`reboot(2)`, "Behavior inside
/// PID namespaces"): the init process gets a signal that ends it.
pub(super) fn sys_reboot(
    task: &CurrentTask,
    magic: u32,
    magic2: u32,
    command: u32,
    _arg: UserAddr,
) -> HandlerResult<()> {
    const MAGIC: u32 = 0xfee1_dead;
    const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const RESTART: u32 = 0x0123_4567;
    const RESTART2: u32 = 0xa1b2_c3d4;
    const HALT: u32 = 0xcdef_0123;
    const POWER_OFF: u32 = 0x4321_fedc;
    if !task.creds().has_capability(CAP_SYS_BOOT) {
        return Err(Errno::EPERM.into());
    }
    if magic != MAGIC || !MAGIC2.contains(&magic2) {
        return Err(Errno::EINVAL.into());
    }
    let signo = match command {
        RESTART | RESTART2 => syscalls::abi::signal::SIGHUP,
        HALT | POWER_OFF => syscalls::abi::signal::SIGINT,
        _ => return Err(Errno::EINVAL.into()),
    };
    if let Some(init) = task.group.pid_namespace.group(1) {
        let status = syscalls::abi::wait::signaled(signo, false);
        crate::task::signal::post::kill_group(&init, status);
    }
    Ok(())
}

/// Implements `syslog(2)`: the kernel's log, which is empty.
pub(super) fn sys_syslog(
    task: &CurrentTask,
    action: i32,
    buf: UserAddr,
    len: i32,
) -> HandlerResult<i32> {
    const READ: i32 = 2;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CONSOLE_LEVEL: i32 = 8;
    const SIZE_UNREAD: i32 = 9;
    const SIZE_BUFFER: i32 = 10;
    /// The default of `CONFIG_LOG_BUF_SHIFT`.
    const BUFFER_SIZE: i32 = 1 << 17;
    if !task.creds().has_capability(CAP_SYSLOG) {
        return Err(Errno::EPERM.into());
    }
    if !(0..=SIZE_BUFFER).contains(&action) {
        return Err(Errno::EINVAL.into());
    }
    match action {
        READ | READ_ALL | READ_CLEAR if buf.is_null() || len < 0 => Err(Errno::EINVAL.into()),
        CONSOLE_LEVEL if !(1..=8).contains(&len) => Err(Errno::EINVAL.into()),
        SIZE_UNREAD => Ok(0),
        SIZE_BUFFER => Ok(BUFFER_SIZE),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::release_26;

    #[test]
    fn old_programs_see_a_release_that_they_can_parse() {
        for (release, seen) in [
            ("6.12.0", "2.6.72"),
            ("6.1.0-18-amd64", "2.6.61-18-amd64"),
            ("3.10.0.1", "2.6.70.1"),
            ("4.19", "2.6.79"),
        ] {
            assert_eq!(release_26(release), seen);
        }
    }
}
