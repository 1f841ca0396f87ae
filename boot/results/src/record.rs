//! A measurement.

use core::fmt;

use crate::json::{Object, Quoted};
use crate::{Accel, Layer, Unit};

/// One measurement, as the guest writes it: `Display` is one JSON object without a line feed.
///
/// What does not apply is `None` and left out of the line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<'a> {
    /// The benchmark's name.
    pub bench: &'a str,
    /// What was measured: one of [`metric`](crate::metric) or the benchmark's own word.
    pub metric: &'a str,
    /// The core that sends or calls.
    pub src: Option<u32>,
    /// The core that receives.
    pub dst: Option<u32>,
    /// The NUMA node of `src`.
    pub src_node: Option<u32>,
    /// The NUMA node of `dst`.
    pub dst_node: Option<u32>,
    /// Cores of the machine.
    pub cores: u32,
    /// NUMA nodes of the machine.
    pub nodes: u32,
    /// Bytes moved by one operation.
    pub size: Option<u64>,
    /// The placement policy.
    pub policy: Option<&'a str>,
    /// Where the memory lay that the policy placed.
    pub homes: Option<Homes<'a>>,
    /// What executed the instructions.
    pub accel: Accel,
    /// What kind of number it is.
    pub layer: Layer,
    /// How many samples, warm-up and rejected ones not counted.
    pub n: u64,
    /// The distribution of the samples, where their values mean anything: wall-clock time under [`Accel::Tcg`]
    /// does not, and there only the counts are a result.
    pub distribution: Option<Distribution>,
    /// Exact counts for one operation, such as `("kernel_entries", 2)`; names must differ.
    pub counts: &'a [(&'a str, u64)],
    /// The seed of the run.
    pub seed: u64,
}

/// Where one frame lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "host", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Home {
    /// Its NUMA node.
    pub node: u32,
    /// Its physical address.
    pub address: u64,
}

/// Where the parts of a channel lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Homes<'a> {
    /// The pieces of the pool, in their order; none where there is no pool.
    pub data: &'a [Home],
    /// The outbox of the producer.
    pub forward: Home,
    /// The outbox of the consumer.
    pub backward: Home,
}

/// The distribution of a record's samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distribution {
    /// The unit of the values.
    pub unit: Unit,
    /// The least.
    pub min: Value,
    /// The median.
    pub p50: Value,
    /// The 90th percentile.
    pub p90: Value,
    /// The 99th percentile.
    pub p99: Value,
    /// The greatest.
    pub max: Value,
}

impl Distribution {
    /// Sorts `samples`, which are in `unit`, and summarises them; a percentile is the least sample that so many
    /// percent do not exceed. `None` where there is no sample.
    #[must_use]
    pub fn of(unit: Unit, samples: &mut [u64]) -> Option<Self> {
        Self::summarise(unit, samples, Value::Whole)
    }

    /// As [`Self::of`], for samples of `parts` like parts each, such as messages of a burst: the values are of one.
    #[must_use]
    pub fn of_parts(unit: Unit, samples: &mut [u64], parts: f64) -> Option<Self> {
        Self::summarise(unit, samples, |sample| Value::Real(sample as f64 / parts))
    }

    fn summarise(unit: Unit, samples: &mut [u64], value: impl Fn(u64) -> Value) -> Option<Self> {
        samples.sort_unstable();
        let n = samples.len();
        let at = |percent: usize| samples.get((n * percent).div_ceil(100).max(1) - 1).map(|&s| value(s));
        Some(Self { unit, min: at(0)?, p50: at(50)?, p90: at(90)?, p99: at(99)?, max: at(100)? })
    }
}

/// A number of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "host", derive(serde::Serialize), serde(untagged))]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any other; not finite is written as `null`, which the host refuses.
    Real(f64),
}

impl Value {
    /// The number, rounded where it is too long for the type.
    #[must_use]
    pub const fn as_f64(self) -> f64 {
        match self {
            Self::Whole(n) => n as f64,
            Self::Real(x) => x,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(n) => write!(f, "{n}"),
            // Always with a point or an exponent, so that it is read back as a real number.
            Self::Real(x) if x.is_finite() => write!(f, "{x:?}"),
            Self::Real(_) => f.write_str("null"),
        }
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Object::open(f)?.raw("node", self.node)?.raw("address", self.address)?.close()
    }
}

/// An array of frames; empty ones are left out of a line.
struct List<'a>(&'a [Home]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, home) in self.0.iter().enumerate() {
            write!(f, "{}{home}", if index == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for Homes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Object::open(f)?
            .optional("data", (!self.data.is_empty()).then_some(List(self.data)))?
            .raw("forward", self.forward)?
            .raw("backward", self.backward)?
            .close()
    }
}

