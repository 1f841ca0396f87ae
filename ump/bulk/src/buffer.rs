//! [`Buf`]: a slot as a value, whose type says what may be done with it.
//!
//! A slot that was handed over is gone:
//! ```compile_fail,E0382
//! fn twice(buffer: bulk::Buf<'_, bulk::Owned>, channel: &mut ump::Endpoint<'_, 64>) {
//!     buffer.hand_over(channel, 0).unwrap();
//!     buffer.hand_over(channel, 0).unwrap();
//! }
//! ```
//! ```compile_fail,E0382
//! fn write_after(mut buffer: bulk::Buf<'_, bulk::Owned>, channel: &mut ump::Endpoint<'_, 64>) {
//!     buffer.hand_over(channel, 0).unwrap();
//!     buffer.copy_from(b"too late").unwrap();
//! }
//! ```
//! So is one that was given back:
//! ```compile_fail,E0382
//! fn read_after(buffer: bulk::Buf<'_, bulk::Received>) -> u64 {
//!     drop(buffer);
//!     buffer.view().byte_sum()
//! }
//! ```
//! and what was seen in place does not outlive it:
//! ```compile_fail,E0505
//! fn keep(buffer: bulk::Buf<'_, bulk::Received>) -> u64 {
//!     let view = buffer.view();
//!     drop(buffer);
//!     view.byte_sum()
//! }
//! ```
//! What was received is not for writing nor for handing on, and what is merely viewed not for reading in place:
//! ```compile_fail,E0599
//! fn write(mut buffer: bulk::Buf<'_, bulk::Received>) {
//!     buffer.copy_from(b"not ours").unwrap();
//! }
//! ```
//! ```compile_fail,E0599
//! fn hand_on(buffer: bulk::Buf<'_, bulk::Received>, channel: &mut ump::Endpoint<'_, 64>) {
//!     buffer.hand_over(channel, 0).unwrap();
//! }
//! ```
//! ```compile_fail,E0599
//! fn read(buffer: bulk::Buf<'_, bulk::Viewed>) -> u64 {
//!     buffer.view().byte_sum()
//! }
//! ```
//! A shared slot is not handed over before it is back:
//! ```compile_fail,E0599
//! fn give_up(buffer: bulk::Buf<'_, bulk::Shared>, channel: &mut ump::Endpoint<'_, 64>) {
//!     buffer.hand_over(channel, 0).unwrap();
//! }
//! ```
//! There is one buffer per slot, in one thread, and none outlives its pool:
//! ```compile_fail,E0599
//! fn duplicate(buffer: bulk::Buf<'_, bulk::Owned>) {
//!     let _ = buffer.clone();
//! }
//! ```
//! ```compile_fail,E0277
//! fn sendable<T: Send>() {}
//! sendable::<bulk::Buf<'static, bulk::Owned>>();
//! ```
//! ```compile_fail,E0505
//! fn outlive(source: bulk::Source<'_>) {
//!     let buffer = source.take();
//!     drop(source);
//!     drop(buffer);
//! }
//! ```
//! ```compile_fail,E0502
//! fn restart(mut source: bulk::Source<'_>) {
//!     let buffer = source.take();
//!     source.restart();
//!     drop(buffer);
//! }
//! ```

use core::fmt;
use core::marker::PhantomData;
use core::mem;

use ump::{Message, SendError};

use crate::channel::Channel;
use crate::descriptor::{Descriptor, Ticket};
use crate::error::RangeError;
use crate::ledger::{Holder, Ledger};
use crate::memory::Word;
use crate::view::{View, copy_words};

/// At a source: the slot is this side's alone. It can be written, read, handed over and shared.
#[derive(Debug)]
pub enum Owned {}

/// At a source: the peer looks at the slot too. It can still be written and read.
#[derive(Debug)]
pub enum Shared {}

/// At a sink: the slot was handed over and is not written by an honest peer. It can be read in place.
#[derive(Debug)]
pub enum Received {}

