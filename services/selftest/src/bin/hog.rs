//! Scenario `hog`: domains that loop for ever, enabled or disabled, do not keep others from the core.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use boot_freestanding as _;
use runtime::Env;
use selftest::{Bystander, Shared, Test};

runtime::entry!(main);

/// Turns that each hog must get, and this domain too.
const TURNS: u64 = 4;

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    for mode in ["hog", "hog-disabled"] {
        let result = run(&test, mode);
        test.check(mode, result);
    }
    test.finish()
}

fn run(test: &Test, mode: &str) -> Result<(), String> {
    let bystander = Bystander::start(test)?;
    let shared = [Shared::new()?, Shared::new()?];
    let mut hogs = alloc::vec::Vec::new();
    for page in &shared {
        let hog = test.victim(&format!("mode={mode}"), page)?;
        hog.start().map_err(|e| format!("{e}"))?;
        hogs.push(hog);
    }
    let mut last = [0; 2];
    for turn in 0..TURNS {
        // It comes back only if the hogs are preempted.
        let _ = lmp::syscall::yield_core();
        bystander.check()?;
        for (page, last) in shared.iter().zip(&mut last) {
            let now = page.get(0);
            if now == *last {
                return Err(format!("a hog got no turn before turn {turn}"));
            }
            *last = now;
        }
    }
    for hog in hogs {
        if let Some(end) = hog.end() {
            return Err(format!("a hog ended: {end}"));
        }
        hog.destroy().map_err(|e| format!("{e}"))?;
    }
    bystander.stop()
}