/// The object of a record's counts.
struct Counts<'a>(&'a [(&'a str, u64)]);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut object = Object::open(f)?;
        for (name, count) in self.0 {
            object.raw(name, count)?;
        }
        object.close()
    }
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |of: fn(&Distribution) -> Value| self.distribution.as_ref().map(of);
        Object::open(f)?
            .text("type", "result")?
            .text("bench", self.bench)?
            .text("metric", self.metric)?
            .optional("src", self.src)?
            .optional("dst", self.dst)?
            .optional("src_node", self.src_node)?
            .optional("dst_node", self.dst_node)?
            .raw("cores", self.cores)?
            .raw("nodes", self.nodes)?
            .optional("size", self.size)?
            .optional("policy", self.policy.map(Quoted))?
            .optional("homes", self.homes)?
            .text("accel", self.accel.word())?
            .text("layer", self.layer.word())?
            .optional("unit", self.distribution.map(|d| Quoted(d.unit.word())))?
            .raw("n", self.n)?
            .optional("min", value(|d| d.min))?
            .optional("p50", value(|d| d.p50))?
            .optional("p90", value(|d| d.p90))?
            .optional("p99", value(|d| d.p99))?
            .optional("max", value(|d| d.max))?
            .raw("counts", Counts(self.counts))?
            .raw("seed", self.seed)?
            .close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record<'static> {
        Record {
            bench: "syscall",
            metric: "round_trip",
            src: Some(0),
            dst: None,
            src_node: None,
            dst_node: None,
            cores: 8,
            nodes: 2,
            size: None,
            policy: None,
            homes: None,
            accel: Accel::Icount,
            layer: Layer::Counts,
            n: 3,
            distribution: Distribution::of(Unit::Instr, &mut [58, 60, 58]),
            counts: &[("kernel_entries", 1), ("page_table_writes", 0)],
            seed: 1,
        }
    }

    #[test]
    fn a_record_is_one_json_object_without_what_does_not_apply() {
        assert_eq!(
            sample().to_string(),
            concat!(
                r#"{"type":"result","bench":"syscall","metric":"round_trip","src":0,"cores":8,"nodes":2,"#,
                r#""accel":"icount","layer":"counts","unit":"instr","n":3,"min":58,"p50":58,"p90":60,"#,
                r#""p99":60,"max":60,"counts":{"kernel_entries":1,"page_table_writes":0},"seed":1}"#
            )
        );
    }

    #[test]
    fn without_a_distribution_samples_and_counts_remain() {
        let counted = Record { accel: Accel::Tcg, distribution: None, ..sample() };
        assert_eq!(
            counted.to_string(),
            concat!(
                r#"{"type":"result","bench":"syscall","metric":"round_trip","src":0,"cores":8,"nodes":2,"#,
                r#""accel":"tcg","layer":"counts","n":3,"#,
                r#""counts":{"kernel_entries":1,"page_table_writes":0},"seed":1}"#
            )
        );
    }

    #[test]
    fn a_record_says_where_it_was_measured() {
        let home = |node| Home { node, address: 4096 * u64::from(node) };
        let homes = |data| Homes { data, forward: home(1), backward: home(0) };
        let record = Record {
            dst: Some(5),
            src_node: Some(0),
            dst_node: Some(1),
            size: Some(64),
            policy: Some("split-poller"),
            homes: Some(homes(&[])),
            distribution: None,
            counts: &[],
            ..sample()
        };
        assert_eq!(
            record.to_string(),
            concat!(
                r#"{"type":"result","bench":"syscall","metric":"round_trip","src":0,"dst":5,"src_node":0,"#,
                r#""dst_node":1,"cores":8,"nodes":2,"size":64,"policy":"split-poller","#,
                r#""homes":{"forward":{"node":1,"address":4096},"backward":{"node":0,"address":0}},"#,
                r#""accel":"icount","layer":"counts","n":3,"counts":{},"seed":1}"#
            )
        );
        let data = [home(2), home(3)];
        assert_eq!(
            homes(&data).to_string(),
            concat!(
                r#"{"data":[{"node":2,"address":8192},{"node":3,"address":12288}],"#,
                r#""forward":{"node":1,"address":4096},"backward":{"node":0,"address":0}}"#
            )
        );
    }

    #[test]
    fn samples_of_many_parts_give_the_values_of_one() {
        let d = Distribution::of_parts(Unit::InstrPerKib, &mut [30, 10, 20], 4.0).unwrap();
        let values = [d.min, d.p50, d.p90, d.p99, d.max];
        assert_eq!(values, [2.5, 5.0, 7.5, 7.5, 7.5].map(Value::Real));
        assert_eq!(Distribution::of_parts(Unit::InstrPerKib, &mut [], 4.0), None);
    }

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let mut samples: Vec<u64> = (1..=200).rev().collect();
        let values = |samples: &mut [u64]| {
            let d = Distribution::of(Unit::Cycles, samples)?;
            assert_eq!(d.unit, Unit::Cycles);
            Some([d.min, d.p50, d.p90, d.p99, d.max])
        };
        assert_eq!(values(&mut samples), Some([1, 100, 180, 198, 200].map(Value::Whole)));
        assert_eq!(values(&mut [7]), Some([Value::Whole(7); 5]));
        assert_eq!(values(&mut []), None);
    }

    #[test]
    fn values_are_json_numbers() {
        assert_eq!(Value::Whole(u64::MAX).to_string(), "18446744073709551615");
        assert_eq!(Value::Real(2.0).to_string(), "2.0");
        assert_eq!(Value::Real(f64::NAN).to_string(), "null");
    }
}
