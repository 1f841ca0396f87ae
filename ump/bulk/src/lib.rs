//! Bulk transport: large buffers in shared memory, handed over by descriptors on a UMP channel.
//!
//! A *pool* is shared memory cut into slots. One side, the [`Source`], takes slots, fills them and hands them
//! over; the other, the [`Sink`], reads them in place and gives them back. What crosses the channel is one
//! message of three words per slot; the data stays where it is. `doc/bulk.md` has the layouts bit by bit, the
//! states of a slot and what each mode guarantees.
//!
//! - [`Region`]: the memory of a pool, in one or more pieces; [`Word`]: what all of it is made of.
//! - [`Buf`]: a slot as a value. What may be done with it is its type: [`Owned`], [`Shared`], [`Received`] or
//!   [`Viewed`]. Using a slot that was given up does not compile; pretending to, as a hostile peer can, is
//!   found by the [holder table](Slot) and closes the channel.
//! - [`copying`]: the two other ways to move data, to compare with.
//!
//! ```
//! use bulk::{Given, Kinds, PoolId, Region, Sink, Slot, SlotSize, Source, Word};
//! use ump::{Accepts, Endpoint, Kind, Outbox, RPC_LINES};
//!
//! // The memory of a pool of four slots, and of the two tables; a channel.
//! let memory: Vec<Word> = (0..4 * 512).map(|_| Word::new(0)).collect();
//! let region = Region::of(&[&memory], SlotSize::MIN).unwrap();
//! let (mut here_table, mut there_table) = ([const { Slot::new() }; 4], [const { Slot::new() }; 4]);
//! let kinds = Kinds::starting_at(Kind(0));
//! let (here, there) = (Outbox::<RPC_LINES>::new(), Outbox::new());
//! let mut near = Endpoint::new(&here, &there, Accepts::kinds_below(kinds.end()));
//! let mut far = Endpoint::new(&there, &here, Accepts::kinds_below(kinds.end()));
//!
//! let source = Source::new(PoolId(7), region.clone(), &mut here_table, kinds).unwrap();
//! let sink = Sink::new(PoolId(7), region, &mut there_table, kinds).unwrap();
//!
//! let mut buffer = source.take().expect("all slots are free");
//! buffer.copy_from(b"a lot of data").unwrap();
//! buffer.hand_over(&mut near, 1).unwrap();
//!
//! let message = far.try_recv().unwrap().expect("it was just sent");
//! let delivery = sink.accept(&mut far, &message).unwrap();
//! let Given::Moved(received) = delivery.buffer else { panic!("it was not shared") };
//! let mut copy = [0; 13];
//! received.view().copy_to(&mut copy);
//! assert_eq!((&copy, delivery.cookie), (b"a lot of data", 1));
//!
//! drop(received);
//! sink.give_back(&mut far).unwrap();
//! let message = near.try_recv().unwrap().expect("the slot comes back");
//! assert_eq!(source.accept_return(&mut near, &message), Ok(1));
//! ```

#![no_std]
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod copying;

mod buffer;
mod channel;
mod descriptor;
mod error;
mod ledger;
mod memory;
mod sink;
mod source;
mod view;

pub use buffer::{Buf, Mode, Owned, Received, Shared, Unsent, Viewed, Writable};
pub use channel::Channel;
pub use descriptor::{Descriptor, Kinds, MAX_RETURNS, PoolId, Ticket};
pub use error::{RangeError, RegionError, TableTooSmall, Violation};
pub use ledger::Slot;
pub use memory::{MAX_PIECES, MAX_SLOTS, PIECE_ALIGNMENT, Region, SlotSize, Word};
pub use sink::{Delivery, Given, Sink};
pub use source::Source;
pub use view::View;
