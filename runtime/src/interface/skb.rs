//! The first core's monitor and the system knowledge base. The knowledge base answers every call at once.

use super::methods;

/// Pieces of an interleaved pool at most.
pub const PIECES_MAX: usize = 16;

methods! {
    /// What the knowledge base is asked for; `w0` of the call.
    Query {
        /// Where are the parts of a channel to lie? w1 = policy (`skb::Policy`'s code), w2 = producer's core,
        /// w3 = consumer's core, w4 = seed, w5 = bytes of the pool. Answer: w1 = nodes of the pool's first piece, the
        /// forward and the backward outbox, 16 bits each; w2 = pieces of the pool, at most [`PIECES_MAX`];
        /// w3–w6 = the nodes of the pieces, 16 bits each.
        Place = 1;
        /// A frame of w2 bytes, rounded up to pages, on node w1, strictly; one of 2 MiB or more is aligned to 2 MiB.
        /// Answer: w1 = physical address; the capability.
        Allocate = 2;
        /// Take the frame at physical address w1 back, all capabilities for it on this core with it. Copies on other
        /// cores must be gone.
        Free = 3;
        /// About core w1. Answer: w1 = number of cores, w2 = core, w3 = node, w4 = APIC id, w5 = number of nodes.
        Core = 4;
        /// Give iref w5 the name w1–w4; an older one of that name is forgotten.
        Register = 5;
        /// The iref named w1–w4. Answer: w1.
        Lookup = 6;
        /// Free bytes of node w1. Answer: w1 = free, w2 = all.
        Memory = 7;
    }
}

methods! {
    /// Why the knowledge base refuses.
    SkbError {
        /// The query is none of the table.
        BadQuery = 1;
        /// An argument is outside its range.
        BadArgument = 2;
        /// There is no such core, node, frame or name.
        NotFound = 3;
        /// The node has no such memory left.
        NoMemory = 4;
        /// A table of the knowledge base is full.
        Exhausted = 5;
        /// The frame has copies on other cores.
        InUse = 6;
        /// The CPU driver refused.
        Refused = 7;
    }
}

impl core::fmt::Display for SkbError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BadQuery => "the knowledge base does not know this query",
            Self::BadArgument => "an argument is outside its range",
            Self::NotFound => "there is no such core, node, frame or name",
            Self::NoMemory => "the node has no such memory left",
            Self::Exhausted => "a table of the knowledge base is full",
            Self::InUse => "the frame has copies on other cores",
            Self::Refused => "the CPU driver refused",
        })
    }
}

impl core::error::Error for SkbError {}
