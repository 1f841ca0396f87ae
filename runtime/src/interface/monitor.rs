//! A domain and its monitor.
//!
//! Requests are calls on the endpoint in [`task::MONITOR`](lmp::cptr::task::MONITOR), whose badge is the domain's
//! number; the monitor answers each, some of them only when what they wait for has happened. It never calls a
//! domain: what it has to say by itself, it sends to the endpoint given with [`Request::Hello`] as a [`Notice`].
//!
//! A *connection* is a UMP channel between two domains, and perhaps a pool of buffers. Its frames come from the
//! system knowledge base, placed as the policy says; the producer's outbox is the *forward* one. Each end fetches
//! the capabilities of its connection one by one with [`Request::Take`].

use super::methods;

methods! {
    /// What a domain asks its monitor for; `w0` of the call.
    Request {
        /// Here I am. Capability: an endpoint (send right) for [`Notice`]s. Answer: w1 = the domain's number.
        Hello = 1;
        /// Make a service that others can bind to. Answer: w1 = its iref ([`Iref`]).
        Export = 2;
        /// Connect to a service. w1 = iref, w2 = lines of each ring ([`LINES`]), w3 = bytes of the
        /// pool (0: none), w4 = policy (`skb::Policy`'s code) | [`CONSUMER`] , w5 = seed of random policies.
        /// Capability, if this end wants to sleep: the notification that the peer is to signal. Waits until the
        /// service accepts or refuses. Answer: [`ConnectionInfo`] from w1 on.
        Bind = 3;
        /// Accept an incoming connection: w1 = connection. Capability: as with `Bind`. Answer: [`ConnectionInfo`].
        Accept = 4;
        /// Refuse an incoming connection: w1 = connection.
        Refuse = 5;
        /// Fetch a capability of connection w1: w2 = [`Part`], w3 = piece of the pool. Answer: the capability;
        /// w1 = its node, w2 = its physical address (0 for a notifier).
        Take = 6;
        /// Be done with connection w1: this end's frames are unmapped and given back; the other end gets a notice.
        Close = 7;
        /// Pass a capability (a frame) to the peer of connection w1. Capability: that one. Answered when the
        /// peer's monitor has it.
        SendCap = 8;
        /// Fetch the next capability that the peer of connection w1 passed. Waits for it.
        TakeCap = 9;
        /// Start a domain: w1 = core | KiB of its RAM << 32 (0: the usual), w2–w5 = module, w6–w9 = arguments.
        /// Answer: w1 = handle.
        Spawn = 10;
        /// Wait until the domain of handle w1 has ended. Answer: w1 = `EndCause`, w2 = exit code or fault address.
        WaitEnd = 11;
        /// End the domain of handle w1.
        Kill = 12;
        /// Give iref w5 the name w1–w4.
        Register = 13;
        /// The iref named w1–w4. Waits until there is one. Answer: w1 = iref.
        Lookup = 14;
        /// The counters of this core. Answer: a KCB capability for reading.
        Counters = 15;
        /// About core w1 (`u64::MAX`: this one). Answer: w1 = number of cores that are up, w2 = core, w3 = node,
        /// w4 = APIC id, w5 = number of nodes.
        Core = 16;
        /// Take down all copies of what was made from a RAM or frame capability on other cores, so that it can
        /// be revoked here. Capability: that one.
        RevokeRemote = 17;
        /// About the memory of node w1 that channels are made of. Answer: w1 = bytes that are free, w2 = all bytes.
        Memory = 18;
    }
}

methods! {
    /// What a monitor says by itself; word 0 of the message.
    Notice {
        /// Somebody binds to a service of this domain: w1 = iref, w2 = connection, w3 = the client's core,
        /// w4 = lines, w5 = bytes of the pool, w6 = 1 if the client is the consumer.
        Incoming = 1;
        /// The other end of connection w1 is gone: closed (w2 = 0), or its domain ended (w2 = 1).
        Closed = 2;
    }
}

methods! {
    /// A capability of a connection.
    Part {
        /// The frame of this end's outbox, writable.
        Own = 0;
        /// The frame of the peer's outbox, read-only.
        Peer = 1;
        /// What wakes the peer by `Signal`; there is none if the peer does not sleep.
        Notifier = 2;
        /// The frame of a piece of the pool.
        Pool = 3;
    }
}

