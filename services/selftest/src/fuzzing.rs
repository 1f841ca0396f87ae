//! What the scenario `fuzz`, its nodes and their victims agree on.
//!
//! Victim `v` of a run lives on core `v` modulo the number of cores. What it invokes is decided by the seed and its
//! number alone, one invocation after the other.

use lmp::cptr::task;
use lmp::invocation::{MapFlags, Op};
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, SysError};
use runtime::memory::{self, MemoryError};
use ump::{Accepts, Kind};

/// The module that runs on each core and makes victims there.
pub const NODE: &str = "test_fuzz_node";
/// The service that nodes bind to.
pub const SERVICE: &str = "test_fuzz";

/// From a node: invocations so far.
pub const PROGRESS: Kind = Kind(0);
/// From a node: operation ([`operation`]), outcome ([`outcome`]) and how often it came.
pub const COUNTED: Kind = Kind(1);
/// From a node, the last: victims, audits, and victims that were ended because they waited for ever.
pub const FINISHED: Kind = Kind(2);

/// What both ends take.
pub const ACCEPTS: Accepts = Accepts::kinds_below(Kind(3));

/// Invocations between two audits.
pub const STAGE: u64 = 1000;
/// Invocations that a victim attempts at most.
pub const PER_VICTIM: u64 = 5 * STAGE;
/// Seeds, so that one fits into the arguments of a node with the rest.
pub const SEEDS: u64 = 1 << 32;

/// Task slots of a victim.
pub mod slot {
    use super::{CPtr, task};

    /// A KCB capability that only reads.
    pub const KCB: CPtr = task::KCB;
    /// The frame of the [`Board`](super::Board).
    pub const BOARD: CPtr = crate::SHARED;
    /// The notification that tells the node of a stage.
    pub const NOTICE: CPtr = CPtr::new(0, 41);
    /// An endpoint of the partner, for sending with capabilities; the partner has it for receiving.
    pub const PARTNER: CPtr = CPtr::new(0, 42);
    /// The right to ring the console's doorbell.
    pub const IPI: CPtr = CPtr::new(0, 43);
    /// One interrupt vector.
    pub const IRQ: CPtr = CPtr::new(0, 44);
}

/// Outcomes that are told apart: granted, and each error.
pub const OUTCOMES: usize = SysError::ALL.len() + 1;
/// Operations that are told apart: all, and numbers of none.
pub const OPERATIONS: usize = Op::ALL.len() + 1;

/// Where an operation number is counted.
pub fn operation(code: u16) -> usize {
    Op::ALL.iter().position(|op| *op as u16 == code).unwrap_or(Op::ALL.len())
}

/// Where a status is counted.
pub fn outcome(status: u64) -> usize {
    usize::from(status as u16).min(OUTCOMES - 1)
}

/// Words of the board: invocations made, the stage that the victim has come to, and the stage from which it may go on.
#[derive(Clone, Copy)]
pub enum Word {
    /// Invocations made.
    Done = 0,
    /// Stages that the victim has come to the end of.
    Reached = 1,
    /// Stages after which it may go on.
    Audited = 2,
}

/// The first word of the counts.
const COUNTS: usize = 8;
const BYTES: u64 = 4 * PAGE_SIZE;
const _: () = assert!((COUNTS + OPERATIONS * OUTCOMES) * 8 <= BYTES as usize);

/// Memory that a node and its victims share: how far the victim is, and what came of its invocations. A victim that
/// goes wild may write anything there.
pub struct Board {
    frame: CPtr,
    words: *mut u64,
}

impl Board {
    /// A new one, all zero.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new() -> Result<Board, MemoryError> {
        let frame = memory::allocate(ObjType::Frame, BYTES)?.cap;
        Board::of(frame)
    }

    /// The one in `frame`.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn of(frame: CPtr) -> Result<Board, MemoryError> {
        let mapped = memory::map(frame, 0, BYTES, MapFlags::READ | MapFlags::WRITE)?;
        Ok(Board { frame, words: mapped.as_ptr() })
    }

    /// Its frame.
    pub fn frame(&self) -> CPtr {
        self.frame
    }

    fn at(&self, index: usize) -> *mut u64 {
        assert!(index < BYTES as usize / 8);
        self.words.wrapping_add(index)
    }

    /// A word.
    pub fn get(&self, word: Word) -> u64 {
        // SAFETY: the frame is mapped for good, and the index is within it; volatile, since another domain writes it.
        unsafe { self.at(word as usize).read_volatile() }
    }

    /// Sets a word.
    pub fn set(&self, word: Word, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.at(word as usize).write_volatile(value) }
    }

    /// How often `operation` had that `outcome`.
    pub fn count(&self, operation: usize, outcome: usize) -> u64 {
        // SAFETY: as in `get`.
        unsafe { self.at(COUNTS + operation * OUTCOMES + outcome).read_volatile() }
    }

    /// Counts an invocation.
    pub fn add(&self, operation: usize, outcome: usize) {
        let at = self.at(COUNTS + operation * OUTCOMES + outcome);
        // SAFETY: as in `get`.
        unsafe { at.write_volatile(at.read_volatile() + 1) }
        self.set(Word::Done, self.get(Word::Done) + 1);
    }

    /// Makes all words zero but the counts.
    pub fn restart(&self) {
        for word in [Word::Done, Word::Reached, Word::Audited] {
            self.set(word, 0);
        }
    }
}
