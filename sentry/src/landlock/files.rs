//! What domains allow of files.

use std::sync::Arc;

use syscalls::abi::fs::OpenFlags;
use syscalls::abi::landlock::AccessFs;
use syscalls::{Errno, SysResult};

use super::{Domain, Ruleset, key, places_above};
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::NodeKind;
use crate::vfs::{FileType, Path};

/// The rights that are about a file itself.
pub(super) const OF_FILES: AccessFs = AccessFs::EXECUTE
    .union(AccessFs::WRITE_FILE)
    .union(AccessFs::READ_FILE)
    .union(AccessFs::TRUNCATE)
    .union(AccessFs::IOCTL_DEV);

/// What is asked for when a file is opened, and refused only when it is used so.
pub(crate) const LATER: AccessFs = AccessFs::TRUNCATE.union(AccessFs::IOCTL_DEV);

impl Ruleset {
    /// Returns what the rules for any of these places allow.
    fn allowed_at(&self, places: &[Arc<Dentry>]) -> AccessFs {
        let rules = places.iter().filter_map(|place| self.files.get(&key(place)));
        rules.fold(AccessFs::empty(), |allowed, rule| allowed | rule.allowed)
    }

    /// Returns what the layer refuses unless a rule allows it: also to give a file another directory,
    /// in every layer that is about files.
    fn refused_by_default(&self) -> AccessFs {
        if self.handled_fs.is_empty() {
            AccessFs::empty()
        } else {
            self.handled_fs | AccessFs::REFER
        }
    }
}

impl Domain {
    /// Returns which of these rights there are for what lies at `path`.
    fn granted(&self, path: &Path, wanted: AccessFs) -> AccessFs {
        if !self.layers().any(|layer| layer.refused_by_default().intersects(wanted)) {
            return wanted;
        }
        let (places, is_internal) = places_above(path);
        if is_internal {
            return wanted;
        }
        self.granted_at(&places, wanted)
    }

    fn granted_at(&self, places: &[Arc<Dentry>], wanted: AccessFs) -> AccessFs {
        self.layers().fold(wanted, |granted, layer| {
            let refused = layer.refused_by_default() & granted;
            if refused.is_empty() {
                granted
            } else {
                granted & !(refused & !layer.allowed_at(places))
            }
        })
    }

    /// Checks that these rights are there for what lies at `path`.
    ///
    /// # Errors
    /// `EACCES`.
    pub(crate) fn check(&self, path: &Path, wanted: AccessFs) -> SysResult<()> {
        if self.granted(path, wanted) == wanted { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Checks that a file may be opened (`hook_file_open`). Returns what may be done with it then:
    /// whether it may be truncated, and whether it may be sent requests of devices.
    ///
    /// # Errors
    /// `EACCES`.
    pub(crate) fn check_open(
        &self,
        path: &Path,
        flags: OpenFlags,
        is_program: bool,
    ) -> SysResult<AccessFs> {
        let mut wanted = AccessFs::empty();
        if flags.access_mode() != 1 {
            let is_dir = path.dentry.is_dir();
            wanted |= if is_dir { AccessFs::READ_DIR } else { AccessFs::READ_FILE };
        }
        wanted.set(AccessFs::WRITE_FILE, flags.access_mode() != 0);
        wanted.set(AccessFs::EXECUTE, is_program);
        let granted = self.granted(path, wanted | LATER);
        if granted.contains(wanted) { Ok(granted & LATER) } else { Err(Errno::EACCES) }
    }

    /// Checks that a file may be linked to `to`, or renamed from one directory to another
    /// (`current_check_refer_path`).
    ///
    /// # Errors
    /// `EACCES`; `EXDEV` where only the move from one directory to another is refused, which somebody
    /// may do by copying.
    pub(crate) fn check_move(&self, from: &Path, to: &Path, moved: &Moved<'_>) -> SysResult<()> {
        let Moved { file, target, is_rename, is_exchange } = *moved;
        let removed = |file: &Arc<Dentry>| {
            if file.is_dir() { AccessFs::REMOVE_DIR } else { AccessFs::REMOVE_FILE }
        };
        let mut of_from = AccessFs::empty();
        let mut of_to = made(file.inode().file_type());
        if is_exchange && let Some(target) = target {
            of_from |= made(target.inode().file_type());
        }
        if is_rename {
            of_from |= removed(file);
            of_to |= target.map_or(AccessFs::empty(), removed);
        }
        if Arc::ptr_eq(&from.dentry, &to.dentry) {
            return self.check(from, of_from | of_to);
        }
        let (from_places, _) = places_above(from);
        let (to_places, _) = places_above(to);
        let has = |places: &[Arc<Dentry>], wanted| self.granted_at(places, wanted) == wanted;
        if !has(&from_places, of_from) || !has(&to_places, of_to) {
            return Err(Errno::EACCES);
        }
        let may_refer = has(&from_places, AccessFs::REFER) && has(&to_places, AccessFs::REFER);
        let back = target.filter(|_| is_exchange);
        if may_refer
            && self.gains_nothing(file, &from_places, &to_places)
            && back.is_none_or(|back| self.gains_nothing(back, &to_places, &from_places))
        {
            Ok(())
        } else {
            Err(Errno::EXDEV)
        }
    }

    /// Returns whether a file has no right in its new directory that it had not in the old one.
    fn gains_nothing(&self, file: &Arc<Dentry>, old: &[Arc<Dentry>], new: &[Arc<Dentry>]) -> bool {
        let relevant = if file.is_dir() { AccessFs::all() } else { OF_FILES };
        let own = std::slice::from_ref(file);
        self.layers().all(|layer| {
            let of_file = layer.allowed_at(own);
            let refused = layer.refused_by_default() & relevant;
            let before = (layer.allowed_at(old) | of_file) & refused;
            let after = (layer.allowed_at(new) | of_file) & refused;
            before.contains(after)
        })
    }
}

/// What gets another directory, or another name.
#[derive(Clone, Copy)]
pub(crate) struct Moved<'a> {
    pub(crate) file: &'a Arc<Dentry>,
    /// What has the new name already.
    pub(crate) target: Option<&'a Arc<Dentry>>,
    /// Whether the old name goes.
    pub(crate) is_rename: bool,
    /// Whether the target gets the old name.
    pub(crate) is_exchange: bool,
}

/// Returns the right to make a file of a type.
fn made(kind: FileType) -> AccessFs {
    match kind {
        FileType::Regular | FileType::Anonymous => AccessFs::MAKE_REG,
        FileType::Directory => AccessFs::MAKE_DIR,
        FileType::Symlink => AccessFs::MAKE_SYM,
        FileType::Fifo => AccessFs::MAKE_FIFO,
        FileType::Socket => AccessFs::MAKE_SOCK,
        FileType::CharDevice => AccessFs::MAKE_CHAR,
        FileType::BlockDevice => AccessFs::MAKE_BLOCK,
    }
}

/// Returns the right to make a new node.
pub(crate) fn to_make(kind: &NodeKind) -> AccessFs {
    made(match kind {
        NodeKind::Regular => FileType::Regular,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink(_) => FileType::Symlink,
        NodeKind::Fifo => FileType::Fifo,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice(_) => FileType::CharDevice,
        NodeKind::BlockDevice(_) => FileType::BlockDevice,
    })
}
