//! [`CommandLine`]: the `key=value` words that the host command, or the user at a boot menu, passes to the system.
//!
//! Words are separated by white space; none is quoted. [`CommandLine::words`] only splits;
//! [`CommandLine::settings`] also gives the values their types, and is the one table of the keys there are.

use core::fmt;
use core::num::NonZero;

use log::LevelFilter;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most bytes a command line may have.
pub const MAX_COMMAND_LINE: usize = 2048;

/// The most samples that a benchmark can be asked for: they are kept in memory, 8 bytes each.
pub const MAX_SAMPLES: u32 = 1 << 20;

/// The placement policies by name. What each does is the system knowledge base's to know, which is above this crate
/// and asserts that these are its names.
pub const POLICIES: &[&str] = &[
    "producer",
    "consumer",
    "split-poller",
    "interleave",
    "worst",
    "creator",
    "split-writer",
    "consumer-data",
    "random",
    "auto",
];

/// A command line of at most [`MAX_COMMAND_LINE`] bytes, which may be anything.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CommandLine {
    /// How many of `bytes` are filled; a reader limits it to the array.
    length: u64,
    bytes: [u8; MAX_COMMAND_LINE],
}

/// A command line does not fit into [`MAX_COMMAND_LINE`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongCommandLine;

/// One well-formed word of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// All of it, printable ASCII.
    pub text: &'a str,
    /// What is before the first `=`, not empty.
    pub key: &'a str,
    /// What is after it, not empty.
    pub value: &'a str,
}

/// A word that the system itself knows, its value checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting<'a> {
    /// `bench=NAME[,NAME…]`: the benchmarks to run, in this order.
    Bench(Names<'a>),
    /// `scenario=NAME`: the test scenario to run.
    Scenario(&'a str),
    /// `cpus=N`: how many cores to start, the boot core included.
    Cpus(NonZero<u32>),
    /// `seed=N`: the seed of whatever is random in a run.
    Seed(u64),
    /// `log=off|error|warn|info|debug|trace`: which messages are kept.
    Log(LevelFilter),
    /// `nodes=N`: how many NUMA nodes the host command gave the machine. What firmware says counts; this is to compare.
    Nodes(NonZero<u32>),
    /// `accel=icount|tcg|kvm`: what executes the instructions.
    Accel(Accelerator),
    /// `samples=N`: how many samples a benchmark takes of each metric, at most [`MAX_SAMPLES`].
    Samples(NonZero<u32>),
    /// `calls=N`: how many operations a test scenario makes.
    Calls(u64),
    /// `victim=N`: which of a test scenario's domains to make alone.
    Victim(u64),
    /// `policy=NAME`: where benchmarks have the memory of their channels placed, one of [`POLICIES`].
    Policy(&'a str),
    /// `exit=1`: when everything is done, or nothing can be done, end QEMU by its debug exit device. Without this word
    /// the system stays up. See [`Words::ends_machine`].
    Exit,
}

/// What executes the instructions, as QEMU's command line says. The guest cannot tell by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU's TCG with `-icount`: the clock counts instructions.
    Icount,
    /// QEMU's TCG, one thread for each virtual processor.
    Tcg,
    /// Hardware virtualisation.
    Kvm,
}

/// The names in a list with commas; none is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<'a>(&'a str);

/// The words of a command line; see [`CommandLine::words`].
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a [u8],
}

/// The settings of a command line; see [`CommandLine::settings`].
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    line: &'a [u8],
    words: Words<'a>,
    /// How many words were taken.
    taken: usize,
}

