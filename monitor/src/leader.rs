//! The monitor of the first core: starts the others.
//!
//! Cores are started one after the other, because there is one trampoline; a core that runs its CPU driver
//! rings, and the next one's turn comes while the first still starts its user space. Their monitors' hellos are
//! taken as they come.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;

use lmp::invocation::TrampolineState;
use lmp::syscall::{self, CoreStart};
use lmp::{CPtr, ObjType, SysError, cptr::task};
use monitor::handover::{CoreEntry, CoreGift, channel, gift, slot};
use monitor::protocol::{ACCEPTS, Leader, Outcome, Standing};
use results::{Event as ResultEvent, EventKind};
use runtime::events::{self, Deadline, Event};
use runtime::{Env, memory, output, println, vector};
use ump::Endpoint;

use crate::member::{Failure, listen, rearm};
use crate::shared;

const LOOK: Event = Event::new(0);
const CORE_UP: Event = Event::new(1);

/// How long a core may take until its CPU driver rings, per attempt.
const START_TIME_MS: u64 = 5_000;
/// How long the monitors may take until all have answered, after the last core was started.
const HELLO_TIME_MS: u64 = 30_000;
/// Assumed where the CPU driver could not measure the clock: 1 GHz, which is also QEMU's under `-icount`.
const DEFAULT_TICKS_PER_MS: u64 = 1_000_000;
/// SIPIs per core: a second one where the first was lost (Intel SDM volume 3A, section 9.4.4.1).
const ATTEMPTS: usize = 2;

/// Another core, as far as it was started.
struct Peer {
    leader: Leader,
    endpoint: Endpoint<'static, { channel::LINES }>,
}

struct Starter {
    console_doorbell: u64,
    own_apic: u32,
    ticks_per_ms: u64,
    up_notice: CPtr,
    /// The first loaded instance per node, whose read-only part others on the node share.
    donors: Vec<(u32, CPtr)>,
}

pub(crate) fn run(env: &Env) -> u64 {
    match lead(env) {
        Ok(never) => match never {},
        Err(failure) => {
            println!("monitor: {failure}");
            runtime::start::EXIT_ERROR
        }
    }
}

fn lead(env: &Env) -> Result<core::convert::Infallible, Failure> {
    let info = env.info();
    let table = shared::table(slot::TABLE)?;
    let report = shared::report(slot::REPORT)?;
    let look = listen(vector::MONITOR, LOOK)?;
    let mut starter = Starter {
        console_doorbell: table.console_doorbell,
        own_apic: info.apic_id,
        ticks_per_ms: match info.tsc_ticks_per_ms {
            0 => DEFAULT_TICKS_PER_MS,
            ticks => ticks,
        },
        up_notice: listen(vector::CORE_UP, CORE_UP)?,
        donors: Vec::new(),
    };
    let mut peers: Vec<Peer> = Vec::with_capacity(table.entries().len());
    let mut failed = 0u64;
    for (index, entry) in (0..).zip(table.entries()) {
        match starter.start(index, entry) {
            Ok(peer) => {
                output::record(ResultEvent::new(EventKind::CoreUp).core(entry.core));
                peers.push(peer);
            }
            Err(failure) => {
                println!("core {} (APIC {:#x}) does not start: {failure}", entry.core, entry.apic_id);
                failed += 1;
            }
        }
        if events::take(LOOK.bit()) != 0 {
            rearm(vector::MONITOR, look);
        }
        collect(&mut peers);
    }
    let deadline = Deadline::after(HELLO_TIME_MS * starter.ticks_per_ms);
    // A ping each, so that both directions of every channel are known to work.
    let mut pinged = alloc::vec![false; peers.len()];
    let mut answered = alloc::vec![false; peers.len()];
    loop {
        collect(&mut peers);
        for (i, peer) in peers.iter_mut().enumerate() {
            if pinged[i] {
                answered[i] |= peer.leader.standing() == Standing::Up;
            } else if let Some(ping) = peer.leader.ping() {
                pinged[i] = peer.endpoint.try_send(&ping).is_ok();
                if let Some(entry) = table.entries().iter().find(|e| e.core == peer.leader.core()) {
                    let bell = vector::doorbell(entry.apic_id, vector::MONITOR);
                    let _ = syscall::ipi_send(slot::IPI, bell);
                }
            }
        }
        let silent =
            |i: usize, p: &Peer| !answered[i] && !matches!(p.leader.standing(), Standing::Refused(_));
        if !peers.iter().enumerate().any(|(i, p)| silent(i, p)) {
            break;
        }
        let came = events::wait(LOOK.bit(), deadline);
        if came == 0 {
            break;
        }
        rearm(vector::MONITOR, look);
    }
    for (peer, answered) in peers.iter().zip(&answered) {
        if !answered {
            println!("core {}: its monitor does not answer", peer.leader.core());
            failed += 1;
        }
    }
    // Relaxed: the notice below is on this core, and the reader runs after it.
    report.up.store(answered.iter().filter(|a| **a).count() as u64, Ordering::Relaxed);
    report.failed.store(failed, Ordering::Relaxed);
    report.done.store(1, Ordering::Relaxed);
    syscall::notification_signal(slot::REPORT_NOTICE)
        .map_err(|e| Failure::Refused("signalling the report", e))?;
    loop {
        events::wait(LOOK.bit(), Deadline::NEVER);
        rearm(vector::MONITOR, look);
        collect(&mut peers);
    }
}

