//! [`Channel`]: an end of a UMP channel, to be used by blocking, by polling or by `await`.
//!
//! It is a [`ump::Endpoint`] with what the protocol leaves to its user: the capability that wakes the peer, the
//! [bell](crate::bells) that the peer rings, the end of the channel. [`Channel::try_send`] and
//! [`Channel::try_recv`] are the protocol itself and, on a channel bound as polling, nothing else.
//!
//! ```ignore
//! // Blocking, with a deadline:
//! channel.send_blocking(&Message::new(PING, [1]), Deadline::NEVER)?;
//! let answer = channel.recv_blocking(Deadline::after_ms(100))?;
//! // In a task:
//! channel.send(&Message::new(PING, [1])).await?;
//! let answer = channel.recv().await?;
//! // Among others, in a waitset:
//! let member = set.add(&channel);
//! ```
//!
//! Channels to other domains come from [`monitor`]; [`Channel::pair`] makes both ends of one
//! within this domain.
//!
//! Whether the peer is still there is looked at when nothing has come for some time, not at every message.

use alloc::rc::Rc;
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll};

use lmp::{CPtr, syscall};
use ump::{Accepts, Endpoint, Message, Outbox, SendError, Until, Violation};

use crate::bells::{Bell, BellId};
use crate::events::Deadline;
use crate::memory::MemoryError;
use crate::waitset::{Kind, Member, POLL_ROUNDS, Source, Wire};
use crate::{events, executor, monitor};

/// Turns of polling before other domains of the core are given way to, on a channel whose peer cannot wake this
/// domain.
const TURNS_PER_YIELD: u32 = 16;

/// How an end of a channel waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// By looking, always. Costs the peer nothing.
    Polling,
    /// By looking for some time, then by sleeping until the peer rings.
    Blockable,
}

/// Why a channel carries no more messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The peer hung up, and all its messages were taken.
    HungUp,
    /// The peer's domain ended.
    PeerDied,
    /// The peer broke the protocol, and the channel was closed.
    Violation(Violation),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HungUp => f.write_str("the peer has hung up: bind a new channel"),
            Self::PeerDied => f.write_str("the peer's domain has ended"),
            Self::Violation(violation) => violation.fmt(f),
        }
    }
}

impl core::error::Error for Closed {}

/// Why a blocking call came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitError {
    /// The deadline passed first. The channel is as it was.
    TimedOut,
    /// The channel is closed.
    Closed(Closed),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the deadline passed before the peer did its part"),
            Self::Closed(closed) => closed.fmt(f),
        }
    }
}

impl core::error::Error for WaitError {}

impl From<Closed> for WaitError {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}

/// What an end of a channel has beside the protocol.
#[derive(Debug, Default)]
pub struct Wiring {
    /// What wakes the peer by `Signal`; `None` if it never sleeps.
    pub notifier: Option<CPtr>,
    /// What the peer rings; `None` if this end never sleeps.
    pub bell: Option<Bell>,
    /// What the monitor says about the connection, and what must stay as long as the channel.
    pub(crate) connection: Option<Rc<monitor::Line>>,
}

/// How often the two ends of a channel had to wait for each other, as one of them knows it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sleeps {
    /// Times that this end announced its sleep and there was nothing to do, so that it slept.
    pub slept: u64,
    /// Times that it announced its sleep and found that the peer had acted meanwhile.
    pub averted: u64,
    /// Times that this end acted, found the peer asleep and rang.
    pub rang: u64,
}

/// The end of a channel, shared with a waitset that waits for it.
struct Inner<const N: usize> {
    endpoint: UnsafeCell<Endpoint<'static, N>>,
    /// [`CPtr::NULL`] if the peer never sleeps.
    notifier: CPtr,
    bell: Option<Bell>,
    sleeps: Cell<Sleeps>,
    poll_rounds: Cell<u32>,
    /// Its member in the executor's waitset.
    member: Cell<Option<Member>>,
    connection: Option<Rc<monitor::Line>>,
    /// The memory of a channel within this domain; the last of the fields to be dropped.
    _memory: Option<Rc<[Outbox<N>; 2]>>,
}

