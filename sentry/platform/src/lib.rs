#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod lent;
pub mod ptrace;
pub mod systrap;
pub mod vdso;
mod xstate;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use sentry_host::schedule::Schedule;
use sentry_host::usage::{ProcessUsage, ThreadUsage};
use sentry_host::window::Part;
use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult, UserAddr};

use crate::lent::{FileToLend, Lending, LentMask};

/// The first address that application mappings may not reach on any platform of ours.
///
/// Everything from here up belongs to the stub and to what the host kernel puts at the top of an
/// address space (its stack, its vDSO), so the sentry never has to know where those lie.
pub const USER_ADDRESS_LIMIT: u64 = 0x7e00_0000_0000;

/// What stopped a context. It stays stopped until [`Context::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The application entered a system call. Number and arguments are in the registers
    /// ([`Context::syscall`] returns a copy of them).
    Syscall,
    /// The application raised a synchronous exception.
    Fault(Fault),
    /// The context stopped because of [`Context::interrupt`].
    Interrupted,
    /// The host calls given to [`Context::start_host_calls`] have been made; their results are in
    /// [`Context::host_call_results`].
    HostCallsDone,
    /// One of the host calls given to [`Context::resume`] failed, so the context has not gone
    /// back to the application. Calls after `index` were not made.
    HostCallFailed {
        /// Which call, counting from zero.
        index: usize,
        /// Why.
        errno: Errno,
    },
    /// The host thread or its process has ended. `signal` is the host signal that ended it, zero
    /// where it exited. The last event of a context; it is also what follows
    /// [`Context::exit`] and [`AddressSpace::kill`].
    Exited {
        /// The host signal number, or zero.
        signal: i32,
    },
}

/// A synchronous exception, as the host's `siginfo_t` and signal frame describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fault {
    /// SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP.
    pub signo: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
    /// The processor's exception number (`trapno` of the signal frame).
    pub trap_no: u64,
    /// The processor's error code (`err` of the signal frame).
    pub error_code: u64,
}

/// The owner of a context: the sentry's task. The platform reports every event here, on one of its
/// serving threads; at most one event per context is outstanding at a time, save `Exited`, which
/// may come at any moment.
///
/// The owner either calls [`Context::resume`] (or another call that lets the context go on) before
/// it returns, or keeps the context stopped and resumes it later from any thread.
pub trait ContextOwner: Send + Sync {
    /// Handles one event.
    fn on_event(self: Arc<Self>, event: Event);
}

/// A number and six arguments, copied once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyscallArgs {
    /// The call's number, not yet checked against the table.
    pub number: u64,
    /// The six arguments.
    pub args: [u64; 6],
}

