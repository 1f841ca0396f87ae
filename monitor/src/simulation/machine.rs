//! The machine of the simulation: capabilities, memory, rings and `init`s, each as naive as can be. It panics at
//! whatever the real one would refuse or suffer from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lmp::{CPtr, ObjType, Rights};
use runtime::interface::TEXT_WORDS;
use runtime::interface::monitor::{Iref, MonitorError};
use runtime::interface::skb::PIECES_MAX;
use ump::Message;

use crate::mesh;
use crate::port::{CallId, Copied, CoreFacts, Delivery, Identity, Memory, Placement, Places, Port};

/// Who has a capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    Monitor,
    Domain(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Object {
    Frame(Memory),
    Notification {
        domain: u64,
    },
    Endpoint {
        domain: u64,
    },
    /// What signals an entry of a core's table.
    Signal {
        core: u32,
        entry: u8,
    },
    Counters,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Cap {
    pub(super) object: Object,
    pub(super) holder: Holder,
}

/// What a domain was told by itself.
pub(super) type Notice = Vec<u64>;

/// An answer that a domain got.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) words: Vec<u64>,
    pub(super) cap: Option<CPtr>,
}

/// Room in a ring between two monitors, in `init`'s buffer and in a domain's.
const RING: usize = 4;
const ORDERS: usize = 2;
pub(super) const NOTICES: usize = 3;

/// Memory of a node, in bytes.
const NODE: u64 = 2 << 20;

#[derive(Default)]
pub(super) struct Machine {
    pub(super) cores: u32,
    pub(super) nodes: u16,
    pub(super) caps: BTreeMap<(u32, CPtr), Cap>,
    /// Slots of monitors whose capability was deleted together with all others for its object.
    pub(super) vanished: BTreeSet<(u32, CPtr)>,
    next_cap: u32,
    next_call: u64,
    next_base: u64,
    /// Calls that were made and not answered, by whom.
    pub(super) calls: BTreeMap<CallId, (u32, u64)>,
    pub(super) answers: BTreeMap<(u32, u64), VecDeque<Answer>>,
    pub(super) notices: BTreeMap<(u32, u64), VecDeque<Notice>>,
    pub(super) orders: BTreeMap<u32, VecDeque<Vec<u64>>>,
    pub(super) rings: BTreeMap<(u32, u32), VecDeque<Message>>,
    /// Mesh: who set up which side where.
    connected: BTreeMap<(u32, u32), (u64, usize)>,
    tables: BTreeMap<(u32, u8), CPtr>,
    /// Frames that the knowledge base gave out: size, node, whether copied to other cores.
    pub(super) allocated: BTreeMap<u64, (u64, u16)>,
    copied: BTreeSet<(u32, u64, u64)>,
    names: BTreeMap<[u64; TEXT_WORDS], Iref>,
    /// Frames of domains: owner core, base → size.
    pub(super) frames: BTreeMap<(u32, u64), u64>,
}

impl Machine {
    pub(super) fn new(cores: u32, nodes: u16) -> Machine {
        Machine { cores, nodes, next_cap: 1, next_call: 1, next_base: 1 << 20, ..Machine::default() }
    }

    pub(super) fn at(&mut self, core: u32) -> At<'_> {
        At { core, machine: self }
    }

    pub(super) fn call_of(&mut self, core: u32, domain: u64) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, (core, domain));
        call
    }

    pub(super) fn give(&mut self, core: u32, object: Object, holder: Holder) -> CPtr {
        let cap = CPtr(self.next_cap);
        self.next_cap += 1;
        self.caps.insert((core, cap), Cap { object, holder });
        cap
    }

    /// Physical memory that nobody else has.
    pub(super) fn fresh_range(&mut self, bytes: u64) -> u64 {
        let base = self.next_base;
        self.next_base += bytes.next_multiple_of(4096);
        base
    }

    /// A domain is taken down: its capabilities go, and nothing of its memory may be left anywhere else.
    pub(super) fn take_down(&mut self, core: u32, domain: u64, memory: (u64, u64)) {
        self.caps.retain(|(c, _), cap| (*c, cap.holder) != (core, Holder::Domain(domain)));
        self.calls.retain(|_, caller| *caller != (core, domain));
        let inside = |base: u64| base >= memory.0 && base - memory.0 < memory.1;
        for ((c, _), cap) in &self.caps {
            if let Object::Frame(m) = cap.object
                && inside(m.base)
            {
                assert_eq!(*c, core, "core {c} has {cap:?} of domain {domain}'s memory");
            }
        }
        assert!(!self.copied.iter().any(|(c, base, _)| *c == core && inside(*base)), "believed to be copied");
        // The rest goes with the memory.
        self.delete_all(core, |_, object| matches!(object, Object::Frame(m) if inside(m.base)));
        self.frames.retain(|(_, base), _| !inside(*base));
        self.answers.remove(&(core, domain));
        self.notices.remove(&(core, domain));
    }

    /// Deletes the capabilities of `core` that are for an object that `goes`.
    fn delete_all(&mut self, core: u32, goes: impl Fn(CPtr, &Object) -> bool) {
        let vanished = &mut self.vanished;
        self.caps.retain(|(c, slot), cap| {
            let gone = *c == core && goes(*slot, &cap.object);
            if gone && cap.holder == Holder::Monitor {
                vanished.insert((core, *slot));
            }
            !gone
        });
    }

    /// Where capabilities for a frame are: cores and holders.
    pub(super) fn copies_of(&self, base: u64) -> Vec<(u32, Holder)> {
        let of = |((core, _), cap): (&(u32, CPtr), &Cap)| match cap.object {
            Object::Frame(m) if m.base == base => Some((*core, cap.holder)),
            _ => None,
        };
        self.caps.iter().filter_map(of).collect()
    }

    pub(super) fn names(&self) -> usize {
        self.names.values().filter(|iref| iref.0 != 0).count()
    }

    pub(super) fn entries(&self) -> usize {
        self.tables.len()
    }

    /// The frames that channels between monitors are in, for good.
    pub(super) fn mesh_frames(&self) -> BTreeSet<u64> {
        let frame = |base: &u64| self.allocated.range(..=*base).next_back().map(|(start, _)| *start);
        self.connected.values().filter_map(|(base, _)| frame(base)).collect()
    }
}

