//! The mask of a thread that runs application code, where the platform lets it change that by itself.
//!
//! Meanwhile the mask is what the platform says, and everybody asks [`mask_of`]. Whoever posts a signal
//! says so to the platform first and looks at the mask then; whoever unblocks signals changes the mask
//! first and looks then whether there are any, and if so leaves it to the sentry. One sees the other.

use std::sync::atomic::Ordering;

use syscalls::abi::signal::SigSet;

use crate::task::{CurrentTask, Task};

/// Returns the signals that a thread blocks.
pub(crate) fn mask_of(task: &Task) -> SigSet {
    let context = task.context.lock().clone();
    let signals = task.signals.lock();
    if !task.lends_mask.load(Ordering::Relaxed) {
        return signals.mask;
    }
    let told = context.signal_mask().map_or(signals.mask, SigSet);
    told.difference(SigSet::UNBLOCKABLE)
}

/// Says that a signal may be pending for a thread; before its mask is looked at.
pub(crate) fn announce(task: &Task) {
    let context = task.context.lock().clone();
    context.set_signals_pending(true);
}

/// Leaves the mask to the platform, for a thread that goes to the application.
pub(crate) fn lend(current: &CurrentTask) {
    if !current.has_fast_path.load(Ordering::Relaxed) {
        return;
    }
    let context = current.context();
    if context.signal_mask().is_none() {
        return;
    }
    if context.has_signals_pending() {
        context.set_signals_pending(false);
        let group = current.group.signals.lock();
        let signals = current.signals.lock();
        if !group.pending.set().union(signals.pending.set()).is_empty() {
            context.set_signals_pending(true);
        }
    }
    let signals = current.signals.lock();
    context.set_signal_mask(signals.mask.0);
    current.lent_mask.store(signals.mask.0, Ordering::Relaxed);
    // Who looks at it has the lock.
    current.lends_mask.store(true, Ordering::Relaxed);
}

/// Takes the mask back from a thread that has come from the application, or has not gone there.
pub(crate) fn take_back(current: &CurrentTask) {
    if !current.lends_mask.load(Ordering::Relaxed) {
        return;
    }
    // The thread waits for the sentry and changes it no more.
    let told = current.context().signal_mask();
    if told == Some(current.lent_mask.load(Ordering::Relaxed)) {
        // It is the same on both sides, whoever looks where.
        current.lends_mask.store(false, Ordering::Relaxed);
        return;
    }
    let mut signals = current.signals.lock();
    current.lends_mask.store(false, Ordering::Relaxed);
    let mask = told.map_or(signals.mask, SigSet).difference(SigSet::UNBLOCKABLE);
    let has_changed = signals.mask != mask;
    signals.mask = mask;
    drop(signals);
    if has_changed {
        super::recheck(current);
    }
}
