//! Benchmark `caps`: operations on capabilities, each one system call with the user's stub.
//!
//! * `copy`, `mint`, `delete`: of a notification that has another capability;
//! * `revoke_one_child`: of an endpoint with one copy; `revoke`, with sizes that stand for the number of copies, all calls
//!   together;
//! * `retype`: one notification from RAM, its 64 bytes zeroed; `retype_frame`, with sizes in bytes, shows what zeroing adds;
//! * `map`, `unmap`: one page of a frame, in a page table that is there;
//! * `longest_entry`: the longest single system call of long operations: many objects made and revoked, a full CNode
//!   deleted, large frames made, whole page tables mapped and cleared;
//! * `look_up_…`: what `Identify` takes among so many capabilities of one core: copies, ancestors and descendants of a
//!   random one are looked for. An eighth of them are objects of their own, each with seven copies.
#![no_std]
#![no_main]

use boot_freestanding as _;
use lmp::cptr::{L2_SLOTS, SlotRef, task};
use lmp::invocation::{MapFlags, Op, header};
use lmp::objects::{CTE_SIZE, PAGE_SIZE};
use lmp::{CPtr, ObjType, Rights, SysError, syscall};
use runtime::bench::{BenchError, Harness, refused};
use runtime::{Env, memory, println, time};

runtime::entry!(main);

/// Capabilities among which one is looked up.
const CROWDS: [(&str, u32); 2] = [("look_up_of_1e3", 1_000), ("look_up_of_1e6", 1_000_000)];

/// Capabilities of each object in a crowd.
const COPIES: u32 = 8;

/// Copies of a capability that is revoked.
const CHILDREN: [u64; 4] = [1, 16, 64, 255];

/// Sizes of frames that are made, in bytes.
const FRAMES: [u64; 3] = [PAGE_SIZE, 16 * PAGE_SIZE, 64 * PAGE_SIZE];

fn main(env: &Env) -> u64 {
    Harness::run(env, "caps", |h| {
        slots(h)?;
        revoking(h)?;
        making(h)?;
        mapping(h)?;
        longest_entry(h)?;
        CROWDS.into_iter().try_for_each(|(metric, count)| crowd(h, metric, count))
    })
}

/// Times one operation.
fn timed(operation: impl FnOnce() -> Result<(), BenchError>) -> Result<u64, BenchError> {
    let start = time::now_serialised();
    operation()?;
    Ok(time::now_serialised() - start)
}

fn slots(h: &mut Harness) -> Result<(), BenchError> {
    let object = memory::allocate(ObjType::Notification, 0)?.cap;
    let slot = memory::slot()?;
    let copy = || syscall::cap_copy(task::ROOT, slot, object).map_err(refused("copying"));
    let mint = || syscall::cap_mint(task::ROOT, slot, object, Rights::WRITE, 1).map_err(refused("minting"));
    let delete = || syscall::cap_delete(task::ROOT, slot).map_err(refused("deleting"));
    let samples = h.samples(1000);
    h.measure_with("copy", samples, &[], || {
        let took = timed(copy)?;
        delete().map(|()| took)
    })?;
    h.measure_with("mint", samples, &[], || {
        let took = timed(mint)?;
        delete().map(|()| took)
    })?;
    h.measure_with("delete", samples, &[], || {
        copy()?;
        timed(delete)
    })
}

fn revoking(h: &mut Harness) -> Result<(), BenchError> {
    let object = memory::allocate(ObjType::Endpoint, 0)?.cap;
    let (_, cnode) = memory::cnode()?;
    let samples = h.samples(100);
    for children in CHILDREN {
        let sample = || {
            for slot in 0..children as u32 {
                syscall::cap_copy(task::ROOT, CPtr::new(cnode, slot), object).map_err(refused("copying"))?;
            }
            timed(|| syscall::cap_revoke(task::ROOT, object).map_err(refused("revoking")))
        };
        match children {
            1 => h.measure_with("revoke_one_child", samples, &[], sample)?,
            n => h.moving(n).measure_with("revoke", samples, &[("children", n)], sample)?,
        }
    }
    h.about(Default::default());
    Ok(())
}