/// A call that the stub makes in its own address space on behalf of the sentry. All addresses and
/// lengths were chosen or checked by the sentry; flags and protections are Linux's.
#[derive(Clone, Debug)]
pub enum HostCall {
    /// `mmap` at exactly `addr` (`MAP_FIXED` is added by the platform).
    Mmap {
        /// Where.
        addr: u64,
        /// How many bytes, a multiple of the page size.
        len: u64,
        /// `PROT_*`.
        prot: i32,
        /// `MAP_*` without `MAP_FIXED`.
        flags: i32,
        /// The mapped file. The descriptor itself says what may be done with it: one donated for
        /// a private or read-only mapping is open read-only. The platform keeps it cached in the
        /// stub process, keyed by the `Arc`'s address, for as long as it finds useful.
        file: Option<Arc<OwnedFd>>,
        /// The offset into the file.
        offset: u64,
    },
    /// `munmap`.
    Munmap {
        /// Where.
        addr: u64,
        /// How many bytes.
        len: u64,
    },
    /// `mprotect`.
    Mprotect {
        /// Where.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// `PROT_*`.
        prot: i32,
    },
    /// `mremap` with `MREMAP_MAYMOVE | MREMAP_FIXED` where `new_addr` differs, in place otherwise.
    Mremap {
        /// The old address.
        addr: u64,
        /// The old length.
        old_len: u64,
        /// The new length.
        new_len: u64,
        /// The new address.
        new_addr: u64,
        /// Further `MREMAP_*` flags (`MREMAP_DONTUNMAP`).
        flags: i32,
    },
    /// `madvise`.
    Madvise {
        /// Where.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// `MADV_*`.
        advice: i32,
    },
    /// `msync`.
    Msync {
        /// Where.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// `MS_*`.
        flags: i32,
    },
    /// `mincore` over at most 4,096 pages; one byte per page in the results' `data`.
    Mincore {
        /// Where.
        addr: u64,
        /// How many bytes.
        len: u64,
    },
    /// `pread64` into application memory, on platforms that make reads
    /// ([`Platform::makes_reads`]). The result is how much has been read.
    Pread {
        /// Where.
        addr: u64,
        /// How many bytes at most.
        len: u64,
        /// The file, open read-only; cached as for `Mmap`.
        file: Arc<OwnedFd>,
        /// The offset into the file.
        offset: u64,
        /// Whether less than `len` is a failure (`EIO`).
        whole: bool,
    },
    /// `pwrite64` from application memory, on platforms that make writes ([`Platform::makes_writes`]), and
    /// exactly this one, at most once. The first result is how much has been written, or why nothing has; that is
    /// no failure. `CloseStream` closes the file.
    Pwrite {
        /// From where.
        addr: u64,
        /// How many bytes at most.
        len: u64,
        /// The file, open only to be written, so that the application can do nothing else with it.
        file: Arc<OwnedFd>,
        /// The offset into the file.
        offset: u64,
    },
    /// An atomic read-modify-write of the 32-bit word at `addr`: it becomes
    /// `(old & and) ^ xor` or, with `add`, `old + xor`. The result is the old value.
    AtomicUpdate {
        /// An address that is a multiple of four.
        addr: u64,
        /// The mask that is applied first (`0` sets, `!0` keeps).
        and: u32,
        /// What is then xored or added.
        xor: u32,
        /// Whether to add instead of xor.
        add: bool,
    },
    /// An atomic compare-and-exchange of the 32-bit word at `addr`. The result is the old value.
    CompareExchange {
        /// An address that is a multiple of four.
        addr: u64,
        /// The expected value.
        old: u32,
        /// The value stored where the word holds `old`.
        new: u32,
    },
    /// Maps a stream ([`Streams::join`]) or a window ([`Streams::lend_file`]); no failure where that is not
    /// possible.
    MapStream {
        /// Which of the process's streams or windows.
        place: u64,
        /// Its memory.
        file: Arc<OwnedFd>,
    },
    /// Keeps what has been mapped so from the processes that this one forks.
    KeepStream {
        /// Which of the process's streams or windows.
        place: u64,
    },
    /// Closes the descriptor of what has been mapped so.
    CloseStream {
        /// Its memory.
        file: Arc<OwnedFd>,
    },
    /// Holds a file from now on, as for `Mmap`, until others are used more lately; no failure where that is not
    /// possible.
    HoldFile {
        /// The file, open read-only.
        file: Arc<OwnedFd>,
    },
    /// `membarrier` with one of the private commands, for all threads of the address space.
    Membarrier {
        /// `MEMBARRIER_CMD_*`, of those that concern the calling process only.
        command: u32,
    },
    /// Registers (`len` not zero) or unregisters the application's rseq area for this thread.
    Rseq {
        /// The address of `struct rseq`.
        addr: u64,
        /// Its length.
        len: u32,
        /// `RSEQ_FLAG_*`.
        flags: i32,
        /// The signature before abort handlers.
        signature: u32,
    },
}

/// What came of a list of host calls.
#[derive(Clone, Debug, Default)]
pub struct HostCallResults {
    /// The return value or error of each call, in order; shorter than the list where a call
    /// failed, whose error is then the last entry.
    pub values: Vec<SysResult<u64>>,
    /// The bytes of a `Mincore`.
    pub data: Vec<u8>,
}

