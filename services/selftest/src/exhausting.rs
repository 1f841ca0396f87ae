//! What the scenario `exhaustion` and its victims agree on.

use alloc::vec::Vec;

use crate::Shared;

/// Something that a victim uses up and gives back, again and again.
pub struct Resource {
    /// Its name in arguments and reports.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// How often.
    pub cycles: u64,
    /// RAM of the victim for its own use, in bytes.
    pub ram: u64,
}

const fn resource(name: &'static str, title: &'static str, cycles: u64, ram: u64) -> Resource {
    Resource { name, title, cycles, ram }
}

/// All of them: a thousand cycles.
pub const RESOURCES: [Resource; 10] = [
    resource("ram", "RAM, by the runtime", 100, 1 << 20),
    resource("pieces", "RAM in pieces of any size, by the runtime", 100, 1 << 20),
    resource("retype", "RAM, by retype", 150, 256 << 10),
    resource("slots", "slots, by the runtime", 100, 1 << 20),
    resource("copies", "slots, by copy", 150, 256 << 10),
    resource("tables", "page tables, by the runtime", 100, 512 << 10),
    resource("entries", "entries of a page table, by map", 100, 512 << 10),
    resource("mappings", "mappings, by the runtime", 50, 384 << 10),
    resource("endpoints", "endpoints, by the runtime", 100, 256 << 10),
    resource("events", "events, by the runtime", 50, 256 << 10),
];

/// Words of the shared page: cycles done, and the length of the text behind them that says what went wrong.
pub const DONE: usize = 0;
const LENGTH: usize = 1;
const TEXT: usize = 2;
const TEXT_WORDS: usize = 64;

/// Says what went wrong.
pub fn tell(shared: &Shared, why: &str) {
    let bytes = &why.as_bytes()[..why.len().min(TEXT_WORDS * 8)];
    shared.set(LENGTH, bytes.len() as u64);
    for (n, part) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        shared.set(TEXT + n, u64::from_le_bytes(word));
    }
}

/// What a victim said.
pub fn told(shared: &Shared) -> Vec<u8> {
    let length = (shared.get(LENGTH) as usize).min(TEXT_WORDS * 8);
    let mut bytes: Vec<u8> = (0..TEXT_WORDS).flat_map(|n| shared.get(TEXT + n).to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}
