//! The machine asked for, checked: how many cores, nodes and bytes, and what executes it.

use std::fmt;

use results::Accel;
use results::host::Topology;

use crate::numa::{self, NumaSpec, RawNuma};
use crate::{Error, Result};

/// vCPUs of the standard lab.
pub const DEFAULT_CPUS: u32 = 8;

/// NUMA nodes of the standard lab.
pub const DEFAULT_NODES: u32 = 2;

/// The least memory of a machine, in MiB, that a default gives.
const DEFAULT_MEMORY_MIB: u64 = 1024;

/// Memory per core that a default gives, in MiB: its CPU driver's block, its domains, and room to measure.
const MEMORY_PER_CPU_MIB: u64 = 32;

/// The least memory that a machine boots with, in MiB: 64, and 16 per core.
fn least_memory_mib(cpus: u32) -> u64 {
    64 + 16 * u64::from(cpus)
}

/// What the command line says about the machine; `None` where it says nothing.
#[derive(Debug, Clone, Default)]
pub struct MachineOptions {
    /// `--cpus`.
    pub cpus: Option<u32>,
    /// `--numa`.
    pub numa: Option<NumaSpec>,
    /// `--memory`, as given.
    pub memory: Option<String>,
    /// `--accel`.
    pub accel: Option<Accel>,
    /// `--seed`.
    pub seed: Option<u64>,
}

/// How vCPUs are sockets, cores and threads, as QEMU's `-smp` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Smp {
    /// Sockets, at least 1.
    pub sockets: u32,
    /// Cores of each socket, at least 1.
    pub cores: u32,
    /// Threads of each core, at least 1.
    pub threads: u32,
}

/// Where a vCPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuPlace {
    /// Its socket.
    pub socket: u32,
    /// Its core within the socket.
    pub core: u32,
    /// Its thread within the core.
    pub thread: u32,
    /// Its local APIC.
    pub apic: u32,
}

impl Smp {
    /// How many vCPUs they are, or `u32::MAX` if more.
    #[must_use]
    pub fn cpus(self) -> u32 {
        self.sockets.saturating_mul(self.cores).saturating_mul(self.threads)
    }

    /// Where QEMU puts the vCPU of this number: threads count first, then cores, then sockets.
    #[must_use]
    pub fn place(self, cpu: u32) -> CpuPlace {
        let thread = cpu % self.threads;
        let core = cpu / self.threads % self.cores;
        let socket = cpu / self.threads / self.cores;
        // Each number has bits of its own in the identifier of the APIC.
        let (core_unit, thread_unit) = (self.cores.next_power_of_two(), self.threads.next_power_of_two());
        CpuPlace { socket, core, thread, apic: (socket * core_unit + core) * thread_unit + thread }
    }
}

impl fmt::Display for Smp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sockets, cores, threads } = self;
        write!(f, "sockets={sockets},cores={cores},threads={threads}")
    }
}

/// A machine that QEMU can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// vCPUs.
    pub cpus: u32,
    /// NUMA nodes.
    pub nodes: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// What executes it: anything but [`Accel::Native`].
    pub accel: Accel,
    /// Seed of everything random, in the guest and in QEMU.
    pub seed: u64,
    /// How the vCPUs are sockets, cores and threads.
    pub smp: Smp,
    /// QEMU's `-object` and `-numa` options.
    pub numa: Vec<(String, String)>,
    /// Whether [`Self::numa`] came from a file: then nodes may be uneven.
    pub raw: bool,
}

