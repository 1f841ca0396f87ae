//! Invocations by a grammar: an operation, and arguments that mostly fit it.
//!
//! The domain believes what is in its slots, by what it did and saw there, and takes references to capabilities of
//! the type that an operation wants, or to slots that held one and do not any more, or to anything. What it plays
//! with lies in one piece of RAM and one CNode, which start afresh after each stage; the rest it touches seldom, for
//! then it is soon at its end. Nothing that depends on time decides what comes next.

use core::arch::asm;

use lmp::cptr::{SlotRef, domain_l1, task};
use lmp::frame::{Control, FRAME_SIZE};
use lmp::invocation::{Counter, LinkEnd, MapFlags, MessageInfo, Op, header_with};
use lmp::objects::{Extent, PAGE_SIZE};
use lmp::{CPtr, ObjType, Rights, SysError, layout, syscall};
use runtime::memory::{self, Object, object_align, object_size};
use runtime::{Env, time};
use selftest::Random;
use selftest::fuzzing::{Board, STAGE, Word, operation, outcome, slot};

/// The L1 slot of the CNode that it plays in.
const PLAY: u32 = domain_l1::FIRST_FREE + 14;
/// Slots of it that it believes something of.
const SLOTS: usize = 64;
/// RAM that it plays with, in bytes; below what a kernel instance takes, which could not be taken back.
const PLAY_RAM: u64 = 384 << 10;
/// One in so many invocations that would end the domain or stop it for good is made.
const SELDOM: u64 = 2048;
/// After so many invocations it takes everything back and begins afresh.
const ROUND: u64 = 250;
/// So many invocations at least are made between two such beginnings.
const SHORT_ROUND: u64 = 25;
/// The longest that a form waits, in parts of a millisecond.
const WAIT_PART: u64 = 64;
/// How long a call may take, in milliseconds: the partner answers at once unless it waits itself.
const CALL_MS: u64 = 20;
/// The most often that an unfinished operation is repeated.
const PATIENCE: u64 = 10_000;

/// Exit codes: the domain lacks what it needs from the start, or lost it.
const NOT_STARTED: u64 = 2;
const CRIPPLED: u64 = 5;

/// What a slot is believed to hold.
#[derive(Clone, Copy, PartialEq)]
enum Belief {
    Empty,
    /// It held that.
    Stale(ObjType),
    /// That, of so many bytes.
    Holds(ObjType, u64),
}

/// All that goes into the registers.
#[derive(Clone, Copy)]
struct Invocation {
    header: u64,
    words: [u64; 10],
    /// The slots of message forms.
    slots: u64,
}

/// What came back of it.
struct Result {
    status: u64,
    /// Words 0 to 2.
    words: [u64; 3],
}

struct Grammar {
    random: Random,
    board: Board,
    slots: [Belief; SLOTS],
    /// The slot to look at next.
    look: usize,
    /// What was looked for in vain, to be made.
    wanted: Option<ObjType>,
    /// Invocations before this beginning.
    begun: u64,
    /// All RAM to play with; no invocation is made on it on purpose.
    keep: Object,
    apic_id: u64,
    doorbell: u64,
    vector: u64,
    wait: u64,
    call_wait: u64,
}

pub(crate) fn run(env: &Env) -> u64 {
    let cnode = object_size(ObjType::L2CNode, 0);
    let keep = memory::allocate_in(ObjType::Ram, PLAY_RAM, cnode, &memory::ANYWHERE);
    let (Ok(board), Ok(keep)) = (Board::of(slot::BOARD), keep) else { return NOT_STARTED };
    let mut grammar = Grammar {
        random: Random::new(env.number("seed", 1) << 24 ^ env.number("victim", 0)),
        board,
        slots: [Belief::Empty; SLOTS],
        look: 0,
        wanted: None,
        begun: 0,
        keep,
        apic_id: env.info().apic_id.into(),
        doorbell: env.number("doorbell", 0),
        vector: env.number("vector", 0),
        wait: env.info().tsc_ticks_per_ms / WAIT_PART,
        call_wait: env.info().tsc_ticks_per_ms * CALL_MS,
    };
    grammar.play(env.number("calls", STAGE))
}

