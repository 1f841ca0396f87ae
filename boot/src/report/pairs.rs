//! Results of many pairs of cores: a summary by distance, and the matrix.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::CellAlignment;
use results::anchors::{Anchor, anchor};
use results::host::Record;
use results::metric;

use super::{Cells, Matrices, aim, align, bound, peers, plain, verdict_word};

/// The most cores whose matrix is readable on a terminal.
pub(super) const WIDEST: usize = 16;

/// What the records of a family have in common: benchmark, metric, size, policy.
type Key<'a> = (&'a str, &'a str, Option<u64>, Option<&'a str>);

fn key(record: &Record) -> Key<'_> {
    (&record.bench, &record.metric, record.size, record.policy.as_deref())
}

/// The cores of a record, where it names two.
fn pair(record: &Record) -> Option<(u32, u32)> {
    Some((record.src?, record.dst?))
}

/// Splits records into those of measurements that were made from more than one core to others, and all else.
pub(crate) fn split<'a>(records: &[&'a Record]) -> (Vec<&'a Record>, Vec<&'a Record>) {
    let mut pairs: BTreeMap<Key<'_>, BTreeSet<(u32, u32)>> = BTreeMap::new();
    for record in records {
        if let Some(pair) = pair(record) {
            pairs.entry(key(record)).or_default().insert(pair);
        }
    }
    let from_many = |pairs: &BTreeSet<(u32, u32)>| {
        let first = pairs.first().map(|(src, _)| *src);
        pairs.last().map(|(src, _)| *src) != first
    };
    let many = |record: &&&Record| pairs.get(&key(record)).is_some_and(from_many);
    let (many, others): (Vec<&&Record>, Vec<&&Record>) = records.iter().partition(many);
    (many.into_iter().copied().collect(), others.into_iter().copied().collect())
}

/// How far apart the cores of a pair are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Distance {
    SameNode,
    OtherNode,
    Unknown,
}

impl Distance {
    pub(crate) fn of(record: &Record) -> Self {
        match (record.src_node, record.dst_node) {
            (Some(src), Some(dst)) if src == dst => Self::SameNode,
            (Some(_), Some(_)) => Self::OtherNode,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::SameNode => "same node",
            Self::OtherNode => "other node",
            Self::Unknown => "any",
        }
    }
}

/// A row of the summary.
struct Summary<'a> {
    key: Key<'a>,
    distance: Distance,
    /// The medians of the pairs.
    medians: Vec<f64>,
    /// Where the lines lay, as seen from the pair; empty where nobody says.
    homes: BTreeSet<String>,
    anchor: Option<&'static Anchor>,
}

/// Where the pieces of the data and the lines of a channel lay: with the sender, the receiver, both of them, or on
/// another node.
pub(crate) fn homes(record: &Record) -> Option<String> {
    let homes = record.homes.as_ref()?;
    let (src, dst) = (record.src_node, record.dst_node);
    let whose = |node: u32| match (Some(node) == src, Some(node) == dst) {
        (true, true) => "local",
        (true, false) => "src",
        (false, true) => "dst",
        (false, false) => "elsewhere",
    };
    let mut data: Vec<&str> = homes.data.iter().map(|home| whose(home.node)).collect();
    data.dedup();
    let data = if data.is_empty() { String::new() } else { format!("D {} ", data.join(",")) };
    Some(format!("{data}F {} B {}", whose(homes.forward.node), whose(homes.backward.node)))
}

/// The summaries, in the order in which the measurements come first, the near pairs before the far ones.
fn summaries<'a>(records: &[&'a Record]) -> Vec<Summary<'a>> {
    let mut order: Vec<Key<'a>> = Vec::new();
    let mut rows: BTreeMap<(usize, Distance), Summary<'a>> = BTreeMap::new();
    for &record in records {
        let Some(distribution) = record.distribution else { continue };
        let key = key(record);
        let place = order.iter().position(|k| *k == key).unwrap_or_else(|| {
            order.push(key);
            order.len() - 1
        });
        let distance = Distance::of(record);
        let row = rows.entry((place, distance)).or_insert_with(|| Summary {
            key,
            distance,
            medians: Vec::new(),
            homes: BTreeSet::new(),
            anchor: anchor(key.0, key.1, key.2, record.layer, distribution.unit),
        });
        row.medians.push(distribution.p50.as_f64());
        row.homes.extend(homes(record));
    }
    rows.into_values().collect()
}

