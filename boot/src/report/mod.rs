//! Results as tables for people: one set per layer and unit, because such numbers are never compared. Records
//! without a distribution have counts only.
//!
//! A measurement between many pairs of cores is summarised and printed as a matrix (`pairs`), one of many sizes
//! with a row for each size (`sizes`); all others have a row each.

pub(crate) mod pairs;
mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use results::anchors::{ANCHORS, Anchor, BENCHES, Verdict, anchor};
use results::host::Record;
use results::{Accel, Layer, Unit, Value};

pub(crate) use sizes::{COPIED, bytes};

/// How wide a matrix may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// As wide as a terminal.
    Readable,
    /// As wide as it is.
    Any,
}

/// Which matrices are printed.
#[derive(Debug, Clone, Copy)]
pub struct Matrices<'a> {
    /// Wider ones are left out.
    pub width: Width,
    /// The file that has all results.
    pub journal: Option<&'a Path>,
}

/// What a column says about a row, or nothing.
type Column = (&'static str, CellAlignment, fn(&Record) -> Option<String>);

/// The columns of the table of rows, in order.
const COLUMNS: [Column; 16] = [
    ("benchmark", CellAlignment::Left, |r| Some(r.bench.clone())),
    ("metric", CellAlignment::Left, |r| Some(r.metric.clone())),
    ("cores", CellAlignment::Left, path),
    ("size", CellAlignment::Right, |r| r.size.map(|size| size.to_string())),
    ("policy", CellAlignment::Left, |r| r.policy.clone()),
    ("homes", CellAlignment::Left, homes),
    ("n", CellAlignment::Right, |r| Some(r.n.to_string())),
    ("min", CellAlignment::Right, |r| Some(number(r.distribution?.min))),
    ("p50", CellAlignment::Right, |r| Some(number(r.distribution?.p50))),
    ("p90", CellAlignment::Right, |r| Some(number(r.distribution?.p90))),
    ("p99", CellAlignment::Right, |r| Some(number(r.distribution?.p99))),
    ("max", CellAlignment::Right, |r| Some(number(r.distribution?.max))),
    ("aim", CellAlignment::Right, |r| aim(anchor_of(r)?)),
    ("must", CellAlignment::Right, |r| bound(anchor_of(r)?)),
    ("", CellAlignment::Left, |r| verdict_word(anchor_of(r)?, r.distribution?.p50.as_f64())),
    ("peers", CellAlignment::Left, |r| peers(anchor_of(r)?)),
];

/// The tables of all records; empty where there are none.
#[must_use]
pub fn tables(records: &[Record], matrices: Matrices<'_>) -> String {
    let mut groups: BTreeMap<(Layer, Option<Unit>, Accel), Vec<&Record>> = BTreeMap::new();
    for record in records {
        let unit = record.distribution.map(|distribution| distribution.unit);
        groups.entry((record.layer, unit, record.accel)).or_default().push(record);
    }
    let mut text = String::new();
    for ((layer, unit, accel), records) in groups {
        // Writing to a string cannot fail.
        let caption = match unit {
            Some(unit) => {
                let _ = writeln!(text, "{}, unit {unit} ({})", heading(layer), explain(accel));
                for table in values(unit, &records, matrices) {
                    let _ = writeln!(text, "{table}\n");
                }
                "Counts beside them, for one operation"
            }
            None => {
                let _ = writeln!(text, "Layer {layer}, without distributions ({})", explain(accel));
                "Counts for one operation"
            }
        };
        if let Some(table) = counts(&records) {
            let _ = writeln!(text, "{caption}\n{table}\n");
        }
    }
    text
}

/// The tables of the values in one unit.
fn values(unit: Unit, records: &[&Record], matrices: Matrices<'_>) -> Vec<String> {
    let of_sizes = |record: &&&Record| unit == Unit::InstrPerKib && record.size.is_some();
    let (sized, others): (Vec<&Record>, Vec<&Record>) = records.iter().partition(of_sizes);
    let (pairs, rows) = pairs::split(&others);
    let mut tables = Vec::new();
    if !rows.is_empty() {
        tables.push(values_by_row(&rows));
    }
    if !pairs.is_empty() {
        tables.push(format!("Medians of pairs of cores\n{}", pairs::summary(&pairs)));
        tables.extend(pairs::matrices(&pairs, matrices));
    }
    if !sized.is_empty() {
        let caption = "Medians by way; `copied` is in bytes. The instructions of a copy do not tell its time: the \
                       bytes do not depend on how it is coded";
        tables.push(format!("{caption}\n{}", sizes::table(&sized)));
    }
    tables
}

/// The table of all benchmarks that there are.
#[must_use]
pub fn list() -> String {
    let mut table = plain();
    table.set_header(["benchmark", "what it measures", "aims and peers, in instructions"]);
    for bench in BENCHES {
        let anchors = ANCHORS.iter().filter(|anchor| anchor.bench == bench.name);
        let lines: Vec<String> = anchors.map(describe).collect();
        table.add_row([bench.name.to_owned(), bench.about.to_owned(), lines.join("\n")]);
    }
    table.trim_fmt()
}

/// `to_handler: ≤ 300, seL4 fault 669`.
fn describe(anchor: &Anchor) -> String {
    let size = anchor.size.map(|size| format!(" of {size} bytes")).unwrap_or_default();
    let must = bound(anchor).map(|bound| format!("must {bound}"));
    let parts = aim(anchor).into_iter().chain(must).chain(peers(anchor)).collect::<Vec<_>>();
    format!("{}{size}: {}", anchor.metric, parts.join(", "))
}

fn aim(anchor: &Anchor) -> Option<String> {
    anchor.aim.map(|aim| format!("≤ {aim}"))
}

fn bound(anchor: &Anchor) -> Option<String> {
    anchor.must.map(|must| format!("≤ {must}"))
}

fn peers(anchor: &Anchor) -> Option<String> {
    let text: Vec<String> = anchor.peers.iter().map(|peer| format!("{} {}", peer.name, peer.instr)).collect();
    (!text.is_empty()).then(|| text.join(", "))
}

fn verdict_word(anchor: &Anchor, instr: f64) -> Option<String> {
    let word = match anchor.judge(instr)? {
        Verdict::AimMet => "met",
        Verdict::BoundMet => "must met",
        Verdict::Missed => "missed",
    };
    Some(word.to_owned())
}

pub(crate) fn heading(layer: Layer) -> &'static str {
    match layer {
        Layer::Counts => "Layer counts: exact and repeatable, blind to placement",
        Layer::Model => "Layer model: from a cost model, not from hardware",
        Layer::Native => "Layer native: measured on this hardware",
    }
}

