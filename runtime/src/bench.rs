//! The harness of benchmark domains: what a number means is decided here.
//!
//! A sample is the time between two serialised readings of the time-stamp counter, less the time that two
//! readings take by themselves, which is measured first. [`WARM_UP`] operations run before the first sample.
//! Nothing is printed before the last sample is taken.
//!
//! Under `-icount` the clock counts the instructions of *all* cores, and skips while all of them halt. So a sample
//! during which this core went idle or had a timer interrupt is rejected and taken again ([`Plan::may_halt`] where
//! to go idle is part of what is measured), and a measurement in which another core takes part begins with
//! [`Harness::settle`]: the clock itself shows that nobody else runs. Beside each distribution stand exact counts per operation, from the CPU driver's counters. Where the
//! clock measures nothing (`accel=tcg`: the host's time, shared with everything that runs there) the samples are
//! taken all the same, and only the counts are reported.
//!
//! A benchmark is a function on a [`Harness`]:
//!
//! ```ignore
//! runtime::entry!(main);
//! fn main(env: &Env) -> u64 {
//!     Harness::run(env, "yield", |h| h.measure("to_self", 1000, || { let _ = yield_core(); }))
//! }
//! ```

use alloc::vec::Vec;
use core::fmt;

use lmp::invocation::Counter;
use lmp::{CPtr, SysError, syscall};
use results::{Accel, Distribution, Event, EventKind, Home, Homes, Layer, Record, Unit};
use skb::Policy;

use crate::channel::{Closed, WaitError};
use crate::memory::MemoryError;
use crate::monitor::{self, Connection};
use crate::spawn::SpawnError;
use crate::{Env, output, time};

/// Operations before the first sample.
pub const WARM_UP: usize = 16;

/// Exit code of a benchmark that got no valid samples or could not run.
pub const EXIT_FAILED: u64 = 2;

/// Counters whose change per operation is reported.
const COUNTED: [(Counter, &str); 5] = [
    (Counter::KernelEntries, "kernel_entries"),
    (Counter::Upcalls, "upcalls"),
    (Counter::PageTableWrites, "page_table_writes"),
    (Counter::Switches, "switches"),
    (Counter::IpisSent, "ipis"),
];

/// Further counts that a benchmark may add to a record.
const MAX_EXTRA: usize = 4;

/// Pauses in a turn. A loop that looks for messages may have been unrolled to two, three or four looks that differ.
const PAUSES: u32 = 12;

/// Equal turns of the clock in a row after which only those run who take part: more than anybody polls before he
/// falls asleep ([`crate::waitset::POLL_ROUNDS`]).
const QUIET_TURNS: u32 = 2 * crate::waitset::POLL_ROUNDS + 32;

/// Longer turns after which the shortest one was an exception.
const LONG_AGO: u32 = 4096;

/// Turns after which a machine is too restless to measure on.
const MAX_TURNS: u32 = 1 << 20;

/// Why a benchmark has no result.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BenchError {
    /// An operation was refused.
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        cause: SysError,
    },
    /// Too many samples had to be rejected.
    Restless {
        /// Samples wanted.
        wanted: usize,
        /// Samples that were valid.
        valid: usize,
    },
    /// A domain the benchmark needs is not in the archive, or there is no archive.
    NoModule(&'static str),
    /// A domain could not be made or taken down.
    Spawn(SpawnError),
    /// Memory ran out.
    Memory(MemoryError),
    /// Somebody else runs all the time.
    NeverQuiet,
    /// The monitor was of no help.
    Monitor(monitor::Error),
    /// A channel was closed in the middle of it.
    Channel(Closed),
    /// What was measured did not happen.
    Wrong(&'static str),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { operation, cause } => write!(f, "{operation} was refused: {cause}"),
            Self::Restless { wanted, valid } => write!(
                f,
                "only {valid} of {wanted} samples are valid: the core went idle or was interrupted during the \
                 others; run with fewer domains on it"
            ),
            Self::NeverQuiet => f.write_str(
                "cores that take no part do not halt, and the clock counts what they do: end other domains first",
            ),
            Self::Monitor(error) => error.fmt(f),
            Self::Channel(error) => error.fmt(f),
            Self::NoModule(name) => write!(f, "module {name} is not in the boot archive: rebuild it"),
            Self::Spawn(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

impl core::error::Error for BenchError {}

impl From<SpawnError> for BenchError {
    fn from(error: SpawnError) -> Self {
        Self::Spawn(error)
    }
}

impl From<MemoryError> for BenchError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<monitor::Error> for BenchError {
    fn from(error: monitor::Error) -> Self {
        Self::Monitor(error)
    }
}

impl From<Closed> for BenchError {
    fn from(error: Closed) -> Self {
        Self::Channel(error)
    }
}

impl From<ump::Violation> for BenchError {
    fn from(error: ump::Violation) -> Self {
        Self::Channel(Closed::Violation(error))
    }
}

impl From<WaitError> for BenchError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => Self::Wrong("a peer does not answer"),
            WaitError::Closed(closed) => Self::Channel(closed),
        }
    }
}

