//! [`Endpoint`]: receiving LMP messages and calls; [`send`] and [`call`]: the other side.
//!
//! Messages that were sent while this domain did something else lie in the endpoint's buffer, in the dispatcher
//! frame; callers queue up in the CPU driver. [`Endpoint::try_receive`] takes the next of either. The answer to a
//! call goes through its [`ReplyRight`], at once or much later, in any order.
//!
//! ```ignore
//! let mut endpoint = Endpoint::new(16)?;
//! grant(endpoint.mint(Rights::WRITE, CLIENT)?);
//! loop {
//!     let request = endpoint.receive().await;
//!     let sum = request.words().iter().sum();
//!     if let Some(reply) = request.reply {
//!         reply.answer(&[sum], None)?;
//!     }
//! }
//! ```
//!
//! The CPU driver keeps the right to answer *one* call for a dispatcher. The runtime moves it to a slot when the
//! next message is received before it is used, so that nobody else has to think of it.

mod space;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::poll_fn;
use core::mem::ManuallyDrop;
use core::task::{Context, Poll};

use lmp::cptr::task;
use lmp::invocation::{MessageInfo, ReceivedInfo};
use lmp::message::{self, Along, Cargo, Inbox, Patience};
use lmp::{CPtr, ObjType, Rights, SysError, SysResult, syscall};
use ump::Until;

use crate::events::{self, Deadline, Event};
use crate::local::domain_local;
use crate::memory::{self, MemoryError, Object};
use crate::waitset::{self, Kind, Member, Source};
use crate::{executor, monitor, start};

pub use space::Space;

/// Words of a message at most.
pub const WORDS_MAX: usize = MessageInfo::WORDS_MAX;

/// Why a message was not received, sent or answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndpointError {
    /// The deadline passed first.
    TimedOut,
    /// Memory, slots, events or room in the dispatcher frame are used up.
    Memory(MemoryError),
    /// The CPU driver refused.
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        cause: SysError,
    },
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the deadline passed before anything came"),
            Self::Memory(error) => error.fmt(f),
            Self::Refused { operation, cause } => write!(f, "{operation} was refused: {cause}"),
        }
    }
}

impl core::error::Error for EndpointError {}

impl From<MemoryError> for EndpointError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

fn refused(operation: &'static str) -> impl Fn(SysError) -> EndpointError {
    move |cause| EndpointError::Refused { operation, cause }
}

/// Whether capabilities that come along are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caps {
    /// Senders of a capability are refused.
    Refused,
    /// Each goes to a new slot.
    Accepted,
}

/// The words of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Words {
    words: [u64; WORDS_MAX],
    len: usize,
}

impl Words {
    fn new(words: [u64; WORDS_MAX], info: ReceivedInfo) -> Words {
        Words { words, len: info.words().min(WORDS_MAX) }
    }

    /// All ten; those that did not come are 0.
    pub const fn padded(&self) -> &[u64; WORDS_MAX] {
        &self.words
    }
}

impl core::ops::Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.words[..self.len]
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x?}", &**self)
    }
}

/// The right to answer a call, once. Dropped unused, it lets the caller know that no answer comes.
#[derive(Debug)]
pub struct ReplyRight {
    /// The number of the call among those that this domain received.
    number: u64,
}

/// Where the rights to answer are that were not used yet.
struct Replies {
    /// Calls received so far.
    received: u64,
    /// The call whose right the dispatcher holds; 0: none.
    held: u64,
    /// The calls whose rights were moved to slots.
    saved: Vec<(u64, CPtr)>,
}

domain_local! {
    static REPLIES: RefCell<Replies> =
        RefCell::new(Replies { received: 0, held: 0, saved: Vec::new() });
}

impl Replies {
    /// Moves the right that the dispatcher holds to a slot, since the next receive would give it up.
    fn save(&mut self) -> Result<(), EndpointError> {
        if self.held == 0 {
            return Ok(());
        }
        let slot = memory::slot()?;
        match message::save_reply(slot) {
            Ok(()) => {
                self.saved.push((self.held, slot));
                self.held = 0;
                Ok(())
            }
            Err(cause) => {
                memory::free_slot(slot);
                Err(refused("saving the right to answer")(cause))
            }
        }
    }

