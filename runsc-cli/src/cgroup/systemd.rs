//! Control groups as units of systemd: a scope for each container, which systemd makes, names and removes.
//!
//! systemd owns the tree of groups where it is the driver (`Delegate=` in systemd.resource-control(5)). Limits are
//! properties of the scope besides being written to the files, so that a reload of systemd does not undo them. As
//! in runc, `linux.cgroupsPath` is `SLICE:PREFIX:NAME`, and annotations `org.systemd.property.NAME` are properties.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::dbus::{Body, CallError, Connection, Method, Value};
use super::limits::{DEFAULT_PERIOD, Limits};
use crate::sys;

/// The suffix of a unit that is a container's.
const SCOPE: &str = ".scope";
const SLICE: &str = ".slice";

/// Prefix of the annotations that are properties of the scope.
const PROPERTY: &str = "org.systemd.property.";

/// The rule for the signals that tell of the end of a job.
const JOB_REMOVED: &str =
    "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    slice: String,
    name: String,
    /// Properties by annotations, as they stand there.
    properties: BTreeMap<String, String>,
}

impl Unit {
    /// Reads `linux.cgroupsPath` and the annotations.
    pub(super) fn new(
        path: Option<&str>,
        id: &str,
        annotations: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let default_slice = if is_system() { "system.slice" } else { "user.slice" };
        let (slice, prefix, name) = match path.filter(|path| !path.is_empty()) {
            None => (default_slice, "runsc", id),
            Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
                [slice, prefix, name] if !name.is_empty() => (slice, prefix, name),
                // In runc's words.
                _ => bail!(
                    "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd \
                     cgroups, got {path:?} instead"
                ),
            },
        };
        let slice = if slice.is_empty() { default_slice } else { slice };
        expand_slice(slice)?;
        let name = match prefix {
            "" => format!("{name}{SCOPE}"),
            _ => format!("{prefix}-{name}{SCOPE}"),
        };
        let is_valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.len() > 255 || !name.chars().all(is_valid) {
            bail!("linux.cgroupsPath: {name:?} is no name of a systemd unit");
        }
        let properties = annotations.iter().filter_map(|(key, value)| {
            Some((key.strip_prefix(PROPERTY)?.to_owned(), value.clone()))
        });
        let unit = Self { slice: slice.to_owned(), name, properties: properties.collect() };
        unit.extra()?;
        Ok(unit)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns a scope beside this one.
    pub(super) fn beside(&self, suffix: &str) -> Self {
        let stem = self.name.strip_suffix(SCOPE).unwrap_or(&self.name);
        Self { name: format!("{stem}{suffix}{SCOPE}"), ..self.clone() }
    }

    /// Returns a scope of another name in the same slice.
    pub(super) fn sibling(&self, name: &str) -> Self {
        Self { name: format!("{name}{SCOPE}"), ..self.clone() }
    }

    /// Returns where the group is below the root of each hierarchy.
    pub(super) fn path(&self) -> anyhow::Result<PathBuf> {
        let mut manager = Manager::connect()?;
        let own = manager.control_group().context("asking systemd for its control group")?;
        let slice = expand_slice(&self.slice)?;
        Ok(Path::new(own.trim_matches('/')).join(slice).join(&self.name))
    }

    /// Makes the scope with processes in it.
    pub(super) fn start(&self, pids: &[u32], limits: Properties) -> anyhow::Result<()> {
        let property = |name: &str, value: Value| (name.to_owned(), value);
        let mut properties = vec![
            property("Description", Value::Str(format!("container {}", self.name))),
            property("Slice", Value::Str(self.slice.clone())),
            property("Delegate", Value::Bool(true)),
            property("PIDs", Value::U32s(pids.to_vec())),
            property("DefaultDependencies", Value::Bool(false)),
        ];
        for kind in ["Memory", "CPU", "IO", "Tasks"] {
            properties.push(property(&format!("{kind}Accounting"), Value::Bool(true)));
        }
        properties.extend(self.extra()?);
        properties.extend(limits.0);
        let mut manager = Manager::connect()?;
        let result = match manager.start(&self.name, &properties) {
            Err(CallError::Answer { name, .. }) if name.ends_with(".UnitExists") => {
                // One that has failed and was never looked at.
                manager.reset_failed(&self.name);
                manager.start(&self.name, &properties)
            }
            result => result,
        };
        match result.with_context(|| format!("systemd: starting {}", self.name))?.as_str() {
            "done" => Ok(()),
            other => {
                manager.reset_failed(&self.name);
                bail!("systemd: starting {}: {other}", self.name)
            }
        }
    }

