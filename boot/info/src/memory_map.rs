//! [`MemoryMap`]: what each part of physical memory may be used for, and the arithmetic of handing it out.

use core::fmt;
use core::iter::FusedIterator;

use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::address::{PageSize, PhysAddr, PhysRange};

/// The most regions a map has room for. A machine's firmware lists about twenty.
pub const MAX_REGIONS: usize = 256;

/// What a region may be used for, from the most to the least restrictive: where entries overlap, the lesser holds.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    TryFromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(u64)]
pub enum RegionKind {
    /// Memory found to be defective.
    #[default]
    Bad = 0,
    /// Anything that is not to be touched, devices among it.
    Reserved = 1,
    /// Memory that firmware uses while the system runs.
    AcpiNvs = 2,
    /// The memory of a display.
    Framebuffer = 3,
    /// The image of the CPU driver that was booted, and the boot archive.
    KernelAndModules = 4,
    /// ACPI tables, free once they are read.
    AcpiReclaimable = 5,
    /// The boot loader's page tables and answers, free once they are used no more.
    BootloaderReclaimable = 6,
    /// Free memory.
    Usable = 7,
}

/// A part of physical memory of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Region {
    /// Where it is.
    pub range: PhysRange,
    /// What it is.
    pub kind: RegionKind,
}

/// What fills the rest of a map: zeroes.
const UNUSED: Region = Region { range: PhysRange::new(PhysAddr::new(0), 0), kind: RegionKind::Bad };

/// A sorted list of regions that do not overlap. Both ends of each are page boundaries; neighbours of the same kind
/// are one region; what no region covers was not mentioned by firmware and is nobody's.
#[derive(Clone, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryMap {
    /// How many of `regions` are filled; a reader limits it to the array.
    count: u64,
    regions: [Region; MAX_REGIONS],
}

/// A map cannot hold another region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRegions;

/// The free memory of a map in maximal runs; see [`MemoryMap::usable_runs`].
#[derive(Clone, Debug)]
pub struct UsableRuns<'a> {
    regions: core::slice::Iter<'a, Region>,
    reserved: &'a [PhysRange],
    granule: PageSize,
    /// What is left of the region at hand.
    rest: PhysRange,
}

/// The free memory of a map granule by granule; see [`MemoryMap::usable_chunks`].
#[derive(Clone, Debug)]
pub struct UsableChunks<'a> {
    runs: UsableRuns<'a>,
    rest: PhysRange,
}

impl MemoryMap {
    /// A map of nothing.
    pub const EMPTY: Self = Self { count: 0, regions: [UNUSED; MAX_REGIONS] };

    /// The regions in ascending order.
    pub fn regions(&self) -> &[Region] {
        self.regions.get(..self.len()).unwrap_or(&self.regions)
    }

    /// Says that `range` is of this kind, unless a more restrictive kind was said of a part of it before or is later.
    ///
    /// Free memory is rounded to the pages inside, any other kind to the pages it touches; what lies at or above
    /// [`crate::PHYSICAL_LIMIT`] is dropped. The order of several calls does not matter.
    ///
    /// # Errors
    /// [`TooManyRegions`] if the map needs more than [`MAX_REGIONS`], before neighbours are merged; a part may have
    /// been added.
    pub fn add(&mut self, range: PhysRange, kind: RegionKind) -> Result<(), TooManyRegions> {
        let range = match kind {
            RegionKind::Usable => range.clipped().inward(PageSize::Size4K),
            _ => range.clipped().outward(PageSize::Size4K),
        };
        let mut from = range.base();
        let mut place = self.regions().partition_point(|region| region.range.end() <= from);
        while from < range.end() {
            let Some(&region) = self.regions().get(place).filter(|region| region.range.base() < range.end())
            else {
                self.insert(place, PhysRange::between(from, range.end()), kind)?;
                break;
            };
            if from < region.range.base() {
                self.insert(place, PhysRange::between(from, region.range.base()), kind)?;
                from = region.range.base();
                place += 1;
                continue;
            }
            let common = PhysRange::between(from, range.end().min(region.range.end()));
            if kind < region.kind {
                // What stays of the region below, what changes, what stays above.
                let below = PhysRange::between(region.range.base(), common.base());
                let above = PhysRange::between(common.end(), region.range.end());
                self.regions[place] = Region { range: common, kind };
                if !above.is_empty() {
                    self.insert(place + 1, above, region.kind)?;
                }
                if !below.is_empty() {
                    self.insert(place, below, region.kind)?;
                    place += 1;
                }
            }
            from = common.end();
            place += 1;
        }
        self.merge();
        Ok(())
    }

    /// Frees the memory of the boot loader, to be called once its page tables and answers are used no more.
    pub fn reclaim_bootloader(&mut self) {
        let count = self.len();
        for region in &mut self.regions[..count] {
            if region.kind == RegionKind::BootloaderReclaimable {
                region.kind = RegionKind::Usable;
            }
        }
        self.merge();
    }

