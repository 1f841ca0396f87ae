//! `init` on the first core: brings the machine up and does what the command line asks for.

use core::arch::x86_64::{__cpuid_count, CpuidResult};
use core::ops::Range;
use core::sync::atomic::Ordering;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use boot_info::BootInfo;
use console::handover as console_handover;
use init::config::{self, AtEnd, Config, Needs};
use init::plan;
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use lmp::syscall::{port_in, port_out};
use lmp::{CPtr, ObjType, Rights, cptr::task, layout, syscall};
use monitor::handover::{self as monitor_handover, CoreEntry, CoreGift, Report, Table};
use results::{DEBUG_EXIT_PORT, EventKind, GuestExit};
use runtime::events::{self, Deadline, Event};
use runtime::memory::{self, MemoryError, Object};
use runtime::{Env, output, print, println, vector};
use skb::{ApicId, Discovery, Topology};
use skb_service::handover as skb_handover;

use crate::firmware::Firmware;
use crate::monitor_of;
use crate::report;
use crate::spawner::Spawner;
use crate::streams::{Streams, one_of};

/// The monitor's notice that all cores were started.
const STARTED: Event = Event::new(0);

/// The knowledge base's notice that it answers queries.
const KNOWING: Event = Event::new(1);

/// RAM for the console's own use, in bytes: a few KiB per stream in use.
const CONSOLE_RAM: u64 = 8 << 20;
/// RAM for the first core's monitor, in bytes.
const MONITOR_RAM: u64 = 4 << 20;
/// RAM for the knowledge base's own use, in bytes: its tables, and the slots of the frames it makes.
const SKB_RAM: u64 = 2 << 20;
/// RAM for a benchmark or a test, in bytes.
const GUEST_RAM: u64 = 12 << 20;
/// RAM that a test has beside that for the domains it makes, in bytes.
const TEST_RAM: u64 = 6 << 20;

/// Why `init` gave up, and what the machine is to end with.
struct Failure {
    exit: GuestExit,
    why: String,
}

impl Failure {
    fn new(why: impl core::fmt::Display) -> Failure {
        Failure { exit: GuestExit::InitFailed, why: format!("{why}") }
    }
}

/// Writes text to the first serial port as long as there is no console.
fn direct(text: &[u8]) {
    /// Line status register, transmitter empty (PC16550D data sheet, section 8).
    const STATUS: u16 = console_handover::COM1 + 5;
    const EMPTY: u32 = 0x20;
    for &byte in text {
        if byte == runtime::directory::RECORD_MARK as u8 {
            continue;
        }
        for _ in 0..1 << 16 {
            if port_in(task::IO_PORTS, STATUS, 1).is_ok_and(|s| s & EMPTY != 0) {
                break;
            }
        }
        let _ = port_out(task::IO_PORTS, console_handover::COM1, 1, u32::from(byte));
    }
}

pub(crate) fn run(env: &Env) -> u64 {
    output::set_direct(direct);
    let mut system = System { console: None, at_end: AtEnd::Stay };
    let exit = match system.bring_up_and_work(env) {
        Ok(exit) => exit,
        Err(failure) => {
            println!("init: {}", failure.why);
            failure.exit
        }
    };
    system.end(exit)
}

/// What must outlive everything else.
struct System {
    console: Option<Console>,
    at_end: AtEnd,
}

struct Console {
    control: &'static console_handover::Control,
    ring: CPtr,
    doorbell: u64,
}

/// The memory of a further core.
struct Share {
    entry: CoreEntry,
    kernel: Object,
    share: Object,
    ram: Object,
}

/// The memory of the machine, divided.
struct Division {
    further: Vec<Share>,
    /// For the knowledge base.
    rest: Vec<Object>,
}

