//! `--numa`: how the machine's cores and memory are spread over nodes.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::machine::Smp;
use crate::{Error, Result};

/// The most NUMA nodes of a machine: `MAX_NODES` in QEMU's `include/sysemu/numa.h`.
pub const MAX_NODES: u32 = 128;

/// Distances are stated up to so many nodes. Beyond, the list of pairs would drown the command, and QEMU's
/// default is the same: 10 within a node, 20 between two.
const MAX_NODES_WITH_DISTANCES: u32 = 16;

/// What `--numa` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NumaSpec {
    /// So many nodes, all cores and memory spread evenly.
    Nodes(u32),
    /// So many nodes with so many cores each.
    Grid {
        /// Nodes.
        nodes: u32,
        /// Cores of each.
        cores: u32,
    },
    /// A file of raw `-numa` and `-object` lines.
    File(PathBuf),
}

impl FromStr for NumaSpec {
    type Err = Infallible;

    /// Whatever is no node count is a file's name.
    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        if let Ok(nodes) = text.parse() {
            return Ok(Self::Nodes(nodes));
        }
        if let Some((nodes, cores)) = text.split_once('x')
            && let (Ok(nodes), Ok(cores)) = (nodes.parse(), cores.parse())
        {
            return Ok(Self::Grid { nodes, cores });
        }
        Ok(Self::File(PathBuf::from(text)))
    }
}

impl fmt::Display for NumaSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Grid { nodes, cores } => write!(f, "{nodes}x{cores}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl NumaSpec {
    /// Checks the counts, before anything is divided by them.
    pub(crate) fn check(&self) -> Result<()> {
        let (nodes, cores) = match *self {
            Self::Nodes(nodes) => (nodes, 1),
            Self::Grid { nodes, cores } => (nodes, cores),
            Self::File(_) => return Ok(()),
        };
        if nodes == 0 || cores == 0 {
            return Err(Error::ZeroNodes { spec: self.to_string() });
        }
        if nodes > MAX_NODES {
            return Err(Error::TooManyNodes { spec: self.to_string() });
        }
        Ok(())
    }
}

/// The raw lines of a NUMA file, checked as far as we must understand them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawNuma {
    /// Option and value, in the file's order: `("-numa", "node,…")`.
    pub options: Vec<(String, String)>,
    /// Nodes described.
    pub nodes: u32,
    /// Memory of all backends, in MiB, where each states its size.
    pub memory_mib: Option<u64>,
    /// Sockets, cores and threads, where the file says.
    pub smp: Option<Smp>,
}

impl RawNuma {
    /// Reads a file: one option per line, `#` begins a comment.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is none of `-numa`, `-object memory-backend-…` and one `-smp`, no node.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::NumaFile { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut options = Vec::new();
        let mut smp = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let refused =
                || Error::NumaLine { path: path.to_owned(), line: index + 1, text: line.to_owned() };
            let (option, value) = line.split_once(char::is_whitespace).ok_or_else(refused)?;
            let value = value.trim();
            match option {
                "-numa" => {}
                "-object" if value.starts_with("memory-backend-") => {}
                "-smp" if smp.is_none() => {
                    smp = Some(parse_smp(value).ok_or_else(refused)?);
                    continue;
                }
                _ => return Err(refused()),
            }
            options.push((option.to_owned(), value.to_owned()));
        }
        let is_node = |value: &str| value == "node" || value.starts_with("node,");
        let nodes = options.iter().filter(|(name, value)| name == "-numa" && is_node(value)).count();
        if nodes == 0 {
            return Err(Error::NumaNoNode { path: path.to_owned() });
        }
        let sizes: Option<Vec<u64>> = options
            .iter()
            .filter(|(name, _)| name == "-object")
            .map(|(_, value)| parse_size(value.split(',').find_map(|part| part.strip_prefix("size="))?))
            .collect();
        let sizes = sizes.filter(|sizes| !sizes.is_empty());
        let memory_mib = sizes.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add) >> 20);
        Ok(Self { options, nodes: nodes as u32, memory_mib, smp })
    }
}

