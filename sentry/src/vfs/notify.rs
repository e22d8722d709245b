//! File events: the one place from which inotify learns what happens to files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use syscalls::abi::inotify::InotifyMask;

use super::dentry::Dentry;
use super::inode::Inode;
use super::lent;

/// `IN_ACCESS`
pub const IN_ACCESS: u32 = InotifyMask::ACCESS.bits();
/// `IN_ATTRIB`
pub const IN_ATTRIB: u32 = InotifyMask::ATTRIB.bits();
/// `IN_CLOSE_NOWRITE`
pub const IN_CLOSE_NOWRITE: u32 = InotifyMask::CLOSE_NOWRITE.bits();
/// `IN_CLOSE_WRITE`
pub const IN_CLOSE_WRITE: u32 = InotifyMask::CLOSE_WRITE.bits();
/// `IN_CREATE`
pub const IN_CREATE: u32 = InotifyMask::CREATE.bits();
/// `IN_DELETE`
pub const IN_DELETE: u32 = InotifyMask::DELETE.bits();
/// `IN_DELETE_SELF`
pub const IN_DELETE_SELF: u32 = InotifyMask::DELETE_SELF.bits();
/// `IN_EXCL_UNLINK`: in an event, it concerns a child that is not in the directory any more.
pub const IN_EXCL_UNLINK: u32 = InotifyMask::EXCL_UNLINK.bits();
/// `IN_ISDIR`
pub const IN_ISDIR: u32 = InotifyMask::ISDIR.bits();
/// `IN_MODIFY`
pub const IN_MODIFY: u32 = InotifyMask::MODIFY.bits();
/// `IN_MOVE_SELF`
pub const IN_MOVE_SELF: u32 = InotifyMask::MOVE_SELF.bits();
/// `IN_MOVED_FROM`
pub const IN_MOVED_FROM: u32 = InotifyMask::MOVED_FROM.bits();
/// `IN_MOVED_TO`
pub const IN_MOVED_TO: u32 = InotifyMask::MOVED_TO.bits();
/// `IN_OPEN`
pub const IN_OPEN: u32 = InotifyMask::OPEN.bits();

/// How many watches there are: with none, an event costs one load.
static N_WATCHES: AtomicUsize = AtomicUsize::new(0);

/// Counts a watch that has been put into some inode's extras.
pub fn watch_added() {
    N_WATCHES.fetch_add(1, Ordering::SeqCst);
    lent::recall_all();
}

/// Counts a watch that has been taken out of some inode's extras.
pub fn watch_removed() {
    N_WATCHES.fetch_sub(1, Ordering::Relaxed);
}

/// Returns whether there are watches.
pub(crate) fn is_watched() -> bool {
    N_WATCHES.load(Ordering::SeqCst) != 0
}

fn tell(inode: &Arc<dyn Inode>, mask: u32, cookie: u32, name: Option<&[u8]>) {
    let watcher = inode.extras().watches.lock().clone();
    if let Some(watcher) = watcher {
        watcher.event(mask, cookie, name);
    }
    if name.is_some() || mask & IN_ISDIR != 0 {
        super::lease::happened(inode.extras(), mask);
    }
}

fn dir_bit(dentry: &Dentry) -> u32 {
    if dentry.is_dir() { IN_ISDIR } else { 0 }
}

/// Announces what the host has told of an inode: something that others did.
pub fn from_host(inode: &Arc<dyn Inode>, mask: u32, cookie: u32, name: Option<&[u8]>) {
    tell(inode, mask, cookie, name);
}

/// Returns a number that joins the two halves of a move.
pub fn next_cookie() -> u32 {
    static NEXT_COOKIE: AtomicU32 = AtomicU32::new(1);
    NEXT_COOKIE.fetch_add(1, Ordering::Relaxed)
}

/// Announces something that happened to a file, to its own watches and to those of its directory.
pub fn file(dentry: &Arc<Dentry>, mask: u32) {
    if !is_watched() {
        return;
    }
    let mask = mask | dir_bit(dentry);
    if let (Some(parent), name) = dentry.parent_and_name() {
        let unlinked = if dentry.is_removed() { IN_EXCL_UNLINK } else { 0 };
        tell(parent.inode(), mask | unlinked, 0, Some(&name));
    }
    tell(dentry.inode(), mask, 0, None);
}

/// Announces that `name` has been created in `dir`.
pub fn created(dir: &Arc<Dentry>, name: &[u8], is_dir: bool) {
    if is_watched() {
        tell(dir.inode(), IN_CREATE | if is_dir { IN_ISDIR } else { 0 }, 0, Some(name));
    }
}

/// Announces that `child` has been removed from `dir`.
pub fn removed(dir: &Arc<Dentry>, name: &[u8], child: &Arc<Dentry>) {
    if !is_watched() {
        return;
    }
    if !child.is_dir() {
        // The number of links has changed.
        tell(child.inode(), IN_ATTRIB, 0, None);
    }
    tell_gone(child);
    tell(dir.inode(), IN_DELETE | dir_bit(child), 0, Some(name));
}

/// Announces that a file has got a further name.
pub fn linked(target: &Arc<Dentry>) {
    if is_watched() {
        tell(target.inode(), IN_ATTRIB, 0, None);
    }
}

/// Announces that `child` has moved, into the place of another file where there was one.
pub fn moved(
    from: (&Arc<Dentry>, &[u8]),
    to: (&Arc<Dentry>, &[u8]),
    child: &Arc<Dentry>,
    replaced: Option<&Arc<Dentry>>,
) {
    if !is_watched() {
        return;
    }
    let cookie = next_cookie();
    tell(from.0.inode(), IN_MOVED_FROM | dir_bit(child), cookie, Some(from.1));
    tell(to.0.inode(), IN_MOVED_TO | dir_bit(child), cookie, Some(to.1));
    if Arc::ptr_eq(from.0.inode(), to.0.inode()) {
        super::lease::renamed(to.0.inode().extras());
    }
    if let Some(replaced) = replaced {
        tell(replaced.inode(), IN_ATTRIB | dir_bit(replaced), 0, None);
    }
    tell(child.inode(), IN_MOVE_SELF, 0, None);
    if let Some(replaced) = replaced {
        tell_gone(replaced);
    }
}

/// Announces that a file has gone whose name has, where it has no other.
fn tell_gone(child: &Arc<Dentry>) {
    if child.is_dir() || child.inode().attr().is_ok_and(|attr| attr.nlink == 0) {
        tell(child.inode(), IN_DELETE_SELF, 0, None);
    }
}
