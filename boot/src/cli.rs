//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use results::Accel;
use results::anchors::{BENCHES, Bench};
use skb::Policy;

use crate::machine::{Machine, MachineOptions};
use crate::numa::NumaSpec;
use crate::{Error, Result};

/// The most samples that the guest takes of a metric; its command line is refused beyond.
const MAX_SAMPLES: i64 = 1 << 20;

/// The exit codes, for `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  success                         10  the guest panicked
  1  other failure                   11  the guest hangs
  2  wrong command line              12  time-out
  3  not x86-64 Linux                13  a benchmark failed in the guest
  4  QEMU could not be set up        14  the system did not come up
  5  the OS could not be built       15  a test scenario failed
  6  a file could not be written     16  the guest refused its command line
  7  the accelerator does not work   17  the guest ended without an exit code
  8  QEMU refused the machine        18  the results are not valid
                                     19  the guest found another machine
130  interrupted                    143  terminated";

/// A multikernel, and a laboratory for message passing on multicore machines.
///
/// Without a command: boots the standard lab (8 vCPUs on 2 NUMA nodes, counting instructions), runs all
/// benchmarks, prints tables and writes JSON lines to results/.
#[derive(Debug, Parser)]
#[command(name = "killifish", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Action>,
    /// How to do it.
    #[command(flatten)]
    pub options: Options,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Run benchmarks: those named, or all.
    Bench {
        /// Names, as `killifish list` shows them.
        names: Vec<String>,
    },
    /// Show the benchmarks that there are.
    List,
    /// Boot and stay at the console.
    Boot {
        /// Wait for a debugger before the first instruction, and say how to attach one.
        #[arg(long)]
        gdb: bool,
    },
    /// Boot and run a test scenario in the guest, which checks itself.
    Test {
        /// Its name, such as fuzz: a binary of services/selftest.
        name: String,
        /// Further words for the guest, such as calls=10000000.
        words: Vec<String>,
    },
    /// Boot, and print what machine the guest found: it must be the one that QEMU was told to make.
    Topo,
    /// Set QEMU up where it is missing or too old.
    Setup,
    /// Print the exact QEMU command, ready for a shell.
    Qemu {
        /// Benchmarks to run in it; all where none is named.
        names: Vec<String>,
    },
    /// Start a benchmark of your own from a template: a domain of about 30 lines, ready to run.
    NewBench {
        /// Its name: lower-case letters, digits and _.
        name: String,
    },
    /// Start a placement policy of your own from a template: a function of about 10 lines, ready to use.
    NewPolicy {
        /// Its name: lower-case letters, digits and -.
        name: String,
    },
    /// Show two files of results beside each other: what changed, by how much, and where memory lay.
    Compare {
        /// A file of results, such as results/20260102T030405Z-1.jsonl.
        a: PathBuf,
        /// Another.
        b: PathBuf,
    },
}

/// The options, the same for every command.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// vCPUs [default: 8, or what --numa makes]
    #[arg(long, value_name = "N", global = true)]
    pub cpus: Option<u32>,
    /// NUMA nodes (2), nodes and cores of each (4x16), or a file of raw -numa lines [default: 2]
    #[arg(long, value_name = "SPEC", global = true)]
    pub numa: Option<NumaSpec>,
    /// Memory of the whole machine, such as 512M or 4G [default: 32M per vCPU, at least 1G]
    #[arg(long, value_name = "SIZE", global = true)]
    pub memory: Option<String>,
    /// What executes the guest
    #[arg(long, value_enum, default_value_t = AccelArg::Icount, global = true)]
    pub accel: AccelArg,
    /// Where the memory of channels between cores lies; counts do not show the difference, they are blind to it
    #[arg(long, value_name = "NAME", value_parser = policy_parser(), default_value_t = Policy::default(), global = true)]
    pub policy: Policy,
    /// Samples that a benchmark takes of each metric [default: the benchmark's own choice]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MAX_SAMPLES), global = true)]
    pub samples: Option<u32>,
    /// Boot and measure so many times; under icount the results must not differ
    #[arg(long, value_name = "N", default_value_t = 1, global = true)]
    pub repeat: u32,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1, global = true)]
    pub seed: u64,
    /// Seconds that one boot may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300, global = true)]
    pub timeout: u64,
    /// Write the JSON lines to this file instead of results/
    #[arg(long, value_name = "FILE", global = true)]
    pub json: Option<PathBuf>,
    /// Print the matrix of all pairs of cores however wide it is; else up to 16 cores
    #[arg(long, global = true)]
    pub matrix: bool,
    /// Print tables only: no progress, no remarks
    #[arg(long, global = true)]
    pub quiet: bool,
    /// More words for the guest's command line, for developers
    #[arg(long, value_name = "WORDS", global = true, hide = true)]
    pub append: Option<String>,
}