impl Grammar {
    fn play(&mut self, calls: u64) -> u64 {
        let mut stage = 0;
        while self.board.get(Word::Done) < calls {
            if !self.afresh() {
                return CRIPPLED;
            }
            stage += 1;
            while self.board.get(Word::Done) < calls.min(stage * STAGE) {
                let round = self.board.get(Word::Done) - self.begun;
                let is_poor = !self.slots.iter().any(|b| matches!(b, Belief::Holds(ObjType::Ram, _)));
                if (round >= ROUND || is_poor && round >= SHORT_ROUND) && !self.afresh() {
                    return CRIPPLED;
                }
                self.turn();
            }
            self.board.set(Word::Reached, stage);
            let _ = syscall::notification_signal(slot::NOTICE);
            while self.board.get(Word::Audited) < stage {
                if syscall::yield_core().is_err() {
                    return CRIPPLED;
                }
            }
        }
        0
    }

    /// Takes everything back and begins with an empty CNode and one piece of RAM; whether that can be done.
    fn afresh(&mut self) -> bool {
        let (root, keep) = (task::ROOT, self.keep.cap);
        if syscall::cap_revoke(root, keep).is_err() {
            return false;
        }
        let _ = syscall::cap_delete(root, SlotRef::L1(PLAY));
        let cnode = object_size(ObjType::L2CNode, 0);
        let made = syscall::cap_retype(root, SlotRef::L1(PLAY), keep, ObjType::L2CNode, 0, cnode, 1)
            .and_then(|()| syscall::cap_retype(root, at(0), keep, ObjType::Ram, cnode, PLAY_RAM - cnode, 1));
        self.begun = self.board.get(Word::Done);
        self.slots = [Belief::Empty; SLOTS];
        self.slots[0] = Belief::Holds(ObjType::Ram, PLAY_RAM - cnode);
        made.is_ok()
    }

    /// One invocation, repeated as long as it is unfinished, and what is learnt of it.
    fn turn(&mut self) {
        if self.random.below(8) == 0 {
            self.look = (self.look + 1) % SLOTS;
            self.look_at(self.look);
            return;
        }
        let invocation = self.invocation();
        let cap = CPtr(invocation.header as u32);
        let op = Op::from_code((invocation.header >> 32) as u16);
        if ends_caller(op, cap) && self.random.below(SELDOM) != 0 {
            return;
        }
        if op == Some(Op::Revoke) && !self.owns(invocation.words[0]) {
            return;
        }
        self.prepare_wait(op);
        // Now and then an operation is left as it is, in the middle.
        // A pass of an audit takes thousands of steps.
        let leave =
            if op == Some(Op::Audit) { self.random.below(32) != 0 } else { self.random.below(8) == 0 };
        let most = if leave { 1 } else { PATIENCE };
        let mut status = 0;
        for _ in 0..most {
            status = self.invoke(&invocation).status;
            if status as u16 != SysError::Again as u16 {
                break;
            }
        }
        self.learn(op, cap, &invocation.words, invocation.slots, status as u16);
    }

    fn invoke(&self, invocation: &Invocation) -> Result {
        let result = invoke(invocation);
        self.board.add(operation((invocation.header >> 32) as u16), outcome(result.status));
        result
    }

    /// Whether the capability in that slot is not one of those that others gave this domain, with fewer rights than
    /// they have: copies are equal, so that revoking one of these takes the others' from them.
    fn owns(&self, slot: u64) -> bool {
        let mut words = [0; 10];
        words[0] = slot;
        let found =
            self.invoke(&Invocation { header: header_with(task::ROOT, Op::Identify, 0), words, slots: 0 });
        found.status as u16 != 0 || (found.words[0] >> 8) as u8 == Rights::all().bits()
    }

    /// Sees to it that a form that waits ends soon, and that no event keeps it from waiting.
    fn prepare_wait(&mut self, op: Option<Op>) {
        // The random number is taken in any case, so that what follows does not depend on how fast clocks tick.
        let part = self.random.below(1 << 16);
        let wait = if op == Some(Op::Call) { self.call_wait } else { (part * self.wait) >> 16 };
        let deadline = time::now() + wait;
        if self.random.below(4) > 0 {
            runtime::events::take(u64::MAX);
        }
        let control = layout::DISPATCHER_FRAME as *mut Control;
        // SAFETY: the frame is mapped; the CPU driver reads the word at the next form.
        unsafe { (&raw mut (*control).receive_deadline).write_volatile(deadline) };
    }

