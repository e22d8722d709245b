//! Passing along what the arguments of a call point to, so that the sentry need not ask the host
//! for it. What cannot be read here is left out: the sentry then finds out by itself.
//!
//! # Safety
//! The configuration is mapped in every stub; the copy routines survive any address.
#![expect(unsafe_code, reason = "reads the application's memory")]

use core::sync::atomic::Ordering::Relaxed;

use sentry_sysmsg::layout::{
    Config, INPUT_COUNTED, INPUT_FIXED, INPUT_SHIFT, INPUT_STRING, N_CALLS,
};
use sentry_sysmsg::slot::{self, DATA_LEN, INPUT_MAX, N_INPUTS, Renew as _, STRING_MAX, Slot};

use crate::{entry, host, serve};

/// Fills the inputs of a request for the call `number`.
pub(crate) fn inputs(slot: &Slot, number: u64, args: [u64; 6]) {
    let mut n = 0;
    if number < N_CALLS as u64 {
        let config = serve::config();
        let number = number as usize;
        let mask = config.masks[number].load(Relaxed);
        if mask != 0 {
            n = fill(slot, config, number, mask, args);
        }
    }
    if slot::tells_usage(number) {
        host::own_usage(slot.data.as_ptr().addr() as u64 + slot::USAGE_OFFSET as u64);
    }
    slot.n_inputs.renew(n as u32);
}

fn fill(slot: &Slot, config: &Config, number: usize, mask: u8, args: [u64; 6]) -> usize {
    let mut n = 0;
    let mut offset = 0;
    for (i, addr) in args.into_iter().enumerate() {
        if mask & 1 << i == 0 || addr == 0 || n == N_INPUTS {
            continue;
        }
        let input = config.inputs[number][i].load(Relaxed);
        let parameter = u64::from(input >> INPUT_SHIFT);
        let room = (DATA_LEN as u64 - offset).min(INPUT_MAX);
        let to = slot.data.as_ptr().addr() as u64 + offset;
        let len = match input & 3 {
            // SAFETY: see the module; the destination has that much room.
            INPUT_STRING => unsafe { entry::stub_copy_string(to, addr, room.min(STRING_MAX)) },
            kind @ (INPUT_FIXED | INPUT_COUNTED) => {
                let len = if kind == INPUT_FIXED {
                    parameter
                } else {
                    let count = args.get((parameter & 7) as usize).copied().unwrap_or(0);
                    count.saturating_mul(parameter >> 3)
                };
                // SAFETY: as above.
                if len > room || unsafe { entry::stub_copy(to, addr, len) } != 0 { 0 } else { len }
            }
            _ => 0,
        };
        if len == 0 {
            continue;
        }
        slot.inputs[n].addr.renew(addr);
        slot.inputs[n].len.renew(len as u32);
        slot.inputs[n].offset.renew(offset as u32);
        offset = (offset + len).next_multiple_of(8);
        n += 1;
    }
    n
}
