//! What a master and its peers say to each other.
//!
//! A message's kind is an [`Order`] of the master or an [`Answer`] of a peer; its words are what the variant says.
//! A peer answers every order but [`Order::Serve`] and [`Order::End`] with [`Answer::Done`] or [`Answer::Failed`].

use results::Accel;
use results::anchors::BENCHES;
use runtime::bench::RunInfo;
use runtime::interface::monitor::Iref;
use skb::Policy;
use ump::{Accepts, Kind, Message};

use crate::jobs::Job;

/// Messages of the control channels.
pub(super) const ACCEPTS: Accepts = Accepts::kinds_below(Kind(16));

/// Another peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PeerInfo {
    pub(super) core: u32,
    pub(super) node: u32,
    /// What the others bind to.
    pub(super) iref: Iref,
}

/// What a master tells a peer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// The run, and the benchmark by its place in [`BENCHES`].
    Setup { run: RunInfo, bench: usize },
    /// Accept a connection for `job`, as its consumer.
    Accept { job: Job },
    /// Connect to `peer` for `job`, as its producer.
    Connect { job: Job, peer: PeerInfo },
    /// From now on, until [`Order::Verify`], watch your core while you wait.
    Watch,
    /// Do the consumer's part on the connection from the peer on core `source`, until it says that it is done.
    Serve { source: u32 },
    /// Measure with the peer on core `dst`, which is on `node`.
    Drive { dst: u32, node: u32 },
    /// Answer how often something else happened on your core while you waited, and stop watching.
    Verify,
    /// Forget what was measured since [`Order::Watch`]: it is done again.
    Forget,
    /// Close all connections.
    Disconnect,
    /// Report the results. The answer has the number of samples rejected.
    Report,
    /// Come to your end.
    End,
}

/// What a peer tells its master.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// Here it is.
    Hello(PeerInfo),
    /// Done; what the number is, the order says.
    Done(u64),
    /// It did not work: the peer has said why on the console.
    Failed,
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl PeerInfo {
    fn encode(self) -> [u64; 2] {
        [pair(self.core, self.node), self.iref.0]
    }

    fn decode(place: u64, iref: u64) -> PeerInfo {
        let (core, node) = split(place);
        PeerInfo { core, node, iref: Iref(iref) }
    }
}

impl Order {
    pub(super) fn encode(self) -> Message {
        let message = |kind: u16, words: [u64; 6]| Message::new(Kind(kind), words);
        match self {
            Self::Setup { run, bench } => {
                let accel = Accel::ALL.iter().position(|accel| *accel == run.accel).unwrap_or(0);
                let machine = pair(run.cores, run.nodes);
                let policy = u64::from(run.policy.code());
                message(0, [accel as u64, machine, run.seed, policy, run.samples, bench as u64])
            }
            Self::Accept { job } => message(1, [job.encode(), 0, 0, 0, 0, 0]),
            Self::Connect { job, peer } => {
                let [place, iref] = peer.encode();
                message(2, [job.encode(), place, iref, 0, 0, 0])
            }
            Self::Watch => message(3, [0; 6]),
            Self::Serve { source } => message(4, [source.into(), 0, 0, 0, 0, 0]),
            Self::Drive { dst, node } => message(5, [pair(dst, node), 0, 0, 0, 0, 0]),
            Self::Verify => message(6, [0; 6]),
            Self::Forget => message(7, [0; 6]),
            Self::Disconnect => message(8, [0; 6]),
            Self::Report => message(9, [0; 6]),
            Self::End => message(10, [0; 6]),
        }
    }

    /// `None` for what is no order.
    pub(super) fn decode(message: &Message) -> Option<Order> {
        let [a, b, c, d, e, f, _] = *message.payload();
        Some(match message.kind().0 {
            0 => {
                let (cores, nodes) = split(b);
                let run = RunInfo {
                    accel: *Accel::ALL.get(a as usize)?,
                    cores,
                    nodes,
                    seed: c,
                    policy: Policy::from_code(u8::try_from(d).ok()?)?,
                    samples: e,
                };
                Self::Setup { run, bench: usize::try_from(f).ok().filter(|&f| f < BENCHES.len())? }
            }
            1 => Self::Accept { job: Job::decode(a)? },
            2 => Self::Connect { job: Job::decode(a)?, peer: PeerInfo::decode(b, c) },
            3 => Self::Watch,
            4 => Self::Serve { source: a as u32 },
            5 => {
                let (dst, node) = split(a);
                Self::Drive { dst, node }
            }
            6 => Self::Verify,
            7 => Self::Forget,
            8 => Self::Disconnect,
            9 => Self::Report,
            10 => Self::End,
            _ => return None,
        })
    }
}

impl Answer {
    pub(super) fn encode(self) -> Message {
        match self {
            Self::Hello(info) => Message::new(Kind(0), info.encode()),
            Self::Done(value) => Message::new(Kind(1), [value]),
            Self::Failed => Message::new(Kind(2), []),
        }
    }

    /// `None` for what is no answer.
    pub(super) fn decode(message: &Message) -> Option<Answer> {
        let [a, b, ..] = *message.payload();
        Some(match message.kind().0 {
            0 => Self::Hello(PeerInfo::decode(a, b)),
            1 => Self::Done(a),
            2 => Self::Failed,
            _ => return None,
        })
    }
}
