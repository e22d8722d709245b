//! Ringing, and taking what the sentry hands over where no notification can carry it.
//!
//! # Safety
//! Messages lie in locals, whose addresses the kernel gets for the time of a call.
#![expect(unsafe_code, reason = "reads what the kernel has written behind the compiler's back")]

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use sentry_sysmsg::layout::{self, CHANNEL_FD, DOORBELL_FUTEX, MAX_FDS, RING_LEN};
use sentry_sysmsg::slot::{NO_CHANNEL, Slot};

use crate::{host, serve, signal};

const EINTR: i64 = -4;
const EAGAIN: i64 = -11;
const ENOMEM: i64 = -12;
const ENOSYS: i64 = -38;
const ENOBUFS: i64 = -105;
/// A header of 16 bytes and a descriptor.
const RIGHTS_LEN: u64 = 20;
/// `SOL_SOCKET` and `SCM_RIGHTS`.
const RIGHTS: u64 = 1 | 1 << 32;

/// `struct msghdr`.
#[repr(C)]
struct Message {
    name: u64,
    name_len: u64,
    parts: u64,
    n_parts: u64,
    control: u64,
    control_len: u64,
    flags: u64,
}

/// Returns whether rings are messages.
pub(crate) fn is_futex() -> bool {
    serve::config().doorbell.load(Relaxed) == DOORBELL_FUTEX
}

/// Rings for the request of a slot whose last answer was `done`; comes back when it is worth a look.
pub(crate) fn ring(slot: &Slot, done: u32) {
    let (token, index) = (slot.space.load(Relaxed), u64::from(slot.index.load(Relaxed)));
    let answer = if is_futex() {
        slot.rang.store(serve::now(), Relaxed);
        let sent = send(layout::RING_REQUEST, token, index);
        if sent == layout::RUNG_PARK && serve::yield_for_answer(slot) {
            return;
        }
        sent
    } else {
        host::ring(layout::RING_REQUEST, token, index)
    };
    match answer {
        layout::RUNG_PARK => {
            host::futex_wait(core::ptr::from_ref(&slot.turn.done).addr() as u64, done);
            slot.woke.store(serve::now(), Relaxed);
        }
        // Nobody listens any more.
        ENOSYS => host::exit_group(124),
        _ => {}
    }
}

/// Rings by a message; returns what a notification might.
fn send(what: u64, token: u64, index: u64) -> i64 {
    let message = [what, token, index];
    match host::send_ring((&raw const message).expose_provenance() as u64) {
        sent if sent == RING_LEN as i64 => layout::RUNG_PARK,
        EINTR | EAGAIN | ENOMEM | ENOBUFS => layout::RUNG_LOOK,
        _ => ENOSYS,
    }
}

/// Forks; the parent has the end of the child's channel, where there are channels, as descriptor
/// `channel`. The child holds it when it comes back.
#[inline(always)]
pub(crate) fn fork(channel: u32) -> i64 {
    if channel == NO_CHANNEL {
        return EAGAIN;
    }
    let result = host::fork();
    if channel != 0 {
        if result == 0 {
            // Nothing else of the parent's, least of all what another of its children will get.
            host::dup2(u64::from(channel), CHANNEL_FD as u64);
            for fd in CHANNEL_FD as u64 + 1..MAX_FDS {
                host::close(fd);
            }
        } else {
            host::close(u64::from(channel));
        }
    }
    result
}

/// Says that a process was born; returns the descriptor of its slots.
pub(crate) fn born(token: u64) -> u64 {
    loop {
        let answer = if is_futex() {
            match send(layout::RING_BORN, token, 0) {
                layout::RUNG_PARK => receive().1 as i64,
                layout::RUNG_LOOK => EINTR,
                error => error,
            }
        } else {
            host::ring(layout::RING_BORN, token, 0)
        };
        match answer {
            EINTR => {}
            fd if fd >= 0 => return fd as u64,
            _ => host::exit_group(123),
        }
    }
}

/// Takes from the channel what the calls of a reply need, unless another thread has done it.
pub(crate) fn take_fds(slot: &Slot) {
    let sent = slot.fds_sent.load(Relaxed);
    if sent == 0 {
        return;
    }
    let first = signal::slot_of(layout::stack_addr(0));
    if first.fds_taken.load(Acquire) >= sent {
        return;
    }
    lock(&first.fds_lock);
    let mut taken = first.fds_taken.load(Relaxed);
    while taken < sent {
        let (number, fd) = receive();
        if fd < 0 {
            // Rather no descriptor than the one that had the number before.
            host::close(u64::from(number));
        } else if fd as u32 != number {
            host::dup2(fd as u64, u64::from(number));
            host::close(fd as u64);
        }
        taken += 1;
    }
    first.fds_taken.store(taken, Release);
    unlock(&first.fds_lock);
}

/// Receives a message: the number that its descriptor is to have, and which it has, or -1.
fn receive() -> (u32, i32) {
    let mut number = 0_u32;
    let mut control = [0_u64; 3];
    let part = [(&raw mut number).expose_provenance() as u64, size_of::<u32>() as u64];
    let mut message = Message {
        name: 0,
        name_len: 0,
        parts: (&raw const part).expose_provenance() as u64,
        n_parts: 1,
        control: (&raw mut control).expose_provenance() as u64,
        control_len: size_of_val(&control) as u64,
        flags: 0,
    };
    loop {
        match host::receive((&raw mut message).expose_provenance() as u64) {
            EINTR => {}
            n if n == size_of::<u32>() as i64 => break,
            // The sentry has closed it.
            _ => host::exit_group(123),
        }
    }
    // SAFETY: locals, written by the kernel.
    let (number, [len, kind, fd]) =
        unsafe { ((&raw const number).read_volatile(), (&raw const control).read_volatile()) };
    let fd = if len == RIGHTS_LEN && kind == RIGHTS { fd as u32 as i32 } else { -1 };
    (number, fd)
}

fn lock(word: &AtomicU32) {
    if word.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
        return;
    }
    while word.swap(2, Acquire) != 0 {
        host::futex_wait(core::ptr::from_ref(word).addr() as u64, 2);
    }
}

fn unlock(word: &AtomicU32) {
    if word.swap(0, Release) == 2 {
        host::futex_wake(core::ptr::from_ref(word).addr() as u64);
    }
}
