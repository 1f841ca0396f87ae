//! Channels between monitors: each has one to the first core's from the start, and gets one to another when it has
//! something to say to it. The first core's monitor supplies the memory, once per pair.
//!
//! The memory of a channel ([`SIZE`] bytes) holds an outbox and a ring of notifications per side. Side 0 is the
//! lower core, or in a share frame the core that it belongs to.

use alloc::collections::VecDeque;

use lmp::objects::PAGE_SIZE;
use runtime::interface::monitor::MonitorError;
use ump::Outbox;

use crate::port::{CoreFacts, Port};
use crate::state::{FIRST_CORE, Monitor};
use crate::wire::Intermon;

/// Lines of each ring of messages.
pub const LINES: usize = ump::RPC_LINES;

/// Bytes set aside for an outbox.
const OUTBOX: usize = size_of::<Outbox<LINES>>().next_multiple_of(PAGE_SIZE as usize);

/// Byte offset of the outbox of `side`.
pub const fn outbox_offset(side: usize) -> usize {
    side * OUTBOX
}

/// Byte offset of the ring of notifications that `side` writes.
pub const fn ring_offset(side: usize) -> usize {
    2 * OUTBOX + side * PAGE_SIZE as usize
}

/// Bytes of an outbox, the unused end of its last page included.
pub const OUTBOX_SIZE: usize = OUTBOX;

/// Bytes of a channel between monitors.
pub const SIZE: u64 = ring_offset(2) as u64;

const _: () = assert!(SIZE <= lmp::start::share::MONITOR_SIZE);

/// Where a monitor stands with another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// The first core was asked for a channel.
    Asked,
    /// There is one.
    Connected,
}

/// Another monitor.
#[derive(Debug)]
pub(crate) struct Peer {
    standing: Standing,
    /// What could not be sent yet, the oldest first.
    queue: VecDeque<Intermon>,
}

impl Peer {
    /// Whether there are messages that only wait for room.
    pub(crate) fn has_unsent(&self) -> bool {
        self.standing == Standing::Connected && !self.queue.is_empty()
    }
}

impl Monitor {
    /// There is a channel to `core` from the start.
    pub(crate) fn up<P: Port>(&mut self, port: &mut P, core: u32) {
        if core == self.core {
            return;
        }
        if let Some(first) = &mut self.first {
            first.up.insert(core);
        }
        self.connected(port, core);
    }

    fn connected<P: Port>(&mut self, port: &mut P, core: u32) {
        let peer =
            self.peers.entry(core).or_insert(Peer { standing: Standing::Asked, queue: VecDeque::new() });
        peer.standing = Standing::Connected;
        self.flush(port, core);
    }

    pub(crate) fn tell_peer<P: Port>(&mut self, port: &mut P, core: u32, message: Intermon) {
        if let Some(peer) = self.peers.get_mut(&core) {
            peer.queue.push_back(message);
            self.flush(port, core);
            return;
        }
        let peer = Peer { standing: Standing::Asked, queue: VecDeque::from([message]) };
        self.peers.insert(core, peer);
        if core == FIRST_CORE || self.first.is_some() {
            // Between the first core and another there is a channel if that other one is up.
            let refusal = MonitorError::NoCore as u64;
            let message = Intermon::MeshRefused { peer: u64::from(core), error: refusal };
            self.tell(port, self.core, message);
        } else {
            self.tell(port, FIRST_CORE, Intermon::MeshAsk { peer: u64::from(core) });
        }
    }

    /// Sends what waits for room.
    pub(crate) fn flush<P: Port>(&mut self, port: &mut P, core: u32) {
        let Some(peer) = self.peers.get_mut(&core) else { return };
        if peer.standing != Standing::Connected {
            return;
        }
        while let Some(message) = peer.queue.front() {
            if !port.send(core, &message.encode()) {
                return;
            }
            peer.queue.pop_front();
        }
    }