impl Machine {
    /// Checks what was asked for and fills in the rest.
    ///
    /// Without `--numa` there are two nodes, or one where the cores do not divide by two.
    ///
    /// # Errors
    /// Says which number is wrong and what would be right.
    pub fn new(options: &MachineOptions) -> Result<Self> {
        if options.cpus == Some(0) {
            return Err(Error::ZeroCpus);
        }
        if let Some(spec) = &options.numa {
            spec.check()?;
        }
        let asked_mib = options
            .memory
            .as_deref()
            .map(|text| numa::parse_mib(text).ok_or_else(|| Error::MemorySyntax { text: text.to_owned() }));
        let asked_mib = asked_mib.transpose()?;
        let accel = options.accel.unwrap_or(Accel::Icount);
        let seed = options.seed.unwrap_or(1);

        let (cpus, nodes) = match options.numa {
            Some(NumaSpec::File(ref path)) => {
                let raw = RawNuma::read(path)?;
                let cpus = options.cpus.or(raw.smp.map(Smp::cpus)).unwrap_or(DEFAULT_CPUS);
                let smp = raw.smp.unwrap_or(Smp { sockets: 1, cores: cpus, threads: 1 });
                if smp.cpus() != cpus {
                    return Err(Error::CpusContradictSmp { cpus, smp });
                }
                let memory_mib = asked_mib.or(raw.memory_mib).unwrap_or_else(|| default_mib(cpus, 1));
                check_least(memory_mib, cpus)?;
                return Ok(Self {
                    cpus,
                    nodes: raw.nodes,
                    memory_mib,
                    accel,
                    seed,
                    smp,
                    numa: raw.options,
                    raw: true,
                });
            }
            Some(NumaSpec::Grid { nodes, cores }) => {
                let product = nodes.saturating_mul(cores);
                match options.cpus {
                    Some(cpus) if cpus != product => {
                        return Err(Error::CpusContradictNuma { cpus, nodes, cores });
                    }
                    _ => (product, nodes),
                }
            }
            Some(NumaSpec::Nodes(nodes)) => (options.cpus.unwrap_or(DEFAULT_CPUS.max(nodes)), nodes),
            None => match options.cpus.unwrap_or(DEFAULT_CPUS) {
                cpus if cpus.is_multiple_of(DEFAULT_NODES) => (cpus, DEFAULT_NODES),
                cpus => (cpus, 1),
            },
        };
        if !cpus.is_multiple_of(nodes) {
            return Err(Error::CpusNotDivisible { cpus, nodes });
        }
        let memory_mib = asked_mib.unwrap_or_else(|| default_mib(cpus, nodes));
        check_least(memory_mib, cpus)?;
        if !memory_mib.is_multiple_of(2 * u64::from(nodes)) {
            return Err(Error::MemoryNotDivisible { asked: memory_mib, nodes });
        }
        let numa = numa::even(nodes, cpus, memory_mib);
        let smp = Smp { sockets: nodes, cores: cpus / nodes, threads: 1 };
        Ok(Self { cpus, nodes, memory_mib, accel, seed, smp, numa, raw: false })
    }

    /// Whether QEMU is told latencies, bandwidths or caches of memory, for which it makes a table of their own.
    #[must_use]
    pub fn has_hmat(&self) -> bool {
        self.numa.iter().any(|(_, value)| value.starts_with("hmat"))
    }

    /// APIC identifiers that the vCPUs are numbered from: those of a core and of a socket start at a multiple of a
    /// power of two, so some may belong to no vCPU.
    #[must_use]
    pub fn apic_ids(&self) -> u32 {
        self.smp.place(self.cpus - 1).apic + 1
    }

    /// The machine as a results header has it.
    #[must_use]
    pub fn topology(&self) -> Topology {
        let numa = match self.raw {
            true => self.numa.iter().map(|(option, value)| format!("{option} {value}")).collect(),
            false => Vec::new(),
        };
        Topology { cores: self.cpus, nodes: self.nodes, memory_mib: self.memory_mib, numa }
    }

    /// The words that tell the guest about its run, before those of a benchmark or scenario.
    #[must_use]
    pub fn guest_words(&self) -> Vec<String> {
        vec![
            format!("cpus={}", self.cpus),
            format!("nodes={}", self.nodes),
            format!("accel={}", self.accel),
            format!("seed={}", self.seed),
        ]
    }
}

fn default_mib(cpus: u32, nodes: u32) -> u64 {
    (MEMORY_PER_CPU_MIB * u64::from(cpus)).max(DEFAULT_MEMORY_MIB).next_multiple_of(2 * u64::from(nodes))
}

