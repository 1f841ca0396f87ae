//! Where the knowledge base finds what `init` gives it.

use lmp::CPtr;
use lmp::cptr::{L2_SLOTS, domain_l1};

/// Task slots of the knowledge base.
pub mod slot {
    use lmp::CPtr;

    /// The frame with the topology in words (`skb::Topology::encode`), read-only.
    pub const TOPOLOGY: CPtr = CPtr::new(0, 32);
    /// The endpoint that queries come to, made by `init` and bound by the knowledge base.
    pub const ENDPOINT: CPtr = CPtr::new(0, 33);
    /// The notification to signal when queries are answered.
    pub const READY: CPtr = CPtr::new(0, 34);
}

/// Words of the start information.
pub mod word {
    /// How many RAM capabilities there are among the gifts.
    pub const RAM_CAPS: usize = 0;
    /// How many words of the topology's frame are filled.
    pub const TOPOLOGY_WORDS: usize = 1;
}

/// The task slot in which a test that asks the knowledge base itself finds a capability of its endpoint; all others go
/// through their monitors.
pub const TEST_ENDPOINT: CPtr = CPtr::new(0, 32);

/// RAM capabilities there is room for.
pub const MAX_RAM_CAPS: usize = {
    let gifts = ((domain_l1::FIRST_FREE - domain_l1::GIFTS) * L2_SLOTS) as usize;
    if gifts < crate::book::MAX_SOURCES { gifts } else { crate::book::MAX_SOURCES }
};

/// The slot of the `index`th RAM capability.
pub const fn ram(index: u32) -> CPtr {
    CPtr::new(domain_l1::GIFTS + index / L2_SLOTS, index % L2_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memory_lies_in_the_cnodes_for_gifts() {
        assert_eq!(ram(0), CPtr::new(domain_l1::GIFTS, 0));
        assert!(ram(MAX_RAM_CAPS as u32 - 1).l1() < domain_l1::FIRST_FREE);
    }
}
