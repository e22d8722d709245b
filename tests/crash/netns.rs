//! A network namespace with an interface, whose end can be seen.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A network namespace; removed when dropped.
pub(crate) struct Netns {
    name: String,
    /// The other end of its interface, which is in the tests' own namespace and goes with it.
    peer: String,
}

impl Netns {
    /// Makes one with an address and a route.
    pub(crate) fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed) % 10_000;
        let peer = format!("cr{}-{serial}", std::process::id());
        let netns = Self { name: format!("runsc-{peer}"), peer };
        let Self { name, peer } = &netns;
        ip(&["netns", "add", name]);
        ip(&["link", "add", peer, "type", "veth", "peer", "name", "eth0", "netns", name]);
        ip(&["-n", name, "addr", "add", "10.88.0.2/24", "dev", "eth0"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        ip(&["-n", name, "route", "add", "default", "via", "10.88.0.1"]);
        netns
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Removes the namespace; returns whether it has gone, which takes the kernel a moment where nobody
    /// has it any more.
    pub(crate) fn remove(self, deadline: Duration) -> bool {
        ip(&["netns", "del", &self.name]);
        let peer = format!("/sys/class/net/{}", self.peer);
        let started = Instant::now();
        while std::fs::exists(&peer).unwrap_or(true) {
            if started.elapsed() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        let _ = command.args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
