//! The interrupt vectors that the system's own domains listen on, and doorbells made of them.
//!
//! Vectors that user space may bind start at `lmp::invocation::USER_VECTOR_FIRST`. A *doorbell* is the argument
//! of an inter-processor interrupt, `apic_id << 8 | vector`.

/// The console domain, on the first core: there is something to print.
pub const CONSOLE: u8 = 0x40;
/// A monitor: there is a message from another monitor.
pub const MONITOR: u8 = 0x41;
/// The monitor of the first core: a core that is being started runs its CPU driver.
pub const CORE_UP: u8 = 0x42;

/// The doorbell of `vector` on the core with that local APIC identifier.
pub const fn doorbell(apic_id: u32, vector: u8) -> u64 {
    (apic_id as u64) << 8 | vector as u64
}

/// The doorbell of another vector of the core that `doorbell` rings on.
pub const fn same_core(doorbell: u64, vector: u8) -> u64 {
    doorbell & !0xff | vector as u64
}

/// The local APIC identifier of the core that `doorbell` rings on.
pub const fn apic_of(doorbell: u64) -> u32 {
    (doorbell >> 8) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doorbell_names_core_and_vector() {
        assert_eq!(doorbell(0x101, CONSOLE), 0x1_0140);
        assert_eq!(apic_of(0x1_0140), 0x101);
        assert_eq!(same_core(doorbell(0x101, CONSOLE), MONITOR), 0x1_0141);
    }
}
