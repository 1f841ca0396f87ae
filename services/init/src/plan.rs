//! Who gets which memory: every core what it starts with, the first core what `init` and its domains use, and the
//! system knowledge base all the rest of every node.
//!
//! A core's memory comes from its own node; where that has none, or too little, from the nearest that has. It is
//! handed out in units of [`HANDOVER_GRANULARITY`]; what is smaller stays with `init`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use lmp::objects::HANDOVER_GRANULARITY;
use runtime::interface::mem::GRANULE;
use skb::{Core, NodeId, Topology};

/// The least RAM for a core's user space, in bytes: its `init` and its monitor.
pub const LEAST_RAM: u64 = 4 << 20;
/// RAM for a core's user space where there is enough, in bytes.
pub const USUAL_RAM: u64 = 10 << 20;
/// The same where that would leave hardly anything of the node for channels.
const MODEST_RAM: u64 = 8 << 20;
/// What a node should have left for channels for each core, in bytes.
const CHANNELS: u64 = 4 << 20;
/// What a core takes beside its user space, in bytes: the instance of its CPU driver and its share frame.
pub const FIXED: u64 = 2 * HANDOVER_GRANULARITY;

/// The least that stays with the first core, in bytes: console, monitor, knowledge base and a benchmark.
pub const LEAST_FIRST: u64 = 36 << 20;
/// What stays with the first core where there is enough, in bytes: room for a few more domains.
pub const USUAL_FIRST: u64 = 48 << 20;

/// What a core's memory server lends at most, in bytes: where a core keeps more, that is for a domain that needs it.
pub const USUAL_POOL: u64 = 8 << 20;

/// What a core's memory server lends, in bytes, of the `free` bytes that the core has left when its services run: a
/// quarter, and at most [`USUAL_POOL`]. The rest is what domains start with.
pub fn pool(free: u64) -> u64 {
    (free / 4 / GRANULE * GRANULE).min(USUAL_POOL)
}

/// The memory of a further core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// The core.
    pub core: Core,
    /// For the instance of its CPU driver.
    pub kernel: Range<u64>,
    /// Its share frame.
    pub share: Range<u64>,
    /// For its user space.
    pub ram: Range<u64>,
}

/// Who gets which memory, by physical address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The further cores, in the order of their numbers.
    pub cores: Vec<Share>,
    /// For the knowledge base, each piece on one node; the largest first.
    pub rest: Vec<Range<u64>>,
}

/// There is less memory than the cores need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// Cores to be started, the first one included.
    pub cores: u64,
    /// Bytes of free memory that they need at least.
    pub needed: u64,
    /// Bytes of free memory that can be handed out.
    pub free: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        let Shortage { cores, needed, free } = self;
        let (needed, free) = (needed.div_ceil(MIB), free / MIB);
        let cores = if *cores == 1 { "a core needs".into() } else { alloc::format!("{cores} cores need") };
        write!(f, "{cores} at least {needed} MiB of free memory and there are {free}: ")?;
        match needed.saturating_sub(free) {
            0 => f.write_str("they lie in pieces that are too small; use fewer cores"),
            more => write!(f, "give the machine {more} MiB more, or use fewer cores"),
        }
    }
}

/// The memory of a node that can be handed out.
#[derive(Clone, Default, Debug)]
struct Pool {
    free: Vec<Range<u64>>,
    /// Bytes of it that stay with the first core.
    kept: u64,
}

fn len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

impl Pool {
    fn bytes(&self) -> u64 {
        self.free.iter().map(len).sum()
    }

    /// Takes `size` bytes from the end of the smallest range that has them; none of what is kept.
    fn take(&mut self, size: u64) -> Option<Range<u64>> {
        if self.bytes() < self.kept + size {
            return None;
        }
        let range = self.free.iter_mut().filter(|range| len(range) >= size).min_by_key(|range| len(range))?;
        range.end -= size;
        Some(range.end..range.end + size)
    }

