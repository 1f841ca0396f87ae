//! What a domain gets from its monitor: channels, domains on other cores, names, counters.
//!
//! Requests are LMP calls to the monitor of this core ([`interface::monitor`](crate::interface::monitor)): the
//! whole domain waits for the answer, which for [`bind`], [`lookup`] and [`Domain::wait_end`] may take as long as
//! somebody else does. What the monitor says by itself, that somebody binds or a peer is gone, arrives at an
//! endpoint of this module, and from there at the [`Service`] or [`Channel`] it is about; whoever waits looks at
//! it.
//!
//! ```ignore
//! // The server:
//! let mut service = monitor::export()?;
//! monitor::register("echo", service.iref())?;
//! let connection = service.accept(Waiting::Polling).await?;
//! let mut channel = connection.channel::<64>(ACCEPTS)?;
//!
//! // The client, on any core:
//! let connection = monitor::bind(monitor::lookup("echo")?, &Options::default())?;
//! let mut channel = connection.channel::<64>(ACCEPTS)?;
//! ```

mod connection;
mod router;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::task::Poll;

use lmp::cptr::task;
use lmp::invocation::EndCause;
use lmp::{CPtr, CoreId, Rights, SysError, syscall};
use skb::Policy;

use crate::bells::{self, Bell};
use crate::channel::{WaitError, Waiting};
use crate::endpoint::{self, Answer, Caps, Endpoint, EndpointError};
use crate::events::{self, Deadline, Event};
use crate::interface::monitor::{CONSUMER, ConnectionInfo, Iref, MonitorError, Request};
use crate::interface::{TEXT_MAX, TEXT_WORDS, pack};
use crate::local::{Local, domain_local};
use crate::memory::{self, MemoryError};

pub use connection::{Connection, Line, Piece};
use router::{Arrivals, Router};
pub use router::{Gone, Offer};

#[expect(unused_imports, reason = "the module documentation links to it")]
use crate::channel::Channel;

/// Messages in the buffer for notices. A monitor that finds it full tries again later.
const NOTICES: u32 = 16;

/// Why the monitor was of no help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// This domain was not given a monitor.
    NoMonitor,
    /// The monitor refuses.
    Refused(MonitorError),
    /// The call did not come about.
    Call(EndpointError),
    /// Memory, slots, events or bells are used up.
    Memory(MemoryError),
    /// The monitor answered something that the protocol does not know.
    BadAnswer,
    /// A name or an argument string is longer than a message carries.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A channel was asked for with other rings than the connection has.
    WrongLines {
        /// Lines that the connection's rings have.
        has: u64,
        /// Lines asked for.
        asked: u64,
    },
    /// The channel of the connection was made before.
    ChannelTaken,
    /// The memory of a ring is not as large as it must be.
    RingTooSmall,
    /// The deadline passed first.
    TimedOut,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMonitor => f.write_str("this domain has no monitor: have it spawned with one"),
            Self::Refused(error) => error.fmt(f),
            Self::Call(error) => write!(f, "the monitor did not answer: {error}"),
            Self::Memory(error) => error.fmt(f),
            Self::BadAnswer => f.write_str("the monitor's answer makes no sense"),
            Self::TooLong { bytes } => {
                write!(f, "a text of {bytes} bytes is too long: at most {TEXT_MAX} fit")
            }
            Self::WrongLines { has, asked } => {
                write!(f, "a channel with rings of {asked} lines on a connection with {has}")
            }
            Self::ChannelTaken => f.write_str("a connection has one channel, and that was made before"),
            Self::RingTooSmall => f.write_str("the connection's memory is too small for its rings"),
            Self::TimedOut => f.write_str("the deadline passed first"),
        }
    }
}

impl core::error::Error for Error {}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<EndpointError> for Error {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Memory(error) => Self::Memory(error),
            EndpointError::Refused { cause: SysError::EmptySlot, .. } => Self::NoMonitor,
            other => Self::Call(other),
        }
    }
}

/// Why a capability did not get along with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapError {
    /// The channel is within this domain: there is no connection.
    NoConnection,
    /// The monitors did not pass it.
    Monitor(Error),
    /// It was passed, but the message that announces it was not sent.
    Channel(WaitError),
}

impl fmt::Display for CapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection => f.write_str("no capabilities pass over a channel within one domain"),
            Self::Monitor(error) => error.fmt(f),
            Self::Channel(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CapError {}

impl From<Error> for CapError {
    fn from(error: Error) -> Self {
        Self::Monitor(error)
    }
}

impl From<WaitError> for CapError {
    fn from(error: WaitError) -> Self {
        Self::Channel(error)
    }
}

/// Which end of a connection a domain is. The policy places the producer's ring and the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It sends the data; its outbox is the forward one.
    Producer,
    /// It receives the data.
    Consumer,
}

