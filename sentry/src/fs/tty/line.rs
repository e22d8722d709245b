//! The line discipline: Linux's `N_TTY` (`termios(3)`, `drivers/tty/n_tty.c`), as data in and data
//! out.
//!
//! [`Line::receive`] takes what the terminal's user types, [`Line::write`] what programs write.
//! Both append to what the user's side reads; signals are left in [`Effects`] for the caller, who
//! sends them without a lock held.

use std::collections::VecDeque;

use syscalls::abi::ioctl::{
    DEFAULT_TERMIOS, InputModes, LocalModes, OutputModes, Termios, VEOF, VEOL, VEOL2, VERASE,
    VINTR, VKILL, VLNEXT, VMIN, VQUIT, VREPRINT, VSTART, VSTOP, VSUSP, VTIME, VWERASE,
};
use syscalls::abi::signal::{SIGINT, SIGQUIT, SIGTSTP};

/// The longest line that can be edited: Linux's `N_TTY_BUF_SIZE` less one.
const MAX_LINE: usize = 4095;

/// How many bytes either direction holds before its writer has to wait: Linux's limit of a
/// terminal's flip buffers.
const CAPACITY: usize = 65_536;

/// The most bytes that one byte of output can become: a tab's blanks.
const MAX_EXPANSION: usize = 8;

/// What a character of input is besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Plain,
    /// The last one of a line.
    End,
    /// No character at all: the end of a line that `VEOF` ended.
    Eof,
}

/// What is left to the caller.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Signals for the foreground process group, in order.
    pub(super) signals: Vec<i32>,
    /// Whether the programs' side may read more.
    pub(super) input: bool,
    /// Whether the user's side may read more.
    pub(super) output: bool,
    /// `TIOCPKT_*` bits that the master is told of.
    pub(super) packet: u8,
}

/// `TIOCPKT_*` of `ioctl_tty(2)`.
pub(super) mod packet {
    pub(in crate::fs::tty) const FLUSH_READ: u8 = 1;
    pub(in crate::fs::tty) const FLUSH_WRITE: u8 = 2;
    pub(in crate::fs::tty) const STOP: u8 = 4;
    pub(in crate::fs::tty) const START: u8 = 8;
    pub(in crate::fs::tty) const NO_STOP: u8 = 16;
    pub(in crate::fs::tty) const DO_STOP: u8 = 32;
}

/// The state of a line discipline.
pub(super) struct Line {
    termios: Termios,
    /// Complete lines, or whatever came without `ICANON`.
    input: VecDeque<(u8, Mark)>,
    /// How many ends of lines are in `input`.
    n_ends: usize,
    /// The line that is being edited.
    editing: Vec<u8>,
    /// What the user's side reads.
    output: VecDeque<u8>,
    /// Whether output is stopped (`VSTOP`, `TCOOFF`).
    is_stopped: bool,
    /// Whether the next character is literal (`VLNEXT`).
    is_literal: bool,
    /// Whether characters are being erased under `ECHOPRT`.
    is_erasing: bool,
    column: usize,
    /// The column at which the edited line begins.
    start_column: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            termios: DEFAULT_TERMIOS,
            input: VecDeque::new(),
            n_ends: 0,
            editing: Vec::new(),
            output: VecDeque::new(),
            is_stopped: false,
            is_literal: false,
            is_erasing: false,
            column: 0,
            start_column: 0,
        }
    }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

impl Line {
    /// Returns the settings.
    pub(super) fn termios(&self) -> Termios {
        self.termios
    }

    fn local(&self, mode: LocalModes) -> bool {
        self.termios.c_lflag & mode.bits() != 0
    }

    fn in_mode(&self, mode: InputModes) -> bool {
        self.termios.c_iflag & mode.bits() != 0
    }

    fn out_mode(&self, mode: OutputModes) -> bool {
        self.termios.c_oflag & mode.bits() != 0
    }

    /// Returns whether `byte` is the control character `index`; zero is "none".
    fn is_char(&self, byte: u8, index: usize) -> bool {
        byte != 0 && self.termios.c_cc.get(index) == Some(&byte)
    }

    /// Returns a control character's value.
    fn setting(&self, index: usize) -> u8 {
        self.termios.c_cc.get(index).copied().unwrap_or(0)
    }

