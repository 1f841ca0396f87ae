//! [`Ledger`]: the holder table of a pool at one side. Everything that a peer says about a slot is checked
//! against it.

use core::cell::Cell;
use core::fmt;

use ump::{Kind, Message};

use crate::channel::Channel;
use crate::descriptor::{Kinds, PoolId, Ticket};
use crate::error::{TableTooSmall, Violation};
use crate::memory::{Region, Word};

/// Who holds a slot, as far as this side knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The peer, and nobody here.
    There,
    /// A [`Buf`](crate::Buf) of this side.
    Here,
    /// This side, in the ledger's list: free at a source, to be given back at a sink.
    Listed,
    /// A [`Buf`](crate::Buf) of this side that is shared, and the peer.
    Both,
}

/// An entry of a holder table: memory that the user of a pool provides, one per slot of it.
///
/// | bits | field |
/// |---|---|
/// | 0–31 | the generation of the last hand-over |
/// | 32–47 | the next slot of the list |
/// | 48–49 | who holds it |
///
/// It is private to one side. It is an atomic only so that a [`Source`](crate::Source) or
/// [`Sink`](crate::Sink) can move to another thread.
#[derive(Debug, Default)]
pub struct Slot(Word);

/// An entry, decoded.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) generation: u32,
    next: u16,
    pub(crate) holder: Holder,
}

/// The end of the list.
const NONE: u16 = u16::MAX;

const NEXT_SHIFT: u32 = 32;
const HOLDER_SHIFT: u32 = 48;

impl Slot {
    /// An entry of a table that is not used yet.
    pub const fn new() -> Self {
        Self(Word::new(0))
    }

    #[inline(always)]
    fn get(&self) -> Entry {
        let word = self.0.load();
        let holder = match word >> HOLDER_SHIFT & 3 {
            0 => Holder::There,
            1 => Holder::Here,
            2 => Holder::Listed,
            _ => Holder::Both,
        };
        Entry { generation: word as u32, next: (word >> NEXT_SHIFT) as u16, holder }
    }

    #[inline(always)]
    fn set(&self, Entry { generation, next, holder }: Entry) {
        let next = u64::from(next) << NEXT_SHIFT;
        self.0.store(u64::from(generation) | next | (holder as u64) << HOLDER_SHIFT);
    }
}

/// The holder table of a pool at one side, and what it is about.
pub(crate) struct Ledger<'m> {
    pub(crate) id: PoolId,
    pub(crate) kinds: Kinds,
    pub(crate) region: Region<'m>,
    /// An entry per slot.
    table: &'m [Slot],
    /// The first slot of the list.
    head: Cell<u16>,
    /// How many slots the list has.
    listed: Cell<u16>,
    violation: Cell<Option<Violation>>,
}

impl<'m> Ledger<'m> {
    /// A ledger with all slots in one place, `Listed` or `There`.
    pub(crate) fn new(
        id: PoolId,
        region: Region<'m>,
        table: &'m mut [Slot],
        kinds: Kinds,
        holder: Holder,
    ) -> Result<Self, TableTooSmall> {
        let (entries, slots) = (table.len(), region.slots());
        let table: &'m [Slot] = table;
        let table = table.get(..slots).ok_or(TableTooSmall { entries, slots })?;
        let (head, listed, violation) = (Cell::new(NONE), Cell::new(0), Cell::new(None));
        let mut ledger = Self { id, kinds, region, table, head, listed, violation };
        ledger.restart(holder);
        Ok(ledger)
    }

    /// Begins anew. There are no buffers left, since they borrow what is borrowed here for good.
    pub(crate) fn restart(&mut self, holder: Holder) {
        self.head.set(NONE);
        self.listed.set(0);
        self.violation.set(None);
        // The first slots shall be taken first.
        for slot in (0..self.region.slots() as u16).rev() {
            self.assign(slot, 0, holder);
            if holder == Holder::Listed {
                self.push(slot);
            }
        }
    }

    /// The entry of a slot of this pool.
    #[inline(always)]
    pub(crate) fn entry(&self, slot: u16) -> Entry {
        self.table[usize::from(slot)].get()
    }

    /// Enters who holds a slot, and since which hand-over.
    #[inline(always)]
    pub(crate) fn assign(&self, slot: u16, generation: u32, holder: Holder) {
        self.table[usize::from(slot)].set(Entry { generation, next: NONE, holder });
    }

    /// Puts a slot in front of the list.
    #[inline(always)]
    pub(crate) fn push(&self, slot: u16) {
        let entry = &self.table[usize::from(slot)];
        entry.set(Entry { next: self.head.get(), holder: Holder::Listed, ..entry.get() });
        self.head.set(slot);
        self.listed.set(self.listed.get() + 1);
    }

    /// Takes the first slot out of the list, for `holder`.
    #[inline]
    pub(crate) fn pop(&self, holder: Holder) -> Option<u16> {
        let slot = self.head.get();
        // No slot has the number `NONE`, which is beyond every table.
        let Entry { generation, next, .. } = self.table.get(usize::from(slot))?.get();
        self.head.set(next);
        self.listed.set(self.listed.get() - 1);
        self.assign(slot, generation, holder);
        Some(slot)
    }

    /// How many slots the list has.
    pub(crate) fn listed(&self) -> usize {
        self.listed.get().into()
    }

    /// The tickets of the first slots of the list, as many as `words` has room for; and how many.
    pub(crate) fn tickets(&self, words: &mut [u64]) -> usize {
        let (mut slot, mut count) = (self.head.get(), 0);
        for word in words {
            let Some(entry) = self.table.get(usize::from(slot)).map(Slot::get) else { break };
            *word = Ticket { pool: self.id, slot, generation: entry.generation }.encode();
            (slot, count) = (entry.next, count + 1);
        }
        count
    }

    /// How many slots the peer holds, alone or with this side.
    pub(crate) fn there(&self) -> usize {
        self.table.iter().filter(|slot| matches!(slot.get().holder, Holder::There | Holder::Both)).count()
    }

    /// The entry of the slot that a ticket names, if there is such a slot.
    #[inline(always)]
    pub(crate) fn find(&self, ticket: Ticket) -> Result<Entry, Violation> {
        if ticket.pool != self.id {
            return Err(Violation::Pool { pool: ticket.pool, expected: self.id });
        }
        match self.table.get(usize::from(ticket.slot)) {
            Some(slot) => Ok(slot.get()),
            None => Err(Violation::Slot { slot: ticket.slot, slots: self.table.len() as u16 }),
        }
    }

    /// Checks a message of the kind `expected` by `check`. What that finds wrong closes the channel, and is
    /// the answer to every later message too.
    #[inline(always)]
    pub(crate) fn checked<T>(
        &self,
        channel: &mut impl Channel,
        message: &Message,
        expected: Kind,
        check: impl FnOnce() -> Result<T, Violation>,
    ) -> Result<T, Violation> {
        let kind = message.kind();
        if let Some(violation) = self.violation.get() {
            return Err(violation);
        }
        let result = if kind == expected { check() } else { Err(Violation::Kind { kind, expected }) };
        result.inspect_err(|violation| self.close(channel, kind, *violation))
    }

    #[cold]
    #[inline(never)]
    fn close(&self, channel: &mut impl Channel, kind: Kind, violation: Violation) {
        self.violation.set(Some(violation));
        channel.refuse(kind);
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get()
    }
}

impl fmt::Debug for Ledger<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("pool", &self.id.0)
            .field("slots", &self.table.len())
            .field("listed", &self.listed.get())
            .field("violation", &self.violation.get())
            .finish_non_exhaustive()
    }
}
