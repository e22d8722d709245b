//! Containers as the state directory knows them: one directory each, with `state.json`, the
//! control socket, and nothing that matters after a crash.
//!
//! A directory is made first and exclusively, so that it claims the id; `state.json` is written
//! before anything can outlive its writer and replaced atomically. A directory without one is
//! what a crash has left: it lists as stopped and can be deleted.
//!
//! Whoever creates a container holds a lock of the directory until its processes are in
//! `state.json`, and so do these up to their exec; whoever deletes it takes the lock first. So
//! nothing is deleted behind the back of a creator that still lives, and nothing keeps a crashed
//! one's leftovers from being deleted.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use sentry::config::NetworkMode;
use sentry::control::{ContainerStatus, Request, Response};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::hooks::Hooks;
use crate::log;
use crate::sandbox::control_client::ControlClient;
use crate::sandbox::network;
use crate::spec::namespaces::Namespaces;
use crate::sys;

/// The file in which a monitor leaves the container's wait status.
pub(crate) const EXIT_STATUS: &str = "exit-status";

/// How long `delete` waits for killed processes to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long `delete` waits for a creator to get its container to a point where it can be deleted.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);

/// The file `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// Seconds of the Unix clock.
    pub(crate) created: u64,
    /// The user who created it.
    pub(crate) owner: u32,
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) hooks: Hooks,
    #[serde(default)]
    pub(crate) namespaces: Namespaces,
    /// Where the network comes from.
    #[serde(default)]
    pub(crate) network: NetworkMode,
    /// None where control groups are left alone.
    #[serde(default)]
    pub(crate) cgroup: Option<Cgroup>,
    /// Where the sentry of a pod is, beside the first container's groups: what managers let that one have is next
    /// to nothing, and the sentry works for all.
    #[serde(default)]
    pub(crate) sentry_cgroup: Option<Cgroup>,
    /// The process that managers see; `runsc do` has none.
    #[serde(default)]
    pub(crate) monitor: Option<ProcessRef>,
    /// The sandbox that the container has joined, by the id of its first container; none for a
    /// sandbox of its own.
    #[serde(default)]
    pub(crate) sandbox: Option<String>,
    /// Whether this is no container, but the sandbox of a pod that has no container to hold it. It ends
    /// with the last container that is in it.
    #[serde(default)]
    pub(crate) is_held: bool,
    /// Whether a held sandbox has taken over its network.
    #[serde(default)]
    pub(crate) has_network: bool,
    pub(crate) sentry: Option<ProcessRef>,
    pub(crate) gofer: Option<ProcessRef>,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRef {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub(crate) start_time: u64,
}

/// A process that has been killed.
struct Ending {
    pid: i32,
    pidfd: OwnedFd,
}

/// The states of the runtime specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

