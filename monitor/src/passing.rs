//! Frames that domains pass to each other over connections, and taking the copies back.
//!
//! The monitor of the core that owns a frame keeps a [`Record`] of it: a capability of its own, and which cores got a
//! copy. Every copy is delivered by that monitor, whoever passes it, so that on the channel to its receiver it comes
//! before an order to delete it: no copy survives a revoke.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use lmp::{CPtr, ObjType, Rights};
use runtime::interface::monitor::MonitorError;

use crate::domains::{Gift, Reply};
use crate::port::{CallId, Copied, Ending, Memory, Port};
use crate::state::{Monitor, Purpose, Request, limit};
use crate::wire::Intermon;

/// A capability that came over a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    pub(crate) cap: CPtr,
    memory: Memory,
}

/// A frame of this core that has copies on others.
#[derive(Debug)]
pub(crate) struct Record {
    cap: CPtr,
    base: u64,
    size: u64,
    /// The cores that got copies.
    holders: BTreeSet<u32>,
    /// If the copies are being taken back: for which jobs.
    revoking: Option<Vec<u64>>,
}

/// What is to be done when copies are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// Answer a call.
    Answer(CallId),
    /// Let go of a domain.
    Release {
        /// The domain.
        domain: u64,
        /// How it ended.
        ending: Ending,
    },
}

/// Copies of some frames being taken back.
#[derive(Debug)]
pub(crate) struct Job {
    /// Frames left.
    left: usize,
    then: Then,
}

/// A frame of another core of which there are capabilities here.
#[derive(Debug)]
pub(crate) struct Foreign {
    cap: CPtr,
    memory: Memory,
}

/// Whether `inner` lies within `outer`, both base and size.
fn within(inner: (u64, u64), outer: (u64, u64)) -> bool {
    inner.0 >= outer.0 && inner.0 - outer.0 <= outer.1 && inner.1 <= outer.1 - (inner.0 - outer.0)
}

/// The rights that a passed frame may have.
const PASSED: Rights = Rights::READ.union(Rights::WRITE).union(Rights::EXECUTE);