methods! {
    /// Why a monitor refuses.
    MonitorError {
        /// The request is none of the table.
        BadRequest = 1;
        /// An argument is outside its range.
        BadArgument = 2;
        /// There is no such iref, connection, handle or name.
        NotFound = 3;
        /// The service refused the connection.
        Refused = 4;
        /// The other end is gone.
        PeerGone = 5;
        /// There is not enough memory where the policy wants it.
        NoMemory = 6;
        /// There is no such core, or it is not up.
        NoCore = 7;
        /// The capability is missing, or of a type that cannot be passed there.
        BadCapability = 8;
        /// The domain cannot be started: its module is missing or malformed, or there is no memory for it.
        CannotSpawn = 9;
        /// A table of the monitor is full.
        Exhausted = 10;
        /// The request is not possible in this state, such as a second `Hello`.
        WrongState = 11;
    }
}

impl core::fmt::Display for MonitorError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BadRequest => "the monitor does not know this request",
            Self::BadArgument => "an argument is outside its range",
            Self::NotFound => "there is no such service, connection, domain or name",
            Self::Refused => "the service refused the connection",
            Self::PeerGone => "the other end is gone",
            Self::NoMemory => "there is not enough memory where the policy wants it: give the nodes more",
            Self::NoCore => "there is no such core, or it is not up",
            Self::BadCapability => "the capability is missing, or of a type that cannot be passed there",
            Self::CannotSpawn => "the domain cannot be started: its module is missing, or memory is",
            Self::Exhausted => "a table of the monitor is full",
            Self::WrongState => "the request is not possible now",
        })
    }
}

impl core::error::Error for MonitorError {}

/// Added to the policy in w4 of [`Request::Bind`]: the client is the consumer, the service the producer.
pub const CONSUMER: u64 = 1 << 8;

/// The sizes of rings that can be asked for.
pub const LINES: [u64; 2] = [ump::RPC_LINES as u64, ump::STREAM_LINES as u64];

/// The name of a service that can be bound to: the core it is on, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Iref(pub u64);

impl Iref {
    /// Service `number` of `core`.
    pub const fn new(core: u32, number: u32) -> Iref {
        Iref((core as u64) << 32 | number as u64)
    }

    /// The core it is on.
    pub const fn core(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Its number there.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// A connection, as told to both of its ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionInfo {
    /// Its number at this end's monitor.
    pub connection: u64,
    /// The core of the other end.
    pub peer: u32,
    /// Lines of each ring.
    pub lines: u64,
    /// Bytes of the pool, all pieces together; 0: there is none.
    pub pool: u64,
    /// Pieces of the pool, of the same size: one, or one per node if it is interleaved. Slot `i` of the pool lies
    /// in piece `i` modulo this number.
    pub pieces: u8,
    /// Whether this end is the producer, whose outbox is the forward one.
    pub producer: bool,
    /// Whether the peer sleeps, so that there is a notifier to take.
    pub peer_sleeps: bool,
    /// The nodes of the pool's first piece, the forward and the backward outbox.
    pub homes: [u16; 3],
}

impl ConnectionInfo {
    /// Words of its encoding.
    pub const WORDS: usize = 5;

    /// As words.
    pub const fn encode(self) -> [u64; Self::WORDS] {
        let [data, forward, backward] = self.homes;
        let flags = self.producer as u64 | (self.peer_sleeps as u64) << 1;
        [
            self.connection,
            self.peer as u64 | flags << 32 | (self.pieces as u64) << 40,
            self.lines,
            self.pool,
            data as u64 | (forward as u64) << 16 | (backward as u64) << 32,
        ]
    }

    /// From words.
    pub const fn decode(words: [u64; Self::WORDS]) -> ConnectionInfo {
        let [connection, peer, lines, pool, homes] = words;
        ConnectionInfo {
            connection,
            peer: peer as u32,
            lines,
            pool,
            pieces: (peer >> 40) as u8,
            producer: peer >> 32 & 1 != 0,
            peer_sleeps: peer >> 33 & 1 != 0,
            homes: [homes as u16, (homes >> 16) as u16, (homes >> 32) as u16],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_survive_encoding() {
        let info = ConnectionInfo {
            connection: 9,
            peer: 287,
            lines: 64,
            pool: 1 << 20,
            pieces: 4,
            producer: true,
            peer_sleeps: false,
            homes: [1, 2, 3],
        };
        assert_eq!(ConnectionInfo::decode(info.encode()), info);
        let other = ConnectionInfo { producer: false, peer_sleeps: true, ..info };
        assert_eq!(ConnectionInfo::decode(other.encode()), other);
        assert_eq!(Iref::new(287, 4).core(), 287);
        assert_eq!(Iref::new(287, 4).number(), 4);
    }
}
