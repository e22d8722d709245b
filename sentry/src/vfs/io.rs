//! Where a read puts its data and where a write takes it from: guest memory, or memory of ours.

use sentry_host::window::Part;
use syscalls::SysResult;

/// A destination of data with a limited size.
pub trait IoSink {
    /// Returns how many bytes still fit.
    fn remaining(&self) -> usize;

    /// Appends `data`, at most `remaining` bytes of it; returns how many were taken, which is
    /// fewer only where the destination faulted after some.
    ///
    /// # Errors
    /// `EFAULT` where nothing could be written.
    fn put(&mut self, data: &[u8]) -> SysResult<usize>;

    /// Appends what `src` has, where the host's kernel can copy it without a copy of ours between;
    /// `None` where it cannot, and nothing has happened. Otherwise as `put`.
    fn put_part(&mut self, _src: &Part<'_>) -> Option<usize> {
        None
    }

    /// Lets `fill` put at most `len` bytes where it is told, which may reach their destination later;
    /// `None` where this cannot be, and nothing has happened. Otherwise as `put`, with what `fill` returns.
    fn fill(
        &mut self,
        _len: usize,
        _fill: &mut dyn FnMut(&Part<'_>) -> SysResult<usize>,
    ) -> Option<SysResult<usize>> {
        None
    }

    /// Appends `n` zero bytes.
    ///
    /// # Errors
    /// As `put`.
    fn put_zeros(&mut self, n: usize) -> SysResult<usize> {
        // More than contexts keep back: it is copied once.
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut done = 0;
        while done < n {
            let chunk = (n - done).min(ZEROS.len());
            let Some(zeros) = ZEROS.get(..chunk) else { break };
            match self.put(zeros) {
                Ok(taken) => {
                    done += taken;
                    if taken < chunk {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

/// A source of data with a limited size.
pub trait IoSource {
    /// Returns how many bytes are left.
    fn remaining(&self) -> usize;

    /// Takes up to `dst.len()` bytes; returns how many, fewer only at the end or where the source
    /// faulted after some.
    ///
    /// # Errors
    /// `EFAULT` where nothing could be read.
    fn get(&mut self, dst: &mut [u8]) -> SysResult<usize>;

    /// Takes up to `dst.len()` bytes, where the host's kernel can copy them without a copy of ours
    /// between; `None` where it cannot, and nothing has happened. Otherwise as `get`.
    fn get_part(&mut self, _dst: &Part<'_>) -> Option<usize> {
        None
    }
}

/// A sink over a slice.
pub struct SliceSink<'a> {
    dst: &'a mut [u8],
    done: usize,
}

impl<'a> SliceSink<'a> {
    /// Creates a sink that fills `dst`.
    pub fn new(dst: &'a mut [u8]) -> Self {
        Self { dst, done: 0 }
    }

    /// Returns how many bytes have been put.
    pub fn done(&self) -> usize {
        self.done
    }
}

impl IoSink for SliceSink<'_> {
    fn remaining(&self) -> usize {
        self.dst.len() - self.done
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let n = data.len().min(self.remaining());
        if let (Some(to), Some(from)) = (self.dst.get_mut(self.done..self.done + n), data.get(..n))
        {
            to.copy_from_slice(from);
        }
        self.done += n;
        Ok(n)
    }
}

/// A sink that grows a vector up to a limit.
pub struct VecSink {
    /// What has been put.
    pub data: Vec<u8>,
    limit: usize,
}

impl VecSink {
    /// Creates an empty sink for at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { data: Vec::new(), limit }
    }
}

impl IoSink for VecSink {
    fn remaining(&self) -> usize {
        self.limit - self.data.len()
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let n = data.len().min(self.remaining());
        self.data.extend_from_slice(data.get(..n).unwrap_or(data));
        Ok(n)
    }
}

/// A sink that passes on at most so many bytes.
pub struct LimitedSink<'a> {
    dst: &'a mut dyn IoSink,
    left: usize,
}

impl<'a> LimitedSink<'a> {
    /// Creates a sink for the first `left` bytes of `dst`.
    pub fn new(dst: &'a mut dyn IoSink, left: usize) -> Self {
        Self { dst, left }
    }
}

impl IoSink for LimitedSink<'_> {
    fn remaining(&self) -> usize {
        self.dst.remaining().min(self.left)
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let n = self.dst.put(data.get(..self.left).unwrap_or(data))?;
        self.left -= n;
        Ok(n)
    }

    fn put_part(&mut self, src: &Part<'_>) -> Option<usize> {
        let n = self.dst.put_part(&src.cut(0, self.left))?;
        self.left -= n;
        Some(n)
    }

    fn fill(
        &mut self,
        len: usize,
        fill: &mut dyn FnMut(&Part<'_>) -> SysResult<usize>,
    ) -> Option<SysResult<usize>> {
        let result = self.dst.fill(len.min(self.left), fill)?;
        self.left -= result.unwrap_or(0);
        Some(result)
    }
}

/// A sink that leaves out the first so many bytes.
pub struct SkippingSink<'a> {
    dst: &'a mut dyn IoSink,
    left: usize,
}

impl<'a> SkippingSink<'a> {
    /// Creates a sink for what follows `left` bytes.
    pub fn new(dst: &'a mut dyn IoSink, left: usize) -> Self {
        Self { dst, left }
    }
}

impl IoSink for SkippingSink<'_> {
    fn remaining(&self) -> usize {
        self.dst.remaining().saturating_add(self.left)
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let skipped = data.len().min(self.left);
        self.left -= skipped;
        match data.get(skipped..) {
            None | Some([]) => Ok(skipped),
            Some(rest) => Ok(skipped + self.dst.put(rest)?),
        }
    }
}

/// A source over a slice.
pub struct SliceSource<'a>(&'a [u8]);

impl<'a> SliceSource<'a> {
    /// Creates a source of the bytes of `src`.
    pub fn new(src: &'a [u8]) -> Self {
        Self(src)
    }
}

impl IoSource for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn get(&mut self, dst: &mut [u8]) -> SysResult<usize> {
        let n = dst.len().min(self.0.len());
        let (head, tail) = self.0.split_at(n);
        if let Some(to) = dst.get_mut(..n) {
            to.copy_from_slice(head);
        }
        self.0 = tail;
        Ok(n)
    }
}
