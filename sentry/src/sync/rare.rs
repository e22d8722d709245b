//! A value that mostly is its default.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Mutex, MutexGuard};

/// A value that mostly is its default, which can be seen without the lock.
///
/// It is for what only the thread changes that works on a task at the time: the next one to work on it
/// sees all that this one has done. Others may look with [`Rare::lock`].
#[derive(Debug, Default)]
pub struct Rare<T> {
    /// Whether it may be another value than the default.
    is_set: AtomicBool,
    value: Mutex<T>,
}

impl<T: Default> Rare<T> {
    /// Returns whether it may be another value than the default.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Locks it, to be changed.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.is_set.store(true, Ordering::Relaxed);
        self.value.lock()
    }

    /// Makes it the default, and returns what it was.
    pub fn take(&self) -> T {
        if !self.is_set() {
            return T::default();
        }
        self.is_set.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.value.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::Rare;

    #[test]
    fn what_is_set_is_taken_once() {
        let rare = Rare::<Option<u32>>::default();
        assert_eq!(rare.take(), None);
        *rare.lock() = Some(7);
        assert!(rare.is_set());
        assert_eq!(rare.take(), Some(7));
        assert!(!rare.is_set());
        assert_eq!(rare.take(), None);
    }
}