fn explain(accel: Accel) -> &'static str {
    match accel {
        Accel::Icount => "accel icount: 1 tick is 1 guest instruction",
        Accel::Tcg => "accel tcg: its wall-clock time is never a result",
        Accel::Kvm => "accel kvm",
        Accel::Native => "Linux threads",
    }
}

/// A table with a line below its header and nothing else that is not data.
pub(crate) fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table
}

fn align(table: &mut Table, index: usize, alignment: CellAlignment) {
    if let Some(column) = table.column_mut(index) {
        column.set_cell_alignment(alignment);
    }
}

/// A table that leaves out the columns that say nothing about any row.
pub(crate) struct Cells {
    head: Vec<(String, CellAlignment)>,
    rows: Vec<Vec<Option<String>>>,
}

impl Cells {
    /// A table with these columns.
    pub(crate) fn new(head: &[(impl ToString, CellAlignment)]) -> Self {
        Self { head: head.iter().map(|(name, align)| (name.to_string(), *align)).collect(), rows: Vec::new() }
    }

    /// One more row, with a cell for each column.
    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = Option<String>>) {
        self.rows.push(row.into_iter().collect());
    }

    /// The text of the table.
    pub(crate) fn finish(self) -> String {
        let says = |index: &usize| self.rows.iter().any(|row| row.get(*index).is_some_and(Option::is_some));
        let shown: Vec<usize> = (0..self.head.len()).filter(says).collect();
        let mut table = plain();
        table.set_header(shown.iter().map(|&index| &self.head[index].0));
        for row in &self.rows {
            table.add_row(shown.iter().map(|&index| row[index].clone().unwrap_or_default()));
        }
        for (place, &index) in shown.iter().enumerate() {
            align(&mut table, place, self.head[index].1);
        }
        table.trim_fmt()
    }
}

fn values_by_row(records: &[&Record]) -> String {
    let mut cells = Cells::new(&COLUMNS.map(|(name, alignment, _)| (name, alignment)));
    for record in records {
        cells.push(COLUMNS.iter().map(|(_, _, cell)| cell(record)));
    }
    cells.finish()
}

/// The least and the greatest of each count.
type Ranges<'a> = BTreeMap<&'a str, (u64, u64)>;

