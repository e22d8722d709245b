//! Round trips of every request, and decoding of damaged and random ones.

use super::*;
use crate::codec::Header;
use crate::reply::{self, Entries, EntriesWriter, Entry, Lookups, Node, Walk};
use crate::{Attr, MAX_MESSAGE, Statfs};
use syscalls::Errno;

fn name(bytes: &[u8]) -> Name<'_> {
    Name::new(bytes).expect("a valid name")
}

fn samples<'a>(names: &'a [Name<'a>], fids: &'a [Fid]) -> Vec<Request<'a>> {
    let ownership = Ownership { mode: 0o644, umask: 0o27, uid: 1000, gid: 100 };
    let kind = BindKind::Stream;
    vec![
        Request::Attach { version: 1 },
        Request::Walk { fid: 3, names: Names::new(names) },
        Request::Lookup { dir: 3, names: Names::new(names) },
        Request::Getattr { fid: 7 },
        Request::Setattr { fid: 7, attr: SetAttr { mask: 0xff, size: 9, ..SetAttr::default() } },
        Request::Open { fid: 7, flags: OpenFlags::READ | OpenFlags::WRITE },
        Request::Create { dir: 1, name: name(b"new"), flags: OpenFlags::WRITE, ownership },
        Request::Mkdir { dir: 1, name: name(b"d"), ownership },
        Request::Symlink { dir: 1, name: name(b"l"), target: b"../x", ownership },
        Request::Link { fid: 4, dir: 1, name: name(b"h") },
        Request::Mknod { dir: 1, name: name(b"fifo"), ownership, major: 1, minor: 3 },
        Request::Unlink { dir: 1, name: name(b"d"), flags: UnlinkFlags::DIRECTORY },
        Request::Rename {
            old_dir: 1,
            old_name: name(b"a"),
            new_dir: 2,
            new_name: name(b"b"),
            flags: RenameFlags::NOREPLACE,
        },
        Request::Readlink { fid: 4 },
        Request::Readdir { fid: 4, cookie: u64::MAX },
        Request::Statfs { fid: 4 },
        Request::GetXattr { fid: 4, name: name(b"user.x") },
        Request::SetXattr { fid: 4, name: name(b"user.x"), value: b"", flags: XattrFlags::CREATE },
        Request::ListXattr { fid: 4 },
        Request::RemoveXattr { fid: 4, name: name(b"user.x") },
        Request::Fsync { fid: 4, data_only: true },
        Request::Connect { fid: 4, kind },
        Request::Bind { dir: 4, name: name(b"s"), ownership, kind },
        Request::TmpFile { dir: 0 },
        Request::SyncFs { fid: 0 },
        Request::Notify,
        Request::Watch { fid: 4 },
        Request::Unwatch { watch: 1 },
        Request::Close { fids: Fids::new(fids) },
    ]
}

/// A small generator (xorshift64*), so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).expect("small")).expect("small")
    }
}

fn decode_everything(bytes: &[u8]) {
    if let Ok((_, request)) = Request::decode(bytes) {
        if let Request::Walk { names, .. } | Request::Lookup { names, .. } = &request {
            assert_eq!(names.iter().count(), names.len());
        }
        let mut again = Vec::new();
        request.encode(0, &mut again).expect("what was decoded can be encoded");
    }
    if let Ok(walk) = Walk::decode(bytes) {
        assert!(walk.nodes().count() <= MAX_WALK);
    }
    if let Ok(lookups) = Lookups::decode(bytes) {
        assert!(lookups.count() <= MAX_WALK);
    }
    if let Ok(entries) = Entries::decode(bytes) {
        for entry in entries {
            assert!(!entry.name.as_bytes().contains(&b'/'));
        }
    }
    let _ = reply::body(bytes, Opcode::Getattr, 0);
    let _ = reply::fixed::<Attr>(bytes);
    let _ = reply::fixed::<Statfs>(bytes);
}

#[test]
fn every_request_survives_a_round_trip() {
    let names = [name(b"usr"), name(b"lib"), name(b"..x")];
    let fids = [1, 2, 99];
    let mut buffer = Vec::new();
    for request in samples(&names, &fids) {
        request.encode(42, &mut buffer).expect("encode");
        let (header, decoded) = Request::decode(&buffer).expect("decode");
        assert_eq!(header.tag, 42);
        let mut again = Vec::new();
        decoded.encode(42, &mut again).expect("encode");
        assert_eq!(buffer, again, "{request:?}");
        if let (Request::Walk { names: sent, .. }, Request::Walk { names: got, .. }) =
            (&request, &decoded)
        {
            assert!(sent.iter().eq(got.iter()));
        }
    }
}

