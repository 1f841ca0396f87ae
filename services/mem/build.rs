//! Links the binaries as domains.

fn main() {
    boot_link::domain()
}
