//! The closed sets of words in a record, each in one place.

use core::fmt;

/// Declares an enum whose variants are words of the schema.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "host", derive(serde::Serialize, serde::Deserialize))]
        pub enum $name {
            $($(#[$doc])* #[cfg_attr(feature = "host", serde(rename = $word))] $variant,)*
        }

        impl $name {
            /// All of them, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in the schema.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The variant of that word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.word() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What executed the guest's instructions.
    Accel {
        /// QEMU's TCG, one thread, `-icount shift=0,sleep=off`: the clock counts instructions.
        Icount = "icount",
        /// QEMU's TCG, one thread per vCPU: no clock of it is a measure, so only counts are results.
        Tcg = "tcg",
        /// Hardware virtualisation.
        Kvm = "kvm",
        /// No machine emulated: Linux threads.
        Native = "native",
    }
}

words! {
    /// What kind of number it is. Numbers of different layers are never compared.
    Layer {
        /// Exact and repeatable counts.
        Counts = "counts",
        /// From the cost model of a QEMU plugin.
        Model = "model",
        /// Measured on real hardware.
        Native = "native",
    }
}

words! {
    /// The unit of a distribution's values.
    Unit {
        /// Guest instructions.
        Instr = "instr",
        /// Guest instructions per KiB moved.
        InstrPerKib = "instr/KiB",
        /// Cycles of the time-stamp counter.
        Cycles = "cycles",
        /// 10^9 bytes per second; native only.
        GbPerSecond = "GB/s",
        /// A quotient without unit.
        Ratio = "ratio",
        /// Nanoseconds of the cost model.
        ModelledNs = "modelled-ns",
    }
}

/// Common values of [`Record::metric`](crate::Record::metric). The set is open: a benchmark may have its own.
pub mod metric {
    /// From the sender's call until the receiver has the message.
    pub const ONE_WAY: &str = "one_way";
    /// From the call until the answer is back.
    pub const ROUND_TRIP: &str = "round_trip";
    /// The sender's part alone.
    pub const PUT: &str = "put";
    /// The receiver's part alone.
    pub const GET: &str = "get";
    /// [`PUT`] and [`GET`] of one message together.
    pub const PUT_AND_GET: &str = "put_and_get";
    /// What one message or byte of a steady stream costs, or how many there are per time.
    pub const THROUGHPUT: &str = "throughput";
    /// From an event, such as a fault, until its handler runs.
    pub const TO_HANDLER: &str = "to_handler";
}