/// What a connection is to be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Lines of each ring: [`ump::RPC_LINES`] or [`ump::STREAM_LINES`].
    pub lines: u64,
    /// Bytes of the pool of buffers; 0: none.
    pub pool: u64,
    /// Where rings and pool are to lie.
    pub policy: Policy,
    /// What this end is.
    pub role: Role,
    /// How this end waits.
    pub waiting: Waiting,
    /// The seed of policies that choose at random.
    pub seed: u64,
}

impl Default for Options {
    /// Short rings, no pool, the usual policy, producer, polling.
    fn default() -> Self {
        Options {
            lines: ump::RPC_LINES as u64,
            pool: 0,
            policy: Policy::default(),
            role: Role::Producer,
            waiting: Waiting::Polling,
            seed: 1,
        }
    }
}

/// What this domain and its monitor know of each other.
struct Client {
    /// This domain's number.
    domain: u64,
    notices: Endpoint,
    counters: Option<CPtr>,
}

domain_local! {
    static CLIENT: RefCell<Option<Client>> = RefCell::new(None);
}
domain_local! {
    static ROUTER: RefCell<Router> = RefCell::new(Router::new());
}

/// The event of notices, as a set; empty before the first [`hello`].
static NOTICE_EVENTS: Local<u64> = Local::new(0);

/// The event that notices raise, as a set; empty as long as there can be none.
#[inline]
pub(crate) fn notice_events() -> u64 {
    NOTICE_EVENTS.get()
}

pub(crate) fn is_notice_event(event: Event) -> bool {
    notice_events() == event.bit()
}

/// Routes the notices that have come. Costs a look at the dispatcher frame if there are none.
#[inline]
pub(crate) fn look_at_notices() {
    let events = notice_events();
    if events != 0 && events::take(events) != 0 {
        route_notices();
    }
}

#[inline(never)]
fn route_notices() {
    let mut concerned = Vec::new();
    CLIENT.with(|client| {
        let mut client = client.borrow_mut();
        let Some(client) = client.as_mut() else { return };
        // A call here would be the monitor's mistake: it gets no answer.
        while let Ok(Some(notice)) = client.notices.try_receive() {
            concerned.push(ROUTER.with(|router| router.borrow_mut().route(notice.words.padded())));
        }
    });
    for it in concerned {
        if let Some(bell) = it.bell {
            bells::ring(bell);
        }
        if let Some(waker) = it.waker {
            waker.wake();
        }
    }
}

/// A request: the words that the answer has after its status.
fn request<const N: usize>(
    method: Request,
    arguments: [u64; N],
    cap: Option<CPtr>,
    accepts: Caps,
) -> Result<Answer, Error> {
    let mut words = [0; endpoint::WORDS_MAX];
    words[0] = method as u64;
    words[1..=N].copy_from_slice(&arguments);
    let answer = endpoint::call(task::MONITOR, &words[..=N], cap, accepts)?;
    match answer.words.padded()[0] {
        0 => Ok(answer),
        code => {
            if let Some(cap) = answer.cap {
                discard(cap);
            }
            Err(MonitorError::from_code(code).map_or(Error::BadAnswer, Error::Refused))
        }
    }
}

/// Word `index` of an answer.
fn word(answer: &Answer, index: usize) -> u64 {
    answer.words.padded()[index]
}

/// Deletes a capability that is not needed.
fn discard(cap: CPtr) {
    // What is gone already, with the memory it was for, leaves an empty slot.
    let _ = syscall::cap_delete(task::ROOT, cap);
    memory::free_slot(cap);
}

fn text(text: &str) -> Result<[u64; TEXT_WORDS], Error> {
    pack(text).ok_or(Error::TooLong { bytes: text.len() })
}

/// Introduces this domain to its monitor, if that was not done before; this domain's number. Everything in this
/// module that needs it does it by itself.
///
/// # Errors
/// [`Error`].
pub fn hello() -> Result<u64, Error> {
    if let Some(domain) = CLIENT.with(|c| c.borrow().as_ref().map(|c| c.domain)) {
        return Ok(domain);
    }
    let notices = Endpoint::new(NOTICES)?;
    let cap = notices.mint(Rights::WRITE, 0)?;
    let answer = request(Request::Hello, [], Some(cap), Caps::Refused);
    // The monitor has a copy.
    discard(cap);
    let domain = word(&answer?, 1);
    NOTICE_EVENTS.set(notices.event().bit());
    CLIENT.with(|c| *c.borrow_mut() = Some(Client { domain, notices, counters: None }));
    Ok(domain)
}

