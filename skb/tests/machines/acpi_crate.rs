//! Why the SRAT and the SLIT are not read by the `acpi` crate. Should a newer version fail this, it can have them.

use acpi::sdt::slit::Slit;
use acpi::sdt::srat::{LocalApicAffinity, LocalApicX2Affinity, MemoryAffinity};

use crate::build::*;

#[test]
fn its_entries_of_the_srat_are_a_byte_too_long() {
    assert_eq!(size_of::<LocalApicAffinity>(), apic_affinity(0, 0, ENABLED).len() + 1);
    assert_eq!(size_of::<MemoryAffinity>(), memory_affinity(0, 0, GIB, ENABLED).len() + 1);
    assert_eq!(size_of::<LocalApicX2Affinity>(), x2apic_affinity(0, 0, ENABLED).len() + 1);
}

#[test]
fn its_slit_has_no_distances_between_two_nodes() {
    let table = slit(2, &[10, 21, 21, 10]);
    assert!(table.len() >= size_of::<Slit>());
    // SAFETY: the bytes hold the fixed part, which is packed and has no invalid values, and the matrix after it; they
    // do not move and outlive the reference.
    let slit = unsafe { std::pin::Pin::new_unchecked(&*table.as_ptr().cast::<Slit>()) };
    assert!(slit.matrix_raw().is_empty());
}
