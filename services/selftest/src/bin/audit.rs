//! Scenario `audit`: the CPU driver checks all that it keeps and finds nothing wrong, whatever goes on meanwhile, and
//! only for who has the right.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::invocation::{MapFlags, Violation};
use lmp::objects::PAGE_SIZE;
use lmp::syscall::{self, Audit};
use lmp::{ObjType, Rights, SysError};
use runtime::audit::audit;
use runtime::{Env, memory};
use selftest::{Shared, Test};

runtime::entry!(main);

/// Domains, and frames of each, beside which an audit goes on.
const DOMAINS: u64 = 6;
/// Frames that come and go.
const FRAMES: usize = 40;
/// Passes while everything changes.
const PASSES: u64 = 8;

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let result = alone();
    test.check("alone", result);
    let result = beside_domains(&test);
    test.check("domains", result);
    let result = under_change(&test);
    test.check("change", result);
    let result = refusals();
    test.check("refusals", result);
    test.finish()
}

fn text(error: impl Display) -> String {
    format!("{error}")
}

/// Counts that can be: what is there in any case, and not more than any machine of these tests has.
fn plausible(audit: &Audit) -> Result<(), String> {
    let Audit { capabilities, entries, bytes, .. } = *audit;
    // At least what `init` starts with, and this domain.
    let enough = capabilities > 100 && entries > capabilities / 4 && bytes >= 8 << 20;
    if enough && capabilities < 100_000 && bytes <= 1 << 40 { Ok(()) } else { Err(format!("{audit:?}")) }
}

/// A pass, another one with the same outcome, and one that sees what was made between.
fn alone() -> Result<(), String> {
    let first = audit(task::KCB).map_err(text)?;
    plausible(&first)?;
    let second = audit(task::KCB).map_err(text)?;
    if second.bytes != first.bytes {
        return Err(format!("{first:?}, then {second:?}"));
    }
    let slot = memory::slot().map_err(text)?;
    let before = audit(task::KCB).map_err(text)?;
    syscall::cap_copy(task::ROOT, slot, task::VSPACE).map_err(text)?;
    let after = audit(task::KCB).map_err(text)?;
    syscall::cap_delete(task::ROOT, slot).map_err(text)?;
    memory::free_slot(slot);
    if after.capabilities < before.capabilities + 1 {
        return Err(format!(
            "a copy more, and {} capabilities after {}",
            after.capabilities, before.capabilities
        ));
    }
    Ok(())
}

/// Domains that run, with notifications bound to them and frames mapped.
fn beside_domains(test: &Test) -> Result<(), String> {
    let before = audit(task::KCB).map_err(text)?;
    let mut children = Vec::new();
    for _ in 0..DOMAINS {
        let shared = Shared::new()?;
        let child = test.victim("mode=count", &shared)?;
        child.start().map_err(text)?;
        let notification = memory::allocate(ObjType::Notification, 0).map_err(text)?;
        syscall::notification_bind(notification.cap, child.dispatcher(), 9).map_err(text)?;
        children.push((child, shared, notification));
        audit(task::KCB).map_err(text)?;
    }
    let during = audit(task::KCB).map_err(text)?;
    plausible(&during)?;
    if during.capabilities < before.capabilities + DOMAINS * 10
        || during.entries < before.entries + DOMAINS * 10
    {
        return Err(format!("{before:?}, then {during:?} with {DOMAINS} domains"));
    }
    for (child, _, notification) in children {
        child.kill().map_err(text)?;
        audit(task::KCB).map_err(text)?;
        child.destroy().map_err(text)?;
        audit(task::KCB).map_err(text)?;
        memory::free(notification).map_err(text)?;
    }
    audit(task::KCB).map_err(text).map(drop)
}

/// Goes on with the audit by a step; counts the passes that end well.
fn step(passes: &mut u64) -> Result<(), String> {
    match syscall::kcb_audit_step(task::KCB).map_err(text)? {
        Some(found) if found.violation != Violation::None => {
            Err(format!("{} ({:#x})", found.violation.text(), found.at))
        }
        Some(_) => {
            *passes += 1;
            Ok(())
        }
        None => Ok(()),
    }
}

/// Between the steps frames are made, mapped, copied, unmapped and deleted, and domains come and go.
fn under_change(test: &Test) -> Result<(), String> {
    let mut passes = 0;
    while passes < PASSES {
        let mut mapped = Vec::new();
        for n in 0..FRAMES {
            let size = PAGE_SIZE * (1 + n as u64 % 5);
            let frame = memory::allocate(ObjType::Frame, size).map_err(text)?;
            step(&mut passes)?;
            let window = memory::map(frame.cap, 0, size, MapFlags::READ | MapFlags::WRITE).map_err(text)?;
            mapped.push((frame, window));
            step(&mut passes)?;
            if n % 3 == 0 {
                let (frame, window) = mapped.swap_remove(mapped.len() / 2);
                // SAFETY: nothing refers to the memory.
                unsafe { memory::unmap(window) };
                step(&mut passes)?;
                memory::free(frame).map_err(text)?;
            }
            step(&mut passes)?;
        }
        let shared = Shared::new()?;
        let child = test.victim("mode=count", &shared)?;
        child.start().map_err(text)?;
        step(&mut passes)?;
        child.kill().map_err(text)?;
        step(&mut passes)?;
        child.destroy().map_err(text)?;
        for (frame, window) in mapped {
            // SAFETY: as above.
            unsafe { memory::unmap(window) };
            step(&mut passes)?;
            memory::free(frame).map_err(text)?;
            step(&mut passes)?;
        }
    }
    Ok(())
}

/// Without the right, or with something else, there is no audit.
fn refusals() -> Result<(), String> {
    let less = memory::slot().map_err(text)?;
    syscall::cap_mint(task::ROOT, less, task::KCB, Rights::WRITE, 0).map_err(text)?;
    let refused = syscall::kcb_audit_step(less);
    syscall::cap_delete(task::ROOT, less).map_err(text)?;
    memory::free_slot(less);
    if refused != Err(SysError::MissingRight) {
        return Err(format!("with the right to write alone: {refused:?}"));
    }
    match syscall::kcb_audit_step(task::VSPACE) {
        Err(SysError::NoSuchOperation) => Ok(()),
        other => Err(format!("with a page table: {other:?}")),
    }
}
