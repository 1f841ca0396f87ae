//! Scenario `memserv`: domains on every core take far more memory than they were given, from the core's memory server;
//! what they give back, what they leave behind and what they are killed with is back to the byte, and who asks for what is
//! not its own gets an error.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use core::ops::Range;

use boot_freestanding as _;
use lmp::invocation::EndCause;
use lmp::layout::{STACK_BASE, STACK_TOP};
use lmp::objects::PAGE_SIZE;
use lmp::{CoreId, SysError, cptr::task, syscall};
use runtime::channel::Waiting;
use runtime::executor::block_on;
use runtime::monitor::{self, Domain, DomainEnd, Service};
use runtime::{Env, memory};
use selftest::{Random, Test};

runtime::entry!(main);

/// The module that the domains run.
const GUEST: &str = "test_memserv_guest";
/// RAM that a domain starts with, in bytes.
const RAM: u64 = 64 << 10;
/// RAM for a domain that is to grow its stack to the end, in bytes.
const STACK_RAM: u64 = STACK_TOP - STACK_BASE + (128 << 10);
/// Domains killed in all.
const KILLS: usize = 1000;
/// Domains at a time, at most.
const HELD: usize = 8;

/// What the domains do that end by themselves: each takes much more than [`RAM`].
const DEEDS: [&str; 6] = ["frames", "heap", "stack", "recycle", "quota", "messages"];
/// What the domains do that are killed in the middle.
const ENDLESS: [&str; 3] = ["churn", "hoard", "grow-heap"];

fn start(core: CoreId, what: &str, ram: u64) -> Result<Domain, String> {
    monitor::spawn(core, GUEST, &format!("do={what}"), ram)
        .map_err(|e| format!("core {}, {what}: {e}", core.0))
}

/// Has a domain do something to its end; how it ended.
fn end_of(core: CoreId, what: &str, ram: u64) -> Result<DomainEnd, String> {
    start(core, what, ram)?.wait_end().map_err(|e| format!("core {}, {what}: {e}", core.0))
}

/// Has a domain do something, at which it must find nothing wrong.
fn succeed(core: CoreId, what: &str) -> Result<(), String> {
    match end_of(core, what, RAM)? {
        end if end.is_success() => Ok(()),
        end => Err(format!("core {}, {what}: {end}", core.0)),
    }
}

/// A number that a domain finds out.
fn number(core: CoreId, what: &str) -> Result<u64, String> {
    match end_of(core, what, RAM)? {
        DomainEnd { cause: EndCause::Exit, detail } => Ok(detail),
        end => Err(format!("core {}, {what}: {end}", core.0)),
    }
}

/// Whether nobody has anything of the pools of all cores.
fn all_back(cores: u16) -> Result<(), String> {
    for core in (0..cores).map(CoreId) {
        let (total, free) = (number(core, "total")?, number(core, "free")?);
        if total == 0 || free != total {
            return Err(format!("core {}: {free} of {total} bytes are free", core.0));
        }
    }
    Ok(())
}

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let cores = env.number("cores", 1) as u16;
    let mut random = Random::new(test.seed());
    test.check("idle", all_back(cores));
    for what in DEEDS {
        test.check(what, everywhere(cores, |core| succeed(core, what)));
    }
    test.check("hostile", everywhere(cores, |core| succeed(core, "hostile")));
    test.check("guards", everywhere(cores, guards));
    test.check("passed", passed(cores));
    test.check("thousand", thousand(cores, &mut random));
    test.finish()
}

fn everywhere(cores: u16, f: impl FnMut(CoreId) -> Result<(), String>) -> Result<(), String> {
    (0..cores).map(CoreId).try_for_each(f)?;
    all_back(cores)
}

/// Who runs out of its stack or past a mapping ends there, by a fault that says where.
fn guards(core: CoreId) -> Result<(), String> {
    let fault = |what: &str, ram, expected: Range<u64>| match end_of(core, what, ram)? {
        DomainEnd { cause: EndCause::PageFault, detail } if expected.contains(&detail) => Ok(()),
        end => Err(format!("core {}, {what}: {end} and not a fault in {expected:#x?}", core.0)),
    };
    fault("overflow", STACK_RAM, STACK_BASE - PAGE_SIZE..STACK_BASE)?;
    let mappings = lmp::layout::MAP_BASE..lmp::layout::MAP_TOP;
    fault("below", RAM, mappings.clone())?;
    fault("above", RAM, mappings)?;
    fault("past-heap", RAM, lmp::layout::HEAP_BASE..lmp::layout::HEAP_TOP)
}

/// What a domain has made of memory that it was lent, and has passed on to another core, comes back when it is gone.
fn passed(cores: u16) -> Result<(), String> {
    let mut service = monitor::export().map_err(|e| format!("{e}"))?;
    monitor::register("memserv", service.iref()).map_err(|e| format!("{e}"))?;
    everywhere(cores, |core| pass(core, &mut service))
}

fn pass(core: CoreId, service: &mut Service) -> Result<(), String> {
    let said = |e| format!("core {}: {e}", core.0);
    let domain = start(core, "pass", RAM)?;
    let connection = block_on(service.accept(Waiting::Polling)).map_err(said)?;
    let frame = connection.take_cap().map_err(said)?;
    let here = || syscall::cap_identify(task::ROOT, frame);
    if here().is_err() {
        return Err(format!("core {}: no frame came", core.0));
    }
    end(core, domain)?;
    // Whoever is started there is started after that one was taken down.
    number(core, "free")?;
    if here() != Err(SysError::EmptySlot) {
        return Err(format!("core {}: a frame of a domain that is gone is still here", core.0));
    }
    memory::free_slot(frame);
    Ok(())
}

/// A thousand domains, killed wherever they are, leave nothing behind.
fn thousand(cores: u16, random: &mut Random) -> Result<(), String> {
    let mut running: VecDeque<(CoreId, Domain)> = VecDeque::new();
    for (core, kill) in (0..cores).map(CoreId).cycle().zip(0..KILLS + HELD) {
        if running.len() == HELD
            && let Some((core, oldest)) = running.pop_front()
        {
            end(core, oldest)?;
        }
        if kill < KILLS {
            running.push_back((core, start(core, random.pick(&ENDLESS), RAM)?));
        }
    }
    running.into_iter().try_for_each(|(core, domain)| end(core, domain))?;
    all_back(cores)
}

fn end(core: CoreId, domain: Domain) -> Result<(), String> {
    let said = |e| format!("core {}: {e}", core.0);
    domain.kill().map_err(said)?;
    match domain.wait_end().map_err(said)? {
        DomainEnd { cause: EndCause::Deleted, .. } => Ok(()),
        end => Err(format!("core {}: a domain that goes on for ever ended: {end}", core.0)),
    }
}