/// A capability for reading the counters of this core.
///
/// # Errors
/// [`Error`].
pub fn counters() -> Result<CPtr, Error> {
    hello()?;
    if let Some(cap) = CLIENT.with(|c| c.borrow().as_ref().and_then(|c| c.counters)) {
        return Ok(cap);
    }
    let cap = request(Request::Counters, [], None, Caps::Accepted)?.cap.ok_or(Error::BadAnswer)?;
    CLIENT.with(|c| {
        if let Some(client) = c.borrow_mut().as_mut() {
            client.counters = Some(cap);
        }
    });
    Ok(cap)
}

/// What is known of a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreInfo {
    /// Its dense index.
    pub core: CoreId,
    /// Its NUMA node.
    pub node: u16,
    /// Its local APIC identifier.
    pub apic_id: u32,
    /// Cores of the machine that are up.
    pub cores: u32,
    /// Nodes of the machine.
    pub nodes: u32,
}

/// About `core`, or this one.
///
/// # Errors
/// [`Error`].
pub fn core(core: Option<CoreId>) -> Result<CoreInfo, Error> {
    let answer = request(Request::Core, [core.map_or(u64::MAX, |c| u64::from(c.0))], None, Caps::Refused)?;
    Ok(CoreInfo {
        cores: word(&answer, 1) as u32,
        core: CoreId(word(&answer, 2) as u16),
        node: word(&answer, 3) as u16,
        apic_id: word(&answer, 4) as u32,
        nodes: word(&answer, 5) as u32,
    })
}

/// The memory of a node that channels are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeMemory {
    /// Bytes that are free.
    pub free: u64,
    /// All bytes.
    pub all: u64,
}

/// How much memory there is on `node`.
///
/// # Errors
/// [`Error`].
pub fn memory(node: u16) -> Result<NodeMemory, Error> {
    let answer = request(Request::Memory, [u64::from(node)], None, Caps::Refused)?;
    Ok(NodeMemory { free: word(&answer, 1), all: word(&answer, 2) })
}

/// Gives the service `iref` the name `name`.
///
/// # Errors
/// [`Error`].
pub fn register(name: &str, iref: Iref) -> Result<(), Error> {
    let [a, b, c, d] = text(name)?;
    request(Request::Register, [a, b, c, d, iref.0], None, Caps::Refused).map(|_| ())
}

/// The service called `name`; blocks until there is one.
///
/// # Errors
/// [`Error`].
pub fn lookup(name: &str) -> Result<Iref, Error> {
    Ok(Iref(word(&request(Request::Lookup, text(name)?, None, Caps::Refused)?, 1)))
}

/// Takes down all copies of what was made from the RAM or frame `cap` on other cores, so that it can be revoked
/// here.
///
/// # Errors
/// [`Error`].
pub fn revoke_remote(cap: CPtr) -> Result<(), Error> {
    request(Request::RevokeRemote, [], Some(cap), Caps::Refused).map(|_| ())
}

/// A domain that the monitors started for this one.
#[derive(Debug)]
#[must_use = "a domain that nobody waits for ends unseen"]
pub struct Domain {
    handle: u64,
}

/// How a domain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DomainEnd {
    /// Why.
    pub cause: EndCause,
    /// Exit code, or the address of the fault.
    pub detail: u64,
}

impl DomainEnd {
    /// Whether it ended by itself, with exit code 0.
    pub fn is_success(&self) -> bool {
        self.cause == EndCause::Exit && self.detail == 0
    }
}

impl fmt::Display for DomainEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            EndCause::Exit => write!(f, "exit code {}", self.detail),
            cause => write!(f, "{} ({:#x})", cause.text(), self.detail),
        }
    }
}

/// Starts a domain on `core`, from the boot module `module`, with the argument string `args` and `memory` bytes
/// of RAM for its own use (0: the usual).
///
/// # Errors
/// [`Error`].
pub fn spawn(core: CoreId, module: &str, args: &str, memory: u64) -> Result<Domain, Error> {
    let place = u64::from(core.0) | memory.div_ceil(1024).min(u64::from(u32::MAX)) << 32;
    let ([a, b, c, d], [e, f, g, h]) = (text(module)?, text(args)?);
    let answer = request(Request::Spawn, [place, a, b, c, d, e, f, g, h], None, Caps::Refused)?;
    Ok(Domain { handle: word(&answer, 1) })
}

impl Domain {
    /// Its number among those that this domain started.
    pub fn handle(&self) -> u64 {
        self.handle
    }

