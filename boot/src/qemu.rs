//! QEMU: which one there is, what it can do, and the command that starts a machine.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write as _;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use results::{Accel, DEBUG_EXIT_PORT, PANIC_PORT};

use crate::machine::Machine;
use crate::{Error, Result};

/// The program's name where nothing else is said.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The environment variable that names another program.
pub const PROGRAM_VARIABLE: &str = "KILLIFISH_QEMU";

/// The oldest QEMU that we use.
pub const OLDEST: Version = Version { major: 7, minor: 2, micro: 0 };

/// The first QEMU whose TCG has the x2APIC, so that more than [`XAPIC_CPUS`] vCPUs start.
pub const X2APIC: Version = Version { major: 9, minor: 0, micro: 0 };

/// The first QEMU that stops where the guest ends it by isa-debug-exit, so that its cores can still be looked at.
/// Earlier ones exit at once.
pub const STOPS_AT_EXIT: Version = Version { major: 8, minor: 1, micro: 0 };

/// vCPUs that an xAPIC's 8-bit identifiers allow; 255 is the broadcast.
pub const XAPIC_CPUS: u32 = 255;

/// The first QEMU whose TCG executes IRET in ring 3 under SMAP. Before, it reads the stack with the rights of the
/// kernel, which SMAP denies, and a domain that returns from an upcall faults.
pub const USER_IRET: Version = Version { major: 9, minor: 1, micro: 0 };

/// Features that the OS uses where a CPU has them, so that TCG's set is the same in every QEMU that has them.
const PINNED: &str = "fsgsbase=on,smep=on,umip=on,nx=on,xsave=on,xsaveopt=on,avx2=on,la57=off";

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Its first number.
    pub major: u32,
    /// Its second number.
    pub minor: u32,
    /// Its third number.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl Version {
    /// Reads what `--version` prints.
    fn parse(output: &str) -> Option<Self> {
        let words = output.strip_prefix("QEMU emulator version ")?;
        let end = words.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(words.len());
        let mut numbers = words[..end].split('.').map(str::parse);
        let mut next = || numbers.next().transpose().ok().flatten();
        Some(Self { major: next()?, minor: next()?, micro: next().unwrap_or(0) })
    }
}

/// A QEMU on this machine.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
}

impl Qemu {
    /// The program to use: [`PROGRAM_VARIABLE`]'s, or [`PROGRAM`] on the path.
    #[must_use]
    pub fn program() -> PathBuf {
        std::env::var_os(PROGRAM_VARIABLE).map_or_else(|| PathBuf::from(PROGRAM), PathBuf::from)
    }

    /// Asks `program` for its version; `None` where there is no such program.
    ///
    /// # Errors
    /// It cannot be started, or does not answer as QEMU does.
    pub fn find(program: &Path) -> Result<Option<Self>> {
        let output = match Command::new(program).arg("--version").stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Start { program: program.display().to_string(), source }),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        match Version::parse(&text) {
            Some(version) => Ok(Some(Self { program: program.to_owned(), version })),
            None => Err(Error::QemuVersion {
                program: program.display().to_string(),
                output: text.lines().next().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// Checks that this QEMU starts as many vCPUs as the machine has.
    ///
    /// # Errors
    /// It does not, or cannot be asked.
    pub fn check_cpus(&self, machine: &Machine) -> Result<()> {
        if machine.cpus <= XAPIC_CPUS {
            return Ok(());
        }
        let has_x2apic = self.version >= X2APIC || machine.accel == Accel::Kvm;
        let limit = if has_x2apic { self.most_cpus()? } else { XAPIC_CPUS };
        if machine.cpus > limit {
            return Err(Error::TooManyCpus { asked: machine.cpus, limit, version: self.version });
        }
        Ok(())
    }

    /// The most vCPUs of its q35 machine, from its own description.
    fn most_cpus(&self) -> Result<u32> {
        let start = |source| Error::Start { program: self.program.display().to_string(), source };
        let mut child = Command::new(&self.program)
            .args(["-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(start)?;
        let commands = ["qmp_capabilities", "query-machines", "quit"]
            .map(|command| format!("{{\"execute\":\"{command}\"}}\n"))
            .concat();
        if let Some(stdin) = &mut child.stdin {
            stdin.write_all(commands.as_bytes()).map_err(start)?;
        }
        let output = child.wait_with_output().map_err(start)?;
        let limit = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|answer| answer.get("return")?.as_array().cloned())
            .flatten()
            .find(|m| m.get("alias").and_then(|alias| alias.as_str()) == Some("q35"))
            .and_then(|m| m.get("cpu-max")?.as_u64());
        Ok(limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(XAPIC_CPUS))
    }
}

/// The files that a machine boots from.
#[derive(Debug, Clone, Copy)]
pub struct BootFiles<'a> {
    /// The CPU driver's image.
    pub kernel: &'a Path,
    /// The boot archive.
    pub archive: &'a Path,
}

/// Where the guest's serial ports and QEMU's monitor go.
#[derive(Debug, Clone, Copy)]
pub enum Wiring<'a> {
    /// To sockets that QEMU inherits.
    Captured {
        /// The console.
        console: RawFd,
        /// The results.
        results: RawFd,
        /// The monitor, speaking QMP.
        monitor: RawFd,
    },
    /// Console and monitor on the terminal, switched by Ctrl-A C; results into a file.
    Terminal {
        /// The results.
        results: &'a Path,
    },
}

/// A debugger that the machine waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debugger {
    /// The TCP port on the loopback interface that it can attach to.
    pub port: u16,
}

/// A command, word by word, that prints as a shell would read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The program, then its arguments.
    pub words: Vec<String>,
}

