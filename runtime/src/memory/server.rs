//! What the core's memory server is asked for, by calls that it answers at once.
//!
//! Nothing here uses the heap or the state of [`super`], so a page fault can ask too. That is sound in the middle of
//! anything: the fault was saved before its upcall began, a disabled dispatcher that waits for an answer returns from the
//! system call as any other, no event ends a call, and a call leaves the right to answer somebody else as it is.

use lmp::cptr::task;
use lmp::message::{self, Along};
use lmp::{CPtr, SysError};

use super::MemoryError;
use crate::interface::mem::{MemError, Request, Usage};

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The domain has no memory server.
    NoServer,
    /// The server refuses.
    Server(MemError),
    /// The call did not come about.
    Call(SysError),
}

impl Refusal {
    /// Whether less may be given.
    pub(super) fn is_about_size(self) -> bool {
        matches!(self, Refusal::Server(MemError::NoMemory | MemError::OverQuota))
    }
}

/// Asks for `words`; the words of the answer behind the first. A capability may come to the empty slot `landing`.
fn ask(words: &[u64], landing: CPtr) -> Result<[u64; 4], Refusal> {
    let answer = message::call_with(task::MEMORY, words, Along { landing, ..Along::default() });
    let answer = answer.map_err(|cause| match cause {
        SysError::EmptySlot => Refusal::NoServer,
        cause => Refusal::Call(cause),
    })?;
    let [code, a, b, c, d, ..] = answer.words;
    match code {
        0 => Ok([a, b, c, d]),
        code => Err(MemError::from_code(code).map_or(Refusal::Call(SysError::BadArgument), Refusal::Server)),
    }
}

/// RAM of at least `bytes` bytes, in the slot `landing`.
pub(super) fn allocate(bytes: u64, align: u64, landing: CPtr) -> Result<(), Refusal> {
    ask(&[Request::Allocate as u64, bytes, align], landing).map(|_| ())
}

/// Gives the piece at `physical` back: its slot is empty afterwards, and so is that of whatever was made of it.
pub(super) fn free(physical: u64) -> Result<(), Refusal> {
    ask(&[Request::Free as u64, physical], CPtr::NULL).map(|_| ())
}

/// The account of the core's memory server, and of what this domain has of it; `None` if the domain has no server.
///
/// # Errors
/// What the server or the CPU driver refuses.
pub fn usage() -> Result<Option<Usage>, MemoryError> {
    match ask(&[Request::Usage as u64], CPtr::NULL) {
        Ok([total, free, held, quota]) => Ok(Some(Usage { total, free, held, quota })),
        Err(Refusal::NoServer) => Ok(None),
        Err(Refusal::Server(cause)) => Err(MemoryError::NotLent { bytes: 0, cause }),
        Err(Refusal::Call(cause)) => {
            Err(MemoryError::Refused { operation: "asking the memory server", cause })
        }
    }
}