    /// Waits until it has ended; this domain blocks.
    ///
    /// # Errors
    /// [`Error`].
    pub fn wait_end(&self) -> Result<DomainEnd, Error> {
        let answer = request(Request::WaitEnd, [self.handle], None, Caps::Refused)?;
        let cause = EndCause::from_code(word(&answer, 1) as u8).ok_or(Error::BadAnswer)?;
        Ok(DomainEnd { cause, detail: word(&answer, 2) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn kill(&self) -> Result<(), Error> {
        request(Request::Kill, [self.handle], None, Caps::Refused).map(|_| ())
    }
}

/// A service that others can bind to.
pub struct Service {
    iref: Iref,
    arrivals: Rc<Arrivals>,
}

/// Makes a service.
///
/// # Errors
/// [`Error`].
pub fn export() -> Result<Service, Error> {
    hello()?;
    let iref = Iref(word(&request(Request::Export, [], None, Caps::Refused)?, 1));
    let arrivals = ROUTER.with(|router| router.borrow_mut().add_service(iref));
    Ok(Service { iref, arrivals })
}

impl Service {
    /// Its name in [`bind`], on every core.
    pub fn iref(&self) -> Iref {
        self.iref
    }

    /// Somebody who binds to it, if there is one.
    pub fn try_offer(&mut self) -> Option<Offer> {
        look_at_notices();
        self.arrivals.take()
    }

    /// Waits for somebody who binds to it.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub fn offer_blocking(&mut self, deadline: Deadline) -> Result<Offer, Error> {
        loop {
            if let Some(offer) = self.try_offer() {
                return Ok(offer);
            }
            if events::wait(notice_events(), deadline) == 0 {
                return self.try_offer().ok_or(Error::TimedOut);
            }
            route_notices();
        }
    }

    /// Waits for somebody who binds to it.
    pub async fn offer(&mut self) -> Offer {
        poll_fn(|context| match self.try_offer() {
            Some(offer) => Poll::Ready(offer),
            None => {
                self.arrivals.wait(context.waker());
                Poll::Pending
            }
        })
        .await
    }

    /// Accepts the next who binds to it, whatever he wants.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn accept(&mut self, waiting: Waiting) -> Result<Connection, Error> {
        self.offer().await.accept(waiting)
    }

    /// Accepts the next who binds to it, blocking until there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn accept_blocking(&mut self, waiting: Waiting, deadline: Deadline) -> Result<Connection, Error> {
        self.offer_blocking(deadline)?.accept(waiting)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        ROUTER.with(|router| router.borrow_mut().remove_service(self.iref));
        while let Some(offer) = self.arrivals.take() {
            // The monitor refuses by itself whom nobody answers, once this domain ends.
            let _ = offer.refuse();
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("iref", &self.iref).finish_non_exhaustive()
    }
}

fn bell_for(waiting: Waiting) -> Result<Option<Bell>, Error> {
    Ok(match waiting {
        Waiting::Polling => None,
        Waiting::Blockable => Some(Bell::new()?),
    })
}

fn connection_info(answer: &Answer) -> ConnectionInfo {
    let mut words = [0; ConnectionInfo::WORDS];
    words.copy_from_slice(&answer.words.padded()[1..=ConnectionInfo::WORDS]);
    ConnectionInfo::decode(words)
}

/// Connects to the service `iref`; blocks until it accepts or refuses.
///
/// # Errors
/// [`Error`].
pub fn bind(iref: Iref, options: &Options) -> Result<Connection, Error> {
    hello()?;
    let bell = bell_for(options.waiting)?;
    let consumer = if options.role == Role::Consumer { CONSUMER } else { 0 };
    let policy = u64::from(options.policy.code()) | consumer;
    let arguments = [iref.0, options.lines, options.pool, policy, options.seed];
    let answer = request(Request::Bind, arguments, bell.as_ref().map(Bell::cap), Caps::Refused)?;
    Connection::open(connection_info(&answer), bell)
}

impl Offer {
    /// Accepts the connection.
    ///
    /// # Errors
    /// [`Error`].
    pub fn accept(self, waiting: Waiting) -> Result<Connection, Error> {
        let bell = bell_for(waiting)?;
        let cap = bell.as_ref().map(Bell::cap);
        let answer = request(Request::Accept, [self.connection], cap, Caps::Refused)?;
        Connection::open(connection_info(&answer), bell)
    }

    /// Refuses it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn refuse(self) -> Result<(), Error> {
        request(Request::Refuse, [self.connection], None, Caps::Refused).map(|_| ())
    }
}
