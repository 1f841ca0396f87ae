//! What the scenario `mesh` starts on many cores. `role=` says what one does:
//!
//! | role | what |
//! |---|---|
//! | `all` | connects with its like on every other core and exchanges `count` messages each way with each |
//! | `serve` | answers whoever binds to the service `serve.CORE`, until it is ended |
//! | `mute` | names the service `mute.CORE` and never answers who binds to it |
//! | `call` | exchanges `count` calls and answers with `serve.AT` |
//! | `bind` | binds to `mute.AT` |
//! | `caps` | passes `count` frames to `serve.AT`, one after the other, and takes each back |
//! | `stream`, `source` | exchange messages both ways as fast as they can, service `stream.CORE` and client |
//! | `listen`, `hark` | the service `listen.CORE` and its client both wait for a message that never comes |
//! | `silent` | a client of `listen.AT` that does nothing |
//! | `pour`, `deaf` | the service `pour.CORE` fills the ring and waits for room, the client takes nothing |
//! | `wait`, `mum` | the client of the service `mum.CORE` waits for a message that never comes |
//! | `push`, `full` | the client of the service `full.CORE` fills the ring and waits for room |
//! | `fill`, `drain` | the client of the service `drain.CORE` hands it buffers of a pool as fast as it can |
//!
//! Those below `bind` go on until the other end dies, if `count` is [`FOREVER`]. They must be told that, and in no
//! other words, and succeed by it.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use boot_freestanding as _;
use bulk::{Delivery, Given, MAX_RETURNS, Region, Sink, Slot, SlotSize, Source};
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType, cptr::task, syscall};
use runtime::channel::{Channel, Waiting};
use runtime::channel::{Closed, WaitError};
use runtime::events::{self, Deadline};
use runtime::interface::monitor::MonitorError;
use runtime::monitor::CapError;
use runtime::monitor::{self, Connection, Options};
use runtime::{Env, executor, memory};
use selftest::mesh::{BUFFERS, CALL, FOREVER, FRAME, MET, POOL, SEQUENCE};
use ump::{Accepts, Kind, Message, RPC_LINES, STREAM_LINES};

runtime::entry!(main);

fn text(error: impl Display) -> String {
    format!("{error}")
}

