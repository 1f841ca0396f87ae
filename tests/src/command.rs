//! The host command itself, built as `cargo run` builds it, and the processes that it starts.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use killifish::images;
use serde_json::Value;

/// The name of the QEMU process, as far as the kernel keeps names.
const QEMU: &str = "qemu-system-x86";

/// How long something that must happen at once may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program, up to date.
///
/// # Panics
/// If it cannot be built.
pub fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--bin", "killifish", "--message-format", "json-render-diagnostics"])
            .current_dir(images::workspace().expect("the workspace"))
            .stdin(Stdio::null())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut executables = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["target"]["name"] == "killifish")
            .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
        executables.next_back().expect("an executable")
    })
}

/// The command with those arguments, to run in a directory of its own.
pub fn command(arguments: &str, directory: &std::path::Path) -> Command {
    // Not built while its time-out runs.
    crate::images();
    let mut command = Command::new(program());
    command.args(arguments.split_whitespace()).current_dir(directory).stdin(Stdio::null());
    command
}

/// Waits until `seen` gives something.
///
/// # Panics
/// If that does not happen.
pub fn wait_for<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = seen() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain for {what}");
}

/// The name of a process and the fields of `/proc/PID/stat` after it: state, parent, ….
fn stat(pid: u32) -> Option<(String, Vec<String>)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    Some((head.split_once('(')?.1.to_owned(), tail.split_whitespace().map(str::to_owned).collect()))
}

/// The machine that `parent` runs: a child that is a QEMU, and not one that is only asked for its version.
pub fn machine_of(parent: u32) -> Option<u32> {
    let is_machine = |pid: u32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|&byte| byte == 0).any(|word| word == b"-initrd")
    };
    let is_ours =
        |pid| stat(pid).is_some_and(|(name, fields)| name == QEMU && fields[1] == parent.to_string());
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|&pid| is_ours(pid) && is_machine(pid))
}

/// Whether the process runs: one that nobody has reaped yet does not.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, fields)| fields[0] != "Z")
}
