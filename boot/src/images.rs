//! The images of the OS: built by a nested cargo, packed into the boot archive.
//!
//! The OS shares a target with this command but not its features, flags or profile, so it has a cargo of its
//! own: own target directory, explicit target, cleared `RUSTFLAGS`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use boot_archive::writer::Writer;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};
use results::anchors::BENCHES;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::Purpose;
use crate::interrupt::Interrupt;
use crate::qemu::BootFiles;
use crate::{Error, Result};

/// The packages whose binaries make up the OS. Each binary becomes a boot module of its name.
pub const PACKAGES: [&str; 8] =
    ["cpudriver", "init", "monitor", "console", "skb-service", "mem", "bench", "selftest"];

/// The binary that boots, and that further cores get their instances of.
const KERNEL: &str = "cpudriver";

/// The target of the OS: the host's, so that nothing needs to be installed for it.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The profile of the OS, in the workspace's `Cargo.toml`.
const PROFILE: &str = "os";

/// Back-traces follow frame pointers.
const FLAGS: &str = "-Cforce-frame-pointers=yes";

/// The boot module of a benchmark.
#[must_use]
pub fn bench_module(bench: &str) -> String {
    format!("bench_{bench}")
}

/// A binary of the OS, with its symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Its name, and its boot module's.
    pub name: String,
    /// The file that the linker wrote.
    pub path: PathBuf,
}

/// What a machine boots, and what is needed to understand it.
#[derive(Debug, Clone)]
pub struct Images {
    /// The CPU driver, for `-kernel`.
    pub kernel: PathBuf,
    /// The boot archive, for `-initrd`.
    pub archive: PathBuf,
    /// All binaries in the archive.
    pub binaries: Vec<Binary>,
    /// SHA-256 of the archive, in hexadecimal.
    pub hash: String,
}

/// Whether progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// On the terminal, or a line where there is none.
    Shown,
    /// Not at all.
    Hidden,
}

impl Images {
    /// The files that QEMU reads.
    #[must_use]
    pub fn files(&self) -> BootFiles<'_> {
        BootFiles { kernel: &self.kernel, archive: &self.archive }
    }

    /// Packs `binaries`, of which one must be the CPU driver, into the archive at `archive`.
    ///
    /// # Errors
    /// A binary cannot be read, or the archive not be written.
    pub fn pack(binaries: Vec<Binary>, archive: &Path) -> Result<Self> {
        let missing = |name: &str| Error::ImageMissing { name: name.to_owned() };
        let kernel = binaries.iter().find(|b| b.name == KERNEL).ok_or_else(|| missing(KERNEL))?.path.clone();
        let mut writer = Writer::new();
        for Binary { name, path } in &binaries {
            let bytes = std::fs::read(path).map_err(|source| Error::read(path, source))?;
            writer.add(name, strip(bytes))?;
        }
        let bytes = writer.finish();
        replace(archive, &bytes)?;
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { kernel, archive: archive.to_owned(), binaries, hash })
    }
}

/// The workspace that this command was built from.
///
/// # Errors
/// It is no longer there.
pub fn workspace() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match path.canonicalize() {
        Ok(path) if path.join("Cargo.toml").is_file() => Ok(path),
        _ => Err(Error::SourcesMissing { path }),
    }
}

/// Builds the OS, which takes a moment where nothing has changed, and packs it.
///
/// # Errors
/// The compiler is missing or finds errors, or there is no room.
pub fn build(progress: Progress, interrupt: &Interrupt) -> Result<Images> {
    let workspace = workspace()?;
    let target_dir = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::path::absolute(dir).unwrap_or_else(|_| workspace.join("target")).join("os"),
        None => workspace.join("target").join("os"),
    };
    // A directory that is there already says nothing about writing, and cargo's own words little.
    std::fs::create_dir_all(&target_dir)
        .and_then(|()| Ok(access(&target_dir, AccessFlags::W_OK)?))
        .map_err(|e| Error::write(Purpose::Build, &target_dir, e))?;
    let cargo = Cargo { workspace, target_dir };
    let binaries = cargo.build(progress, interrupt)?;
    for bench in BENCHES {
        let module = bench_module(bench.name);
        if !binaries.contains_key(&module) {
            return Err(Error::ImageMissing { name: module });
        }
    }
    let binaries = binaries.into_iter().map(|(name, path)| Binary { name, path }).collect();
    Images::pack(binaries, &cargo.target_dir.join("boot.archive"))
}