/// Why a node stops before it is through.
enum Stop {
    /// The other end's domain has ended.
    PeerDied,
    /// Something else, as text.
    Failed(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Stop {
        Stop::Failed(text)
    }
}

impl From<Closed> for Stop {
    fn from(closed: Closed) -> Stop {
        match closed {
            Closed::PeerDied => Stop::PeerDied,
            other => Stop::Failed(text(other)),
        }
    }
}

impl From<WaitError> for Stop {
    fn from(error: WaitError) -> Stop {
        match error {
            WaitError::Closed(closed) => closed.into(),
            WaitError::TimedOut => Stop::Failed(text(error)),
        }
    }
}

impl From<monitor::Error> for Stop {
    fn from(error: monitor::Error) -> Stop {
        match error {
            monitor::Error::Refused(MonitorError::PeerGone) => Stop::PeerDied,
            other => Stop::Failed(text(other)),
        }
    }
}

impl From<CapError> for Stop {
    fn from(error: CapError) -> Stop {
        match error {
            CapError::Monitor(error) => error.into(),
            CapError::Channel(error) => error.into(),
            CapError::NoConnection => Stop::Failed(text(error)),
        }
    }
}

impl From<memory::MemoryError> for Stop {
    fn from(error: memory::MemoryError) -> Stop {
        Stop::Failed(text(error))
    }
}

fn main(env: &Env) -> Result<(), String> {
    let count = env.number("count", 1000);
    let at = env.number("at", 1);
    let role = env.value("role").unwrap_or_default();
    let result = match role {
        "all" => return all(env, count),
        "serve" => return executor::block_on(serve(env)),
        "mute" => return mute(env),
        "bind" => return bind(&format!("mute.{at}")).map(|_| ()).map_err(text),
        "call" => call(env, at, count),
        "caps" => caps(env, at, count),
        "stream" => accept(env, role).and_then(stream),
        "source" => channel_to(env, &format!("stream.{at}")).and_then(stream),
        "listen" | "mum" => accept(env, role).and_then(if role == "mum" { nothing } else { listen }),
        "wait" => channel_to(env, &format!("mum.{at}")).and_then(listen),
        "hark" => channel_to(env, &format!("listen.{at}")).and_then(listen),
        "silent" => channel_to(env, &format!("listen.{at}")).and_then(nothing),
        "pour" | "full" => accept(env, role).and_then(if role == "full" { nothing } else { pour }),
        "push" => channel_to(env, &format!("full.{at}")).and_then(pour),
        "deaf" => channel_to(env, &format!("pour.{at}")).and_then(nothing),
        "fill" => fill(env, at),
        "drain" => drain(env, role),
        other => return Err(format!("there is no role {other:?}")),
    };
    match result {
        Err(Stop::PeerDied) if count == FOREVER => Ok(()),
        Err(Stop::PeerDied) => Err(String::from("the other end died")),
        Err(Stop::Failed(text)) => Err(text),
        Ok(()) => Ok(()),
    }
}

/// The connection of the first who binds to the service `name.CORE`.
fn accept_connection(env: &Env, name: &str) -> Result<Connection, Stop> {
    let mut service = monitor::export()?;
    monitor::register(&format!("{name}.{}", env.info().core), service.iref())?;
    Ok(service.accept_blocking(Waiting::Blockable, Deadline::NEVER)?)
}

/// Its channel.
fn accept(env: &Env, name: &str) -> Result<Channel<RPC_LINES>, Stop> {
    Ok(accept_connection(env, name)?.channel(STREAMED)?)
}

/// A channel to the service `name`.
fn channel_to(env: &Env, name: &str) -> Result<Channel<RPC_LINES>, Stop> {
    let channel = bind(name)?.channel(STREAMED)?;
    tell_met(env)?;
    Ok(channel)
}

/// Tells the scenario, by a name, that a client on this core is connected.
fn tell_met(env: &Env) -> Result<(), Stop> {
    let service = monitor::export()?;
    Ok(monitor::register(&format!("{MET}.{}", env.info().core), service.iref())?)
}

/// What the ends of a stream take.
const STREAMED: Accepts = Accepts::kinds_below(Kind(SEQUENCE.0 + 1));

/// Sends and takes what it can, for ever.
fn stream(mut channel: Channel<RPC_LINES>) -> Result<(), Stop> {
    let (mut sent, mut received) = (0u64, 0u64);
    loop {
        while channel.try_send(&Message::new(SEQUENCE, [sent, !sent])).is_ok() {
            sent += 1;
        }
        let message = channel.recv_blocking(Deadline::NEVER)?;
        if message != Message::new(SEQUENCE, [received, !received]) {
            return Err(Stop::Failed(format!("{message:?} as number {received}")));
        }
        received += 1;
    }
}

/// Waits for a message.
fn listen(mut channel: Channel<RPC_LINES>) -> Result<(), Stop> {
    let message = channel.recv_blocking(Deadline::NEVER)?;
    Err(Stop::Failed(format!("{message:?} from who sends nothing")))
}

/// Sends into a ring out of which nobody takes anything.
fn pour(mut channel: Channel<RPC_LINES>) -> Result<(), Stop> {
    loop {
        channel.send_blocking(&Message::new(SEQUENCE, []), Deadline::NEVER)?;
    }
}

/// Holds the channel and sleeps.
fn nothing(channel: Channel<RPC_LINES>) -> Result<(), Stop> {
    loop {
        events::wait(0, Deadline::NEVER);
        // Nothing ends this wait; the channel is there until the domain is not.
        core::hint::black_box(&channel);
    }
}

/// What the ends of a bulk transfer take.
const BULK: Accepts = Accepts::kinds_below(BUFFERS.end());

/// The pool of a connection in the smallest slots, fewer than a ring has lines, with a holder table.
fn pool(connection: &Connection) -> Result<(Region<'_>, Vec<Slot>), Stop> {
    let region = connection.region(SlotSize::MIN).map_err(text)?;
    let table = (0..region.slots()).map(|_| Slot::new()).collect();
    Ok((region, table))
}

/// The words of buffer `number`: other ones for each.
fn data(number: u64) -> impl Iterator<Item = u64> {
    (number << 32..).take(SlotSize::MIN.bytes() / size_of::<u64>())
}

/// Fills buffers and hands them over to `drain.AT`, for ever.
fn fill(env: &Env, at: u64) -> Result<(), Stop> {
    let mut connection = bind(&format!("drain.{at}"))?;
    let mut channel: Channel<RPC_LINES> = connection.channel(BULK)?;
    let (region, mut table) = pool(&connection)?;
    let source = Source::new(POOL, region, &mut table, BUFFERS).map_err(text)?;
    tell_met(env)?;
    let mut number = 0;
    loop {
        let buffer = loop {
            if let Some(buffer) = source.take() {
                break buffer;
            }
            let message = channel.recv_blocking(Deadline::NEVER)?;
            source.accept_return(channel.endpoint(), &message).map_err(text)?;
        };
        data(number).zip(buffer.words()).for_each(|(value, word)| word.store(value));
        // There is room: the ring has more lines than the pool has slots.
        buffer.hand_over(channel.endpoint(), number).map_err(|unsent| text(unsent.error))?;
        channel.flush();
        number += 1;
    }
}

/// Checks the buffers that come, and gives them back as many at a time as one message can.
fn drain(env: &Env, name: &str) -> Result<(), Stop> {
    let mut connection = accept_connection(env, name)?;
    let mut channel: Channel<RPC_LINES> = connection.channel(BULK)?;
    let (region, mut table) = pool(&connection)?;
    let sink = Sink::new(POOL, region, &mut table, BUFFERS).map_err(text)?;
    let mut number = 0;
    loop {
        let message = channel.recv_blocking(Deadline::NEVER)?;
        let Delivery { buffer, cookie } = sink.accept(channel.endpoint(), &message).map_err(text)?;
        let is_intact = match &buffer {
            Given::Moved(buffer) => cookie == number && buffer.view().words().eq(data(number)),
            Given::Shared(_) => false,
        };
        if !is_intact {
            return Err(Stop::Failed(format!("{buffer:?} with cookie {cookie} as number {number}")));
        }
        drop(buffer);
        number += 1;
        if sink.pending() >= MAX_RETURNS {
            sink.give_back(channel.endpoint()).map_err(text)?;
            channel.flush();
        }
    }
}

/// A channel to the node of another core.
struct Neighbour {
    core: u32,
    channel: Option<Channel<STREAM_LINES>>,
    sent: u64,
    received: u64,
}

impl Neighbour {
    fn new(core: u32, mut connection: Connection) -> Result<Neighbour, String> {
        let channel = connection.channel(Accepts::kinds_below(Kind(SEQUENCE.0 + 1))).map_err(text)?;
        Ok(Neighbour { core, channel: Some(channel), sent: 0, received: 0 })
    }

