//! How soon the kernel kills a process when memory runs out (`proc_pid_oom_score_adj(5)`).

use std::{fs, io};

/// Sets how soon the kernel kills this process and whatever it starts when memory runs out. Where
/// the caller may not lower it, it stays what it is: managers ask for less than they may.
pub(crate) fn set(value: i32) -> io::Result<()> {
    if value == 0 {
        return Ok(());
    }
    write("self", value)
}

/// As [`set`], to what another process has.
pub(crate) fn set_like(pid: i32) -> io::Result<()> {
    fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))
        .and_then(|value| value.trim().parse().map_err(io::Error::other))
        .and_then(|value| write("self", value))
}

/// As [`set`], for another process; `spared` is one that is to outlive it.
pub(crate) fn set_of(pid: i32, value: i32, spared: i32) -> io::Result<()> {
    const MAX: i32 = 1000;
    const DISTANCE: i32 = 300;
    let lowest = fs::read_to_string(format!("/proc/{spared}/oom_score_adj"))?;
    let lowest: i32 = lowest.trim().parse().map_err(io::Error::other)?;
    let value = if value > lowest { value } else { lowest.saturating_add(DISTANCE).min(MAX) };
    write(&pid.to_string(), value)
}

fn write(process: &str, value: i32) -> io::Result<()> {
    match fs::write(format!("/proc/{process}/oom_score_adj"), value.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}