/// The table of counts; `None` where no record has any. Records that differ in their cores only share a row.
fn counts(records: &[&Record]) -> Option<String> {
    let names: BTreeSet<&String> = records.iter().flat_map(|record| record.counts.keys()).collect();
    if names.is_empty() {
        return None;
    }
    let mut rows: Vec<(&Record, Ranges<'_>)> = Vec::new();
    for record in records.iter().filter(|record| !record.counts.is_empty()) {
        let same = |of: &Record| {
            (&of.bench, &of.metric, of.size, &of.policy)
                == (&record.bench, &record.metric, record.size, &record.policy)
        };
        let at = rows.iter().position(|(of, _)| same(of)).unwrap_or_else(|| {
            rows.push((record, Ranges::new()));
            rows.len() - 1
        });
        for (name, &count) in &record.counts {
            let (least, greatest) = rows[at].1.entry(name).or_insert((count, count));
            (*least, *greatest) = (count.min(*least), count.max(*greatest));
        }
    }
    let left = ["benchmark", "metric"].map(|name| (name.to_owned(), CellAlignment::Left));
    let right = std::iter::once("size".to_owned()).chain(names.iter().map(|name| name.replace('_', " ")));
    let head: Vec<_> = left.into_iter().chain(right.map(|name| (name, CellAlignment::Right))).collect();
    let mut cells = Cells::new(&head);
    for (record, counts) in rows {
        let range = |name: &&String| {
            counts.get(name.as_str()).map(|&(least, greatest)| match least == greatest {
                true => least.to_string(),
                false => format!("{least}–{greatest}"),
            })
        };
        let first =
            [Some(record.bench.clone()), Some(record.metric.clone()), record.size.map(|s| s.to_string())];
        cells.push(first.into_iter().chain(names.iter().map(range)));
    }
    Some(cells.finish())
}

/// `0`, or `0 → 1`.
pub(crate) fn path(record: &Record) -> Option<String> {
    match (record.src, record.dst) {
        (Some(src), Some(dst)) => Some(format!("{src} → {dst}")),
        (Some(core), None) | (None, Some(core)) => Some(core.to_string()),
        (None, None) => None,
    }
}

/// The nodes of the memory: `D 0,1 F 1 B 0` for the pieces of the data, the forward and the backward lines.
pub(crate) fn homes(record: &Record) -> Option<String> {
    let homes = record.homes.as_ref()?;
    let data: Vec<String> = homes.data.iter().map(|home| home.node.to_string()).collect();
    let data = if data.is_empty() { String::new() } else { format!("D {} ", data.join(",")) };
    Some(format!("{data}F {} B {}", homes.forward.node, homes.backward.node))
}

fn anchor_of(record: &Record) -> Option<&'static Anchor> {
    anchor(&record.bench, &record.metric, record.size, record.layer, record.distribution?.unit)
}

