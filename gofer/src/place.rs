//! [`Place`]: the CPU on which the gofer runs.
//!
//! Whoever asks waits for the answer, so that nothing is gained by another CPU; but to wake one that is idle costs more than
//! most answers. So the gofer goes where it is asked from, once it has been asked from there several times in a row.

use rustix::thread::{CpuSet, sched_setaffinity};

/// How often in a row.
const ENOUGH: u32 = 3;

/// The CPU on which the gofer runs, and where the last requests came from.
#[derive(Debug, Default)]
pub(crate) struct Place {
    here: Option<u32>,
    last: Option<u32>,
    n_in_a_row: u32,
}

impl Place {
    /// Is told on which CPU the sender of a request waits.
    pub(crate) fn follow(&mut self, cpu: Option<u32>) {
        if let Some(cpu) = self.next(cpu)
            && let Some(index) = usize::try_from(cpu).ok().filter(|index| *index < CpuSet::MAX_CPU)
        {
            let mut set = CpuSet::new();
            set.set(index);
            // Where that is not permitted, nothing is lost but time.
            let _ = sched_setaffinity(None, &set);
        }
    }

    /// Returns where to go.
    fn next(&mut self, cpu: Option<u32>) -> Option<u32> {
        let cpu = cpu.filter(|cpu| self.here != Some(*cpu));
        self.n_in_a_row = if cpu == self.last { self.n_in_a_row.saturating_add(1) } else { 1 };
        self.last = cpu;
        if cpu.is_some() && self.n_in_a_row >= ENOUGH {
            self.here = cpu;
            return cpu;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn it_goes_where_several_requests_in_a_row_come_from() {
        let mut place = Place::default();
        let mut went = Vec::new();
        for cpu in [1, 1, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0] {
            went.push(place.next(Some(cpu)));
        }
        let expected = [2, 11].map(|index| (index, if index == 2 { 1 } else { 0 }));
        for (index, cpu) in went.iter().enumerate().filter_map(|(i, cpu)| cpu.map(|cpu| (i, cpu))) {
            assert!(expected.contains(&(index, cpu)), "{went:?}");
        }
        assert_eq!(went.iter().flatten().count(), 2);
        assert_eq!(place.next(None), None);
        place.follow(Some(u32::MAX));
    }
}