/// One end of a channel with rings of `N` lines.
///
/// Dropping it hangs up. It belongs to one domain, which has one thread: it is not `Send`.
pub struct Channel<const N: usize> {
    inner: Rc<Inner<N>>,
}

impl<const N: usize> Inner<N> {
    /// The protocol's end.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the one place that turns the cell into a reference")]
    fn endpoint(&self) -> &mut Endpoint<'static, N> {
        // SAFETY: `Inner` is reachable through `Rc`s only, so from one thread. All uses are in this module, none
        // is held while another is made: no method of an endpoint calls back into the channel or a waitset.
        unsafe { &mut *self.endpoint.get() }
    }

    /// After something was sent, taken, or ended: wakes the peer if it sleeps.
    #[cold]
    #[inline(never)]
    fn wake_peer(&self) {
        if self.endpoint().must_notify() {
            self.signal();
        }
    }

    #[inline(always)]
    fn recv_within(&self, looks: u32) -> Result<Option<Message>, Violation> {
        self.endpoint().recv_within_then(looks, |mut receiver| {
            // The peer may sleep for want of credit, or until the channel ends.
            if self.has_sleepy_peer() && receiver.must_notify() {
                self.signal();
            }
        })
    }

    /// Signals the peer's notification.
    #[cold]
    #[inline(never)]
    fn signal(&self) {
        self.count(|sleeps| sleeps.rang += 1);
        // The peer may be gone, and its notification with it: then there is nobody to wake.
        let _ = syscall::notification_signal(self.notifier);
    }

    /// Announces this end's sleep, and takes it back if there is something to do.
    fn announce_sleep(&self, until: Until) -> bool {
        let asleep = self.endpoint().fall_asleep(until);
        self.count(|sleeps| *if asleep { &mut sleeps.slept } else { &mut sleeps.averted } += 1);
        asleep
    }

    fn count(&self, change: impl FnOnce(&mut Sleeps)) {
        let mut sleeps = self.sleeps.get();
        change(&mut sleeps);
        self.sleeps.set(sleeps);
    }

    #[inline(always)]
    fn has_sleepy_peer(&self) -> bool {
        self.notifier != CPtr::NULL
    }

    fn closed(&self) -> Option<Closed> {
        let endpoint = self.endpoint();
        if let Some(violation) = endpoint.violation() {
            return Some(Closed::Violation(violation));
        }
        if endpoint.is_finished() {
            return Some(match self.gone() {
                Some(monitor::Gone::Died) => Closed::PeerDied,
                _ => Closed::HungUp,
            });
        }
        let gone = self.gone()?;
        // Its last messages first.
        if endpoint.is_news() {
            return None;
        }
        Some(match gone {
            monitor::Gone::Died => Closed::PeerDied,
            monitor::Gone::Closed => Closed::HungUp,
        })
    }

    fn gone(&self) -> Option<monitor::Gone> {
        self.connection.as_ref()?.gone()
    }

    /// Blocks until the peer rings, the monitor has something to say, or the deadline passes.
    fn sleep(&self, bell: &Bell, until: Until, deadline: Deadline) {
        // What rang before is of no interest: from here on the peer rings anew, or the look that is part of falling
        // asleep finds what it did.
        bell.take();
        if self.announce_sleep(until) && self.closed().is_none() {
            let found = events::wait(bell.event().bit() | monitor::notice_events(), deadline);
            // Which bell it was is found out when somebody needs to know, not before the message is taken.
            events::post(found);
        }
        self.endpoint().wake_up();
        if self.member.get().is_some() {
            // The waitset takes it for asleep: let it look.
            bell.ring();
        }
        monitor::look_at_notices();
    }

    /// After a turn of looks for what `until` says, of which `turns` came before: sleeps if the peer
    /// can wake this domain, otherwise gives way to others now and then.
    #[cold]
    #[inline(never)]
    fn rest(&self, turns: &mut u32, until: Until, deadline: Deadline) -> Result<(), WaitError> {
        if let Some(closed) = self.closed() {
            return Err(closed.into());
        }
        if deadline.has_passed() {
            return Err(WaitError::TimedOut);
        }
        *turns = turns.wrapping_add(1);
        match &self.bell {
            Some(bell) => self.sleep(bell, until, deadline),
            None if turns.is_multiple_of(TURNS_PER_YIELD) => {
                monitor::look_at_notices();
                let _ = syscall::yield_core();
            }
            None => {}
        }
        core::hint::spin_loop();
        Ok(())
    }
}