/// The state of the application's guest signal frame that only the platform can move.
///
/// Sizes and features of the XSAVE area of this machine, without those that need permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XsaveLayout {
    /// Bytes of the XSAVE area in the standard format, without the trailing magic of a signal frame.
    pub size: u32,
    /// The features saved: bits of XCR0.
    pub features: u64,
}

/// A way to run application code and to regain control at its system calls.
pub trait Platform: Send + Sync {
    /// The name on the command line: `systrap`, `ptrace`.
    fn name(&self) -> &'static str;

    /// Creates an empty address space with one context, which is stopped and owned by `owner`.
    ///
    /// The fresh context takes [`Context::call_now`] and [`AddressSpace::write`] until its first
    /// [`Context::resume`].
    ///
    /// # Errors
    /// `EAGAIN` or `ENOMEM` where the host gives no further process.
    fn create(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>>;

    /// Starts a host process of which address spaces can be made besides the one that
    /// [`Platform::create`] makes them of. Possible at any time.
    ///
    /// # Errors
    /// As [`Platform::create`].
    fn nursery(&self) -> SysResult<Arc<dyn Nursery>>;

    /// Returns the image of the vDSO to be mapped into applications: a page-aligned ELF file whose
    /// code is position-independent and valid in every address space of this platform.
    fn vdso(&self) -> &[u8];

    /// Returns the XSAVE layout that guest signal frames use.
    fn xsave_layout(&self) -> XsaveLayout;

    /// Starts the threads without which nothing can be served; before [`Platform::serve`].
    ///
    /// # Errors
    /// `EAGAIN` where the host permits no further thread.
    fn start(&self) -> SysResult<()> {
        Ok(())
    }

    /// Returns whether contexts make [`HostCall::Pread`], which spares a large read one of its two
    /// copies.
    fn makes_reads(&self) -> bool {
        false
    }

    /// Returns whether contexts make [`HostCall::Pwrite`].
    fn makes_writes(&self) -> bool {
        false
    }

    /// Serves events until [`Platform::shutdown`]; called once, on a thread of its own that the
    /// platform may block as it likes. Further serving threads are the platform's business, made
    /// through `sentry-host`.
    fn serve(&self);

    /// Makes [`Platform::serve`] return, after killing every address space.
    fn shutdown(&self);

    /// Runs `work` soon on a serving thread. Owners use it to have a stopped context's work done
    /// where the platform wants it (ptrace: only its tracer thread may touch a context).
    /// Called from any thread, cheap, never blocks.
    fn submit(&self, work: Arc<dyn Work>);
}

/// A host process that only makes others: what it makes inherits its control groups and its
/// `oom_score_adj`, which somebody outside may change. Ends with its last reference.
pub trait Nursery: Send + Sync {
    /// As [`Platform::create`].
    ///
    /// # Errors
    /// As [`Platform::create`].
    fn create(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>>;

    /// Returns the number that the process has in the sentry's pid namespace, while it lives.
    fn host_pid(&self) -> Option<u32>;
}

/// A unit of work for a serving thread: the sentry's "this task is ready to go on".
pub trait Work: Send + Sync {
    /// Does the work.
    fn run(self: Arc<Self>);
}

/// A guest address space: one host process.
pub trait AddressSpace: Send + Sync {
    /// Reads application memory; returns how many bytes were readable from the start.
    ///
    /// # Errors
    /// `EFAULT` where the first byte is not readable, `ESRCH` where the process is gone.
    fn read(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<usize>;

    /// Writes application memory; returns how many bytes were writable from the start.
    ///
    /// # Errors
    /// `EFAULT` where the first byte is not writable, `ESRCH` where the process is gone.
    fn write(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize>;

    /// Reads application memory into a window, as `read` does, but from the process alone: what a
    /// context keeps for it must have been written ([`Context::sync_memory`]).
    ///
    /// # Errors
    /// `ENOSYS` where the platform cannot; as `read`.
    fn read_to(&self, _addr: UserAddr, _dst: &Part<'_>) -> SysResult<usize> {
        Err(Errno::ENOSYS)
    }

    /// Writes application memory from a window, as `write` does.
    ///
    /// # Errors
    /// As `read_to`.
    fn write_from(&self, _addr: UserAddr, _src: &Part<'_>) -> SysResult<usize> {
        Err(Errno::ENOSYS)
    }

    /// Says that one thread more (or less) waits for the private futex at `addr`. Who wakes it where
    /// nobody waits may not be told to the owner; so whoever waits says so before looking at the word.
    ///
    /// # Errors
    /// `ENOMEM`, where nobody may wait. Not for one less.
    fn count_futex_waiter(&self, addr: UserAddr, more: bool) -> SysResult<()> {
        let _ = (addr, more);
        Ok(())
    }

    /// Returns the streams that are lent to the process, on platforms that can lend some.
    fn streams(&self) -> Option<Arc<dyn Streams>> {
        None
    }

    /// Kills the host process. Every context in it ends with [`Event::Exited`]. Idempotent.
    fn kill(&self);

    /// Returns the number that the host process has in the sentry's pid namespace, while it lives.
    fn host_pid(&self) -> Option<u32>;

    /// Returns what the host process has used; zeroes where the host does not tell. Not cheap.
    fn usage(&self) -> ProcessUsage;

    /// Returns user and system time in nanoseconds that the host process has used, ended threads
    /// included. Goes on to tell it when the process is gone.
    fn cpu_time_ns(&self) -> (u64, u64);
}

/// Streams of bytes that are lent to an address space: its threads read and write them without an event,
/// as long as nobody takes them back.
pub trait Streams: Send + Sync {
    /// Makes what is told of descriptors ([`Streams::tell`]) that of the descriptor table `table`, whose
    /// threads are those with this [`Context::set_table`]; returns whether it is. It becomes that of
    /// another only after [`Streams::detach`].
    fn attach(&self, table: u64) -> bool;

    /// Forgets all descriptors, and whose they are.
    fn detach(&self);

    /// Lends a stream, where there is room for one.
    fn lend(self: Arc<Self>, kind: StreamKind) -> Option<Box<dyn LentStream>>;

    /// Creates a stream that can be lent to this process and another one at the same time.
    ///
    /// # Errors
    /// `EAGAIN` where there are many, those of `memfd_create(2)`.
    fn link(&self) -> SysResult<Arc<dyn LinkedStream>>;

    /// Lets the process have a linked stream, whose reading end it is to use, or its writing end. Of a
    /// counter one process is called the one that reads. Returns the calls by which it maps it; none where
    /// there is no room.
    fn join(&self, link: &Arc<dyn LinkedStream>, reads: bool) -> Vec<HostCall>;

    /// Lends a file, where there is room for one.
    fn lend_file(&self, file: &FileToLend<'_>) -> Lending;

    /// Lends a mask for the permissions of new files, which threads then change ([`Context::set_umask`]). `None`
    /// where one is lent already.
    fn lend_mask(&self, mask: u32) -> Option<Box<dyn LentMask>>;

    /// Says what the descriptor `fd` is an end of, where it is read from or written to.
    fn tell(&self, fd: i32, end: StreamEnd);

    /// Says that the descriptor with this number is no longer what it was. Cheap.
    fn forget(&self, fd: usize);
}

/// What is lent as a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Bytes, none as yet.
    Bytes,
    /// A number that is added to, and taken by who reads it.
    Counter {
        /// What it is to begin with.
        value: u32,
        /// Whether who reads it takes only one.
        is_semaphore: bool,
    },
}

/// An end of a lent stream, as a descriptor is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamEnd {
    /// [`LentStream::id`], as it is in this process.
    pub stream: u64,
    /// Whether this is what is read from.
    pub reads: bool,
    /// Whether this is what is written to.
    pub writes: bool,
    /// Whether nobody waits there.
    pub is_nonblocking: bool,
    /// Whether this is not a stream, but a file: [`lent::LentFile::id`].
    pub is_file: bool,
    /// Whether the descriptor is a socket.
    pub is_socket: bool,
}

/// A stream for two processes, of which one reads and the other one writes.
pub trait LinkedStream: Send + Sync {
    /// Notes that the process that reads, or the one that writes, is to have it at this place. Returns the
    /// calls by which it maps it there.
    fn joined(&self, reads: bool, place: u64) -> Vec<HostCall>;

