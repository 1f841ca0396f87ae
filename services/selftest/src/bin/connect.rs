//! Scenario `connect`: channels with domains on every core, through the monitors; their pools, capabilities and
//! ends.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use core::fmt::Display;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::invocation::{Counter, EndCause, MapFlags};
use lmp::objects::PAGE_SIZE;
use lmp::{CoreId, syscall};
use runtime::channel::{Closed, WaitError, Waiting};
use runtime::events::Deadline;
use runtime::executor::block_on;
use runtime::interface::TEXT_MAX;
use runtime::interface::monitor::{Iref, MonitorError};
use runtime::monitor::{self, Connection, Error, Options, Service};
use runtime::{Env, memory};
use selftest::Test;
use selftest::connecting::{ACCEPTS, ECHO, FRAME, SERVICE, WRITTEN, pattern};
use ump::{Message, RPC_LINES, STREAM_LINES};

runtime::entry!(main);

/// The module of the peers.
const PEER: &str = "test_connect_peer";

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    test.check("core and counters", facts(env));
    test.check("refusals", refusals());
    match service() {
        Ok((mut service, cores)) => {
            for core in 0..cores as u16 {
                for (waiting, word) in [(Waiting::Polling, "polling"), (Waiting::Blockable, "blockable")] {
                    let result = with_peer::<RPC_LINES>(&mut service, CoreId(core), waiting, "close", 64);
                    test.check(&format!("core {core} {word}"), result);
                }
            }
            let far = CoreId(cores as u16 - 1);
            let result = with_peer::<STREAM_LINES>(&mut service, far, Waiting::Blockable, "close", 4096);
            test.check("long rings, large pool", result);
            let result = with_peer::<RPC_LINES>(&mut service, far, Waiting::Blockable, "fault", 0);
            test.check("a peer that faults", result);
            let result = with_peer::<RPC_LINES>(&mut service, far, Waiting::Blockable, "stay", 0);
            test.check("a peer that is killed", result);
            let before = memory::stats();
            let result = (0..5)
                .try_for_each(|_| with_peer::<RPC_LINES>(&mut service, far, Waiting::Blockable, "close", 64));
            let after = memory::stats();
            test.check("again and again", result);
            let left = if after.free_slots == before.free_slots && after.free == before.free {
                Ok(())
            } else {
                Err(format!("{after:?} after {before:?}"))
            };
            test.check("nothing is left behind", left);
        }
        Err(why) => test.check("service", Err(why)),
    }
    test.finish()
}

fn text(error: impl Display) -> String {
    format!("{error}")
}

/// What must be so.
fn is(condition: bool, what: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(String::from(what)) }
}

fn facts(env: &Env) -> Result<(), String> {
    let number = monitor::hello().map_err(text)?;
    is(number != 0 && monitor::hello() == Ok(number), "the domain has no number of its own")?;
    let here = monitor::core(None).map_err(text)?;
    is(u32::from(here.core.0) == env.info().core && here.apic_id == env.info().apic_id, "another core")?;
    is(monitor::core(Some(here.core)) == Ok(here), "a core is not what it was")?;
    let kcb = monitor::counters().map_err(text)?;
    let [before, after] = [(); 2].map(|()| syscall::kcb_counter(kcb, Counter::SystemCalls));
    is(after.map_err(text)? > before.map_err(text)?, "system calls are not counted")?;
    is(monitor::counters() == Ok(kcb), "the capability for counters was fetched twice")
}

fn refusals() -> Result<(), String> {
    let refused = |error| Err(Error::Refused(error));
    let nobody = monitor::bind(Iref::new(0, 0xffff_fff0), &Options::default()).map(|_| ());
    is(nobody == refused(MonitorError::NotFound), "a service that is none was bound to")?;
    let bad = monitor::bind(Iref::new(0, 1), &Options { lines: 65, ..Options::default() }).map(|_| ());
    is(bad == refused(MonitorError::BadArgument), "a ring of 65 lines was granted")?;
    let nowhere = monitor::core(Some(CoreId(9999))).map(|_| ());
    is(nowhere == refused(MonitorError::NoCore), "there is no core 9999")?;
    let long = "x".repeat(TEXT_MAX + 1);
    is(monitor::lookup(&long) == Err(Error::TooLong { bytes: TEXT_MAX + 1 }), "a long name was looked up")?;
    let none = monitor::spawn(CoreId(0), "no_such_module", "", 0).map(|_| ());
    is(none == refused(MonitorError::CannotSpawn), "a module that does not exist was started")
}

