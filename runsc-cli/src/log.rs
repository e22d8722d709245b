//! Errors and warnings of the command line: to standard error, and to the file of `--log` in the
//! format that container managers read (theirs is logrus's).

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::{GlobalOptions, LogFormat};

static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

/// Opens the log. Messages before go to standard error.
///
/// # Errors
/// Those of opening the file of `--log`.
pub(crate) fn open(options: &GlobalOptions) -> std::io::Result<()> {
    let file = match &options.log {
        Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    // A second call changes nothing; there is one, in `main`.
    let _ = LOG.set(Log { file, format: options.log_format, debug: options.debug });
    Ok(())
}

/// Says why the command failed.
pub(crate) fn error(message: &str) {
    write("error", message);
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        to_stderr(&format!("{message}\n"));
    }
}

/// Says what the command did not do although it succeeds.
pub(crate) fn warning(message: &str) {
    write("warning", message);
}

/// Says what helps to find a fault.
pub(crate) fn debug(message: &str) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", message);
    }
}

fn write(level: &str, message: &str) {
    let time =
        rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    let log = LOG.get();
    let line = match log.map_or(LogFormat::Text, |log| log.format) {
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={}\n", quote(message)),
        LogFormat::Json => {
            format!("{{\"level\":\"{level}\",\"msg\":{},\"time\":\"{time}\"}}\n", quote(message))
        }
    };
    match log.and_then(|log| log.file.as_ref()) {
        // One write, so that lines of several processes do not mix; nobody to tell where it fails.
        Some(mut file) => drop(file.write_all(line.as_bytes())),
        None => to_stderr(&line),
    }
}

fn to_stderr(text: &str) {
    // Nobody to tell where this fails.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns a time of the Unix clock as `2006-01-02T15:04:05Z`.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin on 1 March, in eras of 400 years (days 0 = 1970-01-01).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns the words of an error of the host as runc, and so what looks for them, has them.
pub(crate) fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn rfc3339_knows_leap_days() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
