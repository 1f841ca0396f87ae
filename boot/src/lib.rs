//! The host command: builds, boots, measures and reports.
//!
//! `cargo run` starts it. The library holds all of it, so that the tests that boot the OS use the same code:
//!
//! - [`cli`] reads the command line, [`commands`] carries it out;
//! - [`numa`] and [`machine`] describe and check the machine asked for;
//! - [`host`], [`setup`] and [`qemu`] see to this machine and its QEMU;
//! - [`images`] builds the OS in a nested cargo and packs the boot archive;
//! - [`vm`], [`qmp`] and [`guest`] run one guest and watch it;
//! - [`diagnose`] and [`symbols`] say what a failed guest was doing;
//! - [`journal`] and [`report`] write the results for programs and for people, [`compare`] reads them again;
//! - [`topo`] shows the machine that a guest found, [`told`] knows what QEMU was told to make;
//! - [`scaffold`] starts experiments from templates;
//! - [`error`] has every message and exit code.

pub mod cli;
pub mod commands;
pub mod compare;
pub mod diagnose;
pub mod error;
pub mod guest;
pub mod host;
pub mod images;
pub mod interrupt;
pub mod journal;
pub mod machine;
pub mod numa;
pub mod qemu;
pub mod qmp;
pub mod report;
pub mod scaffold;
pub mod setup;
pub mod symbols;
pub mod told;
pub mod topo;
pub mod vm;

pub use error::{Error, Result};
