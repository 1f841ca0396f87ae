//! The tables that QEMU 10.0 makes, as SeaBIOS leaves them in memory.
//!
//! A fixture has the root pointer, the RSDT, the tables that matter, and the headers of the others, taken from the
//! memory of a machine by the monitor's `pmemsave`. The first one, without HMAT:
//!
//! ```text
//! qemu-system-x86_64 -M q35 -m 768M -smp 5 -cpu max
//!   -object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m2,size=512M
//!   -numa node,nodeid=0,cpus=0-2,memdev=m0 -numa node,nodeid=1,cpus=3-4 -numa node,nodeid=2,memdev=m2
//!   -numa dist,src=0,dst=1,val=15 -numa dist,src=0,dst=2,val=40 -numa dist,src=1,dst=2,val=22
//!   -numa dist,src=1,dst=0,val=16 -numa dist,src=2,dst=0,val=40 -numa dist,src=2,dst=1,val=22
//! ```
//!
//! And the second one, with threads and an HMAT:
//!
//! ```text
//! qemu-system-x86_64 -M q35,hmat=on -m 768M -smp 4,sockets=2,cores=1,threads=2 -cpu max
//!   -object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m1,size=256M
//!   -object memory-backend-ram,id=m2,size=256M
//!   -numa node,nodeid=0,memdev=m0,initiator=0 -numa node,nodeid=1,memdev=m1,initiator=1
//!   -numa node,nodeid=2,memdev=m2,initiator=0
//!   -numa cpu,node-id=0,socket-id=0 -numa cpu,node-id=1,socket-id=1
//!   -numa dist,src=0,dst=1,val=21 -numa dist,src=0,dst=2,val=17 -numa dist,src=1,dst=2,val=28
//!   -numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=5
//!   …,initiator=0,target=1,…,latency=10 …,initiator=0,target=2,…,latency=15
//!   …,initiator=1,target=0,…,latency=10 …,initiator=1,target=1,…,latency=5
//!   -numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=200M
//!   …,initiator=0,target=1,…,bandwidth=100M …,initiator=1,target=0,…,bandwidth=100M
//!   …,initiator=1,target=1,…,bandwidth=200M
//!   -numa hmat-cache,node-id=0,size=10K,level=1,associativity=direct,policy=write-back,line=8
//!   -numa hmat-cache,node-id=1,size=10K,level=1,associativity=direct,policy=write-back,line=8
//! ```
//!
//! Each piece is its address in 8 bytes, its length in 4, both little-endian, and its bytes.

use boot_info::PhysAddr;
use skb::hmat::{CacheAssociativity, CacheWrites, MemoryCache};
use skb::{ApicId, Discovery, NodeId, Picoseconds, Speed, discover};

use crate::build::{Pieces, no_cpuid};

fn pieces(mut fixture: &[u8]) -> Pieces {
    let mut pieces = Pieces::default();
    while let Some((address, rest)) = fixture.split_first_chunk() {
        let (length, rest) = rest.split_first_chunk().expect("a length");
        let (bytes, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        pieces.0.push((u64::from_le_bytes(*address), bytes.to_vec()));
        fixture = rest;
    }
    pieces
}

/// Discovers a machine whose root pointer is the first piece.
fn found(fixture: &[u8]) -> Discovery {
    let memory = pieces(fixture);
    discover(Some(PhysAddr::new(memory.0[0].0)), &memory, no_cpuid, ApicId(0))
}

#[test]
fn a_machine_of_qemu_is_understood() {
    let found = found(include_bytes!("qemu-5-cores-3-nodes.bin"));
    assert_eq!(
        found.topology.to_string(),
        "5 cores on 3 nodes\n\
         node 0: cores 0-2; distances 10 15 40; memory 0x0..0xa0000 0x100000..0x10000000\n\
         node 1: cores 3-4; distances 16 10 22; memory -\n\
         node 2: cores -; distances 40 22 10; memory 0x10000000..0x30000000\n"
    );
    assert_eq!(
        found.complaints.to_string(),
        "the SLIT says that it is 15 from domain 0 to 1, but 16 back: both are kept\n"
    );
}

#[test]
fn an_hmat_of_qemu_is_understood() {
    let found = found(include_bytes!("qemu-hmat.bin"));
    assert_eq!(
        found.complaints.to_string(),
        "from domain 0, domain 1 is farther than 2 by the SLIT, but nearer by the HMAT: distances go by the SLIT, costs \
         by the HMAT\n"
    );
    assert_eq!(
        found.topology.to_string(),
        "4 cores on 3 nodes\n\
         node 0: cores 0-1; distances 10 21 17; memory 0x0..0xa0000 0x100000..0x10000000\n\
         node 1: cores 2-3; distances 21 10 28; memory 0x10000000..0x20000000\n\
         node 2: cores -; distances 17 28 10; memory 0x20000000..0x30000000\n"
    );
    let topology = &found.topology;
    let route = |from, to| topology.route(NodeId(from), NodeId(to)).expect("both exist");
    let latencies = |from| [0, 1, 2].map(|to| route(from, to).read.latency.map(|latency| latency.0));
    assert_eq!(latencies(0), [Some(5_000), Some(10_000), Some(15_000)]);
    assert_eq!(latencies(1), [Some(10_000), Some(5_000), None]);
    assert_eq!(latencies(2), [None; 3]);
    let bandwidths = |from| [0, 1, 2].map(|to| route(from, to).write.bandwidth);
    assert_eq!(bandwidths(0), [Some(200), Some(100), None]);
    assert_eq!(bandwidths(1), [Some(100), Some(200), None]);
    assert_eq!(route(0, 1).write, Speed { latency: Some(Picoseconds(10_000)), bandwidth: Some(100) });
    let initiators: Vec<_> = topology.nodes().iter().map(|node| node.initiator).collect();
    assert_eq!(initiators, [0, 1, 0].map(|node| Some(NodeId(node))));
    let cache = MemoryCache {
        level: 1,
        size: 10 << 10,
        line: 8,
        associativity: CacheAssociativity::Direct,
        writes: CacheWrites::Back,
    };
    let caches: Vec<_> = topology.nodes().iter().map(|node| node.caches.clone()).collect();
    assert_eq!(caches, [vec![cache], vec![cache], vec![]]);
}
