//! The path walk: from a string to a place in the mount tree. The only one.
//!
//! A [`Walk`] goes through all components but the last ([`Walk::begin`]) and leaves the last one to
//! its caller, who looks it up ([`Walk::child`]), creates it, or follows it ([`Walk::follow`]);
//! [`Walk::resolve`] does what most calls want. `path_resolution(7)` is the specification.

use std::sync::Arc;

use bitflags::bitflags;
use syscalls::abi::capability::{CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH};
use syscalls::abi::fs::{MAXSYMLINKS, NAME_MAX, ResolveFlags};
use syscalls::abi::mount::MountFlags;
use syscalls::{Errno, SysResult};

use super::attr::FileType;
use super::dentry::Dentry;
use super::fs_context::FsContext;
use super::mount::MountNamespace;
use super::path::Path;
use super::permission;
use crate::task::{Credentials, CurrentTask};

bitflags! {
    /// How a path is walked.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct WalkFlags: u32 {
        /// Follow a symbolic link in the last component.
        const FOLLOW = 1;
        /// The result must be a directory.
        const DIRECTORY = 2;
        /// An empty path is the starting point itself.
        const EMPTY = 4;
        /// `RESOLVE_NO_XDEV`
        const NO_XDEV = 0x10;
        /// `RESOLVE_NO_MAGICLINKS`
        const NO_MAGICLINKS = 0x20;
        /// `RESOLVE_NO_SYMLINKS`
        const NO_SYMLINKS = 0x40;
        /// `RESOLVE_BENEATH`
        const BENEATH = 0x80;
        /// `RESOLVE_IN_ROOT`
        const IN_ROOT = 0x100;
        /// `RESOLVE_CACHED`
        const CACHED = 0x200;
    }
}

impl From<ResolveFlags> for WalkFlags {
    fn from(resolve: ResolveFlags) -> Self {
        [
            (ResolveFlags::NO_XDEV, Self::NO_XDEV),
            (ResolveFlags::NO_MAGICLINKS, Self::NO_MAGICLINKS),
            (ResolveFlags::NO_SYMLINKS, Self::NO_SYMLINKS),
            (ResolveFlags::BENEATH, Self::BENEATH),
            (ResolveFlags::IN_ROOT, Self::IN_ROOT),
            (ResolveFlags::CACHED, Self::CACHED),
        ]
        .into_iter()
        .filter(|(from, _)| resolve.contains(*from))
        .fold(Self::empty(), |flags, (_, to)| flags | to)
    }
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name, possibly with slashes behind it.
    Name {
        /// The component.
        name: Vec<u8>,
        /// Whether a slash follows.
        has_slash: bool,
    },
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// None: the path was `/`, empty, or a magic link.
    None,
}

/// A path walked up to its last component.
#[derive(Clone)]
pub struct Step {
    /// Where the last component is to be looked up: a directory that the caller may search. The
    /// result itself under [`Last::None`].
    pub dir: Path,
    /// The last component.
    pub last: Last,
}

/// A walk under way: who walks, where from, and how many links it has followed.
pub struct Walk<'a> {
    task: Option<&'a CurrentTask>,
    creds: Arc<Credentials>,
    root: Path,
    start: Path,
    flags: WalkFlags,
    n_links: u32,
    /// Directories may be searched without a look at their attributes.
    may_search_all: bool,
}

