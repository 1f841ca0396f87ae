//! [`Roster`]: the domains of a core, by number, and where each stands.
//!
//! A domain runs, then it has ended and its monitor lets go of what it had, then it is taken down. The number is the
//! badge by which the monitor knows it; no number is used twice.

use alloc::collections::BTreeMap;
use core::fmt;
use core::num::NonZero;

/// The number of a domain on its core: the badge of its endpoint of the monitor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Number(NonZero<u32>);

impl Number {
    /// The number in a word of a message; `None` if no domain can have it.
    pub fn from_word(word: u64) -> Option<Number> {
        u32::try_from(word).ok().and_then(NonZero::new).map(Number)
    }

    /// The number as a word of a message, or as a badge.
    pub fn word(self) -> u64 {
        self.0.get().into()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a domain stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It runs.
    Running,
    /// It has ended, and its monitor may still hold what it had.
    Ended,
}

#[derive(Debug)]
struct Entry<T> {
    resident: T,
    standing: Standing,
}

/// The domains of a core; `T` is what belongs to each.
#[derive(Debug)]
pub struct Roster<T> {
    entries: BTreeMap<Number, Entry<T>>,
    /// The last number that was given out.
    last: u32,
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Roster<T> {
    /// No domains.
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), last: 0 }
    }

    /// A number that no domain had; `None` if all were given out.
    pub fn number(&mut self) -> Option<Number> {
        self.last = self.last.checked_add(1)?;
        NonZero::new(self.last).map(Number)
    }

    /// A domain runs.
    pub fn enter(&mut self, number: Number, resident: T) {
        self.entries.insert(number, Entry { resident, standing: Standing::Running });
    }

    /// The domain with that number, and where it stands.
    pub fn get(&self, number: Number) -> Option<(&T, Standing)> {
        self.entries.get(&number).map(|entry| (&entry.resident, entry.standing))
    }

    /// How many domains there are, those that have ended and are not taken down included.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The domains that run.
    pub fn running(&self) -> impl Iterator<Item = (Number, &T)> {
        let running = |(_, entry): &(_, &Entry<T>)| entry.standing == Standing::Running;
        self.entries.iter().filter(running).map(|(&number, entry)| (number, &entry.resident))
    }

    /// A domain has ended. False if it was not running.
    pub fn ended(&mut self, number: Number) -> bool {
        match self.entries.get_mut(&number) {
            Some(entry) if entry.standing == Standing::Running => {
                entry.standing = Standing::Ended;
                true
            }
            _ => false,
        }
    }

    /// A domain is taken down: what belonged to it. `None` if it has not ended.
    pub fn leave(&mut self, number: Number) -> Option<T> {
        match self.get(number)?.1 {
            Standing::Running => None,
            Standing::Ended => self.entries.remove(&number).map(|entry| entry.resident),
        }
    }

    /// How many domains there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no domain.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_domain_runs_ends_and_leaves_in_this_order() {
        let mut roster = Roster::new();
        let number = roster.number().unwrap();
        assert_eq!(roster.get(number), None, "a number is no domain");
        assert!(!roster.ended(number));
        roster.enter(number, "a");
        assert_eq!(roster.get(number), Some((&"a", Standing::Running)));
        assert_eq!(roster.leave(number), None, "it runs");
        assert!(roster.ended(number));
        assert!(!roster.ended(number), "it ends once");
        assert_eq!(roster.get(number), Some((&"a", Standing::Ended)));
        assert_eq!(roster.leave(number), Some("a"));
        assert_eq!(roster.leave(number), None);
        assert!(roster.is_empty());
    }

    #[test]
    fn numbers_are_badges_and_never_come_again() {
        let mut roster = Roster::new();
        let (a, b) = (roster.number().unwrap(), roster.number().unwrap());
        assert_eq!((a.word(), b.word()), (1, 2));
        roster.enter(a, ());
        roster.enter(b, ());
        assert!(roster.ended(a));
        roster.leave(a).unwrap();
        assert_eq!(roster.number().unwrap().word(), 3);
        assert_eq!(roster.running().map(|(number, ())| number).collect::<Vec<_>>(), [b]);
        assert_eq!(roster.len(), 1);
        assert_eq!(Number::from_word(2), Some(b));
        assert_eq!((Number::from_word(0), Number::from_word(1 << 32)), (None, None));
        roster.last = u32::MAX;
        assert_eq!(roster.number(), None);
    }
}
