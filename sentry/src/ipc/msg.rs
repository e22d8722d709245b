//! System V message queues (`ipc/msg.c`).
//!
//! A message goes straight to the first receiver that waits for its type, and into the queue where there
//! is none. Senders that find the queue full try again, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use syscalls::abi::capability::CAP_SYS_RESOURCE;
use syscalls::abi::ipc::{IpcFlags, IpcPerm, Msginfo, MsgrcvFlags, MsqidDs};
use syscalls::{Errno, SysResult};

use super::sleep::{self, Bed, End, Place, Sleeper, ToWake};
use super::{Ipc, Lookup, Object, Table};
use crate::kernel::Kernel;
use crate::sync::Mutex;
use crate::task::namespaces::Namespace;
use crate::task::{Control, CurrentTask, HandlerResult, Restart};

/// Bytes of messages in all queues whatever the sysctls say: their memory is the sandbox's.
const MAX_BYTES: usize = 256 << 20;
/// What a message costs beside its text.
const MESSAGE_COST: usize = 64;

/// All queues.
#[derive(Default)]
pub(crate) struct Queues {
    table: Mutex<Table<Queue>>,
    /// What all messages cost.
    n_bytes: AtomicUsize,
}

/// A message.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) kind: i64,
    pub(crate) text: Vec<u8>,
}

/// Which message a receiver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first one.
    Any,
    /// The first one of this type.
    Equal(i64),
    /// The first one of another type.
    NotEqual(i64),
    /// The first one of the least type up to this.
    AtMost(i64),
    /// The one at this place, which stays in the queue.
    At(i64),
}

/// What one waits for.
pub(crate) enum Wish {
    /// A message, of at most this many bytes.
    Receive { choice: Choice, max_len: usize, pid: i32 },
    /// Room for a message.
    Send(Message),
}

/// What one is given.
pub(crate) enum Outcome {
    /// A message.
    Received(Message),
    /// An error.
    Failed(Errno),
    /// The call is to be made again: a queue has changed.
    Again,
}

/// What `msgrcv(2)` asks for.
#[derive(Clone, Copy)]
pub(crate) struct Receive {
    pub(crate) id: i32,
    pub(crate) max_len: usize,
    pub(crate) kind: i64,
    pub(crate) flags: u32,
}

struct Limits {
    message: usize,
    queue: usize,
    queues: usize,
}

/// A queue.
struct Queue {
    perm: IpcPerm,
    stime: i64,
    rtime: i64,
    ctime: i64,
    lspid: i32,
    lrpid: i32,
    max_bytes: usize,
    n_bytes: usize,
    messages: VecDeque<Message>,
    receivers: VecDeque<Arc<Sleeper<QueueId>>>,
    senders: VecDeque<Arc<Sleeper<QueueId>>>,
}

impl Object for Queue {
    fn perm(&self) -> &IpcPerm {
        &self.perm
    }
}

impl Limits {
    fn of(kernel: &Kernel) -> Self {
        Self {
            message: super::limit(kernel, "kernel/msgmax", 0, 8192),
            queue: super::limit(kernel, "kernel/msgmnb", 0, 16_384),
            queues: super::limit(kernel, "kernel/msgmni", 0, 32_000),
        }
    }
}

impl Choice {
    /// Decodes type and flags of `msgrcv(2)`.
    fn new(kind: i64, flags: MsgrcvFlags) -> Self {
        match kind {
            _ if flags.contains(MsgrcvFlags::COPY) => Self::At(kind),
            0 => Self::Any,
            i64::MIN..0 => Self::AtMost(kind.checked_neg().unwrap_or(i64::MAX)),
            _ if flags.contains(MsgrcvFlags::EXCEPT) => Self::NotEqual(kind),
            _ => Self::Equal(kind),
        }
    }