    pub(crate) fn retry<P: Port>(&mut self, port: &mut P) {
        while let Some(order) = self.orders.front() {
            if !port.order(order) {
                break;
            }
            self.orders.pop_front();
        }
        let unsent = |(core, peer): (&u32, &Peer)| peer.has_unsent().then_some(*core);
        let cores: alloc::vec::Vec<u32> = self.peers.iter().filter_map(unsent).collect();
        for core in cores {
            self.flush(port, core);
        }
        self.retry_notices(port);
    }

    /// The first core made a channel to `peer`.
    pub(crate) fn offered_mesh<P: Port>(&mut self, port: &mut P, peer: u64, base: u64, side: u64, apic: u64) {
        let (Ok(core), Ok(apic), 0 | 1) = (u32::try_from(peer), u32::try_from(apic), side) else {
            self.ignored.unknown += 1;
            return;
        };
        let known = self.peers.get(&core).is_some_and(|p| p.standing == Standing::Connected);
        if known || core == self.core || core == FIRST_CORE {
            self.ignored.stale += 1;
            return;
        }
        match port.connect(core, apic, base, side as usize) {
            Ok(()) => self.connected(port, core),
            Err(error) => self.unreachable(port, core, error),
        }
    }

    /// There is no way to `core`: whoever waits for it is told.
    pub(crate) fn unreachable<P: Port>(&mut self, port: &mut P, core: u32, error: MonitorError) {
        match self.peers.get(&core) {
            Some(peer) if peer.standing == Standing::Asked => {
                self.peers.remove(&core);
            }
            _ => {
                self.ignored.stale += 1;
                return;
            }
        }
        let lost: alloc::vec::Vec<u64> =
            self.requests.iter().filter(|(_, r)| r.core == core).map(|(number, _)| *number).collect();
        for number in lost {
            if let Some(request) = self.requests.remove(&number) {
                self.conclude(port, request, Err(error));
            }
        }
        let lost: alloc::vec::Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.peer.core == core).map(|(number, _)| *number).collect();
        for connection in lost {
            self.fail_connection(port, connection, error);
        }
        self.forget_holder(port, core);
    }

    /// First core: `core` wants a channel to `peer`.
    pub(crate) fn make_mesh<P: Port>(&mut self, port: &mut P, core: u32, peer: u64) {
        let Some(first) = &mut self.first else { return };
        let other = match u32::try_from(peer) {
            Ok(other) if other != core && first.up.contains(&other) && first.up.contains(&core) => other,
            _ => {
                let refusal = Intermon::MeshRefused { peer, error: MonitorError::NoCore as u64 };
                self.tell(port, core, refusal);
                return;
            }
        };
        let pair = (core.min(other), core.max(other));
        if first.pairs.contains(&pair) {
            // The other one asked first, and the offer is under way.
            return;
        }
        let facts = [port.core(pair.0), port.core(pair.1)];
        let made = match facts {
            [Ok(lower), Ok(upper)] => {
                allocate_near(port, [lower, upper], SIZE).map(|base| (lower, upper, base))
            }
            [Err(error), _] | [_, Err(error)] => Err(error),
        };
        match made {
            Ok((lower, upper, base)) => {
                first.pairs.insert(pair);
                for (side, (to, peer)) in [(lower, upper), (upper, lower)].into_iter().enumerate() {
                    let (side, apic) = (side as u64, u64::from(peer.apic));
                    let offer = Intermon::MeshOffer { peer: u64::from(peer.core), base, side, apic };
                    self.tell(port, to.core, offer);
                }
            }
            Err(error) => self.tell(port, core, Intermon::MeshRefused { peer, error: error as u64 }),
        }
    }
}

/// A frame for good on the node of one of `cores`, or on any that has room; its physical address.
fn allocate_near<P: Port>(port: &mut P, cores: [CoreFacts; 2], bytes: u64) -> Result<u64, MonitorError> {
    let preferred = cores.map(|facts| facts.node);
    for node in preferred.into_iter().chain(0..cores[0].nodes) {
        match port.allocate(node, bytes) {
            // The channel lasts as long as the two monitors: nobody needs its capability here again.
            Ok((_, base)) => return Ok(base),
            Err(MonitorError::NoMemory) => {}
            Err(error) => return Err(error),
        }
    }
    Err(MonitorError::NoMemory)
}
