//! The domains of a core: what they ask for, what they are told, and what happens when one ends.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use lmp::{CPtr, ObjType, Rights};
use runtime::interface::TEXT_WORDS;
use runtime::interface::monitor::{Iref, MonitorError, Request as Method};
use runtime::interface::spawn::Order;

use crate::binding::Farewell;
use crate::passing::Then;
use crate::port::{CallId, Delivery, Ending, Port};
use crate::spawning::Handle;
use crate::state::{FIRST_CORE, Monitor, Purpose, Request, WORDS, limit};
use crate::wire::Intermon;

/// Words of a notice.
const NOTICE_WORDS: usize = 7;

/// A domain that has spoken with its monitor.
#[derive(Debug, Default)]
pub(crate) struct Domain {
    /// Where notices go.
    endpoint: Option<CPtr>,
    /// Notices that found no room.
    notices: VecDeque<[u64; NOTICE_WORDS]>,
    /// How often they found none.
    attempts: u32,
    pub(crate) handles: BTreeMap<u64, Handle>,
}

impl Domain {
    /// Whether there are notices to be delivered.
    pub(crate) fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }
}

/// A service that can be bound to.
#[derive(Debug)]
pub(crate) struct Service {
    /// Whose it is.
    pub(crate) domain: u64,
    /// Whether it has, or may have, a name.
    named: bool,
}

/// A capability that came with a call, until somebody keeps it.
pub(crate) struct Gift(Option<CPtr>);

impl Gift {
    /// The capability.
    pub(crate) fn get(&self) -> Option<CPtr> {
        self.0
    }

    /// The capability, to be kept.
    pub(crate) fn take(&mut self) -> Option<CPtr> {
        self.0.take()
    }
}

/// What a request of a domain comes to.
pub(crate) enum Reply {
    /// These words behind the 0, and perhaps a capability.
    Words([u64; 5], Option<CPtr>),
    /// It is answered when what it waits for has happened.
    Later,
}

impl Reply {
    /// Nothing to say but that it was done.
    pub(crate) const DONE: Reply = Reply::Words([0; 5], None);

    /// One word.
    pub(crate) const fn one(word: u64) -> Reply {
        Reply::Words([word, 0, 0, 0, 0], None)
    }
}

