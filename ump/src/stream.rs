//! Bytes and text over a channel, with back-pressure: how a domain prints on the console domain.
//!
//! A [`ByteStream`] packs up to 56 bytes into each message. Nothing is lost: bytes that the peer has no room
//! for are not accepted, and the caller waits in its own way. The end of the stream is a message too, so it
//! differs from a peer that vanished.

use core::fmt;

use crate::endpoint::{Accepts, Endpoint};
use crate::error::{SendError, Violation};
use crate::message::{Kind, Message, PAYLOAD_BYTES};

/// A message with 1 to 56 bytes of the stream.
pub const DATA: Kind = Kind(0);

/// The message after the last byte of the stream; it has no payload.
pub const END: Kind = Kind(1);

/// What an endpoint must accept to carry a stream.
pub const ACCEPTS: Accepts = Accepts::kinds_below(Kind(2));

/// Why a stream does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// Not now: the peer has no room for more bytes, or has sent none. Try again later.
    WouldBlock,
    /// The peer hung up without an end of its stream.
    HungUp,
    /// [`ByteStream::finish`] was called: this side has said that no more bytes come.
    Finished,
    /// The peer broke the protocol, and the channel is closed.
    Broken(Violation),
}

impl From<SendError> for StreamError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::WouldBlock,
            SendError::HungUp => Self::HungUp,
            SendError::Broken(violation) => Self::Broken(violation),
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("the stream would block: try again later"),
            Self::HungUp => f.write_str("the peer hung up in the middle of the stream"),
            Self::Finished => f.write_str("the stream was finished: nothing can be written any more"),
            Self::Broken(violation) => violation.fmt(f),
        }
    }
}

impl core::error::Error for StreamError {}

/// Bytes of a message that is being filled or emptied.
#[derive(Debug)]
struct Buffer {
    bytes: [u8; PAYLOAD_BYTES],
    start: usize,
    end: usize,
}

impl Buffer {
    const EMPTY: Self = Self { bytes: [0; PAYLOAD_BYTES], start: 0, end: 0 };

    /// Takes over as many of `bytes` as there is room for, and returns how many.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let free = &mut self.bytes[self.end..];
        let count = free.len().min(bytes.len());
        free[..count].copy_from_slice(&bytes[..count]);
        self.end += count;
        count
    }

    /// Moves as many bytes to `out` as it has room for, and returns how many.
    fn empty_into(&mut self, out: &mut [u8]) -> usize {
        let held = &self.bytes[self.start..self.end];
        let count = held.len().min(out.len());
        out[..count].copy_from_slice(&held[..count]);
        self.start += count;
        count
    }
}

/// One end of a two-way stream of bytes.
///
/// Dropping it hangs up, and loses the bytes that [`write`](Self::write) accepted and that were not yet
/// [flushed](Self::flush).
#[derive(Debug)]
pub struct ByteStream<'m, const N: usize> {
    endpoint: Endpoint<'m, N>,
    /// Bytes accepted, not yet sent.
    outgoing: Buffer,
    /// Bytes of the last message received, not yet read.
    incoming: Buffer,
    finished: bool,
    peer_finished: bool,
}

impl<'m, const N: usize> ByteStream<'m, N> {
    /// A stream over `endpoint`, which [accepts](ACCEPTS) messages of a stream and was not used before.
    pub fn new(endpoint: Endpoint<'m, N>) -> Self {
        let (outgoing, incoming) = (Buffer::EMPTY, Buffer::EMPTY);
        Self { endpoint, outgoing, incoming, finished: false, peer_finished: false }
    }

