//! [`Processors`]: what the CPUID of a core says about how cores are numbered, and about their caches.
//!
//! A core can ask only itself. But the identifier of a local APIC is made of fields, thread within core within package,
//! whose widths are the same for all; so the widths that one core tells give every core's place. The leaves are those
//! of the *Intel 64 and IA-32 Architectures Software Developer's Manual*, volume 2A, CPUID, and of the *AMD64
//! Architecture Programmer's Manual*, volume 3, appendix E.

use alloc::vec::Vec;
use core::fmt;

use crate::complaint::{Complaint, Complaints};
use crate::id::ApicId;

/// The most caches of a core, and levels of the leaf of topology, that are asked for. CPUs have about four.
pub const MAX_CACHES: usize = 16;

/// The most bytes of a cache's line: the field has 12 bits.
pub const MAX_LINE: u16 = 4096;

/// The bits of an APIC identifier.
const APIC_BITS: u32 = u32::BITS;

/// The registers that CPUID answers in: EAX, EBX, ECX, EDX.
pub type Registers = [u32; 4];

/// The widths of the fields of APIC identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicFields {
    thread_bits: u32,
    package_shift: u32,
}

/// What a cache of a core keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    Unified,
}

/// A cache of a core, alike for all cores as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreCache {
    /// Its level: 1 is the nearest to the core.
    pub level: u8,
    /// What it keeps.
    pub kind: CacheKind,
    /// Its size in bytes.
    pub size: u64,
    /// The size of its lines in bytes, at most [`MAX_LINE`].
    pub line: u16,
    /// Cores share it whose APIC identifiers differ only in so many of their lowest bits.
    pub shared_bits: u8,
}

/// What CPUID says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processors {
    /// The local APIC of the core that was asked.
    pub apic: Option<ApicId>,
    /// How APIC identifiers are made.
    pub fields: Option<ApicFields>,
    /// The caches of a core, in the order of the leaf.
    pub caches: Vec<CoreCache>,
}

impl ApicFields {
    /// Fields of which nothing is known: each APIC is a core of its own, and all are one package.
    pub const UNKNOWN: Self = Self { thread_bits: 0, package_shift: APIC_BITS };

    /// The lowest `thread_bits` bits are the thread, those below `package_shift` the core; `None` if they are more than
    /// an identifier has, or cross.
    pub const fn new(thread_bits: u32, package_shift: u32) -> Option<Self> {
        if thread_bits > package_shift || package_shift > APIC_BITS {
            return None;
        }
        Some(Self { thread_bits, package_shift })
    }

    /// How many of the lowest bits are the number of a thread within its core.
    pub const fn thread_bits(self) -> u32 {
        self.thread_bits
    }

    /// How many of the lowest bits number cores and threads within a package; 32 where packages are not known.
    pub const fn package_shift(self) -> u32 {
        self.package_shift
    }

    /// The number of the package.
    pub fn package(self, apic: ApicId) -> u32 {
        high(apic.0, self.package_shift)
    }

    /// The number of the core within the package.
    pub fn unit(self, apic: ApicId) -> u32 {
        high(low(apic.0, self.package_shift), self.thread_bits)
    }

    /// The number of the thread within the core.
    pub fn thread(self, apic: ApicId) -> u32 {
        low(apic.0, self.thread_bits)
    }
}

impl CacheKind {
    /// All of them, by the numbers that they have in [`crate::Topology::encode`].
    pub const ALL: [Self; 3] = [Self::Data, Self::Instruction, Self::Unified];
}

impl CoreCache {
    /// Whether these two cores have it in common.
    pub fn is_shared(&self, a: ApicId, b: ApicId) -> bool {
        high(a.0, self.shared_bits.into()) == high(b.0, self.shared_bits.into())
    }
}

impl fmt::Display for CacheKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Data => "data",
            Self::Instruction => "instruction",
            Self::Unified => "unified",
        })
    }
}

/// The lowest `bits` bits.
fn low(value: u32, bits: u32) -> u32 {
    1u32.checked_shl(bits).map_or(value, |bit| value & (bit - 1))
}

/// All but the lowest `bits` bits.
fn high(value: u32, bits: u32) -> u32 {
    value.checked_shr(bits).unwrap_or(0)
}

/// How many bits number so many things.
fn width(count: u32) -> u32 {
    u32::BITS - count.saturating_sub(1).leading_zeros()
}

/// Some bits of a register.
fn field(register: u32, first: u32, count: u32) -> u32 {
    low(high(register, first), count)
}

impl Processors {
    /// Asks the core that runs this, by leaf and subleaf. What cannot be used is left out.
    pub fn ask(cpuid: impl Fn(u32, u32) -> Registers, complaints: &mut Complaints) -> Self {
        let asked = Asked { basic: cpuid(0, 0)[0], extended: cpuid(0x8000_0000, 0)[0], cpuid };
        let levels = [0x1f, 0xb]
            .into_iter()
            .filter(|&leaf| asked.has(leaf))
            .find_map(|leaf| asked.levels(leaf, complaints));
        let (apic, fields) = match levels {
            Some((apic, fields)) => (Some(apic), Some(fields)),
            None => asked.legacy(),
        };
        let caches = [4, 0x8000_001d].into_iter().filter(|&leaf| asked.has(leaf));
        let caches = caches.map(|leaf| asked.caches(leaf, complaints)).find(|caches| !caches.is_empty());
        let caches = caches.unwrap_or_else(|| asked.older_caches(fields.unwrap_or(ApicFields::UNKNOWN)));
        Self { apic, fields, caches }
    }
}