    /// Moves processes into the scope.
    pub(super) fn attach(&self, pid: u32) -> anyhow::Result<()> {
        Manager::connect()?
            .attach(&self.name, pid)
            .with_context(|| format!("systemd: moving a process to {}", self.name))
    }

    /// Changes limits of the scope until it ends.
    pub(super) fn set(&self, limits: &Properties) -> anyhow::Result<()> {
        if limits.0.is_empty() {
            return Ok(());
        }
        Manager::connect()?
            .set(&self.name, &limits.0)
            .with_context(|| format!("systemd: setting properties of {}", self.name))
    }

    /// Removes the scope, whose processes have ended.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        let mut manager = Manager::connect()?;
        match manager.stop(&self.name) {
            // It ends by itself with its last process.
            Err(CallError::Answer { name, .. }) if name.ends_with(".NoSuchUnit") => {}
            result => drop(result.with_context(|| format!("systemd: stopping {}", self.name))?),
        }
        manager.reset_failed(&self.name);
        Ok(())
    }

    /// Reads the properties of annotations.
    fn extra(&self) -> anyhow::Result<Vec<(String, Value)>> {
        let read = |(name, text): (&String, &String)| {
            let value = parse(text).with_context(|| {
                format!("annotations: {PROPERTY}{name}: {text:?} is no value of a known type")
            })?;
            // As runc: systemd's own names of times are of microseconds.
            match (name.strip_suffix("Sec"), seconds(&value)) {
                (Some(stem), Some(seconds)) => {
                    Ok((format!("{stem}USec"), Value::U64(seconds.saturating_mul(1_000_000))))
                }
                _ => Ok((name.clone(), value)),
            }
        };
        self.properties.iter().map(read).collect()
    }
}

/// Limits as properties of a unit, systemd.resource-control(5).
pub(super) struct Properties(Vec<(String, Value)>);

impl Properties {
    /// Converts what there are properties for. `is_unified` where the host has version 2 only.
    pub(super) fn of(limits: &Limits, is_unified: bool) -> Self {
        let mut properties = Vec::new();
        let mut set = |name: &str, value: Value| {
            properties.retain(|(known, _): &(String, Value)| known != name);
            properties.push((name.to_owned(), value));
        };
        for (file, value) in limits.of_version(is_unified) {
            let number = || match value.trim() {
                "max" | "-1" => Some(u64::MAX),
                text => text.parse().ok(),
            };
            let name = match file {
                "memory.max" => "MemoryMax",
                "memory.high" => "MemoryHigh",
                "memory.low" => "MemoryLow",
                "memory.min" => "MemoryMin",
                "memory.swap.max" => "MemorySwapMax",
                "memory.limit_in_bytes" => "MemoryLimit",
                "cpu.weight" => "CPUWeight",
                "cpu.shares" => "CPUShares",
                "pids.max" => "TasksMax",
                "cpuset.cpus" | "cpuset.mems" => {
                    let name =
                        if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                    if let Some(bits) = bits(value) {
                        set(name, Value::Bytes(bits));
                    }
                    continue;
                }
                _ => continue,
            };
            if let Some(number) = number() {
                // systemd takes no zero for it.
                set(name, Value::U64(if name == "TasksMax" { number.max(1) } else { number }));
            }
        }
        if let Some((quota, period)) = limits.quota {
            let per_second = match u64::try_from(quota) {
                Ok(quota @ 1..) => per_second(quota, period.unwrap_or(DEFAULT_PERIOD)),
                _ => u64::MAX,
            };
            set("CPUQuotaPerSecUSec", Value::U64(per_second));
            if let Some(period) = period {
                set("CPUQuotaPeriodUSec", Value::U64(period));
            }
        }
        Self(properties)
    }

