//! What happens to objects when the capability database makes and destroys them.

use crate::arch::paging;
use crate::arch::window::{self, Window};
use crate::core_state::Kernel;
use crate::dispatch::Place;
use crate::instance::{BLOCK, HANDOVER_OFFSET, Handover, State};
use crate::link::LinkEnd;
use crate::objects::{Dispatcher, Endpoint, Notification, Ref, unbind};
use caps::{Budget, Capability, Objects, Progress, SlotAddr, Unmap};
use lmp::invocation::{Counter, DispatcherState, EndCause};
use lmp::layout::USER_ROOT_SLOTS;
use lmp::{ObjType, SysError};

/// A page table behind a VNode capability.
pub(crate) fn page_table(pa: u64) -> *mut [u64; 512] {
    window::ptr(pa)
}

impl Objects for Kernel {
    fn zero(&mut self, base: u64, len: u64) {
        // SAFETY: the database zeroes only memory that `accessible` allowed, for objects not yet made.
        unsafe { window::zero(base, len) }
    }

    fn init(&mut self, cap: &Capability) {
        if cap.ty == ObjType::Pml4 {
            // SAFETY: the new table's memory is this core's and zeroed; the CPU driver's own root is mapped.
            unsafe {
                let own = &*page_table_of_driver(self.handover.root);
                let new = &mut *page_table(cap.base);
                new[USER_ROOT_SLOTS + 1..].copy_from_slice(&own[USER_ROOT_SLOTS + 1..]);
            }
        }
    }

    fn may_destroy(&self, cap: &Capability) -> Result<(), SysError> {
        match cap.ty {
            ObjType::Kcb | ObjType::Trampoline => Err(SysError::WrongState),
            ObjType::Kernel => match instance_state(&self.window, cap) {
                State::Empty | State::Loading => Ok(()),
                State::Loaded | State::Started => Err(SysError::WrongState),
            },
            _ => Ok(()),
        }
    }

    fn finalize(&mut self, cap: &Capability, _: SlotAddr, budget: &mut Budget) -> Progress {
        if let Some(d) = Ref::<Dispatcher>::from_cap(cap) {
            if d.state.get() != DispatcherState::Ended {
                self.retire(d);
                d.cause.set(EndCause::Deleted);
            }
            if self.current.get() == Some(d) {
                self.leave_current();
            }
            if self.forget(d, budget) == Progress::Again {
                return Progress::Again;
            }
            while let Some(n) = d.bound.get() {
                if !budget.take_object() {
                    return Progress::Again;
                }
                unbind(n);
            }
            while let Some(e) = d.endpoints.get() {
                if !budget.take_object() {
                    return Progress::Again;
                }
                unbind(e);
            }
        } else if let Some(n) = Ref::<Notification>::from_cap(cap) {
            unbind(n);
            if n.vectors.get() > 0 {
                for binding in &mut self.irqs {
                    if binding.notification == Some(n) {
                        *binding = Default::default();
                    }
                }
            }
        } else if let Some(e) = Ref::<Endpoint>::from_cap(cap) {
            if self.release_endpoint(e, budget) == Progress::Again {
                return Progress::Again;
            }
            unbind(e);
        } else if let Some(link) = Ref::<LinkEnd>::from_cap(cap) {
            self.readers.remove(link);
        } else if let Some(caller) = Ref::of_right(cap) {
            self.end_wait(caller, SysError::NoReply, Place::Last);
        } else if cap.ty == ObjType::Pml4 && paging::current_root() == cap.base {
            self.leave_current();
        }
        Progress::Done
    }

    fn unmap(&mut self, mapping: &Unmap) {
        if self.link_area.unmap(mapping.table, mapping.entry) {
            return;
        }
        // SAFETY: the database says that the table still exists, as a VNode of this core.
        let table = unsafe { &mut *page_table(mapping.table) };
        let level = mapping.table_type.vnode_level().unwrap_or(1);
        for i in 0..u64::from(mapping.count) {
            let at = usize::from(mapping.entry) + i as usize;
            let expected = mapping.address + i * paging::span(level);
            // An entry that was changed since belongs to a mapping of its own.
            if let Some(e) = table.get_mut(at).filter(|e| **e & paging::ADDRESS == expected) {
                *e = 0;
                self.count(Counter::PageTableWrites);
            }
        }
        paging::flush_user();
    }

    fn accessible(&self, base: u64, len: u64) -> bool {
        self.window.contains(base, len)
    }
}

/// One of the CPU driver's own page tables, which lie in its instance and not in the window.
pub(crate) fn page_table_of_driver(table: u64) -> *const [u64; 512] {
    let block = table & !(BLOCK - 1);
    (lmp::layout::KERNEL_BASE + (table - block)) as *const [u64; 512]
}

/// How far a kernel instance has come. One whose core has started is out of the window.
pub(crate) fn instance_state(window: &Window, cap: &Capability) -> State {
    if !window.contains(cap.base, BLOCK) {
        return State::Started;
    }
    // SAFETY: the block is this core's memory until it is started; a zeroed page is a valid handover.
    unsafe { (*window::ptr::<Handover>(cap.base + HANDOVER_OFFSET)).state }
}
