//! [`Names`]: which service has which name.

use alloc::collections::BTreeMap;

use runtime::interface::monitor::Iref;
use runtime::interface::{TEXT_WORDS, Text};

/// Names there can be.
pub const MAX_NAMES: usize = 4096;

/// A name, as its words in a message.
pub type Name = [u64; TEXT_WORDS];

/// Why a name is not given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameError {
    /// It is empty, or not UTF-8.
    Malformed,
    /// There are [`MAX_NAMES`] others.
    Full,
}

/// The table of names.
#[derive(Debug, Default)]
pub struct Names {
    irefs: BTreeMap<Name, Iref>,
}

impl Names {
    /// No names.
    pub const fn new() -> Names {
        Names { irefs: BTreeMap::new() }
    }

    /// Gives `iref` the name `name`, which no other has from then on.
    ///
    /// # Errors
    /// [`NameError`]; the table is then as it was.
    pub fn register(&mut self, name: Name, iref: Iref) -> Result<(), NameError> {
        if Text::unpack(name).as_str().is_none_or(str::is_empty) {
            return Err(NameError::Malformed);
        }
        if self.irefs.len() >= MAX_NAMES && !self.irefs.contains_key(&name) {
            return Err(NameError::Full);
        }
        self.irefs.insert(name, iref);
        Ok(())
    }

    /// Who has the name `name`.
    pub fn lookup(&self, name: Name) -> Option<Iref> {
        self.irefs.get(&name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::interface::pack;

    fn name(text: &str) -> Name {
        pack(text).unwrap()
    }

    #[test]
    fn the_latest_has_the_name() {
        let mut names = Names::new();
        assert_eq!(names.lookup(name("echo")), None);
        assert_eq!(names.register(name("echo"), Iref::new(1, 2)), Ok(()));
        assert_eq!(names.register(name("ech"), Iref::new(5, 5)), Ok(()));
        assert_eq!(names.lookup(name("echo")), Some(Iref::new(1, 2)));
        assert_eq!(names.register(name("echo"), Iref::new(3, 4)), Ok(()));
        assert_eq!(names.lookup(name("echo")), Some(Iref::new(3, 4)));
        assert_eq!(names.lookup(name("ech")), Some(Iref::new(5, 5)));
    }

    #[test]
    fn a_name_is_text() {
        let mut names = Names::new();
        assert_eq!(names.register(name(""), Iref::new(0, 1)), Err(NameError::Malformed));
        assert_eq!(names.register([u64::MAX; TEXT_WORDS], Iref::new(0, 1)), Err(NameError::Malformed));
    }

    #[test]
    fn a_full_table_still_takes_names_that_are_there() {
        let mut names = Names::new();
        let numbered = |i: usize| name(&std::format!("service {i}"));
        for i in 0..MAX_NAMES {
            assert_eq!(names.register(numbered(i), Iref::new(0, i as u32)), Ok(()));
        }
        assert_eq!(names.register(numbered(MAX_NAMES), Iref::new(9, 9)), Err(NameError::Full));
        assert_eq!(names.lookup(numbered(MAX_NAMES)), None);
        assert_eq!(names.register(numbered(7), Iref::new(9, 9)), Ok(()));
        assert_eq!(names.lookup(numbered(7)), Some(Iref::new(9, 9)));
    }
}
