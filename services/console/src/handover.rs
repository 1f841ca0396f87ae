//! Where the console finds what `init` gives it.

use core::sync::atomic::AtomicU64;

use lmp::CPtr;
use lmp::cptr::{L2_SLOTS, domain_l1};

/// Task slots of the console.
pub mod slot {
    use lmp::CPtr;

    /// The ports of COM1.
    pub const TEXT_PORT: CPtr = CPtr::new(0, 32);
    /// The ports of COM2.
    pub const RECORD_PORT: CPtr = CPtr::new(0, 33);
    /// The port that ends QEMU.
    pub const EXIT_PORT: CPtr = CPtr::new(0, 34);
    /// The interrupt vector of the console's doorbell.
    pub const IRQ: CPtr = CPtr::new(0, 35);
    /// The frame with the [`Control`](super::Control).
    pub const CONTROL: CPtr = CPtr::new(0, 36);
}

/// First I/O port of COM1.
pub const COM1: u16 = 0x3f8;
/// First I/O port of COM2.
pub const COM2: u16 = 0x2f8;
/// I/O ports of a serial controller.
pub const COM_PORTS: u64 = 8;
/// I/O ports of `isa-debug-exit`.
pub const EXIT_PORTS: u64 = 4;

/// Cores whose share frames there is room for among the console's gifts.
pub const MAX_CORES: usize = ((domain_l1::FIRST_FREE - domain_l1::GIFTS) * L2_SLOTS) as usize;

/// The slot with the share frame of the `index`th core; the first word of the start information counts them.
pub const fn share(index: u32) -> CPtr {
    CPtr::new(domain_l1::GIFTS + index / L2_SLOTS, index % L2_SLOTS)
}

/// What `init` tells the console while it runs.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Control {
    /// Not 0: print all that was written, then end the machine with this word.
    pub exit: AtomicU64,
    /// 1 once the console has mapped all share frames: they can be handed over then.
    pub ready: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_lie_in_the_cnodes_for_gifts() {
        assert_eq!(share(0), CPtr::new(1, 0));
        assert_eq!(share(256), CPtr::new(2, 0));
        assert!(share(MAX_CORES as u32 - 1).l1() < domain_l1::FIRST_FREE);
    }
}
