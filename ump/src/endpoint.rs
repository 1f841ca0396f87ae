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
    BURST_SHIFT, Header, Kind, LENGTH_SHIFT, MAX_BURST, Message, PAYLOAD_BYTES, PAYLOAD_WORDS, length,
};
use crate::outbox::{Outbox, control, sleep};
use crate::primitive::{Ordering, Side, Site, spin_loop};

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
                peer_ring: &peer.ring,
                counts: Cell::new(0),
                credits: Cell::new(Outbox::<N>::LINES as u32),
                plain_kinds: Cell::new(accepts.kinds_below.0),
                kinds_below: accepts.kinds_below.0,
                capabilities: accepts.capabilities,
                is_calm: Cell::new(false),
                sent: Cell::new(0),
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
        self.state.send_burst(messages.len(), |index| messages[index])
    }

    /// Sends at once the first of `count` messages, which are made as they are stored. See
    /// [`Sender::try_send_burst_with`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    #[inline]
    pub fn try_send_burst_with(
        &mut self,
        count: usize,
        message: impl FnMut(usize) -> Message,
    ) -> Result<usize, SendError> {
        self.state.send_burst(count, message)
    }

    /// Takes the next message, if there is one. See [`Receiver::try_recv`].
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message>, Violation> {
        self.state.receive(1, |_| {})
    }

    /// Waits for the next message by looking for it up to `looks` times. See [`Receiver::recv_within`].
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel.
    #[inline]
    pub fn recv_within(&mut self, looks: u32) -> Result<Option<Message>, Violation> {
        self.state.receive(looks, |_| {})
    }

    /// The same, with a call of `told` if the peer was told something for which it may sleep. See
    /// [`Receiver::recv_within_then`].
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel.
    #[inline(always)]
    pub fn recv_within_then(
        &mut self,
        looks: u32,
        told: impl FnOnce(Receiver<'_, 'm, N>),
    ) -> Result<Option<Message>, Violation> {
        self.state.receive(looks, |state| told(Receiver { state }))
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
        if self.fall_asleep(until) { Some(Asleep { state: &self.state }) } else { None }
    }

    /// [`prepare_sleep`](Self::prepare_sleep) for a sleep that lasts longer than a borrow, such as that of one
    /// channel among many: false, and awake, if there is something to do already; otherwise asleep until
    /// [`wake_up`](Self::wake_up). Whoever is asleep already falls asleep anew, and is notified anew.
    pub fn fall_asleep(&mut self, until: Until) -> bool {
        self.wake_up();
        self.state.raise_sleep_generation();
        // Ordering: SeqCst fence, pairs with the one in `must_notify`: either the look below sees what the
        // peer stored, or the peer sees the generation.
        Site::Sleep.settle(Side::Acquire);
        let ready = self.is_ready(until);
        if ready {
            self.wake_up();
        }
        !ready
    }

    /// Tells the peer that no notification is needed any more. Does nothing while awake.
    pub fn wake_up(&mut self) {
        if self.state.sleep_generation.get() % 2 == 1 {
            self.state.raise_sleep_generation();
        }
    }

    /// Whether [`try_recv`](Self::try_recv) would find a message or a violation. It looks at one line, and not
    /// at whether the peer is still there.
    #[inline]
    pub fn is_news(&self) -> bool {
        self.state.is_line_news()
    }

    /// Whether what a sleeper would wait for is there, or the end of the channel.
    pub fn is_ready(&mut self, until: Until) -> bool {
        match until {
            Until::Message => self.state.is_news(),
            Until::Credit => self.state.is_room(),
            Until::Either => self.state.is_news() || self.state.is_room(),
        }
    }

    /// Whether the peer sleeps and must be notified, now, that there are new messages, credits, or the end of
    /// the channel; once per sleep. On a channel bound as blockable, to be asked after each burst of sending
    /// or taking messages and after a violation; a polling peer never sleeps.
    pub fn must_notify(&mut self) -> bool {
        self.state.must_notify()
    }

    /// How the peer broke the protocol, if it did.
    pub fn violation(&self) -> Option<Violation> {
        self.state.violation()
    }

    /// Tells the peer that no more messages come, and returns whether it sleeps and must be notified of it
    /// ([`must_notify`](Self::must_notify)). Dropping the endpoint does the same, for a polling peer.
    pub fn hang_up(mut self) -> bool {
        self.end()
    }

    /// [`hang_up`](Self::hang_up) for an endpoint that cannot be given up yet. Nothing may be sent afterwards.
    pub fn end(&mut self) -> bool {
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
        self.state.send_burst(messages.len(), |index| messages[index])
    }

    /// The same as [`try_send_burst`](Self::try_send_burst) for messages that are made as they are stored:
    /// `message` is asked for that of each index once, from the last to the first.
    ///
    /// # Errors
    /// [`SendError`] if there was not even room for one; nothing was sent.
    #[inline]
    pub fn try_send_burst_with(
        &mut self,
        count: usize,
        message: impl FnMut(usize) -> Message,
    ) -> Result<usize, SendError> {
        self.state.send_burst(count, message)
    }

    /// Messages that can be sent before the peer's acknowledgements have to be looked at.
    pub fn credits(&self) -> usize {
        self.state.credits.get() as usize
    }
}

