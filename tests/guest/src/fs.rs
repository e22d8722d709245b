//! Files: short forms of the calls that nearly every case makes.

use core::ffi::CStr;

use crate::{SysResult, quick, sys};

/// Opens a path relative to the case's directory.
pub fn open(path: &CStr, flags: i32) -> Result<i32, i32> {
    sys!(SYS_openat, libc::AT_FDCWD, path, flags, 0o644).map(|fd| fd as i32)
}

/// Creates (or truncates) a file with the given content and closes it.
pub fn put(path: &CStr, content: &[u8]) -> Result<(), i32> {
    let fd = open(path, libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY)?;
    write_all(fd, content)?;
    close(fd)
}

/// Reads a whole file.
pub fn get(path: &CStr) -> Result<Vec<u8>, i32> {
    let fd = open(path, libc::O_RDONLY)?;
    let content = read_all(fd)?;
    close(fd)?;
    Ok(content)
}

/// Reads a whole file as text.
pub fn text(path: &CStr) -> Result<String, i32> {
    get(path).map(|content| String::from_utf8_lossy(&content).into_owned())
}

/// Reads to the end of a descriptor.
pub fn read_all(fd: i32) -> Result<Vec<u8>, i32> {
    let mut content = Vec::new();
    let mut piece = [0u8; 4096];
    loop {
        match read(fd, &mut piece)? {
            0 => return Ok(content),
            n => content.extend_from_slice(&piece[..n]),
        }
    }
}

/// Writes everything.
pub fn write_all(fd: i32, mut content: &[u8]) -> Result<(), i32> {
    while !content.is_empty() {
        let n = write(fd, content)?;
        content = &content[n..];
    }
    Ok(())
}

/// `read(2)`.
pub fn read(fd: i32, buf: &mut [u8]) -> SysResult {
    quick::read([fd as usize, buf.as_mut_ptr().expose_provenance(), buf.len(), 0])
}

/// `write(2)`.
pub fn write(fd: i32, buf: &[u8]) -> SysResult {
    quick::write([fd as usize, buf.as_ptr().expose_provenance(), buf.len(), 0])
}

/// `close(2)`.
pub fn close(fd: i32) -> Result<(), i32> {
    sys!(SYS_close, fd).map(drop)
}

/// `pipe2(2)`.
pub fn pipe(flags: i32) -> Result<(i32, i32), i32> {
    let mut fds = [0i32; 2];
    sys!(SYS_pipe2, &mut fds, flags)?;
    Ok((fds[0], fds[1]))
}

/// `newfstatat(2)` without flags.
pub fn stat(path: &CStr) -> Result<libc::stat, i32> {
    stat_at(libc::AT_FDCWD, path, 0)
}

/// `newfstatat(2)`.
pub fn stat_at(dir: i32, path: &CStr, flags: i32) -> Result<libc::stat, i32> {
    let mut stat = crate::mem::zeroed::<libc::stat>();
    sys!(SYS_newfstatat, dir, path, &mut stat, flags)?;
    Ok(stat)
}

/// `fstat(2)`.
pub fn fstat(fd: i32) -> Result<libc::stat, i32> {
    let mut stat = crate::mem::zeroed::<libc::stat>();
    sys!(SYS_fstat, fd, &mut stat)?;
    Ok(stat)
}

/// `lseek(2)`.
pub fn seek(fd: i32, offset: i64, whence: i32) -> SysResult {
    sys!(SYS_lseek, fd, offset, whence)
}

/// Returns the sorted names in a directory, `.` and `..` included.
pub fn names(path: &CStr) -> Result<Vec<String>, i32> {
    let fd = open(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
    let mut names: Vec<String> = entries(fd)?.into_iter().map(|entry| entry.name).collect();
    close(fd)?;
    names.sort();
    Ok(names)
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Inode number.
    pub ino: u64,
    /// Position of the next entry.
    pub off: i64,
    /// `DT_*`.
    pub kind: u8,
    /// File name.
    pub name: String,
}

/// Reads the rest of an open directory by `getdents64(2)`.
pub fn entries(fd: i32) -> Result<Vec<Entry>, i32> {
    let mut all = Vec::new();
    let mut buf = [0u8; 2048];
    loop {
        let n = sys!(SYS_getdents64, fd, &mut buf[..], 2048)?;
        if n == 0 {
            return Ok(all);
        }
        all.extend(parse_entries(&buf[..n]));
    }
}

/// Decodes what `getdents64(2)` wrote.
pub fn parse_entries(mut buf: &[u8]) -> Vec<Entry> {
    let mut all = Vec::new();
    while buf.len() >= 19 {
        let len = usize::from(u16::from_ne_bytes([buf[16], buf[17]]));
        let record = &buf[..len];
        let name = record[19..].split(|byte| *byte == 0).next().unwrap_or_default();
        all.push(Entry {
            ino: u64::from_ne_bytes(record[..8].try_into().unwrap_or_default()),
            off: i64::from_ne_bytes(record[8..16].try_into().unwrap_or_default()),
            kind: record[18],
            name: String::from_utf8_lossy(name).into_owned(),
        });
        buf = &buf[len..];
    }
    all
}
