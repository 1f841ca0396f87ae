//! The harness of benchmark domains: what a number means is decided here.
//!
//! A sample is the time between two serialised readings of the time-stamp counter, less the time that two
//! readings take by themselves, which is measured first. [`WARM_UP`] operations run before the first sample.
//! A sample during which the core went idle is rejected and taken again: under `-icount` the clock skips while
//! all cores halt, and elsewhere it contains somebody else's work. Nothing is printed before the last sample is
//! taken. Beside each distribution stand exact counts per operation, from the CPU driver's counters. Where the
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

use lmp::cptr::task;
use lmp::invocation::Counter;
use lmp::{SysError, syscall};
use results::{Accel, Distribution, Event, EventKind, Layer, Record, Unit};

use crate::memory::MemoryError;
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
    /// What was measured did not happen.
    Wrong(&'static str),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { operation, cause } => write!(f, "{operation} was refused: {cause}"),
            Self::Restless { wanted, valid } => write!(
                f,
                "only {valid} of {wanted} samples are valid: the core went idle during the others; run with \
                 fewer domains on it"
            ),
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

/// A refusal of `operation`, for `map_err`.
pub fn refused(operation: &'static str) -> impl Fn(SysError) -> BenchError {
    move |cause| BenchError::Refused { operation, cause }
}

/// A result, kept until all are taken.
struct Taken {
    metric: &'static str,
    size: Option<u64>,
    n: usize,
    distribution: Option<Distribution>,
    counts: Vec<(&'static str, u64)>,
}

/// What a benchmark measures with.
pub struct Harness {
    bench: &'static str,
    env: Env,
    accel: Accel,
    overhead: u64,
    counting: [u64; COUNTED.len()],
    size: Option<u64>,
    taken: Vec<Taken>,
    rejected: u64,
}

fn counter(which: Counter) -> Result<u64, BenchError> {
    syscall::kcb_counter(task::KCB, which).map_err(refused("reading a counter"))
}

fn counters() -> Result<[u64; COUNTED.len()], BenchError> {
    let mut values = [0; COUNTED.len()];
    for (value, (which, _)) in values.iter_mut().zip(COUNTED) {
        *value = counter(which)?;
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
        let result = Harness::new(*env, bench).and_then(|mut harness| {
            body(&mut harness)?;
            Ok(harness)
        });
        match result {
            Ok(harness) => {
                harness.report();
                0
            }
            Err(error) => {
                crate::println!("benchmark {bench} failed: {error}");
                EXIT_FAILED
            }
        }
    }

    fn new(env: Env, bench: &'static str) -> Result<Harness, BenchError> {
        // Unless told, assume what makes the weakest claim: that the clock measures nothing.
        let accel = env.value("accel").and_then(Accel::from_word).unwrap_or(Accel::Tcg);
        let overhead = (0..WARM_UP).map(|_| timed(|| {})).min().unwrap_or(0);
        let before = counters()?;
        let after = counters()?;
        let counting = core::array::from_fn(|i| after[i] - before[i]);
        Ok(Harness { bench, env, accel, overhead, counting, size: None, taken: Vec::new(), rejected: 0 })
    }

    /// What is measured from now on moves so many bytes per operation.
    pub fn moving(&mut self, bytes: u64) -> &mut Harness {
        self.size = Some(bytes);
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
        self.measure_with(metric, samples, &[], || Ok(timed(&mut operation)))
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
        mut sample: impl FnMut() -> Result<u64, BenchError>,
    ) -> Result<(), BenchError> {
        for _ in 0..WARM_UP {
            sample()?;
        }
        // Every page is touched before the first sample.
        let mut values = alloc::vec![0u64; samples];
        let mut valid = 0;
        let mut operations = 0u64;
        let before = counters()?;
        // One reading of the idle counter per sample, outside of what is timed; it counts as kernel entries.
        let mut idles = counter(Counter::Idles)?;
        let mut readings = 1u64;
        while valid < samples && operations < 2 * samples as u64 {
            let value = sample()?;
            operations += 1;
            let now = counter(Counter::Idles)?;
            readings += 1;
            if now == idles {
                values[valid] = value.saturating_sub(self.overhead);
                valid += 1;
            } else {
                self.rejected += 1;
                idles = now;
            }
        }
        let after = counters()?;
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
        let distribution = self.unit().and_then(|unit| Distribution::of(unit, &mut values));
        self.taken.push(Taken { metric, size: self.size, n: valid, distribution, counts });
        Ok(())
    }

    /// The samples to take, `default` unless the command line says otherwise.
    pub fn samples(&self, default: usize) -> usize {
        self.env.number("samples", default as u64).max(1) as usize
    }

    /// The arguments and start information.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// What the clock counts; `None` where that measures nothing.
    fn unit(&self) -> Option<Unit> {
        match self.accel {
            Accel::Icount => Some(Unit::Instr),
            Accel::Kvm | Accel::Native => Some(Unit::Cycles),
            Accel::Tcg => None,
        }
    }

    fn report(self) {
        let layer = match self.accel {
            Accel::Icount | Accel::Tcg => Layer::Counts,
            Accel::Kvm | Accel::Native => Layer::Native,
        };
        let number = |key| self.env.number(key, 1);
        for taken in &self.taken {
            output::record(Record {
                bench: self.bench,
                metric: taken.metric,
                src: Some(self.env.info().core),
                dst: None,
                src_node: Some(self.env.info().node),
                dst_node: None,
                cores: number("cores") as u32,
                nodes: number("nodes") as u32,
                size: taken.size,
                policy: None,
                homes: None,
                accel: self.accel,
                layer,
                n: taken.n as u64,
                distribution: taken.distribution,
                counts: &taken.counts,
                seed: number("seed"),
            });
            let (bench, metric, n) = (self.bench, taken.metric, taken.n);
            match taken.distribution {
                Some(Distribution { unit, min, p50, max, .. }) => crate::println!(
                    "{bench} {metric}: p50 {p50} {unit} (min {min}, max {max}, n {n}, clock overhead of {} \
                     subtracted)",
                    self.overhead,
                ),
                None => crate::println!("{bench} {metric}: counts only (n {n}, accel {})", self.accel),
            }
        }
        output::record(Event::new(EventKind::BenchEnded).name(self.bench).value(self.rejected));
    }
}
