//! One run of a guest: from starting QEMU to its exit code, watched for panics, hangs and time-outs.

use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use results::host::{Line, LineError};
use results::{EventKind, GuestExit};

use crate::diagnose::{self, CONSOLE_LINES, Core, Failure, Registers};
use crate::images::Images;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::qemu::{self, Qemu, Wiring};
use crate::qmp::{self, Qmp, QmpError};
use crate::symbols::Symbols;
use crate::vm::{Ports, Vm};
use crate::{Error, Result};

/// How often the loop looks at the clock and at signals when nothing arrives.
const TICK: Duration = Duration::from_millis(100);

/// A guest that has written nothing for so long is looked at. Before, it is left alone: a healthy run sees no
/// monitor command.
const QUIET: Duration = Duration::from_secs(2);

/// How often a quiet guest is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// So many looks in a row at the same halted cores make a hang.
const STUCK_LOOKS: u32 = 4;

/// How long output may still be on its way when the machine has stopped.
const DRAIN: Duration = Duration::from_millis(200);

/// How long QEMU may take to end after its sockets have closed, or after it was told to quit.
const END: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Debug)]
pub struct Job<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// What it boots.
    pub images: &'a Images,
    /// What emulates it.
    pub qemu: &'a Qemu,
    /// What to do: words of the guest's command line, such as `bench=…` or `scenario=…`. Without `exit=1` it does
    /// not end by itself.
    pub words: Vec<String>,
    /// How long it may take, on our clock.
    pub timeout: Duration,
    /// What ends it early.
    pub interrupt: &'a Interrupt,
}

/// Something that the guest wrote, as it comes.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'a> {
    /// A line on the console, without its end.
    Console(&'a str),
    /// A line of results.
    Line(&'a Line),
}

/// A run that ended with [`GuestExit::Success`].
#[derive(Debug)]
pub struct Outcome {
    /// All lines of results, in order.
    pub lines: Vec<Line>,
    /// The same lines as the guest wrote them, without their ends.
    pub raw_lines: Vec<String>,
    /// All lines of the console, in order.
    pub console: Vec<String>,
    /// The cores' registers at the end; none where QEMU ended before it could be asked.
    pub registers: Vec<(u32, Registers)>,
    /// How long it took, on our clock. Never a result.
    pub wall: Duration,
}

impl Job<'_> {
    /// The guest's whole command line.
    #[must_use]
    pub fn guest_words(&self) -> Vec<String> {
        let mut words = self.machine.guest_words();
        words.extend(self.words.iter().cloned());
        words
    }

    /// The QEMU command.
    #[must_use]
    pub fn command(&self, wiring: Wiring<'_>) -> qemu::CommandLine {
        qemu::command(self.qemu, self.machine, self.images.files(), &self.guest_words(), wiring, None)
    }

    /// The same machine on a terminal, for people.
    #[must_use]
    pub fn terminal_command(&self) -> qemu::CommandLine {
        self.command(Wiring::Terminal { results: "/dev/stderr".as_ref() })
    }

    /// Runs the guest to its end; `observer` sees what it writes as it comes.
    ///
    /// The calling thread must outlive the call, as threads do: QEMU dies with it.
    ///
    /// # Errors
    /// QEMU does not start, or the guest ends in any way but success.
    pub fn run(&self, observer: &mut dyn FnMut(Sight<'_>)) -> Result<Outcome> {
        let mut observer = |sight: Sight<'_>| {
            observer(sight);
            ControlFlow::Continue(())
        };
        self.start(&mut observer)?.finish()
    }

    /// Runs the guest until `observer` has seen enough, stops all vCPUs and lets `look` examine the machine, which
    /// then ends. As for [`Self::run`], the calling thread must outlive the call.
    ///
    /// # Errors
    /// QEMU does not start, the guest ends in any way before `observer` has seen enough, or `look` fails.
    pub fn stop_and_look<T>(
        &self,
        observer: &mut dyn FnMut(Sight<'_>) -> ControlFlow<()>,
        look: impl FnOnce(&mut Qmp) -> std::result::Result<T, QmpError>,
    ) -> Result<T> {
        let mut run = self.start(observer)?;
        match run.watch()? {
            End::Seen => {
                run.qmp.stop().map_err(Error::Qmp)?;
                look(&mut run.qmp).map_err(Error::Qmp)
            }
            end => {
                run.end_as(end)?;
                let reason = "it reported success before what was waited for".into();
                Err(Error::GuestLost { reason, failure: Box::default() })
            }
        }
    }

    /// Starts QEMU and listens to it.
    fn start<'a>(&'a self, observer: &'a mut dyn FnMut(Sight<'_>) -> ControlFlow<()>) -> Result<Run<'a, 'a>> {
        let (vm, ports) = Vm::start_captured(|wiring| self.command(wiring))?;
        let (sender, messages) = channel();
        let Ports { console, results, monitor } = ports;
        let events = sender.clone();
        // The receiver goes with the run; nobody is left to tell then.
        let qmp = Qmp::connect(monitor, move |event| drop(events.send(Message::Monitor(event))));
        let qmp = match qmp {
            Ok(qmp) => qmp,
            Err(error) => return Err(self.refused(vm, error)),
        };
        read_lines(console, sender.clone(), Message::Console);
        read_lines(results, sender, Message::Results);
        Ok(Run {
            job: self,
            vm,
            qmp,
            messages,
            observer,
            started: Instant::now(),
            lines: Vec::new(),
            raw_lines: Vec::new(),
            console: Vec::new(),
            done: false,
            seen: false,
            cores: Vec::new(),
            registers: Vec::new(),
            open_ports: 2,
            bad_line: None,
        })
    }

    /// The error of a QEMU that ended before it greeted us.
    fn refused(&self, mut vm: Vm, error: QmpError) -> Error {
        match vm.wait(Duration::from_secs(2)) {
            Ok(status) if status.code().is_some() => Error::QemuRefused {
                status: describe(status),
                stderr: vm.stderr().trim().to_owned(),
                command: self.terminal_command().to_string(),
            },
            _ => Error::Qmp(error),
        }
    }
}

