//! What each command does.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::ProgressBar;
use results::host::{Header, Line, Record, Versions};
use results::{Accel, EventKind, GuestExit, SCHEMA};

use crate::cli::{self, Action, Cli, Options};
use crate::compare;
use crate::diagnose::Failure;
use crate::guest::{self, Job, Outcome, Sight};
use crate::images::{self, Progress};
use crate::interrupt::Interrupt;
use crate::journal::{Journal, Moment};
use crate::machine::Machine;
use crate::qemu::{self, Debugger, Qemu, Wiring};
use crate::report::{Matrices, Width};
use crate::scaffold::{self, Experiment};
use crate::setup::{self, Need};
use crate::told::Told;
use crate::topo::{self, Found};
use crate::vm::Vm;
use crate::{Error, Result, host, report};

/// Carries out a command line.
///
/// # Errors
/// Whatever made it fail; [`Error::exit`] is the exit code.
pub fn run(cli: &Cli) -> Result<()> {
    let options = &cli.options;
    match &cli.command {
        None => bench(options, &[]),
        Some(Action::Bench { names }) => bench(options, names),
        Some(Action::List) => {
            println!("{}", report::list());
            Ok(())
        }
        Some(Action::Boot { gdb }) => boot(options, if *gdb { Attach::Debugger } else { Attach::Nobody }),
        Some(Action::Test { name, words }) => test(options, name, words),
        Some(Action::Topo) => topo(options),
        Some(Action::Setup) => setup(options),
        Some(Action::Qemu { names }) => print_command(options, names),
        Some(Action::NewBench { name }) => add(Experiment::Bench, name),
        Some(Action::NewPolicy { name }) => add(Experiment::Policy, name),
        Some(Action::Compare { a, b }) => {
            print!("{}", compare::compare(&read_results(a)?, &read_results(b)?)?);
            Ok(())
        }
    }
}

/// `new-bench` and `new-policy`.
fn add(experiment: Experiment, name: &str) -> Result<()> {
    let files = scaffold::add(&images::workspace()?, experiment, name)?;
    for (index, file) in files.iter().enumerate() {
        println!("{} {}", if index == 0 { "new:    " } else { "changed:" }, file.display());
    }
    match experiment {
        Experiment::Bench => println!("Run it:   cargo run -- bench {name}"),
        Experiment::Policy => println!("Use it:   cargo run -- bench ump_pingpong --policy {name}"),
    }
    Ok(())
}

/// A file of results that was named on the command line.
fn read_results(path: &Path) -> Result<compare::File> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::read(path, source))?;
    Ok(compare::File::parse(path, &text)?)
}

/// Who is waited for before the first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attach {
    Debugger,
    Nobody,
}

/// A machine that can be started here, and all that it takes.
struct Ready {
    machine: Machine,
    qemu: Qemu,
    interrupt: Interrupt,
}

impl Options {
    fn progress(&self) -> Progress {
        if self.quiet { Progress::Hidden } else { Progress::Shown }
    }

    fn matrix_width(&self) -> Width {
        if self.matrix { Width::Any } else { Width::Readable }
    }

