//! The memory map against a naive model: the kind of every page.

use std::collections::BTreeMap;
use std::format;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::range;
use crate::{
    MAX_REGIONS, MemoryMap, PAGE_SIZE, PHYSICAL_LIMIT, PageSize, PhysAddr, PhysRange, Region, RegionKind,
    TooManyRegions,
};

const KINDS: [RegionKind; 8] = [
    RegionKind::Bad,
    RegionKind::Reserved,
    RegionKind::AcpiNvs,
    RegionKind::Framebuffer,
    RegionKind::KernelAndModules,
    RegionKind::AcpiReclaimable,
    RegionKind::BootloaderReclaimable,
    RegionKind::Usable,
];

/// What every reader of a map relies on.
#[track_caller]
pub(crate) fn assert_tidy(map: &MemoryMap) {
    let mut last: Option<Region> = None;
    for &region in map.regions() {
        assert!(!region.range.is_empty());
        assert!(region.range.end().as_u64() <= PHYSICAL_LIMIT);
        assert_eq!(region.range.base().as_u64() % PAGE_SIZE, 0);
        assert_eq!(region.range.end().as_u64() % PAGE_SIZE, 0);
        if let Some(last) = last {
            assert!(last.range.end() <= region.range.base(), "sorted and disjoint: {map:?}");
            assert!(last.range.end() < region.range.base() || last.kind != region.kind, "merged: {map:?}");
        }
        last = Some(region);
    }
}

fn map_of(entries: &[(PhysRange, RegionKind)]) -> Result<MemoryMap, TooManyRegions> {
    let mut map = MemoryMap::EMPTY;
    for &(range, kind) in entries {
        map.add(range, kind)?;
    }
    Ok(map)
}

fn pages(range: PhysRange) -> impl Iterator<Item = u64> {
    (range.base().as_u64() / PAGE_SIZE)..(range.end().as_u64() / PAGE_SIZE)
}

/// The kind of every page, by its number.
fn model_of(entries: &[(PhysRange, RegionKind)]) -> BTreeMap<u64, RegionKind> {
    let mut model = BTreeMap::new();
    for &(range, kind) in entries {
        let size = PageSize::Size4K;
        let range = if kind == RegionKind::Usable { range.inward(size) } else { range.outward(size) };
        for page in pages(range) {
            let held = model.entry(page).or_insert(kind);
            *held = kind.min(*held);
        }
    }
    model
}

fn model_of_map(map: &MemoryMap) -> BTreeMap<u64, RegionKind> {
    let of_region = |region: &Region| pages(region.range).map(|page| (page, region.kind)).collect::<Vec<_>>();
    map.regions().iter().flat_map(of_region).collect()
}

#[test]
fn an_empty_map_is_all_zeroes() {
    use zerocopy::IntoBytes;
    assert!(MemoryMap::EMPTY.as_bytes().iter().all(|&byte| byte == 0));
    assert!(crate::BootInfo::EMPTY.as_bytes().iter().all(|&byte| byte == 0));
    assert_eq!(MemoryMap::EMPTY.regions(), []);
    assert_eq!(MemoryMap::EMPTY.end_of_ram(), PhysAddr::new(0));
}

#[test]
fn the_most_restrictive_kind_holds_in_whatever_order() {
    for (index, strict) in KINDS.iter().enumerate() {
        for loose in &KINDS[index + 1..] {
            let outer = (range(0x1000, 0x3000), *loose);
            let inner = (range(0x2000, 0x1000), *strict);
            for entries in [[outer, inner], [inner, outer]] {
                let map = map_of(&entries).expect("fits");
                assert_tidy(&map);
                assert_eq!(map.regions().len(), 3);
                assert_eq!(map.kind_at(PhysAddr::new(0x1fff)), Some(*loose));
                assert_eq!(map.kind_at(PhysAddr::new(0x2000)), Some(*strict));
                assert_eq!(map.kind_at(PhysAddr::new(0x2fff)), Some(*strict));
                assert_eq!(map.kind_at(PhysAddr::new(0x3000)), Some(*loose));
                assert_eq!(map.kind_at(PhysAddr::new(0xfff)), None);
                assert_eq!(map.kind_at(PhysAddr::new(0x4000)), None);
            }
        }
    }
}

#[test]
fn pages_are_shared_to_the_disadvantage_of_free_memory() {
    let map = map_of(&[
        (range(0x1001, 0x2fff), RegionKind::Usable),
        (range(0x3800, 0x10), RegionKind::Reserved),
        (range(0x5001, 0xffe), RegionKind::Usable),
        (range(0x7000, 0), RegionKind::Reserved),
    ])
    .expect("fits");
    let expected =
        [(range(0x2000, 0x1000), RegionKind::Usable), (range(0x3000, 0x1000), RegionKind::Reserved)];
    assert_eq!(map.regions(), expected.map(|(range, kind)| Region { range, kind }));
}

