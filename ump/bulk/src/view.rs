//! [`View`]: data in shared memory, to be read.

use crate::memory::Word;

/// Bytes in a word.
const WORD_BYTES: usize = size_of::<Word>();

/// Words in a cache line: loops go by lines, since the compiler does not unroll those over atomics.
const LINE_WORDS: usize = ump::LINE_BYTES / WORD_BYTES;

/// Data in shared memory that begin at a word. They can be read but not changed here; whether somebody else
/// can change them is a matter of the buffer they lie in.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Exactly those that the bytes begin in.
    words: &'a [Word],
    bytes: usize,
}

impl<'a> View<'a> {
    /// All of `words`.
    pub fn of(words: &'a [Word]) -> Self {
        Self { words, bytes: size_of_val(words) }
    }

    /// The `length` bytes at `offset` bytes of `words`, if they begin at a word and are there.
    #[inline]
    pub(crate) fn part(words: &'a [Word], offset: usize, length: usize) -> Option<Self> {
        let first = offset / WORD_BYTES;
        let end = offset.checked_add(length)?.div_ceil(WORD_BYTES);
        let words = words.get(first..end)?;
        offset.is_multiple_of(WORD_BYTES).then_some(Self { words, bytes: length })
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The value of word `index`, if there is one; of the last only the bytes that belong to the data, the
    /// others zero.
    pub fn word(&self, index: usize) -> Option<u64> {
        let value = self.words.get(index)?.load();
        let bytes = self.bytes - index * WORD_BYTES;
        Some(if bytes < WORD_BYTES { value & !(u64::MAX << (8 * bytes)) } else { value })
    }

    /// The values of all words, the last one as [`word`](Self::word) tells. Each is loaded once.
    pub fn words(self) -> impl Iterator<Item = u64> + 'a {
        (0..self.words.len()).map_while(move |index| self.word(index))
    }

    /// Copies the data to private memory and returns how many bytes: no more than there is room for.
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.bytes);
        for (bytes, word) in out[..count].chunks_mut(WORD_BYTES).zip(self.words) {
            bytes.copy_from_slice(&word.load().to_le_bytes()[..bytes.len()]);
        }
        count
    }

    /// Copies the data to `out` and returns how many words: no more than there is room for. Of the last word
    /// everything is copied.
    pub fn copy_words_to(&self, out: &[Word]) -> usize {
        copy_words(self.words, out)
    }

    /// The sum of all bytes: what a consumer does that looks at everything once. It is the same work for
    /// data in a buffer and for a private copy.
    pub fn byte_sum(&self) -> u64 {
        let (whole, last) = self.words.split_at(self.bytes / WORD_BYTES);
        let (lines, rest) = whole.as_chunks::<LINE_WORDS>();
        let mut sum = 0;
        // Four sums of 16 bits side by side: 128 words add at most 128 × 2 × 255 to each.
        for block in lines.chunks(128 / LINE_WORDS) {
            let mut lanes = 0;
            for line in block {
                line.iter().for_each(|word| lanes += pairs(word.load()));
            }
            sum += across(lanes);
        }
        sum += across(rest.iter().fold(0, |lanes, word| lanes + pairs(word.load())));
        match last {
            [] => sum,
            _ => sum + across(pairs(self.word(whole.len()).unwrap_or_default())),
        }
    }
}

/// The sums of the four pairs of bytes, 16 bits each.
#[inline(always)]
fn pairs(word: u64) -> u64 {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    (word & EVEN) + (word >> 8 & EVEN)
}

/// The sum of the four lanes of 16 bits.
#[inline(always)]
fn across(lanes: u64) -> u64 {
    const EVEN: u64 = 0x0000_ffff_0000_ffff;
    let halves = (lanes & EVEN) + (lanes >> 16 & EVEN);
    (halves & 0xffff_ffff) + (halves >> 32)
}

/// Copies words, as many as both sides have, and returns how many.
pub(crate) fn copy_words(from: &[Word], to: &[Word]) -> usize {
    let count = from.len().min(to.len());
    let (from, to) = (from[..count].as_chunks::<LINE_WORDS>(), to[..count].as_chunks::<LINE_WORDS>());
    for (from, to) in from.0.iter().zip(to.0) {
        from.iter().zip(to).for_each(|(from, to)| to.store(from.load()));
    }
    from.1.iter().zip(to.1).for_each(|(from, to)| to.store(from.load()));
    count
}
