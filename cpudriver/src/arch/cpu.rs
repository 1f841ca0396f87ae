//! What the CPU has, and the control registers of this core.
//!
//! Sources: Intel SDM volume 3A, chapter 2 (control registers) and volume 1, chapter 13 (XSAVE).

use core::arch::asm;
use raw_cpuid::CpuId;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::{LStar, Msr, SFMask, Star};
use x86_64::registers::rflags::RFlags;
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};
use x86_64::structures::gdt::SegmentSelector;
use x86_64::{PrivilegeLevel, VirtAddr};

/// Optional features this core uses. What the CPU driver cannot do without is checked by [`enable`].
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Features {
    /// `clac` exists and SMAP is on.
    pub smap: bool,
    /// `rdfsbase` and its kin exist and are on.
    pub fsgsbase: bool,
    /// The features of XCR0.
    pub xcr0: u64,
    /// Bits of MXCSR that may be set.
    pub mxcsr_mask: u32,
    /// What CR4 was set to.
    pub cr4: u64,
}

impl Features {
    /// Whether AVX is on.
    pub(crate) fn avx(&self) -> bool {
        XCr0Flags::from_bits_truncate(self.xcr0).contains(XCr0Flags::AVX)
    }
}

/// CR0 while the CPU driver runs.
const CR0: Cr0Flags = Cr0Flags::PROTECTED_MODE_ENABLE
    .union(Cr0Flags::MONITOR_COPROCESSOR)
    .union(Cr0Flags::EXTENSION_TYPE)
    .union(Cr0Flags::NUMERIC_ERROR)
    .union(Cr0Flags::WRITE_PROTECT)
    .union(Cr0Flags::ALIGNMENT_MASK)
    .union(Cr0Flags::PAGING);

/// EFER likewise.
const EFER: EferFlags = EferFlags::LONG_MODE_ENABLE
    .union(EferFlags::LONG_MODE_ACTIVE)
    .union(EferFlags::NO_EXECUTE_ENABLE)
    .union(EferFlags::SYSTEM_CALL_EXTENSIONS);

/// The first control register that is not as [`enable`] set it, as `Violation::Control` numbers them.
pub(crate) fn altered_register(f: &Features) -> Option<u64> {
    [
        (0, Cr0::read_raw(), CR0.bits()),
        (4, Cr4::read_raw(), f.cr4),
        (0x80, Efer::read_raw(), EFER.bits()),
        (0x100, XCr0::read_raw(), f.xcr0),
    ]
    .into_iter()
    .find_map(|(register, found, wanted)| (found != wanted).then_some(register))
}

/// Why a CPU cannot run the CPU driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing(pub &'static str);

/// Turn on what the CPU has: paging protections, `syscall`, vector state. `syscall_entry` says where system
/// calls arrive.
pub(crate) fn enable(syscall_entry: fn(&Features) -> u64) -> Result<Features, Missing> {
    let cpuid = CpuId::new();
    let basic = cpuid.get_feature_info().ok_or(Missing("CPUID leaf 1"))?;
    let extended = cpuid.get_extended_feature_info();
    let amd =
        cpuid.get_extended_processor_and_feature_identifiers().ok_or(Missing("CPUID leaf 0x80000001"))?;
    let has = |f: bool, what| if f { Ok(()) } else { Err(Missing(what)) };
    has(amd.has_execute_disable(), "NX (no-execute pages)")?;
    has(amd.has_syscall_sysret(), "SYSCALL")?;
    has(basic.has_xsave(), "XSAVE")?;
    has(basic.has_apic(), "a local APIC")?;
    let ext = |f: fn(&raw_cpuid::ExtendedFeatures) -> bool| extended.as_ref().is_some_and(f);

    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE
        | Cr4Flags::OSXSAVE;
    let fsgsbase = ext(|e| e.has_fsgsbase());
    let smap = ext(|e| e.has_smap());
    cr4.set(Cr4Flags::FSGSBASE, fsgsbase);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, smap);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, ext(|e| e.has_smep()));
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, ext(|e| e.has_umip()));

    let state = cpuid.get_extended_state_info().ok_or(Missing("CPUID leaf 13"))?;
    let mut xcr0 = XCr0Flags::X87 | XCr0Flags::SSE;
    let avx = basic.has_avx() && state.xcr0_supports_avx_256();
    if avx {
        xcr0 |= XCr0Flags::AVX;
        if ext(|e| e.has_avx512f())
            && state.xcr0_supports_avx512_opmask()
            && state.xcr0_supports_avx512_zmm_hi256()
            && state.xcr0_supports_avx512_zmm_hi16()
        {
            xcr0 |= XCr0Flags::OPMASK | XCr0Flags::ZMM_HI256 | XCr0Flags::HI16_ZMM;
        }
    }
    let star = (
        SegmentSelector::new(4, PrivilegeLevel::Ring3),
        SegmentSelector::new(3, PrivilegeLevel::Ring3),
        SegmentSelector::new(1, PrivilegeLevel::Ring0),
        SegmentSelector::new(2, PrivilegeLevel::Ring0),
    );
    // SAFETY: each bit set was found in CPUID; the kernel is mapped accordingly (its pages are supervisor
    // pages, its data NX, its text read-only) and touches no user page, so SMEP, SMAP and WP cannot fault
    // it. STAR's selectors are those of `segments`.
    unsafe {
        Cr0::write(CR0);
        Cr4::write(cr4);
        XCr0::write(xcr0);
        Efer::write(EFER);
        Star::write_raw(star.1.0 - 8, star.2.0);
    }
    debug_assert_eq!(star.0.0, star.1.0 + 8);
    let features = Features { smap, fsgsbase, xcr0: xcr0.bits(), mxcsr_mask: mxcsr_mask(), cr4: cr4.bits() };
    LStar::write(VirtAddr::new(syscall_entry(&features)));
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::NESTED_TASK
            | RFlags::ALIGNMENT_CHECK,
    );
    let size = CpuId::new().get_extended_state_info().map_or(0, |s| s.xsave_area_size_enabled_features());
    if size as usize > lmp::frame::VECTOR_AREA_SIZE {
        return Err(Missing("a vector state of at most 4096 bytes"));
    }
    Ok(features)
}

