//! The writer, for the host command.

use std::collections::BTreeMap;
use std::fmt;

use crate::crc::crc32;
use crate::{
    ENTRY_LEN, HEADER_LEN, MAGIC, MAX_MODULES, MODULE_ALIGN, NAME_FIELD, NameError, VERSION, check_name,
};

/// Collects modules and lays them out. The same modules give the same bytes, in whatever order they came.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    modules: BTreeMap<String, Vec<u8>>,
}

/// Why a module cannot be added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddError {
    /// The name is not allowed.
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// A module of that name is there already.
    Duplicate {
        /// The name.
        name: String,
    },
    /// There are [`MAX_MODULES`] modules already.
    Full,
}

impl Writer {
    /// A writer without modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module.
    ///
    /// # Errors
    /// A name that is not allowed or taken, or one module too many; the writer is then as before.
    pub fn add(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), AddError> {
        check_name(name.as_bytes()).map_err(|error| AddError::Name { name: name.to_owned(), error })?;
        if self.modules.contains_key(name) {
            return Err(AddError::Duplicate { name: name.to_owned() });
        }
        if self.modules.len() == MAX_MODULES {
            return Err(AddError::Full);
        }
        self.modules.insert(name.to_owned(), bytes);
        Ok(())
    }

    /// The archive.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let table_end = HEADER_LEN + self.modules.len() * ENTRY_LEN;
        let mut table = Vec::with_capacity(table_end - HEADER_LEN);
        let mut contents = Vec::new();
        for (name, bytes) in &self.modules {
            let offset = (table_end + contents.len()).next_multiple_of(MODULE_ALIGN);
            contents.resize(offset - table_end, 0);
            contents.extend_from_slice(bytes);

            let mut field = [0; NAME_FIELD];
            field[..name.len()].copy_from_slice(name.as_bytes());
            table.extend_from_slice(&field);
            table.extend_from_slice(&(offset as u64).to_le_bytes());
            table.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            table.extend_from_slice(&crc32(bytes).to_le_bytes());
            table.extend_from_slice(&0u32.to_le_bytes());
        }
        let mut archive = Vec::with_capacity(table_end + contents.len());
        archive.extend_from_slice(&MAGIC);
        archive.extend_from_slice(&VERSION.to_le_bytes());
        archive.extend_from_slice(&(self.modules.len() as u32).to_le_bytes());
        archive.extend_from_slice(&((table_end + contents.len()) as u64).to_le_bytes());
        archive.extend_from_slice(&crc32(&table).to_le_bytes());
        archive.extend_from_slice(&0u32.to_le_bytes());
        archive.extend_from_slice(&table);
        archive.extend_from_slice(&contents);
        archive
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name, error } => write!(f, "boot module {name:?}: {error}"),
            Self::Duplicate { name } => write!(f, "boot module {name:?} is there twice"),
            Self::Full => write!(f, "a boot archive holds at most {MAX_MODULES} modules"),
        }
    }
}

impl std::error::Error for AddError {}
