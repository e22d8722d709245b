//! Calls and flags that are not served: counted, and logged once each with name and arguments.

use std::collections::BTreeMap;

use crate::sync::Mutex;

static COUNTS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// The number of distinct entries kept, so that a guest cannot make the table grow without bound.
const LIMIT: usize = 4096;

/// Counts one use of an unsupported feature; the first use is logged with its arguments.
pub fn note(what: &str, args: &[u64; 6]) {
    let mut counts = COUNTS.lock();
    if let Some(count) = counts.get_mut(what) {
        *count = count.saturating_add(1);
        return;
    }
    if counts.len() < LIMIT {
        counts.insert(what.to_owned(), 1);
        drop(counts);
        crate::log::warn(format_args!(
            "unsupported: {what}({:#x}, {:#x}, {:#x}, {:#x}, {:#x}, {:#x})",
            args[0], args[1], args[2], args[3], args[4], args[5]
        ));
    }
}

/// Returns the counts so far, in the order of the names.
pub fn counts() -> Vec<(String, u64)> {
    COUNTS.lock().iter().map(|(what, count)| (what.clone(), *count)).collect()
}
