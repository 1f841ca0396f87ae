//! The results schema and the exit codes shared by guest and host.
//!
//! The guest writes one JSON object per line on its second serial port: a [`Record`] for each measurement and
//! an [`Event`] for each step that the host waits for. Both are plain structs with a `Display`, so a domain
//! writes them with `core::fmt` and no heap. The host reads the same lines with [`host`] (feature `host`),
//! checks them and puts them into `results/`, below one [`host::Header`] per run.
//!
//! A guest ends its machine through QEMU's `isa-debug-exit` device with a [`GuestExit`]; the host command ends
//! with a [`HostExit`]. [`anchors`] has the numbers to beat.
#![cfg_attr(not(any(test, feature = "host")), no_std)]
#![forbid(unsafe_code)]

pub mod anchors;
mod event;
mod exit;
#[cfg(feature = "host")]
pub mod host;
mod json;
mod names;
mod record;

pub use event::{Event, EventKind};
pub use exit::{DEBUG_EXIT_PORT, GuestExit, HostExit, PANIC_EVENT, PANIC_PORT};
pub use names::{Accel, Layer, Unit, metric};
pub use record::{Distribution, Home, Homes, Record, Value};

/// The version of the schema: of the lines that [`Record`] and [`Event`] write and [`host`] reads. It changes
/// whenever a reader of the old version could misunderstand a line of the new.
pub const SCHEMA: u32 = 2;

/// IO port of the serial port that carries the results, COM2. Nothing but result lines goes there.
pub const RESULTS_PORT: u16 = 0x2f8;

/// IO port of the console's serial port, COM1: text for people, also a panic's last words.
pub const CONSOLE_PORT: u16 = 0x3f8;