/// A core that answers.
struct Asked<C> {
    /// The highest basic leaf.
    basic: u32,
    /// The highest extended leaf.
    extended: u32,
    cpuid: C,
}

impl<C: Fn(u32, u32) -> Registers> Asked<C> {
    fn has(&self, leaf: u32) -> bool {
        match leaf {
            0x8000_0000.. => self.extended >= leaf,
            // Where there is no extended leaf, the answer is that to the highest basic one.
            _ => self.basic >= leaf && self.basic < 0x8000_0000,
        }
    }

    /// The leaf of extended topology: levels from the thread on, each with the bits below the next.
    fn levels(&self, leaf: u32, complaints: &mut Complaints) -> Option<(ApicId, ApicFields)> {
        const THREAD: u32 = 1;
        let mut thread_bits = 0;
        let (mut kind_before, mut shift_before) = (0, 0);
        let mut apic = None;
        for level in 0..MAX_CACHES as u32 {
            let [eax, ebx, ecx, edx] = (self.cpuid)(leaf, level);
            let (shift, kind) = (field(eax, 0, 5), field(ecx, 8, 8));
            // A leaf that is not there answers with zeroes.
            if kind == 0 || (level == 0 && ebx == 0) {
                break;
            }
            if kind <= kind_before || shift < shift_before || *apic.get_or_insert(edx) != edx {
                complaints.add(Complaint::BadLevels { leaf, level });
                return None;
            }
            if kind == THREAD {
                thread_bits = shift;
            }
            (kind_before, shift_before) = (kind, shift);
        }
        Some((ApicId(apic?), ApicFields { thread_bits, package_shift: shift_before }))
    }

    /// What there was before: counts, from which widths follow.
    fn legacy(&self) -> (Option<ApicId>, Option<ApicFields>) {
        const THREADS_VALID: u32 = 1 << 28;
        if !self.has(1) {
            return (None, None);
        }
        let [_, ebx, _, edx] = (self.cpuid)(1, 0);
        let apic = Some(ApicId(field(ebx, 24, 8)));
        if edx & THREADS_VALID == 0 {
            return (apic, ApicFields::new(0, 0));
        }
        let package_shift = width(field(ebx, 16, 8));
        let cores = if self.has(4) && field((self.cpuid)(4, 0)[0], 0, 5) != 0 {
            field((self.cpuid)(4, 0)[0], 26, 6) + 1
        } else if self.has(0x8000_0008) {
            field((self.cpuid)(0x8000_0008, 0)[2], 0, 8) + 1
        } else {
            1
        };
        (apic, ApicFields::new(package_shift.saturating_sub(width(cores)), package_shift))
    }

    /// What AMD had before: sizes and lines. Who shares a cache is not said: the threads of a core, and beyond the
    /// second level the package.
    fn older_caches(&self, fields: ApicFields) -> Vec<CoreCache> {
        let (core, package) = (fields.thread_bits as u8, fields.package_shift as u8);
        let [_, _, l1_data, l1_instruction] = self.if_there(0x8000_0005);
        let [_, _, l2, l3] = self.if_there(0x8000_0006);
        let cache = |level, kind, size: u32, unit: u64, line, shared_bits| CoreCache {
            level,
            kind,
            size: u64::from(size) * unit,
            line: field(line, 0, 8) as u16,
            shared_bits,
        };
        // Sizes in KiB, those of the third level in units of 512 KiB.
        let caches = [
            cache(1, CacheKind::Data, field(l1_data, 24, 8), 1 << 10, l1_data, core),
            cache(1, CacheKind::Instruction, field(l1_instruction, 24, 8), 1 << 10, l1_instruction, core),
            cache(2, CacheKind::Unified, field(l2, 16, 16), 1 << 10, l2, core),
            cache(3, CacheKind::Unified, field(l3, 18, 14), 512 << 10, l3, package),
        ];
        // A cache that is not there has no size.
        caches.into_iter().filter(|cache| cache.size > 0 && cache.line > 0).collect()
    }

    fn if_there(&self, leaf: u32) -> Registers {
        if self.has(leaf) { (self.cpuid)(leaf, 0) } else { [0; 4] }
    }

    /// A leaf of caches; Intel's 4 and AMD's 0x8000001d are alike.
    fn caches(&self, leaf: u32, complaints: &mut Complaints) -> Vec<CoreCache> {
        let mut caches: Vec<CoreCache> = Vec::new();
        for index in 0..MAX_CACHES as u32 {
            let [eax, ebx, ecx, _] = (self.cpuid)(leaf, index);
            let kind = match field(eax, 0, 5) {
                0 => break,
                1 => CacheKind::Data,
                2 => CacheKind::Instruction,
                3 => CacheKind::Unified,
                _ => continue,
            };
            let level = field(eax, 5, 3) as u8;
            let line = field(ebx, 0, 12) + 1;
            let places = [field(ebx, 12, 10) + 1, field(ebx, 22, 10) + 1, line];
            // Sets fill a register, so that there can be one more than fits.
            let size = places
                .into_iter()
                .try_fold(u64::from(ecx) + 1, |size, factor| size.checked_mul(u64::from(factor)));
            let known = caches.iter().any(|cache| (cache.level, cache.kind) == (level, kind));
            let Some(size) = size.filter(|_| level > 0 && !known) else {
                complaints.add(Complaint::BadCache { leaf, index });
                continue;
            };
            let shared_bits = width(field(eax, 14, 12) + 1) as u8;
            caches.push(CoreCache { level, kind, size, line: line as u16, shared_bits });
        }
        caches
    }
}
