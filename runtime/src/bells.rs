//! [`Bell`]: a notification bit of its own for each thing that can wake this domain.
//!
//! Somebody who is to wake this domain (the peer of a blockable channel, a timer service, a driver) gets a copy
//! of one of this domain's notifications, minted with one badge bit: a *bell*. 64 bells share a notification, a
//! *bank*; each bank raises an [event](crate::events), and the CPU driver leaves it in the notification's word
//! which bells of the bank were rung. So finding who rang costs one look at the dispatcher frame and one
//! invocation per bank that was rung, however many bells there are: up to [`BELLS_MAX`].
//!
//! ```ignore
//! let bell = Bell::new()?;
//! give_to_the_peer(bell.cap());
//! while !bell.take() {
//!     bell.wait(Deadline::NEVER);
//! }
//! ```
//!
//! A bell that rings says "look", never "how often"; it may ring for nothing, for instance because a former user
//! of its bit still has the capability.

use alloc::vec::Vec;
use core::cell::RefCell;

use lmp::cptr::task;
use lmp::{CPtr, ObjType, Rights, SysError, syscall};

use crate::events::{self, Deadline, Event};
use crate::local::domain_local;
use crate::memory::{self, MemoryError};

/// Bells of a domain at most.
pub const BELLS_MAX: usize = 64 * BANKS_MAX;

/// A word has a bit for each.
const BANKS_MAX: usize = 64;

/// Banks that get an event of their own; further ones share these.
const EVENTS_MAX: usize = 24;

/// The number of a bell: 64 times its bank, and its bit there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct BellId(pub(crate) u16);

impl BellId {
    pub(crate) fn bank(self) -> usize {
        usize::from(self.0 / 64)
    }

    pub(crate) fn bit(self) -> u64 {
        1 << (self.0 % 64)
    }
}

/// What is rung, by bank. Pure.
#[derive(Debug)]
pub(crate) struct Rung {
    banks: Vec<u64>,
    /// The banks of which a bell was rung.
    summary: u64,
}

impl Rung {
    pub(crate) const fn new() -> Rung {
        Rung { banks: Vec::new(), summary: 0 }
    }

    pub(crate) fn add(&mut self, bank: usize, bits: u64) {
        if bits == 0 {
            return;
        }
        if self.banks.len() <= bank {
            self.banks.resize(bank + 1, 0);
        }
        self.banks[bank] |= bits;
        self.summary |= 1 << bank;
    }

    /// Takes those of `mask` that were rung.
    pub(crate) fn take(&mut self, bank: usize, mask: u64) -> u64 {
        let Some(word) = self.banks.get_mut(bank) else { return 0 };
        let found = *word & mask;
        *word &= !mask;
        if *word == 0 {
            self.summary &= !(1 << bank);
        }
        found
    }

    pub(crate) fn summary(&self) -> u64 {
        self.summary
    }
}

struct Bank {
    notification: CPtr,
    event: Event,
    /// Bits that are handed out.
    used: u64,
}

struct Bells {
    banks: Vec<Bank>,
    rung: Rung,
}

domain_local! {
    static BELLS: RefCell<Bells> = RefCell::new(Bells { banks: Vec::new(), rung: Rung::new() });
}

fn refused(operation: &'static str) -> impl Fn(SysError) -> MemoryError {
    move |cause| MemoryError::Refused { operation, cause }
}

impl Bells {
    fn allocate(&mut self) -> Result<BellId, MemoryError> {
        let bank = match self.banks.iter().position(|b| b.used != u64::MAX) {
            Some(bank) => bank,
            None => self.new_bank()?,
        };
        let bit = (!self.banks[bank].used).trailing_zeros();
        self.banks[bank].used |= 1 << bit;
        Ok(BellId((bank * 64) as u16 + bit as u16))
    }

    fn new_bank(&mut self) -> Result<usize, MemoryError> {
        let number = self.banks.len();
        if number == BANKS_MAX {
            return Err(MemoryError::OutOfBells);
        }
        let object = memory::allocate(ObjType::Notification, 0)?;
        let own = if number < EVENTS_MAX { events::allocate() } else { None };
        let event = match own {
            Some(event) => event,
            // Shared: who fetches the event polls every bank that raises it.
            None if number > 0 => self.banks[number % EVENTS_MAX.min(number)].event,
            None => {
                memory::free(object)?;
                return Err(MemoryError::OutOfEvents);
            }
        };
        if let Err(cause) = events::bind(object.cap, event) {
            memory::free(object)?;
            return Err(MemoryError::Refused { operation: "binding a notification", cause });
        }
        self.banks.push(Bank { notification: object.cap, event, used: 0 });
        Ok(number)
    }

    /// Polls the banks whose events are in `found`.
    fn fetch(&mut self, found: u64) {
        for (number, bank) in self.banks.iter().enumerate() {
            if found & bank.event.bit() != 0 {
                // It is this domain's own notification: the poll cannot be refused.
                self.rung.add(number, syscall::notification_poll(bank.notification).unwrap_or(0));
            }
        }
    }
}