    /// Learns of slots from an invocation of `cap`.
    fn learn(&mut self, op: Option<Op>, cap: CPtr, words: &[u64; 10], slots: u64, status: u16) {
        if status == SysError::EmptySlot as u16 {
            self.forget(cap.0.into());
            return;
        }
        if status != 0 {
            return;
        }
        match op {
            Some(Op::Copy | Op::Mint | Op::SaveReply) => self.look_at_word(words[0]),
            Some(Op::Retype) => {
                for n in 0..words[5].min(8) {
                    self.look_at_word(words[0].wrapping_add(n));
                }
            }
            Some(Op::Map) => self.look_at_word(words[5]),
            Some(Op::Delete) => self.forget(words[0]),
            Some(Op::Reply) => self.forget(cap.0.into()),
            Some(Op::Send | Op::Call | Op::Receive | Op::ReplyReceive) => {
                self.look_at_word(slots & u64::from(u32::MAX));
                self.look_at_word(slots >> 32);
            }
            _ => {}
        }
    }

    /// The index of a slot that it believes something of.
    fn index(word: u64) -> Option<usize> {
        let slot = CPtr(u32::try_from(word).ok()?);
        (slot.l1() == PLAY && (slot.l2() as usize) < SLOTS).then_some(slot.l2() as usize)
    }

    fn forget(&mut self, word: u64) {
        if let Some(index) = Self::index(word)
            && let Belief::Holds(ty, _) = self.slots[index]
        {
            self.slots[index] = Belief::Stale(ty);
        }
    }

    fn look_at_word(&mut self, word: u64) {
        if let Some(index) = Self::index(word) {
            self.look_at(index);
        }
    }

    fn look_at(&mut self, index: usize) {
        let mut words = [0; 10];
        words[0] = u64::from(at(index).0);
        let found =
            self.invoke(&Invocation { header: header_with(task::ROOT, Op::Identify, 0), words, slots: 0 });
        if found.status as u16 == 0 {
            let ty = ObjType::from_code(found.words[0] as u8).unwrap_or(ObjType::Null);
            self.slots[index] = Belief::Holds(ty, found.words[2]);
        } else {
            self.forget(at(index).0.into());
        }
    }

    /// One of the slots for which `wanted` holds.
    fn find(&mut self, wanted: impl Fn(Belief) -> bool) -> Option<usize> {
        let start = self.random.below(SLOTS as u64) as usize;
        (0..SLOTS).map(|n| (start + n) % SLOTS).find(|n| wanted(self.slots[*n]))
    }

    /// A reference: mostly to a capability of `ty`; else to a slot that held one, to another one, to one of those that
    /// the domain started with, or to anything.
    fn cap(&mut self, ty: ObjType) -> CPtr {
        match self.random.below(64) {
            0..52 => {
                let given = given(ty).filter(|_| self.random.below(2) == 0);
                let made = self.find(|b| matches!(b, Belief::Holds(t, _) if t == ty)).map(at);
                if made.is_none() {
                    self.wanted = Some(ty);
                }
                given.or(made).unwrap_or_else(|| self.any_slot())
            }
            52..57 => match self.find(|b| b == Belief::Stale(ty)) {
                Some(index) => at(index),
                None => self.any_slot(),
            },
            57..61 => self.any_slot(),
            61 => CPtr::new(0, self.random.below(64) as u32),
            _ => self.garbage(),
        }
    }

    /// A capability of `ty` that the domain made itself, mostly.
    fn made(&mut self, ty: ObjType) -> CPtr {
        match self.find(|b| matches!(b, Belief::Holds(t, _) if t == ty)) {
            Some(index) if self.random.below(16) > 0 => at(index),
            Some(_) => self.cap(ty),
            None => {
                self.wanted = Some(ty);
                self.cap(ty)
            }
        }
    }

    fn any_slot(&mut self) -> CPtr {
        at(self.random.below(SLOTS as u64) as usize)
    }

    /// A reference to anything, or nothing.
    fn garbage(&mut self) -> CPtr {
        match self.random.below(4) {
            0 => CPtr(self.random.next_u64() as u32),
            1 => CPtr(self.random.awkward() as u32),
            2 => CPtr::new(PLAY, self.random.below(256) as u32),
            _ => CPtr::new(self.random.below(48) as u32, self.random.below(256) as u32),
        }
    }