    /// Returns whether input is read in lines. Under `EXTPROC` somebody else has edited it.
    pub(super) fn is_canonical(&self) -> bool {
        self.local(LocalModes::ICANON) && !self.local(LocalModes::EXTPROC)
    }

    /// Returns `VMIN` and `VTIME`, the latter in tenths of a second.
    pub(super) fn min_and_time(&self) -> (usize, u64) {
        (usize::from(self.setting(VMIN)), u64::from(self.setting(VTIME)))
    }

    /// Returns whether background processes must not write.
    pub(super) fn stops_background(&self) -> bool {
        self.local(LocalModes::TOSTOP)
    }

    /// Changes the settings.
    pub(super) fn set_termios(&mut self, new: Termios, effects: &mut Effects) {
        let was_canonical = self.is_canonical();
        let could_stop = self.is_flow_controlled();
        self.termios = new;
        if was_canonical != self.is_canonical() {
            let rest = std::mem::take(&mut self.editing);
            self.input.extend(rest.into_iter().map(|byte| (byte, Mark::Plain)));
            self.input.retain(|(_, mark)| *mark != Mark::Eof);
            for entry in &mut self.input {
                entry.1 = Mark::Plain;
            }
            self.n_ends = 0;
            if self.is_canonical()
                && let Some(last) = self.input.back_mut()
            {
                last.1 = Mark::End;
                self.n_ends = 1;
            }
            effects.input = true;
        }
        if !self.in_mode(InputModes::IXON) {
            self.set_stopped(false, effects);
        }
        let can_stop = self.is_flow_controlled();
        if could_stop != can_stop {
            effects.packet |= if can_stop { packet::DO_STOP } else { packet::NO_STOP };
        }
    }

    /// Returns whether the usual characters stop and start the output.
    fn is_flow_controlled(&self) -> bool {
        self.in_mode(InputModes::IXON)
            && self.setting(VSTOP) == 0o23
            && self.setting(VSTART) == 0o21
    }

    /// Stops or restarts the output.
    pub(super) fn set_stopped(&mut self, is_stopped: bool, effects: &mut Effects) {
        if self.is_stopped != is_stopped {
            self.is_stopped = is_stopped;
            effects.packet |= if is_stopped { packet::STOP } else { packet::START };
            effects.output |= !is_stopped;
        }
    }

    /// Forgets what has been typed and not been read.
    pub(super) fn flush_input(&mut self, effects: &mut Effects) {
        self.input.clear();
        self.editing.clear();
        self.n_ends = 0;
        self.is_literal = false;
        self.is_erasing = false;
        effects.packet |= packet::FLUSH_READ;
    }

    /// Forgets what has been written and not been read.
    pub(super) fn flush_output(&mut self, effects: &mut Effects) {
        self.output.clear();
        effects.packet |= packet::FLUSH_WRITE;
    }

    /// Returns how many bytes the user's side may still send.
    pub(super) fn input_room(&self) -> usize {
        CAPACITY.saturating_sub(self.input.len())
    }

    /// Returns how many bytes programs may still write.
    pub(super) fn output_room(&self) -> usize {
        if self.is_stopped {
            return 0;
        }
        let room = CAPACITY.saturating_sub(self.output.len());
        if self.out_mode(OutputModes::OPOST) { room / MAX_EXPANSION } else { room }
    }

