//! `compare`: two files of results beside each other.
//!
//! Results are matched by benchmark, metric, cores and size; the policy is part of what differs. Numbers of
//! different layers, units or accelerators are never compared, so such files are refused. Measurements between many
//! pairs of cores are compared pair by pair and shown by distance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use comfy_table::CellAlignment;
use results::host::{FileError, Header, Record, Run, parse_runs};
use results::{Layer, Unit};
use thiserror::Error;

use crate::report::{self, Cells, pairs};

/// Why two files cannot be compared.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The file is not one of results.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: FileError,
    },
    /// A run without results.
    #[error("{}: there is a header, but no result: did the run fail?", path.display())]
    NoResults {
        /// The file.
        path: PathBuf,
    },
    /// Two results of the same thing.
    #[error("{}: two results of {what}, so it is not clear which to compare", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// Of what.
        what: String,
    },
    /// Different accelerators.
    #[error(
        "one run is under accel {a}, the other under accel {b}: their numbers mean different things and are never \
         compared"
    )]
    Accel {
        /// In the first file.
        a: results::Accel,
        /// In the second.
        b: results::Accel,
    },
    /// Different layers.
    #[error("{what} is of layer {a} in one file and of layer {b} in the other: layers are never compared")]
    Layer {
        /// Of what.
        what: String,
        /// In the first file.
        a: Layer,
        /// In the second.
        b: Layer,
    },
    /// Different units.
    #[error("{what} is in {a} in one file and in {b} in the other: units are never compared")]
    Unit {
        /// Of what.
        what: String,
        /// In the first file.
        a: Unit,
        /// In the second.
        b: Unit,
    },
}

/// What results are matched by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    bench: String,
    metric: String,
    src: Option<u32>,
    dst: Option<u32>,
    size: Option<u64>,
}

impl Key {
    fn of(record: &Record) -> Self {
        let Record { bench, metric, src, dst, size, .. } = record;
        Self { bench: bench.clone(), metric: metric.clone(), src: *src, dst: *dst, size: *size }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.bench, self.metric)?;
        match (self.src, self.dst) {
            (Some(src), Some(dst)) => write!(f, ", {src} → {dst}")?,
            (Some(core), None) | (None, Some(core)) => write!(f, ", core {core}")?,
            (None, None) => {}
        }
        match self.size {
            Some(size) => write!(f, ", {size} bytes"),
            None => Ok(()),
        }
    }
}

/// A file of results.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    runs: Vec<Run>,
}

impl File {
    /// Reads the text of the file that lies at `path`.
    ///
    /// # Errors
    /// It is not a file of results, or has none.
    pub fn parse(path: &Path, text: &str) -> Result<Self, CompareError> {
        let path = path.to_owned();
        let runs = match parse_runs(text) {
            Ok(runs) => runs,
            Err(error) => return Err(CompareError::File { path, error }),
        };
        if runs[0].records.is_empty() {
            return Err(CompareError::NoResults { path });
        }
        Ok(Self { path, runs })
    }

    /// The run that is compared.
    fn run(&self) -> &Run {
        &self.runs[0]
    }

    /// Its results by what they are matched by.
    fn results(&self) -> Result<BTreeMap<Key, &Record>, CompareError> {
        let mut results = BTreeMap::new();
        for record in &self.run().records {
            let key = Key::of(record);
            if let Some(first) = results.insert(key, record) {
                let what = Key::of(first).to_string();
                return Err(CompareError::Twice { path: self.path.clone(), what });
            }
        }
        Ok(results)
    }

    /// A line about the file.
    fn describe(&self, name: &str) -> String {
        let runs = match self.runs.len() {
            1 => String::new(),
            runs => format!(", the first of its {runs} runs"),
        };
        format!("{name}: {} of {}{runs}", self.path.display(), self.run().header.started)
    }
}

/// A result that both files have.
struct Both<'a> {
    a: &'a Record,
    b: &'a Record,
}

impl Both<'_> {
    /// The medians; `None` where there are no distributions.
    fn medians(&self) -> Option<(f64, f64)> {
        Some((self.a.distribution?.p50.as_f64(), self.b.distribution?.p50.as_f64()))
    }
}

