//! The service of the system knowledge base, on the first core: what it decides, as pure code.
//!
//! * [`service`]: the answer to each query of `runtime::interface::skb`;
//! * [`book`]: which memory of each node is free, and which frames there are;
//! * [`names`]: the services that have a name;
//! * [`handover`]: where the domain finds what `init` gives it.
//!
//! The domain itself is the binary: it moves the messages and invokes the capabilities. It never waits for anybody
//! but its client, the monitor of the first core, so every call is answered at once.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod book;
pub mod handover;
pub mod names;
pub mod service;
