//! A lossy log in a shared frame: one writer that never waits, any number of readers that never disturb it.
//!
//! It carries the CPU driver's messages to the console domain. The [`Writer`] stores and never loads, so
//! nothing a reader does can delay or mislead it; readers can map the frame read-only. A [`Reader`] that is
//! too slow loses the oldest records, is told how many bytes it lost, and goes on at the next whole record.
//! It copies first and checks afterwards, so a hostile writer can make it report nonsense, but never panic,
//! loop without bound or leave its memory.
//!
//! # Layout
//! The first [`Line`] is the header: word 0 the magic number, word 1 the version, word 2 the number of data
//! lines, word 3 `claimed` and word 4 `written`, two positions that count lines since the log was formatted
//! and only grow. The other lines are the ring; line number `p` lies in slot `p mod lines`.
//!
//! A record takes one to five whole lines. Word 0 of each is its tag, which makes every line recognisable on
//! its own: bits 0–31 the low half of its line number, 32–47 the core, 48–55 the length of the record's text
//! in bytes, 56–58 the index of the line in the record, 59–62 the level, 63 set if the text goes on in the
//! next record. The first line has the time stamp in word 1 and 48 bytes of text, each further one 56 bytes
//! of text, little-endian.
//!
//! # Protocol
//! The writer raises `claimed` by the lines of the record, fences, stores the lines, and raises `written`.
//! A reader loads `written`, copies the lines of one record, fences and loads `claimed`: the copy is whole
//! if its first line is not further than the ring's length behind `claimed`.

use core::fmt;

pub use lmp::CoreId;

use crate::line::{LINE_BYTES, Line};
use crate::memory::{self, MemoryError};
use crate::primitive::{Ordering, Site};

/// The most text in one record, in bytes; longer text is split.
pub const MAX_TEXT: usize = 240;

/// The first word of the header line.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KillfLog");

/// The version of the layout, in the second word of the header line.
pub const VERSION: u64 = 1;

/// Text in the first line of a record, in bytes: its other two words are tag and time stamp.
const FIRST_TEXT: usize = 48;
/// Text in a further line of a record, in bytes.
const NEXT_TEXT: usize = 56;
/// The most lines of a record.
const MAX_LINES: usize = lines_for(MAX_TEXT);

const _: () = assert!(MAX_TEXT <= u8::MAX as usize, "the tag has 8 bits for the length");
const _: () = assert!(MAX_LINES <= 8, "the tag has 3 bits for the index");

/// The words of the header line.
mod header {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 1;
    pub(super) const LINES: usize = 2;
    pub(super) const CLAIMED: usize = 3;
    pub(super) const WRITTEN: usize = 4;
}

/// Lines of a record with `text` bytes of text.
const fn lines_for(text: usize) -> usize {
    1 + text.saturating_sub(FIRST_TEXT).div_ceil(NEXT_TEXT)
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Something is broken.
    Error = 1,
    /// Something is suspicious, or was refused.
    Warn = 2,
    /// What an operator wants to know.
    Info = 3,
    /// What a developer of the system wants to know.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

impl Level {
    /// The level with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Error),
            2 => Some(Self::Warn),
            3 => Some(Self::Info),
            4 => Some(Self::Debug),
            5 => Some(Self::Trace),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// Word 0 of a line, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    number: u32,
    core: CoreId,
    length: u8,
    index: u8,
    level: Level,
    continues: bool,
}

impl Tag {
    fn encode(self) -> u64 {
        u64::from(self.number)
            | u64::from(self.core.0) << 32
            | u64::from(self.length) << 48
            | u64::from(self.index) << 56
            | (self.level as u64) << 59
            | u64::from(self.continues) << 63
    }

    /// `None` for a word that is no tag.
    fn decode(word: u64) -> Option<Self> {
        let length = (word >> 48) as u8;
        let index = (word >> 56) as u8 & 0b111;
        if usize::from(length) > MAX_TEXT {
            return None;
        }
        Some(Self {
            number: word as u32,
            core: CoreId((word >> 32) as u16),
            length,
            index,
            level: Level::from_number((word >> 59) as u8 & 0b1111)?,
            continues: word >> 63 == 1,
        })
    }
}

/// The memory of a log: a header line and at least one data line.
#[derive(Clone, Copy, Debug)]
pub struct LogMemory<'m> {
    header: &'m Line,
    ring: &'m [Line],
}

