//! POSIX message queues (`ipc/mqueue.c`): what is behind the files of the `mqueue` file system.
//!
//! A message goes straight to the first receiver that waits, and the message of the first sender that waits
//! takes the place of one that is received. DEVIATION: who waits is served in the order of coming, whatever
//! the priorities of the threads are.
//!
//! Locks: the state of a queue is a leaf but for the outcomes of sleepers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::ipc::MqAttr;
use syscalls::abi::signal::{SI_MESGQ, SIGEV_SIGNAL, SIGEV_THREAD, Siginfo};
use syscalls::{Errno, SysResult};

use super::sleep::{self, Bed, End, Place, Sleeper, ToWake};
use crate::net::Socket;
use crate::sync::{Events, Mutex, WaitQueue};
use crate::task::{Control, CurrentTask, HandlerResult, Restart, ThreadGroup, signal};

/// Priorities are below this: `MQ_PRIO_MAX`.
pub(crate) const MAX_PRIORITY: u32 = 32_768;
/// Bytes of messages in all queues whatever the limits say: their memory is the sandbox's.
const MAX_BYTES: usize = 256 << 20;
/// What a message costs beside its text.
const MESSAGE_COST: usize = 64;
/// The length of what a thread is told through a socket.
pub(crate) const COOKIE_LEN: usize = 32;
/// What the last byte of a cookie says.
const WOKEN_UP: u8 = 1;
const REMOVED: u8 = 2;

/// What the messages of all queues cost.
static N_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) priority: u32,
    pub(crate) text: Vec<u8>,
}

/// What one waits for.
pub(crate) enum Wish {
    Message,
    /// Room for this message.
    Room(Mutex<Option<Message>>),
}

/// What one is given: the message, or nothing where one's own has been taken.
pub(crate) type Outcome = Option<Message>;

/// A queue as an object to wait at.
#[derive(Clone)]
pub(crate) struct At(Arc<Queue>);

/// How a process wants to be told that a message has come.
pub(crate) enum Notify {
    /// Not at all: `SIGEV_NONE`.
    Nothing,
    /// `SIGEV_SIGNAL`.
    Signal { signo: i32, value: u64 },
    /// `SIGEV_THREAD`: the cookie goes to a netlink socket, which a thread of the C library reads.
    Thread { socket: Arc<dyn Socket>, cookie: [u8; COOKIE_LEN] },
}

/// A process that wants to be told.
struct Registration {
    group: Weak<ThreadGroup>,
    /// The descriptor table through which it has registered.
    table: u64,
    notify: Notify,
}

#[derive(Default)]
struct State {
    /// By priority, highest first.
    messages: BTreeMap<Reverse<u32>, VecDeque<Vec<u8>>>,
    n_messages: usize,
    n_bytes: usize,
    receivers: VecDeque<Arc<Sleeper<At>>>,
    senders: VecDeque<Arc<Sleeper<At>>>,
    registration: Option<Registration>,
}

/// A queue.
pub(crate) struct Queue {
    max_messages: usize,
    max_len: usize,
    state: Mutex<State>,
    /// Woken when `poll` may give another answer.
    pub(crate) events: WaitQueue,
}

impl Message {
    fn cost(&self) -> usize {
        self.text.len().saturating_add(MESSAGE_COST)
    }
}

impl State {
    fn push(&mut self, message: Message) {
        N_BYTES.fetch_add(message.cost(), Ordering::Relaxed);
        self.n_messages += 1;
        self.n_bytes = self.n_bytes.saturating_add(message.text.len());
        self.messages.entry(Reverse(message.priority)).or_default().push_back(message.text);
    }

    fn pop(&mut self) -> Option<Message> {
        let mut first = self.messages.first_entry()?;
        let priority = first.key().0;
        let text = first.get_mut().pop_front()?;
        if first.get().is_empty() {
            first.remove();
        }
        let message = Message { priority, text };
        self.n_messages = self.n_messages.saturating_sub(1);
        self.n_bytes = self.n_bytes.saturating_sub(message.text.len());
        N_BYTES.fetch_sub(message.cost(), Ordering::Relaxed);
        Some(message)
    }

    /// Returns who wants to be told, if the process still exists.
    fn owner(&self) -> Option<(Arc<ThreadGroup>, &Registration)> {
        let registration = self.registration.as_ref()?;
        let group = registration.group.upgrade().filter(|group| !group.is_zombie())?;
        Some((group, registration))
    }
}