/// At a sink: the slot is shared and may change at any time. It can be copied.
#[derive(Debug)]
pub enum Viewed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Owned {}
    impl Sealed for super::Shared {}
    impl Sealed for super::Received {}
    impl Sealed for super::Viewed {}
}

/// What may be done with a slot.
pub trait Mode: sealed::Sealed {}
impl Mode for Owned {}
impl Mode for Shared {}
impl Mode for Received {}
impl Mode for Viewed {}

/// A mode in which a slot may be written.
pub trait Writable: Mode {}
impl Writable for Owned {}
impl Writable for Shared {}

/// A slot of a pool, in the mode `M`.
///
/// Dropping it gives it up: an [`Owned`] slot is free again, a [`Shared`] one as soon as the peer gives it
/// back, and a [`Received`] or [`Viewed`] one goes back with the next [`Sink::give_back`](crate::Sink::give_back).
pub struct Buf<'p, M: Mode> {
    ledger: &'p Ledger<'p>,
    slot: u16,
    /// Where the data lie in it, in bytes.
    offset: u32,
    length: u32,
    mode: PhantomData<M>,
}

/// A buffer that was not sent, which is still the caller's, and why.
#[derive(Debug)]
pub struct Unsent<'p> {
    /// The buffer.
    pub buffer: Buf<'p, Owned>,
    /// Why it was not sent.
    pub error: SendError,
}

impl<'p, M: Mode> Buf<'p, M> {
    /// The buffer for a slot that the ledger has just marked as held here.
    #[inline(always)]
    pub(crate) fn new(ledger: &'p Ledger<'p>, slot: u16, offset: u32, length: u32) -> Self {
        Self { ledger, slot, offset, length, mode: PhantomData }
    }

    /// The same slot in another mode.
    #[inline]
    fn turn<T: Mode>(self) -> Buf<'p, T> {
        let Self { ledger, slot, offset, length, mode: _ } = self;
        mem::forget(self);
        Buf { ledger, slot, offset, length, mode: PhantomData }
    }

    /// The slot's index in the pool.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Bytes of the slot.
    pub fn capacity(&self) -> usize {
        self.ledger.region.slot_size().bytes()
    }

    /// Bytes of data in it.
    #[expect(clippy::len_without_is_empty, reason = "a buffer without data is an ordinary buffer")]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// All of the slot.
    #[inline]
    fn all(&self) -> &[Word] {
        self.ledger.region.slot(self.slot)
    }

    /// The data.
    #[inline]
    fn data(&self) -> View<'_> {
        View::part(self.all(), self.offset as usize, self.length as usize).unwrap_or(View::of(&[]))
    }
}

impl<M: Writable> Buf<'_, M> {
    /// The words of the whole slot, to be stored to and loaded.
    #[inline]
    pub fn words(&self) -> &[Word] {
        self.all()
    }

    /// The data.
    pub fn view(&self) -> View<'_> {
        self.data()
    }
}

impl<'p> Buf<'p, Owned> {
    /// Tells which bytes of the slot are the data; in the beginning all are.
    ///
    /// # Errors
    /// [`RangeError`] if they are not in the slot, or `offset` is not a multiple of 8.
    pub fn set_range(&mut self, offset: usize, length: usize) -> Result<(), RangeError> {
        if !self.ledger.region.has_range(offset as u64, length as u64) {
            return Err(RangeError { offset, length, slot_bytes: self.capacity() });
        }
        // They are not larger than a slot.
        (self.offset, self.length) = (offset as u32, length as u32);
        Ok(())
    }

    /// Copies `bytes` to the beginning of the slot, which are the data then.
    ///
    /// # Errors
    /// [`RangeError`] if there are too many.
    pub fn copy_from(&mut self, bytes: &[u8]) -> Result<(), RangeError> {
        self.set_range(0, bytes.len())?;
        let (whole, rest) = bytes.as_chunks();
        for (word, bytes) in self.all().iter().zip(whole) {
            word.store(u64::from_le_bytes(*bytes));
        }
        if let (Some(word), [_, ..]) = (self.all().get(whole.len()), rest) {
            // Zeroes behind the data, so that no remains of other data are handed over with them.
            let mut last = [0; size_of::<Word>()];
            last[..rest.len()].copy_from_slice(rest);
            word.store(u64::from_le_bytes(last));
        }
        Ok(())
    }

