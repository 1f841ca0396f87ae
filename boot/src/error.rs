//! Every way in which the command can fail: one variant, one message and one exit code per cause.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use results::HostExit;
use thiserror::Error;

use crate::diagnose::Failure;
use crate::machine::Smp;
use crate::qemu::Version;

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the command failed. Each message names what is wrong and, where it can, what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// A benchmark that takes more CPUs than there are.
    #[error(
        "benchmark {bench} takes at least {needed} CPUs, and this machine has {cpus}: give it more by --cpus"
    )]
    TooFewCpus {
        /// The benchmark.
        bench: &'static str,
        /// The CPUs that it takes.
        needed: u32,
        /// The CPUs that the machine has.
        cpus: u32,
    },
    /// A benchmark that does not exist.
    #[error("unknown benchmark {name:?}{} (`killifish list` shows all)", did_you_mean(.nearest.as_deref()))]
    UnknownBench {
        /// The name given.
        name: String,
        /// The benchmark with the most similar name, where one is similar enough.
        nearest: Option<String>,
    },
    /// No vCPU.
    #[error("--cpus 0: a machine needs at least 1 vCPU")]
    ZeroCpus,
    /// No run.
    #[error("--repeat 0: repeat at least once")]
    ZeroRepeat,
    /// No time.
    #[error("--timeout 0: give the guest at least 1 second")]
    ZeroTimeout,
    /// More vCPUs than this QEMU starts.
    #[error("--cpus {asked}: QEMU {version} starts at most {limit} vCPUs here{}", newer_qemu(.version))]
    TooManyCpus {
        /// vCPUs asked for.
        asked: u32,
        /// The most it starts.
        limit: u32,
        /// This QEMU.
        version: Version,
    },
    /// vCPUs that cannot be spread evenly.
    #[error("{cpus} vCPUs do not divide over {nodes} NUMA nodes: use a multiple of {nodes}, or --numa {cpus_nodes}",
        cpus_nodes = nearest_divisor(*cpus, *nodes))]
    CpusNotDivisible {
        /// vCPUs asked for.
        cpus: u32,
        /// Nodes asked for.
        nodes: u32,
    },
    /// `--cpus` and `--numa` say different numbers.
    #[error("--cpus {cpus} contradicts --numa {nodes}x{cores}, which makes {} vCPUs: leave --cpus out", nodes * cores)]
    CpusContradictNuma {
        /// vCPUs of `--cpus`.
        cpus: u32,
        /// Nodes of `--numa`.
        nodes: u32,
        /// Cores per node of `--numa`.
        cores: u32,
    },
    /// `--cpus` and the file of `--numa` say different numbers.
    #[error("--cpus {cpus} contradicts `-smp {smp}` in the file of --numa, which makes {} vCPUs: leave --cpus out",
        smp.cpus())]
    CpusContradictSmp {
        /// vCPUs of `--cpus`.
        cpus: u32,
        /// What the file says.
        smp: Smp,
    },
    /// A NUMA machine without nodes or cores.
    #[error("--numa {spec}: a machine needs at least 1 node with 1 core")]
    ZeroNodes {
        /// As given.
        spec: String,
    },
    /// More nodes than QEMU knows.
    #[error("--numa {spec}: QEMU has at most {} NUMA nodes", crate::numa::MAX_NODES)]
    TooManyNodes {
        /// As given.
        spec: String,
    },
    /// Neither a node count nor a readable file.
    #[error("--numa {}: neither a node count (such as 2 or 4x16) nor a file that can be read: {source}", path.display())]
    NumaFile {
        /// As given.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A line of a NUMA file that is not understood.
    #[error("{}, line {line}: expected `-numa …`, `-object memory-backend-…` or one `-smp sockets=…,cores=…,threads=…`, \
             found {text:?}", path.display())]
    NumaLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Its text.
        text: String,
    },
    /// An option that cannot be compared with what the guest found.
    #[error("cannot tell what QEMU makes of `{option}`, so not whether the guest found the same")]
    NumaOption {
        /// The option and its value.
        option: String,
    },
    /// The guest did not tell what machine it found.
    #[error("the guest's topology is not valid: {error}")]
    BadTopology {
        /// Why.
        error: String,
    },
    /// The guest found another machine than QEMU was told to make.
    #[error("the guest found another machine than QEMU was told to make:\n  {}", differences.join("\n  "))]
    TopologyDiffers {
        /// What differs, each in a line.
        differences: Vec<String>,
    },
    /// A NUMA file without nodes.
    #[error("{}: no line `-numa node,…`, so the machine would have no NUMA node", path.display())]
    NumaNoNode {
        /// The file.
        path: PathBuf,
    },
    /// Memory that is not a size.
    #[error("--memory {text}: expected a size such as 512, 512M or 4G (MiB without a letter)")]
    MemorySyntax {
        /// As given.
        text: String,
    },
    /// Too little memory to boot with.
    #[error("--memory {asked}M: this machine needs at least {least}M")]
    MemoryTooSmall {
        /// MiB asked for.
        asked: u64,
        /// MiB needed.
        least: u64,
    },
    /// Memory that cannot be spread evenly in 2 MiB units.
    #[error("--memory {asked}M does not divide over {nodes} NUMA nodes in units of 2M: try {next}M",
        next = asked.next_multiple_of(2 * u64::from(*nodes)))]
    MemoryNotDivisible {
        /// MiB asked for.
        asked: u64,
        /// Nodes.
        nodes: u32,
    },
    /// Not x86-64 Linux.
    #[error("killifish runs on x86-64 Linux, but this is {os} on {arch}")]
    UnsupportedHost {
        /// Operating system.
        os: &'static str,
        /// Architecture.
        arch: &'static str,
    },
    /// The compiler's driver is not there, or not ours to run.
    #[error(
        "cargo cannot be started ({program}: {source}): install Rust from https://rustup.rs and run again"
    )]
    CargoMissing {
        /// What was tried.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The sources are not where they were when the command was built.
    #[error("the sources of the OS are not at {}: run `cargo run` in the source tree", path.display())]
    SourcesMissing {
        /// Where they were.
        path: PathBuf,
    },
    /// QEMU is not installed and cannot be installed by us.
    #[error(
        "QEMU is missing ({program} was not found), and installing it needs root or password-less sudo.\n{how}"
    )]
    QemuMissing {
        /// What was tried.
        program: String,
        /// The commands to install it.
        how: String,
    },
    /// The QEMU that the environment names is not there.
    #[error(
        "{}={program}: there is no such program; name another QEMU, or unset the variable to use {} on the path",
        crate::qemu::PROGRAM_VARIABLE,
        crate::qemu::PROGRAM
    )]
    QemuNotThere {
        /// As given.
        program: String,
    },
    /// QEMU is too old for what was asked.
    #[error("QEMU {found} is too old: {purpose} needs {needed} or later.\n{how}")]
    QemuTooOld {
        /// This QEMU.
        found: Version,
        /// The oldest that would do.
        needed: Version,
        /// What for.
        purpose: String,
        /// How to get a newer one.
        how: String,
    },
    /// QEMU does not say its version as expected.
    #[error("{program} --version said {output:?}, which names no QEMU version")]
    QemuVersion {
        /// The program.
        program: String,
        /// What it printed.
        output: String,
    },
    /// A command of the set-up failed.
    #[error("setting up QEMU failed: `{command}` ended with {status}")]
    SetupFailed {
        /// The command.
        command: String,
        /// Its status.
        status: String,
    },
    /// KVM without hardware support.
    #[error(
        "--accel kvm: this CPU offers no hardware virtualisation (no vmx or svm in /proc/cpuinfo); use --accel tcg"
    )]
    KvmNoCpu,
    /// KVM without its device.
    #[error(
        "--accel kvm: /dev/kvm cannot be opened ({source}); join the group kvm or load the module, or use --accel tcg"
    )]
    KvmNoDevice {
        /// Why.
        source: io::Error,
    },
    /// The images could not be built.
    #[error("building the OS failed:\n{stderr}")]
    BuildFailed {
        /// What cargo wrote.
        stderr: String,
    },
    /// The build gave no image of that name.
    #[error("the build made no image {name:?}: is it still a binary of the workspace?")]
    ImageMissing {
        /// The image.
        name: String,
    },
    /// The boot archive could not be laid out.
    #[error("{0}")]
    Archive(#[from] boot_archive::writer::AddError),
    /// The file system is full.
    #[error("no room to write {}: free some space on its file system", path.display())]
    NoRoom {
        /// The file or directory.
        path: PathBuf,
    },
    /// The directory of the file is missing.
    #[error("cannot write {}: there is no directory {}; create it first", path.display(), directory_of(path))]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The directory is read-only.
    #[error("cannot write {}: the directory is read-only or not yours; {}", path.display(), purpose.advice())]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
        /// What was to be written.
        purpose: Purpose,
    },
    /// Any other failed write.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A failed read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An experiment that could not be added.
    #[error("{0}")]
    Scaffold(#[from] crate::scaffold::ScaffoldError),
    /// Two files of results that cannot be compared.
    #[error("{0}")]
    Compare(#[from] crate::compare::CompareError),
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// QEMU refused to start the machine.
    #[error("QEMU did not start the machine (status {status}): {stderr}\nthe command was: {command}")]
    QemuRefused {
        /// Its exit status.
        status: String,
        /// What it wrote.
        stderr: String,
        /// The command.
        command: String,
    },
    /// The connection to QEMU's monitor failed.
    #[error("QEMU's monitor failed: {0}")]
    Qmp(#[from] crate::qmp::QmpError),
    /// A CPU driver panicked.
    #[error("the guest panicked: a CPU driver met a state that it cannot continue from")]
    GuestPanic(Box<Failure>),
    /// Every core halted for good.
    #[error("the guest hangs: every core is halted with nothing to wake it")]
    GuestHang(Box<Failure>),
    /// Not finished in time.
    #[error("time-out: the guest still runs after {} s; --timeout gives it longer", limit.as_secs())]
    TimeOut {
        /// The time given.
        limit: Duration,
        /// What it was doing.
        failure: Box<Failure>,
    },
    /// A benchmark failed.
    #[error("a benchmark failed in the guest")]
    BenchFailed(Box<Failure>),
    /// The system did not come up.
    #[error("the system did not come up in the guest: init or a monitor failed")]
    InitFailed(Box<Failure>),
    /// A scenario's check failed.
    #[error("a test scenario failed in the guest")]
    CheckFailed(Box<Failure>),
    /// The guest does not know a word of its command line.
    #[error("the guest refused its command line")]
    GuestUsage(Box<Failure>),
    /// The machine ended without a word.
    #[error("the guest ended without an exit code ({reason}): a triple fault, or QEMU was stopped")]
    GuestLost {
        /// How QEMU ended.
        reason: String,
        /// What is known.
        failure: Box<Failure>,
    },
    /// Success, but some benchmark that was asked for gave no result.
    #[error("the guest reported success, but no result of {}", .missing.join(", "))]
    ResultsMissing {
        /// The benchmarks.
        missing: Vec<String>,
        /// What is known.
        failure: Box<Failure>,
    },
    /// Two runs under icount that differ.
    #[error("run {round} gave other results than run 1, though counts are repeatable; compare them in {}", path.display())]
    NotRepeatable {
        /// The run that differs.
        round: u32,
        /// The results file.
        path: PathBuf,
    },
    /// A line of results is not of the schema.
    #[error("the guest's results are not valid: {error}")]
    BadResults {
        /// Why.
        error: results::host::LineError,
        /// What is known.
        failure: Box<Failure>,
    },
    /// SIGINT.
    #[error("interrupted")]
    Interrupted,
    /// SIGTERM or SIGHUP.
    #[error("terminated")]
    Terminated,
}

/// What a write is for: it decides what to do where a directory is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The results of a run.
    Results,
    /// The images of the OS.
    Build,
}

impl Purpose {
    fn advice(self) -> &'static str {
        match self {
            Self::Results => "choose another with --json FILE, or run elsewhere",
            Self::Build => "choose another with CARGO_TARGET_DIR",
        }
    }
}

