//! [`Endpoint`]: one end of a channel, with the whole protocol.
//!
//! A message is a line: the payload is stored first, then the header word with the number of the message.
//! The receiver looks at one line only, the one where the next message must appear, and takes it when its
//! header has the expected number; the number differs from lap to lap, so nothing has to be erased and the
//! receiver writes nothing into the ring. What it writes is acknowledgements: in the header of each message
//! that goes the other way, and every quarter of a ring on a line of its own, which the sender looks at only
//! when it has run out of credits.
//!
//! The peer is not trusted. Counters live in private memory, a line is copied once and checked afterwards,
//! no shared value is used as an index, and the first thing that the peer could not have done by the
//! protocol closes the channel.

use core::cell::Cell;
use core::fmt;

use crate::error::{SendError, Violation};
use crate::line::{Line, WORDS};
use crate::message::{
    BURST_SHIFT, CAPABILITIES_SHIFT, Header, Kind, MAX_BURST, Message, PAYLOAD_BYTES, PAYLOAD_WORDS, length,
};
use crate::outbox::{Outbox, control, sleep};
use crate::primitive::{Ordering, Side, Site};

/// The word of a line that holds the header. It is the last, so that wide stores in address order can
/// publish a line too.
const HEADER: usize = WORDS - 1;

/// Which messages an endpoint takes; any other closes the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    kinds_below: Kind,
    capabilities: u8,
}

impl Accepts {
    /// Messages of the kinds below `limit`, without capabilities.
    pub const fn kinds_below(limit: Kind) -> Self {
        Self { kinds_below: limit, capabilities: 0 }
    }

    /// The same kinds, each message with up to `most` capabilities.
    pub const fn with_capabilities(self, most: u8) -> Self {
        Self { capabilities: most, ..self }
    }
}

/// One end of a two-way channel: a ring of `N` lines to the peer and another one back.
///
/// There must be one endpoint per side and one program at a time that uses it. It can move to another
/// thread, but it cannot be shared: its counters are private to its user, in a block of memory of their own.
///
/// ```
/// use ump::{Accepts, Endpoint, Kind, Message, Outbox, RPC_LINES};
///
/// const PING: Kind = Kind(0);
/// let (here, there) = (Outbox::<RPC_LINES>::new(), Outbox::new());
/// let mut client = Endpoint::new(&here, &there, Accepts::kinds_below(Kind(1)));
/// let mut server = Endpoint::new(&there, &here, Accepts::kinds_below(Kind(1)));
///
/// client.try_send(&Message::new(PING, [1, 2, 3])).unwrap();
/// let message = server.try_recv().unwrap().expect("it was just sent");
/// assert_eq!((message.kind(), message.words()), (PING, &[1, 2, 3][..]));
/// ```
///
/// It is not `Sync`:
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<ump::Endpoint<'static, 64>>();
/// ```
#[derive(Debug)]
#[repr(align(128))]
pub struct Endpoint<'m, const N: usize> {
    state: State<'m, N>,
}

/// The sending direction of an [`Endpoint`].
#[derive(Debug)]
pub struct Sender<'e, 'm, const N: usize> {
    state: &'e State<'m, N>,
}

/// The receiving direction of an [`Endpoint`].
#[derive(Debug)]
pub struct Receiver<'e, 'm, const N: usize> {
    state: &'e State<'m, N>,
}

impl<'m, const N: usize> Endpoint<'m, N> {
    /// The end of a channel that writes `own` and reads `peer`; the other end is made with the two swapped.
    ///
    /// Both outboxes must be fresh, that is, all zeroes, when the first of the two ends is made: otherwise
    /// the channel closes with a [`Violation`] or delivers remains of a former one.
    pub fn new(own: &'m Outbox<N>, peer: &'m Outbox<N>, accepts: Accepts) -> Self {
        Self {
            state: State {
                own,
                peer,
                kinds_below: Cell::new(accepts.kinds_below.0),
                capabilities: u32::from(accepts.capabilities),
                sent: Cell::new(0),
                limit: Cell::new(Outbox::<N>::LINES as u64),
                taken: Cell::new(0),
                told: Cell::new(0),
                line_taken: Cell::new(0),
                line_sent: Cell::new(0),
                burst_end: Cell::new(0),
                broken: Cell::new(None),
                sleep_generation: Cell::new(0),
                notified: Cell::new(0),
            },
        }
    }

