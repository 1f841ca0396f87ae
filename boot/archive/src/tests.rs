//! The reader against archives that are right, wrong in one way each, and random.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::crc::crc32;
use crate::writer::{AddError, Writer};
use crate::{Archive, ArchiveError, ENTRY_LEN, HEADER_LEN, MAX_MODULES, MAX_NAME, MODULE_ALIGN, NameError};

fn sample() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.add("init", vec![1; 5000]).unwrap();
    writer.add("cpudriver", vec![2; 4096]).unwrap();
    writer.add("empty", vec![]).unwrap();
    writer.finish()
}

/// The sample with `patch` at `at` of the file, and the table's checksum made to match again.
fn patched(at: usize, patch: &[u8]) -> Result<usize, ArchiveError> {
    let mut bytes = sample();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    if at >= HEADER_LEN {
        let sum = crc32(&bytes[HEADER_LEN..HEADER_LEN + 3 * ENTRY_LEN]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
    }
    Archive::parse(&bytes).map(|archive| archive.len())
}

/// Where a field of an entry lies in the file.
fn field(index: usize, offset: usize) -> usize {
    HEADER_LEN + index * ENTRY_LEN + offset
}

const OFFSET: usize = 40;
const LENGTH: usize = 48;
const CHECKSUM: usize = 56;
const RESERVED: usize = 60;

#[test]
fn what_was_written_is_read_back_in_order_of_names() {
    let bytes = sample();
    let archive = Archive::parse(&bytes).unwrap();
    let names: Vec<&str> = archive.modules().map(|m| m.name).collect();
    assert_eq!(names, ["cpudriver", "empty", "init"]);
    assert_eq!(archive.get("init").unwrap().bytes, [1; 5000]);
    assert_eq!(archive.get("cpudriver").unwrap().bytes, [2; 4096]);
    assert_eq!(archive.get("empty").unwrap().bytes, []);
    assert_eq!(archive.get("ini"), None);
    for module in archive.modules() {
        assert_eq!(module.offset % MODULE_ALIGN, 0);
        assert_eq!(&bytes[module.offset..module.offset + module.bytes.len()], module.bytes);
    }
}

#[test]
fn an_archive_without_modules_is_one() {
    let bytes = Writer::new().finish();
    let archive = Archive::parse(&bytes).unwrap();
    assert!(archive.is_empty());
    assert_eq!(archive.byte_len(), HEADER_LEN);
}

#[test]
fn bytes_after_the_archive_are_ignored() {
    let mut bytes = sample();
    let len = bytes.len();
    bytes.extend_from_slice(&[0xff; 100]);
    assert_eq!(Archive::parse(&bytes).unwrap().byte_len(), len);
}

#[test]
fn each_fault_of_the_header_has_its_error() {
    assert_eq!(Archive::parse(&[0; 31]).unwrap_err(), ArchiveError::NoHeader { len: 31 });
    assert_eq!(patched(0, b"x"), Err(ArchiveError::BadMagic));
    assert_eq!(patched(8, &[2]), Err(ArchiveError::BadVersion { version: 2 }));
    assert_eq!(patched(12, &257u32.to_le_bytes()), Err(ArchiveError::TooManyModules { count: 257 }));
    assert_eq!(patched(16, &HEADER_LEN.to_le_bytes()), Err(ArchiveError::NoTable { stated: 32 }));
    assert_eq!(patched(24, &[0; 4]), Err(ArchiveError::TableChecksum));
    assert_eq!(patched(28, &[1]), Err(ArchiveError::HeaderReserved));
    let bytes = sample();
    let cut = &bytes[..bytes.len() - 1];
    let expected = bytes.len() as u64;
    assert_eq!(Archive::parse(cut).unwrap_err(), ArchiveError::Truncated { expected, len: cut.len() });
    let huge = ArchiveError::Truncated { expected: u64::MAX, len: bytes.len() };
    assert_eq!(patched(16, &[0xff; 8]), Err(huge));
}

#[test]
fn each_fault_of_an_entry_has_its_error() {
    let name = |error| Err(ArchiveError::BadName { index: 1, error });
    assert_eq!(patched(field(1, 0), &[0; 5]), name(NameError::Empty));
    assert_eq!(patched(field(1, 0), b"Empty"), name(NameError::BadCharacter));
    assert_eq!(patched(field(1, 0), &[0xff]), name(NameError::BadCharacter));
    assert_eq!(patched(field(1, 0), &[b'e'; 40]), name(NameError::TooLong));
    assert_eq!(patched(field(1, 10), b"x"), Err(ArchiveError::NamePadding { index: 1 }));
    assert_eq!(patched(field(1, 0), b"cpudriver"), Err(ArchiveError::NameOrder { index: 1 }));
    assert_eq!(patched(field(1, 0), b"a"), Err(ArchiveError::NameOrder { index: 1 }));
    assert_eq!(patched(field(2, RESERVED), &[1]), Err(ArchiveError::EntryReserved { index: 2 }));
    assert_eq!(
        patched(field(1, OFFSET), &4097u64.to_le_bytes()),
        Err(ArchiveError::Unaligned { index: 1, offset: 4097 })
    );
    assert_eq!(patched(field(0, OFFSET), &[0; 8]), Err(ArchiveError::Overlap { index: 0 }));
    assert_eq!(patched(field(1, OFFSET), &4096u64.to_le_bytes()), Err(ArchiveError::Overlap { index: 1 }));
    assert_eq!(patched(field(0, LENGTH), &4097u64.to_le_bytes()), Err(ArchiveError::Overlap { index: 1 }));
    assert_eq!(
        patched(field(2, LENGTH), &5001u64.to_le_bytes()),
        Err(ArchiveError::OutOfBounds { index: 2 })
    );
    assert_eq!(patched(field(2, LENGTH), &[0xff; 8]), Err(ArchiveError::OutOfBounds { index: 2 }));
    assert_eq!(patched(field(2, CHECKSUM), &[0; 4]), Err(ArchiveError::ModuleChecksum { index: 2 }));
}

#[test]
fn a_wrong_content_is_found_by_parse_and_left_to_others_by_parse_table() {
    let mut bytes = sample();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(Archive::parse(&bytes).unwrap_err(), ArchiveError::ModuleChecksum { index: 2 });
    assert_eq!(Archive::parse_table(&bytes).unwrap().len(), 3);
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut writer = Writer::new();
    writer.add("a", vec![]).unwrap();
    let duplicate = AddError::Duplicate { name: "a".to_owned() };
    assert_eq!(writer.add("a", vec![]), Err(duplicate));
    for (name, error) in [
        (String::new(), NameError::Empty),
        ("x".repeat(MAX_NAME + 1), NameError::TooLong),
        ("no space".to_owned(), NameError::BadCharacter),
        ("é".to_owned(), NameError::BadCharacter),
    ] {
        assert_eq!(writer.add(&name, vec![]), Err(AddError::Name { name, error }));
    }
    for i in 1..MAX_MODULES {
        writer.add(&format!("m{i}"), vec![]).unwrap();
    }
    assert_eq!(writer.add("one-more", vec![]), Err(AddError::Full));
    assert_eq!(Archive::parse(&writer.finish()).unwrap().len(), MAX_MODULES);
}

#[test]
fn messages_name_what_is_wrong() {
    let error = ArchiveError::Truncated { expected: 100, len: 50 };
    assert_eq!(error.to_string(), "boot archive: 100 bytes long, but only 50 were given");
    let error = ArchiveError::BadName { index: 3, error: NameError::Empty };
    assert_eq!(error.to_string(), "boot archive: entry 3: the name of a module is empty");
    assert_eq!(ArchiveError::BadMagic.to_string(), "boot archive: does not begin with KLFARCH\\x00");
}

/// Every module lies in the archive, page-aligned, and none overlaps another.
fn assert_sound(bytes: &[u8], archive: &Archive<'_>) {
    let mut end = 0;
    for module in archive.modules() {
        assert!(module.offset >= end && module.offset % MODULE_ALIGN == 0);
        end = module.offset + module.bytes.len();
        assert!(end <= bytes.len());
        assert_eq!(archive.get(module.name), Some(module));
    }
}

proptest! {
    #[test]
    fn any_modules_survive_the_round_trip(
        modules in btree_map("[a-z0-9_.-]{1,39}", vec(any::<u8>(), 0..9000), 0..8)
    ) {
        let mut writer = Writer::new();
        for (name, bytes) in &modules {
            writer.add(name, bytes.clone()).unwrap();
        }
        let bytes = writer.finish();
        let archive = Archive::parse(&bytes).unwrap();
        let read: Vec<_> = archive.modules().map(|m| (m.name.to_owned(), m.bytes.to_vec())).collect();
        prop_assert_eq!(read, modules.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(archive) = Archive::parse(&bytes) {
            assert_sound(&bytes, &archive);
        }
    }

    /// The table's checksum is made to match, so that the checks behind it are reached.
    #[test]
    fn a_corrupted_table_never_panics(
        patches in vec((0..HEADER_LEN + 3 * ENTRY_LEN, any::<u8>()), 1..6)
    ) {
        let mut bytes = sample();
        for (at, value) in patches {
            bytes[at] = value;
        }
        let sum = crc32(&bytes[HEADER_LEN..HEADER_LEN + 3 * ENTRY_LEN]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
        if let Ok(archive) = Archive::parse_table(&bytes) {
            assert_sound(&bytes, &archive);
        }
    }

    /// One flipped bit is found, or lies in the padding between contents, where it changes no module.
    #[test]
    fn a_flipped_bit_is_found_or_harmless(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let original = sample();
        let mut bytes = original.clone();
        bytes[at.index(original.len())] ^= 1_u8 << bit;
        if let Ok(archive) = Archive::parse(&bytes) {
            prop_assert!(archive.modules().eq(Archive::parse(&original).unwrap().modules()));
        }
    }
}