    /// The greatest share of processor time among siblings.
    pub(super) fn preferred(is_unified: bool) -> Self {
        let (name, value) = if is_unified { ("CPUWeight", 10_000) } else { ("CPUShares", 262_144) };
        Self(vec![(name.to_owned(), Value::U64(value))])
    }
}

/// Returns microseconds of processor time in a second, in the steps of a percent that systemd knows.
fn per_second(quota: u64, period: u64) -> u64 {
    let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(exact).map_or(u64::MAX, |exact| exact.div_ceil(10_000).saturating_mul(10_000))
}

/// Reads a list such as `0-3,7` as the bits that systemd takes. `None` for what is no list.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // More processors than Linux has.
        if last > 65_535 {
            return None;
        }
        for bit in first..=last {
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0);
            }
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(bits)
}

/// Returns the path of a slice, `a-b.slice` being in `a.slice`.
fn expand_slice(slice: &str) -> anyhow::Result<PathBuf> {
    let invalid = || format!("linux.cgroupsPath: invalid slice name: {slice}");
    let stem = slice.strip_suffix(SLICE).filter(|stem| !stem.is_empty() && !stem.contains('/'));
    let stem = stem.with_context(invalid)?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            bail!(invalid());
        }
        name.push_str(part);
        path.push(format!("{name}{SLICE}"));
        name.push('-');
    }
    Ok(path)
}

fn seconds(value: &Value) -> Option<u64> {
    match *value {
        Value::U32(value) => Some(value.into()),
        Value::U64(value) => Some(value),
        Value::I32(value) => value.try_into().ok(),
        Value::I64(value) => value.try_into().ok(),
        _ => None,
    }
}

/// Reads a value in GVariant's text form: of its types those that properties of scopes have.
fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(list) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
        return words.map(quoted).collect::<Option<_>>().map(Value::Strs);
    }
    match text.split_once(' ') {
        Some(("uint64", number)) => return number.trim().parse().ok().map(Value::U64),
        Some(("uint32", number)) => return number.trim().parse().ok().map(Value::U32),
        Some(("int64", number)) => return number.trim().parse().ok().map(Value::I64),
        Some(("int32", number)) => return number.trim().parse().ok().map(Value::I32),
        _ => {}
    }
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => text.parse().ok().map(Value::I32).or_else(|| quoted(text).map(Value::Str)),
    }
}

fn quoted(text: &str) -> Option<String> {
    let inner = ['\'', '"'].iter().find_map(|quote| {
        text.strip_prefix(*quote)?.strip_suffix(*quote).filter(|inner| !inner.contains(*quote))
    })?;
    (!inner.contains('\\')).then(|| inner.to_owned())
}

/// Tells whether the system's systemd is asked, and not that of a user.
fn is_system() -> bool {
    sys::effective_ids().0 == 0 && sys::is_initial_user_namespace()
}

/// systemd.
struct Manager(Connection);

impl Manager {
    fn connect() -> anyhow::Result<Self> {
        let mut first_error = None;
        for (path, is_bus) in sockets()? {
            match Connection::open(&path, is_bus) {
                Ok(mut connection) => {
                    if is_bus {
                        connection.add_match(JOB_REMOVED)?;
                    }
                    let mut manager = Self(connection);
                    manager.manage("Subscribe", &Body::default()).context("systemd: Subscribe")?;
                    return Ok(manager);
                }
                Err(error) => {
                    let error = anyhow::Error::from(error)
                        .context(format!("connecting to {}", path.display()));
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| anyhow::anyhow!("no socket")))
            .context("--systemd-cgroup: systemd does not answer: use the manager's cgroupfs driver")
    }

    fn manage(&mut self, name: &str, body: &Body) -> Result<String, CallError> {
        self.0.call(method("org.freedesktop.systemd1.Manager", name), body)
    }

    fn control_group(&mut self) -> Result<String, CallError> {
        let body = Body::default().str("org.freedesktop.systemd1.Manager").str("ControlGroup");
        self.0.call(method("org.freedesktop.DBus.Properties", "Get"), &body)
    }

    /// Starts a unit and returns how that has ended.
    fn start(&mut self, unit: &str, properties: &[(String, Value)]) -> Result<String, CallError> {
        let body = Body::default().str(unit).str("replace").properties(properties).no_units();
        let job = self.manage("StartTransientUnit", &body)?;
        Ok(self.0.wait_for_job(&job)?)
    }

    fn stop(&mut self, unit: &str) -> Result<String, CallError> {
        let job = self.manage("StopUnit", &Body::default().str(unit).str("replace"))?;
        Ok(self.0.wait_for_job(&job)?)
    }

    fn set(&mut self, unit: &str, properties: &[(String, Value)]) -> Result<(), CallError> {
        let body = Body::default().str(unit).bool(true).properties(properties);
        self.manage("SetUnitProperties", &body).map(drop)
    }

    fn attach(&mut self, unit: &str, pid: u32) -> Result<(), CallError> {
        let body = Body::default().str(unit).str("").u32s(&[pid]);
        self.manage("AttachProcessesToUnit", &body).map(drop)
    }

    /// Forgets a unit that has failed; there is none as a rule.
    fn reset_failed(&mut self, unit: &str) {
        let _ = self.manage("ResetFailedUnit", &Body::default().str(unit));
    }
}

fn method<'a>(interface: &'a str, name: &'a str) -> Method<'a> {
    Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface,
        name,
    }
}

