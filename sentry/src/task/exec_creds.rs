//! What executing a file does to credentials: set-id bits and capabilities
//! (`capabilities(7)`, "Transformation of capabilities during execve()").

use syscalls::abi::fs::{S_ISGID, S_ISUID, S_IXGRP};
use syscalls::abi::prctl::Securebits;
use syscalls::{Errno, SysResult};

use super::Credentials;
use super::creds::ALL_CAPABILITIES;
use crate::vfs::Attr;

/// Capabilities of a file: the extended attribute `security.capability`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileCapabilities {
    permitted: u64,
    inheritable: u64,
    /// Whether what is gained becomes effective at once.
    effective: bool,
}

/// Credentials after an exec.
#[derive(Clone, Debug)]
pub(crate) struct NewCredentials {
    /// The credentials.
    pub(crate) creds: Credentials,
    /// `AT_SECURE`.
    pub(crate) is_secure: bool,
    /// Whether ids or capabilities rose: `PR_SET_PDEATHSIG` is cleared, the process is not
    /// dumpable.
    pub(crate) is_changed: bool,
}

impl FileCapabilities {
    /// Reads `struct vfs_cap_data` or `struct vfs_ns_cap_data`; `None` for anything else, and for
    /// one that belongs to another user namespace.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let word = |index: usize| {
            let bytes = value.get(index * 4..index * 4 + 4)?;
            Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?)))
        };
        let magic = word(0)?;
        let high = match (magic >> 24, value.len()) {
            (1, 12) => (0, 0),
            (2, 20) => (word(3)?, word(4)?),
            (3, 24) if word(5)? == 0 => (word(3)?, word(4)?),
            _ => return None,
        };
        Some(Self {
            permitted: (word(1)? | high.0 << 32) & ALL_CAPABILITIES,
            inheritable: (word(2)? | high.1 << 32) & ALL_CAPABILITIES,
            effective: magic & 1 != 0,
        })
    }
}