/// The text of the comparison.
///
/// # Errors
/// The numbers are of kinds that are never compared.
pub fn compare(a: &File, b: &File) -> Result<String, CompareError> {
    let (headers, results) = ((&a.run().header, &b.run().header), (a.results()?, b.results()?));
    if headers.0.accel != headers.1.accel {
        return Err(CompareError::Accel { a: headers.0.accel, b: headers.1.accel });
    }
    let mut both = Vec::new();
    // In the order in which they were measured.
    for record in &a.run().records {
        let key = Key::of(record);
        let Some(&other) = results.1.get(&key) else { continue };
        if record.layer != other.layer {
            return Err(CompareError::Layer { what: key.to_string(), a: record.layer, b: other.layer });
        }
        if let (Some(x), Some(y)) = (record.distribution, other.distribution)
            && x.unit != y.unit
        {
            return Err(CompareError::Unit { what: key.to_string(), a: x.unit, b: y.unit });
        }
        both.push(Both { a: record, b: other });
    }

    let differences = differences(headers.0, headers.1);
    let mut text = format!("{}\n{}\n", a.describe("A"), b.describe("B"));
    // Writing to a string cannot fail.
    let _ = match differences.as_slice() {
        [] => writeln!(text, "The runs do not differ in machine, images or options."),
        all => writeln!(
            text,
            "They differ in {}.",
            all.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
        ),
    };
    // Which benchmarks were run is no difference between those that were run in both.
    let matter = differences.iter().filter(|difference| difference.what != "benchmarks");
    if matter.map(|difference| difference.what).eq(["policy"])
        && both.iter().any(|both| both.a.layer == Layer::Counts)
    {
        let _ = writeln!(
            text,
            "Only the policy differs, and counts are blind to placement: equal counts are expected, and rank no \
             policy. What the policy changes is where the memory lies, in the columns of homes."
        );
    }
    let mut groups: BTreeMap<(Layer, Option<Unit>), Vec<&Both<'_>>> = BTreeMap::new();
    for both in &both {
        groups.entry((both.a.layer, both.a.distribution.map(|d| d.unit))).or_default().push(both);
    }
    for ((layer, unit), both) in groups {
        let heading = report::heading(layer);
        let _ = match unit {
            Some(unit) => writeln!(text, "\n{heading}, unit {unit}, medians\n{}", medians(&both)),
            None => writeln!(text, "\n{heading}, without distributions"),
        };
    }
    let _ = match counts(&both) {
        Some(table) => writeln!(text, "\nCounts that differ, for one operation\n{table}"),
        None if both.is_empty() => writeln!(text, "\nNo result is in both files."),
        None => writeln!(text, "\nAll counts beside them are equal."),
    };
    for (name, ours, theirs) in [("A", &results.0, &results.1), ("B", &results.1, &results.0)] {
        let only: Vec<&Key> = ours.keys().filter(|key| !theirs.contains_key(key)).collect();
        text.push_str(&only_in(name, &only));
    }
    Ok(text)
}

/// Something in which two runs differ.
struct Difference {
    what: &'static str,
    a: String,
    b: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} | {}", self.what, self.a, self.b)
    }
}

/// What a guest's word is called for people, those first that matter most.
const WORDS: [(&str, &str); 7] = [
    ("policy", "policy"),
    ("cpus", "CPUs"),
    ("nodes", "nodes"),
    ("bench", "benchmarks"),
    ("samples", "samples"),
    ("seed", "seed"),
    ("log", "log level"),
];

