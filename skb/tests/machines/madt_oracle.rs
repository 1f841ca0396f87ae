//! On well-formed tables, the MADT reads as its description says, field by field.

use proptest::prelude::*;
use skb::{ApicId, Complaints, CoreState, Facts, Processor, tables::Tables};

use crate::build::*;

/// The processors by the offsets of the *ACPI Specification* 6.5, sections 5.2.12.2 and 5.2.12.12.
fn by_offsets(entries: &[Vec<u8>]) -> Vec<Processor> {
    let word = |entry: &[u8], at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
    let listed = entries.iter().filter_map(|entry| match entry[0] {
        0 => Some((u32::from(entry[3]), word(entry, 4))),
        9 => Some((word(entry, 4), word(entry, 8))),
        _ => None,
    });
    listed
        .filter_map(|(apic, flags)| {
            let state = match flags {
                flags if flags & 1 != 0 => CoreState::Enabled,
                flags if flags & 2 != 0 => CoreState::HotPluggable,
                _ => return None,
            };
            Some(Processor { apic: ApicId(apic), state })
        })
        .collect()
}

fn any_entry() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0u8..255, any::<u32>()).prop_map(|(apic, flags)| local_apic(apic, flags)),
        (0..u32::MAX, any::<u32>()).prop_map(|(apic, flags)| local_x2apic(apic, flags)),
        // An IO APIC, an interrupt source override, an NMI, one of a vendor.
        any::<[u8; 10]>().prop_map(|rest| [&[1, 12], &rest[..]].concat()),
        any::<[u8; 8]>().prop_map(|rest| [&[2, 10], &rest[..]].concat()),
        any::<[u8; 4]>().prop_map(|rest| [&[4, 6], &rest[..]].concat()),
        (0x80u8..=0xff, any::<[u8; 5]>()).prop_map(|(kind, rest)| [&[kind, 7], &rest[..]].concat()),
    ]
}

proptest! {
    #[test]
    fn a_well_formed_madt_reads_the_same(entries in proptest::collection::vec(any_entry(), 0..40)) {
        let mut complaints = Complaints::default();
        let tables = Tables { madt: Some(madt(&entries)), ..Tables::default() };
        let facts = Facts::from_tables(&tables, &mut complaints);
        prop_assert!(complaints.is_empty());
        prop_assert_eq!(facts.processors, by_offsets(&entries));
    }
}