impl<'m> LogMemory<'m> {
    /// A log in `lines`, the first of which becomes the header.
    ///
    /// # Errors
    /// [`MemoryError::TooSmall`] for fewer than two lines.
    pub fn new(lines: &'m [Line]) -> Result<Self, MemoryError> {
        match lines {
            [header, ring @ ..] if !ring.is_empty() => Ok(Self { header, ring }),
            _ => Err(MemoryError::TooSmall { bytes: lines.len() * LINE_BYTES, needed: 2 * LINE_BYTES }),
        }
    }

    /// A log in the `bytes` bytes at `base`; a rest that makes no whole line stays unused.
    ///
    /// # Errors
    /// [`MemoryError`] if `base` is not 64-byte aligned or `bytes` is less than two lines.
    ///
    /// # Safety
    /// For the whole of `'m`, the range is mapped readable, for a [`Writer`] also writable, and no Rust code
    /// of this program accesses it other than by atomic operations of 8 bytes. Others may write anything
    /// there at any time.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(base: *const u8, bytes: usize) -> Result<Self, MemoryError> {
        // SAFETY: the caller promises what `lines` asks for, in the same words.
        Self::new(unsafe { memory::lines(base, bytes) }?)
    }

    /// Bytes of records that the log holds before the oldest is overwritten.
    pub fn capacity(&self) -> usize {
        self.ring.len() * LINE_BYTES
    }

    /// The most text in a record that fits the ring, in bytes.
    fn most_text(&self) -> usize {
        MAX_TEXT.min(FIRST_TEXT + (self.ring.len() - 1) * NEXT_TEXT)
    }

    fn slot(&self, number: u64) -> &'m Line {
        &self.ring[(number % self.ring.len() as u64) as usize]
    }
}

/// The writing end of a log. There must be one at a time.
#[derive(Debug)]
#[repr(align(128))]
pub struct Writer<'m> {
    memory: LogMemory<'m>,
    /// The number of the next line. The writer's own: it never loads from the shared memory.
    next: u64,
    core: CoreId,
}

impl<'m> Writer<'m> {
    /// Formats `memory` as an empty log of `core`.
    pub fn new(memory: LogMemory<'m>, core: CoreId) -> Self {
        let words = memory.header.words();
        // A reader attached to a former log in the same memory notices that `written` went back.
        words[header::CLAIMED].store(0, Ordering::Relaxed);
        words[header::WRITTEN].store(0, Ordering::Relaxed);
        words[header::VERSION].store(VERSION, Ordering::Relaxed);
        words[header::LINES].store(memory.ring.len() as u64, Ordering::Relaxed);
        // Ordering: Release, pairs with the fence in `Reader::attach`.
        Site::LogFormat.publish(&words[header::MAGIC], MAGIC);
        Self { memory, next: 0, core }
    }

    /// Appends `text`, written at time `tsc` in ticks of the time-stamp counter. Never waits, never fails.
    ///
    /// Text of more than [`MAX_TEXT`] bytes becomes several records, cut between characters, of which all
    /// but the last are marked [`Record::continues`].
    pub fn write(&mut self, level: Level, tsc: u64, text: &str) {
        let most = self.memory.most_text();
        let mut rest = text;
        loop {
            let (part, tail) = rest.split_at(rest.floor_char_boundary(most));
            self.record(level, tsc, part.as_bytes(), !tail.is_empty());
            if tail.is_empty() {
                break;
            }
            rest = tail;
        }
    }

    /// Appends formatted text as [`write`](Self::write) does, without a buffer of its full length.
    pub fn format(&mut self, level: Level, tsc: u64, text: fmt::Arguments<'_>) {
        if let Some(text) = text.as_str() {
            return self.write(level, tsc, text);
        }
        let mut pieces = Pieces { writer: self, level, tsc, buffer: [0; MAX_TEXT], length: 0 };
        // `Pieces` itself never fails; a `Display` that does has its text cut short, which shows in the log.
        let _ = fmt::write(&mut pieces, text);
        pieces.flush(false);
    }

