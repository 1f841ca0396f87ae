//! Tests that boot the OS, and what they share.
//!
//! The tests are in `tests/`, one file per subject; plain `cargo test` runs them all. Each says what machine it
//! needs as a [`Boot`]; the machines run on the code that the host command runs them with, so a machine that fails
//! is reported as there, with the state of every core. The OS is built once, by [`images()`], and started with
//! whatever the test wants on its command line. At most [`PLACES`] machines run at a time, whatever the number of
//! tests ([`places`]). [`command`] runs the host command itself; [`tables`] audits the page tables of a machine that
//! was stopped.

pub mod command;
pub mod places;
pub mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use killifish::guest::{Job, Outcome, Sight};
use killifish::images::{self, Images, Progress};
use killifish::interrupt::Interrupt;
use killifish::machine::{Machine, MachineOptions};
use killifish::numa::NumaSpec;
use killifish::qemu::{Qemu, STOPS_AT_EXIT};
use killifish::qmp::{Qmp, QmpError};
use killifish::setup::{self, Need};
use killifish::told::Told;
use killifish::{Error, Result};
use results::host::{Event, Line, Record};
use results::{Accel, EventKind};

pub use killifish::topo::Found;
pub use places::PLACES;

/// The images of the OS, built when the first test asks for them.
///
/// # Panics
/// If they cannot be built.
pub fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(|| {
        // Cargo's own lock lets test binaries that run side by side build it once.
        images::build(Progress::Hidden, &Interrupt::default()).unwrap_or_else(|e| panic!("the OS: {e}"))
    })
}

/// Whether the QEMU in use can run the OS with SMAP; see [`killifish::qemu::USER_IRET`].
#[must_use]
pub fn smap_is_on() -> bool {
    qemu(1).is_ok_and(|qemu| qemu.version >= killifish::qemu::USER_IRET)
}

/// A QEMU for so many vCPUs, set up as the host command would.
fn qemu(cores: u32) -> Result<Qemu> {
    // One test at a time: it may have to be installed.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    setup::ensure(&Need::of_cpus(cores), &mut |text| eprintln!("{text}"))
}

/// Whether a machine that has ended can be asked for its cores' registers: not in old QEMUs.
#[must_use]
pub fn stops_at_exit() -> bool {
    qemu(1).is_ok_and(|qemu| qemu.version >= STOPS_AT_EXIT)
}

/// A machine to boot, and what it is told.
#[derive(Debug, Clone)]
pub struct Boot {
    /// vCPUs.
    pub cores: u32,
    /// NUMA nodes.
    pub nodes: Nodes,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// What executes it.
    pub accel: Accel,
    /// What its CPUs can do.
    pub cpu: Cpu,
    /// Words for the guest's command line, besides those that describe the machine.
    pub words: &'static str,
    /// How long it may take until it is at its end, waiting for a place not counted. It bounds a test that goes
    /// wrong; no test is about it.
    pub limit: Duration,
}

/// The NUMA nodes of a machine.
#[derive(Debug, Clone, Copy)]
pub enum Nodes {
    /// So many, over which cores and memory divide evenly.
    Even(u32),
    /// As the `-numa` lines of a file for `--numa` say.
    Lines(&'static str),
}

/// What the CPUs of a machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cpu {
    /// What the host command gives them.
    Usual,
    /// Nothing that the OS can do without: no x2APIC, SMEP, SMAP, UMIP, FSGSBASE, AVX, XSAVEOPT.
    Least,
}

/// Runs the QEMU of [`Cpu::Least`].
const QEMU_LEAST_CPU: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/qemu-least-cpu");

/// A limit for boots that take seconds, on a machine that has other things to do too.
pub const SHORT: Duration = Duration::from_secs(120);

/// A limit for boots of many cores.
pub const LONG: Duration = Duration::from_secs(400);

impl Boot {
    /// Boots a machine that must end with success.
    ///
    /// # Panics
    /// If it does not, with the report of the host command: the last lines of the console and every core's state.
    pub fn run(&self) -> Run {
        match self.outcome() {
            Ok(outcome) => Run(outcome),
            Err(error) => panic!("{self:?}: {}", explain(&error)),
        }
    }

    /// Boots a machine that must fail.
    ///
    /// # Panics
    /// If it succeeds.
    pub fn fail(&self) -> Error {
        match self.outcome() {
            Ok(outcome) => panic!("{self:?} ends with success:\n{}", outcome.console.join("\n")),
            Err(error) => error,
        }
    }

    /// Boots a machine until an event of that kind, stops it there, and has `look` examine it.
    ///
    /// # Panics
    /// If it does not come that far, or cannot be examined.
    pub fn stop_at<T>(
        &self,
        kind: EventKind,
        look: impl FnOnce(&mut Qmp) -> std::result::Result<T, QmpError>,
    ) -> T {
        let stopped = self.with_job(|job| {
            let mut observer = |sight: Sight<'_>| match sight {
                Sight::Line(Line::Event(event)) if event.kind == kind => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            };
            job.stop_and_look(&mut observer, look)
        });
        stopped.unwrap_or_else(|error| panic!("{self:?}: {}", explain(&error)))
    }

    fn outcome(&self) -> Result<Outcome> {
        self.with_job(|job| job.run(&mut |_| {}))
    }

    /// The machine that QEMU is told to make.
    fn machine(&self) -> Result<Machine> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let numa = match self.nodes {
            Nodes::Even(nodes) => NumaSpec::Nodes(nodes),
            Nodes::Lines(lines) => {
                let path = directory.path().join("numa");
                std::fs::write(&path, lines).expect("the temporary directory can be written");
                NumaSpec::File(path)
            }
        };
        Machine::new(&MachineOptions {
            cpus: Some(self.cores),
            numa: Some(numa),
            memory: Some(self.memory_mib.to_string()),
            accel: Some(self.accel),
            seed: None,
        })
    }

    fn with_job<T>(&self, run: impl FnOnce(&Job<'_>) -> Result<T>) -> Result<T> {
        let machine = self.machine()?;
        let mut qemu = qemu(self.cores)?;
        qemu.check_cpus(&machine)?;
        if self.cpu == Cpu::Least {
            qemu.program = QEMU_LEAST_CPU.into();
        }
        let interrupt = Interrupt::default();
        let job = Job {
            machine: &machine,
            images: images(),
            qemu: &qemu,
            words: self.words.split_whitespace().map(str::to_owned).collect(),
            timeout: self.limit,
            interrupt: &interrupt,
        };
        let _place = match self.accel {
            // One thread executes all vCPUs.
            Accel::Icount => places::one(),
            Accel::Tcg | Accel::Kvm | Accel::Native => places::all(),
        };
        run(&job)
    }
}