    /// The two directions, to be used side by side in one thread.
    pub fn split(&mut self) -> (Sender<'_, 'm, N>, Receiver<'_, 'm, N>) {
        (Sender { state: &self.state }, Receiver { state: &self.state })
    }

    /// Sends `message`. See [`Sender::try_send`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    #[inline]
    pub fn try_send(&mut self, message: &Message) -> Result<(), SendError> {
        self.state.send(message)
    }

    /// Sends the first of `messages` at once. See [`Sender::try_send_burst`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn try_send_burst(&mut self, messages: &[Message]) -> Result<usize, SendError> {
        self.state.send_burst(messages)
    }

    /// Takes the next message, if there is one. See [`Receiver::try_recv`].
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message>, Violation> {
        self.state.receive()
    }

    /// Whether the peer has hung up and all its messages were taken. See [`Receiver::is_finished`].
    pub fn is_finished(&mut self) -> bool {
        self.state.is_finished()
    }

    /// Closes the channel because a message of `kind` made no sense to its user; returns the violation that
    /// every later call reports.
    pub fn refuse(&mut self, kind: Kind) -> Violation {
        self.state.close(Violation::Refused { kind })
    }

    /// Announces that this side is going to sleep until there is something to do, so that the peer
    /// [notifies](Self::must_notify) it, on a channel bound as blockable. `None` if there is something to do
    /// already; otherwise the caller blocks, and drops what it got once it is awake.
    ///
    /// No notification is lost if blocking returns at once when one has come since this call.
    pub fn prepare_sleep(&mut self, until: Until) -> Option<Asleep<'_, 'm, N>> {
        self.state.raise_sleep_generation();
        // Ordering: SeqCst fence, pairs with the one in `must_notify`: either the look below sees what the
        // peer stored, or the peer sees the generation.
        Site::Sleep.settle(Side::Acquire);
        let asleep = Asleep { state: &self.state };
        let ready = match until {
            Until::Message => self.state.is_news(),
            Until::Credit => self.state.is_room(),
            Until::Either => self.state.is_news() || self.state.is_room(),
        };
        if ready { None } else { Some(asleep) }
    }

    /// Whether the peer sleeps and must be notified, now, that there are new messages, credits, or the end of
    /// the channel; once per sleep. On a channel bound as blockable, to be asked after each burst of sending
    /// or taking messages and after a violation; a polling peer never sleeps.
    pub fn must_notify(&mut self) -> bool {
        self.state.must_notify()
    }

    /// How the peer broke the protocol, if it did.
    pub fn violation(&self) -> Option<Violation> {
        self.state.broken.get()
    }

    /// Tells the peer that no more messages come, and returns whether it sleeps and must be notified of it
    /// ([`must_notify`](Self::must_notify)). Dropping the endpoint does the same, for a polling peer.
    pub fn hang_up(self) -> bool {
        self.state.hang_up();
        self.state.must_notify()
    }
}

impl<const N: usize> Drop for Endpoint<'_, N> {
    fn drop(&mut self) {
        self.state.hang_up();
    }
}

/// What a sleeper waits for. The end of the channel ends every sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A message that can be taken.
    Message,
    /// Room for a message.
    Credit,
    /// One of the two.
    Either,
}

/// An endpoint whose user sleeps; made by [`Endpoint::prepare_sleep`]. Dropping it tells the peer that no
/// notification is needed any more.
#[derive(Debug)]
#[must_use = "the peer notifies only until this is dropped: block, then drop it"]
pub struct Asleep<'e, 'm, const N: usize> {
    state: &'e State<'m, N>,
}

impl<const N: usize> Drop for Asleep<'_, '_, N> {
    fn drop(&mut self) {
        self.state.raise_sleep_generation();
    }
}

impl<const N: usize> Sender<'_, '_, N> {
    /// Sends `message`, or returns at once. The message is only borrowed, so after an error it is still
    /// the caller's to send again.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    #[inline]
    pub fn try_send(&mut self, message: &Message) -> Result<(), SendError> {
        self.state.send(message)
    }