/// The nested cargo.
struct Cargo {
    workspace: PathBuf,
    target_dir: PathBuf,
}

impl Cargo {
    fn command(&self, subcommand: &str) -> Command {
        // Under `cargo run` this is the cargo of the same toolchain.
        let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(program);
        command.arg(subcommand).current_dir(&self.workspace).stdin(Stdio::null());
        // The encoded form wins over every other source of flags, configuration files included.
        command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", FLAGS);
        command
    }

    fn start_error(command: &Command, source: std::io::Error) -> Error {
        let program = command.get_program().to_string_lossy().into_owned();
        match source.kind() {
            // The path may also lead to somebody else's cargo.
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
                Error::CargoMissing { program, source }
            }
            _ => Error::Start { program, source },
        }
    }

    /// Builds the packages; the binaries by name.
    fn build(&self, progress: Progress, interrupt: &Interrupt) -> Result<BTreeMap<String, PathBuf>> {
        let bar = self.bar(progress);
        let mut command = self.command("build");
        command
            .args(["--bins", "--target", TARGET, "--profile", PROFILE])
            .args(["--message-format", "json-render-diagnostics"])
            .arg("--target-dir")
            .arg(&self.target_dir)
            .args(PACKAGES.iter().flat_map(|package| ["-p", package]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that the compilers can be stopped with it.
            .process_group(0);
        let mut child = Group(command.spawn().map_err(|source| Self::start_error(&command, source))?);

        let (sender, messages) = channel();
        if let Some(stdout) = child.0.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let stderr = child.0.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                // What came before an error is all there is to show.
                let _ = stderr.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });

        let mut artifacts = Artifacts::default();
        loop {
            interrupt.check()?;
            match messages.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    if let Some(name) = artifacts.take(&line) {
                        bar.set_position(artifacts.packages.len() as u64);
                        bar.set_message(name);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.0.wait().map_err(|source| Self::start_error(&command, source))?;
        bar.finish_and_clear();
        if !status.success() {
            let stderr = stderr.and_then(|reader| reader.join().ok()).unwrap_or_default();
            if stderr.contains("No space left on device") {
                return Err(Error::NoRoom { path: self.target_dir.clone() });
            }
            return Err(Error::BuildFailed { stderr: stderr.trim_end().to_owned() });
        }
        Ok(artifacts.binaries)
    }

    /// The progress bar; where the number of packages is not known, a spinner.
    fn bar(&self, progress: Progress) -> ProgressBar {
        if progress == Progress::Hidden {
            return ProgressBar::hidden();
        }
        let bar = match self.package_count() {
            Some(count) => {
                ProgressBar::new(count as u64).with_style(style("Building {bar:30} {pos}/{len} {msg}"))
            }
            None => ProgressBar::new_spinner().with_style(style("Building {spinner} {msg}")),
        };
        if bar.is_hidden() {
            eprintln!("Building the OS");
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// How many packages the OS is built from, its own included.
    fn package_count(&self) -> Option<usize> {
        let mut command = self.command("metadata");
        command.args(["--format-version", "1", "--filter-platform", TARGET]).stderr(Stdio::null());
        let output = command.output().ok()?;
        count_packages(&serde_json::from_slice(&output.stdout).ok()?)
    }
}

/// A cargo whose whole process group is ended with it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // Fails only where the group has just ended.
            let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
            let _ = self.0.wait();
        }
    }
}

