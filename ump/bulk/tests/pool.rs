//! Pools between two honest sides of one program: memory, buffers, descriptors, returns.

mod common;

use bulk::{
    Buf, Descriptor, Given, MAX_PIECES, MAX_RETURNS, PIECE_ALIGNMENT, PoolId, RangeError, Received, Region,
    RegionError, Sink, SlotSize, Source, TableTooSmall, Ticket, View, Viewed, Word,
};
use common::{KINDS, POOL, Wire, memory, region, table};
use ump::{Message, SendError};

const SLOT: usize = SlotSize::MIN.bytes();

fn moved<'p>(sink: &'p Sink<'_>, wire: &mut Wire) -> (Buf<'p, Received>, u64) {
    let message = wire.messages.pop_front().expect("a message is there");
    let delivery = sink.accept(wire, &message).unwrap();
    match delivery.buffer {
        Given::Moved(buffer) => (buffer, delivery.cookie),
        Given::Shared(buffer) => panic!("{buffer:?} is shared"),
    }
}

fn viewed<'p>(sink: &'p Sink<'_>, wire: &mut Wire) -> Buf<'p, Viewed> {
    let message = wire.messages.pop_front().expect("a message is there");
    match sink.accept(wire, &message).unwrap().buffer {
        Given::Shared(buffer) => buffer,
        Given::Moved(buffer) => panic!("{buffer:?} is not shared"),
    }
}

/// Lets the source take back everything that the sink has done with.
fn give_back(sink: &Sink<'_>, source: &Source<'_>, wire: &mut Wire) -> usize {
    sink.give_back(wire).unwrap();
    let mut slots = 0;
    while let Some(message) = wire.messages.pop_front() {
        slots += source.accept_return(wire, &message).unwrap();
    }
    slots
}

#[test]
fn slots_are_spread_over_the_pieces() {
    let memories: Vec<_> = (0..3).map(|_| memory(2, SLOT)).collect();
    let pieces: Vec<&[Word]> = memories.iter().map(|memory| &memory[..]).collect();
    let region = Region::of(&pieces, SlotSize::MIN).unwrap();
    assert_eq!((region.slots(), region.slot_size()), (6, SlotSize::MIN));
    let mut table = table(6);
    let source = Source::new(POOL, region, &mut table, KINDS).unwrap();
    let buffers: Vec<_> = std::iter::from_fn(|| source.take()).collect();
    assert_eq!((buffers.len(), source.free()), (6, 0));
    for (index, buffer) in buffers.iter().enumerate() {
        assert_eq!(usize::from(buffer.slot()), index);
        assert_eq!((buffer.capacity(), buffer.len()), (SLOT, SLOT));
        buffer.words().iter().for_each(|word| word.store(index as u64));
    }
    for (piece, memory) in memories.iter().enumerate() {
        let (first, second) = memory.split_at(SLOT / 8);
        assert!(first.iter().all(|word| word.load() == piece as u64));
        assert!(second.iter().all(|word| word.load() == piece as u64 + 3));
    }
}

