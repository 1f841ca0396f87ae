//! CPUID: where cores are among the processors, their caches, and each defect.

use skb::cpuid::{ApicFields, CacheKind, CoreCache, Registers};
use skb::{ApicId, Complaint, CoreId, Discovery, Position};

use crate::build::*;

/// A CPU by its leaves and subleaves; all others answer zeroes. The highest leaves follow.
fn cpu(leaves: &[((u32, u32), Registers)]) -> impl Fn(u32, u32) -> Registers {
    let leaves = leaves.to_vec();
    let highest = |extended: bool| {
        let of_kind =
            leaves.iter().map(|&((leaf, _), _)| leaf).filter(|&leaf| (leaf >= 0x8000_0000) == extended);
        of_kind.max().unwrap_or(0)
    };
    let (basic, extended) = (highest(false), highest(true));
    move |leaf, subleaf| match leaf {
        0 => [basic, 0, 0, 0],
        0x8000_0000 => [extended, 0, 0, 0],
        _ => leaves.iter().find(|(at, _)| *at == (leaf, subleaf)).map_or([0; 4], |&(_, answer)| answer),
    }
}

/// A level of leaf 0xb or 0x1f: bits below the next level, and its kind.
fn level(leaf: u32, subleaf: u32, bits: u32, kind: u32) -> ((u32, u32), Registers) {
    ((leaf, subleaf), [bits, 1, kind << 8 | subleaf, 0])
}

/// A cache: kind, level, cores that share it, line, partitions, ways, sets.
fn cache(
    leaf: u32,
    subleaf: u32,
    [kind, level, shared, line, partitions, ways, sets]: [u32; 7],
) -> ((u32, u32), Registers) {
    let eax = kind | level << 5 | (shared - 1) << 14;
    ((leaf, subleaf), [eax, (line - 1) | (partitions - 1) << 12 | (ways - 1) << 22, sets - 1, 0])
}

fn ordinary_with(leaves: &[((u32, u32), Registers)]) -> Discovery {
    memory(&ordinary()).discover_with(0, cpu(leaves))
}

fn positions(found: &Discovery) -> Vec<(u32, u32, u32)> {
    let position = |core: &skb::Core| found.topology.position(core.id).expect("it exists");
    found.topology.cores().iter().map(position).map(|p| (p.package, p.unit, p.thread)).collect()
}

fn siblings(found: &Discovery, core: u32) -> Vec<u32> {
    found.topology.siblings(CoreId(core)).map(|core| core.0).collect()
}

#[test]
fn packages_cores_and_threads_follow_from_the_apic() {
    let found = ordinary_with(&[level(0xb, 0, 1, 1), level(0xb, 1, 2, 2)]);
    assert!(found.complaints.is_empty(), "{}", found.complaints);
    let expected = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)];
    assert_eq!(positions(&found), expected);
    assert_eq!(found.topology.packages(), [0, 1]);
    assert_eq!(
        [siblings(&found, 0), siblings(&found, 7), siblings(&found, 8)],
        [vec![0, 1], vec![6, 7], vec![]]
    );
    assert_eq!(found.topology.position(CoreId(8)), None);
    assert_eq!(found.facts.cpuid.apic, Some(ApicId(0)));
    assert_eq!(found.topology.apic_fields(), ApicFields::new(1, 2).expect("that can be"));
}

#[test]
fn the_newer_leaf_goes_before_and_what_is_between_counts_as_core() {
    // Threads, cores, dies; the older leaf knows no dies.
    let found = ordinary_with(&[
        level(0xb, 0, 0, 1),
        level(0xb, 1, 1, 2),
        level(0x1f, 0, 0, 1),
        level(0x1f, 1, 1, 2),
        level(0x1f, 2, 2, 5),
    ]);
    assert_eq!(positions(&found)[7], (1, 3, 0));
    // One that is there but says nothing.
    let found = ordinary_with(&[level(0xb, 0, 0, 1), level(0xb, 1, 1, 2), ((0x1f, 0), [0; 4])]);
    assert_eq!(positions(&found)[7], (3, 1, 0));
}