/// What cargo has reported.
#[derive(Debug, Default)]
struct Artifacts {
    packages: BTreeSet<String>,
    binaries: BTreeMap<String, PathBuf>,
}

impl Artifacts {
    /// Takes a line of cargo's; the name of the package that is ready, if it says so.
    fn take(&mut self, line: &str) -> Option<String> {
        let message: Value = serde_json::from_str(line).ok()?;
        if message.get("reason")?.as_str()? != "compiler-artifact" {
            return None;
        }
        let target = message.get("target")?;
        let is = |kind: &str| {
            target.get("kind").and_then(Value::as_array).is_some_and(|kinds| kinds.iter().any(|k| k == kind))
        };
        if is("custom-build") {
            return None;
        }
        let name = target.get("name")?.as_str()?.to_owned();
        if is("bin")
            && let Some(path) = message.get("executable").and_then(Value::as_str)
        {
            self.binaries.insert(name.clone(), PathBuf::from(path));
        }
        self.packages.insert(message.get("package_id")?.as_str()?.to_owned());
        Some(name)
    }
}

/// The packages that [`PACKAGES`] need, from `cargo metadata`, themselves included.
fn count_packages(metadata: &Value) -> Option<usize> {
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in metadata.get("resolve")?.get("nodes")?.as_array()? {
        let mut deps = Vec::new();
        for dep in node.get("deps")?.as_array()? {
            let kinds = dep.get("dep_kinds")?.as_array()?;
            if kinds.iter().any(|kind| kind.get("kind").is_some_and(|kind| kind != "dev")) {
                deps.push(dep.get("pkg")?.as_str()?);
            }
        }
        needs.insert(node.get("id")?.as_str()?, deps);
    }
    let mut open = Vec::new();
    for package in metadata.get("packages")?.as_array()? {
        if PACKAGES.contains(&package.get("name")?.as_str()?) {
            open.push(package.get("id")?.as_str()?);
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(needs.get(id).into_iter().flatten());
        }
    }
    Some(seen.len())
}

/// A style of ours; indicatif's own where it is wrong, which the tests exclude.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// An ELF64 file without what follows its last segment: sections, symbols, debug information. What is no ELF64
/// file is left as it is, for its reader to refuse.
fn strip(mut bytes: Vec<u8>) -> Vec<u8> {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    // ELF-64 Object File Format 1.5, figure 2: e_shoff, then e_shentsize to e_shstrndx.
    const SECTION_OFFSET: std::ops::Range<usize> = 0x28..0x30;
    const SECTION_COUNTS: std::ops::Range<usize> = 0x3a..0x40;
    let end = (|| {
        let header = object::elf::FileHeader64::<object::LittleEndian>::parse(&*bytes).ok()?;
        let segments = header.program_headers(object::LittleEndian, &*bytes).ok()?;
        let ends = segments
            .iter()
            .map(|s| s.p_offset(object::LittleEndian).checked_add(s.p_filesz(object::LittleEndian)));
        let table = header.e_phoff.get(object::LittleEndian)
            + u64::from(header.e_phentsize.get(object::LittleEndian)) * segments.len() as u64;
        let last = ends.collect::<Option<Vec<u64>>>()?.into_iter().max()?.max(table);
        usize::try_from(last).ok().filter(|&last| last <= bytes.len())
    })();
    if let Some(end) = end {
        bytes.truncate(end);
        bytes[SECTION_OFFSET].fill(0);
        bytes[SECTION_COUNTS].fill(0);
    }
    bytes
}

