//! The monitor of a core: what it keeps account of, what the monitors say to each other, and what `init` hands it.
//!
//! * [`Monitor`] is the whole of a monitor's state; it takes one [`Event`] further at a time, pure but for the
//!   [`Port`](port::Port) through which it sends and invokes;
//! * [`mesh`], [`binding`], [`channels`] and the private modules beside them are parts of it, one per concern;
//! * [`wire`]: the messages between monitors;
//! * [`protocol`]: how the first core's monitor and another one greet;
//! * [`handover`]: where a monitor finds the capabilities and tables that `init` gives it.
//!
//! The domain itself is the binary: on the first core it starts the others; on every core it waits for events,
//! and is the port.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod binding;
pub mod channels;
mod domains;
mod first;
pub mod handover;
pub mod mesh;
mod passing;
pub mod port;
pub mod protocol;
#[cfg(test)]
mod simulation;
mod spawning;
mod state;
mod table;
pub mod wire;

pub use state::{Event, FIRST_CORE, Ignored, Monitor, WORDS, limit};
pub use table::OWN_ENTRY;