fn making(h: &mut Harness) -> Result<(), BenchError> {
    let ram = memory::allocate(ObjType::Ram, FRAMES[FRAMES.len() - 1])?.cap;
    let slot = memory::slot()?;
    let make =
        |ty, size| syscall::cap_retype(task::ROOT, slot, ram, ty, 0, size, 1).map_err(refused("retyping"));
    let sample = |ty, size| {
        let took = timed(|| make(ty, size))?;
        syscall::cap_delete(task::ROOT, slot).map_err(refused("deleting"))?;
        Ok(took)
    };
    let size = memory::object_size(ObjType::Notification, 0);
    h.measure_with("retype", h.samples(1000), &[], || sample(ObjType::Notification, size))?;
    let samples = h.samples(100);
    for size in FRAMES {
        h.moving(size).measure_with("retype_frame", samples, &[], || sample(ObjType::Frame, size))?;
    }
    h.about(Default::default());
    Ok(())
}

fn mapping(h: &mut Harness) -> Result<(), BenchError> {
    let window = memory::window()?;
    let frame = memory::allocate(ObjType::Frame, PAGE_SIZE)?.cap;
    let slot = memory::slot()?;
    let flags = MapFlags::READ | MapFlags::WRITE;
    let map = || {
        syscall::vnode_map(window.table, window.entry, frame, 0, flags, 1, slot).map_err(refused("mapping"))
    };
    let unmap = || syscall::vnode_unmap(window.table, slot).map_err(refused("unmapping"));
    let samples = h.samples(1000);
    h.measure_with("map", samples, &[], || {
        let took = timed(map)?;
        unmap().map(|()| took)
    })?;
    h.measure_with("unmap", samples, &[], || {
        map()?;
        timed(unmap)
    })?;
    let delete = || syscall::cap_delete(task::ROOT, slot).map_err(refused("deleting a mapping"));
    h.measure_with("delete_mapping", samples, &[], || {
        map()?;
        timed(delete)
    })
}

/// The longest of some system calls.
#[derive(Default)]
struct Longest(u64);

impl Longest {
    /// Repeats a system call, which answers its status, until it is finished.
    fn finish(&mut self, operation: &'static str, mut call: impl FnMut() -> u64) -> Result<(), BenchError> {
        loop {
            let start = time::now_serialised();
            let status = call();
            self.0 = self.0.max(time::now_serialised() - start);
            match SysError::from_code(status as u16) {
                None => return Ok(()),
                Some(SysError::Again) => {}
                Some(cause) => return Err(refused(operation)(cause)),
            }
        }
    }

    fn retype(&mut self, slot: CPtr, ram: CPtr, ty: ObjType, size: u64, n: u64) -> Result<(), BenchError> {
        let (slot, ram) = (u64::from(slot.0), u64::from(ram.0));
        self.finish("making many", || {
            syscall::call6(header(task::ROOT, Op::Retype), slot, ram, ty as u64, 0, size, n).0
        })
    }

    fn revoke(&mut self, slot: CPtr) -> Result<(), BenchError> {
        self.finish("revoking many", || syscall::call1(header(task::ROOT, Op::Revoke), slot.0.into()).0)
    }

    fn delete(&mut self, slot: CPtr) -> Result<(), BenchError> {
        self.finish("deleting many", || syscall::call1(header(task::ROOT, Op::Delete), slot.0.into()).0)
    }
}