    /// Takes a byte from the user's side.
    pub(super) fn receive(&mut self, mut byte: u8, effects: &mut Effects) {
        if self.in_mode(InputModes::ISTRIP) {
            byte &= 0x7f;
        }
        let is_extended = self.local(LocalModes::IEXTEN);
        if self.in_mode(InputModes::IUCLC) && is_extended {
            byte = byte.to_ascii_lowercase();
        }
        if self.local(LocalModes::EXTPROC) {
            self.put(byte, effects);
            return;
        }
        if std::mem::take(&mut self.is_literal) {
            self.receive_plain(byte, effects);
            return;
        }
        if self.in_mode(InputModes::IXON) {
            if self.is_char(byte, VSTART) {
                self.set_stopped(false, effects);
                return;
            }
            if self.is_char(byte, VSTOP) {
                self.set_stopped(true, effects);
                return;
            }
            if self.is_stopped && self.in_mode(InputModes::IXANY) {
                self.set_stopped(false, effects);
            }
        }
        if self.local(LocalModes::ISIG) {
            let signals = [(VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)];
            if let Some((_, signo)) = signals.iter().find(|(index, _)| self.is_char(byte, *index)) {
                self.signal(byte, *signo, effects);
                return;
            }
        }
        match byte {
            b'\r' if self.in_mode(InputModes::IGNCR) => return,
            b'\r' if self.in_mode(InputModes::ICRNL) => byte = b'\n',
            b'\n' if self.in_mode(InputModes::INLCR) => byte = b'\r',
            _ => {}
        }
        if self.is_canonical() && self.receive_editing(byte, is_extended, effects) {
            return;
        }
        self.receive_plain(byte, effects);
    }

    fn signal(&mut self, byte: u8, signo: i32, effects: &mut Effects) {
        effects.signals.push(signo);
        if !self.local(LocalModes::NOFLSH) {
            self.flush_output(effects);
            self.flush_input(effects);
        }
        if self.in_mode(InputModes::IXON) {
            self.set_stopped(false, effects);
        }
        if self.local(LocalModes::ECHO) {
            self.echo(byte, effects);
        }
    }

    /// Takes a byte that edits or ends a line; returns false for any other.
    fn receive_editing(&mut self, byte: u8, is_extended: bool, effects: &mut Effects) -> bool {
        let is_echoing = self.local(LocalModes::ECHO);
        if self.is_char(byte, VERASE) {
            self.erase(Erase::Character, effects);
        } else if self.is_char(byte, VKILL) {
            self.kill(effects);
        } else if is_extended && self.is_char(byte, VWERASE) {
            self.erase(Erase::Word, effects);
        } else if is_extended && self.is_char(byte, VLNEXT) {
            self.is_literal = true;
            if is_echoing {
                self.finish_erasing(effects);
                if self.local(LocalModes::ECHOCTL) {
                    self.echo_raw(b'^', effects);
                    self.echo_raw(0x8, effects);
                }
            }
        } else if is_extended && is_echoing && self.is_char(byte, VREPRINT) {
            self.finish_erasing(effects);
            self.echo(byte, effects);
            self.echo_raw(b'\n', effects);
            for byte in self.editing.clone() {
                self.echo(byte, effects);
            }
        } else if byte == b'\n' {
            if is_echoing || self.local(LocalModes::ECHONL) {
                self.echo_raw(b'\n', effects);
            }
            self.end_line(Some(b'\n'), effects);
        } else if self.is_char(byte, VEOF) {
            self.end_line(None, effects);
        } else if self.is_char(byte, VEOL) || (is_extended && self.is_char(byte, VEOL2)) {
            if is_echoing {
                self.note_start();
                self.echo(byte, effects);
            }
            self.end_line(Some(byte), effects);
        } else {
            return false;
        }
        true
    }

    fn receive_plain(&mut self, byte: u8, effects: &mut Effects) {
        if self.is_canonical() && self.editing.len() >= MAX_LINE {
            if self.in_mode(InputModes::IMAXBEL) {
                self.put_output(0x7, effects);
            }
            return;
        }
        if self.local(LocalModes::ECHO) {
            self.finish_erasing(effects);
            if byte == b'\n' {
                self.echo_raw(b'\n', effects);
            } else {
                self.note_start();
                self.echo(byte, effects);
            }
        }
        if byte == 0xff && self.in_mode(InputModes::PARMRK) {
            self.put(byte, effects);
        }
        self.put(byte, effects);
    }

    fn put(&mut self, byte: u8, effects: &mut Effects) {
        if self.is_canonical() {
            self.editing.push(byte);
        } else {
            self.input.push_back((byte, Mark::Plain));
            effects.input = true;
        }
    }

    /// Makes the edited line readable; without a byte the line just ends.
    fn end_line(&mut self, last: Option<u8>, effects: &mut Effects) {
        let line = std::mem::take(&mut self.editing);
        self.input.extend(line.into_iter().map(|byte| (byte, Mark::Plain)));
        self.input.push_back(match last {
            Some(byte) => (byte, Mark::End),
            None => (0, Mark::Eof),
        });
        self.n_ends += 1;
        effects.input = true;
    }

