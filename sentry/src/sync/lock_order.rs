//! The lock order, in one place. A lock may be taken while holding only locks above it.
//!
//! ```text
//! Kernel::tasks            every task, process group and session, parent and child links
//!   ThreadGroup::*         signal state, timers, limits of one process
//!     Task::signals        one thread's pending signals and mask
//! MemoryManager::state     the VMA tree of one address space
//! Mount tables, dentries   from the root downwards; two siblings by address
//!   Inode state            one inode; two (rename, link) by address
//! FdTable
//!   OpenFile::offset
//!     file-private locks   pipes, epoll, eventfd, …
//!       WaitQueue          leaf: `notify` collects under the lock and calls waiters after it
//! Task::block              leaf
//! ```
//!
//! Architecture Invariant: no lock is held when a context is resumed or an event handler returns.
