//! The protocol between the first core's monitor and each other one, version [`VERSION`].
//!
//! | message | kind | words | from |
//! |---|---|---|---|
//! | hello | 0 | version, core, APIC id | a monitor that has started |
//! | ping | 1 | number | the first core's |
//! | pong | 2 | the same number | the other |
//!
//! Everything else that monitors say to each other is in [`wire`](crate::wire).
//!
//! A monitor says hello once, first. Then the first core's may ping it, one ping at a time, and it answers each.
//! Which core a message is from follows from the channel; the core in a hello is only compared with it.
//!
//! [`Leader`] and [`Member`] are the two ends: plain state machines that take a message and say what to do.
//! What does not belong there is counted and ignored: a peer's mistakes are its own.

use core::fmt;

use ump::{Accepts, Kind, Message};

use crate::wire::Intermon;

/// The version of this protocol.
pub const VERSION: u64 = 1;

/// A monitor has started.
pub const HELLO: Kind = Kind(0);
/// Are you there?
pub const PING: Kind = Kind(1);
/// I am.
pub const PONG: Kind = Kind(2);

/// What a channel between monitors carries: these, and the messages of [`Intermon`].
pub const ACCEPTS: Accepts = Accepts::kinds_below(Kind(Intermon::KINDS_END));

/// Why the first core's monitor does not take a core for up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It speaks another version.
    Version {
        /// The version it speaks.
        found: u64,
    },
    /// It says it is another core than the one the channel belongs to.
    WrongCore {
        /// The core it says it is.
        claimed: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => {
                write!(f, "its monitor speaks version {found}, this one {VERSION}: build both from one tree")
            }
            Self::WrongCore { claimed } => write!(f, "its monitor says it is core {claimed}"),
        }
    }
}

/// Where the first core's monitor stands with another core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// No hello yet.
    Silent,
    /// It said hello and answered all pings.
    Up,
    /// It was sent a ping that it has not answered.
    Pinged {
        /// The ping's number.
        number: u64,
    },
    /// Its hello was wrong: nothing it says counts.
    Refused(Refusal),
}

/// What came of a message to the [`Leader`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The core is up.
    Up,
    /// The core is refused.
    Refused(Refusal),
    /// It answered the ping.
    Answered,
    /// The message did not belong there.
    Ignored,
}

/// The first core's end of the channel to one other monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leader {
    core: u32,
    standing: Standing,
    next: u64,
    ignored: u64,
}

impl Leader {
    /// The end for `core`, whose monitor has not spoken yet.
    pub const fn new(core: u32) -> Leader {
        Leader { core, standing: Standing::Silent, next: 1, ignored: 0 }
    }

    /// The core at the other end.
    pub const fn core(&self) -> u32 {
        self.core
    }

    /// Where it stands.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether its hello was right.
    pub const fn is_up(&self) -> bool {
        matches!(self.standing, Standing::Up | Standing::Pinged { .. })
    }

    /// Messages that did not belong there.
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }

    /// A ping to send now; `None` unless the core is up and no ping is out.
    pub fn ping(&mut self) -> Option<Message> {
        if self.standing != Standing::Up {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.standing = Standing::Pinged { number };
        Some(Message::new(PING, [number]))
    }

    /// Takes a message from the core.
    pub fn step(&mut self, message: &Message) -> Outcome {
        match (self.standing, message.kind(), message.words()) {
            (Standing::Silent, HELLO, &[version, claimed, _apic_id]) => {
                let refusal = if version != VERSION {
                    Some(Refusal::Version { found: version })
                } else if claimed != u64::from(self.core) {
                    Some(Refusal::WrongCore { claimed })
                } else {
                    None
                };
                match refusal {
                    Some(refusal) => {
                        self.standing = Standing::Refused(refusal);
                        Outcome::Refused(refusal)
                    }
                    None => {
                        self.standing = Standing::Up;
                        Outcome::Up
                    }
                }
            }
            (Standing::Pinged { number }, PONG, &[answered]) if answered == number => {
                self.standing = Standing::Up;
                Outcome::Answered
            }
            _ => {
                self.ignored += 1;
                Outcome::Ignored
            }
        }
    }
}