/// Returns the sockets on which systemd may be asked, and whether each is a bus.
fn sockets() -> anyhow::Result<Vec<(PathBuf, bool)>> {
    if is_system() {
        return Ok(vec![
            ("/run/systemd/private".into(), false),
            ("/run/dbus/system_bus_socket".into(), true),
        ]);
    }
    let mut sockets = Vec::new();
    let address = env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    for address in address.split(';') {
        let path = address.strip_prefix("unix:path=").and_then(|rest| rest.split(',').next());
        sockets.extend(path.map(|path| (PathBuf::from(path), true)));
    }
    if let Some(dir) = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        sockets.extend([(dir.join("bus"), true), (dir.join("systemd/private"), false)]);
    }
    if sockets.is_empty() {
        bail!(
            "--systemd-cgroup: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR says where the user's systemd is"
        );
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::{Unit, Value, bits, expand_slice, parse, per_second};

    #[test]
    fn units_are_named_by_the_path() {
        let unit = |path: Option<&str>| Unit::new(path, "id", &Default::default());
        let name = |path: Option<&str>| unit(path).map(|unit| (unit.slice, unit.name));
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let named = name(Some("kubepods-pod1.slice:cri-containerd:c1")).ok();
        assert_eq!(named, Some(pair("kubepods-pod1.slice", "cri-containerd-c1.scope")));
        assert_eq!(name(Some("a.slice::c")).ok(), Some(pair("a.slice", "c.scope")));
        assert_eq!(name(None).ok().map(|pair| pair.1), Some("runsc-id.scope".to_owned()));
        for path in ["/a/b", "a.slice:b", "a:b:c", "a.slice:b:", "a.slice:b:c/d"] {
            assert!(unit(Some(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn slices_are_in_one_another() {
        let path = |slice| expand_slice(slice).ok().map(|path| path.display().to_string());
        assert_eq!(path("a-b-c.slice").as_deref(), Some("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(path("-.slice").as_deref(), Some(""));
        for slice in ["a", ".slice", "a--b.slice", "a/b.slice", "-a.slice"] {
            assert_eq!(path(slice), None, "{slice}");
        }
    }

    #[test]
    fn values_are_converted() {
        assert_eq!(bits("0-2,9"), Some(vec![7, 2]));
        assert_eq!(bits("x"), None);
        assert_eq!(per_second(50_000, 100_000), 500_000);
        assert_eq!(per_second(12_345, 100_000), 130_000);
        assert_eq!(parse("uint64 3000"), Some(Value::U64(3000)));
        assert_eq!(parse("'inactive-or-failed'"), Some(Value::Str("inactive-or-failed".into())));
        assert_eq!(
            parse("['a.service', 'b']"),
            Some(Value::Strs(vec!["a.service".into(), "b".into()]))
        );
        assert_eq!(parse("true"), Some(Value::Bool(true)));
        assert_eq!(parse("(1, 2)"), None);
    }
}
