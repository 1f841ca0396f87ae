//! What the command line asks for.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use boot_info::{Accelerator, CommandLineError, Setting, Settings, Words};
use results::Accel;
use skb::Policy;

/// What `init` is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Benchmarks to run, in this order.
    pub benches: Vec<String>,
    /// The test scenario to run.
    pub scenario: Option<String>,
    /// Cores to use, the first included; `None`: all there are.
    pub cpus: Option<u32>,
    /// The seed of the run.
    pub seed: u64,
    /// What executes the instructions, as the host says.
    pub accel: Accel,
    /// What to do when everything was done.
    pub at_end: AtEnd,
    /// Samples per metric; `None`: the benchmark's choice.
    pub samples: Option<u64>,
    /// Operations that a scenario makes; `None`: the scenario's choice.
    pub calls: Option<u64>,
    /// The only one of a scenario's domains to make; `None`: all.
    pub victim: Option<u64>,
    /// Where benchmarks have the memory of their channels placed.
    pub policy: Policy,
}

/// What to do when everything was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtEnd {
    /// Wait.
    Stay,
    /// End the machine.
    Exit,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            benches: Vec::new(),
            scenario: None,
            cpus: None,
            seed: 1,
            accel: Accel::Tcg,
            at_end: AtEnd::Stay,
            samples: None,
            calls: None,
            victim: None,
            policy: Policy::default(),
        }
    }
}

bitflags::bitflags! {
    /// What a benchmark or test gets beside its own objects, its console stream and the monitor's endpoint.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Needs: u8 {
        /// The boot archive: it makes domains by itself.
        const ARCHIVE = 1;
        /// All that the core's control block allows.
        const CONTROL = 2;
        /// The endpoint of the system knowledge base: it is what the test is about.
        const KNOWLEDGE = 4;
        /// [`MORE_MEMORY`]: it measures with a great many capabilities.
        const MEMORY = 8;
    }
}

/// RAM for a benchmark that [needs](Needs::MEMORY) more than others, in bytes: room for 2^20 capability slots.
pub const MORE_MEMORY: u64 = 144 << 20;

/// Benchmarks that make domains of their core by themselves: that is what they measure, or they take no way through
/// the monitor.
const SPAWNING: [&str; 4] = ["bench_spawn", "bench_yield", "bench_lmp_pingpong", "bench_lmp_cap"];

/// Tests that have domains made by the monitor.
const ORDERING: [&str; 4] = ["test_spawning", "test_memserv", "test_mesh", "test_fuzz"];

/// Domains of tests that make domains of their core by themselves, though a monitor orders them.
const MAKING: [&str; 1] = ["test_fuzz_node"];

impl Needs {
    /// What the domain of this module needs that a monitor orders.
    pub fn of_ordered(module: &str) -> Needs {
        if MAKING.contains(&module) { Needs::ARCHIVE } else { Needs::empty() }
    }

    /// What the domain of this module needs that the command line asks for.
    pub fn of(module: &str) -> Needs {
        if module == "bench_caps" {
            Needs::MEMORY
        } else if SPAWNING.contains(&module) {
            Needs::ARCHIVE
        } else if module == "test_memory" {
            Needs::KNOWLEDGE
        } else if module.starts_with("test_") && !ORDERING.contains(&module) {
            Needs::ARCHIVE | Needs::CONTROL
        } else {
            Needs::empty()
        }
    }
}

/// Why the command line cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadWord(String);

impl fmt::Display for BadWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<CommandLineError<'_>> for BadWord {
    fn from(error: CommandLineError<'_>) -> Self {
        BadWord(error.to_string())
    }
}

