//! Channels between monitors: each has one to the first core's from the start, and gets one to another when it has
//! something to say to it. The first core's monitor supplies the memory, once per pair.
//!
//! The memory of a channel ([`SIZE`] bytes) holds an outbox and a ring of notifications per side. Side 0 is the
//! lower core, or in a share frame the core that it belongs to.

use alloc::collections::VecDeque;

use lmp::objects::PAGE_SIZE;
use runtime::interface::monitor::MonitorError;
use ump::Outbox;

use crate::first::First;
use crate::port::{Copied, CoreFacts, Port};
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

/// Channels in a frame that the first core has made for them.
const PER_FRAME: u64 = 16;

/// The frame of a node that channels are being put into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    /// Where the next channel goes.
    next: u64,
    /// How many more have room.
    left: u64,
}

impl First {
    /// Memory for a channel between two monitors, for good: on the node of one of `cores`, or on any that has room.
    fn place_mesh<P: Port>(&mut self, port: &mut P, cores: [CoreFacts; 2]) -> Result<u64, MonitorError> {
        let preferred = cores.map(|facts| facts.node);
        for node in preferred.into_iter().chain(0..cores[0].nodes) {
            let block = match self.blocks.get(&node).copied().filter(|block| block.left > 0) {
                Some(block) => Ok(block),
                None => new_block(port, node, PER_FRAME).or_else(|_| new_block(port, node, 1)),
            };
            match block {
                Ok(Block { next, left }) => {
                    self.blocks.insert(node, Block { next: next + SIZE, left: left - 1 });
                    return Ok(next);
                }
                Err(MonitorError::NoMemory) => {}
                Err(error) => return Err(error),
            }
        }
        Err(MonitorError::NoMemory)
    }
}

/// A frame for so many channels.
fn new_block<P: Port>(port: &mut P, node: u16, channels: u64) -> Result<Block, MonitorError> {
    let (cap, next) = port.allocate(node, channels * SIZE)?;
    // It is never freed, and nobody needs a capability for it here: the cores get foreign ones.
    port.set_copied(cap, Copied::Yes);
    port.delete(cap);
    Ok(Block { next, left: channels })
}

/// Where a monitor stands with another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// The first core was asked for a channel.
    Asked,
    /// There is one.
    Connected,
    /// There was one.
    Lost,
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
        match self.peers.get_mut(&core) {
            Some(Peer { standing: Standing::Lost, .. }) => {
                self.undeliverable(port, core);
                return;
            }
            Some(peer) => {
                peer.queue.push_back(message);
                self.flush(port, core);
                return;
            }
            None => {}
        }
        let peer = Peer { standing: Standing::Asked, queue: VecDeque::from([message]) };
        self.peers.insert(core, peer);
        if core == FIRST_CORE || self.first.is_some() {
            // Between the first core and another there is a channel if that other one is up.
            self.undeliverable(port, core);
        } else {
            self.tell(port, FIRST_CORE, Intermon::MeshAsk { peer: u64::from(core) });
        }
    }

    /// What was said to `core` does not get there: whoever waits for an answer is told, after this step.
    fn undeliverable<P: Port>(&mut self, port: &mut P, core: u32) {
        let error = MonitorError::NoCore as u64;
        self.tell(port, self.core, Intermon::MeshRefused { peer: u64::from(core), error });
    }

    /// The channel to `core` broke. What that core has stays with it: memory that it may still use is not used again.
    pub(crate) fn lost<P: Port>(&mut self, port: &mut P, core: u32) {
        let Some(peer) = self.peers.get_mut(&core) else { return };
        *peer = Peer { standing: Standing::Lost, queue: VecDeque::new() };
        if let Some(first) = &mut self.first {
            first.up.remove(&core);
        }
        self.fail_all(port, core, MonitorError::NoCore);
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
        let known = self.peers.get(&core).is_some_and(|p| p.standing != Standing::Asked);
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
                // It never got a copy of anything.
                self.forget_holder(port, core);
            }
            Some(peer) if peer.standing == Standing::Lost => {}
            _ => {
                self.ignored.stale += 1;
                return;
            }
        }
        self.fail_all(port, core, error);
    }

    /// Nothing comes of what involves `core`.
    fn fail_all<P: Port>(&mut self, port: &mut P, core: u32, error: MonitorError) {
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
            self.lose_peer(port, connection, error);
        }
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
            [Ok(lower), Ok(upper)] => first.place_mesh(port, [lower, upper]).map(|base| (lower, upper, base)),
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