enum Message {
    Console(String),
    Results(String),
    Monitor(qmp::Event),
    Closed,
}

/// Sends the lines of `stream` as they come, then that it has closed.
fn read_lines(stream: UnixStream, sender: Sender<Message>, message: fn(String) -> Message) {
    std::thread::spawn(move || {
        // A guest's line has no bound, and a line feed may never come: a long one is cut.
        const MOST: u64 = 64 * 1024;
        let mut reader = BufReader::new(stream);
        loop {
            let mut bytes = Vec::new();
            match reader.by_ref().take(MOST).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let line = text.trim_end_matches(['\r', '\n']).to_owned();
                    if sender.send(message(line)).is_err() {
                        return;
                    }
                }
            }
        }
        // The run may be over already.
        let _ = sender.send(Message::Closed);
    });
}

/// A guest being watched.
struct Run<'a, 'j> {
    job: &'a Job<'j>,
    vm: Vm,
    qmp: Qmp,
    messages: Receiver<Message>,
    observer: &'a mut dyn FnMut(Sight<'_>) -> ControlFlow<()>,
    started: Instant,
    lines: Vec<Line>,
    raw_lines: Vec<String>,
    console: Vec<String>,
    /// Whether the guest said that it was done.
    done: bool,
    /// Whether the observer has seen enough.
    seen: bool,
    /// The cores' state, where the machine stopped without having said so.
    cores: Vec<Core>,
    /// The cores' registers, where it ended as it had said.
    registers: Vec<(u32, Registers)>,
    open_ports: u32,
    bad_line: Option<LineError>,
}

/// How a watched guest came to its end.
enum End {
    /// QEMU has ended, or is about to.
    Ended,
    /// A CPU driver panicked; the machine is stopped.
    Panic,
    /// The machine was reset; it is stopped.
    Reset,
    /// All cores are halted for good.
    Hang,
    /// The time is over.
    TimeOut,
    /// A line of results is not valid.
    BadLine(LineError),
    /// The observer has seen enough; the machine runs.
    Seen,
}

impl Run<'_, '_> {
    fn finish(mut self) -> Result<Outcome> {
        let end = self.watch()?;
        self.end_as(end)
    }

    /// The outcome of a run that came to that end.
    fn end_as(self, end: End) -> Result<Outcome> {
        match end {
            // Nobody waits for the rest.
            End::Seen => Ok(self.outcome()),
            End::Ended => self.ended(),
            End::Panic => Err(Error::GuestPanic(self.stopped())),
            End::Hang => Err(Error::GuestHang(self.stopped())),
            End::TimeOut => Err(Error::TimeOut { limit: self.job.timeout, failure: self.stopped() }),
            End::Reset => {
                Err(Error::GuestLost { reason: "the machine was reset".into(), failure: self.stopped() })
            }
            End::BadLine(error) => Err(Error::BadResults { error, failure: self.stopped() }),
        }
    }

    /// Watches until something ends the run.
    fn watch(&mut self) -> Result<End> {
        let mut watch =
            Watch { quiet_since: Instant::now(), next_look: Instant::now(), last: vec![], stuck: 0 };
        loop {
            self.job.interrupt.check()?;
            match self.messages.recv_timeout(TICK) {
                Ok(Message::Monitor(qmp::Event::Panicked)) => return Ok(End::Panic),
                Ok(Message::Monitor(qmp::Event::Reset)) => return Ok(End::Reset),
                Ok(Message::Monitor(qmp::Event::ShutDown)) => {
                    self.drain();
                    if self.done {
                        self.registers = diagnose::registers(&mut self.qmp).unwrap_or_default();
                    } else {
                        self.cores = self.capture();
                    }
                    // Where the connection is lost instead of answered, QEMU has ended all the same.
                    let _ = self.qmp.quit();
                }
                Ok(message) => {
                    self.take(message);
                    watch.quiet_since = Instant::now();
                    watch.stuck = 0;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Ended),
            }
            if let Some(error) = self.bad_line.take() {
                return Ok(End::BadLine(error));
            }
            if self.seen {
                return Ok(End::Seen);
            }
            if self.open_ports == 0 {
                return Ok(End::Ended);
            }
            if self.started.elapsed() >= self.job.timeout {
                return Ok(End::TimeOut);
            }
            if watch.due() && self.looks_stuck(&mut watch) {
                return Ok(End::Hang);
            }
        }
    }

