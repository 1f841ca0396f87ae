//! Domains that execute message forms at random with each other, and are suspended and taken down at random moments.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use lmp::frame::FRAME_SIZE;
use lmp::{CPtr, ObjType, Rights, syscall};
use runtime::events::{self, Deadline};
use runtime::memory::{self, Object};
use runtime::spawn::{Child, DomainBuilder};
use selftest::chatter::{FIRST, OWN};
use selftest::{Random, SHARED, Shared, Test};

use crate::{Check, Named, Stage, refused};

pub(crate) const CHECKS: &[Named] = &[("domains that talk at random", talk)];

/// Domains that talk at a time.
const DOMAINS: usize = 5;
/// How often one of them is taken down and another started.
const ROUNDS: u64 = 60;
/// Forms that each invokes, if it gets so far.
const CALLS: u64 = 400;
/// The longest time between two interventions, in TSC ticks.
const PAUSE: u64 = 400_000;
/// RAM of each for its own use, in bytes.
const RAM: u64 = 16 << 10;

struct Talker {
    child: Child,
    endpoints: Vec<Object>,
}

fn endpoints() -> Result<Vec<Object>, String> {
    (0..OWN).map(|_| memory::allocate(ObjType::Endpoint, 0).map_err(|e| format!("{e}"))).collect()
}

/// A domain with `endpoints` of its own, that knows those of `others` too.
fn start(test: &Test, page: CPtr, seed: u64, own: Vec<Object>, others: &[CPtr]) -> Result<Talker, String> {
    let text = |e: runtime::spawn::SpawnError| format!("{e}");
    let number = own.len() + others.len();
    let mut builder = DomainBuilder::new("talker", test.module()?)
        .args(&format!("mode=chatter seed={seed} calls={CALLS} endpoints={number}"))
        .memory(RAM)
        .grant(SHARED, page);
    for (n, cap) in own.iter().map(|e| e.cap).chain(others.iter().copied()).enumerate() {
        let rights = if n < own.len() { Rights::all() } else { Rights::WRITE | Rights::GRANT };
        builder = builder.grant_less(CPtr::new(0, FIRST + n as u32), cap, rights, 0);
    }
    let child = builder.build().map_err(text)?;
    for (n, e) in own.iter().enumerate() {
        let offset = FRAME_SIZE + 1024 * n as u64;
        syscall::endpoint_bind(e.cap, child.dispatcher(), offset, 2, n as u64, n as u32)
            .map_err(refused("binding"))?;
    }
    child.start().map_err(text)?;
    Ok(Talker { child, endpoints: own })
}

impl Talker {
    fn stop(self) -> Check {
        if let Some(end) = self.child.end().filter(|end| !end.is_success()) {
            return Err(format!("a domain ended: {end}"));
        }
        self.child.destroy().map_err(|e| format!("{e}"))?;
        for e in self.endpoints {
            memory::free(e).map_err(|e| format!("{e}"))?;
        }
        Ok(())
    }
}

fn talk(stage: &Stage, test: &Test) -> Check {
    let page = memory::allocate(ObjType::Frame, lmp::objects::PAGE_SIZE).map_err(|e| format!("{e}"))?;
    // Only there because every child maps one.
    let shared = Shared::of(page.cap)?;
    let mut random = Random::new(test.seed());
    let mut talkers: Vec<Talker> = Vec::new();
    for round in 0..ROUNDS {
        if talkers.len() == DOMAINS {
            let victim = random.below(DOMAINS as u64) as usize;
            talkers.remove(victim).stop().map_err(|e| format!("round {round}: {e}"))?;
        }
        let others: Vec<CPtr> = talkers.iter().flat_map(|t| &t.endpoints).map(|e| e.cap).collect();
        let seed = test.seed().wrapping_mul(1000) + round;
        talkers.push(start(test, page.cap, seed, endpoints()?, &others)?);
        for _ in 0..random.below(4) {
            events::wait(0, Deadline::after(random.below(PAUSE)));
            let one = talkers[random.below(talkers.len() as u64) as usize].child.dispatcher();
            if syscall::dispatcher_suspend(one).is_ok() {
                events::wait(0, Deadline::after(random.below(PAUSE) / 4));
                syscall::dispatcher_resume(one).map_err(refused("resuming"))?;
            }
        }
        stage.bystander.check().map_err(|e| format!("round {round}: {e}"))?;
    }
    for talker in talkers {
        talker.stop()?;
    }
    shared.unmap();
    memory::free(page).map_err(|e| format!("{e}"))
}
