//! `linux.resources` of config.json and what `update` changes of them, as values of control files.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Cgroup;
use crate::spec::fields::Fields;

/// How many host processes and threads a sandbox has besides the guest's own, at most: the sentry
/// limits the guest itself.
const HOST_TASKS: i64 = 64;

/// The least limit of tasks that the host is given as it is.
const LEAST_EXACT_LIMIT: i64 = 4 * HOST_TASKS;

/// `cpu.cfs_period_us` of a group for which nobody has set it.
pub(super) const DEFAULT_PERIOD: u64 = 100_000;

/// Values to write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    settings: Vec<Setting>,
    /// Bytes of memory, for the guest to see.
    pub(crate) memory: Option<u64>,
    /// Most tasks of the guest.
    pub(crate) pids: Option<u64>,
    /// Processors that the quota of processor time comes to.
    pub(crate) cpus: Option<usize>,
    /// Microseconds of processor time, negative for no limit, and of the period.
    pub(super) quota: Option<(i64, Option<u64>)>,
}

/// One field, and what it is in each version.
#[derive(Clone, Debug)]
struct Setting {
    /// The field's name, for messages.
    field: String,
    /// Controller, file, value.
    v1: Option<(String, String, String)>,
    /// File and value.
    v2: Option<(String, String)>,
}

impl Limits {
    /// Returns whether nothing is limited.
    pub(crate) fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    fn push(
        &mut self,
        field: String,
        v1: Option<(&str, &str, String)>,
        v2: Option<(&str, String)>,
    ) {
        let v1 = v1.map(|(controller, file, value)| (controller.into(), file.into(), value));
        let v2 = v2.map(|(file, value)| (file.into(), value));
        self.settings.push(Setting { field, v1, v2 });
    }

    /// Returns the files and values of version 2, or of version 1.
    pub(super) fn of_version(&self, is_unified: bool) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().filter_map(move |setting| {
            if is_unified {
                setting.v2.as_ref().map(|(file, value)| (&**file, &**value))
            } else {
                setting.v1.as_ref().map(|(_, file, value)| (&**file, &**value))
            }
        })
    }

    /// Writes the values.
    pub(crate) fn apply(&self, cgroup: &Cgroup) -> anyhow::Result<()> {
        let mut pending: Vec<&Setting> = self.settings.iter().collect();
        // Two limits that bound each other can be written in one order only, which depends on what
        // they were: those that fail are tried once more.
        let mut is_retry = false;
        while !pending.is_empty() {
            let mut failed = Vec::new();
            let mut first_error = None;
            for setting in pending {
                if let Err(error) = setting.apply(cgroup) {
                    failed.push(setting);
                    first_error.get_or_insert(error);
                }
            }
            if let Some(error) = first_error
                && is_retry
            {
                return Err(error);
            }
            is_retry = true;
            pending = failed;
        }
        Ok(())
    }
}

impl Setting {
    fn apply(&self, cgroup: &Cgroup) -> anyhow::Result<()> {
        if let Some((controller, file, value)) = &self.v1
            && let Some(dir) = cgroup.controller(controller)
        {
            return self.write(dir, file, value);
        }
        if let Some((file, value)) = &self.v2
            && let Some(dir) = cgroup.unified()
            && dir.join(file).exists()
        {
            return self.write(dir, file, value);
        }
        bail!("{}: the host has no cgroup controller for it (see --ignore-cgroups)", self.field)
    }

    fn write(&self, dir: &Path, file: &str, value: &str) -> anyhow::Result<()> {
        let path = dir.join(file);
        // One line at a time, as these files want it.
        for line in value.lines() {
            fs::write(&path, line).with_context(|| {
                format!("{}: writing {line:?} to {}", self.field, path.display())
            })?;
        }
        Ok(())
    }
}

