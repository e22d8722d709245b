//! The auxiliary vector of the sentry's own process: what the host says of the machine.
#![expect(unsafe_code, reason = "the C library's view of the process's start")]

/// The hardware capabilities that application code may use as well as the sentry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `AT_HWCAP`
    Hwcap,
    /// `AT_HWCAP2`
    Hwcap2,
    /// `AT_MINSIGSTKSZ`
    MinSigStackSize,
    /// `AT_RSEQ_FEATURE_SIZE`
    RseqFeatureSize,
    /// `AT_RSEQ_ALIGN`
    RseqAlign,
}

/// Returns an entry, or `None` where the host gives none.
pub fn get(entry: Entry) -> Option<u64> {
    let kind: libc::c_ulong = match entry {
        Entry::Hwcap => 16,
        Entry::Hwcap2 => 26,
        Entry::RseqFeatureSize => 27,
        Entry::RseqAlign => 28,
        Entry::MinSigStackSize => 51,
    };
    // SAFETY: getauxval(3) only reads what the host put on the initial stack.
    let value = unsafe { libc::getauxval(kind) };
    (value != 0).then_some(value)
}
