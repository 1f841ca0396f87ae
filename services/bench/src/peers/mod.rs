//! Benchmarks between cores: a master, and a peer on each core that takes part.
//!
//! The master is the benchmark's own domain. It has the monitors start a peer (`bench_peer`) on each core, and tells
//! it by a blockable channel what to do: the pairs of cores come in turn, and in each pair one peer *drives*, which
//! measures, and the other *serves*. All others wait for orders, blocked, so that their cores halt.
//!
//! The clock of `-icount` counts the instructions of all cores, so nobody else may run during a measurement. Three
//! things see to that:
//!
//! - a measurement begins when the clock shows that only the pair runs ([`runtime::bench::Harness::settle`]);
//! - while it waits for orders, each peer watches the counters of its core: an interrupt, a timer or somebody who
//!   runs there counts as a disturbance. The peers are asked for it after all measurements of a source;
//! - what was measured amid disturbances is measured again, and refused after [`ATTEMPTS`].
//!
//! Connections are made before the watch begins and closed after it ends, since monitors run for them.

mod peer;
mod protocol;

use alloc::format;
use alloc::vec::Vec;

use lmp::CoreId;
use results::anchors::BENCHES;
use results::{Event, EventKind};
use runtime::bench::{BenchError, RunInfo};
use runtime::channel::{Channel, Waiting};
use runtime::events::Deadline;
use runtime::monitor::{self, Connection, Domain};
use runtime::{Env, output};
use ump::RPC_LINES;

use crate::jobs::Job;
use protocol::{ACCEPTS, Answer, Order, PeerInfo};

pub use peer::main as peer_main;

/// How often the measurements of a source are taken until they are undisturbed.
pub const ATTEMPTS: usize = 3;

/// The boot module of peers.
const MODULE: &str = "bench_peer";

/// RAM of a peer, in bytes: channels to all others, buffers of bulk data, samples.
const PEER_RAM: u64 = 4 << 20;

/// Why a peer did not do as it was told: it says more itself.
const PEER_FAILED: BenchError = BenchError::Wrong("a peer failed: it says why on the console");

/// A peer as its master sees it.
struct Peer {
    info: PeerInfo,
    channel: Channel<RPC_LINES>,
    domain: Domain,
    _connection: Connection,
}

impl Peer {
    /// Gives an order without waiting for what comes of it.
    fn post(&mut self, order: Order) -> Result<(), BenchError> {
        Ok(self.channel.send_blocking(&order.encode(), Deadline::NEVER)?)
    }

    /// Waits until an order was carried out.
    fn done(&mut self) -> Result<u64, BenchError> {
        let message = self.channel.recv_blocking(Deadline::NEVER)?;
        match Answer::decode(&message) {
            Some(Answer::Done(value)) => Ok(value),
            _ => Err(PEER_FAILED),
        }
    }

    fn call(&mut self, order: Order) -> Result<u64, BenchError> {
        self.post(order)?;
        self.done()
    }
}

/// The peers of a benchmark, one on each core that takes part. They end when this is dropped.
pub struct Peers {
    bench: &'static str,
    peers: Vec<Peer>,
}

/// Which cores take part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cores {
    /// All that are up.
    All,
    /// The first; the next one, if it is on the same node; and the last, if it is on another.
    NearAndFar,
}

impl Peers {
    /// Runs the benchmark called `bench` with peers on `cores`; the exit code of the master's domain.
    pub fn run(
        env: &Env,
        bench: &'static str,
        cores: Cores,
        body: impl FnOnce(&mut Peers) -> Result<(), BenchError>,
    ) -> u64 {
        let result = Peers::start(RunInfo::of(env), bench, cores).and_then(|mut peers| {
            body(&mut peers)?;
            peers.report()
        });
        match result {
            Ok(rejected) => {
                output::record(Event::new(EventKind::BenchEnded).name(bench).value(rejected));
                0
            }
            Err(error) => runtime::bench::failed(bench, &error),
        }
    }

