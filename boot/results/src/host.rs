//! The host's side: lines read back into owned types, and the header of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Accel, Distribution, EventKind, Layer, SCHEMA, Unit, Value};

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// A measurement.
    Result(Record),
    /// A step of the run.
    Event(Event),
}

/// [`crate::Record`], owned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RecordFields", into = "RecordFields")]
pub struct Record {
    /// The benchmark's name.
    pub bench: String,
    /// What was measured.
    pub metric: String,
    /// The core that sends or calls.
    pub src: Option<u32>,
    /// The core that receives.
    pub dst: Option<u32>,
    /// Cores of the machine.
    pub cores: u32,
    /// NUMA nodes of the machine.
    pub nodes: u32,
    /// Bytes moved by one operation.
    pub size: Option<u64>,
    /// The placement policy.
    pub policy: Option<String>,
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

/// The fields of a record's line, in their order. Not a flattened [`Distribution`]: serde would take a damaged
/// optional one for none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFields {
    bench: String,
    metric: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    src: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dst: Option<u32>,
    cores: u32,
    nodes: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    accel: Accel,
    layer: Layer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    n: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p50: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p90: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p99: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<Value>,
    counts: BTreeMap<String, u64>,
    seed: u64,
}

/// Why the fields of a record make none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// Some field of the distribution is missing, but not all.
    PartOfDistribution,
    /// A distribution of wall-clock time of an emulated guest, which is never a result.
    EmulatedTime,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PartOfDistribution => "unit, min, p50, p90, p99 and max must be numbers or all be absent",
            Self::EmulatedTime => "a time under accel tcg: the wall-clock time of a guest is never a result",
        })
    }
}

impl std::error::Error for RecordError {}

impl TryFrom<RecordFields> for Record {
    type Error = RecordError;

    fn try_from(fields: RecordFields) -> Result<Self, RecordError> {
        let RecordFields { accel, layer, unit, min, p50, p90, p99, max, .. } = fields;
        let distribution = match (unit, min, p50, p90, p99, max) {
            (Some(unit), Some(min), Some(p50), Some(p90), Some(p99), Some(max)) => {
                Some(Distribution { unit, min, p50, p90, p99, max })
            }
            (None, None, None, None, None, None) => None,
            _ => return Err(RecordError::PartOfDistribution),
        };
        // The cost model has a clock of its own.
        if distribution.is_some() && accel == Accel::Tcg && layer != Layer::Model {
            return Err(RecordError::EmulatedTime);
        }
        let RecordFields { bench, metric, src, dst, cores, nodes, size, policy, n, counts, seed, .. } =
            fields;
        Ok(Self {
            bench,
            metric,
            src,
            dst,
            cores,
            nodes,
            size,
            policy,
            accel,
            layer,
            n,
            distribution,
            counts,
            seed,
        })
    }
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
            cores: record.cores,
            nodes: record.nodes,
            size: record.size,
            policy: record.policy,
            accel: record.accel,
            layer: record.layer,
            n: record.n,
            counts: record.counts,
            seed: record.seed,
        }
    }
}

/// [`crate::Event`], owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// What happened.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// On which core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<u32>,
    /// To whom, or which check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A number that the kind defines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
}

/// The first line of a results file, one per run of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "header")]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When the run began, in UTC, as in RFC 3339. The only field that differs between two equal runs.
    pub started: String,
    /// The command as it was given, word by word.
    pub command: Vec<String>,
    /// The QEMU command that boots the same machine on a terminal, word by word.
    pub qemu_command: Vec<String>,
    /// The guest's command line.
    pub guest_command: String,
    /// The machine.
    pub topology: Topology,
    /// What executed the instructions.
    pub accel: Accel,
    /// The seed.
    pub seed: u64,
    /// SHA-256 of the boot archive, in hexadecimal: every image in it.
    pub image_hash: String,
    /// What built it and ran it.
    pub versions: Versions,
    /// The CPU model that the guest sees.
    pub guest_cpu: String,
    /// The host's CPU, from `/proc/cpuinfo`.
    pub host_cpu: String,
}

/// The machine of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// vCPUs.
    pub cores: u32,
    /// NUMA nodes.
    pub nodes: u32,
    /// Memory of the whole machine, in MiB.
    pub memory_mib: u64,
    /// Raw `-numa` lines, where the machine was described by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numa: Vec<String>,
}