    /// A slot for a new capability, as a word: mostly an empty one.
    fn vacancy(&mut self) -> u64 {
        let slot = match self.random.below(32) {
            0 => self.any_slot(),
            1 => self.garbage(),
            _ => match self.find(|b| !matches!(b, Belief::Holds(..))) {
                Some(index) => at(index),
                None => CPtr::new(PLAY, self.random.below(256) as u32),
            },
        };
        self.slot_word(slot)
    }

    /// A slot as a word, seldom at the wrong level or with bits too many.
    fn slot_word(&mut self, slot: CPtr) -> u64 {
        match self.random.below(128) {
            0 => SlotRef::L1(self.random.below(40) as u32).encode(),
            1 => u64::from(slot.0) | self.random.awkward() << 32,
            _ => SlotRef::L2(slot).encode(),
        }
    }

    /// A slot that holds something, whatever it is.
    fn something(&mut self) -> u64 {
        let slot = match self.find(|b| matches!(b, Belief::Holds(..))) {
            Some(index) if self.random.below(16) > 0 => at(index),
            _ => self.any_slot(),
        };
        let slot = match self.random.below(32) {
            0 => self.garbage(),
            1 => CPtr::new(0, self.random.below(64) as u32),
            _ => slot,
        };
        self.slot_word(slot)
    }

    /// `good`, seldom something else.
    fn mostly(&mut self, good: u64) -> u64 {
        match self.random.below(24) {
            0 => self.random.awkward(),
            1 => good.wrapping_add(1),
            _ => good,
        }
    }

    /// A capability space: mostly the own one.
    fn root(&mut self) -> CPtr {
        if self.random.below(16) > 0 { task::ROOT } else { self.cap(ObjType::L1CNode) }
    }