#[test]
fn every_shorter_or_longer_request_is_refused() {
    let names = [name(b"usr"), name(b"lib")];
    let mut buffer = Vec::new();
    for request in samples(&names, &[]) {
        request.encode(1, &mut buffer).expect("encode");
        for length in 0..buffer.len() {
            let mut cut = buffer.get(..length).expect("shorter").to_vec();
            assert!(Request::decode(&cut).is_err());
            // The same with a header that agrees with the length.
            let size = u32::try_from(length).expect("small").to_ne_bytes();
            if let Some(place) = cut.get_mut(..4) {
                place.copy_from_slice(&size);
                assert!(Request::decode(&cut).is_err(), "{request:?} cut to {length}");
            }
        }
        let mut longer = buffer.clone();
        longer.push(0);
        let size = u32::try_from(longer.len()).expect("small").to_ne_bytes();
        longer.get_mut(..4).expect("a header").copy_from_slice(&size);
        assert!(Request::decode(&longer).is_err(), "{request:?} made longer");
    }
}

#[test]
fn bad_names_are_refused() {
    let long = [b'a'; 256];
    for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &long] {
        assert_eq!(Name::new(bad), Err(WireError::BadName));
    }
    assert!(Name::new(&long[..255]).is_ok());
    assert!(Name::new(b"...").is_ok());
}

#[test]
fn unknown_flags_and_an_error_in_a_request_are_refused() {
    let mut buffer = Vec::new();
    Request::Open { fid: 1, flags: OpenFlags::READ }.encode(0, &mut buffer).expect("encode");
    let mut bad = buffer.clone();
    *bad.get_mut(23).expect("flags") = 0x80;
    assert_eq!(Request::decode(&bad).err(), Some(WireError::BadFlags));
    Header::set_cpu(&mut buffer, 5);
    let (header, _) = Request::decode(&buffer).expect("decode");
    assert_eq!(header.cpu(), Some(5));
    *buffer.get_mut(6).expect("errno") = 1;
    assert_eq!(Request::decode(&buffer).err(), Some(WireError::BadFlags));
}

#[test]
fn replies_survive_a_round_trip() {
    let mut buffer = Vec::new();
    let nodes = [Node::new(5, Attr { ino: 9, ..Attr::default() }); 3];
    Walk::encode(7, &nodes, Some(Errno::ENOENT), Some(b"target"), &mut buffer).expect("encode");
    let (body, n_fds) = reply::body(&buffer, Opcode::Walk, 7).expect("decode").expect("no error");
    let walk = Walk::decode(body).expect("decode");
    assert_eq!(n_fds, 0);
    assert_eq!(walk.nodes().collect::<Vec<_>>(), nodes);
    assert_eq!(walk.stopped, Some(Errno::ENOENT));
    assert_eq!(walk.target, Some(&b"target"[..]));

    let results = [Ok(nodes[0]), Err(Errno::ENOENT), Ok(nodes[1])];
    Lookups::encode(7, &results, &mut buffer).expect("encode");
    let (body, _) = reply::body(&buffer, Opcode::Lookup, 7).expect("decode").expect("no error");
    assert_eq!(Lookups::decode(body).expect("decode").collect::<Vec<_>>(), results);

    let mut writer = EntriesWriter::new(8, &mut buffer);
    let entry = Entry { ino: 1, next: 2, kind: 4, name: name(b"entry") };
    let mut n_entries = 0;
    while writer.has_room() {
        writer.push(&entry).expect("push");
        n_entries += 1;
    }
    writer.finish(true).expect("fits");
    let (body, _) = reply::body(&buffer, Opcode::Readdir, 8).expect("decode").expect("no error");
    let entries = Entries::decode(body).expect("decode");
    assert!(entries.is_end());
    assert_eq!(entries.filter(|e| *e == entry).count(), n_entries);

    reply::encode_status(Opcode::Open, 9, Some(Errno::EROFS), 0, &mut buffer).expect("encode");
    assert_eq!(reply::body(&buffer, Opcode::Open, 9), Ok(Err(Errno::EROFS)));
    assert_eq!(reply::body(&buffer, Opcode::Open, 10), Err(WireError::BadOpcode));
}

#[test]
fn random_and_damaged_messages_never_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let names = [name(b"usr"), name(b"lib"), name(b"x")];
    let fids = [1, 2, 3];
    let mut buffer = Vec::new();
    for _ in 0..20_000 {
        // Random bytes below a plausible header.
        let length = random.below(200) + size_of::<Header>();
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[3]).collect();
        let opcode = u16::try_from(random.below(27)).expect("small");
        let header = [
            u32::try_from(length).expect("small").to_ne_bytes(),
            u32::from(opcode).to_ne_bytes(),
            [0; 4],
            [0; 4],
        ];
        bytes.get_mut(..16).expect("a header").copy_from_slice(header.as_flattened());
        decode_everything(&bytes);
        decode_everything(bytes.get(16..).expect("a body"));
    }
    for request in samples(&names, &fids) {
        request.encode(1, &mut buffer).expect("encode");
        for _ in 0..500 {
            let mut bytes = buffer.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next().to_le_bytes()[5];
                }
            }
            decode_everything(&bytes);
        }
    }
    decode_everything(&vec![0; MAX_MESSAGE + 1]);
}
