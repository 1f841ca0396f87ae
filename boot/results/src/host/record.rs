//! A measurement, owned, and what must hold of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::{FieldError, Fields};
use crate::{Accel, Distribution, Home, Layer, Unit, Value};

/// [`crate::Record`], owned.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "RecordFields")]
pub struct Record {
    /// The benchmark's name.
    pub bench: String,
    /// What was measured.
    pub metric: String,
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
    pub policy: Option<String>,
    /// Where the memory lay that the policy placed.
    pub homes: Option<Homes>,
    /// What executed the instructions.
    pub accel: Accel,
    /// What kind of number it is.
    pub layer: Layer,
    /// How many samples.
    pub n: u64,
    /// The distribution of the samples, where their values mean anything.
    pub distribution: Option<Distribution>,
    /// Exact counts for one operation.
    pub counts: BTreeMap<String, u64>,
    /// The seed of the run.
    pub seed: u64,
}

/// [`crate::Homes`], owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Homes {
    /// The pieces of the pool, in their order; none where there is no pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Home>,
    /// The outbox of the producer.
    pub forward: Home,
    /// The outbox of the consumer.
    pub backward: Home,
}

impl Homes {
    /// All of them: the pool's pieces, then the forward and the backward outbox.
    fn all(&self) -> impl Iterator<Item = &Home> {
        self.data.iter().chain([&self.forward, &self.backward])
    }
}

/// The fields of a record's line, in their order.
#[derive(Serialize)]
struct RecordFields {
    bench: String,
    metric: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_node: Option<u32>,
    cores: u32,
    nodes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    homes: Option<Homes>,
    accel: Accel,
    layer: Layer,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p90: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<Value>,
    counts: BTreeMap<String, u64>,
    seed: u64,
}

impl From<Record> for RecordFields {
    fn from(record: Record) -> Self {
        let value = |of: fn(&Distribution) -> Value| record.distribution.as_ref().map(of);
        Self {
            unit: record.distribution.map(|d| d.unit),
            min: value(|d| d.min),
            p50: value(|d| d.p50),
            p90: value(|d| d.p90),
            p99: value(|d| d.p99),
            max: value(|d| d.max),
            bench: record.bench,
            metric: record.metric,
            src: record.src,
            dst: record.dst,
            src_node: record.src_node,
            dst_node: record.dst_node,
            cores: record.cores,
            nodes: record.nodes,
            size: record.size,
            policy: record.policy,
            homes: record.homes,
            accel: record.accel,
            layer: record.layer,
            n: record.n,
            counts: record.counts,
            seed: record.seed,
        }
    }
}

impl Record {
    /// Takes a record out of the fields of its line.
    pub(super) fn read(fields: &mut Fields) -> Result<Self, FieldError> {
        let record = Self {
            bench: fields.take("bench")?,
            metric: fields.take("metric")?,
            src: fields.optional("src")?,
            dst: fields.optional("dst")?,
            src_node: fields.optional("src_node")?,
            dst_node: fields.optional("dst_node")?,
            cores: fields.take("cores")?,
            nodes: fields.take("nodes")?,
            size: fields.optional("size")?,
            policy: fields.optional("policy")?,
            homes: fields.optional("homes")?,
            accel: fields.take("accel")?,
            layer: fields.take("layer")?,
            n: fields.take("n")?,
            distribution: distribution(fields)?,
            counts: fields.take("counts")?,
            seed: fields.take("seed")?,
        };
        record.check()?;
        Ok(record)
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), FieldError> {
        let range = |field, found: Option<u32>, of, limit| match found {
            Some(found) if found >= limit => Err(FieldError::Range { field, found, of, limit }),
            _ => Ok(()),
        };
        range("src", self.src, "cores", self.cores)?;
        range("dst", self.dst, "cores", self.cores)?;
        range("src_node", self.src_node, "nodes", self.nodes)?;
        range("dst_node", self.dst_node, "nodes", self.nodes)?;
        for home in self.homes.iter().flat_map(Homes::all) {
            range("homes", Some(home.node), "nodes", self.nodes)?;
        }
        let Some(Distribution { unit, min, p50, p90, p99, max }) = self.distribution else { return Ok(()) };
        if self.n == 0 {
            return Err(FieldError::NoSamples);
        }
        if ![min, p50, p90, p99, max].map(Value::as_f64).is_sorted() {
            return Err(FieldError::NotSorted);
        }
        // The cost model has a clock of its own.
        if self.accel == Accel::Tcg && self.layer != Layer::Model {
            return Err(FieldError::EmulatedTime);
        }
        let hardware = matches!(self.accel, Accel::Kvm | Accel::Native);
        let fits = match unit {
            Unit::Instr | Unit::InstrPerKib => self.layer == Layer::Counts && self.accel == Accel::Icount,
            Unit::Cycles | Unit::GbPerSecond => self.layer == Layer::Native && hardware,
            Unit::ModelledNs => self.layer == Layer::Model,
            Unit::Ratio => true,
        };
        let wrong = FieldError::Unit { unit, layer: self.layer, accel: self.accel };
        if fits { Ok(()) } else { Err(wrong) }
    }
}

/// The distribution among the fields: all of it, or nothing.
fn distribution(fields: &mut Fields) -> Result<Option<Distribution>, FieldError> {
    let unit: Option<Unit> = fields.optional("unit")?;
    let mut value = |field| fields.optional::<Value>(field);
    match (unit, value("min")?, value("p50")?, value("p90")?, value("p99")?, value("max")?) {
        (Some(unit), Some(min), Some(p50), Some(p90), Some(p99), Some(max)) => {
            Ok(Some(Distribution { unit, min, p50, p90, p99, max }))
        }
        (None, None, None, None, None, None) => Ok(None),
        _ => Err(FieldError::PartOfDistribution),
    }
}
