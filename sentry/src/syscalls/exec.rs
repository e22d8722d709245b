//! Running programs.

use syscalls::abi::fs::{AT_FDCWD, AtFlags};
use syscalls::abi::resource::RLIMIT_STACK;
use syscalls::{Errno, Fd, SysResult, UserAddr};

use crate::task::exec::{Target, execute};
use crate::task::{CurrentTask, HandlerResult};

/// The most bytes of one string: `MAX_ARG_STRLEN`.
const MAX_STRING: usize = 32 * 4096;

/// Bytes that arguments and environment may always have: `ARG_MAX`.
const MIN_TOTAL: u64 = 128 * 1024;

/// Three quarters of the default stack limit: more they may never have.
const MAX_TOTAL: u64 = 6 << 20;

const PAGE: usize = 4096;

/// Implements `execve(2)`.
pub(super) fn sys_execve(
    task: &CurrentTask,
    path: UserAddr,
    argv: UserAddr,
    envp: UserAddr,
) -> HandlerResult {
    do_execve(task, AT_FDCWD, path, argv, envp, AtFlags::empty())
}

/// Implements `execveat(2)`.
pub(super) fn sys_execveat(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    argv: UserAddr,
    envp: UserAddr,
    flags: AtFlags,
) -> HandlerResult {
    if !(AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    do_execve(task, dirfd.0, path, argv, envp, flags)
}

fn do_execve(
    task: &CurrentTask,
    dirfd: i32,
    path: UserAddr,
    argv: UserAddr,
    envp: UserAddr,
    flags: AtFlags,
) -> HandlerResult {
    execute(task, || {
        let path = task.read_path(path)?;
        let target = Target::find(task, dirfd, &path, flags)?;
        let limit = task.group.limits.lock().soft(RLIMIT_STACK) / 4;
        let left = limit.clamp(MIN_TOTAL, MAX_TOTAL);
        let (pointers, strings) = (PageReader::new(task), PageReader::new(task));
        let mut reader = StringReader { pointers, strings, left };
        let argv = reader.strings(argv)?;
        let envp = reader.strings(envp)?;
        Ok((target, argv, envp))
    })
}

/// Reads many short strings that lie near each other, as do the pointers to them.
struct StringReader<'a> {
    pointers: PageReader<'a>,
    strings: PageReader<'a>,
    /// Bytes that strings and pointers may still take.
    left: u64,
}

impl StringReader<'_> {
    /// Reads an array of pointers to strings that ends with a null pointer; a null array is empty.
    ///
    /// # Errors
    /// `EFAULT`, `E2BIG`.
    fn strings(&mut self, array: UserAddr) -> SysResult<Vec<Vec<u8>>> {
        let mut strings = Vec::new();
        if array.is_null() {
            return Ok(strings);
        }
        let mut at = array.0;
        loop {
            let mut word = [0; 8];
            self.pointers.bytes(at, &mut word)?;
            let pointer = u64::from_le_bytes(word);
            if pointer == 0 {
                return Ok(strings);
            }
            self.take(8)?;
            strings.push(self.string(pointer)?);
            at = at.checked_add(8).ok_or(Errno::EFAULT)?;
        }
    }

    fn string(&mut self, mut addr: u64) -> SysResult<Vec<u8>> {
        let mut string = Vec::new();
        loop {
            let rest = self.strings.rest_of_page(addr)?;
            let end = rest.iter().position(|byte| *byte == 0);
            let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            let n = part.len();
            string.extend_from_slice(part);
            if string.len() >= MAX_STRING {
                return Err(Errno::E2BIG);
            }
            self.take(n as u64)?;
            if end.is_some() {
                self.take(1)?;
                return Ok(string);
            }
            addr = addr.checked_add(n as u64).ok_or(Errno::EFAULT)?;
        }
    }

    fn take(&mut self, n: u64) -> SysResult<()> {
        self.left = self.left.checked_sub(n).ok_or(Errno::E2BIG)?;
        Ok(())
    }
}

/// Reads memory a page at a time, each byte once.
struct PageReader<'a> {
    task: &'a CurrentTask,
    page: Vec<u8>,
    addr: u64,
}

impl<'a> PageReader<'a> {
    fn new(task: &'a CurrentTask) -> Self {
        Self { task, page: Vec::new(), addr: 0 }
    }

    fn bytes(&mut self, mut addr: u64, dst: &mut [u8]) -> SysResult<()> {
        for byte in dst {
            *byte = *self.rest_of_page(addr)?.first().ok_or(Errno::EFAULT)?;
            addr = addr.checked_add(1).ok_or(Errno::EFAULT)?;
        }
        Ok(())
    }

    /// Returns at least one byte from `addr` on.
    fn rest_of_page(&mut self, addr: u64) -> SysResult<&[u8]> {
        let start = addr & !(PAGE as u64 - 1);
        if self.page.is_empty() || self.addr != start {
            self.page.resize(PAGE, 0);
            self.addr = start;
            if let Err(errno) = self.task.read_bytes(UserAddr(start), &mut self.page) {
                self.page.clear();
                return Err(errno);
            }
        }
        let offset = usize::try_from(addr - start).map_err(|_| Errno::EFAULT)?;
        self.page.get(offset..).filter(|rest| !rest.is_empty()).ok_or(Errno::EFAULT)
    }
}
