//! A core's share frame, as a source of lines: its CPU driver's log and the streams of its domains.

use alloc::boxed::Box;
use alloc::vec::Vec;

use arrayvec::ArrayString;
use console::lines::{Line, Lines};
use lmp::CPtr;
use lmp::invocation::MapFlags;
use lmp::start::share;
use runtime::directory::{CONSOLE_OUTBOX, Directory, Generation, LINES, NAME_BYTES, StreamId};
use runtime::memory::{self, MemoryError};
use ump::logring::{Entry, LogMemory, Reader};
use ump::stream::{self, ByteStream, StreamError};
use ump::{Endpoint, Outbox};

use crate::Ports;

/// Log records printed of one core before another one's turn.
const RECORDS_PER_TURN: usize = 64;
/// Bytes taken from one stream before another one's turn.
const BYTES_PER_TURN: usize = 4096;

/// A core's share frame.
pub(crate) struct Source {
    core: u32,
    base: *mut u8,
    directory: Directory<'static>,
    /// Once its CPU driver has formatted it.
    log: Option<Reader<'static>>,
    /// By stream number, as far as any was in use.
    streams: Vec<Slot>,
}

/// What the console knows of one stream.
#[derive(Default)]
struct Slot {
    generation: Option<Generation>,
    open: Option<Box<Open>>,
}

/// A stream in use.
struct Open {
    name: ArrayString<NAME_BYTES>,
    stream: ByteStream<'static, LINES>,
    lines: Lines,
    /// The peer broke the protocol, or is through: nothing more is read.
    over: bool,
}

impl Source {
    /// The source in the share frame `frame` of `core`.
    pub(crate) fn map(core: u32, frame: CPtr) -> Result<Source, MemoryError> {
        let mapped = memory::map(frame, 0, share::SIZE, MapFlags::READ | MapFlags::WRITE)?;
        let base = mapped.as_ptr::<u8>();
        // SAFETY: the share frame is mapped writable there for good: the mapping is never taken down.
        let directory = unsafe { Directory::new(base) };
        Ok(Source { core, base, directory, log: None, streams: Vec::new() })
    }

    /// Prints a bounded part of what there is; whether there was anything.
    pub(crate) fn drain(&mut self, ports: &mut Ports) -> bool {
        let log = self.drain_log(ports);
        self.drain_streams(ports) || log
    }

    fn drain_log(&mut self, ports: &mut Ports) -> bool {
        let core = self.core;
        if self.log.is_none() {
            let at = self.base.wrapping_add(share::LOG_OFFSET as usize);
            // SAFETY: the log lies in the share frame, mapped for good; the console only reads it.
            let memory = unsafe { LogMemory::from_raw(at, share::LOG_SIZE as usize) };
            // Not yet formatted while the core is not started.
            self.log = memory.ok().and_then(|m| Reader::attach(m).ok());
        }
        let Some(log) = &mut self.log else { return false };
        let mut any = false;
        for _ in 0..RECORDS_PER_TURN {
            match log.read() {
                None => break,
                Some(Entry::Record(r)) => ports.text(format_args!("[core {core}] {} ", r.level), r.text()),
                Some(Entry::Lost { bytes }) => {
                    ports
                        .text(format_args!("[core {core}] "), &alloc::format!("({bytes} bytes of log lost)"));
                }
                Some(Entry::Restarted) => {
                    ports.text(format_args!("[core {core}] "), "(the log starts again)")
                }
            }
            any = true;
        }
        any
    }

    fn drain_streams(&mut self, ports: &mut Ports) -> bool {
        let mut any = false;
        for id in self.directory.used() {
            let index = id.number() as usize;
            if self.streams.len() <= index {
                self.streams.resize_with(index + 1, Slot::default);
            }
            // The generation first: what is read after it is all of a generation that is over.
            let generation = self.directory.generation(id);
            any |= self.drain_stream(id, generation, ports);
        }
        any
    }

    fn drain_stream(&mut self, id: StreamId, generation: Generation, ports: &mut Ports) -> bool {
        let core = self.core;
        let slot = &mut self.streams[id.number() as usize];
        if slot.open.is_none() && slot.generation != Some(generation) {
            // One that was used and ended between two looks is read too: its memory stays until it is drained.
            slot.open = open(self.base, id, self.directory.name(id));
            if generation.is_in_use() {
                slot.generation = Some(generation);
            }
        }
        let Some(open) = &mut slot.open else {
            // It cannot be read, now or later.
            if !generation.is_in_use() && slot.generation != Some(generation) {
                slot.generation = Some(generation);
                self.directory.set_drained(id, generation);
            }
            return false;
        };
        let name = open.name;
        let mut any = false;
        let mut emit = |line: Line<'_>| match line {
            Line::Text(text) => ports.text(format_args!("[core {core} {name}] "), text),
            Line::Record(record) => ports.record(record),
            Line::BadRecord => {
                ports.text(format_args!("[core {core} {name}] "), "(a bad record was dropped)")
            }
        };
        let mut buffer = [0u8; 512];
        let mut taken = 0;
        while !open.over && taken < BYTES_PER_TURN {
            match open.stream.read(&mut buffer) {
                Ok(0) => open.over = true,
                Ok(n) => {
                    open.lines.feed(&buffer[..n], &mut emit);
                    taken += n;
                    any = true;
                }
                Err(StreamError::WouldBlock) => break,
                Err(error) => {
                    open.lines.finish(&mut emit);
                    if error != StreamError::HungUp {
                        emit(Line::Text("(its console stream is broken)"));
                    }
                    open.over = true;
                }
            }
        }
        let ended = slot.generation != Some(generation);
        if ended && (open.over || taken < BYTES_PER_TURN) {
            open.lines.finish(&mut emit);
            slot.open = None;
            slot.generation = Some(generation);
            self.directory.set_drained(id, generation);
            any = true;
        }
        any
    }
}

/// The console's end of stream `id` in the share frame at `base`.
fn open(base: *mut u8, id: StreamId, name: ArrayString<NAME_BYTES>) -> Option<Box<Open>> {
    let at = base.wrapping_add(id.offset() as usize);
    // SAFETY: the share frame is mapped writable for good, the stream lies within it, and its memory is only
    // accessed through outboxes by its two users.
    let (theirs, own) = unsafe {
        (
            Outbox::<LINES>::from_raw(at, CONSOLE_OUTBOX),
            Outbox::<LINES>::from_raw(at.wrapping_add(CONSOLE_OUTBOX), CONSOLE_OUTBOX),
        )
    };
    let (theirs, own) = (theirs.ok()?, own.ok()?);
    let stream = ByteStream::new(Endpoint::new(own, theirs, stream::ACCEPTS));
    Some(Box::new(Open { name, stream, lines: Lines::new(), over: false }))
}
