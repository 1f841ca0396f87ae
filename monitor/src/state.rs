//! [`Monitor`]: the state of one core's monitor, and [`Monitor::step`], which takes one event further.
//!
//! What a step does to the machine goes through a [`Port`]. A monitor never waits: what another monitor, `init` or
//! a domain has to say comes as an event of its own, and what a step started is found again by its number. Numbers
//! are never used twice, so an answer that comes late or twice finds nothing; it is counted and ignored.

use alloc::collections::{BTreeMap, VecDeque};

use lmp::CPtr;
use runtime::interface::monitor::MonitorError;
use runtime::interface::spawn::Report;
use ump::Message;

use crate::binding::Connection;
use crate::channels::Hold;
use crate::domains::{Domain, Service};
use crate::first::First;
use crate::mesh::Peer;
use crate::passing::{Foreign, Job, Record};
use crate::port::{CallId, Ending, Port};
use crate::spawning::Child;
use crate::table::Entries;
use crate::wire::Intermon;

/// The core that all others have a channel to from the start, and whose monitor speaks with the knowledge base.
pub const FIRST_CORE: u32 = 0;

/// Words of a call or a report.
pub const WORDS: usize = lmp::invocation::MessageInfo::WORDS_MAX;

/// What can happen to a monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A domain calls.
    Call {
        /// Its number.
        domain: u64,
        /// The call, to be answered once.
        call: CallId,
        /// Its words.
        words: [u64; WORDS],
        /// The capability that came along.
        cap: Option<CPtr>,
    },
    /// Something came that is no call, though it should be.
    Stray {
        /// The capability that came along.
        cap: Option<CPtr>,
    },
    /// `init` reports.
    Report {
        /// Its words.
        words: [u64; WORDS],
    },
    /// The monitor of a core says something.
    Message {
        /// The core.
        core: u32,
        /// What it says.
        message: Message,
    },
    /// There is a channel to the monitor of a core from the start: between the first core and each other.
    Up {
        /// The core.
        core: u32,
    },
    /// The monitor of a core broke the protocol of its channel: there is none any more.
    Lost {
        /// The core.
        core: u32,
    },
    /// What could not be delivered is to be tried again.
    Retry,
}

/// What was not done because it made no sense, and what came too late.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ignored {
    /// Messages of monitors that are none of the table, or are for the first core only.
    pub unknown: u64,
    /// Messages about something that is not, or not any more.
    pub stale: u64,
    /// Messages of domains that are no calls.
    pub strays: u64,
    /// Reports of `init` that make no sense.
    pub reports: u64,
}

/// What a request to another monitor was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To name a service.
    Register,
    /// To find one.
    Lookup,
    /// To learn about a core.
    Core,
    /// To learn about the memory of a node.
    Memory,
    /// To start a domain.
    Spawn,
    /// To pass a capability over this connection.
    Transfer {
        /// The connection.
        connection: u64,
    },
}

/// A request to another monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    /// The domain that waits for it.
    pub(crate) domain: u64,
    /// The call to answer.
    pub(crate) call: CallId,
    /// Who is asked.
    pub(crate) core: u32,
    /// Who may answer as well.
    pub(crate) or_core: u32,
    /// What for.
    pub(crate) purpose: Purpose,
}

/// The most of everything, so that nobody can make a monitor grow without end.
pub mod limit {
    /// Domains that speak with a monitor.
    pub const DOMAINS: usize = 256;
    /// Services of a core.
    pub const SERVICES: usize = 512;
    /// Services of a domain.
    pub const SERVICES_PER_DOMAIN: usize = 64;
    /// Connections of a core, counting both ends of one within it.
    pub const CONNECTIONS: usize = 2048;
    /// Connections of a domain.
    pub const CONNECTIONS_PER_DOMAIN: usize = 640;
    /// Requests to other monitors under way.
    pub const REQUESTS: usize = 512;
    /// Started domains that a domain did not wait for.
    pub const HANDLES_PER_DOMAIN: usize = 640;
    /// Frames of a core that have copies on others.
    pub const RECORDS: usize = 1024;
    /// Frames of other cores that were passed to a core.
    pub const FOREIGN: usize = 1024;
    /// Capabilities passed over a connection and not taken.
    pub const INBOX: usize = 16;
    /// Notices that a domain did not read.
    pub const NOTICES: usize = 64;
    /// Times that delivering notices to a domain is tried in vain before its connections are closed.
    pub const ATTEMPTS: u32 = 1000;
    /// First core: channels.
    pub const CHANNELS: usize = 16384;
    /// First core: look-ups that wait for a name.
    pub const LOOKUPS: usize = 1024;
    /// First core: names.
    pub const NAMES: usize = 1024;
}

