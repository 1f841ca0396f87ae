//! The guest finds the machine that QEMU was told to make, however odd, and comes up on it.

use std::process::Output;

use killifish::qemu::Qemu;
use results::{Accel, HostExit};
use skb::hmat::CacheWrites;
use skb::{Access, CoreId, Distance, NodeId, Picoseconds, Topology};
use tests::command::command;
use tests::{Boot, Cpu, Found, Nodes, SHORT, places};

/// A machine with these lines of a file for `--numa`.
fn machine(cores: u32, memory_mib: u64, lines: &'static str) -> Boot {
    Boot {
        cores,
        nodes: Nodes::Lines(lines),
        memory_mib,
        accel: Accel::Icount,
        cpu: Cpu::Usual,
        words: "exit=1",
        limit: SHORT,
    }
}

/// Boots the machine; what it found, which is what QEMU was told.
fn found(cores: u32, memory_mib: u64, lines: &'static str) -> Found {
    let boot = machine(cores, memory_mib, lines);
    let run = boot.run();
    run.assert_all_up(&boot);
    run.assert_found(&boot)
}

fn cores_of(topology: &Topology, node: u32) -> Vec<u32> {
    topology.cores_of(NodeId(node)).map(|core| core.0).collect()
}

fn distances(topology: &Topology) -> Vec<Vec<u8>> {
    let ids: Vec<_> = topology.nodes().iter().map(|node| node.id).collect();
    let distance = |from, to| topology.distance(from, to).expect("both exist").0;
    ids.iter().map(|&from| ids.iter().map(|&to| distance(from, to)).collect()).collect()
}

#[test]
fn even_machines() {
    for (cores, nodes) in [(1, 1), (5, 1), (6, 3), (12, 4)] {
        let boot = Boot { nodes: Nodes::Even(nodes), ..machine(cores, 384, "") };
        let Found { topology, .. } = boot.run().assert_found(&boot);
        assert_eq!(
            (topology.enabled_cores().len(), topology.nodes().len()),
            (cores as usize, nodes as usize)
        );
        assert_eq!(topology.packages().len(), nodes as usize);
    }
}

#[test]
fn five_cores_on_three_nodes_at_asymmetric_distances() {
    let found = found(
        5,
        256,
        "-object memory-backend-ram,id=a,size=128M\n\
         -object memory-backend-ram,id=b,size=64M\n\
         -object memory-backend-ram,id=c,size=64M\n\
         -numa node,nodeid=0,cpus=0-1,memdev=a\n\
         -numa node,nodeid=1,cpus=2-3,memdev=b\n\
         -numa node,nodeid=2,cpus=4,memdev=c\n\
         -numa dist,src=0,dst=1,val=16\n-numa dist,src=1,dst=0,val=31\n\
         -numa dist,src=0,dst=2,val=40\n-numa dist,src=2,dst=0,val=17\n\
         -numa dist,src=1,dst=2,val=22\n-numa dist,src=2,dst=1,val=22\n",
    );
    let topology = &found.topology;
    assert_eq!(distances(topology), [[10, 16, 40], [31, 10, 22], [17, 22, 10]]);
    assert_eq!([0, 1, 2].map(|node| cores_of(topology, node)), [vec![0, 1], vec![2, 3], vec![4]]);
    assert_eq!(
        found.complaints,
        [
            "the SLIT says that it is 16 from domain 0 to 1, but 31 back: both are kept",
            "the SLIT says that it is 40 from domain 0 to 2, but 17 back: both are kept",
        ]
    );
}

#[test]
fn nodes_without_cores_and_nodes_without_memory() {
    let found = found(
        4,
        256,
        "-object memory-backend-ram,id=a,size=192M\n\
         -object memory-backend-ram,id=b,size=64M\n\
         -numa node,nodeid=0,memdev=b\n\
         -numa node,nodeid=1,cpus=1-3\n\
         -numa node,nodeid=2,cpus=0,memdev=a\n\
         -numa dist,src=0,dst=1,val=14\n\
         -numa dist,src=0,dst=2,val=30\n\
         -numa dist,src=1,dst=2,val=25\n",
    );
    let topology = &found.topology;
    assert_eq!([0, 1, 2].map(|node| cores_of(topology, node)), [vec![], vec![1, 2, 3], vec![0]]);
    assert!(topology.nodes()[1].memory.is_empty());
    assert_eq!(topology.memory_by_distance(NodeId(1)), [0, 2].map(NodeId));
    assert!(found.complaints.is_empty(), "{:?}", found.complaints);
}

