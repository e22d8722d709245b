//! The conversation with the sentry about one stop of a thread.
//!
//! # Safety
//! A frame belongs to the thread that stopped with it; frames lie on the stub stack above
//! everything that this module itself keeps there, so `rt_sigreturn` may drop the rest.
#![expect(unsafe_code, reason = "works on signal frames and makes the sentry's host calls")]

use core::mem::offset_of;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use sentry_sysmsg::layout::{self, Config};
use sentry_sysmsg::slot::{
    CALL_ATOMIC_UPDATE, CALL_CHAINED, CALL_COMPARE_EXCHANGE, CALL_COPY_OUT, CALL_QUIET,
    CALL_REFUSED, CALL_STORE, CALL_WHOLE, CROWD_SPINS, DATA_LEN, KIND_CALL_FAILED, KIND_CALLS_DONE,
    KIND_INTERRUPTED, KIND_SYSCALL, LOST_TICKS, MAX_CALLS, REPLY_EXIT, REPLY_EXIT_GROUP,
    REPLY_FORK, REPLY_MAP_STACK, REPLY_REGS, REPLY_RESUME, REPLY_RET, REPLY_SLEEP, REPLY_THREAD,
    REPLY_XLOAD, REPLY_XRESTORE, REPLY_XSAVE, Renew as _, START_SPINS, Slot, WATCHED_ANYWHERE,
    WATCHED_CROWD,
};

use crate::frame::{G_RAX, Ucontext};
use crate::{doorbell, entry, frame, host, marshal, signal};

const EFAULT: i64 = -14;
const EINVAL: i64 = -22;
const SHARED_FIXED: u64 = 0x11;
const PRIVATE_FIXED_ANON: u64 = 0x32 | 0x4000;
const READ_WRITE: u64 = 3;
const MADV_DONTFORK: u64 = 10;
/// The largest extended state that a frame can hold here.
const XSTATE_MAX: u64 = 0x4000;
/// Where `struct _fpx_sw_bytes` lies in the legacy area, and what it starts with.
const SW_BYTES: u64 = 464;
/// A yield that takes no longer (about 1 µs) was to nobody; the next one comes after so many ticks, and twice as
/// many after each further one, up to a limit.
const ALONE_TICKS: u64 = 2_500;
const MIN_ALONE_TICKS: u64 = 2_500;
const MAX_ALONE_TICKS: u64 = 10_000;
/// The legacy area alone.
const FXSAVE_LEN: u64 = 512;

/// Goes on with a thread that found its `interrupt` word set when it was about to leave.
pub(crate) extern "C" fn interrupted(frame: *mut Ucontext, slot: *const Slot) -> ! {
    // SAFETY: the caller passes on what `serve` gave it.
    serve(frame, unsafe { &*slot }, KIND_INTERRUPTED, u64::MAX)
}

/// The first code of a new thread, on its own stack, with the frame that its maker prepared.
pub(crate) extern "C" fn thread_main(frame: *mut Ucontext) -> ! {
    let slot = signal::slot_of(frame.addr() as u64);
    // SAFETY: the maker has finished with the frame.
    let stack = unsafe { &(*frame).stack };
    host::sigaltstack(core::ptr::from_ref(stack).addr() as u64);
    answer(frame, slot)
}

/// Reports a stop and does what the sentry answers, until the thread goes back.
pub(crate) fn serve(frame: *mut Ucontext, slot: &'static Slot, kind: u32, orig_rax: u64) -> ! {
    // SAFETY: the frame is this thread's.
    let gregs = unsafe {
        (*frame).store(slot, orig_rax);
        &(*frame).gregs
    };
    if kind == KIND_SYSCALL {
        marshal::inputs(slot, orig_rax, frame::arguments(gregs));
    }
    post(slot, kind);
    answer(frame, slot)
}

