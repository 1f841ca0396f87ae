//! Firmware's tables, read through the device frames that the CPU driver handed over.

use alloc::vec::Vec;

use boot_info::{PhysAddr, PhysMemory, Unreadable};
use lmp::cptr::{L2_SLOTS, init_l1, task};
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, syscall};
use runtime::memory;

/// Memory of firmware and devices.
pub(crate) struct Firmware {
    /// Capability, base and size of each frame.
    frames: Vec<(CPtr, u64, u64)>,
}

impl Firmware {
    /// The first `count` device frames of `init`.
    pub(crate) fn new(count: u32) -> Firmware {
        let frames = (0..count.min(L2_SLOTS))
            .filter_map(|i| {
                let slot = CPtr::new(init_l1::DEVICES, i);
                let info = syscall::cap_identify(task::ROOT, slot).ok()?;
                Some((slot, info.base, info.size))
            })
            .collect();
        Firmware { frames }
    }

    fn read_some(&self, address: u64, into: &mut [u8]) -> Result<usize, Unreadable> {
        let &(frame, base, size) = self
            .frames
            .iter()
            .find(|&&(_, base, size)| address >= base && address - base < size)
            .ok_or(Unreadable)?;
        let offset = address - base;
        let page = offset - offset % PAGE_SIZE;
        let len = (size - offset).min(into.len() as u64);
        let mapped = memory::map(frame, page, offset - page + len, MapFlags::READ).map_err(|_| Unreadable)?;
        // SAFETY: the pages are mapped readable and hold what firmware left; byte by byte and volatile, because
        // a device could change it at any time. The mapping is used by nobody else and ends here.
        unsafe {
            let from = mapped.as_ptr::<u8>().add((offset - page) as usize);
            for (i, byte) in into[..len as usize].iter_mut().enumerate() {
                *byte = from.add(i).read_volatile();
            }
            memory::unmap(mapped);
        }
        Ok(len as usize)
    }
}

impl PhysMemory for Firmware {
    fn read(&self, address: PhysAddr, into: &mut [u8]) -> Result<(), Unreadable> {
        let mut done = 0;
        while done < into.len() {
            let at = address.as_u64().checked_add(done as u64).ok_or(Unreadable)?;
            done += self.read_some(at, &mut into[done..])?;
        }
        Ok(())
    }
}
