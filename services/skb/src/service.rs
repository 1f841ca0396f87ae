//! [`Service`]: what the knowledge base knows, and its answer to each query.
//!
//! Queries come as words of `runtime::interface::skb`. What an answer needs of the CPU driver it asks of a
//! [`Driver`], so that all of it runs on the host too.

use boot_info::{PhysAddr, PhysRange};
use lmp::invocation::MessageInfo;
use lmp::{CPtr, SysError};
use runtime::interface::monitor::Iref;
use runtime::interface::skb::{PIECES_MAX, Query, SkbError};
use skb::{ChannelSpec, CoreId, Load, NodeId, NodeLoad, PlaceError, Policy, Topology, place};

use crate::book::{AddError, Book, BookError, Reserved};
use crate::names::{NameError, Names};

/// Words of a query or an answer.
pub type Words = [u64; MessageInfo::WORDS_MAX];

/// What the service needs of the CPU driver.
pub trait Driver {
    /// Makes the frame that was reserved; its slot.
    ///
    /// # Errors
    /// The CPU driver's, or [`SysError::Exhausted`] if there is no slot. Nothing was made then.
    fn make(&mut self, reserved: &Reserved) -> Result<CPtr, SysError>;

    /// Deletes the frame in slot `frame`, and every other capability for it on this core.
    ///
    /// # Errors
    /// The CPU driver's. The frame is there still.
    fn delete(&mut self, frame: CPtr) -> Result<(), SysError>;
}

/// An answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    words: Words,
    len: usize,
    cap: Option<CPtr>,
}

impl Answer {
    /// The words.
    pub fn words(&self) -> &[u64] {
        &self.words[..self.len]
    }

    /// The capability to send a copy of.
    pub fn cap(&self) -> Option<CPtr> {
        self.cap
    }

    fn done<const N: usize>(results: [u64; N]) -> Answer {
        const { assert!(N < MessageInfo::WORDS_MAX) };
        let mut words = [0; MessageInfo::WORDS_MAX];
        words[1..=N].copy_from_slice(&results);
        Answer { words, len: 1 + N, cap: None }
    }

    fn refused(error: SkbError) -> Answer {
        let mut words = [0; MessageInfo::WORDS_MAX];
        words[0] = error as u64;
        Answer { words, len: 1, cap: None }
    }
}

impl From<BookError> for SkbError {
    fn from(error: BookError) -> SkbError {
        match error {
            BookError::NotFound => SkbError::NotFound,
            BookError::BadSize => SkbError::BadArgument,
            BookError::NoMemory => SkbError::NoMemory,
            BookError::Full => SkbError::Exhausted,
        }
    }
}

impl From<NameError> for SkbError {
    fn from(error: NameError) -> SkbError {
        match error {
            NameError::Malformed => SkbError::BadArgument,
            NameError::Full => SkbError::Exhausted,
        }
    }
}

/// Why a channel cannot be placed, for the monitor.
fn unplaced(error: PlaceError) -> SkbError {
    match error {
        PlaceError::NoCore(_) | PlaceError::NoNode(_) => SkbError::NotFound,
        PlaceError::NoMemory { .. } | PlaceError::Unusable(_) | PlaceError::Full { .. } => SkbError::NoMemory,
        PlaceError::TooLarge { .. } => SkbError::BadArgument,
    }
}

/// Up to four nodes, 16 bits each.
fn pack_nodes(nodes: impl IntoIterator<Item = NodeId>) -> u64 {
    nodes.into_iter().zip(0..4).fold(0, |word, (node, i)| word | (u64::from(node.0) & 0xffff) << (16 * i))
}

/// A number in a word, where the numbers are 32 bits wide.
fn narrow(word: u64) -> Result<u32, SkbError> {
    u32::try_from(word).map_err(|_| SkbError::NotFound)
}

/// The knowledge base.
#[derive(Debug)]
pub struct Service {
    topology: Topology,
    book: Book,
    names: Names,
}

impl Service {
    /// The knowledge base of a machine of which no memory was handed over yet.
    pub fn new(topology: Topology) -> Service {
        Service { book: Book::new(&topology), topology, names: Names::new() }
    }

    /// Takes the memory at `base`, `size` bytes, which `cap` is the capability for.
    ///
    /// # Errors
    /// [`AddError`]; it is not used then.
    pub fn add(&mut self, cap: CPtr, base: u64, size: u64) -> Result<NodeId, AddError> {
        self.book.add(&self.topology, cap, PhysRange::new(PhysAddr::new(base), size))
    }