    fn kill(&mut self, effects: &mut Effects) {
        if self.editing.is_empty() {
            return;
        }
        let echoes = self.local(LocalModes::ECHO);
        let is_visual = [LocalModes::ECHOK, LocalModes::ECHOKE, LocalModes::ECHOE]
            .iter()
            .all(|mode| self.local(*mode));
        if echoes && is_visual {
            self.erase(Erase::Line, effects);
            return;
        }
        self.editing.clear();
        if echoes {
            self.finish_erasing(effects);
            self.echo(self.setting(VKILL), effects);
            if self.local(LocalModes::ECHOK) {
                self.echo_raw(b'\n', effects);
            }
        }
    }

    fn is_continuation(&self, byte: u8) -> bool {
        self.in_mode(InputModes::IUTF8) && byte & 0xc0 == 0x80
    }

    fn erase(&mut self, what: Erase, effects: &mut Effects) {
        let mut has_seen_word = false;
        if self.editing.is_empty() {
            return;
        }
        while !self.editing.is_empty() {
            let start = self.editing.iter().rposition(|byte| !self.is_continuation(*byte));
            let Some(start) = start else { break };
            let Some(&first) = self.editing.get(start) else { break };
            if what == Erase::Word {
                if first.is_ascii_alphanumeric() || first == b'_' {
                    has_seen_word = true;
                } else if has_seen_word {
                    break;
                }
            }
            let erased = self.editing.split_off(start);
            if self.local(LocalModes::ECHO) {
                self.echo_erased(what, first, &erased, effects);
            }
            if what == Erase::Character {
                break;
            }
        }
        if self.editing.is_empty() && self.local(LocalModes::ECHO) {
            self.finish_erasing(effects);
        }
    }

    fn echo_erased(&mut self, what: Erase, first: u8, erased: &[u8], effects: &mut Effects) {
        if self.local(LocalModes::ECHOPRT) {
            if !self.is_erasing {
                self.echo_raw(b'\\', effects);
                self.is_erasing = true;
            }
            self.echo(first, effects);
            for byte in erased.iter().skip(1) {
                self.put_output(*byte, effects);
            }
        } else if what == Erase::Character && !self.local(LocalModes::ECHOE) {
            self.echo(self.setting(VERASE), effects);
        } else if first == b'\t' {
            self.echo_erased_tab(effects);
        } else {
            let shows_controls = self.local(LocalModes::ECHOCTL);
            let width = match (is_control(first), shows_controls) {
                (false, _) => 1,
                (true, true) => 2,
                (true, false) => 0,
            };
            for _ in 0..width {
                for byte in [0x8, b' ', 0x8] {
                    self.echo_raw(byte, effects);
                }
            }
        }
    }

    /// Goes back over a tab, to where the characters before it end.
    fn echo_erased_tab(&mut self, effects: &mut Effects) {
        let mut width = 0;
        let mut is_after_tab = false;
        for byte in self.editing.iter().rev() {
            if *byte == b'\t' {
                is_after_tab = true;
                break;
            }
            if is_control(*byte) {
                width += if self.local(LocalModes::ECHOCTL) { 2 } else { 0 };
            } else if !self.is_continuation(*byte) {
                width += 1;
            }
        }
        if !is_after_tab {
            width += self.start_column;
        }
        for _ in 0..8 - (width & 7) {
            self.put_output(0x8, effects);
            self.column = self.column.saturating_sub(1);
        }
    }

    fn finish_erasing(&mut self, effects: &mut Effects) {
        if std::mem::take(&mut self.is_erasing) {
            self.echo_raw(b'/', effects);
        }
    }

    fn note_start(&mut self) {
        if self.editing.is_empty() {
            self.start_column = self.column;
        }
    }

    /// Echoes a byte, control characters as `^X` under `ECHOCTL`.
    fn echo(&mut self, byte: u8, effects: &mut Effects) {
        if self.local(LocalModes::ECHOCTL) && is_control(byte) && byte != b'\t' {
            self.put_output(b'^', effects);
            self.put_output(byte ^ 0o100, effects);
            self.column += 2;
        } else {
            self.echo_raw(byte, effects);
        }
    }

