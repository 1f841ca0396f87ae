//! The machine that a guest found: read from its events, shown as tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table};
use results::EventKind;
use results::host::{Event, Line};
use skb::{CoreId, CoreList, Node, Picoseconds, Route, Topology};

use crate::report::plain;
use crate::{Error, Result};

/// What a guest found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Cores, nodes and all that is known of them.
    pub topology: Topology,
    /// What firmware left out or got wrong.
    pub complaints: Vec<String>,
    /// How many more complaints there were.
    pub more: u64,
}

impl Found {
    /// What a guest told in these lines.
    ///
    /// # Errors
    /// It told nothing, or nothing that could be a machine.
    pub fn read(lines: &[Line]) -> Result<Self> {
        let mut words: Vec<u64> = Vec::new();
        let (mut complaints, mut more) = (Vec::new(), 0);
        for event in lines.iter().filter_map(|line| match line {
            Line::Event(event) => Some(event),
            Line::Result(_) => None,
        }) {
            match event {
                Event { kind: EventKind::Topology, detail, value, .. } => {
                    if *value != Some(words.len() as u64) {
                        return Err(bad(format!("its words are out of order at {}", words.len())));
                    }
                    for word in detail.as_deref().unwrap_or_default().split(' ') {
                        let parsed = u64::from_str_radix(word, 16);
                        words.push(parsed.map_err(|error| bad(format!("the word {word:?}: {error}")))?);
                    }
                }
                Event { kind: EventKind::Complaint, detail: Some(detail), .. } => {
                    complaints.push(detail.clone())
                }
                Event { kind: EventKind::Complaint, value, .. } => more += value.unwrap_or(0),
                _ => {}
            }
        }
        let topology = Topology::decode(&words).map_err(|error| bad(error.to_string()))?;
        Ok(Self { topology, complaints, more })
    }
}

fn bad(error: String) -> Error {
    Error::BadTopology { error }
}

/// All that was found, as tables for people.
#[must_use]
pub fn show(found: &Found) -> String {
    let Found { topology, complaints, more } = found;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}\n", summary(topology));
    section(&mut text, "Nodes", &nodes(topology));
    section(&mut text, "Cores", &cores(topology));
    if let Some(table) = caches(topology) {
        section(&mut text, "Caches of each core", &table);
    }
    let distance =
        |from: &Node, to: &Node| topology.distance(from.id, to.id).map(|distance| distance.to_string());
    section(
        &mut text,
        "Distances (from the node in the row to the memory of that in the column)",
        &matrix(topology, distance),
    );
    for (caption, value) in ROUTES {
        let shown = |from: &Node, to: &Node| value(&topology.route(from.id, to.id)?);
        if pairs(topology).any(|(from, to)| shown(from, to).is_some()) {
            section(&mut text, caption, &matrix(topology, shown));
        }
    }
    if !complaints.is_empty() {
        let _ = writeln!(text, "Complaints about firmware");
        complaints.iter().for_each(|complaint| {
            let _ = writeln!(text, "  {complaint}");
        });
        if *more > 0 {
            let _ = writeln!(text, "  and {more} more");
        }
        text.push('\n');
    }
    text
}

/// What to show of a pair of nodes, or nothing.
type OfRoute = fn(&Route) -> Option<String>;

const ROUTES: [(&str, OfRoute); 4] = [
    ("Latency of loads, ns", |route| route.read.latency.map(nanoseconds)),
    ("Latency of stores, ns", |route| route.write.latency.map(nanoseconds)),
    ("Bandwidth of loads, MB/s", |route| route.read.bandwidth.map(|value| value.to_string())),
    ("Bandwidth of stores, MB/s", |route| route.write.bandwidth.map(|value| value.to_string())),
];