/// What differs between the runs but when they were made and how they were asked for.
fn differences(a: &Header, b: &Header) -> Vec<Difference> {
    let word = |header: &Header, key: &str| {
        let mut words = header.guest_command.split_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(name, _)| *name == key).map_or_else(|| "-".to_owned(), |(_, value)| value.to_owned())
    };
    let numa = |header: &Header| match header.topology.numa.as_slice() {
        [] => "even".to_owned(),
        lines => lines.join(" "),
    };
    let words = WORDS.map(|(key, what)| (what, word(a, key), word(b, key)));
    let of = |what, of: fn(&Header) -> String| (what, of(a), of(b));
    let others = [
        ("NUMA", numa(a), numa(b)),
        of("memory", |h| format!("{} MiB", h.topology.memory_mib)),
        of("image", |h| h.image_hash.chars().take(12).collect()),
        of("killifish", |h| h.versions.killifish.clone()),
        of("commit", |h| h.versions.git.clone()),
        of("rustc", |h| h.versions.rustc.clone()),
        of("QEMU", |h| h.versions.qemu.clone()),
        of("guest's CPU", |h| h.guest_cpu.clone()),
        of("host's CPU", |h| h.host_cpu.clone()),
    ];
    let all = words.into_iter().chain(others);
    all.filter(|(_, a, b)| a != b).map(|(what, a, b)| Difference { what, a, b }).collect()
}

/// A row of the table of medians: one result, or all pairs of cores that are so far apart.
struct Row<'a> {
    first: &'a Both<'a>,
    cores: Option<String>,
    medians: Vec<(f64, f64)>,
    homes: (BTreeSet<String>, BTreeSet<String>),
}

