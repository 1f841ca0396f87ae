//! Links the CPU driver freestanding.

fn main() {
    boot_link::cpudriver();
}