fn section(text: &mut String, caption: &str, table: &Table) {
    let _ = writeln!(text, "{caption}\n{}\n", table.trim_fmt());
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn summary(topology: &Topology) -> String {
    let enabled = topology.enabled_cores().len();
    let mut summary = format!(
        "{} on {} in {}",
        counted(enabled, "core"),
        counted(topology.nodes().len(), "node"),
        counted(topology.packages().len(), "package")
    );
    let absent = topology.cores().len() - enabled;
    if absent > 0 {
        let _ = write!(summary, ", room for {absent} more");
    }
    summary
}

fn nodes(topology: &Topology) -> Table {
    let has = |what: fn(&Node) -> bool| topology.nodes().iter().any(what);
    // A column that says nothing about any node is left out.
    let (domains, attached, cached) = (
        has(|node| node.domain.0 != node.id.0),
        has(|node| node.initiator.is_some_and(|initiator| initiator != node.id)),
        has(|node| !node.caches.is_empty()),
    );
    let mut table = plain();
    let head = [("node", true), ("domain", domains), ("cores", true), ("memory", true), ("at", true)];
    let more = [("attached to", attached), ("cached by", cached)];
    let shown = |columns: &[(&str, bool)]| -> Vec<String> {
        columns.iter().filter(|column| column.1).map(|column| column.0.to_owned()).collect()
    };
    table.set_header([shown(&head), shown(&more)].concat());
    for node in topology.nodes() {
        let cores: Vec<_> = topology.cores_of(node.id).collect();
        let memory: u64 = node.memory.iter().map(|range| range.length()).sum();
        let ranges: Vec<_> = node.memory.iter().map(ToString::to_string).collect();
        let caches: Vec<_> = node
            .caches
            .iter()
            .map(|cache| format!("L{} {} {}", cache.level, size(cache.size), cache.associativity))
            .collect();
        let cells = [
            (node.id.to_string(), true),
            (node.domain.to_string(), domains),
            (CoreList(&cores).to_string(), true),
            (if memory > 0 { size(memory) } else { "-".to_owned() }, true),
            (ranges.join(" "), true),
            (node.initiator.map_or_else(|| "-".to_owned(), |node| format!("node {node}")), attached),
            (caches.join(", "), cached),
        ];
        table.add_row(cells.into_iter().filter(|cell| cell.1).map(|cell| cell.0));
    }
    if let Some(column) = table.column_mut(if domains { 3 } else { 2 }) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The cores of each package and node, and which of them are threads of one.
fn cores(topology: &Topology) -> Table {
    let mut groups: BTreeMap<_, Vec<CoreId>> = BTreeMap::new();
    for core in topology.cores() {
        let package = topology.position(core.id).map(|position| position.package);
        groups.entry((package, core.node)).or_default().push(core.id);
    }
    let mut table = plain();
    table.set_header(["package", "node", "cores", "APICs", "threads of one core"]);
    for ((package, node), cores) in groups {
        let apics = cores.iter().filter_map(|&core| topology.core(core)).map(|core| CoreId(core.apic.0));
        let apics: Vec<_> = apics.collect();
        let mut whole: Vec<Vec<_>> = cores.iter().map(|&core| topology.siblings(core).collect()).collect();
        whole.dedup();
        let threads: Vec<_> =
            whole.iter().filter(|threads| threads.len() > 1).map(|threads| joined(threads)).collect();
        let threads = if threads.is_empty() { "-".to_owned() } else { threads.join(" ") };
        table.add_row([
            package.map_or_else(|| "-".to_owned(), |package| package.to_string()),
            node.to_string(),
            CoreList(&cores).to_string(),
            CoreList(&apics).to_string(),
            threads,
        ]);
    }
    table
}

fn joined(cores: &[CoreId]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
}

fn caches(topology: &Topology) -> Option<Table> {
    let mut table = plain();
    table.set_header(["level", "keeps", "size", "line", "shared by"]);
    for &cache in topology.caches() {
        let sharers: Vec<_> = topology.sharers(CoreId::BOOT, cache).collect();
        let shared = match sharers.len() {
            1 => "nobody".to_owned(),
            count => format!("{count} cores, such as {}", CoreList(&sharers)),
        };
        table.add_row([
            format!("L{}", cache.level),
            cache.kind.to_string(),
            size(cache.size),
            cache.line.to_string(),
            shared,
        ]);
    }
    (!topology.caches().is_empty()).then_some(table)
}

fn pairs(topology: &Topology) -> impl Iterator<Item = (&Node, &Node)> {
    topology.nodes().iter().flat_map(|from| topology.nodes().iter().map(move |to| (from, to)))
}

fn matrix(topology: &Topology, value: impl Fn(&Node, &Node) -> Option<String>) -> Table {
    let nodes = topology.nodes();
    let mut table = plain();
    table.set_header(std::iter::once("from".to_owned()).chain(nodes.iter().map(|node| node.id.to_string())));
    for from in nodes {
        let cells = nodes.iter().map(|to| value(from, to).unwrap_or_else(|| "-".to_owned()));
        table.add_row(std::iter::once(from.id.to_string()).chain(cells));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn nanoseconds(latency: Picoseconds) -> String {
    latency.to_string().trim_end_matches(" ns").to_owned()
}

/// A size in the largest binary unit that has it whole, or in MiB.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")] {
        if bytes.is_multiple_of(1 << shift) && (shift != 10 || bytes < MIB) && bytes >> shift > 0 {
            return format!("{} {unit}", bytes >> shift);
        }
        if shift == 20 && bytes > MIB {
            return format!("{:.3} MiB", bytes as f64 / MIB as f64);
        }
    }
    "0 B".to_owned()
}

#[cfg(test)]
mod tests {
    use results::{Event as GuestEvent, EventKind};
    use skb::ApicId;

    use super::*;

    fn line(event: GuestEvent<'_>) -> Line {
        Line::parse(&event.to_string()).unwrap()
    }

    fn words(topology: &Topology) -> Vec<String> {
        topology.encode().iter().map(|word| format!("{word:x}")).collect()
    }

    #[test]
    fn what_a_guest_tells_in_parts_is_put_together() {
        let topology = Topology::flat(ApicId(7));
        let words = words(&topology);
        let (first, rest) = words.split_at(3);
        let (first, rest) = (first.join(" "), rest.join(" "));
        let part = |detail, value| line(GuestEvent::new(EventKind::Topology).detail(detail).value(value));
        let complaint = line(GuestEvent::new(EventKind::Complaint).detail("there is no SRAT"));
        let more = line(GuestEvent::new(EventKind::Complaint).value(7));
        let lines = [line(GuestEvent::start()), part(&first, 0), part(&rest, 3), complaint, more];
        let found = Found::read(&lines).unwrap();
        assert_eq!((&found.topology, found.more), (&topology, 7));
        assert_eq!(found.complaints, ["there is no SRAT"]);
        let text = show(&found);
        assert!(text.starts_with("1 core on 1 node in 1 package\n"), "{text}");
        assert!(text.contains("  there is no SRAT\n  and 7 more\n"), "{text}");
        assert!(!text.contains("Latency") && !text.contains("Caches"), "{text}");
        // Without, twice, out of order, or not numbers.
        let refusal = |lines: &[Line]| Found::read(lines).unwrap_err().to_string();
        let bad = "the guest's topology is not valid: ";
        assert_eq!(refusal(&[]), format!("{bad}the words of the topology end too early"));
        let twice = [part(&first, 0), part(&rest, 3), part(&rest, 3)];
        assert_eq!(refusal(&twice), format!("{bad}its words are out of order at {}", words.len()));
        assert_eq!(refusal(&[part(&rest, 3)]), format!("{bad}its words are out of order at 0"));
        let garbage = refusal(&[part("1 x", 0)]);
        assert_eq!(garbage, format!("{bad}the word \"x\": invalid digit found in string"));
    }

    #[test]
    fn sizes_are_whole_where_they_can_be() {
        let table = [
            (0, "0 B"),
            (64, "64 B"),
            (32 << 10, "32 KiB"),
            (1 << 20, "1 MiB"),
            (256 << 20, "256 MiB"),
            ((256 << 20) - 0x6_0000, "255.625 MiB"),
            (3 << 30, "3 GiB"),
            (1025 << 20, "1025 MiB"),
            (2 << 40, "2 TiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }
}
