//! Link arguments and linker scripts of the OS binaries, for build scripts.
//!
//! The binaries of the OS are ordinary binaries of the host target, linked without the C runtime: no start
//! files, no libraries, not position-independent, laid out by the scripts `cpudriver.ld` and `domain.ld` that
//! lie beside this crate. A package of OS binaries has this crate as a build-dependency and a `build.rs` of one
//! line: `fn main() { boot_link::domain() }`.
//!
//! The scripts hold for GNU ld (2.35 and later) and for LLD, whichever the toolchain picks.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// What every OS binary needs, whatever its script: arguments for the C compiler that drives the linker.
///
/// Page size 4 KiB instead of ld's default, so that a page-separated image does not grow to megabytes; no
/// RELRO, build id or GNU_STACK segment, because our loaders know `PT_LOAD` and `PT_NOTE` only.
pub const LINK_ARGS: [&str; 12] = [
    "-nostartfiles",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,--no-eh-frame-hdr",
    "-Wl,--no-dynamic-linker",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,common-page-size=4096",
    "-Wl,-z,noexecstack",
    "-Wl,-z,norelro",
    "-Wl,-z,noseparate-code",
];

/// Links this package's binaries as domains: static executables at 2 MiB, entered at `_start`.
///
/// Call it from `build.rs`.
pub fn domain() {
    print(&directives(&script("domain.ld")));
}

/// Links this package's binaries as a CPU driver: an image in the top 2 GiB that PVH enters at `pvh_entry` and
/// Limine at `limine_entry`; the symbols the layout defines are listed in `cpudriver.ld`.
///
/// Call it from `build.rs`.
pub fn cpudriver() {
    print(&directives(&script("cpudriver.ld")));
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The lines a build script prints for cargo to link with `script`.
fn directives(script: &Path) -> Vec<String> {
    let script = script.display();
    let mut lines: Vec<String> =
        LINK_ARGS.iter().map(|arg| format!("cargo::rustc-link-arg-bins={arg}")).collect();
    lines.push(format!("cargo::rustc-link-arg-bins=-Wl,-T,{script}"));
    lines.push(format!("cargo::rerun-if-changed={script}"));
    lines.push("cargo::rerun-if-changed=build.rs".to_owned());
    lines
}

fn print(lines: &[String]) {
    for line in lines {
        println!("{line}");
    }
}
