//! [`Policy`]: where a channel's lines, rings and buffers are to lie, by name; [`Rule`]: by name or by node.

use core::fmt;

use crate::id::NodeId;

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
    /// Everything on the node of who makes the channel, as first touch does.
    Creator = 5, "creator";
    /// Each ring on the node of who writes it, the data with the producer.
    SplitWriter = 6, "split-writer";
    /// Each ring on the node of who polls it, the data with the consumer.
    ConsumerData = 7, "consumer-data";
    /// A control: each part on a node that the seed chooses.
    Random = 8, "random";
    /// Whatever other policy is the cheapest in the model, controls excepted.
    Auto = 9, "auto";
}

impl Policy {
    /// Whether it is meant to be good: not a control, and not defined by the others.
    pub const fn is_for_use(self) -> bool {
        !matches!(self, Self::Worst | Self::Random | Self::Auto)
    }
}

/// What decides where the parts of a channel lie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// A policy.
    Named(Policy),
    /// Everything on this node, or nothing.
    Bind(NodeId),
    /// Everything on this node, or on the nearest to it that has room.
    Preferred(NodeId),
}

impl From<Policy> for Rule {
    fn from(policy: Policy) -> Self {
        Self::Named(policy)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(policy) => fmt::Display::fmt(policy, f),
            Self::Bind(node) => write!(f, "bind({node})"),
            Self::Preferred(node) => write!(f, "preferred({node})"),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The command line is read below this crate, and knows the policies by name only.
const _: () = {
    assert!(Policy::ALL.len() == boot_info::POLICIES.len());
    let mut i = 0;
    while i < Policy::ALL.len() {
        let (ours, theirs) = (Policy::ALL[i].word().as_bytes(), boot_info::POLICIES[i].as_bytes());
        assert!(ours.len() == theirs.len());
        let mut byte = 0;
        while byte < ours.len() {
            assert!(ours[byte] == theirs[byte]);
            byte += 1;
        }
        i += 1;
    }
};