#[test]
fn memory_that_is_no_region_is_refused() {
    let long = memory(2, SLOT);
    let short = memory(1, SLOT);
    let of = |pieces: &[&[Word]], slot| Region::of(pieces, slot).unwrap_err();
    let cases = [
        (of(&[], SlotSize::MIN), "a region has 1 to 16 pieces, not 0"),
        (of(&[&long[..]; MAX_PIECES + 1], SlotSize::MIN), "a region has 1 to 16 pieces, not 17"),
        (of(&[&long, &short], SlotSize::MIN), "piece 1 of a region is not as long as the first"),
        (of(&[&long[1..]], SlotSize::MIN), "a piece of 8184 bytes is not a number of slots of 4096 bytes"),
        (of(&[&[]], SlotSize::MIN), "a piece of 0 bytes is not a number of slots of 4096 bytes"),
        (
            of(&[&long, &short, &long[512..]], SlotSize::MIN),
            "piece 1 of a region is not as long as the first",
        ),
        (of(&[&long[..512], &long[256..768]], SlotSize::MIN), "piece 1 of a region overlaps an earlier one"),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(RegionError::Slots { slots: 65536 }.to_string(), "a pool has at most 65535 slots, not 65536");
    let large = memory(65_536, SLOT);
    assert_eq!(of(&[&large], SlotSize::MIN), RegionError::Slots { slots: 65_536 });
    assert_eq!(Region::of(&[&large], SlotSize::from_bytes(8192).unwrap()).unwrap().slots(), 32_768);
}

#[test]
fn slot_sizes_are_powers_of_two() {
    let sizes: Vec<_> = (0..=1 << 23).step_by(512).filter_map(SlotSize::from_bytes).collect();
    assert_eq!(sizes.len(), 11);
    assert_eq!((sizes[0], sizes[10]), (SlotSize::MIN, SlotSize::MAX));
    assert_eq!((SlotSize::MIN.bytes(), SlotSize::MAX.bytes()), (4 << 10, 4 << 20));
}

#[test]
fn regions_are_found_in_raw_memory() {
    #[repr(align(4096))]
    struct Frame([u8; 4 * SLOT]);
    let mut frame = Box::new(Frame([0; 4 * SLOT]));
    let base = frame.0.as_mut_ptr().cast_const();
    let region = |offsets: &[usize], bytes| {
        let addresses: Vec<_> = offsets.iter().map(|offset| base.wrapping_add(*offset)).collect();
        // SAFETY: all ranges lie in `frame`, which outlives the results and is accessed only through them.
        unsafe { Region::from_raw(&addresses, bytes, SlotSize::MIN) }
    };
    assert_eq!(region(&[0, 2 * SLOT], 2 * SLOT).unwrap().slots(), 4);
    let error = region(&[8], SLOT).unwrap_err();
    assert_eq!(error, RegionError::Misaligned { address: base.addr() + 8 });
    assert!(error.to_string().ends_with("does not begin at a multiple of 4096 bytes"));
    assert_eq!(PIECE_ALIGNMENT, 4096);
    assert_eq!(region(&[0, SLOT], 2 * SLOT).unwrap_err(), RegionError::Overlap { piece: 1 });
    assert_eq!(region(&[0; 17], SLOT).unwrap_err(), RegionError::Pieces { pieces: 17 });
    let length = RegionError::Length { bytes: usize::MAX, slot_bytes: SLOT };
    assert_eq!(region(&[0], usize::MAX).unwrap_err(), length);
    assert_eq!(region(&[0], 0).unwrap_err(), RegionError::Length { bytes: 0, slot_bytes: SLOT });
}

#[test]
fn a_table_has_an_entry_per_slot() {
    let memory = memory(4, SLOT);
    let mut table = table(3);
    let error = Source::new(POOL, region(&memory), &mut table, KINDS).unwrap_err();
    assert_eq!(error, TableTooSmall { entries: 3, slots: 4 });
    assert_eq!(error.to_string(), "a holder table of 3 entries is too small for a pool of 4 slots");
}

#[test]
fn data_is_handed_over_in_place_and_slots_come_back() {
    let memory = memory(4, SLOT);
    let (mut here, mut there) = (table(4), table(4));
    let source = Source::new(POOL, region(&memory), &mut here, KINDS).unwrap();
    let sink = Sink::new(POOL, region(&memory), &mut there, KINDS).unwrap();
    let mut wire = Wire::default();
    for round in 0..100 {
        let count = round % 5;
        for n in 0..count {
            let mut buffer = source.take().unwrap();
            let bytes = vec![(round ^ n) as u8; 13 * n + round];
            buffer.copy_from(&bytes).unwrap();
            assert_eq!(buffer.len(), bytes.len());
            buffer.hand_over(&mut wire, (1000 * round + n) as u64).unwrap();
        }
        assert_eq!((source.free(), source.lent()), (4 - count, count));
        let received: Vec<_> = (0..count).map(|_| moved(&sink, &mut wire)).collect();
        for (n, (buffer, cookie)) in received.iter().enumerate() {
            assert_eq!(*cookie, (1000 * round + n) as u64);
            let mut bytes = vec![0; buffer.len() + 3];
            assert_eq!(buffer.view().copy_to(&mut bytes), 13 * n + round);
            assert!(bytes[..buffer.len()].iter().all(|byte| *byte == (round ^ n) as u8));
            assert_eq!(bytes[buffer.len()..], [0; 3]);
        }
        assert_eq!(sink.pending(), 0);
        drop(received);
        assert_eq!(sink.pending(), count);
        assert_eq!(give_back(&sink, &source, &mut wire), count);
        assert_eq!((source.free(), source.lent(), sink.pending()), (4, 0, 0));
    }
    assert_eq!((source.violation(), sink.violation()), (None, None));
}

#[test]
fn slots_go_back_seven_at_a_time() {
    let memory = memory(17, SLOT);
    let (mut here, mut there) = (table(17), table(17));
    let source = Source::new(POOL, region(&memory), &mut here, KINDS).unwrap();
    let sink = Sink::new(POOL, region(&memory), &mut there, KINDS).unwrap();
    let mut wire = Wire::default();
    while let Some(buffer) = source.take() {
        buffer.hand_over(&mut wire, 0).unwrap();
    }
    for _ in 0..17 {
        moved(&sink, &mut wire);
    }
    wire.is_full = true;
    assert_eq!(sink.give_back(&mut wire), Err(SendError::Full));
    assert_eq!(sink.pending(), 17);
    wire.is_full = false;
    sink.give_back(&mut wire).unwrap();
    let words: Vec<_> = wire.messages.iter().map(|message| message.words().len()).collect();
    assert_eq!(words, [MAX_RETURNS, MAX_RETURNS, 3]);
    assert!(wire.messages.iter().all(|message| message.kind() == KINDS.give_back()));
    assert_eq!(give_back(&sink, &source, &mut wire), 17);
    assert_eq!(source.free(), 17);
}

#[test]
fn a_full_channel_returns_the_buffer() {
    let memory = memory(1, SLOT);
    let (mut here, mut there) = (table(1), table(1));
    let source = Source::new(POOL, region(&memory), &mut here, KINDS).unwrap();
    let sink = Sink::new(POOL, region(&memory), &mut there, KINDS).unwrap();
    let mut wire = Wire { is_full: true, ..Wire::default() };
    let mut buffer = source.take().unwrap();
    buffer.copy_from(b"twice").unwrap();
    let unsent = buffer.hand_over(&mut wire, 1).unwrap_err();
    assert_eq!(unsent.error, SendError::Full);
    let unsent = unsent.buffer.share(&mut wire, 2).unwrap_err();
    assert_eq!((source.free(), source.lent()), (0, 0));
    wire.is_full = false;
    // It counts as the first hand-over.
    unsent.buffer.hand_over(&mut wire, 3).unwrap();
    let (buffer, cookie) = moved(&sink, &mut wire);
    assert_eq!((buffer.len(), cookie), (5, 3));
}

#[test]
fn an_owned_slot_that_is_dropped_is_free() {
    let memory = memory(2, SLOT);
    let mut here = table(2);
    let source = Source::new(POOL, region(&memory), &mut here, KINDS).unwrap();
    let (first, second) = (source.take().unwrap(), source.take().unwrap());
    assert!(source.take().is_none());
    drop(first);
    assert_eq!(source.take().unwrap().slot(), 0);
    drop(second);
    assert_eq!(source.free(), 2);
    assert_eq!(source.take().unwrap().slot(), 1, "what was used last is warm");
}

#[test]
fn a_shared_slot_is_ours_again_when_the_peer_gives_it_back() {
    let memory = memory(1, SLOT);
    let (mut here, mut there) = (table(1), table(1));
    let source = Source::new(POOL, region(&memory), &mut here, KINDS).unwrap();
    let sink = Sink::new(POOL, region(&memory), &mut there, KINDS).unwrap();
    let mut wire = Wire::default();
    let share = |wire: &mut Wire| source.take().unwrap().share(wire, 0).unwrap();
    let read = |buffer: &Buf<'_, Viewed>| {
        let mut first = [0];
        buffer.copy_to(&mut first);
        let words = [const { Word::new(0) }; SLOT / 8 + 1];
        assert_eq!(buffer.copy_words_to(&words), SLOT / 8);
        assert_eq!(words[0].load(), first[0].into());
        first[0]
    };

    let shared = share(&mut wire);
    let theirs = viewed(&sink, &mut wire);
    shared.words()[0].store(1);
    assert_eq!(read(&theirs), 1);
    shared.words()[0].store(2);
    assert_eq!((read(&theirs), shared.view().word(0)), (2, Some(2)));
    let shared = shared.unshare().unwrap_err();
    drop(theirs);
    assert_eq!(give_back(&sink, &source, &mut wire), 1);
    assert_eq!((source.free(), source.lent()), (0, 0));
    let owned = shared.unshare().unwrap();
    // Dropped before it is back, a shared slot is not free before.
    let shared = owned.share(&mut wire, 0).unwrap();
    drop(shared);
    assert_eq!((source.free(), source.lent()), (0, 1));
    drop(viewed(&sink, &mut wire));
    give_back(&sink, &source, &mut wire);
    assert_eq!((source.free(), source.lent()), (1, 0));
    // Dropped after it is back, it is.
    let shared = share(&mut wire);
    drop(viewed(&sink, &mut wire));
    give_back(&sink, &source, &mut wire);
    assert_eq!(source.free(), 0);
    drop(shared);
    assert_eq!(source.free(), 1);
}

