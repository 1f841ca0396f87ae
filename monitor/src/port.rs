//! [`Port`]: what a [`Monitor`](crate::Monitor) has done for it. The domain invokes capabilities; tests play a
//! machine.
//!
//! Everything here answers at once. What takes long comes back as an [`Event`](crate::Event).

use lmp::{CPtr, ObjType, Rights};
use runtime::interface::TEXT_WORDS;
use runtime::interface::monitor::{Iref, MonitorError};
use runtime::interface::skb::PIECES_MAX;
use ump::Message;

/// A call that was received and not answered yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// What came of a notice to a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// It was sent.
    Sent,
    /// The domain's buffer is full: again later.
    Full,
    /// It cannot be sent, now or later.
    Dead,
}

/// A range of physical memory, and what a capability for it allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// The first byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// What is allowed.
    pub rights: Rights,
    /// The core that owns it.
    pub owner: u32,
}

/// What a capability is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The type.
    pub ty: ObjType,
    /// Where it is; of meaning for memory only.
    pub memory: Memory,
}

/// Where the parts of a channel are to lie, as the knowledge base says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// Nodes of the data, the forward and the backward outbox.
    pub homes: [u16; 3],
    /// Pieces of the pool.
    pub pieces: usize,
    /// The nodes of the pieces.
    pub nodes: [u16; PIECES_MAX],
}

/// What the knowledge base says about a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreFacts {
    /// Its dense index.
    pub core: u32,
    /// Its node.
    pub node: u16,
    /// Its APIC identifier.
    pub apic: u32,
    /// Nodes of the machine.
    pub nodes: u16,
}

/// What a placement is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The policy's code.
    pub policy: u8,
    /// The producer's core.
    pub producer: u32,
    /// The consumer's core.
    pub consumer: u32,
    /// Seed of random policies.
    pub seed: u64,
    /// Bytes of the pool.
    pub pool: u64,
}

/// How a domain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// Why: an `EndCause`'s code.
    pub cause: u64,
    /// Exit code or fault address.
    pub detail: u64,
}

/// The machine under a monitor.
///
/// Capabilities that a method returns belong to the monitor until it gives them away or deletes them. One for a frame
/// may vanish meanwhile, with all others for that frame; its slot is the monitor's still. An error is told to whoever
/// asked.
pub trait Port {
    /// Answers a call with `words`, and gives `cap` away if there is one; if that has vanished, the answer is
    /// `BadCapability`.
    fn answer(&mut self, call: CallId, words: &[u64], cap: Option<CPtr>);
    /// Sends a notice to the endpoint of a domain.
    fn notice(&mut self, endpoint: CPtr, words: &[u64]) -> Delivery;
    /// Sends an order to this core's `init`; `false` if its buffer is full.
    fn order(&mut self, words: &[u64]) -> bool;
    /// Sends a message to the monitor of a core that there is a channel to; `false` if that has no room now.
    fn send(&mut self, core: u32, message: &Message) -> bool;
    /// Sets up the channel to the monitor of `core`, whose APIC identifier is `apic`, in the memory at `base`; this
    /// is its side `side`.
    ///
    /// # Errors
    /// If memory, slots or addresses run out.
    fn connect(&mut self, core: u32, apic: u32, base: u64, side: usize) -> Result<(), MonitorError>;

    /// What `cap` is for; `None` if its slot is empty.
    fn identify(&self, cap: CPtr) -> Option<Identity>;
    /// A capability for a frame of another core.
    ///
    /// # Errors
    /// If slots run out, or the CPU driver refuses.
    fn foreign(&mut self, memory: Memory) -> Result<CPtr, MonitorError>;
    /// A copy of `cap` with at most `rights`.
    ///
    /// # Errors
    /// If slots run out, or the CPU driver refuses.
    fn copy(&mut self, cap: CPtr, rights: Rights) -> Result<CPtr, MonitorError>;
    /// Tells the CPU driver whether there are copies of the object of `cap` on other cores.
    fn set_copied(&mut self, cap: CPtr, copied: Copied);
    /// Deletes all capabilities of this core for the object of `cap`, which must be another core's.
    fn revoke(&mut self, cap: CPtr);
    /// Deletes `cap`.
    fn delete(&mut self, cap: CPtr);
    /// A capability that reads this core's counters.
    ///
    /// # Errors
    /// If slots run out.
    fn counters(&mut self) -> Result<CPtr, MonitorError>;

    /// Makes `notification` entry `entry` of the table that the links of other cores signal, and deletes it here.
    ///
    /// # Errors
    /// If the CPU driver refuses.
    fn listen(&mut self, entry: u8, notification: CPtr) -> Result<(), MonitorError>;
    /// Empties entry `entry`.
    fn unlisten(&mut self, entry: u8);
    /// What signals entry `entry` of the table of `core`.
    ///
    /// # Errors
    /// If slots run out, or the CPU driver refuses.
    fn notifier(&mut self, core: u32, entry: u8) -> Result<CPtr, MonitorError>;

    /// First core: where the parts of a channel are to lie.
    ///
    /// # Errors
    /// The knowledge base's.
    fn place(&mut self, placement: Placement) -> Result<Places, MonitorError>;
    /// First core: a frame of `bytes` on `node`, and its physical address.
    ///
    /// # Errors
    /// The knowledge base's.
    fn allocate(&mut self, node: u16, bytes: u64) -> Result<(CPtr, u64), MonitorError>;
    /// First core: gives the frame at `base` back; `cap` is deleted with it.
    fn free(&mut self, cap: CPtr, base: u64);
    /// First core: bytes of `node` that are free, and all.
    ///
    /// # Errors
    /// The knowledge base's.
    fn memory(&mut self, node: u16) -> Result<(u64, u64), MonitorError>;
    /// First core: names a service; 0 takes the name away.
    ///
    /// # Errors
    /// The knowledge base's.
    fn register(&mut self, name: [u64; TEXT_WORDS], iref: Iref) -> Result<(), MonitorError>;
    /// First core: the service called `name`, if there is one.
    fn lookup(&mut self, name: [u64; TEXT_WORDS]) -> Option<Iref>;
    /// First core: about a core.
    ///
    /// # Errors
    /// If there is no such core.
    fn core(&mut self, core: u32) -> Result<CoreFacts, MonitorError>;
}

/// Whether an object has copies on other cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copied {
    /// It has none.
    No,
    /// It may have some.
    Yes,
}
