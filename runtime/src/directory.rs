//! The directory page of a share frame: which console streams of a core are in use, and by whom.
//!
//! One page, at `lmp::start::share::DIRECTORY_OFFSET`. Per stream it has a *generation*, written by the core's
//! `init` (odd: in use), the last generation that the console has *drained* to its end, written by the console
//! domain, and a name. A stream is free for reuse when the console has drained its last generation; so a reader
//! never takes the bytes of two domains for one stream.
//!
//! A stream's memory holds two outboxes of [`LINES`] lines: the domain's at its start, the console's at
//! [`CONSOLE_OUTBOX`].

use core::sync::atomic::{AtomicU64, Ordering};

use lmp::start::share;
use ump::Outbox;

/// Lines of each ring of a stream.
pub const LINES: usize = ump::RPC_LINES;
/// Byte offset of the console's outbox in a stream's memory.
pub const CONSOLE_OUTBOX: usize = share::STREAM_SIZE as usize / 2;

const _: () = assert!(size_of::<Outbox<LINES>>() <= CONSOLE_OUTBOX);

/// The first byte of a line that is a record for the results port, not text.
pub const RECORD_MARK: char = '\u{1e}';

const STREAMS: usize = share::STREAMS as usize;
const NAME_WORDS: usize = 2;
/// Bytes of a name in the directory.
pub const NAME_BYTES: usize = NAME_WORDS * 8;

#[repr(C, align(4096))]
struct Page {
    generation: [AtomicU64; 128],
    drained: [AtomicU64; 128],
    names: [[AtomicU64; NAME_WORDS]; STREAMS],
    /// Streams at and above this number were never in use: the console need not look at them.
    used: AtomicU64,
}

const _: () = assert!(STREAMS <= 128 && size_of::<Page>() == 4096);

/// The directory of one core.
#[derive(Clone, Copy)]
pub struct Directory<'m> {
    page: &'m Page,
}

/// A stream number that is in range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamId(u32);

impl StreamId {
    /// All stream numbers of a core.
    pub fn all() -> impl Iterator<Item = StreamId> {
        (0..share::STREAMS).map(StreamId)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Byte offset of the stream in the share frame.
    pub const fn offset(self) -> u64 {
        share::stream_offset(self.0)
    }
}

/// A generation of a stream: odd while it is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generation(u64);

impl Generation {
    /// Nothing used yet.
    pub const NONE: Generation = Generation(0);

    /// Whether the stream is in use.
    pub const fn is_in_use(self) -> bool {
        self.0 % 2 == 1
    }
}

impl<'m> Directory<'m> {
    /// The directory in the share frame mapped at `share`.
    ///
    /// # Safety
    /// The share frame is mapped there, writable, for the whole of `'m`, and its directory page is accessed in
    /// no other way.
    pub unsafe fn new(share: *const u8) -> Directory<'m> {
        // SAFETY: the caller vouches for the mapping; the offset is page-aligned, and any bytes are a `Page`.
        Directory { page: unsafe { &*share.add(share::DIRECTORY_OFFSET as usize).cast::<Page>() } }
    }

    /// The streams that were ever in use.
    pub fn used(&self) -> impl Iterator<Item = StreamId> + use<> {
        // Acquire pairs with the Release store in `open`: who sees the number sees the generations below it.
        let used = self.page.used.load(Ordering::Acquire).min(u64::from(share::STREAMS)) as u32;
        (0..used).map(StreamId)
    }

    /// The generation of stream `id`.
    pub fn generation(&self, id: StreamId) -> Generation {
        // Acquire pairs with the Release store in `open`: who sees the generation sees zeroed memory and the name.
        Generation(self.page.generation[id.0 as usize].load(Ordering::Acquire))
    }

    /// The name of stream `id`'s user; what is not printable ASCII becomes `?`.
    pub fn name(&self, id: StreamId) -> arrayvec::ArrayString<NAME_BYTES> {
        let mut name = arrayvec::ArrayString::new();
        for word in &self.page.names[id.0 as usize] {
            for byte in word.load(Ordering::Relaxed).to_le_bytes() {
                match byte {
                    0 => return name,
                    b'!'..=b'~' => name.push(byte as char),
                    _ => name.push('?'),
                }
            }
        }
        name
    }

    /// Takes a free stream for a domain called `name`; `None` if all are in use. `clear` must zero the
    /// stream's memory, before anybody can see it in use.
    pub fn open(&self, name: &str, clear: impl FnOnce(StreamId)) -> Option<StreamId> {
        let id = StreamId::all().find(|&id| {
            let generation = self.generation(id);
            // Acquire pairs with the Release store in `set_drained`: the console no longer touches the memory.
            let drained = Generation(self.page.drained[id.0 as usize].load(Ordering::Acquire));
            !generation.is_in_use() && drained == generation
        })?;
        clear(id);
        let mut bytes = [0u8; NAME_BYTES];
        let n = name.len().min(NAME_BYTES);
        bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
        for (word, part) in self.page.names[id.0 as usize].iter().zip(bytes.as_chunks().0) {
            word.store(u64::from_le_bytes(*part), Ordering::Relaxed);
        }
        let next = self.page.generation[id.0 as usize].load(Ordering::Relaxed) + 1;
        self.page.generation[id.0 as usize].store(next, Ordering::Release);
        let used = self.page.used.load(Ordering::Relaxed).max(u64::from(id.0) + 1);
        self.page.used.store(used, Ordering::Release);
        Some(id)
    }

    /// Says that the domain with stream `id` has ended: nothing more is written there.
    pub fn close(&self, id: StreamId) {
        let now = self.generation(id);
        if now.is_in_use() {
            // Release pairs with `generation`: who sees the stream closed sees all that was written to it.
            self.page.generation[id.0 as usize].store(now.0 + 1, Ordering::Release);
        }
    }

    /// The console has drained all of `generation` and no longer touches the memory of the stream.
    pub fn set_drained(&self, id: StreamId, generation: Generation) {
        self.page.drained[id.0 as usize].store(generation.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;

    fn page() -> Box<Page> {
        // SAFETY: all zeroes are atomic words of value 0.
        unsafe { Box::new_zeroed().assume_init() }
    }

    #[test]
    fn a_stream_is_reused_only_when_the_console_has_drained_it() {
        let page = page();
        let d = Directory { page: &page };
        let a = d.open("first", |_| {}).unwrap();
        assert!(d.generation(a).is_in_use());
        assert_eq!(d.name(a).as_str(), "first");
        assert_eq!(d.used().count(), 1);
        d.close(a);
        let b = d.open("second", |_| {}).unwrap();
        assert_ne!(a, b, "the console has not drained the first");
        d.set_drained(a, d.generation(a));
        let mut cleared = None;
        assert_eq!(d.open("third", |id| cleared = Some(id)), Some(a));
        assert_eq!(cleared, Some(a));
        d.close(a);
        d.close(a);
        assert!(!d.generation(a).is_in_use(), "closing twice is closing once");
    }

    #[test]
    fn streams_run_out_and_names_are_cleaned() {
        let page = page();
        let d = Directory { page: &page };
        for _ in 0..STREAMS {
            assert!(d.open("a name that is longer than sixteen bytes", |_| {}).is_some());
        }
        assert_eq!(d.open("x", |_| {}), None);
        assert_eq!(d.name(StreamId(0)).as_str(), "a?name?that?is?l");
    }
}