    fn invocation(&mut self) -> Invocation {
        let op = self.operation();
        let mut words = [0; 10];
        words.iter_mut().for_each(|w| *w = self.random.awkward());
        let (mut aux, mut slots) = (0, self.random.next_u64());
        let cap = match op {
            Op::Copy | Op::Mint => {
                let root = self.root();
                (words[0], words[1]) = (self.vacancy(), self.something());
                let rights = self.random.below(16);
                words[2] = self.mostly(rights);
                let badge = self.random.below(4);
                words[3] = self.mostly(badge);
                root
            }
            Op::Retype => self.retype(&mut words),
            Op::Delete | Op::Revoke | Op::Identify => {
                words[0] = self.something();
                // Without its first piece of RAM there is little to be made.
                if words[0] == u64::from(at(0).0) && self.random.below(8) > 0 {
                    words[0] = self.something();
                }
                if ends_victim(words[0]) && self.random.below(SELDOM) != 0 {
                    words[0] = at(SLOTS - 1).0.into();
                }
                self.root()
            }
            Op::Map => self.map(&mut words),
            Op::Protect => {
                let flags = self.flags();
                words[0] = self.mostly(flags);
                self.made(ObjType::Mapping)
            }
            Op::Unmap => {
                words[0] = self.made(ObjType::Mapping).0.into();
                self.cap(ObjType::Pt)
            }
            // Mostly another's: who takes the own root away can name nothing any more.
            Op::ResizeRoot => {
                words[0] = self.made(ObjType::L1CNode).0.into();
                self.made(ObjType::Dispatcher)
            }
            Op::Audit => self.cap(ObjType::Kcb),
            Op::Configure => {
                words[0] = self.cap(ObjType::L1CNode).0.into();
                words[1] = self.cap(ObjType::Pml4).0.into();
                words[2] = self.large_frame().0.into();
                self.made(ObjType::Dispatcher)
            }
            Op::Resume | Op::Suspend => self.made(ObjType::Dispatcher),
            Op::SetEndNotice => {
                words[0] = self.made(ObjType::Notification).0.into();
                self.made(ObjType::Dispatcher)
            }
            Op::Status => self.cap(ObjType::Dispatcher),
            Op::Yield | Op::Block | Op::Exit => self.own_dispatcher(),
            Op::BindEndpoint => {
                words[0] = self.cap(ObjType::Dispatcher).0.into();
                let offset = FRAME_SIZE + 64 * self.random.below(64);
                words[1] = self.mostly(offset);
                let messages = 1 + self.random.below(8);
                words[2] = self.mostly(messages);
                let event = 32 + self.random.below(32);
                words[3] = self.mostly(event);
                words[4] = self.mostly(7);
                self.made(ObjType::Endpoint)
            }
            Op::Send | Op::Call | Op::Receive | Op::ReplyReceive | Op::Reply => {
                (aux, slots) = self.message();
                match op {
                    Op::Send | Op::Call => self.cap(ObjType::Endpoint),
                    Op::Reply if self.random.below(2) == 0 => self.made(ObjType::Reply),
                    Op::Reply => self.own_dispatcher(),
                    _ if self.random.below(2) == 0 => self.made(ObjType::Endpoint),
                    _ => self.own_dispatcher(),
                }
            }
            Op::SaveReply => {
                words[0] = self.vacancy();
                self.own_dispatcher()
            }
            Op::SetLanding => {
                words[0] = self.vacancy();
                self.made(ObjType::Endpoint)
            }
            Op::Signal if self.random.below(3) == 0 => self.made(ObjType::Link),
            Op::Signal | Op::Poll => self.made(ObjType::Notification),
            Op::BindNotification => {
                words[0] = self.cap(ObjType::Dispatcher).0.into();
                let event = 32 + self.random.below(32);
                words[1] = self.mostly(event);
                self.made(ObjType::Notification)
            }
            Op::BindIrq => {
                words[0] = self.mostly(self.vector);
                words[1] = self.made(ObjType::Notification).0.into();
                self.cap(ObjType::Irq)
            }
            Op::AckIrq => {
                words[0] = self.mostly(self.vector);
                self.cap(ObjType::Irq)
            }
            Op::SendIpi => {
                words[0] = self.mostly(self.doorbell);
                self.cap(ObjType::Ipi)
            }
            Op::ReadCounter => {
                let counter = self.random.below(Counter::ALL.len() as u64);
                words[0] = self.mostly(counter);
                self.cap(ObjType::Kcb)
            }
            Op::ConfigureLink => self.link(&mut words),
            // Operations for which the domain has no capability that allows them.
            Op::PortIn | Op::PortOut => self.cap(ObjType::IoPort),
            Op::LoadKernel | Op::GiveMemory => self.cap(ObjType::Ram),
            Op::SetLogDoorbell | Op::Panic | Op::CreateForeign | Op::SetRemote => self.cap(ObjType::Kcb),
            _ => {
                let types = ObjType::ALL;
                let ty = self.random.pick(types);
                words[0] = self.something();
                self.cap(ty)
            }
        };
        let header = match self.random.below(128) {
            0 => self.random.next_u64(),
            // An operation that the type does not have.
            1 => header_with(cap, self.random.pick(Op::ALL), aux),
            _ => header_with(cap, op, aux),
        };
        if self.random.below(64) == 0 {
            let (n, word) = (self.random.below(6) as usize, self.random.awkward());
            words[n] = word;
        }
        Invocation { header, words, slots }
    }

    fn operation(&mut self) -> Op {
        if self.wanted.is_some() && self.random.below(2) == 0 {
            return Op::Retype;
        }
        let all: u64 = Op::ALL.iter().map(|op| weight(*op)).sum();
        let mut n = self.random.below(all);
        for op in Op::ALL {
            match n.checked_sub(weight(*op)) {
                Some(rest) => n = rest,
                None => return *op,
            }
        }
        Op::Yield
    }

    fn own_dispatcher(&mut self) -> CPtr {
        if self.random.below(16) > 0 { task::DISPATCHER } else { self.cap(ObjType::Dispatcher) }
    }

