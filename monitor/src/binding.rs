//! Connections: how two ends come together, and how they part.
//!
//! | end | state | waits for | then |
//! |---|---|---|---|
//! | client | binding | the service's word, and memory from the first core | open: the bind is answered |
//! | server | offered | its domain to accept or refuse | placing |
//! | server | placing | memory from the first core | open: the accept is answered |
//! | either | open | nothing | its domain closes it or ends |
//!
//! Each end is told once when the other is gone, whatever state that was in, and forgets itself when its own domain
//! is done with it: two ends never wait for each other to part.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use lmp::{CPtr, ObjType, Rights};
use runtime::interface::monitor::{CONSUMER, ConnectionInfo, Iref, LINES, MonitorError, Notice, Part};

use crate::channels::{Grant, Home, Layout};
use crate::domains::{Gift, Reply};
use crate::passing::Passed;
use crate::port::{CallId, Port};
use crate::state::{FIRST_CORE, Monitor, WORDS, limit};
use crate::wire::Intermon;

/// The shape of a connection, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// Lines of each ring, one of [`LINES`].
    pub lines: u64,
    /// The code of the policy.
    pub policy: u8,
    /// Whether the client is the consumer.
    pub client_consumes: bool,
}

impl Form {
    const CLIENT_CONSUMES: u64 = 1 << 40;

    /// As a word.
    pub const fn encode(self) -> u64 {
        let consumes = if self.client_consumes { Self::CLIENT_CONSUMES } else { 0 };
        self.lines | (self.policy as u64) << 32 | consumes
    }

    /// From a word; `None` if it is none.
    pub fn decode(word: u64) -> Option<Form> {
        let form = Form {
            lines: word & 0xffff_ffff,
            policy: (word >> 32) as u8,
            client_consumes: word & Self::CLIENT_CONSUMES != 0,
        };
        (LINES.contains(&form.lines) && form.encode() == word).then_some(form)
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Other {
    /// Its core.
    pub(crate) core: u32,
    /// Its number there, once known.
    pub(crate) connection: Option<u64>,
}

/// Where an end stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The client waits for service and memory.
    Binding {
        /// The call to answer.
        call: CallId,
    },
    /// The service was told of the client.
    Offered,
    /// The server waits for memory.
    Placing {
        /// The call to answer.
        call: CallId,
    },
    /// Both the domain and its peer's may use it.
    Open,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) domain: u64,
    pub(crate) peer: Other,
    pub(crate) form: Form,
    pool: u64,
    seed: u64,
    is_client: bool,
    state: State,
    /// Whether the service's word has come.
    service_spoke: bool,
    /// The entry of the table with this end's notification.
    entry: Option<u8>,
    /// The entry of the peer's table plus 1, or 0 if it does not sleep.
    wake: u64,
    /// What signals the peer.
    notifier: Option<CPtr>,
    pub(crate) grant: Option<Grant>,
    /// Whether the other end is gone.
    pub(crate) peer_gone: bool,
    /// Capabilities that the peer passed.
    pub(crate) inbox: VecDeque<Passed>,
    /// The call that waits for one.
    pub(crate) taker: Option<CallId>,
    /// The request that passes one to the peer.
    pub(crate) passing: Option<u64>,
}