impl System {
    fn bring_up_and_work(&mut self, env: &Env) -> Result<GuestExit, Failure> {
        let info = env.info();
        // SAFETY: the CPU driver mapped the boot information there, read-only, for good; two pages and more lie
        // between it and the next mapping.
        let boot =
            unsafe { core::slice::from_raw_parts(layout::BOOT_INFO as *const u8, size_of::<BootInfo>()) };
        let boot = BootInfo::from_bytes(boot)
            .map_err(|_| Failure::new("the CPU driver's boot information is of another version"))?;
        let line = boot.command_line().as_bytes();
        let config = Config::parse(line);
        if let Ok(config) = &config {
            self.at_end = config.at_end;
        } else if Config::wants_exit(line) {
            self.at_end = AtEnd::Exit;
        }
        let Discovery { topology, complaints, .. } = discover(env, boot);
        let cores = topology.enabled_cores().len();
        let wanted = config.as_ref().ok().and_then(|c| c.cpus).map_or(cores, |n| cores.min(n as usize));
        let Division { further, rest } =
            divide(&topology, wanted, config.as_ref().map_or(0, Config::more_memory))?;
        let doorbell = vector::doorbell(info.apic_id, vector::CONSOLE);
        let streams = Streams::new(doorbell).map_err(Failure::new)?;
        let mut spawner = Spawner::new(env, streams).map_err(Failure::new)?;
        self.console = Some(start_console(&mut spawner, &further, doorbell)?);
        spawner.streams.attach_own();
        output::record(results::Event::start());
        output::record(results::Event::new(EventKind::CoreUp).core(0));
        let config = config.map_err(|e| Failure { exit: GuestExit::BadCommandLine, why: format!("{e}") })?;
        print!("{topology}");
        report::topology(&topology, &complaints);

        let skb = start_skb(&mut spawner, &topology, rest)?;
        let up = start_cores(&mut spawner, further, doorbell, skb)? + 1;
        println!("{up} of {wanted} cores up");
        output::record(results::Event::new(EventKind::Ready).value(up as u64));
        if up < wanted {
            return Err(Failure::new("not all cores came up"));
        }
        let run = Run { config: &config, cores: up, nodes: topology.nodes().len(), skb };
        let exit = run.work(&mut spawner);
        output::record(results::Event::new(EventKind::Done));
        Ok(exit)
    }

    /// The end of everything: the machine's, or waiting for nothing.
    fn end(self, exit: GuestExit) -> ! {
        if self.at_end == AtEnd::Exit {
            output::flush();
            let word = exit.word();
            match &self.console {
                Some(console) => {
                    console.control.exit.store(u64::from(word), Ordering::Release);
                    let _ = syscall::ipi_send(console.ring, console.doorbell);
                }
                _ => {
                    let _ = port_out(task::IO_PORTS, DEBUG_EXIT_PORT, 4, word);
                }
            }
        }
        loop {
            events::wait(0, Deadline::NEVER);
        }
    }
}

/// What machine this is, as firmware says.
fn discover(env: &Env, boot: &BootInfo) -> Discovery {
    let info = env.info();
    let firmware = Firmware::new(info.device_caps);
    let cpuid = |leaf, subleaf| {
        let CpuidResult { eax, ebx, ecx, edx } = __cpuid_count(leaf, subleaf);
        [eax, ebx, ecx, edx]
    };
    let found = skb::discover(boot.rsdp(), &firmware, cpuid, ApicId(info.apic_id));
    for complaint in found.complaints.as_slice() {
        println!("firmware: {complaint}");
    }
    found
}

/// How often to plan: what was taken on the way is there the next time.
const PLANS: usize = 4;

/// Takes the memory that a plan gives to the cores 1 to `wanted` - 1 and to the knowledge base, `more` bytes beyond what is
/// usual staying here.
fn divide(topology: &Topology, wanted: usize, more: u64) -> Result<Division, Failure> {
    let limit = wanted.min(monitor_handover::MAX_FURTHER_CORES + 1).min(console_handover::MAX_CORES);
    let mut attempt = 1;
    loop {
        let mut free = Vec::new();
        memory::for_each_free_range(|range| free.push(range));
        let plan = plan::divide(topology, &free, limit, more).map_err(Failure::new)?;
        // Slots and heap for this may have come out of what the plan gives away: then there is another plan.
        match take(&plan) {
            Err(MemoryError::OutOfRam { .. }) if attempt < PLANS => attempt += 1,
            result => return result.map_err(Failure::new),
        }
    }
}

/// Takes the memory of a plan, or nothing.
fn take(plan: &plan::Plan) -> Result<Division, MemoryError> {
    let mut taken = Vec::new();
    let mut take = |ty, range: &Range<u64>| {
        let object = memory::allocate_in(ty, range.end - range.start, PAGE_SIZE, range)?;
        taken.push(object);
        Ok(object)
    };
    let mut all = || {
        let rest = plan.rest.iter().take(skb_handover::MAX_RAM_CAPS);
        let rest = rest.map(|range| take(ObjType::Ram, range)).collect::<Result<_, _>>()?;
        let mut share = |share: &plan::Share| {
            let plan::Share { core, kernel, share, ram } = share;
            Ok(Share {
                entry: CoreEntry { core: core.id.0, apic_id: core.apic.0, node: core.node.0, reserved: 0 },
                kernel: take(ObjType::Ram, kernel)?,
                share: take(ObjType::Frame, share)?,
                ram: take(ObjType::Ram, ram)?,
            })
        };
        Ok(Division { further: plan.cores.iter().map(&mut share).collect::<Result<_, _>>()?, rest })
    };
    let division = all();
    if division.is_err() {
        for object in taken {
            memory::free(object)?;
        }
    }
    division
}

