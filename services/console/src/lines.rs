//! From the bytes of a stream to lines.
//!
//! What a domain writes is not trusted: control characters do not reach the terminal, a record is a line of
//! printable text and nothing else, and no line is longer than [`MAX_LINE`] bytes.

use alloc::vec::Vec;

use runtime::directory::RECORD_MARK;

/// Bytes of a line at most. A longer text is broken; a longer record is dropped.
pub const MAX_LINE: usize = 4096;

/// A line that is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// Text for people.
    Text(&'a str),
    /// A record for the results port, without its mark.
    Record(&'a str),
    /// A record that is too long or has characters that no record has.
    BadRecord,
}

/// Collects the bytes of one stream.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// The current line was broken before.
    broken: bool,
}

impl Lines {
    /// No bytes yet.
    pub const fn new() -> Lines {
        Lines { bytes: Vec::new(), broken: false }
    }

    /// Adds `bytes`, calling `emit` with each line that is complete.
    pub fn feed(&mut self, bytes: &[u8], mut emit: impl FnMut(Line<'_>)) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end(&mut emit);
                continue;
            }
            if self.bytes.len() == MAX_LINE {
                if self.is_record() {
                    // The rest of it is no line either.
                    self.broken = true;
                    continue;
                }
                self.end(&mut emit);
            }
            self.bytes.push(byte);
        }
    }

    /// Ends the last line, if it has begun: nothing more will come.
    pub fn finish(&mut self, mut emit: impl FnMut(Line<'_>)) {
        if !self.bytes.is_empty() {
            self.end(&mut emit);
        }
    }

    fn is_record(&self) -> bool {
        self.bytes.first() == Some(&(RECORD_MARK as u8))
    }

    fn end(&mut self, emit: &mut impl FnMut(Line<'_>)) {
        if self.is_record() {
            let text = self.bytes.get(1..).and_then(|b| core::str::from_utf8(b).ok());
            match text {
                Some(text) if !self.broken && !text.chars().any(char::is_control) => emit(Line::Record(text)),
                _ => emit(Line::BadRecord),
            }
        } else {
            for byte in &mut self.bytes {
                let harmless = matches!(*byte, b'\t' | b' '..=b'~' | 0x80..);
                if !harmless {
                    *byte = b'?';
                }
            }
            for chunk in self.bytes.utf8_chunks() {
                if !chunk.invalid().is_empty() {
                    // Rare, and not worth more than saying that there was something.
                    emit(Line::Text("(a line that is not UTF-8)"));
                    self.bytes.clear();
                    self.broken = false;
                    return;
                }
            }
            emit(Line::Text(core::str::from_utf8(&self.bytes).unwrap_or_default()));
        }
        self.bytes.clear();
        self.broken = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn lines(bytes: &[u8]) -> std::vec::Vec<String> {
        let mut lines = Lines::new();
        let mut out = std::vec::Vec::new();
        for part in bytes.chunks(7) {
            lines.feed(part, |l| out.push(std::format!("{l:?}")));
        }
        lines.finish(|l| out.push(std::format!("{l:?}")));
        out
    }

    #[test]
    fn text_and_records_are_told_apart() {
        assert_eq!(
            lines(b"hello\n\x1e{\"a\":1}\n\nrest"),
            [r#"Text("hello")"#, r#"Record("{\"a\":1}")"#, r#"Text("")"#, r#"Text("rest")"#]
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(lines(b"\x1b[2Jx\r\n"), [r#"Text("?[2Jx?")"#]);
        assert_eq!(lines(b"a\xffb\n"), [r#"Text("(a line that is not UTF-8)")"#]);
        assert_eq!(lines("é\n".as_bytes()), [r#"Text("é")"#]);
    }

    #[test]
    fn a_record_is_whole_printable_text_or_nothing() {
        assert_eq!(lines(b"\x1ea\x1eb\n"), ["BadRecord"]);
        assert_eq!(lines(b"\x1e\xff\n"), ["BadRecord"]);
        let mut long = std::vec![b'x'; 2 * MAX_LINE];
        long[0] = 0x1e;
        long.extend(b"\nnext\n");
        assert_eq!(lines(&long), ["BadRecord", r#"Text("next")"#]);
    }

    #[test]
    fn long_text_is_broken_not_lost() {
        let text = std::vec![b'y'; MAX_LINE + 5];
        let got = lines(&text);
        assert_eq!(got.len(), 2);
        assert_eq!(got[1], r#"Text("yyyyy")"#);
    }
}
