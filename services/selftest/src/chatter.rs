//! A domain that executes message forms at random, with others that do the same.

use lmp::cptr::task;
use lmp::frame::Control;
use lmp::invocation::{MessageInfo, Op};
use lmp::{CPtr, layout, syscall};
use runtime::{Env, time};

use crate::Random;
use crate::exchange::Registers;

/// Slots in which it finds endpoints: first its own, then those of others.
pub const FIRST: u32 = 48;
/// Endpoints that each domain has.
pub const OWN: u32 = 2;
/// Slots that it uses for capabilities and rights to answer.
const SCRATCH: core::ops::Range<u32> = 96..104;
/// The longest that it waits, in TSC ticks.
const PATIENCE: u64 = 200_000;

/// Invokes `calls` forms; the exit code is 0, or 1 if a register that must stay did not.
pub fn run(env: &Env) -> u64 {
    let mut random = Random::new(env.number("seed", 1));
    let endpoints = env.number("endpoints", 1) as u32;
    let pattern = random.next_u64() | 1;
    let control = layout::DISPATCHER_FRAME as *mut Control;
    for _ in 0..env.number("calls", 100) {
        let any = CPtr::new(0, FIRST + random.below(endpoints.into()) as u32);
        let own = CPtr::new(0, FIRST + random.below(OWN.into()) as u32);
        let scratch = |random: &mut Random| {
            CPtr::new(0, SCRATCH.start + random.below((SCRATCH.end - SCRATCH.start).into()) as u32)
        };
        let listen = if random.below(2) == 0 { task::DISPATCHER } else { own };
        let (op, cap) = match random.below(12) {
            0 | 1 => (Op::Send, any),
            2 | 3 => (Op::Call, any),
            4 | 5 => (Op::Receive, listen),
            6 | 7 => (Op::ReplyReceive, listen),
            8 => (Op::Reply, if random.below(2) == 0 { task::DISPATCHER } else { scratch(&mut random) }),
            9 => (Op::SaveReply, task::DISPATCHER),
            10 => (Op::SetLanding, own),
            _ => {
                let _ = syscall::cap_delete(task::ROOT, scratch(&mut random));
                continue;
            }
        };
        // Mostly words only and without a deadline where the answer is likely, so that the short way is taken.
        let mut flags = 0;
        if random.below(3) == 0 {
            flags |= random.pick(&[
                MessageInfo::SEND_CAP,
                MessageInfo::SEND_CAP | MessageInfo::GIVE,
                MessageInfo::RECEIVE_CAP,
                MessageInfo::SEND_CAP | MessageInfo::RECEIVE_CAP,
            ]);
        }
        if random.below(8) > 0 {
            flags |= MessageInfo::DEADLINE;
        }
        // SAFETY: the frame is mapped; the CPU driver reads the word at the next form.
        unsafe {
            let deadline = time::now() + random.below(PATIENCE);
            (&raw mut (*control).receive_deadline).write_volatile(deadline);
        }
        if random.below(4) > 0 {
            runtime::events::take(u64::MAX);
        }
        let words = [u64::from(scratch(&mut random).0); 10];
        let len = random.below(11) as usize;
        let sent = if random.below(2) == 0 { any } else { scratch(&mut random) };
        let given =
            Registers::new(op, cap, &words[..len.max(1)], flags, pattern).slots(sent, scratch(&mut random));
        let found = given.execute();
        let kept = (found.rbp, found.mxcsr, found.fcw) == (given.rbp, given.mxcsr, given.fcw);
        if !kept || found.vector != 0 {
            return 1;
        }
    }
    0
}
