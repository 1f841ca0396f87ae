//! Pools against a naive model: who holds which slot, what is on its way. With two honest ends, and with each
//! end facing a hostile one.

mod common;

use std::collections::{BTreeMap, VecDeque};

use bulk::{
    Buf, Descriptor, Given, Owned, PoolId, Received, Shared, Sink, SlotSize, Source, Ticket, Viewed,
    Violation,
};
use common::{KINDS, POOL, Wire, memory, region, table};
use proptest::prelude::*;
use ump::Message;

const SLOTS: usize = 5;
const SLOT: usize = SlotSize::MIN.bytes();

#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    /// Hands over the buffer of that index, if there is one, with so many bytes.
    HandOver(usize, usize),
    Share(usize),
    Unshare(usize),
    DropOwned(usize),
    DropShared(usize),
    /// The sink takes the next message.
    Receive,
    DropReceived(usize),
    DropViewed(usize),
    GiveBack,
    /// The source takes the next message.
    TakeBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = 0..SLOTS;
    let step = prop_oneof![
        4 => Just(Step::Take),
        3 => (index.clone(), 0..=SLOT).prop_map(|(index, length)| Step::HandOver(index, length)),
        2 => index.clone().prop_map(Step::Share),
        2 => index.clone().prop_map(Step::Unshare),
        1 => index.clone().prop_map(Step::DropOwned),
        2 => index.clone().prop_map(Step::DropShared),
        4 => Just(Step::Receive),
        3 => index.clone().prop_map(Step::DropReceived),
        2 => index.prop_map(Step::DropViewed),
        2 => Just(Step::GiveBack),
        3 => Just(Step::TakeBack),
    ];
    prop::collection::vec(step, 0..200)
}

/// Where a slot is, as everybody would agree who saw everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    /// A buffer at the source.
    here: bool,
    /// A message, a buffer at the sink, or in the sink's list.
    away: bool,
}

/// Removes the buffer of that index, if there is one.
fn remove<B>(buffers: &mut Vec<B>, index: usize) -> Option<B> {
    (index < buffers.len()).then(|| buffers.swap_remove(index))
}

