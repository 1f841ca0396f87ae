//! What pairs of peers measure: one module for each benchmark between cores.
//!
//! The peer that *drives* is the producer of the connection, and takes the samples; the other one *serves* until it
//! gets `END`.

mod moving;
mod pingpong;
mod stream;
mod wakeup;

use core::hint::black_box;

use bulk::Kinds;
use runtime::bench::{BenchError, Harness};
use runtime::channel::{Channel, Waiting};
use runtime::monitor::{Connection, Options};
use skb::Policy;
use ump::{Accepts, Kind, LINE_BYTES, Message, RPC_LINES, STREAM_LINES, SendError};

/// A message of what is measured.
const DATA: Kind = Kind(0);
/// The driver is done.
const END: Kind = Kind(1);

/// Descriptors of buffers.
const BUFFERS: Kinds = Kinds::starting_at(Kind(2));

const ACCEPTS: Accepts = Accepts::kinds_below(BUFFERS.end());

/// Looks for a message in a row: as many as there are, so that those who wait for silence see one loop.
const LOOKS: u32 = u32::MAX;

/// A message that fills its line.
const FULL: Message = Message::new(DATA, [1, 2, 3, 4, 5, 6, 7]);

/// How a stream's messages are published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Publish {
    /// Each by itself.
    Single,
    /// Many at once.
    Burst,
}

/// How long the rings are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ring {
    /// [`RPC_LINES`] lines.
    Short,
    /// [`STREAM_LINES`] lines.
    Long,
}

/// How bulk data are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// In messages, seven words each: copied into them and out of them.
    Messages,
    /// Through shared memory: copied into a buffer and out of it.
    SharedMemory,
    /// In a buffer that is filled, handed over and read in place.
    InPlace,
}

/// What is measured between two peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// A message there and one back; both sides poll.
    PingPong,
    /// Many messages there.
    Stream(Ring, Publish),
    /// A message to who is blocked, and one back.
    Wakeup,
    /// So many KiB, filled by one and summed up by the other.
    Bulk(Way, u32),
    /// A buffer that nobody looks into.
    HandOver,
}

impl Job {
    /// As a word of a message.
    pub(crate) fn encode(self) -> u64 {
        match self {
            Self::PingPong => 0,
            Self::Stream(Ring::Short, Publish::Single) => 1,
            Self::Stream(Ring::Short, Publish::Burst) => 2,
            Self::Stream(Ring::Long, Publish::Single) => 3,
            Self::Stream(Ring::Long, Publish::Burst) => 4,
            Self::Wakeup => 5,
            Self::HandOver => 6,
            Self::Bulk(Way::Messages, kib) => 7 | u64::from(kib) << 32,
            Self::Bulk(Way::SharedMemory, kib) => 8 | u64::from(kib) << 32,
            Self::Bulk(Way::InPlace, kib) => 9 | u64::from(kib) << 32,
        }
    }

    /// From a word of a message; `None` for what is no job.
    pub(crate) fn decode(word: u64) -> Option<Job> {
        let kib = (word >> 32) as u32;
        Some(match word as u32 {
            0 => Self::PingPong,
            1 => Self::Stream(Ring::Short, Publish::Single),
            2 => Self::Stream(Ring::Short, Publish::Burst),
            3 => Self::Stream(Ring::Long, Publish::Single),
            4 => Self::Stream(Ring::Long, Publish::Burst),
            5 => Self::Wakeup,
            6 => Self::HandOver,
            7 => Self::Bulk(Way::Messages, kib),
            8 => Self::Bulk(Way::SharedMemory, kib),
            9 => Self::Bulk(Way::InPlace, kib),
            _ => return None,
        })
    }

    /// Bytes that one operation moves.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::PingPong | Self::Stream(..) | Self::Wakeup | Self::HandOver => LINE_BYTES as u64,
            Self::Bulk(_, kib) => u64::from(kib) << 10,
        }
    }

    /// Bytes of the pool of buffers.
    fn pool(self) -> u64 {
        match self {
            Self::PingPong | Self::Stream(..) | Self::Wakeup | Self::Bulk(Way::Messages, _) => 0,
            Self::Bulk(..) | Self::HandOver => moving::POOL,
        }
    }

    fn lines(self) -> usize {
        match self {
            Self::Stream(Ring::Long, _) | Self::Bulk(Way::Messages, _) => STREAM_LINES,
            Self::PingPong
            | Self::Stream(Ring::Short, _)
            | Self::Wakeup
            | Self::Bulk(..)
            | Self::HandOver => RPC_LINES,
        }
    }

    /// How the consumer waits. The producer polls, always.
    pub(crate) fn consumer_waits(self) -> Waiting {
        match self {
            Self::Wakeup => Waiting::Blockable,
            Self::PingPong | Self::Stream(..) | Self::Bulk(..) | Self::HandOver => Waiting::Polling,
        }
    }

    /// The connection that the producer asks for.
    pub(crate) fn options(self, policy: Policy, seed: u64) -> Options {
        Options { lines: self.lines() as u64, pool: self.pool(), policy, seed, ..Options::default() }
    }
}

