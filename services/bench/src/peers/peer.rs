//! A peer: it does as its master says.

use alloc::vec::Vec;

use lmp::CPtr;
use lmp::invocation::Counter;
use results::anchors::BENCHES;
use runtime::Env;
use runtime::bench::{BenchError, EXIT_FAILED, Harness, RunInfo, Subject, counter};
use runtime::channel::Waiting;
use runtime::events::Deadline;
use runtime::interface::monitor::Iref;
use runtime::monitor::{self, Options, Service};
use skb::Policy;
use ump::RPC_LINES;

use super::protocol::{ACCEPTS, Answer, Order, PeerInfo};
use crate::jobs::{Job, Link};

/// The counters by which a peer sees whether something else happened on its core.
const WATCHED: [Counter; 3] = [Counter::Idles, Counter::Interrupts, Counter::TimerTicks];

/// How far they may go on while a peer waits for one order: the core goes idle, and the order wakes it; before that
/// the master may have acknowledged earlier answers, which wakes it too. No timer may come.
const ALLOWED: [u64; WATCHED.len()] = [2, 2, 0];

/// The same on the master's core: the master goes idle and is woken there too, between the measurements.
const ALLOWED_WITH_MASTER: [u64; WATCHED.len()] = [u64::MAX, u64::MAX, 0];

/// An order that needs to know of the run came before [`Order::Setup`].
const NOT_SET_UP: BenchError = BenchError::Wrong("the master gave orders before it said what is measured");

/// The whole life of a peer; its exit code.
pub fn main(env: &Env) -> u64 {
    match live(env) {
        Ok(()) => 0,
        Err(error) => {
            runtime::println!("peer: {error}");
            EXIT_FAILED
        }
    }
}

fn live(env: &Env) -> Result<(), BenchError> {
    let service = monitor::export()?;
    let master = Iref(env.number("iref", u64::MAX));
    let options = Options { waiting: Waiting::Blockable, ..Options::default() };
    let mut connection = monitor::bind(master, &options)?;
    let mut channel = connection.channel::<RPC_LINES>(ACCEPTS)?;
    let (core, node, iref) = (env.info().core, env.info().node, service.iref());
    channel.send_blocking(&Answer::Hello(PeerInfo { core, node, iref }).encode(), Deadline::NEVER)?;
    let neighbour = if master.core() == core { Neighbour::Master } else { Neighbour::Nobody };
    let mut peer = Peer { env: *env, service, state: None, links: Vec::new(), watch: Watch::new(neighbour)? };
    loop {
        let before = peer.watch.read()?;
        let message = channel.recv_blocking(Deadline::NEVER)?;
        peer.watch.judge(before)?;
        let order = Order::decode(&message).ok_or(BenchError::Wrong("the master's order makes no sense"))?;
        let answer = match (order, peer.carry_out(order)) {
            (Order::End, _) => return Ok(()),
            (Order::Serve { .. }, Ok(_)) => continue,
            (_, Ok(value)) => Answer::Done(value),
            (_, Err(error)) => {
                runtime::println!("peer on core {core}: {error}");
                Answer::Failed
            }
        };
        channel.send_blocking(&answer.encode(), Deadline::NEVER)?;
    }
}

/// A connection to another peer.
struct Connected {
    /// Its core.
    core: u32,
    job: Job,
    link: Link,
}

/// What a peer measures with, and how many results were taken before the watch began.
struct State {
    harness: Harness,
    policy: Policy,
    seed: u64,
    kept: usize,
}

struct Peer {
    env: Env,
    service: Service,
    state: Option<State>,
    links: Vec<Connected>,
    watch: Watch,
}

impl Peer {
    fn state(&mut self) -> Result<&mut State, BenchError> {
        self.state.as_mut().ok_or(NOT_SET_UP)
    }

