//! Scenario `fuzz`: on every core domains invoke at random, by a grammar of what fits their capabilities. They harm
//! nobody but themselves, and all that they had comes back, to the byte.
//!
//! `calls=` is the number of invocations on all cores together; `victim=` makes the victim of that number alone, with
//! `calls` of its invocations, as it was made before with that seed. A victim's invocations do not depend on time; what
//! comes of those that wait can, except under `-icount`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Display, Write as _};

use boot_freestanding as _;
use lmp::invocation::Op;
use lmp::{CoreId, SysError};
use results::{Event, EventKind};
use runtime::channel::{Channel, Waiting};
use runtime::events::{self, Deadline};
use runtime::monitor::{self, Domain};
use runtime::{Env, output, println};
use selftest::Test;
use selftest::fuzzing::{ACCEPTS, COUNTED, FINISHED, NODE, OPERATIONS, OUTCOMES, PROGRESS, SEEDS, SERVICE};
use ump::RPC_LINES;

runtime::entry!(main);

/// RAM of a node for its own use, in bytes.
const NODE_RAM: u64 = 3 << 20;
/// How long a node may take to connect, in milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// How often nodes are heard, in milliseconds.
const TURN_MS: u64 = 5;
/// Invocations by default.
const CALLS: u64 = 20_000;
/// With so many invocations every operation that can be granted is.
const ENOUGH: u64 = 100_000;

/// Operations that no victim can have granted, and why.
const REFUSED: &[(Op, &str)] = &[
    (Op::Exit, "its status is seen by nobody"),
    (Op::BindIrq, "victims have no interrupt vectors"),
    (Op::AckIrq, "victims have no interrupt vectors"),
    (Op::PortIn, "victims have no I/O ports"),
    (Op::PortOut, "victims have no I/O ports"),
    (Op::LoadKernel, "victims have less RAM than an instance takes, which could not be taken back"),
    (Op::GiveMemory, "as LoadKernel"),
    (Op::Arm, "victims have no trampoline"),
    (Op::SendInit, "victims have no trampoline"),
    (Op::SendSipi, "victims have no trampoline"),
    (Op::TrampolineStatus, "victims have no trampoline"),
    (Op::Disarm, "victims have no trampoline"),
    (Op::SetLogDoorbell, "the victims' KCB capability only reads"),
    (Op::Panic, "the victims' KCB capability only reads"),
    (Op::CreateForeign, "the victims' KCB capability only reads"),
    (Op::SetRemote, "the victims' KCB capability only reads"),
];

fn text(error: impl Display) -> String {
    format!("{error}")
}

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let calls = env.number("calls", CALLS);
    let only = env.value("victim").and_then(|v| v.parse().ok());
    match Campaign::start(test.seed() % SEEDS, calls, only) {
        Ok(mut campaign) => {
            campaign.listen(calls);
            for node in &mut campaign.nodes {
                let name = format!("core {}: no harm, no leak", node.core);
                test.check(&name, node.result());
            }
            campaign.report();
            if only.is_none() {
                test.check("operations are granted and refused", campaign.reach(calls));
            }
        }
        Err(why) => test.check("nodes", Err(why)),
    }
    test.finish()
}

/// A core's part.
struct Node {
    core: u64,
    domain: Domain,
    /// Until it has told all, or ended. It waits for that: its end takes with it what was not heard yet.
    channel: Option<Channel<RPC_LINES>>,
    done: u64,
}

impl Node {
    /// What has become of it.
    fn result(&mut self) -> Result<(), String> {
        match self.domain.wait_end().map_err(text)? {
            end if end.is_success() => Ok(()),
            end => Err(format!("the node of core {} ended with {end}; it said why", self.core)),
        }
    }
}

struct Campaign {
    nodes: Vec<Node>,
    /// Per operation and outcome.
    counts: Vec<[u64; OUTCOMES]>,
    victims: u64,
    audits: u64,
    stuck: u64,
}

