//! Scenario `races`: domains that go to sleep while others wake them, across cores, as often as `samples=` says.
//!
//! A wake-up that is lost leaves somebody asleep for ever; the domain that notices ends with an error after
//! [`STALL_MS`] and tells what it counted, and so does its peer.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use boot_freestanding as _;
use lmp::CoreId;
use runtime::monitor::{self, Domain};
use runtime::{Env, println, time};
use selftest::Test;
use selftest::racing::NODE;

#[expect(unused_imports, reason = "the module documentation links to it")]
use selftest::racing::STALL_MS;

runtime::entry!(main);

/// RAM of a node for its own use, in bytes.
const NODE_RAM: u64 = 512 << 10;

/// Seeds, so that one fits into an argument string with the rest.
const SEEDS: u64 = 10_000;

/// A race of domains on several cores: its share of all waits, in percent, and the domains.
struct Race {
    name: &'static str,
    percent: u64,
    /// Per group: kind, core and number of servers' clients; the clients share the waits evenly.
    groups: fn(u32) -> Vec<Group>,
}

/// A server and its clients, by the cores they are on.
struct Group {
    server: (&'static str, u32),
    client: &'static str,
    clients: Vec<u32>,
}

fn pairs(server: &'static str, client: &'static str, of: Vec<(u32, u32)>) -> Vec<Group> {
    let group = |(at, from)| Group { server: (server, at), client, clients: Vec::from([from]) };
    of.into_iter().map(group).collect()
}

/// Every core with the next one, both ways round.
fn ring(cores: u32) -> Vec<(u32, u32)> {
    (0..cores).flat_map(|core| [(core, (core + 1) % cores), ((core + 1) % cores, core)]).collect()
}

const RACES: &[Race] = &[
    // Each domain alone on its core, which goes idle whenever the domain sleeps.
    Race {
        name: "messages-and-idle-cores",
        percent: 10,
        groups: |cores| pairs("answer", "ask", Vec::from([(cores - 1, cores - 2)])),
    },
    Race {
        name: "room-and-idle-cores",
        percent: 5,
        groups: |cores| pairs("drain", "fill", Vec::from([(cores - 1, cores - 2)])),
    },
    // Several on each core: others run while one sleeps, and are interrupted when it is woken.
    Race { name: "messages", percent: 40, groups: |cores| pairs("answer", "ask", ring(cores)) },
    Race { name: "room", percent: 15, groups: |cores| pairs("drain", "fill", ring(cores)) },
    Race { name: "room-or-messages", percent: 10, groups: |cores| pairs("peer", "both", ring(cores)) },
    Race {
        name: "waitsets",
        percent: 20,
        groups: |cores| {
            let hub = |core| Group { server: ("hub", core), client: "ask", clients: (0..cores).collect() };
            (0..2).map(hub).collect()
        },
    },
];

fn text(error: impl Display) -> String {
    format!("{error}")
}

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let waits = env.number("samples", 1_000_000);
    let cores = match monitor::core(None) {
        Ok(info) if info.cores >= 2 => info.cores,
        Ok(_) => {
            println!("error: races need two cores");
            return runtime::start::EXIT_ERROR;
        }
        Err(error) => {
            println!("error: {error}");
            return runtime::start::EXIT_ERROR;
        }
    };
    let mut service = 0;
    for race in RACES {
        let start = time::now();
        let result = run(race, cores, waits * race.percent / 100, test.seed() % SEEDS, &mut service);
        let ms = time::now().saturating_sub(start) / env.info().tsc_ticks_per_ms.max(1);
        println!("{}: {ms} ms", race.name);
        test.check(race.name, result);
    }
    test.finish()
}

/// Runs a race to its end; every domain must succeed.
fn run(race: &Race, cores: u32, waits: u64, seed: u64, service: &mut u64) -> Result<(), String> {
    let groups = (race.groups)(cores);
    let clients: usize = groups.iter().map(|group| group.clients.len()).sum();
    let each = waits.div_ceil(clients.max(1) as u64);
    let mut nodes = Vec::new();
    for Group { server: (kind, at), client, clients } in groups {
        *service += 1;
        let number = *service;
        nodes.push(start(at, &format!("k={kind} i={number} s={seed} m={}", clients.len()))?);
        for core in clients {
            nodes.push(start(core, &format!("k={client} i={number} s={seed} n={each}"))?);
        }
    }
    // All are waited for, so that none is left over for the next race.
    let ends: Vec<Result<(), String>> = nodes
        .into_iter()
        .map(|(node, what)| match node.wait_end().map_err(text)? {
            end if end.is_success() => Ok(()),
            end => Err(format!("{what} ended with {end}")),
        })
        .collect();
    ends.into_iter().collect()
}

fn start(core: u32, args: &str) -> Result<(Domain, String), String> {
    let node = monitor::spawn(CoreId(core as u16), NODE, args, NODE_RAM);
    node.map(|node| (node, format!("{args} on core {core}")))
        .map_err(|e| format!("{args} on core {core}: {e}"))
}