impl<'m, const N: usize> Receiver<'_, 'm, N> {
    /// Takes the next message, if there is one; looks at one line.
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel, now or before.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message>, Violation> {
        self.state.receive(1, |_| {})
    }

    /// Waits for the next message by looking for it up to `looks` times, at least once, with a
    /// [spin loop hint](core::hint::spin_loop) between two looks; `None` if there was none until the last. A look
    /// that finds nothing costs a quarter of one by [`try_recv`](Self::try_recv). It does not notice that the
    /// peer is gone: whoever gets `None` asks [`is_finished`](Self::is_finished), or sleeps.
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel, now or before.
    #[inline]
    pub fn recv_within(&mut self, looks: u32) -> Result<Option<Message>, Violation> {
        self.state.receive(looks, |_| {})
    }

    /// The same, with a call of `told` if the peer was told something for which it may sleep: that messages were
    /// taken, which is told every quarter of a ring, or that the channel is closed. On a channel bound as
    /// blockable that is the time to ask [`must_notify`](Self::must_notify).
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel, now or before.
    #[inline(always)]
    pub fn recv_within_then(
        &mut self,
        looks: u32,
        told: impl FnOnce(Receiver<'_, 'm, N>),
    ) -> Result<Option<Message>, Violation> {
        self.state.receive(looks, |state| told(Receiver { state }))
    }

    /// Whether the peer sleeps and must be notified. See [`Endpoint::must_notify`].
    pub fn must_notify(&mut self) -> bool {
        self.state.must_notify()
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
    /// The ring of `peer`, to have its address at hand.
    peer_ring: &'m [Line; N],
    /// The low bits of the two counts, kept as headers have them: `taken` in bits 0–15, `sent` in bits 16–31.
    /// With one more sent and the halves swapped it is the lower half of the next header; with one more taken,
    /// that of the header which the peer sends next if it has taken all messages by then.
    counts: Cell<u32>,
    /// Messages that may be sent now: `N` less those that the peer has not acknowledged.
    credits: Cell<u32>,
    /// Kinds below this one are taken without looking closely. The limit of the channel, or none: while
    /// acknowledgements in headers are older than the line's, and once the channel is closed.
    plain_kinds: Cell<u16>,
    /// The first kind that is not taken.
    kinds_below: u16,
    /// The most capabilities that a message may announce.
    capabilities: u8,
    /// Whether a line that was not written since it was taken means nothing but that there is no message:
    /// not in the first lap, when lines are empty, nor within a burst.
    is_calm: Cell<bool>,
    /// Messages sent.
    sent: Cell<u64>,
    /// The count of taken messages last stored on the own acknowledgement line: less than an interval behind.
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

/// What a close look at a line found.
enum Found {
    Message,
    /// A message, of which the peer was told on the acknowledgement line that it was taken.
    Acknowledged,
    Nothing,
    Violation,
}

/// What became of a message for which there was no credit at first.
enum Sent {
    Done,
    Full,
    HungUp,
    Violation,
}

/// One message in [`State::counts`].
const ONE_TAKEN: u32 = 1;
const ONE_SENT: u32 = 1 << 16;

/// The upper half of a header is below this if the length is good and there are neither capabilities nor a burst,
/// which lie above the length.
const PLAIN_BELOW: u64 = (PAYLOAD_BYTES as u64 + 1) << LENGTH_SHIFT;

impl<const N: usize> State<'_, N> {
    /// Messages taken between two stores to the acknowledgement line.
    const INTERVAL: u64 = if N >= 4 { N as u64 / 4 } else { 1 };

    /// The most lines in a burst. Half the ring, so that the peer can work on one half while the other is
    /// being filled.
    const BURST: usize = if N / 2 < MAX_BURST { N / 2 } else { MAX_BURST };

    /// Messages taken from the peer.
    #[inline(always)]
    fn taken(&self) -> u64 {
        let told = self.told.get();
        told + u64::from((self.counts.get() as u16).wrapping_sub(told as u16))
    }

    /// Keeps the counts for the headers.
    fn set_counts(&self, sent: u64, taken: u64) {
        self.sent.set(sent);
        self.counts.set(u32::from(sent as u16) * ONE_SENT + u32::from(taken as u16) * ONE_TAKEN);
    }

    /// Messages sent that the peer has acknowledged.
    fn acknowledged(&self) -> u64 {
        self.sent.get() + u64::from(self.credits.get()) - N as u64
    }

    #[inline(always)]
    fn send(&self, message: &Message) -> Result<(), SendError> {
        let (credits, none) = self.credits.get().overflowing_sub(1);
        self.credits.set(credits);
        if !none {
            self.put(message);
            return Ok(());
        }
        // A copy, so that a message whose words are in registers is put into memory here only.
        match self.send_without_credits(*message) {
            Sent::Done => Ok(()),
            Sent::Full => Err(SendError::Full),
            Sent::HungUp => Err(SendError::HungUp),
            Sent::Violation => Err(self.violation().map_or(SendError::HungUp, SendError::Broken)),
        }
    }

    /// Stores the next message, for which a credit was taken.
    #[inline(always)]
    fn put(&self, message: &Message) {
        // Wraps around without touching the other half, which is below.
        let counts = self.counts.get().wrapping_add(ONE_SENT);
        self.counts.set(counts);
        self.sent.set(self.sent.get() + 1);
        let header = counts.rotate_left(16);
        let line = &self.own.ring[header as usize % N];
        store_payload(line, message);
        // Ordering: Release, pairs with the fence in `get`. It puts before the header the payload that was
        // just stored, and the copies of all messages that the header acknowledges.
        Site::Message.publish(&line.words[HEADER], u64::from(header) | u64::from(message.info) << 32);
    }

    /// Looks for acknowledgements and sends `message`, after a credit too many was taken.
    ///
    /// The result is small, so that it stays in a register and [`send`](Self::send), inlined, need not look at it
    /// where there were credits.
    #[cold]
    #[inline(never)]
    fn send_without_credits(&self, message: Message) -> Sent {
        self.credits.set(0);
        match self.collect() {
            Ok(()) => {}
            Err(SendError::Full) => return Sent::Full,
            Err(SendError::HungUp) => return Sent::HungUp,
            Err(SendError::Broken(_)) => return Sent::Violation,
        }
        self.credits.set(self.credits.get() - 1);
        self.put(&message);
        Sent::Done
    }

    #[inline]
    fn send_burst(
        &self,
        count: usize,
        mut message: impl FnMut(usize) -> Message,
    ) -> Result<usize, SendError> {
        let wanted = count.min(Self::BURST);
        if wanted == 0 {
            return Ok(0);
        }
        if (self.credits.get() as usize) < wanted {
            self.collect()?;
        }
        let count = wanted.min(self.credits.get() as usize);
        let (sent, taken) = (self.sent.get(), self.taken());
        let acknowledged = taken as u16;
        for index in (1..count).rev() {
            let number = sent + 1 + index as u64;
            let line = &self.own.ring[number as usize % N];
            let message = message(index);
            store_payload(line, &message);
            let header = Header::join(number as u16, acknowledged, message.info);
            // Relaxed: the peer does not look here before it has seen the first line.
            line.words[HEADER].store(header, Ordering::Relaxed);
        }
        let number = sent + 1;
        let line = &self.own.ring[number as usize % N];
        let first = message(0);
        store_payload(line, &first);
        let info = first.info | (count as u32 - 1) << BURST_SHIFT;
        // Ordering: Release, pairs with the fence in `get`, as in `put`, and for all lines of the burst.
        Site::Message.publish(&line.words[HEADER], Header::join(number as u16, acknowledged, info));
        self.set_counts(sent + count as u64, taken);
        self.credits.set(self.credits.get() - count as u32);
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
        let line_taken = line[control::TAKEN].load(Ordering::Relaxed);
        // Ordering: Acquire fence, pairs with the Release store in `acknowledge`: lines that are
        // acknowledged were copied before they are stored to again, and the count of sent messages loaded
        // next is not older than the acknowledgement.
        Site::Acknowledgement.accept();
        let line_sent = line[control::SENT].load(Ordering::Relaxed);
        if line[control::STATE].load(Ordering::Relaxed) != control::OPEN {
            return Err(SendError::HungUp);
        }

        let (sent, taken) = (self.sent.get(), self.taken());
        if line_taken > sent {
            return Err(SendError::Broken(self.close(Violation::AcknowledgedAhead {
                sent: sent as u16,
                acknowledged: line_taken as u16,
            })));
        }
        if line_taken < self.line_taken.get() {
            return Err(SendError::Broken(self.close(Violation::AcknowledgedBackwards {
                before: self.line_taken.get() as u16,
                acknowledged: line_taken as u16,
            })));
        }
        if line_sent < self.line_sent.get() || line_sent > taken + N as u64 {
            return Err(SendError::Broken(self.close(Violation::Position { taken, claimed: line_sent })));
        }
        self.line_taken.set(line_taken);
        self.line_sent.set(line_sent);
        if line_sent > taken {
            self.plain_kinds.set(0);
        }
        // At most N, since at most that many are in flight.
        let more = line_taken.saturating_sub(self.acknowledged());
        self.credits.set(self.credits.get() + more as u32);
        if self.credits.get() == 0 { Err(SendError::Full) } else { Ok(()) }
    }

    /// Takes the next message, looking for it up to `looks` times; calls `told` if the peer was told something on
    /// its acknowledgement line.
    #[inline(always)]
    fn receive(&self, looks: u32, told: impl FnOnce(&Self)) -> Result<Option<Message>, Violation> {
        // A carry into the other half comes with the last message of an interval, which is taken closely.
        let counts = self.counts.get().wrapping_add(ONE_TAKEN);
        let line = &self.peer_ring[counts as usize % N];
        let mut header = line.words[HEADER].load(Ordering::Relaxed);
        // Whether only the last look is left; it assumes nothing. Those before it take the header of a lap ago for no
        // message, which need not be all there is to say about it where there is no calm.
        let mut is_last = looks <= 1;
        if !is_last {
            let mut left = looks;
            while is_of_last_lap::<N>(counts, header) {
                left -= 1;
                spin_loop();
                header = line.words[HEADER].load(Ordering::Relaxed);
                if left == 1 {
                    is_last = true;
                    break;
                }
            }
        }
        // Its upper half, if the lower one is as expected; a larger number otherwise.
        let found = (header ^ u64::from(counts)).rotate_left(32);
        let ends_interval = u64::from(counts).is_multiple_of(Self::INTERVAL);
        if found < PLAIN_BELOW && (found as u16) < self.plain_kinds.get() && !ends_interval {
            // All that was sent is acknowledged.
            self.credits.set(N as u32);
            let message = get(line, found as u32);
            self.counts.set(counts);
            return Ok(Some(message));
        }
        // A second look is as good as the first, and spares the common case keeping the header. The model
        // checker, to which it is one more step, tries it as the first look of the next call.
        let header = if cfg!(loom) { header } else { line.words[HEADER].load(Ordering::Relaxed) };
        if is_last && is_of_last_lap::<N>(counts, header) && self.is_calm.get() {
            return Ok(None);
        }
        let mut message = Message::new(Kind(0), []);
        // All looks are left in the first lap only. Later a line that changed has a message or is a violation; a peer
        // that takes the change back gets the looks once more, and no further.
        match self.receive_closely(header, if is_last { 1 } else { looks }, &mut message) {
            Found::Message => Ok(Some(message)),
            Found::Acknowledged => {
                told(self);
                Ok(Some(message))
            }
            Found::Nothing => Ok(None),
            Found::Violation => {
                told(self);
                self.violation().map_or(Ok(None), Err)
            }
        }
    }

    /// Takes the next message into `message`, when `header` is perhaps not that of a plain one in the middle of an
    /// interval with the latest acknowledgement: nothing is assumed. Looks up to `looks` times, that which found
    /// `header` included.
    ///
    /// The result is small and the message apart from it, so that [`receive`](Self::receive), inlined, keeps a
    /// plain message in registers.
    #[cold]
    #[inline(never)]
    fn receive_closely(&self, header: u64, looks: u32, message: &mut Message) -> Found {
        let number = self.taken() + 1;
        let line = &self.peer_ring[number as usize % N];
        let (mut header, mut left) = (header, looks);
        loop {
            let outcome = match self.broken.get() {
                Some(violation) => Err(violation),
                None if header as u16 == number as u16 => self.take(number, header, message),
                None => self.miss(number, header),
            };
            let found = outcome.unwrap_or(Found::Violation);
            if left <= 1 || !matches!(found, Found::Nothing) {
                return found;
            }
            left -= 1;
            spin_loop();
            header = line.words[HEADER].load(Ordering::Relaxed);
        }
    }

    /// How the peer broke the protocol, if it did.
    #[cold]
    #[inline(never)]
    fn violation(&self) -> Option<Violation> {
        self.broken.get()
    }

    /// Takes message `number`, which is there.
    fn take(&self, number: u64, header: u64, message: &mut Message) -> Result<Found, Violation> {
        let info = (header >> 32) as u32;
        self.check(number, info)?;
        // The acknowledgement line has told more than a header that was stored before it.
        if number > self.line_sent.get() {
            self.credit((header >> 16) as u16)?;
        }
        // The burst is a matter of the ring, not of the message.
        *message = get(&self.peer_ring[number as usize % N], info & !(u32::MAX << BURST_SHIFT));
        self.set_counts(self.sent.get(), number);
        if number >= self.line_sent.get() {
            self.plain_kinds.set(self.kinds_below);
        }
        if !number.is_multiple_of(Self::INTERVAL) {
            return Ok(Found::Message);
        }
        self.acknowledge(number);
        Ok(Found::Acknowledged)
    }

    /// Whether the header found where message `number` belongs was there before: in the first lap the line
    /// was never written, later it holds the message of a lap ago.
    #[inline(always)]
    fn is_unchanged(number: u64, header: u64) -> bool {
        if number > N as u64 { header as u16 == (number - N as u64) as u16 } else { header == 0 }
    }

    /// What it means that message `number` is not there, but `header` in its place: nothing, or what is wrong
    /// if the line changed or a burst announced the message.
    fn miss(&self, number: u64, header: u64) -> Result<Found, Violation> {
        let (expected, found) = (number as u16, header as u16);
        let unchanged = Self::is_unchanged(number, header);
        if unchanged && number > self.burst_end.get() {
            self.is_calm.set(number > N as u64);
            return Ok(Found::Nothing);
        }
        Err(self.close(if unchanged {
            // Announced by six bits, so the difference is small.
            Violation::BurstCut { missing: (self.burst_end.get() - number + 1) as u8 }
        } else if (found.wrapping_sub(expected) as i16) < 0 {
            Violation::Replayed { expected, found }
        } else {
            Violation::Skipped { expected, found }
        }))
    }

    /// Checks the type, length, capabilities and burst of message `number`, the upper half of its header.
    fn check(&self, number: u64, info: u32) -> Result<(), Violation> {
        let Header { kind, length, capabilities, burst, .. } = Header::decode(u64::from(info) << 32);
        let limit = Kind(self.kinds_below);
        if kind >= limit {
            return Err(self.close(Violation::Kind { kind, limit }));
        }
        if usize::from(length) > PAYLOAD_BYTES {
            return Err(self.close(Violation::Length { bytes: length }));
        }
        if capabilities > self.capabilities {
            let limit = self.capabilities;
            return Err(self.close(Violation::Capabilities { count: capabilities, limit }));
        }
        if burst == 0 {
            return Ok(());
        }
        if number <= self.burst_end.get() {
            return Err(self.close(Violation::BurstNested { lines: burst }));
        }
        if usize::from(burst) >= N {
            return Err(self.close(Violation::BurstTooLong { lines: burst }));
        }
        self.burst_end.set(number + u64::from(burst));
        self.is_calm.set(false);
        Ok(())
    }

    /// Takes over the acknowledgement in a header.
    fn credit(&self, ack: u16) -> Result<(), Violation> {
        let (sent, acknowledged) = (self.sent.get(), self.acknowledged());
        let more = ack.wrapping_sub(acknowledged as u16);
        if u64::from(more) <= sent - acknowledged {
            self.credits.set(self.credits.get() + u32::from(more));
            return Ok(());
        }
        let (sent, before) = (sent as u16, acknowledged as u16);
        Err(self.close(if (more as i16) < 0 {
            Violation::AcknowledgedBackwards { before, acknowledged: ack }
        } else {
            Violation::AcknowledgedAhead { sent, acknowledged: ack }
        }))
    }

    /// Tells on the acknowledgement line that `taken` messages were. Messages that go the other way tell it too,
    /// but the peer may not be reading them; as long as it does not look at this line, storing here costs nothing.
    fn acknowledge(&self, taken: u64) {
        let line = &self.own.acknowledgement.0.words;
        line[control::SENT].store(self.sent.get(), Ordering::Relaxed);
        // Ordering: Release, pairs with the fence in `collect`: the copies of the lines acknowledged, and
        // the count of sent messages, come before.
        Site::Acknowledgement.publish(&line[control::TAKEN], taken);
        self.told.set(taken);
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

    /// Whether `receive` would return something else than nothing.
    #[inline(always)]
    fn is_line_news(&self) -> bool {
        let number = self.taken() + 1;
        let header = self.peer_ring[number as usize % N].words[HEADER].load(Ordering::Relaxed);
        self.broken.get().is_some() || !Self::is_unchanged(number, header) || number <= self.burst_end.get()
    }

    /// Whether `receive` would return something else than nothing, or the peer is gone.
    fn is_news(&self) -> bool {
        self.is_line_news()
            || self.peer.acknowledgement.0.words[control::STATE].load(Ordering::Relaxed) != control::OPEN
    }

    /// Whether `send` would return something else than `Full`.
    fn is_room(&self) -> bool {
        self.credits.get() > 0 || self.collect() != Err(SendError::Full)
    }

    fn is_finished(&self) -> bool {
        if self.peer.acknowledgement.0.words[control::STATE].load(Ordering::Relaxed) == control::OPEN {
            return false;
        }
        // Ordering: Acquire fence, pairs with the Release store in `hang_up`: the last message is in
        // the ring by now.
        Site::HangUp.accept();
        let number = self.taken() + 1;
        self.peer_ring[number as usize % N].words[HEADER].load(Ordering::Relaxed) as u16 != number as u16
    }

    #[cold]
    #[inline(never)]
    fn close(&self, violation: Violation) -> Violation {
        self.broken.set(Some(violation));
        // No credits, no kinds and no calm: so `send` and `receive` need not look at `broken` before they meet
        // something unusual.
        self.credits.set(0);
        self.plain_kinds.set(0);
        self.is_calm.set(false);
        self.own.acknowledgement.0.words[control::STATE].store(control::BROKEN, Ordering::Relaxed);
        violation
    }
}

impl<const N: usize> fmt::Debug for State<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("lines", &N)
            .field("sent", &self.sent.get())
            .field("credits", &self.credits.get())
            .field("taken", &self.taken())
            .field("broken", &self.broken.get())
            .finish_non_exhaustive()
    }
}

