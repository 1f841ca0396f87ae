//! Where a monitor finds what `init` gives it.

use lmp::CPtr;
use lmp::cptr::{L2_SLOTS, domain_l1};

/// Task slots of every monitor.
pub mod slot {
    use lmp::CPtr;

    /// Interrupt vectors of this core: those of the module `vector` of the runtime.
    pub const IRQ: CPtr = CPtr::new(0, 32);
    /// The right to ring other monitors.
    pub const IPI: CPtr = CPtr::new(0, 33);
    /// Further cores: the share frame of this core, for the channel to the first core's monitor.
    pub const SHARE: CPtr = CPtr::new(0, 34);
    /// First core: the right to start cores.
    pub const TRAMPOLINE: CPtr = CPtr::new(0, 35);
    /// First core: the frame with the [`Table`](super::Table), read-only.
    pub const TABLE: CPtr = CPtr::new(0, 36);
    /// First core: the frame with the [`Report`](super::Report).
    pub const REPORT: CPtr = CPtr::new(0, 37);
    /// First core: the notification to signal when the report is complete.
    pub const REPORT_NOTICE: CPtr = CPtr::new(0, 38);
    /// The kernel control block of this core, with all rights.
    pub const KCB: CPtr = CPtr::new(0, 39);
    /// The endpoint that this core's domains call, made by `init` and bound by the monitor. `init` keeps it, gives
    /// each domain a copy badged with its number ([`task::MONITOR`](lmp::cptr::task::MONITOR)), and sends its
    /// reports (`runtime::interface::spawn::Report`) to it with badge 0.
    pub const ENDPOINT: CPtr = CPtr::new(0, 40);
    /// The endpoint of this core's `init`, for orders (`runtime::interface::spawn::Order`).
    pub const INIT: CPtr = CPtr::new(0, 41);
    /// First core: the endpoint of the system knowledge base (`runtime::interface::skb`), with the grant right.
    /// It is bound before the monitor starts, so that every call is answered.
    pub const SKB: CPtr = CPtr::new(0, 42);
}

/// Capabilities per further core, in the CNodes of gifts of the first core's monitor.
const PER_CORE: u32 = 4;

/// The capabilities that a core is started with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum CoreGift {
    /// RAM for the instance of the CPU driver.
    Kernel = 0,
    /// The share frame.
    Share = 1,
    /// RAM for the core's user space.
    Ram = 2,
}

/// The most further cores there is room for.
pub const MAX_FURTHER_CORES: usize =
    ((domain_l1::FIRST_FREE - domain_l1::GIFTS) * L2_SLOTS / PER_CORE) as usize;

/// The slot of a capability of the `index`th further core, counted from 0.
pub const fn gift(index: u32, which: CoreGift) -> CPtr {
    let number = index * PER_CORE + which as u32;
    CPtr::new(domain_l1::GIFTS + number / L2_SLOTS, number % L2_SLOTS)
}

/// A core to be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct CoreEntry {
    /// Its dense index.
    pub core: u32,
    /// Its local APIC identifier.
    pub apic_id: u32,
    /// Its NUMA node, a dense index.
    pub node: u32,
    /// 0.
    pub reserved: u32,
}

/// The further cores of the machine.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Table {
    /// How many entries are filled.
    pub count: u64,
    /// The doorbell of the console, for the logs of the cores.
    pub console_doorbell: u64,
    /// The cores, in the order to start them.
    pub cores: [CoreEntry; MAX_FURTHER_CORES],
}

impl Table {
    /// The filled entries.
    pub fn entries(&self) -> &[CoreEntry] {
        self.cores.get(..self.count as usize).unwrap_or(&[])
    }
}

/// What came of starting the cores; each word is written once, by the monitor, before the notice.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Report {
    /// Cores whose monitor answered, the first one not counted.
    pub up: core::sync::atomic::AtomicU64,
    /// Cores that did not come up.
    pub failed: core::sync::atomic::AtomicU64,
    /// 1 when both numbers are final.
    pub done: core::sync::atomic::AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gifts_of_all_cores_are_distinct_and_within_the_cnodes_for_gifts() {
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..MAX_FURTHER_CORES as u32 {
            for which in [CoreGift::Kernel, CoreGift::Share, CoreGift::Ram] {
                let slot = gift(index, which);
                assert!((domain_l1::GIFTS..domain_l1::FIRST_FREE).contains(&slot.l1()), "{index} {which:?}");
                assert!(seen.insert(slot.0));
            }
        }
    }

    #[test]
    fn a_table_with_a_wild_count_is_empty() {
        let entry = CoreEntry { core: 1, apic_id: 1, node: 0, reserved: 0 };
        let mut table = Table { count: u64::MAX, console_doorbell: 0, cores: [entry; MAX_FURTHER_CORES] };
        assert!(table.entries().is_empty());
        table.count = 2;
        assert_eq!(table.entries().len(), 2);
    }
}