#[test]
fn nothing_known_is_one_package_of_cores_without_threads() {
    let found = memory(&ordinary()).discover(0);
    assert_eq!(positions(&found)[7], (0, 7, 0));
    assert_eq!(siblings(&found, 7), [7]);
    assert_eq!(found.topology.apic_fields(), ApicFields::UNKNOWN);
    let all_bits = memory(&[madt(&[local_x2apic(u32::MAX - 1, ENABLED)])]).discover(u32::MAX - 1);
    let position = Position { package: 0, unit: u32::MAX - 1, thread: 0 };
    assert_eq!(all_bits.topology.position(CoreId(0)), Some(position));
}

#[test]
fn older_cpus_have_counts() {
    let threads = |logical: u32| ((1, 0), [0, logical << 16, 0, 1 << 28]);
    // 8 logical processors of 4 cores, then of 3 of which the numbers take 2 bits too.
    for cores in [4, 3] {
        let leaf_4 = ((4, 0), [1 | 1 << 5 | (cores - 1) << 26, 0, 0, 0]);
        let found = ordinary_with(&[threads(8), leaf_4]);
        assert_eq!(found.topology.apic_fields(), ApicFields::new(1, 3).expect("that can be"));
    }
    // AMD's way to say 4 cores.
    let found = ordinary_with(&[threads(4), ((0x8000_0008, 0), [0, 0, 3, 0])]);
    assert_eq!(found.topology.apic_fields(), ApicFields::new(0, 2).expect("that can be"));
    // More cores than logical processors, and no threads at all.
    let found = ordinary_with(&[threads(2), ((0x8000_0008, 0), [0, 0, 7, 0])]);
    assert_eq!(found.topology.apic_fields(), ApicFields::new(0, 1).expect("that can be"));
    let found = ordinary_with(&[((1, 0), [0; 4])]);
    assert_eq!(found.topology.apic_fields(), ApicFields::new(0, 0).expect("that can be"));
    assert_eq!(found.topology.packages(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn fields_fit_into_an_apic() {
    assert_eq!(ApicFields::new(3, 2), None);
    assert_eq!(ApicFields::new(0, 33), None);
    let all = ApicFields::new(32, 32).expect("that can be");
    assert_eq!((all.package(ApicId(7)), all.unit(ApicId(7)), all.thread(ApicId(7))), (0, 0, 7));
}

#[test]
fn caches_and_who_shares_them() {
    for leaf in [4, 0x8000_001d] {
        let found = ordinary_with(&[
            level(0xb, 0, 1, 1),
            level(0xb, 1, 2, 2),
            cache(leaf, 0, [1, 1, 2, 64, 1, 8, 64]),
            cache(leaf, 1, [2, 1, 2, 64, 1, 8, 64]),
            cache(leaf, 2, [3, 2, 2, 64, 1, 16, 1024]),
            cache(leaf, 3, [3, 3, 4, 64, 2, 16, 4096]),
        ]);
        assert!(found.complaints.is_empty(), "{}", found.complaints);
        let of = |level, kind, size, shared_bits| CoreCache { level, kind, size, line: 64, shared_bits };
        let expected = [
            of(1, CacheKind::Data, 32 << 10, 1),
            of(1, CacheKind::Instruction, 32 << 10, 1),
            of(2, CacheKind::Unified, 1 << 20, 1),
            of(3, CacheKind::Unified, 8 << 20, 2),
        ];
        assert_eq!(found.topology.caches(), expected);
        let sharers =
            |core, cache| found.topology.sharers(CoreId(core), cache).map(|core| core.0).collect::<Vec<_>>();
        assert_eq!(sharers(5, expected[0]), [4, 5]);
        assert_eq!(sharers(5, expected[3]), [4, 5, 6, 7]);
        assert_eq!(sharers(8, expected[3]), []);
    }
}

#[test]
fn older_caches_of_amd_have_no_sharers() {
    let found = ordinary_with(&[
        level(0xb, 0, 1, 1),
        level(0xb, 1, 2, 2),
        // 64 KiB with lines of 64 bytes; 512 KiB; 16 MiB in units of 512 KiB.
        ((0x8000_0005, 0), [0, 0, 64 << 24 | 2 << 16 | 0x140, 32 << 24 | 2 << 16 | 0x140]),
        ((0x8000_0006, 0), [0, 0, 512 << 16 | 0x8140, 32 << 18 | 0x9140]),
    ]);
    let of = |level, kind, size, shared_bits| CoreCache { level, kind, size, line: 64, shared_bits };
    assert_eq!(
        found.topology.caches(),
        [
            of(1, CacheKind::Data, 64 << 10, 1),
            of(1, CacheKind::Instruction, 32 << 10, 1),
            of(2, CacheKind::Unified, 512 << 10, 1),
            of(3, CacheKind::Unified, 16 << 20, 2),
        ]
    );
    // None at all.
    let found = ordinary_with(&[((0x8000_0006, 0), [0; 4])]);
    assert!(found.topology.caches().is_empty() && found.complaints.is_empty());
}

#[test]
fn levels_that_cannot_be_are_left_out() {
    for levels in [
        // Bits that shrink, kinds that come again or in disorder.
        [level(0xb, 0, 3, 1), level(0xb, 1, 2, 2)],
        [level(0xb, 0, 1, 1), level(0xb, 1, 2, 1)],
        [level(0xb, 0, 1, 2), level(0xb, 1, 2, 1)],
        // A core that has another APIC at each level.
        [level(0xb, 0, 1, 1), ((0xb, 1), [2, 1, 2 << 8, 1])],
    ] {
        let found = ordinary_with(&levels);
        assert_eq!(found.complaints.as_slice(), [Complaint::BadLevels { leaf: 0xb, level: 1 }]);
        assert_eq!(
            found.complaints.to_string(),
            "CPUID leaf 0xb says at level 1 what cannot be of APIC identifiers: it is left out\n"
        );
    }
    // The older leaf is used where the newer one is damaged.
    let found = ordinary_with(&[
        level(0xb, 0, 1, 1),
        level(0xb, 1, 2, 2),
        level(0x1f, 0, 3, 1),
        level(0x1f, 1, 2, 2),
    ]);
    assert_eq!(positions(&found)[7], (1, 1, 1));
}

#[test]
fn levels_without_end_end() {
    let levels: Vec<_> = (0..200).map(|subleaf| level(0xb, subleaf, 31.min(subleaf), 1 + subleaf)).collect();
    let found = ordinary_with(&levels);
    assert_eq!(found.topology.apic_fields().package_shift(), 15);
    let caches: Vec<_> = (0..200).map(|index| cache(4, index, [3, 1 + index % 7, 1, 64, 1, 1, 1])).collect();
    let found = ordinary_with(&caches);
    assert_eq!(found.topology.caches().len(), 7);
    assert_eq!(found.complaints.as_slice().len(), 9);
}

#[test]
fn caches_that_cannot_be_are_left_out() {
    let found = ordinary_with(&[
        cache(4, 0, [1, 0, 1, 64, 1, 8, 64]),
        ((4, 1), [3 | 2 << 5, u32::MAX, u32::MAX, 0]),
        // Of a kind that there is not.
        ((4, 2), [9 | 1 << 5, 0, 0, 0]),
        cache(4, 3, [1, 1, 1, 64, 1, 8, 64]),
        cache(4, 4, [1, 1, 1, 64, 1, 8, 128]),
    ]);
    assert_eq!(
        found.complaints.to_string(),
        "CPUID leaf 0x4 describes an impossible cache 0: it is left out\n\
         CPUID leaf 0x4 describes an impossible cache 1: it is left out\n\
         CPUID leaf 0x4 describes an impossible cache 4: it is left out\n"
    );
    assert_eq!(found.topology.caches().len(), 1);
}

#[test]
fn disagreement_with_the_tables_is_told() {
    let other = [((0xb, 0), [1, 2, 0x100, 5]), ((0xb, 1), [2, 4, 0x201, 5])];
    let found = ordinary_with(&other);
    assert_eq!(
        found.complaints.to_string(),
        "CPUID says that the boot core has APIC 5, but it was booted as 0: that counts\n"
    );
    // Threads of a core on two nodes: cores 3 and 4 with a core of 8 threads.
    let found = ordinary_with(&[level(0xb, 0, 3, 1), level(0xb, 1, 3, 2)]);
    assert_eq!(found.complaints.as_slice().len(), 4);
    assert_eq!(
        found.complaints.to_string().lines().next(),
        Some(
            "CPUID makes APIC 0 and 4 threads of one core, but the SRAT puts them on two nodes: both are kept"
        )
    );
    assert_eq!(found.topology.node_of(CoreId(4)), Some(skb::NodeId(1)));
}
