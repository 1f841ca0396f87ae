//! What QEMU was told about processors and memory, and whether a guest found the same.
//!
//! The options are read as QEMU reads them, for the machines that `--numa` makes and for those of a file alike. What
//! they do not say is what QEMU does without: `docs/system/qemu-options` and `hw/core/numa.c` in its sources.

use std::collections::{BTreeMap, BTreeSet};

use skb::hmat::{CacheAssociativity, CacheWrites, MemoryCache, Quantity};
use skb::{Access, ApicId, Core, CoreState, Distance, Node, Picoseconds, Position, Route, Speed, Topology};

use crate::machine::{CpuPlace, Machine};
use crate::numa::parse_size;
use crate::{Error, Result};

/// Addresses of a PC that are no memory although it starts below and goes on above: video memory and firmware.
const LEGACY_HOLE: std::ops::Range<u64> = 0xa_0000..0x10_0000;

/// A machine as QEMU was told to make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// By their numbers, which are those of the proximity domains.
    nodes: BTreeMap<u32, ToldNode>,
    /// Where each vCPU is, and its node.
    cpus: Vec<(CpuPlace, u32)>,
    /// Distances of pairs of nodes.
    distances: BTreeMap<(u32, u32), u8>,
    /// Latencies in picoseconds and bandwidths in MB/s, of pairs of nodes.
    values: BTreeMap<(Quantity, u32, u32), u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ToldNode {
    /// Bytes.
    memory: u64,
    initiator: Option<u32>,
    caches: Vec<MemoryCache>,
}

/// One value of an option, `kind,key=value,…`.
struct Value<'a> {
    kind: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Value<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        Self { kind, pairs: parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect() }
    }

    /// The value of a key; of several the last.
    fn get(&self, key: &str) -> Option<&'a str> {
        self.all(key).last()
    }

    fn all(&self, key: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.pairs.iter().filter(move |(name, _)| *name == key).map(|&(_, value)| value)
    }

    /// A number, `None` where it is not given.
    fn number(&self, key: &str) -> Option<Option<u32>> {
        match self.get(key) {
            None => Some(None),
            Some(text) => text.parse().ok().map(Some),
        }
    }

    /// A number that must be given.
    fn needed(&self, key: &str) -> Option<u32> {
        self.number(key)?
    }

    fn size(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(parse_size)
    }
}

impl Told {
    /// What QEMU was told for this machine.
    ///
    /// # Errors
    /// An option that QEMU takes, but that is not understood here.
    pub fn of(machine: &Machine) -> Result<Self> {
        let mut told = Self {
            nodes: BTreeMap::new(),
            cpus: Vec::new(),
            distances: BTreeMap::new(),
            values: BTreeMap::new(),
        };
        let mut sizes = BTreeMap::new();
        // The node of each vCPU that was given one.
        let mut homes: BTreeMap<u32, u32> = BTreeMap::new();
        for (option, text) in &machine.numa {
            let value = Value::parse(text);
            let read = match option.as_str() {
                "-object" => value.get("id").zip(value.size("size")).map(|(id, size)| {
                    sizes.insert(id, size);
                }),
                _ => match value.kind {
                    "node" => told.read_node(&value, &sizes, &mut homes),
                    "cpu" => read_cpu(&value, machine, &mut homes),
                    "dist" => told.read_distance(&value),
                    "hmat-lb" => told.read_value(&value),
                    "hmat-cache" => told.read_cache(&value),
                    _ => None,
                },
            };
            read.ok_or_else(|| Error::NumaOption { option: format!("{option} {text}") })?;
        }
        let count = (told.nodes.len() as u32).max(1);
        told.cpus = (0..machine.cpus)
            .map(|cpu| {
                let place = machine.smp.place(cpu);
                // Where no vCPU is given a node, each socket gets one; where some are, the rest get the first.
                let default = if homes.is_empty() { place.socket % count } else { 0 };
                (place, homes.get(&cpu).copied().unwrap_or(default))
            })
            .collect();
        if machine.has_hmat() {
            let with_cpus: BTreeSet<u32> = told.cpus.iter().map(|&(_, node)| node).collect();
            for (id, node) in &mut told.nodes {
                if with_cpus.contains(id) {
                    node.initiator = Some(*id);
                }
            }
        }
        Ok(told)
    }

