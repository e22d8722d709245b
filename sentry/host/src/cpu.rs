//! Host calls of threads that wait for another process: staying on the CPU where they are.
//!
//! Who answers wakes the waiting thread on any CPU that is idle, and an idle CPU of a virtual machine takes long to wake: many
//! times what the answer costs. On one CPU the two processes take turns.
//!
//! # Safety
//! The host calls here are given local structures of the length that they are told.
#![expect(unsafe_code, reason = "host calls with structures")]

use std::mem::size_of;

use crate::Rule;

pub(crate) const RULES: &[Rule] = &[
    // The calling thread only. What sets it is in the list of `schedule`.
    Rule::when(libc::SYS_sched_getaffinity, &[(0, !0, 0)]),
    // Where there is no vDSO.
    Rule::any(libc::SYS_getcpu),
];

/// A thread that does not leave its CPU until this is dropped.
#[derive(Debug)]
pub struct Stay {
    /// The CPUs on which it could be before, where that were others as well.
    before: Option<Box<libc::cpu_set_t>>,
    cpu: Option<u32>,
}

/// Keeps the calling thread on the CPU on which it is.
pub fn stay() -> Stay {
    // SAFETY: all zeroes are the empty set.
    let mut before: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is live and of the given length.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut before) };
    // SAFETY: takes nothing.
    let cpu = unsafe { libc::sched_getcpu() };
    let (0, Ok(cpu)) = (got, u32::try_from(cpu)) else { return Stay { before: None, cpu: None } };
    // SAFETY: reads the set.
    let n_cpus = unsafe { libc::CPU_COUNT(&before) };
    if n_cpus <= 1 {
        return Stay { before: None, cpu: Some(cpu) };
    }
    // SAFETY: all zeroes are the empty set.
    let mut only: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let index = usize::try_from(cpu).unwrap_or(usize::MAX);
    if index >= size_of::<libc::cpu_set_t>() * 8 {
        return Stay { before: None, cpu: None };
    }
    // SAFETY: the number is within the set.
    unsafe { libc::CPU_SET(index, &mut only) };
    let before = set_affinity(&only).then(|| Box::new(before));
    Stay { before, cpu: Some(cpu) }
}

impl Stay {
    /// Returns the CPU, where it is known.
    pub const fn cpu(&self) -> Option<u32> {
        self.cpu
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            set_affinity(before);
        }
    }
}

fn set_affinity(set: &libc::cpu_set_t) -> bool {
    // SAFETY: the set is live and of the given length.
    unsafe {
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), std::ptr::from_ref(set)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::stay;

    #[test]
    fn a_thread_stays_and_may_go_again() {
        // SAFETY: takes nothing.
        let here = || u32::try_from(unsafe { libc::sched_getcpu() }).ok();
        let outer = stay();
        for _ in 0..100 {
            std::thread::yield_now();
            assert_eq!(here(), outer.cpu());
        }
        assert!(stay().before.is_none());
        drop(outer);
        let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        assert_eq!(stay().before.is_some(), several);
    }
}
