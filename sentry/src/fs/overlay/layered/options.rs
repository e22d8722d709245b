//! The options of `mount -t overlay`.

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use super::{LayeredFs, Upper};
use crate::task::CurrentTask;
use crate::vfs::acl::AclKind;
use crate::vfs::dentry::Dentry;
use crate::vfs::layer::Layer;
use crate::vfs::permission::{self, MAY_EXEC, MAY_WRITE};
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{FileSystem, NewNode, NodeKind, Path};

/// The most lower layers.
const MAX_LOWERS: usize = 500;

/// The most file systems that may lie on one another.
const MAX_STACK_DEPTH: u32 = 2;

/// What options say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    /// As given.
    lowerdir: Vec<u8>,
    lowers: Vec<Vec<u8>>,
    upper: Option<Vec<u8>>,
    work: Option<Vec<u8>>,
    has_user_xattrs: bool,
    /// What is shown of the others.
    shown: Vec<&'static str>,
    uuid: Option<&'static str>,
}

/// Splits at a separator before which there is no backslash.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut is_escaped = false;
    text.split(|&byte| {
        let is_end = byte == separator && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
    .collect()
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let keep = |byte: &u8| {
        is_escaped = *byte == b'\\' && !is_escaped;
        !is_escaped
    };
    text.iter().copied().filter(keep).collect()
}

/// Parses options.
///
/// # Errors
/// `EINVAL` for those that are unknown or not served.
fn parse(options: &[u8]) -> SysResult<Parsed> {
    let mut parsed = Parsed::default();
    for option in split(options, b',').into_iter().filter(|option| !option.is_empty()) {
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let value = parts.next();
        match (name, value) {
            (b"lowerdir", Some(value)) => {
                parsed.lowerdir = value.to_vec();
                let parts = split(value, b':');
                parsed.lowers = parts.into_iter().map(unescape).collect();
            }
            (b"lowerdir+", Some(value)) => {
                if !parsed.lowerdir.is_empty() {
                    parsed.lowerdir.push(b':');
                }
                parsed.lowerdir.extend_from_slice(value);
                parsed.lowers.push(value.to_vec());
            }
            (b"upperdir", Some(value)) => parsed.upper = Some(unescape(value)),
            (b"workdir", Some(value)) => parsed.work = Some(unescape(value)),
            (b"userxattr", None) => parsed.has_user_xattrs = true,
            (b"volatile", None) => parsed.shown.push("volatile"),
            (b"redirect_dir", Some(b"nofollow")) => parsed.shown.push("redirect_dir=nofollow"),
            (b"uuid", Some(b"null")) => parsed.uuid = Some("null"),
            (b"uuid", Some(b"off")) => parsed.uuid = Some("off"),
            (b"uuid", Some(b"auto" | b"on"))
            | (b"xino", Some(b"off" | b"auto" | b"on"))
            | (
                b"redirect_dir" | b"index" | b"nfs_export" | b"metacopy" | b"verity",
                Some(b"off"),
            )
            // As on Linux where the file system of the upper layer has no file handles.
            | (b"index" | b"nfs_export", Some(b"on"))
            | (b"default_permissions", None) => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    let has = |name: &[u8]| split(options, b',').contains(&name);
    if has(b"nfs_export=on") && has(b"index=off") {
        return Err(Errno::EINVAL);
    }
    let is_complete = match (&parsed.upper, &parsed.work) {
        (Some(_), None) => false,
        (Some(_), Some(_)) => !parsed.lowers.is_empty(),
        (None, _) => parsed.lowers.len() > 1,
    };
    let is_named = parsed.lowers.iter().all(|lower| !lower.is_empty());
    if is_complete && is_named && parsed.lowers.len() <= MAX_LOWERS {
        Ok(parsed)
    } else {
        Err(Errno::EINVAL)
    }
}

/// Finds a directory that may be a layer.
fn directory(task: &CurrentTask, name: &[u8]) -> SysResult<Path> {
    let path = Walk::from_cwd(task, WalkFlags::FOLLOW).resolve(name)?;
    // What lists processes or devices is no layer.
    if !path.dentry.is_dir() || path.inode().list().is_err() {
        return Err(Errno::EINVAL);
    }
    Ok(path)
}

/// Finds the directories of changes and of work, and takes the latter into use.
fn upper(task: &CurrentTask, upper: &[u8], work: &[u8]) -> SysResult<Upper> {
    let (upper, work) = (directory(task, upper)?, directory(task, work)?);
    let is_one_tree = Arc::ptr_eq(&upper.mount, &work.mount)
        && !upper.dentry.is_below(&work.dentry)
        && !work.dentry.is_below(&upper.dentry);
    let depth = upper.mount.sb.fs.stack_depth();
    if !is_one_tree || depth > 0 || upper.mount.is_readonly() {
        return Err(Errno::EINVAL);
    }
    let layer = Layer::at(&upper);
    let creds = task.creds();
    let may_change = |dir: &Arc<Dentry>| {
        let inode = dir.inode();
        permission::check(&creds, &**inode, &inode.access_attr()?, MAY_WRITE | MAY_EXEC)
    };
    may_change(&work.dentry)?;
    let place = (&work.dentry, b"work".as_slice());
    let work = match layer.lookup(place)? {
        Some(left) => left,
        None => layer.create(
            place,
            &NewNode {
                kind: NodeKind::Directory,
                mode: 0,
                umask: 0,
                uid: creds.fsuid,
                gid: creds.fsgid,
            },
        )?,
    };
    may_change(&work)?;
    // What is made there inherits nothing from the directory around it.
    for kind in [AclKind::Access, AclKind::Default] {
        let _ = work.inode().remove_xattr(kind.name());
    }
    if !work.is_dir() {
        return Err(Errno::EINVAL);
    }
    // What an earlier mount has left behind.
    for entry in work.inode().list()? {
        let _ = layer.remove((&work, &entry.name));
    }
    Ok(Upper { layer, work })
}

/// Makes an overlay for `mount(2)`.
///
/// # Errors
/// `EINVAL` for options or directories that do not fit, `ELOOP` where one layer lies in another,
/// those of walks.
pub(super) fn make(task: &CurrentTask, options: &[u8]) -> SysResult<Arc<dyn FileSystem>> {
    let parsed = parse(options)?;
    let lowers: Vec<Layer> = parsed
        .lowers
        .iter()
        .map(|name| directory(task, name).map(|path| Layer::at(&path)))
        .collect::<SysResult<_>>()?;
    let upper = match (&parsed.upper, &parsed.work) {
        (Some(at), Some(work)) => Some(upper(task, at, work)?),
        _ => None,
    };
    if lowers.iter().any(|layer| layer.sb.fs.stack_depth() >= MAX_STACK_DEPTH) {
        return Err(Errno::EINVAL);
    }
    check_apart(&lowers, upper.as_ref())?;
    let prefix: &[u8] = if parsed.has_user_xattrs { b"user.overlay." } else { b"trusted.overlay." };
    let shown = show(&parsed);
    Ok(LayeredFs::new(upper, lowers, prefix, task.creds(), shown)?)
}

/// Checks that no lower layer lies in another layer or is one twice; the others may lie in it.
fn check_apart(lowers: &[Layer], upper: Option<&Upper>) -> SysResult<()> {
    let mut roots = Vec::new();
    if let Some(upper) = upper {
        roots.push(&upper.layer.root);
        roots.push(&upper.work);
    }
    for layer in lowers {
        if roots.iter().any(|root| Arc::ptr_eq(root, &layer.root)) {
            return Err(Errno::ELOOP);
        }
        roots.push(&layer.root);
    }
    for layer in lowers {
        let mut at = layer.root.parent();
        while let Some(dentry) = at {
            if roots.iter().any(|root| Arc::ptr_eq(root, &dentry)) {
                return Err(Errno::ELOOP);
            }
            at = dentry.parent();
        }
    }
    Ok(())
}

/// Returns the options as `/proc/mounts` shows them.
fn show(parsed: &Parsed) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(' ', "\\040");
    let mut all = vec![format!("lowerdir={}", text(&parsed.lowerdir))];
    if let (Some(upper), Some(work)) = (&parsed.upper, &parsed.work) {
        all.push(format!("upperdir={}", text(upper)));
        all.push(format!("workdir={}", text(work)));
    }
    all.extend(parsed.shown.iter().filter(|name| **name != "volatile").map(ToString::to_string));
    match parsed.uuid {
        Some(uuid) => all.push(format!("uuid={uuid}")),
        None if parsed.upper.is_some() => all.push(String::from("uuid=on")),
        None => {}
    }
    all.extend(parsed.shown.iter().filter(|name| **name == "volatile").map(ToString::to_string));
    if parsed.has_user_xattrs {
        all.push(String::from("userxattr"));
    }
    all.join(",")
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;

    use super::parse;

    #[test]
    fn parse_takes_escaped_separators() {
        let parsed = parse(b"lowerdir=/a\\:b:/c\\,d,upperdir=/u,workdir=/w,userxattr").unwrap();
        assert_eq!(parsed.lowers, [b"/a:b".to_vec(), b"/c,d".to_vec()]);
        assert!(parsed.has_user_xattrs);
    }

    #[test]
    fn parse_refuses_what_is_incomplete_or_not_served() {
        for options in [
            &b""[..],
            b"lowerdir=/a",
            b"lowerdir=/a,upperdir=/u",
            b"upperdir=/u,workdir=/w",
            b"lowerdir=/a::/b",
            b"lowerdir=/a:/b,metacopy=on",
            b"lowerdir=/a:/b,color=red",
            b"lowerdir=/a:/b,index=off,nfs_export=on",
        ] {
            assert_eq!(parse(options), Err(Errno::EINVAL), "{options:?}");
        }
    }
}
