//! [`Source`]: the side of a pool that hands slots over.

use ump::Message;

use crate::buffer::{Buf, Owned};
use crate::channel::Channel;
use crate::descriptor::{Kinds, PoolId, Ticket};
use crate::error::{TableTooSmall, Violation};
use crate::ledger::{Holder, Ledger, Slot};
use crate::memory::Region;

/// The side of a pool that takes free slots, fills them and hands them over.
///
/// It can move to another thread as long as there is no buffer of it, but cannot be shared.
#[derive(Debug)]
pub struct Source<'m> {
    ledger: Ledger<'m>,
}

impl<'m> Source<'m> {
    /// The source of a pool, all of whose slots are free. `table` has an entry per slot.
    ///
    /// # Errors
    /// [`TableTooSmall`].
    pub fn new(
        id: PoolId,
        region: Region<'m>,
        table: &'m mut [Slot],
        kinds: Kinds,
    ) -> Result<Self, TableTooSmall> {
        Ok(Self { ledger: Ledger::new(id, region, table, kinds, Holder::Listed)? })
    }

    /// A free slot, if there is one. It still has whatever data it had.
    #[inline]
    pub fn take(&self) -> Option<Buf<'_, Owned>> {
        let slot = self.ledger.pop(Holder::Here)?;
        let bytes = self.ledger.region.slot_size().bytes();
        Some(Buf::new(&self.ledger, slot, 0, bytes as u32))
    }

    /// How many slots are free.
    pub fn free(&self) -> usize {
        self.ledger.listed()
    }

    /// How many slots the peer holds, shared ones included.
    pub fn lent(&self) -> usize {
        self.ledger.there()
    }

    /// Takes back the slots that a message of the kind [`Kinds::give_back`] gives back, and returns how many.
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel, now or before.
    #[inline]
    pub fn accept_return(&self, channel: &mut impl Channel, message: &Message) -> Result<usize, Violation> {
        let ledger = &self.ledger;
        ledger.checked(channel, message, ledger.kinds.give_back(), || {
            let (bytes, words) = (message.len(), message.words());
            if bytes == 0 || !bytes.is_multiple_of(size_of::<u64>()) {
                return Err(Violation::Length { bytes });
            }
            words.iter().try_for_each(|word| self.take_back(Ticket::decode(*word)))?;
            Ok(words.len())
        })
    }

    fn take_back(&self, ticket: Ticket) -> Result<(), Violation> {
        let Ticket { slot, generation: found, .. } = ticket;
        let entry = self.ledger.find(ticket)?;
        if !matches!(entry.holder, Holder::There | Holder::Both) {
            return Err(Violation::NotLent { slot });
        }
        if found != entry.generation {
            return Err(Violation::Generation { slot, expected: entry.generation, found });
        }
        match entry.holder {
            Holder::Both => self.ledger.assign(slot, found, Holder::Here),
            _ => self.ledger.push(slot),
        }
        Ok(())
    }

    /// How the peer broke the rules, if it did.
    pub fn violation(&self) -> Option<Violation> {
        self.ledger.violation()
    }

    /// Begins anew, with all slots free, for another peer or a new channel. The former peer's mapping of the
    /// memory must be gone, or it can go on writing to the slots.
    pub fn restart(&mut self) {
        self.ledger.restart(Holder::Listed);
    }
}