/// What to do first with a frame that the stub has made for a patched call.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    /// Carry out this reply.
    Act(u32),
    /// Report the outcome of a reply that was carried out without the frame.
    Post(u32),
    /// Report the frame.
    Report(u32),
}

/// Goes on with a frame that the stub has made.
pub(crate) fn go_on(frame: *mut Ucontext, slot: &'static Slot, next: Next) -> ! {
    match next {
        Next::Act(reply) => acted(frame, slot, act(frame, slot, reply)),
        Next::Post(kind) => post(slot, kind),
        Next::Report(kind) => serve(frame, slot, kind, u64::MAX),
    }
    answer(frame, slot)
}

/// Publishes a request.
pub(crate) fn post(slot: &Slot, kind: u32) {
    slot.kind.renew(kind);
    slot.cpu.renew(if config().spin_ticks.load(Relaxed) == 0 { 0 } else { tick().1 });
    // Before the look at `watched`, so that a thread that stops to watch, or this one, sees the other.
    slot.seq.store(slot.seq.load(Relaxed).wrapping_add(1), SeqCst);
}

/// Lets others run until the last request is answered, where that needs nothing but this CPU, and for as
/// long as a thread would spin; returns whether it is. To wake a thread on another CPU is far dearer.
pub(crate) fn yield_for_answer(slot: &Slot) -> bool {
    let seq = slot.seq.load(Relaxed);
    let ticks = config().spin_ticks.load(Relaxed);
    let followed = slot.followed.load(Relaxed);
    if followed == 0 || followed != slot.cpu.load(Relaxed) {
        return false;
    }
    let started = tick().0;
    while tick().0.wrapping_sub(started) < ticks {
        host::sched_yield();
        if slot.turn.done.load(Acquire) == seq {
            return true;
        }
    }
    slot.followed.store(0, Relaxed);
    false
}

/// Returns the time-stamp counter where it may be asked for, else zero.
pub(crate) fn now() -> u64 {
    if config().spin_ticks.load(Relaxed) == 0 { 0 } else { tick().0 }
}

/// Returns the time-stamp counter and the CPU plus one.
fn tick() -> (u64, u32) {
    let mut cpu = 0;
    // SAFETY: only asked for where the sentry has found that the processor can.
    let now = unsafe { core::arch::x86_64::__rdtscp(&raw mut cpu) };
    (now, cpu.wrapping_add(1))
}

/// Returns what all stubs know from the start.
pub(crate) fn config() -> &'static Config {
    // SAFETY: the zygote has mapped the configuration for all its descendants.
    unsafe { &*core::ptr::with_exposed_provenance::<Config>(layout::CONFIG_BASE as usize) }
}

/// Waits for the answer to the request `seq` as long as a serving thread watches the slot from another
/// CPU, and not for long.
fn spin(slot: &Slot, seq: u32) {
    let mut ticks = config().spin_ticks.load(Relaxed);
    match slot.turn.watched.load(Relaxed) {
        WATCHED_ANYWHERE => ticks *= START_SPINS,
        WATCHED_CROWD => ticks *= CROWD_SPINS,
        _ => {}
    }
    let mut started = 0;
    let (mut next_yield, mut alone) = (0, MIN_ALONE_TICKS);
    while slot.turn.done.load(Acquire) != seq {
        let watched = slot.turn.watched.load(SeqCst);
        if watched == 0 || ticks == 0 {
            return;
        }
        let (now, cpu) = tick();
        if started == 0 {
            started = now;
        }
        if cpu == watched || now.wrapping_sub(started) > ticks {
            return;
        }
        if watched == WATCHED_CROWD && now >= next_yield {
            host::sched_yield();
            let back = tick().0;
            let away = back.wrapping_sub(now);
            if away > LOST_TICKS {
                slot.lost_cpu.store(1, Relaxed);
            } else if away < ALONE_TICKS {
                // Who yields again and again to nobody pays for it when somebody comes.
                next_yield = back + alone;
                alone = (alone * 2).min(MAX_ALONE_TICKS);
            }
        } else {
            core::hint::spin_loop();
        }
    }
}

