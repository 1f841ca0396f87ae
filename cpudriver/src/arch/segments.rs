//! Segments, the task state segment and the interrupt descriptor table of this core.

use super::entry;
use spin::Once;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

/// Selector of user code, as saved in an interrupt frame.
pub(crate) const USER_CODE: u64 = 4 << 3 | 3;
/// Selector of user data.
pub(crate) const USER_DATA: u64 = 3 << 3 | 3;

unsafe extern "C" {
    static __stack_top: u8;
    static __ist1_top: u8;
    static __ist2_top: u8;
    static __ist3_top: u8;
    static __ist4_top: u8;
}

static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<GlobalDescriptorTable> = Once::new();
static IDT: Once<InterruptDescriptorTable> = Once::new();

fn address(symbol: *const u8) -> VirtAddr {
    VirtAddr::new(symbol as u64)
}

/// Fill and load this core's tables.
pub(crate) fn load() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        tss.privilege_stack_table[0] = address(&raw const __stack_top);
        // NMI, #DF, #MC and #DB each have a stack of their own: they can arrive when `rsp` is the user's.
        tss.interrupt_stack_table[0] = address(&raw const __ist1_top);
        tss.interrupt_stack_table[1] = address(&raw const __ist2_top);
        tss.interrupt_stack_table[2] = address(&raw const __ist3_top);
        tss.interrupt_stack_table[3] = address(&raw const __ist4_top);
        // No I/O permission bitmap: ports are reached by capability.
        tss.iomap_base = size_of::<TaskStateSegment>() as u16;
        tss
    });
    let mut tss_selector = SegmentSelector::NULL;
    let gdt = GDT.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        gdt.append(Descriptor::kernel_code_segment());
        gdt.append(Descriptor::kernel_data_segment());
        gdt.append(Descriptor::user_data_segment());
        gdt.append(Descriptor::user_code_segment());
        tss_selector = gdt.append(Descriptor::tss_segment(tss));
        gdt
    });
    gdt.load();
    // Gates are made for the code segment in use, so this comes before them.
    // SAFETY: the table just loaded has the kernel's segments in these places, where STAR expects them, and
    // the TSS where it was appended.
    unsafe {
        CS::set_reg(SegmentSelector::new(1, PrivilegeLevel::Ring0));
        SS::set_reg(SegmentSelector::new(2, PrivilegeLevel::Ring0));
        DS::set_reg(SegmentSelector::NULL);
        ES::set_reg(SegmentSelector::NULL);
        load_tss(tss_selector);
    }
    IDT.call_once(gates).load();
}

/// A gate for every vector.
fn gates() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    let stub = |v: u8| VirtAddr::new(entry::stub(v));
    // SAFETY: for all gates, `entry::stub(v)` is code that expects exactly the frame of vector v; stack indices
    // are those of the TSS above. Breakpoint and overflow are open to ring 3, as `int3` and `into` expect.
    unsafe {
        idt.divide_error.set_handler_addr(stub(0));
        idt.debug.set_handler_addr(stub(1)).set_stack_index(3);
        idt.non_maskable_interrupt.set_handler_addr(stub(2)).set_stack_index(0);
        idt.breakpoint.set_handler_addr(stub(3)).set_privilege_level(PrivilegeLevel::Ring3);
        idt.overflow.set_handler_addr(stub(4)).set_privilege_level(PrivilegeLevel::Ring3);
        idt.bound_range_exceeded.set_handler_addr(stub(5));
        idt.invalid_opcode.set_handler_addr(stub(6));
        idt.device_not_available.set_handler_addr(stub(7));
        idt.double_fault.set_handler_addr(stub(8)).set_stack_index(1);
        idt.invalid_tss.set_handler_addr(stub(10));
        idt.segment_not_present.set_handler_addr(stub(11));
        idt.stack_segment_fault.set_handler_addr(stub(12));
        idt.general_protection_fault.set_handler_addr(stub(13));
        idt.page_fault.set_handler_addr(stub(14));
        idt.x87_floating_point.set_handler_addr(stub(16));
        idt.alignment_check.set_handler_addr(stub(17));
        idt.machine_check.set_handler_addr(stub(18)).set_stack_index(2);
        idt.simd_floating_point.set_handler_addr(stub(19));
        idt.virtualization.set_handler_addr(stub(20));
        idt.cp_protection_exception.set_handler_addr(stub(21));
        idt.hv_injection_exception.set_handler_addr(stub(28));
        idt.vmm_communication_exception.set_handler_addr(stub(29));
        idt.security_exception.set_handler_addr(stub(30));
        for v in 32..=255u8 {
            idt[v].set_handler_addr(stub(v));
        }
    }
    idt
}