/// Firmware does not tell of it, so the domains have a gap; and one that memory cannot be reached from.
#[test]
fn a_node_of_nothing_and_one_out_of_reach() {
    let found = found(
        2,
        256,
        "-object memory-backend-ram,id=a,size=128M\n\
         -object memory-backend-ram,id=b,size=64M\n\
         -object memory-backend-ram,id=c,size=64M\n\
         -numa node,nodeid=0,cpus=0,memdev=a\n\
         -numa node,nodeid=1\n\
         -numa node,nodeid=2,cpus=1,memdev=b\n\
         -numa node,nodeid=3,memdev=c\n\
         -numa dist,src=0,dst=1,val=20\n-numa dist,src=0,dst=2,val=20\n-numa dist,src=0,dst=3,val=255\n\
         -numa dist,src=1,dst=2,val=20\n-numa dist,src=1,dst=3,val=20\n-numa dist,src=2,dst=3,val=50\n",
    );
    let topology = &found.topology;
    let domains: Vec<_> = topology.nodes().iter().map(|node| node.domain.0).collect();
    assert_eq!(domains, [0, 2, 3]);
    assert_eq!(topology.distance(NodeId(0), NodeId(2)), Some(Distance::UNREACHABLE));
    assert_eq!(topology.memory_by_distance(NodeId(0)), [0, 1].map(NodeId));
    assert_eq!(topology.memory_by_distance(NodeId(1)), [1, 0, 2].map(NodeId));
}

#[test]
fn one_node_of_a_file_without_distances() {
    let found = found(3, 256, "-object memory-backend-ram,id=a,size=256M\n-numa node,memdev=a,cpus=0-2\n");
    assert_eq!(distances(&found.topology), [[10]]);
    assert_eq!(found.complaints, ["there is no SLIT: nodes are at distance 20 from each other"]);
}

/// Three sockets of three cores of two threads: the numbers of APICs have gaps. The nodes are not the sockets.
#[test]
fn sockets_cores_and_threads() {
    let found = found(
        18,
        384,
        "-smp sockets=3,cores=3,threads=2\n\
         -object memory-backend-ram,id=a,size=256M\n\
         -object memory-backend-ram,id=b,size=128M\n\
         -numa node,memdev=a\n-numa node,memdev=b\n\
         -numa cpu,node-id=0,socket-id=0\n-numa cpu,node-id=0,socket-id=1\n-numa cpu,node-id=1,socket-id=2\n\
         -numa dist,src=0,dst=1,val=21\n",
    );
    let topology = &found.topology;
    let apics: Vec<_> = topology.cores().iter().map(|core| core.apic.0).collect();
    assert_eq!(apics, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21]);
    assert_eq!(topology.packages(), [0, 1, 2]);
    let siblings = |core| topology.siblings(CoreId(core)).map(|core| core.0).collect::<Vec<_>>();
    assert_eq!([siblings(0), siblings(9), siblings(17)], [[0, 1], [8, 9], [16, 17]]);
    let first: Vec<_> = topology.caches().iter().filter(|cache| cache.level == 1).collect();
    assert!(!first.is_empty(), "QEMU tells of caches");
}

#[test]
fn latencies_bandwidths_and_caches_at_memory() {
    let found = found(
        4,
        320,
        "-smp sockets=2,cores=2,threads=1\n\
         -object memory-backend-ram,id=a,size=128M\n\
         -object memory-backend-ram,id=b,size=128M\n\
         -object memory-backend-ram,id=c,size=64M\n\
         -numa node,nodeid=0,memdev=a,cpus=0-1,initiator=0\n\
         -numa node,nodeid=1,memdev=b,cpus=2-3,initiator=1\n\
         -numa node,nodeid=2,memdev=c,initiator=1\n\
         -numa dist,src=0,dst=1,val=17\n-numa dist,src=0,dst=2,val=28\n-numa dist,src=1,dst=2,val=21\n\
         -numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=80\n\
         -numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=130\n\
         -numa hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=access-latency,latency=390\n\
         -numa hmat-lb,initiator=1,target=0,hierarchy=memory,data-type=access-latency,latency=140\n\
         -numa hmat-lb,initiator=1,target=1,hierarchy=memory,data-type=access-latency,latency=80\n\
         -numa hmat-lb,initiator=1,target=2,hierarchy=memory,data-type=access-latency,latency=250\n\
         -numa hmat-lb,initiator=1,target=2,hierarchy=memory,data-type=write-latency,latency=300\n\
         -numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=40960M\n\
         -numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=20480M\n\
         -numa hmat-lb,initiator=1,target=2,hierarchy=memory,data-type=read-bandwidth,bandwidth=10240M\n\
         -numa hmat-lb,initiator=0,target=0,hierarchy=first-level,data-type=access-latency,latency=9\n\
         -numa hmat-cache,node-id=2,size=16M,level=1,associativity=complex,policy=write-through,line=64\n",
    );
    let topology = &found.topology;
    let latency = |from, to, access| {
        topology.route(NodeId(from), NodeId(to)).and_then(|route| route.speed(access).latency)
    };
    let nanoseconds = |value: u64| Some(Picoseconds(value * 1000));
    assert_eq!(latency(0, 2, Access::Read), nanoseconds(390));
    assert_eq!(latency(1, 0, Access::Write), nanoseconds(140));
    assert_eq!(latency(1, 2, Access::Read), nanoseconds(250));
    assert_eq!(latency(1, 2, Access::Write), nanoseconds(300));
    assert_eq!(latency(2, 0, Access::Read), None);
    let bandwidth = |from, to| {
        topology.route(NodeId(from), NodeId(to)).map(|route| [route.read, route.write].map(|s| s.bandwidth))
    };
    assert_eq!(bandwidth(0, 1), Some([Some(20480); 2]));
    assert_eq!(bandwidth(1, 2), Some([Some(10240), None]));
    assert_eq!(topology.nodes()[2].initiator, Some(NodeId(1)));
    let [cache] = topology.nodes()[2].caches[..] else { panic!("{:?}", topology.nodes()[2]) };
    assert_eq!((cache.level, cache.size, cache.line, cache.writes), (1, 16 << 20, 64, CacheWrites::Through));
    assert!(found.complaints.is_empty(), "{:?}", found.complaints);
}