impl<const N: usize> Wire for Inner<N> {
    fn is_news(&self, until: Until) -> bool {
        match until {
            Until::Message => self.endpoint().is_news(),
            Until::Credit | Until::Either => self.endpoint().is_ready(until),
        }
    }

    fn is_ready(&self, until: Until) -> bool {
        self.endpoint().is_ready(until) || self.gone().is_some()
    }

    fn fall_asleep(&self, until: Until) -> bool {
        self.bell.is_some() && self.gone().is_none() && self.announce_sleep(until)
    }

    fn wake_up(&self) {
        self.endpoint().wake_up();
    }

    fn bell(&self) -> Option<BellId> {
        self.bell.as_ref().map(Bell::id)
    }
}

impl<const N: usize> From<&Channel<N>> for Source {
    fn from(channel: &Channel<N>) -> Source {
        Source(Kind::Wire(channel.inner.clone()))
    }
}

impl<const N: usize> Channel<N> {
    /// The end of a channel that speaks the protocol by `endpoint`.
    pub fn new(endpoint: Endpoint<'static, N>, wiring: Wiring) -> Channel<N> {
        Channel::with_memory(endpoint, wiring, None)
    }

    fn with_memory(
        endpoint: Endpoint<'static, N>,
        wiring: Wiring,
        memory: Option<Rc<[Outbox<N>; 2]>>,
    ) -> Channel<N> {
        Channel {
            inner: Rc::new(Inner {
                endpoint: UnsafeCell::new(endpoint),
                notifier: wiring.notifier.unwrap_or(CPtr::NULL),
                bell: wiring.bell,
                sleeps: Cell::default(),
                poll_rounds: Cell::new(POLL_ROUNDS),
                member: Cell::new(None),
                connection: wiring.connection,
                _memory: memory,
            }),
        }
    }

    /// Both ends of a channel within this domain.
    ///
    /// # Errors
    /// If bells are used up.
    pub fn pair(accepts: Accepts, waiting: Waiting) -> Result<(Channel<N>, Channel<N>), MemoryError> {
        let memory = Rc::new([Outbox::new(), Outbox::new()]);
        // SAFETY: the outboxes do not move, and live as long as one of the two ends does: each holds a reference to
        // the memory and drops it after its endpoint, the only thing that refers to an outbox.
        let outboxes: &'static [Outbox<N>; 2] = unsafe { &*Rc::as_ptr(&memory) };
        let [here, there] = outboxes;
        let bells = match waiting {
            Waiting::Polling => None,
            Waiting::Blockable => Some((Bell::new()?, Bell::new()?)),
        };
        let caps = bells.as_ref().map(|(mine, yours)| (mine.cap(), yours.cap()));
        let (mine, yours) = bells.unzip();
        let end = |own, peer, bell, notifier| {
            let wiring = Wiring { notifier, bell, connection: None };
            Channel::with_memory(Endpoint::new(own, peer, accepts), wiring, Some(memory.clone()))
        };
        Ok((
            end(here, there, mine, caps.map(|(_, yours)| yours)),
            end(there, here, yours, caps.map(|(mine, _)| mine)),
        ))
    }