fn honest(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let memory = memory(SLOTS, SLOT);
    let (mut here, mut there) = (table(SLOTS), table(SLOTS));
    let source = Source::new(POOL, region(&memory), &mut here, KINDS).unwrap();
    let sink = Sink::new(POOL, region(&memory), &mut there, KINDS).unwrap();
    let (mut forth, mut back) = (Wire::default(), Wire::default());

    let (mut owned, mut shared) = (Vec::<Buf<'_, Owned>>::new(), Vec::<Buf<'_, Shared>>::new());
    let (mut received, mut viewed) = (Vec::<Buf<'_, Received>>::new(), Vec::<Buf<'_, Viewed>>::new());
    let mut places = [Place::default(); SLOTS];
    let (mut sent, mut dropped) = (VecDeque::new(), 0);
    let mut cookie = 0;
    for step in steps {
        match step {
            Step::Take => match source.take() {
                Some(buffer) => {
                    let place = &mut places[usize::from(buffer.slot())];
                    prop_assert_eq!(*place, Place::default(), "the slot was not free");
                    place.here = true;
                    owned.push(buffer);
                }
                None => prop_assert!(places.iter().all(|place| place.here || place.away)),
            },
            Step::HandOver(index, length) => {
                let Some(mut buffer) = remove(&mut owned, index) else { continue };
                cookie += 1;
                buffer.words()[0].store(cookie);
                buffer.set_range(0, length).unwrap();
                places[usize::from(buffer.slot())] = Place { here: false, away: true };
                sent.push_back((buffer.slot(), length, cookie, false));
                buffer.hand_over(&mut forth, cookie).unwrap();
            }
            Step::Share(index) => {
                let Some(buffer) = remove(&mut owned, index) else { continue };
                cookie += 1;
                let length = buffer.len();
                places[usize::from(buffer.slot())].away = true;
                sent.push_back((buffer.slot(), length, cookie, true));
                shared.push(buffer.share(&mut forth, cookie).unwrap());
            }
            Step::Unshare(index) => {
                let Some(buffer) = remove(&mut shared, index) else { continue };
                let is_away = places[usize::from(buffer.slot())].away;
                match buffer.unshare() {
                    Ok(buffer) => {
                        prop_assert!(!is_away);
                        owned.push(buffer);
                    }
                    Err(buffer) => {
                        prop_assert!(is_away);
                        shared.push(buffer);
                    }
                }
            }
            Step::DropOwned(index) => {
                let Some(buffer) = remove(&mut owned, index) else { continue };
                places[usize::from(buffer.slot())].here = false;
            }
            Step::DropShared(index) => {
                let Some(buffer) = remove(&mut shared, index) else { continue };
                places[usize::from(buffer.slot())].here = false;
            }
            Step::Receive => {
                let Some(message) = forth.messages.pop_front() else { continue };
                let delivery = sink.accept(&mut back, &message).unwrap();
                let (slot, length, cookie, is_shared) = sent.pop_front().unwrap();
                prop_assert_eq!(delivery.cookie, cookie);
                match delivery.buffer {
                    Given::Moved(buffer) => {
                        prop_assert_eq!((buffer.slot(), buffer.len(), false), (slot, length, is_shared));
                        if length >= 8 {
                            prop_assert_eq!(buffer.view().word(0), Some(cookie), "others have written");
                        }
                        received.push(buffer);
                    }
                    Given::Shared(buffer) => {
                        prop_assert_eq!((buffer.slot(), buffer.len(), true), (slot, length, is_shared));
                        viewed.push(buffer);
                    }
                }
            }
            Step::DropReceived(index) => dropped += usize::from(remove(&mut received, index).is_some()),
            Step::DropViewed(index) => dropped += usize::from(remove(&mut viewed, index).is_some()),
            Step::GiveBack => {
                prop_assert_eq!(sink.pending(), dropped);
                let before = back.messages.len();
                sink.give_back(&mut back).unwrap();
                prop_assert_eq!(back.messages.len() - before, dropped.div_ceil(7));
                dropped = 0;
            }
            Step::TakeBack => {
                let Some(message) = back.messages.pop_front() else { continue };
                for word in message.words() {
                    places[usize::from(Ticket::decode(*word).slot)].away = false;
                }
                prop_assert_eq!(source.accept_return(&mut forth, &message), Ok(message.words().len()));
            }
        }
        let free = places.iter().filter(|place| **place == Place::default()).count();
        prop_assert_eq!(source.free(), free);
        prop_assert_eq!(source.lent(), places.iter().filter(|place| place.away).count());
    }
    prop_assert_eq!((forth.refused, back.refused), (None, None));

    // However it went, no slot is lost.
    drop((owned, shared, received, viewed));
    for message in std::mem::take(&mut forth.messages) {
        sink.accept(&mut back, &message).unwrap();
    }
    sink.give_back(&mut back).unwrap();
    for message in std::mem::take(&mut back.messages) {
        source.accept_return(&mut forth, &message).unwrap();
    }
    prop_assert_eq!((source.free(), source.lent(), sink.pending()), (SLOTS, 0, 0));
    Ok(())
}

/// What a hostile peer says: mostly small numbers, so that it is often right.
fn tickets() -> impl Strategy<Value = Ticket> {
    let pool = prop_oneof![30 => Just(POOL), 1 => any::<u16>().prop_map(PoolId)];
    let slot = prop_oneof![30 => 0..SLOTS as u16, 1 => any::<u16>()];
    let generation = prop_oneof![30 => 0..6u32, 1 => any::<u32>()];
    (pool, slot, generation).prop_map(|(pool, slot, generation)| Ticket { pool, slot, generation })
}

fn descriptors() -> impl Strategy<Value = Descriptor> {
    let offset = prop_oneof![30 => (0..=SLOT as u32 / 8).prop_map(|word| 8 * word), 1 => any::<u32>()];
    let length = prop_oneof![30 => 0..64u32, 1 => 0..1u32 << 31];
    (tickets(), offset, length, any::<bool>(), any::<u64>()).prop_map(
        |(ticket, offset, length, is_shared, cookie)| Descriptor {
            ticket,
            offset,
            length,
            is_shared,
            cookie,
        },
    )
}

