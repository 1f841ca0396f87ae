//! The user side of messages: send, call, receive, reply, with the words in registers.
//!
//! [`call`], [`send`], [`receive`], [`reply_receive`] and [`reply`] carry words only and wait for as long as it
//! takes; those with `_with` carry a capability, name a slot for one, or wait until the dispatcher frame's
//! deadline ([`Along`]). How many words are sent and wanted is part of the type: only those are put into
//! registers and taken out.
//!
//! What a receiver does not receive in registers lies in its endpoint's buffer: [`Inbox`].

use core::arch::asm;
use core::mem::MaybeUninit;
use core::sync::atomic::{Ordering, compiler_fence};

use crate::cptr::{CPtr, task};
use crate::error::{SysError, SysResult};
use crate::frame::{EndpointBuffer, Message};
use crate::invocation::{MessageInfo, Op, ReceivedInfo, header_with};
use crate::syscall;

/// What goes along with the words of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Along {
    /// The capability to send.
    pub cap: Cargo,
    /// The empty slot for one that comes; [`CPtr::NULL`] for none.
    pub landing: CPtr,
    /// How long to wait.
    pub patience: Patience,
}

/// A capability to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cargo {
    /// None.
    #[default]
    None,
    /// A copy of the one in this slot.
    Copy(CPtr),
    /// The one in this slot, which is empty afterwards.
    Give(CPtr),
}

/// How long to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Patience {
    /// For as long as it takes.
    #[default]
    Endless,
    /// Until the `receive_deadline` in the dispatcher frame.
    Deadline,
}

impl Along {
    fn flags(&self) -> u16 {
        let cap = match self.cap {
            Cargo::None => 0,
            Cargo::Copy(_) => MessageInfo::SEND_CAP,
            Cargo::Give(_) => MessageInfo::SEND_CAP | MessageInfo::GIVE,
        };
        let landing = if self.landing == CPtr::NULL { 0 } else { MessageInfo::RECEIVE_CAP };
        let deadline = match self.patience {
            Patience::Endless => 0,
            Patience::Deadline => MessageInfo::DEADLINE,
        };
        cap | landing | deadline
    }

    fn slots(&self) -> u64 {
        let cap = match self.cap {
            Cargo::None => CPtr::NULL,
            Cargo::Copy(slot) | Cargo::Give(slot) => slot,
        };
        u64::from(cap.0) | u64::from(self.landing.0) << 32
    }
}

/// A message that was received, of which `N` words were wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<const N: usize> {
    /// Number of words, whether it is a call, the endpoint's label.
    pub info: ReceivedInfo,
    /// The badge of the capability it was sent through.
    pub badge: u64,
    /// The first words; what was not sent is 0.
    pub words: [u64; N],
}

/// An answer to a call, of which `N` words were wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer<const N: usize> {
    /// Number of words, and whether a capability came.
    pub info: ReceivedInfo,
    /// The first words; what was not sent is 0.
    pub words: [u64; N],
}

/// Word `n`, or whatever is in the register.
#[inline(always)]
fn word(words: &[u64], n: usize) -> MaybeUninit<u64> {
    words.get(n).map_or(MaybeUninit::uninit(), |w| MaybeUninit::new(*w))
}

/// What the registers hold after a message form.
struct Registers {
    rax: u64,
    badge: u64,
    words: [u64; MessageInfo::WORDS_MAX],
}

impl Registers {
    /// What `rax` says.
    #[inline(always)]
    fn info(&self) -> SysResult<ReceivedInfo> {
        syscall::check(self.rax).map(|()| ReceivedInfo(self.rax))
    }

    /// The words that are wanted.
    #[inline(always)]
    fn words<const N: usize>(&self) -> [u64; N] {
        const { assert!(N <= MessageInfo::WORDS_MAX) };
        core::array::from_fn(|n| self.words[n])
    }
}