    fn read_node(
        &mut self,
        value: &Value<'_>,
        sizes: &BTreeMap<&str, u64>,
        homes: &mut BTreeMap<u32, u32>,
    ) -> Option<()> {
        let id = value.number("nodeid")?.unwrap_or(self.nodes.len() as u32);
        let memory = match value.get("memdev") {
            Some(memdev) => sizes.get(memdev).copied()?,
            None => 0,
        };
        for range in value.all("cpus") {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            homes.extend((first..=last).map(|cpu| (cpu, id)));
        }
        let initiator = value.number("initiator")?;
        self.nodes.insert(id, ToldNode { memory, initiator, caches: Vec::new() });
        Some(())
    }

    fn read_distance(&mut self, value: &Value<'_>) -> Option<()> {
        let pair = (value.needed("src")?, value.needed("dst")?);
        self.distances.insert(pair, u8::try_from(value.needed("val")?).ok()?);
        Some(())
    }

    fn read_value(&mut self, value: &Value<'_>) -> Option<()> {
        let (initiator, target) = (value.needed("initiator")?, value.needed("target")?);
        if value.get("hierarchy")? != "memory" {
            // Of a cache in front of memory, not of memory.
            return Some(());
        }
        let quantity = value.get("data-type")?;
        let quantity = Quantity::ALL.into_iter().find(|q| q.word().replace(' ', "-") == quantity)?;
        // Latencies are given in nanoseconds; a MB in the table is 2²⁰ bytes to QEMU.
        let value = match quantity.is_latency() {
            true => u64::from(value.needed("latency")?) * 1000,
            false => value.size("bandwidth")? >> 20,
        };
        self.values.insert((quantity, initiator, target), value);
        Some(())
    }

    fn read_cache(&mut self, value: &Value<'_>) -> Option<()> {
        let associativity = match value.get("associativity").unwrap_or("none") {
            "none" => CacheAssociativity::Unknown,
            "direct" => CacheAssociativity::Direct,
            "complex" => CacheAssociativity::Complex,
            _ => return None,
        };
        let writes = match value.get("policy").unwrap_or("none") {
            "none" => CacheWrites::Unknown,
            "write-back" => CacheWrites::Back,
            "write-through" => CacheWrites::Through,
            _ => return None,
        };
        let cache = MemoryCache {
            level: u8::try_from(value.needed("level")?).ok()?,
            size: value.size("size")?,
            line: u16::try_from(value.number("line")?.unwrap_or(0)).ok()?,
            associativity,
            writes,
        };
        let caches = &mut self.nodes.get_mut(&value.needed("node-id")?)?.caches;
        caches.push(cache);
        caches.sort_by_key(|cache| cache.level);
        Some(())
    }