/// A container that exists.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) dir: PathBuf,
    pub(crate) state: State,
    /// The locked directory, while this process creates the container.
    creation: Option<File>,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Container {
    /// Claims `state.id` below `root`.
    pub(crate) fn claim(root: &Path, state: State) -> anyhow::Result<Self> {
        check_id(&state.id)?;
        DirBuilder::new().recursive(true).mode(0o711).create(root).with_context(|| {
            format!("creating the state directory {} (see --root)", root.display())
        })?;
        check_owner(root)?;
        let dir = root.join(&state.id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!(
                    "container with given ID already exists: {}: delete it first, or use another",
                    state.id
                )
            }
            result => result.with_context(|| format!("creating {} (see --root)", dir.display()))?,
        }
        let lock = File::open(&dir).and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.with_context(|| format!("locking {}", dir.display()))?;
        // Before it was locked it may have been deleted, and even claimed by another creator.
        if !is_at(&lock, &dir) || dir.join("state.json").exists() {
            bail!("container {} was deleted while it was being created", state.id);
        }
        let container = Self { dir, state, creation: Some(lock) };
        match container.save() {
            Ok(()) => Ok(container),
            Err(error) => {
                container.remove_files();
                Err(error)
            }
        }
    }

    /// Lets others delete the container: its processes have been written down and execute.
    pub(crate) fn is_created(&mut self) {
        self.creation = None;
    }

    /// Finds the container `id` below `root`.
    ///
    /// # Errors
    /// `container does not exist`, in the words that managers look for.
    pub(crate) fn find(root: &Path, id: &str) -> anyhow::Result<Self> {
        match Self::find_if_any(root, id)? {
            Some(container) => Ok(container),
            None => bail!("container does not exist: {id} (in {})", root.display()),
        }
    }

    /// As [`Container::find`], but it is no error where there is none.
    pub(crate) fn find_if_any(root: &Path, id: &str) -> anyhow::Result<Option<Self>> {
        check_id(id)?;
        let dir = root.join(id);
        match fs::read(dir.join("state.json")) {
            Ok(text) => {
                let state = serde_json::from_slice(&text).unwrap_or_else(|error| {
                    // Never written so by runsc, which renames complete files into place.
                    log::warning(&format!("the state of container {id} is unreadable: {error}"));
                    State::of_leftover(id)
                });
                Ok(Some(Self { dir, state, creation: None }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::metadata(&dir) {
                Ok(_) => Ok(Some(Self { dir, state: State::of_leftover(id), creation: None })),
                Err(_) => Ok(None),
            },
            Err(error) => {
                Err(error).with_context(|| format!("reading the state of container {id}"))
            }
        }
    }

    /// Lists the containers below `root`, by id. What cannot be read is warned about.
    pub(crate) fn list(root: &Path) -> anyhow::Result<Vec<Self>> {
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.with_context(|| {
                format!("reading the state directory {} (see --root)", root.display())
            })?,
        };
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|id| is_id(id))
            .collect();
        names.sort();
        let mut containers = Vec::new();
        for id in names {
            match Self::find_if_any(root, &id) {
                Ok(found) => containers.extend(found),
                Err(error) => log::warning(&format!("{error:#}")),
            }
        }
        Ok(containers)
    }

    /// Writes down the process that managers see.
    pub(crate) fn set_monitor(&mut self, pid: i32) -> anyhow::Result<()> {
        self.state.monitor = Some(ProcessRef::of(pid)?);
        self.save()
    }

    /// Writes down that a held sandbox has its network.
    pub(crate) fn set_connected(&mut self) -> anyhow::Result<()> {
        self.state.has_network = true;
        self.save()
    }

    /// Writes down that the container has no control groups.
    pub(crate) fn forget_cgroup(&mut self) -> anyhow::Result<()> {
        self.state.cgroup = None;
        self.state.sentry_cgroup = None;
        self.save()
    }

    /// Reads what another process has written down.
    pub(crate) fn reload(&mut self) -> anyhow::Result<()> {
        let path = self.dir.join("state.json");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        self.state =
            serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
        Ok(())
    }

    /// Returns the wait status that the monitor has left behind.
    pub(crate) fn exit_status(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join(EXIT_STATUS)).ok()?.trim().parse().ok()
    }

    /// Writes down the container's gofer and the sentry that it runs in.
    pub(crate) fn set_processes(&mut self, sentry: i32, gofer: i32) -> anyhow::Result<()> {
        self.state.sentry = Some(ProcessRef::of(sentry)?);
        self.state.gofer = Some(ProcessRef::of(gofer)?);
        self.save()
    }

    /// Returns the directory of the sandbox, in which the control socket is.
    pub(crate) fn sandbox_dir(&self) -> PathBuf {
        match &self.state.sandbox {
            Some(id) => self.root().join(id),
            None => self.dir.clone(),
        }
    }

    /// Returns how far the container is, as the sentry says where it lives.
    pub(crate) fn status(&self) -> Status {
        if let Some(monitor) = self.state.monitor {
            if !monitor.is_alive() {
                return Status::Stopped;
            }
            if self.state.sentry.is_none() {
                return Status::Creating;
            }
        }
        let Some(sentry) = self.state.sentry else {
            return if self.is_being_created() { Status::Creating } else { Status::Stopped };
        };
        if !sentry.is_alive() {
            return Status::Stopped;
        }
        let answer = ControlClient::connect(self)
            .map_err(anyhow::Error::from)
            .and_then(|mut client| client.call_promptly(&Request::Status));
        match answer {
            Ok(Response::Status { status: ContainerStatus::Created }) => Status::Created,
            Ok(Response::Status { status: ContainerStatus::Paused }) => Status::Paused,
            Ok(Response::Status { status: ContainerStatus::Stopped { .. } }) => Status::Stopped,
            // The sandbox that it has joined does not know it yet, or no longer.
            Ok(Response::Failed { .. }) if self.state.sandbox.is_some() => {
                if self.is_being_created() { Status::Creating } else { Status::Stopped }
            }
            Ok(_) => Status::Running,
            Err(_) if sentry.is_alive() => Status::Running,
            Err(_) => Status::Stopped,
        }
    }

    /// Returns the process that managers see and wait for, or zero where there is none any more.
    pub(crate) fn pid(&self) -> i32 {
        let process = self.state.monitor.or(self.state.sentry);
        process.filter(ProcessRef::is_alive).map_or(0, |process| process.pid)
    }

    /// Kills whatever still runs and removes the container's directory, as
    /// [`Container::destroy_if`] does without a condition.
    pub(crate) fn destroy(&self) -> anyhow::Result<bool> {
        self.destroy_if(|_| Ok(()))
    }

    /// Kills whatever still runs and removes the container's directory, if `check` passes at a time
    /// when nobody creates or starts it. Works after a crash of anything at any point, and where
    /// another `delete` does the same. Returns whether it was this call that has removed it.
    pub(crate) fn destroy_if(
        &self,
        check: impl FnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let _lock = if self.creation.is_none() {
            let Some(lock) = self.lock()? else { return Ok(false) };
            Some(lock)
        } else {
            None
        };
        // What its creator or its monitor has added meanwhile.
        let current = Self::find_if_any(self.root(), &self.state.id)?;
        let current = current.as_ref().unwrap_or(self);
        check(current)?;
        current.end()?;
        let sandbox = current.state.sandbox.as_ref();
        let sandbox = sandbox.map(|id| Self::find_if_any(self.root(), id)).transpose()?.flatten();
        // Before this container is forgotten: whoever deletes it again goes on here.
        let _lock = sandbox.map(|sandbox| sandbox.end_if_unused(&self.state.id)).transpose()?;
        self.remove_files();
        Ok(true)
    }

    /// Ends every process of the container, and removes its control groups.
    fn end(&self) -> anyhow::Result<()> {
        let State { monitor, sentry, gofer, ref cgroup, ref sentry_cgroup, ref sandbox, .. } =
            self.state;
        // Another container's sentry lives on: it ends what was this one's with its monitor.
        let sentry = sentry.filter(|_| sandbox.is_none());
        // The monitor first: it is not to tell of the others' ends. They die side by side.
        let ending: Vec<_> = [monitor, sentry, gofer].into_iter().flatten().collect();
        let ending = ending.iter().map(ProcessRef::kill).collect::<Result<Vec<_>, _>>()?;
        for process in ending.into_iter().flatten() {
            process.wait()?;
        }
        for cgroup in [cgroup, sentry_cgroup].into_iter().flatten() {
            cgroup.remove()?;
        }
        // Before anybody forgets what it was.
        if let Err(error) = network::give_back(self) {
            log::warning(&format!("{error:#}"));
        }
        Ok(())
    }

    /// Ends and removes a held sandbox in which no container is but one, which is about to be removed.
    /// Returns the sandbox's lock, so that of two that are the last ones both are not the last but one.
    fn end_if_unused(&self, last: &str) -> anyhow::Result<Option<File>> {
        let Some(lock) = self.lock()? else { return Ok(None) };
        let Some(current) = Self::find_if_any(self.root(), &self.state.id)? else {
            return Ok(None);
        };
        let is_in_it = |other: &Self| {
            other.state.id != last && other.state.sandbox.as_ref() == Some(&self.state.id)
        };
        if current.state.is_held && !Self::list(self.root())?.iter().any(is_in_it) {
            current.end()?;
            current.remove_files();
        }
        Ok(Some(lock))
    }

    /// Ends and removes a held sandbox that does not run any more; its lock is the caller's.
    pub(crate) fn clear_away(&self) -> anyhow::Result<()> {
        self.end()?;
        self.remove_files();
        Ok(())
    }

    /// Keeps others from creating, starting or deleting this container; `None` where it is gone.
    pub(crate) fn lock(&self) -> anyhow::Result<Option<File>> {
        let deadline = Instant::now() + CREATE_TIMEOUT;
        loop {
            let lock = match File::open(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                result => result.with_context(|| format!("opening {}", self.dir.display()))?,
            };
            match lock.try_lock() {
                // Somebody may have deleted it before, and even created another one.
                Ok(()) if is_at(&lock, &self.dir) => return Ok(Some(lock)),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).context(format!("locking {}", self.dir.display()));
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "container {} is still being created: end the `runsc` that creates it first",
                    self.state.id
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns whether there is a directory, and nothing in it: its creator was killed, or has just begun.
    pub(crate) fn is_leftover(&self) -> bool {
        self.state.created == 0
    }

    fn is_being_created(&self) -> bool {
        let locked = File::open(&self.dir).map(|dir| dir.try_lock_shared());
        matches!(locked, Ok(Err(TryLockError::WouldBlock)))
    }

    /// Returns the directory of all containers.
    pub(crate) fn root(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    fn save(&self) -> anyhow::Result<()> {
        let (path, temporary) = (self.dir.join("state.json"), self.dir.join(".state.json"));
        let mut text = serde_json::to_vec(&self.state)?;
        text.push(b'\n');
        // No fsync: the directory lies in memory, and processes do not outlive the machine.
        File::create(&temporary)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("writing {} (see --root)", path.display()))
    }

    fn remove_files(&self) {
        // By name first, which needs no descriptor.
        for name in ["state.json", ".state.json", "control.sock"] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        if fs::remove_dir(&self.dir).is_ok() {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warning(&format!("removing {}: {error}", self.dir.display()));
        }
    }
}

impl State {
    /// Returns the state of a container that is about to be created.
    pub(crate) fn new(
        id: &str,
        bundle: &Path,
        rootfs: &Path,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            owner: sys::effective_ids().0,
            annotations,
            hooks: Hooks::default(),
            namespaces: Namespaces::default(),
            network: NetworkMode::default(),
            cgroup: None,
            sentry_cgroup: None,
            monitor: None,
            sandbox: None,
            is_held: false,
            has_network: false,
            sentry: None,
            gofer: None,
        }
    }

    fn of_leftover(id: &str) -> Self {
        Self { created: 0, ..Self::new(id, Path::new(""), Path::new(""), BTreeMap::new()) }
    }
}