    fn retype(&mut self, words: &mut [u64; 10]) -> CPtr {
        const FROM_RAM: [ObjType; 12] = [
            ObjType::Ram,
            ObjType::Ram,
            ObjType::Frame,
            ObjType::Frame,
            ObjType::L2CNode,
            ObjType::L1CNode,
            ObjType::Pml4,
            ObjType::Dispatcher,
            ObjType::Endpoint,
            ObjType::Notification,
            ObjType::Link,
            ObjType::Null,
        ];
        const TABLES: [ObjType; 3] = [ObjType::Pdpt, ObjType::Pd, ObjType::Pt];
        let wanted = self.wanted.take().filter(|ty| ty.retypes_from(ObjType::Ram));
        let source = match self.random.below(16) {
            _ if wanted.is_some() => ObjType::Ram,
            0 => ObjType::Frame,
            1 => self.random.pick(&[ObjType::Ipi, ObjType::Irq, ObjType::IoPort, ObjType::DevFrame]),
            2 => self.random.pick(ObjType::ALL),
            _ => ObjType::Ram,
        };
        let src = self.cap(source);
        let ty = match source {
            _ if wanted.is_some() => wanted.unwrap_or(ObjType::Null),
            ObjType::Ram => match self.random.pick(&FROM_RAM) {
                ObjType::Null => self.random.pick(&TABLES),
                ty => ty,
            },
            _ if self.random.below(4) > 0 => source,
            _ => self.random.pick(ObjType::ALL),
        };
        let have = match Self::index(src.0.into()).map(|index| self.slots[index]) {
            Some(Belief::Holds(_, size)) => size,
            _ => PAGE_SIZE,
        };
        let size = match ty.extent() {
            Extent::Fixed(size) => size,
            Extent::Multiple(unit) if wanted == Some(ObjType::Frame) => unit * self.random.pick(&[1, 4]),
            Extent::Multiple(unit) => unit * self.random.pick(&[1, 1, 1, 2, 4, 4, 8]),
            Extent::Unsized => PAGE_SIZE,
        };
        let count = self.random.pick(&[1, 1, 1, 1, 2, 3, 8]);
        let align = object_align(ty).max(1);
        let offset = match ty.space() == ObjType::Ram.space() {
            true => align * self.random.below(have.saturating_sub(size * count) / align + 1),
            false => 0,
        };
        words[0] = self.vacancy();
        words[1] = self.slot_word(src);
        words[2] = self.mostly(ty as u64);
        words[3] = self.mostly(offset);
        words[4] = self.mostly(size);
        words[5] = self.mostly(count);
        self.root()
    }

    /// Flags of a mapping, most of which are granted.
    fn flags(&mut self) -> u64 {
        let flags = self.random.pick(&[
            MapFlags::READ,
            MapFlags::READ | MapFlags::WRITE,
            MapFlags::READ | MapFlags::EXECUTE,
            MapFlags::READ | MapFlags::WRITE | MapFlags::UNCACHED,
            MapFlags::READ | MapFlags::WRITE | MapFlags::EXECUTE,
            MapFlags::READ | MapFlags::LARGE,
        ]);
        flags.bits()
    }

    fn map(&mut self, words: &mut [u64; 10]) -> CPtr {
        let (table, below) = self.random.pick(&[
            (ObjType::Pml4, ObjType::Pdpt),
            (ObjType::Pdpt, ObjType::Pd),
            (ObjType::Pd, ObjType::Pt),
            (ObjType::Pt, ObjType::Frame),
            (ObjType::Pt, ObjType::Frame),
            (ObjType::Pd, ObjType::Frame),
        ]);
        let is_frame = below == ObjType::Frame;
        // Entries of the own root that the runtime uses are left alone.
        let entry = match table {
            ObjType::Pml4 => 8 + self.random.below(248),
            _ => self.random.below(512),
        };
        words[0] = self.mostly(entry);
        words[1] = self.made(below).0.into();
        let offset = if is_frame { PAGE_SIZE * self.random.pick(&[0, 0, 0, 1]) } else { 0 };
        words[2] = self.mostly(offset);
        let all = MapFlags::READ | MapFlags::WRITE | MapFlags::EXECUTE;
        let flags = if is_frame { self.flags() } else { all.bits() };
        words[3] = self.mostly(flags);
        let count = if is_frame { self.random.pick(&[1, 1, 2, 4]) } else { 1 };
        words[4] = self.mostly(count);
        words[5] = self.vacancy();
        self.cap(table)
    }

    /// A frame that a dispatcher can have, mostly; not the domain's own.
    fn large_frame(&mut self) -> CPtr {
        match self.find(|b| matches!(b, Belief::Holds(ObjType::Frame, size) if size >= FRAME_SIZE)) {
            Some(index) if self.random.below(16) > 0 => at(index),
            _ => {
                self.wanted = Some(ObjType::Frame);
                self.made(ObjType::Frame)
            }
        }
    }

