//! Finding the tables, and entries that are damaged.

use boot_info::PhysAddr;
use skb::tables::{MAX_TABLE, MAX_TABLES, Table};
use skb::{Complaint, MAX_CORES};

use crate::build::*;

#[track_caller]
fn says(pieces: &Pieces, complaints: &[Complaint], message: &str) -> skb::Discovery {
    let found = pieces.discover(0);
    assert_eq!(found.complaints.as_slice(), complaints);
    assert_eq!(found.complaints.to_string(), message);
    found
}

const NO_MADT: &str = "there is no MADT: only the boot core is known\n";
const NO_SRAT: &str = "there is no SRAT: all cores and memory are on one node\n";

fn missing() -> [Complaint; 2] {
    [Complaint::Missing(Table::Madt), Complaint::Missing(Table::Srat)]
}

/// The ordinary machine, its tables listed by an RSDT.
fn by_rsdt(rsdp: Vec<u8>) -> Pieces {
    let mut pieces = memory(&ordinary());
    let list: Vec<u8> =
        (0..3u32).flat_map(|index| (TABLES as u32 + index * SPACING as u32).to_le_bytes()).collect();
    pieces.0[0].1 = rsdp;
    pieces.0.push((RSDT, table(b"RSDT", 1, &list)));
    pieces
}

#[test]
fn the_rsdt_is_used_where_there_is_no_xsdt() {
    let expected = memory(&ordinary()).discover(0).topology;
    for rsdp in [rsdp(0, RSDT as u32, XSDT), rsdp(2, RSDT as u32, 0)] {
        assert_eq!(says(&by_rsdt(rsdp), &[], "").topology, expected);
    }
    // One that cannot be used.
    let mut pieces = by_rsdt(rsdp(2, RSDT as u32, XSDT));
    pieces.0[1].1[40] ^= 1;
    let at = PhysAddr::new(XSDT);
    let found = says(
        &pieces,
        &[Complaint::BadChecksum { table: Table::Xsdt, at }],
        "the XSDT at 0x7ffe000 has a wrong checksum: it is left out\n",
    );
    assert_eq!(found.topology, expected);
    // A root pointer of which only the first part is sound.
    let mut pieces = by_rsdt(rsdp(2, RSDT as u32, XSDT));
    pieces.0[0].1[35] ^= 1;
    let at = PhysAddr::new(RSDP);
    let found = says(
        &pieces,
        &[Complaint::BadChecksum { table: Table::Rsdp, at }],
        "the ACPI root pointer at 0xf5a80 has a wrong checksum: it is left out\n",
    );
    assert_eq!(found.topology, expected);
}

#[test]
fn a_bad_root_pointer_is_left_out() {
    let at = PhysAddr::new(RSDP);
    let [madt, srat] = missing();
    let table = Table::Rsdp;
    let mut pieces = memory(&ordinary());
    pieces.0[0].1[3] = b'_';
    let bad = Complaint::BadSignature { table, at };
    let message = "what lies at 0xf5a80 is no ACPI root pointer: it is left out\n";
    says(&pieces, &[bad, madt.clone(), srat.clone()], &[message, NO_MADT, NO_SRAT].concat());
    let mut pieces = memory(&ordinary());
    pieces.0[0].1[10] ^= 0x80;
    let bad = Complaint::BadChecksum { table, at };
    let message = "the ACPI root pointer at 0xf5a80 has a wrong checksum: it is left out\n";
    says(&pieces, &[bad, madt.clone(), srat.clone()], &[message, NO_MADT, NO_SRAT].concat());
    let mut pieces = memory(&ordinary());
    pieces.0.remove(0);
    let bad = Complaint::Unreadable { table: Some(table), at };
    let message = "the ACPI root pointer at 0xf5a80 cannot be read: it is left out\n";
    says(&pieces, &[bad.clone(), madt.clone(), srat.clone()], &[message, NO_MADT, NO_SRAT].concat());
    // A root pointer of revision 2 that is cut off after the first part.
    let mut pieces = memory(&ordinary());
    pieces.0[0].1.truncate(35);
    says(&pieces, &[bad, madt, srat], &[message, NO_MADT, NO_SRAT].concat());
}