/// Starts to fetch what the sentry's CPU has of an answer, all at once and not line by line.
fn fetch_answer(slot: &Slot) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for offset in [offset_of!(Slot, reply), offset_of!(Slot, calls), offset_of!(Slot, data)] {
        let line = core::ptr::from_ref(slot).cast::<i8>().wrapping_byte_add(offset);
        // SAFETY: a hint about memory of the slot.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
}

/// Waits until the last request is answered.
pub(crate) fn wait(slot: &Slot) {
    spin(slot, slot.seq.load(Relaxed));
    fetch_answer(slot);
    loop {
        let seq = slot.seq.load(Relaxed);
        let done = slot.turn.done.load(Acquire);
        if done == seq {
            return;
        }
        doorbell::ring(slot, done);
    }
}

/// Does what the sentry answers.
fn answer(frame: *mut Ucontext, slot: &'static Slot) -> ! {
    loop {
        wait(slot);
        let reply = slot.reply.load(Relaxed);
        acted(frame, slot, act(frame, slot, reply));
    }
}

/// Goes back to the application or reports, as [`act`] says.
fn acted(frame: *mut Ucontext, slot: &'static Slot, kind: u32) {
    match kind {
        // SAFETY: the frame is complete, and the caller keeps nothing that must survive.
        0 => unsafe { entry::stub_enter_app(frame, slot) },
        BORN => {}
        kind => post(slot, kind),
    }
}

/// What [`act`] returns in a forked child: the reply to wait for is that of the birth.
const BORN: u32 = u32::MAX;

/// Carries out one reply. Returns what to report, or zero to go back to the application.
fn act(frame: *mut Ucontext, slot: &'static Slot, reply: u32) -> u32 {
    if let Err(kind) = make_calls(slot) {
        return kind;
    }
    if reply & REPLY_FORK != 0 {
        let token = slot.birth_token.load(Relaxed);
        let result = doorbell::fork(slot.birth_channel.load(Relaxed));
        if result == 0 {
            // Makes the child a process of its own.
            map_region(doorbell::born(token));
            return BORN;
        }
        if !report_birth(slot, result) {
            return KIND_CALL_FAILED;
        }
    }
    if reply & REPLY_THREAD != 0 {
        let index = slot.birth_index.load(Relaxed);
        let result = make_thread(frame, index, reply & REPLY_MAP_STACK != 0);
        if !report_birth(slot, result) {
            return KIND_CALL_FAILED;
        }
    }
    if reply & REPLY_EXIT_GROUP != 0 {
        host::exit_group(0);
    }
    if reply & REPLY_EXIT != 0 {
        entry::exit();
    }
    if reply & REPLY_SLEEP != 0 {
        loop {
            let done = slot.turn.done.load(Relaxed);
            host::futex_wait(core::ptr::from_ref(&slot.turn.done).addr() as u64, done);
        }
    }
    // SAFETY: the frame is this thread's, and no other reference to it is alive.
    let context = unsafe { &mut *frame };
    // In this order: where a signal is pending when a handler returns, the state that the next
    // handler's frame saves is the one that the last frame restores.
    if reply & REPLY_XRESTORE != 0 {
        context.fpstate = slot.xrestore_addr.load(Relaxed);
    }
    if reply & REPLY_XSAVE != 0 {
        let n_more = slot.n_xsave_more.load(Relaxed) as usize;
        let more = slot.xsave_more.iter().take(n_more);
        for addr in core::iter::once(&slot.xsave_addr).chain(more) {
            if !save_xstate(context, addr.load(Relaxed)) {
                return fail(slot, EFAULT);
            }
        }
    }
    if reply & REPLY_XLOAD != 0 && !load_xstate(context, slot) {
        return fail(slot, EFAULT);
    }
    if reply & REPLY_REGS != 0 {
        context.load(slot);
    } else if reply & REPLY_RET != 0 {
        context.gregs[G_RAX] = slot.ret.load(Relaxed);
    }
    if reply & REPLY_RESUME != 0 { 0 } else { KIND_CALLS_DONE }
}

