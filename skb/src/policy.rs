//! [`Policy`]: where a channel's lines, rings and buffers are to lie, by name.

use core::fmt;

macro_rules! policies {
    ($( $(#[$doc:meta])* $name:ident = $code:literal, $word:literal; )*) => {
        /// A placement policy. What each does is in `place`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(u8)]
        pub enum Policy { $( $(#[$doc])* $name = $code, )* }

        impl Policy {
            /// All of them.
            pub const ALL: &'static [Policy] = &[$(Policy::$name,)*];

            /// Its name on the command line and in results.
            pub const fn word(self) -> &'static str {
                match self { $(Policy::$name => $word,)* }
            }

            /// The policy of that name.
            pub fn from_word(word: &str) -> Option<Policy> {
                Self::ALL.iter().copied().find(|p| p.word() == word)
            }

            /// Its number in messages.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The policy of that number.
            pub const fn from_code(code: u8) -> Option<Policy> {
                match code { $($code => Some(Policy::$name),)* _ => None }
            }
        }
    };
}

policies! {
    /// Everything on the producer's node.
    Producer = 0, "producer";
    /// Everything on the consumer's node.
    Consumer = 1, "consumer";
    /// Each ring on the node of who polls it, the data with the producer.
    #[default]
    SplitPoller = 2, "split-poller";
    /// The data's chunks on all nodes in turn, each ring with who polls it.
    Interleave = 3, "interleave";
    /// A control: everything where it is dearest in the model.
    Worst = 4, "worst";
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