    /// Copies words to the beginning of the slot, which are the data then.
    ///
    /// # Errors
    /// [`RangeError`] if there are too many.
    pub fn copy_from_words(&mut self, words: &[Word]) -> Result<(), RangeError> {
        self.set_range(0, size_of_val(words))?;
        copy_words(words, self.all());
        Ok(())
    }

    /// Hands the slot over to the peer, with one message on `channel`. It comes back when the peer gives it
    /// back ([`Source::accept_return`](crate::Source::accept_return)).
    ///
    /// # Errors
    /// [`Unsent`], with the buffer.
    #[inline]
    pub fn hand_over(self, channel: &mut impl Channel, cookie: u64) -> Result<(), Unsent<'p>> {
        match self.announce(channel, Holder::There, cookie) {
            Ok(()) => {
                mem::forget(self);
                Ok(())
            }
            Err(error) => Err(Unsent { buffer: self, error }),
        }
    }

    /// Lets the peer look at the slot, with one message on `channel`, and keeps it.
    ///
    /// # Errors
    /// [`Unsent`], with the buffer.
    pub fn share(self, channel: &mut impl Channel, cookie: u64) -> Result<Buf<'p, Shared>, Unsent<'p>> {
        match self.announce(channel, Holder::Both, cookie) {
            Ok(()) => Ok(self.turn()),
            Err(error) => Err(Unsent { buffer: self, error }),
        }
    }

    /// Sends the descriptor, and enters who holds the slot then.
    #[inline(always)]
    fn announce(&self, channel: &mut impl Channel, holder: Holder, cookie: u64) -> Result<(), SendError> {
        let Self { ledger, slot, offset, length, .. } = *self;
        let generation = ledger.entry(slot).generation.wrapping_add(1);
        let ticket = Ticket { pool: ledger.id, slot, generation };
        let is_shared = holder == Holder::Both;
        let descriptor = Descriptor { ticket, offset, length, is_shared, cookie };
        channel.try_send(&Message::new(ledger.kinds.hand_over(), descriptor.encode()))?;
        ledger.assign(slot, generation, holder);
        Ok(())
    }
}

impl<'p> Buf<'p, Shared> {
    /// The slot as this side's alone, if the peer has given it back.
    ///
    /// # Errors
    /// The buffer as it is, if the peer has not.
    pub fn unshare(self) -> Result<Buf<'p, Owned>, Self> {
        if self.ledger.entry(self.slot).holder == Holder::Here { Ok(self.turn()) } else { Err(self) }
    }
}

impl Buf<'_, Received> {
    /// The data, in place.
    ///
    /// An honest peer does not change them until the slot is given back. A hostile one can, since it has the
    /// memory mapped: then two loads of one word may differ. What must not change after it was checked is
    /// copied first.
    #[inline]
    pub fn view(&self) -> View<'_> {
        self.data()
    }
}

impl Buf<'_, Viewed> {
    /// Copies the data to private memory and returns how many bytes: no more than there is room for. The
    /// words are of different times, as the peer may change them meanwhile.
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        self.data().copy_to(out)
    }

    /// Copies the data to `out` and returns how many words, as [`copy_to`](Self::copy_to) does.
    pub fn copy_words_to(&self, out: &[Word]) -> usize {
        self.data().copy_words_to(out)
    }
}

impl<M: Mode> Drop for Buf<'_, M> {
    #[inline]
    fn drop(&mut self) {
        let entry = self.ledger.entry(self.slot);
        match entry.holder {
            Holder::Both => self.ledger.assign(self.slot, entry.generation, Holder::There),
            _ => self.ledger.push(self.slot),
        }
    }
}

impl<M: Mode> fmt::Debug for Buf<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf")
            .field("slot", &self.slot)
            .field("offset", &self.offset)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