impl Connection {
    fn new(domain: u64, peer: Other, form: Form, pool: u64, seed: u64, state: State) -> Connection {
        Connection {
            domain,
            peer,
            form,
            pool,
            seed,
            is_client: matches!(state, State::Binding { .. }),
            state,
            service_spoke: false,
            entry: None,
            wake: 0,
            notifier: None,
            grant: None,
            peer_gone: false,
            inbox: VecDeque::new(),
            taker: None,
            passing: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Which frame of the channel each end writes: the producer's outbox is the forward one, frame 0.
    fn own_outbox(&self) -> usize {
        usize::from(!self.is_producer())
    }

    fn is_producer(&self) -> bool {
        self.is_client != self.form.client_consumes
    }

    fn info(&self, number: u64) -> ConnectionInfo {
        let (pieces, piece, homes) = match &self.grant {
            Some(grant) => {
                let [forward, backward] = grant.outboxes.map(Home::node);
                (grant.layout.pieces, grant.piece, [grant.layout.data_node, forward, backward])
            }
            None => (0, 0, [0; 3]),
        };
        ConnectionInfo {
            connection: number,
            peer: self.peer.core,
            lines: self.form.lines,
            pool: piece * u64::from(pieces),
            pieces,
            producer: self.is_producer(),
            peer_sleeps: self.wake != 0,
            homes,
        }
    }
}

/// Whether an end is about to hear that the other is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Farewell {
    /// Its domain closed the connection.
    Closed,
    /// Its domain ended.
    Ended,
}

impl Monitor {
    /// A domain connects to a service.
    pub(crate) fn bind<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        call: CallId,
        words: &[u64; WORDS],
        gift: &mut Gift,
    ) -> Result<Reply, MonitorError> {
        let [_, iref, lines, pool, policy, seed, ..] = *words;
        let bad = MonitorError::BadArgument;
        let code = u8::try_from(policy & !CONSUMER).map_err(|_| bad)?;
        skb::Policy::from_code(code).ok_or(bad)?;
        let form = Form { lines, policy: code, client_consumes: policy & CONSUMER != 0 };
        let form = Form::decode(form.encode()).filter(|f| *f == form).ok_or(bad)?;
        self.room_for_connection(domain)?;
        let iref = Iref(iref);
        let entry = self.wire(port, gift)?;
        let number = self.fresh();
        let peer = Other { core: iref.core(), connection: None };
        let wake = entry.map_or(0, |e| u64::from(e) + 1);
        let state = State::Binding { call };
        let connection = Connection { entry, ..Connection::new(domain, peer, form, pool, seed, state) };
        self.connections.insert(number, connection);
        let service = u64::from(iref.number());
        self.tell(
            port,
            iref.core(),
            Intermon::Bind { from: number, service, form: form.encode(), pool, seed, wake },
        );
        Ok(Reply::Later)
    }

    /// Puts the notification that came along, if one did, into the table.
    fn wire<P: Port>(&mut self, port: &mut P, gift: &mut Gift) -> Result<Option<u8>, MonitorError> {
        let Some(cap) = gift.get() else { return Ok(None) };
        let identity = port.identify(cap).ok_or(MonitorError::BadCapability)?;
        if identity.ty != ObjType::Notification || !identity.memory.rights.contains(Rights::WRITE) {
            return Err(MonitorError::BadCapability);
        }
        let entry = self.entries.take().ok_or(MonitorError::Exhausted)?;
        match port.listen(entry, cap) {
            Ok(()) => {
                gift.take();
                Ok(Some(entry))
            }
            Err(error) => {
                self.entries.give_back(entry);
                Err(error)
            }
        }
    }

    fn unwire<P: Port>(&mut self, port: &mut P, entry: Option<u8>) {
        if let Some(entry) = entry {
            port.unlisten(entry);
            self.entries.give_back(entry);
        }
    }

    fn room_for_connection(&self, domain: u64) -> Result<(), MonitorError> {
        let own = self.connections.values().filter(|c| c.domain == domain).count();
        if self.connections.len() >= limit::CONNECTIONS || own >= limit::CONNECTIONS_PER_DOMAIN {
            return Err(MonitorError::Exhausted);
        }
        Ok(())
    }