    /// Returns whether a message that has just come is taken.
    fn takes(self, kind: i64) -> bool {
        match self {
            Self::Any | Self::At(_) => true,
            Self::Equal(wanted) => kind == wanted,
            Self::NotEqual(unwanted) => kind != unwanted,
            Self::AtMost(most) => kind <= most,
        }
    }

    /// Returns the place of the message that is taken.
    fn find(self, messages: &VecDeque<Message>) -> Option<usize> {
        match self {
            Self::At(index) => usize::try_from(index).ok().filter(|index| *index < messages.len()),
            Self::AtMost(most) => {
                let kinds = messages.iter().map(|message| message.kind).enumerate();
                kinds
                    .filter(|(_, kind)| *kind <= most)
                    .min_by_key(|(_, kind)| *kind)
                    .map(|(at, _)| at)
            }
            _ => messages.iter().position(|message| self.takes(message.kind)),
        }
    }
}

impl Message {
    fn cost(&self) -> usize {
        self.text.len().saturating_add(MESSAGE_COST)
    }
}

impl Queue {
    fn has_room(&self, len: usize) -> bool {
        len.saturating_add(self.n_bytes) <= self.max_bytes && self.messages.len() < self.max_bytes
    }

    /// Gives a message to whoever waits for it; returns it where nobody does.
    fn hand_over(&mut self, message: Message, now: i64, to_wake: &mut ToWake) -> Option<Message> {
        let mut index = 0;
        while let Some(sleeper) = self.receivers.get(index).cloned() {
            let Wish::Receive { choice, max_len, pid } = &sleeper.wish else { break };
            if !choice.takes(message.kind) {
                index += 1;
                continue;
            }
            self.receivers.remove(index);
            if sleeper.is_dead(to_wake) {
                continue;
            }
            if *max_len < message.text.len() {
                sleeper.finish(Outcome::Failed(Errno::E2BIG), to_wake);
                continue;
            }
            self.lrpid = *pid;
            self.rtime = now;
            sleeper.finish(Outcome::Received(message), to_wake);
            return None;
        }
        Some(message)
    }

    /// Lets the senders try again whose messages fit.
    fn wake_senders(&mut self, to_wake: &mut ToWake) {
        for sleeper in std::mem::take(&mut self.senders) {
            match &sleeper.wish {
                Wish::Send(message) if !self.has_room(message.text.len()) => {
                    self.senders.push_back(sleeper);
                }
                _ => sleeper.finish(Outcome::Again, to_wake),
            }
        }
    }

    fn status(&self) -> MsqidDs {
        MsqidDs {
            msg_perm: self.perm,
            msg_stime: self.stime,
            msg_rtime: self.rtime,
            msg_ctime: self.ctime,
            msg_cbytes: self.n_bytes as u64,
            msg_qnum: self.messages.len() as u64,
            msg_qbytes: self.max_bytes as u64,
            msg_lspid: self.lspid,
            msg_lrpid: self.lrpid,
            unused: [0; 2],
        }
    }
}

/// A queue, by its id.
#[derive(Clone)]
pub(crate) struct QueueId {
    ipc: Arc<Namespace<Ipc>>,
    id: i32,
}

impl QueueId {
    fn new(task: &CurrentTask, id: i32) -> Self {
        Self { ipc: task.ipc(), id }
    }
}

impl Bed for QueueId {
    type Wish = Wish;
    type Outcome = Outcome;

    fn forget(&self, sleeper: &Arc<Sleeper<Self>>) {
        if let Ok(queue) = self.ipc.msg.table.lock().by_id(self.id) {
            queue.receivers.retain(|other| !Arc::ptr_eq(other, sleeper));
            queue.senders.retain(|other| !Arc::ptr_eq(other, sleeper));
        }
    }
}

