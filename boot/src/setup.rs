//! Setting up QEMU where it is missing or too old.
//!
//! With the rights to do so it is installed by the distribution's package manager, after saying which commands
//! will run; otherwise the commands are printed. Nothing is left behind but the packages: where Debian's own QEMU
//! is too old for what is asked, the backports are used for that one installation and not added to the system's
//! sources.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::machine::Machine;
use crate::qemu::{OLDEST, Qemu, Version, X2APIC, XAPIC_CPUS};
use crate::{Error, Result};
use results::Accel;

/// A package manager and how it installs QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manager {
    /// The distributions that use it.
    pub distributions: &'static str,
    /// The program that tells whether it is there.
    pub program: &'static str,
    /// The commands that install QEMU without a question, in order.
    pub commands: &'static [&'static str],
}

/// The package managers that we know.
pub const MANAGERS: [Manager; 5] = [
    Manager {
        distributions: "Debian, Ubuntu",
        program: "apt-get",
        commands: &["apt-get update", "apt-get install -y --no-install-recommends qemu-system-x86"],
    },
    Manager {
        distributions: "Fedora",
        program: "dnf",
        commands: &["dnf install -y --setopt=install_weak_deps=False qemu-system-x86-core"],
    },
    Manager {
        distributions: "Arch",
        program: "pacman",
        commands: &["pacman -Sy --noconfirm qemu-system-x86"],
    },
    Manager {
        distributions: "openSUSE",
        program: "zypper",
        commands: &["zypper --non-interactive install --no-recommends qemu-x86"],
    },
    Manager { distributions: "Alpine", program: "apk", commands: &["apk add qemu-system-x86_64"] },
];

/// How apt installs from a suite that is not the default; `{options}` and `{suite}` are filled in.
const FROM_SUITE: [&str; 2] = [
    "apt-get{options} update",
    "apt-get{options} install -y --no-install-recommends -t {suite} qemu-system-x86",
];

/// The Debian release whose own QEMU is too old for the x2APIC, and its backports.
const OLD_RELEASE: &str = "bookworm";
const BACKPORTS: &str = "bookworm-backports";

/// How we may run a command that changes the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// We are root.
    Root,
    /// `sudo` works without a password.
    Sudo,
    /// Not at all.
    None,
}

impl Rights {
    /// What we have here.
    #[must_use]
    pub fn here() -> Self {
        if nix::unistd::geteuid().is_root() {
            return Self::Root;
        }
        let sudo =
            Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
        if sudo.is_ok_and(|status| status.success()) { Self::Sudo } else { Self::None }
    }
}

/// What QEMU must be able to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The oldest version that can.
    pub version: Version,
    /// What for.
    pub purpose: String,
}

impl Need {
    /// What this machine needs.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        // KVM has its own x2APIC.
        let apic_ids = if machine.accel == Accel::Kvm { 0 } else { machine.apic_ids() };
        Self::of_apic_ids(apic_ids, || match machine.nodes {
            1 => format!("a machine with {} vCPUs", machine.cpus),
            nodes => format!("a machine with {} vCPUs on {nodes} nodes", machine.cpus),
        })
    }

    /// What a machine with so many vCPUs on one node needs.
    #[must_use]
    pub fn of_cpus(cpus: u32) -> Self {
        Self::of_apic_ids(cpus, || format!("a machine with {cpus} vCPUs"))
    }

    fn of_apic_ids(apic_ids: u32, purpose: impl FnOnce() -> String) -> Self {
        if apic_ids > XAPIC_CPUS {
            Self { version: X2APIC, purpose: purpose() }
        } else {
            Self { version: OLDEST, purpose: "killifish".to_owned() }
        }
    }
}

/// A QEMU that does what is needed; set up where there is none. `say` is told what is done.
///
/// # Errors
/// There is none and it cannot be installed, or it is too old and no newer one is to be had; the error has the
/// commands for people.
pub fn ensure(need: &Need, say: &mut dyn FnMut(&str)) -> Result<Qemu> {
    ensure_with(&Qemu::program(), need, Rights::here, say)
}

