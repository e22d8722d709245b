//! `#!` lines, by the rules of Linux's `fs/binfmt_script.c`.

use syscalls::{Errno, SysResult};

/// The bytes that Linux looks at: `BINPRM_BUF_SIZE`.
const SIZE: usize = 256;

/// What a `#!` line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The interpreter's path.
    pub(crate) interpreter: Vec<u8>,
    /// All the rest of the line, as one argument.
    pub(crate) argument: Option<Vec<u8>>,
}

/// Reads the first bytes of a file; `None` where they are no `#!` line.
///
/// # Errors
/// `ENOEXEC` for a line without an interpreter, or one that is cut off within its path.
pub(crate) fn parse(head: &[u8]) -> SysResult<Option<Line>> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    // Linux's buffer is filled up with NULs.
    let mut buffer = rest.to_vec();
    buffer.resize(SIZE - 2, 0);
    let line = match buffer.iter().position(|byte| *byte == b'\n') {
        Some(end) => buffer.get(..end).unwrap_or_default(),
        None => {
            let start = buffer.iter().position(|byte| !is_blank(*byte)).ok_or(Errno::ENOEXEC)?;
            let from_name = buffer.get(start..).unwrap_or_default();
            if !from_name.iter().any(|byte| is_terminator(*byte)) {
                return Err(Errno::ENOEXEC);
            }
            &buffer
        }
    };
    let line = line.trim_ascii_end_blanks();
    let start = line.iter().position(|byte| !is_blank(*byte)).ok_or(Errno::ENOEXEC)?;
    let line = line.get(start..).unwrap_or_default();
    let (name, rest) = match line.iter().position(|byte| is_terminator(*byte)) {
        Some(at) => (line.get(..at).unwrap_or_default(), line.get(at..).unwrap_or_default()),
        None => (line, &[][..]),
    };
    if name.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let argument = match rest.first() {
        Some(separator) if *separator != 0 => {
            let start = rest.iter().position(|byte| !is_blank(*byte)).unwrap_or(rest.len());
            let text = rest.get(start..).unwrap_or_default();
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            text.get(..end).filter(|text| !text.is_empty()).map(<[u8]>::to_vec)
        }
        _ => None,
    };
    Ok(Some(Line { interpreter: name.to_vec(), argument }))
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_terminator(byte: u8) -> bool {
    is_blank(byte) || byte == 0
}

trait TrimBlanks {
    fn trim_ascii_end_blanks(&self) -> &[u8];
}

impl TrimBlanks for [u8] {
    fn trim_ascii_end_blanks(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1);
        self.get(..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(interpreter: &str, argument: Option<&str>) -> SysResult<Option<Line>> {
        let argument = argument.map(|argument| argument.as_bytes().to_vec());
        Ok(Some(Line { interpreter: interpreter.as_bytes().to_vec(), argument }))
    }

    #[test]
    fn lines_are_read_as_linux_reads_them() {
        assert_eq!(parse(b"\x7fELF"), Ok(None));
        assert_eq!(parse(b"#!/bin/sh\n"), line("/bin/sh", None));
        assert_eq!(parse(b"#!/bin/sh"), line("/bin/sh", None));
        assert_eq!(parse(b"#! \t/bin/sh  -e  -x \t\nrest"), line("/bin/sh", Some("-e  -x")));
        assert_eq!(parse(b"#!/usr/bin/env python3\n"), line("/usr/bin/env", Some("python3")));
        assert_eq!(parse(b"#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b"#!   \n"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b"#!"), Err(Errno::ENOEXEC));
    }

    #[test]
    fn long_lines_are_cut_but_not_within_the_path() {
        let mut long = b"#!/".to_vec();
        long.resize(SIZE, b'a');
        assert_eq!(parse(&long), Err(Errno::ENOEXEC));
        let mut long = b"#!/bin/sh ".to_vec();
        long.resize(SIZE, b'a');
        let argument = "a".repeat(SIZE - 10);
        assert_eq!(parse(&long), line("/bin/sh", Some(&argument)));
    }
}