/// Reads the object.
pub(crate) fn read(mut resources: Fields, warnings: &mut Vec<String>) -> anyhow::Result<Limits> {
    let mut limits = Limits::default();
    if let Some(memory) = resources.object("memory")? {
        read_memory(&mut limits, memory, warnings)?;
    }
    if let Some(cpu) = resources.object("cpu")? {
        read_cpu(&mut limits, cpu, warnings)?;
    }
    if let Some(mut pids) = resources.object("pids")? {
        let field = pids.name("limit");
        if let Some(limit) = pids.optional::<i64>("limit")?
            && limit != 0
        {
            let (guest, host) = share_of_tasks(limit);
            limits.pids = u64::try_from(guest).ok();
            let value = if limit < 0 { "max".to_owned() } else { host.to_string() };
            limits.push(
                field,
                Some(("pids", "pids.max", value.clone())),
                Some(("pids.max", value)),
            );
        }
        pids.finish(warnings);
    }
    if let Some(block) = resources.object("blockIO")? {
        read_block(&mut limits, block, warnings)?;
    }
    for mut entry in resources.objects("hugepageLimits")? {
        let size: String = entry.required("pageSize")?;
        let limit: u64 = entry.required("limit")?;
        let v1 = format!("hugetlb.{size}.limit_in_bytes");
        let v2 = format!("hugetlb.{size}.max");
        let field = entry.name("limit");
        let value = limit.to_string();
        limits.push(field, Some(("hugetlb", &v1, value.clone())), Some((&v2, value)));
        entry.finish(warnings);
    }
    if let Some(mut network) = resources.object("network")? {
        if let Some(class) = network.optional::<u32>("classID")? {
            let field = network.name("classID");
            limits.push(field, Some(("net_cls", "net_cls.classid", class.to_string())), None);
        }
        for mut entry in network.objects("priorities")? {
            let (name, priority): (String, u32) =
                (entry.required("name")?, entry.required("priority")?);
            let value = format!("{name} {priority}");
            limits.push(entry.name("name"), Some(("net_prio", "net_prio.ifpriomap", value)), None);
            entry.finish(warnings);
        }
        network.finish(warnings);
    }
    if let Some(unified) =
        resources.optional::<std::collections::BTreeMap<String, String>>("unified")?
    {
        for (file, value) in unified {
            if file.contains('/') {
                bail!("{}: {file:?} is no file name", resources.name("unified"));
            }
            let field = resources.name(&format!("unified.{file}"));
            limits.push(field, None, Some((&file, value)));
        }
    }
    // Which devices of the host a group admits: a sandbox has none of them.
    resources.ignore("devices");
    resources.finish(warnings);
    Ok(limits)
}

/// Returns the tasks that a guest may have of a limit, and what the limit is on the host: as it was
/// asked for, where the sandbox's own processes and threads fit in; with room for them where the
/// guest would hardly get any. Either way it is the sentry that refuses the guest, which is never
/// short of a thread itself.
fn share_of_tasks(limit: i64) -> (i64, i64) {
    match limit {
        ..0 => (limit, limit),
        0..LEAST_EXACT_LIMIT => (limit, limit.saturating_add(HOST_TASKS)),
        _ => (limit.saturating_sub(HOST_TASKS), limit),
    }
}

fn read_memory(
    limits: &mut Limits,
    mut memory: Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    let or_max = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let limit = memory.optional::<i64>("limit")?.filter(|limit| *limit != 0);
    if let Some(limit) = limit {
        if limit < -1 {
            bail!("{}: {limit} is no size: -1 is none", memory.name("limit"));
        }
        limits.memory = u64::try_from(limit).ok();
        let v1 = ("memory", "memory.limit_in_bytes", limit.to_string());
        limits.push(memory.name("limit"), Some(v1), Some(("memory.max", or_max(limit))));
    }
    if let Some(reservation) = memory.optional::<i64>("reservation")?.filter(|it| *it != 0) {
        let v1 = ("memory", "memory.soft_limit_in_bytes", reservation.to_string());
        let v2 = ("memory.low", or_max(reservation));
        limits.push(memory.name("reservation"), Some(v1), Some(v2));
    }
    if let Some(swap) = memory.optional::<i64>("swap")?.filter(|it| *it != 0) {
        // Version 1 counts memory and swap together, version 2 swap alone.
        let alone = match (swap, limit) {
            (..0, _) => "max".to_owned(),
            (_, Some(limit)) if limit > 0 && swap >= limit => (swap - limit).to_string(),
            _ => bail!("{}: has to be at least memory.limit", memory.name("swap")),
        };
        let v1 = ("memory", "memory.memsw.limit_in_bytes", swap.to_string());
        limits.push(memory.name("swap"), Some(v1), Some(("memory.swap.max", alone)));
    }
    if let Some(swappiness) = memory.optional::<u64>("swappiness")? {
        let v1 = ("memory", "memory.swappiness", swappiness.to_string());
        limits.push(memory.name("swappiness"), Some(v1), None);
    }
    if memory.optional("disableOOMKiller")?.unwrap_or(false) {
        let v1 = ("memory", "memory.oom_control", "1".to_owned());
        limits.push(memory.name("disableOOMKiller"), Some(v1), None);
    }
    // How groups have been made since version 1 knew anything else.
    let _: Option<bool> = memory.optional("useHierarchy")?;
    // The kernel's own memory has had no limit of its own since Linux 5.16; runc ignores them, too.
    let _: Option<i64> = memory.optional("kernel")?;
    let _: Option<i64> = memory.optional("kernelTCP")?;
    // The kernel refuses a limit below what is used where it cannot free as much.
    let _: Option<bool> = memory.optional("checkBeforeUpdate")?;
    memory.finish(warnings);
    Ok(())
}

/// Returns how many processors a quota of microseconds in each period comes to, as gVisor has it: rounded up, and
/// not less than two. `None` for no quota.
pub(crate) fn cpus_of_quota(quota: i64, period: Option<u64>) -> Option<usize> {
    let quota = u64::try_from(quota).ok().filter(|quota| *quota > 0)?;
    let period = period.filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD);
    usize::try_from(quota.div_ceil(period).max(2)).ok()
}

