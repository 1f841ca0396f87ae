//! Searching for the root pointer where the boot protocol gave none.

use boot_info::PhysAddr;
use proptest::prelude::*;
use skb::{ApicId, Complaint, Discovery, Topology, discover};

use crate::build::*;

/// The beginning of the extended BIOS data area of these machines.
const EBDA: u64 = 0x9_fc00;
const BIOS: u64 = 0xe_0000;
const BIOS_SIZE: usize = 0x2_0000;

/// The ordinary machine with the root pointer and these other bytes in areas that have zeroes else.
fn machine(areas: &[(u64, usize)], bytes: &[(u64, Vec<u8>)]) -> Pieces {
    let mut pieces = memory(&ordinary());
    pieces.0.remove(0);
    for &(base, size) in areas {
        let mut area = vec![0; size];
        for (at, bytes) in bytes {
            if let Some(offset) = at.checked_sub(base).map(|offset| offset as usize)
                && let Some(place) = area.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()))
            {
                place.copy_from_slice(bytes);
            }
        }
        pieces.0.push((base, area));
    }
    pieces
}

fn search(pieces: &Pieces) -> Discovery {
    discover(None, pieces, no_cpuid, ApicId(0))
}

#[track_caller]
fn finds(pieces: &Pieces, at: u64) {
    let found = search(pieces);
    assert_eq!(found.topology, memory(&ordinary()).discover(0).topology);
    let complaint = Complaint::FoundRootPointer { at: PhysAddr::new(at) };
    assert_eq!(found.complaints.as_slice(), [complaint]);
    assert_eq!(
        found.complaints.to_string(),
        format!("the boot protocol gave no ACPI root pointer: the one found at {at:#x} is used\n")
    );
}

#[track_caller]
fn finds_none(pieces: &Pieces) {
    let found = search(pieces);
    assert_eq!(found.topology, Topology::flat(ApicId(0)));
    assert_eq!(found.complaints.as_slice(), [Complaint::NoRootPointer]);
}

fn sound() -> Vec<u8> {
    rsdp(2, 0, XSDT)
}

#[test]
fn it_is_found_in_the_bios_area() {
    for at in [BIOS, BIOS + 0x10, BIOS + 0xff0, BIOS + 0x1_2340, BIOS + 0x1_ffd0] {
        finds(&machine(&[(BIOS, BIOS_SIZE)], &[(at, sound())]), at);
    }
}

#[test]
fn it_is_found_in_the_extended_data_area_first() {
    let areas = [(0x400, 0x100), (EBDA, 0x400), (BIOS, BIOS_SIZE)];
    let segment = (0x40e, ((EBDA >> 4) as u16).to_le_bytes().to_vec());
    let other = (BIOS + 0x40, sound());
    for at in [EBDA, EBDA + 0x3d0] {
        finds(&machine(&areas, &[segment.clone(), other.clone(), (at, sound())]), at);
    }
    // None there, or no such area: the segment is outside the places for it, or memory there cannot be read.
    finds(&machine(&areas, &[segment.clone(), other.clone()]), BIOS + 0x40);
    finds(&machine(&areas, std::slice::from_ref(&other)), BIOS + 0x40);
    finds(&machine(&[areas[0], areas[2]], &[segment, other.clone()]), BIOS + 0x40);
    let wild = (0x40e, vec![0xff; 2]);
    finds(&machine(&areas, &[wild, other]), BIOS + 0x40);
}

#[test]
fn what_only_looks_like_one_is_passed_over() {
    let mut bad = sound();
    bad[9] ^= 1;
    let at = BIOS + 0x3000;
    let decoys =
        [(BIOS + 8, sound()), (BIOS + 0x100, bad), (BIOS + 0x200, b"RSD PTR ".to_vec()), (at, sound())];
    finds(&machine(&[(BIOS, BIOS_SIZE)], &decoys), at);
    finds_none(&machine(&[(BIOS, BIOS_SIZE)], &decoys[..3]));
    // A signature in the last place, with no room for the rest.
    finds_none(&machine(&[(BIOS, BIOS_SIZE)], &[(BIOS + 0x1_fff0, b"RSD PTR ".to_vec())]));
    // Outside the area.
    finds_none(&machine(&[(BIOS - 0x1000, 0x1000), (BIOS, BIOS_SIZE)], &[(BIOS - 0x100, sound())]));
}

#[test]
fn pages_that_cannot_be_read_are_passed_over() {
    let at = BIOS + 0x5020;
    finds(&machine(&[(BIOS + 0x5000, 0x1000)], &[(at, sound())]), at);
    finds_none(&machine(&[], &[]));
}

#[test]
fn one_that_was_given_is_not_searched_for() {
    let pieces = machine(&[(BIOS, BIOS_SIZE)], &[(BIOS, sound())]);
    let given = discover(Some(PhysAddr::new(BIOS + 0x40)), &pieces, no_cpuid, ApicId(0));
    assert!(given.complaints.to_string().starts_with("what lies at 0xe0040 is no ACPI root pointer"));
    assert_eq!(given.topology, Topology::flat(ApicId(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn crowds_of_signatures_are_survived(
        places in proptest::collection::vec((0u64..0x2000, any::<[u8; 12]>()), 0..600),
        good in proptest::option::of(0u64..0x1ff0),
    ) {
        let mut bytes: Vec<_> = places
            .into_iter()
            .map(|(place, rest)| (BIOS + place * 16, [&b"RSD PTR "[..], &rest].concat()))
            .collect();
        bytes.extend(good.map(|place| (BIOS + place * 16, sound())));
        let found = search(&machine(&[(BIOS, BIOS_SIZE)], &bytes));
        prop_assert!(!found.complaints.is_empty());
        prop_assert!(!found.topology.cores().is_empty());
    }
}