    /// Stores one record of at most [`MAX_TEXT`] bytes that fits the ring.
    fn record(&mut self, level: Level, tsc: u64, text: &[u8], continues: bool) {
        let words = self.memory.header.words();
        let count = lines_for(text.len());
        let end = self.next + count as u64;

        words[header::CLAIMED].store(end, Ordering::Relaxed);
        // Ordering: Release fence, pairs with the fence in `Reader::oldest`: a reader that copied a word
        // stored below then sees this claim, and gives the older record up as lost.
        Site::LogClaim.announce();

        let (first, further) = text.split_at(text.len().min(FIRST_TEXT));
        let parts = core::iter::once(first).chain(further.chunks(NEXT_TEXT));
        for (index, part) in parts.enumerate() {
            let number = self.next + index as u64;
            let line = self.memory.slot(number).words();
            let tag = Tag {
                number: number as u32,
                core: self.core,
                length: text.len() as u8,
                index: index as u8,
                level,
                continues,
            };
            line[0].store(tag.encode(), Ordering::Relaxed);
            let body = if index == 0 {
                line[1].store(tsc, Ordering::Relaxed);
                &line[2..]
            } else {
                &line[1..]
            };
            for (word, bytes) in body.iter().zip(part.chunks(8)) {
                let mut padded = [0; 8];
                padded[..bytes.len()].copy_from_slice(bytes);
                word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
            }
        }

        self.next = end;
        // Ordering: Release, pairs with the fence in `Reader::read`.
        Site::LogWritten.publish(&words[header::WRITTEN], end);
    }
}

/// Gathers formatted text into full records.
struct Pieces<'w, 'm> {
    writer: &'w mut Writer<'m>,
    level: Level,
    tsc: u64,
    buffer: [u8; MAX_TEXT],
    length: usize,
}

impl Pieces<'_, '_> {
    fn flush(&mut self, continues: bool) {
        self.writer.record(self.level, self.tsc, &self.buffer[..self.length], continues);
        self.length = 0;
    }
}

impl fmt::Write for Pieces<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let most = self.writer.memory.most_text();
        let mut rest = text;
        while !rest.is_empty() {
            let fits = rest.floor_char_boundary(most - self.length);
            if fits == 0 {
                self.flush(true);
                continue;
            }
            let (part, tail) = rest.split_at(fits);
            self.buffer[self.length..self.length + fits].copy_from_slice(part.as_bytes());
            self.length += fits;
            rest = tail;
        }
        Ok(())
    }
}

/// Why a frame is not a log that this reader understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The first word is not [`MAGIC`]: no writer has formatted the frame, or it is something else.
    NotALog {
        /// The word there.
        found: u64,
    },
    /// The log has another version of the layout.
    Version {
        /// Its version.
        found: u64,
    },
    /// The log was formatted for a frame of another size.
    Size {
        /// The data lines that the header tells.
        found: u64,
        /// The data lines that the reader has mapped.
        mapped: u64,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotALog { found } => {
                write!(
                    f,
                    "the frame holds no log: it begins with {found:#018x}; wait for its writer to format it"
                )
            }
            Self::Version { found } => {
                write!(
                    f,
                    "the log has layout version {found}, this reader knows {VERSION}: build both from one tree"
                )
            }
            Self::Size { found, mapped } => {
                write!(f, "the log has {found} data lines but {mapped} are mapped: map the whole frame")
            }
        }
    }
}

impl core::error::Error for AttachError {}

/// What a reader finds next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator, and most entries are records")]
pub enum Entry {
    /// A whole record.
    Record(Record),
    /// Here `bytes` bytes of records (tags and padding included) are missing: the reader was too slow, or
    /// the lines did not make sense.
    Lost {
        /// How many, a multiple of 64.
        bytes: u64,
    },
    /// The log was formatted anew, and reading begins at its start.
    Restarted,
}

/// A message from a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The core whose CPU driver wrote it. Whoever drains several logs knows better which frame it reads.
    pub core: CoreId,
    /// How much it matters.
    pub level: Level,
    /// When it was written, in ticks of the writer's time-stamp counter.
    pub tsc: u64,
    /// Whether the next record goes on with the same text.
    pub continues: bool,
    length: u8,
    text: [u8; MAX_TEXT],
}

impl Record {
    /// The text. Bytes that were not UTF-8 have become `?`.
    pub fn text(&self) -> &str {
        // `Reader::copy` has replaced what is not UTF-8, so the alternative never happens.
        core::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("core", &self.core)
            .field("level", &self.level)
            .field("tsc", &self.tsc)
            .field("continues", &self.continues)
            .field("text", &self.text())
            .finish()
    }
}

/// A reading end of a log. There may be several, each with its own position.
#[derive(Debug)]
#[repr(align(128))]
pub struct Reader<'m> {
    memory: LogMemory<'m>,
    /// The number of the line to read next.
    next: u64,
}

