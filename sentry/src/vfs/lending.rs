//! Lending streams and counters to the processes that use them, whose threads then read and write them without
//! the sentry: who uses one, whether that is lively enough, and what they have together.
//!
//! What is lent is the sentry's: it is lent when it has been read and written for a while in small pieces and
//! nothing else has happened to it, and whoever locks its state has taken it back, with what has been
//! written meanwhile. Nobody waits for what is lent, because who is about to wait takes it back, and it is
//! not lent as long as somebody waits. So a process that could have gone on, but has asked the sentry, finds
//! it as if the calls of others had come before.
//!
//! Two processes that have something together can change everything that is in it, so they have it only where
//! each may do so anyway, and where nobody else has the same memory: other two processes get another one.
//!
//! The locks around a [`Lending`] are those of its file.

use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::lent::LentFile;
use sentry_platform::{
    HostCall, LentStream, LinkedStream, StreamEnd, StreamKind, Streams, TakenBack,
};

use super::fd_table::Teller;
use super::file::{OpenFile, StreamUser};
use crate::task::Credentials;
use crate::task::pid_namespace::PidNamespace;

/// Larger transfers are as quickly made by the sentry.
const SMALL: usize = 4096;
/// After how many transfers in a row something is lent for the first time.
const FIRST: u32 = 64;
/// After how many where it has been worth it the last time.
const AGAIN: u32 = 16;
/// The most, where it was not several times in a row.
const MAX: u32 = 1 << 16;
/// How many calls its process must have answered for it to have been worth it.
const WORTH: u32 = 32;
/// After how many uses in a row a process is taken to be the only one that uses something of which all ends are the
/// same.
const ALONE: u32 = 8;
/// After how many times in a row somebody is taken to wait always.
const AWAITED: u32 = 8;

/// How something is lent, or may be.
pub struct Lending {
    lent: Option<Box<dyn LentStream>>,
    /// How many small transfers there were in a row.
    n_small: u32,
    /// How many there must be.
    wanted: u32,
    /// Who has last used the two sides.
    users: [Option<User>; 2],
    /// How often in a row it could have been lent, but for somebody who waited.
    n_awaited: u32,
    /// Which side was used last, where both are the same, and how often in a row.
    last: (Side, u32),
    /// What two processes have together.
    link: Option<Link>,
    /// A set of files that is lent as long as nothing happens to this one.
    set: Option<Weak<dyn LentFile>>,
}

/// One of the two sides: of a pipe the end that it is read from, of what is the same for all the
/// first of two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The reading one, or the first.
    First,
    /// The writing one, or the second.
    Second,
}

/// What a descriptor does with something that is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It reads, or it writes, as it was opened for.
    Both,
    /// A socket's reads, while what is written to it is something else.
    SocketReads,
    /// A socket's writes.
    SocketWrites,
}

/// Who uses a side.
#[derive(Clone)]
pub struct User {
    streams: Weak<dyn Streams>,
    table: u64,
    teller: Teller,
    fd: i32,
    file: Weak<OpenFile>,
    /// Whether it may use the other side as well.
    may_open: bool,
    /// What the user of the other side must be able to do as well, where that counts.
    rights: Option<(Arc<Credentials>, Weak<PidNamespace>)>,
}

/// Who uses the other side, with the file that it uses. To be dropped without any lock: it may be the last one
/// who has the file.
pub type Partner = (User, Arc<OpenFile>);

/// A stream that two processes have together.
struct Link {
    stream: Arc<dyn LinkedStream>,
    users: [Weak<dyn Streams>; 2],
}

fn is_same(one: &Weak<dyn Streams>, other: &Weak<dyn Streams>) -> bool {
    ptr::addr_eq(one.as_ptr(), other.as_ptr())
}

/// Something with a side that is read from and one that is written to.
pub trait OneWay {
    /// Returns what the descriptor of a side does.
    fn end(side: Side) -> End;

    /// Calls `act` with the state locked as it is.
    fn with<T>(&self, act: impl FnOnce(&mut Lending) -> T) -> T;

    /// Does the same where it can be lent now to those who use the sides by these files.
    fn where_possible<T>(
        &self,
        files: [&OpenFile; 2],
        act: impl FnOnce(&mut Lending) -> T,
    ) -> Option<T>;
}

