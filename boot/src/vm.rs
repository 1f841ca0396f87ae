//! One QEMU process: started so that it never outlives us, wired to sockets that leave nothing behind.

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use crate::qemu::{CommandLine, Wiring};
use crate::{Error, Result};

/// Our ends of a captured machine's serial ports and monitor.
#[derive(Debug)]
pub struct Ports {
    /// The console.
    pub console: UnixStream,
    /// The results.
    pub results: UnixStream,
    /// The monitor, speaking QMP.
    pub monitor: UnixStream,
}

/// A running QEMU. It is killed and reaped when this is dropped, and when the thread that started it ends in
/// whatever way: the kernel sees to that, so even SIGKILL leaves none behind.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    stderr: Option<JoinHandle<String>>,
}

/// Both ends of the three sockets.
struct Sockets {
    ours: Ports,
    theirs: [UnixStream; 3],
}

impl Sockets {
    fn new() -> io::Result<Self> {
        let (console, console_qemu) = UnixStream::pair()?;
        let (results, results_qemu) = UnixStream::pair()?;
        let (monitor, monitor_qemu) = UnixStream::pair()?;
        let ours = Ports { console, results, monitor };
        Ok(Self { ours, theirs: [console_qemu, results_qemu, monitor_qemu] })
    }
}

impl Vm {
    /// Starts a machine whose ports we hold; `command` makes the command for the wiring it is given.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_captured(command: impl FnOnce(Wiring<'_>) -> CommandLine) -> Result<(Self, Ports)> {
        let failed = |source| Error::Start { program: "QEMU".to_owned(), source };
        let Sockets { ours, theirs } = Sockets::new().map_err(failed)?;
        let [console, results, monitor] = theirs.each_ref().map(AsRawFd::as_raw_fd);
        let line = command(Wiring::Captured { console, results, monitor });
        let mut command = line.to_command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A group of its own: Ctrl-C is for us, and we stop the machine in order.
        command.process_group(0);
        let mut vm = Self::spawn(command, &line, vec![console, results, monitor])?;
        // Only QEMU may hold the other ends, or we would never see them close.
        drop(theirs);
        vm.stderr = vm.child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                // What came before an error is all there is to show.
                let _ = stderr.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        Ok((vm, ours))
    }

    /// Starts a machine on our terminal.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_on_terminal(line: &CommandLine) -> Result<Self> {
        Self::spawn(line.to_command(), line, Vec::new())
    }

    /// Spawns `command` with `inherited` left open in it.
    fn spawn(mut command: std::process::Command, line: &CommandLine, inherited: Vec<RawFd>) -> Result<Self> {
        let parent = getpid();
        // SAFETY: between fork and exec the closure only makes the system calls fcntl, prctl and getppid, all
        // async-signal-safe; it neither allocates nor takes a lock, and it captures nothing that is dropped there.
        unsafe {
            command.pre_exec(move || prepare_child(&inherited, parent));
        }
        let child =
            command.spawn().map_err(|source| Error::Start { program: line.words[0].clone(), source })?;
        Ok(Self { child, stderr: None })
    }

    /// QEMU's exit status, if it has ended.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits up to `limit` for QEMU to end by itself; kills it then.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.kill();
        self.child.wait()
    }

    /// Kills and reaps QEMU; nothing happens where it has ended.
    pub fn kill(&mut self) {
        // Both fail only where the process is reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What QEMU wrote to its standard error; it must have ended.
    pub fn stderr(&mut self) -> String {
        self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the child, before it becomes QEMU: keep the sockets open over exec, and die with the parent.
fn prepare_child(inherited: &[RawFd], parent: Pid) -> io::Result<()> {
    for &fd in inherited {
        // SAFETY: the parent keeps its copy of this descriptor open until after the exec, so ours is open too.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the line above, and its signal with it.
    if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}