/// The monitor of one core.
#[derive(Debug)]
pub struct Monitor {
    pub(crate) core: u32,
    next: u64,
    pub(crate) ignored: Ignored,
    /// Messages to this core's own monitor: what concerns one core goes the way of what concerns two.
    own: VecDeque<Intermon>,
    pub(crate) peers: BTreeMap<u32, Peer>,
    pub(crate) requests: BTreeMap<u64, Request>,
    pub(crate) domains: BTreeMap<u64, Domain>,
    pub(crate) services: BTreeMap<u32, Service>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) holds: BTreeMap<u64, Hold>,
    pub(crate) entries: Entries,
    pub(crate) records: BTreeMap<u64, Record>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) foreign: alloc::vec::Vec<Foreign>,
    /// Domains being started, by the number of the order, for whom.
    pub(crate) starting: BTreeMap<u32, Child>,
    /// Domains whose arguments have not come yet.
    pub(crate) announced: BTreeMap<Child, [u64; 5]>,
    /// Domains that another asked for.
    pub(crate) children: BTreeMap<u64, Child>,
    /// Orders that found no room.
    pub(crate) orders: VecDeque<[u64; WORDS]>,
    /// Domains that do not read their notices.
    pub(crate) deaf: alloc::vec::Vec<u64>,
    pub(crate) first: Option<First>,
}

impl Monitor {
    /// The monitor of `core`, which knows nobody.
    pub fn new(core: u32) -> Monitor {
        Monitor {
            core,
            next: 1,
            ignored: Ignored::default(),
            own: VecDeque::new(),
            peers: BTreeMap::new(),
            requests: BTreeMap::new(),
            domains: BTreeMap::new(),
            services: BTreeMap::new(),
            connections: BTreeMap::new(),
            holds: BTreeMap::new(),
            entries: Entries::new(),
            records: BTreeMap::new(),
            jobs: BTreeMap::new(),
            foreign: alloc::vec::Vec::new(),
            starting: BTreeMap::new(),
            announced: BTreeMap::new(),
            children: BTreeMap::new(),
            orders: VecDeque::new(),
            deaf: alloc::vec::Vec::new(),
            first: (core == FIRST_CORE).then(First::default),
        }
    }

    /// The core.
    pub fn core(&self) -> u32 {
        self.core
    }

    /// What was ignored.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// Whether something waits for [`Event::Retry`].
    pub fn wants_retry(&self) -> bool {
        !self.orders.is_empty()
            || self.domains.values().any(Domain::has_notices)
            || self.peers.values().any(Peer::has_unsent)
    }