/// What one message costs both of its ends together: [`metric::PUT`] and [`metric::GET`] of the same pairs.
fn both_ends(records: &[&Record]) -> Vec<Record> {
    let gets: BTreeMap<_, &Record> =
        records.iter().filter(|r| r.metric == metric::GET).map(|r| ((key(r), pair(r)), *r)).collect();
    let puts = records.iter().filter(|r| r.metric == metric::PUT);
    let sums = puts.filter_map(|put| {
        let mut place = key(put);
        place.1 = metric::GET;
        let get = gets.get(&(place, pair(put)))?;
        let mut sum = (*put).clone();
        sum.metric = metric::PUT_AND_GET.to_owned();
        let (distribution, get) = (sum.distribution.as_mut()?, get.distribution?);
        distribution.p50 = results::Value::Real(distribution.p50.as_f64() + get.p50.as_f64());
        Some(sum)
    });
    sums.collect()
}

/// The summary of all pairs.
pub(super) fn summary(records: &[&Record]) -> String {
    let sums = both_ends(records);
    let all: Vec<&Record> = records.iter().copied().chain(&sums).collect();
    let mut cells = Cells::new(&[
        ("benchmark", CellAlignment::Left),
        ("metric", CellAlignment::Left),
        ("between", CellAlignment::Left),
        ("size", CellAlignment::Right),
        ("policy", CellAlignment::Left),
        ("homes", CellAlignment::Left),
        ("pairs", CellAlignment::Right),
        ("min", CellAlignment::Right),
        ("median", CellAlignment::Right),
        ("max", CellAlignment::Right),
        ("aim", CellAlignment::Right),
        ("must", CellAlignment::Right),
        ("", CellAlignment::Left),
        ("peers", CellAlignment::Left),
    ]);
    for mut row in summaries(&all) {
        row.medians.sort_by(f64::total_cmp);
        let (bench, metric, size, policy) = row.key;
        let number = |value: Option<&f64>| value.map(|value| short(*value));
        let worst = row.medians.last();
        let homes: Vec<&str> = row.homes.iter().map(String::as_str).collect();
        cells.push([
            Some(bench.to_owned()),
            Some(metric.to_owned()),
            Some(row.distance.word().to_owned()),
            size.map(|size| size.to_string()),
            policy.map(str::to_owned),
            (!homes.is_empty()).then(|| homes.join(", ")),
            Some(row.medians.len().to_string()),
            number(row.medians.first()),
            number(row.medians.get((row.medians.len() - 1) / 2)),
            number(worst),
            row.anchor.and_then(aim),
            row.anchor.and_then(bound),
            // Every pair counts.
            row.anchor.zip(worst).and_then(|(anchor, &worst)| verdict_word(anchor, worst)),
            row.anchor.and_then(peers),
        ]);
    }
    cells.finish()
}

/// A median without digits that say nothing.
pub(crate) fn short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The matrices of the round trips, each with its caption; where one is too wide, how to see it.
pub(super) fn matrices(records: &[&Record], shown: Matrices<'_>) -> Vec<String> {
    let mut families: Vec<(Key<'_>, Vec<&Record>)> = Vec::new();
    for &record in records.iter().filter(|record| record.metric == metric::ROUND_TRIP) {
        match families.iter_mut().find(|(of, _)| *of == key(record)) {
            Some((_, family)) => family.push(record),
            None => families.push((key(record), vec![record])),
        }
    }
    families.iter().map(|(key, family)| matrix(*key, family, shown)).collect()
}

fn matrix((bench, _, size, policy): Key<'_>, family: &[&Record], shown: Matrices<'_>) -> String {
    let size = size.map(|size| format!(" of {size} bytes")).unwrap_or_default();
    let policy = policy.map(|policy| format!(", policy {policy}")).unwrap_or_default();
    let mut nodes: BTreeMap<u32, Option<u32>> = BTreeMap::new();
    let mut medians: BTreeMap<(u32, u32), f64> = BTreeMap::new();
    for record in family {
        let (Some((src, dst)), Some(distribution)) = (pair(record), record.distribution) else { continue };
        nodes.insert(src, record.src_node);
        nodes.insert(dst, record.dst_node);
        medians.insert((src, dst), distribution.p50.as_f64());
    }
    let caption = format!(
        "{bench}, median of a round trip{size} from the core of the row to the core of the column{policy}"
    );
    if nodes.len() > WIDEST && shown.width == super::Width::Readable {
        let place = shown.journal.map(|path| format!(" and {}", path.display())).unwrap_or_default();
        return format!(
            "{caption}:\n{} cores are too wide to print; --matrix{place} have all pairs",
            nodes.len()
        );
    }
    let mut table = plain();
    table.set_header(["node", "core"].map(str::to_owned).into_iter().chain(nodes.keys().map(u32::to_string)));
    for (&src, node) in &nodes {
        let cell = |dst: &u32| medians.get(&(src, *dst)).map(|median| short(*median)).unwrap_or_default();
        let head = [node.map(|node| node.to_string()).unwrap_or_default(), src.to_string()];
        table.add_row(head.into_iter().chain(nodes.keys().map(cell)));
    }
    for index in 0..nodes.len() + 2 {
        align(&mut table, index, CellAlignment::Right);
    }
    format!("{caption}\n{}", table.trim_fmt())
}