macro_rules! message_form {
    ($(#[$doc:meta])* $name:ident(header, words $(, $slots:ident)?): $($line:literal)*) => {
        $(#[$doc])*
        #[inline(always)]
        fn $name(header: u64, words: &[u64] $(, $slots: u64)?) -> Registers {
            let (rax, badge): (u64, u64);
            let (w0, w1, w2, w3, w4): (u64, u64, u64, u64, u64);
            let (w5, w6, w7, w8, w9): (u64, u64, u64, u64, u64);
            let r11: MaybeUninit<u64> = message_form!(@r11 $($slots)?);
            // SAFETY: the ABI (module `invocation`) says which registers the kernel changes; all are declared,
            // or saved and restored here. The kernel writes no memory of the domain but its dispatcher frame and
            // what the invoked capabilities stand for.
            unsafe {
                asm!(
                    $($line,)*
                    inlateout("rax") header => rax,
                    inlateout("rdi") word(words, 0) => w0,
                    inlateout("rsi") word(words, 1) => w1,
                    inlateout("rdx") word(words, 2) => w2,
                    inlateout("r8") word(words, 3) => w3,
                    inlateout("r9") word(words, 4) => w4,
                    inlateout("r10") word(words, 5) => w5,
                    inlateout("r12") word(words, 6) => w6,
                    inlateout("r13") word(words, 7) => w7,
                    inlateout("r14") word(words, 8) => w8,
                    inlateout("r15") word(words, 9) => w9,
                    inlateout("r11") r11 => _,
                    lateout("rcx") badge,
                    lateout("xmm0") _, lateout("xmm1") _, lateout("xmm2") _, lateout("xmm3") _,
                    lateout("xmm4") _, lateout("xmm5") _, lateout("xmm6") _, lateout("xmm7") _,
                    lateout("xmm8") _, lateout("xmm9") _, lateout("xmm10") _, lateout("xmm11") _,
                    lateout("xmm12") _, lateout("xmm13") _, lateout("xmm14") _, lateout("xmm15") _,
                );
            }
            Registers { rax, badge, words: [w0, w1, w2, w3, w4, w5, w6, w7, w8, w9] }
        }
    };
    (@r11) => { MaybeUninit::uninit() };
    (@r11 $slots:ident) => { MaybeUninit::new($slots) };
}

// The compiler keeps RBX and RBP for itself and takes neither as an operand.
message_form! {
    /// A form that receives nothing but an answer, without slots.
    plain(header, words): "syscall"
}
message_form! {
    /// A form that receives nothing but an answer, with slots.
    plain_with(header, words, slots): "push rbp" "mov rbp, r11" "syscall" "pop rbp"
}
message_form! {
    /// A form that receives messages, without slots.
    receiving(header, words): "push rbx" "syscall" "mov rcx, rbx" "pop rbx"
}
message_form! {
    /// A form that receives messages, with slots.
    receiving_with(header, words, slots):
    "push rbx" "push rbp" "mov rbp, r11" "syscall" "mov rcx, rbx" "pop rbp" "pop rbx"
}

/// The first register of a form that sends `N` words.
#[inline(always)]
fn header<const N: usize>(cap: CPtr, op: Op, flags: u16) -> u64 {
    const { assert!(N <= MessageInfo::WORDS_MAX) };
    header_with(cap, op, MessageInfo::new(N, flags).0)
}

/// Sends `words` to an endpoint. If nobody waits there, they go to its buffer.
///
/// # Errors
/// Nothing was sent then. [`SysError::NotBound`], [`SysError::Dead`], [`SysError::BufferFull`], or one of a bad
/// capability.
#[inline(always)]
pub fn send<const N: usize>(endpoint: CPtr, words: [u64; N]) -> SysResult {
    plain(header::<N>(endpoint, Op::Send, 0), &words).info().map(|_| ())
}

/// [`send`] for as many words as there are, at most 10, and with a capability.
///
/// # Errors
/// As [`send`]; [`SysError::TooLong`]; [`SysError::NoLanding`], [`SysError::SlotOccupied`] and others if the
/// capability cannot go where the receiver wants it, [`SysError::NotTransferable`] if nowhere.
pub fn send_with(endpoint: CPtr, words: &[u64], cap: Cargo) -> SysResult {
    let along = Along { cap, ..Along::default() };
    plain_with(header_of(endpoint, Op::Send, words, along)?, words, along.slots()).info().map(|_| ())
}

fn header_of(cap: CPtr, op: Op, words: &[u64], along: Along) -> SysResult<u64> {
    if words.len() > MessageInfo::WORDS_MAX {
        return Err(SysError::TooLong);
    }
    Ok(header_with(cap, op, MessageInfo::new(words.len(), along.flags()).0))
}

/// Sends `words` to an endpoint and waits for the answer, of which `M` words are wanted.
///
/// # Errors
/// Nothing was sent: [`SysError::NotBound`], or one of a bad capability. Sent or not: [`SysError::Dead`] if the
/// receiver has ended, [`SysError::NoReply`] if it gave up the right to answer, [`SysError::Interrupted`] if this
/// dispatcher was suspended.
#[inline(always)]
pub fn call<const N: usize, const M: usize>(endpoint: CPtr, words: [u64; N]) -> SysResult<Answer<M>> {
    let out = plain(header::<N>(endpoint, Op::Call, 0), &words);
    out.info().map(|info| Answer { info, words: out.words() })
}

/// [`call`] for as many words as there are, at most 10, with what goes along, and all words of the answer.
///
/// # Errors
/// As [`call`] and [`send_with`]; [`SysError::TimedOut`]: the answer, should it come, goes to nobody.
pub fn call_with(
    endpoint: CPtr,
    words: &[u64],
    along: Along,
) -> SysResult<Answer<{ MessageInfo::WORDS_MAX }>> {
    let out = plain_with(header_of(endpoint, Op::Call, words, along)?, words, along.slots());
    out.info().map(|info| Answer { info, words: out.words })
}

/// Waits for a message in registers, of which `M` words are wanted: to the endpoint `from`, or to any endpoint of
/// this dispatcher if `from` is [`task::DISPATCHER`].
///
/// # Errors
/// [`SysError::Interrupted`] if an event is pending or comes; [`SysError::NotBound`]; [`SysError::WrongState`] if
/// the endpoint is another dispatcher's.
#[inline(always)]
pub fn receive<const M: usize>(from: CPtr) -> SysResult<Received<M>> {
    received(from, receiving(header::<0>(from, Op::Receive, 0), &[]))
}

/// [`receive`] with a slot for a capability or a deadline, and all words.
///
/// # Errors
/// As [`receive`]; [`SysError::TimedOut`].
pub fn receive_with(from: CPtr, along: Along) -> SysResult<Received<{ MessageInfo::WORDS_MAX }>> {
    loop {
        let out = receiving_with(header_of(from, Op::Receive, &[], along)?, &[], along.slots());
        match out.info() {
            Err(SysError::Again) => {}
            info => return info.map(|info| Received { info, badge: out.badge, words: out.words }),
        }
    }
}

/// Answers the last call received and waits for the next message, in one step. Without a call to answer it only
/// receives.
///
/// # Errors
/// As [`receive`]: the answer was given then. What is wrong with the capability `from` comes before it.
#[inline(always)]
pub fn reply_receive<const N: usize, const M: usize>(from: CPtr, words: [u64; N]) -> SysResult<Received<M>> {
    received(from, receiving(header::<N>(from, Op::ReplyReceive, 0), &words))
}

/// [`reply_receive`] for as many words as there are, with what goes along, and all words.
///
/// # Errors
/// As [`receive_with`]: the answer was given then. As [`send_with`]: it was not, and still can be.
pub fn reply_receive_with(
    from: CPtr,
    words: &[u64],
    along: Along,
) -> SysResult<Received<{ MessageInfo::WORDS_MAX }>> {
    let out = receiving_with(header_of(from, Op::ReplyReceive, words, along)?, words, along.slots());
    match out.info() {
        Err(SysError::Again) => receive_with(from, Along { cap: Cargo::None, ..along }),
        info => info.map(|info| Received { info, badge: out.badge, words: out.words }),
    }
}

#[inline(always)]
fn received<const M: usize>(from: CPtr, out: Registers) -> SysResult<Received<M>> {
    match out.info() {
        Ok(info) => Ok(Received { info, badge: out.badge, words: out.words() }),
        Err(error) => receive_again(from, error),
    }
}

/// A receive that sent many callers back goes on.
#[cold]
fn receive_again<const M: usize>(from: CPtr, error: SysError) -> SysResult<Received<M>> {
    if error != SysError::Again {
        return Err(error);
    }
    let Received { info, badge, words } = receive_with(from, Along::default())?;
    Ok(Received { info, badge, words: core::array::from_fn(|n| words[n]) })
}

/// Answers the last call received and goes on.
///
/// # Errors
/// [`SysError::NoCaller`] if there is none that still waits.
#[inline(always)]
pub fn reply<const N: usize>(words: [u64; N]) -> SysResult {
    plain(header::<N>(task::DISPATCHER, Op::Reply, 0), &words).info().map(|_| ())
}

/// [`reply`] for as many words as there are, with a capability: to the last call received, or, if `to` is a right
/// that [`save_reply`] put there, to that call.
///
/// # Errors
/// [`SysError::NoCaller`] if nobody waits for the answer; the right is gone then as it is when it was used. As
/// [`send_with`]: the caller still waits.
pub fn reply_with(to: CPtr, words: &[u64], cap: Cargo) -> SysResult {
    let along = Along { cap, ..Along::default() };
    plain_with(header_of(to, Op::Reply, words, along)?, words, along.slots()).info().map(|_| ())
}

/// Moves the right to answer the last call received to the empty slot `slot`.
///
/// # Errors
/// [`SysError::NoCaller`] if there is none; those of a bad slot.
pub fn save_reply(slot: CPtr) -> SysResult {
    plain(header::<0>(task::DISPATCHER, Op::SaveReply, 0), &[slot.0.into()]).info().map(|_| ())
}

/// Names the empty slot for the next capability that comes with a buffered message to `endpoint`;
/// [`CPtr::NULL`]: none.
///
/// # Errors
/// As [`receive`].
pub fn set_landing(endpoint: CPtr, slot: CPtr) -> SysResult {
    plain(header::<0>(endpoint, Op::SetLanding, 0), &[slot.0.into()]).info().map(|_| ())
}

/// The receiver's side of an endpoint's buffer.
#[derive(Debug)]
pub struct Inbox {
    buffer: *mut EndpointBuffer,
    len: u32,
    next: u32,
    consumed: u64,
}

impl Inbox {
    /// The buffer of `len` messages at `buffer`, to which an endpoint was just bound.
    ///
    /// # Safety
    /// It must lie in this domain's dispatcher frame, mapped for as long as the inbox exists, and nothing else may
    /// use it.
    pub const unsafe fn new(buffer: *mut EndpointBuffer, len: u32) -> Inbox {
        Inbox { buffer, len, next: 0, consumed: 0 }
    }

    /// The inbox of a buffer that is in use, from the first message that was not consumed.
    ///
    /// # Safety
    /// As [`new`](Self::new), and the buffer was used by an inbox like this one before.
    pub unsafe fn resume(buffer: *mut EndpointBuffer, len: u32) -> Inbox {
        // SAFETY: the buffer is mapped, as the caller says.
        let consumed = unsafe { (&raw const (*buffer).consumed).read_volatile() };
        Inbox { buffer, len, next: (consumed % u64::from(len.max(1))) as u32, consumed }
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        // SAFETY: the buffer is mapped, as `new` demands; the CPU driver writes it only while this domain is in a
        // system call or does not run.
        let written = unsafe { (&raw const (*self.buffer).written).read_volatile() };
        written == self.consumed
    }

    /// The oldest message, whose place in the buffer is free from then on.
    pub fn take(&mut self) -> Option<Message> {
        if self.is_empty() {
            return None;
        }
        compiler_fence(Ordering::Acquire);
        // SAFETY: as above; slot `next` is below `len`.
        let message = unsafe { self.buffer.add(1).cast::<Message>().add(self.next as usize).read_volatile() };
        compiler_fence(Ordering::Release);
        self.consumed += 1;
        self.next = if self.next + 1 >= self.len { 0 } else { self.next + 1 };
        // SAFETY: as above.
        unsafe { (&raw mut (*self.buffer).consumed).write_volatile(self.consumed) };
        Some(message)
    }
}
