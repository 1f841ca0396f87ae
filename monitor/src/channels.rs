//! The memory of connections, as the cores at its ends see it.
//!
//! The frames of a channel belong to the first core (module `first`), whose monitor tells both ends where they are. A
//! core whose end it is makes foreign copies of them, once even if both ends are on it. When the last end on a core is
//! done, these and whatever the domains made of them are deleted, and the first core is told.

use alloc::vec::Vec;

use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, Rights};
use runtime::interface::monitor::{LINES, MonitorError};
use runtime::interface::skb::PIECES_MAX;
use ump::LINE_BYTES;

use crate::port::{Memory, Port};
use crate::state::{FIRST_CORE, Monitor};
use crate::wire::Intermon;

/// What both ends may do with a channel's memory at most.
pub(crate) const RIGHTS: Rights = Rights::READ.union(Rights::WRITE);

/// Bytes of the frame of an outbox of `lines` lines; `None` if there is no ring of that size.
pub fn outbox_bytes(lines: u64) -> Option<u64> {
    /// Lines before the ring (`ump::Outbox`).
    const CONTROL_LINES: u64 = 4;
    let bytes = (lines.checked_add(CONTROL_LINES)?).checked_mul(LINE_BYTES as u64)?;
    LINES.contains(&lines).then(|| bytes.next_multiple_of(PAGE_SIZE))
}

/// Where a frame lies: the physical address, and in its low bits, as frames are whole pages, the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home(pub u64);

impl Home {
    /// The most nodes that fit.
    pub const NODES: u64 = PAGE_SIZE;

    /// The frame at `base` on `node`.
    pub const fn new(base: u64, node: u16) -> Home {
        Home((base & !(PAGE_SIZE - 1)) | (node as u64 % Self::NODES))
    }

    /// The physical address.
    pub const fn base(self) -> u64 {
        self.0 & !(PAGE_SIZE - 1)
    }

    /// The node.
    pub const fn node(self) -> u16 {
        (self.0 % Self::NODES) as u16
    }
}

/// What a grant says about a channel in one word: pieces, end, the data's node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Pieces of the pool.
    pub pieces: u8,
    /// Which end the receiver is: 0 the client, 1 the server.
    pub end: u8,
    /// The node of the pool's first piece.
    pub data_node: u16,
}

impl Layout {
    /// As a word.
    pub const fn encode(self) -> u64 {
        self.pieces as u64 | (self.end as u64) << 8 | (self.data_node as u64) << 16
    }

    /// From a word; `None` if it is none.
    pub const fn decode(word: u64) -> Option<Layout> {
        let layout = Layout { pieces: word as u8, end: (word >> 8) as u8, data_node: (word >> 16) as u16 };
        if word >> 32 == 0 && layout.pieces as usize <= PIECES_MAX && layout.end <= 1 {
            Some(layout)
        } else {
            None
        }
    }
}

/// The memory granted to a connection, as far as it was told.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) channel: u64,
    pub(crate) layout: Layout,
    /// Bytes of a piece of the pool.
    pub(crate) piece: u64,
    /// The forward and the backward outbox.
    pub(crate) outboxes: [Home; 2],
    /// The pieces told so far.
    pub(crate) pieces: Vec<Home>,
    /// Whether this connection counts among the ends of the channel's [`Hold`].
    pub(crate) held: bool,
}

impl Grant {
    pub(crate) fn is_complete(&self) -> bool {
        self.pieces.len() == usize::from(self.layout.pieces)
    }

    /// The node and physical address of frame `index` of the [`Hold`].
    pub(crate) fn home(&self, index: usize) -> Option<Home> {
        self.outboxes.iter().chain(&self.pieces).nth(index).copied()
    }
}

/// The capabilities of this core for a channel's frames: forward outbox, backward outbox, pieces.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) frames: Vec<CPtr>,
    /// Ends of the channel on this core.
    ends: u8,
}

impl Monitor {
    /// Makes the capabilities for the granted memory of `connection`.
    pub(crate) fn hold<P: Port>(&mut self, port: &mut P, connection: u64) -> Result<(), MonitorError> {
        let Some(connection) = self.connections.get_mut(&connection) else {
            return Err(MonitorError::NotFound);
        };
        let lines = connection.form.lines;
        let Some(grant) = &mut connection.grant else { return Err(MonitorError::WrongState) };
        if grant.held {
            return Ok(());
        }
        if let Some(hold) = self.holds.get_mut(&grant.channel) {
            hold.ends += 1;
            grant.held = true;
            return Ok(());
        }
        let mut frames = Vec::with_capacity(2 + grant.pieces.len());
        let originals = self.first.as_ref().and_then(|first| first.frames_of(grant.channel));
        let outbox = outbox_bytes(lines).ok_or(MonitorError::BadArgument)?;
        let sizes = [outbox, outbox].into_iter().chain(core::iter::repeat(grant.piece));
        let homes = grant.outboxes.iter().chain(&grant.pieces);
        for (index, (home, size)) in homes.zip(sizes).enumerate() {
            let memory = Memory { base: home.base(), size, rights: RIGHTS, owner: FIRST_CORE };
            let made = match &originals {
                Some(originals) => match originals.get(index) {
                    Some(original) => port.copy(*original, RIGHTS),
                    None => Err(MonitorError::NotFound),
                },
                None => port.foreign(memory),
            };
            match made {
                Ok(frame) => frames.push(frame),
                Err(error) => {
                    for frame in frames {
                        port.delete(frame);
                    }
                    return Err(error);
                }
            }
        }
        grant.held = true;
        self.holds.insert(grant.channel, Hold { frames, ends: 1 });
        Ok(())
    }

    /// The grant of a connection is of no use any more.
    pub(crate) fn release<P: Port>(&mut self, port: &mut P, grant: &Grant) {
        if grant.held
            && let Some(hold) = self.holds.get_mut(&grant.channel)
        {
            hold.ends -= 1;
            if hold.ends == 0
                && let Some(hold) = self.holds.remove(&grant.channel)
            {
                for frame in hold.frames {
                    // On the first core the rest goes when the memory is freed.
                    if self.first.is_none() {
                        port.revoke(frame);
                    }
                    port.delete(frame);
                }
            }
        }
        let done = Intermon::ChannelDone { channel: grant.channel, end: u64::from(grant.layout.end) };
        self.tell(port, FIRST_CORE, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outboxes_fill_whole_pages() {
        assert_eq!(outbox_bytes(64), Some(2 * PAGE_SIZE));
        assert!(outbox_bytes(64).unwrap() >= size_of::<ump::Outbox<64>>() as u64);
        assert_eq!(outbox_bytes(1024), Some(17 * PAGE_SIZE));
        assert!(outbox_bytes(1024).unwrap() >= size_of::<ump::Outbox<1024>>() as u64);
        assert_eq!(outbox_bytes(65), None);
        assert_eq!(outbox_bytes(u64::MAX), None);
    }

    #[test]
    fn words_survive() {
        let home = Home::new(0x1234_5000, 7);
        assert_eq!((home.base(), home.node()), (0x1234_5000, 7));
        let layout = Layout { pieces: 16, end: 1, data_node: 300 };
        assert_eq!(Layout::decode(layout.encode()), Some(layout));
        assert_eq!(Layout::decode(17), None);
        assert_eq!(Layout::decode(2 << 8), None);
        assert_eq!(Layout::decode(1 << 32), None);
    }
}