fn ensure_with(
    program: &Path,
    need: &Need,
    rights: impl FnOnce() -> Rights,
    say: &mut dyn FnMut(&str),
) -> Result<Qemu> {
    let found = Qemu::find(program)?;
    if let Some(qemu) = &found
        && qemu.version >= need.version
    {
        return Ok(qemu.clone());
    }
    // A program named by the user is the user's to replace, and so is one outside the path.
    let ours = program == Path::new(crate::qemu::PROGRAM);
    let manager = MANAGERS.iter().find(|manager| on_path(manager.program));
    let plan = manager.filter(|_| ours).and_then(|manager| plan(manager, need));
    let refusal = |found: Option<Qemu>| match found {
        None if !ours => Error::QemuNotThere { program: program.display().to_string() },
        None => Error::QemuMissing { program: program.display().to_string(), how: instructions() },
        Some(qemu) => Error::QemuTooOld {
            found: qemu.version,
            needed: need.version,
            purpose: need.purpose.clone(),
            how: instructions(),
        },
    };
    let Some(plan) = plan else { return Err(refusal(found)) };
    let rights = rights();
    if rights == Rights::None {
        return Err(refusal(found));
    }
    match &found {
        None => say("QEMU is missing. Installing it:"),
        Some(qemu) => {
            say(&format!("QEMU {} is too old for {}. Installing a newer one:", qemu.version, need.purpose))
        }
    }
    plan.run(rights, say)?;
    match Qemu::find(program)? {
        Some(qemu) if qemu.version >= need.version => {
            say(&format!("QEMU {} is ready.", qemu.version));
            Ok(qemu)
        }
        None => Err(Error::SetupFailed {
            command: plan.commands.join(" && "),
            status: format!("success, but {} is still not on the path", program.display()),
        }),
        found => Err(refusal(found)),
    }
}

/// The commands for people, by distribution.
#[must_use]
pub fn instructions() -> String {
    let mut text = "Install it with:".to_owned();
    for manager in MANAGERS {
        let commands: Vec<String> = manager.commands.iter().map(|c| format!("sudo {c}")).collect();
        text.push_str(&format!("\n  {:15} {}", manager.distributions, commands.join(" && ")));
    }
    text.push_str("\nMore than 255 vCPUs need QEMU 9.0; Debian 12 has it in bookworm-backports.");
    text
}

/// Commands to run, and a directory of package sources that they alone use.
#[derive(Debug)]
struct Plan {
    commands: Vec<String>,
    sources: Option<Sources>,
}

/// Package sources for one installation, removed with this.
#[derive(Debug)]
struct Sources {
    directory: PathBuf,
}

impl Drop for Sources {
    fn drop(&mut self) {
        // Nothing reads it any more; left behind it is a few lines in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// How to get what is needed by that manager; `None` where it does not have it.
fn plan(manager: &Manager, need: &Need) -> Option<Plan> {
    let usual = || manager.commands.iter().map(|&command| command.to_owned()).collect();
    if manager.program != "apt-get" || need.version <= OLDEST {
        return Some(Plan { commands: usual(), sources: None });
    }
    if !needs_backports(&std::fs::read_to_string("/etc/os-release").ok()?) {
        return Some(Plan { commands: usual(), sources: None });
    }
    let entries = entries(&system_sources());
    let known = entries.iter().any(|(_, suite)| suite == BACKPORTS);
    let sources = match known {
        true => None,
        false => {
            // The backports lie where the release itself comes from; without that we know no place.
            let (mirror, _) = entries.iter().find(|(_, suite)| suite == OLD_RELEASE)?;
            let line = format!("deb {mirror} {BACKPORTS} main\n");
            Some(Sources::with(&line).ok()?)
        }
    };
    let options = match &sources {
        Some(sources) => format!(" -o Dir::Etc::SourceParts={}", sources.directory.display()),
        None => String::new(),
    };
    let fill = |command: &str| command.replace("{options}", &options).replace("{suite}", BACKPORTS);
    let mut commands = FROM_SUITE.map(fill).to_vec();
    if sources.is_some() {
        // Forget the lists of the backports again.
        commands.push("apt-get update".to_owned());
    }
    Some(Plan { commands, sources })
}

/// The text of apt's sources, one file after the other.
fn system_sources() -> String {
    let parts = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let parts = parts.map(|entry| entry.path()).filter(|path| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    });
    let files = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(parts);
    files.filter_map(|path| std::fs::read_to_string(path).ok()).collect::<Vec<_>>().join("\n\n")
}

/// The mirror and suite of each package source, in the form of one line or of a paragraph (sources.list(5)).
fn entries(text: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    for paragraph in text.split("\n\n") {
        let field =
            |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        for mirror in field("URIs:").split_whitespace() {
            for suite in field("Suites:").split_whitespace() {
                entries.push((mirror.to_owned(), suite.to_owned()));
            }
        }
        for line in paragraph.lines().filter_map(|line| line.strip_prefix("deb ")) {
            // Options stand in brackets before the mirror.
            let rest =
                line.trim_start().strip_prefix('[').and_then(|l| l.split_once(']')).map_or(line, |l| l.1);
            if let [mirror, suite, ..] = rest.split_whitespace().collect::<Vec<_>>()[..] {
                entries.push((mirror.to_owned(), suite.to_owned()));
            }
        }
    }
    entries
}

/// Whether this is the Debian whose own QEMU is too old for the x2APIC.
fn needs_backports(os_release: &str) -> bool {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"'))
    };
    value("ID") == Some("debian") && value("VERSION_CODENAME") == Some(OLD_RELEASE)
}