    /// A remark, which `--quiet` suppresses.
    fn remark(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Checks the command line and this machine, and sets QEMU up.
    fn prepare(&self) -> Result<Ready> {
        host::check_platform()?;
        let machine = self.machine()?;
        host::check_accel(machine.accel)?;
        let interrupt = Interrupt::install()
            .map_err(|source| Error::Start { program: "the signal handlers".to_owned(), source })?;
        let qemu = setup::ensure(&Need::of(&machine), &mut |text| self.remark(text))?;
        qemu.check_cpus(&machine)?;
        Ok(Ready { machine, qemu, interrupt })
    }
}

/// `setup`.
fn setup(options: &Options) -> Result<()> {
    host::check_platform()?;
    let machine = options.machine()?;
    let qemu = setup::ensure(&Need::of(&machine), &mut |text| options.remark(text))?;
    qemu.check_cpus(&machine)?;
    let cpus = counted(machine.cpus, "vCPU");
    println!("QEMU {} ({}) is ready for {cpus}.", qemu.version, qemu.program.display());
    Ok(())
}

/// The words that make the guest run these benchmarks.
fn bench_words(benches: &[&str], options: &Options) -> Vec<String> {
    let mut words = vec![format!("bench={}", benches.join(",")), "exit=1".to_owned()];
    words.push(format!("policy={}", options.policy));
    words.extend(options.samples.map(|samples| format!("samples={samples}")));
    words.extend(options.appended());
    words
}

/// `qemu`.
fn print_command(options: &Options, names: &[String]) -> Result<()> {
    let benches = cli::benchmarks(names, options.machine()?.cpus)?;
    let Ready { machine, qemu, interrupt } = options.prepare()?;
    let images = images::build(options.progress(), &interrupt)?;
    let job = Job {
        machine: &machine,
        images: &images,
        qemu: &qemu,
        words: bench_words(&benches, options),
        timeout: options.time_limit(),
        interrupt: &interrupt,
    };
    println!("{}", job.terminal_command());
    Ok(())
}

/// `boot`: the console on the terminal, until the guest or its user ends it.
fn boot(options: &Options, attach: Attach) -> Result<()> {
    let Ready { machine, qemu, interrupt } = options.prepare()?;
    let images = images::build(options.progress(), &interrupt)?;
    let mut words = machine.guest_words();
    words.extend(options.appended());
    let debugger = match attach {
        Attach::Debugger => Some(Debugger { port: free_port()? }),
        Attach::Nobody => None,
    };
    let wiring = Wiring::Terminal { results: Path::new("/dev/null") };
    let command = qemu::command(&qemu, &machine, images.files(), &words, wiring, debugger);
    if let Some(Debugger { port }) = debugger {
        let kernel = images.kernel.display();
        eprintln!(
            "The machine waits. Attach with:\n  gdb {kernel} -ex 'target remote 127.0.0.1:{port}' -ex continue"
        );
    }
    options.remark("Leave with Ctrl-C, or Ctrl-A X; Ctrl-A C switches to QEMU's monitor.");
    let mut vm = Vm::start_on_terminal(&command)?;
    let status = loop {
        if let Err(error) = interrupt.check() {
            vm.kill();
            // That is how one leaves the console.
            return if matches!(error, Error::Interrupted) { Ok(()) } else { Err(error) };
        }
        match vm.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(Duration::from_millis(50)),
            Err(source) => return Err(Error::Start { program: command.words[0].clone(), source }),
        }
    };
    let failure = || Box::new(Failure { command: command.to_string(), ..Failure::default() });
    match (status.code(), GuestExit::from_qemu_status(status.code().unwrap_or(0))) {
        (Some(0), _) | (_, Some(GuestExit::Success)) => Ok(()),
        (_, Some(exit)) => Err(guest::error_of(exit, failure())),
        (_, None) => Err(Error::GuestLost { reason: status.to_string(), failure: failure() }),
    }
}

/// `test`: a scenario, what it prints, and what it found.
fn test(options: &Options, name: &str, words: &[String]) -> Result<()> {
    let Ready { machine, qemu, interrupt } = options.prepare()?;
    let images = images::build(options.progress(), &interrupt)?;
    let job = Job {
        machine: &machine,
        images: &images,
        qemu: &qemu,
        words: test_words(name, words, options),
        timeout: options.time_limit(),
        interrupt: &interrupt,
    };
    let status = Status::new(options.progress(), machine.cpus);
    let mut cores = 0;
    // The nodes that it starts on further cores are named like it.
    let theirs = format!(" test_{name}");
    let outcome = job.run(&mut |sight| match sight {
        Sight::Line(line) => status.show(line, &mut cores),
        Sight::Console(line) => {
            if let Some((tag, text)) = line.split_once("] ")
                && tag.contains(&theirs)
                && !text.starts_with("victim ")
            {
                status.bar.suspend(|| println!("{text}"));
            }
        }
    });
    status.bar.finish_and_clear();
    outcome?;
    println!("Scenario {name} found nothing wrong.");
    Ok(())
}

/// The words that make the guest run a scenario.
fn test_words(name: &str, words: &[String], options: &Options) -> Vec<String> {
    let mut all = vec![format!("scenario={name}"), "exit=1".to_owned()];
    all.extend(options.samples.map(|samples| format!("samples={samples}")));
    all.extend(words.iter().cloned());
    all.extend(options.appended());
    all
}