/// A channel, whatever the length of its rings.
enum Any {
    Short(Channel<RPC_LINES>),
    Long(Channel<STREAM_LINES>),
}

/// A connection between two peers, and its channel.
pub(crate) struct Link {
    channel: Any,
    connection: Connection,
}

impl Link {
    pub(crate) fn new(mut connection: Connection, job: Job) -> Result<Link, BenchError> {
        let channel = match job.lines() {
            STREAM_LINES => Any::Long(connection.channel(ACCEPTS)?),
            _ => Any::Short(connection.channel(ACCEPTS)?),
        };
        Ok(Link { channel, connection })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Does the driver's part, and lets the other go.
    pub(crate) fn drive(&mut self, job: Job, harness: &mut Harness) -> Result<(), BenchError> {
        match &mut self.channel {
            Any::Short(channel) => drive(job, channel, &self.connection, harness),
            Any::Long(channel) => drive(job, channel, &self.connection, harness),
        }
    }

    /// Does the server's part until the driver is done.
    pub(crate) fn serve(&mut self, job: Job) -> Result<(), BenchError> {
        match &mut self.channel {
            Any::Short(channel) => serve(job, channel, &self.connection),
            Any::Long(channel) => serve(job, channel, &self.connection),
        }
    }
}

fn drive<const N: usize>(
    job: Job,
    channel: &mut Channel<N>,
    connection: &Connection,
    h: &mut Harness,
) -> Result<(), BenchError> {
    // Then the other one is where it stays during the measurement, and both rings have been used all around: in the
    // first lap an empty line is looked at more closely than ever after.
    for _ in 0..N {
        send(channel, &FULL)?;
        receive(channel)?;
    }
    match job {
        Job::PingPong => pingpong::drive(channel, h)?,
        Job::Stream(_, publish) => stream::drive(channel, publish, h)?,
        Job::Wakeup => wakeup::drive(channel, h)?,
        Job::Bulk(way, _) => moving::drive(channel, connection, way, job.bytes() as usize, h)?,
        Job::HandOver => moving::drive_hand_over(channel, connection, h)?,
    }
    Ok(send(channel, &Message::new(END, []))?)
}

fn serve<const N: usize>(
    job: Job,
    channel: &mut Channel<N>,
    connection: &Connection,
) -> Result<(), BenchError> {
    for _ in 0..N {
        let message = receive(channel)?;
        send(channel, &message)?;
    }
    match job {
        Job::PingPong => pingpong::serve(channel),
        Job::Stream(..) => stream::serve(channel),
        Job::Wakeup => wakeup::serve(channel),
        Job::Bulk(way, _) => moving::serve(channel, connection, way, job.bytes() as usize),
        Job::HandOver => moving::serve_hand_over(channel, connection),
    }
}

/// The channel was closed in the middle of a measurement. It says no more, so that what is measured moves no
/// reasons about.
#[derive(Debug)]
struct Broken;

impl From<Broken> for BenchError {
    #[cold]
    fn from(Broken: Broken) -> BenchError {
        BenchError::Wrong("the channel was closed in the middle of a measurement")
    }
}

/// Sends `message`, polling for room.
#[inline(always)]
fn send<const N: usize>(channel: &mut Channel<N>, message: &Message) -> Result<(), Broken> {
    match channel.try_send(message) {
        Ok(()) => Ok(()),
        // Behind a black box the copy is made here: without, the function would get the address of the message, whose
        // words could no longer be in registers above.
        Err(_) => send_later(channel, black_box(*message)),
    }
}

/// Sends `message` after a first attempt failed.
#[cold]
#[inline(never)]
fn send_later<const N: usize>(channel: &mut Channel<N>, message: Message) -> Result<(), Broken> {
    loop {
        core::hint::spin_loop();
        match channel.try_send(&message) {
            Ok(()) => return Ok(()),
            Err(SendError::Full) => {}
            Err(_) => return Err(Broken),
        }
    }
}

/// Takes the next message, polling for it.
#[inline(always)]
fn receive<const N: usize>(channel: &mut Channel<N>) -> Result<Message, Broken> {
    match channel.recv_within(LOOKS) {
        Ok(Some(message)) => Ok(message),
        Ok(None) => receive_later(channel),
        Err(_) => Err(Broken),
    }
}

/// Takes the next message after [`LOOKS`] looks found none.
#[inline(always)]
fn receive_later<const N: usize>(channel: &mut Channel<N>) -> Result<Message, Broken> {
    // Apart from the result, so that a message that came in time stays in registers.
    let mut message = Message::new(END, []);
    if wait(channel, &mut message) { Ok(message) } else { Err(Broken) }
}

/// Waits for the next message; false if the channel was closed.
#[cold]
#[inline(never)]
fn wait<const N: usize>(channel: &mut Channel<N>, message: &mut Message) -> bool {
    loop {
        match channel.recv_within(LOOKS) {
            Ok(Some(came)) => {
                *message = came;
                return true;
            }
            Ok(None) => core::hint::spin_loop(),
            Err(_) => return false,
        }
    }
}