fn next(list: &mut VecDeque<Arc<Sleeper<At>>>, to_wake: &mut ToWake) -> Option<Arc<Sleeper<At>>> {
    loop {
        let sleeper = list.pop_front()?;
        if !sleeper.is_dead(to_wake) {
            return Some(sleeper);
        }
    }
}

impl Bed for At {
    type Wish = Wish;
    type Outcome = Outcome;

    fn forget(&self, sleeper: &Arc<Sleeper<Self>>) {
        let mut state = self.0.state.lock();
        state.receivers.retain(|other| !Arc::ptr_eq(other, sleeper));
        state.senders.retain(|other| !Arc::ptr_eq(other, sleeper));
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        while state.pop().is_some() {}
    }
}

impl Registration {
    /// Tells the process.
    fn tell(self, task: &CurrentTask) {
        match self.notify {
            Notify::Nothing => {}
            Notify::Signal { signo, value } => {
                let Some(group) = self.group.upgrade().filter(|_| signo != 0) else { return };
                let pid = task.group.pid_in(&group.pid_namespace);
                let pid = i32::try_from(pid).unwrap_or(0);
                let info = Siginfo::queue(signo, SI_MESGQ, pid, task.creds().uid, value);
                // Where the queue of real-time signals is full, nobody is told, as on Linux.
                let _ = signal::send_to_group(&group, info);
            }
            Notify::Thread { socket, cookie } => tell_thread(&*socket, cookie, WOKEN_UP),
        }
    }
}

fn tell_thread(socket: &dyn Socket, mut cookie: [u8; COOKIE_LEN], what: u8) {
    if let Some(last) = cookie.last_mut() {
        *last = what;
    }
    socket.deliver(&cookie);
}

impl Queue {
    /// Creates a queue without messages.
    pub(crate) fn new(max_messages: usize, max_len: usize) -> Arc<Self> {
        Arc::new(Self { max_messages, max_len, state: Mutex::default(), events: WaitQueue::new() })
    }

    /// Implements `mq_timedsend(2)`.
    ///
    /// # Errors
    /// `EMSGSIZE`, `ENOMEM`; `EAGAIN` where it would have to wait and may not, `ETIMEDOUT`; a signal
    /// interrupts. Those of `read`, which gives the text.
    pub(crate) fn send(
        self: &Arc<Self>,
        task: &CurrentTask,
        len: usize,
        priority: u32,
        may_wait: bool,
        deadline: impl FnOnce() -> Option<u64>,
        read: impl FnOnce() -> SysResult<Vec<u8>>,
    ) -> HandlerResult<()> {
        if len > self.max_len {
            return Err(Errno::EMSGSIZE.into());
        }
        let message = Message { priority, text: read()? };
        let mut to_wake = ToWake::default();
        let mut to_tell = None;
        let sleeper = {
            let mut state = self.state.lock();
            if state.n_messages < self.max_messages {
                if let Some(receiver) = next(&mut state.receivers, &mut to_wake) {
                    receiver.finish(Some(message), &mut to_wake);
                } else if N_BYTES.load(Ordering::Relaxed).saturating_add(message.cost()) > MAX_BYTES
                {
                    return Err(Errno::ENOMEM.into());
                } else {
                    state.push(message);
                    if state.n_messages == 1 {
                        to_tell = state.registration.take();
                    }
                }
                None
            } else if may_wait {
                let sleeper = Sleeper::new(task, Wish::Room(Mutex::new(Some(message))));
                state.senders.push_back(sleeper.clone());
                Some(sleeper)
            } else {
                return Err(Errno::EAGAIN.into());
            }
        };
        if let Some(sleeper) = sleeper {
            let place = Place::new(At(self.clone()), sleeper);
            return wait(task, place, deadline()).map(drop);
        }
        to_wake.wake();
        if let Some(registration) = to_tell {
            registration.tell(task);
        }
        self.events.notify(Events::READABLE);
        Ok(())
    }