/// Versions of what built and ran the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// This program.
    pub killifish: String,
    /// The commit, with `-dirty` where files differ from it; `unknown` outside a repository.
    pub git: String,
    /// The compiler.
    pub rustc: String,
    /// The emulator.
    pub qemu: String,
}

/// Why a line is not of the schema.
#[derive(Debug)]
pub enum LineError {
    /// Not JSON, or JSON without the right fields.
    Syntax {
        /// The line.
        line: String,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// The guest speaks another version of the schema.
    Schema {
        /// The guest's version, if it gave one.
        found: Option<u64>,
    },
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, error } => write!(f, "not a line of results: {error}: {line:?}"),
            Self::Schema { found: Some(found) } => {
                write!(f, "the guest's results have schema version {found}, this program reads {SCHEMA}")
            }
            Self::Schema { found: None } => write!(f, "the guest's first line states no schema version"),
        }
    }
}

impl std::error::Error for LineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Syntax { error, .. } => Some(error),
            Self::Schema { .. } => None,
        }
    }
}

impl Line {
    /// Reads one line, with or without its line end.
    ///
    /// # Errors
    /// Says why the line is not of the schema, a start event of another version included.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let line = line.trim_end_matches(['\r', '\n']);
        let parsed =
            serde_json::from_str(line).map_err(|error| LineError::Syntax { line: line.to_owned(), error })?;
        match parsed {
            Self::Event(Event { kind: EventKind::Start, value, .. }) if value != Some(u64::from(SCHEMA)) => {
                Err(LineError::Schema { found: value })
            }
            line => Ok(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record as GuestRecord;

    fn distribution() -> Distribution {
        Distribution {
            unit: Unit::InstrPerKib,
            min: Value::Whole(u64::MAX),
            p50: Value::Real(1.5),
            p90: Value::Real(2.0),
            p99: Value::Real(1e300),
            max: Value::Whole(0),
        }
    }

    /// A record with every field, and text that needs escapes.
    fn full<'a>(counts: &'a [(&'a str, u64)]) -> GuestRecord<'a> {
        GuestRecord {
            bench: "a \"quoted\" \\ name\n\u{7f}é",
            metric: "put",
            src: Some(1),
            dst: Some(2),
            cores: 8,
            nodes: 2,
            size: Some(64),
            policy: Some("local"),
            accel: Accel::Kvm,
            layer: Layer::Native,
            n: 5,
            distribution: Some(distribution()),
            counts,
            seed: u64::MAX,
        }
    }

    #[test]
    fn what_the_guest_writes_the_host_reads() {
        let counts = [("bytes_copied", 7), ("ipis", 0)];
        let guest = full(&counts);
        let Line::Result(host) = Line::parse(&guest.to_string()).unwrap() else { panic!("not a result") };
        assert_eq!(host.bench, guest.bench);
        assert_eq!(host.metric, guest.metric);
        assert_eq!((host.src, host.dst, host.size), (guest.src, guest.dst, guest.size));
        assert_eq!((host.cores, host.nodes, host.seed), (guest.cores, guest.nodes, guest.seed));
        assert_eq!(host.policy.as_deref(), guest.policy);
        assert_eq!((host.accel, host.layer, host.n), (guest.accel, guest.layer, guest.n));
        assert_eq!(host.distribution, guest.distribution);
        let expected = BTreeMap::from([("bytes_copied".to_owned(), 7), ("ipis".to_owned(), 0)]);
        assert_eq!(host.counts, expected);
    }

    #[test]
    fn fields_that_do_not_apply_are_absent_on_both_sides() {
        let guest =
            GuestRecord { src: None, dst: None, size: None, policy: None, distribution: None, ..full(&[]) };
        let Line::Result(host) = Line::parse(&guest.to_string()).unwrap() else { panic!("not a result") };
        assert_eq!((host.src, host.dst, host.size, &host.policy), (None, None, None, &None));
        assert_eq!((host.n, host.distribution), (5, None));
        let written = serde_json::to_string(&Line::Result(host)).unwrap();
        for key in ["src", "dst", "size", "policy", "unit", "min", "p50", "p90", "p99", "max"] {
            assert!(!written.contains(&format!("\"{key}\"")), "{written}");
        }
    }

    #[test]
    fn a_record_written_again_by_the_host_has_the_guests_bytes() {
        let counts = [("bytes_copied", 7), ("ipis", 0)];
        let mut guest = full(&counts);
        guest.bench = "plain";
        for distribution in [Some(Distribution { p99: Value::Real(0.25), ..distribution() }), None] {
            guest.distribution = distribution;
            let line = guest.to_string();
            assert_eq!(serde_json::to_string(&Line::parse(&line).unwrap()).unwrap(), line);
        }
    }

    #[test]
    fn every_event_is_read_back() {
        for &kind in EventKind::ALL {
            let event = crate::Event { kind, core: Some(3), name: Some("x"), detail: None, value: Some(1) };
            let expected =
                Event { kind, core: Some(3), name: Some("x".into()), detail: None, value: Some(1) };
            assert_eq!(Line::parse(&event.to_string()).unwrap(), Line::Event(expected));
        }
    }

    #[test]
    fn every_word_is_read_back() {
        for &unit in Unit::ALL {
            assert_eq!(serde_json::from_str::<Unit>(&format!("\"{unit}\"")).unwrap(), unit);
            assert_eq!(Unit::from_word(unit.word()), Some(unit));
        }
        assert_eq!(Unit::from_word("furlongs"), None);
    }

    #[test]
    fn wrong_lines_are_refused_and_quoted() {
        let error = Line::parse("{\"type\":\"result\"").unwrap_err().to_string();
        assert!(error.starts_with("not a line of results: EOF"), "{error}");
        assert!(error.ends_with(r#": "{\"type\":\"result\"""#), "{error}");
        let not_finite = Distribution { max: Value::Real(f64::NAN), ..distribution() };
        let not_finite = GuestRecord { distribution: Some(not_finite), ..full(&[]) };
        let surprise = full(&[]).to_string().replacen('{', "{\"surprise\":1,", 1);
        for line in [
            &surprise,
            "",
            "[]",
            r#"{"type":"result"}"#,
            r#"{"type":"event","event":"no such"}"#,
            r#"{"type":"event","event":"done","surprise":1}"#,
            &not_finite.to_string(),
        ] {
            assert!(matches!(Line::parse(line), Err(LineError::Syntax { .. })), "{line}");
        }
    }

    #[test]
    fn half_a_distribution_is_refused() {
        let whole = full(&[]).to_string();
        for field in [r#""unit":"instr/KiB","#, r#""min":18446744073709551615,"#, r#""p99":1e300,"#] {
            assert_eq!(whole.matches(field).count(), 1, "{whole}");
            let error = Line::parse(&whole.replace(field, "")).unwrap_err().to_string();
            assert!(error.contains(&RecordError::PartOfDistribution.to_string()), "{error}");
        }
    }

    #[test]
    fn times_of_an_emulated_guest_are_refused() {
        let tcg = GuestRecord { accel: Accel::Tcg, ..full(&[]) };
        let error = Line::parse(&tcg.to_string()).unwrap_err().to_string();
        assert!(error.contains(&RecordError::EmulatedTime.to_string()), "{error}");
        assert!(Line::parse(&GuestRecord { distribution: None, ..tcg }.to_string()).is_ok());
        assert!(Line::parse(&GuestRecord { layer: Layer::Model, ..tcg }.to_string()).is_ok());
    }

    #[test]
    fn another_schema_is_refused() {
        assert!(Line::parse(&crate::Event::start().to_string()).is_ok());
        let other = crate::Event::start().value(99).to_string();
        assert_eq!(
            Line::parse(&other).unwrap_err().to_string(),
            "the guest's results have schema version 99, this program reads 1"
        );
        let none = crate::Event::new(EventKind::Start).to_string();
        assert_eq!(
            Line::parse(&none).unwrap_err().to_string(),
            "the guest's first line states no schema version"
        );
    }

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = Header {
            schema: SCHEMA,
            started: "2026-01-02T03:04:05Z".into(),
            command: vec!["killifish".into(), "bench".into()],
            qemu_command: vec!["qemu-system-x86_64".into()],
            guest_command: "bench=syscall".into(),
            topology: Topology { cores: 8, nodes: 2, memory_mib: 512, numa: vec![] },
            accel: Accel::Icount,
            seed: 1,
            image_hash: "00".into(),
            versions: Versions {
                killifish: "0.1.0".into(),
                git: "abc".into(),
                rustc: "1.95.0".into(),
                qemu: "10.0.2".into(),
            },
            guest_cpu: "max".into(),
            host_cpu: "a CPU".into(),
        };
        let line = serde_json::to_string(&header).unwrap();
        assert!(line.starts_with(r#"{"type":"header","schema":1,"#), "{line}");
        assert_eq!(serde_json::from_str::<Header>(&line).unwrap(), header);
    }
}