    /// Message `number` from one core to another.
    fn message(number: u64, from: u32, to: u32) -> Message {
        let pair = u64::from(from) << 32 | u64::from(to);
        Message::new(SEQUENCE, [number, pair, !number, number.wrapping_mul(pair)])
    }

    /// Sends and takes what it can; whether there is more to do.
    fn exchange(&mut self, own: u32, count: u64) -> Result<bool, String> {
        const BURST: usize = 32;
        let Some(channel) = &mut self.channel else { return Ok(false) };
        let left = (count - self.sent).min(BURST as u64) as usize;
        if left > 0 {
            let burst: [Message; BURST] =
                core::array::from_fn(|i| Self::message(self.sent + i as u64, own, self.core));
            // A full ring is no error: the next round sends.
            if let Ok(sent) = channel.try_send_burst(&burst[..left]) {
                self.sent += sent as u64;
            }
        }
        while let Some(message) = channel.try_recv().map_err(text)? {
            let expected = Self::message(self.received, self.core, own);
            if message != expected {
                return Err(format!("from core {}: {message:?} instead of {expected:?}", self.core));
            }
            self.received += 1;
        }
        if self.sent == count && self.received == count {
            self.channel = None;
            return Ok(false);
        }
        if self.received < count
            && let Some(closed) = channel.closed()
        {
            return Err(format!("core {} is gone after {} messages: {closed}", self.core, self.received));
        }
        Ok(true)
    }
}

fn all(env: &Env, count: u64) -> Result<(), String> {
    let own = env.info().core;
    let cores = monitor::core(None).map_err(text)?.cores;
    let mut service = monitor::export().map_err(text)?;
    monitor::register(&format!("all.{own}"), service.iref()).map_err(text)?;
    let options = Options { lines: STREAM_LINES as u64, ..Options::default() };
    let mut neighbours = Vec::new();
    // Each binds to all lower cores first, so nobody waits for one who waits for him.
    for core in 0..own {
        let iref = monitor::lookup(&format!("all.{core}")).map_err(text)?;
        neighbours.push(Neighbour::new(core, monitor::bind(iref, &options).map_err(text)?)?);
    }
    for _ in own + 1..cores {
        let offer = service.offer_blocking(Deadline::NEVER).map_err(text)?;
        let core = offer.core;
        neighbours.push(Neighbour::new(core, offer.accept(Waiting::Polling).map_err(text)?)?);
    }
    loop {
        let mut busy = false;
        for neighbour in &mut neighbours {
            busy |= neighbour.exchange(own, count)?;
        }
        if !busy {
            return Ok(());
        }
        core::hint::spin_loop();
    }
}

async fn serve(env: &Env) -> Result<(), String> {
    let mut service = monitor::export().map_err(text)?;
    monitor::register(&format!("serve.{}", env.info().core), service.iref()).map_err(text)?;
    loop {
        let offer = service.offer().await;
        // A client that is gone already is no reason to stop.
        if let Ok(connection) = offer.accept(Waiting::Blockable) {
            executor::spawn(async move {
                // How one client ends is nothing to the others.
                let _ = answer(connection).await;
            })
            .detach();
        }
    }
}

async fn answer(mut connection: Connection) -> Result<(), String> {
    let accepts = Accepts::kinds_below(Kind(FRAME.0 + 1)).with_capabilities(1);
    let mut channel: Channel<RPC_LINES> = connection.channel(accepts).map_err(text)?;
    drop(connection);
    loop {
        let message = channel.recv().await.map_err(text)?;
        if message.kind() == FRAME {
            let frame = channel.recv_cap().map_err(text)?;
            let page = Page::map(frame)?;
            page.set(1, !page.get(0));
            drop(page);
            // Whose frame it is may have taken it back by now.
            let _ = syscall::cap_delete(task::ROOT, frame);
            memory::free_slot(frame);
        }
        channel.send(&message).await.map_err(text)?;
    }
}

fn mute(env: &Env) -> Result<(), String> {
    let mut service = monitor::export().map_err(text)?;
    monitor::register(&format!("mute.{}", env.info().core), service.iref()).map_err(text)?;
    // Offers come and are kept.
    let mut offers = Vec::new();
    loop {
        offers.push(service.offer_blocking(Deadline::NEVER).map_err(text)?);
    }
}

fn bind(name: &str) -> Result<Connection, monitor::Error> {
    let iref = monitor::lookup(name)?;
    let options = Options { waiting: Waiting::Blockable, pool: 1 << 16, ..Options::default() };
    monitor::bind(iref, &options)
}

fn call(env: &Env, at: u64, count: u64) -> Result<(), Stop> {
    let mut connection = bind(&format!("serve.{at}"))?;
    let accepts = Accepts::kinds_below(Kind(CALL.0 + 1));
    let mut channel: Channel<RPC_LINES> = connection.channel(accepts)?;
    if count == FOREVER {
        tell_met(env)?;
    }
    for number in 0..count {
        let message = Message::new(CALL, [number, !number]);
        channel.send_blocking(&message, Deadline::NEVER)?;
        let answer = channel.recv_blocking(Deadline::NEVER)?;
        if answer != message {
            return Err(Stop::Failed(format!("{answer:?} instead of {message:?}")));
        }
    }
    Ok(())
}

fn caps(env: &Env, at: u64, count: u64) -> Result<(), Stop> {
    let elsewhere = at != u64::from(env.info().core);
    let mut connection = bind(&format!("serve.{at}"))?;
    let accepts = Accepts::kinds_below(Kind(FRAME.0 + 1)).with_capabilities(1);
    let mut channel: Channel<RPC_LINES> = connection.channel(accepts)?;
    if count == FOREVER {
        tell_met(env)?;
    }
    for number in 0..count {
        let frame = memory::allocate(ObjType::Frame, PAGE_SIZE)?;
        let page = Page::map(frame.cap)?;
        page.set(0, number);
        channel.send_with_cap(&Message::new(FRAME, [number]), frame.cap, Deadline::NEVER)?;
        channel.recv_blocking(Deadline::NEVER)?;
        if page.get(1) != !number {
            return Err(Stop::Failed(format!("frame {number} came back with {:#x}", page.get(1))));
        }
        drop(page);
        let refused = syscall::cap_revoke(task::ROOT, frame.cap) == Err(lmp::SysError::RetryThroughMonitor);
        if refused != elsewhere {
            let why = "only a frame with copies on another core needs the monitor to be revoked";
            return Err(Stop::Failed(String::from(why)));
        }
        monitor::revoke_remote(frame.cap)?;
        memory::free(frame)?;
    }
    Ok(())
}

/// A page that is shared with another domain.
struct Page {
    mapped: Option<memory::Mapped>,
}

impl Page {
    fn map(frame: CPtr) -> Result<Page, String> {
        let mapped = memory::map(frame, 0, PAGE_SIZE, MapFlags::READ | MapFlags::WRITE).map_err(text)?;
        Ok(Page { mapped: Some(mapped) })
    }

    fn word(&self, index: usize) -> *mut u64 {
        assert!(index < 512);
        self.mapped.as_ref().map_or(core::ptr::null_mut(), |m| m.as_ptr::<u64>().wrapping_add(index))
    }

    fn get(&self, index: usize) -> u64 {
        // SAFETY: the page is mapped as long as this lives, the word is within it; volatile, since another domain
        // writes it too.
        unsafe { self.word(index).read_volatile() }
    }

    fn set(&self, index: usize, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.word(index).write_volatile(value) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(mapped) = self.mapped.take() {
            // SAFETY: nothing refers to the page but this.
            unsafe { memory::unmap(mapped) };
        }
    }
}
