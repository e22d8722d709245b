//! Messages of netlink: requests taken apart, answers put together.

use syscalls::Errno;
use syscalls::SysResult;
use syscalls::abi::netlink::{
    NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR, NLMSG_MIN_TYPE, Nlattr, NlmFlags,
};
use syscalls::abi::socket::Nlmsghdr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The size of a message's header.
const HEADER: usize = size_of::<Nlmsghdr>();

/// A request.
pub(super) struct Request<'a> {
    pub(super) kind: u16,
    pub(super) is_dump: bool,
    pub(super) flags: NlmFlags,
    pub(super) payload: &'a [u8],
}

/// One message of an answer: its type and what follows the header.
#[derive(Clone)]
pub(super) struct Part {
    kind: u16,
    payload: Vec<u8>,
}

impl Part {
    /// Creates a message that begins with a structure.
    pub(super) fn new<T: IntoBytes + Immutable>(kind: u16, head: &T) -> Self {
        Self { kind, payload: head.as_bytes().to_vec() }
    }

    /// Takes messages apart that lie one behind the other; those of control are left out.
    pub(super) fn split(mut data: &[u8]) -> Vec<Self> {
        let mut parts = Vec::new();
        while let Ok((header, _)) = Nlmsghdr::read_from_prefix(data) {
            let len = usize::try_from(header.nlmsg_len).unwrap_or(usize::MAX);
            let Some(payload) = data.get(HEADER..len) else { break };
            if header.nlmsg_type >= NLMSG_MIN_TYPE {
                parts.push(Self { kind: header.nlmsg_type, payload: payload.to_vec() });
            }
            data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        parts
    }

    /// Returns what follows the header.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Makes it a message of another type.
    pub(super) fn with_kind(self, kind: u16) -> Self {
        Self { kind, ..self }
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        let len = u16::try_from(size_of::<Nlattr>() + data.len()).unwrap_or(u16::MAX);
        self.payload.extend_from_slice(Nlattr { nla_len: len, nla_type: kind }.as_bytes());
        self.payload.extend_from_slice(data);
        self.payload.resize(self.payload.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an attribute that is a number.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }
}

/// Returns a request for a dump of everything of a type.
pub(super) fn dump_request(kind: u16) -> Vec<u8> {
    let flags = NlmFlags::REQUEST | NlmFlags::ROOT | NlmFlags::MATCH;
    let header = Nlmsghdr {
        nlmsg_len: u32::try_from(HEADER + 4).unwrap_or(0),
        nlmsg_type: kind,
        nlmsg_flags: u16::try_from(flags.bits()).unwrap_or(0),
        nlmsg_seq: 1,
        nlmsg_pid: 0,
    };
    [header.as_bytes(), &[0; 4]].concat()
}

/// Returns the attributes behind a structure of `skip` bytes.
pub(super) fn attributes(payload: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = payload.get(skip.next_multiple_of(4)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, _) = Nlattr::read_from_prefix(rest).ok()?;
        let len = usize::from(head.nla_len);
        let data = rest.get(size_of::<Nlattr>()..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits are flags.
        Some((head.nla_type & 0x3fff, data))
    })
}

fn encode(out: &mut Vec<u8>, request: &Nlmsghdr, port: u32, kind: u16, flags: u16, payload: &[u8]) {
    let header = Nlmsghdr {
        nlmsg_len: u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX),
        nlmsg_type: kind,
        nlmsg_flags: flags,
        nlmsg_seq: request.nlmsg_seq,
        nlmsg_pid: port,
    };
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Returns a message that is no answer.
pub(super) fn notification(part: &Part) -> Vec<u8> {
    let header =
        Nlmsghdr { nlmsg_len: 0, nlmsg_type: 0, nlmsg_flags: 0, nlmsg_seq: 0, nlmsg_pid: 0 };
    let mut out = Vec::new();
    encode(&mut out, &header, 0, part.kind, 0, &part.payload);
    out
}

/// Serves the requests in a datagram; returns the datagrams of the answers.
pub(super) fn serve(
    mut data: &[u8],
    port: u32,
    is_capped: bool,
    answer: impl Fn(&Request<'_>) -> SysResult<Vec<Part>>,
) -> Vec<Vec<u8>> {
    let multi = u16::try_from(NlmFlags::MULTI.bits()).unwrap_or(0);
    let mut datagrams = Vec::new();
    while let Ok((header, _)) = Nlmsghdr::read_from_prefix(data) {
        let len = usize::try_from(header.nlmsg_len).unwrap_or(usize::MAX);
        let Some(payload) = data.get(HEADER..len) else { break };
        let whole = data.get(..len).unwrap_or_default();
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        let flags = NlmFlags::from_bits_retain(header.nlmsg_flags.into());
        let is_request = flags.contains(NlmFlags::REQUEST) && header.nlmsg_type >= NLMSG_MIN_TYPE;
        let is_dump = is_request && flags.contains(NlmFlags::ROOT | NlmFlags::MATCH);
        let result = if is_request {
            answer(&Request { kind: header.nlmsg_type, is_dump, flags, payload })
        } else {
            Ok(Vec::new())
        };
        let mut out = Vec::new();
        let error = match result {
            Ok(parts) => {
                for part in parts {
                    let flags = if is_dump { multi } else { 0 };
                    encode(&mut out, &header, port, part.kind, flags, &part.payload);
                }
                None
            }
            Err(error) => Some(error),
        };
        if !out.is_empty() {
            datagrams.push(std::mem::take(&mut out));
        }
        if is_dump && error.is_none() {
            encode(&mut out, &header, port, NLMSG_DONE, multi, &0_i32.to_ne_bytes());
        } else if error.is_some() || flags.contains(NlmFlags::ACK) {
            let number = error.map_or(0, Errno::raw);
            let is_short = is_capped || error.is_none();
            let about = if is_short { whole.get(..HEADER) } else { Some(whole) };
            let payload = [&(-number).to_ne_bytes(), about.unwrap_or_default()].concat();
            let flags = if is_short { NLM_F_CAPPED } else { 0 };
            encode(&mut out, &header, port, NLMSG_ERROR, flags, &payload);
        }
        if !out.is_empty() {
            datagrams.push(out);
        }
    }
    datagrams
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;
    use syscalls::abi::netlink::{NLMSG_DONE, NLMSG_ERROR};

    use super::{Part, attributes, serve};

    fn request(flags: u16) -> Vec<u8> {
        let mut bytes = 16_u32.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&18_u16.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&7_u32.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes
    }

    fn kind(datagram: &[u8]) -> u16 {
        u16::from_ne_bytes([datagram[4], datagram[5]])
    }

    #[test]
    fn dump_ends_with_a_message_of_its_own() {
        let answers = serve(&request(0x301), 5, false, |_| {
            Ok(vec![Part::new(16, &1_u32), Part::new(16, &2_u32)])
        });
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].len(), 40);
        assert_eq!(kind(&answers[1]), NLMSG_DONE);
    }

    #[test]
    fn errors_and_acknowledgements_name_the_request() {
        let answers = serve(&request(1), 5, false, |_| Err(Errno::ENODEV));
        assert_eq!(kind(&answers[0]), NLMSG_ERROR);
        assert_eq!(i32::from_ne_bytes(answers[0][16..20].try_into().unwrap()), -19);
        assert_eq!(serve(&request(5), 5, false, |_| Ok(Vec::new())).len(), 1);
        assert!(serve(&request(1), 5, false, |_| Ok(Vec::new())).is_empty());
    }

    #[test]
    fn hostile_lengths_end_the_parse() {
        for len in [0_u32, 1, 15, 17, 100, u32::MAX] {
            let mut bytes = request(5);
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            assert!(serve(&bytes, 5, false, |_| Ok(Vec::new())).is_empty());
        }
        assert_eq!(attributes(&[0; 64], 0).count(), 0);
        assert_eq!(attributes(&[255; 64], 0).count(), 0);
        assert_eq!(attributes(&[4, 0, 3, 0, 5, 0, 1, 0, 9], 0).count(), 2);
    }
}
