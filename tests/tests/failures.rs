//! The host command and guests that fail: what it says, what it ends with, and that nothing of it stays behind.

use std::process::{Child, Output, Stdio};
use std::time::Duration;

use killifish::qemu::Qemu;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use results::HostExit;
use tempfile::TempDir;
use tests::command::{alive, command, machine_of, wait_for};
use tests::places;

/// A benchmark that takes minutes.
const ENDLESS: &str = "bench spawn --cpus 2 --samples 1000000";

/// Runs the command, which must end with that code; what it wrote to its standard error.
fn fails(arguments: &str, exit: HostExit) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = command(arguments, directory.path());
    let _place = places::one();
    let Output { status, stderr, .. } = command.output().expect("the command runs");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(i32::from(exit.code())), "{arguments}:\n{stderr}");
    // Everything needed to go on from here.
    let qemu = format!("QEMU command (console on the terminal):\n  {} ", Qemu::program().display());
    for part in [&*qemu, "Last lines of the console:\n"] {
        assert!(stderr.contains(part), "no {part:?} in:\n{stderr}");
    }
    stderr
}

/// The text holds all of these, in this order.
#[track_caller]
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some(at) = rest.find(part) else { panic!("no {part:?} in its place in:\n{text}") };
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_guest_in_which_nothing_happens_any_more_is_a_hang() {
    let stderr = fails("bench syscall --cpus 2 --append scenario=hang", HostExit::GuestHang);
    assert_in_order(
        &stderr,
        &[
            "from here on nothing happens",
            "Cores:\n",
            "halted, interrupts on",
            "Back-traces:\n",
            "cpudriver: ",
            "killifish: the guest hangs: every core is halted with nothing to wake it",
        ],
    );
}

#[test]
fn a_panic_is_reported_with_its_core_and_the_functions_that_led_to_it() {
    let stderr = fails("bench syscall --cpus 2 --append scenario=panic", HostExit::GuestPanic);
    assert_in_order(
        &stderr,
        &[
            "the CPU driver is about to panic, as asked for",
            "core 0: panic: ",
            "Cores:\n",
            "in the kernel",
            "Back-traces:\n  core 0\n",
            "cpudriver: cpudriver::panic::last_words (src/panic.rs:",
            "cpudriver: cpudriver::syscall::",
            "killifish: the guest panicked",
        ],
    );
}

#[test]
fn a_guest_that_still_runs_when_its_time_is_over_is_a_time_out() {
    let stderr = fails(&format!("{ENDLESS} --timeout 3"), HostExit::TimeOut);
    assert_in_order(
        &stderr,
        &[
            "Cores:\n",
            "Back-traces:\n",
            "killifish: time-out: the guest still runs after 3 s; --timeout gives it longer",
        ],
    );
}

#[test]
fn a_word_that_the_guest_does_not_know_is_named() {
    let stderr = fails("bench syscall --cpus 1 --append colour=red", HostExit::GuestUsage);
    assert_in_order(&stderr, &["colour=red", "killifish: the guest refused its command line"]);
}

/// The command while its guest runs.
struct Running {
    command: Child,
    qemu: u32,
    _directory: TempDir,
}

impl Running {
    fn start(arguments: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = command(arguments, directory.path());
        let mut command =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts");
        let qemu = wait_for("QEMU", || {
            let ended = command.try_wait().expect("the command can be waited for");
            assert!(ended.is_none(), "{ended:?}");
            machine_of(command.id())
        });
        // Into the guest's life, past its beginning; when exactly does not matter.
        std::thread::sleep(Duration::from_millis(300));
        Self { command, qemu, _directory: directory }
    }

    /// Sends the signal; the exit code of the command, if it has one, when QEMU is gone too.
    fn end_by(mut self, signal: Signal) -> Option<i32> {
        assert!(alive(self.qemu));
        kill(Pid::from_raw(self.command.id() as i32), signal).expect("the command takes signals");
        let status = self.command.wait().expect("the command ends");
        wait_for("QEMU's end", || (!alive(self.qemu)).then_some(()));
        status.code()
    }
}

/// What the command ends with when that signal comes while its guest runs.
fn ends_with(arguments: &str, signal: Signal, exit: Option<HostExit>) {
    let _place = places::one();
    let code = Running::start(arguments).end_by(signal);
    assert_eq!(code, exit.map(|exit| i32::from(exit.code())), "{arguments} on {signal}");
}

#[test]
fn interrupted_it_leaves_no_qemu_behind() {
    ends_with(ENDLESS, Signal::SIGINT, Some(HostExit::Interrupted));
    ends_with(ENDLESS, Signal::SIGTERM, Some(HostExit::Terminated));
    // That is how one leaves the console.
    ends_with("boot --cpus 1", Signal::SIGINT, Some(HostExit::Success));
}

#[test]
fn killed_it_leaves_no_qemu_behind() {
    ends_with(ENDLESS, Signal::SIGKILL, None);
    ends_with("boot --cpus 1", Signal::SIGKILL, None);
}
