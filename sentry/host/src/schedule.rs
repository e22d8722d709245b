//! How the host schedules the threads that run application code: on which CPUs, and after whom.
//!
//! A sandbox gets nothing by it that it has not been given: the CPUs are among those of this process, no thread goes
//! before others than this process does, and the host refuses whatever else is asked for, because this process has no
//! capability and may touch its own user's threads only.
//!
//! # Safety
//! The host calls here are given local structures of the length that they are told.
#![expect(unsafe_code, reason = "host calls with structures")]

use std::mem::size_of;
use std::sync::OnceLock;

use crate::Rule;

pub(crate) const RULES: &[Rule] = &[
    // `apply`, and `cpu::stay` for the calling thread.
    Rule::any(libc::SYS_sched_setaffinity),
    Rule::any(libc::SYS_sched_setattr),
];

/// The sorts of threads that the host may be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// `SCHED_NORMAL`.
    #[default]
    Normal,
    /// `SCHED_BATCH`.
    Batch,
    /// `SCHED_IDLE`.
    Idle,
}

/// How a thread is to be scheduled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Among which threads.
    pub class: Class,
    /// The nice value. One below this process's own means that.
    pub nice: i32,
    /// A little-endian mask of CPUs, counted among those that this process may use; empty: all of them.
    pub cpus: Vec<u8>,
}

/// What this process was given.
#[derive(Debug)]
struct Own {
    nice: i32,
    cpus: Vec<usize>,
}

static OWN: OnceLock<Own> = OnceLock::new();

/// Remembers what this process was given. Before the filter is installed; nothing is applied without.
pub fn prepare() {
    // SAFETY: all zeroes are the empty set; the size is that of the set.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        set
    };
    // SAFETY: the number is within the set.
    let is_set = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    let cpus = (0..size_of::<libc::cpu_set_t>() * 8).filter(is_set).collect();
    // SAFETY: integers. The call itself, unlike the C library's function, returns 20 less the value.
    let answer = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) };
    let nice = i32::try_from(answer).ok().filter(|answer| *answer > 0).map_or(0, |n| 20 - n);
    let _ = OWN.set(Own { nice, cpus });
}

/// Schedules a thread of this process's user, as far as the host permits: it may keep a thread that has once been
/// given a higher nice value at that.
pub fn apply(tid: i32, schedule: &Schedule) {
    let Some(own) = OWN.get().filter(|_| tid > 0) else { return };
    let policy = match schedule.class {
        Class::Normal => libc::SCHED_OTHER,
        Class::Batch => libc::SCHED_BATCH,
        Class::Idle => libc::SCHED_IDLE,
    };
    let nice = schedule.nice.clamp(own.nice, 19);
    // `struct sched_attr` of the first version: size and policy, flags, nice value and priority, three times.
    let mut attr = [0_u8; 48];
    attr[0] = 48;
    attr[4..8].copy_from_slice(&policy.to_ne_bytes());
    attr[16..20].copy_from_slice(&nice.to_ne_bytes());
    // SAFETY: the structure is live and says its size.
    unsafe { libc::syscall(libc::SYS_sched_setattr, tid, attr.as_ptr(), 0) };
    let set = own.set(&schedule.cpus);
    // SAFETY: the set is live and of the given length.
    unsafe { libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), &raw const set) };
}

/// Returns the host's number of the first CPU of a mask; zero where nothing is known.
pub fn first_cpu(mask: &[u8]) -> u32 {
    let first = OWN.get().and_then(|own| own.wanted(mask).next());
    first.and_then(|cpu| u32::try_from(cpu).ok()).unwrap_or(0)
}

impl Own {
    /// Returns the host's CPUs that a mask means.
    fn wanted<'a>(&'a self, mask: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let is_wanted = move |index: usize| {
            mask.is_empty() || mask.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 != 0)
        };
        self.cpus
            .iter()
            .enumerate()
            .filter(move |(index, _)| is_wanted(*index))
            .map(|(_, cpu)| *cpu)
    }

    /// Returns the host's CPUs that a mask means; all of them where that would be none.
    fn set(&self, mask: &[u8]) -> libc::cpu_set_t {
        let mask = if self.wanted(mask).next().is_some() { mask } else { &[] };
        // SAFETY: all zeroes are the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        for cpu in self.wanted(mask) {
            // SAFETY: the number comes out of such a set.
            unsafe { libc::CPU_SET(cpu, &mut set) };
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Own, Schedule, apply, prepare};

    #[test]
    fn masks_count_the_cpus_that_there_are() {
        let own = Own { nice: 0, cpus: vec![2, 5, 70] };
        let cpus = |mask: &[u8]| {
            let set = own.set(mask);
            // SAFETY: the numbers are within the set.
            (0..128).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect::<Vec<_>>()
        };
        assert_eq!(cpus(&[]), [2, 5, 70]);
        assert_eq!(cpus(&[0b110, 0]), [5, 70]);
        assert_eq!(cpus(&[1]), [2]);
        assert_eq!(cpus(&[0, 0xff]), [2, 5, 70]);
    }

    #[test]
    fn a_thread_is_where_and_what_it_is_asked_to_be() {
        prepare();
        // SAFETY: takes nothing.
        let tid = unsafe { libc::gettid() };
        apply(tid, &Schedule { class: Class::Batch, nice: 19, cpus: vec![1] });
        // SAFETY: integers. The calls themselves: not every C library makes the first.
        let (policy, nice) = unsafe {
            (
                libc::syscall(libc::SYS_sched_getscheduler, 0),
                libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0),
            )
        };
        assert_eq!((policy, nice), (libc::c_long::from(libc::SCHED_BATCH), 1));
        assert_eq!(std::thread::available_parallelism().map(std::num::NonZero::get).ok(), Some(1));
    }
}
