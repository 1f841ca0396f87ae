//! Boots guests of a few lines of assembly, each of which ends in its own way, and checks what the command makes
//! of it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use killifish::guest::{Job, Outcome, Sight};
use killifish::images::{Binary, Images};
use killifish::interrupt::Interrupt;
use killifish::machine::{Machine, MachineOptions};
use killifish::qemu::Qemu;
use killifish::setup::{self, Need};
use killifish::{Error, Result};
use results::host::Line;
use results::{EventKind, GuestExit, HostExit, PANIC_PORT};
use tempfile::TempDir;

const START: &str = r#"{"type":"event","event":"start","value":2}"#;
const RESULT: &str = concat!(
    r#"{"type":"result","bench":"fixture","metric":"put","cores":2,"nodes":2,"accel":"icount","layer":"counts","#,
    r#""unit":"instr","n":1,"min":1,"p50":1,"p90":1,"p99":1,"max":1,"counts":{},"seed":1}"#
);
const DONE: &str = r#"{"type":"event","event":"done"}"#;

/// Ends the machine with that word.
fn exit(word: u32) -> String {
    format!("mov eax, {word}; mov edx, 0xf4; out dx, eax; 0: hlt; jmp 0b")
}

fn qemu() -> &'static Qemu {
    static QEMU: OnceLock<Qemu> = OnceLock::new();
    QEMU.get_or_init(|| setup::ensure(&Need::of_cpus(1), &mut |text| eprintln!("{text}")).expect("QEMU"))
}

/// A guest, and the directory it lies in.
struct Fixture {
    images: Images,
    _dir: TempDir,
}

impl Fixture {
    fn new(behaviour: &str, results: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let kernel = dir.path().join("cpudriver");
        let text =
            |lines: &[&str]| format!("{:?}", lines.iter().map(|l| format!("{l}\n")).collect::<String>());
        // Through a file: a shell's or cpp's quoting would be a second language.
        let source = std::fs::read_to_string(here.join("tests/fixture.S")).expect("the fixture");
        let source = source
            .replace("BEHAVIOUR\n", &format!("{behaviour}\n"))
            .replace("CONSOLE\n", &format!("{}\n", text(&["hello", "last words"])))
            .replace("RESULTS\n", &format!("{}\n", text(results)));
        let assembly = dir.path().join("fixture.s");
        std::fs::write(&assembly, source).expect("the temporary directory can be written");
        let script = here.join("link/cpudriver.ld");
        let linked = Command::new("cc")
            .args(boot_link::LINK_ARGS)
            .arg(format!("-Wl,-T,{}", script.display()))
            .arg(&assembly)
            .arg("-o")
            .arg(&kernel)
            .output()
            .expect("cc runs: a C linker is part of every Rust installation");
        assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
        let binary = Binary { name: "cpudriver".into(), path: kernel };
        let images = Images::pack(vec![binary], &dir.path().join("archive")).expect("an archive");
        Self { images, _dir: dir }
    }

    fn run(&self, timeout: Duration) -> Result<Outcome> {
        self.run_on(&machine(2), timeout)
    }

    fn run_on(&self, machine: &Machine, timeout: Duration) -> Result<Outcome> {
        let interrupt = Interrupt::default();
        let job = Job {
            machine,
            images: &self.images,
            qemu: qemu(),
            words: vec![],
            timeout,
            interrupt: &interrupt,
        };
        job.run(&mut |_| {})
    }
}

fn machine(cpus: u32) -> Machine {
    Machine::new(&MachineOptions { cpus: Some(cpus), ..MachineOptions::default() }).expect("a machine")
}

const LONG: Duration = Duration::from_secs(60);

/// The error of a guest that must fail, with everything a report needs in it.
fn failure_of(result: Result<Outcome>) -> Error {
    let error = result.expect_err("the guest fails");
    let failure = error.failure().unwrap_or_else(|| panic!("no report: {error}"));
    let qemu = Qemu::program();
    assert!(failure.command.starts_with(&format!("{} ", qemu.display())), "{failure}");
    assert_eq!(failure.console, ["hello", "last words"]);
    error
}

/// The cores were seen in the function that stopped them.
fn assert_traced(error: &Error) {
    let failure = error.failure().expect("a report");
    assert_eq!(failure.cores.len(), 2, "{failure}");
    let functions: Vec<&str> =
        failure.cores[0].trace.iter().map(|frame| frame.split_once(' ').expect("an address").1).collect();
    assert_eq!(
        functions,
        ["cpudriver: inner_function", "cpudriver: outer_function", "cpudriver: limine_entry"],
        "{failure}"
    );
    assert!(failure.cores[1].registers.halted, "it was never started");
}

#[test]
fn success_gives_every_line() {
    let fixture = Fixture::new(&exit(GuestExit::Success.word()), &[START, RESULT, DONE]);
    let interrupt = Interrupt::default();
    let machine = machine(2);
    let job = Job {
        machine: &machine,
        images: &fixture.images,
        qemu: qemu(),
        words: vec![],
        timeout: LONG,
        interrupt: &interrupt,
    };
    let mut seen = Vec::new();
    let outcome = job
        .run(&mut |sight| {
            if let Sight::Console(line) = sight {
                seen.push(line.to_owned());
            }
        })
        .expect("success");
    assert_eq!(seen, ["hello", "last words"]);
    assert_eq!(outcome.console, seen);
    let kinds: Vec<Option<EventKind>> = outcome
        .lines
        .iter()
        .map(|line| match line {
            Line::Event(event) => Some(event.kind),
            Line::Result(_) => None,
        })
        .collect();
    assert_eq!(kinds, [Some(EventKind::Start), None, Some(EventKind::Done)]);
}

