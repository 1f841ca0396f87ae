//! Invocations at random: every operation on whatever is in the slots, with awkward words.

use core::arch::asm;

use lmp::CPtr;
use lmp::invocation::{Op, header_with};
use runtime::Env;
use selftest::{Random, Shared};

/// Word of the shared page that counts invocations.
const COUNT: usize = 0;
/// Word of the shared page that counts those that were granted.
const GRANTED: usize = 1;

pub(crate) fn run(env: &Env, shared: &Shared) -> u64 {
    let mut random = Random::new(env.number("seed", 1));
    for _ in 0..env.number("calls", 1000) {
        let cap = match random.below(8) {
            0 => CPtr(random.next_u64() as u32),
            1 => CPtr::new(0, random.below(256) as u32),
            _ => CPtr::new(0, random.below(16) as u32),
        };
        let header = match random.below(16) {
            0 => random.next_u64(),
            _ => header_with(cap, random.pick(Op::ALL), random.awkward() as u16),
        };
        // A stop, or an end by one's own hand, is granted like everything else; but not at every turn.
        let ends = [Op::Exit, Op::Block, Op::Suspend].map(|op| op as u64);
        if ends.contains(&(header >> 32 & 0xffff)) && random.below(64) != 0 {
            continue;
        }
        let mut word = || match random.below(3) {
            0 => u64::from(CPtr::new(0, random.below(64) as u32).0),
            _ => random.awkward(),
        };
        let words = core::array::from_fn(|_| word());
        let status = invoke(header, words);
        shared.set(COUNT, shared.get(COUNT) + 1);
        if status as u16 == 0 {
            shared.set(GRANTED, shared.get(GRANTED) + 1);
        }
    }
    0
}

/// A system call with any registers at all; its status word.
fn invoke(header: u64, words: [u64; 10]) -> u64 {
    let status;
    // SAFETY: every register that a system call may change is declared. What the invocation does to this domain
    // is the point: the domain's parent is prepared for its end, and it can harm nobody else.
    unsafe {
        asm!("syscall", inlateout("rax") header => status,
            inlateout("rdi") words[0] => _, inlateout("rsi") words[1] => _, inlateout("rdx") words[2] => _,
            inlateout("r8") words[3] => _, inlateout("r9") words[4] => _, inlateout("r10") words[5] => _,
            inlateout("r12") words[6] => _, inlateout("r13") words[7] => _, inlateout("r14") words[8] => _,
            inlateout("r15") words[9] => _, lateout("rcx") _, lateout("r11") _, clobber_abi("C"));
    }
    status
}
