//! BootInfo as bytes.

use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::range;
use crate::{BootInfo, NotBootInfo, PageSize, PhysAddr, Protocol, RegionKind};

/// Bytes where a frame could begin.
#[repr(align(8))]
struct Aligned([u8; size_of::<BootInfo>() + 8]);

fn aligned(bytes: &[u8]) -> Aligned {
    let mut aligned = Aligned([0; size_of::<BootInfo>() + 8]);
    aligned.0[..bytes.len()].copy_from_slice(bytes);
    aligned
}

fn filled() -> BootInfo {
    let mut info = BootInfo::EMPTY;
    info.clear(Protocol::Limine, 1 << 63);
    info.memory_map_mut().add(range(0x10_0000, 1 << 30), RegionKind::Usable).expect("fits");
    b"seed=1".iter().for_each(|&byte| info.push_command_line(byte).expect("fits"));
    info.finish(range(0x20_0000, 0x1000), range(0x40_0000, 0x800)).expect("valid");
    info
}

#[test]
fn bytes_are_read_back() {
    let bytes = aligned(filled().as_bytes());
    let info = BootInfo::from_bytes(&bytes.0).expect("filled");
    assert_eq!(info.as_bytes(), filled().as_bytes());
    assert_eq!(info.protocol(), Protocol::Limine);
    assert_eq!(info.command_line().as_bytes(), b"seed=1");
    assert_eq!(info.memory_map().kind_at(PhysAddr::new(0x40_0000)), Some(RegionKind::KernelAndModules));
    // It fits into three pages, which is what the first domain is given.
    assert!(size_of::<BootInfo>() <= 3 * 4096);
}

#[test]
fn other_bytes_are_refused() {
    let bytes = aligned(filled().as_bytes());
    assert!(matches!(BootInfo::from_bytes(&bytes.0[1..]), Err(NotBootInfo)));
    assert!(matches!(BootInfo::from_bytes(&bytes.0[..size_of::<BootInfo>() - 1]), Err(NotBootInfo)));
    assert!(matches!(BootInfo::from_bytes(&[]), Err(NotBootInfo)));
    let empty = aligned(BootInfo::EMPTY.as_bytes());
    let error = BootInfo::from_bytes(&empty.0).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not the boot information of this version: build the CPU driver and the domains together"
    );
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(
        damage in proptest::collection::vec(
            (prop_oneof![0usize..80, 2000usize..2300, 0usize..8500], any::<u8>()), 1..20,
        ),
    ) {
        let mut bytes = aligned(filled().as_bytes());
        for (at, byte) in damage {
            bytes.0[at % size_of::<BootInfo>()] = byte;
        }
        if let Ok(info) = BootInfo::from_bytes(&bytes.0) {
            let _ = info.rsdp();
            let map = info.memory_map();
            prop_assert!(map.regions().len() <= crate::MAX_REGIONS);
            prop_assert!(info.command_line().as_bytes().len() <= crate::MAX_COMMAND_LINE);
            let _ = info.command_line().settings().count();
            let _ = map.usable_runs(PageSize::Size2M, &[info.archive(), info.kernel()]).collect::<Vec<_>>();
            let _ = (map.to_string(), map.total(RegionKind::Bad), map.end_of_ram(), map.kind_at(PhysAddr::new(0x20_0000)));
        }
    }
}