fn medians(both: &[&Both<'_>]) -> String {
    let records: Vec<&Record> = both.iter().map(|both| both.a).collect();
    let (many, _) = pairs::split(&records);
    let mut rows: Vec<Row<'_>> = Vec::new();
    for &both in both {
        let Some(medians) = both.medians() else { continue };
        let in_pairs = many.iter().any(|record| std::ptr::eq(*record, both.a));
        let distance = pairs::Distance::of(both.a);
        let same = |row: &&mut Row<'_>| {
            let (first, record) = (row.first.a, both.a);
            in_pairs
                && (&first.bench, &first.metric, first.size, pairs::Distance::of(first))
                    == (&record.bench, &record.metric, record.size, distance)
        };
        let homes = |record| if in_pairs { pairs::homes(record) } else { report::homes(record) };
        let (a, b) = (homes(both.a), homes(both.b));
        match rows.iter_mut().find(same) {
            Some(row) => {
                row.medians.push(medians);
                row.homes.0.extend(a);
                row.homes.1.extend(b);
            }
            None => rows.push(Row {
                first: both,
                cores: if in_pairs { Some(distance.word().to_owned()) } else { report::path(both.a) },
                medians: vec![medians],
                homes: (a.into_iter().collect(), b.into_iter().collect()),
            }),
        }
    }
    let mut cells = Cells::new(&[
        ("benchmark", CellAlignment::Left),
        ("metric", CellAlignment::Left),
        ("cores", CellAlignment::Left),
        ("size", CellAlignment::Right),
        ("A", CellAlignment::Right),
        ("B", CellAlignment::Right),
        ("change", CellAlignment::Right),
        ("relative", CellAlignment::Right),
        ("pairs", CellAlignment::Right),
        ("changed", CellAlignment::Right),
        ("homes A", CellAlignment::Left),
        ("homes B", CellAlignment::Left),
        ("copied A", CellAlignment::Right),
        ("copied B", CellAlignment::Right),
    ]);
    for row in rows {
        let (a, b) = (middle(row.medians.iter().map(|m| m.0)), middle(row.medians.iter().map(|m| m.1)));
        let pairs = row.medians.len();
        let changed = row.medians.iter().filter(|(a, b)| a != b).count();
        let text = |homes: &BTreeSet<String>| {
            (!homes.is_empty()).then(|| homes.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
        };
        let copied = |record: &Record| record.counts.get(report::COPIED).map(u64::to_string);
        let Record { bench, metric, size, .. } = row.first.a;
        cells.push([
            Some(bench.clone()),
            Some(metric.clone()),
            row.cores,
            size.map(report::bytes),
            Some(pairs::short(a)),
            Some(pairs::short(b)),
            Some(signed(b - a)),
            (a != 0.0).then(|| format!("{:+.1} %", (b - a) / a * 100.0)),
            (pairs > 1).then(|| pairs.to_string()),
            (pairs > 1).then(|| changed.to_string()),
            text(&row.homes.0),
            text(&row.homes.1),
            copied(row.first.a),
            copied(row.first.b),
        ]);
    }
    cells.finish()
}

/// The lower median.
fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// `+5`, `-0.25`, `0`.
fn signed(change: f64) -> String {
    match change {
        0.0 => "0".to_owned(),
        change if change.fract() == 0.0 => format!("{change:+.0}"),
        change => format!("{change:+.2}"),
    }
}

/// The most rows of counts and the most results of one file alone that are listed.
const MOST_LISTED: usize = 40;

/// The table of counts that differ; `None` where none does.
fn counts(both: &[Both<'_>]) -> Option<String> {
    let mut cells = Cells::new(&[
        ("benchmark", CellAlignment::Left),
        ("metric", CellAlignment::Left),
        ("cores", CellAlignment::Left),
        ("size", CellAlignment::Right),
        ("count", CellAlignment::Left),
        ("A", CellAlignment::Right),
        ("B", CellAlignment::Right),
    ]);
    let mut different = 0;
    for Both { a, b } in both {
        let names: BTreeSet<&String> = a.counts.keys().chain(b.counts.keys()).collect();
        for name in names.into_iter().filter(|name| a.counts.get(*name) != b.counts.get(*name)) {
            different += 1;
            if different > MOST_LISTED {
                continue;
            }
            let value = |record: &Record| record.counts.get(name).map(u64::to_string);
            cells.push([
                Some(a.bench.clone()),
                Some(a.metric.clone()),
                report::path(a),
                a.size.map(report::bytes),
                Some(name.replace('_', " ")),
                value(a),
                value(b),
            ]);
        }
    }
    let more = different.saturating_sub(MOST_LISTED);
    let rest = if more == 0 { String::new() } else { format!("\nand {more} more") };
    (different > 0).then(|| cells.finish() + &rest)
}

/// What only one of the files has.
fn only_in(name: &str, keys: &[&Key]) -> String {
    if keys.is_empty() {
        return String::new();
    }
    let mut text = format!("\nOnly in {name}:\n");
    for key in keys.iter().take(MOST_LISTED) {
        let _ = writeln!(text, "  {key}");
    }
    if keys.len() > MOST_LISTED {
        let _ = writeln!(text, "  and {} more", keys.len() - MOST_LISTED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header whose guest was told these words.
    fn header(words: &str) -> String {
        format!(
            r#"{{"type":"header","schema":2,"started":"2026-01-02T03:04:05Z","command":["killifish"],"qemu_command":["qemu"],"guest_command":"{words}","topology":{{"cores":4,"nodes":2,"memory_mib":512}},"accel":"icount","seed":1,"image_hash":"0123456789abcdef","versions":{{"killifish":"0.1.0","git":"abc","rustc":"1.95.0","qemu":"10.0.2"}},"guest_cpu":"max","host_cpu":"a CPU"}}"#
        )
    }

    /// A result; `more` has further fields, each with a comma behind it.
    fn result(bench: &str, metric: &str, unit: &str, p50: &str, more: &str, counts: &str) -> String {
        format!(
            r#"{{"type":"result","bench":"{bench}","metric":"{metric}",{more}"cores":4,"nodes":2,"accel":"icount","layer":"counts","unit":"{unit}","n":9,"min":1,"p50":{p50},"p90":9999,"p99":9999,"max":9999,"counts":{{{counts}}},"seed":1}}"#
        )
    }

    fn homes(forward: u32, backward: u32) -> String {
        format!(
            r#""homes":{{"forward":{{"node":{forward},"address":0}},"backward":{{"node":{backward},"address":0}}}},"#
        )
    }

    fn file(name: &str, lines: &[String]) -> Result<File, CompareError> {
        File::parse(Path::new(name), &(lines.join("\n") + "\n"))
    }

    fn compared(a: &[String], b: &[String]) -> String {
        match compare(&file("a.jsonl", a).unwrap(), &file("b.jsonl", b).unwrap()) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        }
    }

    /// Ordered pairs of two cores on each of two nodes; where the lines lie, `place` says.
    fn pairs(p50: u32, policy: &str, place: fn(u32, u32) -> (u32, u32)) -> Vec<String> {
        let mut lines = vec![header(&format!("cpus=4 nodes=2 bench=pairs policy={policy}"))];
        for (src, dst) in (0..4).flat_map(|src| (0..4).map(move |dst| (src, dst))).filter(|(s, d)| s != d) {
            let (near, far) = (src / 2, dst / 2);
            let (forward, backward) = place(near, far);
            let more = format!(
                r#""src":{src},"dst":{dst},"src_node":{near},"dst_node":{far},"size":64,"policy":"{policy}",{}"#,
                homes(forward, backward)
            );
            let p50 = if near == far { 60 } else { p50 };
            lines.push(result("pairs", "round_trip", "instr", &p50.to_string(), &more, r#""ipis":0"#));
        }
        lines
    }

    #[test]
    fn policies_are_shown_by_their_homes() {
        let expected = concat!(
            "A: a.jsonl of 2026-01-02T03:04:05Z\n",
            "B: b.jsonl of 2026-01-02T03:04:05Z\n",
            "They differ in policy: split-poller | worst.\n",
            "Only the policy differs, and counts are blind to placement: equal counts are expected, and rank no policy. What the policy changes is where the memory lies, in the columns of homes.\n",
            "\n",
            "Layer counts: exact and repeatable, blind to placement, unit instr, medians\n",
            " benchmark   metric       cores        size    A    B   change   relative   pairs   changed   homes A           homes B\n",
            "────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────\n",
            " pairs       round_trip   same node      64   60   60        0     +0.0 %       4         0   F local B local   F elsewhere B elsewhere\n",
            " pairs       round_trip   other node     64   80   80        0     +0.0 %       8         0   F dst B src       F src B dst\n",
            "\n",
            "All counts beside them are equal.\n",
        );
        let a = pairs(80, "split-poller", |src, dst| (dst, src));
        let b = pairs(80, "worst", |src, dst| (1 - dst, 1 - src));
        assert_eq!(compared(&a, &b), expected);
    }

    #[test]
    fn changes_are_absolute_and_relative() {
        let bulk = |p50: &str, copied: u64| {
            let counts = format!(r#""bytes_copied":{copied},"ipis":1"#);
            result("bulk", "messages", "instr/KiB", p50, r#""src":0,"dst":1,"size":4096,"#, &counts)
        };
        let call = |p50: &str| result("syscall", "round_trip", "instr", p50, r#""src":0,"#, "");
        let a = [
            header("cpus=4 samples=10"),
            call("80"),
            bulk("100.5", 4096),
            result("yield", "to_self", "instr", "5", "", ""),
        ];
        let b = [
            header("cpus=4"),
            bulk("75.25", 8192),
            call("100"),
            result("spawn", "round_trip", "instr", "5", r#""src":3,"#, ""),
        ];
        let expected = concat!(
            "A: a.jsonl of 2026-01-02T03:04:05Z\n",
            "B: b.jsonl of 2026-01-02T03:04:05Z\n",
            "They differ in samples: 10 | -.\n",
            "\n",
            "Layer counts: exact and repeatable, blind to placement, unit instr, medians\n",
            " benchmark   metric       cores    A     B   change   relative\n",
            "───────────────────────────────────────────────────────────────\n",
            " syscall     round_trip   0       80   100      +20    +25.0 %\n",
            "\n",
            "Layer counts: exact and repeatable, blind to placement, unit instr/KiB, medians\n",
            " benchmark   metric     cores    size        A       B   change   relative   copied A   copied B\n",
            "─────────────────────────────────────────────────────────────────────────────────────────────────\n",
            " bulk        messages   0 → 1   4 KiB   100.50   75.25   -25.25    -25.1 %       4096       8192\n",
            "\n",
            "Counts that differ, for one operation\n",
            " benchmark   metric     cores    size   count             A      B\n",
            "───────────────────────────────────────────────────────────────────\n",
            " bulk        messages   0 → 1   4 KiB   bytes copied   4096   8192\n",
            "\n",
            "Only in A:\n",
            "  yield to_self\n",
            "\n",
            "Only in B:\n",
            "  spawn round_trip, core 3\n",
        );
        assert_eq!(compared(&a, &b), expected);
    }

    #[test]
    fn equal_runs_say_so() {
        let a = [header("cpus=4"), result("syscall", "round_trip", "instr", "80", "", r#""ipis":0"#)];
        let text = compared(&a, &a);
        assert!(text.contains("\nThe runs do not differ in machine, images or options.\n"), "{text}");
        assert!(text.contains(" 80   80        0     +0.0 %"), "{text}");
        assert!(text.ends_with("\nAll counts beside them are equal.\n"), "{text}");
        let twice = [a[0].clone(), a[1].clone(), a[0].clone(), a[1].clone()];
        let text = compared(&twice, &a);
        assert!(
            text.starts_with("A: a.jsonl of 2026-01-02T03:04:05Z, the first of its 2 runs\nB: "),
            "{text}"
        );
        let other = [header("cpus=4"), result("yield", "to_self", "instr", "5", "", "")];
        assert!(compared(&a, &other).contains("\nNo result is in both files.\n"));
    }

    #[test]
    fn kinds_of_numbers_are_never_mixed() {
        let line = result("b", "m", "instr", "80", r#""src":0,"#, "");
        let a = [header("cpus=4"), line.clone()];
        let kvm = line
            .replace("icount", "kvm")
            .replace(r#""counts","unit":"instr""#, r#""native","unit":"cycles""#);
        assert_eq!(
            compared(&a, &[header("cpus=4").replace("icount", "kvm"), kvm]),
            "one run is under accel icount, the other under accel kvm: their numbers mean different things and are never \
             compared"
        );
        let model = line.replace(r#""counts","unit":"instr""#, r#""model","unit":"modelled-ns""#);
        assert_eq!(
            compared(&a, &[header("cpus=4"), model]),
            "b m, core 0 is of layer counts in one file and of layer model in the other: layers are never compared"
        );
        let per_kib = line.replace(r#""instr""#, r#""instr/KiB""#);
        assert_eq!(
            compared(&a, &[header("cpus=4"), per_kib]),
            "b m, core 0 is in instr in one file and in instr/KiB in the other: units are never compared"
        );
        let twice = [header("cpus=4"), line.clone(), line];
        assert_eq!(
            compared(&a, &twice),
            "b.jsonl: two results of b m, core 0, so it is not clear which to compare"
        );
    }

    #[test]
    fn what_is_no_file_of_results_is_named() {
        let says = |lines: &[String]| file("a.jsonl", lines).unwrap_err().to_string();
        assert_eq!(
            says(&["hello".into()]),
            "a.jsonl: line 1 is not the header of a run: is this a file of results?"
        );
        assert_eq!(
            says(&[header("").replace(r#""schema":2"#, r#""schema":1"#)]),
            "a.jsonl: line 1: these results have schema version 1, this program reads 2"
        );
        assert_eq!(says(&[header("")]), "a.jsonl: there is a header, but no result: did the run fail?");
    }

    #[test]
    fn long_lists_are_cut() {
        let a = [header("cpus=4"), result("b", "m", "instr", "1", "", "")];
        let mut b = vec![header("cpus=4")];
        b.extend((0..45).map(|size| result("b", "m", "instr", "1", &format!(r#""size":{size},"#), "")));
        let text = compared(&a, &b);
        assert!(text.contains("\nOnly in B:\n  b m, 0 bytes\n"), "{text}");
        assert!(text.ends_with("  b m, 39 bytes\n  and 5 more\n"), "{text}");
        let with = |count: u32| {
            let counts: Vec<String> = (0..45).map(|i| format!(r#""c{i:02}":{count}"#)).collect();
            [header("cpus=4"), result("b", "m", "instr", "1", "", &counts.join(","))]
        };
        let text = compared(&with(1), &with(2));
        assert!(text.ends_with("\nand 5 more\n"), "{text}");
    }
}
