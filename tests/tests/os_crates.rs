//! The unit tests of the crates that only the OS links. Their binaries are for the guest, so these crates are no
//! default members of the workspace, and `cargo test` runs their tests from here, by a cargo of their own.

use std::process::{Command, Stdio};

/// Those that have tests.
const CRATES: [&str; 7] =
    ["boot-freestanding", "console", "init", "mem", "monitor", "runtime", "skb-service"];

#[test]
fn the_crates_of_the_os_pass_their_own_tests() {
    let output = Command::new(env!("CARGO"))
        .current_dir(killifish::images::workspace().unwrap())
        .args(["test", "--lib"])
        .args(CRATES.iter().flat_map(|name| ["-p", name]))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    // As many crates as were asked for had tests to run.
    let suites =
        text.lines().filter(|line| line.starts_with("test result: ok. ") && !line.contains(" 0 passed"));
    assert_eq!(suites.count(), CRATES.len(), "{text}\n{errors}");
}