#[test]
fn both_sides_can_begin_anew() {
    let memory = memory(3, SLOT);
    let (mut here, mut there) = (table(3), table(3));
    let mut source = Source::new(POOL, region(&memory), &mut here, KINDS).unwrap();
    let mut sink = Sink::new(POOL, region(&memory), &mut there, KINDS).unwrap();
    for _ in 0..2 {
        let mut wire = Wire::default();
        for _ in 0..2 {
            source.take().unwrap().hand_over(&mut wire, 0).unwrap();
            std::mem::forget(moved(&sink, &mut wire));
        }
        let message = Message::new(KINDS.hand_over(), [0, 0, 0]);
        assert_eq!(sink.accept(&mut wire, &message).unwrap_err(), sink.violation().unwrap());
        assert_eq!((source.free(), source.lent()), (1, 2));
        source.restart();
        sink.restart();
        assert_eq!((source.free(), source.lent(), sink.violation()), (3, 0, None));
    }
}

#[test]
fn ranges_lie_in_the_slot_and_begin_at_words() {
    let memory = memory(2, SLOT);
    let (mut here, mut there) = (table(2), table(2));
    let source = Source::new(POOL, region(&memory), &mut here, KINDS).unwrap();
    let sink = Sink::new(POOL, region(&memory), &mut there, KINDS).unwrap();
    let mut wire = Wire::default();
    let mut buffer = source.take().unwrap();
    for (index, word) in buffer.words().iter().enumerate() {
        word.store(u64::from_le_bytes([index as u8; 8]));
    }
    for (offset, length) in
        [(0, SLOT + 1), (8, SLOT), (SLOT, 1), (4, 4), (usize::MAX - 7, 8), (8, usize::MAX)]
    {
        let error = RangeError { offset, length, slot_bytes: SLOT };
        assert_eq!(buffer.set_range(offset, length), Err(error));
        assert_eq!(buffer.len(), SLOT, "nothing has changed");
    }
    let error = buffer.copy_from(&[0; SLOT + 1]).unwrap_err();
    assert_eq!(error.to_string(), "4097 bytes at offset 0 do not fit a slot of 4096 bytes in whole words");
    buffer.set_range(SLOT, 0).unwrap();
    buffer.set_range(16, 11).unwrap();
    assert_eq!(buffer.view().byte_sum(), 8 * 2 + 3 * 3);
    buffer.hand_over(&mut wire, 0).unwrap();
    let (buffer, _) = moved(&sink, &mut wire);
    let view = buffer.view();
    assert_eq!((view.len(), view.is_empty(), view.byte_sum()), (11, false, 25));
    assert_eq!(view.words().collect::<Vec<_>>(), [0x0202_0202_0202_0202, 0x03_0303]);
    assert_eq!((view.word(1), view.word(2)), (Some(0x03_0303), None));
    let mut bytes = [9; 12];
    assert_eq!(view.copy_to(&mut bytes), 11);
    assert_eq!(bytes, [2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 9]);

    // No remains of other data behind those copied in.
    let mut buffer = source.take().unwrap();
    buffer.words().iter().for_each(|word| word.store(u64::MAX));
    buffer.copy_from(&[1; 9]).unwrap();
    assert_eq!(buffer.words()[1].load(), 1);
    buffer.copy_from(&[]).unwrap();
    assert!(buffer.view().is_empty());
}

