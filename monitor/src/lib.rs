//! The monitor of a core: its protocol with the other monitors, and what `init` hands it.
//!
//! * [`protocol`]: the messages between monitors and the state machines of both ends, pure;
//! * [`handover`]: where a monitor finds the capabilities and tables that `init` gives it.
//!
//! The domain itself is the binary: on the first core it starts the others, on every core it answers.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod handover;
pub mod protocol;
