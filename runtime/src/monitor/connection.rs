//! [`Connection`]: a channel and perhaps a pool of buffers between this domain and another.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use bulk::{Region, RegionError, SlotSize};
use lmp::cptr::task;
use lmp::invocation::MapFlags;
use lmp::{CPtr, CoreId, Rights, syscall};
use ump::{Accepts, Endpoint, Outbox};

use super::router::{Fate, Gone};
use super::{Error, ROUTER, Role, discard, request, route_notices, word};
use crate::bells::Bell;
use crate::channel::{Channel, Wiring};
use crate::endpoint::Caps;
use crate::interface::monitor::{ConnectionInfo, Part, Request};
use crate::memory::{self, Mapped, MemoryError};

/// A frame of a connection, mapped.
#[derive(Debug)]
struct Frame {
    cap: CPtr,
    mapped: Mapped,
}

/// What a connection consists of; given back to the monitor when the connection, its channel and all who look at
/// its pool are gone.
pub struct Line {
    number: u64,
    fate: Rc<Fate>,
    frames: RefCell<Vec<Frame>>,
    notifier: Option<CPtr>,
}

impl Line {
    /// How the other end went, if the monitor said so.
    pub(crate) fn gone(&self) -> Option<Gone> {
        self.fate.gone()
    }

    /// Passes a copy of a frame capability to the peer.
    pub(crate) fn send_cap(&self, cap: CPtr) -> Result<(), Error> {
        request(Request::SendCap, [self.number], Some(cap), Caps::Refused).map(|_| ())
    }

    /// Fetches the next capability that the peer passed.
    pub(crate) fn take_cap(&self) -> Result<CPtr, Error> {
        request(Request::TakeCap, [self.number], None, Caps::Accepted)?.cap.ok_or(Error::BadAnswer)
    }

    /// Fetches a frame of the connection and maps it as its capability allows.
    fn fetch(&self, part: Part, piece: u64) -> Result<Piece, Error> {
        let answer = request(Request::Take, [self.number, part as u64, piece], None, Caps::Accepted)?;
        let cap = answer.cap.ok_or(Error::BadAnswer)?;
        match map_whole(cap) {
            Ok(mapped) => {
                let piece = Piece {
                    address: mapped.address,
                    bytes: mapped.len,
                    node: word(&answer, 1) as u16,
                    physical: word(&answer, 2),
                    cap,
                };
                self.frames.borrow_mut().push(Frame { cap, mapped });
                Ok(piece)
            }
            Err(error) => {
                discard(cap);
                Err(error.into())
            }
        }
    }
}

fn map_whole(frame: CPtr) -> Result<Mapped, MemoryError> {
    let info = syscall::cap_identify(task::ROOT, frame)
        .map_err(|cause| MemoryError::Refused { operation: "looking at a frame", cause })?;
    let mut flags = MapFlags::READ;
    if info.rights.contains(Rights::WRITE) {
        flags |= MapFlags::WRITE;
    }
    memory::map(frame, 0, info.size, flags)
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut caps = Vec::new();
        for frame in self.frames.take() {
            // SAFETY: the channel holds this, and is dropped before; of the pool `Piece` hands out addresses,
            // whose use is unsafe and promises that the connection lives.
            unsafe { memory::unmap(frame.mapped) };
            caps.push(frame.cap);
        }
        // A monitor that does not answer has taken everything back, or will when this domain ends.
        let _ = request(Request::Close, [self.number], None, Caps::Refused);
        // What the monitor said about this connection concerns no later one of its number.
        route_notices();
        ROUTER.with(|router| router.borrow_mut().remove_connection(self.number));
        caps.into_iter().chain(self.notifier).for_each(discard);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("number", &self.number)
            .field("gone", &self.gone())
            .finish_non_exhaustive()
    }
}

/// A piece of a connection's memory, mapped for as long as the connection or its channel lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its address in this domain.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
    /// The node that it lies on.
    pub node: u16,
    /// Its physical address.
    pub physical: u64,
    /// Its frame.
    pub cap: CPtr,
}

impl Piece {
    /// The memory, as a pointer.
    pub fn as_ptr<T>(&self) -> *mut T {
        self.address as *mut T
    }
}

/// A connection to another domain.
///
/// It lasts as long as this, the channel made from it, or a clone of [`Self::line`].
#[derive(Debug)]
pub struct Connection {
    info: ConnectionInfo,
    own: Piece,
    peer: Piece,
    pool: Vec<Piece>,
    /// What the channel takes.
    bell: Option<Bell>,
    has_channel: bool,
    line: Rc<Line>,
}