#[test]
fn a_bad_root_table_is_left_out() {
    let at = PhysAddr::new(XSDT);
    let [madt, srat] = missing();
    let mut pieces = memory(&ordinary());
    pieces.0[1].1[0] = b'R';
    let bad = Complaint::BadSignature { table: Table::Xsdt, at };
    let message = "what lies at 0x7ffe000 is no XSDT: it is left out\n";
    says(&pieces, &[bad, madt.clone(), srat.clone()], &[message, NO_MADT, NO_SRAT].concat());
    // No root table at all.
    let mut pieces = memory(&ordinary());
    pieces.0[0].1 = rsdp(2, 0, 0);
    says(&pieces, &[madt, srat], &[NO_MADT, NO_SRAT].concat());
}

#[test]
fn a_table_with_a_bad_header_is_left_out() {
    let at = PhysAddr::new(TABLES);
    for length in [0, 35, MAX_TABLE + 1, u32::MAX] {
        let mut pieces = memory(&ordinary());
        pieces.0[2].1[4..8].copy_from_slice(&length.to_le_bytes());
        says(
            &pieces,
            &[Complaint::BadLength { table: Table::Madt, at, length }, Complaint::Missing(Table::Madt)],
            &format!(
                "the MADT at 0x10000000 cannot be {length} bytes long, the most is 1048576: it is left out\n{NO_MADT}"
            ),
        );
    }
    // Longer than what is mapped.
    let mut pieces = memory(&ordinary());
    pieces.0[2].1.pop();
    says(
        &pieces,
        &[Complaint::Unreadable { table: Some(Table::Madt), at }, Complaint::Missing(Table::Madt)],
        &format!("the MADT at 0x10000000 cannot be read: it is left out\n{NO_MADT}"),
    );
    let mut pieces = memory(&ordinary());
    pieces.0[3].1[50] ^= 4;
    let at = PhysAddr::new(TABLES + SPACING);
    says(
        &pieces,
        &[Complaint::BadChecksum { table: Table::Srat, at }, Complaint::Missing(Table::Srat)],
        &format!("the SRAT at 0x10200000 has a wrong checksum: it is left out\n{NO_SRAT}"),
    );
}

#[test]
fn a_table_that_is_not_mapped_is_left_out() {
    let mut pieces = memory(&ordinary());
    pieces.0.remove(4);
    let at = PhysAddr::new(TABLES + 2 * SPACING);
    says(
        &pieces,
        &[Complaint::Unreadable { table: None, at }, Complaint::Missing(Table::Slit)],
        "an ACPI table at 0x10400000 cannot be read: it is left out\n\
         there is no SLIT: nodes are at distance 20 from each other\n",
    );
}

#[test]
fn the_first_table_of_a_kind_counts() {
    let [madt, srat, slit] = ordinary();
    let found = says(
        &memory(&[srat, madt, table(b"FACP", 1, &[0; 80]), slit, build_small_madt()]),
        &[Complaint::RepeatedTable { table: Table::Madt, at: PhysAddr::new(TABLES + 4 * SPACING) }],
        "there is a second MADT at 0x10800000: it is left out\n",
    );
    assert_eq!(found.topology.cores().len(), 8);
}

fn build_small_madt() -> Vec<u8> {
    madt(&[local_apic(0, ENABLED)])
}

#[test]
fn only_so_many_tables_are_looked_at() {
    let mut pieces = memory(&[]);
    let at = TABLES;
    let mut list = vec![0u64; MAX_TABLES];
    list.push(at);
    let bytes: Vec<u8> = list.iter().flat_map(|address| address.to_le_bytes()).collect();
    pieces.0[1].1 = table(b"XSDT", 1, &bytes);
    pieces.0.push((at, build_small_madt()));
    let found = pieces.discover(0);
    assert_eq!(found.complaints.as_slice()[0], Complaint::TooManyTables { count: 257 });
    assert!(
        found.complaints.to_string().starts_with(
            "there are 257 ACPI tables: those after the first 256 are left out\nthere is no MADT"
        )
    );
    // Zeroes are no tables.
    list.remove(0);
    let bytes: Vec<u8> = list.iter().flat_map(|address| address.to_le_bytes()).collect();
    pieces.0[1].1 = table(b"XSDT", 1, &bytes);
    assert_eq!(pieces.discover(0).complaints.as_slice(), [Complaint::Missing(Table::Srat)]);
}