impl Sources {
    /// The system's additional sources, and `line` beside them.
    fn with(line: &str) -> std::io::Result<Self> {
        let name = format!("killifish-sources-{}", std::process::id());
        let sources = Self { directory: std::env::temp_dir().join(name) };
        std::fs::create_dir(&sources.directory)?;
        let system = Path::new("/etc/apt/sources.list.d");
        for entry in std::fs::read_dir(system).into_iter().flatten().flatten() {
            std::fs::copy(entry.path(), sources.directory.join(entry.file_name()))?;
        }
        std::fs::write(sources.directory.join("killifish-backports.list"), line)?;
        Ok(sources)
    }
}

impl Plan {
    /// Runs the commands, each said before.
    fn run(&self, rights: Rights, say: &mut dyn FnMut(&str)) -> Result<()> {
        if let Some(sources) = &self.sources {
            say(&format!(
                "  (with Debian's backports for these commands only, from {})",
                sources.directory.display()
            ));
        }
        for line in &self.commands {
            let words: Vec<&str> = line.split(' ').collect();
            let mut command = match rights {
                Rights::Root | Rights::None => Command::new(words[0]),
                Rights::Sudo => {
                    let mut command = Command::new("sudo");
                    command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", words[0]]);
                    command
                }
            };
            command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
            let shown = if rights == Rights::Sudo { format!("sudo {line}") } else { line.clone() };
            say(&format!("  {shown}"));
            let output =
                command.output().map_err(|source| Error::Start { program: words[0].to_owned(), source })?;
            if !output.status.success() {
                for line in String::from_utf8_lossy(&output.stderr).lines() {
                    say(&format!("    {line}"));
                }
                return Err(Error::SetupFailed { command: shown, status: output.status.to_string() });
            }
        }
        Ok(())
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::machine::MachineOptions;

    /// A program that answers as a QEMU of that version.
    fn fake(dir: &Path, version: &str) -> PathBuf {
        let path = dir.join("qemu");
        std::fs::write(&path, format!("#!/bin/sh\necho 'QEMU emulator version {version} (fake)'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn try_with(program: &Path, cpus: u32) -> Result<Qemu> {
        let never = || -> Rights { panic!("a program named by the user is never replaced") };
        ensure_with(program, &Need::of_cpus(cpus), never, &mut |_| {})
    }

    #[test]
    fn a_qemu_that_will_do_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let program = fake(dir.path(), "7.2.0");
        assert_eq!(try_with(&program, 8).unwrap().version, OLDEST);
    }

    #[test]
    fn an_old_qemu_is_named_with_what_needs_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let message = try_with(&fake(dir.path(), "6.2.0"), 8).unwrap_err().to_string();
        assert!(
            message.starts_with("QEMU 6.2.0 is too old: killifish needs 7.2.0 or later.\nInstall it"),
            "{message}"
        );
        let message = try_with(&fake(dir.path(), "7.2.0"), 288).unwrap_err().to_string();
        let start = "QEMU 7.2.0 is too old: a machine with 288 vCPUs needs 9.0.0 or later.\nInstall it";
        assert!(message.starts_with(start), "{message}");
    }

    #[test]
    fn identifiers_decide_what_a_machine_needs() {
        let need = |accel, numa: &str| {
            let options = MachineOptions {
                numa: Some(numa.parse().unwrap()),
                accel: Some(accel),
                ..MachineOptions::default()
            };
            Need::of(&Machine::new(&options).unwrap())
        };
        assert_eq!(need(Accel::Tcg, "2x120").version, OLDEST);
        let wide = need(Accel::Tcg, "3x80");
        assert_eq!((wide.version, &*wide.purpose), (X2APIC, "a machine with 240 vCPUs on 3 nodes"));
        assert_eq!(need(Accel::Kvm, "3x80").version, OLDEST);
    }

    #[test]
    fn a_qemu_that_the_environment_names_is_not_installed() {
        assert_eq!(
            try_with(Path::new("/nonexistent/qemu"), 8).unwrap_err().to_string(),
            "KILLIFISH_QEMU=/nonexistent/qemu: there is no such program; name another QEMU, or unset the variable \
             to use qemu-system-x86_64 on the path"
        );
    }

    #[test]
    fn a_missing_qemu_comes_with_every_distributions_command() {
        let missing = Error::QemuMissing { program: crate::qemu::PROGRAM.to_owned(), how: instructions() };
        let message = missing.to_string();
        assert!(message.starts_with("QEMU is missing (qemu-system-x86_64 was not found)"), "{message}");
        for line in [
            "\n  Debian, Ubuntu  sudo apt-get update && sudo apt-get install -y --no-install-recommends qemu-system-x86",
            "\n  Fedora          sudo dnf install -y",
            "\n  Arch            sudo pacman -Sy --noconfirm qemu-system-x86",
            "\n  openSUSE        sudo zypper --non-interactive install",
            "\n  Alpine          sudo apk add qemu-system-x86_64",
        ] {
            assert!(message.contains(line), "{message}");
        }
    }

    #[test]
    fn only_debian_12_needs_its_backports() {
        let release = |id: &str, codename: &str| format!("NAME=x\nID={id}\nVERSION_CODENAME={codename}\n");
        assert!(needs_backports(&release("debian", "bookworm")));
        assert!(needs_backports(&release("debian", "\"bookworm\"")));
        assert!(!needs_backports(&release("debian", "trixie")));
        assert!(!needs_backports(&release("ubuntu", "noble")));
        assert!(!needs_backports(""));
    }

    #[test]
    fn both_forms_of_package_sources_are_read() {
        let text = "# deb http://old bookworm main\ndeb [arch=amd64 signed-by=/k] http://a bookworm main contrib\n\
                    deb http://b bookworm-backports main\n\n\
                    Types: deb\nURIs: http://c http://d\nSuites: bookworm bookworm-updates\nComponents: main\n";
        let expected = [
            ("http://c", "bookworm"),
            ("http://c", "bookworm-updates"),
            ("http://d", "bookworm"),
            ("http://d", "bookworm-updates"),
        ];
        let lines = [("http://a", "bookworm"), ("http://b", "bookworm-backports")];
        let all: Vec<_> =
            lines.iter().chain(&expected).map(|(m, s)| ((*m).to_owned(), (*s).to_owned())).collect();
        assert_eq!(entries(text), all);
    }

    #[test]
    fn a_failing_command_is_said_and_named() {
        let plan =
            Plan { commands: vec!["true".into(), "false x".into(), "unreached".into()], sources: None };
        let mut said = Vec::new();
        let error = plan.run(Rights::Root, &mut |line| said.push(line.to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "setting up QEMU failed: `false x` ended with exit status: 1");
        assert_eq!(said, ["  true", "  false x"]);
    }
}