    /// The slot of a right that was saved.
    fn take_saved(&mut self, number: u64) -> Option<CPtr> {
        let at = self.saved.iter().position(|&(n, _)| n == number)?;
        Some(self.saved.swap_remove(at).1)
    }
}

/// Before anything that makes the dispatcher receive.
fn save_reply() -> Result<(), EndpointError> {
    REPLIES.with(|replies| replies.borrow_mut().save())
}

/// Deletes a right to answer, if it is there still, and gives its slot back.
fn discard(slot: CPtr) {
    let _ = syscall::cap_delete(task::ROOT, slot);
    memory::free_slot(slot);
}

/// Gives up the right that the dispatcher holds, so that the caller does not wait for the next call that is received.
fn give_up_held() {
    // Without a slot the right goes with that.
    if let Ok(slot) = memory::slot() {
        // It is gone already if the caller waits no more.
        let _ = message::save_reply(slot);
        discard(slot);
    }
}

impl ReplyRight {
    fn received() -> ReplyRight {
        REPLIES.with(|replies| {
            let mut replies = replies.borrow_mut();
            replies.received += 1;
            replies.held = replies.received;
            ReplyRight { number: replies.held }
        })
    }

    /// Whether the dispatcher itself holds it; false once used.
    fn is_held(&self) -> bool {
        REPLIES.with(|replies| replies.borrow().held == self.number)
    }

    /// Marks it as used; the slot it was saved to.
    fn take(&self) -> Option<CPtr> {
        REPLIES.with(|replies| {
            let mut replies = replies.borrow_mut();
            if replies.held == self.number {
                replies.held = 0;
                return None;
            }
            replies.take_saved(self.number)
        })
    }

    /// Answers the call with `words` and perhaps a copy of the capability `cap`.
    ///
    /// # Errors
    /// If the caller waits no more, or took no capability, or there are more than [`WORDS_MAX`] words. A caller that
    /// still waits is told that no answer comes.
    pub fn answer(self, words: &[u64], cap: Option<CPtr>) -> Result<(), EndpointError> {
        // From here on this function uses the right up.
        let this = ManuallyDrop::new(self);
        let slot = this.take();
        let result = message::reply_with(slot.unwrap_or(task::DISPATCHER), words, cargo(cap));
        match slot {
            // It is empty unless the answer was refused: then the caller learns that none comes.
            Some(slot) => discard(slot),
            None if result.is_err() => give_up_held(),
            None => {}
        }
        result.map_err(refused("answering a call"))
    }
}

impl Drop for ReplyRight {
    fn drop(&mut self) {
        if self.is_held() {
            // Without a slot the right goes with the next call that is received.
            let _ = save_reply();
        }
        if let Some(slot) = self.take() {
            discard(slot);
        }
    }
}

/// A message or call that was received.
#[derive(Debug)]
pub struct Received {
    /// The badge of the capability that it came through.
    pub badge: u64,
    /// Its words.
    pub words: Words,
    /// The capability that came along, in a slot that is the receiver's from now on.
    pub cap: Option<CPtr>,
    /// The right to answer, if it is a call.
    pub reply: Option<ReplyRight>,
}

/// What an endpoint consists of, shared with a waitset.
struct Shared {
    cap: CPtr,
    /// What it was made as, if this domain made it.
    object: Option<Object>,
    event: Event,
    /// Where its buffer is in the dispatcher frame.
    offset: u64,
    messages: u32,
    buffer: RefCell<Inbox>,
    caps: Caps,
    /// The slot for a capability that comes with a buffered message.
    landing: Cell<CPtr>,
    /// Callers may be queued.
    callers: Cell<bool>,
    /// It is a caller's turn, if there is one: senders do not keep callers waiting for ever.
    callers_turn: Cell<bool>,
    member: Cell<Option<Member>>,
}

/// An endpoint of this domain.
///
/// Dropping it deletes it: queued callers and later senders are refused.
pub struct Endpoint {
    shared: Rc<Shared>,
}

impl Shared {
    fn has_message(&self) -> bool {
        !self.buffer.borrow().is_empty()
    }

