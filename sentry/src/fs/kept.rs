//! The content that an open generated file shows: one state for several reads.

use std::sync::atomic::{AtomicUsize, Ordering};

use syscalls::SysResult;

use crate::sync::Mutex;
use crate::vfs::IoSink;

/// The content of an open file, for the next read. What all files keep together is limited: beyond
/// that a text is made anew for each read.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Option<Vec<u8>>>);

/// How many bytes are kept.
static KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The most bytes that are kept.
const KEPT_MAX: usize = 32 << 20;

impl Kept {
    /// Reads from the content that is kept, or else from what `make` gives.
    ///
    /// # Errors
    /// Those of `make` and of the sink.
    pub(crate) fn read(
        &self,
        dst: &mut dyn IoSink,
        offset: u64,
        make: impl FnOnce() -> SysResult<Vec<u8>>,
    ) -> SysResult<usize> {
        let content = match self.take() {
            Some(content) if offset != 0 => content,
            _ => make()?,
        };
        let result = read_from(&content, dst, offset);
        self.keep(content);
        result
    }

    fn take(&self) -> Option<Vec<u8>> {
        let content = self.0.lock().take();
        let n_bytes = content.as_ref().map_or(0, Vec::capacity);
        KEPT_BYTES.fetch_sub(n_bytes, Ordering::Relaxed);
        content
    }

    fn keep(&self, content: Vec<u8>) {
        let n_bytes = content.capacity();
        if KEPT_BYTES.fetch_add(n_bytes, Ordering::Relaxed).saturating_add(n_bytes) > KEPT_MAX {
            KEPT_BYTES.fetch_sub(n_bytes, Ordering::Relaxed);
            return;
        }
        let other = self.0.lock().replace(content);
        KEPT_BYTES.fetch_sub(other.map_or(0, |other| other.capacity()), Ordering::Relaxed);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.take();
    }
}

/// Reads from generated content.
///
/// # Errors
/// Those of the sink.
fn read_from(content: &[u8], dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
    let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..));
    let rest = rest.unwrap_or_default();
    let n = rest.len().min(dst.remaining());
    if n == 0 { Ok(0) } else { dst.put(rest.get(..n).unwrap_or_default()) }
}
