//! Guest memory: the host kernel owns the pages, the sentry owns the policy.
//!
//! A [`MemoryManager`] is one guest address space. Its [`space::Space`] says what is mapped where
//! and plans the host calls that make the host agree; they are queued on the current task and made
//! by the platform when the task goes back to the application. [`in_flight`] keeps operations of
//! several threads in order, [`loader`] fills a new address space with a program.
//!
//! Lock order: `MemoryManager::state`, then `Task::host_calls`, then `TaskMemory::undo`.

pub(crate) mod fault;
pub mod futex;
pub(crate) mod in_flight;
pub(crate) mod layout;
pub(crate) mod loader;
pub(crate) mod map_file;
pub mod maps;
pub(crate) mod ops;
pub(crate) mod patch;
pub(crate) mod space;
mod strings;
pub mod user_io;
pub(crate) mod vma;
pub(crate) mod vma_tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sentry_host::usage::ProcessUsage;
use sentry_platform::AddressSpace;
use syscalls::abi::mount::MountFlags;
use syscalls::abi::prctl::MembarrierCmd;
use syscalls::{Errno, SysResult};

use self::in_flight::InFlight;
use self::layout::Layout;
use self::space::Space;
use self::vma::{Backing, PROT_RWX, VmaFlags};
use self::vma_tree::Totals;
use crate::sync::{Mutex, WaitQueue};
use crate::vfs::OpenFile;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Returns a number that no other address space and no other shared anonymous memory has.
pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// One guest address space.
pub struct MemoryManager {
    /// Tells address spaces apart: private futexes are keyed by it.
    id: u64,
    state: Mutex<State>,
    /// The host's side, once there is one.
    address_space: Mutex<Option<Arc<dyn AddressSpace>>>,
    /// Woken when host calls that others may wait for have been made.
    retired: WaitQueue,
    /// Asynchronous I/O.
    pub(crate) aio: crate::aio::Contexts,
}

#[derive(Default)]
struct State {
    space: Space,
    in_flight: Vec<InFlight>,
    /// The program: `/proc/PID/exe`.
    exe: Option<Arc<OpenFile>>,
    /// The registrations of `membarrier(2)`. The host may have more: the platform has its own.
    barriers: MembarrierCmd,
}

/// Sizes of an address space in bytes, as `/proc/PID/status` and `statm` show them.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryUse {
    /// `VmPeak`.
    pub peak: u64,
    /// `VmSize`.
    pub size: u64,
    /// `VmLck`.
    pub locked: u64,
    /// `VmRSS` and its parts, `VmHWM`, `VmPTE`: zeroes where the host does not tell.
    pub resident: ProcessUsage,
    /// `VmData`.
    pub data: u64,
    /// `VmStk`.
    pub stack: u64,
    /// Executable memory: `VmExe` and `VmLib` together.
    pub exec: u64,
    /// The program's text alone: `VmExe`.
    pub text: u64,
}

/// Identifies the word of memory that a futex operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FutexKey {
    /// A word of one address space, by `FUTEX_PRIVATE_FLAG`.
    Private {
        /// The address space.
        mm: u64,
        /// The address.
        addr: u64,
    },
    /// A word of private memory, without the flag.
    Unshared {
        /// The address space.
        mm: u64,
        /// The address.
        addr: u64,
    },
    /// A word of shared anonymous memory.
    SharedAnonymous {
        /// The memory.
        object: u64,
        /// The offset in it.
        offset: u64,
    },
    /// A word of a file that is mapped shared.
    File {
        /// The file's device.
        dev: u64,
        /// The file's inode number.
        ino: u64,
        /// The offset in it.
        offset: u64,
    },
}

impl MemoryManager {
    /// Creates an empty address space.
    pub(crate) fn new() -> Arc<Self> {
        Self::with_state(State::default())
    }