    /// The next message in the buffer.
    fn take_buffered(&self) -> Option<Received> {
        let message = self.buffer.borrow_mut().take()?;
        let cap = message.info.cap().then_some(CPtr(message.landed as u32));
        if cap.is_some() {
            self.landing.set(CPtr::NULL);
            // Without a slot for the next one, its sender is refused until there is one again.
            let _ = self.set_landing();
        }
        let words = Words::new(message.words, message.info);
        Some(Received { badge: message.badge, words, cap, reply: None })
    }

    fn set_landing(&self) -> Result<(), EndpointError> {
        let slot = memory::slot()?;
        match message::set_landing(self.cap, slot) {
            Ok(()) => {
                self.landing.set(slot);
                Ok(())
            }
            Err(cause) => {
                memory::free_slot(slot);
                Err(refused("declaring a slot for capabilities")(cause))
            }
        }
    }

    /// Invokes a receiving form on the endpoint, with a slot for a capability if those are accepted.
    fn receive(
        &self,
        deadline: Deadline,
        form: impl FnOnce(Along) -> SysResult<message::Received<WORDS_MAX>>,
    ) -> Result<Received, EndpointError> {
        let landing = landing(self.caps)?;
        let result = form(Along { landing, patience: patience(deadline), ..Along::default() });
        settle(landing, result.as_ref().is_ok_and(|received| received.info.cap()));
        match result {
            Ok(message::Received { info, badge, words }) => Ok(Received {
                badge,
                words: Words::new(words, info),
                cap: info.cap().then_some(landing),
                reply: info.is_call().then(ReplyRight::received),
            }),
            Err(SysError::TimedOut) => Err(EndpointError::TimedOut),
            Err(cause) => Err(refused("receiving")(cause)),
        }
    }

    /// Receives from the endpoint, where no message is buffered.
    fn wait(&self, deadline: Deadline) -> Result<Received, EndpointError> {
        save_reply()?;
        self.receive(deadline, |along| message::receive_with(self.cap, along))
    }