    fn carry_out(&mut self, order: Order) -> Result<u64, BenchError> {
        match order {
            Order::Setup { run, bench } => self.set_up(run, BENCHES[bench].name)?,
            Order::Accept { job } => {
                let connection = self.service.accept_blocking(job.consumer_waits(), Deadline::NEVER)?;
                let core = u32::from(connection.peer().0);
                let link = Link::new(connection, job)?;
                self.links.push(Connected { core, job, link });
            }
            Order::Connect { job, peer: PeerInfo { core, iref, .. } } => {
                let State { policy, seed, .. } = *self.state()?;
                let link = Link::new(monitor::bind(iref, &job.options(policy, seed))?, job)?;
                self.links.push(Connected { core, job, link });
            }
            Order::Watch => {
                let state = self.state()?;
                state.kept = state.harness.len();
                self.watch.begin();
            }
            Order::Serve { source } => {
                let Connected { job, link, .. } = connected(&mut self.links, source)?;
                link.serve(*job)?;
            }
            Order::Drive { dst, node } => self.drive(dst, node)?,
            Order::Verify => return Ok(self.watch.end()),
            Order::Forget => {
                let State { harness, kept, .. } = self.state()?;
                harness.forget_after(*kept);
            }
            Order::Disconnect => self.links.clear(),
            Order::Report => {
                let harness = &mut self.state()?.harness;
                harness.report();
                return Ok(harness.rejected());
            }
            Order::End => {}
        }
        Ok(0)
    }

    fn set_up(&mut self, run: RunInfo, bench: &'static str) -> Result<(), BenchError> {
        let harness = Harness::new(self.env, bench, run)?;
        self.state = Some(State { harness, policy: run.policy, seed: run.seed, kept: 0 });
        Ok(())
    }

    fn drive(&mut self, dst: u32, node: u32) -> Result<(), BenchError> {
        let State { harness, policy, .. } = self.state.as_mut().ok_or(NOT_SET_UP)?;
        let Connected { job, link, .. } = connected(&mut self.links, dst)?;
        let subject = Subject::new().moving(job.bytes()).to(dst, node).over(link.connection(), *policy);
        harness.about(subject);
        link.drive(*job, harness)
    }
}

/// The connection to the peer on `core`.
fn connected(links: &mut [Connected], core: u32) -> Result<&mut Connected, BenchError> {
    let link = links.iter_mut().find(|link| link.core == core);
    link.ok_or(BenchError::Wrong("there is no connection to the peer that the master means"))
}

/// Who else of the benchmark is on a peer's core.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    Nobody,
    Master,
}

/// Sees to it that nothing else happens on this core while a peer waits.
struct Watch {
    kcb: CPtr,
    allowed: [u64; WATCHED.len()],
    watching: bool,
    disturbances: u64,
}

impl Watch {
    fn new(core: Neighbour) -> Result<Watch, BenchError> {
        let allowed = match core {
            Neighbour::Nobody => ALLOWED,
            Neighbour::Master => ALLOWED_WITH_MASTER,
        };
        Ok(Watch { kcb: monitor::counters()?, allowed, watching: false, disturbances: 0 })
    }

    fn read(&self) -> Result<[u64; WATCHED.len()], BenchError> {
        let mut values = [0; WATCHED.len()];
        for (value, which) in values.iter_mut().zip(WATCHED) {
            *value = counter(self.kcb, which)?;
        }
        Ok(values)
    }

    fn begin(&mut self) {
        (self.watching, self.disturbances) = (true, 0);
    }

    /// After a wait that began with these counters.
    fn judge(&mut self, before: [u64; WATCHED.len()]) -> Result<(), BenchError> {
        if self.watching {
            let after = self.read()?;
            let change: [u64; WATCHED.len()] = core::array::from_fn(|index| after[index] - before[index]);
            if change.iter().zip(self.allowed).any(|(change, allowed)| *change > allowed) {
                self.disturbances += 1;
                let [idles, interrupts, ticks] = change;
                runtime::println!(
                    "disturbed: idle {idles} times, {interrupts} interrupts, {ticks} of a timer"
                );
            }
        }
        Ok(())
    }

    fn end(&mut self) -> u64 {
        self.watching = false;
        self.disturbances
    }
}
