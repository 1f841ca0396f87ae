//! [`Server`]: moves messages between the domains of the core, its `init`, the other monitors, and the library's
//! [`Monitor`], and blocks when there are none.

use core::fmt;

use lmp::{CPtr, ObjType, SysError, syscall};
use monitor::handover::slot;
use monitor::protocol::Outcome;
use monitor::wire::FIRST_KIND;
use monitor::{Event, Monitor, OWN_ENTRY};
use results::{Event as ResultEvent, EventKind};
use runtime::endpoint::{Caps, Endpoint, EndpointError, Received};
use runtime::events::{self, Deadline};
use runtime::memory::{self, MemoryError};
use runtime::waitset::Waitset;
use runtime::{output, println, vector};
use ump::Message;

use crate::machine::Machine;
use crate::peers::{Greeting, Peer};

/// Messages that wait while the monitor does something else. Calls are not among them: callers queue up.
const MESSAGES: u32 = 32;
/// Messages of one other monitor, and calls, that are taken before others get their turn.
const PORTION: usize = 32;
/// Milliseconds between two attempts to deliver what found no room.
const RETRY_MS: u64 = 1;

/// Why the monitor cannot work.
pub(crate) enum Failure {
    /// Memory, slots or addresses.
    Memory(MemoryError),
    /// The endpoint for calls.
    Endpoint(EndpointError),
    /// The CPU driver refused.
    Refused(&'static str, SysError),
    /// The core was told to start and never ran.
    NeverRan,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Memory(error) => error.fmt(f),
            Failure::Endpoint(error) => error.fmt(f),
            Failure::Refused(operation, cause) => write!(f, "{operation} was refused: {cause}"),
            Failure::NeverRan => f.write_str("it does not answer INIT and SIPI"),
        }
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Failure::Memory(error)
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        Failure::Endpoint(error)
    }
}

fn refused(operation: &'static str) -> impl Fn(SysError) -> Failure {
    move |cause| Failure::Refused(operation, cause)
}

/// A notification that interrupt `vector` signals and that raises `event`.
pub(crate) fn listen(vector: u8, event: events::Event) -> Result<CPtr, Failure> {
    let notification = memory::allocate(ObjType::Notification, 0)?.cap;
    events::bind(notification, event).map_err(refused("binding a notification"))?;
    syscall::irq_bind(slot::IRQ, u64::from(vector), notification).map_err(refused("binding an interrupt"))?;
    Ok(notification)
}

/// Lets `vector` come again and fetches what it said: nothing more is lost if messages are looked for after.
pub(crate) fn rearm(vector: u8, notification: CPtr) {
    let _ = syscall::irq_ack(slot::IRQ, u64::from(vector));
    let _ = syscall::notification_poll(notification);
}

/// The monitor of this core at work.
pub(crate) struct Server {
    monitor: Monitor,
    pub(crate) machine: Machine,
    endpoint: Endpoint,
    set: Waitset,
    /// What the interrupt of the first core's channels signals, and what links do.
    looks: [CPtr; 2],
}

impl Server {
    pub(crate) fn new(core: u32) -> Result<Server, Failure> {
        let machine = Machine::new(core)?;
        let look = events::allocate().ok_or(MemoryError::OutOfEvents)?;
        let rung = listen(vector::MONITOR, look)?;
        let signalled = memory::allocate(ObjType::Notification, 0)?.cap;
        events::bind(signalled, look).map_err(refused("binding a notification"))?;
        machine.set_entry(OWN_ENTRY, signalled).map_err(refused("filling the table of notifications"))?;
        let endpoint = Endpoint::adopt(slot::ENDPOINT, MESSAGES, Caps::Accepted)?;
        let mut set = Waitset::new();
        set.add(&endpoint);
        set.add(look);
        Ok(Server { monitor: Monitor::new(core), machine, endpoint, set, looks: [rung, signalled] })
    }

    /// The table that the links of other cores signal.
    pub(crate) fn table(&self) -> CPtr {
        self.machine.table()
    }

