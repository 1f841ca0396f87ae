//! Any register words, as the arguments of an operation.

use crate::input::Input;
use lmp::arguments::{Copy, Map, Mint, OneSlot, Protect, Retype};
use lmp::invocation::{MapFlags, Op};
use lmp::{CPtr, ObjType, Rights, SlotRef, SysError, SysResult};

/// What the decoding of one operation answers: the words that mean what was read.
fn read(op: Op, words: &[u64; 10]) -> Option<SysResult<Vec<u64>>> {
    Some(match op {
        Op::Copy => Copy::read(words).map(|a| a.words().to_vec()),
        Op::Mint => Mint::read(words).map(|a| a.words().to_vec()),
        Op::Retype => Retype::read(words).map(|a| a.words().to_vec()),
        Op::Delete | Op::Revoke | Op::Identify => OneSlot::read(words).map(|a| a.words().to_vec()),
        Op::Map => Map::read(words).map(|a| a.words().to_vec()),
        Op::Protect => Protect::read(words).map(|a| a.words().to_vec()),
        _ => return None,
    })
}

/// What a word of an operation may be.
#[derive(Clone, Copy)]
enum Kind {
    Slot,
    Reference,
    Rights,
    Type,
    Flags,
    Any,
}

/// The words of an operation, from the description in `lmp::invocation` and nothing else.
fn kinds(op: Op) -> &'static [Kind] {
    use Kind::*;
    match op {
        Op::Copy => &[Slot, Slot],
        Op::Mint => &[Slot, Slot, Rights, Any],
        Op::Retype => &[Slot, Slot, Type, Any, Any, Any],
        Op::Delete | Op::Revoke | Op::Identify => &[Slot],
        Op::Map => &[Any, Reference, Any, Flags, Any, Slot],
        Op::Protect => &[Flags],
        _ => &[],
    }
}

/// The error of a word that means nothing.
fn error(kind: Kind, word: u64) -> Option<SysError> {
    let bad = match kind {
        Kind::Any => false,
        Kind::Slot => word >= 1 << 33,
        Kind::Reference => word >= 1 << 32,
        Kind::Rights => word & !u64::from(Rights::all().bits()) != 0,
        Kind::Type => ObjType::ALL.iter().all(|ty| *ty as u64 != word),
        Kind::Flags => word & !MapFlags::all().bits() != 0,
    };
    match kind {
        Kind::Slot | Kind::Reference if bad => Some(SysError::NoSuchSlot),
        _ => bad.then_some(SysError::BadArgument),
    }
}

/// Decodes operations until the input ends. What is accepted means exactly the words that were given; what is
/// refused has a word that means nothing, and the error of such a word; words that the operation does not have
/// change nothing.
pub fn invocation(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    while let Some(code) = input.byte() {
        let Some(op) = Op::from_code(code.into()) else { continue };
        let kinds = kinds(op);
        let mut words = [0; 10];
        words[..kinds.len()].fill_with(|| input.word());
        let Some(result) = read(op, &words) else { continue };
        let errors: Vec<SysError> = kinds.iter().zip(words).filter_map(|(k, w)| error(*k, w)).collect();
        match &result {
            Ok(again) => {
                assert_eq!(again[..], words[..kinds.len()], "{op:?} has read something else");
                assert!(errors.is_empty(), "{op:?} accepts {words:x?}");
            }
            Err(e) => assert!(errors.contains(e), "{op:?} refuses {words:x?} with {e:?}"),
        }
        words[kinds.len()..].fill(u64::MAX);
        assert_eq!(read(op, &words), Some(result), "{op:?} reads more words than it has");
        for word in words {
            if let Some(slot) = SlotRef::decode(word) {
                assert_eq!(slot.encode(), word);
            }
        }
        let header = lmp::invocation::header(CPtr(words[0] as u32), op);
        assert_eq!((header as u32, Op::from_code((header >> 32) as u16)), (words[0] as u32, Some(op)));
    }
}