    /// All that a core with `ram` bytes for its user space takes.
    fn take_share(&mut self, core: Core, ram: u64) -> Option<Share> {
        let before = self.free.clone();
        let mut take = |size| self.take(size);
        let share = (|| {
            let (kernel, share) = (take(HANDOVER_GRANULARITY)?, take(HANDOVER_GRANULARITY)?);
            Some(Share { core, kernel, share, ram: take(ram)? })
        })();
        if share.is_none() {
            self.free = before;
        }
        share
    }

    /// What is not kept; the large ranges are kept before the small ones.
    fn rest(mut self) -> impl Iterator<Item = Range<u64>> {
        self.free.sort_by_key(|range| core::cmp::Reverse(len(range)));
        let mut kept = self.kept;
        self.free.into_iter().filter_map(move |range| {
            let keep = kept.min(len(&range));
            kept -= keep;
            (len(&range) > keep).then_some(range.start + keep..range.end)
        })
    }
}

/// RAM for the user space of each of `cores` further cores that share `free` bytes of a node, of which `kept` stay
/// with the first core; the least if there is not even that for all.
fn ram_per_core(free: u64, kept: u64, cores: u64) -> u64 {
    let share = free.saturating_sub(kept) / cores.max(1);
    let ram = share.saturating_sub(FIXED) / HANDOVER_GRANULARITY * HANDOVER_GRANULARITY;
    let most = if share < FIXED + USUAL_RAM + CHANNELS { MODEST_RAM } else { USUAL_RAM };
    ram.clamp(LEAST_RAM, most)
}

/// What of `free` can be handed out, by node.
fn pools(topology: &Topology, free: &[Range<u64>]) -> BTreeMap<NodeId, Pool> {
    let unit = HANDOVER_GRANULARITY;
    let mut pools: BTreeMap<NodeId, Pool> = BTreeMap::new();
    for node in topology.nodes() {
        for memory in &node.memory {
            for free in free {
                let start = free.start.max(memory.base().as_u64()).checked_next_multiple_of(unit);
                let end = free.end.min(memory.end().as_u64()) / unit * unit;
                if let Some(start) = start.filter(|&start| start < end) {
                    pools.entry(node.id).or_default().free.push(start..end);
                }
            }
        }
    }
    pools
}

