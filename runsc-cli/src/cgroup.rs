//! Control groups of the host, version 1, version 2, or both mounted side by side.
//!
//! Every process of a sandbox (monitor, gofer, sentry, stubs) is in the container's group: the
//! monitor enters it before it starts the others. What is written is a plain file each, so this is
//! code of our own and not a library that would bring a hundred packages into a binary that is
//! also the sentry. With `--systemd-cgroup`, systemd makes the groups and removes them.

mod dbus;
mod limits;
mod stats;
mod systemd;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sentry::config::CgroupText;
use serde::{Deserialize, Serialize};

pub(crate) use limits::{Limits, cpus_of_quota, parse as parse_limits, read as read_limits};
pub(crate) use stats::{oom_kills, stats};
use systemd::{Properties, Unit};

/// How long the kernel may take to let go of the processes of a group that are dead.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// Its controllers; none stands for version 2.
    controllers: Option<Vec<String>>,
}

/// A container's group in every hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    groups: Vec<Group>,
    /// What the groups are to systemd, where it manages them.
    #[serde(default)]
    unit: Option<Unit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    dir: PathBuf,
    mount: PathBuf,
    controllers: Option<Vec<String>>,
}

impl Cgroup {
    /// Returns the group at `path` of config.json, which is taken from the root of each hierarchy
    /// where it is absolute, and from the caller's own group otherwise, in version 2 from that one's parent.
    pub(crate) fn new(path: Option<&str>, id: &str) -> anyhow::Result<Self> {
        let path = Path::new(path.unwrap_or(id));
        if path.components().any(|part| part == std::path::Component::ParentDir) {
            bail!("linux.cgroupsPath: {} has \"..\"", path.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let own = fs::read_to_string("/proc/self/cgroup").context("reading own groups")?;
        let groups = hierarchies(&mounts, is_visible)
            .into_iter()
            .map(|Hierarchy { mount, controllers }| {
                let base = match own_group(&own, controllers.as_deref()) {
                    _ if path.is_absolute() => String::new(),
                    // In version 2, a group with processes of its own has no groups with controllers below it.
                    // As runc.
                    own if controllers.is_none() => {
                        own.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.into())
                    }
                    own => own,
                };
                let relative = path.strip_prefix("/").unwrap_or(path);
                let dir = mount.join(base.trim_start_matches('/')).join(relative);
                Group { dir, mount, controllers }
            })
            .collect();
        Ok(Self { groups, unit: None })
    }

    /// Returns the group that systemd is to make for a container. `path` is of the form
    /// `SLICE:PREFIX:NAME`.
    pub(crate) fn of_systemd(
        path: Option<&str>,
        id: &str,
        annotations: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let unit = Unit::new(path, id, annotations)?;
        let relative = unit.path()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let group = |Hierarchy { mount, controllers }| Group {
            dir: mount.join(&relative),
            mount,
            controllers,
        };
        let groups = hierarchies(&mounts, is_visible).into_iter().map(group).collect();
        Ok(Self { groups, unit: Some(unit) })
    }

    /// Returns groups beside these: of the same parents, with `suffix` behind the name.
    pub(crate) fn beside(&self, suffix: &str) -> Self {
        let mut beside = self.clone();
        beside.unit = self.unit.as_ref().map(|unit| unit.beside(suffix));
        for group in &mut beside.groups {
            match &beside.unit {
                Some(unit) => group.dir.set_file_name(unit.name()),
                None => group.dir.as_mut_os_string().push(suffix),
            }
        }
        beside
    }

    /// Returns groups of another name in the same parents.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        let mut sibling = self.clone();
        sibling.unit = self.unit.as_ref().map(|unit| unit.sibling(name));
        for group in &mut sibling.groups {
            group.dir.set_file_name(sibling.unit.as_ref().map_or(name, Unit::name));
        }
        sibling
    }

    /// Tells whether systemd makes the groups, which it does not without a process to be in them.
    pub(crate) fn is_of_systemd(&self) -> bool {
        self.unit.is_some()
    }