    /// The nodes that firmware can know: without processors and memory there is nothing to tell of one.
    fn visible(&self) -> impl Iterator<Item = u32> + '_ {
        let has_cpus = |node: u32| self.cpus.iter().any(|&(_, home)| home == node);
        let memory = |node: u32| self.nodes.get(&node).map_or(0, |node| node.memory);
        // Without any `-numa`, there is one node.
        let ids: BTreeSet<u32> =
            self.nodes.keys().copied().chain(self.cpus.iter().map(|cpu| cpu.1)).collect();
        ids.into_iter().filter(move |&node| has_cpus(node) || memory(node) > 0)
    }

    /// In which ways the guest found another machine; none if it found this one.
    #[must_use]
    pub fn differences(&self, found: &Topology) -> Vec<String> {
        let mut differences = Vec::new();
        self.compare_cores(found, &mut differences);
        self.compare_nodes(found, &mut differences);
        self.compare_pairs(found, &mut differences);
        differences
    }

    fn compare_cores(&self, found: &Topology, differences: &mut Vec<String>) {
        let (told, cores) = (self.cpus.len(), found.enabled_cores().len());
        differ(differences, "cores", &told.to_string(), &cores.to_string());
        let domain = |core: &Core| found.node(core.node).map(|node| node.domain.0);
        for &(CpuPlace { socket, core, thread, apic }, node) in &self.cpus {
            let what = |what: &str| format!("{what} of the core with APIC {apic}");
            let Some(at) = found.core_by_apic(ApicId(apic)) else {
                differences.push(format!("QEMU was told a core with APIC {apic}, the guest did not find it"));
                continue;
            };
            if at.state != CoreState::Enabled {
                differences.push(format!("the guest found the core with APIC {apic} disabled"));
            }
            differ(differences, &what("node"), &node.to_string(), &shown(domain(at)));
            let told = Position { package: socket, unit: core, thread };
            let show = |Position { package, unit, thread }: Position| {
                format!("socket {package}, core {unit}, thread {thread}")
            };
            let position = found.position(at.id).map_or_else(|| "nothing".to_owned(), show);
            differ(differences, &what("place"), &show(told), &position);
        }
    }

    fn compare_nodes(&self, found: &Topology, differences: &mut Vec<String>) {
        let told: Vec<_> = self.visible().map(|node| node.to_string()).collect();
        let nodes: Vec<_> = found.nodes().iter().map(|node| node.domain.0.to_string()).collect();
        differ(differences, "nodes", &told.join(" "), &nodes.join(" "));
        let mut start = 0;
        for (&id, told) in &self.nodes {
            let end = start + told.memory;
            let hole = LEGACY_HOLE.end.min(end).saturating_sub(LEGACY_HOLE.start.max(start));
            start = end;
            let Some(node) = node_of(found, id) else { continue };
            let memory: u64 = node.memory.iter().map(|range| range.length()).sum();
            let bytes = |bytes: u64| format!("{bytes} bytes");
            differ(differences, &format!("memory of node {id}"), &bytes(told.memory - hole), &bytes(memory));
            let initiator = node.initiator.and_then(|node| found.node(node)).map(|node| node.domain.0);
            let what = format!("processors that the memory of node {id} is attached to");
            // Firmware tells it only of memory.
            let expected = told.initiator.filter(|_| told.memory > 0 || initiator.is_some());
            differ(differences, &what, &shown(expected), &shown(initiator));
            let show = |caches: &[MemoryCache]| caches.iter().map(show_cache).collect::<Vec<_>>().join(", ");
            let what = format!("caches at the memory of node {id}");
            differ(differences, &what, &show(&told.caches), &show(&node.caches));
        }
    }

    fn compare_pairs(&self, found: &Topology, differences: &mut Vec<String>) {
        let visible: Vec<u32> = self.visible().collect();
        for (&from, &to) in visible.iter().flat_map(|from| visible.iter().map(move |to| (from, to))) {
            let (Some(a), Some(b)) = (node_of(found, from), node_of(found, to)) else { continue };
            let what = |what: &str| format!("{what} from node {from} to {to}");
            let distance = found.distance(a.id, b.id).unwrap_or(Distance::UNREACHABLE);
            differ(
                differences,
                &what("distance"),
                &self.distance(from, to).to_string(),
                &distance.to_string(),
            );
            let route = found.route(a.id, b.id).unwrap_or_default();
            for (access, name) in [(Access::Read, "loads"), (Access::Write, "stores")] {
                let (told, speed) = (self.route(from, to).speed(access), route.speed(access));
                let [told_latency, latency] = [told, speed].map(|speed| shown(speed.latency));
                differ(differences, &what(&format!("latency of {name}")), &told_latency, &latency);
                let [told_bandwidth, bandwidth] = [told, speed].map(|speed| shown(speed.bandwidth));
                differ(differences, &what(&format!("MB/s of {name}")), &told_bandwidth, &bandwidth);
            }
        }
    }

    /// The distance that firmware should tell, or that is assumed where it is told none. QEMU mirrors what is given in
    /// one direction only.
    fn distance(&self, from: u32, to: u32) -> Distance {
        let given = self.distances.get(&(from, to)).or_else(|| self.distances.get(&(to, from)));
        match given {
            Some(&distance) => Distance(distance),
            None if from == to => Distance::LOCAL,
            None => Distance::REMOTE,
        }
    }

    fn route(&self, from: u32, to: u32) -> Route {
        let value = |special, both| {
            let of = |quantity| self.values.get(&(quantity, from, to)).copied().filter(|&value| value > 0);
            of(special).or_else(|| of(both))
        };
        let speed = |latency, bandwidth| Speed {
            latency: value(latency, Quantity::AccessLatency).map(Picoseconds),
            bandwidth: value(bandwidth, Quantity::AccessBandwidth).map(|value| value as u32),
        };
        Route {
            read: speed(Quantity::ReadLatency, Quantity::ReadBandwidth),
            write: speed(Quantity::WriteLatency, Quantity::WriteBandwidth),
        }
    }
}