fn service() -> Result<(Service, u32), String> {
    let service = monitor::export().map_err(text)?;
    monitor::register(SERVICE, service.iref()).map_err(text)?;
    is(monitor::lookup(SERVICE) == Ok(service.iref()), "a name means another service")?;
    Ok((service, monitor::core(None).map_err(text)?.cores))
}

/// Starts a peer on `core`, accepts its connection, plays along, and sees it end as `end` says.
fn with_peer<const N: usize>(
    service: &mut Service,
    core: CoreId,
    waiting: Waiting,
    end: &str,
    pool: u64,
) -> Result<(), String> {
    let sleeps = if waiting == Waiting::Blockable { " b" } else { "" };
    let args = format!("n={N} p={pool} end={end}{sleeps}");
    let domain = monitor::spawn(core, PEER, &args, 0).map_err(text)?;
    let mut connection = block_on(service.accept(waiting)).map_err(text)?;
    is(connection.peer() == core, "the peer is on another core")?;
    let frame = play::<N>(&mut connection, end, &domain)?;
    drop(connection);
    let result = domain.wait_end().map_err(text)?;
    let as_told = match end {
        "close" => result.is_success(),
        "fault" => result.cause == EndCause::PageFault,
        _ => result.cause != EndCause::None && !result.is_success(),
    };
    is(as_told, "the peer ended otherwise")?;
    // The frame went with the peer.
    let gone = syscall::cap_identify(task::ROOT, frame).is_err();
    memory::free_slot(frame);
    is(gone, "a frame of a domain that ended is still there")
}

fn play<const N: usize>(
    connection: &mut Connection,
    end: &str,
    domain: &monitor::Domain,
) -> Result<lmp::CPtr, String> {
    let mut channel = connection.channel::<N>(ACCEPTS).map_err(text)?;
    for n in 0..100 {
        let message = block_on(channel.recv()).map_err(text)?;
        is(message.kind() == ECHO && message.words() == [n], "another message than was sent")?;
        block_on(channel.send(&message)).map_err(text)?;
    }
    let written = channel.recv_blocking(Deadline::NEVER).map_err(text)?;
    is(written.kind() == WRITTEN, "not the message about the pool")?;
    let mut at = 0;
    for piece in connection.pool() {
        for n in 0..piece.bytes / 8 {
            // SAFETY: the piece is mapped readable while the connection lives.
            let word = unsafe { piece.as_ptr::<u64>().add(n as usize).read_volatile() };
            is(word == pattern(written.words()[0], at), "the pool has other contents")?;
            at += 1;
        }
    }
    is(8 * at == connection.info().pool, "the pool has another size")?;
    let announced = channel.recv_blocking(Deadline::NEVER).map_err(text)?;
    is(announced.kind() == FRAME && announced.capabilities() == 1, "no frame was announced")?;
    let frame = channel.recv_cap().map_err(text)?;
    let mapped = memory::map(frame, 0, PAGE_SIZE, MapFlags::READ).map_err(text)?;
    // SAFETY: the page was just mapped readable.
    let word = unsafe { mapped.as_ptr::<u64>().read_volatile() };
    // SAFETY: nothing refers to the page.
    unsafe { memory::unmap(mapped) };
    is(word == announced.words()[0], "the frame has other contents")?;
    channel.send_blocking(&Message::new(ECHO, [0]), Deadline::NEVER).map_err(text)?;
    if end == "stay" {
        domain.kill().map_err(text)?;
    }
    let last = channel.recv_blocking(Deadline::NEVER);
    let expected = if end == "close" { Closed::HungUp } else { Closed::PeerDied };
    is(last == Err(WaitError::Closed(expected)), "the end of the peer is not seen")?;
    Ok(frame)
}