    /// Answers a query. Words that the query does not have are 0.
    pub fn answer(&mut self, driver: &mut impl Driver, words: &Words) -> Answer {
        let Some(query) = Query::from_code(words[0]) else { return Answer::refused(SkbError::BadQuery) };
        let answer = match query {
            Query::Place => self.place(words),
            Query::Allocate => self.allocate(driver, words),
            Query::Free => self.free(driver, words),
            Query::Core => self.core(words),
            Query::Register => self.register(words),
            Query::Lookup => self.lookup(words),
            Query::Memory => self.memory(words),
        };
        answer.unwrap_or_else(Answer::refused)
    }

    fn place(&self, words: &Words) -> Result<Answer, SkbError> {
        let &[_, policy, producer, consumer, seed, bytes, ..] = words;
        let policy = u8::try_from(policy).ok().and_then(Policy::from_code).ok_or(SkbError::BadArgument)?;
        let spec = ChannelSpec::new(CoreId(narrow(producer)?), CoreId(narrow(consumer)?), bytes);
        let mut load = Load::default();
        for node in self.topology.nodes() {
            let free = self.book.account(node.id).unwrap_or_default().free;
            load.set(node.id, NodeLoad { free, channels: 0 });
        }
        let placement = place(&self.topology, &spec, policy, seed, &load).map_err(unplaced)?;
        let pieces = || placement.data.iter().map(|piece| piece.node);
        // Without a pool the first piece has no node of its own; it is where the producer's part is.
        let data = pieces().next().unwrap_or(placement.backward);
        let homes = pack_nodes([data, placement.forward, placement.backward]);
        let count = placement.data.len().min(PIECES_MAX) as u64;
        let four = |i: usize| pack_nodes(pieces().skip(4 * i).take(4));
        Ok(Answer::done([homes, count, four(0), four(1), four(2), four(3)]))
    }

    fn allocate(&mut self, driver: &mut impl Driver, words: &Words) -> Result<Answer, SkbError> {
        let &[_, node, bytes, ..] = words;
        let reserved = self.book.reserve(&self.topology, NodeId(narrow(node)?), bytes)?;
        match driver.make(&reserved) {
            Ok(cap) => {
                self.book.commit(reserved, cap);
                Ok(Answer { cap: Some(cap), ..Answer::done([reserved.physical]) })
            }
            Err(error) => {
                self.book.cancel(reserved);
                Err(match error {
                    SysError::Exhausted => SkbError::Exhausted,
                    _ => SkbError::Refused,
                })
            }
        }
    }

    fn free(&mut self, driver: &mut impl Driver, words: &Words) -> Result<Answer, SkbError> {
        let physical = words[1];
        let frame = self.book.frame(physical).ok_or(SkbError::NotFound)?;
        driver.delete(frame).map_err(|error| match error {
            SysError::RetryThroughMonitor => SkbError::InUse,
            _ => SkbError::Refused,
        })?;
        self.book.release(physical)?;
        Ok(Answer::done([]))
    }

    fn core(&self, words: &Words) -> Result<Answer, SkbError> {
        let core = self.topology.core(CoreId(narrow(words[1])?)).ok_or(SkbError::NotFound)?;
        Ok(Answer::done([
            self.topology.enabled_cores().len() as u64,
            core.id.0.into(),
            core.node.0.into(),
            core.apic.0.into(),
            self.topology.nodes().len() as u64,
        ]))
    }

    fn register(&mut self, words: &Words) -> Result<Answer, SkbError> {
        let &[_, a, b, c, d, iref, ..] = words;
        self.names.register([a, b, c, d], Iref(iref))?;
        Ok(Answer::done([]))
    }

    fn lookup(&self, words: &Words) -> Result<Answer, SkbError> {
        let &[_, a, b, c, d, ..] = words;
        let iref = self.names.lookup([a, b, c, d]).ok_or(SkbError::NotFound)?;
        Ok(Answer::done([iref.0]))
    }

