//! The OS boots on one core and on many: every CPU driver and every monitor reports up, on the node that QEMU was
//! told.

use results::Accel;
use tests::{Boot, Cpu, LONG, Nodes, SHORT};

/// Boots a machine, all of whose cores must come up.
fn boot(boot: &Boot) {
    boot.run().assert_all_up(boot);
}

/// A machine that boots and ends.
fn machine(cores: u32, nodes: u32, memory_mib: u64) -> Boot {
    Boot {
        cores,
        nodes: Nodes::Even(nodes),
        memory_mib,
        accel: Accel::Icount,
        cpu: Cpu::Usual,
        words: "exit=1",
        limit: SHORT,
    }
}

#[test]
fn one_core() {
    boot(&machine(1, 1, 128));
}

#[test]
fn two_cores() {
    boot(&machine(2, 1, 128));
}

#[test]
fn two_cores_on_two_nodes() {
    boot(&machine(2, 2, 128));
}

#[test]
fn four_cores_on_two_nodes() {
    boot(&machine(4, 2, 256));
}

#[test]
fn eight_cores_on_a_node_each() {
    boot(&machine(8, 8, 512));
}

#[test]
fn sixteen_cores_on_four_nodes() {
    boot(&machine(16, 4, 512));
}

#[test]
fn sixty_four_cores_on_eight_nodes() {
    boot(&Boot { limit: LONG, ..machine(64, 8, 2048) });
}

/// A node without memory, whose cores get theirs from the nearest that has any, and unequal ones.
#[test]
fn uneven_nodes() {
    let lines = "\
        -object memory-backend-ram,id=large,size=192M\n\
        -object memory-backend-ram,id=small,size=64M\n\
        -numa node,nodeid=0,cpus=0,memdev=large\n\
        -numa node,nodeid=1,cpus=1-3\n\
        -numa node,nodeid=2,cpus=4,memdev=small\n\
        -numa dist,src=0,dst=1,val=30\n\
        -numa dist,src=0,dst=2,val=40\n\
        -numa dist,src=1,dst=2,val=20\n";
    let boot = Boot { nodes: Nodes::Lines(lines), ..machine(5, 1, 256) };
    let run = boot.run();
    run.assert_all_up(&boot);
    let nodes: Vec<&str> =
        run.console("node ").filter_map(|line| line.split_once("; memory")).map(|n| n.0).collect();
    assert_eq!(
        nodes,
        [
            "node 0: cores 0; distances 10 30 40",
            "node 1: cores 1-3; distances 30 10 20",
            "node 2: cores 4; distances 40 20 10",
        ]
    );
    assert!(run.console("node 1: ").any(|line| line.ends_with("; memory -")), "{:?}", run.0.console);
}

/// CPUs without anything that the OS can do without, and so with an APIC in memory.
#[test]
fn least_cpus() {
    let boot = Boot { cpu: Cpu::Least, ..machine(4, 2, 256) };
    let run = boot.run();
    run.assert_all_up(&boot);
    assert_eq!(
        run.0.console.iter().filter(|line| line.ends_with(" (xAPIC)")).count(),
        4,
        "{:?}",
        run.0.console
    );
}

/// Cores that start and run at the same time, not in turn.
#[test]
fn four_cores_in_parallel() {
    boot(&Boot { accel: Accel::Tcg, ..machine(4, 2, 256) });
}

/// More cores than the host has threads for.
#[test]
fn sixteen_cores_in_parallel() {
    boot(&Boot { accel: Accel::Tcg, limit: LONG, ..machine(16, 2, 512) });
}
