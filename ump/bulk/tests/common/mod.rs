//! A pool within one program, and a channel that only remembers.

use std::collections::VecDeque;

use bulk::{Channel, Kinds, PoolId, Region, Slot, SlotSize, Word};
use ump::{Kind, Message, SendError};

pub(crate) const POOL: PoolId = PoolId(3);
pub(crate) const KINDS: Kinds = Kinds::starting_at(Kind(5));

/// Memory of `slots` slots of `bytes` bytes.
pub(crate) fn memory(slots: usize, bytes: usize) -> Vec<Word> {
    (0..slots * bytes / 8).map(|_| Word::new(0)).collect()
}

/// A pool of slots of 4 KiB in one piece.
pub(crate) fn region(memory: &[Word]) -> Region<'_> {
    Region::of(&[memory], SlotSize::MIN).unwrap()
}

pub(crate) fn table(slots: usize) -> Vec<Slot> {
    (0..slots).map(|_| Slot::new()).collect()
}

/// One direction of a channel.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) messages: VecDeque<Message>,
    /// Messages that do not fit.
    pub(crate) is_full: bool,
    pub(crate) refused: Option<Kind>,
}

impl Channel for Wire {
    fn try_send(&mut self, message: &Message) -> Result<(), SendError> {
        if self.is_full {
            return Err(SendError::Full);
        }
        self.messages.push_back(*message);
        Ok(())
    }

    fn refuse(&mut self, kind: Kind) {
        assert_eq!(self.refused, None, "a channel is closed once");
        self.refused = Some(kind);
    }
}
