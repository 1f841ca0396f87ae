//! Domains that other domains start, on any core: the monitor of that core orders them from its `init` and tells the
//! asking monitor when they end.

use runtime::interface::monitor::MonitorError;
use runtime::interface::spawn::Order;

use crate::domains::Reply;
use crate::port::{CallId, Ending, Port};
use crate::state::{Monitor, Purpose, Request, WORDS, limit};
use crate::wire::Intermon;

/// For whom a domain was started: the core, and the request there.
pub(crate) type Child = (u32, u64);

/// What a domain knows about one that it started.
#[derive(Debug)]
pub(crate) struct Handle {
    core: u32,
    state: Life,
}

#[derive(Debug)]
enum Life {
    /// It runs, and nobody waits for its end.
    Running,
    /// It runs, and this call waits for its end.
    Awaited(CallId),
    /// It has ended.
    Ended(Ending),
}

impl Handle {
    /// Whoever had this handle is gone.
    pub(crate) fn abandon<P: Port>(self, port: &mut P) {
        if let Life::Awaited(call) = self.state {
            port.answer(call, &[MonitorError::PeerGone as u64], None);
        }
    }
}

impl Monitor {
    /// A domain wants another one.
    pub(crate) fn spawn<P: Port>(
        &mut self,
        port: &mut P,
        number: u64,
        call: CallId,
        words: &[u64; WORDS],
    ) -> Result<Reply, MonitorError> {
        let [_, target, m0, m1, m2, m3, a0, a1, a2, a3] = *words;
        let (core, kib) = (target as u32, target >> 32);
        let domain = self.domains.get(&number).ok_or(MonitorError::NotFound)?;
        let under_way = |r: &&Request| r.domain == number && r.purpose == Purpose::Spawn;
        let under_way = self.requests.values().filter(under_way).count();
        if domain.handles.len() + under_way >= limit::HANDLES_PER_DOMAIN {
            return Err(MonitorError::Exhausted);
        }
        let request = Request { domain: number, call, core, or_core: core, purpose: Purpose::Spawn };
        let module = [m0, m1, m2, m3];
        let request = self.ask(port, request, |request| Intermon::Spawn { request, kib, module })?;
        if self.requests.contains_key(&request) {
            self.tell(port, core, Intermon::SpawnArgs { request, args: [a0, a1, a2, a3] });
        }
        Ok(Reply::Later)
    }

    /// The domain that request `request` was for runs, or could not be started.
    pub(crate) fn child_started<P: Port>(&mut self, port: &mut P, request: Request, number: u64, value: u64) {
        if value == 0 {
            port.answer(request.call, &[MonitorError::CannotSpawn as u64], None);
            return;
        }
        if let Some(domain) = self.domains.get_mut(&request.domain) {
            domain.handles.insert(number, Handle { core: request.core, state: Life::Running });
        }
        port.answer(request.call, &[0, number], None);
    }

    /// A domain waits for the end of one that it started; with the answer the handle is used up.
    pub(crate) fn wait_end(&mut self, number: u64, call: CallId, handle: u64) -> Result<Reply, MonitorError> {
        let domain = self.domains.get_mut(&number).ok_or(MonitorError::NotFound)?;
        let known = domain.handles.get_mut(&handle).ok_or(MonitorError::NotFound)?;
        match known.state {
            Life::Running => {
                known.state = Life::Awaited(call);
                Ok(Reply::Later)
            }
            Life::Awaited(_) => Err(MonitorError::WrongState),
            Life::Ended(Ending { cause, detail }) => {
                domain.handles.remove(&handle);
                Ok(Reply::Words([cause, detail, 0, 0, 0], None))
            }
        }
    }

    /// A domain ends one that it started.
    pub(crate) fn kill<P: Port>(
        &mut self,
        port: &mut P,
        number: u64,
        handle: u64,
    ) -> Result<Reply, MonitorError> {
        let domain = self.domains.get(&number).ok_or(MonitorError::NotFound)?;
        let known = domain.handles.get(&handle).ok_or(MonitorError::NotFound)?;
        let core = known.core;
        if !matches!(known.state, Life::Ended(_)) {
            self.tell(port, core, Intermon::Kill { request: handle });
        }
        Ok(Reply::DONE)
    }

    /// The domain that `core` started for `request` has ended.
    pub(crate) fn child_ended<P: Port>(&mut self, port: &mut P, core: u32, request: u64, ending: Ending) {
        let known = self.domains.values_mut().find_map(|domain| {
            let handle = domain.handles.get_mut(&request)?;
            (handle.core == core).then_some(handle)
        });
        let Some(handle) = known else {
            self.ignored.stale += 1;
            return;
        };
        match handle.state {
            Life::Running => handle.state = Life::Ended(ending),
            Life::Awaited(call) => {
                port.answer(call, &[0, ending.cause, ending.detail], None);
                for domain in self.domains.values_mut() {
                    domain.handles.remove(&request);
                }
            }
            Life::Ended(_) => self.ignored.stale += 1,
        }
    }

    /// A domain is to be started here, when its arguments have come.
    pub(crate) fn announce<P: Port>(&mut self, port: &mut P, child: Child, kib: u64, module: [u64; 4]) {
        let fits = kib <= u64::from(u32::MAX) && self.announced.len() < limit::REQUESTS;
        if !fits || self.announced.contains_key(&child) {
            let error = MonitorError::CannotSpawn as u64;
            self.tell(port, child.0, Intermon::Failed { request: child.1, error });
            return;
        }
        let [a, b, c, d] = module;
        self.announced.insert(child, [kib, a, b, c, d]);
    }

    /// The arguments of an announced domain: `init` is to start it.
    pub(crate) fn start<P: Port>(&mut self, port: &mut P, child: Child, args: [u64; 4]) {
        let Some([kib, m0, m1, m2, m3]) = self.announced.remove(&child) else {
            self.ignored.stale += 1;
            return;
        };
        let order = u32::try_from(self.fresh()).ok().filter(|_| self.starting.len() < limit::REQUESTS);
        let Some(order) = order else {
            let error = MonitorError::Exhausted as u64;
            self.tell(port, child.0, Intermon::Failed { request: child.1, error });
            return;
        };
        self.starting.insert(order, child);
        let [a0, a1, a2, a3] = args;
        let what = u64::from(order) | kib << 32;
        self.order(port, [Order::Spawn as u64, what, m0, m1, m2, m3, a0, a1, a2, a3]);
    }

    /// `init` has started a domain, or not.
    pub(crate) fn spawned<P: Port>(&mut self, port: &mut P, order: u64, domain: u64) {
        let child = u32::try_from(order).ok().and_then(|order| self.starting.remove(&order));
        let Some(child) = child else {
            self.ignored.reports += 1;
            return;
        };
        let (core, request) = child;
        if domain != 0 {
            self.children.insert(domain, child);
        }
        self.tell(port, core, Intermon::Done { request, value: domain });
    }

    /// Whoever started a domain wants its end.
    pub(crate) fn kill_child<P: Port>(&mut self, port: &mut P, child: Child) {
        match self.children.iter().find(|(_, c)| **c == child).map(|(domain, _)| *domain) {
            Some(domain) => self.order(port, [Order::Kill as u64, domain, 0, 0, 0, 0, 0, 0, 0, 0]),
            // It ended by itself meanwhile.
            None => self.ignored.stale += 1,
        }
    }
}
