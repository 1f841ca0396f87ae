//! The console: what it makes of the bytes that come in, as pure code.
//!
//! * [`handover`]: where the console finds what `init` gives it;
//! * [`lines`]: from the bytes of a stream to lines for one port or the other.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod handover;
pub mod lines;
