//! [`Spawner`]: the domains of this core, made and ended here, by order of the monitor or of `init` itself.
//!
//! Every domain but the services goes the same way: it is made with a console stream and the monitor's endpoint, badged
//! with its number; when it ends, the monitor is told and lets go of what the domain had; then it is taken down and
//! all its memory is back. Nothing here waits for the monitor in a call: orders come to an endpoint of `init`,
//! reports are sent to the monitor's, and a report for which there is no room is sent again later.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use boot_archive::Archive;
use init::config::Needs;
use init::orders::{BadOrder, Order, Spawn};
use init::roster::{Number, Roster, Standing};
use lmp::cptr::L2_SLOTS;
use lmp::invocation::EndCause;
use lmp::message;
use lmp::{CPtr, SysError, syscall};
use results::{Event as ResultEvent, EventKind};
use runtime::directory::StreamId;
use runtime::endpoint::{Endpoint, EndpointError};
use runtime::events::{self, Deadline, Event};
use runtime::interface::spawn::Report;
use runtime::memory;
use runtime::spawn::{Child, DomainBuilder, End};
use runtime::{Env, output, println};

use crate::memory_of;
use crate::streams::Streams;

/// How often a spawn is tried again that found no console stream, a millisecond apart: the console needs its time to
/// print what ended domains left.
const STREAM_PATIENCE: u32 = 5_000;

/// Why no domain can be made any more.
const NO_NUMBER: &str = "all numbers of domains were given out";
/// Why no domain can be made yet.
const NO_MONITOR: &str = "there is no monitor";

/// Words of a report.
const REPORT_WORDS: usize = 6;

/// Orders that can be waiting.
const MESSAGES: u32 = 64;

/// The content of module `name` of the boot archive.
pub(crate) fn module(env: &Env, name: &str) -> Result<&'static [u8], String> {
    let bytes = env.archive().ok_or("there is no boot archive")?;
    // The CPU driver checked all of it at boot.
    let archive = Archive::parse_table(bytes).map_err(|e| format!("the boot archive is damaged: {e}"))?;
    let module = archive.get(name).ok_or_else(|| format!("module {name} is not in the boot archive"))?;
    Ok(module.bytes)
}

