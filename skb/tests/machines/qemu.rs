//! The tables that QEMU 10.0 makes, as SeaBIOS leaves them in memory.
//!
//! The fixture has the root pointer, the RSDT, the tables that matter, and the headers of the others, taken from the
//! memory of this machine by the monitor's `pmemsave`:
//!
//! ```text
//! qemu-system-x86_64 -M q35 -m 768M -smp 5 -cpu max
//!   -object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m2,size=512M
//!   -numa node,nodeid=0,cpus=0-2,memdev=m0 -numa node,nodeid=1,cpus=3-4 -numa node,nodeid=2,memdev=m2
//!   -numa dist,src=0,dst=1,val=15 -numa dist,src=0,dst=2,val=40 -numa dist,src=1,dst=2,val=22
//!   -numa dist,src=1,dst=0,val=16 -numa dist,src=2,dst=0,val=40 -numa dist,src=2,dst=1,val=22
//! ```
//!
//! Each piece is its address in 8 bytes, its length in 4, both little-endian, and its bytes.

use boot_info::PhysAddr;
use skb::{ApicId, discover};

use crate::build::Pieces;

const RSDP: u64 = 0xf_5250;

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

#[test]
fn a_machine_of_qemu_is_understood() {
    let memory = pieces(include_bytes!("qemu-5-cores-3-nodes.bin"));
    let found = discover(Some(PhysAddr::new(RSDP)), &memory, ApicId(0));
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
