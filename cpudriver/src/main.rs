//! The CPU driver: the kernel of one core.
//!
//! Each core runs an instance of its own; instances share no writable memory and never wait for each other.
//! An instance does what needs privilege, and nothing else: local message passing, scheduling, page tables and
//! capabilities, all by invocation of capabilities.
//!
//! | module | what it does |
//! |---|---|
//! | [`loader`] | the boot-loaded copy: boot protocols in, the first core's instance out |
//! | [`instance`] | building an instance, for the first core and all others |
//! | [`start`], [`init`] | an instance's first steps, and its first domain |
//! | [`core_state`], [`objects`] | the kernel control block; kernel objects in user-provided memory |
//! | [`syscall`], [`kernel_objects`] | invocations; making and destroying objects |
//! | [`trap`], [`dispatch`] | exceptions, interrupts, upcalls, scheduling |
//! | [`link`] | notifications from core to core |
//! | [`waiting`] | who waits for which message or answer |
//! | [`audit`] | checking all that this core keeps, in steps |
//! | [`log_ring`], [`mod@panic`] | what is said in normal operation, and at the end |
//! | [`arch`] | the hardware |
#![no_std]
#![no_main]

use boot_freestanding as _;

mod arch;
mod audit;
mod core_state;
mod dispatch;
mod init;
mod instance;
mod kernel_objects;
mod link;
mod loader;
mod log_ring;
mod objects;
mod panic;
mod start;
mod syscall;
mod trap;
mod waiting;

/// The boot entry points, named so that the linker keeps their code.
#[used]
static ENTRIES: [fn() -> u64; 2] = [boot_entry::pvh::entry, boot_entry::limine::entry];