/// Makes and starts the domain `name` from the module of that name, `dress` adding what it needs.
fn start(
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

/// Says how a domain ended.
fn tell_end(core: u32, name: &str, end: &End) {
    if end.cause == EndCause::Exit {
        output::record(ResultEvent::new(EventKind::DomainExited).core(core).name(name).value(end.detail));
        if end.detail != 0 {
            println!("domain {name} on core {core} ended: {end}");
        }
    } else {
        println!("domain {name} on core {core} was ended: {end}");
        let event = ResultEvent::new(EventKind::DomainFaulted).core(core).name(name);
        output::record(event.detail(&format!("{end}")));
    }
}

/// A domain of this core.
struct Resident {
    name: String,
    child: Child,
    stream: StreamId,
}

/// A spawn that waits for a console stream.
struct Waiting {
    spawn: Spawn,
    tries: u32,
}

/// Why a domain was not made.
enum NotSpawned {
    /// All console streams are in use; one may become free.
    NoStream,
    /// This, which lasts.
    Refused(String),
}

/// A domain whose end `init` itself waits for.
struct Watched {
    number: Number,
    end: Option<End>,
}

/// The domains of this core.
pub(crate) struct Spawner {
    env: Env,
    pub(crate) streams: Streams,
    /// Where orders come to.
    orders: Endpoint,
    /// The domains that the core cannot work without, by name.
    services: Vec<(&'static str, Child)>,
    roster: Roster<Resident>,
    /// The endpoint of this core's monitor, once that was started.
    monitor: Option<CPtr>,
    /// The endpoint of this core's memory server, once that was started.
    memory_server: Option<CPtr>,
    /// Reports for which the monitor had no room.
    reports: VecDeque<[u64; REPORT_WORDS]>,
    waiting: VecDeque<Waiting>,
    watched: Option<Watched>,
}

impl Spawner {
    /// No domains yet.
    pub(crate) fn new(env: &Env, streams: Streams) -> Result<Spawner, EndpointError> {
        // A CNode that is made when a core is full of domains would lie between them for ever.
        let first = memory::slots(L2_SLOTS)?;
        (0..L2_SLOTS).for_each(|slot| memory::free_slot(first.offset(slot)));
        Ok(Spawner {
            env: *env,
            streams,
            orders: Endpoint::new(MESSAGES)?,
            services: Vec::new(),
            roster: Roster::new(),
            monitor: None,
            memory_server: None,
            reports: VecDeque::new(),
            waiting: VecDeque::new(),
            watched: None,
        })
    }

    /// The endpoint that orders come to.
    pub(crate) fn orders(&self) -> CPtr {
        self.orders.cap()
    }

    /// Starts the service `name`. A service belongs to the system: it has no number, and never ends.
    pub(crate) fn service(
        &mut self,
        name: &'static str,
        dress: impl FnOnce(DomainBuilder<'_>) -> DomainBuilder<'_>,
    ) -> Result<(), String> {
        let child = start(&self.env, name, dress).map_err(|e| format!("{name} does not start: {e}"))?;
        self.services.push((name, child));
        Ok(())
    }

    /// [`Self::service`], with the monitor's endpoint and a number to call it by.
    pub(crate) fn service_with_monitor(
        &mut self,
        name: &'static str,
        dress: impl FnOnce(DomainBuilder<'_>) -> DomainBuilder<'_>,
    ) -> Result<(), String> {
        let number = self.roster.number().ok_or(NO_NUMBER)?;
        let monitor = self.monitor.ok_or(NO_MONITOR)?;
        self.service(name, |b| dress(b.monitor(monitor, number.word())))
    }

    /// How the service `name` ended; `None` if it runs or was never started.
    pub(crate) fn service_end(&self, name: &str) -> Option<End> {
        self.services.iter().find(|service| service.0 == name)?.1.end()
    }

    /// Domains get copies of the endpoint `monitor` from now on, and reports are sent there.
    pub(crate) fn set_monitor(&mut self, monitor: CPtr) {
        self.monitor = Some(monitor);
    }

    /// Domains get copies of the endpoint `server` from now on, and it is told when one is gone.
    pub(crate) fn set_memory_server(&mut self, server: CPtr) {
        self.memory_server = Some(server);
    }

    /// Makes and starts the domain `name`, and waits until it has ended and is taken down; how it ended.
    pub(crate) fn run(
        &mut self,
        name: &str,
        dress: impl FnOnce(DomainBuilder<'_>) -> DomainBuilder<'_>,
    ) -> Result<End, String> {
        let number = self.spawn(name, dress).map_err(|error| match error {
            NotSpawned::NoStream => String::from("all console streams are in use"),
            NotSpawned::Refused(why) => why,
        })?;
        self.watched = Some(Watched { number, end: None });
        loop {
            self.turn(0)?;
            if self.roster.get(number).is_none()
                && let Some(Watched { end: Some(end), .. }) = self.watched.take()
            {
                return Ok(end);
            }
        }
    }

    fn spawn(
        &mut self,
        name: &str,
        dress: impl FnOnce(DomainBuilder<'_>) -> DomainBuilder<'_>,
    ) -> Result<Number, NotSpawned> {
        let (stream, grant) = self.streams.open(name).ok_or(NotSpawned::NoStream)?;
        let made = self.roster.number().ok_or_else(|| String::from(NO_NUMBER));
        let made = made.and_then(|number| {
            let monitor = self.monitor.ok_or(NO_MONITOR)?;
            let child = start(&self.env, name, |b| {
                let b = b.stream(grant).monitor(monitor, number.word());
                dress(match self.memory_server {
                    Some(server) => b.memory_server(server, number.word()),
                    None => b,
                })
            });
            // No domain has the number now.
            let child = child.inspect_err(|_| self.release(number))?;
            Ok((number, child))
        });
        match made {
            Ok((number, child)) => {
                let core = self.env.info().core;
                output::record(ResultEvent::new(EventKind::DomainStarted).core(core).name(name));
                self.roster.enter(number, Resident { name: String::from(name), child, stream });
                Ok(number)
            }
            Err(why) => {
                self.streams.close(stream);
                Err(NotSpawned::Refused(why))
            }
        }
    }

    /// Waits until there is something to do, or an event of the set `mask` has come, and does it; those events.
    ///
    /// # Errors
    /// That a service has ended.
    pub(crate) fn turn(&mut self, mask: u64) -> Result<u64, String> {
        let own = Event::CHILD.bit() | self.orders.event().bit();
        let came = if !self.reports.is_empty() {
            // The monitor has to make room, which raises no event here.
            let _ = syscall::yield_core();
            events::take(mask | own)
        } else if !self.waiting.is_empty() {
            events::wait(mask | own, Deadline::after_ms(1))
        } else {
            events::wait(mask | own, Deadline::NEVER)
        };
        if came & Event::CHILD.bit() != 0 {
            self.look_for_ends()?;
        }
        while let Some(order) = self.orders.try_receive().map_err(|e| format!("receiving orders: {e}"))? {
            self.obey(Order::decode(order.words.padded()));
        }
        self.try_waiting();
        self.send_reports();
        Ok(came & mask)
    }

    fn look_for_ends(&mut self) -> Result<(), String> {
        let ended: Vec<(Number, End)> =
            self.roster.running().filter_map(|(number, r)| Some((number, r.child.end()?))).collect();
        for (number, end) in ended {
            self.ended(number, end);
        }
        match self.services.iter().find_map(|(name, child)| Some((name, child.end()?))) {
            Some((name, end)) => {
                tell_end(self.env.info().core, name, &end);
                Err(format!("the {name} is gone"))
            }
            None => Ok(()),
        }
    }

    /// A domain has ended: its monitor is told, and says when it may be taken down.
    fn ended(&mut self, number: Number, end: End) {
        if !self.roster.ended(number) {
            return;
        }
        let Some((resident, _)) = self.roster.get(number) else { return };
        tell_end(self.env.info().core, &resident.name, &end);
        self.streams.close(resident.stream);
        let memory = resident.child.memory();
        if let Some(watched) = self.watched.as_mut().filter(|watched| watched.number == number) {
            watched.end = Some(end);
        }
        let (base, bytes) = (memory.start, memory.end - memory.start);
        self.report([Report::Ended as u64, number.word(), end.cause as u64, end.detail, base, bytes]);
    }

    /// Takes down a domain that has ended: its memory is back then, which the record of it shows.
    fn take_down(&mut self, number: Number) {
        let Some(Resident { name, child, .. }) = self.roster.leave(number) else { return };
        if let Err(error) = child.destroy() {
            println!("domain {name} keeps its memory: {error}");
        }
        self.release(number);
        let detail = format!("domains {}", self.roster.count());
        let record = ResultEvent::new(EventKind::Note).core(self.env.info().core).name("free-memory");
        output::record(record.value(memory::stats().free).detail(&detail));
    }

    /// Has the memory server take back what the domain with that number had. If nobody has anything of it then, all that
    /// it lent is back.
    fn release(&self, number: Number) {
        let Some(server) = self.memory_server else { return };
        match memory_of::release(server, number.word()) {
            Ok(lent) => {
                let record = ResultEvent::new(EventKind::Note).core(self.env.info().core).name("lent-memory");
                output::record(record.value(lent).detail(&format!("domains {}", self.roster.count())));
            }
            Err(why) => println!("domain {number} keeps memory of the memory server: {why}"),
        }
    }

    /// Does what the monitor orders.
    fn obey(&mut self, order: Result<Order, BadOrder>) {
        match order {
            Ok(Order::Spawn(spawn)) => {
                self.waiting.push_back(Waiting { spawn, tries: 0 });
                self.try_waiting();
            }
            Ok(Order::Kill(number)) => match self.roster.get(number) {
                Some((resident, Standing::Running)) => match resident.child.kill() {
                    Ok(end) => self.ended(number, end),
                    Err(error) => println!("domain {} cannot be ended: {error}", resident.name),
                },
                // It ended while the order was under way, which the monitor is told anyway.
                Some((_, Standing::Ended)) | None => {}
            },
            Ok(Order::Released(number)) => self.take_down(number),
            Err(BadOrder::NotText { request }) => self.report_spawned(request, None),
            Err(BadOrder::Unknown(_) | BadOrder::NoNumber(_)) => {}
        }
    }

    /// Makes the domains that were ordered, in this order, as far as there are console streams.
    fn try_waiting(&mut self) {
        while let Some(mut waiting) = self.waiting.pop_front() {
            let Spawn { request, memory, ref module, ref args } = waiting.spawn;
            let made = self.spawn(module, |b| {
                let b = b.args(args).memory(memory);
                if Needs::of_ordered(module).contains(Needs::ARCHIVE) { b.with_archive() } else { b }
            });
            match made {
                Ok(number) => self.report_spawned(request, Some(number)),
                Err(NotSpawned::NoStream) if waiting.tries < STREAM_PATIENCE => {
                    waiting.tries += 1;
                    self.waiting.push_front(waiting);
                    return;
                }
                Err(error) => {
                    match error {
                        NotSpawned::NoStream => println!("domain {module}: all console streams are in use"),
                        NotSpawned::Refused(why) => println!("domain {module} does not start: {why}"),
                    }
                    self.report_spawned(request, None);
                }
            }
        }
    }

    fn report_spawned(&mut self, request: u32, number: Option<Number>) {
        let number = number.map_or(0, Number::word);
        self.report([Report::Spawned as u64, request.into(), number, 0, 0, 0]);
    }

    fn report(&mut self, report: [u64; REPORT_WORDS]) {
        self.reports.push_back(report);
        self.send_reports();
    }

    /// Sends the monitor what it was not told yet, as far as it has room.
    fn send_reports(&mut self) {
        while let Some(report) = self.reports.front() {
            let sent = match self.monitor {
                Some(monitor) => message::send(monitor, *report),
                None => Err(SysError::NotBound),
            };
            match sent {
                Err(SysError::BufferFull) => return,
                Ok(()) => {
                    self.reports.pop_front();
                }
                // A monitor that takes no reports holds nothing of the domain's either.
                Err(_) => {
                    let [kind, number, ..] = *report;
                    self.reports.pop_front();
                    if kind == Report::Ended as u64
                        && let Some(number) = Number::from_word(number)
                    {
                        self.take_down(number);
                    }
                }
            }
        }
    }
}
