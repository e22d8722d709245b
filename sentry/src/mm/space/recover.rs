//! What happens where the host refuses a call that was found good: areas and host are made to
//! agree again.

use sentry_platform::HostCall;

use super::{Plan, Purpose, Space, Undo};
use crate::mm::vma::{AddrRange, Vma, host_prot, unmap_call};

/// What is left after a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// Areas and host agree once the calls of the plan have been made.
    Yes,
    /// The host refused a recovery: the process cannot go on.
    No,
}

impl Space {
    /// Undoes the calls from `index` on, none of which the host has made; the first it was asked
    /// for where `was_tried`.
    pub(crate) fn recover(
        &mut self,
        index: usize,
        was_tried: bool,
        undo: Vec<Undo>,
        plan: &mut Plan<'_>,
    ) -> Recovered {
        for entry in undo.into_iter().rev().filter(|entry| entry.call >= index) {
            let refused = was_tried && entry.call == index;
            if let Some(brk) = entry.old_brk {
                self.layout.brk = brk;
            }
            match entry.purpose {
                Purpose::Recovery => return Recovered::No,
                Purpose::Advise => {}
                Purpose::Map if refused => {
                    self.tree.remove(&entry.range);
                    plan.push_recovery(unmap_call(&entry.range), entry.range);
                }
                Purpose::Map | Purpose::Unmap => self.restore(&entry.range, entry.old),
                Purpose::Protect => {
                    for (start, vma) in entry.old {
                        let range = start..vma.end;
                        if refused {
                            plan.push_recovery(protect_call(&range, &vma), range.clone());
                        }
                        self.tree.update(&range, |_, area| area.prot = vma.prot);
                    }
                }
                Purpose::Remap(source) => {
                    self.tree.remove(&entry.range);
                    self.restore(&source, entry.old);
                    if refused && !overlap(&source, &entry.range) {
                        plan.push_recovery(unmap_call(&entry.range), entry.range);
                    }
                }
            }
        }
        Recovered::Yes
    }

    /// Puts back what was in `range`.
    fn restore(&mut self, range: &AddrRange, old: Vec<(u64, Vma)>) {
        self.tree.remove(range);
        for (start, vma) in old {
            if self.tree.is_free(&(start..vma.end)) {
                self.tree.insert(start, vma);
            }
        }
    }
}

impl Plan<'_> {
    fn push_recovery(&mut self, call: HostCall, range: AddrRange) {
        self.push(call, range, Purpose::Recovery, Vec::new());
    }
}

fn overlap(a: &AddrRange, b: &AddrRange) -> bool {
    a.start < b.end && b.start < a.end
}

fn protect_call(range: &AddrRange, vma: &Vma) -> HostCall {
    HostCall::Mprotect {
        addr: range.start,
        len: range.end.saturating_sub(range.start),
        prot: host_prot(vma.prot),
    }
}
