//! Who is killed where memory runs out: the stubs, which hold what applications use, before the
//! sentry, whose end would be everybody's.
//!
//! A stub inherits the value of `oom_score_adj` that the sentry has when it starts the first one.
//! Nothing but the value at that moment is changed, since lowering it below where a process started
//! takes a privilege of the host.

use std::os::fd::{AsFd as _, OwnedFd};

use sentry_host::file;

/// How far stubs are above the sentry where the container asks for no more.
const DISTANCE: i32 = 300;
const MAX: i32 = 1000;

/// The sentry's own value, to be restored.
#[derive(Debug)]
pub(super) struct OomScore {
    file: OwnedFd,
    own: Option<i32>,
}

impl OomScore {
    /// Gives this process the value that stubs shall have: what the container asks for or, where
    /// that does not spare the sentry, a higher one.
    pub(super) fn raise(file: OwnedFd, wanted: i32) -> Self {
        let own = read(&file);
        if let Some(own) = own {
            let value = if wanted > own { wanted } else { own.saturating_add(DISTANCE) };
            write(&file, value.min(MAX));
        }
        Self { file, own }
    }

    /// Gives this process its own value back.
    pub(super) fn restore(self) {
        if let Some(own) = self.own {
            write(&self.file, own);
        }
    }
}

fn read(file: &OwnedFd) -> Option<i32> {
    let mut text = [0; 16];
    let len = file::read_at(file.as_fd(), &mut text, 0).ok()?;
    std::str::from_utf8(text.get(..len)?).ok()?.trim().parse().ok()
}

/// The sandbox works without it, so a failure is only worth a line in the log.
fn write(file: &OwnedFd, value: i32) {
    if let Err(errno) = file::write_at(file.as_fd(), value.to_string().as_bytes(), 0) {
        crate::log::warn(format_args!("setting oom_score_adj to {value}: {}", errno.text()));
    }
}
