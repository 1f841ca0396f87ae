//! Scenario `lmp`: each message form against each state of the other side, with patterns in all registers.
//!
//! [`forms`] has words, badges and registers; [`waits`] events, deadlines and queues; [`cargo`] capabilities;
//! [`ends`] what becomes of the others when somebody ends in the middle;
//! [`chatter`] all of it at random. After each check all peers are taken down,
//! and all memory must be back.
#![no_std]
#![no_main]

extern crate alloc;

mod cargo;
mod chatter;
mod ends;
mod forms;
mod waits;

use alloc::format;
use alloc::string::String;
use core::fmt::Debug;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::frame::FRAME_SIZE;
use lmp::invocation::{Op, ReceivedInfo};
use lmp::message::Inbox;
use lmp::{CPtr, ObjType, Rights, SysError, layout, syscall};
use runtime::memory::{self, Object};
use runtime::{Env, events};
use selftest::exchange::{RBX, Registers, WORDS};
use selftest::peer::{GRANTS, LABELS, Peer};
use selftest::{Bystander, Test};

runtime::entry!(main);

/// The pattern in this domain's registers wherever nothing is sent.
const PATTERN: u64 = 0x1111_1111_1111_1111;
/// Events of this domain's endpoints.
const EVENTS: [u64; 2] = [9, 10];
/// Labels of this domain's endpoints.
const MY_LABELS: [u32; 2] = [0xbeef_0001, 0xbeef_0002];
/// Messages that fit into the buffer of each of this domain's endpoints.
const ROOM: u32 = 3;
/// The badge of the first peer's capability for this domain's first endpoint; each further peer has one more.
const BADGE: u64 = 100;
/// Slots of a peer: this domain's endpoints.
const TO_ME: [CPtr; 2] = [CPtr::new(0, GRANTS), CPtr::new(0, GRANTS + 1)];
/// The first slot of a peer for what the test wants it to have besides.
const EXTRA: u32 = GRANTS + 2;

/// Slot of a client: its server's first endpoint.
const TO_SERVER: CPtr = CPtr::new(0, EXTRA);

/// What a check comes to.
type Check = Result<(), String>;

/// A check and its name.
type Named = (&'static str, fn(&Stage, &Test) -> Check);

fn main(env: &Env) -> u64 {
    let mut test = Test::new(env);
    let stage = match Stage::new(&test) {
        Ok(stage) => stage,
        Err(why) => {
            test.check("lmp", Err::<(), _>(why));
            return test.finish();
        }
    };
    for (name, check) in [forms::CHECKS, waits::CHECKS, cargo::CHECKS, ends::CHECKS, chatter::CHECKS].concat()
    {
        // What a first use leaves behind for good, such as page tables, is not counted.
        let warm = check(&stage, &test).and_then(|()| stage.is_clear());
        let free = memory::stats().free;
        let result = warm
            .and_then(|()| check(&stage, &test))
            .and_then(|()| stage.is_clear())
            .and_then(|()| stage.bystander.check())
            .and_then(|()| {
                let left = free.saturating_sub(memory::stats().free);
                if left == 0 { Ok(()) } else { Err(format!("{left} bytes were left behind")) }
            });
        test.check(name, result);
    }
    test.finish()
}

/// What all checks use: this domain's two endpoints.
struct Stage {
    endpoints: [Object; 2],
    /// An empty slot of this domain.
    spare: CPtr,
    /// Goes on whatever happens.
    bystander: Bystander,
    ticks_per_ms: u64,
}

fn refused(what: &str) -> impl Fn(SysError) -> String {
    move |e| format!("{what}: {e}")
}

/// `found` must be `expected`.
fn expect<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Check {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:x?} instead of {expected:x?}")) }
}

/// The form must have been refused with `error`, and have left all registers alone.
fn expect_refused(what: &str, found: Registers, given: Registers, error: SysError) -> Check {
    expect(what, found.status(), Err(error))?;
    expect(&format!("{what}: the words"), found.words, given.words)?;
    expect_kept(what, found, given)
}

/// RBX and RBP, MXCSR and x87 control word must be as they were, the vector registers 0.
fn expect_kept(what: &str, found: Registers, given: Registers) -> Check {
    expect(&format!("{what}: rbx"), found.rbx, given.rbx)?;
    expect_scrubbed(what, found, given)
}

/// Besides RBX.
fn expect_scrubbed(what: &str, found: Registers, given: Registers) -> Check {
    expect(&format!("{what}: rbp"), found.rbp, given.rbp)?;
    expect(
        &format!("{what}: MXCSR and x87 control word"),
        (found.mxcsr, found.fcw),
        (given.mxcsr, given.fcw),
    )?;
    expect(&format!("{what}: vector registers"), found.vector, 0)?;
    if found.x87 == 0 || found.x87 == given.vector {
        Ok(())
    } else {
        Err(format!("{what}: x87 register {:#x}", found.x87))
    }
}

/// The words of a message of length `len`.
fn payload(len: usize, salt: u64) -> [u64; WORDS] {
    core::array::from_fn(|n| if n < len { salt << 8 | n as u64 } else { 0 })
}

/// What a receiver must find: the words and nothing else.
fn expect_message(
    what: &str,
    (found, given): (Registers, Registers),
    words: &[u64],
    info: ReceivedInfo,
    badge: u64,
) -> Check {
    expect(&format!("{what}: status"), found.status(), Ok(info))?;
    let mut all = [0; WORDS];
    all[..words.len()].copy_from_slice(words);
    expect(&format!("{what}: words"), found.words, all)?;
    expect(&format!("{what}: badge"), found.rbx, badge)?;
    expect_scrubbed(what, found, given)
}