    /// Implements `mq_timedreceive(2)`.
    ///
    /// # Errors
    /// `EMSGSIZE`; `EAGAIN` where it would have to wait and may not, `ETIMEDOUT`; a signal interrupts.
    pub(crate) fn receive(
        self: &Arc<Self>,
        task: &CurrentTask,
        len: usize,
        may_wait: bool,
        deadline: impl FnOnce() -> Option<u64>,
    ) -> HandlerResult<Message> {
        if len < self.max_len {
            return Err(Errno::EMSGSIZE.into());
        }
        let mut to_wake = ToWake::default();
        let received = {
            let mut state = self.state.lock();
            match state.pop() {
                Some(message) => {
                    if let Some(sender) = next(&mut state.senders, &mut to_wake)
                        && let Wish::Room(waiting) = &sender.wish
                        && let Some(waiting) = waiting.lock().take()
                    {
                        state.push(waiting);
                        sender.finish(None, &mut to_wake);
                    }
                    Ok(message)
                }
                None if may_wait => {
                    let sleeper = Sleeper::new(task, Wish::Message);
                    state.receivers.push_back(sleeper.clone());
                    Err(sleeper)
                }
                None => return Err(Errno::EAGAIN.into()),
            }
        };
        match received {
            Ok(message) => {
                to_wake.wake();
                self.events.notify(Events::WRITABLE);
                Ok(message)
            }
            Err(sleeper) => {
                let place = Place::new(At(self.clone()), sleeper);
                wait(task, place, deadline())?.ok_or(Errno::EAGAIN.into())
            }
        }
    }

    /// Implements `mq_notify(2)` for a process that wants to be told of the next message.
    ///
    /// # Errors
    /// `EBUSY` where a process has registered.
    pub(crate) fn register(&self, task: &CurrentTask, notify: Notify) -> SysResult<()> {
        let mut state = self.state.lock();
        if state.owner().is_some() {
            return Err(Errno::EBUSY);
        }
        let group = Arc::downgrade(&task.group);
        state.registration = Some(Registration { group, table: task.files().id, notify });
        Ok(())
    }

    /// Takes back the registration of the caller, where there is one.
    pub(crate) fn unregister(&self, task: &CurrentTask) {
        let is_own = |it: &Registration| std::ptr::eq(it.group.as_ptr(), &raw const *task.group);
        self.remove_registration(is_own);
    }

    /// Is told that a process has closed a descriptor of the queue.
    pub(crate) fn descriptor_closed(&self, table: u64) {
        self.remove_registration(|registration| registration.table == table);
    }

    fn remove_registration(&self, is_wanted: impl FnOnce(&Registration) -> bool) {
        let removed =
            self.state.lock().registration.take_if(|registration| is_wanted(registration));
        if let Some(Registration { notify: Notify::Thread { socket, cookie }, .. }) = removed {
            tell_thread(&*socket, cookie, REMOVED);
        }
    }

    /// Returns the attributes, without flags.
    pub(crate) fn attr(&self) -> MqAttr {
        let as_long = |n| i64::try_from(n).unwrap_or(i64::MAX);
        MqAttr {
            mq_maxmsg: as_long(self.max_messages),
            mq_msgsize: as_long(self.max_len),
            mq_curmsgs: as_long(self.state.lock().n_messages),
            ..MqAttr::default()
        }
    }

    /// Returns what the queue is ready for.
    pub(crate) fn poll(&self) -> Events {
        let n_messages = self.state.lock().n_messages;
        let mut ready = Events::empty();
        if n_messages > 0 {
            ready |= Events::READABLE;
        }
        if n_messages < self.max_messages {
            ready |= Events::WRITABLE;
        }
        ready
    }

    /// Returns what reading the queue's file gives.
    pub(crate) fn describe(&self, task: &CurrentTask) -> String {
        let state = self.state.lock();
        let (notify, signo, pid) = match state.owner() {
            None => (0, 0, 0),
            Some((group, registration)) => {
                let (notify, signo) = match registration.notify {
                    Notify::Nothing => (syscalls::abi::signal::SIGEV_NONE, 0),
                    Notify::Signal { signo, .. } => (SIGEV_SIGNAL, signo),
                    Notify::Thread { .. } => (SIGEV_THREAD, 0),
                };
                (notify, signo, group.pid_in(&task.pid_namespace()))
            }
        };
        let size = state.n_bytes;
        format!("QSIZE:{size:<10} NOTIFY:{notify:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n")
    }
}

/// Waits for what a call needs.
///
/// # Errors
/// `ETIMEDOUT`; a signal interrupts.
pub(crate) fn wait(
    task: &CurrentTask,
    place: Place<At>,
    deadline_ns: Option<u64>,
) -> HandlerResult<Outcome> {
    match sleep::sleep(task, place, deadline_ns)? {
        End::Outcome(outcome) => Ok(outcome),
        End::TimedOut => Err(Errno::ETIMEDOUT.into()),
        End::Interrupted => Err(Control::Restart(Restart::Sys)),
    }
}