fn read_cpu(
    limits: &mut Limits,
    mut cpu: Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    if let Some(shares) = cpu.optional::<u64>("shares")?.filter(|it| *it != 0) {
        // The conversion that runtimes and systemd have agreed on: 2..=262144 to 1..=10000.
        let clamped = shares.clamp(2, 262_144);
        let weight = 1 + (clamped - 2) * 9999 / 262_142;
        let v1 = ("cpu", "cpu.shares", shares.to_string());
        limits.push(cpu.name("shares"), Some(v1), Some(("cpu.weight", weight.to_string())));
    }
    let period = cpu.optional::<u64>("period")?.filter(|it| *it != 0);
    let quota = cpu.optional::<i64>("quota")?.filter(|it| *it != 0);
    limits.quota = match (quota, period) {
        (None, None) => None,
        (quota, period) => Some((quota.unwrap_or(-1), period)),
    };
    limits.cpus = quota.and_then(|quota| cpus_of_quota(quota, period));
    let text = |quota: Option<i64>| match quota {
        Some(quota) if quota > 0 => quota.to_string(),
        _ => "max".to_owned(),
    };
    if let Some(period) = period {
        let v1 = ("cpu", "cpu.cfs_period_us", period.to_string());
        let v2 = ("cpu.max", format!("{} {period}", text(quota)));
        limits.push(cpu.name("period"), Some(v1), Some(v2));
    }
    if let Some(quota) = quota {
        let v1 = ("cpu", "cpu.cfs_quota_us", quota.to_string());
        let v2 = match period {
            Some(period) => format!("{} {period}", text(Some(quota))),
            None => text(Some(quota)),
        };
        limits.push(cpu.name("quota"), Some(v1), Some(("cpu.max", v2)));
    }
    for (field, v1, v2) in [
        ("burst", "cpu.cfs_burst_us", Some("cpu.max.burst")),
        ("realtimePeriod", "cpu.rt_period_us", None),
        ("idle", "cpu.idle", Some("cpu.idle")),
    ] {
        if let Some(value) = cpu.optional::<u64>(field)?.filter(|it| *it != 0) {
            let value = value.to_string();
            let v2 = v2.map(|file| (file, value.clone()));
            limits.push(cpu.name(field), Some(("cpu", v1, value)), v2);
        }
    }
    if let Some(runtime) = cpu.optional::<i64>("realtimeRuntime")?.filter(|it| *it != 0) {
        let v1 = ("cpu", "cpu.rt_runtime_us", runtime.to_string());
        limits.push(cpu.name("realtimeRuntime"), Some(v1), None);
    }
    for (field, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        if let Some(list) = cpu.optional::<String>(field)?.filter(|list| !list.is_empty()) {
            limits.push(cpu.name(field), Some(("cpuset", file, list.clone())), Some((file, list)));
        }
    }
    cpu.finish(warnings);
    Ok(())
}

fn read_block(
    limits: &mut Limits,
    mut block: Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    if let Some(weight) = block.optional::<u64>("weight")?.filter(|it| *it != 0) {
        if !(10..=1000).contains(&weight) {
            bail!("{}: has to be from 10 to 1000", block.name("weight"));
        }
        let v1 = ("blkio", "blkio.bfq.weight", weight.to_string());
        // As runc converts it.
        let converted = 1 + (weight - 10) * 9999 / 990;
        let v2 = ("io.weight", format!("default {converted}"));
        limits.push(block.name("weight"), Some(v1), Some(v2));
    }
    for (list, v1, key) in [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
    ] {
        for mut entry in block.objects(list)? {
            let (major, minor, rate): (i64, i64, u64) =
                (entry.required("major")?, entry.required("minor")?, entry.required("rate")?);
            let v1 = ("blkio", v1, format!("{major}:{minor} {rate}"));
            let v2 = ("io.max", format!("{major}:{minor} {key}={rate}"));
            limits.push(entry.name("rate"), Some(v1), Some(v2));
            entry.finish(warnings);
        }
    }
    // Of the scheduler that Linux 5.0 has dropped.
    let _: Option<u64> = block.optional("leafWeight")?;
    block.finish(warnings);
    Ok(())
}

/// Reads the object from the text of a file.
pub(crate) fn parse(text: &[u8], warnings: &mut Vec<String>) -> anyhow::Result<Limits> {
    let value: Value = serde_json::from_slice(text).context("not JSON")?;
    read(Fields::new(value, "")?, warnings)
}

#[cfg(test)]
mod tests {
    use super::cpus_of_quota;

    #[test]
    fn a_quota_comes_to_whole_processors() {
        assert_eq!(cpus_of_quota(250_000, Some(100_000)), Some(3));
        assert_eq!(cpus_of_quota(400_000, None), Some(4));
        assert_eq!(cpus_of_quota(10_000, Some(100_000)), Some(2));
        assert_eq!(cpus_of_quota(-1, Some(100_000)), None);
    }
}