    /// Sends as many of `messages`, from the first on, as there are credits for, at most [`MAX_BURST`] and
    /// half a ring, and returns how many. The peer sees none of them before all are stored, which spares it
    /// from fetching lines that are being written: the way to stream.
    ///
    /// # Errors
    /// [`SendError`] if there was not even room for one; nothing was sent.
    pub fn try_send_burst(&mut self, messages: &[Message]) -> Result<usize, SendError> {
        self.state.send_burst(messages)
    }

    /// Messages that can be sent before the peer's acknowledgements have to be looked at.
    pub fn credits(&self) -> usize {
        (self.state.limit.get() - self.state.sent.get()) as usize
    }
}

impl<const N: usize> Receiver<'_, '_, N> {
    /// Takes the next message, if there is one; looks at one line.
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel, now or before.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message>, Violation> {
        self.state.receive()
    }

    /// Whether the peer has hung up, or given the channel up, and all its messages were taken. It looks at
    /// another line than [`try_recv`](Self::try_recv), so ask when that has found nothing for some time.
    pub fn is_finished(&mut self) -> bool {
        self.state.is_finished()
    }

    /// Closes the channel because a message of `kind` made no sense. See [`Endpoint::refuse`].
    pub fn refuse(&mut self, kind: Kind) -> Violation {
        self.state.close(Violation::Refused { kind })
    }
}

/// The private side of an endpoint. Counts are of messages since the channel was made and never wrap; the
/// 16-bit numbers on the lines are their low bits.
struct State<'m, const N: usize> {
    own: &'m Outbox<N>,
    peer: &'m Outbox<N>,
    /// The first kind that is not taken; none is once the channel is closed.
    kinds_below: Cell<u16>,
    /// The most capabilities that a message may announce.
    capabilities: u32,
    /// Messages sent.
    sent: Cell<u64>,
    /// Messages that may be sent: those that the peer acknowledged and `N` more.
    limit: Cell<u64>,
    /// Messages taken from the peer.
    taken: Cell<u64>,
    /// The value of `taken` last stored on the own acknowledgement line.
    told: Cell<u64>,
    /// The highest acknowledgement seen on the peer's acknowledgement line.
    line_taken: Cell<u64>,
    /// The peer's count of sent messages that stood beside it: the acknowledgements in the headers of those
    /// messages are older than the line.
    line_sent: Cell<u64>,
    /// The number of the last message that a burst announced: up to here all lines must be there.
    burst_end: Cell<u64>,
    broken: Cell<Option<Violation>>,
    /// Odd while the user sleeps.
    sleep_generation: Cell<u64>,
    /// The sleep of the peer that it was last notified of.
    notified: Cell<u64>,
}