    /// Operation-specific bits and slots of a message form.
    fn message(&mut self) -> (u16, u64) {
        let mut flags = 0;
        if self.random.below(2) == 0 {
            flags |= self.random.pick(&[
                MessageInfo::SEND_CAP,
                MessageInfo::SEND_CAP | MessageInfo::GIVE,
                MessageInfo::RECEIVE_CAP,
                MessageInfo::SEND_CAP | MessageInfo::RECEIVE_CAP,
            ]);
        }
        // Without it a form may wait for ever, and then the domain is of no more use.
        if self.random.below(SELDOM) != 0 {
            flags |= MessageInfo::DEADLINE;
        }
        let words = self.random.below(11);
        let words = self.mostly(words) as usize;
        let sent = if self.random.below(2) == 0 { self.made(ObjType::Endpoint).0 } else { self.any_slot().0 };
        let landing = self.vacancy();
        (MessageInfo::new(words, flags).0, u64::from(sent) | landing << 32)
    }

    fn link(&mut self, words: &mut [u64; 10]) -> CPtr {
        let end = self.random.pick(&[LinkEnd::Writer, LinkEnd::Reader]);
        words[0] = self.made(ObjType::Frame).0.into();
        words[1] = self.mostly(0);
        words[2] = self.mostly(end as u64);
        let partner = match end {
            LinkEnd::Writer => self.apic_id,
            LinkEnd::Reader => self.made(ObjType::L2CNode).0.into(),
        };
        words[3] = self.mostly(partner);
        self.made(ObjType::Link)
    }
}

/// Slot `index` of those that it believes something of.
fn at(index: usize) -> CPtr {
    CPtr::new(PLAY, index as u32)
}

/// A capability of that type that the domain started with.
fn given(ty: ObjType) -> Option<CPtr> {
    Some(match ty {
        ObjType::L1CNode => task::ROOT,
        ObjType::Dispatcher => task::DISPATCHER,
        ObjType::Pml4 => task::VSPACE,
        ObjType::Kcb => slot::KCB,
        ObjType::Endpoint => slot::PARTNER,
        ObjType::Ipi => slot::IPI,
        ObjType::Irq => slot::IRQ,
        _ => return None,
    })
}

/// Whether the invocation of `cap` ends or stops the caller for good.
fn ends_caller(op: Option<Op>, cap: CPtr) -> bool {
    matches!(op, Some(Op::Exit | Op::Suspend)) && cap == task::DISPATCHER
}

/// Whether the domain can do little once the slot that the word names is empty.
fn ends_victim(word: u64) -> bool {
    match SlotRef::decode(word) {
        Some(SlotRef::L1(_)) => true,
        Some(SlotRef::L2(slot)) => slot.l1() == domain_l1::TASK,
        None => false,
    }
}

/// How often an operation is chosen, beside others.
fn weight(op: Op) -> u64 {
    match op {
        Op::Retype => 14,
        Op::Map => 10,
        Op::Delete => 8,
        Op::Copy | Op::Mint => 6,
        Op::Configure | Op::Resume | Op::ConfigureLink => 5,
        Op::Unmap | Op::ResizeRoot => 4,
        Op::Protect | Op::BindEndpoint | Op::Send | Op::Call | Op::Receive | Op::Signal => 4,
        Op::Suspend
        | Op::SetEndNotice
        | Op::Status
        | Op::ReplyReceive
        | Op::Reply
        | Op::SaveReply
        | Op::BindNotification => 3,
        Op::Revoke | Op::Yield | Op::SetLanding | Op::Poll | Op::BindIrq | Op::AckIrq => 2,
        _ => 1,
    }
}

/// A system call with any registers at all.
fn invoke(invocation: &Invocation) -> Result {
    let Invocation { header, words, slots } = *invocation;
    let (status, w0, w1, w2);
    // SAFETY: every register that a system call may change is declared, or saved and restored here. What the
    // invocation does to this domain is the point: the domain's parent is prepared for its end, and it can harm nobody
    // else.
    unsafe {
        asm!("push rbx", "push rbp", "mov rbp, r11", "syscall", "pop rbp", "pop rbx",
            inlateout("rax") header => status, inlateout("r11") slots => _, lateout("rcx") _,
            inlateout("rdi") words[0] => w0, inlateout("rsi") words[1] => w1, inlateout("rdx") words[2] => w2,
            inlateout("r8") words[3] => _, inlateout("r9") words[4] => _, inlateout("r10") words[5] => _,
            inlateout("r12") words[6] => _, inlateout("r13") words[7] => _, inlateout("r14") words[8] => _,
            inlateout("r15") words[9] => _, clobber_abi("C"));
    }
    Result { status, words: [w0, w1, w2] }
}