    /// Returns whether that process has it, or is about to.
    fn has_joined(&self, reads: bool) -> bool;

    /// Lends the stream where both have it.
    fn lend(self: Arc<Self>, kind: StreamKind) -> Option<Box<dyn LentStream>>;
}

/// A stream that is lent. Taken back when it is dropped, at the latest.
pub trait LentStream: Send + Sync {
    /// Returns what [`StreamEnd`] calls it in the process that reads, or that writes.
    fn id(&self, reads: bool) -> u64;

    /// Takes the stream back, as it is; what threads are doing with it has happened before or does not
    /// happen. Waits for nobody.
    fn take_back(&self) -> TakenBack;
}

/// What is left of a lent stream.
#[derive(Debug, Default)]
pub struct TakenBack {
    /// The bytes that have been written and not been read; not more than [`LENT_MAX`].
    pub data: Vec<u8>,
    /// The value of a counter.
    pub value: u32,
    /// How many calls have been answered, as the application says.
    pub n_calls: u32,
}

/// How many bytes a lent stream holds at most.
pub const LENT_MAX: usize = sentry_sysmsg::ring::RING_LEN;

/// A guest thread: one host thread in the process of its address space.
///
/// Save where noted, the calls are for the thread that handles the context's current event: the
/// context is stopped, and nobody else touches it.
pub trait Context: Send + Sync {
    /// Returns the address space. The same `Arc` for all contexts that share it.
    fn address_space(&self) -> Arc<dyn AddressSpace>;

