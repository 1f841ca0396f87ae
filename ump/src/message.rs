//! [`Message`]: what one line carries, and [`Header`]: the word that makes it a message.

use core::fmt;

use crate::line::WORDS;

/// Payload words of a message; the eighth word of the line is the header.
pub const PAYLOAD_WORDS: usize = WORDS - 1;

/// Payload bytes of a message.
pub const PAYLOAD_BYTES: usize = PAYLOAD_WORDS * 8;

/// The most capabilities that one message can announce: the header has four bits for their number.
pub const MAX_CAPABILITIES: u8 = 15;

/// The most messages published at once: the header has six bits for how many follow the first.
pub const MAX_BURST: usize = 64;

/// What a message means; the numbers belong to the protocol that a channel was bound for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The header word of a line, decoded.
///
/// | bits | field |
/// |---|---|
/// | 0–15 | `seq`: the number of the message, the first being 1, modulo 2^16 |
/// | 16–31 | `ack`: how many messages the writer has taken from the other ring, modulo 2^16 |
/// | 32–47 | `kind` |
/// | 48–53 | `length` of the payload in bytes, 0 to 56 |
/// | 54–57 | `capabilities`: how many the monitors transfer along with this message |
/// | 58–63 | `burst`: how many lines behind this one were stored before it |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The number of the message modulo 2^16.
    pub seq: u16,
    /// How many messages its writer has taken from the other ring, modulo 2^16.
    pub ack: u16,
    /// What it means.
    pub kind: Kind,
    /// Payload bytes; only 6 bits are encoded.
    pub length: u8,
    /// Capabilities that travel along; only 4 bits are encoded.
    pub capabilities: u8,
    /// Lines behind this one that are already complete; only 6 bits are encoded.
    pub burst: u8,
}

const KIND_SHIFT: u32 = 0;
pub(crate) const LENGTH_SHIFT: u32 = 16;
const CAPABILITIES_SHIFT: u32 = 22;
pub(crate) const BURST_SHIFT: u32 = 26;

/// The length in the upper half of a header word.
#[inline(always)]
pub(crate) const fn length(info: u32) -> u8 {
    (info >> LENGTH_SHIFT) as u8 & 0x3f
}

impl Header {
    /// The word that is stored in the line.
    pub const fn encode(self) -> u64 {
        let info = (self.kind.0 as u32) << KIND_SHIFT
            | (self.length as u32 & 0x3f) << LENGTH_SHIFT
            | (self.capabilities as u32 & 0xf) << CAPABILITIES_SHIFT
            | (self.burst as u32 & 0x3f) << BURST_SHIFT;
        Self::join(self.seq, self.ack, info)
    }

    /// The fields of any word; none of them is checked here.
    pub const fn decode(word: u64) -> Self {
        let info = (word >> 32) as u32;
        Self {
            seq: word as u16,
            ack: (word >> 16) as u16,
            kind: Kind((info >> KIND_SHIFT) as u16),
            length: length(info),
            capabilities: (info >> CAPABILITIES_SHIFT) as u8 & 0xf,
            burst: (info >> BURST_SHIFT) as u8,
        }
    }

    /// The header word of message `seq` whose type, length and capabilities are `info`.
    pub(crate) const fn join(seq: u16, ack: u16, info: u32) -> u64 {
        seq as u64 | (ack as u64) << 16 | (info as u64) << 32
    }
}

/// The payload is longer than [`PAYLOAD_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Its length in bytes.
    pub bytes: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes } = self;
        write!(f, "{bytes} bytes do not fit a message of {PAYLOAD_BYTES}: send several, or pass a buffer")
    }
}

impl core::error::Error for TooLong {}

/// A message: a kind and up to seven words.
#[derive(Clone, Copy)]
pub struct Message {
    pub(crate) words: [u64; PAYLOAD_WORDS],
    /// The upper half of the header word, but for the burst, which is 0 here.
    pub(crate) info: u32,
}

impl Message {
    /// A message of the given words. More than seven do not compile.
    pub const fn new<const W: usize>(kind: Kind, payload: [u64; W]) -> Self {
        const { assert!(W <= PAYLOAD_WORDS, "a message has at most seven payload words") };
        let mut words = [0; PAYLOAD_WORDS];
        let mut index = 0;
        while index < W {
            words[index] = payload[index];
            index += 1;
        }
        Self { words, info: Self::info(kind, 8 * W) }
    }