impl CommandLine {
    /// The command as `std` runs it.
    #[must_use]
    pub fn to_command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,:/%@^".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                write!(f, "{separator}{word}")?;
            } else {
                write!(f, "{separator}'{}'", word.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

/// The CPU model that the guest sees.
#[must_use]
pub fn cpu_model(machine: &Machine, version: Version) -> String {
    match machine.accel {
        Accel::Kvm => "max,la57=off".to_owned(),
        _ => {
            let smap = if version < USER_IRET { "off" } else { "on" };
            // To ask a TCG for an x2APIC that it does not have gives a warning in every run.
            let x2apic = if version < X2APIC { "" } else { ",x2apic=on" };
            format!("max,{PINNED},smap={smap}{x2apic}")
        }
    }
}

/// The command that boots `machine` with these files and this guest command line.
#[must_use]
pub fn command(
    qemu: &Qemu,
    machine: &Machine,
    files: BootFiles<'_>,
    guest_words: &[String],
    wiring: Wiring<'_>,
    debugger: Option<Debugger>,
) -> CommandLine {
    let mut words = vec![text(qemu.program.as_os_str())];
    let mut push = |option: &str, value: String| {
        words.push(option.to_owned());
        if !value.is_empty() {
            words.push(value);
        }
    };
    // Nothing that we did not ask for: no user's configuration, no default devices, no window.
    push("-no-user-config", String::new());
    push("-nodefaults", String::new());
    push("-display", "none".into());
    let hmat = if machine.has_hmat() { ",hmat=on" } else { "" };
    push("-machine", format!("q35,vmport=off,smm=off,hpet=off,usb=off,sata=off{hmat}"));
    match machine.accel {
        // One thread runs the vCPUs in turn, one tick of virtual time is one instruction, and an idle machine
        // skips to its next timer.
        Accel::Icount => {
            push("-accel", "tcg,thread=single".into());
            push("-icount", "shift=0,sleep=off".into());
        }
        Accel::Kvm => push("-accel", "kvm".into()),
        Accel::Tcg | Accel::Native => push("-accel", "tcg,thread=multi".into()),
    }
    push("-cpu", cpu_model(machine, qemu.version));
    push("-smp", format!("{},{}", machine.cpus, machine.smp));
    push("-m", format!("{}M", machine.memory_mib));
    for (option, value) in &machine.numa {
        push(option, value.clone());
    }
    // The same date and the same random numbers in every run.
    push("-rtc", "clock=vm,base=2000-01-01".into());
    push("-seed", machine.seed.to_string());
    push("-kernel", text(files.kernel.as_os_str()));
    push("-initrd", text(files.archive.as_os_str()));
    push("-append", guest_words.join(" "));
    match wiring {
        Wiring::Captured { console, results, monitor } => {
            push("-chardev", format!("socket,id=console,fd={console}"));
            push("-serial", "chardev:console".into());
            push("-chardev", format!("socket,id=results,fd={results}"));
            push("-serial", "chardev:results".into());
            push("-chardev", format!("socket,id=monitor,fd={monitor}"));
            push("-mon", "chardev=monitor,mode=control".into());
            // A panic or a triple fault leaves the machine stopped in the act, for us to look at.
            push("-action", "reboot=shutdown,shutdown=pause,panic=pause".into());
            push("-device", format!("pvpanic,ioport={PANIC_PORT}"));
        }
        Wiring::Terminal { results } => {
            push("-chardev", "stdio,id=console,mux=on,signal=on".into());
            push("-serial", "chardev:console".into());
            push("-mon", "chardev=console,mode=readline".into());
            push(
                "-chardev",
                format!("file,id=results,path={}", text(results.as_os_str()).replace(',', ",,")),
            );
            push("-serial", "chardev:results".into());
            push("-action", "reboot=shutdown".into());
        }
    }
    push("-device", format!("isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=0x4"));
    if let Some(Debugger { port }) = debugger {
        push("-gdb", format!("tcp:127.0.0.1:{port}"));
        push("-S", String::new());
    }
    CommandLine { words }
}

fn text(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::MachineOptions;

    const V7: Version = Version { major: 7, minor: 2, micro: 17 };
    const V10: Version = Version { major: 10, minor: 0, micro: 2 };

    fn qemu(version: Version) -> Qemu {
        Qemu { program: PROGRAM.into(), version }
    }

    fn printed(version: Version, options: &MachineOptions, debugger: Option<Debugger>) -> String {
        let files = BootFiles { kernel: Path::new("/k/cpudriver"), archive: Path::new("/k/boot archive") };
        let machine = Machine::new(options).unwrap();
        let words = ["cpus=8".to_owned(), "bench=syscall".to_owned()];
        let wiring = Wiring::Captured { console: 5, results: 6, monitor: 7 };
        command(&qemu(version), &machine, files, &words, wiring, debugger).to_string()
    }

    #[test]
    fn versions_are_read_from_what_qemu_prints() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright";
        assert_eq!(Version::parse(debian), Some(V10));
        assert_eq!(Version::parse("QEMU emulator version 7.2.17\n"), Some(V7));
        let candidate = Version { major: 9, minor: 0, micro: 50 };
        assert_eq!(Version::parse("QEMU emulator version 9.0.50-v9-rc1"), Some(candidate));
        assert_eq!(Version::parse("QEMU emulator version x"), None);
        assert_eq!(Version::parse("something else 1.2.3"), None);
        assert!(V7 < X2APIC && X2APIC < V10);
    }

    #[test]
    fn the_standard_lab_is_deterministic() {
        assert_eq!(
            printed(V10, &MachineOptions::default(), None),
            "qemu-system-x86_64 -no-user-config -nodefaults -display none \
             -machine q35,vmport=off,smm=off,hpet=off,usb=off,sata=off \
             -accel tcg,thread=single -icount shift=0,sleep=off \
             -cpu max,fsgsbase=on,smep=on,umip=on,nx=on,xsave=on,xsaveopt=on,avx2=on,la57=off,smap=on,x2apic=on \
             -smp 8,sockets=2,cores=4,threads=1 -m 1024M \
             -object memory-backend-ram,id=ram0,size=512M -object memory-backend-ram,id=ram1,size=512M \
             -numa node,nodeid=0,cpus=0-3,memdev=ram0 -numa node,nodeid=1,cpus=4-7,memdev=ram1 \
             -numa dist,src=0,dst=1,val=20 -rtc clock=vm,base=2000-01-01 -seed 1 \
             -kernel /k/cpudriver -initrd '/k/boot archive' -append 'cpus=8 bench=syscall' \
             -chardev socket,id=console,fd=5 -serial chardev:console \
             -chardev socket,id=results,fd=6 -serial chardev:results \
             -chardev socket,id=monitor,fd=7 -mon chardev=monitor,mode=control \
             -action reboot=shutdown,shutdown=pause,panic=pause -device pvpanic,ioport=1285 \
             -device isa-debug-exit,iobase=0xf4,iosize=0x4"
        );
    }

    #[test]
    fn accelerators_differ_in_their_options_only() {
        let with = |accel| MachineOptions { accel: Some(accel), ..MachineOptions::default() };
        let tcg = printed(V10, &with(Accel::Tcg), None);
        assert!(
            tcg.contains(" -accel tcg,thread=multi -cpu max,fsgsbase") && !tcg.contains("icount"),
            "{tcg}"
        );
        let kvm = printed(V10, &with(Accel::Kvm), None);
        assert!(kvm.contains(" -accel kvm -cpu max,la57=off -smp"), "{kvm}");
        let old = printed(V7, &MachineOptions::default(), None);
        assert!(!old.contains("x2apic"), "TCG before 9.0 has none: {old}");
        assert!(old.contains(",smap=off "), "TCG before 9.1 mistakes IRET in ring 3: {old}");
    }

    #[test]
    fn a_debugger_finds_the_machine_stopped() {
        let waiting = printed(V10, &MachineOptions::default(), Some(Debugger { port: 1234 }));
        assert!(waiting.ends_with(" -gdb tcp:127.0.0.1:1234 -S"), "{waiting}");
    }

    #[test]
    fn words_are_quoted_as_a_shell_reads_them() {
        let line = CommandLine { words: ["a", "b c", "", "it's", "x=1,y:/z"].map(str::to_owned).to_vec() };
        assert_eq!(line.to_string(), r"a 'b c' '' 'it'\''s' x=1,y:/z");
    }

    #[test]
    fn old_versions_start_no_more_than_255() {
        let many = MachineOptions { cpus: Some(288), ..MachineOptions::default() };
        let machine = Machine::new(&many).unwrap();
        let refusal = qemu(V7).check_cpus(&machine).unwrap_err().to_string();
        assert!(refusal.starts_with("--cpus 288: QEMU 7.2.17 starts at most 255 vCPUs here"), "{refusal}");
        assert!(qemu(V7).check_cpus(&Machine::new(&MachineOptions::default()).unwrap()).is_ok());
    }

    #[test]
    fn a_missing_program_is_none_and_a_strange_one_an_error() {
        assert!(Qemu::find(Path::new("/nonexistent/qemu")).unwrap().is_none());
        let strange = Qemu::find(&std::env::current_exe().unwrap());
        assert!(matches!(strange, Err(Error::QemuVersion { .. })), "{strange:?}");
        let error = Error::QemuVersion { program: "q".into(), output: "hello".into() };
        assert_eq!(error.to_string(), r#"q --version said "hello", which names no QEMU version"#);
    }
}
