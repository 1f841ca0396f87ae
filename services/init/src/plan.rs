//! How much memory each core gets.

use lmp::objects::HANDOVER_GRANULARITY;

/// The least RAM for a core's user space, in bytes: its `init` and its monitor.
pub const LEAST_RAM: u64 = 4 << 20;
/// RAM for a core's user space where there is enough, in bytes.
pub const USUAL_RAM: u64 = 8 << 20;
/// RAM that stays with the first core on its node, in bytes.
pub const FIRST_CORE_RAM: u64 = 48 << 20;

/// What a core takes beside its user space: the instance of its CPU driver and its share frame.
pub const FIXED: u64 = 2 * HANDOVER_GRANULARITY;

/// RAM for the user space of each of `cores` further cores that share `free` bytes of a node, of which
/// `reserved` stay with the first core; `None` if there is not even the least for all.
pub fn ram_per_core(free: u64, reserved: u64, cores: u64) -> Option<u64> {
    let share = free.saturating_sub(reserved) / cores.max(1);
    let ram = share.checked_sub(FIXED)?.min(USUAL_RAM) / HANDOVER_GRANULARITY * HANDOVER_GRANULARITY;
    (ram >= LEAST_RAM).then_some(ram)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn there_is_a_usual_and_a_least_amount() {
        assert_eq!(ram_per_core(1024 * MIB, FIRST_CORE_RAM, 7), Some(USUAL_RAM));
        assert_eq!(ram_per_core(40 * MIB, 0, 4), Some(6 * MIB));
        assert_eq!(ram_per_core(32 * MIB, 0, 4), Some(LEAST_RAM));
        assert_eq!(ram_per_core(31 * MIB, 0, 4), None);
        assert_eq!(ram_per_core(MIB, FIRST_CORE_RAM, 4), None);
        assert_eq!(ram_per_core(12 * MIB, 0, 0), Some(USUAL_RAM), "no cores is no division by zero");
    }
}