#[test]
fn addresses_that_cannot_be_are_dropped() {
    let map = map_of(&[
        (range(PHYSICAL_LIMIT - 0x1000, u64::MAX), RegionKind::Usable),
        (range(PHYSICAL_LIMIT, 0x1000), RegionKind::Usable),
        (range(u64::MAX, u64::MAX), RegionKind::Reserved),
        (range(u64::MAX - 10, 5), RegionKind::Bad),
    ])
    .expect("fits");
    let last = Region { range: range(PHYSICAL_LIMIT - 0x1000, 0x1000), kind: RegionKind::Usable };
    assert_eq!(map.regions(), [last]);
}

#[test]
fn a_full_map_says_so() {
    let mut map = MemoryMap::EMPTY;
    for index in 0..MAX_REGIONS as u64 {
        map.add(range(index * 0x2000, 0x1000), RegionKind::Usable).expect("fits");
    }
    assert_eq!(map.regions().len(), MAX_REGIONS);
    let before = map.regions().to_vec();
    for at in [MAX_REGIONS as u64 * 0x2000, 0x1000] {
        let kind = RegionKind::Reserved;
        assert_eq!(map.add(range(at, 0x1000), kind), Err(TooManyRegions));
        assert_eq!(map.regions(), before);
    }
    // What is there already needs no room.
    map.add(range(0x2000, 0x1000), RegionKind::Usable).expect("fits");
    map.add(range(0x2000, 0x1000), RegionKind::Reserved).expect("fits");
    assert_tidy(&map);
}

#[test]
fn the_boot_loaders_memory_is_reclaimed() {
    let mut map = map_of(&[
        (range(0x1000, 0x1000), RegionKind::Usable),
        (range(0x2000, 0x1000), RegionKind::BootloaderReclaimable),
        (range(0x3000, 0x1000), RegionKind::Usable),
        (range(0x4000, 0x1000), RegionKind::AcpiReclaimable),
    ])
    .expect("fits");
    assert_eq!(map.total(RegionKind::BootloaderReclaimable), 0x1000);
    map.reclaim_bootloader();
    assert_tidy(&map);
    assert_eq!(map.regions().len(), 2);
    assert_eq!(map.total(RegionKind::Usable), 0x3000);
    assert_eq!(map.total(RegionKind::BootloaderReclaimable), 0);
    assert_eq!(map.end_of_ram(), PhysAddr::new(0x5000));
    assert_eq!(
        map.to_string(),
        "0x0000000000001000-0x0000000000003fff           12 KiB  usable\n\
         0x0000000000004000-0x0000000000004fff            4 KiB  ACPI tables\n"
    );
    assert!(format!("{map:?}").contains("AcpiReclaimable"));
}

#[test]
fn runs_avoid_what_is_reserved() {
    const M: u64 = 1 << 20;
    let map = map_of(&[(range(M, 31 * M), RegionKind::Usable), (range(33 * M, 2 * M), RegionKind::Usable)])
        .expect("fits");
    let runs = |reserved: &[PhysRange]| map.usable_runs(PageSize::Size2M, reserved).collect::<Vec<_>>();
    // The second region has no aligned granule inside.
    assert_eq!(runs(&[]), [range(2 * M, 30 * M)]);
    let reserved = [range(20 * M, 1), range(8 * M, 2 * M), range(9 * M, 4 * M), range(6 * M, 0)];
    assert_eq!(runs(&reserved), [range(2 * M, 6 * M), range(14 * M, 6 * M), range(22 * M, 10 * M)]);
    assert_eq!(runs(&[range(0, 40 * M)]), []);
    assert_eq!(runs(&[range(3 * M, u64::MAX)]), []);
    assert_eq!(runs(&[range(0, 3 * M)]), [range(4 * M, 28 * M)]);
    let chunks: Vec<_> = map.usable_chunks(PageSize::Size2M, &reserved).collect();
    assert_eq!(chunks.len(), 3 + 3 + 5);
    assert_eq!(
        chunks[..4],
        [range(2 * M, 2 * M), range(4 * M, 2 * M), range(6 * M, 2 * M), range(14 * M, 2 * M)]
    );
    assert_eq!(map.usable_chunks(PageSize::Size1G, &[]).count(), 0);
}