    /// A message of the given words.
    ///
    /// # Errors
    /// [`TooLong`] if there are more than seven.
    pub fn from_words(kind: Kind, payload: &[u64]) -> Result<Self, TooLong> {
        let mut words = [0; PAYLOAD_WORDS];
        let Some(used) = words.get_mut(..payload.len()) else {
            return Err(TooLong { bytes: size_of_val(payload) });
        };
        used.copy_from_slice(payload);
        Ok(Self { words, info: Self::info(kind, 8 * payload.len()) })
    }

    /// A message of the first `count` of `words`; of all if `count` is more.
    #[inline]
    pub fn from_first(kind: Kind, count: usize, mut words: [u64; PAYLOAD_WORDS]) -> Self {
        let count = count.min(PAYLOAD_WORDS);
        words[count..].fill(0);
        Self { words, info: Self::info(kind, 8 * count) }
    }

    /// A message of the given bytes, which lie in the words little-endian, the rest of the last word zero.
    ///
    /// # Errors
    /// [`TooLong`] if there are more than [`PAYLOAD_BYTES`].
    pub fn from_bytes(kind: Kind, payload: &[u8]) -> Result<Self, TooLong> {
        let mut buffer = [0; PAYLOAD_BYTES];
        let Some(used) = buffer.get_mut(..payload.len()) else {
            return Err(TooLong { bytes: payload.len() });
        };
        used.copy_from_slice(payload);
        Ok(Self::from_buffer(kind, &buffer, payload.len()))
    }

    /// A message of the first `bytes` bytes of `buffer`, the others being zero.
    pub(crate) fn from_buffer(kind: Kind, buffer: &[u8; PAYLOAD_BYTES], bytes: usize) -> Self {
        let mut words = [0; PAYLOAD_WORDS];
        for (word, bytes) in words.iter_mut().zip(buffer.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self { words, info: Self::info(kind, bytes.min(PAYLOAD_BYTES)) }
    }

    /// The same message, announcing `count` capabilities that the monitors transfer along with it; at most
    /// [`MAX_CAPABILITIES`] are announced.
    pub const fn with_capabilities(mut self, count: u8) -> Self {
        let count = if count < MAX_CAPABILITIES { count } else { MAX_CAPABILITIES };
        self.info = self.info & !(0xf << CAPABILITIES_SHIFT) | (count as u32) << CAPABILITIES_SHIFT;
        self
    }

    const fn info(kind: Kind, bytes: usize) -> u32 {
        (kind.0 as u32) << KIND_SHIFT | (bytes as u32) << LENGTH_SHIFT
    }

    /// What the message means.
    pub const fn kind(&self) -> Kind {
        Kind((self.info >> KIND_SHIFT) as u16)
    }

    /// How many payload bytes it has.
    #[expect(clippy::len_without_is_empty, reason = "an empty payload is an ordinary message")]
    pub const fn len(&self) -> usize {
        length(self.info) as usize
    }

    /// How many capabilities come along.
    pub const fn capabilities(&self) -> u8 {
        (self.info >> CAPABILITIES_SHIFT) as u8 & 0xf
    }

    /// The words that hold the payload; of the last one only the bytes that [`len`](Self::len) covers count.
    pub fn words(&self) -> &[u64] {
        &self.words[..self.len().div_ceil(8).min(PAYLOAD_WORDS)]
    }

    /// All seven words, for protocols whose kinds have a fixed number of words: what lies behind the payload
    /// is zero from a peer that uses this crate and anything from another.
    pub const fn payload(&self) -> &[u64; PAYLOAD_WORDS] {
        &self.words
    }

    /// The payload as bytes, laid out in `buffer`.
    pub fn bytes<'b>(&self, buffer: &'b mut [u8; PAYLOAD_BYTES]) -> &'b [u8] {
        for (bytes, word) in buffer.chunks_exact_mut(8).zip(self.words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        &buffer[..self.len().min(PAYLOAD_BYTES)]
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = ([0; PAYLOAD_BYTES], [0; PAYLOAD_BYTES]);
        self.info == other.info && self.bytes(&mut ours) == other.bytes(&mut theirs)
    }
}

impl Eq for Message {}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind().0)
            .field("bytes", &self.len())
            .field("capabilities", &self.capabilities())
            .field("words", &format_args!("{:x?}", self.words()))
            .finish()
    }
}

const _: () = assert!(size_of::<Message>() == 64);