    /// Returns the number and the arguments of the system call that stopped the context.
    fn syscall(&self) -> SyscallArgs;

    /// Returns the registers, with `orig_rax` the number of the system call that stopped the
    /// context or -1 for another event.
    fn regs(&self) -> Regs;

    /// Replaces the registers. Segment selectors and the privileged bits of `eflags` are ignored;
    /// a non-canonical `rip` raises SIGSEGV at the next resume, as on Linux.
    fn set_regs(&self, regs: &Regs);

    /// Sets `rax`, the one register that most system calls change; cheaper than `set_regs`.
    fn set_return(&self, value: u64);

    /// Reads application memory, from the arguments that the stub passed along where it can.
    ///
    /// # Errors
    /// As [`AddressSpace::read`].
    fn read(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<usize>;

    /// Writes application memory, possibly only when the context goes on. The caller has checked
    /// that the range is mapped writable.
    ///
    /// # Errors
    /// As [`AddressSpace::write`].
    fn write(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize>;

    /// Writes application memory at once, in a range that may be mapped without memory behind it:
    /// a file's pages beyond its end. Returns how many bytes were writable from the start.
    ///
    /// # Errors
    /// As [`AddressSpace::write`].
    fn write_now(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize> {
        self.write(addr, src)
    }

    /// Has `fill` put at most `len` bytes of new content at `addr`, in a range that the caller has found to
    /// be mapped writable with memory behind it: `fill` gets a place, and returns how many bytes it has
    /// put there. They may reach the application only when the context goes on, also where others share
    /// its memory. `None` where this cannot be, and nothing has happened.
    fn fill(
        &self,
        addr: UserAddr,
        len: usize,
        fill: &mut dyn FnMut(&Part<'_>) -> SysResult<usize>,
    ) -> Option<SysResult<usize>> {
        let _ = (addr, len, fill);
        None
    }

    /// Makes everything that has been written visible to those who share the memory with the
    /// application, and takes nothing more from what the stub passed along: before others are told
    /// to look, and before the context ends.
    fn sync_memory(&self) {}

    /// Stores the extended state (XSAVE area, software-reserved bytes and trailing magic as Linux
    /// puts them into a signal frame) at `addr`, a multiple of 64, before the context goes on.
    /// The caller has written the rest of the frame around it, so the memory is known to be writable.
    ///
    /// # Errors
    /// `EFAULT`.
    fn save_xstate(&self, addr: UserAddr) -> SysResult<()>;

    /// Loads the extended state from a signal frame at `addr`, or the initial state for a null
    /// address, before the context goes on. A malformed area raises SIGSEGV as on Linux.
    ///
    /// # Errors
    /// `EFAULT`.
    fn restore_xstate(&self, addr: UserAddr) -> SysResult<()>;

    /// Makes `calls`, then goes back to the application. Where one fails, the context stays stopped
    /// and [`Event::HostCallFailed`] follows.
    fn resume(&self, calls: &[HostCall]);

    /// Makes `calls` without going back to the application; [`Event::HostCallsDone`] follows.
    fn start_host_calls(&self, calls: &[HostCall]);

    /// Returns the results after [`Event::HostCallsDone`] or [`Event::HostCallFailed`].
    fn host_call_results(&self) -> HostCallResults;

    /// Copies the extended state; [`Event::HostCallsDone`] follows, after which the results' `data` is
    /// what a signal frame would hold of it, or one of the results is an error. Not before the first
    /// resume of a fresh address space.
    fn start_fetch_xstate(&self);

    /// Replaces the extended state by what a signal frame holds; [`Event::HostCallsDone`] follows, after
    /// which one of the results is an error where that did not work.
    fn start_load_xstate(&self, frame: &[u8]);

    /// Has some of the replaced system call instructions put back when the context next goes on or
    /// makes host calls, and lets no more be replaced in this address space. `prot` tells the
    /// protection of a page that may be changed, `PROT_*`. Returns whether there are more: the owner then
    /// calls again.
    fn unpatch(&self, prot: &dyn Fn(u64) -> Option<i32>) -> bool {
        let _ = prot;
        false
    }

    /// Makes `calls` at once and waits. Only before the first `resume` of a fresh address space,
    /// where no application code can have touched the stub.
    ///
    /// # Errors
    /// The error of the first call that failed; later ones were not made.
    fn call_now(&self, calls: &[HostCall]) -> SysResult<()>;

    /// Prepares a child address space, a copy-on-write copy of this one made by the host when this
    /// context next goes on (`resume` or `start_host_calls`; a vfork parent uses the latter and stays
    /// stopped), with one context whose registers are a copy of this one's (the
    /// caller then changes what differs with `set_regs`). The child starts to run as soon as it
    /// exists and its `resume` has been called.
    ///
    /// What is written to the child before it exists ([`Context::write`],
    /// [`Context::save_xstate`]) is written as soon as it does and before it runs.
    ///
    /// Where the host refuses, this context gets [`Event::HostCallFailed`] with the index one past
    /// the host calls given to `resume`, and the child gets [`Event::Exited`].
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`.
    fn fork(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>>;

    /// Prepares a further context in the same address space; otherwise as [`Context::fork`].
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`.
    fn clone_thread(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>>;

    /// Makes a context that runs application code stop soon with [`Event::Interrupted`] (or with
    /// the event that it was about to raise anyway). An interrupt of a stopped context is
    /// remembered: its next resume stops again at once. No wake-up is lost; a spurious one is
    /// harmless. Called from any thread.
    fn interrupt(&self);

    /// Ends the host thread (and with the last one its process). [`Event::Exited`] follows when it
    /// is gone.
    fn exit(&self);

    /// Returns what the host thread has used, or `None` where the host does not tell or the thread
    /// is gone. Called from any thread. Not cheap.
    fn usage(&self) -> Option<ThreadUsage>;

    /// Has the host schedule the thread like this, as far as it permits; one that is still to be born when it is.
    /// What the thread makes inherits it. Called from any thread.
    fn set_schedule(&self, schedule: &Schedule) {
        let _ = schedule;
    }

    /// Returns on which CPU the thread was when it stopped, as the application says, where it says so.
    fn cpu(&self) -> Option<u32> {
        None
    }

    /// Returns what the process has used where it has told that itself with the present system call
    /// (`execve`, `exit_group`), which spares asking the host. Sizes other than the peak are left
    /// out.
    fn told_usage(&self) -> Option<ProcessUsage> {
        None
    }

    /// Returns where the platform would like to replace the system call instruction that stopped
    /// the context by a jump, so that the next call from there costs no trap. The owner asks after
    /// each [`Event::Syscall`] (it is cheap) and answers with [`Context::patch`], or not at all:
    /// then the site is asked for again at some later call.
    fn wants_patch(&self) -> Option<PatchWish> {
        None
    }

    /// Allows what [`Context::wants_patch`] has asked for, or refuses it for good. The platform
    /// changes the application's memory before the context next goes on.
    fn patch(&self, permit: Option<&PatchPermit>) {
        let _ = permit;
    }

    /// Tells the platform whether calls may be answered without an event (identity, time). Off for
    /// a task that is traced, logged or filtered.
    fn set_fast_path(&self, facts: Option<FastPathFacts>);

    /// Says which descriptor table the thread has, as far as the platform needs to know it for
    /// [`Streams`]; zero where streams are not for this thread.
    fn set_table(&self, table: u64) {
        let _ = table;
    }

    /// Says which mask for the permissions of new files the thread has: [`LentMask::id`]; zero where it is lent none.
    fn set_umask(&self, mask: u64) {
        let _ = mask;
    }

    /// Gives the application the mask of blocked signals, which it may change by itself where it has a
    /// fast path.
    fn set_signal_mask(&self, mask: u64) {
        let _ = mask;
    }

    /// Returns the mask, as the application says, or `None` where it never changes it by itself. Called
    /// from any thread.
    fn signal_mask(&self) -> Option<u64> {
        None
    }

    /// Says whether signals may be pending; while they are, the application leaves its mask alone and
    /// calls. Called from any thread.
    fn set_signals_pending(&self, pending: bool) {
        let _ = pending;
    }

    /// Returns whether signals may be pending.
    fn has_signals_pending(&self) -> bool {
        false
    }
}

/// How many bytes of address space the platform gets where a [`PatchWish`] asks for room.
pub const PATCH_ROOM_LEN: u64 = 0x1_0000;

/// A system call site that the platform would like to patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchWish {
    /// The first of the bytes that change.
    pub addr: u64,
    /// How many bytes change.
    pub len: u64,
    /// Whether the platform needs a new range for its trampolines near there.
    pub needs_room: bool,
}

/// The permission to patch a site. It is given for sites in private mappings of files that are
/// executable and not writable: there nobody else can be about to write, and what the application
/// sees of its text is the only thing that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchPermit {
    /// The protection of the mapping at the site, `PROT_*`.
    pub prot: i32,
    /// Where the platform may map its trampolines: [`PATCH_ROOM_LEN`] bytes that hold nothing, all
    /// of them within 2 GiB of the site, and that the owner uses for nothing else as long as the
    /// address space lives. Only where the wish asked for room.
    pub room: Option<u64>,
}

/// What the stub needs to know to answer identity calls by itself. Given anew whenever one changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastPathFacts {
    /// `getpid`.
    pub pid: u32,
    /// `gettid`.
    pub tid: u32,
    /// `getppid`.
    pub ppid: u32,
    /// `getuid`.
    pub uid: u32,
    /// `geteuid`.
    pub euid: u32,
    /// `getgid`.
    pub gid: u32,
    /// `getegid`.
    pub egid: u32,
    /// `getpgrp`, `getpgid(0)`.
    pub pgid: u32,
    /// `getsid(0)`.
    pub sid: u32,
}
