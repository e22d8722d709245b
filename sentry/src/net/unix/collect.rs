//! Freeing sockets that only messages to each other keep open.
//!
//! A socket that has been sent to itself, or two that hold each other, would stay open for ever. When
//! a socket's descriptor is closed while sockets are in flight, those are looked for that no
//! descriptor and no message to a reachable socket leads to; what such a socket has been sent is
//! thrown away, which closes them. A description that a running call holds counts as reachable, so
//! nothing is thrown away that somebody could still receive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use super::UnixSocket;
use crate::net::SocketFile;
use crate::net::control::Files;
use crate::sync::Mutex;
use crate::vfs::OpenFile;
use crate::vfs::file::downcast;

/// The sockets that have been sent a socket and may still hold it.
static HOLDERS: Mutex<BTreeMap<usize, Weak<UnixSocket>>> = Mutex::new(BTreeMap::new());

/// The length of `HOLDERS`.
static N_HOLDERS: AtomicUsize = AtomicUsize::new(0);

/// Returns the socket that an open file is, if it is one.
fn socket_of(open: &Arc<OpenFile>) -> Option<usize> {
    let file = downcast::<SocketFile>(&open.file)?;
    Some(Arc::as_ptr(&file.socket).addr())
}

/// Is told that `to` has been sent files.
pub(super) fn sent(to: &Arc<UnixSocket>, files: &Files) {
    if files.as_slice().iter().all(|open| socket_of(open).is_none()) {
        return;
    }
    let mut holders = HOLDERS.lock();
    holders.insert(Arc::as_ptr(to).addr(), Arc::downgrade(to));
    N_HOLDERS.store(holders.len(), Ordering::Relaxed);
}

/// How often a socket's descriptor has been closed since the last collection, and how many holders
/// that has left.
static N_CLOSED: AtomicUsize = AtomicUsize::new(0);
static N_LEFT: AtomicUsize = AtomicUsize::new(0);

/// Looks for unreachable sockets, where sockets are in flight at all: with every descriptor that is
/// closed while they are few, and with many as seldom as keeps the price of closing constant.
pub(super) fn collect_if_needed() {
    if N_HOLDERS.load(Ordering::Relaxed) == 0 {
        return;
    }
    let n_closed = N_CLOSED.fetch_add(1, Ordering::Relaxed) + 1;
    if n_closed < N_LEFT.load(Ordering::Relaxed) {
        return;
    }
    N_CLOSED.store(0, Ordering::Relaxed);
    collect();
    N_LEFT.store(N_HOLDERS.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// What is known of a socket that is in flight.
#[derive(Default)]
struct InFlight {
    /// How many references messages hold to its description, by the description's address.
    n_held: BTreeMap<usize, usize>,
    /// Whether some description of it has other references than those.
    is_rooted: bool,
}

fn collect() {
    let holders: Vec<_> = {
        let mut holders = HOLDERS.lock();
        holders.retain(|_, socket| socket.strong_count() > 0);
        holders.values().filter_map(Weak::upgrade).collect()
    };
    // Which sockets each holder holds.
    let mut edges: BTreeMap<usize, Vec<Arc<OpenFile>>> = BTreeMap::new();
    let mut empty = Vec::new();
    for holder in &holders {
        let mut held = Vec::new();
        holder.inbox.lock().visit_files(&mut |files| {
            let sockets = files.as_slice().iter().filter(|open| socket_of(open).is_some());
            held.extend(sockets.cloned());
        });
        if held.is_empty() {
            empty.push(Arc::as_ptr(holder).addr());
        }
        edges.insert(Arc::as_ptr(holder).addr(), held);
    }
    {
        let mut known = HOLDERS.lock();
        for id in empty {
            known.remove(&id);
        }
        N_HOLDERS.store(known.len(), Ordering::Relaxed);
    }
    let reachable = reachable(&edges);
    // Our own references must not be the ones that close the files, under nobody's lock.
    drop(edges);
    for holder in holders {
        if reachable.contains(&Arc::as_ptr(&holder).addr()) {
            continue;
        }
        let unread = holder.inbox.lock().take_all();
        drop(unread);
    }
}

/// Returns the holders that a descriptor, or a message to a reachable socket, leads to.
fn reachable(edges: &BTreeMap<usize, Vec<Arc<OpenFile>>>) -> BTreeSet<usize> {
    let mut in_flight: BTreeMap<usize, InFlight> = BTreeMap::new();
    let mut opens: BTreeMap<usize, (&Arc<OpenFile>, usize)> = BTreeMap::new();
    for open in edges.values().flatten() {
        let Some(socket) = socket_of(open) else { continue };
        let id = Arc::as_ptr(open).addr();
        *in_flight.entry(socket).or_default().n_held.entry(id).or_default() += 1;
        opens.entry(id).or_insert((open, 0)).1 += 1;
    }
    for socket in in_flight.values_mut() {
        // Each reference of a message has a twin in `edges`.
        socket.is_rooted = socket.n_held.iter().any(|(id, n_held)| {
            opens.get(id).is_some_and(|(open, _)| Arc::strong_count(open) > n_held * 2)
        });
    }
    let is_root = |id: &usize| in_flight.get(id).is_none_or(|socket| socket.is_rooted);
    let mut reachable: BTreeSet<usize> = edges.keys().copied().filter(|id| is_root(id)).collect();
    let mut to_visit: Vec<usize> = reachable.iter().copied().collect();
    while let Some(id) = to_visit.pop() {
        for open in edges.get(&id).into_iter().flatten() {
            if let Some(socket) = socket_of(open)
                && reachable.insert(socket)
            {
                to_visit.push(socket);
            }
        }
    }
    reachable
}
