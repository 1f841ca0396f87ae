//! The conversions against made-up machines.

mod command_line;
mod info;
mod memory_map;
mod pvh;

use std::vec::Vec;

use crate::{PhysAddr, PhysMemory, PhysRange, Unreadable};

pub(crate) fn range(base: u64, length: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(base), length)
}

/// Pieces of physical memory; all else is unmapped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces(pub(crate) Vec<(u64, Vec<u8>)>);

impl Pieces {
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.0.push((at, bytes.to_vec()));
    }
}

impl PhysMemory for Pieces {
    fn read(&self, address: PhysAddr, into: &mut [u8]) -> Result<(), Unreadable> {
        for (at, bytes) in &self.0 {
            if let Some(offset) = address.as_u64().checked_sub(*at)
                && let Some(found) = bytes.get(offset as usize..).and_then(|rest| rest.get(..into.len()))
            {
                into.copy_from_slice(found);
                return Ok(());
            }
        }
        Err(Unreadable)
    }
}