    fn try_receive(&self) -> Result<Option<Received>, EndpointError> {
        loop {
            // Fetches all events, any of which would end the receive below.
            if events::take(self.event.bit()) != 0 {
                self.callers.set(true);
            }
            if !(self.callers.get() && self.callers_turn.get())
                && let Some(message) = self.take_buffered()
            {
                self.callers_turn.set(true);
                return Ok(Some(message));
            }
            if !self.callers.get() {
                return Ok(None);
            }
            self.callers_turn.set(false);
            match self.wait(Deadline::NOW) {
                Ok(call) => return Ok(Some(call)),
                Err(EndpointError::TimedOut) => self.callers.set(false),
                Err(error) if is_interruption(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn receive_blocking(&self, deadline: Deadline) -> Result<Received, EndpointError> {
        loop {
            if let Some(received) = self.try_receive()? {
                return Ok(received);
            }
            if !monitor::is_notice_event(self.event) {
                monitor::look_at_notices();
            }
            match self.wait(deadline) {
                // The event is fetched by the next look; others wait in the runtime for who they concern.
                Err(error) if is_interruption(&error) => {}
                other => return other,
            }
        }
    }
}

fn is_interruption(error: &EndpointError) -> bool {
    matches!(error, EndpointError::Refused { cause: SysError::Interrupted, .. })
}

/// A capability that goes along, as a copy.
fn cargo(cap: Option<CPtr>) -> Cargo {
    cap.map_or(Cargo::None, Cargo::Copy)
}

/// How long a form waits; sets the deadline that it looks at.
fn patience(deadline: Deadline) -> Patience {
    if deadline == Deadline::NEVER {
        return Patience::Endless;
    }
    events::set_deadline(deadline);
    Patience::Deadline
}

/// A slot for a capability that may come.
fn landing(caps: Caps) -> Result<CPtr, MemoryError> {
    match caps {
        Caps::Accepted => memory::slot(),
        Caps::Refused => Ok(CPtr::NULL),
    }
}

/// Gives the slot back if nothing came.
fn settle(landing: CPtr, came: bool) {
    if landing != CPtr::NULL && !came {
        memory::free_slot(landing);
    }
}

impl waitset::Inbox for Shared {
    fn is_ready(&self) -> bool {
        self.callers.get() || self.has_message()
    }

    fn mark(&self) {
        self.callers.set(true);
    }

    fn event(&self) -> Event {
        self.event
    }
}

impl From<&Endpoint> for Source {
    fn from(endpoint: &Endpoint) -> Source {
        Source(Kind::Inbox(endpoint.shared.clone()))
    }
}

impl Endpoint {
    /// An endpoint with a buffer of `messages` messages, which takes no capabilities.
    ///
    /// # Errors
    /// If memory, events or room in the dispatcher frame are used up.
    pub fn new(messages: u32) -> Result<Endpoint, EndpointError> {
        Endpoint::with_caps(messages, Caps::Refused)
    }

    /// An endpoint with a buffer of `messages` messages.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_caps(messages: u32, caps: Caps) -> Result<Endpoint, EndpointError> {
        let object = memory::allocate(ObjType::Endpoint, 0)?;
        match Endpoint::bind(object.cap, Some(object), messages, caps) {
            Ok(endpoint) => Ok(endpoint),
            Err(error) => {
                memory::free(object)?;
                Err(error)
            }
        }
    }

    /// The endpoint that somebody else made, of which `cap` is a capability with all rights and which is bound to
    /// no dispatcher yet. Dropping it deletes it all the same.
    ///
    /// # Errors
    /// As [`Self::new`], and if the CPU driver refuses.
    pub fn adopt(cap: CPtr, messages: u32, caps: Caps) -> Result<Endpoint, EndpointError> {
        Endpoint::bind(cap, None, messages, caps)
    }

    fn bind(cap: CPtr, object: Option<Object>, messages: u32, caps: Caps) -> Result<Endpoint, EndpointError> {
        let bytes = space::bytes(messages);
        let event = events::allocate().ok_or(MemoryError::OutOfEvents)?;
        let Some(offset) = space::allocate(bytes) else {
            events::free(event);
            return Err(MemoryError::OutOfFrame { bytes }.into());
        };
        let number = u64::from(event.number());
        let bound =
            syscall::endpoint_bind(cap, task::DISPATCHER, offset, messages.into(), number, number as u32);
        if let Err(cause) = bound {
            space::free(offset, bytes);
            events::free(event);
            return Err(refused("binding an endpoint")(cause));
        }
        let buffer = start::frame().cast::<u8>().wrapping_add(offset as usize).cast();
        // SAFETY: the endpoint was just bound to this part of the dispatcher frame, which is mapped for good and
        // which `space` gives to nobody else before the endpoint is gone.
        let buffer = unsafe { Inbox::new(buffer, messages) };
        let endpoint = Endpoint {
            shared: Rc::new(Shared {
                cap,
                object,
                event,
                offset,
                messages,
                buffer: RefCell::new(buffer),
                caps,
                landing: Cell::new(CPtr::NULL),
                callers: Cell::new(false),
                callers_turn: Cell::new(false),
                member: Cell::new(None),
            }),
        };
        if caps == Caps::Accepted {
            endpoint.shared.set_landing()?;
        }
        Ok(endpoint)
    }

    /// Its capability, with all rights.
    pub fn cap(&self) -> CPtr {
        self.shared.cap
    }

    /// The event that arrivals raise.
    pub fn event(&self) -> Event {
        self.shared.event
    }

    /// A new capability for sending to it, with `badge` to know the sender by. With [`Rights::GRANT`] the sender
    /// may pass capabilities along.
    ///
    /// # Errors
    /// If slots are used up.
    pub fn mint(&self, rights: Rights, badge: u64) -> Result<CPtr, EndpointError> {
        let slot = memory::slot()?;
        match syscall::cap_mint(task::ROOT, slot, self.cap(), rights, badge) {
            Ok(()) => Ok(slot),
            Err(cause) => {
                memory::free_slot(slot);
                Err(refused("making a capability for sending")(cause))
            }
        }
    }

    /// The next message or call, if there is one.
    ///
    /// # Errors
    /// If slots are used up; nothing is lost then.
    pub fn try_receive(&mut self) -> Result<Option<Received>, EndpointError> {
        self.shared.try_receive()
    }

    /// The next message or call, blocking until there is one.
    ///
    /// # Errors
    /// If the deadline passes first, or slots are used up.
    pub fn receive_blocking(&mut self, deadline: Deadline) -> Result<Received, EndpointError> {
        self.shared.receive_blocking(deadline)
    }

    /// Answers `reply` and receives the next message or call, in one step where that is possible: the way of a
    /// server that does nothing else.
    ///
    /// # Errors
    /// As [`Self::receive_blocking`]; or the answer cannot be given, and the caller will be told that there is none.
    /// That the caller waits no more is no error.
    pub fn answer_and_receive(
        &mut self,
        reply: ReplyRight,
        words: &[u64],
        cap: Option<CPtr>,
        deadline: Deadline,
    ) -> Result<Received, EndpointError> {
        let shared = &self.shared;
        if !reply.is_held() || shared.has_message() || shared.callers.get() {
            // Who waits no more needs no answer.
            let _ = reply.answer(words, cap);
            return shared.receive_blocking(deadline);
        }
        reply.take();
        core::mem::forget(reply);
        let cargo = cargo(cap);
        let result = shared.receive(deadline, |along| {
            message::reply_receive_with(shared.cap, words, Along { cap: cargo, ..along })
        });
        match result {
            // The answer was given.
            Err(error) if is_interruption(&error) => shared.receive_blocking(deadline),
            other => other,
        }
    }

    /// The next message or call. Can be dropped before it is done; nothing is lost then.
    ///
    /// # Errors
    /// If slots are used up.
    pub async fn receive(&mut self) -> Result<Received, EndpointError> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    /// [`Self::receive`], for futures written by hand.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Received, EndpointError>> {
        if executor::must_pause(context) {
            return Poll::Pending;
        }
        if let Some(result) = self.shared.try_receive().transpose() {
            return Poll::Ready(result);
        }
        let member = match self.shared.member.get() {
            Some(member) => member,
            None => {
                let member = executor::add_inbox(self.shared.clone());
                self.shared.member.set(Some(member));
                member
            }
        };
        executor::watch(member, Until::Message, context.waker());
        Poll::Pending
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(member) = self.shared.member.take() {
            executor::remove(member);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // An endpoint that cannot be deleted keeps what it has.
        let gone = match self.object {
            Some(object) => memory::free(object).is_ok(),
            None => {
                syscall::cap_revoke(task::ROOT, self.cap).is_ok()
                    && syscall::cap_delete(task::ROOT, self.cap).is_ok()
            }
        };
        if gone {
            space::free(self.offset, space::bytes(self.messages));
            events::free(self.event);
        }
        let landing = self.landing.get();
        if landing != CPtr::NULL {
            memory::free_slot(landing);
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("cap", &self.cap()).finish_non_exhaustive()
    }
}

/// The answer to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its words.
    pub words: Words,
    /// The capability that came along, in a new slot.
    pub cap: Option<CPtr>,
}

/// Sends `words`, and perhaps a copy of the capability `cap`, to an endpoint; does not wait.
///
/// # Errors
/// The CPU driver's: the buffer is full, the endpoint is gone, there is no slot for a capability.
pub fn send(endpoint: CPtr, words: &[u64], cap: Option<CPtr>) -> SysResult {
    message::send_with(endpoint, words, cargo(cap))
}

/// Calls an endpoint and waits for the answer. The whole domain waits, tasks included; what happens meanwhile
/// is found afterwards.
///
/// # Errors
/// The CPU driver's: the endpoint is gone, or whoever received the call gave up the right to answer.
pub fn call(
    endpoint: CPtr,
    words: &[u64],
    cap: Option<CPtr>,
    accepts: Caps,
) -> Result<Answer, EndpointError> {
    let landing = landing(accepts)?;
    let result = message::call_with(endpoint, words, Along { cap: cargo(cap), landing, ..Along::default() });
    settle(landing, result.as_ref().is_ok_and(|answer| answer.info.cap()));
    let answer = result.map_err(refused("a call"))?;
    let cap = answer.info.cap().then_some(landing);
    Ok(Answer { words: Words::new(answer.words, answer.info), cap })
}
