//! The context of a task that has none yet, so that the field needs no `Option`: between a task's
//! creation and that of its context nobody else knows the task, and nothing calls this.

use std::sync::Arc;

use sentry_host::usage::{ProcessUsage, ThreadUsage};
use sentry_platform::{
    AddressSpace, Context, ContextOwner, FastPathFacts, HostCall, HostCallResults, SyscallArgs,
};
use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult, UserAddr};

/// A context that fails everything.
pub(crate) struct NoContext;

impl AddressSpace for NoContext {
    fn read(&self, _addr: UserAddr, _dst: &mut [u8]) -> SysResult<usize> {
        Err(Errno::ESRCH)
    }

    fn write(&self, _addr: UserAddr, _src: &[u8]) -> SysResult<usize> {
        Err(Errno::ESRCH)
    }

    fn kill(&self) {}

    fn host_pid(&self) -> Option<u32> {
        None
    }

    fn usage(&self) -> ProcessUsage {
        ProcessUsage::default()
    }

    fn cpu_time_ns(&self) -> (u64, u64) {
        (0, 0)
    }
}

impl Context for NoContext {
    fn address_space(&self) -> Arc<dyn AddressSpace> {
        Arc::new(Self)
    }

    fn syscall(&self) -> SyscallArgs {
        SyscallArgs::default()
    }

    fn regs(&self) -> Regs {
        Regs::default()
    }

    fn set_regs(&self, _regs: &Regs) {}

    fn set_return(&self, _value: u64) {}

    fn read(&self, _addr: UserAddr, _dst: &mut [u8]) -> SysResult<usize> {
        Err(Errno::ESRCH)
    }

    fn write(&self, _addr: UserAddr, _src: &[u8]) -> SysResult<usize> {
        Err(Errno::ESRCH)
    }

    fn save_xstate(&self, _addr: UserAddr) -> SysResult<()> {
        Err(Errno::ESRCH)
    }

    fn restore_xstate(&self, _addr: UserAddr) -> SysResult<()> {
        Err(Errno::ESRCH)
    }

    fn resume(&self, _calls: &[HostCall]) {}

    fn start_host_calls(&self, _calls: &[HostCall]) {}

    fn start_fetch_xstate(&self) {}

    fn start_load_xstate(&self, _frame: &[u8]) {}

    fn host_call_results(&self) -> HostCallResults {
        HostCallResults::default()
    }

    fn call_now(&self, _calls: &[HostCall]) -> SysResult<()> {
        Err(Errno::ESRCH)
    }

    fn fork(&self, _owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        Err(Errno::EAGAIN)
    }

    fn clone_thread(&self, _owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        Err(Errno::EAGAIN)
    }

    fn interrupt(&self) {}

    fn exit(&self) {}

    fn usage(&self) -> Option<ThreadUsage> {
        None
    }

    fn set_fast_path(&self, _facts: Option<FastPathFacts>) {}
}