/// Fetches the bells behind the events `found`, which the caller took.
pub(crate) fn fetch(found: u64) {
    BELLS.with(|b| b.borrow_mut().fetch(found));
}

/// The banks of which a bell was rung and not taken.
#[cfg_attr(test, expect(dead_code, reason = "the waitset's tests have a stand-in"))]
pub(crate) fn summary() -> u64 {
    BELLS.with(|b| b.borrow().rung.summary())
}

/// Takes the bells of `bank` in `mask` that were rung.
pub(crate) fn take(bank: usize, mask: u64) -> u64 {
    BELLS.with(|b| b.borrow_mut().rung.take(bank, mask))
}

/// The event that a bank raises.
#[cfg_attr(test, expect(dead_code, reason = "the waitset's tests have a stand-in"))]
pub(crate) fn event_of(bank: usize) -> Option<Event> {
    BELLS.with(|b| b.borrow().banks.get(bank).map(|b| b.event))
}

/// Rings a bell of this domain from within.
pub(crate) fn ring(id: BellId) {
    BELLS.with(|b| b.borrow_mut().rung.add(id.bank(), id.bit()));
}

/// A bell of this domain.
#[derive(Debug)]
pub struct Bell {
    id: BellId,
    event: Event,
    cap: CPtr,
}

impl Bell {
    /// A new one, which nobody can ring yet.
    ///
    /// # Errors
    /// If memory, slots, events or bells are used up.
    pub fn new() -> Result<Bell, MemoryError> {
        BELLS.with(|b| {
            let mut bells = b.borrow_mut();
            let id = bells.allocate()?;
            let (bank, bit) = (id.bank(), id.bit());
            // What a former user of the bit left behind.
            bells.rung.take(bank, bit);
            let (notification, event) = (bells.banks[bank].notification, bells.banks[bank].event);
            let minted = memory::slot().and_then(|cap| {
                let result = syscall::cap_mint(task::ROOT, cap, notification, Rights::WRITE, bit);
                result.map(|()| cap).map_err(|cause| {
                    memory::free_slot(cap);
                    refused("making a bell")(cause)
                })
            });
            match minted {
                Ok(cap) => Ok(Bell { id, event, cap }),
                Err(error) => {
                    bells.banks[bank].used &= !bit;
                    Err(error)
                }
            }
        })
    }

    /// The capability whose `Signal` rings it. Give a copy of it to who is to ring.
    pub fn cap(&self) -> CPtr {
        self.cap
    }

    pub(crate) fn id(&self) -> BellId {
        self.id
    }

    /// The event that it raises, among other bells.
    pub fn event(&self) -> Event {
        self.event
    }

    /// Whether it was rung since last asked.
    pub fn take(&self) -> bool {
        let found = events::take(self.event.bit());
        if found != 0 {
            fetch(found);
        }
        take(self.id.bank(), self.id.bit()) != 0
    }

    /// Waits until it is rung; false if the deadline passed first.
    pub fn wait(&self, deadline: Deadline) -> bool {
        loop {
            if self.take() {
                return true;
            }
            if events::wait(self.event.bit(), deadline) == 0 {
                return self.take();
            }
            fetch(self.event.bit());
        }
    }

    /// Rings it from within the domain.
    pub fn ring(&self) {
        ring(self.id);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // The copy was made by `new`; deleting it cannot be refused, and copies given away keep ringing the bit.
        let _ = syscall::cap_delete(task::ROOT, self.cap);
        memory::free_slot(self.cap);
        BELLS.with(|b| b.borrow_mut().banks[self.id.bank()].used &= !self.id.bit());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn bells_number_their_bank_and_bit() {
        let last = BellId(BELLS_MAX as u16 - 1);
        assert_eq!((last.bank(), last.bit()), (63, 1 << 63));
        assert_eq!((BellId(64).bank(), BellId(64).bit()), (1, 1));
    }

    proptest! {
        /// Against a set: what is rung is taken once, and the summary names exactly the banks that have some.
        #[test]
        fn what_is_rung_is_taken_once(
            ops in prop::collection::vec((0usize..BANKS_MAX, any::<u64>(), any::<bool>()), 0..200)
        ) {
            let mut rung = Rung::new();
            let mut model: BTreeSet<(usize, u32)> = BTreeSet::new();
            let bits = |word: u64| (0..64).filter(move |b| word >> b & 1 != 0);
            for (bank, word, take) in ops {
                if take {
                    let expected: BTreeSet<_> =
                        bits(word).map(|b| (bank, b)).filter(|id| model.contains(id)).collect();
                    let found: BTreeSet<_> = bits(rung.take(bank, word)).map(|b| (bank, b)).collect();
                    prop_assert_eq!(&found, &expected);
                    model.retain(|id| !expected.contains(id));
                } else {
                    rung.add(bank, word);
                    model.extend(bits(word).map(|b| (bank, b)));
                }
                let banks: BTreeSet<usize> = bits(rung.summary()).map(|b| b as usize).collect();
                prop_assert_eq!(banks, model.iter().map(|&(bank, _)| bank).collect::<BTreeSet<_>>());
            }
        }
    }
}