impl<'a> Walk<'a> {
    /// Creates a walk that begins in `start`.
    pub fn new(
        task: Option<&'a CurrentTask>,
        creds: Arc<Credentials>,
        root: Path,
        start: Path,
        flags: WalkFlags,
    ) -> Self {
        let may_search_all =
            creds.has_capability(CAP_DAC_OVERRIDE) || creds.has_capability(CAP_DAC_READ_SEARCH);
        let is_scoped = flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT);
        let root = if is_scoped { start.clone() } else { root };
        Self { task, creds, root, start, flags, n_links: 0, may_search_all }
    }

    /// Creates a walk by a task that begins in its working directory.
    pub fn from_cwd(task: &'a CurrentTask, flags: WalkFlags) -> Self {
        let fs: Arc<FsContext> = task.fs();
        let (root, cwd) = fs.root_and_cwd();
        Self::new(Some(task), task.creds(), root, cwd, flags)
    }

    /// Returns the credentials that the walk goes by.
    pub fn creds(&self) -> &Credentials {
        &self.creds
    }

    /// Returns the mount namespace of whoever walks; none while the sandbox boots.
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.task.map(|task| task.fs().namespace())
    }

    /// Returns the permission bits that new files do not get; none while the sandbox boots.
    pub fn umask(&self) -> u32 {
        self.task.map_or(0, |task| task.fs().umask())
    }

    /// Walks all of `path` and returns where it leads.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`, `EXDEV`, `EAGAIN` as
    /// `path_resolution(7)` and `openat2(2)` say.
    pub fn resolve(&mut self, path: &[u8]) -> SysResult<Path> {
        let step = self.begin(path)?;
        self.finish(step)
    }

    /// Goes from a step to the end, following the last component if asked to.
    ///
    /// # Errors
    /// As [`Walk::resolve`].
    pub fn finish(&mut self, mut step: Step) -> SysResult<Path> {
        loop {
            let found = match &step.last {
                Last::None | Last::Dot => step.dir,
                Last::DotDot => self.parent(step.dir)?,
                Last::Name { name, has_slash } => {
                    let child = self.child(&step.dir, name)?;
                    let is_link = child.inode().file_type() == FileType::Symlink;
                    if is_link && (*has_slash || self.flags.contains(WalkFlags::FOLLOW)) {
                        step = self.follow(&step.dir, &child, *has_slash)?;
                        continue;
                    }
                    if *has_slash && !child.dentry.is_dir() {
                        return Err(Errno::ENOTDIR);
                    }
                    child
                }
            };
            if self.flags.contains(WalkFlags::DIRECTORY) && !found.dentry.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            return Ok(found);
        }
    }

    /// Walks all components of `path` but the last.
    ///
    /// # Errors
    /// As [`Walk::resolve`].
    pub fn begin(&mut self, path: &[u8]) -> SysResult<Step> {
        if path.is_empty() && !self.flags.contains(WalkFlags::EMPTY) {
            return Err(Errno::ENOENT);
        }
        let at = if path.first() == Some(&b'/') { self.absolute()? } else { self.start.clone() };
        self.advance(at, path)
    }

    /// Follows `link`, which was found in `dir` as the last component.
    ///
    /// # Errors
    /// As [`Walk::resolve`].
    pub fn follow(&mut self, dir: &Path, link: &Path, has_slash: bool) -> SysResult<Step> {
        let is_permitted = permission::may_follow_link(
            &self.creds,
            &dir.inode().access_attr()?,
            &link.inode().access_attr()?,
        );
        is_permitted?;
        match self.read_link(link)? {
            Target::Jump(path) if has_slash && !path.dentry.is_dir() => Err(Errno::ENOTDIR),
            Target::Jump(path) => Ok(Step { dir: path, last: Last::None }),
            Target::Text(mut text) => {
                if has_slash {
                    text.push(b'/');
                }
                let at = if text.first() == Some(&b'/') { self.absolute()? } else { dir.clone() };
                self.advance(at, &text)
            }
        }
    }

    /// Looks up a name in the directory of a [`Step`], and crosses mounts.
    ///
    /// # Errors
    /// `ENOENT`, `ENAMETOOLONG`, `EXDEV`, `EAGAIN`.
    pub fn child(&self, dir: &Path, name: &[u8]) -> SysResult<Path> {
        let dentry = self.lookup(dir, name)?;
        let child = Path { mount: dir.mount.clone(), dentry };
        if child.dentry.is_mount_point() { self.cross(child) } else { Ok(child) }
    }

    /// Returns whether a name may be created before it is looked up: nothing is known of it, and the file system says itself
    /// where it exists.
    pub(super) fn may_create_unseen(&self, dir: &Path, name: &[u8]) -> bool {
        !self.flags.contains(WalkFlags::CACHED)
            && name.len() <= NAME_MAX
            && dir.inode().refuses_existing()
            && !dir.dentry.knows(name)
    }

    fn lookup(&self, dir: &Path, name: &[u8]) -> SysResult<Arc<Dentry>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if self.flags.contains(WalkFlags::CACHED) {
            return dir.dentry.lookup_cached(name).unwrap_or(Err(Errno::EAGAIN));
        }
        dir.dentry.lookup(name, &dir.mount.sb.cache)
    }

    /// Checks that `dir` is a directory that the caller may search.
    fn check_search(&self, dir: &Path) -> SysResult<()> {
        if !dir.dentry.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if self.may_search_all {
            return Ok(());
        }
        let inode = dir.inode();
        permission::check(&self.creds, &**inode, &inode.access_attr()?, permission::MAY_EXEC)
    }

    fn absolute(&self) -> SysResult<Path> {
        if self.flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        let leaves_mount = !Arc::ptr_eq(&self.root.mount, &self.start.mount);
        if self.flags.contains(WalkFlags::NO_XDEV) && leaves_mount {
            return Err(Errno::EXDEV);
        }
        Ok(self.root.clone())
    }

    fn cross(&self, path: Path) -> SysResult<Path> {
        let mount = path.mount.clone();
        let top = path.topmost();
        if self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&mount, &top.mount) {
            return Err(Errno::EXDEV);
        }
        Ok(top)
    }

    /// Returns what `..` of `at` is.
    ///
    /// # Errors
    /// `EXDEV` where the walk may not go there.
    pub fn parent(&self, mut at: Path) -> SysResult<Path> {
        loop {
            if at == self.root {
                let is_beneath = self.flags.contains(WalkFlags::BENEATH);
                return if is_beneath { Err(Errno::EXDEV) } else { Ok(at) };
            }
            if !at.is_mount_root() {
                break;
            }
            let Some(point) = at.mount.point() else { return Ok(at) };
            if self.flags.contains(WalkFlags::NO_XDEV) {
                return Err(Errno::EXDEV);
            }
            at = point;
        }
        if let Some(parent) = at.dentry.parent() {
            at.dentry = parent;
        }
        if at.dentry.is_mount_point() { self.cross(at) } else { Ok(at) }
    }

    /// Walks all components of `path` but the last, from `at` on; leading slashes are nothing.
    fn advance(&mut self, mut at: Path, path: &[u8]) -> SysResult<Step> {
        let mut text: Vec<u8>;
        let mut rest = path;
        loop {
            let (name, tail, has_slash) = split(rest);
            if name.is_empty() {
                return Ok(Step { dir: at, last: Last::None });
            }
            self.check_search(&at)?;
            if tail.is_empty() {
                let last = match name {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    name => Last::Name { name: name.to_vec(), has_slash },
                };
                return Ok(Step { dir: at, last });
            }
            let ahead = rest;
            rest = tail;
            match name {
                b"." => {}
                b".." => at = self.parent(at)?,
                name => {
                    if at.dentry.is_dir() && at.dentry.is_asked_about(name) {
                        at.inode().prefetch(ahead);
                    }
                    let dentry = self.lookup(&at, name)?;
                    // Most components are directories of the same mount: nothing else is touched.
                    if dentry.is_dir() || dentry.inode().file_type() != FileType::Symlink {
                        at.dentry = dentry;
                        if at.dentry.is_mount_point() {
                            at = self.cross(at)?;
                        }
                        continue;
                    }
                    let link = Path { mount: at.mount.clone(), dentry };
                    match self.read_link(&link)? {
                        Target::Jump(path) => at = path,
                        Target::Text(mut target) => {
                            if target.first() == Some(&b'/') {
                                at = self.absolute()?;
                            }
                            target.push(b'/');
                            target.extend_from_slice(rest);
                            text = target;
                            rest = &text;
                        }
                    }
                }
            }
        }
    }

    fn read_link(&mut self, link: &Path) -> SysResult<Target> {
        self.n_links += 1;
        let is_refused = self.n_links > MAXSYMLINKS
            || self.flags.contains(WalkFlags::NO_SYMLINKS)
            || link.mount.flags().contains(MountFlags::NOSYMFOLLOW);
        if is_refused {
            return Err(Errno::ELOOP);
        }
        if let Some(path) = link.inode().magic_link(self.task)? {
            if self.flags.contains(WalkFlags::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            let is_scoped = self.flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT);
            let leaves_mount =
                self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&path.mount, &link.mount);
            if is_scoped || leaves_mount {
                return Err(Errno::EXDEV);
            }
            return Ok(Target::Jump(path));
        }
        let text = link.inode().readlink(self.task)?;
        super::touch_atime(link);
        if text.is_empty() { Err(Errno::ENOENT) } else { Ok(Target::Text(text)) }
    }
}

/// Where a symbolic link leads.
enum Target {
    Jump(Path),
    Text(Vec<u8>),
}

/// Splits off the first component: the component, what follows the slashes behind it, and whether
/// there is a slash behind it.
fn split(path: &[u8]) -> (&[u8], &[u8], bool) {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let path = path.get(start..).unwrap_or_default();
    let Some(end) = path.iter().position(|byte| *byte == b'/') else { return (path, &[], false) };
    let (name, tail) = path.split_at(end);
    let next = tail.iter().position(|byte| *byte != b'/').unwrap_or(tail.len());
    (name, tail.get(next..).unwrap_or_default(), true)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn split_takes_one_component_and_all_slashes_around_it() {
        assert_eq!(split(b"//usr//lib/x"), (&b"usr"[..], &b"lib/x"[..], true));
        assert_eq!(split(b"usr///"), (&b"usr"[..], &b""[..], true));
        assert_eq!(split(b"usr"), (&b"usr"[..], &b""[..], false));
        assert_eq!(split(b"///"), (&b""[..], &b""[..], false));
    }
}
