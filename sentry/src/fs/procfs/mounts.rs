//! `mounts`, `mountinfo` and `mountstats`: the mounts that a task sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscalls::SysResult;
use syscalls::abi::fs::{major, minor};
use syscalls::abi::mount::MountFlags;

use super::super::kept::Kept;
use crate::sync::{Events, Registration, Waiter};
use crate::task::CurrentTask;
use crate::vfs::mount::{Mount, MountNamespace};
use crate::vfs::path::Path;
use crate::vfs::{File, Inode, IoSink};

/// Which of the three files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Mounts,
    MountInfo,
    MountStats,
}

/// An open `mounts`: it keeps showing the namespace and the root that the process had at the open.
pub(super) struct MountsFile {
    node: Arc<dyn Inode>,
    format: Format,
    namespace: Arc<MountNamespace>,
    root: Path,
    /// The state of the namespace that `poll` has seen.
    seen: AtomicU64,
    kept: Kept,
}

impl MountsFile {
    pub(super) fn new(
        node: Arc<dyn Inode>,
        format: Format,
        namespace: Arc<MountNamespace>,
        root: Path,
    ) -> Self {
        let seen = AtomicU64::new(namespace.n_changes());
        Self { node, format, namespace, root, seen, kept: Kept::default() }
    }
}

impl File for MountsFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.kept.read(dst, offset, || Ok(render(&self.namespace, &self.root, self.format)))
    }

    fn poll(&self) -> Events {
        let present = self.namespace.n_changes();
        if self.seen.swap(present, Ordering::Relaxed) == present {
            Events::READABLE
        } else {
            Events::READABLE | Events::ERR | Events::PRI
        }
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.namespace.events.register(waiter, mask, key)]
    }

    fn is_pollable(&self) -> bool {
        true
    }
}

/// Appends `text` with blanks and backslashes as octal numbers.
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            _ => out.push(*byte),
        }
    }
}

/// Returns the flags that belong to the mount, without `rw` or `ro`.
fn mount_options(flags: MountFlags) -> String {
    let names = [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
        (MountFlags::NOSYMFOLLOW, ",nosymfollow"),
    ];
    names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect()
}

fn super_options(mount: &Mount) -> String {
    let options = mount.sb.fs.show_options();
    if options.is_empty() { options } else { format!(",{options}") }
}

/// Returns the path, in its file system, of the directory that a mount shows.
fn root_in_file_system(mount: &Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.root.clone();
    while let (Some(parent), name) = at.parent_and_name() {
        names.push(name);
        at = parent;
    }
    if !mount.sb.name.is_empty() {
        names.push(Arc::from(mount.sb.name.as_slice()));
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

fn render(namespace: &MountNamespace, root: &Path, format: Format) -> Vec<u8> {
    let mut mounts = namespace.mounts();
    mounts.sort_by_key(|mount| mount.id);
    let mut out = Vec::new();
    for mount in mounts {
        let top = Path { mount: mount.clone(), dentry: mount.root.clone() };
        let name = top.name_from(root);
        if name.is_reachable {
            render_one(&mut out, &mount, &name.name, format);
        }
    }
    out
}

fn render_one(out: &mut Vec<u8>, mount: &Mount, point: &[u8], format: Format) {
    let kind = mount.sb.fs.kind();
    let rw = |is_readonly: bool| if is_readonly { "ro" } else { "rw" };
    let source = if mount.source.is_empty() { b"none" } else { mount.source.as_slice() };
    let options = mount_options(mount.flags());
    match format {
        Format::Mounts => {
            push_escaped(out, source);
            out.push(b' ');
            push_escaped(out, point);
            let rw = rw(mount.is_readonly());
            let rest = format!(" {kind} {rw}{options}{} 0 0\n", super_options(mount));
            out.extend_from_slice(rest.as_bytes());
        }
        Format::MountInfo => {
            let parent = mount.point().map_or(1, |point| point.mount.id);
            let dev = mount.root.inode().attr().map_or(0, |attr| attr.dev);
            let head = format!("{} {parent} {}:{} ", mount.id, major(dev), minor(dev));
            out.extend_from_slice(head.as_bytes());
            push_escaped(out, &root_in_file_system(mount));
            out.push(b' ');
            push_escaped(out, point);
            let is_readonly = mount.flags().contains(MountFlags::RDONLY);
            out.extend_from_slice(format!(" {}{options}", rw(is_readonly)).as_bytes());
            let propagation = mount.propagation();
            if let Some(group) = propagation.shared {
                out.extend_from_slice(format!(" shared:{group}").as_bytes());
            }
            if let Some(group) = propagation.master {
                out.extend_from_slice(format!(" master:{group}").as_bytes());
            }
            if propagation.is_unbindable {
                out.extend_from_slice(b" unbindable");
            }
            out.extend_from_slice(format!(" - {kind} ").as_bytes());
            push_escaped(out, source);
            let rw = rw(mount.sb.is_readonly());
            out.extend_from_slice(format!(" {rw}{}\n", super_options(mount)).as_bytes());
        }
        Format::MountStats => {
            out.extend_from_slice(b"device ");
            push_escaped(out, source);
            out.extend_from_slice(b" mounted on ");
            push_escaped(out, point);
            out.extend_from_slice(format!(" with fstype {kind}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::push_escaped;

    #[test]
    fn blanks_are_octal() {
        let mut out = Vec::new();
        push_escaped(&mut out, b"a b\\c\n");
        assert_eq!(out, b"a\\040b\\134c\\012");
    }
}