/// Divides the memory `free` of the machine among the first `wanted` cores and the knowledge base. Of the first core's
/// node up to `more` bytes stay with it beyond what is usual, as far as that leaves half of the node to others.
///
/// # Errors
/// [`Shortage`] if there is not even the least for all of these cores.
pub fn divide(topology: &Topology, free: &[Range<u64>], wanted: usize, more: u64) -> Result<Plan, Shortage> {
    let cores = topology.enabled_cores();
    let cores = &cores[..wanted.min(cores.len())];
    let mut pools = pools(topology, free);
    let shortage = Shortage {
        cores: cores.len() as u64,
        needed: LEAST_FIRST + (cores.len() as u64).saturating_sub(1) * (FIXED + LEAST_RAM),
        free: pools.values().map(Pool::bytes).sum(),
    };
    // Nodes that cannot be reached come last: their memory is better than none.
    let by_distance = |node: NodeId| {
        let near = topology.memory_by_distance(node);
        let far: Vec<_> = topology.nodes().iter().map(|n| n.id).filter(|id| !near.contains(id)).collect();
        near.into_iter().chain(far)
    };
    let has_memory = |pools: &BTreeMap<NodeId, Pool>, node| by_distance(node).find(|n| pools.contains_key(n));

    let Some(first) = cores.first() else { return Err(shortage) };
    let own = has_memory(&pools, first.node).and_then(|node| pools.get(&node)).map_or(0, Pool::bytes);
    let usual = (own / 2).clamp(LEAST_FIRST, USUAL_FIRST);
    let mut wanted = usual + more.min((own / 2).saturating_sub(usual)).next_multiple_of(HANDOVER_GRANULARITY);
    // Half of a small node, so that channels can be placed there too; more only if there is no other way.
    let half = |bytes: u64| bytes / 2 / HANDOVER_GRANULARITY * HANDOVER_GRANULARITY;
    for part in [half, |bytes| bytes] {
        for node in by_distance(first.node) {
            if let Some(pool) = pools.get_mut(&node) {
                let more = wanted.min(part(pool.bytes()).saturating_sub(pool.kept));
                pool.kept += more;
                wanted -= more;
            }
        }
    }
    if pools.values().map(|pool| pool.kept).sum::<u64>() < LEAST_FIRST {
        return Err(shortage);
    }

    let mut here: BTreeMap<NodeId, u64> = BTreeMap::new();
    for core in &cores[1..] {
        if let Some(node) = has_memory(&pools, core.node) {
            *here.entry(node).or_default() += 1;
        }
    }
    let ram: BTreeMap<NodeId, u64> = here
        .iter()
        .filter_map(|(&node, &cores)| {
            let pool = pools.get(&node)?;
            Some((node, ram_per_core(pool.bytes(), pool.kept, cores)))
        })
        .collect();
    let mut shares = Vec::new();
    for core in &cores[1..] {
        let mut take = |node, ram| pools.get_mut(&node)?.take_share(*core, ram);
        let share = by_distance(core.node)
            .find_map(|node| {
                let usual = ram.get(&node).copied().unwrap_or(LEAST_RAM);
                take(node, usual).or_else(|| take(node, LEAST_RAM))
            })
            .ok_or(shortage)?;
        shares.push(share);
    }
    let mut rest: Vec<Range<u64>> = pools.into_values().flat_map(Pool::rest).collect();
    rest.sort_by_key(|range| core::cmp::Reverse(len(range)));
    Ok(Plan { cores: shares, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_info::{PhysAddr, PhysRange};
    use skb::{
        ApicId, Complaints, CoreState, Facts, MemoryAffinity, Processor, ProcessorAffinity, ProximityDomain,
    };
    use std::string::ToString;
    use std::vec;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// A machine whose cores are on the nodes `cores`, and whose nodes have so many MiB, at 4 GiB from each other.
    fn machine(cores: &[u32], memory_mib: &[u64]) -> Topology {
        let domain = ProximityDomain;
        let apics = || (0..).map(ApicId).zip(cores);
        let facts = Facts {
            processors: apics().map(|(apic, _)| Processor { apic, state: CoreState::Enabled }).collect(),
            processor_affinities: apics()
                .map(|(apic, &node)| ProcessorAffinity { apic, domain: domain(node) })
                .collect(),
            memory_affinities: (0..)
                .zip(memory_mib)
                .filter(|&(_, &mib)| mib > 0)
                .map(|(node, mib)| MemoryAffinity {
                    range: PhysRange::new(PhysAddr::new(u64::from(node) * 4 * GIB), mib * MIB),
                    domain: domain(node),
                })
                .collect(),
            ..Facts::default()
        };
        Topology::from_facts(&facts, ApicId(0), &mut Complaints::default())
    }

    /// All memory but the first 8 MiB, where the boot loader put things.
    fn free(topology: &Topology) -> Vec<Range<u64>> {
        let ranges = topology.nodes().iter().flat_map(|node| &node.memory);
        ranges.map(|r| r.base().as_u64().max(8 * MIB)..r.end().as_u64()).collect()
    }

    /// Divides, and checks what holds for every plan; the bytes that stay with the first core.
    fn checked(topology: &Topology, free: &[Range<u64>], wanted: usize) -> Result<(Plan, u64), Shortage> {
        let plan = divide(topology, free, wanted, 0)?;
        let mut all: Vec<Range<u64>> = plan.rest.clone();
        for (share, core) in plan.cores.iter().zip(topology.enabled_cores()[1..].iter()) {
            assert_eq!(share.core, *core);
            assert_eq!((len(&share.kernel), len(&share.share)), (2 * MIB, 2 * MIB));
            assert!((LEAST_RAM..=USUAL_RAM).contains(&len(&share.ram)));
            all.extend([share.kernel.clone(), share.share.clone(), share.ram.clone()]);
        }
        assert_eq!(plan.cores.len(), wanted.min(topology.enabled_cores().len()) - 1);
        all.sort_by_key(|range| range.start);
        assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].start), "{all:x?}");
        for range in &all {
            assert!(range.start.is_multiple_of(2 * MIB) && len(range).is_multiple_of(2 * MIB), "{range:x?}");
            assert!(free.iter().any(|f| f.start <= range.start && range.end <= f.end), "{range:x?}");
            let last = PhysAddr::new(range.end - 1);
            let node = topology.node_of_memory(PhysAddr::new(range.start));
            assert!(node.is_some() && node == topology.node_of_memory(last), "{range:x?}");
        }
        let stays = free.iter().map(len).sum::<u64>() - all.iter().map(len).sum::<u64>();
        assert!(stays >= LEAST_FIRST, "{stays}");
        Ok((plan, stays))
    }

    fn node_of(topology: &Topology, range: &Range<u64>) -> u32 {
        topology.node_of_memory(PhysAddr::new(range.start)).expect("the range is on a node").0
    }

    /// Bytes of each node for the knowledge base.
    fn rest(topology: &Topology, plan: &Plan) -> Vec<u64> {
        let on = |id: NodeId| plan.rest.iter().filter(move |r| node_of(topology, r) == id.0).map(len).sum();
        topology.nodes().iter().map(|node| on(node.id)).collect()
    }

    #[test]
    fn each_core_lives_on_its_node_and_the_rest_is_for_channels() {
        let topology = machine(&[0, 0, 0, 0, 1, 1, 1, 1], &[256, 256]);
        let (plan, stays) = checked(&topology, &free(&topology), 8).unwrap();
        for share in &plan.cores {
            let ranges = [&share.kernel, &share.share, &share.ram];
            assert_eq!(ranges.map(|r| node_of(&topology, r)), [share.core.node.0; 3]);
            assert_eq!(len(&share.ram), USUAL_RAM);
        }
        assert_eq!(stays, USUAL_FIRST);
        assert_eq!(rest(&topology, &plan), [(248 - 48 - 3 * 14) * MIB, (256 - 4 * 14) * MIB]);
    }

    #[test]
    fn the_first_core_keeps_more_of_its_node_if_half_of_it_is_left() {
        let stays = |memory_mib: &[u64], more| {
            let topology = machine(&[0, 1], memory_mib);
            let plan = divide(&topology, &free(&topology), 2, more).unwrap();
            free(&topology).iter().map(len).sum::<u64>()
                - plan.rest.iter().map(len).sum::<u64>()
                - plan.cores.iter().map(|s| FIXED + len(&s.ram)).sum::<u64>()
        };
        assert_eq!(stays(&[520, 512], 144 * MIB), USUAL_FIRST + 144 * MIB);
        assert_eq!(stays(&[264, 512], 144 * MIB), 128 * MIB);
        assert_eq!(stays(&[72, 512], 144 * MIB), stays(&[72, 512], 0));
    }

    #[test]
    fn cores_without_memory_of_their_own_get_it_nearby() {
        let topology = machine(&[0, 1, 1, 2, 2], &[192, 0, 64]);
        let (plan, _) = checked(&topology, &free(&topology), 5).unwrap();
        let homes: Vec<_> = plan.cores.iter().map(|share| node_of(&topology, &share.ram)).collect();
        assert_eq!(homes, [0, 0, 2, 2]);
        assert_eq!(rest(&topology, &plan), [(184 - 48 - 28) * MIB, 0, 36 * MIB]);
    }

    #[test]
    fn a_first_core_without_memory_keeps_that_of_others() {
        let topology = machine(&[0, 1], &[0, 40, 128]);
        let (plan, stays) = checked(&topology, &free(&topology), 2).unwrap();
        assert_eq!(stays, LEAST_FIRST);
        assert_eq!(node_of(&topology, &plan.cores[0].ram), 1);
        assert_eq!(rest(&topology, &plan), [0, (40 - 20 - 14) * MIB, (128 - 16) * MIB]);
    }

    #[test]
    fn every_node_has_some_for_channels_if_it_can() {
        let cores: Vec<u32> = (0..16).collect();
        let topology = machine(&cores, &[32; 16]);
        let (plan, stays) = checked(&topology, &free(&topology), 16).unwrap();
        assert_eq!(stays, LEAST_FIRST);
        let rest = rest(&topology, &plan);
        assert!(rest.iter().all(|&bytes| bytes >= 4 * MIB), "{rest:?}");
    }

    #[test]
    fn a_full_node_sends_its_cores_to_the_next() {
        let topology = machine(&[0, 1, 1, 1, 1], &[256, 24]);
        let (plan, _) = checked(&topology, &free(&topology), 5).unwrap();
        let homes: Vec<_> =
            plan.cores.iter().map(|s| (node_of(&topology, &s.ram), len(&s.ram) / MIB)).collect();
        assert_eq!(homes, [(1, 4), (1, 4), (1, 4), (0, 4)]);
    }

    #[test]
    fn scarce_memory_makes_small_cores() {
        let topology = machine(&[0; 4], &[8 + 36 + 3 * 10]);
        let (plan, stays) = checked(&topology, &free(&topology), 4).unwrap();
        assert_eq!(plan.cores.iter().map(|s| len(&s.ram)).collect::<Vec<_>>(), [6 * MIB; 3]);
        assert_eq!((stays, plan.rest.len()), (LEAST_FIRST, 0));
    }

    #[test]
    fn too_little_memory_is_told_in_numbers() {
        let topology = machine(&[0; 4], &[8 + 36 + 3 * 8]);
        assert!(checked(&topology, &free(&topology), 4).is_ok());
        let topology = machine(&[0; 4], &[8 + 36 + 3 * 8 - 2]);
        assert_eq!(
            divide(&topology, &free(&topology), 4, 0).unwrap_err().to_string(),
            "4 cores need at least 60 MiB of free memory and there are 58: give the machine 2 MiB more, or use \
             fewer cores"
        );
        assert!(checked(&topology, &free(&topology), 3).is_ok());
        let topology = machine(&[0], &[40]);
        assert_eq!(
            divide(&topology, &free(&topology), 1, 0).unwrap_err().to_string(),
            "a core needs at least 36 MiB of free memory and there are 32: give the machine 4 MiB more, or use \
             fewer cores"
        );
        let topology = machine(&[0; 3], &[256]);
        let pieces: Vec<_> = (4..128).map(|i| 2 * i * MIB + 4096..2 * (i + 1) * MIB).collect();
        assert_eq!(divide(&topology, &pieces, 3, 0).unwrap_err().free, 0, "no whole unit is free");
        let pieces: Vec<_> = (2..60).map(|i| 4 * i * MIB..(4 * i + 2) * MIB).collect();
        assert_eq!(
            divide(&topology, &pieces, 3, 0).unwrap_err().to_string(),
            "3 cores need at least 52 MiB of free memory and there are 116: they lie in pieces that are too \
             small; use fewer cores"
        );
    }

    #[test]
    fn a_quarter_is_lent() {
        assert_eq!((pool(8 * MIB), pool(GIB)), (2 * MIB, USUAL_POOL));
        assert_eq!((pool(0), pool(GRANULE), pool(5 * GRANULE)), (0, 0, GRANULE));
    }

    #[test]
    fn many_cores_fit_their_default_memory() {
        let cores: Vec<u32> = (0..288).map(|core| core / 36).collect();
        let topology = machine(&cores, &[9216 / 8; 8]);
        let (plan, stays) = checked(&topology, &free(&topology), 288).unwrap();
        assert!(plan.cores.iter().all(|share| len(&share.ram) == USUAL_RAM));
        assert_eq!(stays, USUAL_FIRST);
        assert!(rest(&topology, &plan).iter().all(|&bytes| bytes > 600 * MIB));
        assert_eq!(
            checked(&topology, &free(&topology), 2).unwrap().0.cores.len(),
            1,
            "fewer cores are wanted"
        );
    }

    #[test]
    fn memory_that_is_on_no_node_stays() {
        let topology = machine(&[0], &[128]);
        let ranges = vec![8 * MIB..128 * MIB, 8 * GIB..9 * GIB];
        let (plan, _) = checked(&topology, &ranges, 1).unwrap();
        assert!(plan.rest.iter().all(|range| range.end <= 128 * MIB));
    }
}
