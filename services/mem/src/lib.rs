//! The memory server of a core: what it decides, as pure code.
//!
//! * [`account`]: who has which piece of the pool;
//! * [`service`]: the answer to each request of `runtime::interface::mem`;
//! * [`handover`]: where the domain finds what `init` gives it.
//!
//! The domain itself is the binary: it moves the messages and invokes the capabilities. Clients are told apart by the
//! badge of what they call through, which is their number on the core.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod account;
pub mod handover;
pub mod service;