/// The value of `-smp`: `[N,]sockets=S,cores=C,threads=T`. What is left out is 1, and N only has to be the product.
fn parse_smp(value: &str) -> Option<Smp> {
    let mut smp = Smp { sockets: 1, cores: 1, threads: 1 };
    let mut cpus = None;
    for part in value.split(',') {
        let (key, number) = part.split_once('=').unwrap_or(("cpus", part));
        let number: u32 = number.parse().ok().filter(|&number| number > 0)?;
        match key {
            "cpus" => cpus = Some(number),
            "sockets" => smp.sockets = number,
            "cores" => smp.cores = number,
            "threads" => smp.threads = number,
            _ => return None,
        }
    }
    cpus.is_none_or(|cpus| cpus == smp.cpus()).then_some(smp)
}

/// A size as QEMU reads it, in bytes: `512M`, `4G`, and bytes without a letter.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" | "b" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A size in MiB: `512`, `512M`, `4G`.
pub(crate) fn parse_mib(text: &str) -> Option<u64> {
    let text = text.strip_suffix("iB").or(text.strip_suffix('B')).unwrap_or(text);
    let (digits, unit) = match text.strip_suffix(['M', 'm']) {
        Some(digits) => (digits, 1),
        None => match text.strip_suffix(['G', 'g']) {
            Some(digits) => (digits, 1024),
            None => (text, 1),
        },
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// The options of a machine whose `cpus` and `memory_mib` are spread evenly over `nodes`; both divide.
#[must_use]
pub fn even(nodes: u32, cpus: u32, memory_mib: u64) -> Vec<(String, String)> {
    let cores = cpus / nodes;
    let mut options = Vec::new();
    let mut push = |option: &str, value: String| options.push((option.to_owned(), value));
    for node in 0..nodes {
        let size = memory_mib / u64::from(nodes);
        push("-object", format!("memory-backend-ram,id=ram{node},size={size}M"));
    }
    for node in 0..nodes {
        let (first, last) = (node * cores, (node + 1) * cores - 1);
        push("-numa", format!("node,nodeid={node},cpus={first}-{last},memdev=ram{node}"));
    }
    if nodes <= MAX_NODES_WITH_DISTANCES {
        // QEMU mirrors each pair and knows that a node is 10 from itself.
        for src in 0..nodes {
            for dst in src + 1..nodes {
                push("-numa", format!("dist,src={src},dst={dst},val=20"));
            }
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_counts_grids_or_files() {
        let table = [
            ("2", NumaSpec::Nodes(2)),
            ("4x16", NumaSpec::Grid { nodes: 4, cores: 16 }),
            ("4x", NumaSpec::File("4x".into())),
            ("x16", NumaSpec::File("x16".into())),
            ("-1", NumaSpec::File("-1".into())),
            ("lab.numa", NumaSpec::File("lab.numa".into())),
        ];
        for (text, spec) in table {
            assert_eq!(text.parse::<NumaSpec>().unwrap(), spec);
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn counts_of_zero_and_too_many_are_refused() {
        let refusal = |text: &str| text.parse::<NumaSpec>().unwrap().check().unwrap_err().to_string();
        assert_eq!(refusal("0"), "--numa 0: a machine needs at least 1 node with 1 core");
        assert_eq!(refusal("0x4"), "--numa 0x4: a machine needs at least 1 node with 1 core");
        assert_eq!(refusal("4x0"), "--numa 4x0: a machine needs at least 1 node with 1 core");
        assert_eq!(refusal("129"), "--numa 129: QEMU has at most 128 NUMA nodes");
        assert!("128".parse::<NumaSpec>().unwrap().check().is_ok());
    }

    #[test]
    fn even_nodes_share_cores_and_memory() {
        let options: Vec<String> = even(2, 8, 512).into_iter().map(|(o, v)| format!("{o} {v}")).collect();
        assert_eq!(
            options,
            [
                "-object memory-backend-ram,id=ram0,size=256M",
                "-object memory-backend-ram,id=ram1,size=256M",
                "-numa node,nodeid=0,cpus=0-3,memdev=ram0",
                "-numa node,nodeid=1,cpus=4-7,memdev=ram1",
                "-numa dist,src=0,dst=1,val=20",
            ]
        );
        assert_eq!(even(16, 16, 512).len(), 16 + 16 + 16 * 15 / 2);
        assert_eq!(even(17, 17, 17 * 32).len(), 17 + 17);
    }

    #[test]
    fn a_file_of_raw_lines_is_taken_as_it_is() {
        let text = "# two nodes\n-object memory-backend-ram,id=a,size=1G\n\n\
                    -object memory-backend-ram,size=512M,id=b  # small\n\
                    -numa node,nodeid=0,cpus=0-3,memdev=a\n-numa   node,nodeid=1,memdev=b\n\
                    -numa dist,src=0,dst=1,val=31\n";
        let raw = RawNuma::parse(Path::new("f"), text).unwrap();
        assert_eq!((raw.nodes, raw.memory_mib, raw.options.len()), (2, Some(1536), 5));
        assert_eq!(raw.options[3], ("-numa".to_owned(), "node,nodeid=1,memdev=b".to_owned()));
        assert_eq!(raw.smp, None);
        let smp = |text: &str| RawNuma::parse(Path::new("f"), &format!("{text}\n-numa node")).unwrap().smp;
        assert_eq!(smp("-smp 8,sockets=2,cores=2,threads=2"), Some(Smp { sockets: 2, cores: 2, threads: 2 }));
        assert_eq!(smp("-smp cpus=6,sockets=6"), Some(Smp { sockets: 6, cores: 1, threads: 1 }));
        let unsized_backend = "-object memory-backend-ram,id=a\n-numa node,memdev=a";
        assert_eq!(RawNuma::parse(Path::new("f"), unsized_backend).unwrap().memory_mib, None);
    }

    #[test]
    fn wrong_files_are_refused_with_their_line() {
        let refusal = |text: &str| RawNuma::parse(Path::new("f"), text).unwrap_err().to_string();
        assert_eq!(
            refusal("-numa node\n-m 4G\n"),
            "f, line 2: expected `-numa …`, `-object memory-backend-…` or one `-smp sockets=…,cores=…,threads=…`, found \
             \"-m 4G\""
        );
        for line in
            ["-object rng-random,id=x", "-smp 4,dies=2", "-smp 4,cores=2", "-smp cores=0", "-smp", "-smp x"]
        {
            let found = format!(
                "f, line 1: expected `-numa …`, `-object memory-backend-…` or one `-smp sockets=…,cores=…,\
                                 threads=…`, found {line:?}"
            );
            assert_eq!(refusal(line), found);
        }
        assert!(refusal("-smp cores=2\n-smp cores=2").starts_with("f, line 2: "));
        assert_eq!(
            refusal("-numa dist,src=0,dst=1,val=20"),
            "f: no line `-numa node,…`, so the machine would have no NUMA node"
        );
        let missing = RawNuma::read(Path::new("/nonexistent/lab.numa")).unwrap_err().to_string();
        assert_eq!(
            missing,
            "--numa /nonexistent/lab.numa: neither a node count (such as 2 or 4x16) nor a file that can be read: \
             No such file or directory (os error 2)"
        );
    }

    #[test]
    fn sizes_of_qemu_are_in_bytes_unless_they_say_otherwise() {
        for (text, bytes) in [
            ("512", Some(512)),
            ("10K", Some(10 << 10)),
            ("512M", Some(512 << 20)),
            ("4g", Some(4 << 30)),
            ("1T", Some(1 << 40)),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "1Q", "1MiB", "99999999999999999999", "18446744073709551615K"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_in_mebibytes_unless_they_say_otherwise() {
        for (text, mib) in
            [("512", Some(512)), ("512M", Some(512)), ("4G", Some(4096)), ("1GiB", Some(1024)), ("", None)]
        {
            assert_eq!(parse_mib(text), mib, "{text}");
        }
        for text in ["M", "1.5G", "-1", "12K", "99999999999999999999G", "18446744073709551615G"] {
            assert_eq!(parse_mib(text), None, "{text}");
        }
    }
}