    fn memory(&self, words: &Words) -> Result<Answer, SkbError> {
        let account = self.book.account(NodeId(narrow(words[1])?)).ok_or(SkbError::NotFound)?;
        Ok(Answer::done([account.free, account.all]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use runtime::interface::pack;
    use skb::{
        ApicId, Complaints, CoreState, Facts, MemoryAffinity, Processor, ProcessorAffinity, ProximityDomain,
    };
    use std::vec;
    use std::vec::Vec;

    pub(crate) const MIB: u64 = 1 << 20;

    /// Three nodes with a core each: node 0 has memory up to 64 MiB but for a hole, node 1 none, node 2 from 128 to
    /// 192 MiB.
    pub(crate) fn topology() -> Topology {
        let memory = |domain, base, length| MemoryAffinity {
            range: PhysRange::new(PhysAddr::new(base), length),
            domain: ProximityDomain(domain),
        };
        let facts = Facts {
            processors: (0..3)
                .map(|apic| Processor { apic: ApicId(apic), state: CoreState::Enabled })
                .collect(),
            processor_affinities: (0..3)
                .map(|apic| ProcessorAffinity { apic: ApicId(apic), domain: ProximityDomain(apic) })
                .collect(),
            memory_affinities: vec![
                memory(0, 0, 8 * MIB),
                memory(0, 16 * MIB, 48 * MIB),
                memory(2, 128 * MIB, 64 * MIB),
            ],
            ..Facts::default()
        };
        Topology::from_facts(&facts, ApicId(0), &mut Complaints::default())
    }

    /// A CPU driver that only counts, and refuses what it is told to.
    #[derive(Default)]
    struct Fake {
        made: Vec<CPtr>,
        next: u32,
        refuse: Option<SysError>,
    }

    impl Driver for Fake {
        fn make(&mut self, _: &Reserved) -> Result<CPtr, SysError> {
            if let Some(error) = self.refuse {
                return Err(error);
            }
            self.next += 1;
            self.made.push(CPtr(self.next));
            Ok(CPtr(self.next))
        }

        fn delete(&mut self, frame: CPtr) -> Result<(), SysError> {
            if let Some(error) = self.refuse {
                return Err(error);
            }
            let at = self.made.iter().position(|c| *c == frame).expect("the frame was made");
            self.made.remove(at);
            Ok(())
        }
    }

    fn service() -> Service {
        let mut service = Service::new(topology());
        service.add(CPtr::new(1, 0), 32 * MIB, 8 * MIB).unwrap();
        service.add(CPtr::new(1, 1), 128 * MIB, 4 * MIB).unwrap();
        service
    }

    fn ask(service: &mut Service, driver: &mut Fake, query: &[u64]) -> Result<Vec<u64>, SkbError> {
        let mut words = [0; MessageInfo::WORDS_MAX];
        words[..query.len()].copy_from_slice(query);
        let answer = service.answer(driver, &words);
        match answer.words()[0] {
            0 => {
                assert_eq!(answer.cap().is_some(), query[0] == Query::Allocate as u64);
                Ok(answer.words()[1..].to_vec())
            }
            code => {
                assert_eq!((answer.words().len(), answer.cap()), (1, None));
                Err(SkbError::from_code(code).expect("a code of the table"))
            }
        }
    }

    #[test]
    fn frames_come_from_their_node_and_go_back() {
        let (mut service, mut driver) = (service(), Fake::default());
        let memory =
            |service: &mut Service, node| ask(service, &mut Fake::default(), &[Query::Memory as u64, node]);
        assert_eq!(memory(&mut service, 0), Ok(vec![8 * MIB, 8 * MIB]));
        assert_eq!(memory(&mut service, 1), Ok(vec![0, 0]));
        assert_eq!(memory(&mut service, 3), Err(SkbError::NotFound));
        let allocate = [Query::Allocate as u64, 2, 3 * MIB];
        assert_eq!(ask(&mut service, &mut driver, &allocate), Ok(vec![128 * MIB]));
        assert_eq!(memory(&mut service, 2), Ok(vec![MIB, 4 * MIB]));
        assert_eq!(ask(&mut service, &mut driver, &allocate), Err(SkbError::NoMemory));
        assert_eq!(
            ask(&mut service, &mut driver, &[Query::Allocate as u64, 1 << 32, 1]),
            Err(SkbError::NotFound)
        );
        assert_eq!(
            ask(&mut service, &mut driver, &[Query::Allocate as u64, 0, 0]),
            Err(SkbError::BadArgument)
        );
        assert_eq!(ask(&mut service, &mut driver, &[Query::Free as u64, 129 * MIB]), Err(SkbError::NotFound));
        assert_eq!(ask(&mut service, &mut driver, &[Query::Free as u64, 128 * MIB]), Ok(vec![]));
        assert_eq!(memory(&mut service, 2), Ok(vec![4 * MIB, 4 * MIB]));
        assert_eq!(driver.made, []);
    }

    #[test]
    fn what_the_cpu_driver_refuses_changes_nothing() {
        let (mut service, mut driver) = (service(), Fake::default());
        let (allocate, free) = ([Query::Allocate as u64, 2, MIB], [Query::Free as u64, 128 * MIB]);
        let memory = [Query::Memory as u64, 2];
        for (refusal, error) in
            [(SysError::Exhausted, SkbError::Exhausted), (SysError::Overlap, SkbError::Refused)]
        {
            driver.refuse = Some(refusal);
            assert_eq!(ask(&mut service, &mut driver, &allocate), Err(error));
            assert_eq!(ask(&mut service, &mut driver, &memory), Ok(vec![4 * MIB, 4 * MIB]));
        }
        driver.refuse = None;
        assert_eq!(ask(&mut service, &mut driver, &allocate), Ok(vec![128 * MIB]));
        for (refusal, error) in
            [(SysError::RetryThroughMonitor, SkbError::InUse), (SysError::SlotBusy, SkbError::Refused)]
        {
            driver.refuse = Some(refusal);
            assert_eq!(ask(&mut service, &mut driver, &free), Err(error));
            assert_eq!(ask(&mut service, &mut driver, &memory), Ok(vec![3 * MIB, 4 * MIB]));
        }
        driver.refuse = None;
        assert_eq!(ask(&mut service, &mut driver, &free), Ok(vec![]));
    }

    #[test]
    fn channels_are_placed_as_the_policy_says() {
        let (mut service, mut driver) = (service(), Fake::default());
        let mut query =
            |words: [u64; 5]| ask(&mut service, &mut driver, &[&[Query::Place as u64], &words[..]].concat());
        let code = |policy: Policy| u64::from(policy.code());
        let nodes = |nodes: &[u64]| nodes.iter().rev().fold(0, |word, node| word << 16 | node);
        let split = query([code(Policy::SplitPoller), 0, 2, 1, MIB]).unwrap();
        assert_eq!(split, [nodes(&[0, 2, 0]), 1, 0, 0, 0, 0]);
        let consumer = query([code(Policy::Consumer), 0, 2, 1, MIB]).unwrap();
        assert_eq!(consumer, [nodes(&[2, 2, 2]), 1, 2, 0, 0, 0]);
        let interleave = query([code(Policy::Interleave), 0, 2, 1, MIB]).unwrap();
        assert_eq!(interleave, [nodes(&[0, 2, 0]), 2, nodes(&[0, 2]), 0, 0, 0]);
        let no_pool = query([code(Policy::Consumer), 0, 2, 1, 0]).unwrap();
        assert_eq!(no_pool, [nodes(&[2, 2, 2]), 0, 0, 0, 0, 0]);
        assert_eq!(query([200, 0, 2, 1, 0]), Err(SkbError::BadArgument));
        assert_eq!(query([code(Policy::Consumer), 0, 9, 1, 0]), Err(SkbError::NotFound));
        assert_eq!(query([code(Policy::Consumer), 0, 2, 1, 16 * MIB]), Err(SkbError::NoMemory));
        assert_eq!(query([code(Policy::Consumer), 0, 2, 1, u64::MAX]), Err(SkbError::BadArgument));
    }

    #[test]
    fn cores_and_names_are_known() {
        let (mut service, mut driver) = (service(), Fake::default());
        assert_eq!(ask(&mut service, &mut driver, &[Query::Core as u64, 2]), Ok(vec![3, 2, 2, 2, 3]));
        for core in [3, u64::MAX] {
            assert_eq!(ask(&mut service, &mut driver, &[Query::Core as u64, core]), Err(SkbError::NotFound));
        }
        let [a, b, c, d] = pack("echo").unwrap();
        let iref = Iref::new(2, 7).0;
        let lookup = [Query::Lookup as u64, a, b, c, d];
        assert_eq!(ask(&mut service, &mut driver, &lookup), Err(SkbError::NotFound));
        assert_eq!(ask(&mut service, &mut driver, &[Query::Register as u64, a, b, c, d, iref]), Ok(vec![]));
        assert_eq!(ask(&mut service, &mut driver, &lookup), Ok(vec![iref]));
        assert_eq!(
            ask(&mut service, &mut driver, &[Query::Register as u64, 0, 0, 0, 0, iref]),
            Err(SkbError::BadArgument)
        );
    }

    #[test]
    fn wild_queries_are_refused() {
        let (mut service, mut driver) = (service(), Fake::default());
        assert_eq!(ask(&mut service, &mut driver, &[0]), Err(SkbError::BadQuery));
        assert_eq!(ask(&mut service, &mut driver, &[u64::MAX; 10]), Err(SkbError::BadQuery));
        for query in Query::ALL {
            let mut words = [u64::MAX; MessageInfo::WORDS_MAX];
            words[0] = *query as u64;
            assert!(ask(&mut service, &mut driver, &words).is_err(), "{query:?}");
        }
    }
}
