//! Any file, as an executable.

use boot_elf::{Access, Image, MAX_SEGMENTS, PAGE_SIZE, Policy};

/// Bytes of memory that the policies grant.
const MEMORY: u64 = 1 << 20;

/// Reads `file` under each policy that a loader uses. It never panics, every refusal says why, and what is
/// accepted keeps what a loader relies on.
pub fn elf(file: &[u8]) {
    for policy in
        [Policy::user(MEMORY), Policy::kernel(MEMORY), Policy::user(MEMORY).at(0..u64::MAX), Policy::user(0)]
    {
        match Image::parse(file, policy.clone()) {
            Ok(image) => check(file, &image, &policy),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// The promises, from the numbers of the segments alone and in numbers that cannot wrap around.
fn check(file: &[u8], image: &Image<'_>, policy: &Policy) {
    let segments: Vec<_> = image.segments().collect();
    assert!((1..=MAX_SEGMENTS).contains(&segments.len()));
    let allowed = policy.addresses();
    let page = u128::from(PAGE_SIZE);
    // First page and the end of the last one, with the page's access.
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    for s in &segments {
        let (start, bytes) = (u128::from(s.vaddr), u128::from(s.memory_size));
        assert!(bytes > 0 && s.contents.len() as u128 <= bytes, "{s:?}: more contents than memory");
        assert!(lies_within(s.contents, file), "{s:?}: contents from outside the file");
        let (first, end) = (start / page * page, (start + bytes).div_ceil(page) * page);
        assert!(u128::from(allowed.start) <= first && end <= u128::from(allowed.end), "{s:?}: not allowed");
        assert!(!(s.access.is_writable() && s.access.is_executable()), "{s:?}: W and X");
        for (other_first, other_end) in &ranges {
            assert!(end <= *other_first || *other_end <= first, "{s:?}: shares a page");
        }
        assert!(ranges.last().is_none_or(|(_, before)| *before <= first), "{s:?}: out of order");
        ranges.push((first, end));
        check_pages(s, first, end);
    }
    let memory: u128 = ranges.iter().map(|(first, end)| end - first).sum();
    assert_eq!(memory, u128::from(image.memory()));
    assert!(memory <= u128::from(MEMORY), "more memory than granted");
    let span = image.span();
    assert_eq!((u128::from(span.start), u128::from(span.end)), (ranges[0].0, ranges[ranges.len() - 1].1));
    let entry = u128::from(image.entry());
    let in_text = segments.iter().any(|s| {
        let start = u128::from(s.vaddr);
        s.access == Access::ReadExecute && (start..start + s.contents.len() as u128).contains(&entry)
    });
    assert!(in_text, "the entry {entry:#x} is in no executable contents");
}

/// Every page from `first` to `end`, once each and in order, holds the contents and else zeroes.
fn check_pages(segment: &boot_elf::Segment<'_>, first: u128, end: u128) {
    let mut expected = first;
    let mut page = [0xee; PAGE_SIZE as usize];
    for address in segment.pages() {
        assert_eq!(u128::from(address), expected);
        segment.read(address, &mut page);
        for (i, byte) in page.iter().enumerate() {
            let at = (u128::from(address) + i as u128).checked_sub(u128::from(segment.vaddr));
            let from_file = at.and_then(|at| segment.contents.get(usize::try_from(at).ok()?));
            assert_eq!(*byte, from_file.copied().unwrap_or(0));
        }
        expected += u128::from(PAGE_SIZE);
    }
    assert_eq!(expected, end);
}

fn lies_within(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    part.is_empty() || (whole.start <= part.start && part.end <= whole.end)
}
