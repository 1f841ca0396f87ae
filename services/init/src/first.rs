//! `init` on the first core: brings the machine up and does what the command line asks for.

use core::arch::x86_64::{__cpuid_count, CpuidResult};
use core::sync::atomic::Ordering;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use boot_info::{BootInfo, PhysRange};
use console::handover as console_handover;
use init::config::{AtEnd, Config};
use init::plan;
use lmp::invocation::MapFlags;
use lmp::objects::{HANDOVER_GRANULARITY, PAGE_SIZE};
use lmp::syscall::{port_in, port_out};
use lmp::{CPtr, ObjType, Rights, cptr::task, layout, syscall};
use monitor::handover::{self as monitor_handover, CoreEntry, CoreGift, Report, Table};
use results::{DEBUG_EXIT_PORT, EventKind, GuestExit};
use runtime::events::{self, Deadline, Event};
use runtime::memory::{self, Object};
use runtime::spawn::{Child, DomainBuilder};
use runtime::{Env, output, print, println, vector};
use skb::{ApicId, Topology};

use crate::domains;
use crate::firmware::Firmware;
use crate::streams::{Streams, one_of};

/// The monitor's notice that all cores were started.
const STARTED: Event = Event::new(0);

/// RAM for the console's own use, in bytes: a few KiB per stream in use.
const CONSOLE_RAM: u64 = 8 << 20;
/// RAM for the first core's monitor, in bytes.
const MONITOR_RAM: u64 = 4 << 20;
/// RAM for a benchmark or a test, in bytes.
const GUEST_RAM: u64 = 12 << 20;

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
    child: Child,
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
        let topology = discover(env, boot);
        let cores = topology.enabled_cores().len();
        let wanted = config.as_ref().ok().and_then(|c| c.cpus).map_or(cores, |n| cores.min(n as usize));
        let further = divide(&topology, wanted);
        let doorbell = vector::doorbell(info.apic_id, vector::CONSOLE);
        let mut streams = Streams::new(doorbell).map_err(Failure::new)?;
        self.console = Some(start_console(env, &streams, &further, doorbell)?);
        streams.attach_own();
        output::record(results::Event::start());
        output::record(results::Event::new(EventKind::CoreUp).core(0));
        let config = config.map_err(|e| Failure { exit: GuestExit::BadCommandLine, why: format!("{e}") })?;
        print!("{topology}");

        let up = start_cores(env, &mut streams, further, doorbell)? + 1;
        println!("{up} of {wanted} cores up");
        output::record(results::Event::new(EventKind::Ready).value(up as u64));
        if up < wanted {
            return Err(Failure::new("not all cores came up"));
        }
        let exit = work(env, &mut streams, &config, up, topology.nodes().len());
        output::record(results::Event::new(EventKind::Done));
        Ok(exit)
    }

    /// The end of everything: the machine's, or waiting for nothing.
    fn end(self, exit: GuestExit) -> ! {
        if self.at_end == AtEnd::Exit {
            output::flush();
            let word = exit.word();
            match &self.console {
                Some(console) if console.child.end().is_none() => {
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
fn discover(env: &Env, boot: &BootInfo) -> Topology {
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
    found.topology
}

/// Free RAM within `ranges`, in whole units of what can be handed over.
fn free_within(ranges: &[PhysRange]) -> u64 {
    let unit = HANDOVER_GRANULARITY;
    let mut sum = 0;
    memory::for_each_free_range(|free| {
        for range in ranges {
            let start = free.start.max(range.base().as_u64()).next_multiple_of(unit);
            let end = free.end.min(range.end().as_u64()) / unit * unit;
            sum += end.saturating_sub(start);
        }
    });
    sum
}

/// Takes the memory of the cores 1 to `wanted` - 1, each from the nearest node that has any. Cores without
/// memory are left out, and said so.
fn divide(topology: &Topology, wanted: usize) -> Vec<Share> {
    let limit = wanted.min(monitor_handover::MAX_FURTHER_CORES + 1).min(console_handover::MAX_CORES);
    let cores = &topology.enabled_cores()[..limit];
    let own_node = cores.first().map(|c| c.node);
    let mut shares = Vec::new();
    for node in topology.nodes() {
        let here: Vec<_> = cores.iter().skip(1).filter(|c| c.node == node.id).collect();
        let reserved = if own_node == Some(node.id) { plan::FIRST_CORE_RAM } else { 0 };
        let ram = plan::ram_per_core(free_within(&node.memory), reserved, here.len() as u64)
            .unwrap_or(plan::LEAST_RAM);
        for core in here {
            let entry = CoreEntry { core: core.id.0, apic_id: core.apic.0, node: core.node.0, reserved: 0 };
            match take_near(topology, node.id, ram) {
                Some((kernel, share, ram)) => shares.push(Share { entry, kernel, share, ram }),
                None => println!("core {} is not started: there is no memory for it", core.id),
            }
        }
    }
    shares.sort_by_key(|s| s.entry.core);
    shares
}

/// An instance's RAM, a share frame and `ram` bytes, from the nearest node that has them.
fn take_near(topology: &Topology, node: skb::NodeId, ram: u64) -> Option<(Object, Object, Object)> {
    let unit = HANDOVER_GRANULARITY;
    for near in topology.memory_by_distance(node) {
        for range in &topology.node(near)?.memory {
            let within = range.base().as_u64()..range.end().as_u64();
            let take = |ty, size| memory::allocate_in(ty, size, unit, &within).ok();
            let Some(kernel) = take(ObjType::Ram, unit) else { continue };
            let share = take(ObjType::Frame, unit);
            let user = take(ObjType::Ram, ram);
            if let (Some(share), Some(user)) = (share, user) {
                return Some((kernel, share, user));
            }
            for object in [Some(kernel), share, user].into_iter().flatten() {
                // It was just made and goes back as easily.
                let _ = memory::free(object);
            }
        }
    }
    None
}

/// A page shared with a child, zeroed, mapped here.
fn shared_page(bytes: u64) -> Result<(CPtr, *mut u8), Failure> {
    let frame = memory::allocate(ObjType::Frame, bytes.max(PAGE_SIZE)).map_err(Failure::new)?;
    let mapped =
        memory::map(frame.cap, 0, frame.size, MapFlags::READ | MapFlags::WRITE).map_err(Failure::new)?;
    Ok((frame.cap, mapped.as_ptr()))
}

fn start_console(env: &Env, streams: &Streams, further: &[Share], doorbell: u64) -> Result<Console, Failure> {
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
    let child = domains::start(env, "console", |b| {
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
    })
    .map_err(|e| Failure::new(format!("the console does not start: {e}")))?;
    while control.ready.load(Ordering::Acquire) == 0 {
        if let Some(end) = child.end() {
            return Err(Failure::new(format!("the console ended: {end}")));
        }
        let _ = syscall::yield_core();
    }
    // The CPU driver's log goes to the console from now on.
    syscall::kcb_set_log_doorbell(task::KCB, doorbell).map_err(Failure::new)?;
    Ok(Console { child, control, ring: streams.ring(), doorbell })
}

/// Starts the monitor, which starts the further cores; how many of them came up.
fn start_cores(
    env: &Env,
    streams: &mut Streams,
    further: Vec<Share>,
    console_doorbell: u64,
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
    let (_, stream) =
        streams.open("monitor").ok_or_else(|| Failure::new("there is no console stream for the monitor"))?;
    let bytes = domains::module(env, "monitor").map_err(Failure::new)?;
    let mut builder = DomainBuilder::new("monitor", bytes)
        .memory(MONITOR_RAM)
        .stream(stream)
        .grant(slot::IRQ, irq)
        .grant(slot::IPI, task::IPIS)
        .grant(slot::TRAMPOLINE, task::TRAMPOLINE)
        .grant_less(slot::TABLE, table_frame, Rights::READ, 0)
        .grant(slot::REPORT, report_frame)
        .grant(slot::REPORT_NOTICE, notice);
    for (share, index) in further.iter().zip(0..) {
        builder = builder
            .grant(gift(index, CoreGift::Kernel), share.kernel.cap)
            .grant(gift(index, CoreGift::Share), share.share.cap)
            .grant(gift(index, CoreGift::Ram), share.ram.cap);
    }
    let monitor = builder.build().map_err(Failure::new)?;
    // Memory that is handed over must have no copies here.
    for share in further {
        for object in [share.kernel, share.share, share.ram] {
            syscall::cap_delete(task::ROOT, object.cap).map_err(Failure::new)?;
            memory::forget(object);
        }
    }
    monitor.start().map_err(Failure::new)?;
    while report.done.load(Ordering::Relaxed) == 0 {
        events::wait(STARTED.bit() | Event::CHILD.bit(), Deadline::NEVER);
        if let Some(end) = monitor.end() {
            domains::report(env.info().core, "monitor", &end);
            return Err(Failure::new("the monitor is gone"));
        }
    }
    Ok(report.up.load(Ordering::Relaxed) as usize)
}

/// Runs what the command line asks for.
fn work(env: &Env, streams: &mut Streams, config: &Config, cores: usize, nodes: usize) -> GuestExit {
    let Config { accel, seed, policy, .. } = config;
    let mut args = format!("accel={accel} cores={cores} nodes={nodes} seed={seed} policy={policy}");
    if let Some(samples) = config.samples {
        args.push_str(&format!(" samples={samples}"));
    }
    let mut exit = GuestExit::Success;
    for bench in &config.benches {
        output::record(results::Event::new(EventKind::BenchStarted).name(bench));
        if !run_guest(env, streams, &format!("bench_{bench}"), &args, Rights::READ) {
            exit = GuestExit::BenchFailed;
        }
    }
    if let Some(scenario) = &config.scenario
        && !run_guest(env, streams, &format!("test_{scenario}"), &args, Rights::all())
    {
        exit = GuestExit::CheckFailed;
    }
    exit
}

/// Runs a benchmark or test to its end, with those rights on the KCB; whether it succeeded.
fn run_guest(env: &Env, streams: &mut Streams, name: &str, args: &str, kcb: Rights) -> bool {
    let run = domains::run(env, streams, name, |b| {
        b.args(args).memory(GUEST_RAM).with_archive().grant_less(task::KCB, task::KCB, kcb, 0)
    });
    match run {
        Ok(end) => end.is_success(),
        Err(error) => {
            println!("domain {name} does not run: {error}");
            false
        }
    }
}
