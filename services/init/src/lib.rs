//! `init`: what it decides, as pure code.
//!
//! * [`config`]: what the command line asks for;
//! * [`orders`]: what the monitor asks for;
//! * [`plan`]: who gets which memory;
//! * [`roster`]: the domains of a core, and where each stands.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod orders;
pub mod plan;
pub mod roster;
