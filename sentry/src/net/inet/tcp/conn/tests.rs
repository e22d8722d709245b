//! Two ends of a connection, without the rest of the stack.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use syscalls::Errno;
use syscalls::abi::socket::MsgFlags;

use super::{Conn, Phase, Side};
use crate::net::inet::addr::Endpoint;
use crate::net::options::Options;
use crate::sync::WaitQueue;
use crate::vfs::{SliceSource, VecSink};

fn connection() -> Arc<Conn> {
    let addr = |port| Endpoint { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port };
    let options = Arc::new(Options::default());
    let queues = [WaitQueue::new(), WaitQueue::new()];
    Conn::new(None, [addr(1), addr(2)], [&options, &options], queues, false)
}

fn send(conn: &Conn, side: Side, data: &[u8]) -> Result<usize, Errno> {
    conn.send(side, &mut SliceSource::new(data), MsgFlags::empty())
}

fn recv(conn: &Conn, side: Side) -> Result<Vec<u8>, Errno> {
    let mut sink = VecSink::new(100);
    conn.recv(side, &mut sink, MsgFlags::empty()).map(|_| sink.data)
}

#[test]
fn close_after_both_have_sent_is_clean() {
    let conn = connection();
    assert_eq!(send(&conn, Side::Client, b"abc"), Ok(3));
    assert!(conn.close(Side::Client, false));
    assert_eq!(recv(&conn, Side::Server), Ok(b"abc".to_vec()));
    assert_eq!(recv(&conn, Side::Server), Ok(Vec::new()));
    assert_eq!(conn.look(Side::Server, false).phase, Phase::CloseWait);
    assert!(!conn.close(Side::Server, false));
}

#[test]
fn write_to_a_closed_peer_fails_the_second_time() {
    let conn = connection();
    conn.close(Side::Server, false);
    assert_eq!(send(&conn, Side::Client, b"x"), Ok(1));
    assert_eq!(send(&conn, Side::Client, b"x"), Err(Errno::EPIPE));
    assert_eq!(recv(&conn, Side::Client), Ok(Vec::new()));
}

#[test]
fn unread_data_resets_the_peer() {
    let conn = connection();
    assert_eq!(send(&conn, Side::Client, b"x"), Ok(1));
    assert_eq!(send(&conn, Side::Server, b"y"), Ok(1));
    conn.close(Side::Server, false);
    assert_eq!(recv(&conn, Side::Client), Ok(b"y".to_vec()));
    assert_eq!(recv(&conn, Side::Client), Err(Errno::ECONNRESET));
    assert_eq!(recv(&conn, Side::Client), Ok(Vec::new()));
    assert_eq!(send(&conn, Side::Client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn urgent_byte_is_beside_the_stream() {
    let conn = connection();
    assert_eq!(send(&conn, Side::Client, b"ab"), Ok(2));
    let sent = conn.send(Side::Client, &mut SliceSource::new(b"cU"), MsgFlags::OOB);
    assert_eq!(sent, Ok(2));
    assert_eq!(send(&conn, Side::Client, b"de"), Ok(2));
    assert_eq!(recv(&conn, Side::Server), Ok(b"abc".to_vec()));
    assert!(conn.look(Side::Server, false).is_at_mark);
    let mut sink = VecSink::new(10);
    assert_eq!(conn.recv(Side::Server, &mut sink, MsgFlags::OOB), Ok((1, MsgFlags::OOB)));
    assert_eq!(sink.data, b"U");
    assert_eq!(recv(&conn, Side::Server), Ok(b"de".to_vec()));
    assert!(!conn.look(Side::Server, false).is_at_mark);
}

#[test]
fn full_direction_takes_no_more() {
    let conn = connection();
    let data = vec![0; 4 << 20];
    let n = send(&conn, Side::Client, &data).unwrap();
    assert!(n < data.len());
    assert_eq!(send(&conn, Side::Client, &data), Err(Errno::EAGAIN));
    assert!(!conn.look(Side::Client, false).is_writable);
}