    fn with_state(state: State) -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            state: Mutex::new(state),
            address_space: Mutex::new(None),
            retired: WaitQueue::new(),
            aio: crate::aio::Contexts::default(),
        })
    }

    /// Returns a copy for a forked child, as the host's copy of the pages will be.
    ///
    /// # Errors
    /// None today; `ENOMEM` is what a limit would give.
    pub(crate) fn fork(&self) -> SysResult<Arc<Self>> {
        let state = self.state.lock();
        let mut space = state.space.clone();
        let dropped: Vec<_> = space
            .tree
            .iter()
            .filter(|(_, vma)| vma.flags.contains(VmaFlags::DONTFORK))
            .map(|(start, vma)| *start..vma.end)
            .collect();
        for range in dropped {
            space.tree.remove(&range);
        }
        // mlock(2): locks are not inherited by a child.
        space.future_flags = VmaFlags::empty();
        space.unlock_all();
        space.peak = space.tree.totals().total;
        let (exe, barriers) = (state.exe.clone(), state.barriers);
        Ok(Self::with_state(State { space, in_flight: Vec::new(), exe, barriers }))
    }

    /// Notes registrations of `membarrier(2)`; a fork inherits them.
    pub(crate) fn register_barriers(&self, registrations: MembarrierCmd) {
        self.state.lock().barriers.insert(registrations);
    }

    /// Returns whether these registrations of `membarrier(2)` were made.
    pub(crate) fn has_barriers(&self, registrations: MembarrierCmd) -> bool {
        self.state.lock().barriers.contains(registrations)
    }

    /// Returns the number by which the address space is told from all others.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Gives the address space its host side.
    pub(crate) fn set_address_space(&self, address_space: Arc<dyn AddressSpace>) {
        *self.address_space.lock() = Some(address_space);
    }

    /// Returns the host side.
    ///
    /// # Errors
    /// `ESRCH` where there is none yet.
    pub(crate) fn address_space(&self) -> SysResult<Arc<dyn AddressSpace>> {
        self.address_space.lock().clone().ok_or(Errno::ESRCH)
    }

    /// Returns a copy of the places that the kernel remembers.
    pub(crate) fn layout(&self) -> Layout {
        self.state.lock().space.layout.clone()
    }

    /// Changes the places that the kernel remembers (`PR_SET_MM`).
    pub(crate) fn change_layout<T>(&self, change: impl FnOnce(&mut Layout) -> T) -> T {
        change(&mut self.state.lock().space.layout)
    }

    /// Returns the program.
    pub fn exe(&self) -> Option<Arc<OpenFile>> {
        self.state.lock().exe.clone()
    }

    /// Replaces the program (`PR_SET_MM_EXE_FILE`).
    pub(crate) fn set_exe(&self, exe: Arc<OpenFile>) {
        let old = self.state.lock().exe.replace(exe);
        drop(old);
    }

    /// Returns the sizes.
    pub fn usage(&self) -> MemoryUse {
        let host = self.address_space.lock().clone();
        let resident = host.map_or_else(ProcessUsage::default, |host| host.usage());
        let state = self.state.lock();
        let space = &state.space;
        let Totals { total, data, stack, exec, locked } = space.tree.totals();
        let text = space.layout.end_code.saturating_sub(space.layout.start_code);
        MemoryUse { peak: space.peak, size: total, locked, resident, data, stack, exec, text }
    }

    /// Returns how many bytes from `addr` on, up to `len`, the application may write, and whether
    /// a write there could fault all the same.
    pub(crate) fn writable_prefix(&self, addr: u64, len: u64) -> space::Writable {
        self.state.lock().space.writable_prefix(addr, len)
    }

    /// Returns what identifies the futex at `addr`.
    ///
    /// # Errors
    /// `EFAULT` where nothing is mapped there and the futex is not a private one.
    pub(crate) fn futex_key(&self, addr: u64, private: bool) -> SysResult<FutexKey> {
        let mm = self.id;
        if private {
            return Ok(FutexKey::Private { mm, addr });
        }
        let state = self.state.lock();
        let (start, vma) = state.space.tree.find(addr).ok_or(Errno::EFAULT)?;
        // Linux looks the page up, which needs a right to it.
        if !vma.prot.intersects(PROT_RWX) {
            return Err(Errno::EFAULT);
        }
        let delta = addr.saturating_sub(start);
        Ok(match &vma.backing {
            Backing::SharedAnonymous { object, offset } => {
                FutexKey::SharedAnonymous { object: *object, offset: offset.wrapping_add(delta) }
            }
            Backing::File(file) if vma.is_shared() => {
                let (dev, ino) = file.mappable.identity();
                FutexKey::File { dev, ino, offset: file.offset.wrapping_add(delta) }
            }
            _ => FutexKey::Unshared { mm, addr },
        })
    }
}

/// Returns whether nothing may be executed from `file`: `MNT_NOEXEC`.
pub(crate) fn is_noexec(file: &OpenFile) -> bool {
    file.path.as_ref().is_some_and(|path| path.mount.flags().contains(MountFlags::NOEXEC))
}
