//! Protocol buffers as far as the shim's messages need them: numbers, strings and nested messages.
//!
//! A message is read by field number and written field by field. What a message lacks reads as
//! zero or empty, and unknown fields are passed over, as the format has it.

/// Bytes that are no protocol buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// A message that has been received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message<'a> {
    fields: Vec<(u64, Value<'a>)>,
}

impl<'a> Message<'a> {
    pub(crate) fn parse(mut rest: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = take_number(&mut rest)?;
            let value = match key & 7 {
                0 => Some(Value::Number(take_number(&mut rest)?)),
                2 => {
                    let length = usize::try_from(take_number(&mut rest)?).map_err(|_| Malformed)?;
                    Some(Value::Bytes(take(&mut rest, length)?))
                }
                // Fixed numbers, which none of the messages has.
                1 => take(&mut rest, 8).map(|_| None)?,
                5 => take(&mut rest, 4).map(|_| None)?,
                _ => return Err(Malformed),
            };
            fields.extend(value.map(|value| (key >> 3, value)));
        }
        Ok(Self { fields })
    }

    /// Returns the last value of a numeric field, or zero.
    pub(crate) fn number(&self, field: u64) -> u64 {
        let of_field = |(number, value): &(u64, Value<'_>)| match value {
            Value::Number(value) if *number == field => Some(*value),
            _ => None,
        };
        self.fields.iter().rev().find_map(of_field).unwrap_or(0)
    }

    pub(crate) fn flag(&self, field: u64) -> bool {
        self.number(field) != 0
    }

    /// Returns all values of a repeated field.
    pub(crate) fn repeated(&self, field: u64) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.fields.iter().filter_map(move |(number, value)| match value {
            Value::Bytes(bytes) if *number == field => Some(*bytes),
            _ => None,
        })
    }

    pub(crate) fn bytes(&self, field: u64) -> &'a [u8] {
        self.repeated(field).next_back().unwrap_or_default()
    }

    pub(crate) fn text(&self, field: u64) -> Result<String, Malformed> {
        String::from_utf8(self.bytes(field).to_vec()).map_err(|_| Malformed)
    }

    pub(crate) fn message(&self, field: u64) -> Result<Self, Malformed> {
        Self::parse(self.bytes(field))
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, left) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = left;
    Ok(taken)
}

fn take_number(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = *take(rest, 1)? else { return Err(Malformed) };
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// A message that is being made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a number; zero is left out, as the format has it.
    pub(crate) fn number(mut self, field: u64, value: impl Into<u64>) -> Self {
        let value = value.into();
        if value != 0 {
            self.put_number(field << 3);
            self.put_number(value);
        }
        self
    }

    /// Adds bytes or text; what is empty is left out.
    pub(crate) fn bytes(self, field: u64, value: impl AsRef<[u8]>) -> Self {
        if value.as_ref().is_empty() { self } else { self.element(field, value.as_ref()) }
    }

    /// Adds a nested message, even an empty one.
    pub(crate) fn message(self, field: u64, message: &Self) -> Self {
        self.element(field, &message.0)
    }

    /// Adds a list of numbers.
    pub(crate) fn numbers(self, field: u64, values: impl IntoIterator<Item = u64>) -> Self {
        let mut packed = Self::new();
        for value in values {
            packed.put_number(value);
        }
        self.bytes(field, packed.0)
    }

    /// Adds an element of a repeated field.
    pub(crate) fn element(mut self, field: u64, value: &[u8]) -> Self {
        self.put_number(field << 3 | 2);
        self.put_number(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn put_number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }
}

/// Returns a message of `google.protobuf.Any`.
pub(crate) fn any(type_url: &str, value: impl AsRef<[u8]>) -> Writer {
    Writer::new().bytes(1, type_url).bytes(2, value)
}

#[cfg(test)]
mod tests {
    use super::{Malformed, Message, Writer};

    #[test]
    fn message_comes_back_as_it_was_written() {
        let nested = Writer::new().number(1, 300_u64);
        let bytes = Writer::new()
            .bytes(1, "name")
            .number(2, u64::MAX)
            .number(3, 0_u64)
            .message(4, &nested)
            .element(5, b"a")
            .element(5, b"b")
            .into_bytes();

        let message = Message::parse(&bytes).unwrap();

        assert_eq!(message.text(1).unwrap(), "name");
        assert_eq!(message.number(2), u64::MAX);
        assert_eq!(message.number(3), 0);
        assert_eq!(message.message(4).unwrap().number(1), 300);
        assert_eq!(message.repeated(5).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(message.bytes(9), b"");
    }

    #[test]
    fn numbers_are_packed() {
        let bytes = Writer::new().numbers(4, [1, 200]).into_bytes();
        assert_eq!(bytes, [0x22, 3, 1, 0xc8, 1]);
    }

    #[test]
    fn fixed_fields_are_passed_over() {
        let bytes = [&[9][..], &[7; 8], &[0x15], &[7; 4], &[0x18, 5]].concat();
        assert_eq!(Message::parse(&bytes).unwrap().number(3), 5);
    }

    #[test]
    fn no_input_panics_or_reads_past_its_end() {
        let whole = Writer::new().bytes(1, "some text").number(2, 70_000_u64).into_bytes();
        for length in 0..whole.len() {
            for byte in 0..=u8::MAX {
                let mut input = whole[..length].to_vec();
                input.push(byte);
                drop(Message::parse(&input).map(|message| message.text(1)));
            }
        }
        assert_eq!(Message::parse(&[0xff; 11]).map(|_| ()), Err(Malformed));
        assert_eq!(Message::parse(&[0x0a, 5, b'x']).map(|_| ()), Err(Malformed));
    }
}