impl Campaign {
    /// Starts a node on each core, or on that of the only victim.
    fn start(seed: u64, calls: u64, only: Option<u64>) -> Result<Campaign, String> {
        let cores = u64::from(monitor::core(None).map_err(text)?.cores);
        let mut service = monitor::export().map_err(text)?;
        monitor::register(SERVICE, service.iref()).map_err(text)?;
        let wanted: Vec<u64> = match only {
            Some(victim) => Vec::from([victim % cores]),
            None => (0..cores).collect(),
        };
        let each = calls.div_ceil(wanted.len() as u64);
        let victim = only.map(|v| format!(" v={v}")).unwrap_or_default();
        let mut nodes = Vec::new();
        for core in wanted {
            let args = format!("s={seed} n={each}{victim}");
            let domain = monitor::spawn(CoreId(core as u16), NODE, &args, NODE_RAM).map_err(text)?;
            let accepted = service.accept_blocking(Waiting::Blockable, Deadline::after_ms(PATIENCE_MS));
            let channel = accepted.and_then(|mut connection| connection.channel(ACCEPTS)).map_err(text)?;
            nodes.push(Node { core, domain, channel: Some(channel), done: 0 });
        }
        let counts = (0..OPERATIONS).map(|_| [0; OUTCOMES]).collect();
        Ok(Campaign { nodes, counts, victims: 0, audits: 0, stuck: 0 })
    }

    /// Hears the nodes until all have told everything, and says how far they are after every twentieth part.
    fn listen(&mut self, calls: u64) {
        let mut told = 0;
        while self.nodes.iter().any(|node| node.channel.is_some()) {
            events::wait(0, Deadline::after_ms(TURN_MS));
            self.hear();
            let done: u64 = self.nodes.iter().map(|node| node.done).sum();
            let percent = done * 100 / calls.max(1) / 5 * 5;
            if percent > told {
                told = percent;
                println!("{done} of {calls} invocations ({percent} %)");
                output::record(Event::new(EventKind::Note).name("progress").value(percent));
            }
        }
    }

    fn hear(&mut self) {
        for node in &mut self.nodes {
            while let Some(channel) = &mut node.channel {
                let message = match channel.try_recv() {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(_) => {
                        node.channel = None;
                        break;
                    }
                };
                let [a, b, c] = [0, 1, 2].map(|n| message.words().get(n).copied().unwrap_or(0));
                match message.kind() {
                    PROGRESS => node.done = a,
                    COUNTED => {
                        let outcomes = self.counts.get_mut(a as usize);
                        if let Some(count) = outcomes.and_then(|o| o.get_mut(b as usize)) {
                            *count += c;
                        }
                    }
                    FINISHED => {
                        node.channel = None;
                        (self.victims, self.audits, self.stuck) =
                            (self.victims + a, self.audits + b, self.stuck + c);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Prints what came of each operation.
    fn report(&self) {
        let (mut all, mut granted) = (0, 0);
        for (index, outcomes) in self.counts.iter().enumerate() {
            let made: u64 = outcomes.iter().sum();
            (all, granted) = (all + made, granted + outcomes[0]);
            let name =
                Op::ALL.get(index).map_or_else(|| String::from("(no operation)"), |op| format!("{op:?}"));
            let mut line = format!("{name}: {made}, granted {}", outcomes[0]);
            for (status, count) in outcomes.iter().enumerate().skip(1).filter(|(_, count)| **count > 0) {
                if let Some(error) = SysError::from_code(status as u16) {
                    let _ = write!(line, ", {error:?} {count}");
                }
            }
            println!("{line}");
        }
        let Campaign { victims, audits, stuck, .. } = self;
        println!(
            "{all} invocations, {granted} granted; {victims} victims, {stuck} waited for ever; {audits} audits"
        );
    }

    /// Each operation was refused, and was granted unless that is ruled out.
    fn reach(&self, calls: u64) -> Result<(), String> {
        if calls < ENOUGH {
            return Ok(());
        }
        for (op, outcomes) in Op::ALL.iter().zip(&self.counts) {
            let explained = REFUSED.iter().find(|(refused, _)| refused == op);
            let refused: u64 = outcomes[1..].iter().sum();
            match (outcomes[0], explained) {
                (0, None) => return Err(format!("{op:?} was never granted")),
                (granted, Some((_, why))) if granted > 0 => {
                    return Err(format!("{op:?} was granted {granted} times, though {why}"));
                }
                _ if refused == 0 => return Err(format!("{op:?} was never refused")),
                _ => {}
            }
        }
        Ok(())
    }
}
