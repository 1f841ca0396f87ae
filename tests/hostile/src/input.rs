//! From the bytes of a fuzzer to register words.
//!
//! Every word can be expressed, and those that mean something in a few bytes, so that a fuzzer comes upon them.

/// What is left of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// The next byte; `None` at the end.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next word. The two upper bits of its first byte say how it is written:
    ///
    /// | bits | the word |
    /// |---|---|
    /// | 00 | the lower six bits |
    /// | 01 | a slot: bit 5 set: the L1 slot in the next byte; else the lower five bits index the L1 CNode, the next byte the L2 CNode |
    /// | 10 | the next byte, shifted left by the lower six bits |
    /// | 11 | the next eight bytes |
    ///
    /// Bytes past the end are zero.
    pub(crate) fn word(&mut self) -> u64 {
        let tag = self.byte().unwrap_or(0);
        let low = u64::from(tag & 63);
        match tag >> 6 {
            0 => low,
            1 if low & 32 != 0 => 1 << 32 | self.next(),
            1 => low << 8 | self.next(),
            2 => self.next() << low,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.next() as u8)),
        }
    }

    fn next(&mut self) -> u64 {
        self.byte().unwrap_or(0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_in_four_ways() {
        let mut input = Input::new(&[5, 0x60, 7, 0x43, 9, 0x8c, 3, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8, 0xc0, 1]);
        let words: [u64; 6] = std::array::from_fn(|_| input.word());
        assert_eq!(words, [5, 1 << 32 | 7, 3 << 8 | 9, 3 << 12, 0x0807_0605_0403_0201, 1]);
        assert_eq!(input.byte(), None);
    }
}