/// A hostile source against a sink; `None` stands for the sink giving back what it has.
fn hostile_source(steps: Vec<Option<Descriptor>>) -> Result<(), TestCaseError> {
    let memory = memory(SLOTS, SLOT);
    let mut table = table(SLOTS);
    let sink = Sink::new(POOL, region(&memory), &mut table, KINDS).unwrap();
    let mut wire = Wire::default();
    let mut held = BTreeMap::new();
    let mut generations = [0; SLOTS];
    for step in steps {
        let Some(descriptor) = step else {
            held.clear();
            sink.give_back(&mut wire).unwrap();
            prop_assert_eq!(sink.pending(), 0);
            continue;
        };
        let Descriptor { ticket: Ticket { pool, slot, generation }, offset, length, .. } = descriptor;
        let last = generations.get_mut(usize::from(slot));
        let expected = match last {
            _ if pool != POOL => Err(Violation::Pool { pool, expected: POOL }),
            None => Err(Violation::Slot { slot, slots: SLOTS as u16 }),
            Some(_) if held.contains_key(&slot) => Err(Violation::NotTheirs { slot }),
            Some(last) if generation != *last + 1 => {
                Err(Violation::Generation { slot, expected: *last + 1, found: generation })
            }
            Some(_) if !offset.is_multiple_of(8) => Err(Violation::Misaligned { offset }),
            Some(_) if u64::from(offset) + u64::from(length) > SLOT as u64 => {
                Err(Violation::Range { offset, length, slot_bytes: SLOT })
            }
            Some(last) => {
                *last += 1;
                Ok(())
            }
        };
        let message = Message::new(KINDS.hand_over(), descriptor.encode());
        match sink.accept(&mut wire, &message) {
            Ok(delivery) => {
                prop_assert_eq!(expected, Ok(()));
                prop_assert_eq!(delivery.cookie, descriptor.cookie);
                let is_shared = matches!(delivery.buffer, Given::Shared(_));
                prop_assert_eq!(is_shared, descriptor.is_shared);
                held.insert(slot, delivery.buffer);
            }
            Err(violation) => {
                prop_assert_eq!(expected, Err(violation));
                prop_assert_eq!(wire.refused, Some(KINDS.hand_over()));
                break;
            }
        }
    }
    Ok(())
}

/// A hostile sink against a source; `None` stands for the source handing over a slot.
fn hostile_sink(steps: Vec<Option<Vec<Ticket>>>) -> Result<(), TestCaseError> {
    let memory = memory(SLOTS, SLOT);
    let mut table = table(SLOTS);
    let source = Source::new(POOL, region(&memory), &mut table, KINDS).unwrap();
    let mut wire = Wire::default();
    let mut lent = BTreeMap::new();
    for step in steps {
        let Some(tickets) = step else {
            if let Some(buffer) = source.take() {
                prop_assert!(!lent.contains_key(&buffer.slot()));
                buffer.hand_over(&mut wire, 0).unwrap();
                let ticket = Ticket::decode(wire.messages.pop_front().unwrap().words()[0]);
                lent.insert(ticket.slot, ticket.generation);
            } else {
                prop_assert_eq!(lent.len(), SLOTS);
            }
            continue;
        };
        let mut expected = if tickets.is_empty() { Err(Violation::Length { bytes: 0 }) } else { Ok(0) };
        for Ticket { pool, slot, generation } in tickets.iter().copied() {
            expected = expected.and_then(|count| match lent.get(&slot) {
                _ if pool != POOL => Err(Violation::Pool { pool, expected: POOL }),
                _ if usize::from(slot) >= SLOTS => Err(Violation::Slot { slot, slots: SLOTS as u16 }),
                None => Err(Violation::NotLent { slot }),
                Some(last) if *last != generation => {
                    Err(Violation::Generation { slot, expected: *last, found: generation })
                }
                Some(_) => {
                    lent.remove(&slot);
                    Ok(count + 1)
                }
            });
        }
        let words: Vec<_> = tickets.into_iter().map(Ticket::encode).collect();
        let message = Message::from_words(KINDS.give_back(), &words).unwrap();
        prop_assert_eq!(source.accept_return(&mut wire, &message), expected);
        prop_assert_eq!((source.free(), source.lent()), (SLOTS - lent.len(), lent.len()));
        if expected.is_err() {
            prop_assert_eq!(wire.refused, Some(KINDS.give_back()));
            break;
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn honest_ends(steps in steps()) {
        honest(steps)?;
    }

    #[test]
    fn a_hostile_source(steps in prop::collection::vec(prop::option::weighted(0.8, descriptors()), 0..60)) {
        hostile_source(steps)?;
    }

    #[test]
    fn a_hostile_sink(
        steps in prop::collection::vec(
            prop::option::weighted(0.4, prop::collection::vec(tickets(), 0..=7)),
            0..60,
        ),
    ) {
        hostile_sink(steps)?;
    }

    /// Encoding and decoding agree on every bit.
    #[test]
    fn descriptors_are_reversible(words in any::<[u64; 3]>()) {
        prop_assert_eq!(Descriptor::decode(words).encode(), words);
        prop_assert_eq!(Ticket::decode(words[0]).encode(), words[0]);
    }
}
