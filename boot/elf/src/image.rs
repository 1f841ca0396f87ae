//! [`Image`]: an accepted executable and its [`Segment`]s, and the [`Policy`] it was accepted under.

use core::ops::Range;

use crate::PAGE_SIZE;
use crate::error::ElfError;
use crate::raw::{self, FileHeader, ProgramHeader, flag, segment_type};

/// The most loadable segments an executable may have. Ours have four or five.
pub const MAX_SEGMENTS: usize = 16;

/// Which executables a loader accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    addresses: Range<u64>,
    below: Below,
    max_memory: u64,
}

/// What becomes of segments that lie wholly below the allowed addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// The file is refused.
    Refuse,
    /// They are left out, as Limine does. The CPU driver's image may hold such segments: code that runs only
    /// before its own page tables exist.
    Skip,
}

/// The access that a segment's pages are mapped with. No page is writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and execute.
    ReadExecute,
    /// Read and write.
    ReadWrite,
}

/// One loadable segment of an accepted executable, never empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The virtual address of the first byte; need not be the start of a page.
    pub vaddr: u64,
    /// The physical address that the linker gave the first byte (`p_paddr`). Only the boot loader of the CPU driver
    /// cares; it is *not* checked.
    pub paddr: u64,
    /// The size in memory in bytes, at least 1 and at least that of the contents; what follows them is zero.
    pub memory_size: u64,
    /// The contents, to be found at `vaddr`.
    pub contents: &'a [u8],
    /// The access of the segment's pages.
    pub access: Access,
    /// The alignment that the linker used, a power of two of at least [`PAGE_SIZE`].
    pub align: u64,
    /// The number of the program header, as `readelf -l` lists them from 0.
    pub index: usize,
}

/// A static executable that keeps all the promises of the [crate](crate)'s description.
#[derive(Clone)]
pub struct Image<'a> {
    entry: u64,
    /// In ascending order of addresses; the first `count` are filled.
    segments: [Option<Segment<'a>>; MAX_SEGMENTS],
    count: usize,
    memory: u64,
}

/// The addresses of the pages of a [`Segment`], in ascending order.
#[derive(Clone, Debug)]
pub struct Pages {
    next: u64,
    left: u64,
}

impl Policy {
    /// The addresses that a user program may be linked for: not the first page, so that a null pointer faults, and
    /// not the last 512 GiB of the lower half, one slot of the root page table, so that the address after any of its
    /// instructions is canonical.
    pub const USER: Range<u64> = 0x1000..255 << 39;

    /// The addresses that the CPU driver may be linked for: the top 2 GiB, as the code model `kernel` demands. The
    /// last page is left out, so that the end of every segment is an address.
    pub const KERNEL: Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_ffff_f000;

    /// A program for ring 3 at the addresses [`Policy::USER`] that needs at most `max_memory` bytes, counted in
    /// whole pages.
    pub const fn user(max_memory: u64) -> Self {
        Self { addresses: Self::USER, below: Below::Refuse, max_memory }
    }

    /// An image of the CPU driver at the addresses [`Policy::KERNEL`] that needs at most `max_memory` bytes, counted
    /// in whole pages. Segments below are left out.
    pub const fn kernel(max_memory: u64) -> Self {
        Self { addresses: Self::KERNEL, below: Below::Skip, max_memory }
    }

    /// The same policy for other addresses, such as the block that one instance of the CPU driver lies in. Bounds
    /// that are no page's start are rounded inwards by the check itself: pages lie wholly inside or are refused.
    pub const fn at(mut self, addresses: Range<u64>) -> Self {
        self.addresses = addresses;
        self
    }

    /// The same policy with another fate for segments below the allowed addresses.
    pub const fn below(mut self, below: Below) -> Self {
        self.below = below;
        self
    }

    /// The addresses allowed.
    pub fn addresses(&self) -> Range<u64> {
        self.addresses.clone()
    }
}

impl Access {
    /// Whether the pages may be written.
    pub fn is_writable(self) -> bool {
        self == Self::ReadWrite
    }

