//! Scenario `mesh`: domains on all cores that their monitors connect, and that end in the middle of it.
//!
//! `samples=` is the number of messages from each core to each other. After each part all memory is back.
//!
//! The ends come while connections are made, and in the middle of calls, of passing frames, of messages both ways, of
//! waiting for one or for room, and of bulk transfers: the producer's while the consumer reads its buffers, and the
//! consumer's while it holds buffers of the producer. Who is left must be told that its peer died, and nothing else.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use boot_freestanding as _;
use lmp::CoreId;
use lmp::invocation::EndCause;
use runtime::events::{self, Deadline};
use runtime::monitor::{self, Domain, DomainEnd};
use runtime::{Env, println};
use selftest::mesh::{FOREVER, MET, NODE};
use selftest::{Random, Test};

runtime::entry!(main);

/// RAM of a node for its own use, in bytes.
const NODE_RAM: u64 = 1 << 20;
/// Domains that are ended in the middle of each kind of exchange.
const KILLS: u64 = 8;
/// A domain is ended within so many microseconds.
const KILL_WITHIN_US: u64 = 3_000;
/// How long memory may take to come back, in milliseconds.
const PATIENCE_MS: u64 = 20_000;

/// Which end of a connection a role is.
#[derive(Clone, Copy)]
enum End {
    Service,
    Client,
}