impl Monitor {
    /// A domain asks for something.
    pub(crate) fn call<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        call: CallId,
        words: &[u64; WORDS],
        cap: Option<CPtr>,
    ) {
        let mut gift = Gift(cap);
        let reply = self.request(port, domain, call, words, &mut gift);
        if let Some(unused) = gift.take() {
            port.delete(unused);
        }
        match reply {
            Ok(Reply::Words([a, b, c, d, e], cap)) => port.answer(call, &[0, a, b, c, d, e], cap),
            Ok(Reply::Later) => {}
            Err(error) => port.answer(call, &[error as u64], None),
        }
    }

    fn request<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        call: CallId,
        words: &[u64; WORDS],
        gift: &mut Gift,
    ) -> Result<Reply, MonitorError> {
        let [method, first, ..] = *words;
        let method = Method::from_code(method).ok_or(MonitorError::BadRequest)?;
        if !self.domains.contains_key(&domain) {
            if self.domains.len() >= limit::DOMAINS {
                return Err(MonitorError::Exhausted);
            }
            self.domains.insert(domain, Domain::default());
        }
        match method {
            Method::Hello => self.hello(port, domain, gift),
            Method::Export => self.export(domain),
            Method::Bind => self.bind(port, domain, call, words, gift),
            Method::Accept => self.accept(port, domain, call, first, gift),
            Method::Refuse => self.refuse(port, domain, first),
            Method::Take => self.take(port, domain, words),
            Method::Close => self.close(port, domain, first),
            Method::SendCap => self.send_cap(port, domain, call, first, gift),
            Method::TakeCap => self.take_cap(domain, call, first),
            Method::Spawn => self.spawn(port, domain, call, words),
            Method::WaitEnd => self.wait_end(domain, call, first),
            Method::Kill => self.kill(port, domain, first),
            Method::Register => self.register_name(port, domain, call, words),
            Method::Lookup => {
                let name = name_of(words);
                self.ask_first(port, domain, call, Purpose::Lookup, |request| Intermon::Lookup {
                    request,
                    name,
                })
            }
            Method::Counters => Ok(Reply::Words([0; 5], Some(port.counters()?))),
            Method::Core => {
                let core = if first == u64::MAX { u64::from(self.core) } else { first };
                self.ask_first(port, domain, call, Purpose::Core, |request| Intermon::Core { request, core })
            }
            Method::Memory => {
                let message = |request| Intermon::Memory { request, node: first };
                self.ask_first(port, domain, call, Purpose::Memory, message)
            }
            Method::RevokeRemote => self.revoke_remote(port, call, gift),
        }
    }

    fn hello<P: Port>(&mut self, port: &mut P, number: u64, gift: &mut Gift) -> Result<Reply, MonitorError> {
        let domain = self.domains.get_mut(&number).ok_or(MonitorError::NotFound)?;
        if domain.endpoint.is_some() {
            return Err(MonitorError::WrongState);
        }
        let cap = gift.get().ok_or(MonitorError::BadCapability)?;
        let identity = port.identify(cap).ok_or(MonitorError::BadCapability)?;
        if identity.ty != ObjType::Endpoint || !identity.memory.rights.contains(Rights::WRITE) {
            return Err(MonitorError::BadCapability);
        }
        domain.endpoint = gift.take();
        Ok(Reply::one(number))
    }

    fn export(&mut self, number: u64) -> Result<Reply, MonitorError> {
        let domain = self.domains.get(&number).ok_or(MonitorError::NotFound)?;
        if domain.endpoint.is_none() {
            return Err(MonitorError::WrongState);
        }
        let own = self.services.values().filter(|s| s.domain == number).count();
        if self.services.len() >= limit::SERVICES || own >= limit::SERVICES_PER_DOMAIN {
            return Err(MonitorError::Exhausted);
        }
        let service = u32::try_from(self.fresh()).map_err(|_| MonitorError::Exhausted)?;
        self.services.insert(service, Service { domain: number, named: false });
        Ok(Reply::one(Iref::new(self.core, service).0))
    }

    fn register_name<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        call: CallId,
        words: &[u64; WORDS],
    ) -> Result<Reply, MonitorError> {
        let iref = Iref(words[5]);
        let name = name_of(words);
        if name == [0; TEXT_WORDS] {
            return Err(MonitorError::BadArgument);
        }
        let service = self.services.get_mut(&iref.number());
        let service = service.filter(|s| s.domain == domain && iref.core() == self.core);
        service.ok_or(MonitorError::NotFound)?.named = true;
        let message = |request| Intermon::Register { request, iref: iref.0, name };
        self.ask_first(port, domain, call, Purpose::Register, message)
    }

    fn ask_first<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        call: CallId,
        purpose: Purpose,
        message: impl FnOnce(u64) -> Intermon,
    ) -> Result<Reply, MonitorError> {
        let request = Request { domain, call, core: FIRST_CORE, or_core: FIRST_CORE, purpose };
        self.ask(port, request, message)?;
        Ok(Reply::Later)
    }

    /// Tells a domain something, now or when it has room.
    pub(crate) fn notify<P: Port>(&mut self, port: &mut P, number: u64, words: [u64; NOTICE_WORDS]) {
        let Some(domain) = self.domains.get_mut(&number) else { return };
        let Some(endpoint) = domain.endpoint else { return };
        if domain.notices.is_empty() {
            match port.notice(endpoint, &words) {
                Delivery::Sent | Delivery::Dead => return,
                Delivery::Full => domain.attempts = 0,
            }
        }
        if domain.notices.len() < limit::NOTICES {
            domain.notices.push_back(words);
        } else {
            self.deaf.push(number);
        }
    }

    pub(crate) fn retry_notices<P: Port>(&mut self, port: &mut P) {
        for (number, domain) in &mut self.domains {
            let Some(endpoint) = domain.endpoint else { continue };
            while let Some(words) = domain.notices.front() {
                match port.notice(endpoint, words) {
                    Delivery::Sent => domain.attempts = 0,
                    Delivery::Dead => {}
                    Delivery::Full => {
                        domain.attempts += 1;
                        if domain.attempts >= limit::ATTEMPTS {
                            self.deaf.push(*number);
                        }
                        break;
                    }
                }
                domain.notices.pop_front();
            }
        }
    }

    /// A domain does not read its notices: it could not be told of anything, so it keeps no connection.
    pub(crate) fn close_all<P: Port>(&mut self, port: &mut P, number: u64) {
        if let Some(domain) = self.domains.get_mut(&number) {
            domain.notices.clear();
            domain.attempts = 0;
        }
        for connection in self.connections_of(number) {
            self.part(port, connection, Farewell::Closed);
        }
    }

    fn connections_of(&self, domain: u64) -> Vec<u64> {
        self.connections.iter().filter(|(_, c)| c.domain == domain).map(|(number, _)| *number).collect()
    }

    /// A domain of this core has ended: nothing of it stays, then `init` may take it down.
    /// Its memory is the range `memory`, base and size.
    pub(crate) fn domain_ended<P: Port>(
        &mut self,
        port: &mut P,
        number: u64,
        ending: Ending,
        memory: (u64, u64),
    ) {
        for connection in self.connections_of(number) {
            self.part(port, connection, Farewell::Ended);
        }
        let services = self.services.iter().filter(|(_, s)| s.domain == number);
        let services: Vec<(u32, bool)> = services.map(|(service, s)| (*service, s.named)).collect();
        for (service, named) in services {
            self.services.remove(&service);
            if named {
                let iref = Iref::new(self.core, service).0;
                self.tell(port, FIRST_CORE, Intermon::Withdraw { iref });
            }
        }
        let waiting: Vec<u64> =
            self.requests.iter().filter(|(_, r)| r.domain == number).map(|(number, _)| *number).collect();
        for request in waiting {
            self.requests.remove(&request).into_iter().for_each(|r| {
                port.answer(r.call, &[MonitorError::PeerGone as u64], None);
                if r.purpose == Purpose::Lookup {
                    self.tell(port, FIRST_CORE, Intermon::Forget { request });
                }
            });
        }
        if let Some(domain) = self.domains.remove(&number) {
            if let Some(endpoint) = domain.endpoint {
                port.delete(endpoint);
            }
            for handle in domain.handles.into_values() {
                handle.abandon(port);
            }
        }
        self.deaf.retain(|deaf| *deaf != number);
        self.revoke_within(port, memory, Then::Release { domain: number, ending });
    }

    /// All that domain `number` had is gone.
    pub(crate) fn released<P: Port>(&mut self, port: &mut P, number: u64, ending: Ending) {
        self.order(port, [Order::Released as u64, number, 0, 0, 0, 0, 0, 0, 0, 0]);
        if let Some(child) = self.children.remove(&number) {
            let (core, request) = child;
            self.tell(port, core, Intermon::Ended { request, cause: ending.cause, detail: ending.detail });
        }
    }

    /// Tells `init` to do something, now or when it has room.
    pub(crate) fn order<P: Port>(&mut self, port: &mut P, words: [u64; WORDS]) {
        if !self.orders.is_empty() || !port.order(&words) {
            self.orders.push_back(words);
        }
    }
}

/// The name in a request.
fn name_of(words: &[u64; WORDS]) -> [u64; TEXT_WORDS] {
    let [_, a, b, c, d, ..] = *words;
    [a, b, c, d]
}