    /// Whether nothing is known about any domain, connection or passed frame: as at the start.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
            && self.domains.is_empty()
            && self.services.is_empty()
            && self.connections.is_empty()
            && self.holds.is_empty()
            && self.entries.in_use() == 0
            && self.records.is_empty()
            && self.jobs.is_empty()
            && self.starting.is_empty()
            && self.announced.is_empty()
            && self.children.is_empty()
            && !self.wants_retry()
            && self.first.as_ref().is_none_or(First::is_idle)
    }

    /// Takes `event` further.
    pub fn step<P: Port>(&mut self, port: &mut P, event: Event) {
        match event {
            Event::Call { domain, call, words, cap } => self.call(port, domain, call, &words, cap),
            Event::Stray { cap } => {
                self.ignored.strays += 1;
                if let Some(cap) = cap {
                    port.delete(cap);
                }
            }
            Event::Report { words } => self.report(port, &words),
            Event::Message { core, message } => match Intermon::decode(&message) {
                Some(message) if core != self.core => self.message(port, core, message),
                _ => self.ignored.unknown += 1,
            },
            Event::Up { core } => self.up(port, core),
            Event::Lost { core } => self.lost(port, core),
            Event::Retry => self.retry(port),
        }
        loop {
            if let Some(message) = self.own.pop_front() {
                self.message(port, self.core, message);
            } else if let Some(domain) = self.deaf.pop() {
                self.close_all(port, domain);
            } else {
                break;
            }
        }
    }

    /// A number that was never used at this monitor.
    pub(crate) fn fresh(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Says something to the monitor of `core`, perhaps this one.
    pub(crate) fn tell<P: Port>(&mut self, port: &mut P, core: u32, message: Intermon) {
        if core == self.core {
            self.own.push_back(message);
        } else {
            self.tell_peer(port, core, message);
        }
    }

    /// Asks the monitor of `core` what `message` says, given the request's number.
    pub(crate) fn ask<P: Port>(
        &mut self,
        port: &mut P,
        request: Request,
        message: impl FnOnce(u64) -> Intermon,
    ) -> Result<u64, MonitorError> {
        if self.requests.len() >= limit::REQUESTS {
            return Err(MonitorError::Exhausted);
        }
        let number = self.fresh();
        self.requests.insert(number, request);
        self.tell(port, request.core, message(number));
        Ok(number)
    }

    /// The request `number` that `core` may answer and that `fits`, which is over with that.
    fn answered(&mut self, number: u64, core: u32, fits: impl FnOnce(Purpose) -> bool) -> Option<Request> {
        let request = self.requests.get(&number).copied();
        let found = request.filter(|r| (r.core == core || r.or_core == core) && fits(r.purpose));
        match found {
            Some(_) => {
                self.requests.remove(&number);
            }
            None => self.ignored.stale += 1,
        }
        found
    }

    fn report<P: Port>(&mut self, port: &mut P, words: &[u64; WORDS]) {
        let [method, number, a, b, c, d, ..] = *words;
        match Report::from_code(method) {
            Some(Report::Spawned) => self.spawned(port, number, a),
            Some(Report::Ended) => self.domain_ended(port, number, Ending { cause: a, detail: b }, (c, d)),
            None => self.ignored.reports += 1,
        }
    }

    fn message<P: Port>(&mut self, port: &mut P, core: u32, message: Intermon) {
        use Intermon as M;
        // What this monitor says to itself is as good as what the first core's says.
        let from_first = core == FIRST_CORE || core == self.core;
        match message {
            M::MeshOffer { peer, base, side, apic } if from_first => {
                self.offered_mesh(port, peer, base, side, apic);
            }
            M::MeshRefused { peer, error } if from_first => {
                self.unreachable(port, peer as u32, error_of(error))
            }
            M::Bind { from, service, form, pool, seed, wake } => {
                self.bound_to(port, (core, from), service, form, pool, seed, wake);
            }
            M::Accepted { to, from, wake } => self.accepted(port, core, to, from, wake),
            M::Refused { to, error } => self.refused(port, core, to, error_of(error)),
            M::Gone { to, from, reason } => self.peer_gone(port, core, to, from, reason),
            M::Grant { to, peer, channel, layout, piece, forward, backward } if from_first => {
                self.granted(port, to, peer, channel, layout, piece, [forward, backward]);
            }
            M::Pieces { to, channel, first, homes } if from_first => {
                self.pieces(port, to, channel, first, homes);
            }
            M::GrantRefused { to, error } if from_first => self.grant_refused(port, to, error_of(error)),
            M::Transfer { request, base, size, rights, core: to_core, to } => {
                self.transfer(port, (core, request), base, size, rights, (to_core, to));
            }
            M::Deliver { to, base, size, rights, core: sender, request } => {
                self.delivered(port, core, to, base, size, rights, (sender, request));
            }
            M::Revoke { record, base, size } => self.revoke_copies(port, core, record, base, size),
            M::Revoked { record } => self.revoked(port, core, record),
            M::Spawn { request, kib, module } => self.announce(port, (core, request), kib, module),
            M::SpawnArgs { request, args } => self.start(port, (core, request), args),
            M::Kill { request } => self.kill_child(port, (core, request)),
            M::Ended { request, cause, detail } => {
                self.child_ended(port, core, request, Ending { cause, detail });
            }
            M::CoreIs { request, up, core: about, node, apic, nodes } if from_first => {
                if let Some(r) = self.answered(request, core, |p| p == Purpose::Core) {
                    port.answer(r.call, &[0, up, about, node, apic, nodes], None);
                }
            }
            M::MemoryIs { request, free, all } if from_first => {
                if let Some(r) = self.answered(request, core, |p| p == Purpose::Memory) {
                    port.answer(r.call, &[0, free, all], None);
                }
            }
            M::Done { request, value } => self.done(port, core, request, value),
            M::Failed { request, error } => {
                if let Some(r) = self.answered(request, core, |_| true) {
                    self.conclude(port, r, Err(error_of(error)));
                }
            }
            _ => self.message_to_first(port, core, message),
        }
    }

    fn done<P: Port>(&mut self, port: &mut P, core: u32, request: u64, value: u64) {
        if let Some(r) = self.answered(request, core, |p| !matches!(p, Purpose::Core | Purpose::Memory)) {
            match r.purpose {
                Purpose::Spawn => self.child_started(port, r, request, value),
                _ => self.conclude(port, r, Ok(value)),
            }
        }
    }

    /// Answers the call that a request was made for.
    pub(crate) fn conclude<P: Port>(
        &mut self,
        port: &mut P,
        request: Request,
        result: Result<u64, MonitorError>,
    ) {
        if let Purpose::Transfer { connection } = request.purpose
            && let Some(connection) = self.connections.get_mut(&connection)
        {
            connection.passing = None;
        }
        match result {
            Ok(value) => port.answer(request.call, &[0, value], None),
            Err(error) => port.answer(request.call, &[error as u64], None),
        }
    }
}

/// The error that a monitor sent; one that it may not send counts as malformed.
pub(crate) fn error_of(code: u64) -> MonitorError {
    MonitorError::from_code(code).unwrap_or(MonitorError::BadRequest)
}