impl Queues {
    /// Implements `msgget(2)`.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`, `ENOSPC`.
    pub(crate) fn get(&self, task: &CurrentTask, key: i32, flags: u32) -> SysResult<i32> {
        let limits = Limits::of(&task.kernel);
        let mut table = self.table.lock();
        if let Lookup::Found(id) = super::look_up(task, &table, key, flags, |_| Ok(()))? {
            return Ok(id);
        }
        let ctime = super::now(task);
        let next = super::take_next_id(&task.kernel, "kernel/msg_next_id");
        table.add(limits.queues, next, |seq| Queue {
            perm: super::new_perm(task, key, flags, seq),
            stime: 0,
            rtime: 0,
            ctime,
            lspid: 0,
            lrpid: 0,
            max_bytes: limits.queue,
            n_bytes: 0,
            messages: VecDeque::new(),
            receivers: VecDeque::new(),
            senders: VecDeque::new(),
        })
    }

    /// Returns how long a message may be.
    pub(crate) fn max_len(task: &CurrentTask) -> usize {
        Limits::of(&task.kernel).message
    }

    /// Implements `msgsnd(2)`; `message` reads it, in the first run of the call.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EACCES`, `ENOMEM`; `EAGAIN` where it would have to wait and may not; a signal
    /// interrupts. Those of `message`.
    pub(crate) fn send(
        &self,
        task: &CurrentTask,
        id: i32,
        flags: u32,
        message: impl FnOnce() -> SysResult<Message>,
    ) -> HandlerResult<()> {
        let mut place = task.recall::<Place<QueueId>>();
        let mut message = if place.is_some() { None } else { Some(message()?) };
        loop {
            if let Some(message) = message.take() {
                match self.try_send(task, id, flags, message)? {
                    Some(sleeper) => place = Some(Place::new(QueueId::new(task, id), sleeper)),
                    None => return Ok(()),
                }
            }
            let Some(place) = place.take() else { return Err(Errno::EINVAL.into()) };
            let sleeper = place.sleeper().clone();
            match sleep::sleep(task, place, None)? {
                End::Outcome(Outcome::Failed(errno)) => return Err(errno.into()),
                End::Interrupted => return Err(Control::Restart(Restart::NoHand)),
                End::Outcome(_) | End::TimedOut => {}
            }
            if let Wish::Send(again) = &sleeper.wish {
                message = Some(again.clone());
            }
        }
    }

    fn try_send(
        &self,
        task: &CurrentTask,
        id: i32,
        flags: u32,
        message: Message,
    ) -> SysResult<Option<Arc<Sleeper<QueueId>>>> {
        let mut to_wake = ToWake::default();
        let mut table = self.table.lock();
        let queue = table.by_id(id)?;
        super::check_access(task, &queue.perm, 0o222)?;
        if !queue.has_room(message.text.len()) {
            if IpcFlags::from_bits_retain(flags).contains(IpcFlags::NOWAIT) {
                return Err(Errno::EAGAIN);
            }
            let sleeper = Sleeper::new(task, Wish::Send(message));
            queue.senders.push_back(sleeper.clone());
            return Ok(Some(sleeper));
        }
        let n_bytes = self.n_bytes.load(Ordering::Relaxed).saturating_add(message.cost());
        if n_bytes > MAX_BYTES {
            return Err(Errno::ENOMEM);
        }
        let now = super::now(task);
        queue.lspid = super::own_pid(task);
        queue.stime = now;
        if let Some(message) = queue.hand_over(message, now, &mut to_wake) {
            queue.n_bytes = queue.n_bytes.saturating_add(message.text.len());
            queue.messages.push_back(message);
            self.n_bytes.store(n_bytes, Ordering::Relaxed);
        }
        drop(table);
        to_wake.wake();
        Ok(None)
    }