#[test]
fn a_panic_is_caught_in_the_act() {
    let panic = format!("mov al, 1; mov dx, {PANIC_PORT}; out dx, al; {}", exit(GuestExit::Panic.word()));
    let error = failure_of(Fixture::new(&panic, &[START]).run(LONG));
    assert!(matches!(error, Error::GuestPanic(_)), "{error}");
    assert_eq!(error.exit(), HostExit::GuestPanic);
    assert_traced(&error);
}

#[test]
fn a_hang_is_no_time_out() {
    let error = failure_of(Fixture::new("0: cli; hlt; jmp 0b", &[START]).run(LONG));
    assert!(matches!(error, Error::GuestHang(_)), "{error}");
    assert_traced(&error);
}

#[test]
fn a_time_out_is_no_hang() {
    let error = failure_of(Fixture::new("0: pause; jmp 0b", &[START]).run(Duration::from_secs(4)));
    assert!(matches!(error, Error::TimeOut { .. }), "{error}");
    assert_eq!(error.to_string(), "time-out: the guest still runs after 4 s; --timeout gives it longer");
    assert_traced(&error);
}

#[test]
fn a_triple_fault_is_seen_where_it_happened() {
    let error = failure_of(Fixture::new("lidt no_idt[rip]; int3", &[START]).run(LONG));
    assert!(matches!(error, Error::GuestLost { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "the guest ended without an exit code (the machine was reset): a triple fault, or QEMU was stopped"
    );
    assert_traced(&error);
}

#[test]
fn every_exit_code_has_its_error() {
    let table = [
        (GuestExit::Panic, HostExit::GuestPanic),
        (GuestExit::BenchFailed, HostExit::BenchFailed),
        (GuestExit::InitFailed, HostExit::InitFailed),
        (GuestExit::CheckFailed, HostExit::CheckFailed),
        (GuestExit::BadCommandLine, HostExit::GuestUsage),
    ];
    for (guest, host) in table {
        let error = failure_of(Fixture::new(&exit(guest.word()), &[START]).run(LONG));
        assert_eq!(error.exit(), host, "{error}");
    }
}

#[test]
fn a_status_that_is_no_exit_code_is_a_lost_guest() {
    let error = failure_of(Fixture::new(&exit(0), &[START, DONE]).run(LONG));
    assert!(matches!(error, Error::GuestLost { .. }), "{error}");
}

#[test]
fn lines_that_are_not_of_the_schema_end_the_run() {
    let error = failure_of(Fixture::new("0: pause; jmp 0b", &[START, "nonsense"]).run(LONG));
    let start = "the guest's results are not valid: not a line of results: expected ident";
    assert!(error.to_string().starts_with(start), "{error}");
    assert_eq!(error.exit(), HostExit::BadResults);
}

#[test]
fn a_machine_that_qemu_refuses_is_shown_with_its_reason() {
    let fixture = Fixture::new(&exit(GuestExit::Success.word()), &[]);
    let mut machine = machine(2);
    machine.numa.push(("-numa".into(), "node,nodeid=7,cpus=99".into()));
    let error = fixture.run_on(&machine, LONG).expect_err("QEMU refuses");
    let Error::QemuRefused { stderr, command, .. } = &error else { panic!("{error}") };
    assert!(stderr.contains("-numa node,nodeid=7,cpus=99"), "{stderr}");
    assert!(command.contains("-numa node,nodeid=7,cpus=99"), "{command}");
    assert_eq!(error.exit(), HostExit::Qemu);
}

#[test]
fn more_than_255_vcpus_start_where_qemu_can() {
    let machine = machine(288);
    match qemu().check_cpus(&machine) {
        Ok(()) => {
            let fixture = Fixture::new(&exit(GuestExit::Success.word()), &[START, DONE]);
            fixture.run_on(&machine, LONG).expect("success");
        }
        Err(error) => assert!(matches!(error, Error::TooManyCpus { limit: 255, .. }), "{error}"),
    }
}

/// Set in the process that is killed.
const VICTIM: &str = "KILLIFISH_TEST_VICTIM";

#[test]
fn a_killed_parent_leaves_no_qemu_behind() {
    if std::env::var_os(VICTIM).is_some() {
        // In the child: a guest that never ends.
        drop(Fixture::new("0: pause; jmp 0b", &[]).run(LONG));
        return;
    }
    let mut victim = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_killed_parent_leaves_no_qemu_behind"])
        .env(VICTIM, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test runs again");
    let qemu = wait_for("the victim's QEMU", || child_named(victim.id(), "qemu-system-x86"));
    victim.kill().expect("SIGKILL");
    victim.wait().expect("the victim is reaped");
    wait_for("QEMU's end", || (!alive(qemu)).then_some(()));
}

fn wait_for<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        if let Some(found) = seen() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain for {what}");
}

/// The fields of `/proc/PID/stat` after the name: state, parent, ….
fn stat(pid: u32) -> Option<(String, Vec<String>)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    Some((head.split_once('(')?.1.to_owned(), tail.split_whitespace().map(str::to_owned).collect()))
}

fn child_named(parent: u32, name: &str) -> Option<u32> {
    let pids =
        std::fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.into_iter()
        .find(|&pid| stat(pid).is_some_and(|(comm, fields)| comm == name && fields[1] == parent.to_string()))
}

/// Whether the process runs: one that nobody has reaped yet does not.
fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, fields)| fields[0] != "Z")
}
