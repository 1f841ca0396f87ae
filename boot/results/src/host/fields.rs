//! An object of a line, taken apart field by field, so that whatever is wrong is said of the field it is wrong in.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::Value;

/// What is wrong with a field, or with several together.
#[derive(Debug)]
pub enum FieldError {
    /// It is not there.
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// It is there twice.
    Repeated {
        /// Its name.
        field: String,
    },
    /// There is no such field.
    Unknown {
        /// Its name.
        field: String,
    },
    /// Its value is not what it must be.
    Wrong {
        /// Its name.
        field: &'static str,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// There is only a part of what belongs together.
    PartOfDistribution,
    /// The percentiles decrease.
    NotSorted,
    /// A distribution of no samples.
    NoSamples,
    /// A distribution of wall-clock time of an emulated guest, which is never a result.
    EmulatedTime,
    /// A unit that such a measurement cannot have.
    Unit {
        /// The unit.
        unit: crate::Unit,
        /// The layer.
        layer: crate::Layer,
        /// What executed the instructions.
        accel: crate::Accel,
    },
    /// A core or node that the machine does not have.
    Range {
        /// The field.
        field: &'static str,
        /// What it says.
        found: u32,
        /// The field with the number of those there are.
        of: &'static str,
        /// That number.
        limit: u32,
    },
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { field } => write!(f, "field `{field}` is missing"),
            Self::Repeated { field } => write!(f, "field `{field}` is there twice"),
            Self::Unknown { field } => write!(f, "there is no field `{field}`"),
            Self::Wrong { field, error } => write!(f, "field `{field}`: {error}"),
            Self::PartOfDistribution => f.write_str(
                "fields `unit`, `min`, `p50`, `p90`, `p99` and `max` must all be there or all be absent",
            ),
            Self::NotSorted => f.write_str("fields `min`, `p50`, `p90`, `p99` and `max` must not decrease"),
            Self::NoSamples => f.write_str("field `n` is 0, but there is a distribution"),
            Self::EmulatedTime => f.write_str(
                "field `unit`: a time under accel tcg; the wall-clock time of a guest is never a result",
            ),
            Self::Unit { unit, layer, accel } => {
                write!(f, "field `unit`: {unit} is no unit of layer {layer} under accel {accel}")
            }
            Self::Range { field, found, of, limit } => {
                write!(f, "field `{field}` has {found}, but field `{of}` says that there are {limit}")
            }
        }
    }
}

impl std::error::Error for FieldError {}

/// The fields of an object that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Fields(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Fields {
    /// The value of a field, which must be there.
    pub(super) fn take<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<T, FieldError> {
        self.optional(field)?.ok_or(FieldError::Missing { field })
    }

    /// The value of a field, if it is there.
    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, FieldError> {
        let Some(at) = self.0.iter().position(|(name, _)| name == field) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        if self.0.iter().any(|(name, _)| name == field) {
            return Err(FieldError::Repeated { field: field.to_owned() });
        }
        serde_json::from_value(value).map(Some).map_err(|error| FieldError::Wrong { field, error })
    }

    /// Sees to it that every field was taken.
    pub(super) fn finish(self) -> Result<(), FieldError> {
        match self.0.into_iter().next() {
            Some((field, _)) => Err(FieldError::Unknown { field }),
            None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number that is not negative")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Whole(number))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
                match number >= 0.0 {
                    true => Ok(Value::Real(number)),
                    false => Err(E::invalid_value(serde::de::Unexpected::Float(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Number)
    }
}
