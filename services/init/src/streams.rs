//! The console streams of this core: `init` gives them out and takes them back.

use lmp::start::{StartInfo, share};
use lmp::{CPtr, ObjType, cptr::task, layout, syscall};
use runtime::directory::{Directory, StreamId};
use runtime::memory::{self, MemoryError};
use runtime::output;
use runtime::spawn::StreamGrant;

/// What `init` gives streams out from.
pub(crate) struct Streams {
    directory: Directory<'static>,
    doorbell: u64,
    /// The right to ring the console, and nobody else.
    ring: CPtr,
    /// The frame of each stream that was ever given out.
    frames: [CPtr; share::STREAMS as usize],
}

/// Zeroes the memory of a stream.
fn clear(id: StreamId) {
    let at = (layout::SHARE + id.offset()) as *mut u64;
    for word in 0..(share::STREAM_SIZE / 8) as usize {
        // SAFETY: the share frame is mapped writable at `SHARE` in `init`, and the stream lies within it. It is
        // in nobody's use (`Directory::open`); volatile, because the next user reads it in another mapping.
        unsafe { at.add(word).write_volatile(0) };
    }
}

impl Streams {
    /// The streams of this core; `doorbell` rings the console.
    pub(crate) fn new(doorbell: u64) -> Result<Streams, MemoryError> {
        // SAFETY: the CPU driver mapped the share frame there for `init`, writable, for good.
        let directory = unsafe { Directory::new(layout::SHARE as *const u8) };
        let ring = one_of(task::IPIS, ObjType::Ipi, doorbell, 1)?;
        Ok(Streams { directory, doorbell, ring, frames: [CPtr::NULL; share::STREAMS as usize] })
    }

    /// Takes a stream for `init` itself and prints there from now on.
    pub(crate) fn attach_own(&self) {
        if let Some(id) = self.directory.open("init", clear) {
            let base = (layout::SHARE + id.offset()) as *const u8;
            // SAFETY: the stream was just taken and cleared, and its memory is mapped for good.
            unsafe { output::attach(base, self.ring, self.doorbell) };
        }
    }

    /// A stream for a domain called `name`; `None` if all are in use, or no frame can be made.
    pub(crate) fn open(&mut self, name: &str) -> Option<(StreamId, StreamGrant)> {
        let id = self.directory.open(name, clear)?;
        let place = &mut self.frames[id.number() as usize];
        if *place == CPtr::NULL {
            match one_frame(id) {
                Ok(frame) => *place = frame,
                Err(_) => {
                    self.directory.close(id);
                    return None;
                }
            }
            // Making the frame zeroed it, or it did not; the bytes are zero either way.
        }
        let doorbell = self.doorbell as u32;
        Some((id, StreamGrant { number: id.number(), frame: *place, ring: self.ring, doorbell }))
    }

    /// The domain that had stream `id` is gone.
    pub(crate) fn close(&self, id: StreamId) {
        self.directory.close(id);
        // The console prints the rest and gives the stream free.
        let _ = syscall::ipi_send(self.ring, self.doorbell);
    }

    /// The right to ring the console.
    pub(crate) fn ring(&self) -> CPtr {
        self.ring
    }
}

fn one_frame(id: StreamId) -> Result<CPtr, MemoryError> {
    let slot = memory::slot()?;
    let made = syscall::cap_retype(
        task::ROOT,
        slot,
        task::SHARE,
        ObjType::Frame,
        id.offset(),
        share::STREAM_SIZE,
        1,
    );
    match made {
        Ok(()) => Ok(slot),
        Err(cause) => {
            memory::free_slot(slot);
            Err(MemoryError::Refused { operation: "making the frame of a console stream", cause })
        }
    }
}

/// A capability for `count` units from `first` of the range capability `source` of type `ty`.
pub(crate) fn one_of(source: CPtr, ty: ObjType, first: u64, count: u64) -> Result<CPtr, MemoryError> {
    let refused = |operation| move |cause| MemoryError::Refused { operation, cause };
    let info = syscall::cap_identify(task::ROOT, source).map_err(refused("looking at a range"))?;
    let offset = first.checked_sub(info.base).ok_or(MemoryError::Refused {
        operation: "taking a part of a range",
        cause: lmp::SysError::OutOfRange,
    })?;
    let slot = memory::slot()?;
    syscall::cap_retype(task::ROOT, slot, source, ty, offset, count, 1)
        .map_err(refused("taking a part of a range"))?;
    Ok(slot)
}

/// The console's doorbell, as the start information of this core says.
pub(crate) fn console_doorbell(info: &StartInfo) -> u64 {
    if info.first_core == 1 {
        runtime::vector::doorbell(info.apic_id, runtime::vector::CONSOLE)
    } else {
        u64::from(info.console_doorbell)
    }
}