    /// A client on `from.0` binds to a service here.
    #[expect(clippy::too_many_arguments, reason = "the fields of a message")]
    pub(crate) fn bound_to<P: Port>(
        &mut self,
        port: &mut P,
        from: (u32, u64),
        service: u64,
        form: u64,
        pool: u64,
        seed: u64,
        wake: u64,
    ) {
        if let Err(error) = self.offer(port, from, service, form, pool, seed, wake) {
            self.tell(port, from.0, Intermon::Refused { to: from.1, error: error as u64 });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a message")]
    fn offer<P: Port>(
        &mut self,
        port: &mut P,
        (core, from): (u32, u64),
        service: u64,
        form: u64,
        pool: u64,
        seed: u64,
        wake: u64,
    ) -> Result<(), MonitorError> {
        let form = Form::decode(form).ok_or(MonitorError::BadArgument)?;
        if wake > 1 << u8::BITS {
            return Err(MonitorError::BadArgument);
        }
        let number = u32::try_from(service).map_err(|_| MonitorError::NotFound)?;
        let domain = self.services.get(&number).ok_or(MonitorError::NotFound)?.domain;
        self.room_for_connection(domain)?;
        let connection = self.fresh();
        let peer = Other { core, connection: Some(from) };
        let end = Connection { wake, ..Connection::new(domain, peer, form, pool, seed, State::Offered) };
        self.connections.insert(connection, end);
        let iref = Iref::new(self.core, number);
        let consumes = u64::from(form.client_consumes);
        let notice =
            [Notice::Incoming as u64, iref.0, connection, u64::from(core), form.lines, pool, consumes];
        self.notify(port, domain, notice);
        Ok(())
    }

    /// A service accepts.
    pub(crate) fn accept<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        call: CallId,
        number: u64,
        gift: &mut Gift,
    ) -> Result<Reply, MonitorError> {
        let connection = self.own_connection(domain, number)?;
        if connection.state != State::Offered {
            return Err(MonitorError::WrongState);
        }
        let Other { core, connection: peer } = connection.peer;
        let (form, pool, seed) = (connection.form.encode(), connection.pool, connection.seed);
        let peer = peer.ok_or(MonitorError::NotFound)?;
        let entry = self.wire(port, gift)?;
        let connection = self.own_connection(domain, number)?;
        connection.entry = entry;
        connection.state = State::Placing { call };
        let wake = entry.map_or(0, |e| u64::from(e) + 1);
        self.tell(port, core, Intermon::Accepted { to: peer, from: number, wake });
        let ask = Intermon::ChannelAsk {
            server: number,
            client_core: u64::from(core),
            client: peer,
            form,
            pool,
            seed,
        };
        self.tell(port, FIRST_CORE, ask);
        Ok(Reply::Later)
    }

    /// A service refuses.
    pub(crate) fn refuse<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        number: u64,
    ) -> Result<Reply, MonitorError> {
        if self.own_connection(domain, number)?.state != State::Offered {
            return Err(MonitorError::WrongState);
        }
        self.part(port, number, Farewell::Closed);
        Ok(Reply::DONE)
    }

