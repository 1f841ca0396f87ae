//! Domains from the boot archive: start one, wait for its end, report it.

use alloc::format;
use alloc::string::String;

use boot_archive::Archive;
use lmp::invocation::EndCause;
use results::{Event, EventKind};
use runtime::events::Deadline;
use runtime::spawn::{Child, DomainBuilder, End};
use runtime::{Env, output, println};

use crate::streams::Streams;

/// The content of module `name` of the boot archive.
pub(crate) fn module(env: &Env, name: &str) -> Result<&'static [u8], String> {
    let bytes = env.archive().ok_or("there is no boot archive")?;
    // The CPU driver checked all of it at boot.
    let archive = Archive::parse_table(bytes).map_err(|e| format!("the boot archive is damaged: {e}"))?;
    let module = archive.get(name).ok_or_else(|| format!("module {name} is not in the boot archive"))?;
    Ok(module.bytes)
}

/// Makes and starts the domain `name` from the module of that name, `dress` adding what it needs.
pub(crate) fn start(
    env: &Env,
    name: &str,
    dress: impl FnOnce(DomainBuilder<'_>) -> DomainBuilder<'_>,
) -> Result<Child, String> {
    let child = dress(DomainBuilder::new(name, module(env, name)?)).build().map_err(|e| format!("{e}"))?;
    match child.start() {
        Ok(()) => Ok(child),
        Err(error) => {
            // Its memory goes back if it can; the first error is the one to tell.
            let _ = child.destroy();
            Err(format!("{error}"))
        }
    }
}

/// Runs the domain `name` to its end, with a console stream, and reports how it ended.
pub(crate) fn run(
    env: &Env,
    streams: &mut Streams,
    name: &str,
    dress: impl FnOnce(DomainBuilder<'_>) -> DomainBuilder<'_>,
) -> Result<End, String> {
    let core = env.info().core;
    let (id, stream) = streams.open(name).ok_or("all console streams are in use")?;
    let started = start(env, name, |b| dress(b.stream(stream)));
    let child = match started {
        Ok(child) => child,
        Err(error) => {
            streams.close(id);
            return Err(error);
        }
    };
    output::record(Event::new(EventKind::DomainStarted).core(core).name(name));
    // Without a deadline it ends when the domain does.
    let end = loop {
        if let Some(end) = child.wait(Deadline::NEVER) {
            break end;
        }
    };
    streams.close(id);
    report(core, name, &end);
    child.destroy().map_err(|e| format!("{e}"))?;
    Ok(end)
}

/// Says how a domain ended.
pub(crate) fn report(core: u32, name: &str, end: &End) {
    if end.cause == EndCause::Exit {
        output::record(Event::new(EventKind::DomainExited).core(core).name(name).value(end.detail));
        if end.detail != 0 {
            println!("domain {name} on core {core} ended: {end}");
        }
    } else {
        println!("domain {name} on core {core} was ended: {end}");
        output::record(Event::new(EventKind::DomainFaulted).core(core).name(name).detail(&format!("{end}")));
    }
}