/// Takes the messages that have come, and says which monitors are up.
fn collect(peers: &mut [Peer]) {
    for peer in peers {
        while let Ok(Some(message)) = peer.endpoint.try_recv() {
            match peer.leader.step(&message) {
                Outcome::Up => {
                    println!("core {} up", peer.leader.core());
                    output::record(ResultEvent::new(EventKind::MonitorUp).core(peer.leader.core()));
                }
                Outcome::Refused(refusal) => println!("core {}: {refusal}", peer.leader.core()),
                Outcome::Answered | Outcome::Ignored => {}
            }
        }
    }
}

impl Starter {
    /// Starts a core and waits until its CPU driver runs.
    fn start(&mut self, index: u32, entry: &CoreEntry) -> Result<Peer, Failure> {
        let kernel = memory::slot()?;
        let size = ObjType::Kernel.extent();
        let lmp::objects::Extent::Fixed(size) = size else {
            return Err(Failure::Refused("making an instance of the CPU driver", SysError::BadRetype));
        };
        let ram = gift(index, CoreGift::Kernel);
        syscall::cap_retype(task::ROOT, kernel, ram, ObjType::Kernel, 0, size, 1)
            .map_err(|e| Failure::Refused("making an instance of the CPU driver", e))?;
        let donor = self.donors.iter().find(|(node, _)| *node == entry.node).map_or(CPtr::NULL, |d| d.1);
        let start = CoreStart {
            kernel,
            core: entry.core,
            apic_id: entry.apic_id,
            node: entry.node,
            console_doorbell: self.console_doorbell,
            up_doorbell: vector::doorbell(self.own_apic, vector::CORE_UP),
        };
        syscall::kernel_load(&start, donor).map_err(|e| Failure::Refused("loading the CPU driver", e))?;
        if donor == CPtr::NULL {
            self.donors.push((entry.node, kernel));
        }
        // The channel is looked at before the frame is handed over, while it is certainly readable.
        let share = gift(index, CoreGift::Share);
        let (own, theirs) = shared::channel(share)?;
        let endpoint = Endpoint::new(own, theirs, ACCEPTS);
        for (memory, operation) in
            [(share, "handing the share frame over"), (gift(index, CoreGift::Ram), "handing RAM over")]
        {
            syscall::kernel_give(kernel, memory).map_err(|e| Failure::Refused(operation, e))?;
        }
        syscall::trampoline_arm(slot::TRAMPOLINE, &start)
            .map_err(|e| Failure::Refused("arming the trampoline", e))?;
        let ran = self.kick();
        if ran.is_err() {
            // The core is held in INIT; its memory stays lost, which is better than shared.
            let _ = syscall::trampoline_disarm(slot::TRAMPOLINE);
        }
        ran.map(|()| Peer { leader: Leader::new(entry.core), endpoint })
    }

    /// Sends INIT and SIPI, and waits until the core rings, its CPU driver running.
    fn kick(&self) -> Result<(), Failure> {
        syscall::trampoline_init(slot::TRAMPOLINE).map_err(|e| Failure::Refused("sending INIT", e))?;
        for _ in 0..ATTEMPTS {
            syscall::trampoline_sipi(slot::TRAMPOLINE).map_err(|e| Failure::Refused("sending SIPI", e))?;
            let deadline = Deadline::after(START_TIME_MS * self.ticks_per_ms);
            // Not before it rings: a core that has taken its start is still on the trampoline's page tables for a
            // few instructions, and arming it for the next core would take them away.
            while events::wait(CORE_UP.bit(), deadline) != 0 {
                rearm(vector::CORE_UP, self.up_notice);
                let state = syscall::trampoline_status(slot::TRAMPOLINE)
                    .map_err(|e| Failure::Refused("looking at the trampoline", e))?;
                if state == TrampolineState::Free {
                    return Ok(());
                }
            }
        }
        Err(Failure::NeverRan)
    }
}