    /// Implements `msgrcv(2)` but for the copy to the caller.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EACCES`, `E2BIG`; `ENOMSG` where it would have to wait and may not; a signal
    /// interrupts.
    pub(crate) fn receive(&self, task: &CurrentTask, call: Receive) -> HandlerResult<Message> {
        let mut place = task.recall::<Place<QueueId>>();
        loop {
            let place = match place.take() {
                Some(place) => place,
                None => match self.try_receive(task, call)? {
                    Ok(message) => return Ok(message),
                    Err(sleeper) => Place::new(QueueId::new(task, call.id), sleeper),
                },
            };
            match sleep::sleep(task, place, None)? {
                End::Outcome(Outcome::Received(message)) => return Ok(message),
                End::Outcome(Outcome::Failed(errno)) => return Err(errno.into()),
                End::Interrupted => return Err(Control::Restart(Restart::NoHand)),
                End::Outcome(Outcome::Again) | End::TimedOut => {}
            }
        }
    }

    fn try_receive(
        &self,
        task: &CurrentTask,
        call: Receive,
    ) -> SysResult<Result<Message, Arc<Sleeper<QueueId>>>> {
        let flags = MsgrcvFlags::from_bits_retain(call.flags);
        let no_wait = IpcFlags::from_bits_retain(call.flags).contains(IpcFlags::NOWAIT);
        let copies = flags.contains(MsgrcvFlags::COPY);
        if copies && (flags.contains(MsgrcvFlags::EXCEPT) || !no_wait) {
            return Err(Errno::EINVAL);
        }
        let choice = Choice::new(call.kind, flags);
        let mut to_wake = ToWake::default();
        let mut table = self.table.lock();
        let queue = table.by_id(call.id)?;
        super::check_access(task, &queue.perm, 0o444)?;
        let Some((index, found)) =
            choice.find(&queue.messages).and_then(|at| Some((at, queue.messages.get(at)?)))
        else {
            if no_wait {
                return Err(Errno::ENOMSG);
            }
            let cuts = flags.contains(MsgrcvFlags::NOERROR);
            let max_len = if cuts { usize::MAX } else { call.max_len };
            let pid = super::own_pid(task);
            let sleeper = Sleeper::new(task, Wish::Receive { choice, max_len, pid });
            queue.receivers.push_back(sleeper.clone());
            return Ok(Err(sleeper));
        };
        if call.max_len < found.text.len() && !flags.contains(MsgrcvFlags::NOERROR) {
            return Err(Errno::E2BIG);
        }
        if copies {
            // A copy is never cut.
            let fits = call.max_len >= found.text.len();
            return if fits { Ok(Ok(found.clone())) } else { Err(Errno::EINVAL) };
        }
        let Some(message) = queue.messages.remove(index) else { return Err(Errno::ENOMSG) };
        queue.n_bytes = queue.n_bytes.saturating_sub(message.text.len());
        queue.rtime = super::now(task);
        queue.lrpid = super::own_pid(task);
        queue.wake_senders(&mut to_wake);
        self.give_back(message.cost());
        drop(table);
        to_wake.wake();
        Ok(Ok(message))
    }

