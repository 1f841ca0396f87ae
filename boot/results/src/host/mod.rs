//! The host's side: lines read back into owned types, the header of a run, and files of runs.
//!
//! A [`Line`] comes from the guest, a [`Header`] from the host, and a results file has [`Run`]s of both. What is
//! read is checked field by field, and every error names the field.

mod fields;
mod record;
mod runs;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Accel, EventKind, SCHEMA};
use fields::Fields;

pub use fields::FieldError;
pub use record::{Homes, Record};
pub use runs::{FileError, Run, parse_runs};

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// A measurement.
    Result(Box<Record>),
    /// A step of the run.
    Event(Event),
}

/// [`crate::Event`], owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What happened.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// On which core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<u32>,
    /// To whom, or which check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A number that the kind defines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
}

/// The first line of a results file, one per run of the machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// Not JSON, or not an object.
    Syntax {
        /// The line.
        line: String,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// JSON, but a field is wrong.
    Field {
        /// The line.
        line: String,
        /// What is wrong.
        error: FieldError,
    },
    /// Another version of the schema.
    Schema {
        /// The version, if it was given.
        found: Option<u64>,
    },
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, error } => write!(f, "not a line of results: {error}: {line:?}"),
            Self::Field { line, error } => write!(f, "not a line of results: {error}: {line:?}"),
            Self::Schema { found: Some(found) } => {
                write!(f, "these results have schema version {found}, this program reads {SCHEMA}")
            }
            Self::Schema { found: None } => write!(f, "these results begin without a schema version"),
        }
    }
}

impl std::error::Error for LineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Syntax { error, .. } => Some(error),
            Self::Field { error, .. } => Some(error),
            Self::Schema { .. } => None,
        }
    }
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LineType {
    Header,
    Result,
    Event,
}

/// Takes a line apart; `read` makes something of its fields, of which none may be left.
fn parse<T>(
    line: &str,
    read: impl FnOnce(LineType, &mut Fields) -> Result<Option<T>, FieldError>,
) -> Result<T, LineError> {
    let line = line.trim_end_matches(['\r', '\n']);
    let mut fields: Fields =
        serde_json::from_str(line).map_err(|error| LineError::Syntax { line: line.to_owned(), error })?;
    let wrong = |error| LineError::Field { line: line.to_owned(), error };
    let kind: LineType = fields.take("type").map_err(wrong)?;
    let value = read(kind, &mut fields).map_err(wrong)?;
    let other = || {
        let expected = serde::de::Error::custom(format_args!("a {} is not expected here", kind.word()));
        wrong(FieldError::Wrong { field: "type", error: expected })
    };
    let value = value.ok_or_else(other)?;
    fields.finish().map_err(wrong)?;
    Ok(value)
}

impl LineType {
    fn word(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Result => "result",
            Self::Event => "event",
        }
    }
}

impl Event {
    fn read(fields: &mut Fields) -> Result<Self, FieldError> {
        Ok(Self {
            kind: fields.take("event")?,
            core: fields.optional("core")?,
            name: fields.optional("name")?,
            detail: fields.optional("detail")?,
            value: fields.optional("value")?,
        })
    }
}

impl Line {
    /// Reads one line of the guest, with or without its line end.
    ///
    /// # Errors
    /// Says why the line is not of the schema, a start event of another version included.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let parsed = parse(line, |kind, fields| match kind {
            LineType::Result => Record::read(fields).map(|record| Some(Self::Result(Box::new(record)))),
            LineType::Event => Event::read(fields).map(|event| Some(Self::Event(event))),
            LineType::Header => Ok(None),
        })?;
        match parsed {
            Self::Event(Event { kind: EventKind::Start, value, .. }) if value != Some(u64::from(SCHEMA)) => {
                Err(LineError::Schema { found: value })
            }
            line => Ok(line),
        }
    }
}