/// Records the result of a clone; returns whether it succeeded.
fn report_birth(slot: &Slot, result: i64) -> bool {
    slot.birth.store((result as i32).cast_unsigned(), Relaxed);
    if result < 0 {
        fail(slot, result);
    }
    result >= 0
}

/// Appends an error to the results.
fn fail(slot: &Slot, result: i64) -> u32 {
    let n = slot.n_results.load(Relaxed);
    if let Some(call) = slot.calls.0.get(n as usize) {
        call.result.store(result.cast_unsigned(), Relaxed);
    }
    slot.n_results.store(n.wrapping_add(1), Relaxed);
    KIND_CALL_FAILED
}

/// Makes the host calls of a reply.
pub(crate) fn make_calls(slot: &Slot) -> Result<(), u32> {
    doorbell::take_fds(slot);
    let n = slot.n_calls.load(Relaxed) as usize;
    if n == 0 {
        slot.n_results.renew(0);
        return Ok(());
    }
    let mut broken = false;
    for (i, call) in slot.calls.0.iter().take(n.min(MAX_CALLS)).enumerate() {
        let flags = call.flags.load(Relaxed);
        if broken && flags & CALL_CHAINED != 0 {
            continue;
        }
        let args = [0, 1, 2, 3, 4, 5].map(|a: usize| call.args[a].load(Relaxed));
        let result = match call.nr.load(Relaxed) {
            CALL_ATOMIC_UPDATE => atomic_update(args),
            CALL_COMPARE_EXCHANGE => {
                let [word, old, new, ..] = args;
                // SAFETY: the routine survives any address.
                word_result(unsafe { entry::stub_cmpxchg(word, old as u32, new as u32) })
            }
            // SAFETY: as above.
            CALL_STORE => word_result(unsafe { entry::stub_store(args[0], args[1], args[2]) }),
            CALL_COPY_OUT => copy_out(slot, args),
            CALL_REFUSED => EINVAL,
            // SAFETY: the sentry names no memory of the stub's.
            nr => unsafe { host::syscall6(u64::from(nr), args) },
        };
        call.result.renew(result.cast_unsigned());
        slot.n_results.renew(i as u32 + 1);
        if (-4095..0).contains(&result) {
            if flags & CALL_QUIET == 0 {
                return Err(KIND_CALL_FAILED);
            }
            broken |= flags & CALL_CHAINED != 0;
        } else if flags & CALL_WHOLE != 0 && result.cast_unsigned() != args[2] {
            return Err(KIND_CALL_FAILED);
        }
    }
    Ok(())
}

/// Copies from the slot's data to the application.
fn copy_out(slot: &Slot, [addr, offset, len, ..]: [u64; 6]) -> i64 {
    if offset.saturating_add(len) > DATA_LEN as u64 {
        return EINVAL;
    }
    let from = slot.data.as_ptr().addr() as u64 + offset;
    // SAFETY: the routine survives any address.
    if unsafe { entry::stub_copy(addr, from, len) } == 0 { 0 } else { EFAULT }
}

fn word_result(raw: u64) -> i64 {
    if raw == u64::MAX { EFAULT } else { raw as i64 }
}

fn atomic_update([addr, and, xor, add, ..]: [u64; 6]) -> i64 {
    loop {
        // SAFETY: the routine survives any address.
        let old = unsafe { entry::stub_load(addr) };
        if old == u64::MAX {
            return EFAULT;
        }
        let old = old as u32;
        let new =
            if add != 0 { old.wrapping_add(xor as u32) } else { (old & and as u32) ^ xor as u32 };
        // SAFETY: as above.
        let seen = unsafe { entry::stub_cmpxchg(addr, old, new) };
        if seen == u64::MAX {
            return EFAULT;
        }
        if seen as u32 == old {
            return i64::from(old);
        }
    }
}