    fn give_back(&self, n: usize) {
        let take = |all: usize| Some(all.saturating_sub(n));
        let _ = self.n_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// Returns the status of a queue: by id, or by index for the commands that list them, where `access`
    /// is the mode that the caller needs.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EACCES`.
    pub(crate) fn status(
        &self,
        task: &CurrentTask,
        id: i32,
        is_index: bool,
        access: u32,
    ) -> SysResult<(i32, MsqidDs)> {
        let mut table = self.table.lock();
        let (id, queue) = if is_index { table.by_index(id)? } else { (0, table.by_id(id)?) };
        super::check_access(task, &queue.perm, access)?;
        Ok((id, queue.status()))
    }

    /// Returns limits for `IPC_INFO`, and what there is for `MSG_INFO`; and the highest index in use.
    pub(crate) fn info(&self, task: &CurrentTask, shows_use: bool) -> (Msginfo, u64) {
        let limits = Limits::of(&task.kernel);
        let table = self.table.lock();
        let as_int = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let n_messages = table.iter().map(|queue| queue.messages.len()).sum::<usize>();
        let n_bytes = table.iter().map(|queue| queue.n_bytes).sum::<usize>();
        let info = Msginfo {
            msgpool: if shows_use { as_int(table.len()) } else { 512_000 },
            msgmap: if shows_use { as_int(n_messages) } else { 16_384 },
            msgmax: as_int(limits.message),
            msgmnb: as_int(limits.queue),
            msgmni: as_int(limits.queues),
            msgssz: 16,
            msgtql: if shows_use { as_int(n_bytes) } else { 16_384 },
            msgseg: 0xffff,
            pad0: 0,
        };
        (info, table.max_index())
    }

    /// Implements `IPC_SET`.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`; `EPERM`, also for a larger queue than the limit.
    pub(crate) fn set(&self, task: &CurrentTask, id: i32, new: &MsqidDs) -> SysResult<()> {
        let limits = Limits::of(&task.kernel);
        let mut to_wake = ToWake::default();
        let mut table = self.table.lock();
        let queue = table.by_id(id)?;
        super::check_owner(task, &queue.perm)?;
        let max_bytes = usize::try_from(new.msg_qbytes).unwrap_or(usize::MAX);
        if max_bytes > limits.queue && !task.creds().has_capability(CAP_SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        super::set_perm(&mut queue.perm, &new.msg_perm);
        queue.max_bytes = max_bytes;
        queue.ctime = super::now(task);
        // They may not be allowed to any more.
        for sleeper in queue.receivers.drain(..) {
            sleeper.finish(Outcome::Again, &mut to_wake);
        }
        queue.wake_senders(&mut to_wake);
        drop(table);
        to_wake.wake();
        Ok(())
    }

    /// Implements `IPC_RMID`: whoever waits is told.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EPERM`.
    pub(crate) fn remove(&self, task: &CurrentTask, id: i32) -> SysResult<()> {
        let mut to_wake = ToWake::default();
        let mut table = self.table.lock();
        super::check_owner(task, &table.by_id(id)?.perm)?;
        let removed = table.remove(id);
        if let Some(queue) = &removed {
            for sleeper in queue.receivers.iter().chain(&queue.senders) {
                sleeper.finish(Outcome::Failed(Errno::EIDRM), &mut to_wake);
            }
            self.give_back(queue.messages.iter().map(Message::cost).sum());
        }
        drop(table);
        to_wake.wake();
        Ok(())
    }

    /// Returns `/proc/sysvipc/msg`.
    pub(crate) fn render(&self) -> String {
        let mut out = String::from(
            "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
        );
        for (id, queue) in self.table.lock().iter_ids() {
            let perm = &queue.perm;
            out.push_str(&format!(
                "{:10} {id:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}\n",
                perm.key,
                perm.mode,
                queue.n_bytes,
                queue.messages.len(),
                queue.lspid,
                queue.lrpid,
                perm.uid,
                perm.gid,
                perm.cuid,
                perm.cgid,
                queue.stime,
                queue.rtime,
                queue.ctime,
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() {
        let message = |kind| Message { kind, text: Vec::new() };
        let queue = VecDeque::from([message(5), message(3), message(9), message(3)]);
        let find = |kind, flags| Choice::new(kind, flags).find(&queue);
        let none = MsgrcvFlags::empty();
        assert_eq!(find(0, none), Some(0));
        assert_eq!(find(9, none), Some(2));
        assert_eq!(find(4, none), None);
        assert_eq!(find(-4, none), Some(1));
        assert_eq!(find(-2, none), None);
        assert_eq!(find(i64::MIN, none), Some(1));
        assert_eq!(find(5, MsgrcvFlags::EXCEPT), Some(1));
        assert_eq!(find(3, MsgrcvFlags::COPY), Some(3));
        assert_eq!(find(4, MsgrcvFlags::COPY), None);
    }
}