/// The machine that the documentation describes line by line.
#[test]
fn the_example_of_the_documentation() {
    let text = include_str!("../../doc/topology.md");
    let (_, rest) = text.split_once("```text\n").expect("an example");
    let (lines, _) = rest.split_once("```").expect("the end of the example");
    let Found { topology, complaints, .. } = found(8, 384, lines);
    assert_eq!((topology.cores().len(), topology.nodes().len(), topology.packages().len()), (8, 3, 2));
    assert!(topology.has_routes() && topology.nodes()[2].caches.len() == 1);
    assert_eq!(complaints, ["the SLIT says that it is 16 from domain 0 to 1, but 24 back: both are kept"]);
}

/// The host command with a QEMU of `fixtures`, in a standard lab of two cores.
fn topo(qemu: &str, exit: HostExit) -> (String, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = command("topo --cpus 2", directory.path());
    command.env("KILLIFISH_REAL_QEMU", Qemu::program());
    if !qemu.is_empty() {
        command.env("KILLIFISH_QEMU", format!("{}/fixtures/{qemu}", env!("CARGO_MANIFEST_DIR")));
    }
    let _place = places::one();
    let Output { status, stdout, stderr } = command.output().expect("the command runs");
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert_eq!(status.code(), Some(i32::from(exit.code())), "{stdout}\n{stderr}");
    (stdout, stderr)
}

#[test]
fn the_host_command_shows_what_was_found() {
    let (stdout, _) = topo("", HostExit::Success);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = stdout.lines().map(words).collect();
    for line in [
        "2 cores on 2 nodes in 2 packages",
        "0 0 511.625 MiB 0x0..0xa0000 0x100000..0x20000000",
        "1 1 512 MiB 0x20000000..0x40000000",
        "1 1 1 1 -",
        "0 10 20",
        "1 20 10",
        "QEMU was told the same: cores and their places, nodes, memory, distances.",
    ] {
        assert!(lines.iter().any(|found| found == line), "no {line:?} in:\n{stdout}");
    }
}

/// Where QEMU makes another machine than it was told, the command says in what, and fails.
#[test]
fn a_difference_is_an_error() {
    let (stdout, stderr) = topo("qemu-other-distance", HostExit::TopologyDiffers);
    assert!(stdout.contains("2 cores on 2 nodes"), "{stdout}");
    let message = "killifish: the guest found another machine than QEMU was told to make:\n  \
                   distance from node 0 to 1: QEMU was told 20, the guest found 33\n  \
                   distance from node 1 to 0: QEMU was told 20, the guest found 33\n";
    assert!(stderr.contains(message), "{stderr}");
}

/// A machine with tables that no firmware should have comes up all the same, and says what is wrong.
#[test]
fn damaged_tables_do_not_stop_the_system() {
    let (stdout, _) = topo("qemu-bad-tables", HostExit::Success);
    for complaint in [
        "there is a second SRAT at ",
        "there is a second SLIT at ",
        "the entry at offset 40 of the HMAT claims 1716864051 bytes: it and those after it are left out",
    ] {
        assert!(stdout.contains(complaint), "no {complaint:?} in:\n{stdout}");
    }
}