    /// Gives the groups the greatest share of processor time among their siblings; to those of systemd
    /// [`Cgroup::start_preferred`] does.
    pub(crate) fn prefer(&self) -> anyhow::Result<()> {
        if self.unit.is_some() {
            return Ok(());
        }
        let v1 = self.controller("cpu").map(|dir| (dir.join("cpu.shares"), "262144"));
        let v2 = || self.unified().map(|dir| (dir.join("cpu.weight"), "10000"));
        match v1.or_else(v2) {
            Some((path, value)) if path.exists() => {
                fs::write(&path, value).with_context(|| format!("writing to {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Creates the groups; those of systemd are created by [`Cgroup::start`].
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        if self.unit.is_some() {
            return Ok(());
        }
        self.groups.iter().try_for_each(Group::create)
    }

    /// Has systemd create the groups, where it does that, with the processes in them.
    pub(crate) fn start(&self, pids: &[i32], limits: &Limits) -> anyhow::Result<()> {
        self.start_with(pids, Properties::of(limits, self.is_unified()))
    }

    /// Does as [`Cgroup::start`], and gives them the greatest share of processor time among their siblings.
    pub(crate) fn start_preferred(&self, pids: &[i32]) -> anyhow::Result<()> {
        self.start_with(pids, Properties::preferred(self.is_unified()))
    }

    fn start_with(&self, pids: &[i32], properties: Properties) -> anyhow::Result<()> {
        let Some(unit) = &self.unit else { return Ok(()) };
        let numbers: Vec<_> = pids.iter().map(|pid| pid.unsigned_abs()).collect();
        unit.start(&numbers, properties)?;
        // Version 1 has hierarchies that systemd does not know.
        for group in self.groups.iter().filter(|group| !group.dir.exists()) {
            group.create()?;
        }
        if self.is_unified() {
            return Ok(());
        }
        pids.iter().try_for_each(|pid| self.add(*pid))
    }

    /// Changes the limits of groups that there are.
    pub(crate) fn update(&self, limits: &Limits) -> anyhow::Result<()> {
        if let Some(unit) = &self.unit {
            unit.set(&Properties::of(limits, self.is_unified()))?;
        }
        limits.apply(self)
    }

    /// Returns the group in which a process of version 2 can be born, where there is one.
    pub(crate) fn cradle(&self) -> Option<File> {
        File::open(self.unified()?).ok()
    }

    /// Moves this process into the groups, and whatever it starts from now on.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        self.add(0)
    }

    /// Moves another process into the groups, and whatever it starts from now on; 0 is this one.
    pub(crate) fn add(&self, pid: i32) -> anyhow::Result<()> {
        for group in &self.groups {
            let moved = if pid == 0 { group.enter() } else { group.add(pid) };
            let Err(error) = moved else { continue };
            match &self.unit {
                // A user may not move a process out of the session's groups, systemd may.
                Some(unit) if error.kind() == io::ErrorKind::PermissionDenied => {
                    unit.attach(if pid == 0 { std::process::id() } else { pid.unsigned_abs() })?;
                }
                _ => {
                    return Err(error).with_context(|| {
                        format!("moving a process to cgroup {}", group.dir.display())
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes the groups, as soon as the kernel has forgotten their processes.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        if let Some(unit) = &self.unit
            && let Err(error) = unit.stop()
            && self.groups.iter().any(|group| group.dir.exists())
        {
            return Err(error);
        }
        let started = Instant::now();
        let mut pause = Duration::from_micros(50);
        for group in &self.groups {
            loop {
                match remove_tree(&group.dir) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) if started.elapsed() > REMOVE_TIMEOUT => {
                        return Err(error)
                            .with_context(|| format!("removing cgroup {}", group.dir.display()));
                    }
                    Err(_) => std::thread::sleep(pause),
                }
                pause = (pause * 2).min(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// Returns what a container is shown: of each hierarchy its group, the name of the directory,
    /// and the controllers, none for version 2. Where the host has both, version 2 has no
    /// controllers of worth.
    pub(crate) fn views(&self) -> Vec<(PathBuf, String, Option<String>)> {
        let has_old = self.groups.iter().any(|group| group.controllers.is_some());
        let shown = self.groups.iter().filter(|group| group.controllers.is_some() == has_old);
        let view = |group: &Group| {
            let name = group.mount.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (group.dir.clone(), name, group.controllers.as_ref().map(|list| list.join(",")))
        };
        shown.map(view).collect()
    }

    /// Returns what a container is told: its groups as the roots of the host's hierarchies.
    pub(crate) fn text(&self) -> CgroupText {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            Some(format!("{}:{}:/\n", fields.next()?, fields.next()?))
        });
        let all = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let all = all.lines().map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            // How many there are on the host is no business of the container's.
            [name, hierarchy, _, enabled] if !name.starts_with('#') => {
                format!("{name}\t{hierarchy}\t1\t{enabled}\n")
            }
            _ => format!("{line}\n"),
        });
        CgroupText { own: own.collect(), all: all.collect() }
    }

    /// Tells whether the host has version 2 only.
    fn is_unified(&self) -> bool {
        self.groups.iter().all(|group| group.controllers.is_none())
    }

    /// Returns the directory of version 2.
    fn unified(&self) -> Option<&Path> {
        self.groups.iter().find(|group| group.controllers.is_none()).map(|group| &*group.dir)
    }

    /// Returns the directory of a controller of version 1.
    fn controller(&self, name: &str) -> Option<&Path> {
        let has = |group: &&Group| {
            group.controllers.as_ref().is_some_and(|list| list.iter().any(|it| it == name))
        };
        self.groups.iter().find(has).map(|group| &*group.dir)
    }
}

impl Group {
    fn add(&self, pid: i32) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }

    /// Moves this process, by one of two ways that spare it a grace period of RCU, about 10 ms: to move a
    /// process the kernel keeps all others from forking meanwhile, but not to move the calling thread.
    fn enter(&self) -> io::Result<()> {
        if self.controllers.is_none() && self.has_this_process() {
            return Ok(());
        }
        if self.controllers.is_some() && has_one_thread() {
            return fs::write(self.dir.join("tasks"), "0");
        }
        self.add(0)
    }

    /// Tells whether this process was born here: see [`Cgroup::cradle`].
    fn has_this_process(&self) -> bool {
        let pids = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        pids.lines().any(|pid| pid.parse() == Ok(std::process::id()))
    }

    fn create(&self) -> anyhow::Result<()> {
        self.make().with_context(|| format!("creating cgroup {}", self.dir.display()))
    }

    fn make(&self) -> io::Result<()> {
        let relative = self.dir.strip_prefix(&self.mount).unwrap_or(Path::new(""));
        let mut dir = self.mount.clone();
        for part in relative.components() {
            if self.controllers.is_none() {
                enable_controllers(&dir);
            }
            let parent = dir.clone();
            dir.push(part);
            match fs::create_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
            if self.controllers.as_ref().is_some_and(|list| list.iter().any(|it| it == "cpuset")) {
                // A new group of version 1 has no processors, and so admits nobody.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if fs::read_to_string(dir.join(file))?.trim().is_empty() {
                        fs::write(dir.join(file), fs::read_to_string(parent.join(file))?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn has_one_thread() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Gives the children of a group of version 2 what controllers it has. One that the kernel does not
/// hand down (because the group has processes of its own) is missed where it is needed.
fn enable_controllers(dir: &Path) {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Removes a group and the groups below it.
fn remove_tree(dir: &Path) -> io::Result<()> {
    // Reading it is what takes time, and most have none below.
    if fs::remove_dir(dir).is_ok() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// Tells whether a mount is what its path leads to, and not hidden below another one. `device` is
/// that of its files, as mountinfo has it.
fn is_visible(mount: &Path, device: &str) -> bool {
    let Ok(found) = fs::metadata(mount) else { return false };
    format!("{}:{}", libc::major(found.dev()), libc::minor(found.dev())) == device
}

/// Finds the hierarchies in the text of `/proc/self/mountinfo`.
fn hierarchies(mounts: &str, is_visible: impl Fn(&Path, &str) -> bool) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut before = before.split(' ');
        let (Some(device), Some(root), Some(mount)) = (before.nth(2), before.next(), before.next())
        else {
            continue;
        };
        let mut after = after.split(' ');
        let kind = after.next();
        let options = after.nth(1).unwrap_or_default();
        let controllers = match kind {
            Some("cgroup2") => None,
            Some("cgroup") => Some(
                options
                    .split(',')
                    .filter(|option| !matches!(*option, "rw" | "ro" | "xattr" | "clone_children"))
                    .map(str::to_owned)
                    .collect(),
            ),
            _ => continue,
        };
        // A part of a hierarchy mounted somewhere else is the same groups once more.
        let is_known = found.iter().any(|known| known.controllers == controllers);
        if root == "/" && !is_known && is_visible(Path::new(mount), device) {
            found.push(Hierarchy { mount: PathBuf::from(mount), controllers });
        }
    }
    found
}

/// Finds this process's own group in the text of `/proc/self/cgroup`.
fn own_group(own: &str, controllers: Option<&[String]>) -> String {
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let is_it = match controllers {
            None => names.is_empty(),
            Some(list) => names.split(',').any(|name| list.iter().any(|it| it == name)),
        };
        if is_it {
            return path.to_owned();
        }
    }
    "/".into()
}

#[cfg(test)]
mod tests {
    use super::{hierarchies, own_group};

    const MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 /a /mnt rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_are_found_once_each() {
        let found = hierarchies(MOUNTS, |_, _| true);
        let controllers: Vec<_> = found.iter().map(|it| it.controllers.clone()).collect();
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(controllers, [list(&["cpu", "cpuacct"]), list(&["name=systemd"]), None]);
        assert_eq!(found[2].mount.to_str(), Some("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn hidden_hierarchies_are_passed_over() {
        let found = hierarchies(MOUNTS, |_, device| device == "0:37");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].mount.to_str(), Some("/sys/fs/cgroup/systemd"));
    }

    #[test]
    fn own_group_is_that_of_the_hierarchy() {
        let own = "9:name=systemd:/s\n4:cpu,cpuacct:/c:x\n0::/u\n";
        assert_eq!(own_group(own, Some(&["cpu".to_owned(), "cpuacct".to_owned()])), "/c:x");
        assert_eq!(own_group(own, Some(&["name=systemd".to_owned()])), "/s");
        assert_eq!(own_group(own, None), "/u");
    }
}
