//! Notifications from one core to another: a ring of which entry says who is meant.
//!
//! The CPU driver of one core has the [`Writer`], that of another the [`Reader`]; the ring lies in one page of
//! memory that user space set up. An inter-processor interrupt says only that there is news; the ring says
//! which entries of the reader's table to signal.
//!
//! The writer never waits and never loads; the reader never stores. So neither can delay the other, and a
//! reader that was too slow is overrun. It notices, and then every entry of its table may have been meant
//! ([`News::Everything`]): a notification can be superfluous but not lost.
//!
//! # Layout
//! The ring is all words of its lines, of 8 bytes each: 512 in a page ([`PageRing`]). Notification number `n`,
//! the first being 1, lies in word `n mod words`:
//!
//! | bits | field |
//! |---|---|
//! | 0–15 | index into the reader's table |
//! | 16–63 | `n` modulo 2^48 |
//!
//! The ring starts out as zeroes. As its words are a power of two, all this holds across the wrap too.
//!
//! # Protocol
//! The writer stores one word per notification. The reader looks at the word of the number that it expects. If
//! it is still that of a lap ago (in the first lap: zero), there is no news. If it is the number expected, it
//! counts. If it is a later one, the reader was overrun: everything up to that number is lost, and it goes on
//! behind it. Whatever else it finds is no writer's that keeps to the protocol; then too everything may have
//! been meant, each time the reader looks, and it does not move.

use core::fmt;

use crate::line::{Line, WORDS};
use crate::memory::{self, MemoryError};
use crate::primitive::{Ordering, Site};

/// Lines of a ring that fills a page.
pub const PAGE_LINES: usize = 64;

/// The ring that links between cores use: a page.
pub type PageRing = Ring<PAGE_LINES>;

/// Bits of a word below the number.
const NUMBER_SHIFT: u32 = 16;

/// Bits of a number.
const NUMBER_BITS: u32 = u64::BITS - NUMBER_SHIFT;

/// The shared memory: `LINES` lines, a power of two.
#[repr(C)]
#[derive(Debug)]
pub struct Ring<const LINES: usize> {
    lines: [Line; LINES],
}

impl<const LINES: usize> Ring<LINES> {
    /// Notifications that fit before the oldest is overwritten.
    pub const ENTRIES: u64 = {
        assert!(LINES.is_power_of_two() && LINES <= 1 << 16, "a ring has 1, 2, 4, … 65536 lines");
        (LINES * WORDS) as u64
    };

    /// A ring of zeroes, for links within one program.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { lines: [const { Line::new() }; LINES] }
    }

    /// A ring of zeroes, known to the model checker.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { lines: core::array::from_fn(|_| Line::new()) }
    }

    /// The ring in the `bytes` bytes of shared memory at `base`; the rest of them stays unused.
    ///
    /// # Errors
    /// [`MemoryError`] if `base` is not 64-byte aligned or `bytes` is less than the size of the ring.
    ///
    /// # Safety
    /// For the whole of `'m`, the range is mapped readable, for a [`Writer`] also writable, and no Rust code
    /// of this program accesses it other than by atomic operations of 8 bytes. Others may write anything
    /// there at any time.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw<'m>(base: *const u8, bytes: usize) -> Result<&'m Self, MemoryError> {
        // SAFETY: the caller promises what `ring` asks for, in the same words.
        unsafe { memory::ring(base, bytes) }
    }

    /// The lines, for a test that plays a hostile writer or a debugger that prints them.
    pub fn lines(&self) -> &[Line; LINES] {
        &self.lines
    }

    /// The word of notification `number`.
    fn word(&self, number: u64) -> &crate::primitive::AtomicU64 {
        let at = (number % Self::ENTRIES) as usize;
        &self.lines[at / WORDS].words[at % WORDS]
    }
}

impl<const LINES: usize> Default for Ring<LINES> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<PageRing>() == 4096);

/// How far a writer or reader has come: all the state it has beside the ring, to be kept where it is safe from
/// the other side. Zero, the default, is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Position(u64);

impl Position {
    /// Behind notification `number`.
    pub const fn behind(number: u64) -> Self {
        Self(number)
    }

    /// The number of the last notification before it.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The number of the notification after it.
    const fn next(self) -> u64 {
        self.0.wrapping_add(1)
    }
}

/// The number that a word has room for.
const fn wrapped(number: u64) -> u64 {
    number & (u64::MAX >> NUMBER_SHIFT)
}

/// The writing end of a link. There must be one at a time.
#[derive(Debug)]
pub struct Writer<'m, const LINES: usize = PAGE_LINES> {
    ring: &'m Ring<LINES>,
    position: Position,
}

impl<'m, const LINES: usize> Writer<'m, LINES> {
    /// The writer of a ring that starts anew: it is zeroed, whatever it was used for before.
    ///
    /// A reader that is further on takes whatever comes for [`News::Everything`] until the writer has caught up.
    pub fn new(ring: &'m Ring<LINES>) -> Self {
        for word in ring.lines.iter().flat_map(Line::words) {
            word.store(0, Ordering::Relaxed);
        }
        Self::resume(ring, Position::default())
    }