impl<'m> Reader<'m> {
    /// Begins to read the log in `memory` at its very first record, be that still there or already lost.
    ///
    /// # Errors
    /// [`AttachError`] if the memory does not hold a log of this size and version.
    pub fn attach(memory: LogMemory<'m>) -> Result<Self, AttachError> {
        let words = memory.header.words();
        let found = words[header::MAGIC].load(Ordering::Relaxed);
        if found != MAGIC {
            return Err(AttachError::NotALog { found });
        }
        // Ordering: Acquire fence, pairs with the Release store in `Writer::new`.
        Site::LogFormat.accept();
        let found = words[header::VERSION].load(Ordering::Relaxed);
        if found != VERSION {
            return Err(AttachError::Version { found });
        }
        let (found, mapped) = (words[header::LINES].load(Ordering::Relaxed), memory.ring.len() as u64);
        if found != mapped {
            return Err(AttachError::Size { found, mapped });
        }
        Ok(Self { memory, next: 0 })
    }

    /// The next entry, or `None` if there is nothing new.
    ///
    /// Looks at no more lines than the ring has. A writer that never rests always has a next entry, so a
    /// caller with other work bounds how often it calls.
    pub fn read(&mut self) -> Option<Entry> {
        let words = self.memory.header.words();
        let lines = self.memory.ring.len() as u64;
        let written = words[header::WRITTEN].load(Ordering::Relaxed);
        if written == self.next {
            return None;
        }
        if written < self.next {
            self.next = 0;
            return Some(Entry::Restarted);
        }
        // Ordering: Acquire fence, pairs with the Release store of `written` in `Writer::record`.
        Site::LogWritten.accept();

        let start = self.next;
        for _ in 0..lines {
            if self.next >= written {
                break;
            }
            let copy = self.copy(written);
            // The copy counts only if the writer had not yet claimed the slot of its first line again.
            // Never beyond what is known to be written: the two positions are not ordered for a reader.
            let oldest = self.oldest().min(written);
            if self.next < oldest {
                self.next = oldest;
                continue;
            }
            match copy {
                // What was skipped is told first; this record is still there, or lost too, at the next call.
                Some(_) if self.next != start => break,
                Some((record, count)) => {
                    self.next += count;
                    return Some(Entry::Record(record));
                }
                // In the middle of a record whose start is lost, or nonsense.
                None => self.next += 1,
            }
        }
        Some(Entry::Lost { bytes: (self.next - start).saturating_mul(LINE_BYTES as u64) })
    }

    /// The number of the oldest line that no claim has reached.
    fn oldest(&self) -> u64 {
        // Ordering: Acquire fence, pairs with the Release fence after the claim in `Writer::record`.
        Site::LogClaim.accept();
        let claimed = self.memory.header.words()[header::CLAIMED].load(Ordering::Relaxed);
        claimed.saturating_sub(self.memory.ring.len() as u64)
    }

    /// Copies the record that begins at `self.next`, with its number of lines; `None` if none does.
    fn copy(&self, written: u64) -> Option<(Record, u64)> {
        let line = self.memory.slot(self.next).words();
        let first = Tag::decode(line[0].load(Ordering::Relaxed))?;
        let count = lines_for(usize::from(first.length)) as u64;
        // The writer publishes whole records that fit the ring.
        let available = (written - self.next).min(self.memory.ring.len() as u64);
        if first.number != self.next as u32 || first.index != 0 || count > available {
            return None;
        }
        let tsc = line[1].load(Ordering::Relaxed);
        let mut text = [0; MAX_TEXT];
        let used = &mut text[..usize::from(first.length)];
        let (head, tail) = used.split_at_mut(used.len().min(FIRST_TEXT));
        let parts = core::iter::once(head).chain(tail.chunks_mut(NEXT_TEXT));
        for (index, part) in parts.enumerate() {
            let number = self.next + index as u64;
            let line = self.memory.slot(number).words();
            let body = if index == 0 {
                &line[2..]
            } else {
                let expected = Tag { number: number as u32, index: index as u8, ..first };
                if line[0].load(Ordering::Relaxed) != expected.encode() {
                    return None;
                }
                &line[1..]
            };
            for (word, bytes) in body.iter().zip(part.chunks_mut(8)) {
                let value = word.load(Ordering::Relaxed).to_le_bytes();
                bytes.copy_from_slice(&value[..bytes.len()]);
            }
        }
        replace_invalid(&mut text[..usize::from(first.length)]);
        let Tag { core, level, continues, length, .. } = first;
        Some((Record { core, level, tsc, continues, length, text }, count))
    }
}

/// Replaces every byte that is not part of valid UTF-8 by `?`.
fn replace_invalid(text: &mut [u8]) {
    let mut good = 0;
    while let Err(error) = core::str::from_utf8(&text[good..]) {
        let bad = good + error.valid_up_to();
        let end = error.error_len().map_or(text.len(), |length| bad + length);
        text[bad..end].fill(b'?');
        good = end;
    }
}