/// The machine as one core sees it.
pub(super) struct At<'m> {
    core: u32,
    machine: &'m mut Machine,
}

impl At<'_> {
    fn own(&self, cap: CPtr) -> Cap {
        let found = self.machine.caps.get(&(self.core, cap));
        let found = *found.unwrap_or_else(|| panic!("core {}: there is no capability {cap:?}", self.core));
        assert_eq!(found.holder, Holder::Monitor, "core {}: {cap:?} is another's", self.core);
        found
    }

    fn frame(&self, cap: CPtr) -> Memory {
        match self.own(cap).object {
            Object::Frame(memory) => memory,
            other => panic!("{other:?} is no frame"),
        }
    }
}

impl Port for At<'_> {
    fn answer(&mut self, call: CallId, words: &[u64], cap: Option<CPtr>) {
        let Some(caller) = self.machine.calls.remove(&call) else {
            panic!("call {call:?} is answered a second time, or its caller is gone: {words:?}");
        };
        assert_eq!(caller.0, self.core, "a call of another core");
        if cap.is_some_and(|cap| self.machine.vanished.remove(&(self.core, cap))) {
            let words = vec![MonitorError::BadCapability as u64];
            self.machine.answers.entry(caller).or_default().push_back(Answer { words, cap: None });
            return;
        }
        if let Some(cap) = cap {
            self.own(cap);
            if let Some(given) = self.machine.caps.get_mut(&(self.core, cap)) {
                given.holder = Holder::Domain(caller.1);
            }
        }
        self.machine.answers.entry(caller).or_default().push_back(Answer { words: words.to_vec(), cap });
    }

    fn notice(&mut self, endpoint: CPtr, words: &[u64]) -> Delivery {
        let Object::Endpoint { domain } = self.own(endpoint).object else { panic!("no endpoint") };
        let notices = self.machine.notices.entry((self.core, domain)).or_default();
        if notices.len() >= NOTICES {
            return Delivery::Full;
        }
        notices.push_back(words.to_vec());
        Delivery::Sent
    }

    fn order(&mut self, words: &[u64]) -> bool {
        let orders = self.machine.orders.entry(self.core).or_default();
        let room = orders.len() < ORDERS;
        if room {
            orders.push_back(words.to_vec());
        }
        room
    }

    fn send(&mut self, core: u32, message: &Message) -> bool {
        assert_ne!(core, self.core, "a message to oneself");
        let boot = core == 0 || self.core == 0;
        assert!(boot || self.machine.connected.contains_key(&(self.core, core)), "no channel");
        let ring = self.machine.rings.entry((self.core, core)).or_default();
        let room = ring.len() < RING;
        if room {
            ring.push_back(*message);
        }
        room
    }

    fn connect(&mut self, core: u32, apic: u32, base: u64, side: usize) -> Result<(), MonitorError> {
        let frame = self.machine.allocated.range(..=base).next_back();
        let fits = frame.is_some_and(|(start, (size, _))| base + mesh::SIZE <= start + size);
        assert!(fits, "core {}: a channel in memory that is none", self.core);
        let own = (self.core.min(core), self.core.max(core));
        for ((a, b), (other, _)) in &self.machine.connected {
            assert!(
                (*a.min(b), *a.max(b)) == own || base.abs_diff(*other) >= mesh::SIZE,
                "two channels overlap"
            );
        }
        assert_eq!((side, apic), (usize::from(self.core > core), core * 2));
        let before = self.machine.connected.insert((self.core, core), (base, side));
        assert_eq!(before, None, "connected twice");
        Ok(())
    }

    fn identify(&self, cap: CPtr) -> Option<Identity> {
        if self.machine.vanished.contains(&(self.core, cap)) {
            return None;
        }
        let object = self.own(cap).object;
        let nothing = Memory { base: 0, size: 0, rights: Rights::all(), owner: self.core };
        let (ty, memory) = match object {
            Object::Frame(memory) => (ObjType::Frame, memory),
            Object::Notification { .. } => (ObjType::Notification, nothing),
            Object::Endpoint { .. } => (ObjType::Endpoint, nothing),
            Object::Signal { .. } => (ObjType::Link, nothing),
            Object::Counters => (ObjType::Kcb, nothing),
        };
        Some(Identity { ty, memory })
    }

    fn foreign(&mut self, memory: Memory) -> Result<CPtr, MonitorError> {
        assert_ne!(memory.owner, self.core);
        let size = match memory.owner {
            0 if self.machine.allocated.contains_key(&memory.base) => {
                self.machine.allocated.get(&memory.base).map(|(size, _)| *size)
            }
            owner => self.machine.frames.get(&(owner, memory.base)).copied(),
        };
        assert_eq!(size, Some(memory.size), "a foreign copy of what is no frame: {memory:x?}");
        let copied = (memory.owner, memory.base, memory.size);
        assert!(self.machine.copied.contains(&copied), "its owner does not know");
        Ok(self.machine.give(self.core, Object::Frame(memory), Holder::Monitor))
    }

    fn copy(&mut self, cap: CPtr, rights: Rights) -> Result<CPtr, MonitorError> {
        let object = match self.own(cap).object {
            Object::Frame(m) => Object::Frame(Memory { rights: m.rights & rights, ..m }),
            other => other,
        };
        Ok(self.machine.give(self.core, object, Holder::Monitor))
    }

    fn set_copied(&mut self, cap: CPtr, copied: Copied) {
        let memory = self.frame(cap);
        assert_eq!(memory.owner, self.core);
        let key = (self.core, memory.base, memory.size);
        match copied {
            Copied::Yes => {
                self.machine.copied.insert(key);
            }
            Copied::No => {
                for (core, holder) in self.machine.copies_of(memory.base) {
                    assert_eq!(core, self.core, "{holder:?} survived");
                }
                assert!(self.machine.copied.remove(&key));
            }
        }
    }

    fn revoke(&mut self, cap: CPtr) {
        let memory = self.frame(cap);
        assert_ne!(memory.owner, self.core, "what is one's own is not the monitor's to revoke");
        self.machine.delete_all(self.core, |slot, object| match object {
            Object::Frame(m) => slot != cap && (m.base, m.size) == (memory.base, memory.size),
            _ => false,
        });
    }

    fn delete(&mut self, cap: CPtr) {
        if self.machine.vanished.remove(&(self.core, cap)) {
            return;
        }
        self.own(cap);
        self.machine.caps.remove(&(self.core, cap));
    }

    fn counters(&mut self) -> Result<CPtr, MonitorError> {
        Ok(self.machine.give(self.core, Object::Counters, Holder::Monitor))
    }

    fn listen(&mut self, entry: u8, notification: CPtr) -> Result<(), MonitorError> {
        assert!(matches!(self.own(notification).object, Object::Notification { .. }));
        let before = self.machine.tables.insert((self.core, entry), notification);
        assert!(before.is_none(), "entry {entry} is in use");
        self.delete(notification);
        Ok(())
    }

    fn unlisten(&mut self, entry: u8) {
        assert!(self.machine.tables.remove(&(self.core, entry)).is_some(), "entry {entry} is empty");
    }

    fn notifier(&mut self, core: u32, entry: u8) -> Result<CPtr, MonitorError> {
        let boot = core == 0 || self.core == 0;
        let there = core == self.core || boot || self.machine.connected.contains_key(&(self.core, core));
        assert!(there, "no link to core {core}");
        Ok(self.machine.give(self.core, Object::Signal { core, entry }, Holder::Monitor))
    }

    fn place(&mut self, placement: Placement) -> Result<Places, MonitorError> {
        assert_eq!(self.core, 0);
        let node = |core: u32| (core % u32::from(self.machine.nodes)) as u16;
        let (producer, consumer) = (node(placement.producer), node(placement.consumer));
        let interleaved = placement.policy == skb::Policy::Interleave.code();
        let mut nodes = [producer; PIECES_MAX];
        if interleaved {
            for (i, node) in nodes.iter_mut().enumerate() {
                *node = i as u16 % self.machine.nodes;
            }
        }
        let pieces = if interleaved { usize::from(self.machine.nodes) } else { 1 };
        Ok(Places { homes: [producer, consumer, producer], pieces, nodes })
    }

    fn allocate(&mut self, node: u16, bytes: u64) -> Result<(CPtr, u64), MonitorError> {
        assert_eq!(self.core, 0);
        let used: u64 =
            self.machine.allocated.values().filter(|(_, n)| *n == node).map(|(size, _)| size).sum();
        if node >= self.machine.nodes || used.saturating_add(bytes) > NODE {
            return Err(MonitorError::NoMemory);
        }
        let base = self.machine.fresh_range(bytes);
        self.machine.allocated.insert(base, (bytes, node));
        let memory = Memory { base, size: bytes, rights: Rights::all(), owner: 0 };
        Ok((self.machine.give(0, Object::Frame(memory), Holder::Monitor), base))
    }

    fn free(&mut self, cap: CPtr, base: u64) {
        assert_eq!((self.core, self.frame(cap).base), (0, base));
        for (core, holder) in self.machine.copies_of(base) {
            assert_eq!(core, 0, "freed while {holder:?} has a copy");
        }
        assert!(!self.machine.copied.iter().any(|(c, b, _)| (*c, *b) == (0, base)), "believed to be copied");
        assert!(self.machine.allocated.remove(&base).is_some(), "freed twice");
        self.machine.delete_all(0, |slot, object| match object {
            Object::Frame(m) => slot != cap && m.base == base,
            _ => false,
        });
        self.delete(cap);
    }

    fn memory(&mut self, node: u16) -> Result<(u64, u64), MonitorError> {
        assert_eq!(self.core, 0);
        if node >= self.machine.nodes {
            return Err(MonitorError::NotFound);
        }
        let used: u64 =
            self.machine.allocated.values().filter(|(_, n)| *n == node).map(|(size, _)| size).sum();
        Ok((NODE - used, NODE))
    }

    fn register(&mut self, name: [u64; TEXT_WORDS], iref: Iref) -> Result<(), MonitorError> {
        assert_eq!(self.core, 0);
        self.machine.names.insert(name, iref);
        Ok(())
    }

    fn lookup(&mut self, name: [u64; TEXT_WORDS]) -> Option<Iref> {
        assert_eq!(self.core, 0);
        self.machine.names.get(&name).copied().filter(|iref| iref.0 != 0)
    }

    fn core(&mut self, core: u32) -> Result<CoreFacts, MonitorError> {
        assert_eq!(self.core, 0);
        if core >= self.machine.cores {
            return Err(MonitorError::NoCore);
        }
        let node = (core % u32::from(self.machine.nodes)) as u16;
        Ok(CoreFacts { core, node, apic: core * 2, nodes: self.machine.nodes })
    }
}