    /// A domain is done with a connection.
    pub(crate) fn close<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        number: u64,
    ) -> Result<Reply, MonitorError> {
        if !self.own_connection(domain, number)?.is_open() {
            return Err(MonitorError::WrongState);
        }
        self.part(port, number, Farewell::Closed);
        Ok(Reply::DONE)
    }

    /// A domain fetches a capability of a connection.
    pub(crate) fn take<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        words: &[u64; WORDS],
    ) -> Result<Reply, MonitorError> {
        let [_, number, part, piece, ..] = *words;
        let part = Part::from_code(part).ok_or(MonitorError::BadArgument)?;
        let connection = self.connections.get(&number).filter(|c| c.domain == domain);
        let connection = connection.ok_or(MonitorError::NotFound)?;
        if !connection.is_open() {
            return Err(MonitorError::WrongState);
        }
        let own = connection.own_outbox();
        let (index, rights) = match part {
            Part::Own => (own, Rights::READ | Rights::WRITE),
            Part::Peer => (1 - own, Rights::READ),
            Part::Pool => {
                let piece = usize::try_from(piece).ok().filter(|p| *p < usize::from(u8::MAX));
                (2 + piece.ok_or(MonitorError::BadArgument)?, Rights::READ | Rights::WRITE)
            }
            Part::Notifier => {
                let notifier = connection.notifier.ok_or(MonitorError::NotFound)?;
                let copy = port.copy(notifier, Rights::WRITE)?;
                return Ok(Reply::Words([0; 5], Some(copy)));
            }
        };
        let grant = connection.grant.as_ref().ok_or(MonitorError::WrongState)?;
        let home = grant.home(index).ok_or(MonitorError::NotFound)?;
        let hold = self.holds.get(&grant.channel).ok_or(MonitorError::WrongState)?;
        let frame = hold.frames.get(index).ok_or(MonitorError::NotFound)?;
        let copy = port.copy(*frame, rights)?;
        Ok(Reply::Words([u64::from(home.node()), home.base(), 0, 0, 0], Some(copy)))
    }

    /// The connection `number` of `domain`.
    pub(crate) fn own_connection(
        &mut self,
        domain: u64,
        number: u64,
    ) -> Result<&mut Connection, MonitorError> {
        self.connections.get_mut(&number).filter(|c| c.domain == domain).ok_or(MonitorError::NotFound)
    }

    /// The service of connection `to` accepted.
    pub(crate) fn accepted<P: Port>(&mut self, port: &mut P, core: u32, to: u64, from: u64, wake: u64) {
        let connection = self.connections.get_mut(&to);
        let waits = |c: &&mut Connection| {
            c.peer.core == core && c.is_client && c.peer.connection.is_none_or(|p| p == from)
        };
        match connection.filter(waits) {
            Some(connection)
                if matches!(connection.state, State::Binding { .. }) && wake <= 1 << u8::BITS =>
            {
                connection.peer.connection = Some(from);
                connection.wake = wake;
                self.try_open(port, to, Heard::Service);
            }
            _ => self.ignored.stale += 1,
        }
    }

    /// The service of connection `to` refused, or there is none.
    pub(crate) fn refused<P: Port>(&mut self, port: &mut P, core: u32, to: u64, error: MonitorError) {
        match self.connections.get(&to) {
            Some(c) if c.peer.core == core && matches!(c.state, State::Binding { .. }) => {
                self.fail_connection(port, to, error);
            }
            _ => self.ignored.stale += 1,
        }
    }

    /// There is memory for connection `to`.
    #[expect(clippy::too_many_arguments, reason = "the fields of a message")]
    pub(crate) fn granted<P: Port>(
        &mut self,
        port: &mut P,
        to: u64,
        peer: u64,
        channel: u64,
        layout: u64,
        piece: u64,
        outboxes: [u64; 2],
    ) {
        let Some(layout) = Layout::decode(layout) else {
            self.ignored.unknown += 1;
            return;
        };
        let outboxes = outboxes.map(Home);
        let grant = Grant { channel, layout, piece, outboxes, pieces: Vec::new(), held: false };
        let waits = |c: &&mut Connection| {
            matches!(c.state, State::Binding { .. } | State::Placing { .. })
                && c.grant.is_none()
                && c.is_client == (layout.end == 0)
        };
        match self.connections.get_mut(&to).filter(waits) {
            Some(connection) => {
                if connection.is_client {
                    connection.peer.connection = Some(peer);
                }
                connection.grant = Some(grant);
                self.try_open(port, to, Heard::Memory);
            }
            None => {
                // The domain went meanwhile. The memory goes back.
                self.ignored.stale += 1;
                self.release(port, &grant);
            }
        }
    }

    /// Where further pieces of the pool of connection `to` are.
    pub(crate) fn pieces<P: Port>(
        &mut self,
        port: &mut P,
        to: u64,
        channel: u64,
        first: u64,
        homes: [u64; 4],
    ) {
        let grant = self.connections.get_mut(&to).and_then(|c| c.grant.as_mut());
        match grant.filter(|g| g.channel == channel && g.pieces.len() as u64 == first && !g.is_complete()) {
            Some(grant) => {
                let missing = usize::from(grant.layout.pieces) - grant.pieces.len();
                grant.pieces.extend(homes.into_iter().take(missing).map(Home));
                self.try_open(port, to, Heard::Memory);
            }
            None => self.ignored.stale += 1,
        }
    }

    /// There is no memory for connection `to`.
    pub(crate) fn grant_refused<P: Port>(&mut self, port: &mut P, to: u64, error: MonitorError) {
        match self.connections.get(&to) {
            Some(c)
                if matches!(c.state, State::Binding { .. } | State::Placing { .. }) && c.grant.is_none() =>
            {
                self.fail_connection(port, to, error);
            }
            _ => self.ignored.stale += 1,
        }
    }

    /// Opens connection `number` if all it waits for has come.
    fn try_open<P: Port>(&mut self, port: &mut P, number: u64, heard: Heard) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let call = match connection.state {
            State::Binding { call } | State::Placing { call } => call,
            State::Offered | State::Open => return,
        };
        connection.service_spoke |= heard == Heard::Service;
        let memory = connection.grant.as_ref().is_some_and(Grant::is_complete);
        if !memory || (connection.is_client && !connection.service_spoke) {
            return;
        }
        let (core, wake) = (connection.peer.core, connection.wake);
        let notifier = match wake.checked_sub(1) {
            Some(entry) => port.notifier(core, entry as u8).map(Some),
            None => Ok(None),
        };
        let opened = notifier.and_then(|notifier| {
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.notifier = notifier;
            }
            self.hold(port, number)
        });
        match opened {
            Ok(()) => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.state = State::Open;
                    let mut words = [0; 1 + ConnectionInfo::WORDS];
                    words[1..].copy_from_slice(&connection.info(number).encode());
                    port.answer(call, &words, None);
                }
            }
            Err(error) => {
                port.answer(call, &[error as u64], None);
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.state = State::Open;
                }
                self.part(port, number, Farewell::Closed);
            }
        }
    }

    /// Connection `number` does not come about: whoever waits for it is told `error`.
    pub(crate) fn fail_connection<P: Port>(&mut self, port: &mut P, number: u64, error: MonitorError) {
        match self.connections.get(&number).map(|c| c.state) {
            Some(State::Binding { call } | State::Placing { call }) => {
                port.answer(call, &[error as u64], None);
            }
            Some(State::Offered | State::Open) => {}
            None => return,
        }
        self.remove(port, number);
    }

    /// There is no way to the other end of connection `number`.
    pub(crate) fn lose_peer<P: Port>(&mut self, port: &mut P, number: u64, error: MonitorError) {
        let Some(connection) = self.connections.get(&number) else { return };
        match (connection.state, connection.peer) {
            (State::Open, Other { core, connection: Some(peer) }) => {
                self.peer_gone(port, core, number, peer, 1)
            }
            _ => self.fail_connection(port, number, error),
        }
    }

    /// Ends connection `number`, whatever its state, for its own domain's sake.
    pub(crate) fn part<P: Port>(&mut self, port: &mut P, number: u64, farewell: Farewell) {
        let Some(connection) = self.connections.get(&number) else { return };
        let Other { core, connection: peer } = connection.peer;
        let state = connection.state;
        let (reason, error) = match farewell {
            Farewell::Closed => (0, MonitorError::Refused),
            Farewell::Ended => (1, MonitorError::PeerGone),
        };
        if !connection.peer_gone {
            let message = match (state, peer) {
                (State::Offered, Some(peer)) => Intermon::Refused { to: peer, error: error as u64 },
                _ => Intermon::Gone { to: peer.unwrap_or(0), from: number, reason },
            };
            self.tell(port, core, message);
        }
        if let State::Binding { call } | State::Placing { call } = state {
            port.answer(call, &[MonitorError::PeerGone as u64], None);
        }
        self.remove(port, number);
    }

    /// Forgets connection `number` and gives up what it has.
    fn remove<P: Port>(&mut self, port: &mut P, number: u64) {
        let Some(connection) = self.connections.remove(&number) else { return };
        self.unwire(port, connection.entry);
        if let Some(notifier) = connection.notifier {
            port.delete(notifier);
        }
        for passed in connection.inbox {
            port.delete(passed.cap);
        }
        if let Some(call) = connection.taker {
            port.answer(call, &[MonitorError::PeerGone as u64], None);
        }
        if let Some(request) = connection.passing
            && let Some(request) = self.requests.remove(&request)
        {
            port.answer(request.call, &[MonitorError::PeerGone as u64], None);
        }
        if let Some(grant) = connection.grant {
            self.release(port, &grant);
        }
    }

    /// The other end, `from` at `core`, is gone.
    pub(crate) fn peer_gone<P: Port>(&mut self, port: &mut P, core: u32, to: u64, from: u64, reason: u64) {
        let is_it = |c: &Connection| c.peer.core == core && c.peer.connection.is_none_or(|p| p == from);
        let number = match to {
            0 => self
                .connections
                .iter()
                .find(|(_, c)| c.peer == Other { core, connection: Some(from) })
                .map(|(number, _)| *number),
            _ => self.connections.get(&to).filter(|c| is_it(c)).map(|_| to),
        };
        let found = number.and_then(|number| Some((number, self.connections.get_mut(&number)?)));
        let Some((number, connection)) = found.filter(|(_, c)| !c.peer_gone) else {
            self.ignored.stale += 1;
            return;
        };
        connection.peer_gone = true;
        match connection.state {
            State::Binding { .. } | State::Placing { .. } | State::Offered => {
                self.fail_connection(port, number, MonitorError::PeerGone);
            }
            State::Open => {
                let domain = connection.domain;
                if let Some(call) = connection.taker.take() {
                    port.answer(call, &[MonitorError::PeerGone as u64], None);
                }
                let notice = [Notice::Closed as u64, number, u64::from(reason != 0), 0, 0, 0, 0];
                self.notify(port, domain, notice);
            }
        }
    }
}

/// What an end waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    Service,
    Memory,
}