/// What is wrong with a word of a command line. Each variant has the word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLineError<'a> {
    /// It has bytes other than printable ASCII.
    NotText(&'a [u8]),
    /// It has no `=`.
    NoEqualsSign(&'a str),
    /// There is nothing before the `=`.
    NoKey(&'a str),
    /// There is nothing after the `=`.
    NoValue(&'a str),
    /// Its key is none of [`Setting`].
    UnknownKey(&'a str),
    /// An earlier word has the same key.
    Repeated(&'a str),
    /// Its value is not a number, or too large a one.
    NotANumber {
        /// The word.
        word: &'a str,
        /// The least number it may be.
        least: u64,
        /// The greatest number it may be.
        greatest: u64,
    },
    /// Its value is not a level of messages.
    NotALevel(&'a str),
    /// Its list has an empty name.
    EmptyName(&'a str),
    /// Its value is not an [`Accelerator`].
    NotAnAccelerator(&'a str),
    /// Its value is not one of [`POLICIES`].
    NotAPolicy(&'a str),
    /// It is `exit` with another value than 1.
    BadExit(&'a str),
}

impl CommandLine {
    /// No words.
    pub const EMPTY: Self = Self { length: 0, bytes: [0; MAX_COMMAND_LINE] };

    /// Copies a command line.
    ///
    /// # Errors
    /// [`LongCommandLine`] if it has more than [`MAX_COMMAND_LINE`] bytes.
    pub fn new(line: &[u8]) -> Result<Self, LongCommandLine> {
        let mut new = Self::EMPTY;
        line.iter().try_for_each(|&byte| new.push(byte))?;
        Ok(new)
    }

    /// The bytes as they were given.
    pub fn as_bytes(&self) -> &[u8] {
        usize::try_from(self.length).ok().and_then(|length| self.bytes.get(..length)).unwrap_or(&self.bytes)
    }

    /// The words in their order, or what is wrong with one.
    pub fn words(&self) -> Words<'_> {
        Words::new(self.as_bytes())
    }

    /// The settings in their order, or what is wrong with one. The words after a wrong one still follow.
    pub fn settings(&self) -> Settings<'_> {
        Settings::new(self.as_bytes())
    }

    /// See [`Words::ends_machine`].
    pub fn ends_machine(&self) -> bool {
        self.words().ends_machine()
    }

    pub(crate) fn clear(&mut self) {
        self.length = 0;
        self.bytes.fill(0);
    }

    pub(crate) fn push(&mut self, byte: u8) -> Result<(), LongCommandLine> {
        let place = self.bytes.get_mut(self.length as usize).ok_or(LongCommandLine)?;
        *place = byte;
        self.length += 1;
        Ok(())
    }
}

impl<'a> Words<'a> {
    /// Splits a command line that is not in a [`CommandLine`].
    pub fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    /// Whether there is a word `exit=…` among the rest: the machine is to end, whatever is wrong with this word or
    /// others. Who finds the command line wrong needs this to tell the host so.
    pub fn ends_machine(self) -> bool {
        self.flatten().any(|word| word.key == "exit")
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Result<Word<'a>, CommandLineError<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest.trim_ascii_start();
        let length = start.iter().position(u8::is_ascii_whitespace).unwrap_or(start.len());
        let (word, rest) = start.split_at(length);
        self.rest = rest;
        (!word.is_empty()).then(|| Word::parse(word))
    }
}

impl<'a> Settings<'a> {
    /// The settings of a command line that is not in a [`CommandLine`].
    pub fn new(line: &'a [u8]) -> Self {
        Self { line, words: Words::new(line), taken: 0 }
    }
}

impl<'a> Iterator for Settings<'a> {
    type Item = Result<Setting<'a>, CommandLineError<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let word = match self.words.next()? {
            Ok(word) => word,
            Err(error) => {
                self.taken += 1;
                return Some(Err(error));
            }
        };
        let repeated =
            Words::new(self.line).take(self.taken).flatten().any(|earlier| earlier.key == word.key);
        self.taken += 1;
        Some(if repeated { Err(CommandLineError::Repeated(word.text)) } else { Setting::parse(word) })
    }
}

impl<'a> Word<'a> {
    fn parse(word: &'a [u8]) -> Result<Self, CommandLineError<'a>> {
        let text = match core::str::from_utf8(word) {
            Ok(text) if word.iter().all(u8::is_ascii_graphic) => text,
            _ => return Err(CommandLineError::NotText(word)),
        };
        match text.split_once('=') {
            None => Err(CommandLineError::NoEqualsSign(text)),
            Some(("", _)) => Err(CommandLineError::NoKey(text)),
            Some((_, "")) => Err(CommandLineError::NoValue(text)),
            Some((key, value)) => Ok(Self { text, key, value }),
        }
    }

    /// The value as a number, decimal or with `0x` hexadecimal.
    ///
    /// # Errors
    /// [`CommandLineError::NotANumber`] if it is none, or not one of `least..=greatest`.
    pub fn number(&self, least: u64, greatest: u64) -> Result<u64, CommandLineError<'a>> {
        let (digits, radix) = match self.value.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (self.value, 10),
        };
        // `from_str_radix` would take a sign.
        let number = match digits.starts_with('+') {
            true => None,
            false => u64::from_str_radix(digits, radix).ok(),
        };
        number.filter(|number| (least..=greatest).contains(number)).ok_or(CommandLineError::NotANumber {
            word: self.text,
            least,
            greatest,
        })
    }

    /// The value as a number of things, of which there is at least one.
    ///
    /// # Errors
    /// [`CommandLineError::NotANumber`] if it is none, or not one of `1..=greatest`.
    pub fn count(&self, greatest: u32) -> Result<NonZero<u32>, CommandLineError<'a>> {
        let (least, greatest) = (1, greatest.into());
        let count = u32::try_from(self.number(least, greatest)?).ok().and_then(NonZero::new);
        count.ok_or(CommandLineError::NotANumber { word: self.text, least, greatest })
    }

    /// The value as a list of names with commas between them.
    ///
    /// # Errors
    /// [`CommandLineError::EmptyName`] if a name is empty.
    pub fn names(&self) -> Result<Names<'a>, CommandLineError<'a>> {
        match self.value.split(',').any(str::is_empty) {
            true => Err(CommandLineError::EmptyName(self.text)),
            false => Ok(Names(self.value)),
        }
    }

    /// The value as a level of messages.
    ///
    /// # Errors
    /// [`CommandLineError::NotALevel`] if it is none.
    pub fn level(&self) -> Result<LevelFilter, CommandLineError<'a>> {
        self.value.parse().map_err(|_| CommandLineError::NotALevel(self.text))
    }
}

impl<'a> Setting<'a> {
    fn parse(word: Word<'a>) -> Result<Self, CommandLineError<'a>> {
        match word.key {
            "bench" => word.names().map(Self::Bench),
            "scenario" => Ok(Self::Scenario(word.value)),
            "cpus" => word.count(u32::MAX).map(Self::Cpus),
            "seed" => word.number(0, u64::MAX).map(Self::Seed),
            "log" => word.level().map(Self::Log),
            "nodes" => word.count(u32::MAX).map(Self::Nodes),
            "accel" => match Accelerator::from_word(word.value) {
                Some(accelerator) => Ok(Self::Accel(accelerator)),
                None => Err(CommandLineError::NotAnAccelerator(word.text)),
            },
            "samples" => word.count(MAX_SAMPLES).map(Self::Samples),
            "calls" => word.number(1, u64::MAX).map(Self::Calls),
            "victim" => word.number(0, u64::MAX).map(Self::Victim),
            "policy" if POLICIES.contains(&word.value) => Ok(Self::Policy(word.value)),
            "policy" => Err(CommandLineError::NotAPolicy(word.text)),
            "exit" if word.value == "1" => Ok(Self::Exit),
            "exit" => Err(CommandLineError::BadExit(word.text)),
            _ => Err(CommandLineError::UnknownKey(word.text)),
        }
    }
}

impl Accelerator {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Icount, Self::Tcg, Self::Kvm];

    /// Its word on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Icount => "icount",
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }

    /// The one with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|accelerator| accelerator.word() == word)
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl<'a> Names<'a> {
    /// The names in their order, at least one.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.split(',')
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// In quotes, what is not printable escaped.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl fmt::Display for LongCommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command line has more than {MAX_COMMAND_LINE} bytes; shorten it")
    }
}

impl core::error::Error for LongCommandLine {}

impl fmt::Display for CommandLineError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText(word) => {
                write!(f, "\"{}\" on the command line is not printable ASCII", word.escape_ascii())
            }
            Self::NoEqualsSign(word) => {
                write!(f, "\"{word}\" on the command line is not of the form key=value")
            }
            Self::NoKey(word) => write!(f, "\"{word}\" on the command line has nothing before the ="),
            Self::NoValue(word) => write!(f, "\"{word}\" on the command line has nothing after the ="),
            Self::UnknownKey(word) => write!(
                f,
                "\"{word}\" on the command line has an unknown key; there are bench, scenario, cpus, nodes, seed, \
                 accel, samples, calls, victim, policy, log and exit"
            ),
            Self::Repeated(word) => {
                write!(f, "\"{word}\" on the command line has the key of an earlier word")
            }
            Self::NotANumber { word, least, greatest } => {
                write!(f, "\"{word}\" on the command line needs a number from {least} to {greatest}")
            }
            Self::NotALevel(word) => write!(
                f,
                "\"{word}\" on the command line needs one of off, error, warn, info, debug and trace"
            ),
            Self::EmptyName(word) => {
                write!(f, "\"{word}\" on the command line has an empty name in its list")
            }
            Self::NotAnAccelerator(word) => {
                write!(f, "\"{word}\" on the command line needs one of icount, tcg and kvm")
            }
            Self::NotAPolicy(word) => {
                write!(f, "\"{word}\" on the command line needs one of ")?;
                let (last, others) = POLICIES.split_last().unwrap_or((&"", &[]));
                for (index, policy) in others.iter().enumerate() {
                    write!(f, "{}{policy}", if index == 0 { "" } else { ", " })?;
                }
                write!(f, " and {last}")
            }
            Self::BadExit(word) => write!(
                f,
                "\"{word}\" on the command line needs the value 1; to keep the system up, leave the word out"
            ),
        }
    }
}

impl core::error::Error for CommandLineError<'_> {}
