//! A step of the run that the host waits for or checks.

use core::fmt;

use crate::SCHEMA;
use crate::json::{Object, Quoted};
use crate::names::words;

words! {
    /// What happened.
    EventKind {
        /// The first line of every run: the guest's schema version is `value`.
        Start = "start",
        /// The CPU driver of `core` runs.
        CoreUp = "core-up",
        /// The monitor of `core` runs.
        MonitorUp = "monitor-up",
        /// All cores that were asked for are up; their number is `value`.
        Ready = "ready",
        /// The topology that the guest found: words of `skb::Topology::encode` in hexadecimal, `detail`, from number
        /// `value` on. Those of all such events together are the topology.
        Topology = "topology",
        /// Something about the machine that firmware left out or got wrong: `detail`. Without it, `value` is how many
        /// more there are that are not told.
        Complaint = "complaint",
        /// Benchmark `name` begins.
        BenchStarted = "bench-started",
        /// Benchmark `name` is over; samples it had to reject: `value`.
        BenchEnded = "bench-ended",
        /// Domain `name` was started on `core`.
        DomainStarted = "domain-started",
        /// Domain `name` on `core` ended by itself; its exit code is `value`.
        DomainExited = "domain-exited",
        /// Domain `name` on `core` was ended by a fault; `detail` says which.
        DomainFaulted = "domain-faulted",
        /// A test scenario's check `name` held; `detail` may say more.
        CheckPassed = "check-passed",
        /// A test scenario's check `name` did not hold; `detail` says why.
        CheckFailed = "check-failed",
        /// Anything else worth a line in a test: `name`, with `value` or `detail`.
        Note = "note",
        /// The last line of every run that came to its end: the machine may be stopped.
        Done = "done",
    }
}

/// One event, as the guest writes it: `Display` is one JSON object without a line feed.
///
/// ```
/// use results::{Event, EventKind};
/// let line = Event::new(EventKind::CoreUp).core(3).to_string();
/// assert_eq!(line, r#"{"type":"event","event":"core-up","core":3}"#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// On which core.
    pub core: Option<u32>,
    /// To whom, or which check.
    pub name: Option<&'a str>,
    /// More about it, for people.
    pub detail: Option<&'a str>,
    /// A number that the kind defines.
    pub value: Option<u64>,
}

impl<'a> Event<'a> {
    /// An event of that kind, without fields.
    pub const fn new(kind: EventKind) -> Self {
        Self { kind, core: None, name: None, detail: None, value: None }
    }

    /// The event that must come first.
    pub const fn start() -> Self {
        Self::new(EventKind::Start).value(SCHEMA as u64)
    }

    /// The same with a core.
    pub const fn core(mut self, core: u32) -> Self {
        self.core = Some(core);
        self
    }

    /// The same with a name.
    pub const fn name(mut self, name: &'a str) -> Self {
        self.name = Some(name);
        self
    }

    /// The same with a detail.
    pub const fn detail(mut self, detail: &'a str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// The same with a value.
    pub const fn value(mut self, value: u64) -> Self {
        self.value = Some(value);
        self
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Object::open(f)?
            .text("type", "event")?
            .text("event", self.kind.word())?
            .optional("core", self.core)?
            .optional("name", self.name.map(Quoted))?
            .optional("detail", self.detail.map(Quoted))?
            .optional("value", self.value)?
            .close()
    }
}
