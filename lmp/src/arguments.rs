//! The arguments of operations on slots and page tables, from the words of an invocation.
//!
//! One type for each operation of the capability database. The CPU driver reads them with these before it looks
//! anything up, and the tests and fuzz targets of the host read them with the same. That a slot can be named says
//! nothing about whether it exists.

use crate::cptr::{CPtr, SlotRef};
use crate::invocation::MapFlags;
use crate::{ObjType, Rights, SysError, SysResult};

/// The message words of an invocation.
pub trait Words {
    /// Word `n`, below 10.
    fn word(&self, n: usize) -> u64;
}

impl Words for [u64; 10] {
    fn word(&self, n: usize) -> u64 {
        self[n]
    }
}

/// Word `n`, as a slot; `NoSuchSlot` if it can name none.
#[inline(always)]
fn slot(w: &impl Words, n: usize) -> SysResult<SlotRef> {
    SlotRef::decode(w.word(n)).ok_or(SysError::NoSuchSlot)
}

/// Word `n`, as a code in a byte; `BadArgument` if `from` does not know it.
#[inline(always)]
fn byte<T>(w: &impl Words, n: usize, from: impl FnOnce(u8) -> Option<T>) -> SysResult<T> {
    u8::try_from(w.word(n)).ok().and_then(from).ok_or(SysError::BadArgument)
}

/// Word `n`, as flags; `BadArgument` if there are unknown ones.
#[inline(always)]
fn flags(w: &impl Words, n: usize) -> SysResult<MapFlags> {
    MapFlags::from_bits(w.word(n)).ok_or(SysError::BadArgument)
}

/// Of [`Op::Delete`](crate::invocation::Op::Delete), [`Op::Revoke`](crate::invocation::Op::Revoke) and
/// [`Op::Identify`](crate::invocation::Op::Identify).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OneSlot {
    /// The slot, in the invoked space.
    pub slot: SlotRef,
}

/// Of [`Op::Copy`](crate::invocation::Op::Copy).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copy {
    /// The slot to fill, in the invoked space.
    pub dst: SlotRef,
    /// The slot to copy, in the caller's space.
    pub src: SlotRef,
}

/// Of [`Op::Mint`](crate::invocation::Op::Mint).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mint {
    /// The slot to fill, in the invoked space.
    pub dst: SlotRef,
    /// The slot to copy, in the caller's space.
    pub src: SlotRef,
    /// The rights to keep.
    pub rights: Rights,
    /// The badge; 0 keeps the source's.
    pub badge: u64,
}

/// Of [`Op::Retype`](crate::invocation::Op::Retype).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retype {
    /// The first slot to fill, in the invoked space.
    pub dst: SlotRef,
    /// The slot of what it is made from, in the caller's space.
    pub src: SlotRef,
    /// The type.
    pub ty: ObjType,
    /// Offset into the source.
    pub offset: u64,
    /// Size of each object.
    pub size: u64,
    /// How many.
    pub count: u64,
}

/// Of [`Op::Map`](crate::invocation::Op::Map).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Map {
    /// The first entry.
    pub first: u64,
    /// The frame or table, in the caller's space.
    pub object: CPtr,
    /// Offset into the frame.
    pub offset: u64,
    /// The access.
    pub flags: MapFlags,
    /// How many entries.
    pub count: u64,
    /// The slot for the mapping, in the caller's space.
    pub mapping: SlotRef,
}

/// Of [`Op::Protect`](crate::invocation::Op::Protect).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protect {
    /// The access.
    pub flags: MapFlags,
}

impl OneSlot {
    /// From the words.
    #[inline(always)]
    pub fn read(w: &impl Words) -> SysResult<OneSlot> {
        Ok(OneSlot { slot: slot(w, 0)? })
    }

    /// The words.
    pub fn words(self) -> [u64; 1] {
        [self.slot.encode()]
    }
}