/// A refusal of `operation`, for `map_err`.
pub fn refused(operation: &'static str) -> impl Fn(SysError) -> BenchError {
    move |cause| BenchError::Refused { operation, cause }
}

/// The run that a benchmark is part of: what every result says of it.
#[derive(Clone, Copy, Debug)]
pub struct RunInfo {
    /// What executes the instructions.
    pub accel: Accel,
    /// Cores of the machine.
    pub cores: u32,
    /// NUMA nodes of the machine.
    pub nodes: u32,
    /// The seed.
    pub seed: u64,
    /// The placement policy.
    pub policy: Policy,
    /// Samples to take of each metric; 0: the benchmark's choice.
    pub samples: u64,
}

impl RunInfo {
    /// What the arguments of the domain say.
    pub fn of(env: &Env) -> RunInfo {
        let number = |key| env.number(key, 1);
        RunInfo {
            // Unless told, assume what makes the weakest claim: that the clock measures nothing.
            accel: env.value("accel").and_then(Accel::from_word).unwrap_or(Accel::Tcg),
            cores: number("cores") as u32,
            nodes: number("nodes") as u32,
            seed: number("seed"),
            policy: env.value("policy").and_then(Policy::from_word).unwrap_or_default(),
            samples: env.number("samples", 0),
        }
    }

    /// The samples to take, `default` unless the command line says otherwise.
    pub fn samples(&self, default: usize) -> usize {
        if self.samples == 0 { default } else { self.samples as usize }
    }

    /// What the clock counts; `None` where that measures nothing.
    fn unit(&self) -> Option<Unit> {
        match self.accel {
            Accel::Icount => Some(Unit::Instr),
            Accel::Kvm | Accel::Native => Some(Unit::Cycles),
            Accel::Tcg => None,
        }
    }

    fn layer(&self) -> Layer {
        match self.accel {
            Accel::Icount | Accel::Tcg => Layer::Counts,
            Accel::Kvm | Accel::Native => Layer::Native,
        }
    }
}

/// What a result is about, beside its metric.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Bytes moved by one operation.
    size: Option<u64>,
    /// The core that receives, and its node.
    to: Option<(u32, u32)>,
    /// The policy, and where the memory lay.
    placed: Option<Placed>,
}

/// Where the memory of a connection lay.
#[derive(Clone, Debug)]
struct Placed {
    policy: Policy,
    data: Vec<Home>,
    forward: Home,
    backward: Home,
}

impl Subject {
    /// One that says nothing.
    pub fn new() -> Subject {
        Subject::default()
    }

    /// Moves so many bytes per operation.
    pub fn moving(mut self, bytes: u64) -> Subject {
        self.size = Some(bytes);
        self
    }

    /// Goes to `core`, which is on `node`.
    pub fn to(mut self, core: u32, node: u32) -> Subject {
        self.to = Some((core, node));
        self
    }

    /// Goes over `connection`, of which this end is the producer, placed by `policy`.
    pub fn over(mut self, connection: &Connection, policy: Policy) -> Subject {
        let home = |piece: &monitor::Piece| Home { node: u32::from(piece.node), address: piece.physical };
        let [own, peer] = connection.outboxes();
        self.placed = Some(Placed {
            policy,
            data: connection.pool().iter().map(home).collect(),
            forward: home(&own),
            backward: home(&peer),
        });
        self
    }
}

