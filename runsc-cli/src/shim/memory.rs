//! Processes that the host has killed for the memory limit of their container.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;
use rustix::fs::inotify;

/// When a group is looked at again that has told of a lack of memory, of which it counts no kill yet: the kernel tells first.
/// Each time is twice as far away as the one before, up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Watches the limit of one container's control group.
#[derive(Debug)]
pub(crate) struct Watch {
    /// An eventfd of the memory controller, or inotify of the unified hierarchy.
    descriptor: OwnedFd,
    /// Where kills are counted, and how many there had been.
    counter: PathBuf,
    known: u64,
    /// When to look again, and how long that is after the look before.
    look: Option<(Instant, Duration)>,
}

impl Watch {
    /// Watches the group of a process; none where it has none of its own.
    pub(crate) fn of_process(pid: u32) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mut unified = None;
        for line in groups.lines() {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let path = path.trim_start_matches('/');
            if controllers.split(',').any(|name| name == "memory") {
                return Self::of_memory(&Path::new("/sys/fs/cgroup/memory").join(path));
            }
            if controllers.is_empty() {
                unified = Some(Path::new("/sys/fs/cgroup").join(path));
            }
        }
        Self::of_unified(&unified?)
    }

    fn of_memory(group: &Path) -> Option<Self> {
        let counter = group.join("memory.oom_control");
        let control = fs::File::open(&counter).ok()?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let descriptor = rustix::event::eventfd(0, flags).ok()?;
        let number = |fd: BorrowedFd<'_>| std::os::fd::AsRawFd::as_raw_fd(&fd);
        let line = format!("{} {}", number(descriptor.as_fd()), number(control.as_fd()));
        fs::write(group.join("cgroup.event_control"), line).ok()?;
        Some(Self { descriptor, known: kills(&counter), counter, look: None })
    }

    fn of_unified(group: &Path) -> Option<Self> {
        let counter = group.join("memory.events");
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let descriptor = inotify::init(flags).ok()?;
        inotify::add_watch(&descriptor, &counter, inotify::WatchFlags::MODIFY).ok()?;
        Some(Self { descriptor, known: kills(&counter), counter, look: None })
    }

    /// Returns when [`Self::has_killed`] is to be asked again, whatever happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.look.map(|(at, _)| at)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Tells whether a process has been killed since the last call.
    pub(crate) fn has_killed(&mut self) -> bool {
        let mut buffer = [0; 512];
        let is_told = rustix::io::read(&self.descriptor, &mut buffer).is_ok();
        let is_gone = !self.counter.exists();
        let now = kills(&self.counter);
        let has_killed = now > self.known;
        self.known = now.max(self.known);
        self.plan_look(is_told && !is_gone, has_killed);
        // The removal of a group is told as well. An older kernel does not count kills.
        has_killed || (is_told && !is_gone && now == 0 && is_under_limit(&self.counter))
    }

    fn plan_look(&mut self, is_told: bool, has_killed: bool) {
        let now = Instant::now();
        self.look = match self.look {
            _ if has_killed => None,
            _ if is_told => Some((now + FIRST_LOOK, FIRST_LOOK)),
            Some((at, after)) if at <= now => {
                let after = after * 2;
                (after <= LAST_LOOK).then(|| (now + after, after))
            }
            look => look,
        };
    }
}

fn kills(counter: &Path) -> u64 {
    value(counter, "oom_kill").unwrap_or(0)
}

fn is_under_limit(counter: &Path) -> bool {
    value(counter, "oom_kill").is_none() && value(counter, "under_oom").is_some()
}

fn value(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(of_line)
}