#[test]
fn byte_sums_are_those_of_every_byte() {
    let words: Vec<_> = (0..1000u64).map(|n| Word::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let sum = |words: &[Word]| -> u64 {
        words.iter().flat_map(|word| word.load().to_le_bytes()).map(u64::from).sum()
    };
    for length in [0, 1, 127, 128, 129, 256, 1000] {
        assert_eq!(View::of(&words[..length]).byte_sum(), sum(&words[..length]));
    }
    let full: Vec<_> = (0..4096).map(|_| Word::new(u64::MAX)).collect();
    assert_eq!(View::of(&full).byte_sum(), 4096 * 8 * 255);
}

/// `doc/bulk.md` fixes these bits.
#[test]
fn descriptors_have_their_layout() {
    let ticket = Ticket { pool: PoolId(0x1234), slot: 0x5678, generation: 0x9abc_def0 };
    assert_eq!(ticket.encode(), 0x9abc_def0_5678_1234);
    let descriptor = Descriptor { ticket, offset: 0x10, length: 0x4000, is_shared: false, cookie: 7 };
    assert_eq!(descriptor.encode(), [ticket.encode(), 0x4000_0000_0010, 7]);
    let shared = Descriptor { is_shared: true, ..descriptor };
    assert_eq!(shared.encode()[1], 0x8000_4000_0000_0010);
    for descriptor in [descriptor, shared] {
        assert_eq!(Descriptor::decode(descriptor.encode()), descriptor);
    }
    assert_eq!((KINDS.hand_over().0, KINDS.give_back().0, KINDS.end().0), (5, 6, 7));
}
