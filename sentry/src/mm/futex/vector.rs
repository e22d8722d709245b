//! Waiting on several futexes at once.

use std::sync::atomic::Ordering;

use syscalls::{Errno, UserAddr};

use super::{Place, enqueue};
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart};

/// One futex that is waited on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The word.
    pub(crate) addr: UserAddr,
    /// Whether only this process uses it.
    pub(crate) private: bool,
    /// What it is expected to hold.
    pub(crate) expected: u32,
}

/// The places of a thread in the queues, in the order of the entries.
struct Places(Vec<Place>);

impl Places {
    /// Returns the last entry that has been woken.
    fn woken(&self) -> Option<usize> {
        self.0.iter().rposition(|place| place.waiter.is_woken.load(Ordering::SeqCst))
    }
}

/// Waits until one of the futexes is woken, while all hold what is expected; returns its index.
///
/// # Errors
/// `EAGAIN` where one of them holds something else, `ETIMEDOUT`, `EFAULT`, `EINVAL`; a signal
/// interrupts.
pub(crate) fn wait_any(
    current: &CurrentTask,
    entries: &[Entry],
    deadline_ns: Option<u64>,
) -> HandlerResult<usize> {
    let places = match current.recall::<Places>() {
        Some(places) => places,
        None => {
            let mut places = Places(Vec::with_capacity(entries.len()));
            for entry in entries {
                match enqueue(current, entry.addr, entry.private, entry.expected, u32::MAX) {
                    Ok(place) => places.0.push(place),
                    // What has been woken meanwhile would be lost.
                    Err(Errno::EAGAIN) => return places.woken().ok_or(Errno::EAGAIN.into()),
                    Err(errno) => return Err(errno.into()),
                }
            }
            places
        }
    };
    let waited = current.wait_for(deadline_ns, Restart::Sys, |_| Vec::new(), || Ok(places.woken()));
    match waited {
        Ok(Wait::Ready(index)) => return Ok(index),
        Err(Control::Block) => {
            current.remember(places);
            return Err(Control::Block);
        }
        _ => {}
    }
    let waiters: Vec<_> = places.0.iter().map(|place| place.waiter.clone()).collect();
    drop(places);
    // One that has been woken while the places were left.
    let late = waiters.iter().rposition(|waiter| waiter.is_woken.load(Ordering::SeqCst));
    match (late, waited) {
        (Some(index), _) | (None, Ok(Wait::Ready(index))) => Ok(index),
        (None, Ok(Wait::TimedOut)) => Err(Errno::ETIMEDOUT.into()),
        (None, Err(control)) => Err(control),
    }
}