impl Error {
    /// The exit code of the command.
    #[must_use]
    pub fn exit(&self) -> HostExit {
        match self {
            Self::UnknownBench { .. }
            | Self::TooFewCpus { .. }
            | Self::ZeroCpus
            | Self::ZeroRepeat
            | Self::ZeroTimeout
            | Self::TooManyCpus { .. }
            | Self::CpusNotDivisible { .. }
            | Self::CpusContradictNuma { .. }
            | Self::CpusContradictSmp { .. }
            | Self::ZeroNodes { .. }
            | Self::TooManyNodes { .. }
            | Self::NumaFile { .. }
            | Self::NumaLine { .. }
            | Self::NumaNoNode { .. }
            | Self::NumaOption { .. }
            | Self::MemorySyntax { .. }
            | Self::MemoryTooSmall { .. }
            | Self::MemoryNotDivisible { .. }
            | Self::Scaffold(_) => HostExit::Usage,
            Self::UnsupportedHost { .. } => HostExit::Unsupported,
            Self::QemuMissing { .. }
            | Self::QemuNotThere { .. }
            | Self::QemuTooOld { .. }
            | Self::QemuVersion { .. }
            | Self::SetupFailed { .. } => HostExit::Setup,
            Self::KvmNoCpu | Self::KvmNoDevice { .. } => HostExit::Accelerator,
            Self::CargoMissing { .. }
            | Self::SourcesMissing { .. }
            | Self::BuildFailed { .. }
            | Self::ImageMissing { .. }
            | Self::Archive(_) => HostExit::Build,
            Self::NoRoom { .. } | Self::NoDirectory { .. } | Self::ReadOnly { .. } | Self::Write { .. } => {
                HostExit::Write
            }
            Self::Read { .. } | Self::Start { .. } => HostExit::Failure,
            Self::QemuRefused { .. } | Self::Qmp(_) => HostExit::Qemu,
            Self::GuestPanic(_) => HostExit::GuestPanic,
            Self::GuestHang(_) => HostExit::GuestHang,
            Self::TimeOut { .. } => HostExit::TimeOut,
            Self::BenchFailed(_) => HostExit::BenchFailed,
            Self::InitFailed(_) => HostExit::InitFailed,
            Self::CheckFailed(_) => HostExit::CheckFailed,
            Self::GuestUsage(_) => HostExit::GuestUsage,
            Self::GuestLost { .. } => HostExit::GuestLost,
            Self::BadResults { .. }
            | Self::ResultsMissing { .. }
            | Self::NotRepeatable { .. }
            | Self::Compare(_)
            | Self::BadTopology { .. } => HostExit::BadResults,
            Self::TopologyDiffers { .. } => HostExit::TopologyDiffers,
            Self::Interrupted => HostExit::Interrupted,
            Self::Terminated => HostExit::Terminated,
        }
    }