/// A domain that is ended in the middle of an exchange, and its peer, which must be told.
struct Death {
    name: &'static str,
    victim: (&'static str, End),
    survivor: (&'static str, End),
}

const DEATHS: &[Death] = &[
    Death {
        name: "a-client-ends-while-both-stream",
        victim: ("source", End::Client),
        survivor: ("stream", End::Service),
    },
    Death {
        name: "a-service-ends-while-both-stream",
        victim: ("stream", End::Service),
        survivor: ("source", End::Client),
    },
    Death {
        name: "a-client-ends-while-its-peer-waits-for-messages",
        victim: ("silent", End::Client),
        survivor: ("listen", End::Service),
    },
    Death {
        name: "a-service-ends-while-its-peer-waits-for-messages",
        victim: ("mum", End::Service),
        survivor: ("wait", End::Client),
    },
    Death {
        name: "a-client-ends-while-its-peer-waits-for-room",
        victim: ("deaf", End::Client),
        survivor: ("pour", End::Service),
    },
    Death {
        name: "a-service-ends-while-its-peer-waits-for-room",
        victim: ("full", End::Service),
        survivor: ("push", End::Client),
    },
    Death {
        name: "a-client-ends-while-both-wait",
        victim: ("hark", End::Client),
        survivor: ("listen", End::Service),
    },
    Death {
        name: "a-service-ends-while-both-wait",
        victim: ("listen", End::Service),
        survivor: ("hark", End::Client),
    },
    Death {
        name: "a-producer-ends-while-buffers-move",
        victim: ("fill", End::Client),
        survivor: ("drain", End::Service),
    },
    Death {
        name: "a-consumer-ends-while-buffers-move",
        victim: ("drain", End::Service),
        survivor: ("fill", End::Client),
    },
];

fn text(error: impl Display) -> String {
    format!("{error}")
}

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let count = env.number("samples", 500);
    let cores = match monitor::core(None) {
        Ok(info) => info.cores,
        Err(error) => {
            println!("error: {error}");
            return runtime::start::EXIT_ERROR;
        }
    };
    let mut random = Random::new(test.seed());
    // The channels between monitors are made once and stay.
    test.check("connects-all-cores", all(cores, 1));
    let settle = |test: &mut Test, name: &str, part: &mut dyn FnMut() -> Result<(), String>| {
        let before = free();
        let result = before.and_then(|before| {
            part()?;
            comes_back(&before)
        });
        test.check(name, result);
    };
    settle(&mut test, "every-ordered-pair", &mut || all(cores, count));
    settle(&mut test, "calls", &mut || {
        with_server(1 % cores, |at| done(start(cores - 1, "call", at, count)?))
    });
    settle(&mut test, "calls-within-a-core", &mut || with_server(0, |at| done(start(0, "call", at, count)?)));
    settle(&mut test, "frames", &mut || {
        with_server(1 % cores, |at| done(start(cores - 1, "caps", at, 100)?))
    });
    settle(&mut test, "frames-from-a-later-core", &mut || {
        with_server(0, |at| done(start(cores - 1, "caps", at, 20)?))
    });
    let mut pause = || random.below(KILL_WITHIN_US);
    settle(&mut test, "clients-end-in-the-middle-of-binding", &mut || {
        let mute = start(1 % cores, "mute", 0, 0)?;
        for _ in 0..KILLS {
            end_after(start(cores - 1, "bind", 1 % cores, 0)?, pause())?;
        }
        end_after(mute, 0)
    });
    settle(&mut test, "services-end-in-the-middle-of-binding", &mut || {
        for _ in 0..KILLS {
            let mute = start(1 % cores, "mute", 0, 0)?;
            let client = start(cores - 1, "bind", 1 % cores, 0)?;
            end_after(mute, pause())?;
            // Refused, or the name went first and it waits for another.
            end_after(client, 1000)?;
        }
        Ok(())
    });
    settle(&mut test, "clients-end-in-the-middle-of-calls", &mut || {
        with_server(1 % cores, |at| {
            for _ in 0..KILLS {
                end_after(start(cores - 1, "call", at, FOREVER)?, pause())?;
            }
            // The server goes on.
            done(start(cores - 1, "call", at, 10)?)
        })
    });
    settle(&mut test, "servers-end-in-the-middle-of-calls", &mut || {
        for _ in 0..KILLS {
            let server = start(1 % cores, "serve", 0, 0)?;
            let client = start(cores - 1, "call", 1 % cores, FOREVER)?;
            wait_until_met(cores - 1)?;
            end_after(server, pause())?;
            // The client is told, and succeeds by it.
            done(client)?;
        }
        Ok(())
    });
    settle(&mut test, "owners-of-frames-end-while-others-have-them", &mut || {
        for _ in 0..KILLS {
            // A server whose frame is taken from under it may end by that.
            let server = start(1 % cores, "serve", 0, 0)?;
            end_after(start(cores - 1, "caps", 1 % cores, FOREVER)?, pause())?;
            end_after(server, 0)?;
        }
        Ok(())
    });
    settle(&mut test, "receivers-of-frames-end", &mut || {
        for _ in 0..KILLS {
            let server = start(1 % cores, "serve", 0, 0)?;
            let client = start(cores - 1, "caps", 1 % cores, FOREVER)?;
            wait_until_met(cores - 1)?;
            end_after(server, pause())?;
            done(client)?;
        }
        Ok(())
    });
    for Death { name, victim, survivor } in DEATHS {
        settle(&mut test, name, &mut || {
            for round in 0..KILLS {
                // Both ways round between two cores, and within one.
                let (at, from) = [(1 % cores, cores - 1), (cores - 1, 1 % cores), (0, 0)][round as usize % 3];
                let start = |(role, end): (&str, End)| match end {
                    End::Service => start(at, role, 0, FOREVER),
                    End::Client => start(from, role, at, FOREVER),
                };
                let (victim, survivor) = (start(*victim)?, start(*survivor)?);
                wait_until_met(from)?;
                end_after(victim, pause())?;
                done(survivor)?;
            }
            Ok(())
        });
    }
    test.check("refusals", refusals(cores));
    test.finish()
}

/// Starts a node.
fn start(core: u32, role: &str, at: u32, count: u64) -> Result<Domain, String> {
    let args = format!("role={role} at={at} count={count}");
    monitor::spawn(CoreId(core as u16), NODE, &args, NODE_RAM)
        .map_err(|e| format!("{role} on core {core}: {e}"))
}

/// Waits until the client on `core` is connected.
fn wait_until_met(core: u32) -> Result<(), String> {
    monitor::lookup(&format!("{MET}.{core}")).map(|_| ()).map_err(text)
}

/// Waits for a domain's end, which must be a success.
fn done(domain: Domain) -> Result<(), String> {
    match domain.wait_end().map_err(text)? {
        end if end.is_success() => Ok(()),
        end => Err(format!("a node ended with {end}")),
    }
}

fn sleep_us(microseconds: u64) {
    events::wait(0, Deadline::after_us(microseconds));
}

/// Ends a domain after a while, unless it has ended by itself.
fn end_after(domain: Domain, microseconds: u64) -> Result<(), String> {
    sleep_us(microseconds);
    domain.kill().map_err(text)?;
    let DomainEnd { cause, detail } = domain.wait_end().map_err(text)?;
    match cause {
        EndCause::Deleted | EndCause::Exit | EndCause::PageFault => Ok(()),
        other => Err(format!("a node ended with {} ({detail:#x})", other.text())),
    }
}

/// Does `part` with a server on core `at`, which must still serve afterwards.
fn with_server(at: u32, part: impl FnOnce(u32) -> Result<(), String>) -> Result<(), String> {
    let server = start(at, "serve", 0, 0)?;
    part(at)?;
    server.kill().map_err(text)?;
    match server.wait_end().map_err(text)? {
        end if end.cause == EndCause::Deleted => Ok(()),
        end => Err(format!("the server ended by itself: {end}")),
    }
}

/// Every core exchanges messages with every other.
fn all(cores: u32, count: u64) -> Result<(), String> {
    let nodes = (0..cores).map(|core| start(core, "all", 0, count)).collect::<Result<Vec<_>, _>>()?;
    nodes
        .into_iter()
        .zip(0..)
        .try_for_each(|(node, core)| done(node).map_err(|e| format!("core {core}: {e}")))
}

/// The free memory of each node.
fn free() -> Result<Vec<u64>, String> {
    let nodes = monitor::core(None).map_err(text)?.nodes;
    (0..nodes).map(|node| monitor::memory(node as u16).map(|m| m.free).map_err(text)).collect()
}

/// Waits until as much is free as before.
fn comes_back(before: &[u64]) -> Result<(), String> {
    let deadline = Deadline::after_ms(PATIENCE_MS);
    loop {
        let now = free()?;
        if now == before {
            return Ok(());
        }
        if deadline.has_passed() {
            return Err(format!("free bytes of each node: {now:?}, before: {before:?}"));
        }
        sleep_us(1000);
    }
}

/// What is not there is refused, each in its way.
fn refusals(cores: u32) -> Result<(), String> {
    use runtime::interface::monitor::{Iref, MonitorError};
    use runtime::monitor::{Error, Options};
    let expect = |what: &str, got: Option<Error>, error: MonitorError| match got {
        Some(Error::Refused(found)) if found == error => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    };
    for core in 0..cores {
        let bound = monitor::bind(Iref::new(core, u32::MAX), &Options::default());
        expect("a service that is not", bound.err(), MonitorError::NotFound)?;
    }
    let bound = monitor::bind(Iref::new(cores + 5, 1), &Options::default());
    expect("a service on no core", bound.err(), MonitorError::NoCore)?;
    let spawned = monitor::spawn(CoreId(cores as u16 + 5), NODE, "", 0);
    expect("a domain on no core", spawned.err(), MonitorError::NoCore)?;
    let spawned = monitor::spawn(CoreId(0), "no_such_module", "", 0);
    expect("a module that is not", spawned.err(), MonitorError::CannotSpawn)?;
    let about = monitor::core(Some(CoreId(cores as u16 + 5)));
    expect("about no core", about.err(), MonitorError::NoCore)
}
