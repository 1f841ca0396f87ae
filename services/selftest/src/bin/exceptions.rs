//! Scenario `exceptions`: every exception that ring 3 can raise ends, or is upcalled to, the domain that raised it,
//! and nobody else.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use boot_freestanding as _;
use lmp::invocation::EndCause;
use runtime::Env;
use runtime::events::Deadline;
use runtime::spawn::End;
use selftest::victim::{Expected, FAULTS, NO_FAULT, Raise};
use selftest::{Bystander, Shared, Test};

runtime::entry!(main);

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    match run(&mut test) {
        Ok(()) => {}
        Err(why) => test.check("exceptions", Err(why)),
    }
    test.finish()
}

fn run(test: &mut Test) -> Result<(), String> {
    let shared = Shared::new()?;
    let bystander = Bystander::start(test)?;
    for fault in FAULTS {
        for how in ["end", "upcall", "disabled"] {
            let result = once(test, &shared, &format!("mode=raise fault={} how={how}", fault.name))
                .and_then(|end| compare(fault, how, &end))
                .and_then(|()| bystander.check());
            test.check(&format!("{}-{how}", fault.name), result);
        }
    }
    let result = once(test, &shared, "mode=interrupts")
        .and_then(|end| if end.is_success() { Ok(()) } else { Err(format!("it ended with {end}")) });
    test.check("int-0-to-255", result);
    test.check("bystander", bystander.check());
    bystander.stop()
}

fn once(test: &Test, shared: &Shared, args: &str) -> Result<End, String> {
    let victim = test.victim(args, shared)?;
    victim.start().map_err(|e| format!("{e}"))?;
    let end = victim.wait(Deadline::NEVER).ok_or("it does not end")?;
    victim.destroy().map_err(|e| format!("{e}"))?;
    Ok(end)
}

fn compare(fault: &Raise, how: &str, end: &End) -> Result<(), String> {
    let by_upcall = |base| {
        end.cause == EndCause::Exit && end.detail.checked_sub(base).is_some_and(|v| fault.expected.allows(v))
    };
    let right = match (how, fault.expected) {
        (_, Expected::OnHardware(_)) if end.cause == EndCause::Exit && end.detail == NO_FAULT => true,
        ("upcall", _) => by_upcall(1000),
        ("disabled", _) => by_upcall(2000),
        (_, Expected::PageFault(None)) => end.cause == EndCause::PageFault,
        (_, Expected::PageFault(Some(address))) => end.cause == EndCause::PageFault && end.detail == address,
        (_, expected) => end.cause == EndCause::Exception && expected.allows(end.detail),
    };
    if right { Ok(()) } else { Err(format!("expected {:?}, it ended with {end}", fault.expected)) }
}