    /// Looks at a quiet guest; whether it has been the same, all halted, for long enough.
    fn looks_stuck(&mut self, watch: &mut Watch) -> bool {
        // A QEMU that does not answer is ending, or it is the time-out's to judge.
        let Ok(now) = diagnose::registers(&mut self.qmp) else { return false };
        let halted = !now.is_empty() && now.iter().all(|(_, registers)| registers.halted);
        watch.stuck = if halted && now == watch.last { watch.stuck + 1 } else { 0 };
        watch.last = now;
        watch.stuck >= STUCK_LOOKS
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Console(line) => {
                self.seen |= (self.observer)(Sight::Console(&line)).is_break();
                self.console.push(line);
            }
            Message::Results(raw) => match Line::parse(&raw) {
                Ok(line) => {
                    self.done |= matches!(&line, Line::Event(event) if event.kind == EventKind::Done);
                    self.seen |= (self.observer)(Sight::Line(&line)).is_break();
                    self.lines.push(line);
                    self.raw_lines.push(raw);
                }
                Err(error) => drop(self.bad_line.get_or_insert(error)),
            },
            Message::Closed => self.open_ports -= 1,
            Message::Monitor(_) => {}
        }
    }

    /// Takes what a stopped machine wrote last.
    fn drain(&mut self) {
        let end = Instant::now() + DRAIN;
        while let Ok(message) = self.messages.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.take(message);
        }
    }

    /// Every core's state; none where QEMU does not answer.
    fn capture(&mut self) -> Vec<Core> {
        let mut symbols = Symbols::of(&self.job.images.binaries);
        diagnose::capture(&mut self.qmp, &mut symbols).unwrap_or_default()
    }

    /// Stops the machine, looks at every core and ends QEMU.
    fn stopped(mut self) -> Box<Failure> {
        // A machine that cannot be stopped can still be killed, below; only the cores' state is missing then.
        let _ = self.qmp.stop();
        self.drain();
        self.cores = self.capture();
        self.vm.kill();
        self.failure()
    }

    fn outcome(self) -> Outcome {
        let wall = self.started.elapsed();
        let Self { lines, raw_lines, console, registers, .. } = self;
        Outcome { lines, raw_lines, console, registers, wall }
    }

    fn failure(mut self) -> Box<Failure> {
        let tail = self.console.split_off(self.console.len().saturating_sub(CONSOLE_LINES));
        Box::new(Failure {
            command: self.job.terminal_command().to_string(),
            console: tail,
            cores: std::mem::take(&mut self.cores),
            qemu_stderr: self.vm.stderr(),
        })
    }

    /// QEMU has closed its ports: its exit status says how the guest ended.
    fn ended(mut self) -> Result<Outcome> {
        let reason = match self.vm.wait(END) {
            Ok(status) => match GuestExit::from_qemu_status(status.code().unwrap_or(0)) {
                Some(GuestExit::Success) => return Ok(self.outcome()),
                Some(exit) => return Err(error_of(exit, self.failure())),
                None => describe(status),
            },
            Err(error) => error.to_string(),
        };
        Err(Error::GuestLost { reason, failure: self.failure() })
    }
}

/// When to look at a quiet guest, and what was seen.
struct Watch {
    quiet_since: Instant,
    next_look: Instant,
    last: Vec<(u32, Registers)>,
    stuck: u32,
}

impl Watch {
    fn due(&mut self) -> bool {
        let now = Instant::now();
        if now < self.quiet_since + QUIET || now < self.next_look {
            return false;
        }
        self.next_look = now + LOOK;
        true
    }
}

/// The error of a guest that ended with anything but success.
#[must_use]
pub fn error_of(exit: GuestExit, failure: Box<Failure>) -> Error {
    match exit {
        GuestExit::Success => Error::GuestLost { reason: "it reported success too early".into(), failure },
        GuestExit::Panic => Error::GuestPanic(failure),
        GuestExit::BenchFailed => Error::BenchFailed(failure),
        GuestExit::InitFailed => Error::InitFailed(failure),
        GuestExit::CheckFailed => Error::CheckFailed(failure),
        GuestExit::BadCommandLine => Error::GuestUsage(failure),
    }
}

/// A status in words.
fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => code.to_string(),
        None => status.to_string(),
    }
}
