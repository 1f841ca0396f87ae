//! Scenario `spawning`: the monitors have domains made and ended on every core, refuse what cannot be, and the cores
//! have all their memory back in the end.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use boot_freestanding as _;
use lmp::CoreId;
use lmp::invocation::EndCause;
use lmp::objects::PAGE_SIZE;
use runtime::Env;
use runtime::interface::monitor::MonitorError;
use runtime::monitor::{self, Domain, DomainEnd, Error};
use selftest::{Random, Test};

runtime::entry!(main);

/// The module that the domains run.
const GUEST: &str = "test_guest";
/// RAM of a domain for its own use, in bytes.
const RAM: u64 = 64 << 10;
/// Domains started in all.
const DOMAINS: usize = 1000;
/// Domains at a time, at most.
const HELD: usize = 12;
/// More RAM than a core has for its domains, in bytes.
const TOO_MUCH: u64 = 64 << 20;

/// What a domain does, and how it is to end.
#[derive(Clone, Copy)]
enum Deed {
    /// It ends with this code.
    Exit(u64),
    /// It goes on for ever, until it is killed.
    Endless(&'static str),
    /// It faults.
    Fault,
    /// It takes all its memory, and ends.
    Eat,
}

impl Deed {
    /// One that leaves the core to others: who spins would make everybody else wait for time slices.
    fn any(random: &mut Random) -> Deed {
        match random.below(7) {
            0..=2 => Deed::Exit(random.below(1 << 32)),
            3 => Deed::Endless("block"),
            4 => Deed::Endless("ask"),
            5 => Deed::Fault,
            _ => Deed::Eat,
        }
    }

    fn args(self) -> String {
        match self {
            Deed::Exit(code) => format!("do=exit code={code}"),
            Deed::Endless(what) => format!("do={what}"),
            Deed::Fault => String::from("do=fault"),
            Deed::Eat => String::from("do=eat"),
        }
    }

    fn ends_as(self, end: DomainEnd) -> bool {
        match self {
            Deed::Exit(code) => end == DomainEnd { cause: EndCause::Exit, detail: code },
            Deed::Endless(_) => end.cause == EndCause::Deleted,
            Deed::Fault => end == DomainEnd { cause: EndCause::PageFault, detail: 0 },
            Deed::Eat => end.is_success(),
        }
    }
}

/// A domain under way.
struct Running {
    core: CoreId,
    deed: Deed,
    domain: Domain,
}

impl Running {
    fn start(core: CoreId, deed: Deed) -> Result<Running, String> {
        let domain =
            monitor::spawn(core, GUEST, &deed.args(), RAM).map_err(|e| format!("core {}: {e}", core.0))?;
        Ok(Running { core, deed, domain })
    }

    /// Ends it if it does not by itself, and checks how it ended.
    fn finish(self) -> Result<(), String> {
        let Running { core, deed, domain } = self;
        let said = |e: Error| format!("core {}, {}: {e}", core.0, deed.args());
        if let Deed::Endless(_) = deed {
            domain.kill().map_err(said)?;
        }
        match domain.wait_end().map_err(said)? {
            end if deed.ends_as(end) => Ok(()),
            end => Err(format!("core {}, {}: {end}", core.0, deed.args())),
        }
    }
}

fn expect<T>(what: &str, found: Result<T, Error>, expected: MonitorError) -> Result<(), String> {
    match found {
        Err(Error::Refused(error)) if error == expected => Ok(()),
        Err(other) => Err(format!("{what}: {other}")),
        Ok(_) => Err(format!("{what} is not refused")),
    }
}

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let cores = env.number("cores", 1) as u16;
    let mut random = Random::new(test.seed());
    test.check("deeds", deeds(cores));
    test.check("refusals", refusals(cores));
    test.check("thousand", thousand(cores, &mut random));
    test.finish()
}

/// Each deed on each core.
fn deeds(cores: u16) -> Result<(), String> {
    let endless = ["block", "ask", "spin"].map(Deed::Endless);
    for core in (0..cores).map(CoreId) {
        for deed in [Deed::Exit(0), Deed::Exit(77), Deed::Fault, Deed::Eat].into_iter().chain(endless) {
            Running::start(core, deed)?.finish()?;
        }
    }
    Ok(())
}

fn refusals(cores: u16) -> Result<(), String> {
    let spawn = |core: u16, module, memory| monitor::spawn(CoreId(core), module, "", memory);
    expect("a core that is not there", spawn(cores, GUEST, RAM), MonitorError::NoCore)?;
    expect("a core far out", spawn(u16::MAX, GUEST, RAM), MonitorError::NoCore)?;
    for core in 0..cores {
        let what = |what: &str| format!("{what} on core {core}");
        expect(&what("a module that is not there"), spawn(core, "nothing", RAM), MonitorError::CannotSpawn)?;
        expect(&what("no module"), spawn(core, "", RAM), MonitorError::CannotSpawn)?;
        expect(&what("a module for the kernel"), spawn(core, "cpudriver", RAM), MonitorError::CannotSpawn)?;
        expect(&what("too much memory"), spawn(core, GUEST, TOO_MUCH), MonitorError::CannotSpawn)?;
    }
    Ok(())
}

/// The most RAM, in pages, that a domain of this core can have: each page that one left behind makes it less.
fn largest(core: CoreId) -> Result<u64, String> {
    let (mut fits, mut fails) = (0, TOO_MUCH / PAGE_SIZE);
    while fits + 1 < fails {
        let pages = fits.midpoint(fails);
        match monitor::spawn(core, GUEST, "do=exit code=0", pages * PAGE_SIZE) {
            Ok(domain) => {
                domain.wait_end().map_err(|e| format!("{e}"))?;
                fits = pages;
            }
            Err(Error::Refused(MonitorError::CannotSpawn)) => fails = pages,
            Err(error) => return Err(format!("core {}: {error}", core.0)),
        }
    }
    Ok(fits)
}

/// A thousand domains, a few at a time, end as they should, and leave nothing behind.
fn thousand(cores: u16, random: &mut Random) -> Result<(), String> {
    let all = || (0..cores).map(CoreId);
    // `init` and the monitors have grown as large as they need to be after a few.
    crowd(cores, 4 * HELD, random)?;
    let before = all().map(largest).collect::<Result<Vec<u64>, String>>()?;
    crowd(cores, DOMAINS, random)?;
    let after = all().map(largest).collect::<Result<Vec<u64>, String>>()?;
    if before.contains(&0) {
        return Err(format!("no memory for domains: {before:?}"));
    }
    if after == before {
        Ok(())
    } else {
        Err(format!("largest domains in pages: {before:?}, then {after:?}"))
    }
}

/// Starts `count` domains on the cores in turn, and ends the older ones.
fn crowd(cores: u16, count: usize, random: &mut Random) -> Result<(), String> {
    let mut running: VecDeque<Running> = VecDeque::new();
    for (core, _) in (0..cores).cycle().zip(0..count) {
        if running.len() == HELD
            && let Some(oldest) = running.pop_front()
        {
            oldest.finish()?;
        }
        running.push_back(Running::start(CoreId(core), Deed::any(random))?);
    }
    running.into_iter().try_for_each(Running::finish)
}