/// Reads `--policy`: one of the policies by name.
fn policy_parser() -> impl TypedValueParser<Value = Policy> {
    PossibleValuesParser::new(Policy::ALL.iter().map(|policy| policy.word()))
        // Others are refused before.
        .map(|word| Policy::from_word(&word).unwrap_or_default())
}

/// `--accel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccelArg {
    /// Count instructions, one vCPU after the other: exact and repeatable
    Icount,
    /// One thread per vCPU, without counting
    Tcg,
    /// Hardware virtualisation
    Kvm,
}

impl From<AccelArg> for Accel {
    fn from(accel: AccelArg) -> Self {
        match accel {
            AccelArg::Icount => Self::Icount,
            AccelArg::Tcg => Self::Tcg,
            AccelArg::Kvm => Self::Kvm,
        }
    }
}

impl Options {
    /// The machine asked for.
    ///
    /// # Errors
    /// Says which number is wrong and what would be right.
    pub fn machine(&self) -> Result<Machine> {
        if self.repeat == 0 {
            return Err(Error::ZeroRepeat);
        }
        if self.timeout == 0 {
            return Err(Error::ZeroTimeout);
        }
        Machine::new(&MachineOptions {
            cpus: self.cpus,
            numa: self.numa.clone(),
            memory: self.memory.clone(),
            accel: Some(self.accel.into()),
            seed: Some(self.seed),
        })
    }

    /// How long one boot may take.
    #[must_use]
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The words of `--append`.
    #[must_use]
    pub fn appended(&self) -> Vec<String> {
        self.append.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned).collect()
    }
}

/// Checks the names of benchmarks; all that `cpus` CPUs are enough for where none is given. Each once, in the order of
/// the table.
///
/// # Errors
/// A name that is unknown, with the nearest one; a benchmark that takes more CPUs.
pub fn benchmarks(names: &[String], cpus: u32) -> Result<Vec<&'static str>> {
    for name in names {
        let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
            return Err(Error::UnknownBench { name: name.clone(), nearest: nearest(name) });
        };
        if bench.cores > cpus {
            return Err(Error::TooFewCpus { bench: bench.name, needed: bench.cores, cpus });
        }
    }
    let wanted = |bench: &&Bench| match names {
        [] => bench.cores <= cpus,
        names => names.iter().any(|name| name == bench.name),
    };
    Ok(BENCHES.iter().filter(wanted).map(|bench| bench.name).collect())
}

