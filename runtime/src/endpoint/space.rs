//! [`Space`]: which bytes of the dispatcher frame are free for buffers of endpoints.

use core::cell::RefCell;
use core::ops::Range;

use lmp::cptr::task;
use lmp::frame::{EndpointBuffer, FRAME_SIZE, Message};
use lmp::syscall;

use crate::local::domain_local;
use crate::memory::Extents;

/// Buffers that a domain can have beside each other, with a gap after each.
const MAX_HOLES: usize = 64;

/// Alignment of a buffer, in bytes.
const ALIGN: u64 = 64;

/// The free part of a dispatcher frame. Pure.
#[derive(Debug, Default)]
pub struct Space {
    free: Extents<MAX_HOLES>,
}

impl Space {
    /// Nothing is free.
    pub const fn new() -> Space {
        Space { free: Extents::new() }
    }

    /// The bytes `range` of the frame are free from now on.
    pub fn add(&mut self, range: Range<u64>) {
        self.free.free(range.start, range.end.saturating_sub(range.start), 0);
    }

    /// Takes `bytes` bytes; their offset in the frame.
    pub fn allocate(&mut self, bytes: u64) -> Option<u64> {
        self.free.allocate(bytes, ALIGN, &(0..u64::MAX))
    }
}

/// Bytes of a buffer of so many messages.
pub(super) fn bytes(messages: u32) -> u64 {
    size_of::<EndpointBuffer>() as u64 + u64::from(messages) * Message::SIZE
}

domain_local! {
    static SPACE: RefCell<Option<Space>> = RefCell::new(None);
}

/// Takes `bytes` bytes of this domain's dispatcher frame.
pub(super) fn allocate(bytes: u64) -> Option<u64> {
    SPACE.with(|space| {
        let mut space = space.borrow_mut();
        let space = space.get_or_insert_with(|| {
            // A frame that cannot be looked at has no room.
            let size = syscall::cap_identify(task::ROOT, task::DISPATCHER_FRAME).map_or(0, |i| i.size);
            let mut space = Space::new();
            space.add(FRAME_SIZE..size);
            space
        });
        space.allocate(bytes)
    })
}

/// Gives them back.
pub(super) fn free(offset: u64, bytes: u64) {
    SPACE.with(|space| {
        if let Some(space) = space.borrow_mut().as_mut() {
            space.add(offset..offset + bytes);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_usual_frame_has_room_for_some_buffers() {
        let mut space = Space::new();
        space.add(FRAME_SIZE..lmp::frame::USUAL_FRAME_SIZE);
        assert_eq!(space.allocate(bytes(126)), Some(FRAME_SIZE));
        assert_eq!(space.allocate(bytes(1)), Some(FRAME_SIZE + bytes(126)));
        assert_eq!(space.allocate(bytes(1)), None);
        assert_eq!(space.allocate(bytes(u32::MAX)), None);
    }

    proptest! {
        /// Buffers are aligned, lie in the frame, do not overlap, and all room comes back.
        #[test]
        fn buffers_are_apart(ops in prop::collection::vec((1u32..40, any::<bool>()), 1..200)) {
            let mut space = Space::new();
            space.add(FRAME_SIZE..2 * FRAME_SIZE);
            let mut held: Vec<Range<u64>> = Vec::new();
            for (messages, give_back) in ops {
                if give_back {
                    if !held.is_empty() {
                        let range = held.remove(messages as usize % held.len());
                        space.add(range);
                    }
                } else if let Some(offset) = space.allocate(bytes(messages)) {
                    let range = offset..offset + bytes(messages);
                    prop_assert!(offset.is_multiple_of(64));
                    prop_assert!(range.start >= FRAME_SIZE && range.end <= 2 * FRAME_SIZE);
                    prop_assert!(held.iter().all(|r| r.end <= range.start || range.end <= r.start));
                    held.push(range);
                }
            }
            held.into_iter().for_each(|range| space.add(range));
            prop_assert_eq!(space.allocate(FRAME_SIZE), Some(FRAME_SIZE));
        }
    }
}