    /// The writer that has come to `position`.
    #[inline(always)]
    pub const fn resume(ring: &'m Ring<LINES>, position: Position) -> Self {
        Self { ring, position }
    }

    /// How far it has come.
    #[inline(always)]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Publishes that entry `index` of the reader's table is meant. Whoever reads it sees every store that came
    /// before. Never waits, never fails; the interrupt that makes the reader look is the caller's to send.
    #[inline(always)]
    pub fn notify(&mut self, index: u16) {
        let number = self.position.next();
        // Ordering: Release, pairs with the fence in `Reader::poll`.
        Site::Notify.publish(self.ring.word(number), number << NUMBER_SHIFT | u64::from(index));
        self.position = Position(number);
    }
}

/// What a reader found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// This entry of the table is meant.
    Entry(u16),
    /// Any entry of the table may be meant.
    Everything(Cause),
}

/// Why a reader does not know which entries are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was too slow: notifications were overwritten.
    Overrun,
    /// A notification is for an entry that no table has.
    NoSuchEntry,
    /// The ring holds what no writer that began at its start writes there.
    OutOfStep,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overrun => "the reader was overrun",
            Self::NoSuchEntry => "a notification is for an entry past the end of the table",
            Self::OutOfStep => "the ring does not hold what it should: make a new link",
        })
    }
}

/// Whether looking again may find something, without a further interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It would not: the next interrupt will tell.
    Nothing,
    /// It may.
    Perhaps,
}

/// How a [`Reader::poll`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    /// News found.
    pub news: u32,
    /// Whether to poll again.
    pub rest: Rest,
}

/// What the word that a reader looks at holds.
enum Found {
    /// That of a lap ago.
    Old,
    /// The notification expected.
    Expected(u16),
    /// A later one, with this number.
    Later(u64),
    /// Nothing that makes sense.
    Nonsense,
}

/// The reading end of a link.
#[derive(Debug)]
pub struct Reader<'m, const LINES: usize = PAGE_LINES> {
    ring: &'m Ring<LINES>,
    position: Position,
}

impl<'m, const LINES: usize> Reader<'m, LINES> {
    /// How far ahead a number is believed. A jump of so much at each word of the ring does not go half around
    /// the numbers, so words that rest cannot send a reader round in circles.
    const MOST_AHEAD: u64 = (1 << (NUMBER_BITS - 1)) / Ring::<LINES>::ENTRIES;

    /// The reader of a ring from its start. If it is in use already, that is an overrun.
    pub const fn new(ring: &'m Ring<LINES>) -> Self {
        Self::resume(ring, Position(0))
    }

    /// The reader that has come to `position`.
    #[inline(always)]
    pub const fn resume(ring: &'m Ring<LINES>, position: Position) -> Self {
        Self { ring, position }
    }

    /// How far it has come.
    #[inline(always)]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Hands at most `limit` pieces of news to `each`, looking at one word for each; the table has `entries`
    /// entries. [`News::Everything`] is the last of a poll.
    ///
    /// Polling again as long as there is a [`Rest`] ends, after at most as many news as the ring has words, if
    /// the ring does not change meanwhile: whatever is in it.
    #[inline(always)]
    pub fn poll(&mut self, limit: u32, entries: u16, mut each: impl FnMut(News)) -> Polled {
        let mut news = 0;
        while news < limit {
            let number = self.position.next();
            let (found, reached, rest) = match self.look(number) {
                Found::Old => return Polled { news, rest: Rest::Nothing },
                Found::Expected(index) if index < entries => (News::Entry(index), number, Rest::Perhaps),
                Found::Expected(_) => (News::Everything(Cause::NoSuchEntry), number, Rest::Perhaps),
                Found::Later(later) => (News::Everything(Cause::Overrun), later, Rest::Perhaps),
                Found::Nonsense => (News::Everything(Cause::OutOfStep), self.position.0, Rest::Nothing),
            };
            // Ordering: Acquire, pairs with the store in `Writer::notify`: whom `each` wakes sees what came
            // before the notification, and an overrun reader what came before any that it missed.
            Site::Notify.accept();
            self.position = Position(reached);
            news += 1;
            each(found);
            if matches!(found, News::Everything(_)) {
                return Polled { news, rest };
            }
        }
        Polled { news, rest: Rest::Perhaps }
    }

    #[inline(always)]
    fn look(&self, number: u64) -> Found {
        let word = self.ring.word(number).load(Ordering::Relaxed);
        let found = word >> NUMBER_SHIFT;
        if found == wrapped(number) {
            return Found::Expected(word as u16);
        }
        let in_first_lap = number <= Ring::<LINES>::ENTRIES;
        if found == wrapped(number.wrapping_sub(Ring::<LINES>::ENTRIES)) || (word == 0 && in_first_lap) {
            return Found::Old;
        }
        let ahead = wrapped(found.wrapping_sub(number));
        let plausible = ahead.is_multiple_of(Ring::<LINES>::ENTRIES) && ahead <= Self::MOST_AHEAD;
        if plausible { Found::Later(number.wrapping_add(ahead)) } else { Found::Nonsense }
    }
}
