//! A domain that a test has started on some core: does what its argument `do` says.
//!
//! | `do` | what it does |
//! |---|---|
//! | `exit` | ends with the code that the argument `code` says |
//! | `block` | waits for what never comes |
//! | `ask` | asks its monitor for a name that nobody has, which is not answered |
//! | `spin` | loops for ever |
//! | `fault` | reads address 0 |
//! | `eat` | takes all its memory, then ends with 0 |
#![no_std]
#![no_main]

use boot_freestanding as _;
use lmp::ObjType;
use lmp::objects::PAGE_SIZE;
use runtime::events::{self, Deadline};
use runtime::{Env, memory, monitor};

runtime::entry!(main);

/// Exit code: the argument makes no sense.
const BAD_ARGUMENT: u64 = 3;

fn main(env: &Env) -> u64 {
    match env.value("do").unwrap_or("") {
        "exit" => env.number("code", BAD_ARGUMENT),
        "block" => {
            events::wait(0, Deadline::NEVER);
            BAD_ARGUMENT
        }
        "ask" => match monitor::lookup("nobody") {
            Ok(_) => BAD_ARGUMENT,
            Err(_) => BAD_ARGUMENT + 1,
        },
        // Without a pause, which would hand the turn to another vCPU: it is to be in the way.
        "spin" => loop {
            core::hint::black_box(());
        },
        "fault" => {
            // SAFETY: nothing is mapped there, so the read has no effect but the fault that it is for.
            unsafe { core::ptr::without_provenance::<u8>(0).read_volatile() };
            BAD_ARGUMENT
        }
        "eat" => {
            while memory::allocate(ObjType::Frame, PAGE_SIZE).is_ok() {}
            0
        }
        _ => BAD_ARGUMENT,
    }
}
