//! Cross-core message passing: the URPC channel over shared cache lines.
//!
//! Nothing here knows where the shared memory comes from or who runs at its other end. The same code runs in
//! the operating system, as Linux threads and under a model checker; the peer may be hostile. The whole line
//! format and the reason for each memory ordering are in `doc/ump.md`.
//!
//! - [`Endpoint`]: one end of a two-way channel of [`Message`]s, in two [`Outbox`]es of shared memory, one
//!   per side. [`Sender`] and [`Receiver`] are its two directions.
//! - [`stream`]: bytes and text over a channel.
//! - [`Line`]: 64 bytes of shared memory, eight atomic words; all memory this crate shares is made of them.
//! - [`logring`]: a lossy, single-writer log in a shared frame, for the CPU driver's messages.
//! - [`notify`]: notifications from one CPU driver to another: a single-writer ring of table indices.
//!
//! The crate needs neither an allocator nor `std`. The `unsafe` constructors that turn an address into
//! shared lines are all in one module; everything else is checked by the compiler.

#![cfg_attr(not(loom), no_std)]
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod logring;
pub mod notify;
pub mod stream;

mod endpoint;
mod error;
mod line;
mod memory;
mod message;
mod outbox;
mod primitive;

pub use endpoint::{Accepts, Asleep, Endpoint, Receiver, Sender, Until};
pub use error::{SendError, Violation};
pub use line::{LINE_BYTES, Line, WORDS};
pub use memory::MemoryError;
pub use message::{
    Header, Kind, MAX_BURST, MAX_CAPABILITIES, Message, PAYLOAD_BYTES, PAYLOAD_WORDS, TooLong,
};
pub use outbox::{Outbox, RPC_LINES, STREAM_LINES};
#[cfg(loom)]
pub use primitive::{Side, Site, weaken};