/// What a caller must find: the words of the answer and nothing else.
fn expect_answer(what: &str, found: (Registers, Registers), words: &[u64], cap: bool) -> Check {
    expect_message(what, found, words, ReceivedInfo::new(words.len(), cap, false, 0), RBX)
}

impl Stage {
    fn new(test: &Test) -> Result<Stage, String> {
        let mut endpoints = [Object { cap: CPtr::NULL, physical: 0, size: 0 }; 2];
        for (n, e) in endpoints.iter_mut().enumerate() {
            *e = memory::allocate(ObjType::Endpoint, 0).map_err(|e| format!("{e}"))?;
            let offset = FRAME_SIZE + 1024 * n as u64;
            let (event, label) = (EVENTS[n], MY_LABELS[n]);
            syscall::endpoint_bind(e.cap, task::DISPATCHER, offset, ROOM.into(), event, label)
                .map_err(refused("binding"))?;
        }
        let spare = memory::slot().map_err(|e| format!("{e}"))?;
        let bystander = Bystander::start(test)?;
        Ok(Stage { endpoints, spare, bystander, ticks_per_ms: test.env().info().tsc_ticks_per_ms.max(1) })
    }

    /// The capability of endpoint `n`.
    fn endpoint(&self, n: usize) -> CPtr {
        self.endpoints[n].cap
    }

    /// Peer number `n`, which may send to this domain's endpoints, and has `extra` besides.
    fn peer(&self, test: &Test, n: u64, extra: &[(CPtr, Rights, u64)]) -> Result<Peer, String> {
        let mut grants = alloc::vec![
            (self.endpoint(0), Rights::WRITE | Rights::GRANT, BADGE + n),
            (self.endpoint(1), Rights::WRITE | Rights::GRANT, BADGE + n),
        ];
        grants.extend_from_slice(extra);
        Peer::start(test, 0x2222_2222_2222_2222 * (n + 1), &grants)
    }

    /// Peer number `n`, which may call the first endpoint of `server` besides, at [`TO_SERVER`].
    fn client_of(&self, test: &Test, n: u64, server: &Peer) -> Result<Peer, String> {
        let to_server = server.endpoints[0].cap;
        self.peer(test, n, &[(to_server, Rights::WRITE | Rights::GRANT, BADGE + n)])
    }

    /// Executes a form here.
    fn run(&self, op: Op, cap: CPtr, words: &[u64]) -> (Registers, Registers) {
        self.run_with(op, cap, words, 0, (CPtr::NULL, CPtr::NULL))
    }

    /// The same with flags and slots.
    fn run_with(
        &self,
        op: Op,
        cap: CPtr,
        words: &[u64],
        flags: u16,
        (send, landing): (CPtr, CPtr),
    ) -> (Registers, Registers) {
        let given = Registers::new(op, cap, words, flags, PATTERN).slots(send, landing);
        (given.execute(), given)
    }

    /// Receives here, from endpoint `n` or, if that is `None`, from all, the events of which are cleared first.
    fn receive(&self, n: Option<usize>) -> (Registers, Registers) {
        let _ = self.take_events();
        self.run(Op::Receive, n.map_or(task::DISPATCHER, |n| self.endpoint(n)), &[])
    }

    /// Fetches and clears the events of this domain's endpoints.
    fn take_events(&self) -> u64 {
        events::take(1 << EVENTS[0] | 1 << EVENTS[1])
    }

    /// Receives the call of peer `n` with `words` through endpoint `e`.
    fn expect_call(&self, what: &str, from: Option<usize>, e: usize, n: u64, words: &[u64]) -> Check {
        let info = ReceivedInfo::new(words.len(), false, true, MY_LABELS[e]);
        expect_message(what, self.receive(from), words, info, BADGE + n)
    }

    /// That nothing is left over for the next check.
    fn is_clear(&self) -> Check {
        let _ = self.take_events();
        let left = self.run(Op::Reply, task::DISPATCHER, &[]).0;
        expect("a caller is left over", left.status(), Err(SysError::NoCaller))
    }

    /// This domain's side of the buffer of endpoint `n`, of which `read` messages were read.
    fn inbox(&self, n: usize) -> Inbox {
        // SAFETY: the buffer is in this domain's frame, where `new` bound the endpoint to; one check at a time uses it.
        unsafe { Inbox::resume((layout::DISPATCHER_FRAME + FRAME_SIZE + 1024 * n as u64) as *mut _, ROOM) }
    }
}

/// What is in the registers of a form of a domain with this pattern.
fn pattern(pattern: u64) -> Registers {
    Registers::new(Op::Receive, CPtr::NULL, &[], 0, pattern)
}

/// Sets the deadline of this domain's receives.
fn set_deadline(tsc: u64) {
    let control = layout::DISPATCHER_FRAME as *mut lmp::frame::Control;
    // SAFETY: the frame is mapped; the CPU driver reads the word at the next receive.
    unsafe { (&raw mut (*control).receive_deadline).write_volatile(tsc) };
}

/// The info of a message with `len` words at endpoint `n` of a peer.
fn at_peer(len: usize, call: bool, n: usize) -> ReceivedInfo {
    ReceivedInfo::new(len, false, call, LABELS[n])
}