impl Header {
    /// Reads the header of a run.
    ///
    /// # Errors
    /// Says why the line is not a header of this version of the schema.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        // First the version: the fields of another are not ours to judge.
        if let Ok(mut fields) = serde_json::from_str::<Fields>(line)
            && let Ok(LineType::Header) = fields.take("type")
        {
            match fields.optional::<u64>("schema") {
                Ok(Some(found)) if found == u64::from(SCHEMA) => {}
                found => return Err(LineError::Schema { found: found.ok().flatten() }),
            }
        }
        parse(line, |kind, fields| match kind {
            LineType::Header => Ok(Some(Self {
                schema: fields.take("schema")?,
                started: fields.take("started")?,
                command: fields.take("command")?,
                qemu_command: fields.take("qemu_command")?,
                guest_command: fields.take("guest_command")?,
                topology: fields.take("topology")?,
                accel: fields.take("accel")?,
                seed: fields.take("seed")?,
                image_hash: fields.take("image_hash")?,
                versions: fields.take("versions")?,
                guest_cpu: fields.take("guest_cpu")?,
                host_cpu: fields.take("host_cpu")?,
            })),
            LineType::Result | LineType::Event => Ok(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Distribution, Home, Layer, Record as GuestRecord, Unit, Value};

    fn distribution() -> Distribution {
        Distribution {
            unit: Unit::InstrPerKib,
            min: Value::Whole(0),
            p50: Value::Real(1.5),
            p90: Value::Real(2.0),
            p99: Value::Whole(u64::MAX),
            max: Value::Real(1e300),
        }
    }

    const fn home(node: u32) -> Home {
        Home { node, address: u64::MAX - node as u64 }
    }

    const DATA: [Home; 2] = [home(0), home(1)];

    /// A record with every field, and text that needs escapes.
    fn full<'a>(counts: &'a [(&'a str, u64)]) -> GuestRecord<'a> {
        GuestRecord {
            bench: "a \"quoted\" \\ name\n\u{7f}é",
            metric: "put",
            src: Some(1),
            dst: Some(2),
            src_node: Some(0),
            dst_node: Some(1),
            cores: 8,
            nodes: 2,
            size: Some(64),
            policy: Some("local"),
            homes: Some(crate::Homes { data: &DATA, forward: home(1), backward: home(0) }),
            accel: Accel::Icount,
            layer: Layer::Counts,
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
        assert_eq!((host.src_node, host.dst_node), (guest.src_node, guest.dst_node));
        let homes = Homes { data: DATA.to_vec(), forward: home(1), backward: home(0) };
        assert_eq!(host.homes, Some(homes));
        assert_eq!((host.cores, host.nodes, host.seed), (guest.cores, guest.nodes, guest.seed));
        assert_eq!(host.policy.as_deref(), guest.policy);
        assert_eq!((host.accel, host.layer, host.n), (guest.accel, guest.layer, guest.n));
        assert_eq!(host.distribution, guest.distribution);
        let expected = BTreeMap::from([("bytes_copied".to_owned(), 7), ("ipis".to_owned(), 0)]);
        assert_eq!(host.counts, expected);
    }

    #[test]
    fn fields_that_do_not_apply_are_absent_on_both_sides() {
        let guest = GuestRecord {
            src: None,
            dst: None,
            src_node: None,
            dst_node: None,
            size: None,
            policy: None,
            homes: None,
            distribution: None,
            ..full(&[])
        };
        let Line::Result(host) = Line::parse(&guest.to_string()).unwrap() else { panic!("not a result") };
        assert_eq!((host.src, host.dst, host.size, &host.policy), (None, None, None, &None));
        assert_eq!((host.n, host.distribution), (5, None));
        let written = serde_json::to_string(&Line::Result(host)).unwrap();
        let absent =
            ["src", "dst", "src_node", "dst_node", "size", "policy", "homes", "unit", "min", "p50", "p90"];
        for key in absent.into_iter().chain(["p99", "max"]) {
            assert!(!written.contains(&format!("\"{key}\"")), "{written}");
        }
    }

    #[test]
    fn a_record_written_again_by_the_host_has_the_guests_bytes() {
        let counts = [("bytes_copied", 7), ("ipis", 0)];
        let mut guest = full(&counts);
        guest.bench = "plain";
        guest.homes = Some(crate::Homes { data: &[], forward: home(1), backward: home(0) });
        for distribution in
            [Some(Distribution { p99: Value::Whole(7), max: Value::Real(8.25), ..distribution() }), None]
        {
            guest.distribution = distribution;
            let line = guest.to_string();
            assert_eq!(serde_json::to_string(&Line::parse(&line).unwrap()).unwrap(), line);
        }
    }

    #[test]
    fn every_event_is_read_back() {
        for &kind in EventKind::ALL {
            let event = crate::Event {
                kind,
                core: Some(3),
                name: Some("x"),
                detail: None,
                value: Some(SCHEMA.into()),
            };
            let expected = Event {
                kind,
                core: Some(3),
                name: Some("x".into()),
                detail: None,
                value: Some(SCHEMA.into()),
            };
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

    /// The message about a line, without the line.
    fn message(line: &str) -> String {
        let message = Line::parse(line).unwrap_err().to_string();
        let end = format!(": {line:?}");
        let what = message.strip_prefix("not a line of results: ").and_then(|m| m.strip_suffix(&end));
        what.unwrap_or_else(|| panic!("{message}")).to_owned()
    }

    #[test]
    fn wrong_lines_are_refused_and_quoted() {
        assert_eq!(message("{\"type\":\"result\""), "EOF while parsing an object at line 1 column 16");
        assert_eq!(message(""), "EOF while parsing a value at line 1 column 0");
        assert_eq!(message("[]"), "invalid type: sequence, expected an object at line 1 column 0");
        assert_eq!(message("{}"), "field `type` is missing");
        assert_eq!(message(r#"{"type":"header"}"#), "field `type`: a header is not expected here");
        assert_eq!(message(r#"{"type":"result"}"#), "field `bench` is missing");
        assert!(
            message(r#"{"type":"event","event":"no such"}"#).starts_with("field `event`: unknown variant")
        );
        assert_eq!(
            message(r#"{"type":"event","event":"done","surprise":1}"#),
            "there is no field `surprise`"
        );
    }

    #[test]
    fn errors_name_the_field() {
        let whole = full(&[("ipis", 0)]).to_string();
        let with = |old: &str, new: &str| {
            assert_eq!(whole.matches(old).count(), 1, "{old} in {whole}");
            message(&whole.replace(old, new))
        };
        assert_eq!(with(r#""metric":"put","#, ""), "field `metric` is missing");
        assert_eq!(with(r#""n":5,"#, r#""n":5,"n":5,"#), "field `n` is there twice");
        assert_eq!(with(r#""n":5,"#, r#""m":5,"n":5,"#), "there is no field `m`");
        assert_eq!(
            with(r#""src":1,"#, r#""src":"1","#),
            "field `src`: invalid type: string \"1\", expected u32"
        );
        assert_eq!(
            with(r#""size":64,"#, r#""size":-1,"#),
            "field `size`: invalid value: integer `-1`, expected u64"
        );
        assert_eq!(
            with(r#""p50":1.5,"#, r#""p50":null,"#),
            "field `p50`: invalid type: null, expected a number that is not negative"
        );
        assert_eq!(
            with(r#""p50":1.5,"#, r#""p50":-1.5,"#),
            "field `p50`: invalid value: floating point `-1.5`, expected a number that is not negative"
        );
        assert_eq!(
            with(r#""ipis":0"#, r#""ipis":"0""#),
            "field `counts`: invalid type: string \"0\", expected u64"
        );
        let forward = r#""forward":{"node":1,"#;
        assert_eq!(with(forward, r#""forward":{"#), "field `homes`: missing field `node`");
        assert_eq!(
            with(r#""layer":"counts","#, r#""layer":"guesses","#),
            "field `layer`: unknown variant `guesses`, expected one of `counts`, `model`, `native`"
        );
    }

    #[test]
    fn what_the_machine_does_not_have_is_refused() {
        let whole = full(&[]);
        let says = |record: GuestRecord<'_>| message(&record.to_string());
        assert_eq!(
            says(GuestRecord { src: Some(8), ..whole }),
            "field `src` has 8, but field `cores` says that there are 8"
        );
        assert_eq!(
            says(GuestRecord { dst_node: Some(2), ..whole }),
            "field `dst_node` has 2, but field `nodes` says that there are 2"
        );
        let homes = |data| crate::Homes { data, forward: home(1), backward: home(0) };
        let data = [home(0), home(3)];
        assert_eq!(
            says(GuestRecord { homes: Some(homes(&data)), ..whole }),
            "field `homes` has 3, but field `nodes` says that there are 2"
        );
        let backward = crate::Homes { backward: home(7), ..homes(&DATA) };
        assert_eq!(
            says(GuestRecord { homes: Some(backward), ..whole }),
            "field `homes` has 7, but field `nodes` says that there are 2"
        );
    }

    #[test]
    fn distributions_must_make_sense() {
        let whole = full(&[]);
        let says = |record: GuestRecord<'_>| message(&record.to_string());
        let falling = Distribution { p90: Value::Real(1.25), ..distribution() };
        assert_eq!(
            says(GuestRecord { distribution: Some(falling), ..whole }),
            "fields `min`, `p50`, `p90`, `p99` and `max` must not decrease"
        );
        assert_eq!(says(GuestRecord { n: 0, ..whole }), "field `n` is 0, but there is a distribution");
        let unit = |unit, layer, accel| GuestRecord {
            distribution: Some(Distribution { unit, ..distribution() }),
            layer,
            accel,
            ..whole
        };
        assert_eq!(
            says(unit(Unit::Cycles, Layer::Counts, Accel::Icount)),
            "field `unit`: cycles is no unit of layer counts under accel icount"
        );
        let right = [
            (Unit::Instr, Layer::Counts, Accel::Icount),
            (Unit::Ratio, Layer::Counts, Accel::Icount),
            (Unit::Cycles, Layer::Native, Accel::Kvm),
            (Unit::GbPerSecond, Layer::Native, Accel::Native),
            (Unit::ModelledNs, Layer::Model, Accel::Tcg),
        ];
        for (u, layer, accel) in right {
            assert!(Line::parse(&unit(u, layer, accel).to_string()).is_ok(), "{u} {layer} {accel}");
        }
        let wrong = [
            (Unit::Instr, Layer::Native, Accel::Kvm),
            (Unit::InstrPerKib, Layer::Model, Accel::Icount),
            (Unit::GbPerSecond, Layer::Counts, Accel::Icount),
            (Unit::Cycles, Layer::Native, Accel::Icount),
            (Unit::ModelledNs, Layer::Counts, Accel::Icount),
        ];
        for (u, layer, accel) in wrong {
            let expected = FieldError::Unit { unit: u, layer, accel }.to_string();
            assert_eq!(says(unit(u, layer, accel)), expected);
        }
    }

    #[test]
    fn half_a_distribution_is_refused() {
        let whole = full(&[]).to_string();
        for field in [r#""unit":"instr/KiB","#, r#""min":0,"#, r#""max":1e300,"#] {
            assert_eq!(whole.matches(field).count(), 1, "{whole}");
            assert_eq!(message(&whole.replace(field, "")), FieldError::PartOfDistribution.to_string());
        }
    }

    #[test]
    fn times_of_an_emulated_guest_are_refused() {
        let tcg = GuestRecord { accel: Accel::Tcg, ..full(&[]) };
        assert_eq!(message(&tcg.to_string()), FieldError::EmulatedTime.to_string());
        assert!(Line::parse(&GuestRecord { distribution: None, ..tcg }.to_string()).is_ok());
    }

    #[test]
    fn another_schema_is_refused() {
        assert!(Line::parse(&crate::Event::start().to_string()).is_ok());
        let other = crate::Event::start().value(99).to_string();
        assert_eq!(
            Line::parse(&other).unwrap_err().to_string(),
            "these results have schema version 99, this program reads 2"
        );
        let none = crate::Event::new(EventKind::Start).to_string();
        assert_eq!(
            Line::parse(&none).unwrap_err().to_string(),
            "these results begin without a schema version"
        );
    }

    /// A header of a run of the standard lab.
    pub(super) fn header() -> Header {
        Header {
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
        }
    }

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = header();
        let line = serde_json::to_string(&header).unwrap();
        assert!(line.starts_with(r#"{"type":"header","schema":2,"#), "{line}");
        assert_eq!(Header::parse(&line).unwrap(), header);
    }

    #[test]
    fn a_wrong_header_is_refused() {
        let line = serde_json::to_string(&header()).unwrap();
        let says = |line: &str| Header::parse(line).unwrap_err().to_string();
        assert_eq!(
            says(&line.replace(r#""schema":2"#, r#""schema":1"#)),
            "these results have schema version 1, this program reads 2"
        );
        assert_eq!(says(r#"{"type":"header"}"#), "these results begin without a schema version");
        let without = line.replace(r#""image_hash":"00","#, "");
        assert_eq!(
            says(&without),
            format!("not a line of results: field `image_hash` is missing: {without:?}")
        );
        let cores = line.replace(r#""cores":8"#, r#""cores":"8""#);
        let expected = "field `topology`: invalid type: string \"8\", expected u32";
        assert_eq!(says(&cores), format!("not a line of results: {expected}: {cores:?}"));
        let record = full(&[]).to_string();
        let expected = "field `type`: a result is not expected here";
        assert_eq!(says(&record), format!("not a line of results: {expected}: {record:?}"));
    }
}
