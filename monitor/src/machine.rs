//! [`Machine`]: what the library's monitor has done for it, by invocations.

use alloc::collections::BTreeMap;

use lmp::cptr::task;
use lmp::{CPtr, CoreId, Rights, SlotRef, SysError, syscall};
use monitor::handover::slot;
use monitor::mesh;
use monitor::port::{CallId, Copied, CoreFacts, Delivery, Identity, Memory, Placement, Places, Port};
use runtime::endpoint::{self, Answer, Caps, ReplyRight};
use runtime::interface::TEXT_WORDS;
use runtime::interface::monitor::{Iref, MonitorError};
use runtime::interface::skb::{PIECES_MAX, Query, SkbError};
use runtime::memory::{self, Object};
use ump::Message;

use crate::peers::{Greeting, Peer, Place, Wake};
use crate::server::Failure;

/// Relation bits of an object with copies on other cores.
const COPIES: u8 = 1;

/// The machine under a monitor.
pub(crate) struct Machine {
    core: u32,
    pub(crate) peers: BTreeMap<u32, Peer>,
    /// Calls that were not answered yet.
    calls: BTreeMap<CallId, ReplyRight>,
    next_call: u64,
    /// What the links of other cores signal: the CNode, and the L1 slot it is reached through.
    table: Object,
    table_l1: u32,
}

fn refused(cause: SysError) -> MonitorError {
    match cause {
        SysError::EmptySlot
        | SysError::WrongType
        | SysError::MissingRight
        | SysError::RetryThroughMonitor => MonitorError::BadCapability,
        _ => MonitorError::Exhausted,
    }
}

/// An error of the knowledge base, as told to a domain.
fn of_skb(code: u64) -> MonitorError {
    match SkbError::from_code(code) {
        Some(SkbError::BadArgument) => MonitorError::BadArgument,
        Some(SkbError::NotFound) => MonitorError::NotFound,
        Some(SkbError::NoMemory) => MonitorError::NoMemory,
        Some(SkbError::BadQuery) => MonitorError::BadRequest,
        Some(SkbError::Exhausted | SkbError::InUse | SkbError::Refused) | None => MonitorError::Exhausted,
    }
}

/// Asks the knowledge base.
fn ask(query: Query, arguments: &[u64], accepts: Caps) -> Result<Answer, MonitorError> {
    let mut words = [0; 1 + 5];
    words[0] = query as u64;
    for (word, argument) in words[1..].iter_mut().zip(arguments) {
        *word = *argument;
    }
    let answer = endpoint::call(slot::SKB, &words, None, accepts).map_err(|_| MonitorError::Exhausted)?;
    match answer.words.padded()[0] {
        0 => Ok(answer),
        code => Err(of_skb(code)),
    }
}

/// An empty slot that `fill` fills.
fn fill(fill: impl FnOnce(CPtr) -> Result<(), SysError>) -> Result<CPtr, MonitorError> {
    let slot = memory::slot().map_err(|_| MonitorError::Exhausted)?;
    match fill(slot) {
        Ok(()) => Ok(slot),
        Err(cause) => {
            memory::free_slot(slot);
            Err(refused(cause))
        }
    }
}

fn vanished(cap: CPtr) -> bool {
    syscall::cap_identify(task::ROOT, cap) == Err(SysError::EmptySlot)
}

impl Machine {
    pub(crate) fn new(core: u32) -> Result<Machine, Failure> {
        let (table, table_l1) = memory::cnode()?;
        Ok(Machine { core, peers: BTreeMap::new(), calls: BTreeMap::new(), next_call: 1, table, table_l1 })
    }

    /// The table that the links of other cores signal.
    pub(crate) fn table(&self) -> CPtr {
        self.table.cap
    }

    fn entry(&self, entry: u8) -> CPtr {
        CPtr::new(self.table_l1, u32::from(entry))
    }