    /// The kind of the region that `address` lies in, if any region covers it.
    pub fn kind_at(&self, address: PhysAddr) -> Option<RegionKind> {
        let place = self.regions().partition_point(|region| region.range.end() <= address);
        self.regions().get(place).filter(|region| region.range.contains(address)).map(|region| region.kind)
    }

    /// The memory of one kind, in bytes.
    pub fn total(&self, kind: RegionKind) -> u64 {
        self.regions()
            .iter()
            .filter(|region| region.kind == kind)
            .fold(0, |total, region| total.saturating_add(region.range.length()))
    }

    /// The end of the highest region of memory proper, free or not: what a direct map has to reach. Devices, which
    /// firmware lists as reserved, do not count.
    pub fn end_of_ram(&self) -> PhysAddr {
        let ram = |region: &&Region| {
            !matches!(region.kind, RegionKind::Framebuffer | RegionKind::Reserved | RegionKind::Bad)
        };
        self.regions().iter().rfind(ram).map_or(PhysAddr::new(0), |region| region.range.end())
    }

    /// The free memory outside `reserved`, in ascending runs as long as possible, both ends of which are multiples
    /// of `granule`. The reserved ranges may come in any order and overlap.
    pub fn usable_runs<'a>(&'a self, granule: PageSize, reserved: &'a [PhysRange]) -> UsableRuns<'a> {
        UsableRuns { regions: self.regions().iter(), reserved, granule, rest: PhysRange::default() }
    }

    /// The same memory as [`Self::usable_runs`], one granule after the other.
    pub fn usable_chunks<'a>(&'a self, granule: PageSize, reserved: &'a [PhysRange]) -> UsableChunks<'a> {
        UsableChunks { runs: self.usable_runs(granule, reserved), rest: PhysRange::default() }
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.regions.fill(UNUSED);
    }

    fn len(&self) -> usize {
        usize::try_from(self.count).map_or(MAX_REGIONS, |count| count.min(MAX_REGIONS))
    }

    fn insert(&mut self, place: usize, range: PhysRange, kind: RegionKind) -> Result<(), TooManyRegions> {
        let count = self.len();
        let Some(moved) = self.regions.get_mut(place..=count) else {
            return Err(TooManyRegions);
        };
        moved.rotate_right(1);
        moved[0] = Region { range, kind };
        self.count = count as u64 + 1;
        Ok(())
    }

    /// Makes one region of neighbours of the same kind.
    fn merge(&mut self) {
        let count = self.len();
        let mut kept = 0;
        for place in 1..count {
            let region = self.regions[place];
            let last = &mut self.regions[kept];
            if last.kind == region.kind && last.range.end() == region.range.base() {
                last.range = PhysRange::between(last.range.base(), region.range.end());
            } else {
                kept += 1;
                self.regions[kept] = region;
            }
        }
        if count > 0 {
            self.count = kept as u64 + 1;
        }
    }
}

impl Iterator for UsableRuns<'_> {
    type Item = PhysRange;

    fn next(&mut self) -> Option<PhysRange> {
        loop {
            self.rest = self.rest.inward(self.granule);
            if self.rest.is_empty() {
                let free = |region: &&Region| region.kind == RegionKind::Usable;
                self.rest = self.regions.find(free)?.range;
                continue;
            }
            let obstacle = self
                .reserved
                .iter()
                .filter(|reserved| reserved.overlaps(self.rest))
                .min_by_key(|reserved| reserved.base());
            let run = match obstacle {
                None => core::mem::take(&mut self.rest),
                Some(obstacle) => {
                    let run = PhysRange::between(self.rest.base(), obstacle.base());
                    self.rest = PhysRange::between(obstacle.end(), self.rest.end());
                    run.inward(self.granule)
                }
            };
            if !run.is_empty() {
                return Some(run);
            }
        }
    }
}

impl FusedIterator for UsableRuns<'_> {}

impl Iterator for UsableChunks<'_> {
    type Item = PhysRange;

    fn next(&mut self) -> Option<PhysRange> {
        if self.rest.is_empty() {
            self.rest = self.runs.next()?;
        }
        let chunk = PhysRange::new(self.rest.base(), self.runs.granule.bytes());
        self.rest = PhysRange::between(chunk.end(), self.rest.end());
        Some(chunk)
    }
}

impl FusedIterator for UsableChunks<'_> {}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Usable => "usable",
            Self::BootloaderReclaimable => "boot loader",
            Self::AcpiReclaimable => "ACPI tables",
            Self::KernelAndModules => "image and archive",
            Self::Framebuffer => "framebuffer",
            Self::AcpiNvs => "ACPI NVS",
            Self::Reserved => "reserved",
            Self::Bad => "defective",
        })
    }
}

/// One line for each region.
impl fmt::Display for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Region { range, kind } in self.regions() {
            let (base, last) = (range.base().as_u64(), range.end().as_u64().saturating_sub(1));
            writeln!(f, "{base:#018x}-{last:#018x} {:>12} KiB  {kind}", range.length() / 1024)?;
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.regions()).finish()
    }
}