/// What is known about a machine that failed, with the message.
pub fn explain(error: &Error) -> String {
    let report = error.failure().map_or_else(String::new, |failure| format!("\n{failure}"));
    format!("{error}{report}")
}

/// A machine that ended with success.
#[derive(Debug)]
pub struct Run(pub Outcome);

impl Run {
    /// The events of that kind, in order.
    pub fn events(&self, kind: EventKind) -> Vec<&Event> {
        let events = self.0.lines.iter().filter_map(|line| match line {
            Line::Event(event) => Some(event),
            Line::Result(_) => None,
        });
        events.filter(|event| event.kind == kind).collect()
    }

    /// The cores that events of that kind name. They come in any order, so they are compared as sets.
    ///
    /// # Panics
    /// If a core comes twice, or an event names none.
    pub fn cores(&self, kind: EventKind) -> BTreeSet<u32> {
        let mut cores = BTreeSet::new();
        for event in self.events(kind) {
            let core = event.core.unwrap_or_else(|| panic!("no core in {event:?}"));
            assert!(cores.insert(core), "two events {kind} of core {core}");
        }
        cores
    }

    /// The results in their order.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.0.lines.iter().filter_map(|line| match line {
            Line::Result(record) => Some(&**record),
            Line::Event(_) => None,
        })
    }

    /// The results, by benchmark and metric; the last where there are several.
    pub fn results(&self) -> BTreeMap<(&str, &str), &Record> {
        self.records().map(|record| ((record.bench.as_str(), record.metric.as_str()), record)).collect()
    }

    /// Asserts that every CPU driver and every monitor reported up and that the machine came to its end; where the
    /// nodes are even, also that each core is on the node that QEMU was told.
    ///
    /// # Panics
    /// If not.
    pub fn assert_all_up(&self, boot: &Boot) {
        let all: BTreeSet<u32> = (0..boot.cores).collect();
        assert_eq!(self.cores(EventKind::CoreUp), all, "CPU drivers");
        // The first core's monitor does not report to itself: it is the one that says that all are up.
        assert_eq!(self.cores(EventKind::MonitorUp), all.into_iter().skip(1).collect(), "monitors");
        let ready: Vec<Option<u64>> = self.events(EventKind::Ready).iter().map(|event| event.value).collect();
        assert_eq!(ready, [Some(u64::from(boot.cores))]);
        assert_eq!(self.events(EventKind::Done).len(), 1);
        if let Nodes::Even(nodes) = boot.nodes {
            self.assert_even(boot.cores, nodes);
        }
    }

    /// Asserts that the guest found the machine that QEMU was told to make; what it found.
    ///
    /// # Panics
    /// If it found another, or did not say.
    pub fn assert_found(&self, boot: &Boot) -> Found {
        let found = Found::read(&self.0.lines).unwrap_or_else(|error| panic!("{boot:?}: {error}"));
        let told = boot.machine().and_then(|machine| Told::of(&machine));
        let told = told.unwrap_or_else(|error| panic!("{boot:?}: {error}"));
        let differences = told.differences(&found.topology);
        assert!(differences.is_empty(), "{boot:?}:\n{}", differences.join("\n"));
        found
    }

    /// Asserts that each core says where it is, and that firmware puts it on its node.
    fn assert_even(&self, cores: u32, nodes: u32) {
        let lines = &self.0.console;
        let per_node = cores / nodes;
        // QEMU numbers the cores of a socket, here a node, from a multiple of a power of two.
        let apic = |core: u32| core / per_node * per_node.next_power_of_two() + core % per_node;
        let says = |core: u32| format!("[core {core}] info CPU driver up, APIC {} ", apic(core));
        let silent = (0..cores).find(|&core| !lines.iter().any(|line| line.starts_with(&says(core))));
        assert_eq!(silent, None, "no {:?} in:\n{}", says(silent.unwrap_or(0)), lines.join("\n"));
        for node in 0..nodes {
            let (first, last) = (node * per_node, (node + 1) * per_node - 1);
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            let start = format!("node {node}: cores {range}; distances");
            assert_eq!(self.console(&start).count(), 1, "{start:?} in:\n{}", lines.join("\n"));
        }
        assert_eq!(self.console("node ").count(), nodes as usize);
    }

    /// Lines of the console that begin with that text, after the tag that says whose they are.
    pub fn console<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        let text = |line: &'a String| line.split_once("] ").map_or(line.as_str(), |(_, text)| text);
        self.0.console.iter().map(text).filter(move |text| text.starts_with(start))
    }
}
