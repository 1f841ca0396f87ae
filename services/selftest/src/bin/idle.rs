//! Scenario `idle`: domains on every core block on channels, and from then on nothing happens on their cores.
//!
//! A domain on each core reads its core's counters when it is asked to. What lies between two readings is its own way
//! to sleep and back, which is the same each time, and whatever else happens on the core in between. So two readings
//! a second apart must tell exactly what two readings a millisecond apart do. As a core that halts goes on by an
//! interrupt only, which is an entry into the CPU driver, it has not executed an instruction in between. The time of
//! day must be that of the instructions executed, as it is under `-icount`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use boot_freestanding as _;
use lmp::CoreId;
use lmp::invocation::Counter;
use runtime::channel::{Channel, Waiting};
use runtime::events::{self, Deadline};
use runtime::monitor;
use runtime::{Env, println};
use selftest::Test;
use selftest::idling::{ACCEPTS, COUNTERS, NODE, READ, SERVICE, TIMER_TICKS, VALUES};
use ump::{Message, RPC_LINES};

runtime::entry!(main);

/// RAM of a node for its own use, in bytes.
const NODE_RAM: u64 = 256 << 10;
/// How long a node may take to answer, in milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// The pauses between readings, in milliseconds. The first readings find the nodes on their way to sleep.
const PAUSES_MS: [u64; 6] = [10, 1, 1000, 1, 1000, 1];

type Values = [u64; COUNTERS.len()];

/// The channels to the nodes of one core.
type Channels = BTreeMap<u32, Vec<Channel<RPC_LINES>>>;

fn text(error: impl Display) -> String {
    format!("{error}")
}

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    // Domains in all.
    let domains = env.number("samples", 64);
    match nodes(domains) {
        Ok(mut channels) => {
            test.check("all-block", all_answer(&mut channels));
            let changes = changes(&mut channels);
            test.check("no-timer-interrupts", changes.as_ref().map_err(String::clone).and_then(|c| ticks(c)));
            test.check("nothing-happens", changes.and_then(|changes| same(&changes)));
        }
        Err(why) => test.check("all-block", Err(why)),
    }
    test.finish()
}

/// Starts so many nodes, spread over all cores, and connects them.
fn nodes(domains: u64) -> Result<Channels, String> {
    let cores = u64::from(monitor::core(None).map_err(text)?.cores);
    let mut service = monitor::export().map_err(text)?;
    monitor::register(SERVICE, service.iref()).map_err(text)?;
    let mut channels = Channels::new();
    for domain in 0..domains {
        let core = (domain % cores) as u32;
        // Nobody waits for its end: it ends when this does.
        let _node = monitor::spawn(CoreId(core as u16), NODE, "", NODE_RAM).map_err(text)?;
        let accepted = service.accept_blocking(Waiting::Blockable, Deadline::after_ms(PATIENCE_MS));
        let mut connection = accepted.map_err(text)?;
        if connection.peer() != CoreId(core as u16) {
            return Err(format!("a node of core {core} is on core {}", connection.peer().0));
        }
        let channel = connection.channel(ACCEPTS).map_err(text)?;
        channels.entry(core).or_default().push(channel);
    }
    Ok(channels)
}

/// The counters of a node's core.
fn read(channel: &mut Channel<RPC_LINES>) -> Result<Values, String> {
    let deadline = Deadline::after_ms(PATIENCE_MS);
    channel.send_blocking(&Message::new(READ, []), deadline).map_err(text)?;
    let answer = channel.recv_blocking(deadline).map_err(text)?;
    match answer.words().try_into() {
        Ok(values) if answer.kind() == VALUES => Ok(values),
        _ => Err(format!("no values of counters: {answer:?}")),
    }
}

/// Every node answers, so each has blocked on its channel and was woken.
fn all_answer(channels: &mut Channels) -> Result<(), String> {
    rest(PAUSES_MS[0]);
    for (core, channels) in channels {
        for channel in channels {
            let slept = channel.sleeps().rang;
            read(channel).map_err(|e| format!("core {core}: {e}"))?;
            if channel.sleeps().rang == slept {
                return Err(format!("a domain of core {core} was not asleep"));
            }
        }
    }
    Ok(())
}

fn rest(ms: u64) {
    events::wait(0, Deadline::after_ms(ms));
}

/// What changed in each pause on each further core. This one has a deadline to wait for.
fn changes(channels: &mut Channels) -> Result<Vec<BTreeMap<u32, Values>>, String> {
    let mut before: BTreeMap<u32, Values> = BTreeMap::new();
    let mut changes: Vec<BTreeMap<u32, Values>> = Vec::new();
    for pause in PAUSES_MS {
        rest(pause);
        let mut now = BTreeMap::new();
        for (core, channels) in channels.iter_mut().filter(|(core, _)| **core != 0) {
            let Some(first) = channels.first_mut() else { continue };
            now.insert(*core, read(first).map_err(|e| format!("core {core}: {e}"))?);
        }
        let change = |(core, values): (&u32, &Values)| {
            let before = before.get(core)?;
            Some((*core, core::array::from_fn(|i| values[i] - before[i])))
        };
        if !before.is_empty() {
            changes.push(now.iter().filter_map(change).collect());
        }
        before = now;
    }
    for (pause, changes) in PAUSES_MS[1..].iter().zip(&changes) {
        let first: Option<(&u32, &Values)> = changes.iter().next();
        println!("{pause} ms: {first:?}");
    }
    Ok(changes)
}

/// No core but the first had a timer interrupt.
fn ticks(changes: &[BTreeMap<u32, Values>]) -> Result<(), String> {
    let ticking = changes.iter().flatten().find(|(_, values)| values[TIMER_TICKS] != 0);
    match ticking {
        Some((core, values)) => Err(format!("{} timer interrupts on core {core}", values[TIMER_TICKS])),
        None => Ok(()),
    }
}

/// On each core all pauses are the same, whatever their length.
fn same(changes: &[BTreeMap<u32, Values>]) -> Result<(), String> {
    let Some((first, others)) = changes.split_first() else {
        return Err(String::from("there is nothing to compare"));
    };
    for (pause, other) in PAUSES_MS[2..].iter().zip(others) {
        for (core, values) in other {
            let Some(shortest) = first.get(core) else {
                return Err(format!("core {core} was not read at first"));
            };
            for (counter, (short, long)) in COUNTERS.iter().zip(shortest.iter().zip(values)) {
                if short != long {
                    return Err(differs(*core, *counter, *pause, *short, *long));
                }
            }
        }
    }
    Ok(())
}

fn differs(core: u32, counter: Counter, pause: u64, short: u64, long: u64) -> String {
    format!("core {core}: {} in a pause of {pause} ms: {long}; of 1 ms: {short}", counter.text())
}
