//! The extended state of a stopped context: a look at it, and its replacement.

use std::sync::atomic::Ordering::Relaxed;

use sentry_sysmsg::{layout, slot};

use super::{State, SystrapContext, Then};
use crate::systrap::lock;

/// What is done with the extended state of a stopped context.
#[derive(Clone, Debug)]
pub(super) enum XCopy {
    /// It is copied to the slot's data.
    Fetch,
    /// It is replaced by what a signal frame holds.
    Load(Vec<u8>),
}

impl SystrapContext {
    /// Fills the fields for the frames of handlers that hold the extended state.
    pub(super) fn fill_xsave(&self, state: &mut State) -> u32 {
        let slot = &self.slot;
        let [addr, more @ ..] = &*std::mem::take(&mut state.xsave) else { return 0 };
        slot.xsave_addr.store(*addr, Relaxed);
        for (word, addr) in slot.xsave_more.iter().zip(more) {
            word.store(*addr, Relaxed);
        }
        slot.n_xsave_more.store(u32::try_from(more.len()).unwrap_or(0), Relaxed);
        slot::REPLY_XSAVE
    }

    /// Fills the fields for a look at the extended state, or a change of it.
    pub(super) fn fill_xcopy(&self, copy: XCopy, state: &mut State) -> u32 {
        let slot = &self.slot;
        let mut reply = 0;
        match copy {
            XCopy::Fetch => {
                // What a signal frame holds that has just been left.
                if let Some(addr) = state.xrestore.take() {
                    slot.xrestore_addr.store(addr, Relaxed);
                    reply |= slot::REPLY_XRESTORE;
                }
                let data = std::mem::offset_of!(slot::Slot, data);
                let data = u64::try_from(data).unwrap_or(0);
                slot.xsave_addr.store(layout::slot_addr(self.index) + data, Relaxed);
                // What handlers' frames are to hold is stored when the context goes on.
                slot.n_xsave_more.store(0, Relaxed);
                state.data_len = usize::try_from(self.inner.xsave.size).unwrap_or(0) + 4;
                reply | slot::REPLY_XSAVE
            }
            XCopy::Load(frame) => {
                state.xrestore = None;
                reply |= self.fill_xsave(state);
                for (place, word) in slot.data.iter().zip(frame.chunks(8)) {
                    let value =
                        word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                    place.store(value, Relaxed);
                }
                slot.xrestore_addr.store(u64::try_from(frame.len()).unwrap_or(u64::MAX), Relaxed);
                reply | slot::REPLY_XLOAD
            }
        }
    }

    /// Starts to look at the extended state or to change it.
    pub(super) fn start_xcopy(&self, copy: XCopy) {
        let size = usize::try_from(self.inner.xsave.size).unwrap_or(usize::MAX).saturating_add(4);
        if size <= slot::DATA_LEN {
            lock(&self.state).xcopy = Some(copy);
        }
        // Without room there is no data, and nothing has changed.
        self.start(&[], Then::Report);
    }
}