/// Lends a stream of bytes to `user`, who has just used this side as `own`, and to who uses the other one. Returns
/// what the process of `user` must do for that to be possible later.
pub fn lend_bytes<S: OneWay>(
    stream: &S,
    side: Side,
    user: &StreamUser,
    own: &User,
) -> Vec<HostCall> {
    let other = stream.with(|lending| lending.note_user(side, own));
    let Some((other, other_file)) = other.and_then(User::partner) else { return Vec::new() };
    let link = if other.is_process_of(own) {
        None
    } else {
        match stream.with(|lending| lending.link(side, user, own, &other)) {
            Ok(link) => Some(link),
            Err(calls) => return calls,
        }
    };
    let files: [&OpenFile; 2] =
        if side == Side::First { [&user.file, &other_file] } else { [&other_file, &user.file] };
    let lend = |lending: &mut Lending| lending.lend(&user.streams, link, StreamKind::Bytes);
    if let Some(Some(id)) = stream.where_possible(files, lend) {
        own.tell(&user.file, id(side), S::end(side));
        other.tell(&other_file, id(side.other()), S::end(side.other()));
    }
    Vec::new()
}

impl Side {
    fn index(self) -> usize {
        usize::from(self == Self::Second)
    }

    /// Returns the other side.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

impl User {
    /// Returns the user; `may_open` says whether it may use the other side as well.
    pub fn new(user: &StreamUser, may_open: bool) -> Self {
        Self {
            streams: Arc::downgrade(&user.streams),
            table: user.table.id,
            teller: user.table.teller(),
            fd: user.fd,
            file: Arc::downgrade(&user.file),
            may_open,
            rights: None,
        }
    }

    /// Returns the user of a side that is no way to the other one: it has both with another process only where
    /// the two have the same rights, and each could do what it likes in the other one anyway.
    pub fn among_equals(user: &StreamUser) -> Self {
        let is_open = user.is_dumpable && user.creds.landlock.is_none();
        let rights = Some((user.creds.clone(), user.pids.clone()));
        Self { rights, ..Self::new(user, is_open) }
    }

    /// Returns whether the two may have something together.
    fn may_share_with(&self, other: &Self) -> bool {
        let are_equal = match (&self.rights, &other.rights) {
            (Some((own, pids)), Some((creds, other_pids))) => {
                own.is_as_strong_as(creds) && pids.ptr_eq(other_pids)
            }
            (None, None) => true,
            _ => false,
        };
        are_equal && self.may_open && other.may_open
    }

    /// Returns whether both are the same process.
    pub fn is_process_of(&self, other: &Self) -> bool {
        self.table == other.table && is_same(&self.streams, &other.streams)
    }

    /// Returns the user with its file, where there still is one.
    pub fn partner(self) -> Option<Partner> {
        let file = self.file.upgrade()?;
        Some((self, file))
    }

    /// Says that the descriptor of this user, as long as it refers to `file`, is that of a lent stream. What is
    /// said of a stream that has come back already means nothing.
    pub fn tell(&self, file: &Arc<OpenFile>, id: u64, as_what: End) {
        let end = StreamEnd {
            stream: id,
            reads: as_what != End::SocketWrites,
            writes: as_what != End::SocketReads,
            is_socket: as_what != End::Both,
            ..StreamEnd::default()
        };
        self.teller.tell(&self.streams, self.fd, file, end);
    }
}

impl Lending {
    /// Returns that of something new.
    pub(crate) fn new() -> Self {
        Self {
            lent: None,
            n_small: 0,
            wanted: FIRST,
            users: [None, None],
            n_awaited: 0,
            last: (Side::First, 0),
            link: None,
            set: None,
        }
    }

    /// Has a lent set of files taken back as soon as anything happens, of which the last one counts.
    pub fn vouch_for(&mut self, set: &Weak<dyn LentFile>) {
        self.vouch_no_more();
        self.set = Some(set.clone());
    }

    fn vouch_no_more(&mut self) {
        if let Some(set) = self.set.take().and_then(|set| set.upgrade()) {
            set.take_back();
        }
    }

    /// Takes back what is lent; returns what has become of it.
    pub fn take_back(&mut self) -> Option<TakenBack> {
        self.vouch_no_more();
        let back = self.lent.take()?.take_back();
        let was_worth_it = back.n_calls >= WORTH;
        self.wanted = if was_worth_it { AGAIN } else { self.wanted.saturating_mul(2).min(MAX) };
        self.n_small = 0;
        Some(back)
    }

    /// Notes that something else has happened than a transfer.
    pub fn note_other(&mut self) {
        self.n_small = 0;
    }

