//! What can go wrong on a channel, one variant per cause.

use core::fmt;

use crate::message::{Kind, PAYLOAD_BYTES};

/// How the peer broke the protocol. It ends the channel, and nothing but the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A line has a sequence number beyond the expected one: messages were skipped.
    Skipped {
        /// The number expected, modulo 2^16.
        expected: u16,
        /// The number found.
        found: u16,
    },
    /// A line has a sequence number before the expected one, but not the one it held a lap ago.
    Replayed {
        /// The number expected, modulo 2^16.
        expected: u16,
        /// The number found.
        found: u16,
    },
    /// More messages are acknowledged than were sent.
    AcknowledgedAhead {
        /// How many were sent, modulo 2^16.
        sent: u16,
        /// How many are acknowledged, modulo 2^16.
        acknowledged: u16,
    },
    /// Fewer messages are acknowledged than before.
    AcknowledgedBackwards {
        /// How many were acknowledged before, modulo 2^16.
        before: u16,
        /// How many are acknowledged now, modulo 2^16.
        acknowledged: u16,
    },
    /// The acknowledgement line tells a number of sent messages that is impossible: fewer than before, or
    /// more than there were credits for.
    Position {
        /// How many messages were taken from the peer.
        taken: u64,
        /// How many the peer pretends to have sent.
        claimed: u64,
    },
    /// The message is of a kind that this channel does not carry.
    Kind {
        /// Its kind.
        kind: Kind,
        /// The first kind that is not carried.
        limit: Kind,
    },
    /// The message claims more payload than a line holds.
    Length {
        /// How many bytes.
        bytes: u8,
    },
    /// The message announces more capabilities than this channel takes.
    Capabilities {
        /// How many.
        count: u8,
        /// How many it may.
        limit: u8,
    },
    /// A burst is longer than the ring.
    BurstTooLong {
        /// How many lines are announced to follow.
        lines: u8,
    },
    /// A line within a burst announces a burst of its own.
    BurstNested {
        /// How many lines are announced to follow.
        lines: u8,
    },
    /// A line that was announced as part of a burst is not there.
    BurstCut {
        /// How many lines are missing.
        missing: u8,
    },
    /// The user of the channel refused a message ([`Endpoint::refuse`](crate::Endpoint::refuse)).
    Refused {
        /// The kind of that message.
        kind: Kind,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("channel closed: the peer ")?;
        match self {
            Self::Skipped { expected, found } => {
                write!(f, "skipped from message {expected} to {found}")
            }
            Self::Replayed { expected, found } => {
                write!(f, "repeated message {found} in place of {expected}")
            }
            Self::AcknowledgedAhead { sent, acknowledged } => {
                write!(f, "acknowledged message {acknowledged} when {sent} was the last sent")
            }
            Self::AcknowledgedBackwards { before, acknowledged } => {
                write!(f, "acknowledged message {acknowledged} after {before}")
            }
            Self::Position { taken, claimed } => {
                write!(f, "claims to have sent {claimed} messages, of which {taken} were taken")
            }
            Self::Kind { kind, limit } => {
                write!(f, "sent a message of kind {kind} where kinds below {limit} are known")
            }
            Self::Length { bytes } => {
                write!(f, "sent a message of {bytes} bytes where {PAYLOAD_BYTES} fit")
            }
            Self::Capabilities { count, limit } => {
                write!(f, "announced {count} capabilities where {limit} are taken")
            }
            Self::BurstTooLong { lines } => {
                write!(f, "announced {lines} further lines, more than the ring has")
            }
            Self::BurstNested { lines } => {
                write!(f, "announced {lines} further lines in the middle of a burst")
            }
            Self::BurstCut { missing } => write!(f, "left out the last {missing} lines of a burst"),
            Self::Refused { kind } => write!(f, "sent a message of kind {kind} that made no sense"),
        }
    }
}

impl core::error::Error for Violation {}

/// Why a message was not sent. The message is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// All lines are in flight: try again when the peer has taken some.
    Full,
    /// The peer hung up or gave the channel up. It is noticed when credits have run out, since that is when
    /// the line that tells it is looked at.
    HungUp,
    /// The peer broke the protocol, and the channel is closed.
    Broken(Violation),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the channel is full: try again when the peer has taken some messages"),
            Self::HungUp => f.write_str("the peer has hung up: bind a new channel"),
            Self::Broken(violation) => violation.fmt(f),
        }
    }
}

impl core::error::Error for SendError {}