    /// Whether the pages may be executed.
    pub fn is_executable(self) -> bool {
        self == Self::ReadExecute
    }
}

impl<'a> Image<'a> {
    /// Checks the whole file; the outcome refers to it and copies nothing.
    ///
    /// # Errors
    /// The first [`ElfError`] found, if the file cannot be loaded under this policy.
    pub fn parse(file: &'a [u8], policy: Policy) -> Result<Self, ElfError> {
        let header = FileHeader::read(file)?;
        let mut image = Self { entry: header.entry, segments: [None; MAX_SEGMENTS], count: 0, memory: 0 };
        for (index, header) in header.program_headers().enumerate() {
            match header.kind {
                segment_type::LOAD => {
                    if let Some(segment) = Segment::check(file, &header, index, &policy)? {
                        image.add(segment, policy.max_memory)?;
                    }
                }
                segment_type::DYNAMIC | segment_type::INTERPRETER => {
                    return Err(ElfError::DynamicallyLinked { segment: index });
                }
                segment_type::THREAD_LOCAL => return Err(ElfError::ThreadLocalStorage { segment: index }),
                // Notes, stack flags, the table itself: nothing to load.
                _ => {}
            }
        }
        if image.count == 0 {
            // Where all were left out, the reason is why.
            return match policy.below {
                Below::Refuse => Err(ElfError::NoSegments),
                Below::Skip => Self::parse(file, policy.below(Below::Refuse)),
            };
        }
        let entry = image.entry;
        let executable =
            |segment: &Segment<'_>| segment.access.is_executable() && segment.has_contents_at(entry);
        if !image.segments().any(executable) {
            return Err(ElfError::EntryNotExecutable { entry });
        }
        Ok(image)
    }

    /// The virtual address at which the program starts.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// The segments to load, in ascending order of addresses; at least one.
    pub fn segments(&self) -> impl Iterator<Item = &Segment<'a>> + Clone {
        self.segments.iter().flatten()
    }

    /// The memory that all segments need together, in bytes, a multiple of [`PAGE_SIZE`].
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// From the first byte of the lowest page to the end of the highest one.
    pub fn span(&self) -> Range<u64> {
        let start = self.segments().next().map_or(0, |first| first.page_range().start);
        let end = self.segments().last().map_or(0, |last| last.page_range().end);
        start..end
    }

    /// Puts a checked segment in its place, which keeps the order by address.
    fn add(&mut self, segment: Segment<'a>, max_memory: u64) -> Result<(), ElfError> {
        let pages = segment.page_range();
        for other in self.segments() {
            let page = pages.start.max(other.page_range().start);
            if page < pages.end.min(other.page_range().end) {
                let (first, second) = (other.index.min(segment.index), other.index.max(segment.index));
                return Err(ElfError::Overlap { first, second, page });
            }
        }
        // No segment goes past the end of the address space and none overlaps, so the sum fits.
        self.memory += pages.end - pages.start;
        if self.memory > max_memory {
            return Err(ElfError::TooMuchMemory { needed: self.memory, limit: max_memory });
        }
        if self.count == MAX_SEGMENTS {
            return Err(ElfError::TooManySegments);
        }
        let place = self.segments().take_while(|other| other.vaddr < segment.vaddr).count();
        self.segments[place..=self.count].rotate_right(1);
        self.segments[place] = Some(segment);
        self.count += 1;
        Ok(())
    }
}