    /// Notes a transfer of `n` bytes, and in `is_lively` whether there have been enough.
    pub fn note_transfer(&mut self, n: usize, is_lively: &AtomicBool) {
        self.n_small = if n <= SMALL { self.n_small.saturating_add(1) } else { 0 };
        let are_enough = self.are_enough();
        if are_enough != is_lively.load(Ordering::Relaxed) {
            is_lively.store(are_enough, Ordering::Relaxed);
        }
    }

    /// Returns whether it is time to lend, which it is not where somebody waits; and where somebody always does, it
    /// is not soon asked again.
    pub fn is_due(&mut self, is_awaited: bool) -> bool {
        self.n_awaited = if is_awaited { self.n_awaited + 1 } else { 0 };
        if self.n_awaited >= AWAITED {
            (self.n_awaited, self.n_small) = (0, 0);
        }
        !is_awaited && self.lent.is_none() && self.are_enough()
    }

    /// Notes who has just used a side; returns who has last used the other one.
    pub fn note_user(&mut self, side: Side, user: &User) -> Option<User> {
        self.set_user(side, Some(user.clone()));
        self.user(side.other()).cloned()
    }

    /// Notes who has just used something of which all ends are the same; returns which side is its, and whether
    /// it alone uses it, or who does in turn with it. `None` where that is not clear yet.
    pub fn note_equal_user(&mut self, user: &User) -> Option<(Side, Option<User>)> {
        let (last, n_times) = self.last;
        let has = |side: Side| self.user(side).is_some_and(|known| known.is_process_of(user));
        let (side, n_times) = if has(last) {
            (last, n_times.saturating_add(1))
        } else if has(last.other()) || self.user(last).is_some() {
            (last.other(), 0)
        } else {
            (last, 0)
        };
        self.last = (side, n_times);
        match self.note_user(side, user) {
            _ if n_times >= ALONE => Some((side, None)),
            None => None,
            other => Some((side, other)),
        }
    }

    /// Returns the stream that the users of the two sides, which are not the same process, have together, or
    /// what the process of the one who uses `side` must do to have it.
    ///
    /// # Errors
    /// Those calls; none where they can have nothing together, or only later.
    pub fn link(
        &mut self,
        side: Side,
        user: &StreamUser,
        own: &User,
        other: &User,
    ) -> Result<Arc<dyn LinkedStream>, Vec<HostCall>> {
        // Those who share memory, but not descriptors, have no way to it.
        let is_possible = own.may_share_with(other)
            && other.streams.strong_count() > 0
            && !is_same(&own.streams, &other.streams);
        if !is_possible {
            // It is not soon asked again.
            self.n_small = 0;
            return Err(Vec::new());
        }
        let is_first = side == Side::First;
        let [first, second] = if is_first { [own, other] } else { [other, own] };
        let is_theirs = |link: &&Link| {
            let [one, two] = &link.users;
            is_same(one, &first.streams) && is_same(two, &second.streams)
        };
        let stream = match self.link.as_ref().filter(is_theirs) {
            Some(link) => link.stream.clone(),
            None => {
                // Those who take turns are not worth much.
                self.wanted = self.wanted.saturating_mul(2).min(MAX);
                let stream = user.streams.link().map_err(|_| Vec::new())?;
                let users = [first.streams.clone(), second.streams.clone()];
                self.link = Some(Link { stream: stream.clone(), users });
                stream
            }
        };
        if !stream.has_joined(is_first) {
            let calls = user.streams.join(&stream, is_first);
            if calls.is_empty() {
                (self.wanted, self.n_small) = (MAX, 0);
            }
            return Err(calls);
        }
        if stream.has_joined(!is_first) { Ok(stream) } else { Err(Vec::new()) }
    }

    /// Lends a stream of this kind to a process, or to the two that have `link`. Returns what it is called where
    /// the first and the second side are used.
    pub fn lend(
        &mut self,
        streams: &Arc<dyn Streams>,
        link: Option<Arc<dyn LinkedStream>>,
        kind: StreamKind,
    ) -> Option<impl Fn(Side) -> u64 + use<>> {
        self.vouch_no_more();
        let lent = match link {
            None => streams.clone().lend(kind),
            Some(link) => link.lend(kind),
        }?;
        let (first, second) = (lent.id(true), lent.id(false));
        self.lent = Some(lent);
        Some(move |side| if side == Side::First { first } else { second })
    }

    fn are_enough(&self) -> bool {
        self.n_small >= self.wanted
    }

    fn user(&self, side: Side) -> Option<&User> {
        self.users.get(side.index())?.as_ref()
    }

    fn set_user(&mut self, side: Side, user: Option<User>) {
        if let Some(place) = self.users.get_mut(side.index()) {
            *place = user;
        }
    }
}