    /// There is a channel to the first core's monitor, which is told so first.
    pub(crate) fn greet(&mut self, core: u32, mut peer: Peer, hello: &Message) {
        // The channel is fresh: there is room.
        peer.send(hello);
        self.machine.peers.insert(core, peer);
        self.step(Event::Up { core });
        self.machine.wake_peers();
    }

    fn step(&mut self, event: Event) {
        self.monitor.step(&mut self.machine, event);
    }

    /// Does what there is to do, and waits for more.
    pub(crate) fn turn(&mut self) {
        self.turn_until(Deadline::NEVER);
    }

    /// [`Self::turn`], waiting no longer than `deadline`; false if that passed.
    pub(crate) fn turn_until(&mut self, deadline: Deadline) -> bool {
        self.work();
        let retry = if self.monitor.wants_retry() { Deadline::after_ms(RETRY_MS) } else { Deadline::NEVER };
        if self.set.wait(deadline.min(retry)).is_none() {
            if deadline.has_passed() {
                return false;
            }
            self.step(Event::Retry);
        }
        self.work();
        true
    }

    /// Takes everything that has come.
    pub(crate) fn work(&mut self) {
        loop {
            // Before looking: what comes while this looks rings again.
            let [rung, signalled] = self.looks;
            rearm(vector::MONITOR, rung);
            let _ = syscall::notification_poll(signalled);
            let mut taken = 0;
            let mut next = 0;
            while let Some((&core, _)) = self.machine.peers.range(next..).next() {
                taken += self.hear(core);
                next = core + 1;
            }
            for _ in 0..PORTION {
                match self.endpoint.try_receive() {
                    Ok(Some(received)) => self.receive(received),
                    Ok(None) => break,
                    Err(error) => {
                        println!("monitor: {error}");
                        break;
                    }
                }
                taken += 1;
            }
            self.machine.wake_peers();
            if taken == 0 {
                return;
            }
        }
    }

    /// Takes a portion of what the monitor of `core` says; how many messages.
    fn hear(&mut self, core: u32) -> usize {
        for taken in 0..PORTION {
            let Some(peer) = self.machine.peers.get_mut(&core) else { return taken };
            let message = match peer.endpoint.try_recv() {
                Ok(Some(message)) => message,
                Ok(None) => return taken,
                Err(violation) => {
                    if !core::mem::replace(&mut peer.lost, true) {
                        println!("core {core}: the channel to its monitor is lost: {violation}");
                        self.step(Event::Lost { core });
                    }
                    return taken;
                }
            };
            if message.kind().0 < FIRST_KIND {
                self.greeted(core, &message);
            } else if self.is_up(core) {
                self.step(Event::Message { core, message });
            }
        }
        PORTION
    }

    fn is_up(&self, core: u32) -> bool {
        self.machine.peers.get(&core).is_some_and(|peer| match &peer.greeting {
            Greeting::Leader(leader) => leader.is_up(),
            Greeting::Member(_) | Greeting::Introduced => true,
        })
    }

    fn greeted(&mut self, core: u32, message: &Message) {
        let Some(peer) = self.machine.peers.get_mut(&core) else { return };
        match &mut peer.greeting {
            Greeting::Leader(leader) => match leader.step(message) {
                Outcome::Up => {
                    println!("core {core} up");
                    output::record(ResultEvent::new(EventKind::MonitorUp).core(core));
                    self.step(Event::Up { core });
                }
                Outcome::Refused(refusal) => println!("core {core}: {refusal}"),
                Outcome::Answered | Outcome::Ignored => {}
            },
            Greeting::Member(member) => {
                if let Some(answer) = member.step(message) {
                    peer.send(&answer);
                }
            }
            Greeting::Introduced => {}
        }
    }

    fn receive(&mut self, received: Received) {
        let Received { badge, words, cap, reply } = received;
        let words = *words.padded();
        let event = match (badge, reply) {
            (0, None) if cap.is_none() => Event::Report { words },
            (0, _) | (_, None) => Event::Stray { cap },
            (domain, Some(reply)) => Event::Call { domain, call: self.machine.received(reply), words, cap },
        };
        self.step(event);
    }
}