/// A page shared with a child, zeroed, mapped here.
fn shared_page(bytes: u64) -> Result<(CPtr, *mut u8), Failure> {
    let frame = memory::allocate(ObjType::Frame, bytes.max(PAGE_SIZE)).map_err(Failure::new)?;
    let mapped =
        memory::map(frame.cap, 0, frame.size, MapFlags::READ | MapFlags::WRITE).map_err(Failure::new)?;
    Ok((frame.cap, mapped.as_ptr()))
}

fn start_console(spawner: &mut Spawner, further: &[Share], doorbell: u64) -> Result<Console, Failure> {
    use console_handover::{COM_PORTS, COM1, COM2, Control, EXIT_PORTS, share, slot};
    let ports = |first: u16, count| {
        one_of(task::IO_PORTS, ObjType::IoPort, u64::from(first), count).map_err(Failure::new)
    };
    let (com1, com2) = (ports(COM1, COM_PORTS)?, ports(COM2, COM_PORTS)?);
    let exit = ports(DEBUG_EXIT_PORT, EXIT_PORTS)?;
    let irq = one_of(task::IRQ_VECTORS, ObjType::Irq, u64::from(vector::CONSOLE), 1).map_err(Failure::new)?;
    let (frame, page) = shared_page(PAGE_SIZE)?;
    // SAFETY: the page is mapped for good, zeroed, and its word is only accessed atomically from now on.
    let control: &'static Control = unsafe { &*page.cast::<Control>() };
    let start = spawner.service("console", |b| {
        let b = b
            .memory(CONSOLE_RAM)
            .word(0, 1 + further.len() as u64)
            .grant(slot::TEXT_PORT, com1)
            .grant(slot::RECORD_PORT, com2)
            .grant(slot::EXIT_PORT, exit)
            .grant(slot::IRQ, irq)
            .grant(slot::CONTROL, frame)
            .grant(share(0), task::SHARE);
        further.iter().zip(1..).fold(b, |b, (s, index)| b.grant(share(index), s.share.cap))
    });
    start.map_err(Failure::new)?;
    while control.ready.load(Ordering::Acquire) == 0 {
        if let Some(end) = spawner.service_end("console") {
            return Err(Failure::new(format!("the console ended: {end}")));
        }
        let _ = syscall::yield_core();
    }
    // The CPU driver's log goes to the console from now on.
    syscall::kcb_set_log_doorbell(task::KCB, doorbell).map_err(Failure::new)?;
    Ok(Console { control, ring: spawner.streams.ring(), doorbell })
}

/// Starts the knowledge base with the memory `rest`, and waits until it answers; its endpoint.
fn start_skb(spawner: &mut Spawner, topology: &Topology, rest: Vec<Object>) -> Result<CPtr, Failure> {
    use skb_handover::{ram, slot, word};
    let words = topology.encode();
    let (frame, at) = shared_page(8 * words.len() as u64)?;
    // SAFETY: the frame is mapped writable, page-aligned, has room for the words and is nobody else's yet.
    unsafe { at.cast::<u64>().copy_from_nonoverlapping(words.as_ptr(), words.len()) };
    let endpoint = memory::allocate(ObjType::Endpoint, 0).map_err(Failure::new)?.cap;
    let ready = memory::allocate(ObjType::Notification, 0).map_err(Failure::new)?.cap;
    events::bind(ready, KNOWING).map_err(Failure::new)?;
    let open = spawner.streams.open("skb");
    let (_, stream) =
        open.ok_or_else(|| Failure::new("there is no console stream for the knowledge base"))?;
    let start = spawner.service("skb", |b| {
        let b = b
            .memory(SKB_RAM)
            .stream(stream)
            .word(word::RAM_CAPS, rest.len() as u64)
            .word(word::TOPOLOGY_WORDS, words.len() as u64)
            .grant_less(slot::TOPOLOGY, frame, Rights::READ, 0)
            .grant(slot::ENDPOINT, endpoint)
            .grant_less(slot::READY, ready, Rights::WRITE, 0);
        rest.iter().zip(0..).fold(b, |b, (piece, index)| b.give(ram(index), *piece))
    });
    start.map_err(Failure::new)?;
    while spawner.turn(KNOWING.bit()).map_err(Failure::new)? == 0 {}
    Ok(endpoint)
}

