//! `init`: what it decides, as pure code.
//!
//! * [`config`]: what the command line asks for;
//! * [`plan`]: how much memory each core gets.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod plan;