    /// What is known about the guest that failed, where one did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::GuestPanic(failure)
            | Self::GuestHang(failure)
            | Self::BenchFailed(failure)
            | Self::InitFailed(failure)
            | Self::CheckFailed(failure)
            | Self::GuestUsage(failure)
            | Self::TimeOut { failure, .. }
            | Self::GuestLost { failure, .. }
            | Self::ResultsMissing { failure, .. }
            | Self::BadResults { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// The error of a failed write to `path`.
    #[must_use]
    pub fn write(purpose: Purpose, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoRoom { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path, purpose }
            }
            io::ErrorKind::NotFound => Self::NoDirectory { path },
            _ => Self::Write { path, source },
        }
    }

    /// The error of a failed read of `path`.
    #[must_use]
    pub fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}

/// Where a file would lie.
fn directory_of(path: &Path) -> String {
    path.parent().map_or_else(String::new, |directory| directory.display().to_string())
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(": did you mean {name:?}?"))
}

fn newer_qemu(version: &Version) -> &'static str {
    if *version < crate::qemu::X2APIC {
        "; QEMU 9.0 or later starts more (try `killifish setup --cpus N`)"
    } else {
        ""
    }
}

/// The greatest number of nodes up to `nodes` over which `cpus` divide.
fn nearest_divisor(cpus: u32, nodes: u32) -> u32 {
    (1..=nodes.min(cpus)).rev().find(|n| cpus.is_multiple_of(*n)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: &Error) -> String {
        error.to_string()
    }

    #[test]
    fn messages_about_the_command_line_say_what_to_do() {
        let unknown = |nearest: Option<&str>| Error::UnknownBench {
            name: "sycall".into(),
            nearest: nearest.map(str::to_owned),
        };
        assert_eq!(
            message(&unknown(Some("syscall"))),
            r#"unknown benchmark "sycall": did you mean "syscall"? (`killifish list` shows all)"#
        );
        assert_eq!(message(&unknown(None)), r#"unknown benchmark "sycall" (`killifish list` shows all)"#);
        assert_eq!(message(&Error::ZeroCpus), "--cpus 0: a machine needs at least 1 vCPU");
        assert_eq!(
            message(&Error::CpusNotDivisible { cpus: 6, nodes: 4 }),
            "6 vCPUs do not divide over 4 NUMA nodes: use a multiple of 4, or --numa 3"
        );
        assert_eq!(
            message(&Error::CpusContradictNuma { cpus: 8, nodes: 4, cores: 16 }),
            "--cpus 8 contradicts --numa 4x16, which makes 64 vCPUs: leave --cpus out"
        );
        assert_eq!(
            message(&Error::MemoryNotDivisible { asked: 514, nodes: 4 }),
            "--memory 514M does not divide over 4 NUMA nodes in units of 2M: try 520M"
        );
        assert_eq!(
            message(&Error::MemoryTooSmall { asked: 8, least: 128 }),
            "--memory 8M: this machine needs at least 128M"
        );
    }

    #[test]
    fn messages_about_qemu_name_the_version() {
        let old =
            Error::TooManyCpus { asked: 300, limit: 255, version: Version { major: 7, minor: 2, micro: 0 } };
        assert_eq!(
            message(&old),
            "--cpus 300: QEMU 7.2.0 starts at most 255 vCPUs here; QEMU 9.0 or later starts more (try `killifish \
             setup --cpus N`)"
        );
        let new = Error::TooManyCpus {
            asked: 5000,
            limit: 4096,
            version: Version { major: 10, minor: 0, micro: 2 },
        };
        assert_eq!(message(&new), "--cpus 5000: QEMU 10.0.2 starts at most 4096 vCPUs here");
        let too_old = Error::QemuTooOld {
            found: Version { major: 6, minor: 1, micro: 0 },
            needed: Version { major: 7, minor: 2, micro: 0 },
            purpose: "killifish".into(),
            how: "Install it.".into(),
        };
        assert_eq!(message(&too_old), "QEMU 6.1.0 is too old: killifish needs 7.2.0 or later.\nInstall it.");
        let missing = Error::QemuMissing { program: "qemu-system-x86_64".into(), how: "Install it.".into() };
        assert_eq!(
            message(&missing),
            "QEMU is missing (qemu-system-x86_64 was not found), and installing it needs root or password-less \
             sudo.\nInstall it."
        );
    }

    #[test]
    fn messages_about_kvm_offer_what_works() {
        assert_eq!(
            message(&Error::KvmNoCpu),
            "--accel kvm: this CPU offers no hardware virtualisation (no vmx or svm in /proc/cpuinfo); use --accel \
             tcg"
        );
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(
            message(&Error::KvmNoDevice { source }),
            "--accel kvm: /dev/kvm cannot be opened (permission denied); join the group kvm or load the module, or \
             use --accel tcg"
        );
    }

    #[test]
    fn failed_writes_are_told_apart_by_cause() {
        let of = |kind| Error::write(Purpose::Results, Path::new("results/a.jsonl"), io::Error::from(kind));
        assert_eq!(
            message(&of(io::ErrorKind::StorageFull)),
            "no room to write results/a.jsonl: free some space on its file system"
        );
        assert_eq!(
            message(&of(io::ErrorKind::ReadOnlyFilesystem)),
            "cannot write results/a.jsonl: the directory is read-only or not yours; choose another with --json \
             FILE, or run elsewhere"
        );
        let build =
            Error::write(Purpose::Build, Path::new("target/os"), io::ErrorKind::PermissionDenied.into());
        assert_eq!(
            message(&build),
            "cannot write target/os: the directory is read-only or not yours; choose another with CARGO_TARGET_DIR"
        );
        assert_eq!(
            message(&of(io::ErrorKind::NotFound)),
            "cannot write results/a.jsonl: there is no directory results; create it first"
        );
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound] {
            assert_eq!(of(kind).exit(), HostExit::Write);
        }
    }

    #[test]
    fn guest_failures_have_messages_and_codes_of_their_own() {
        let failure = || Box::new(Failure::default());
        let table = [
            (
                Error::GuestPanic(failure()),
                "the guest panicked: a CPU driver met a state that it cannot continue from",
                HostExit::GuestPanic,
            ),
            (
                Error::GuestHang(failure()),
                "the guest hangs: every core is halted with nothing to wake it",
                HostExit::GuestHang,
            ),
            (
                Error::TimeOut { limit: Duration::from_secs(60), failure: failure() },
                "time-out: the guest still runs after 60 s; --timeout gives it longer",
                HostExit::TimeOut,
            ),
            (Error::BenchFailed(failure()), "a benchmark failed in the guest", HostExit::BenchFailed),
            (
                Error::InitFailed(failure()),
                "the system did not come up in the guest: init or a monitor failed",
                HostExit::InitFailed,
            ),
            (Error::GuestUsage(failure()), "the guest refused its command line", HostExit::GuestUsage),
            (
                Error::GuestLost { reason: "exit status: 0".into(), failure: failure() },
                "the guest ended without an exit code (exit status: 0): a triple fault, or QEMU was stopped",
                HostExit::GuestLost,
            ),
            (
                Error::ResultsMissing { missing: vec!["yield".into()], failure: failure() },
                "the guest reported success, but no result of yield",
                HostExit::BadResults,
            ),
        ];
        for (error, text, exit) in table {
            assert_eq!(message(&error), text);
            assert_eq!(error.exit(), exit);
            assert!(error.failure().is_some());
        }
    }
}
