//! JSON by `core::fmt`: an object of fields, the absent ones left out.

use core::fmt::{self, Display, Write as _};

/// A string, quoted and escaped as RFC 8259, section 7, demands.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                // DEL needs no escape, but a line of results should survive any terminal.
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Writes one object, field by field.
pub(crate) struct Object<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    empty: bool,
}

impl<'a, 'b> Object<'a, 'b> {
    /// Opens the object.
    pub(crate) fn open(f: &'a mut fmt::Formatter<'b>) -> Result<Self, fmt::Error> {
        f.write_char('{')?;
        Ok(Self { f, empty: true })
    }

    /// A field whose value's `Display` is valid JSON.
    pub(crate) fn raw(&mut self, key: &str, value: impl Display) -> Result<&mut Self, fmt::Error> {
        if !self.empty {
            self.f.write_char(',')?;
        }
        self.empty = false;
        write!(self.f, "{}:{value}", Quoted(key))?;
        Ok(self)
    }

    /// A field with a string.
    pub(crate) fn text(&mut self, key: &str, value: &str) -> Result<&mut Self, fmt::Error> {
        self.raw(key, Quoted(value))
    }

    /// A field that is left out where there is no value.
    pub(crate) fn optional(
        &mut self,
        key: &str,
        value: Option<impl Display>,
    ) -> Result<&mut Self, fmt::Error> {
        match value {
            Some(value) => self.raw(key, value),
            None => Ok(self),
        }
    }

    /// Closes the object.
    pub(crate) fn close(&mut self) -> fmt::Result {
        self.f.write_char('}')
    }
}
