//! Made-up machines, good and bad: their tables are built byte by byte and read through a made-up physical memory.

mod acpi_crate;
mod build;
mod cpuid;
mod hmat;
mod hostile;
mod madt_oracle;
mod place;
mod qemu;
mod search;
mod tables;
mod topology;
mod wire;