    /// Makes `notification` an entry of the table.
    pub(crate) fn set_entry(&self, entry: u8, notification: CPtr) -> Result<(), SysError> {
        syscall::cap_mint(task::ROOT, SlotRef::L2(self.entry(entry)), notification, Rights::WRITE, 0)
    }

    /// A call that came, to be answered by its number.
    pub(crate) fn received(&mut self, reply: ReplyRight) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, reply);
        call
    }

    /// Wakes the monitors that were told something.
    pub(crate) fn wake_peers(&mut self) {
        for peer in self.peers.values_mut() {
            peer.wake();
        }
    }
}

impl Port for Machine {
    fn answer(&mut self, call: CallId, words: &[u64], cap: Option<CPtr>) {
        let Some(reply) = self.calls.remove(&call) else { return };
        // A caller that ended meanwhile, or takes no capability, is none the better for an error.
        let _ = match cap {
            Some(cap) if vanished(cap) => reply.answer(&[MonitorError::BadCapability as u64], None),
            _ => reply.answer(words, cap),
        };
        if let Some(cap) = cap {
            self.delete(cap);
        }
    }

    fn notice(&mut self, endpoint: CPtr, words: &[u64]) -> Delivery {
        match endpoint::send(endpoint, words, None) {
            Ok(()) => Delivery::Sent,
            Err(SysError::BufferFull) => Delivery::Full,
            Err(_) => Delivery::Dead,
        }
    }

    fn order(&mut self, words: &[u64]) -> bool {
        // `init` outlives its monitor: all that can be wrong is that there is no room.
        endpoint::send(slot::INIT, words, None).is_ok()
    }

    fn send(&mut self, core: u32, message: &Message) -> bool {
        self.peers.get_mut(&core).is_some_and(|peer| peer.send(message))
    }

    fn connect(&mut self, core: u32, apic: u32, base: u64, side: usize) -> Result<(), MonitorError> {
        let rights = Rights::READ | Rights::WRITE;
        let frame = self.foreign(Memory { base, size: mesh::SIZE, rights, owner: monitor::FIRST_CORE })?;
        let place = Place { frame, offset: 0, side, apic };
        let peer = Peer::new(&place, self.table(), Wake::Link, Greeting::Introduced);
        self.peers.insert(core, peer.map_err(|_| MonitorError::Exhausted)?);
        Ok(())
    }

    fn identify(&self, cap: CPtr) -> Option<Identity> {
        let info = syscall::cap_identify(task::ROOT, cap).ok()?;
        let memory = Memory { base: info.base, size: info.size, rights: info.rights, owner: info.owner };
        Some(Identity { ty: info.ty, memory })
    }

    fn foreign(&mut self, memory: Memory) -> Result<CPtr, MonitorError> {
        let Memory { base, size, rights, owner } = memory;
        let owner = CoreId(u16::try_from(owner).map_err(|_| MonitorError::BadArgument)?);
        fill(|slot| syscall::kcb_create_foreign(slot::KCB, slot, rights, base, size, owner))
    }

    fn copy(&mut self, cap: CPtr, rights: Rights) -> Result<CPtr, MonitorError> {
        let has = syscall::cap_identify(task::ROOT, cap).map_err(refused)?.rights;
        fill(|slot| syscall::cap_mint(task::ROOT, slot, cap, has & rights, 0))
    }

    fn set_copied(&mut self, cap: CPtr, copied: Copied) {
        let relations = if copied == Copied::Yes { COPIES } else { 0 };
        // The capability is the monitor's own, or has vanished with its object.
        let _ = syscall::kcb_set_remote(slot::KCB, cap, relations);
    }

    fn revoke(&mut self, cap: CPtr) {
        // The owner asked for it, so the CPU driver need not ask back.
        self.set_copied(cap, Copied::No);
        if let Err(cause) = syscall::cap_revoke(task::ROOT, cap) {
            runtime::println!("monitor: copies of a frame of another core are left: {cause}");
        }
    }