/// The benchmark that was most likely meant: at most half of its letters differ.
fn nearest(name: &str) -> Option<String> {
    let distance = |bench: &str| strsim::damerau_levenshtein(&name.to_lowercase(), bench);
    let names = BENCHES.iter().map(|bench| bench.name);
    let best = names.min_by_key(|bench| distance(bench))?;
    (distance(best) * 2 <= best.chars().count()).then(|| best.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_the_standard_lab() {
        let cli = parse("killifish");
        assert_eq!(cli.command, None);
        let machine = cli.options.machine().unwrap();
        assert_eq!((machine.cpus, machine.nodes, machine.accel), (8, 2, Accel::Icount));
        assert_eq!(cli.options.time_limit(), Duration::from_secs(300));
    }

    #[test]
    fn options_may_stand_before_or_after_the_command() {
        for line in ["killifish --cpus 4 --quiet bench syscall", "killifish bench syscall --cpus 4 --quiet"] {
            let cli = parse(line);
            assert_eq!(cli.command, Some(Action::Bench { names: vec!["syscall".into()] }));
            assert_eq!((cli.options.cpus, cli.options.quiet), (Some(4), true));
        }
    }

    #[test]
    fn a_scenario_takes_words() {
        let cli = parse("killifish test fuzz calls=10 --cpus 4 victim=3");
        let words = vec!["calls=10".into(), "victim=3".into()];
        assert_eq!(cli.command, Some(Action::Test { name: "fuzz".into(), words }));
        assert_eq!(Cli::try_parse_from(["killifish", "test"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn every_option_is_read() {
        let cli = parse(
            "killifish boot --gdb --cpus 64 --numa 4x16 --memory 4G --accel tcg --repeat 3 --seed 7 --samples 5 --timeout 9 \
             --policy worst --json out.jsonl --append scenario=x",
        );
        assert_eq!(cli.command, Some(Action::Boot { gdb: true }));
        let machine = cli.options.machine().unwrap();
        assert_eq!((machine.cpus, machine.nodes, machine.memory_mib), (64, 4, 4096));
        assert_eq!((machine.accel, machine.seed), (Accel::Tcg, 7));
        assert_eq!((cli.options.repeat, cli.options.samples), (3, Some(5)));
        assert_eq!(cli.options.policy, Policy::Worst);
        assert_eq!(cli.options.json.as_deref(), Some("out.jsonl".as_ref()));
        assert_eq!(cli.options.appended(), ["scenario=x"]);
    }

    #[test]
    fn zeros_have_messages_of_their_own() {
        let refusal = |line: &str| parse(line).options.machine().unwrap_err().to_string();
        assert_eq!(refusal("killifish --cpus 0"), "--cpus 0: a machine needs at least 1 vCPU");
        assert_eq!(refusal("killifish --repeat 0"), "--repeat 0: repeat at least once");
        assert_eq!(refusal("killifish --timeout 0"), "--timeout 0: give the guest at least 1 second");
    }

    #[test]
    fn what_is_no_number_is_a_usage_error() {
        for line in [
            "killifish --cpus many",
            "killifish --samples 0",
            "killifish --samples 1048577",
            "killifish --accel fast",
            "killifish --nonsense",
            "killifish explode",
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_policy_can_be_asked_for_and_no_other() {
        assert_eq!(parse("killifish bench").options.policy, Policy::SplitPoller);
        for &policy in Policy::ALL {
            assert_eq!(parse(&format!("killifish bench --policy {policy}")).options.policy, policy);
        }
        let error = Cli::try_parse_from(["killifish", "--policy", "wurst"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(
            error.to_string().lines().take(2).collect::<Vec<_>>(),
            [
                "error: invalid value 'wurst' for '--policy <NAME>'",
                "  [possible values: producer, consumer, split-poller, interleave, worst, creator, split-writer, \
                 consumer-data, random, auto]",
            ]
        );
    }

    #[test]
    fn benchmarks_are_all_or_those_named() {
        let all: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        assert_eq!(benchmarks(&[], 2).unwrap(), all);
        let named = ["yield", "syscall", "yield"].map(str::to_owned);
        assert_eq!(benchmarks(&named, 1).unwrap(), ["syscall", "yield"]);
    }

    #[test]
    fn one_cpu_is_not_enough_for_messages_between_cores() {
        let alone = benchmarks(&[], 1).unwrap();
        assert!(alone.contains(&"lmp_pingpong") && !alone.contains(&"ump_pingpong"), "{alone:?}");
        let error = benchmarks(&["bulk".to_owned()], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "benchmark bulk takes at least 2 CPUs, and this machine has 1: give it more by --cpus"
        );
        assert_eq!(error.exit(), results::HostExit::Usage);
    }

    #[test]
    fn an_unknown_benchmark_comes_with_the_nearest() {
        let message = |name: &str| benchmarks(&[name.to_owned()], 1).unwrap_err().to_string();
        let known = |name: &str, nearest: &str| {
            let expected =
                format!("unknown benchmark {name:?}: did you mean {nearest:?}? (`killifish list` shows all)");
            assert_eq!(message(name), expected);
        };
        known("sycall", "syscall");
        known("yeild", "yield");
        known("PageFault", "pagefault");
        assert_eq!(message("zzz"), "unknown benchmark \"zzz\" (`killifish list` shows all)");
    }
}