impl<'a> Segment<'a> {
    /// Checks one loadable program header on its own; `None` if it is to be left out.
    fn check(
        file: &'a [u8],
        header: &ProgramHeader,
        index: usize,
        policy: &Policy,
    ) -> Result<Option<Self>, ElfError> {
        let &ProgramHeader { flags, offset, vaddr, paddr, file_size, memory_size, align, .. } = header;
        if memory_size < file_size {
            return Err(ElfError::MemorySmallerThanContents {
                segment: index,
                memory: memory_size,
                contents: file_size,
            });
        }
        if memory_size == 0 {
            // Linkers leave such a header behind where a section of the script turned out empty.
            return Ok(None);
        }
        let outside_file =
            ElfError::ContentsOutsideFile { segment: index, offset, size: file_size, length: file.len() };
        let contents = raw::slice(file, offset, file_size).ok_or(outside_file)?;
        let wraps = ElfError::AddressWraps { segment: index, vaddr, size: memory_size };
        let end = vaddr
            .checked_add(memory_size)
            .and_then(|end| end.checked_next_multiple_of(PAGE_SIZE))
            .ok_or(wraps)?;
        let start = page_of(vaddr);
        if start < policy.addresses.start || end > policy.addresses.end {
            if policy.below == Below::Skip && end <= policy.addresses.start {
                return Ok(None);
            }
            return Err(ElfError::AddressNotAllowed {
                segment: index,
                wanted: start..end,
                allowed: policy.addresses(),
            });
        }
        if !align.is_power_of_two() || align < PAGE_SIZE {
            return Err(ElfError::BadAlignment { segment: index, align });
        }
        if vaddr % align != offset % align {
            return Err(ElfError::NotCongruent { segment: index, offset, vaddr, align });
        }
        // x86-64 cannot map a page for writing or executing that is not readable.
        let access = match (flags & flag::WRITE != 0, flags & flag::EXECUTE != 0) {
            (true, true) => return Err(ElfError::WritableAndExecutable { segment: index }),
            (true, false) => Access::ReadWrite,
            (false, true) => Access::ReadExecute,
            (false, false) if flags & flag::READ != 0 => Access::Read,
            (false, false) => return Err(ElfError::NoAccess { segment: index }),
        };
        Ok(Some(Self { vaddr, paddr, memory_size, contents, access, align, index }))
    }

    /// The pages the segment touches: their first address and the end of the last one.
    pub fn page_range(&self) -> Range<u64> {
        // `check` computed the same end without overflow.
        page_of(self.vaddr)..(self.vaddr + self.memory_size).next_multiple_of(PAGE_SIZE)
    }

    /// The address of each page the segment touches, in ascending order.
    pub fn pages(&self) -> Pages {
        let range = self.page_range();
        Pages { next: range.start, left: (range.end - range.start) / PAGE_SIZE }
    }

    /// Fills `memory` with what the program finds at `address` when it starts: the contents where there are any,
    /// and zero before them, after them and outside the segment.
    pub fn read(&self, address: u64, memory: &mut [u8]) {
        // Positions in `memory`, as far as they can be expressed; both ends of the contents may lie outside it.
        let skip =
            usize::try_from(self.vaddr.saturating_sub(address)).unwrap_or(usize::MAX).min(memory.len());
        let from = usize::try_from(address.saturating_sub(self.vaddr)).unwrap_or(usize::MAX);
        let contents = self.contents.get(from..).unwrap_or(&[]);
        let (before, rest) = memory.split_at_mut(skip);
        let length = contents.len().min(rest.len());
        let (filled, after) = rest.split_at_mut(length);
        before.fill(0);
        filled.copy_from_slice(&contents[..length]);
        after.fill(0);
    }

    fn has_contents_at(&self, address: u64) -> bool {
        address.checked_sub(self.vaddr).is_some_and(|offset| offset < self.contents.len() as u64)
    }
}

impl core::fmt::Debug for Segment<'_> {
    // The contents are too long to be of use in a log.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "segment {} at {:#x}: {:#x} of {:#x} bytes from the file, {:?}, alignment {:#x}",
            self.index,
            self.vaddr,
            self.contents.len(),
            self.memory_size,
            self.access,
            self.align
        )
    }
}

impl core::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "entry {:#x}, ", self.entry)?;
        f.debug_list().entries(self.segments()).finish()
    }
}

impl Iterator for Pages {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let page = self.next;
        // The end of the last page may be the end of the allowed addresses, never of the address space.
        self.next += PAGE_SIZE;
        Some(page)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pages {}

fn page_of(address: u64) -> u64 {
    address - address % PAGE_SIZE
}