/// Computes the credentials of a program from those of its caller. `honours_set_id` is false for
/// a file on a `nosuid` mount.
///
/// # Errors
/// `EPERM` where the file has capabilities that it is to have at once and may not.
pub(crate) fn after_exec(
    old: &Credentials,
    attr: &Attr,
    file: Option<FileCapabilities>,
    honours_set_id: bool,
) -> SysResult<NewCredentials> {
    let mut new = old.clone();
    // Capabilities of files count in the user namespace of the file system: the container's.
    let file = file.filter(|_| honours_set_id && old.user_ns.is_initial());
    if honours_set_id && !old.no_new_privs {
        // Nobody becomes a user whom the caller's user namespace does not know.
        let is_known =
            old.user_ns.uid_of(attr.uid).is_some() && old.user_ns.gid_of(attr.gid).is_some();
        if attr.mode & S_ISUID != 0 && is_known {
            new.euid = attr.uid;
        }
        if attr.mode & S_ISGID != 0 && attr.mode & S_IXGRP != 0 && is_known {
            new.egid = attr.gid;
        }
    }
    let mut effective = false;
    new.permitted = 0;
    if let Some(file) = file {
        new.permitted = (file.permitted & old.bounding) | (file.inheritable & old.inheritable);
        effective = file.effective;
        if effective && file.permitted & !new.permitted != 0 {
            return Err(Errno::EPERM);
        }
    }
    let securebits = Securebits::from_bits_retain(old.securebits);
    let is_root_user = |uid| old.user_ns.is_root_user(uid);
    let (is_real_root, is_effective_root) = (is_root_user(new.uid), is_root_user(new.euid));
    let is_root = is_effective_root || is_real_root;
    let is_set_uid_root = !is_real_root && is_effective_root;
    let file_counts_alone = file.is_some() && is_set_uid_root;
    if !securebits.contains(Securebits::NOROOT) && is_root && !file_counts_alone {
        new.permitted = old.bounding | old.inheritable;
        effective |= is_effective_root;
    }
    let is_set_id = new.euid != old.uid || new.egid != old.gid;
    let gains = new.permitted & !old.permitted != 0;
    if (is_set_id || gains) && old.no_new_privs {
        new.euid = new.uid;
        new.egid = new.gid;
        new.permitted &= old.permitted;
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    if file.is_some() || is_set_id {
        new.ambient = 0;
    }
    new.permitted |= new.ambient;
    new.effective = if effective { new.permitted } else { new.ambient };
    new.securebits &= !Securebits::KEEP_CAPS.bits();
    let grew = new.permitted & !new.ambient != 0;
    let is_secure = is_set_id || (!is_real_root && (effective || grew));
    let is_changed =
        new.euid != old.euid || new.egid != old.egid || new.permitted & !old.permitted != 0;
    Ok(NewCredentials { creds: new, is_secure, is_changed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET_RAW: u64 = 1 << 13;

    fn user(uid: u32) -> Credentials {
        Credentials {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            permitted: 0,
            effective: 0,
            ..Credentials::root(0xff_ffff)
        }
    }

    fn file(mode: u32) -> Attr {
        Attr { mode: 0o100_000 | mode, ..Attr::default() }
    }

    #[test]
    fn root_gets_its_bounding_set_and_is_not_secure() {
        let mut root = Credentials::root(0xff);
        root.bounding = 0x0f;
        let new = after_exec(&root, &file(0o755), None, true).unwrap();
        assert_eq!((new.creds.permitted, new.creds.effective), (0x0f, 0x0f));
        assert!(!new.is_secure && !new.is_changed);
    }

    #[test]
    fn set_uid_root_program_is_root_unless_forbidden() {
        let new = after_exec(&user(1000), &file(0o4755), None, true).unwrap();
        assert_eq!((new.creds.uid, new.creds.euid, new.creds.fsuid), (1000, 0, 0));
        assert_eq!(new.creds.effective, 0xff_ffff);
        assert!(new.is_secure && new.is_changed);
        let nosuid = after_exec(&user(1000), &file(0o4755), None, false).unwrap();
        assert_eq!((nosuid.creds.euid, nosuid.creds.effective), (1000, 0));
        let mut bound = user(1000);
        bound.no_new_privs = true;
        let new = after_exec(&bound, &file(0o4755), None, true).unwrap();
        assert_eq!((new.creds.euid, new.creds.permitted), (1000, 0));
    }

    #[test]
    fn file_capabilities_are_bounded() {
        let mut value = [0; 20];
        value[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
        value[4..8].copy_from_slice(&0x2000_u32.to_le_bytes());
        let caps = FileCapabilities::parse(&value).unwrap();
        let new = after_exec(&user(1), &file(0o755), Some(caps), true).unwrap();
        assert_eq!((new.creds.permitted, new.creds.effective), (NET_RAW, NET_RAW));
        assert!(new.is_secure);
        let mut bounded = user(1);
        bounded.bounding = 0;
        let refused = after_exec(&bounded, &file(0o755), Some(caps), true);
        assert_eq!(refused.map(|_| ()), Err(Errno::EPERM));
        assert_eq!(FileCapabilities::parse(&value[..19]), None);
    }

    #[test]
    fn ambient_capabilities_survive_plain_programs_only() {
        let mut caller = user(5);
        caller.ambient = NET_RAW;
        caller.permitted = NET_RAW;
        caller.inheritable = NET_RAW;
        let new = after_exec(&caller, &file(0o755), None, true).unwrap();
        assert_eq!((new.creds.permitted, new.creds.effective), (NET_RAW, NET_RAW));
        assert!(!new.is_secure);
        let new = after_exec(&caller, &Attr { uid: 7, ..file(0o4755) }, None, true).unwrap();
        assert_eq!((new.creds.ambient, new.creds.permitted), (0, 0));
    }
}