/// Whether `header` is that of the message that lay, a lap ago, where the next one belongs, of which `counts` has the
/// number in its lower half.
#[inline(always)]
fn is_of_last_lap<const N: usize>(counts: u32, header: u64) -> bool {
    header as u16 == (counts as u16).wrapping_sub(N as u16)
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
    for (word, value) in line.words.iter().zip(&message.words).take(words_to_move(message.len())) {
        word.store(*value, Ordering::Relaxed);
    }
}

/// Copies a message whose header was found, and is `info` but for the numbers.
#[inline(always)]
fn get(line: &Line, info: u32) -> Message {
    // Ordering: Acquire fence, pairs with the Release store in `put` and `send_burst`: the payload copied next is
    // the one stored before this header; and stores to lines that this header acknowledges come after their copies.
    Site::Message.accept();
    #[cfg(loom)]
    line.access.copying();
    let mut words = [0; PAYLOAD_WORDS];
    for (value, word) in words.iter_mut().zip(&line.words).take(words_to_move(usize::from(length(info)))) {
        *value = word.load(Ordering::Relaxed);
    }
    Message { words, info }
}

// The state of two endpoints never shares a line, nor a pair of lines: side by side they would cost each
// other several times the price of a message.
const _: () = {
    use crate::outbox::RPC_LINES;
    assert!(align_of::<Endpoint<'static, RPC_LINES>>() == 128);
    assert!(size_of::<Endpoint<'static, RPC_LINES>>() == 128);
};
