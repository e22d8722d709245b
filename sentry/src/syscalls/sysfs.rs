//! What programs of old ask about file systems: `sysfs(2)`, `ustat(2)`.

use syscalls::abi::fs::{Ustat, new_decode_dev};
use syscalls::{Errno, UserAddr, UserPtr};

use crate::fs::procfs::file_system_names;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::dentry::Dentry;

/// From a name to an index, from an index to a name, how many there are.
const TO_INDEX: i32 = 1;
const TO_NAME: i32 = 2;
const COUNT: i32 = 3;

/// Implements `sysfs(2)`.
///
/// <https://man7.org/linux/man-pages/man2/sysfs.2.html>
pub(super) fn sys_sysfs(
    task: &CurrentTask,
    option: i32,
    arg1: u64,
    arg2: UserAddr,
) -> HandlerResult<usize> {
    let names = file_system_names(&task.kernel);
    match option {
        TO_INDEX => {
            let name = task.read_path(UserAddr(arg1))?;
            let found = names.iter().position(|known| known.as_bytes() == name.as_slice());
            Ok(found.ok_or(Errno::EINVAL)?)
        }
        TO_NAME => {
            let index = usize::try_from(arg1).map_err(|_| Errno::EINVAL)?;
            let name = names.get(index).ok_or(Errno::EINVAL)?;
            task.write_bytes(arg2, format!("{name}\0").as_bytes())?;
            Ok(0)
        }
        COUNT => Ok(names.len()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Implements `ustat(2)`.
///
/// <https://man7.org/linux/man-pages/man2/ustat.2.html>
pub(super) fn sys_ustat(task: &CurrentTask, dev: u32, ubuf: UserPtr<Ustat>) -> HandlerResult<()> {
    let dev = new_decode_dev(dev);
    let mounts = task.fs().namespace().mounts();
    let is_on = |root: &Dentry| root.inode().attr().is_ok_and(|attr| attr.dev == dev);
    let mount = mounts.iter().find(|mount| is_on(&mount.root)).ok_or(Errno::EINVAL)?;
    let statfs = mount.sb.fs.statfs()?;
    // The field of old is narrower than the number.
    let [b0, b1, b2, b3, ..] = statfs.f_bfree.to_le_bytes();
    let f_tfree = i32::from_le_bytes([b0, b1, b2, b3]);
    Ok(task.write_obj(ubuf, &Ustat { f_tfree, f_tinode: statfs.f_ffree, ..Ustat::default() })?)
}