    fn start(run: RunInfo, bench: &'static str, cores: Cores) -> Result<Peers, BenchError> {
        let place = BENCHES.iter().position(|b| b.name == bench);
        let place =
            place.ok_or(BenchError::Wrong("a benchmark that is not in the list of all benchmarks"))?;
        let mut service = monitor::export()?;
        let iref = service.iref();
        let mut peers = Peers { bench, peers: Vec::new() };
        for core in cores.list()? {
            let domain = monitor::spawn(core, MODULE, &format!("iref={}", iref.0), PEER_RAM)?;
            let mut connection = service.accept_blocking(Waiting::Blockable, Deadline::NEVER)?;
            let mut channel = connection.channel(ACCEPTS)?;
            let hello = channel.recv_blocking(Deadline::NEVER)?;
            let Some(Answer::Hello(info)) = Answer::decode(&hello) else { return Err(PEER_FAILED) };
            let mut peer = Peer { info, channel, domain, _connection: connection };
            peer.call(Order::Setup { run, bench: place })?;
            peers.peers.push(peer);
        }
        if peers.peers.len() < 2 {
            return Err(BenchError::Wrong(
                "this benchmark needs at least 2 cores: run with --cpus 2 or more",
            ));
        }
        Ok(peers)
    }

    /// Measures `job` from each peer to each other.
    ///
    /// # Errors
    /// If a peer fails, or is disturbed again and again.
    pub fn each_to_each(&mut self, job: Job) -> Result<(), BenchError> {
        (0..self.peers.len()).try_for_each(|source| self.one_to_others(source, job))
    }

    /// Measures `job` from the first peer to each other.
    ///
    /// # Errors
    /// If a peer fails, or is disturbed again and again.
    pub fn first_to_others(&mut self, job: Job) -> Result<(), BenchError> {
        self.one_to_others(0, job)
    }

    fn one_to_others(&mut self, source: usize, job: Job) -> Result<(), BenchError> {
        let sinks: Vec<usize> = (0..self.peers.len()).filter(|&sink| sink != source).collect();
        for &sink in &sinks {
            let peer = self.peers[sink].info;
            self.peers[sink].post(Order::Accept { job })?;
            self.peers[source].call(Order::Connect { job, peer })?;
            self.peers[sink].done()?;
        }
        let mut disturbances = 0;
        for _ in 0..ATTEMPTS {
            disturbances = self.measure(source, &sinks)?;
            if disturbances == 0 {
                break;
            }
            self.peers[source].call(Order::Forget)?;
        }
        if disturbances != 0 {
            return Err(BenchError::NeverQuiet);
        }
        self.everybody(Order::Disconnect)?;
        Ok(())
    }

    /// Measures from one source to all sinks; how often something else happened on a core that took no part.
    fn measure(&mut self, source: usize, sinks: &[usize]) -> Result<u64, BenchError> {
        // The first round is for what still goes on from before: each peer watches anew in the second.
        self.everybody(Order::Watch)?;
        self.everybody(Order::Watch)?;
        let core = self.peers[source].info.core;
        for &sink in sinks {
            let PeerInfo { core: dst, node, .. } = self.peers[sink].info;
            self.peers[sink].post(Order::Serve { source: core })?;
            self.peers[source].call(Order::Drive { dst, node })?;
        }
        self.everybody(Order::Verify)
    }

    /// Has every peer carry out an order, one after the other; the sum of the answers.
    fn everybody(&mut self, order: Order) -> Result<u64, BenchError> {
        self.peers.iter_mut().try_fold(0, |sum, peer| Ok(sum + peer.call(order)?))
    }

    /// Has the peers report their results; how many samples they rejected.
    fn report(&mut self) -> Result<u64, BenchError> {
        self.everybody(Order::Report)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for peer in &mut self.peers {
            // Who does not listen any more is ended, as is who does not answer.
            let asked = peer.post(Order::End).is_ok();
            if !asked || !peer.domain.wait_end().is_ok_and(|end| end.is_success()) {
                runtime::println!(
                    "{}: the peer on core {} did not end as it should",
                    self.bench,
                    peer.info.core
                );
                let _ = peer.domain.kill();
            }
        }
    }
}

impl Cores {
    fn list(self) -> Result<Vec<CoreId>, BenchError> {
        let count = monitor::core(None)?.cores;
        let core = |index: u32| CoreId(index as u16);
        if self == Self::All {
            return Ok((0..count).map(core).collect());
        }
        let node = |index: u32| Ok::<_, BenchError>(monitor::core(Some(core(index)))?.node);
        let mut chosen = alloc::vec![core(0)];
        if count > 1 && node(1)? == node(0)? {
            chosen.push(core(1));
        }
        if count > 1 && node(count - 1)? != node(0)? {
            chosen.push(core(count - 1));
        }
        Ok(chosen)
    }
}
