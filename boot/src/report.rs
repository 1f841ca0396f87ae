//! Results as tables for people: one per layer and unit, because such numbers are never compared. Records
//! without a distribution have counts only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use results::anchors::{ANCHORS, Anchor, BENCHES, anchor};
use results::host::Record;
use results::{Accel, Layer, Unit, Value};

/// What a column says about a row, or nothing.
type Column = (&'static str, CellAlignment, fn(&Record) -> Option<String>);

/// The columns of the first table, in order. A column that says nothing about any row is left out.
const COLUMNS: [Column; 14] = [
    ("benchmark", CellAlignment::Left, |r| Some(r.bench.clone())),
    ("metric", CellAlignment::Left, |r| Some(r.metric.clone())),
    ("cores", CellAlignment::Left, path),
    ("bytes", CellAlignment::Right, |r| r.size.map(|size| size.to_string())),
    ("policy", CellAlignment::Left, |r| r.policy.clone()),
    ("n", CellAlignment::Right, |r| Some(r.n.to_string())),
    ("min", CellAlignment::Right, |r| Some(number(r.distribution?.min))),
    ("p50", CellAlignment::Right, |r| Some(number(r.distribution?.p50))),
    ("p90", CellAlignment::Right, |r| Some(number(r.distribution?.p90))),
    ("p99", CellAlignment::Right, |r| Some(number(r.distribution?.p99))),
    ("max", CellAlignment::Right, |r| Some(number(r.distribution?.max))),
    ("aim", CellAlignment::Right, |r| Some(format!("≤ {}", anchor_of(r)?.target?))),
    ("", CellAlignment::Left, verdict),
    ("peers", CellAlignment::Left, |r| {
        let peers = anchor_of(r)?.peers.iter();
        let text = peers.map(|peer| format!("{} {}", peer.name, peer.instr)).collect::<Vec<_>>().join(", ");
        (!text.is_empty()).then_some(text)
    }),
];

/// The tables of all records; empty where there are none.
#[must_use]
pub fn tables(records: &[Record]) -> String {
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
                let _ = writeln!(text, "{}\n", values(&records));
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
    let aim = anchor.target.map(|aim| format!("≤ {aim}"));
    let peers = anchor.peers.iter().map(|peer| format!("{} {}", peer.name, peer.instr));
    format!("{}: {}", anchor.metric, aim.into_iter().chain(peers).collect::<Vec<_>>().join(", "))
}

fn heading(layer: Layer) -> &'static str {
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
fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table
}

fn values(records: &[&Record]) -> String {
    let shown: Vec<&Column> =
        COLUMNS.iter().filter(|(_, _, cell)| records.iter().any(|record| cell(record).is_some())).collect();
    let mut table = plain();
    table.set_header(shown.iter().map(|(name, _, _)| *name));
    for record in records {
        table.add_row(shown.iter().map(|(_, _, cell)| cell(record).unwrap_or_default()));
    }
    for (index, (_, alignment, _)) in shown.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(*alignment);
        }
    }
    table.trim_fmt()
}

/// The table of counts; `None` where no record has any.
fn counts(records: &[&Record]) -> Option<String> {
    let names: BTreeSet<&String> = records.iter().flat_map(|record| record.counts.keys()).collect();
    if names.is_empty() {
        return None;
    }
    let mut table = plain();
    let head = ["benchmark".to_owned(), "metric".to_owned()];
    table.set_header(head.into_iter().chain(names.iter().map(|name| name.replace('_', " "))));
    for record in records.iter().filter(|record| !record.counts.is_empty()) {
        let cells = names.iter().map(|name| record.counts.get(*name).map(u64::to_string).unwrap_or_default());
        table.add_row([record.bench.clone(), record.metric.clone()].into_iter().chain(cells));
    }
    for index in 2..names.len() + 2 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Some(table.trim_fmt())
}

/// `0`, or `0 → 1`.
fn path(record: &Record) -> Option<String> {
    match (record.src, record.dst) {
        (Some(src), Some(dst)) => Some(format!("{src} → {dst}")),
        (Some(core), None) | (None, Some(core)) => Some(core.to_string()),
        (None, None) => None,
    }
}

fn anchor_of(record: &Record) -> Option<&'static Anchor> {
    anchor(&record.bench, &record.metric, record.layer, record.distribution?.unit)
}

/// Whether the median meets the aim.
fn verdict(record: &Record) -> Option<String> {
    let aim = anchor_of(record)?.target?;
    let met = match record.distribution?.p50 {
        Value::Whole(n) => n <= aim,
        Value::Real(x) => x <= aim as f64,
    };
    Some(if met { "met" } else { "missed" }.to_owned())
}

fn number(value: Value) -> String {
    match value {
        Value::Whole(n) => n.to_string(),
        Value::Real(x) => format!("{x:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use results::host::Line;

    fn record(bench: &str, p50: &str, more: &str) -> Record {
        let line = format!(
            r#"{{"type":"result","bench":"{bench}","metric":"round_trip",{more}"cores":8,"nodes":2,"accel":"icount","layer":"counts","unit":"instr","n":100,"min":50,"p50":{p50},"p90":60,"p99":60,"max":61,"counts":{{"kernel_entries":1}},"seed":1}}"#
        );
        let Line::Result(record) = Line::parse(&line).unwrap() else { panic!("not a result") };
        record
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
        let text = tables(&[record("syscall", "58", ""), fault]);
        assert_eq!(
            lines(&text),
            [
                "Layer counts: exact and repeatable, blind to placement, unit instr (accel icount: 1 tick is 1 guest \
                 instruction)",
                "benchmark metric cores n min p50 p90 p99 max aim peers",
                "syscall round_trip 100 50 58 60 60 61 ≤ 60 met seL4 NBRecv 256, Linux getppid 211",
                "pagefault to_handler 3 100 50 301 60 60 61 ≤ 300 missed seL4 fault 669, Linux SIGSEGV 2970",
                "Counts beside them, for one operation",
                "benchmark metric kernel entries",
                "syscall round_trip 1",
                "pagefault to_handler 1",
            ]
        );
    }

    #[test]
    fn layers_and_units_have_tables_of_their_own() {
        let mut native = record("pingpong", "1.5", r#""src":0,"dst":1,"size":64,"policy":"local","#);
        (native.layer, native.accel) = (Layer::Native, Accel::Native);
        native.distribution.as_mut().unwrap().unit = Unit::Cycles;
        let text = tables(&[native, record("spawn", "9000", "")]);
        let lines = lines(&text);
        assert_eq!(lines.iter().filter(|line| line.starts_with("Layer ")).count(), 2);
        assert!(lines.contains(&"spawn round_trip 100 50 9000 60 60 61".to_owned()), "{text}");
        assert!(
            lines.contains(&"pingpong round_trip 0 → 1 64 local 100 50 1.50 60 60 61".to_owned()),
            "{text}"
        );
        assert_eq!(tables(&[]), "");
    }

    #[test]
    fn without_distributions_only_counts_are_shown() {
        let mut counted = record("syscall", "58", "");
        (counted.accel, counted.distribution) = (Accel::Tcg, None);
        assert_eq!(
            lines(&tables(&[counted])),
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
    }
}
