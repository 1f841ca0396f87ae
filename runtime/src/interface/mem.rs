//! The domains of a core and its memory server, which lends them RAM. It answers every call at once.
//!
//! Requests are calls on the endpoint in [`task::MEMORY`](lmp::cptr::task::MEMORY), whose badge is the domain's number.
//! `init` has the endpoint without a badge, and alone may say that a domain is gone.

use super::methods;

/// Bytes that memory is lent in: a piece is a multiple of it, and aligned to it.
pub const GRANULE: u64 = 64 << 10;

/// Pieces that a domain can have at a time.
pub const PIECES_MAX: usize = 32;

methods! {
    /// What a memory server is asked for; `w0` of the call.
    Request {
        /// A piece of RAM of w1 bytes, rounded up to [`GRANULE`], and aligned to w2 (0 or a power of two). Answer: w1 =
        /// physical address, w2 = bytes; the capability, of which the server keeps the original.
        Allocate = 1;
        /// Take the piece at physical address w1 back, with all that was made of it: every capability for it is gone.
        Free = 2;
        /// Answer: w1 = bytes of the pool, w2 = bytes of it that are free, w3 = bytes that the caller has, w4 = bytes
        /// that it may have.
        Usage = 3;
        /// From `init` only: domain w1 is gone. Takes one piece back that it had. Answer: w1 = pieces that are left,
        /// w2 = bytes of the pool that somebody has.
        Release = 4;
    }
}

methods! {
    /// Why a memory server refuses.
    MemError {
        /// The request is none of the table.
        BadRequest = 1;
        /// An argument is outside its range.
        BadArgument = 2;
        /// The pool has no free range of that size.
        NoMemory = 3;
        /// The caller would have more than its share.
        OverQuota = 4;
        /// The caller has as many pieces as it can have, or all clients together.
        TooMany = 5;
        /// The caller has no such piece.
        NotFound = 6;
        /// What was made of the piece has copies on other cores.
        InUse = 7;
        /// The request is not for this caller, or the domain with its number is gone.
        NotAllowed = 8;
        /// The CPU driver refused.
        Refused = 9;
        /// What is lent and what is free are not the pool: the server is broken.
        Unbalanced = 10;
    }
}

impl core::fmt::Display for MemError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BadRequest => "the memory server does not know this request",
            Self::BadArgument => "an argument is outside its range",
            Self::NoMemory => "the core's pool has no such memory left",
            Self::OverQuota => "the domain would have more than its share of the core's pool",
            Self::TooMany => "too many pieces: ask for fewer and larger ones",
            Self::NotFound => "the domain has no such piece of memory",
            Self::InUse => "what was made of the piece has copies on other cores",
            Self::NotAllowed => "the request is not for this caller",
            Self::Refused => "the CPU driver refused",
            Self::Unbalanced => "the account of the memory server does not balance",
        })
    }
}

impl core::error::Error for MemError {}

/// The answer to [`Request::Usage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Bytes of the pool.
    pub total: u64,
    /// Bytes of it that nobody has.
    pub free: u64,
    /// Bytes that the caller has.
    pub held: u64,
    /// Bytes that it may have.
    pub quota: u64,
}