/// What a sample is divided by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Per {
    /// Nothing: a sample is one operation.
    #[default]
    Operation,
    /// So many like parts.
    Part(u64),
    /// The KiB that an operation moves.
    Kib,
}

/// Whether this core may go idle during a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Halting {
    #[default]
    Never,
    Expected,
}

/// How one metric is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    metric: &'static str,
    samples: usize,
    extra: &'a [(&'static str, u64)],
    per: Per,
    halting: Halting,
}

impl<'a> Plan<'a> {
    /// So many samples, each of one operation.
    pub const fn new(metric: &'static str, samples: usize) -> Plan<'a> {
        Plan { metric, samples, extra: &[], per: Per::Operation, halting: Halting::Never }
    }

    /// With further counts for one operation.
    pub const fn counting(mut self, extra: &'a [(&'static str, u64)]) -> Plan<'a> {
        self.extra = extra;
        self
    }

    /// A sample is of `parts` like parts, such as messages; the values are of one. The counts stay those of all.
    pub const fn per_part(mut self, parts: u64) -> Plan<'a> {
        self.per = Per::Part(parts);
        self
    }

    /// The values are of each KiB that the [`Subject`] moves.
    pub const fn per_kib(mut self) -> Plan<'a> {
        self.per = Per::Kib;
        self
    }

    /// This core may go idle during a sample: another one runs then. No timer may come all the same.
    pub const fn may_halt(mut self) -> Plan<'a> {
        self.halting = Halting::Expected;
        self
    }
}

/// A result, kept until all are taken.
struct Taken {
    metric: &'static str,
    subject: Subject,
    n: usize,
    distribution: Option<Distribution>,
    counts: Vec<(&'static str, u64)>,
}

/// What a benchmark measures with.
pub struct Harness {
    bench: &'static str,
    env: Env,
    run: RunInfo,
    /// For reading the counters of this core.
    kcb: CPtr,
    overhead: u64,
    counting: [u64; COUNTED.len()],
    subject: Subject,
    taken: Vec<Taken>,
    rejected: u64,
}

/// Reads a counter of the core of `kcb`.
///
/// # Errors
/// If the capability does not allow it.
pub fn counter(kcb: CPtr, which: Counter) -> Result<u64, BenchError> {
    syscall::kcb_counter(kcb, which).map_err(refused("reading a counter"))
}

fn counters(kcb: CPtr) -> Result<[u64; COUNTED.len()], BenchError> {
    let mut values = [0; COUNTED.len()];
    for (value, (which, _)) in values.iter_mut().zip(COUNTED) {
        *value = counter(kcb, which)?;
    }
    Ok(values)
}

/// The time that `operation` takes, the clock's own included.
#[inline(always)]
pub fn timed(operation: impl FnOnce()) -> u64 {
    let start = time::now_serialised();
    operation();
    time::now_serialised() - start
}

impl Harness {
    /// Runs the benchmark called `bench` and reports its results; the domain's exit code.
    pub fn run(
        env: &Env,
        bench: &'static str,
        body: impl FnOnce(&mut Harness) -> Result<(), BenchError>,
    ) -> u64 {
        let result = Harness::new(*env, bench, RunInfo::of(env)).and_then(|mut harness| {
            body(&mut harness)?;
            Ok(harness)
        });
        match result {
            Ok(mut harness) => {
                harness.report();
                output::record(Event::new(EventKind::BenchEnded).name(bench).value(harness.rejected));
                0
            }
            Err(error) => failed(bench, &error),
        }
    }

    /// A harness for a part of the benchmark called `bench`, which reports its results by itself.
    ///
    /// # Errors
    /// If the counters of this core cannot be read.
    pub fn new(env: Env, bench: &'static str, run: RunInfo) -> Result<Harness, BenchError> {
        let kcb = monitor::counters()?;
        let overhead = (0..WARM_UP).map(|_| timed(|| {})).min().unwrap_or(0);
        let before = counters(kcb)?;
        let after = counters(kcb)?;
        let counting = core::array::from_fn(|i| after[i] - before[i]);
        let subject = Subject::default();
        let (taken, rejected) = (Vec::new(), 0);
        Ok(Harness { bench, env, run, kcb, overhead, counting, subject, taken, rejected })
    }