/// Starts the monitor, which starts the further cores; how many of them came up.
fn start_cores(
    spawner: &mut Spawner,
    further: Vec<Share>,
    console_doorbell: u64,
    skb: CPtr,
) -> Result<usize, Failure> {
    use monitor_handover::{gift, slot};
    let table_size = (size_of::<Table>() as u64).next_multiple_of(PAGE_SIZE);
    let (table_frame, table) = shared_page(table_size)?;
    let table: *mut Table = table.cast();
    // SAFETY: the frame is mapped writable, large enough and nobody else's yet; all bytes zero are a table.
    unsafe {
        (&raw mut (*table).console_doorbell).write(console_doorbell);
        (&raw mut (*table).count).write(further.len() as u64);
        for (i, share) in further.iter().enumerate() {
            (&raw mut (*table).cores[i]).write(share.entry);
        }
    }
    let (report_frame, report) = shared_page(PAGE_SIZE)?;
    // SAFETY: the page is mapped for good, zeroed, and its words are only accessed atomically from now on.
    let report: &'static Report = unsafe { &*report.cast::<Report>() };
    let notice = memory::allocate(ObjType::Notification, 0).map_err(Failure::new)?.cap;
    events::bind(notice, STARTED).map_err(Failure::new)?;
    let irq = one_of(task::IRQ_VECTORS, ObjType::Irq, u64::from(vector::MONITOR), 2).map_err(Failure::new)?;
    let start = monitor_of::start(spawner, |b| {
        let b = b
            .memory(MONITOR_RAM)
            .grant(slot::IRQ, irq)
            .grant(slot::TRAMPOLINE, task::TRAMPOLINE)
            .grant_less(slot::TABLE, table_frame, Rights::READ, 0)
            .grant(slot::REPORT, report_frame)
            .grant(slot::REPORT_NOTICE, notice)
            .grant_less(slot::SKB, skb, Rights::WRITE | Rights::GRANT, 0);
        further.iter().zip(0..).fold(b, |b, (share, index)| {
            // What is handed to another core must have no copies here.
            b.give(gift(index, CoreGift::Kernel), share.kernel)
                .give(gift(index, CoreGift::Share), share.share)
                .give(gift(index, CoreGift::Ram), share.ram)
        })
    });
    start.map_err(Failure::new)?;
    while report.done.load(Ordering::Relaxed) == 0 {
        spawner.turn(STARTED.bit()).map_err(Failure::new)?;
    }
    Ok(report.up.load(Ordering::Relaxed) as usize)
}

/// What the command line asks for, on the machine that is up.
struct Run<'a> {
    config: &'a Config,
    cores: usize,
    nodes: usize,
    /// The endpoint of the knowledge base.
    skb: CPtr,
}

impl Run<'_> {
    /// Does it, one after the other.
    fn work(&self, spawner: &mut Spawner) -> GuestExit {
        let mut exit = GuestExit::Success;
        for bench in &self.config.benches {
            output::record(results::Event::new(EventKind::BenchStarted).name(bench));
            if !self.guest(spawner, &format!("bench_{bench}")) {
                exit = GuestExit::BenchFailed;
            }
        }
        if let Some(scenario) = &self.config.scenario
            && !self.guest(spawner, &format!("test_{scenario}"))
        {
            exit = GuestExit::CheckFailed;
        }
        exit
    }

    /// The arguments of each benchmark and test.
    fn args(&self) -> String {
        let Run { config: Config { accel, seed, policy, samples, calls, victim, .. }, cores, nodes, .. } =
            self;
        let mut args = format!("accel={accel} cores={cores} nodes={nodes} seed={seed} policy={policy}");
        for (key, number) in [("samples", samples), ("calls", calls), ("victim", victim)] {
            if let Some(number) = number {
                args.push_str(&format!(" {key}={number}"));
            }
        }
        args
    }

    /// Runs a benchmark or test to its end; whether it succeeded.
    fn guest(&self, spawner: &mut Spawner, name: &str) -> bool {
        let needs = Needs::of(name);
        let run = spawner.run(name, |b| {
            let more = if needs.contains(Needs::MEMORY) {
                config::MORE_MEMORY
            } else if needs.contains(Needs::CONTROL) {
                TEST_RAM
            } else {
                0
            };
            // A machine too small for all of it has a benchmark measure less.
            let spare = memory::stats().longest.saturating_sub(GUEST_RAM + (2 << 20));
            let mut b = b.args(&self.args()).memory(GUEST_RAM + more.min(spare));
            if needs.contains(Needs::ARCHIVE) {
                b = b.with_archive();
            }
            if needs.contains(Needs::KNOWLEDGE) {
                b = b.grant_less(skb_handover::TEST_ENDPOINT, self.skb, Rights::WRITE, 0);
            }
            if needs.contains(Needs::CONTROL) {
                b = b.grant(task::KCB, task::KCB);
            }
            b
        });
        match run {
            Ok(end) => end.is_success(),
            Err(error) => {
                println!("domain {name} does not run: {error}");
                false
            }
        }
    }
}