impl Config {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with the first word that is not understood.
    pub fn parse(line: &[u8]) -> Result<Config, BadWord> {
        let mut config = Config::default();
        for setting in Settings::new(line) {
            match setting? {
                Setting::Bench(names) => config.benches = names.iter().map(String::from).collect(),
                Setting::Scenario(name) => config.scenario = Some(String::from(name)),
                Setting::Cpus(n) => config.cpus = Some(n.get()),
                Setting::Seed(seed) => config.seed = seed,
                Setting::Accel(accelerator) => config.accel = accel(accelerator),
                Setting::Samples(n) => config.samples = Some(n.get().into()),
                Setting::Calls(n) => config.calls = Some(n),
                Setting::Victim(n) => config.victim = Some(n),
                // The words are the same: `skb` asserts it.
                Setting::Policy(word) => config.policy = Policy::from_word(word).unwrap_or_default(),
                Setting::Exit => config.at_end = AtEnd::Exit,
                // Which messages are kept is the CPU driver's to know; how many nodes there are says firmware.
                Setting::Log(_) | Setting::Nodes(_) => {}
            }
        }
        Ok(config)
    }

    /// How much more memory than usual the first core's domains need, in bytes.
    pub fn more_memory(&self) -> u64 {
        let needs = |bench: &String| Needs::of(&format!("bench_{bench}")).contains(Needs::MEMORY);
        if self.benches.iter().any(needs) { MORE_MEMORY } else { 0 }
    }

    /// Whether a command line that cannot be followed as a whole asks at least for the end of the machine.
    pub fn wants_exit(line: &[u8]) -> bool {
        Words::new(line).ends_machine()
    }
}

/// The accelerator in the words of the results.
fn accel(accelerator: Accelerator) -> Accel {
    match accelerator {
        Accelerator::Icount => Accel::Icount,
        Accelerator::Tcg => Accel::Tcg,
        Accelerator::Kvm => Accel::Kvm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_are_understood() {
        let line =
            b"bench=syscall,yield cpus=8 seed=7 accel=icount exit=1 log=info samples=10 nodes=2 scenario=hog \
              policy=worst calls=9 victim=0";
        let expected = Config {
            benches: std::vec!["syscall".into(), "yield".into()],
            scenario: Some("hog".into()),
            cpus: Some(8),
            seed: 7,
            accel: Accel::Icount,
            at_end: AtEnd::Exit,
            samples: Some(10),
            calls: Some(9),
            victim: Some(0),
            policy: Policy::Worst,
        };
        assert_eq!(Config::parse(line).unwrap(), expected);
        assert_eq!(Config::parse(b"").unwrap(), Config::default());
    }

    #[test]
    fn accelerators_have_the_same_words_in_the_results() {
        for accelerator in Accelerator::ALL {
            assert_eq!(accel(accelerator).word(), accelerator.word());
        }
    }

    #[test]
    fn domains_get_what_they_need() {
        assert_eq!(Needs::of("test_hog"), Needs::ARCHIVE | Needs::CONTROL);
        assert_eq!(Needs::of("test_memory"), Needs::KNOWLEDGE);
        assert_eq!(Needs::of("test_spawning"), Needs::empty());
        assert_eq!(Needs::of("bench_spawn"), Needs::ARCHIVE);
        assert_eq!(Needs::of("bench_syscall"), Needs::empty());
        let more = |line: &str| Config::parse(line.as_bytes()).unwrap().more_memory();
        assert_eq!((more("bench=syscall,caps"), more("bench=syscall")), (MORE_MEMORY, 0));
        assert_eq!(Needs::of_ordered("test_fuzz_node"), Needs::ARCHIVE);
        assert_eq!(Needs::of_ordered("test_hog"), Needs::empty());
    }

    #[test]
    fn a_bad_word_is_named() {
        for (line, part) in [
            ("accel=hyper", "icount, tcg and kvm"),
            ("exit=2", "exit=2"),
            ("bench=a,,b", "bench=a,,b"),
            ("colour=red", "colour=red"),
            ("exit=1 exit=1", "exit=1"),
            ("cpus=0", "cpus=0"),
            ("samples=0", "samples=0"),
            ("policy=wurst", "split-poller"),
        ] {
            let error = Config::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert!(Config::wants_exit(b"colour=red exit=1"));
        assert!(!Config::wants_exit(b"colour=red"));
    }
}