    /// What is measured from now on moves so many bytes per operation.
    pub fn moving(&mut self, bytes: u64) -> &mut Harness {
        self.subject.size = Some(bytes);
        self
    }

    /// What is measured from now on is about `subject`.
    pub fn about(&mut self, subject: Subject) -> &mut Harness {
        self.subject = subject;
        self
    }

    /// Measures `operation` `samples` times.
    ///
    /// # Errors
    /// If too many samples are invalid, or a counter cannot be read.
    pub fn measure(
        &mut self,
        metric: &'static str,
        samples: usize,
        mut operation: impl FnMut(),
    ) -> Result<(), BenchError> {
        self.take(Plan::new(metric, samples), || Ok(timed(&mut operation)))
    }

    /// Takes `samples` samples that `sample` measures itself with [`time::now_serialised`], and reports them
    /// with the further counts `extra`.
    ///
    /// # Errors
    /// If too many samples are invalid, a counter cannot be read, or `sample` fails.
    pub fn measure_with(
        &mut self,
        metric: &'static str,
        samples: usize,
        extra: &[(&'static str, u64)],
        sample: impl FnMut() -> Result<u64, BenchError>,
    ) -> Result<(), BenchError> {
        self.take(Plan::new(metric, samples).counting(extra), sample)
    }

    /// What must not change during a sample: times that this core went idle, and timer interrupts.
    fn rest(&self, halting: Halting) -> Result<(u64, u64), BenchError> {
        let idles = match halting {
            Halting::Never => counter(self.kcb, Counter::Idles)?,
            Halting::Expected => 0,
        };
        Ok((idles, counter(self.kcb, Counter::TimerTicks)?))
    }

    /// Takes samples as `plan` says; `sample` measures each by itself with [`time::now_serialised`].
    ///
    /// # Errors
    /// If too many samples are invalid, a counter cannot be read, or `sample` fails.
    pub fn take(
        &mut self,
        plan: Plan<'_>,
        mut sample: impl FnMut() -> Result<u64, BenchError>,
    ) -> Result<(), BenchError> {
        let Plan { metric, samples, extra, per, halting } = plan;
        for _ in 0..WARM_UP {
            sample()?;
        }
        // Every page is touched before the first sample.
        let mut values = alloc::vec![0u64; samples];
        let mut valid = 0;
        let mut operations = 0u64;
        let before = counters(self.kcb)?;
        // Readings between the samples, outside of what is timed; each is a kernel entry.
        let per_reading = if halting == Halting::Never { 2 } else { 1 };
        let mut rest = self.rest(halting)?;
        let mut readings = per_reading;
        while valid < samples && operations < 2 * samples as u64 {
            let value = sample()?;
            operations += 1;
            let now = self.rest(halting)?;
            readings += per_reading;
            if now == rest {
                values[valid] = value.saturating_sub(self.overhead);
                valid += 1;
            } else {
                self.rejected += 1;
                rest = now;
            }
        }
        let after = counters(self.kcb)?;
        if valid < samples.max(1) {
            return Err(BenchError::Restless { wanted: samples, valid });
        }
        let mut counts: Vec<(&'static str, u64)> = Vec::new();
        for (i, (which, name)) in COUNTED.iter().enumerate() {
            let own = self.counting[i] + if *which == Counter::KernelEntries { readings } else { 0 };
            let change = (after[i] - before[i]).saturating_sub(own);
            counts.push((name, (change + operations / 2) / operations.max(1)));
        }
        counts.extend(extra.iter().take(MAX_EXTRA));
        let distribution = self.run.unit().and_then(|unit| match (per, unit, self.subject.size) {
            (Per::Part(parts), ..) => Distribution::of_parts(unit, &mut values, parts as f64),
            (Per::Kib, Unit::Instr, Some(bytes)) => {
                Distribution::of_parts(Unit::InstrPerKib, &mut values, bytes as f64 / 1024.0)
            }
            _ => Distribution::of(unit, &mut values),
        });
        self.taken.push(Taken { metric, subject: self.subject.clone(), n: valid, distribution, counts });
        Ok(())
    }

    /// See [`Quiet::settle`].
    ///
    /// # Errors
    /// [`BenchError::NeverQuiet`].
    pub fn settle(&mut self) -> Result<(), BenchError> {
        self.quiet().settle()
    }

    /// What sees when uninvolved cores have halted.
    pub fn quiet(&self) -> Quiet {
        Quiet { least: u64::MAX, counts_all: self.run.accel == Accel::Icount }
    }

    /// The samples to take, `default` unless the command line says otherwise.
    pub fn samples(&self, default: usize) -> usize {
        self.run.samples(default)
    }

    /// The arguments and start information.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The run.
    pub fn run_info(&self) -> &RunInfo {
        &self.run
    }

    /// For reading the counters of this core.
    pub fn kcb(&self) -> CPtr {
        self.kcb
    }

    /// Results that were taken and are not reported.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Forgets the results after the first `len`: they are to be taken again.
    pub fn forget_after(&mut self, len: usize) {
        self.taken.truncate(len);
    }

    /// Samples that were rejected so far.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Reports the results taken so far.
    pub fn report(&mut self) {
        let info = self.env.info();
        for Taken { metric, subject, n, distribution, counts } in self.taken.drain(..) {
            let Subject { size, to, placed } = subject;
            output::record(Record {
                bench: self.bench,
                metric,
                src: Some(info.core),
                dst: to.map(|(core, _)| core),
                src_node: Some(info.node),
                dst_node: to.map(|(_, node)| node),
                cores: self.run.cores,
                nodes: self.run.nodes,
                size,
                policy: placed.as_ref().map(|placed| placed.policy.word()),
                homes: placed.as_ref().map(|placed| Homes {
                    data: &placed.data,
                    forward: placed.forward,
                    backward: placed.backward,
                }),
                accel: self.run.accel,
                layer: self.run.layer(),
                n: n as u64,
                distribution,
                counts: &counts,
                seed: self.run.seed,
            });
            // Results of pairs of cores are many, and the records have them all.
            if to.is_some() {
                continue;
            }
            let bench = self.bench;
            match distribution {
                Some(Distribution { unit, min, p50, max, .. }) => crate::println!(
                    "{bench} {metric}: p50 {p50} {unit} (min {min}, max {max}, n {n}, clock overhead of {} \
                     subtracted)",
                    self.overhead,
                ),
                None => crate::println!("{bench} {metric}: counts only (n {n}, accel {})", self.run.accel),
            }
        }
    }
}

/// Sees by the clock when uninvolved cores have halted.
#[derive(Clone, Copy, Debug)]
pub struct Quiet {
    /// The least that the clock went on by in [`PAUSES`] pauses.
    least: u64,
    /// Whether the clock counts the instructions of all cores.
    counts_all: bool,
}

impl Quiet {
    /// Waits until nobody runs but this core and who takes part in what is to be measured, each in a loop with a
    /// pause: until the clock, which counts the instructions of all cores, goes on by the least amount in a number
    /// of pauses, many times in a row. Where the clock is none of the kind it returns at once.
    ///
    /// # Errors
    /// [`BenchError::NeverQuiet`].
    pub fn settle(&mut self) -> Result<(), BenchError> {
        if !self.counts_all {
            return Ok(());
        }
        let (mut in_a_row, mut above) = (0, 0);
        for _ in 0..MAX_TURNS {
            let turn = timed(|| (0..PAUSES).for_each(|_| core::hint::spin_loop()));
            if turn < self.least {
                (self.least, in_a_row) = (turn, 0);
            }
            if turn == self.least {
                in_a_row += 1;
            } else {
                (in_a_row, above) = (0, above + 1);
            }
            if in_a_row == QUIET_TURNS {
                return Ok(());
            }
            // A turn in which those who take part were not yet, or only partly, at it.
            if above == LONG_AGO {
                (self.least, above) = (u64::MAX, 0);
            }
        }
        Err(BenchError::NeverQuiet)
    }
}

/// Says why a benchmark has no result; the domain's exit code.
pub fn failed(bench: &str, error: &BenchError) -> u64 {
    crate::println!("benchmark {bench} failed: {error}");
    EXIT_FAILED
}