#[test]
fn ranges_do_not_wrap() {
    let top = range(u64::MAX - 0x10, u64::MAX);
    assert_eq!(top.end(), PhysAddr::new(u64::MAX));
    assert!(top.contains(PhysAddr::new(u64::MAX - 1)) && !top.contains(PhysAddr::new(u64::MAX)));
    assert!(top.inward(PageSize::Size4K).is_empty());
    assert!(range(0x1fff, 0).outward(PageSize::Size4K).is_empty());
    assert!(range(u64::MAX, 1).is_empty());
    assert!(PhysRange::between(PhysAddr::new(2), PhysAddr::new(1)).is_empty());
    assert_eq!(range(0x1fff, 2).outward(PageSize::Size4K), range(0x1000, 0x2000));
    assert_eq!(range(0x1fff, 0x1001).inward(PageSize::Size4K), range(0x2000, 0x1000));
    assert_eq!(range(0x1000, 0x1000).to_string(), "0x1000..0x2000");
}

fn any_entries() -> impl Strategy<Value = Vec<(PhysRange, RegionKind)>> {
    let address = prop_oneof![(0u64..0x80).prop_map(|page| page * PAGE_SIZE), 0u64..0x8_0000];
    let length = prop_oneof![(0u64..0x20).prop_map(|page| page * PAGE_SIZE), 0u64..0x2_0000];
    let kind = prop_oneof![2 => Just(RegionKind::Usable), 3 => proptest::sample::select(KINDS.to_vec())];
    proptest::collection::vec(((address, length).prop_map(|(base, length)| range(base, length)), kind), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_map_is_the_model(entries in any_entries().prop_shuffle()) {
        let map = map_of(&entries).expect("fits");
        assert_tidy(&map);
        prop_assert_eq!(model_of_map(&map), model_of(&entries));
        for kind in KINDS {
            let pages = model_of(&entries).values().filter(|&&held| held == kind).count() as u64;
            prop_assert_eq!(map.total(kind), pages * PAGE_SIZE);
        }
    }

    #[test]
    fn nothing_reserved_becomes_usable(entries in any_entries()) {
        let map = map_of(&entries).expect("fits");
        for region in map.regions().iter().filter(|region| region.kind == RegionKind::Usable) {
            for (range, kind) in &entries {
                prop_assert!(*kind == RegionKind::Usable || !range.overlaps(region.range));
            }
            for page in pages(region.range) {
                let page = range(page * PAGE_SIZE, PAGE_SIZE);
                let given = |&&(range, kind): &&(PhysRange, RegionKind)| {
                    kind == RegionKind::Usable && range.intersection(page) == page
                };
                prop_assert!(entries.iter().any(|entry| given(&entry)));
            }
        }
    }

    #[test]
    fn any_numbers_leave_the_map_tidy(
        entries in proptest::collection::vec((any::<u64>(), any::<u64>(), 0u32..64, 0usize..8), 0..40),
    ) {
        let mut map = MemoryMap::EMPTY;
        for (base, length, shift, kind) in entries {
            map.add(range(base >> shift, length >> (63 - shift)), KINDS[kind]).expect("fits");
            assert_tidy(&map);
        }
    }

    #[test]
    fn runs_are_the_free_granules(
        entries in any_entries(),
        reserved in proptest::collection::vec((0u64..0x8_0000, 0u64..0x8000), 0..6),
    ) {
        // Scaled up, so that granules of 2 MiB have room.
        const SCALE: u64 = 0x100;
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(at, kind)| (range(at.base().as_u64() * SCALE, at.length() * SCALE), kind))
            .collect();
        let reserved: Vec<_> =
            reserved.into_iter().map(|(base, length)| range(base * SCALE, length * SCALE)).collect();
        let map = map_of(&entries).expect("fits");
        let granule = PageSize::Size2M.bytes();
        let is_free = |chunk: PhysRange| {
            map.regions().iter().any(|region| {
                region.kind == RegionKind::Usable && region.range.intersection(chunk) == chunk
            }) && !reserved.iter().any(|reserved| reserved.overlaps(chunk))
        };
        let expected: Vec<_> =
            (0..0x100).map(|index| range(index * granule, granule)).filter(|&chunk| is_free(chunk)).collect();
        let chunks: Vec<_> = map.usable_chunks(PageSize::Size2M, &reserved).collect();
        prop_assert_eq!(&chunks, &expected);
        let mut joined: Vec<PhysRange> = vec![];
        let mut last_end = None;
        for run in map.usable_runs(PageSize::Size2M, &reserved) {
            // As long as possible: another run does not begin where the last one ended.
            prop_assert!(Some(run.base()) != last_end);
            last_end = Some(run.end());
            joined.extend(
                (0..run.length() / granule).map(|index| range(run.base().as_u64() + index * granule, granule)),
            );
        }
        prop_assert_eq!(joined, expected);
    }
}