#[test]
fn entries_that_end_nowhere_end_the_table() {
    let [_, srat_table, slit] = ordinary();
    for (entry, length) in [
        (vec![0, 0, 1, 1, 1, 0, 0, 0], 0),
        (vec![0, 1, 1, 1, 1, 0, 0, 0], 1),
        (vec![0, 9, 1, 1, 1, 0, 0, 0], 9),
        (vec![0xff, 255], 255),
        (vec![9], 0),
    ] {
        let tables = [madt(&[local_apic(0, ENABLED), entry]), srat_table.clone(), slit.clone()];
        let found = says(
            &memory(&tables),
            &[Complaint::LostEntries { table: Table::Madt, offset: 52, length }],
            &format!(
                "the entry at offset 52 of the MADT claims {length} bytes: it and those after it are left out\n"
            ),
        );
        assert_eq!(found.topology.cores().len(), 1);
    }
    let tables = [build_small_madt(), srat(3, &[apic_affinity(0, 0, ENABLED), vec![1, 0]]), slit];
    let found = memory(&tables).discover(0);
    assert_eq!(
        found.complaints.to_string(),
        "the entry at offset 64 of the SRAT claims 0 bytes: it and those after it are left out\n\
         the SRAT lists no memory: all is put on node 0\n"
    );
}

#[test]
fn entries_too_short_for_their_type_are_left_out() {
    let [_, srat_table, slit] = ordinary();
    let mut short = local_x2apic(5, ENABLED);
    short[1] = 15;
    short.pop();
    let tables =
        [madt(&[short, vec![0, 2], local_apic(0, ENABLED), vec![42, 3, 0]]), srat_table, slit.clone()];
    let found = says(
        &memory(&tables),
        &[
            Complaint::ShortEntry { table: Table::Madt, offset: 44, kind: 9, length: 15 },
            Complaint::ShortEntry { table: Table::Madt, offset: 59, kind: 0, length: 2 },
        ],
        "the entry of type 9 at offset 44 of the MADT has only 15 bytes: it is left out\n\
         the entry of type 0 at offset 59 of the MADT has only 2 bytes: it is left out\n",
    );
    assert_eq!(found.topology.cores().len(), 1);
    let shorts = [vec![0, 2], vec![1, 2], vec![2, 2], vec![3, 2], memory_affinity(0, 0, GIB, ENABLED)];
    let found = memory(&[build_small_madt(), srat(3, &shorts), slit]).discover(0);
    let kinds: Vec<_> = found
        .complaints
        .as_slice()
        .iter()
        .map(|complaint| match complaint {
            &Complaint::ShortEntry { table: Table::Srat, kind, length: 2, .. } => kind,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(kinds, [0, 1, 2]);
}

#[test]
fn entries_of_a_later_version_may_be_longer() {
    let mut long = local_x2apic(5, ENABLED);
    long[1] = 20;
    long.extend([0xee; 4]);
    let found = memory(&[madt(&[local_apic(0, ENABLED), long])]).discover(0);
    assert_eq!(found.topology.cores().len(), 2);
    assert!(found.topology.cores().len() < MAX_CORES);
}

#[test]
fn tables_shorter_than_their_fixed_part_say_nothing() {
    let tables = [table(b"APIC", 1, &[0; 7]), table(b"SRAT", 1, &[0; 11]), table(b"SLIT", 1, &[])];
    let found = memory(&tables).discover(9);
    assert_eq!(found.topology, skb::Topology::flat(skb::ApicId(9)));
    assert_eq!(found.complaints.as_slice(), [Complaint::BadMatrix { localities: 0, length: 36 }]);
}