impl<const N: usize> State<'_, N> {
    /// Messages taken between two stores to the acknowledgement line.
    const INTERVAL: u64 = if N >= 4 { N as u64 / 4 } else { 1 };

    /// The most lines in a burst. Half the ring, so that the peer can work on one half while the other is
    /// being filled.
    const BURST: usize = if N / 2 < MAX_BURST { N / 2 } else { MAX_BURST };

    #[inline(always)]
    fn send(&self, message: &Message) -> Result<(), SendError> {
        let number = self.sent.get() + 1;
        if number > self.limit.get() {
            self.collect()?;
        }
        self.sent.set(number);
        let line = &self.own.ring[number as usize % N];
        store_payload(line, message);
        let header = Header::join(number as u16, self.taken.get() as u16, message.info);
        // Ordering: Release, pairs with the fence in `receive`. It puts before the header the payload that
        // was just stored, and the copies of all messages that the header acknowledges.
        Site::Message.publish(&line.words[HEADER], header);
        Ok(())
    }

    fn send_burst(&self, messages: &[Message]) -> Result<usize, SendError> {
        let Some(first) = messages.first() else { return Ok(0) };
        let wanted = messages.len().min(Self::BURST);
        let sent = self.sent.get();
        if self.limit.get() - sent < wanted as u64 {
            self.collect()?;
        }
        let count = wanted.min((self.limit.get() - sent) as usize);
        let acknowledged = self.taken.get() as u16;
        for (index, message) in messages[..count].iter().enumerate().skip(1).rev() {
            let number = sent + 1 + index as u64;
            let line = &self.own.ring[number as usize % N];
            store_payload(line, message);
            let header = Header::join(number as u16, acknowledged, message.info);
            // Relaxed: the peer does not look here before it has seen the first line.
            line.words[HEADER].store(header, Ordering::Relaxed);
        }
        let number = sent + 1;
        let line = &self.own.ring[number as usize % N];
        store_payload(line, first);
        let info = first.info | (count as u32 - 1) << BURST_SHIFT;
        // Ordering: Release, pairs with the fence in `receive`, as in `send`, and for all lines of the burst.
        Site::Message.publish(&line.words[HEADER], Header::join(number as u16, acknowledged, info));
        self.sent.set(sent + count as u64);
        Ok(count)
    }

    /// Looks for acknowledgements on the peer's line; `Full` if there are no credits then.
    #[cold]
    #[inline(never)]
    fn collect(&self) -> Result<(), SendError> {
        if let Some(violation) = self.broken.get() {
            return Err(SendError::Broken(violation));
        }
        let line = &self.peer.acknowledgement.0.words;
        let acknowledged = line[control::TAKEN].load(Ordering::Relaxed);
        // Ordering: Acquire fence, pairs with the Release store in `acknowledge`: lines that are
        // acknowledged were copied before they are stored to again, and the count of sent messages loaded
        // next is not older than the acknowledgement.
        Site::Acknowledgement.accept();
        let line_sent = line[control::SENT].load(Ordering::Relaxed);
        if line[control::STATE].load(Ordering::Relaxed) != control::OPEN {
            return Err(SendError::HungUp);
        }

        let (sent, taken) = (self.sent.get(), self.taken.get());
        if acknowledged > sent {
            return Err(SendError::Broken(self.close(Violation::AcknowledgedAhead {
                sent: sent as u16,
                acknowledged: acknowledged as u16,
            })));
        }
        if acknowledged < self.line_taken.get() {
            return Err(SendError::Broken(self.close(Violation::AcknowledgedBackwards {
                before: self.line_taken.get() as u16,
                acknowledged: acknowledged as u16,
            })));
        }
        if line_sent < self.line_sent.get() || line_sent > taken + N as u64 {
            return Err(SendError::Broken(self.close(Violation::Position { taken, claimed: line_sent })));
        }
        self.line_taken.set(acknowledged);
        self.line_sent.set(line_sent);
        self.limit.set(self.limit.get().max(acknowledged + N as u64));
        if self.limit.get() == sent { Err(SendError::Full) } else { Ok(()) }
    }

    #[inline(always)]
    fn receive(&self) -> Result<Option<Message>, Violation> {
        let number = self.taken.get() + 1;
        let line = &self.peer.ring[number as usize % N];
        let header = line.words[HEADER].load(Ordering::Relaxed);
        if header as u16 != number as u16 {
            let unchanged = Self::is_unchanged(number, header);
            if !unchanged || number <= self.burst_end.get() {
                return Err(self.missing(number, header as u16, unchanged));
            }
            return Ok(None);
        }
        // Ordering: Acquire fence, pairs with the Release store in `send` and `send_burst`: the payload
        // copied next is the one stored before this header; and stores to lines that this header
        // acknowledges come after their copies.
        Site::Message.accept();
        let message = copy(line, header);
        self.check(number, (header >> 32) as u32)?;
        self.credit(number, (header >> 16) as u16)?;
        self.taken.set(number);
        if number - self.told.get() >= Self::INTERVAL {
            self.acknowledge();
        }
        Ok(Some(message))
    }

    /// Whether the header found where message `number` belongs was there before: in the first lap the line
    /// was never written, later it holds the message of a lap ago.
    #[inline(always)]
    fn is_unchanged(number: u64, header: u64) -> bool {
        if number > N as u64 { header as u16 == (number - N as u64) as u16 } else { header == 0 }
    }

    /// What is wrong when message `number` is not there, although its line changed or a burst announced it.
    #[cold]
    #[inline(never)]
    fn missing(&self, number: u64, found: u16, unchanged: bool) -> Violation {
        if let Some(violation) = self.broken.get() {
            return violation;
        }
        let expected = number as u16;
        self.close(if unchanged {
            // Announced by six bits, so the difference is small.
            Violation::BurstCut { missing: (self.burst_end.get() - number + 1) as u8 }
        } else if (found.wrapping_sub(expected) as i16) < 0 {
            Violation::Replayed { expected, found }
        } else {
            Violation::Skipped { expected, found }
        })
    }

    /// Checks the type, length, capabilities and burst of message `number`, the upper half of its header.
    #[inline(always)]
    fn check(&self, number: u64, info: u32) -> Result<(), Violation> {
        // The burst lies above the capabilities, so one comparison finds both ordinary.
        let ordinary = (info as u16) < self.kinds_below.get()
            && usize::from(length(info)) <= PAYLOAD_BYTES
            && info >> CAPABILITIES_SHIFT <= self.capabilities;
        if ordinary { Ok(()) } else { self.check_closely(number, info) }
    }

    /// The same for a message that begins a burst, or is not as it should be.
    #[cold]
    #[inline(never)]
    fn check_closely(&self, number: u64, info: u32) -> Result<(), Violation> {
        if let Some(violation) = self.broken.get() {
            return Err(violation);
        }
        let Header { kind, length, capabilities, burst, .. } = Header::decode(u64::from(info) << 32);
        let limit = Kind(self.kinds_below.get());
        if kind >= limit {
            return Err(self.close(Violation::Kind { kind, limit }));
        }
        if usize::from(length) > PAYLOAD_BYTES {
            return Err(self.close(Violation::Length { bytes: length }));
        }
        if u32::from(capabilities) > self.capabilities {
            let limit = self.capabilities as u8;
            return Err(self.close(Violation::Capabilities { count: capabilities, limit }));
        }
        if number <= self.burst_end.get() {
            return Err(self.close(Violation::BurstNested { lines: burst }));
        }
        if usize::from(burst) >= N {
            return Err(self.close(Violation::BurstTooLong { lines: burst }));
        }
        self.burst_end.set(number + u64::from(burst));
        Ok(())
    }

    /// Takes over the acknowledgement in the header of message `number`.
    #[inline(always)]
    fn credit(&self, number: u64, ack: u16) -> Result<(), Violation> {
        // The acknowledgement line has told more than this header, which was stored before it.
        if number <= self.line_sent.get() {
            return Ok(());
        }
        let (sent, acknowledged) = (self.sent.get(), self.limit.get() - N as u64);
        let more = ack.wrapping_sub(acknowledged as u16);
        if u64::from(more) <= sent - acknowledged {
            self.limit.set(self.limit.get() + u64::from(more));
            return Ok(());
        }
        Err(self.unbelievable(ack))
    }

    /// What is wrong with an acknowledgement that is not between the last one and the messages sent.
    #[cold]
    #[inline(never)]
    fn unbelievable(&self, ack: u16) -> Violation {
        let (sent, before) = (self.sent.get() as u16, (self.limit.get() - N as u64) as u16);
        self.close(if (ack.wrapping_sub(before) as i16) < 0 {
            Violation::AcknowledgedBackwards { before, acknowledged: ack }
        } else {
            Violation::AcknowledgedAhead { sent, acknowledged: ack }
        })
    }

    /// Tells on the acknowledgement line what was taken. Messages that go the other way tell it too, but the
    /// peer may not be reading them; as long as it does not look at this line, storing here costs nothing.
    #[inline(never)]
    fn acknowledge(&self) {
        let line = &self.own.acknowledgement.0.words;
        line[control::SENT].store(self.sent.get(), Ordering::Relaxed);
        // Ordering: Release, pairs with the fence in `collect`: the copies of the lines acknowledged, and
        // the count of sent messages, come before.
        Site::Acknowledgement.publish(&line[control::TAKEN], self.taken.get());
        self.told.set(self.taken.get());
    }

    fn hang_up(&self) {
        if self.broken.get().is_none() {
            // Ordering: Release, pairs with the fence in `is_finished`: all messages were sent before.
            Site::HangUp.publish(&self.own.acknowledgement.0.words[control::STATE], control::HUNG_UP);
        }
    }

    /// Changes from awake to asleep or back.
    fn raise_sleep_generation(&self) {
        let generation = self.sleep_generation.get().wrapping_add(1);
        self.sleep_generation.set(generation);
        self.own.sleep.0.words[sleep::GENERATION].store(generation, Ordering::Relaxed);
    }

    fn must_notify(&self) -> bool {
        // Ordering: SeqCst fence, pairs with the one in `Endpoint::prepare_sleep`.
        Site::Sleep.settle(Side::Release);
        let generation = self.peer.sleep.0.words[sleep::GENERATION].load(Ordering::Relaxed);
        let asleep = generation % 2 == 1;
        asleep && self.notified.replace(generation) != generation
    }

    /// Whether `receive` would return something else than nothing, or the peer is gone.
    fn is_news(&self) -> bool {
        let number = self.taken.get() + 1;
        let header = self.peer.ring[number as usize % N].words[HEADER].load(Ordering::Relaxed);
        !Self::is_unchanged(number, header)
            || number <= self.burst_end.get()
            || self.peer.acknowledgement.0.words[control::STATE].load(Ordering::Relaxed) != control::OPEN
    }

    /// Whether `send` would return something else than `Full`.
    fn is_room(&self) -> bool {
        self.limit.get() > self.sent.get() || self.collect() != Err(SendError::Full)
    }

    fn is_finished(&self) -> bool {
        if self.peer.acknowledgement.0.words[control::STATE].load(Ordering::Relaxed) == control::OPEN {
            return false;
        }
        // Ordering: Acquire fence, pairs with the Release store in `hang_up`: the last message is in
        // the ring by now.
        Site::HangUp.accept();
        let number = self.taken.get() + 1;
        self.peer.ring[number as usize % N].words[HEADER].load(Ordering::Relaxed) as u16 != number as u16
    }

    #[cold]
    #[inline(never)]
    fn close(&self, violation: Violation) -> Violation {
        self.broken.set(Some(violation));
        // No credits, no kinds, and an endless burst: so `send` and `receive` need not look at `broken`
        // before they meet something unusual.
        self.limit.set(self.sent.get());
        self.kinds_below.set(0);
        self.burst_end.set(u64::MAX);
        self.own.acknowledgement.0.words[control::STATE].store(control::BROKEN, Ordering::Relaxed);
        violation
    }
}