impl ProcessRef {
    /// Refers to the process that now has the number.
    pub(crate) fn of(pid: i32) -> anyhow::Result<Self> {
        let (start_time, _) = stat(pid).with_context(|| format!("reading /proc/{pid}/stat"))?;
        Ok(Self { pid, start_time })
    }

    /// Returns whether the process still runs; one that waits to be reaped does not.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(stat(self.pid), Ok((start_time, state)) if start_time == self.start_time && !matches!(state, 'Z' | 'X'))
    }

    /// Waits for the end of a process that is about to end, no longer than a moment.
    pub(crate) fn wait_for_end(&self) -> anyhow::Result<()> {
        let Ok(pidfd) = sys::pidfd_open(self.pid) else { return Ok(()) };
        if self.is_alive() {
            sys::poll(&[pidfd.as_fd()], Some(KILL_TIMEOUT))?;
        }
        Ok(())
    }

    /// Opens a descriptor of the process that no later one gets.
    pub(crate) fn pidfd(&self) -> io::Result<OwnedFd> {
        let pidfd = sys::pidfd_open(self.pid)?;
        if self.is_alive() { Ok(pidfd) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    }

    /// Opens something of the process below `/proc`.
    pub(crate) fn open(&self, name: &str) -> io::Result<File> {
        let file = File::open(format!("/proc/{}/{name}", self.pid))?;
        // It may have been another process by now.
        if self.is_alive() { Ok(file) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill_and_wait(&self) -> anyhow::Result<()> {
        self.kill()?.map_or(Ok(()), Ending::wait)
    }

    /// Kills it; `None` where it is gone already.
    fn kill(&self) -> anyhow::Result<Option<Ending>> {
        // The pidfd first, the identity second: from then on the number cannot be reused.
        let Ok(pidfd) = sys::pidfd_open(self.pid) else { return Ok(None) };
        if !self.is_alive() {
            return Ok(None);
        }
        sys::send_signal(pidfd.as_fd(), libc::SIGKILL)
            .with_context(|| format!("killing process {}", self.pid))?;
        Ok(Some(Ending { pid: self.pid, pidfd }))
    }
}

impl Ending {
    fn wait(self) -> anyhow::Result<()> {
        if !sys::poll(&[self.pidfd.as_fd()], Some(KILL_TIMEOUT))?.contains(&true) {
            bail!("process {} does not die: it hangs in the host's kernel", self.pid);
        }
        Ok(())
    }
}

/// Returns whether an open directory is the one at `path`.
fn is_at(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Refuses a state directory in which somebody else could put a state of their making.
fn check_owner(root: &Path) -> anyhow::Result<()> {
    let metadata = fs::metadata(root).with_context(|| root.display().to_string())?;
    let owners = [0, sys::effective_ids().0];
    if owners.contains(&metadata.uid())
        && (metadata.mode() & 0o022 == 0 || metadata.mode() & 0o1000 != 0)
    {
        return Ok(());
    }
    bail!(
        "state directory {}: others may write there: use another one (see --root)",
        root.display()
    )
}

/// Returns the start time and the state letter of a process.
fn stat(pid: i32) -> io::Result<(u64, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_stat(text: &str) -> Option<(u64, char)> {
    // The name, field 2, may hold anything, parentheses and spaces included.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    !id.is_empty() && id != "." && id != ".." && id.len() <= 255 && id.bytes().all(allowed)
}

fn check_id(id: &str) -> anyhow::Result<()> {
    if is_id(id) {
        return Ok(());
    }
    bail!("invalid container id {id:?}: use letters, digits and _ + - . only")
}

#[cfg(test)]
mod tests {
    use super::{is_id, parse_stat};

    #[test]
    fn parse_stat_survives_hostile_names() {
        let rest = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 7777 9 9";
        assert_eq!(parse_stat(&format!("12 (a) Z 9 (x) {rest}")), Some((7777, 'S')));
        assert_eq!(parse_stat("12 (sh"), None);
    }

    #[test]
    fn ids_are_single_names() {
        assert!(is_id("a-b_C.1+x"));
        for bad in ["", ".", "..", "a/b", "a b", "\u{e9}"] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }
}