    /// Sends `message`, or returns at once; wakes the peer if it sleeps.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    #[inline(always)]
    pub fn try_send(&mut self, message: &Message) -> Result<(), SendError> {
        // What was not sent is no news to the peer.
        self.inner.endpoint().try_send(message)?;
        if self.inner.has_sleepy_peer() {
            self.inner.wake_peer();
        }
        Ok(())
    }

    /// Sends as many of `messages`, from the first on, as there is room for, and returns how many. See
    /// [`ump::Sender::try_send_burst`].
    ///
    /// # Errors
    /// [`SendError`] if there was not even room for one.
    pub fn try_send_burst(&mut self, messages: &[Message]) -> Result<usize, SendError> {
        let result = self.inner.endpoint().try_send_burst(messages);
        if self.inner.has_sleepy_peer() {
            self.inner.wake_peer();
        }
        result
    }

    /// Takes the next message, if there is one.
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel. That the peer hung up is told by [`Self::closed`].
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Option<Message>, Violation> {
        self.inner.recv_within(1)
    }

    /// Takes the next message, looking for it up to `looks` times, with a pause between two looks. See
    /// [`ump::Receiver::recv_within`].
    ///
    /// # Errors
    /// The [`Violation`] that closed the channel. That the peer hung up is told by [`Self::closed`].
    #[inline(always)]
    pub fn recv_within(&mut self, looks: u32) -> Result<Option<Message>, Violation> {
        self.inner.recv_within(looks)
    }

    /// Sends `message`, blocking until there is room.
    ///
    /// # Errors
    /// If the deadline passes first or the channel is closed.
    pub fn send_blocking(&mut self, message: &Message, deadline: Deadline) -> Result<(), WaitError> {
        let mut turns = 0;
        loop {
            for _ in 0..self.inner.poll_rounds.get() {
                if let Some(()) = sent(self.try_send(message))? {
                    return Ok(());
                }
                core::hint::spin_loop();
            }
            self.inner.rest(&mut turns, Until::Credit, deadline)?;
        }
    }

    /// Takes the next message, blocking until there is one.
    ///
    /// # Errors
    /// If the deadline passes first or the channel is closed.
    #[inline]
    pub fn recv_blocking(&mut self, deadline: Deadline) -> Result<Message, WaitError> {
        let mut turns = 0;
        loop {
            if let Some(message) =
                self.recv_within(self.inner.poll_rounds.get()).map_err(Closed::Violation)?
            {
                return Ok(message);
            }
            self.inner.rest(&mut turns, Until::Message, deadline)?;
        }
    }

    /// Sends `message` once there is room. Can be dropped before it is done; nothing was sent then.
    ///
    /// # Errors
    /// Why the channel is closed.
    pub async fn send(&mut self, message: &Message) -> Result<(), Closed> {
        poll_fn(|context| self.poll_send(message, context)).await
    }

    /// The next message. Can be dropped before it is done; nothing is lost then.
    ///
    /// # Errors
    /// Why the channel is closed.
    pub async fn recv(&mut self) -> Result<Message, Closed> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// [`Self::send`], for futures written by hand.
    pub fn poll_send(&mut self, message: &Message, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if executor::must_pause(context) {
            return Poll::Pending;
        }
        let result = sent(self.try_send(message));
        self.settle(result, Until::Credit, context)
    }