impl Connection {
    /// Fetches and maps everything that a connection consists of.
    pub(super) fn open(info: ConnectionInfo, bell: Option<Bell>) -> Result<Connection, Error> {
        let number = info.connection;
        let fate = ROUTER.with(|router| router.borrow_mut().add_connection(number));
        if let Some(bell) = &bell {
            fate.set_bell(bell.id());
        }
        // From here on an error closes the connection.
        let mut line = Line { number, fate, frames: RefCell::default(), notifier: None };
        if info.peer_sleeps {
            let part = Part::Notifier as u64;
            let answer = request(Request::Take, [number, part, 0], None, Caps::Accepted)?;
            line.notifier = Some(answer.cap.ok_or(Error::BadAnswer)?);
        }
        let own = line.fetch(Part::Own, 0)?;
        let peer = line.fetch(Part::Peer, 0)?;
        let pieces = if info.pool == 0 { 0 } else { u64::from(info.pieces) };
        let pool = (0..pieces).map(|piece| line.fetch(Part::Pool, piece)).collect::<Result<_, _>>()?;
        Ok(Connection { info, own, peer, pool, bell, has_channel: false, line: Rc::new(line) })
    }

    /// What both ends were told of it.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The core of the other end.
    pub fn peer(&self) -> CoreId {
        CoreId(self.info.peer as u16)
    }

    /// What this end is.
    pub fn role(&self) -> Role {
        if self.info.producer { Role::Producer } else { Role::Consumer }
    }

    /// The outboxes of this end and of the peer: where they lie.
    pub fn outboxes(&self) -> [Piece; 2] {
        [self.own, self.peer]
    }

    /// The pieces of the pool, all of the same size; none if there is no pool.
    pub fn pool(&self) -> &[Piece] {
        &self.pool
    }

    /// The pool in slots of that size, for [`bulk`]: as much of it as all pieces have whole slots for.
    ///
    /// # Errors
    /// [`RegionError`], for instance if there is no pool or it is smaller than a slot.
    pub fn region(&self, slot: SlotSize) -> Result<Region<'_>, RegionError> {
        let addresses: Vec<*const u8> =
            self.pool.iter().map(|piece| piece.as_ptr::<u8>().cast_const()).collect();
        let bytes = self.pool.iter().map(|piece| piece.bytes).min().unwrap_or(0) as usize;
        // SAFETY: the pieces are mapped for as long as `Line` lives, which `self` holds; writable for the producer.
        // This program accesses them in regions only: `Piece` hands out an address, whose use is unsafe.
        unsafe { Region::from_raw(&addresses, bytes / slot.bytes() * slot.bytes(), slot) }
    }

    /// What keeps the memory of the connection mapped.
    pub fn line(&self) -> Rc<Line> {
        self.line.clone()
    }

    /// How the other end went, if it has.
    pub fn gone(&self) -> Option<Gone> {
        super::look_at_notices();
        self.line.gone()
    }

    /// The channel of the connection, with rings of `N` lines.
    ///
    /// # Errors
    /// [`Error`]: the rings have another number of lines, or it was made before.
    pub fn channel<const N: usize>(&mut self, accepts: Accepts) -> Result<Channel<N>, Error> {
        if self.info.lines != N as u64 {
            return Err(Error::WrongLines { has: self.info.lines, asked: N as u64 });
        }
        if self.has_channel {
            return Err(Error::ChannelTaken);
        }
        let outbox = |piece: &Piece| {
            // SAFETY: the frame is mapped whole, writable if it is the own one, for as long as `Line` lives, which
            // the channel holds and drops last. Nothing else of this program accesses it: there is one channel,
            // and pieces of rings are handed out as addresses, whose use is unsafe.
            unsafe { Outbox::<N>::from_raw(piece.as_ptr::<u8>(), piece.bytes as usize) }
                .map_err(|_| Error::RingTooSmall)
        };
        let endpoint = Endpoint::new(outbox(&self.own)?, outbox(&self.peer)?, accepts);
        self.has_channel = true;
        let wiring = Wiring {
            notifier: self.line.notifier,
            bell: self.bell.take(),
            connection: Some(self.line.clone()),
        };
        Ok(Channel::new(endpoint, wiring))
    }

    /// Passes a copy of the frame capability `cap` to the peer; blocks until its monitor has it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn send_cap(&self, cap: CPtr) -> Result<(), Error> {
        self.line.send_cap(cap)
    }

    /// Fetches the next capability that the peer passed, into a new slot; blocks until there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn take_cap(&self) -> Result<CPtr, Error> {
        self.line.take_cap()
    }
}