/// The bits of MXCSR that may be set without a fault (SDM volume 1, 11.6.6).
fn mxcsr_mask() -> u32 {
    #[repr(C, align(16))]
    struct FxArea([u32; 128]);
    let mut area = FxArea([0; 128]);
    // SAFETY: the area is 512 bytes, 16-byte aligned.
    unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut area, options(nostack)) };
    match area.0[7] {
        0 => 0xffbf,
        mask => mask,
    }
}

/// The time stamp counter.
#[inline(always)]
pub(crate) fn tsc() -> u64 {
    // SAFETY: `rdtsc` has no effect on memory; CR4.TSD is off.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Whether NX may be set in EFER on further cores: always, since [`enable`] demands it.
pub(crate) const EFER_LME_NXE: u32 = 0x900;

/// FS and GS base of the code that was interrupted.
pub(crate) fn user_bases(f: &Features) -> (u64, u64) {
    if f.fsgsbase {
        let (fs, gs): (u64, u64);
        // SAFETY: CR4.FSGSBASE is on.
        unsafe {
            asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs, options(nomem, nostack, preserves_flags));
        }
        (fs, gs)
    } else {
        // SAFETY: both registers exist on every x86-64 CPU; the kernel itself does not use FS or GS.
        unsafe { (Msr::new(0xc000_0100).read(), Msr::new(0xc000_0101).read()) }
    }
}

/// Set FS and GS base for the code to be entered. Both must be canonical.
pub(crate) fn set_user_bases(f: &Features, fs: u64, gs: u64) {
    debug_assert!(is_canonical(fs) && is_canonical(gs));
    if f.fsgsbase {
        // SAFETY: CR4.FSGSBASE is on and the addresses are canonical, so neither faults; the kernel uses
        // neither base.
        unsafe {
            asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs, in(reg) gs, options(nomem, nostack, preserves_flags));
        }
    } else {
        // SAFETY: as above, by the registers that every x86-64 CPU has.
        unsafe {
            Msr::new(0xc000_0100).write(fs);
            Msr::new(0xc000_0101).write(gs);
        }
    }
}

/// Load null selectors into the data segment registers: what another domain left there does not pass on.
pub(crate) fn clear_data_segments() {
    // SAFETY: long mode ignores these segments except for the FS and GS bases, which are set afterwards.
    unsafe {
        asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}", in(reg) 0,
            options(nomem, nostack, preserves_flags));
    }
}

/// Whether an address is canonical with 48-bit virtual addresses.
pub(crate) fn is_canonical(a: u64) -> bool {
    ((a as i64) << 16 >> 16) as u64 == a
}

/// Bits of a physical address.
pub(crate) fn physical_bits() -> u32 {
    CpuId::new()
        .get_processor_capacity_feature_info()
        .map_or(36, |c| u32::from(c.physical_address_bits()))
        .min(52)
}

/// Stop this core for good.
pub(crate) fn halt_forever() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