    /// [`Self::recv`], for futures written by hand.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, Closed>> {
        if executor::must_pause(context) {
            return Poll::Pending;
        }
        let result = self.try_recv().map_err(Closed::Violation);
        self.settle(result, Until::Message, context)
    }

    fn settle<T>(
        &mut self,
        result: Result<Option<T>, Closed>,
        until: Until,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, Closed>> {
        match result {
            Ok(Some(result)) => return Poll::Ready(Ok(result)),
            Err(closed) => return Poll::Ready(Err(closed)),
            Ok(None) => {}
        }
        if let Some(closed) = self.inner.closed() {
            return Poll::Ready(Err(closed));
        }
        let member = match self.inner.member.get() {
            Some(member) => member,
            None => {
                let member = executor::add_wire(self.inner.clone());
                self.inner.member.set(Some(member));
                member
            }
        };
        executor::watch(member, until, context.waker());
        Poll::Pending
    }

    /// Why the channel carries no more messages from the peer, if so.
    pub fn closed(&mut self) -> Option<Closed> {
        self.inner.closed()
    }

    /// Closes the channel because a message of `kind` made no sense. See [`Endpoint::refuse`].
    pub fn refuse(&mut self, kind: ump::Kind) -> Violation {
        let violation = self.inner.endpoint().refuse(kind);
        if self.inner.has_sleepy_peer() {
            self.inner.wake_peer();
        }
        violation
    }

    /// Lets a blocking call look `rounds` times, at least once, before it sleeps: [`POLL_ROUNDS`] by default. A
    /// waitset has a number of its own; an end bound as polling never sleeps.
    pub fn set_poll_rounds(&mut self, rounds: u32) {
        if self.inner.bell.is_some() {
            self.inner.poll_rounds.set(rounds.max(1));
        }
    }

    /// How often the ends had to wait for each other.
    pub fn sleeps(&self) -> Sleeps {
        self.inner.sleeps.get()
    }

    /// The protocol's end, for what this type does not offer. Who sends through it wakes the peer by
    /// [`Self::flush`].
    pub fn endpoint(&mut self) -> &mut Endpoint<'static, N> {
        self.inner.endpoint()
    }

    /// Wakes the peer if it sleeps and there is something for it to do.
    pub fn flush(&mut self) {
        if self.inner.has_sleepy_peer() {
            self.inner.wake_peer();
        }
    }

    /// Passes a copy of the frame capability `cap` to the peer, then sends `message`, announcing it. The calls to
    /// the monitor, and the send, block.
    ///
    /// # Errors
    /// [`monitor::CapError`]; if the capability was passed but the message not sent, the peer gets it with the next
    /// message that announces one.
    pub fn send_with_cap(
        &mut self,
        message: &Message,
        cap: CPtr,
        deadline: Deadline,
    ) -> Result<(), monitor::CapError> {
        let connection = self.inner.connection.as_ref().ok_or(monitor::CapError::NoConnection)?;
        connection.send_cap(cap)?;
        self.send_blocking(&message.with_capabilities(1), deadline)?;
        Ok(())
    }

    /// Fetches the capability that a message announced, into a new slot. Blocks until the monitor has it.
    ///
    /// # Errors
    /// [`monitor::CapError`].
    pub fn recv_cap(&mut self) -> Result<CPtr, monitor::CapError> {
        let connection = self.inner.connection.as_ref().ok_or(monitor::CapError::NoConnection)?;
        Ok(connection.take_cap()?)
    }
}

/// The result of a send as that of an attempt: `Full` is none yet.
fn sent(result: Result<(), SendError>) -> Result<Option<()>, Closed> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(SendError::Full) => Ok(None),
        Err(SendError::HungUp) => Err(Closed::HungUp),
        Err(SendError::Broken(violation)) => Err(Closed::Violation(violation)),
    }
}

impl<const N: usize> Drop for Channel<N> {
    fn drop(&mut self) {
        if let Some(member) = self.inner.member.take() {
            executor::remove(member);
        }
        if self.inner.endpoint().end() && self.inner.has_sleepy_peer() {
            self.inner.signal();
        }
    }
}

impl<const N: usize> fmt::Debug for Channel<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("lines", &N)
            .field("closed", &self.inner.closed())
            .finish_non_exhaustive()
    }
}