impl<const N: usize> fmt::Debug for State<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("lines", &N)
            .field("sent", &self.sent.get())
            .field("limit", &self.limit.get())
            .field("taken", &self.taken.get())
            .field("broken", &self.broken.get())
            .finish_non_exhaustive()
    }
}

/// How many payload words of a line are stored and copied: all of them, which needs no branch and leaves no
/// remains of older messages. The model checker gets only those that count, to keep its state space small.
#[inline(always)]
fn words_to_move(length: usize) -> usize {
    if cfg!(loom) { length.div_ceil(8).min(PAYLOAD_WORDS) } else { PAYLOAD_WORDS }
}

#[inline(always)]
fn store_payload(line: &Line, message: &Message) {
    #[cfg(loom)]
    line.access.storing();
    for (word, value) in line.words.iter().zip(message.words).take(words_to_move(message.len())) {
        word.store(value, Ordering::Relaxed);
    }
}

#[inline(always)]
fn copy(line: &Line, header: u64) -> Message {
    #[cfg(loom)]
    line.access.copying();
    let info = (header >> 32) as u32;
    let mut words = [0; PAYLOAD_WORDS];
    for (value, word) in words.iter_mut().zip(&line.words).take(words_to_move(usize::from(length(info)))) {
        *value = word.load(Ordering::Relaxed);
    }
    // The burst is a matter of the ring, not of the message.
    Message { words, info: info & !(u32::MAX << BURST_SHIFT) }
}

// The state of two endpoints never shares a line, nor a pair of lines: side by side they would cost each
// other several times the price of a message.
const _: () = {
    use crate::outbox::RPC_LINES;
    assert!(align_of::<Endpoint<'static, RPC_LINES>>() == 128);
    assert!(size_of::<Endpoint<'static, RPC_LINES>>() == 128);
};