    fn delete(&mut self, cap: CPtr) {
        match syscall::cap_delete(task::ROOT, cap) {
            Ok(()) | Err(SysError::EmptySlot) => memory::free_slot(cap),
            Err(cause) => runtime::println!("monitor: a capability cannot be deleted: {cause}"),
        }
    }

    fn counters(&mut self) -> Result<CPtr, MonitorError> {
        fill(|slot| syscall::cap_mint(task::ROOT, slot, slot::KCB, Rights::READ, 0))
    }

    fn listen(&mut self, entry: u8, notification: CPtr) -> Result<(), MonitorError> {
        self.set_entry(entry, notification).map_err(refused)?;
        self.delete(notification);
        Ok(())
    }

    fn unlisten(&mut self, entry: u8) {
        // Empty if the notification went with its domain.
        let _ = syscall::cap_delete(task::ROOT, SlotRef::L2(self.entry(entry)));
    }

    fn notifier(&mut self, core: u32, entry: u8) -> Result<CPtr, MonitorError> {
        if core == self.core {
            return fill(|slot| syscall::cap_copy(task::ROOT, slot, SlotRef::L2(self.entry(entry))));
        }
        let peer = self.peers.get(&core).ok_or(MonitorError::NoCore)?;
        peer.notifier(entry).map_err(refused)
    }

    fn place(&mut self, placement: Placement) -> Result<Places, MonitorError> {
        let Placement { policy, producer, consumer, seed, pool } = placement;
        let arguments = [u64::from(policy), u64::from(producer), u64::from(consumer), seed, pool];
        let answer = ask(Query::Place, &arguments, Caps::Refused)?;
        let words = answer.words.padded();
        let node = |word: u64, index: usize| (word >> (16 * index)) as u16;
        let mut nodes = [0; PIECES_MAX];
        for (i, place) in nodes.iter_mut().enumerate() {
            *place = node(words[3 + i / 4], i % 4);
        }
        let pieces = usize::try_from(words[2]).unwrap_or(usize::MAX).min(PIECES_MAX);
        Ok(Places { homes: [0, 1, 2].map(|i| node(words[1], i)), pieces, nodes })
    }

    fn allocate(&mut self, node: u16, bytes: u64) -> Result<(CPtr, u64), MonitorError> {
        let answer = ask(Query::Allocate, &[u64::from(node), bytes], Caps::Accepted)?;
        let cap = answer.cap.ok_or(MonitorError::Exhausted)?;
        Ok((cap, answer.words.padded()[1]))
    }

    fn free(&mut self, cap: CPtr, base: u64) {
        if let Err(error) = ask(Query::Free, &[base], Caps::Refused) {
            runtime::println!("monitor: the frame at {base:#x} is not freed: {error}");
        }
        self.delete(cap);
    }

    fn memory(&mut self, node: u16) -> Result<(u64, u64), MonitorError> {
        let answer = ask(Query::Memory, &[u64::from(node)], Caps::Refused)?;
        let [_, free, all, ..] = *answer.words.padded();
        Ok((free, all))
    }

    fn register(&mut self, name: [u64; TEXT_WORDS], iref: Iref) -> Result<(), MonitorError> {
        let [a, b, c, d] = name;
        ask(Query::Register, &[a, b, c, d, iref.0], Caps::Refused).map(|_| ())
    }

    fn lookup(&mut self, name: [u64; TEXT_WORDS]) -> Option<Iref> {
        let answer = ask(Query::Lookup, &name, Caps::Refused).ok()?;
        Some(Iref(answer.words.padded()[1])).filter(|iref| iref.0 != 0)
    }

    fn core(&mut self, core: u32) -> Result<CoreFacts, MonitorError> {
        let answer = ask(Query::Core, &[u64::from(core)], Caps::Refused);
        let answer = answer.map_err(|_| MonitorError::NoCore)?;
        let [_, _, core, node, apic, nodes, ..] = *answer.words.padded();
        Ok(CoreFacts { core: core as u32, node: node as u16, apic: apic as u32, nodes: nodes as u16 })
    }
}