/// Adds a difference if there is one.
fn differ(differences: &mut Vec<String>, what: &str, told: &str, found: &str) {
    if told != found {
        differences.push(format!("{what}: QEMU was told {told}, the guest found {found}"));
    }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

fn show_cache(cache: &MemoryCache) -> String {
    let MemoryCache { level, size, line, associativity, writes } = cache;
    format!("level {level}: {size} bytes, lines of {line}, associativity {associativity}, {writes}")
}

/// The node of that domain.
fn node_of(found: &Topology, domain: u32) -> Option<&Node> {
    found.nodes().iter().find(|node| node.domain.0 == domain)
}

/// `-numa cpu`: gives those vCPUs to a node that are where it says.
fn read_cpu(value: &Value<'_>, machine: &Machine, homes: &mut BTreeMap<u32, u32>) -> Option<()> {
    let node = value.needed("node-id")?;
    let (socket, core, thread) =
        (value.number("socket-id")?, value.number("core-id")?, value.number("thread-id")?);
    for cpu in 0..machine.cpus {
        let place = machine.smp.place(cpu);
        let fits = |wanted: Option<u32>, is| wanted.is_none_or(|wanted| wanted == is);
        if fits(socket, place.socket) && fits(core, place.core) && fits(thread, place.thread) {
            homes.insert(cpu, node);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use boot_info::{PhysAddr, PhysRange};
    use skb::cpuid::{ApicFields, Processors};
    use skb::{Complaints, Facts, MemoryAffinity, Processor, ProcessorAffinity, ProximityDomain};

    use super::*;
    use crate::machine::MachineOptions;

    const MIB: u64 = 1 << 20;

    fn machine(numa: &str, cpus: u32, memory: &str) -> Machine {
        let options = MachineOptions {
            cpus: Some(cpus),
            numa: Some(numa.parse().unwrap()),
            memory: Some(memory.to_owned()),
            ..MachineOptions::default()
        };
        Machine::new(&options).unwrap()
    }

    fn of_lines(lines: &str, cpus: u32) -> Result<Told> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lab.numa");
        std::fs::write(&path, lines).unwrap();
        Told::of(&machine(path.to_str().unwrap(), cpus, "512M"))
    }

    /// Two nodes of two cores and 128 MiB each, as a guest finds them.
    fn facts() -> Facts {
        let range = |base, end| PhysRange::between(PhysAddr::new(base), PhysAddr::new(end));
        let memory = |range, domain| MemoryAffinity { range, domain: ProximityDomain(domain) };
        Facts {
            processors: (0..4)
                .map(|apic| Processor { apic: ApicId(apic), state: CoreState::Enabled })
                .collect(),
            processor_affinities: (0..4)
                .map(|apic| ProcessorAffinity { apic: ApicId(apic), domain: ProximityDomain(apic / 2) })
                .collect(),
            memory_affinities: vec![
                memory(range(0, 0xa_0000), 0),
                memory(range(0x10_0000, 128 * MIB), 0),
                memory(range(128 * MIB, 256 * MIB), 1),
            ],
            cpuid: Processors { fields: ApicFields::new(0, 1), ..Processors::default() },
            ..Facts::default()
        }
    }

    fn differences(told: &Told, facts: &Facts) -> Vec<String> {
        told.differences(&Topology::from_facts(facts, ApicId(0), &mut Complaints::default()))
    }

    #[test]
    fn a_guest_that_finds_the_same_gives_no_difference() {
        let told = Told::of(&machine("2", 4, "256M")).unwrap();
        assert_eq!(differences(&told, &facts()), [""; 0]);
    }

    #[test]
    fn each_difference_is_told() {
        let told = Told::of(&machine("2", 4, "256M")).unwrap();
        let mut other = facts();
        other.processors.pop();
        other.processor_affinities[1].domain = ProximityDomain(1);
        other.memory_affinities.pop();
        other.cpuid.fields = ApicFields::new(1, 1);
        assert_eq!(
            differences(&told, &other),
            [
                "cores: QEMU was told 4, the guest found 3",
                "node of the core with APIC 1: QEMU was told 0, the guest found 1",
                "place of the core with APIC 1: QEMU was told socket 0, core 1, thread 0, the guest found socket 0, core 0, \
                 thread 1",
                "QEMU was told a core with APIC 3, the guest did not find it",
                "memory of node 1: QEMU was told 134217728 bytes, the guest found 0 bytes",
            ]
        );
        let mut fewer = facts();
        fewer.processor_affinities.iter_mut().for_each(|affinity| affinity.domain = ProximityDomain(0));
        fewer.memory_affinities.pop();
        let fewer = differences(&told, &fewer);
        assert!(fewer.contains(&"nodes: QEMU was told 0 1, the guest found 0".to_owned()), "{fewer:?}");
    }

    #[test]
    fn options_are_read_as_qemu_reads_them() {
        let told = of_lines(
            "-smp sockets=2,cores=2\n\
             -object memory-backend-ram,id=a,size=1G\n-object memory-backend-ram,size=512M,id=b\n\
             -numa node,memdev=a,cpus=0,cpus=2-3\n-numa node,nodeid=1,memdev=b,initiator=0\n\
             -numa dist,src=0,dst=1,val=30\n\
             -numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=100\n\
             -numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=read-bandwidth,bandwidth=2G\n\
             -numa hmat-lb,initiator=0,target=1,hierarchy=second-level,data-type=read-latency,latency=1\n\
             -numa hmat-cache,node-id=1,size=1M,level=2\n-numa hmat-cache,node-id=1,size=64K,level=1,line=64\n",
            4,
        )
        .unwrap();
        // The vCPU that no node names is the first node's.
        assert_eq!(told.cpus.iter().map(|&(_, node)| node).collect::<Vec<_>>(), [0; 4]);
        assert_eq!((told.nodes[&0].memory, told.nodes[&1].memory), (1 << 30, 512 << 20));
        assert_eq!((told.nodes[&0].initiator, told.nodes[&1].initiator), (Some(0), Some(0)));
        assert_eq!(
            (told.distance(0, 1), told.distance(1, 0), told.distance(1, 1)),
            (Distance(30), Distance(30), Distance(10))
        );
        let latency = Some(Picoseconds(100_000));
        let expected = Route {
            read: Speed { latency, bandwidth: Some(2048) },
            write: Speed { latency, bandwidth: None },
        };
        assert_eq!((told.route(0, 1), told.route(1, 0)), (expected, Route::default()));
        let sizes: Vec<_> = told.nodes[&1].caches.iter().map(|cache| (cache.level, cache.size)).collect();
        assert_eq!(sizes, [(1, 64 << 10), (2, 1 << 20)]);
    }

    #[test]
    fn sockets_have_nodes_in_turn_where_no_node_names_a_cpu() {
        let told = of_lines("-smp sockets=4,cores=1,threads=2\n-numa node\n-numa node\n", 8).unwrap();
        assert_eq!(told.cpus.iter().map(|&(_, node)| node).collect::<Vec<_>>(), [0, 0, 1, 1, 0, 0, 1, 1]);
        let told = of_lines(
            "-smp sockets=2,cores=2,threads=2\n-numa node\n-numa node\n\
             -numa cpu,node-id=1,socket-id=1,core-id=0\n-numa cpu,node-id=1,socket-id=0,core-id=1,thread-id=1\n",
            8,
        )
        .unwrap();
        assert_eq!(told.cpus.iter().map(|&(_, node)| node).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "-numa dist,src=0,dst=1,val=256",
            "-numa dist,src=0,dst=1",
            "-numa node,nodeid=x",
            "-numa node,memdev=none",
            "-numa cpu,socket-id=0",
            "-numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=fast,latency=1",
            "-numa hmat-cache,node-id=9,size=1M,level=1",
            "-numa hmat-cache,node-id=0,size=1M,level=1,policy=lazy",
            "-numa teapot",
        ] {
            assert_eq!(
                of_lines(&format!("-numa node\n{line}\n"), 2).unwrap_err().to_string(),
                format!("cannot tell what QEMU makes of `{line}`, so not whether the guest found the same")
            );
        }
    }
}
