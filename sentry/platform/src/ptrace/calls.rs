//! Host calls made on behalf of the sentry by stopped contexts.

use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult};

use super::space::Space;
use super::stub::{self, Piece};
use super::tracer::{Tracer, user_regs};
use crate::{HostCall, HostCallResults, USER_ADDRESS_LIMIT};

const MAX_MINCORE_PAGES: u64 = 4096;

/// The most that one call makes present: every other context waits meanwhile, and nobody can end it.
const MAX_PRESENT: u64 = 256 << 20;

/// Turns the bits of a C `int` into a register.
fn int(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

/// Checks that a range lies in the application's part. The sentry has chosen or checked it; this
/// is the last line that keeps the stub's own pages out of its reach.
fn check_range(addr: u64, len: u64) -> SysResult<()> {
    match addr.checked_add(len) {
        Some(end) if end <= USER_ADDRESS_LIMIT => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// Makes one call in the stopped thread `tid`, appending a `Mincore`'s bytes to `data`.
fn make(
    tracer: &Tracer,
    tid: i32,
    space: &Space,
    call: &HostCall,
    data: &mut Vec<u8>,
) -> SysResult<u64> {
    let host = |number, args| tracer.host_call(tid, number, args);
    match *call {
        HostCall::Mmap { addr, len, prot, flags, ref file, offset } => {
            check_range(addr, len)?;
            let is_too_much = flags & libc::MAP_POPULATE != 0 && len > MAX_PRESENT;
            if is_too_much {
                let flags = flags & !libc::MAP_POPULATE;
                let call = HostCall::Mmap { addr, len, prot, flags, file: file.clone(), offset };
                let start = make(tracer, tid, space, &call, data)?;
                // DEVIATION: beyond this much, pages come when they are used.
                let advice = if prot & libc::PROT_WRITE != 0 {
                    libc::MADV_POPULATE_WRITE
                } else {
                    libc::MADV_POPULATE_READ
                };
                // As with the flag, what cannot be made present is no error.
                let _ = host(libc::SYS_madvise, [addr, MAX_PRESENT, int(advice), 0, 0, 0]);
                return Ok(start);
            }
            let flags = int(flags | libc::MAP_FIXED);
            let Some(file) = file else {
                return host(libc::SYS_mmap, [addr, len, int(prot), flags, u64::MAX, offset]);
            };
            tracer.send_file(tid, space, file)?;
            let fd = stub::FILE_FD;
            let result = host(libc::SYS_mmap, [addr, len, int(prot), flags, fd, offset]);
            // Fails only where the thread is gone, and then so is the descriptor.
            let _ = host(libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
            result
        }
        HostCall::Munmap { addr, len } => {
            check_range(addr, len)?;
            host(libc::SYS_munmap, [addr, len, 0, 0, 0, 0])
        }
        HostCall::Mprotect { addr, len, prot } => {
            check_range(addr, len)?;
            host(libc::SYS_mprotect, [addr, len, int(prot), 0, 0, 0])
        }
        HostCall::Mremap { addr, old_len, new_len, new_addr, flags } => {
            check_range(addr, old_len)?;
            check_range(new_addr, new_len)?;
            let moves = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let flags = if new_addr == addr { flags } else { flags | moves };
            host(libc::SYS_mremap, [addr, old_len, new_len, int(flags), new_addr, 0])
        }
        HostCall::Madvise { addr, len, advice } => {
            check_range(addr, len)?;
            let is_bounded = matches!(advice, libc::MADV_POPULATE_READ | libc::MADV_POPULATE_WRITE);
            let len = if is_bounded { len.min(MAX_PRESENT) } else { len };
            host(libc::SYS_madvise, [addr, len, int(advice), 0, 0, 0])
        }
        HostCall::Msync { addr, len, flags } => {
            check_range(addr, len)?;
            host(libc::SYS_msync, [addr, len, int(flags), 0, 0, 0])
        }
        HostCall::Pread { .. } | HostCall::Pwrite { .. } => Err(Errno::ENOSYS),
        HostCall::Mincore { addr, len } => {
            check_range(addr, len)?;
            let pages = len.div_ceil(4096);
            if pages > MAX_MINCORE_PAGES {
                return Err(Errno::EINVAL);
            }
            let result = host(libc::SYS_mincore, [addr, len, stub::BUFFER, 0, 0, 0])?;
            let start = data.len();
            data.resize(start + usize::try_from(pages).map_err(|_| Errno::EINVAL)?, 0);
            let bytes = data.get_mut(start..).unwrap_or_default();
            if space.read_any(stub::BUFFER, bytes)? != bytes.len() {
                return Err(Errno::EFAULT);
            }
            Ok(result)
        }
        // This platform lends nothing.
        HostCall::MapStream { .. }
        | HostCall::KeepStream { .. }
        | HostCall::CloseStream { .. }
        | HostCall::HoldFile { .. } => Err(Errno::EINVAL),
        HostCall::Membarrier { command } => {
            host(libc::SYS_membarrier, [command.into(), 0, 0, 0, 0, 0])
        }
        HostCall::AtomicUpdate { addr, and, xor, add } => {
            check_range(addr, 4)?;
            let regs = Regs {
                rdi: addr,
                rsi: and.into(),
                rdx: xor.into(),
                rcx: add.into(),
                ..user_regs()
            };
            tracer.run_piece(tid, Piece::Update, &regs).map(|old| old & 0xffff_ffff)
        }
        HostCall::CompareExchange { addr, old, new } => {
            check_range(addr, 4)?;
            let regs = Regs { rdi: addr, rsi: old.into(), rdx: new.into(), ..user_regs() };
            tracer.run_piece(tid, Piece::Exchange, &regs).map(|old| old & 0xffff_ffff)
        }
        HostCall::Rseq { addr, len, flags, signature } => {
            check_range(addr, len.into())?;
            host(libc::SYS_rseq, [addr, len.into(), int(flags), signature.into(), 0, 0])
        }
    }
}

/// Makes calls in order until one fails.
pub(super) fn run(tracer: &Tracer, tid: i32, space: &Space, calls: &[HostCall]) -> HostCallResults {
    let mut results = HostCallResults::default();
    for call in calls {
        let value = make(tracer, tid, space, call, &mut results.data);
        results.values.push(value);
        if value.is_err() {
            break;
        }
    }
    results
}
