//! Resource limits: `getrlimit(2)`.

use syscalls::abi::resource;

/// No limit.
pub const INFINITY: u64 = u64::MAX;

/// The number of resources.
pub const N_LIMITS: usize = 16;

/// Soft and hard limit of every resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([(u64, u64); N_LIMITS]);

impl Default for Limits {
    fn default() -> Self {
        let mut limits = Self([(INFINITY, INFINITY); N_LIMITS]);
        limits.set(resource::RLIMIT_STACK, (8 << 20, INFINITY));
        limits.set(resource::RLIMIT_CORE, (0, INFINITY));
        limits.set(resource::RLIMIT_NPROC, (63_000, 63_000));
        limits.set(resource::RLIMIT_NOFILE, (1024, 1 << 20));
        limits.set(resource::RLIMIT_MEMLOCK, (8 << 20, 8 << 20));
        limits.set(resource::RLIMIT_SIGPENDING, (63_000, 63_000));
        limits.set(resource::RLIMIT_MSGQUEUE, (819_200, 819_200));
        limits.set(resource::RLIMIT_NICE, (0, 0));
        limits.set(resource::RLIMIT_RTPRIO, (0, 0));
        limits
    }
}

impl Limits {
    /// Returns soft and hard limit, or `None` for a resource that does not exist.
    pub fn get(&self, resource: u32) -> Option<(u64, u64)> {
        self.0.get(usize::try_from(resource).ok()?).copied()
    }

    /// Returns the soft limit; no limit for a resource that does not exist.
    pub fn soft(&self, resource: u32) -> u64 {
        self.get(resource).map_or(INFINITY, |(soft, _)| soft)
    }

    /// Sets both limits of a resource that exists.
    pub fn set(&mut self, resource: u32, limit: (u64, u64)) {
        if let Some(entry) = usize::try_from(resource).ok().and_then(|i| self.0.get_mut(i)) {
            *entry = limit;
        }
    }
}
