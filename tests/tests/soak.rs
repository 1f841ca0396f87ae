//! The same again and again, and many cores: a few by default, as many as [`VARIABLE`] says when it is set.
//!
//! ```text
//! KILLIFISH_SOAK=50 cargo test -p tests --test soak -- --nocapture
//! ```
//!
//! boots eight vCPUs 50 times in a row and then 288 at once, which takes a QEMU that starts so many. Each vCPU has a
//! thread of its own, so no two boots are alike.

use results::Accel;
use tests::{Boot, Cpu, LONG, Nodes, SHORT};

/// The environment variable with the number of boots in a row.
const VARIABLE: &str = "KILLIFISH_SOAK";

/// The number of boots asked for; `None` by default.
fn asked() -> Option<u32> {
    let value = std::env::var(VARIABLE).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{VARIABLE}={value}: expected a number of boots")))
}

fn machine(cores: u32, nodes: u32, memory_mib: u64) -> Boot {
    Boot {
        cores,
        nodes: Nodes::Even(nodes),
        memory_mib,
        accel: Accel::Tcg,
        cpu: Cpu::Usual,
        words: "exit=1",
        limit: SHORT,
    }
}

fn boot(boot: &Boot) {
    let run = boot.run();
    run.assert_all_up(boot);
    println!("{} vCPUs were up and down in {:.1} s", boot.cores, run.0.wall.as_secs_f64());
}

#[test]
fn boots_in_a_row() {
    for _ in 0..asked().unwrap_or(3) {
        boot(&machine(8, 2, 512));
    }
}

#[test]
fn many_cores_in_parallel() {
    match asked() {
        Some(_) => boot(&Boot { limit: LONG, ..machine(288, 8, 9216) }),
        None => boot(&Boot { limit: LONG, ..machine(32, 4, 1024) }),
    }
}
