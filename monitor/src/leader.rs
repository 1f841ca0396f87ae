//! The monitor of the first core: starts the others.
//!
//! Cores are started one after the other, because there is one trampoline; a core that runs its CPU driver
//! rings, and the next one's turn comes while the first still starts its user space. Their monitors' hellos are
//! taken as they come.

use core::convert::Infallible;
use core::sync::atomic::Ordering;

use alloc::vec::Vec;

use lmp::invocation::TrampolineState;
use lmp::start::share;
use lmp::syscall::{self, CoreStart};
use lmp::{CPtr, ObjType, SysError, cptr::task};
use monitor::handover::{CoreEntry, CoreGift, gift, slot};
use monitor::protocol::{Leader, Standing};
use results::{Event as ResultEvent, EventKind};
use runtime::events::{self, Deadline, Event};
use runtime::{Env, memory, output, println, vector};

use crate::peers::{Greeting, Peer, Place, Wake};
use crate::server::{Failure, Server, listen, rearm};
use crate::shared;

/// How long a core may take until its CPU driver rings, per attempt.
const START_TIME_MS: u64 = 5_000;
/// How long the monitors may take until all have answered, after the last core was started.
const HELLO_TIME_MS: u64 = 30_000;
/// SIPIs per core: a second one where the first was lost (Intel SDM volume 3A, section 9.4.4.1).
const ATTEMPTS: usize = 2;

struct Starter {
    console_doorbell: u64,
    own_apic: u32,
    up: Event,
    up_notice: CPtr,
    /// The first loaded instance per node, whose read-only part others on the node share.
    donors: Vec<(u32, CPtr)>,
}

/// Starts the other cores, then does what every monitor does.
pub(crate) fn run(env: &Env) -> Result<Infallible, Failure> {
    let info = env.info();
    let table = shared::table(slot::TABLE)?;
    let report = shared::report(slot::REPORT)?;
    let mut server = Server::new(info.core)?;
    let up = events::allocate().ok_or(memory::MemoryError::OutOfEvents)?;
    let mut starter = Starter {
        console_doorbell: table.console_doorbell,
        own_apic: info.apic_id,
        up,
        up_notice: listen(vector::CORE_UP, up)?,
        donors: Vec::new(),
    };
    let mut failed = 0u64;
    for (index, entry) in (0..).zip(table.entries()) {
        match starter.start(index, entry, server.table()) {
            Ok(peer) => {
                output::record(ResultEvent::new(EventKind::CoreUp).core(entry.core));
                server.machine.peers.insert(entry.core, peer);
            }
            Err(failure) => {
                println!("core {} (APIC {:#x}) does not start: {failure}", entry.core, entry.apic_id);
                failed += 1;
            }
        }
        server.work();
    }
    let silent = await_all(&mut server);
    for core in &silent {
        println!("core {core}: its monitor does not answer");
    }
    // Relaxed: the notice below is on this core, and the reader runs after it.
    report.up.store((server.machine.peers.len() - silent.len()) as u64, Ordering::Relaxed);
    report.failed.store(failed + silent.len() as u64, Ordering::Relaxed);
    report.done.store(1, Ordering::Relaxed);
    syscall::notification_signal(slot::REPORT_NOTICE)
        .map_err(|e| Failure::Refused("signalling the report", e))?;
    loop {
        server.turn();
    }
}

/// Waits until the monitors of all started cores have answered a ping, so that both directions of every channel are
/// known to work; the cores whose monitors did not.
fn await_all(server: &mut Server) -> Vec<u32> {
    let deadline = Deadline::after_ms(HELLO_TIME_MS);
    let mut pinged = Vec::new();
    loop {
        let mut silent = Vec::new();
        let mut waiting = false;
        for (&core, peer) in &mut server.machine.peers {
            let Greeting::Leader(leader) = &mut peer.greeting else { continue };
            match (leader.standing(), pinged.contains(&core)) {
                (Standing::Up, true) => continue,
                (Standing::Up, false) => {
                    if let Some(ping) = leader.ping() {
                        pinged.push(core);
                        peer.send(&ping);
                        peer.wake();
                    }
                    waiting = true;
                }
                (Standing::Silent | Standing::Pinged { .. }, _) => waiting = true,
                (Standing::Refused(_), _) => {}
            }
            silent.push(core);
        }
        if !waiting || !server.turn_until(deadline) {
            return silent;
        }
    }
}

impl Starter {
    /// Starts a core and waits until its CPU driver runs.
    fn start(&mut self, index: u32, entry: &CoreEntry, notifications: CPtr) -> Result<Peer, Failure> {
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
        let share_frame = gift(index, CoreGift::Share);
        for (memory, operation) in
            [(share_frame, "handing the share frame over"), (gift(index, CoreGift::Ram), "handing RAM over")]
        {
            syscall::kernel_give(kernel, memory).map_err(|e| Failure::Refused(operation, e))?;
        }
        let place = Place { frame: share_frame, offset: share::MONITOR_OFFSET, side: 1, apic: entry.apic_id };
        let bell = Wake::Bell(vector::doorbell(entry.apic_id, vector::MONITOR));
        let leader = Greeting::Leader(Leader::new(entry.core));
        let peer = Peer::new(&place, notifications, bell, leader)?;
        syscall::trampoline_arm(slot::TRAMPOLINE, &start)
            .map_err(|e| Failure::Refused("arming the trampoline", e))?;
        let ran = self.kick();
        if ran.is_err() {
            // The core is held in INIT; its memory stays lost, which is better than shared.
            let _ = syscall::trampoline_disarm(slot::TRAMPOLINE);
        }
        ran.map(|()| peer)
    }

    /// Sends INIT and SIPI, and waits until the core rings, its CPU driver running.
    fn kick(&self) -> Result<(), Failure> {
        syscall::trampoline_init(slot::TRAMPOLINE).map_err(|e| Failure::Refused("sending INIT", e))?;
        for _ in 0..ATTEMPTS {
            syscall::trampoline_sipi(slot::TRAMPOLINE).map_err(|e| Failure::Refused("sending SIPI", e))?;
            let deadline = Deadline::after_ms(START_TIME_MS);
            // Not before it rings: a core that has taken its start is still on the trampoline's page tables for a
            // few instructions, and arming it for the next core would take them away.
            while events::wait(self.up.bit(), deadline) != 0 {
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