pub(crate) fn number(value: Value) -> String {
    match value {
        Value::Whole(n) => n.to_string(),
        Value::Real(x) => format!("{x:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use results::host::Line;

    use super::*;

    const NARROW: Matrices<'static> = Matrices { width: Width::Readable, journal: None };

    pub(super) fn parse(line: &str) -> Record {
        let Line::Result(record) = Line::parse(line).unwrap() else { panic!("not a result") };
        *record
    }

    fn record(bench: &str, p50: &str, more: &str) -> Record {
        parse(&format!(
            r#"{{"type":"result","bench":"{bench}","metric":"round_trip",{more}"cores":8,"nodes":2,"accel":"icount","layer":"counts","unit":"instr","n":100,"min":50,"p50":{p50},"p90":9000,"p99":9000,"max":9001,"counts":{{"kernel_entries":1}},"seed":1}}"#
        ))
    }

    /// The lines of a table without its rules and padding.
    fn lines(text: &str) -> Vec<String> {
        text.lines()
            .filter(|line| !line.contains('─') && !line.contains('═') && !line.trim().is_empty())
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn anchors_stand_beside_the_numbers() {
        let mut fault = record("pagefault", "301", r#""src":3,"#);
        fault.metric = "to_handler".to_owned();
        let text = tables(&[record("syscall", "58", ""), fault], NARROW);
        assert_eq!(
            lines(&text),
            [
                "Layer counts: exact and repeatable, blind to placement, unit instr (accel icount: 1 tick is 1 guest \
                 instruction)",
                "benchmark metric cores n min p50 p90 p99 max aim peers",
                "syscall round_trip 100 50 58 9000 9000 9001 ≤ 60 met seL4 NBRecv 256, Linux getppid 211",
                "pagefault to_handler 3 100 50 301 9000 9000 9001 ≤ 300 missed seL4 fault 669, Linux SIGSEGV 2970",
                "Counts beside them, for one operation",
                "benchmark metric kernel entries",
                "syscall round_trip 1",
                "pagefault to_handler 1",
            ]
        );
    }

    #[test]
    fn layers_and_units_have_tables_of_their_own() {
        let homes = r#""homes":{"data":[{"node":0,"address":0},{"node":1,"address":0}],"forward":{"node":1,"address":0},"backward":{"node":0,"address":0}},"#;
        let place = format!(r#""src":0,"dst":1,"size":64,"policy":"interleave",{homes}"#);
        let mut native = record("pingpong", "51.5", &place);
        (native.layer, native.accel) = (Layer::Native, Accel::Native);
        native.distribution.as_mut().unwrap().unit = Unit::Cycles;
        let text = tables(&[native, record("spawn", "9000", "")], NARROW);
        let lines = lines(&text);
        assert_eq!(lines.iter().filter(|line| line.starts_with("Layer ")).count(), 2);
        assert!(lines.contains(&"spawn round_trip 100 50 9000 9000 9000 9001".to_owned()), "{text}");
        let row = "pingpong round_trip 0 → 1 64 interleave D 0,1 F 1 B 0 100 50 51.50 9000 9000 9001";
        assert!(lines.contains(&row.to_owned()), "{text}");
        assert_eq!(tables(&[], NARROW), "");
    }

    #[test]
    fn without_distributions_only_counts_are_shown() {
        let mut counted = record("syscall", "58", "");
        (counted.accel, counted.distribution) = (Accel::Tcg, None);
        assert_eq!(
            lines(&tables(&[counted], NARROW)),
            [
                "Layer counts, without distributions (accel tcg: its wall-clock time is never a result)",
                "Counts for one operation",
                "benchmark metric kernel entries",
                "syscall round_trip 1",
            ]
        );
    }

    #[test]
    fn the_list_has_every_benchmark() {
        let text = list();
        for bench in BENCHES {
            assert!(text.contains(bench.name) && text.contains(bench.about), "{text}");
        }
        assert!(text.contains("to_handler: ≤ 300, seL4 fault 669, Linux SIGSEGV 2970"), "{text}");
        let anchor =
            Anchor { bench: "b", metric: "m", size: Some(64), aim: Some(50), must: Some(60), peers: &[] };
        assert_eq!(describe(&anchor), "m of 64 bytes: ≤ 50, must ≤ 60");
    }

    /// A ping-pong over all ordered pairs of cores, two on each node, whose round trips all differ.
    fn ping_pong(cores: u32) -> Vec<Record> {
        let mut records = Vec::new();
        for src in 0..cores {
            for dst in (0..cores).filter(|dst| *dst != src) {
                let (near, far) = (src / 2, dst / 2);
                let far_way = if near == far { 0 } else { 10 };
                for (metric, p50) in [("put", 20), ("get", 30), ("round_trip", 60 + 10 * src + dst + far_way)]
                {
                    records.push(parse(&format!(
                        r#"{{"type":"result","bench":"pairs","metric":"{metric}","src":{src},"dst":{dst},"src_node":{near},"dst_node":{far},"cores":{cores},"nodes":{cores},"size":64,"policy":"split-poller","homes":{{"forward":{{"node":{far},"address":8192}},"backward":{{"node":{near},"address":4096}}}},"accel":"icount","layer":"counts","unit":"instr","n":9,"min":1,"p50":{p50},"p90":999,"p99":999,"max":999,"counts":{{"ipis":{ipis}}},"seed":1}}"#,
                        ipis = src % 2,
                    )));
                }
            }
        }
        records
    }

    #[test]
    fn pairs_of_cores_are_summarised_and_make_a_matrix() {
        let expected = concat!(
            "Layer counts: exact and repeatable, blind to placement, unit instr (accel icount: 1 tick is 1 guest instruction)\n",
            "Medians of pairs of cores\n",
            " benchmark   metric        between      size   policy         homes             pairs   min   median   max\n",
            "───────────────────────────────────────────────────────────────────────────────────────────────────────────\n",
            " pairs       put           same node      64   split-poller   F local B local       4    20       20    20\n",
            " pairs       put           other node     64   split-poller   F dst B src           8    20       20    20\n",
            " pairs       get           same node      64   split-poller   F local B local       4    30       30    30\n",
            " pairs       get           other node     64   split-poller   F dst B src           8    30       30    30\n",
            " pairs       round_trip    same node      64   split-poller   F local B local       4    61       70    92\n",
            " pairs       round_trip    other node     64   split-poller   F dst B src           8    72       83   101\n",
            " pairs       put_and_get   same node      64   split-poller   F local B local       4    50       50    50\n",
            " pairs       put_and_get   other node     64   split-poller   F dst B src           8    50       50    50\n",
            "\n",
            "pairs, median of a round trip of 64 bytes from the core of the row to the core of the column, policy split-poller\n",
            " node   core     0     1    2    3\n",
            "───────────────────────────────────\n",
            "    0      0          61   72   73\n",
            "    0      1    70         82   83\n",
            "    1      2    90    91        83\n",
            "    1      3   100   101   92\n",
            "\n",
            "Counts beside them, for one operation\n",
            " benchmark   metric       size   ipis\n",
            "──────────────────────────────────────\n",
            " pairs       put            64    0–1\n",
            " pairs       get            64    0–1\n",
            " pairs       round_trip     64    0–1\n",
            "\n",
        );
        assert_eq!(tables(&ping_pong(4), NARROW), expected);
    }

    #[test]
    fn a_wide_matrix_is_printed_where_it_is_asked_for() {
        let records = ping_pong(17);
        let text = tables(
            &records,
            Matrices { width: Width::Readable, journal: Some(Path::new("results/r.jsonl")) },
        );
        let hint = "17 cores are too wide to print; --matrix and results/r.jsonl have all pairs\n";
        assert!(text.contains(hint), "{text}");
        assert!(tables(&records, NARROW).contains("17 cores are too wide to print; --matrix have all pairs"));
        let text = tables(&records, Matrices { width: Width::Any, journal: None });
        assert!(!text.contains("too wide"), "{text}");
        let last = text.lines().find(|line| line.trim_start().starts_with("8     16"));
        assert!(last.is_some_and(|line| line.contains(" 230 ")), "{text}");
    }

    #[test]
    fn sizes_are_rows_and_ways_are_columns() {
        let mut records = Vec::new();
        for size in [4096u64, 1 << 20] {
            for (way, p50, copied) in
                [("messages", "900.5", 2 * size), ("shared_memory", "600", size), ("in_place", "300.25", 0)]
            {
                let data = r#"{"node":0,"address":65536}"#;
                records.push(parse(&format!(
                    r#"{{"type":"result","bench":"bulk","metric":"{way}","src":0,"dst":1,"src_node":0,"dst_node":1,"cores":2,"nodes":2,"size":{size},"policy":"producer","homes":{{"data":[{data}],"forward":{data},"backward":{data}}},"accel":"icount","layer":"counts","unit":"instr/KiB","n":9,"min":1,"p50":{p50},"p90":999,"p99":999,"max":999,"counts":{{"bytes_copied":{copied},"ipis":0}},"seed":1}}"#
                )));
            }
        }
        let expected = concat!(
            "Layer counts: exact and repeatable, blind to placement, unit instr/KiB (accel icount: 1 tick is 1 guest instruction)\n",
            "Medians by way; `copied` is in bytes. The instructions of a copy do not tell its time: the bytes do not depend on how it is coded\n",
            " benchmark   cores   policy     homes          size   messages    copied   shared_memory    copied   in_place   copied\n",
            "───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────\n",
            " bulk        0 → 1   producer   D 0 F 0 B 0   4 KiB     900.50      8192             600      4096     300.25        0\n",
            " bulk        0 → 1   producer   D 0 F 0 B 0   1 MiB     900.50   2097152             600   1048576     300.25        0\n",
            "\n",
            "Counts beside them, for one operation\n",
            " benchmark   metric             size   bytes copied   ipis\n",
            "───────────────────────────────────────────────────────────\n",
            " bulk        messages           4096           8192      0\n",
            " bulk        shared_memory      4096           4096      0\n",
            " bulk        in_place           4096              0      0\n",
            " bulk        messages        1048576        2097152      0\n",
            " bulk        shared_memory   1048576        1048576      0\n",
            " bulk        in_place        1048576              0      0\n",
            "\n",
        );
        assert_eq!(tables(&records, NARROW), expected);
    }
}
