//! The options of `mount -t tmpfs`.

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use super::{Options, TmpFs};
use crate::task::CurrentTask;
use crate::vfs::FileSystem;

/// What options say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) max_bytes: Option<u64>,
    pub(super) max_inodes: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Parses options; `total` is the memory of which a percentage is one.
///
/// # Errors
/// `EINVAL`.
pub(super) fn parse(options: &[u8], total: u64) -> SysResult<Parsed> {
    let text = str::from_utf8(options).map_err(|_| Errno::EINVAL)?;
    let mut parsed = Parsed::default();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = |radix| u32::from_str_radix(value, radix).map_err(|_| Errno::EINVAL);
        match name {
            "size" => parsed.max_bytes = Some(size(value, total)?),
            "nr_blocks" => {
                let bytes = size(value, total)?.checked_mul(super::PAGE).ok_or(Errno::EINVAL)?;
                parsed.max_bytes = Some(bytes);
            }
            "nr_inodes" => parsed.max_inodes = Some(size(value, total)?),
            "mode" => parsed.mode = Some(number(8)? & 0o7777),
            "uid" => parsed.uid = Some(number(10)?),
            "gid" => parsed.gid = Some(number(10)?),
            // How inode numbers, huge pages, swap and memory policy are handled is the host's.
            "inode32" | "inode64" | "huge" | "noswap" | "mpol" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(parsed)
}

/// Parses a number with the suffixes `k`, `m`, `g` and `%`.
fn size(text: &str, total: u64) -> SysResult<u64> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, '%')) => {
            let percent: u64 = text.get(..at).unwrap_or("").parse().map_err(|_| Errno::EINVAL)?;
            return (total / 100).checked_mul(percent).ok_or(Errno::EINVAL);
        }
        Some((at, 'k' | 'K')) => (text.get(..at), 1 << 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 1 << 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 1 << 30),
        Some((at, 't' | 'T')) => (text.get(..at), 1_u64 << 40),
        _ => (Some(text), 1),
    };
    let number: u64 = digits.unwrap_or("").parse().map_err(|_| Errno::EINVAL)?;
    number.checked_mul(factor).ok_or(Errno::EINVAL)
}

/// Makes a tmpfs for `mount(2)`: half of the memory, unless the options say otherwise.
///
/// # Errors
/// `EINVAL`.
pub(super) fn make(task: &CurrentTask, options: &[u8]) -> SysResult<Arc<dyn FileSystem>> {
    let total = task.container().total_memory();
    let parsed = parse(options, total)?;
    let creds = task.creds();
    Ok(TmpFs::new(Options {
        max_bytes: Some(parsed.max_bytes.unwrap_or(total / 2)),
        max_inodes: parsed.max_inodes,
        mode: parsed.mode.unwrap_or(0o1777),
        uid: match parsed.uid {
            Some(uid) => creds.user_ns.kuid(uid).ok_or(Errno::EINVAL)?,
            None => creds.fsuid,
        },
        gid: match parsed.gid {
            Some(gid) => creds.user_ns.kgid(gid).ok_or(Errno::EINVAL)?,
            None => creds.fsgid,
        },
        ..Options::default()
    })?)
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;

    use super::parse;

    #[test]
    fn parse_takes_suffixes_and_refuses_unknown_names() {
        let parsed = parse(b"size=64m,nr_inodes=1k,mode=0755,uid=5", 0).unwrap();
        assert_eq!(parsed.max_bytes, Some(64 << 20));
        assert_eq!(parsed.max_inodes, Some(1024));
        assert_eq!((parsed.mode, parsed.uid), (Some(0o755), Some(5)));
        assert_eq!(parse(b"size=50%", 1000).unwrap().max_bytes, Some(500));
        assert_eq!(parse(b"color=red", 0), Err(Errno::EINVAL));
        assert_eq!(parse(b"size=99999999999999999999", 0), Err(Errno::EINVAL));
        assert_eq!(parse(b"size=", 0), Err(Errno::EINVAL));
    }
}
