//! The sentry's log: lines written to the descriptor that it was booted with.
//!
//! A line begins with the time of day in UTC, to the microsecond: `15:04:05.000000 warning: text`.
//! Text that comes from the guest is escaped by the caller (`{:?}`), so that it cannot forge lines.

use std::fmt;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use sentry_host::clock::{self, Clock};

use crate::sync::Mutex;

static SINK: OnceLock<Mutex<std::fs::File>> = OnceLock::new();
static LEVEL: AtomicU8 = AtomicU8::new(1);

/// Gives the log its descriptor; `debug` turns on debug lines. Later calls do nothing.
pub fn init(fd: Option<OwnedFd>, debug: bool) {
    if let Some(fd) = fd {
        let _ = SINK.set(Mutex::new(std::fs::File::from(fd)));
    }
    LEVEL.store(if debug { 2 } else { 1 }, Ordering::Relaxed);
}

/// Returns whether debug lines are written.
pub fn is_debug() -> bool {
    LEVEL.load(Ordering::Relaxed) >= 2 && SINK.get().is_some()
}

/// Writes a warning.
pub fn warn(line: fmt::Arguments<'_>) {
    write("warning", line);
}

/// Writes a line of `--strace`.
pub fn strace(line: fmt::Arguments<'_>) {
    write("strace", line);
}

/// Writes a debug line.
pub fn debug(line: fmt::Arguments<'_>) {
    if is_debug() {
        write("debug", line);
    }
}

fn write(level: &str, line: fmt::Arguments<'_>) {
    if let Some(sink) = SINK.get() {
        let text = format!("{} {level}: {line}\n", TimeOfDay::now());
        // A full disk must not stop the sandbox; the line is lost.
        let _ = sink.lock().write_all(text.as_bytes());
    }
}

/// A time of day in UTC.
struct TimeOfDay {
    us: i64,
}

impl TimeOfDay {
    fn now() -> Self {
        Self { us: (clock::now_ns(Clock::Realtime) / 1_000).rem_euclid(86_400_000_000) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, us) = (self.us / 1_000_000, self.us % 1_000_000);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(f, "{hours:02}:{minutes:02}:{:02}.{us:06}", seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::TimeOfDay;

    #[test]
    fn time_of_day_has_six_digits_of_a_second() {
        let time = TimeOfDay { us: ((23 * 60 + 4) * 60 + 5) * 1_000_000 + 42 };
        assert_eq!(time.to_string(), "23:04:05.000042");
    }
}