impl Monitor {
    /// A domain passes a capability to its peer.
    pub(crate) fn send_cap<P: Port>(
        &mut self,
        port: &mut P,
        domain: u64,
        call: CallId,
        number: u64,
        gift: &mut Gift,
    ) -> Result<Reply, MonitorError> {
        let connection = self.own_connection(domain, number)?;
        if !connection.is_open() || connection.passing.is_some() {
            return Err(MonitorError::WrongState);
        }
        if connection.peer_gone {
            return Err(MonitorError::PeerGone);
        }
        let peer = connection.peer;
        let to = peer.connection.ok_or(MonitorError::WrongState)?;
        let cap = gift.get().ok_or(MonitorError::BadCapability)?;
        let identity = port.identify(cap).filter(|i| i.ty == ObjType::Frame);
        let memory = identity.ok_or(MonitorError::BadCapability)?.memory;
        if peer.core == self.core {
            // It stays a capability of this core, whoever owns the frame.
            let cap = gift.take().ok_or(MonitorError::BadCapability)?;
            return match self.put_in(port, to, self.core, Passed { cap, memory }) {
                Ok(()) => Ok(Reply::DONE),
                Err(error) => {
                    port.delete(cap);
                    Err(error)
                }
            };
        }
        if memory.owner == self.core {
            if self.first.as_ref().is_some_and(|first| first.is_of_a_channel(memory.base)) {
                return Err(MonitorError::BadCapability);
            }
            self.record(port, gift, memory)?;
        }
        let purpose = Purpose::Transfer { connection: number };
        let request = Request { domain, call, core: peer.core, or_core: memory.owner, purpose };
        let (base, size, rights) = (memory.base, memory.size, u64::from(memory.rights.bits()));
        let core = u64::from(peer.core);
        // The request is answered by the peer's monitor, or refused by the owner's, who is told.
        if self.requests.len() >= limit::REQUESTS {
            return Err(MonitorError::Exhausted);
        }
        let request_number = self.fresh();
        self.requests.insert(request_number, request);
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.passing = Some(request_number);
        }
        let message = Intermon::Transfer { request: request_number, base, size, rights, core, to };
        self.tell(port, memory.owner, message);
        Ok(Reply::Later)
    }

    /// Makes sure there is a record of a frame of this core.
    fn record<P: Port>(&mut self, port: &mut P, gift: &mut Gift, memory: Memory) -> Result<(), MonitorError> {
        let same = |r: &&Record| (r.base, r.size) == (memory.base, memory.size);
        if let Some(record) = self.records.values().find(same) {
            return match record.revoking {
                None => Ok(()),
                Some(_) => Err(MonitorError::WrongState),
            };
        }
        if self.records.len() >= limit::RECORDS {
            return Err(MonitorError::Exhausted);
        }
        let cap = gift.take().ok_or(MonitorError::BadCapability)?;
        port.set_copied(cap, Copied::Yes);
        let number = self.fresh();
        let record =
            Record { cap, base: memory.base, size: memory.size, holders: BTreeSet::new(), revoking: None };
        self.records.insert(number, record);
        Ok(())
    }

    /// A frame of this core is passed by request `from`, to connection `to.1` of `to.0`.
    pub(crate) fn transfer<P: Port>(
        &mut self,
        port: &mut P,
        from: (u32, u64),
        base: u64,
        size: u64,
        rights: u64,
        to: (u64, u64),
    ) {
        let record = self.records.values_mut().find(|r| within((base, size), (r.base, r.size)));
        let core = u32::try_from(to.0).ok();
        let (Some(record), Some(core)) = (record.filter(|r| r.revoking.is_none()), core) else {
            let error = MonitorError::BadCapability as u64;
            self.tell(port, from.0, Intermon::Failed { request: from.1, error });
            return;
        };
        if core != self.core {
            record.holders.insert(core);
        }
        let (sender, request) = (u64::from(from.0), from.1);
        self.tell(port, core, Intermon::Deliver { to: to.1, base, size, rights, core: sender, request });
    }

    /// The owner of a frame delivers a copy for connection `to`.
    #[expect(clippy::too_many_arguments, reason = "the fields of a message")]
    pub(crate) fn delivered<P: Port>(
        &mut self,
        port: &mut P,
        owner: u32,
        to: u64,
        base: u64,
        size: u64,
        rights: u64,
        (sender, request): (u64, u64),
    ) {
        let Ok(sender) = u32::try_from(sender) else {
            self.ignored.unknown += 1;
            return;
        };
        let rights = Rights::from_bits_truncate(rights as u8) & PASSED;
        let memory = Memory { base, size, rights, owner };
        let answer = match self.receive(port, sender, to, memory) {
            Ok(()) => Intermon::Done { request, value: 0 },
            Err(error) => Intermon::Failed { request, error: error as u64 },
        };
        self.tell(port, sender, answer);
    }

    fn receive<P: Port>(
        &mut self,
        port: &mut P,
        sender: u32,
        to: u64,
        memory: Memory,
    ) -> Result<(), MonitorError> {
        self.room_in(to, sender)?;
        let cap = if memory.owner == self.core {
            let same = |r: &&Record| (r.base, r.size) == (memory.base, memory.size);
            let record = self.records.values().find(same).ok_or(MonitorError::BadCapability)?;
            port.copy(record.cap, memory.rights)?
        } else {
            let same = |f: &&Foreign| {
                (f.memory.owner, f.memory.base, f.memory.size) == (memory.owner, memory.base, memory.size)
            };
            if self.foreign.iter().find(same).is_none() {
                if self.foreign.len() >= limit::FOREIGN {
                    return Err(MonitorError::Exhausted);
                }
                let cap = port.foreign(Memory { rights: PASSED, ..memory })?;
                self.foreign.push(Foreign { cap, memory });
            }
            let foreign = self.foreign.iter().find(same).ok_or(MonitorError::NotFound)?;
            port.copy(foreign.cap, memory.rights)?
        };
        self.put_in(port, to, sender, Passed { cap, memory })
    }

    fn room_in(&self, to: u64, sender: u32) -> Result<(), MonitorError> {
        let connection = self.connections.get(&to).filter(|c| c.peer.core == sender);
        let connection = connection.ok_or(MonitorError::PeerGone)?;
        if connection.inbox.len() >= limit::INBOX { Err(MonitorError::Exhausted) } else { Ok(()) }
    }

    /// Puts a capability where the domain of connection `to` takes it, or gives it to the call that waits.
    fn put_in<P: Port>(
        &mut self,
        port: &mut P,
        to: u64,
        sender: u32,
        passed: Passed,
    ) -> Result<(), MonitorError> {
        self.room_in(to, sender)?;
        if let Some(connection) = self.connections.get_mut(&to) {
            match connection.taker.take() {
                Some(call) => port.answer(call, &[0], Some(passed.cap)),
                None => connection.inbox.push_back(passed),
            }
        }
        Ok(())
    }

    /// A domain takes the next capability that its peer passed.
    pub(crate) fn take_cap(&mut self, domain: u64, call: CallId, number: u64) -> Result<Reply, MonitorError> {
        let connection = self.own_connection(domain, number)?;
        if connection.taker.is_some() {
            return Err(MonitorError::WrongState);
        }
        if let Some(passed) = connection.inbox.pop_front() {
            return Ok(Reply::Words([0; 5], Some(passed.cap)));
        }
        if connection.peer_gone {
            return Err(MonitorError::PeerGone);
        }
        connection.taker = Some(call);
        Ok(Reply::Later)
    }

    /// A domain wants all copies on other cores of what it made from a capability taken back.
    pub(crate) fn revoke_remote<P: Port>(
        &mut self,
        port: &mut P,
        call: CallId,
        gift: &mut Gift,
    ) -> Result<Reply, MonitorError> {
        let cap = gift.get().ok_or(MonitorError::BadCapability)?;
        let identity = port.identify(cap).filter(|i| matches!(i.ty, ObjType::Frame | ObjType::Ram));
        let memory = identity.ok_or(MonitorError::BadCapability)?.memory;
        if memory.owner != self.core {
            return Err(MonitorError::BadCapability);
        }
        let range = (memory.base, memory.size);
        self.revoke_within(port, range, Then::Answer(call));
        Ok(Reply::Later)
    }

    /// Takes back all copies of frames within `range`, base and size.
    pub(crate) fn revoke_within<P: Port>(&mut self, port: &mut P, range: (u64, u64), then: Then) {
        let covered = self.records.iter().filter(|(_, r)| within((r.base, r.size), range));
        let records: Vec<u64> = covered.map(|(number, _)| *number).collect();
        let number = self.fresh();
        self.jobs.insert(number, Job { left: records.len(), then });
        for record in records {
            self.revoke_record(port, record, number);
        }
        self.advance(port, number, 0);
    }

    fn revoke_record<P: Port>(&mut self, port: &mut P, number: u64, job: u64) {
        let Some(record) = self.records.get_mut(&number) else { return };
        if let Some(jobs) = &mut record.revoking {
            jobs.push(job);
            return;
        }
        record.revoking = Some(Vec::from([job]));
        let (base, size) = (record.base, record.size);
        let holders: Vec<u32> = record.holders.iter().copied().collect();
        for holder in holders {
            self.tell(port, holder, Intermon::Revoke { record: number, base, size });
        }
        self.check_record(port, number);
    }

    /// Whether all copies of a record that is being revoked are gone; if so, it is over.
    fn check_record<P: Port>(&mut self, port: &mut P, number: u64) {
        let over = |r: &Record| r.revoking.is_some() && r.holders.is_empty();
        if !self.records.get(&number).is_some_and(over) {
            return;
        }
        let Some(record) = self.records.remove(&number) else { return };
        port.set_copied(record.cap, Copied::No);
        port.delete(record.cap);
        for job in record.revoking.into_iter().flatten() {
            self.advance(port, job, 1);
        }
    }

    /// So many frames of a job are done.
    fn advance<P: Port>(&mut self, port: &mut P, number: u64, done: usize) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.left = job.left.saturating_sub(done);
        if job.left > 0 {
            return;
        }
        let Some(job) = self.jobs.remove(&number) else { return };
        match job.then {
            Then::Answer(call) => port.answer(call, &[0], None),
            Then::Release { domain, ending } => self.released(port, domain, ending),
        }
    }

    /// The owner of a frame wants all copies here gone.
    pub(crate) fn revoke_copies<P: Port>(
        &mut self,
        port: &mut P,
        owner: u32,
        record: u64,
        base: u64,
        size: u64,
    ) {
        let gone = |m: &Memory| m.owner == owner && within((m.base, m.size), (base, size));
        for connection in self.connections.values_mut() {
            connection.inbox.retain(|passed| {
                let goes = gone(&passed.memory);
                if goes {
                    port.delete(passed.cap);
                }
                !goes
            });
        }
        self.foreign.retain(|foreign| {
            let goes = gone(&foreign.memory);
            if goes {
                port.revoke(foreign.cap);
                port.delete(foreign.cap);
            }
            !goes
        });
        self.tell(port, owner, Intermon::Revoked { record });
    }

    /// The copies of a record at `core` are gone.
    pub(crate) fn revoked<P: Port>(&mut self, port: &mut P, core: u32, number: u64) {
        let record = self.records.get_mut(&number).filter(|r| r.revoking.is_some());
        if record.is_some_and(|r| r.holders.remove(&core)) {
            self.check_record(port, number);
        } else {
            self.ignored.stale += 1;
        }
    }

    /// There is no way to `core`, so it has no copies either.
    pub(crate) fn forget_holder<P: Port>(&mut self, port: &mut P, core: u32) {
        for record in self.records.values_mut() {
            record.holders.remove(&core);
        }
        let records: Vec<u64> = self.records.keys().copied().collect();
        for record in records {
            self.check_record(port, record);
        }
    }
}