fn check_least(memory_mib: u64, cpus: u32) -> Result<()> {
    let least = least_memory_mib(cpus);
    if memory_mib < least { Err(Error::MemoryTooSmall { asked: memory_mib, least }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: Option<u32>, numa: Option<&str>, memory: Option<&str>) -> Result<Machine> {
        Machine::new(&MachineOptions {
            cpus,
            numa: numa.map(|spec| spec.parse().unwrap()),
            memory: memory.map(str::to_owned),
            ..MachineOptions::default()
        })
    }

    fn shape(machine: Result<Machine>) -> (u32, u32, u64) {
        let machine = machine.unwrap();
        (machine.cpus, machine.nodes, machine.memory_mib)
    }

    #[test]
    fn the_standard_lab_has_eight_cores_on_two_nodes_under_icount() {
        let lab = Machine::new(&MachineOptions::default()).unwrap();
        assert_eq!(
            (lab.cpus, lab.nodes, lab.memory_mib, lab.accel, lab.seed),
            (8, 2, 1024, Accel::Icount, 1)
        );
        assert_eq!(lab.guest_words(), ["cpus=8", "nodes=2", "accel=icount", "seed=1"]);
    }

    #[test]
    fn what_is_not_said_follows_from_what_is() {
        assert_eq!(shape(machine(Some(1), None, None)), (1, 1, 1024));
        assert_eq!(shape(machine(Some(3), None, None)), (3, 1, 1024));
        assert_eq!(shape(machine(Some(64), None, None)), (64, 2, 2048));
        assert_eq!(shape(machine(None, Some("4x16"), None)), (64, 4, 2048));
        assert_eq!(shape(machine(Some(64), Some("4x16"), None)), (64, 4, 2048));
        assert_eq!(shape(machine(None, Some("16"), None)), (16, 16, 1024));
        assert_eq!(shape(machine(Some(288), Some("8"), None)), (288, 8, 9216));
        assert_eq!(shape(machine(None, Some("3x3"), None)), (9, 3, 1026));
        assert_eq!(shape(machine(None, None, Some("4G"))), (8, 2, 4096));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refusal = |cpus, numa, memory| machine(cpus, numa, memory).unwrap_err().to_string();
        assert_eq!(refusal(Some(0), None, None), "--cpus 0: a machine needs at least 1 vCPU");
        assert_eq!(
            refusal(Some(6), Some("4"), None),
            "6 vCPUs do not divide over 4 NUMA nodes: use a multiple of 4, or --numa 3"
        );
        assert_eq!(
            refusal(Some(8), Some("4x16"), None),
            "--cpus 8 contradicts --numa 4x16, which makes 64 vCPUs: leave --cpus out"
        );
        assert_eq!(
            refusal(None, None, Some("lots")),
            "--memory lots: expected a size such as 512, 512M or 4G (MiB without a letter)"
        );
        assert_eq!(refusal(None, None, Some("64M")), "--memory 64M: this machine needs at least 192M");
        assert_eq!(
            refusal(None, Some("4"), Some("514")),
            "--memory 514M does not divide over 4 NUMA nodes in units of 2M: try 520M"
        );
    }

    #[test]
    fn sockets_start_at_powers_of_two() {
        let ids = |numa| machine(None, Some(numa), None).unwrap().apic_ids();
        assert_eq!(["1x255", "2x4", "2x120", "3x80", "5x51"].map(ids), [255, 8, 248, 336, 307]);
        let smp = Smp { sockets: 2, cores: 3, threads: 2 };
        assert_eq!(smp.cpus(), 12);
        let places = [0, 1, 2, 5, 6, 11].map(|cpu| smp.place(cpu));
        assert_eq!(places.map(|place| place.apic), [0, 1, 2, 5, 8, 13]);
        assert_eq!(places.map(|p| (p.socket, p.core, p.thread))[3..], [(0, 2, 1), (1, 0, 0), (1, 2, 1)]);
    }

    #[test]
    fn a_file_may_say_sockets_cores_and_threads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lab.numa");
        std::fs::write(&path, "-smp sockets=2,cores=3,threads=2\n-numa node\n").unwrap();
        let made = machine(None, path.to_str(), None).unwrap();
        assert_eq!((made.cpus, made.smp), (12, Smp { sockets: 2, cores: 3, threads: 2 }));
        assert_eq!(
            machine(Some(8), path.to_str(), None).unwrap_err().to_string(),
            "--cpus 8 contradicts `-smp sockets=2,cores=3,threads=2` in the file of --numa, which makes 12 vCPUs: \
             leave --cpus out"
        );
        std::fs::write(&path, "-numa node\n").unwrap();
        let made = machine(Some(5), path.to_str(), None).unwrap();
        assert_eq!(made.smp, Smp { sockets: 1, cores: 5, threads: 1 });
    }

    #[test]
    fn a_file_gives_nodes_and_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lab.numa");
        let lines = "-object memory-backend-ram,id=a,size=384M\n-object memory-backend-ram,id=b,size=128M\n\
                     -numa node,nodeid=0,cpus=0-6,memdev=a\n-numa node,nodeid=1,cpus=7,memdev=b\n";
        std::fs::write(&path, lines).unwrap();
        let made = machine(Some(8), path.to_str(), None).unwrap();
        assert_eq!((made.cpus, made.nodes, made.memory_mib, made.raw), (8, 2, 512, true));
        assert_eq!(made.topology().numa.join("\n") + "\n", lines);
    }
}