/// Returns how many bytes of extended state lie at `fpstate`, the trailing magic included, or
/// `None` where that cannot be read.
fn xstate_len(fpstate: u64) -> Option<u64> {
    let mut sw = [0u32; 2];
    let to = sw.as_mut_ptr().addr() as u64;
    // SAFETY: the destination is a local of that size; the routine survives any source.
    if unsafe { entry::stub_copy(to, fpstate.wrapping_add(SW_BYTES), 8) } != 0 {
        return None;
    }
    // SAFETY: the array has been written by assembly that the compiler does not see.
    let [magic, len] = unsafe { core::ptr::read_volatile(&raw const sw) };
    if magic == frame::FP_XSTATE_MAGIC1 {
        Some(u64::from(len).min(XSTATE_MAX))
    } else {
        Some(FXSAVE_LEN)
    }
}

/// Copies the frame's extended state to the application.
fn save_xstate(context: &Ucontext, to: u64) -> bool {
    let Some(len) = xstate_len(context.fpstate) else { return false };
    // SAFETY: the routine survives any address.
    unsafe { entry::stub_copy(to, context.fpstate, len) == 0 }
}

/// Copies the extended state of the slot's data to the frame, where that has as much room for it.
fn load_xstate(context: &Ucontext, slot: &Slot) -> bool {
    let len = slot.xrestore_addr.load(Relaxed);
    let from = slot.data.as_ptr().addr() as u64;
    if len > DATA_LEN as u64 || xstate_len(context.fpstate) != Some(len) {
        return false;
    }
    // SAFETY: the routine survives any address.
    unsafe { entry::stub_copy(context.fpstate, from, len) == 0 }
}

/// Makes a thread with a copy of this one's frame on a new stack.
fn make_thread(frame: *const Ucontext, index: u32, map: bool) -> i64 {
    if index >= layout::MAX_THREADS {
        return EINVAL;
    }
    if map {
        let mapped = map_stack(index);
        if mapped < 0 {
            return mapped;
        }
    }
    // SAFETY: the frame is this thread's.
    let mut context = unsafe { *frame };
    context.stack = frame::alternate_stack(index);
    let mut top = layout::stack_addr(index) + layout::STACK_TOP;
    if context.fpstate != 0 {
        let Some(len) = xstate_len(context.fpstate) else { return EFAULT };
        top = (top - len) & !63;
        // SAFETY: the destination is the new stack, larger than any state.
        if unsafe { entry::stub_copy(top, context.fpstate, len) } != 0 {
            return EFAULT;
        }
        context.fpstate = top;
    }
    top = (top - size_of::<Ucontext>() as u64) & !63;
    let copy = core::ptr::with_exposed_provenance_mut::<Ucontext>(top as usize);
    let in_use = layout::slot_addr(index) + offset_of!(Slot, in_use) as u64;
    // SAFETY: as above.
    unsafe {
        copy.write(context);
        entry::stub_clone_thread(top, copy, in_use)
    }
}

/// Maps the slots of this process from `fd` and closes it.
pub(crate) fn map_region(fd: u64) {
    let mapped = host::mmap(layout::SLOT_BASE, layout::REGION_LEN, READ_WRITE, SHARED_FIXED, fd, 0);
    if mapped < 0 {
        host::exit_group(122);
    }
    host::madvise(layout::SLOT_BASE, layout::REGION_LEN, MADV_DONTFORK);
    host::close(fd);
}

/// Maps the stack of the thread `index`.
pub(crate) fn map_stack(index: u32) -> i64 {
    let base = layout::stack_addr(index) + layout::STACK_GUARD;
    let len = layout::STACK_STRIDE - layout::STACK_GUARD;
    host::mmap(base, len, READ_WRITE, PRIVATE_FIXED_ANON, u64::MAX, 0)
}