    fn echo_raw(&mut self, byte: u8, effects: &mut Effects) {
        if self.out_mode(OutputModes::OPOST) {
            self.process(byte, effects);
        } else {
            self.put_output(byte, effects);
        }
    }

    fn put_output(&mut self, byte: u8, effects: &mut Effects) {
        // An echo that nobody reads is lost, as on Linux.
        if self.output.len() < CAPACITY + MAX_LINE {
            self.output.push_back(byte);
            effects.output = true;
        }
    }

    /// Takes what a program writes; the caller has asked [`Line::output_room`].
    pub(super) fn write(&mut self, data: &[u8], effects: &mut Effects) {
        if self.out_mode(OutputModes::OPOST) {
            for byte in data {
                self.process(*byte, effects);
            }
        } else {
            self.output.extend(data);
            effects.output |= !data.is_empty();
        }
    }

    /// Output processing: `do_output_char()`.
    fn process(&mut self, byte: u8, effects: &mut Effects) {
        let mut byte = byte;
        match byte {
            b'\n' => {
                if self.out_mode(OutputModes::ONLRET) {
                    self.column = 0;
                }
                if self.out_mode(OutputModes::ONLCR) {
                    self.column = 0;
                    self.start_column = 0;
                    self.put_output(b'\r', effects);
                }
                self.start_column = self.column;
            }
            b'\r' => {
                if self.out_mode(OutputModes::ONOCR) && self.column == 0 {
                    return;
                }
                if self.out_mode(OutputModes::OCRNL) {
                    byte = b'\n';
                    if self.out_mode(OutputModes::ONLRET) {
                        self.column = 0;
                    }
                } else {
                    self.column = 0;
                }
                self.start_column = self.column;
            }
            b'\t' => {
                let width = 8 - (self.column & 7);
                self.column += width;
                let delay = self.termios.c_oflag & OutputModes::TABDLY.bits();
                if delay == OutputModes::TABDLY.bits() {
                    for _ in 0..width {
                        self.put_output(b' ', effects);
                    }
                    return;
                }
            }
            0x8 => self.column = self.column.saturating_sub(1),
            _ if !is_control(byte) => {
                if self.out_mode(OutputModes::OLCUC) {
                    byte = byte.to_ascii_uppercase();
                }
                if !self.is_continuation(byte) {
                    self.column += 1;
                }
            }
            _ => {}
        }
        self.put_output(byte, effects);
    }

    /// Returns how many bytes a program can read at once.
    pub(super) fn readable(&self) -> usize {
        if self.is_canonical() {
            let ends = self.input.iter().rposition(|(_, mark)| *mark != Mark::Plain);
            let lines = ends.map_or(0, |end| end + 1);
            self.input.iter().take(lines).filter(|(_, mark)| *mark != Mark::Eof).count()
        } else {
            self.input.len()
        }
    }

    /// Returns whether a read has something to return; `wanted` counts without `ICANON`.
    pub(super) fn is_readable(&self, wanted: usize) -> bool {
        if self.is_canonical() { self.n_ends > 0 } else { self.input.len() >= wanted.max(1) }
    }

    /// Returns what a read of at most `max` bytes gets; nothing is consumed before
    /// [`Line::consume`].
    pub(super) fn peek(&self, max: usize) -> Vec<u8> {
        let is_canonical = self.is_canonical();
        let mut data = Vec::new();
        for (byte, mark) in self.input.iter().take(max) {
            if *mark == Mark::Eof {
                break;
            }
            data.push(*byte);
            if is_canonical && *mark == Mark::End {
                break;
            }
        }
        data
    }

    /// Removes `n` bytes that have been read, and the end of the line where it comes next.
    pub(super) fn consume(&mut self, n: usize) {
        let mut has_ended = false;
        for (_, mark) in self.input.drain(..n.min(self.input.len())) {
            if mark == Mark::End {
                has_ended = true;
                self.n_ends = self.n_ends.saturating_sub(1);
            }
        }
        if !has_ended && self.input.front().is_some_and(|(_, mark)| *mark == Mark::Eof) {
            self.input.pop_front();
            self.n_ends = self.n_ends.saturating_sub(1);
        }
    }