/// Puts `bytes` at `path` in one step, so that a guest being started never reads half a file; nothing is
/// written where they are there already.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let error = |source| Error::write(Purpose::Build, path, source);
    let fresh = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, path)).map_err(|source| {
        // Without room there may be half a file; it may also not be there at all.
        let _ = std::fs::remove_file(&fresh);
        error(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_are_told_from_other_messages() {
        let mut artifacts = Artifacts::default();
        let lib = r#"{"reason":"compiler-artifact","package_id":"a","target":{"kind":["lib"],"name":"core_a"},"executable":null}"#;
        let script = r#"{"reason":"compiler-artifact","package_id":"b","target":{"kind":["custom-build"],"name":"build-script-build"},"executable":null}"#;
        let bin = r#"{"reason":"compiler-artifact","package_id":"b","target":{"kind":["bin"],"name":"init"},"executable":"/t/init"}"#;
        assert_eq!(artifacts.take(lib).as_deref(), Some("core_a"));
        assert_eq!(artifacts.take(script), None);
        assert_eq!(artifacts.take(bin).as_deref(), Some("init"));
        for other in [r#"{"reason":"build-finished","success":true}"#, "not json", "{}"] {
            assert_eq!(artifacts.take(other), None);
        }
        assert_eq!(artifacts.binaries, BTreeMap::from([("init".to_owned(), PathBuf::from("/t/init"))]));
        assert_eq!(artifacts.packages.len(), 2);
    }

    #[test]
    fn packages_are_counted_without_what_only_tests_need() {
        let metadata = r#"{"packages":[{"name":"init","id":"i"},{"name":"tests","id":"t"}],"resolve":{"nodes":[
            {"id":"i","deps":[{"pkg":"a","dep_kinds":[{"kind":null}]},{"pkg":"p","dep_kinds":[{"kind":"dev"}]}]},
            {"id":"a","deps":[{"pkg":"b","dep_kinds":[{"kind":"build"},{"kind":"dev"}]}]},
            {"id":"b","deps":[]},{"id":"p","deps":[]},{"id":"t","deps":[]}]}}"#;
        assert_eq!(count_packages(&serde_json::from_str(metadata).unwrap()), Some(3));
        assert_eq!(count_packages(&Value::Null), None);
    }

    #[test]
    fn a_stripped_image_has_its_segments_and_no_sections() {
        use object::{Object as _, ObjectSegment as _};
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let stripped = strip(whole.clone());
        assert!(stripped.len() < whole.len());
        let (before, after) =
            (object::File::parse(&*whole).unwrap(), object::File::parse(&*stripped).unwrap());
        assert_eq!((before.entry(), after.sections().count()), (after.entry(), 0));
        assert_eq!(before.segments().count(), after.segments().count());
        for (old, new) in before.segments().zip(after.segments()) {
            assert_eq!((old.address(), old.size()), (new.address(), new.size()));
            // The file's own header, which names the sections, may be loaded too.
            let header = if old.file_range().0 == 0 { 64 } else { 0 };
            assert!(
                old.data().unwrap()[header..] == new.data().unwrap()[header..],
                "at {:#x}",
                old.address()
            );
        }
        assert_eq!(strip(b"no ELF".to_vec()), b"no ELF");
    }

    #[test]
    fn an_archive_without_a_cpu_driver_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Images::pack(vec![], &dir.path().join("archive")).unwrap_err().to_string();
        assert_eq!(error, r#"the build made no image "cpudriver": is it still a binary of the workspace?"#);
    }

    #[test]
    fn the_same_binaries_make_the_same_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, b"image").unwrap();
        let archive = dir.path().join("archive");
        let pack =
            || Images::pack(vec![Binary { name: KERNEL.into(), path: path.clone() }], &archive).unwrap();
        let first = pack();
        let written = std::fs::metadata(&archive).unwrap().modified().unwrap();
        assert_eq!(pack().hash, first.hash);
        assert_eq!(std::fs::metadata(&archive).unwrap().modified().unwrap(), written, "it was written again");
        let bytes = std::fs::read(&archive).unwrap();
        assert_eq!(boot_archive::Archive::parse(&bytes).unwrap().get(KERNEL).unwrap().bytes, b"image");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "a temporary file is left");
    }

    #[test]
    fn styles_are_right() {
        for template in ["Building {bar:30} {pos}/{len} {msg}", "Building {spinner} {msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