    /// Accepts bytes from the front of `bytes`, as many as there is room for, and returns how many. They are
    /// sent when they fill a message, or by [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`StreamError`]; no byte was accepted.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        if self.finished {
            return Err(StreamError::Finished);
        }
        let mut accepted = 0;
        while accepted < bytes.len() {
            if self.outgoing.end == PAYLOAD_BYTES {
                match self.flush() {
                    Ok(()) => {}
                    Err(_) if accepted > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            accepted += self.outgoing.fill(&bytes[accepted..]);
        }
        Ok(accepted)
    }

    /// Sends what was accepted.
    ///
    /// # Errors
    /// [`StreamError`]; the bytes are kept for the next attempt.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        if self.outgoing.end == 0 {
            return Ok(());
        }
        let message = Message::from_buffer(DATA, &self.outgoing.bytes, self.outgoing.end);
        self.endpoint.try_send(&message)?;
        // Zeroes again, so that no message carries remains of an older one behind its own bytes.
        self.outgoing.bytes.fill(0);
        self.outgoing.end = 0;
        Ok(())
    }

    /// Sends what was accepted, and the end of the stream. The peer's bytes can still be read.
    ///
    /// # Errors
    /// [`StreamError`]; call it again, it goes on where it stopped.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if !self.finished {
            self.flush()?;
            self.endpoint.try_send(&Message::new(END, []))?;
            self.finished = true;
        }
        Ok(())
    }

    /// Writes and flushes all of `bytes`, calling `wait` whenever the peer has no room: there the caller
    /// yields, pauses or sleeps.
    ///
    /// # Errors
    /// [`StreamError`], but never [`StreamError::WouldBlock`].
    pub fn write_all(&mut self, bytes: &[u8], mut wait: impl FnMut()) -> Result<(), StreamError> {
        let mut rest = bytes;
        loop {
            let result = match rest {
                [] => self.flush(),
                _ => self.write(rest).map(|accepted| rest = &rest[accepted..]),
            };
            match result {
                Ok(()) if rest.is_empty() && self.outgoing.end == 0 => return Ok(()),
                Ok(()) => {}
                Err(StreamError::WouldBlock) => wait(),
                Err(error) => return Err(error),
            }
        }
    }

    /// This stream as a target of `write!`, which calls `wait` whenever the peer has no room. Text is sent
    /// when it fills a message; [`flush`](Self::flush) or [`finish`](Self::finish) sends the rest.
    pub fn text<W: FnMut()>(&mut self, wait: W) -> Text<'_, 'm, W, N> {
        Text { stream: self, wait }
    }

    /// Reads the bytes that are there into `out`, as many as it has room for, and returns how many; 0, if
    /// `out` is not empty, is the end of the peer's stream.
    ///
    /// # Errors
    /// [`StreamError::WouldBlock`] if there are none yet; otherwise what is wrong with the peer, once all
    /// good bytes were read.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        let mut count = 0;
        while count < out.len() {
            count += self.incoming.empty_into(&mut out[count..]);
            if count == out.len() || self.peer_finished {
                break;
            }
            match self.refill() {
                Ok(()) => {}
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Whether the peer has finished its stream and all of it was read.
    pub fn is_at_end(&self) -> bool {
        // The end is received only after the bytes before it were read.
        self.peer_finished
    }

    /// The channel below, to [sleep](Endpoint::prepare_sleep) on it or to [notify](Endpoint::must_notify)
    /// its peer. Messages sent or taken here become part of the stream, or break it.
    pub fn endpoint(&mut self) -> &mut Endpoint<'m, N> {
        &mut self.endpoint
    }

    /// Receives one message.
    fn refill(&mut self) -> Result<(), StreamError> {
        let Some(message) = self.endpoint.try_recv().map_err(StreamError::Broken)? else {
            return Err(if self.endpoint.is_finished() {
                StreamError::HungUp
            } else {
                StreamError::WouldBlock
            });
        };
        match (message.kind(), message.len()) {
            (DATA, 1..) => {
                let end = message.bytes(&mut self.incoming.bytes).len();
                (self.incoming.start, self.incoming.end) = (0, end);
                Ok(())
            }
            (END, 0) => {
                self.peer_finished = true;
                Ok(())
            }
            // An empty piece would keep the reader busy for nothing; an end has no payload.
            (kind, _) => Err(StreamError::Broken(self.endpoint.refuse(kind))),
        }
    }
}

/// A stream as the target of `write!`; made by [`ByteStream::text`].
#[derive(Debug)]
pub struct Text<'s, 'm, W, const N: usize> {
    stream: &'s mut ByteStream<'m, N>,
    wait: W,
}

impl<W: FnMut(), const N: usize> fmt::Write for Text<'_, '_, W, N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(accepted) => rest = &rest[accepted..],
                Err(StreamError::WouldBlock) => (self.wait)(),
                Err(_) => return Err(fmt::Error),
            }
        }
        Ok(())
    }
}
