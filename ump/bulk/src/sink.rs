//! [`Sink`]: the side of a pool that slots are handed over to.

use ump::{Message, SendError};

use crate::buffer::{Buf, Received, Viewed};
use crate::channel::Channel;
use crate::descriptor::{Descriptor, Kinds, MAX_RETURNS, PoolId};
use crate::error::{TableTooSmall, Violation};
use crate::ledger::{Holder, Ledger, Slot};
use crate::memory::Region;

/// The side of a pool that receives slots, reads them and gives them back.
///
/// It can move to another thread as long as there is no buffer of it, but cannot be shared. It never stores to
/// the memory, so that can be mapped read-only.
#[derive(Debug)]
pub struct Sink<'m> {
    ledger: Ledger<'m>,
}

/// What a message of the kind [`Kinds::hand_over`] brings.
#[derive(Debug)]
pub struct Delivery<'p> {
    /// The slot.
    pub buffer: Given<'p>,
    /// What the peer's user says about it.
    pub cookie: u64,
}

/// A slot that a peer handed over or shared.
#[derive(Debug)]
pub enum Given<'p> {
    /// The peer has given it up until it is given back.
    Moved(Buf<'p, Received>),
    /// The peer has kept it too.
    Shared(Buf<'p, Viewed>),
}

impl<'m> Sink<'m> {
    /// The sink of a pool, none of whose slots is here. `table` has an entry per slot.
    ///
    /// # Errors
    /// [`TableTooSmall`].
    pub fn new(
        id: PoolId,
        region: Region<'m>,
        table: &'m mut [Slot],
        kinds: Kinds,
    ) -> Result<Self, TableTooSmall> {
        Ok(Self { ledger: Ledger::new(id, region, table, kinds, Holder::There)? })
    }

    /// Receives the slot that a message of the kind [`Kinds::hand_over`] brings.
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel, now or before.
    #[inline]
    pub fn accept(&self, channel: &mut impl Channel, message: &Message) -> Result<Delivery<'_>, Violation> {
        let ledger = &self.ledger;
        ledger.checked(channel, message, ledger.kinds.hand_over(), || self.receive(message))
    }

    #[inline(always)]
    fn receive(&self, message: &Message) -> Result<Delivery<'_>, Violation> {
        let Descriptor { ticket, offset, length, is_shared, cookie } = Descriptor::of(message)?;
        let (slot, found) = (ticket.slot, ticket.generation);
        let entry = self.ledger.find(ticket)?;
        if entry.holder != Holder::There {
            return Err(Violation::NotTheirs { slot });
        }
        let expected = entry.generation.wrapping_add(1);
        if found != expected {
            return Err(Violation::Generation { slot, expected, found });
        }
        if !self.ledger.region.has_range(offset.into(), length.into()) {
            return Err(self.misplaced(offset, length));
        }
        self.ledger.assign(slot, found, Holder::Here);
        let buffer = if is_shared {
            Given::Shared(Buf::new(&self.ledger, slot, offset, length))
        } else {
            Given::Moved(Buf::new(&self.ledger, slot, offset, length))
        };
        Ok(Delivery { buffer, cookie })
    }

    #[cold]
    fn misplaced(&self, offset: u32, length: u32) -> Violation {
        if offset.is_multiple_of(8) {
            Violation::Range { offset, length, slot_bytes: self.ledger.region.slot_size().bytes() }
        } else {
            Violation::Misaligned { offset }
        }
    }

    /// How many slots this side has done with and not yet given back.
    pub fn pending(&self) -> usize {
        self.ledger.listed()
    }

    /// Gives back all slots whose buffers were dropped, up to [`MAX_RETURNS`] per message. The source has
    /// nothing to fill as long as this is not done, so do it before waiting.
    ///
    /// # Errors
    /// [`SendError`]; the slots that were not sent stay [`pending`](Self::pending).
    pub fn give_back(&self, channel: &mut impl Channel) -> Result<(), SendError> {
        while self.pending() > 0 {
            let mut words = [0; MAX_RETURNS];
            let count = self.ledger.tickets(&mut words);
            channel.try_send(&Message::from_first(self.ledger.kinds.give_back(), count, words))?;
            for _ in 0..count {
                self.ledger.pop(Holder::There);
            }
        }
        Ok(())
    }

    /// How the peer broke the rules, if it did.
    pub fn violation(&self) -> Option<Violation> {
        self.ledger.violation()
    }

    /// Begins anew, with no slot here, for a source that has begun anew.
    pub fn restart(&mut self) {
        self.ledger.restart(Holder::There);
    }
}
