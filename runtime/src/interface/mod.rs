//! What domains and the system's services say to each other over local message passing.
//!
//! * [`monitor`]: every domain and its core's monitor;
//! * [`spawn`]: the monitor and `init`, which makes and ends the domains of its core;
//! * [`mem`]: every domain and its core's memory server, which lends RAM;
//! * [`skb`]: the first core's monitor and the system knowledge base, which places memory and keeps names.
//!
//! Each protocol is a table of methods. A request's word 0 is the method; an answer's word 0 is 0 or the code of
//! the error. Names are 4 words of UTF-8, zero-padded ([`pack`]).

pub mod mem;
pub mod monitor;
pub mod skb;
pub mod spawn;

/// Words of a name or of an argument string.
pub const TEXT_WORDS: usize = 4;
/// Bytes of a name or of an argument string at most.
pub const TEXT_MAX: usize = TEXT_WORDS * 8;

/// A short text in words, or `None` if it is longer than [`TEXT_MAX`] bytes.
pub fn pack(text: &str) -> Option<[u64; TEXT_WORDS]> {
    let mut bytes = [0u8; TEXT_MAX];
    bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    let mut words = [0; TEXT_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Some(words)
}

/// A short text that came in words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text([u8; TEXT_MAX]);

impl Text {
    /// The text in four words.
    pub fn unpack(words: [u64; TEXT_WORDS]) -> Text {
        let mut bytes = [0; TEXT_MAX];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        Text(bytes)
    }

    /// The text; `None` if it is not UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        let len = self.0.iter().position(|b| *b == 0).unwrap_or(TEXT_MAX);
        core::str::from_utf8(&self.0[..len]).ok()
    }
}

/// Declares the methods of a protocol.
macro_rules! methods {
    ($(#[$doc:meta])* $type:ident { $( $(#[$vdoc:meta])* $name:ident = $code:literal; )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u64)]
        pub enum $type { $( $(#[$vdoc])* $name = $code, )* }

        impl $type {
            /// Every one.
            pub const ALL: &'static [$type] = &[$($type::$name,)*];

            /// The one with this code.
            pub const fn from_code(code: u64) -> Option<$type> {
                match code { $($code => Some($type::$name),)* _ => None }
            }
        }
    };
}
pub(crate) use methods;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_words() {
        for text in ["", "bench_ump_pingpong", "exactly thirty-two bytes long ab"] {
            assert_eq!(Text::unpack(pack(text).unwrap()).as_str(), Some(text));
        }
        assert_eq!(pack("this one has thirty-three bytes !"), None);
        assert_eq!(Text::unpack([u64::MAX; TEXT_WORDS]).as_str(), None);
    }
}