fn longest_entry(h: &mut Harness) -> Result<(), BenchError> {
    /// Entries of a page table.
    const ENTRIES: u64 = 512;
    const TABLES: u32 = 8;
    let large = ENTRIES * PAGE_SIZE;
    let ram = memory::allocate_in(ObjType::Ram, 2 * large, PAGE_SIZE, &memory::ANYWHERE)?.cap;
    let frame = memory::allocate(ObjType::Frame, large)?.cap;
    let (_, many) = memory::cnode()?;
    let slot = memory::slot()?;
    let mut tables = [CPtr::NULL; TABLES as usize];
    for table in &mut tables {
        *table = memory::allocate(ObjType::Pt, 0)?.cap;
    }
    let size = |ty| memory::object_size(ty, 0);
    h.measure_with("longest_entry", 1, &[], || {
        let mut longest = Longest::default();
        for ty in [ObjType::Notification, ObjType::Endpoint, ObjType::Dispatcher, ObjType::Pml4] {
            longest.retype(CPtr::new(many, 0), ram, ty, size(ty), L2_SLOTS.into())?;
            longest.revoke(ram)?;
        }
        longest.retype(slot, ram, ObjType::Frame, 2 * large, 1)?;
        longest.delete(slot)?;
        // A CNode with the last capabilities of what is in it.
        let (cnode, full) = memory::cnode()?;
        longest.retype(
            CPtr::new(full, 0),
            ram,
            ObjType::Endpoint,
            size(ObjType::Endpoint),
            L2_SLOTS.into(),
        )?;
        longest.revoke(cnode.cap)?;
        longest.delete(cnode.cap)?;
        // The runtime does not know that its memory is free again: a few CNodes, until the benchmark ends.
        memory::forget(cnode);
        for (table, slot) in tables.into_iter().zip(0..) {
            let flags = (MapFlags::READ | MapFlags::WRITE).bits();
            let (object, slot) = (frame.0.into(), CPtr::new(many, slot).0.into());
            longest.finish("mapping many", || {
                syscall::call6(header(table, Op::Map), 0, object, 0, flags, ENTRIES, slot).0
            })?;
        }
        longest.revoke(frame)?;
        Ok(longest.0)
    })
}

/// Measures a look-up among `count` capabilities, in a capability space of their own.
fn crowd(h: &mut Harness, metric: &'static str, count: u32) -> Result<(), BenchError> {
    let cnodes = count.div_ceil(L2_SLOTS);
    let root_size = (u64::from(cnodes) * CTE_SIZE).next_multiple_of(PAGE_SIZE);
    let cnode_size = memory::object_size(ObjType::L2CNode, 0);
    let object_size = memory::object_size(ObjType::Notification, 0);
    let objects = u64::from(count.div_ceil(COPIES)) * object_size;
    let needed = u64::from(cnodes) * cnode_size + root_size + objects.next_multiple_of(PAGE_SIZE);
    if memory::stats().longest < needed {
        println!(
            "caps {metric}: left out, it takes {needed} bytes of memory: give the machine more (--memory)"
        );
        return Ok(());
    }
    let ram = memory::allocate_in(ObjType::Ram, needed, cnode_size, &memory::ANYWHERE)?;
    let root = memory::slot()?;
    let root_at = u64::from(cnodes) * cnode_size;
    let make = |space, slot: SlotRef, ty, offset, size, n| {
        syscall::cap_retype(space, slot, ram.cap, ty, offset, size, n).map_err(refused("making the crowd"))
    };
    make(task::ROOT, root.into(), ObjType::L1CNode, root_at, root_size, 1)?;
    for first in (0..cnodes).step_by(L2_SLOTS as usize) {
        let n = u64::from(L2_SLOTS.min(cnodes - first));
        make(root, SlotRef::L1(first), ObjType::L2CNode, u64::from(first) * cnode_size, cnode_size, n)?;
    }
    let at = |index: u32| CPtr::new(index / L2_SLOTS, index % L2_SLOTS);
    // What is copied lies here: sources are looked up in the invoker's own space.
    let source = memory::slot()?;
    let objects_at = root_at + root_size;
    for first in (0..count).step_by(COPIES as usize) {
        let offset = objects_at + u64::from(first / COPIES) * object_size;
        make(task::ROOT, source.into(), ObjType::Notification, offset, object_size, 1)?;
        for copy in first..(first + COPIES).min(count) {
            syscall::cap_copy(root, at(copy), source).map_err(refused("copying"))?;
        }
        syscall::cap_delete(task::ROOT, source).map_err(refused("deleting"))?;
    }
    let mut random = h.run_info().seed | 1;
    h.measure_with(metric, h.samples(1000), &[("capabilities", count.into())], || {
        // Knuth, "The Art of Computer Programming" volume 2, 3.3.4, line 26: the upper half of the state.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = ((random >> 32) % u64::from(count)) as u32;
        timed(|| syscall::cap_identify(root, at(index)).map(|_| ()).map_err(refused("looking up")))
    })?;
    memory::free_slot(source);
    memory::free(ram)?;
    memory::free_slot(root);
    Ok(())
}