impl Copy {
    /// From the words.
    #[inline(always)]
    pub fn read(w: &impl Words) -> SysResult<Copy> {
        Ok(Copy { dst: slot(w, 0)?, src: slot(w, 1)? })
    }

    /// The words.
    pub fn words(self) -> [u64; 2] {
        [self.dst.encode(), self.src.encode()]
    }
}

impl Mint {
    /// From the words.
    #[inline(always)]
    pub fn read(w: &impl Words) -> SysResult<Mint> {
        let Copy { dst, src } = Copy::read(w)?;
        Ok(Mint { dst, src, rights: byte(w, 2, Rights::from_bits)?, badge: w.word(3) })
    }

    /// The words.
    pub fn words(self) -> [u64; 4] {
        [self.dst.encode(), self.src.encode(), self.rights.bits().into(), self.badge]
    }
}

impl Retype {
    /// From the words.
    #[inline(always)]
    pub fn read(w: &impl Words) -> SysResult<Retype> {
        let Copy { dst, src } = Copy::read(w)?;
        let ty = byte(w, 2, ObjType::from_code)?;
        Ok(Retype { dst, src, ty, offset: w.word(3), size: w.word(4), count: w.word(5) })
    }

    /// The words.
    pub fn words(self) -> [u64; 6] {
        [self.dst.encode(), self.src.encode(), self.ty as u64, self.offset, self.size, self.count]
    }
}

impl Map {
    /// From the words.
    #[inline(always)]
    pub fn read(w: &impl Words) -> SysResult<Map> {
        Ok(Map {
            first: w.word(0),
            flags: flags(w, 3)?,
            object: u32::try_from(w.word(1)).map(CPtr).map_err(|_| SysError::NoSuchSlot)?,
            offset: w.word(2),
            count: w.word(4),
            mapping: slot(w, 5)?,
        })
    }

    /// The words.
    pub fn words(self) -> [u64; 6] {
        let object = self.object.0.into();
        [self.first, object, self.offset, self.flags.bits(), self.count, self.mapping.encode()]
    }
}

impl Protect {
    /// From the words.
    #[inline(always)]
    pub fn read(w: &impl Words) -> SysResult<Protect> {
        Ok(Protect { flags: flags(w, 0)? })
    }

    /// The words.
    pub fn words(self) -> [u64; 1] {
        [self.flags.bits()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a retype, one of them replaced.
    fn retype(n: usize, value: u64) -> SysResult<Retype> {
        let mut words = [0, 1, ObjType::Frame as u64, 3, 4, 5, 6, 7, 8, 9];
        words[n] = value;
        Retype::read(&words)
    }

    #[test]
    fn each_word_that_means_nothing_has_its_error() {
        assert!(retype(9, u64::MAX).is_ok());
        for n in [0, 1] {
            assert_eq!(retype(n, 1 << 33), Err(SysError::NoSuchSlot));
        }
        for ty in [0xff, 0x100 | ObjType::Frame as u64, u64::MAX] {
            assert_eq!(retype(2, ty), Err(SysError::BadArgument));
        }
        let mint = |rights| Mint::read(&[0, 1, rights, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(mint(0x101), Err(SysError::BadArgument));
        assert_eq!(mint(1).map(|m| m.rights), Ok(Rights::READ));
        let map = |n: usize, value| {
            let mut words = [0, 2, 0, 1, 1, 3, 0, 0, 0, 0];
            words[n] = value;
            Map::read(&words)
        };
        assert_eq!(map(1, 1 << 32), Err(SysError::NoSuchSlot));
        assert_eq!(map(3, 32), Err(SysError::BadArgument));
        assert_eq!(map(5, 1 << 33), Err(SysError::NoSuchSlot));
        assert_eq!(map(0, 9).map(|m| m.words()), Ok([9, 2, 0, 1, 1, 3]));
        assert_eq!(Protect::read(&[1 << 63; 10]), Err(SysError::BadArgument));
    }
}