/// Another core's end of its channel to the first core's monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    core: u32,
    apic_id: u32,
    ignored: u64,
}

impl Member {
    /// The end of `core`.
    pub const fn new(core: u32, apic_id: u32) -> Member {
        Member { core, apic_id, ignored: 0 }
    }

    /// The message to begin with.
    pub const fn hello(&self) -> Message {
        Message::new(HELLO, [VERSION, self.core as u64, self.apic_id as u64])
    }

    /// Messages that did not belong there.
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Takes a message from the first core's monitor; the answer to send.
    pub fn step(&mut self, message: &Message) -> Option<Message> {
        match (message.kind(), message.words()) {
            (PING, &[number]) => Some(Message::new(PONG, [number])),
            _ => {
                self.ignored += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hello_then_ping_and_pong() {
        let (mut leader, mut member) = (Leader::new(3), Member::new(3, 17));
        assert_eq!((leader.ping(), leader.is_up()), (None, false), "not before the hello");
        assert_eq!(leader.step(&member.hello()), Outcome::Up);
        for _ in 0..3 {
            let ping = leader.ping().unwrap();
            assert_eq!(leader.ping(), None, "one at a time");
            let pong = member.step(&ping).unwrap();
            assert_eq!(leader.step(&pong), Outcome::Answered);
            assert_eq!(leader.step(&pong), Outcome::Ignored, "twice");
        }
        assert_eq!((leader.ignored(), member.ignored()), (3, 0));
        assert_eq!(leader.step(&member.hello()), Outcome::Ignored, "a second hello");
        assert_eq!(leader.standing(), Standing::Up);
    }

    #[test]
    fn a_wrong_hello_is_refused_for_good() {
        let mut leader = Leader::new(3);
        let refusal = Refusal::Version { found: 2 };
        assert_eq!(leader.step(&Message::new(HELLO, [2, 3, 0])), Outcome::Refused(refusal));
        assert_eq!(leader.step(&Member::new(3, 0).hello()), Outcome::Ignored);
        assert_eq!(leader.ping(), None);

        let mut leader = Leader::new(3);
        let refusal = Refusal::WrongCore { claimed: 4 };
        assert_eq!(leader.step(&Member::new(4, 0).hello()), Outcome::Refused(refusal));
        assert_eq!(refusal.to_string(), "its monitor says it is core 4",);
        assert_eq!(
            Refusal::Version { found: 2 }.to_string(),
            "its monitor speaks version 2, this one 1: build both from one tree",
        );
    }

    #[test]
    fn the_lengths_of_messages_are_checked() {
        let mut leader = Leader::new(0);
        assert_eq!(leader.step(&Message::new(HELLO, [VERSION])), Outcome::Ignored);
        assert_eq!(leader.standing(), Standing::Silent);
        let mut member = Member::new(1, 1);
        assert_eq!(member.step(&Message::new(PING, [1, 2])), None);
        assert_eq!(member.step(&Message::new(HELLO, [1, 1, 1])), None);
        assert_eq!(member.ignored(), 2);
    }

    proptest! {
        /// Whatever comes, only the right hello makes a core up and only the right pong answers a ping.
        #[test]
        fn no_message_upsets_a_leader(
            messages in prop::collection::vec((0u16..3, prop::collection::vec(0u64..4, 0..5), any::<bool>()), 0..60)
        ) {
            let mut leader = Leader::new(2);
            for (kind, words, ping) in messages {
                if ping {
                    let ready = leader.standing() == Standing::Up;
                    prop_assert_eq!(leader.ping().is_some(), ready);
                }
                let before = leader.standing();
                let message = Message::from_words(Kind(kind), &words).unwrap();
                let outcome = leader.step(&message);
                match outcome {
                    Outcome::Up => {
                        prop_assert_eq!(before, Standing::Silent);
                        prop_assert_eq!((kind, words[0], words[1]), (0, VERSION, 2));
                    }
                    Outcome::Answered => {
                        prop_assert_eq!(before, Standing::Pinged { number: words[0] });
                    }
                    Outcome::Refused(_) => prop_assert_eq!(before, Standing::Silent),
                    Outcome::Ignored => prop_assert_eq!(before, leader.standing()),
                }
            }
        }
    }
}