/// `topo`: what machine the guest finds, which must be the one that QEMU makes.
fn topo(options: &Options) -> Result<()> {
    let Ready { machine, qemu, interrupt } = options.prepare()?;
    let told = Told::of(&machine)?;
    let images = images::build(options.progress(), &interrupt)?;
    let mut words = vec!["exit=1".to_owned()];
    words.extend(options.appended());
    let job = Job {
        machine: &machine,
        images: &images,
        qemu: &qemu,
        words,
        timeout: options.time_limit(),
        interrupt: &interrupt,
    };
    let status = Status::new(options.progress(), machine.cpus);
    let mut cores = 0;
    let outcome = job.run(&mut |sight| {
        if let Sight::Line(line) = sight {
            status.show(line, &mut cores);
        }
    });
    status.bar.finish_and_clear();
    let found = Found::read(&outcome?.lines)?;
    print!("{}", topo::show(&found));
    let differences = told.differences(&found.topology);
    if !differences.is_empty() {
        return Err(Error::TopologyDiffers { differences });
    }
    println!(
        "QEMU was told the same: cores and their places, nodes, memory, distances{}.",
        match machine.has_hmat() {
            true => ", latencies, bandwidths and caches at memory",
            false => "",
        }
    );
    Ok(())
}

/// A TCP port that a debugger can use: the usual one, or another where it is taken.
fn free_port() -> Result<u16> {
    let bound = TcpListener::bind(("127.0.0.1", 1234)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    let port = bound.and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.map_err(|source| Error::Start { program: "a debugger's port".to_owned(), source })
}

/// The standard lab, and `bench`.
fn bench(options: &Options, names: &[String]) -> Result<()> {
    let benches = cli::benchmarks(names, options.machine()?.cpus)?;
    let Ready { machine, qemu, interrupt } = options.prepare()?;
    let moment = Moment::now();
    let mut journal = Journal::create(options.json.as_deref(), moment, machine.seed)?;
    let rounds = rounds(options, &Ready { machine, qemu, interrupt }, &benches, &mut journal, moment);
    if rounds.is_err() {
        journal.discard_if_empty();
        return rounds;
    }
    options.remark(&format!("Results: {}", journal.path().display()));
    Ok(())
}

/// Builds, then boots and measures as often as asked.
fn rounds(
    options: &Options,
    ready: &Ready,
    benches: &[&str],
    journal: &mut Journal,
    moment: Moment,
) -> Result<()> {
    let Ready { machine, qemu, interrupt } = ready;
    let images = images::build(options.progress(), interrupt)?;
    let words = bench_words(benches, options);
    let job = Job { machine, images: &images, qemu, words, timeout: options.time_limit(), interrupt };
    options.remark(&format!(
        "QEMU {}, {} on {}, {} MiB, accel {}, seed {}",
        qemu.version,
        counted(machine.cpus, "vCPU"),
        counted(machine.nodes, "node"),
        machine.memory_mib,
        machine.accel,
        machine.seed
    ));
    let mut first: Option<Vec<Record>> = None;
    for round in 1..=options.repeat {
        let (records, found) = bench_once(options, &job, benches, journal, moment)?;
        match &first {
            None => {
                println!("{}", found.topology);
                let journal = (!options.quiet).then(|| journal.path());
                print!("{}", report::tables(&records, Matrices { width: options.matrix_width(), journal }));
                first = Some(records);
            }
            Some(first) if machine.accel == Accel::Icount && *first != records => {
                return Err(Error::NotRepeatable { round, path: journal.path().to_owned() });
            }
            Some(_) => {}
        }
        if options.repeat > 1 {
            options.remark(&format!("Run {round} of {} is done.", options.repeat));
        }
    }
    if options.repeat > 1 && machine.accel == Accel::Icount {
        options.remark(&format!("All {} runs gave the same results.", options.repeat));
    }
    Ok(())
}

/// `1 node`, `2 nodes`.
fn counted(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// One boot that measures; its results, also in the journal, and the machine that the guest found.
fn bench_once(
    options: &Options,
    job: &Job<'_>,
    benches: &[&str],
    journal: &mut Journal,
    moment: Moment,
) -> Result<(Vec<Record>, Found)> {
    journal.header(&header(job, moment))?;
    let status = Status::new(options.progress(), job.machine.cpus);
    let mut written = Ok(());
    let mut cores = 0;
    let outcome = job.run(&mut |sight| {
        if let Sight::Line(line) = sight {
            status.show(line, &mut cores);
            if written.is_ok() {
                written = journal.line(line);
            }
        }
    });
    status.bar.finish_and_clear();
    let outcome = outcome?;
    written?;
    let records = records(&outcome);
    let measured: BTreeSet<&str> = records.iter().map(|record| record.bench.as_str()).collect();
    let missing: Vec<String> =
        benches.iter().filter(|bench| !measured.contains(**bench)).map(|&bench| bench.to_owned()).collect();
    if missing.is_empty() {
        return Ok((records, Found::read(&outcome.lines)?));
    }
    let console = outcome.console.into_iter().rev().take(crate::diagnose::CONSOLE_LINES);
    let mut console: Vec<String> = console.collect();
    console.reverse();
    let command = job.terminal_command().to_string();
    Err(Error::ResultsMissing {
        missing,
        failure: Box::new(Failure { command, console, ..Failure::default() }),
    })
}

fn records(outcome: &Outcome) -> Vec<Record> {
    let records = outcome.lines.iter().filter_map(|line| match line {
        Line::Result(record) => Some((**record).clone()),
        Line::Event(_) => None,
    });
    records.collect()
}

/// What the guest is doing, in one line.
struct Status {
    bar: ProgressBar,
    cpus: u32,
}

impl Status {
    fn new(progress: Progress, cpus: u32) -> Self {
        let bar = match progress {
            Progress::Hidden => ProgressBar::hidden(),
            Progress::Shown => {
                ProgressBar::new_spinner().with_style(images::style("{spinner} {msg} ({elapsed})"))
            }
        };
        bar.set_message("Booting");
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, cpus }
    }

    fn show(&self, line: &Line, cores: &mut u32) {
        let Line::Event(event) = line else { return };
        match event.kind {
            EventKind::CoreUp => {
                *cores += 1;
                self.bar.set_message(format!("Booting: {cores} of {} cores", self.cpus));
            }
            EventKind::BenchStarted => {
                self.bar.set_message(format!("Measuring {}", event.name.as_deref().unwrap_or("?")));
            }
            EventKind::Ready => self.bar.set_message("Running"),
            _ => {}
        }
    }
}

/// The header of a run.
fn header(job: &Job<'_>, moment: Moment) -> Header {
    Header {
        schema: SCHEMA,
        started: moment.rfc3339(),
        command: std::env::args().collect(),
        qemu_command: job.terminal_command().words,
        guest_command: job.guest_words().join(" "),
        topology: job.machine.topology(),
        accel: job.machine.accel,
        seed: job.machine.seed,
        image_hash: job.images.hash.clone(),
        versions: Versions {
            killifish: env!("CARGO_PKG_VERSION").to_owned(),
            git: git_version(),
            rustc: first_line(Command::new("rustc").arg("--version")),
            qemu: job.qemu.version.to_string(),
        },
        guest_cpu: qemu::cpu_model(job.machine, job.qemu.version),
        host_cpu: host::cpu_name(),
    }
}

/// The commit of the sources, `-dirty` where they differ from it.
fn git_version() -> String {
    let Ok(workspace) = images::workspace() else { return "unknown".to_owned() };
    let describe = ["describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"];
    first_line(Command::new("git").current_dir(workspace).args(describe))
}

/// The first line that a program prints; `unknown` where it prints none.
fn first_line(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn the_guest_is_told_what_to_run() {
        let words = |line: &str| {
            let cli = Cli::parse_from(line.split(' '));
            bench_words(&["syscall", "yield"], &cli.options).join(" ")
        };
        assert_eq!(words("killifish"), "bench=syscall,yield exit=1 policy=split-poller");
        assert_eq!(
            words("killifish --policy worst --samples 7 --append log=debug"),
            "bench=syscall,yield exit=1 policy=worst samples=7 log=debug"
        );
    }

    #[test]
    fn the_guest_is_told_which_scenario_to_run() {
        let cli = Cli::parse_from("killifish test fuzz calls=9 --samples 7 --append log=debug".split(' '));
        let Some(Action::Test { name, words }) = &cli.command else { panic!("{cli:?}") };
        let words = test_words(name, words, &cli.options).join(" ");
        assert_eq!(words, "scenario=fuzz exit=1 samples=7 calls=9 log=debug");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([counted(1, "node"), counted(2, "node")], ["1 node", "2 nodes"]);
    }
}