    /// Returns what the user's side reads, at most `max` bytes.
    pub(super) fn peek_output(&self, max: usize) -> Vec<u8> {
        self.output.iter().take(max).copied().collect()
    }

    /// Removes `n` bytes that the user's side has read.
    pub(super) fn consume_output(&mut self, n: usize) {
        self.output.drain(..n.min(self.output.len()));
    }

    /// Returns how many bytes the user's side can read.
    pub(super) fn output_len(&self) -> usize {
        self.output.len()
    }
}

/// How much is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Erase {
    Character,
    Word,
    Line,
}

#[cfg(test)]
mod tests {
    use super::{Effects, Line, LocalModes, SIGINT};

    fn typed(line: &mut Line, text: &[u8]) -> Effects {
        let mut effects = Effects::default();
        for byte in text {
            line.receive(*byte, &mut effects);
        }
        effects
    }

    fn take(line: &mut Line, max: usize) -> Vec<u8> {
        let data = line.peek(max);
        line.consume(data.len());
        data
    }

    fn shown(line: &mut Line) -> Vec<u8> {
        let data = line.peek_output(usize::MAX);
        line.consume_output(data.len());
        data
    }

    #[test]
    fn characters_are_erased_and_echoed() {
        let mut line = Line::default();
        typed(&mut line, b"helpo\x7f\x7flo\r");
        assert_eq!(take(&mut line, 100), b"hello\n");
        assert_eq!(shown(&mut line), b"helpo\x08 \x08\x08 \x08lo\r\n");
    }

    #[test]
    fn words_and_lines_are_erased() {
        let mut line = Line::default();
        typed(&mut line, b"word two \x17three\n");
        assert_eq!(take(&mut line, 100), b"word three\n");
        typed(&mut line, b"gone\x15kept\n");
        assert_eq!(take(&mut line, 100), b"kept\n");
    }

    #[test]
    fn end_of_file_ends_a_line_and_is_not_read() {
        let mut line = Line::default();
        typed(&mut line, b"part\x04\x04");
        assert_eq!(take(&mut line, 4), b"part");
        assert!(line.is_readable(1));
        assert_eq!(take(&mut line, 100), b"");
        assert!(!line.is_readable(1));
    }

    #[test]
    fn short_reads_leave_the_rest_of_a_line() {
        let mut line = Line::default();
        typed(&mut line, b"one\ntwo\n");
        assert_eq!(take(&mut line, 2), b"on");
        assert_eq!(take(&mut line, 100), b"e\n");
        assert_eq!(take(&mut line, 100), b"two\n");
    }

    #[test]
    fn interrupt_flushes_and_signals() {
        let mut line = Line::default();
        let effects = typed(&mut line, b"lost\x03");
        assert_eq!(effects.signals, [SIGINT]);
        assert_eq!(shown(&mut line), b"^C");
        typed(&mut line, b"kept\n");
        assert_eq!(take(&mut line, 100), b"kept\n");
    }

    #[test]
    fn literal_next_takes_a_control_character() {
        let mut line = Line::default();
        typed(&mut line, b"a\x16\x03b\n");
        assert_eq!(take(&mut line, 100), b"a\x03b\n");
    }

    #[test]
    fn tabs_are_erased_to_where_they_began() {
        let mut line = Line::default();
        typed(&mut line, b"ab\t\x7f");
        assert_eq!(shown(&mut line), b"ab\t\x08\x08\x08\x08\x08\x08");
    }

    #[test]
    fn stopped_output_waits() {
        let mut line = Line::default();
        typed(&mut line, b"\x13");
        assert_eq!(line.output_room(), 0);
        typed(&mut line, b"\x11");
        assert!(line.output_room() > 0);
    }

    #[test]
    fn leaving_canonical_mode_makes_everything_readable() {
        let mut line = Line::default();
        typed(&mut line, b"no line");
        assert!(!line.is_readable(1));
        let mut termios = line.termios();
        termios.c_lflag &= !LocalModes::ICANON.bits();
        line.set_termios(termios, &mut Effects::default());
        assert_eq!(take(&mut line, 100), b"no line");
    }
}
