//! Text and records from this domain to the console.
//!
//! [`print!`](crate::print!) and [`println!`](crate::println!) write to the domain's console stream, a UMP
//! channel to the console domain, and ring the console's doorbell at each line's end. [`record`] writes one
//! line for the results port. A domain without a stream prints nothing.

use core::cell::{Cell, UnsafeCell};
use core::fmt::{self, Write};

use lmp::cptr::task;
use lmp::start::StartInfo;
use lmp::{CPtr, layout, syscall};
use ump::stream::{self, ByteStream, StreamError};
use ump::{Endpoint, Outbox};

use crate::directory::{CONSOLE_OUTBOX, LINES, RECORD_MARK};

/// How often to offer the core to others before output is given up: the console is gone.
const PATIENCE: u32 = 1 << 20;

/// Writes text straight to a device.
pub type Direct = fn(&[u8]);

#[expect(clippy::large_enum_variant, reason = "there is one, in a static")]
enum Sink {
    Nothing,
    Direct(Direct),
    Stream { stream: ByteStream<'static, LINES>, ring: CPtr, doorbell: u64 },
}

struct Output {
    busy: Cell<bool>,
    sink: UnsafeCell<Sink>,
}

// SAFETY: a domain has one thread; `with` refuses to be entered twice.
unsafe impl Sync for Output {}

static OUTPUT: Output = Output { busy: Cell::new(false), sink: UnsafeCell::new(Sink::Nothing) };

fn with<R>(f: impl FnOnce(&mut Sink) -> R) -> Option<R> {
    if OUTPUT.busy.replace(true) {
        // A panic in the middle of printing, or a fault handler that prints: the text is lost, not the domain.
        return None;
    }
    // SAFETY: `busy` was clear, so no other reference exists, and it stays set while this one lives.
    let result = f(unsafe { &mut *OUTPUT.sink.get() });
    OUTPUT.busy.set(false);
    Some(result)
}

pub(crate) fn init(info: &StartInfo) {
    if info.stream != StartInfo::NO_STREAM {
        // SAFETY: a domain that has a stream number has the stream mapped at `STDOUT`, for its whole life.
        unsafe {
            attach(layout::STDOUT as *const u8, task::STDOUT_DOORBELL, u64::from(info.console_doorbell))
        };
    }
}

/// Print to the stream in the memory at `base` from now on; ring `doorbell` through the capability `ring`.
///
/// # Safety
/// A fresh stream of `lmp::start::share::STREAM_SIZE` bytes is mapped there, writable, for the life of the
/// domain, and used for nothing else.
pub unsafe fn attach(base: *const u8, ring: CPtr, doorbell: u64) {
    // SAFETY: the caller's promise; both outboxes lie within the stream.
    let outboxes = unsafe {
        (
            Outbox::<LINES>::from_raw(base, CONSOLE_OUTBOX),
            Outbox::<LINES>::from_raw(base.add(CONSOLE_OUTBOX), CONSOLE_OUTBOX),
        )
    };
    if let (Ok(own), Ok(console)) = outboxes {
        let stream = ByteStream::new(Endpoint::new(own, console, stream::ACCEPTS));
        with(|sink| *sink = Sink::Stream { stream, ring, doorbell });
    }
}

/// Print by `direct` from now on: for a domain that runs before the console does.
pub fn set_direct(direct: Direct) {
    with(|sink| *sink = Sink::Direct(direct));
}

fn ring_doorbell(ring: CPtr, doorbell: u64) {
    if doorbell != 0 {
        // A doorbell that cannot be rung leaves the text until somebody else rings.
        let _ = syscall::ipi_send(ring, doorbell);
    }
}

/// Lets others run until the stream's peer has made room; false when patience is at its end.
fn wait_for_room(patience: &mut u32) -> bool {
    *patience = patience.saturating_sub(1);
    let _ = syscall::yield_core();
    core::hint::spin_loop();
    *patience > 0
}

impl Sink {
    fn write(&mut self, text: &[u8]) {
        let gone = match self {
            Sink::Nothing => return,
            Sink::Direct(direct) => return direct(text),
            Sink::Stream { stream, ring, doorbell } => {
                let mut rest = text;
                let mut patience = PATIENCE;
                loop {
                    match stream.write(rest) {
                        Ok(accepted) if accepted == rest.len() => break false,
                        Ok(accepted) => rest = &rest[accepted..],
                        Err(StreamError::WouldBlock) => {
                            ring_doorbell(*ring, *doorbell);
                            if !wait_for_room(&mut patience) {
                                break true;
                            }
                        }
                        Err(_) => break true,
                    }
                }
            }
        };
        if gone {
            *self = Sink::Nothing;
        }
    }

    fn flush(&mut self) {
        let Sink::Stream { stream, ring, doorbell } = self else { return };
        let mut patience = PATIENCE;
        while stream.flush() == Err(StreamError::WouldBlock) {
            ring_doorbell(*ring, *doorbell);
            if !wait_for_room(&mut patience) {
                break;
            }
        }
        ring_doorbell(*ring, *doorbell);
    }
}

/// [`Sink`] as the target of `write!`: flushes at each line's end.
struct Lines<'a>(&'a mut Sink);

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        if text.ends_with('\n') {
            self.0.flush();
        }
        Ok(())
    }
}

/// Prints formatted text. Use [`print!`](crate::print!).
pub fn print(args: fmt::Arguments<'_>) {
    with(|sink| {
        // `Lines` never fails; what a `Display` implementation fails with has no better place to go.
        let _ = Lines(sink).write_fmt(args);
    });
}

/// Writes one line to the results port: a [`results::Record`] or a [`results::Event`].
pub fn record(line: impl fmt::Display) {
    print(format_args!("{RECORD_MARK}{line}\n"));
}

/// Sends what was printed so far, be the line complete or not.
pub fn flush() {
    with(Sink::flush);
}

/// Prints to the domain's console stream.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::output::print(::core::format_args!($($arg)*)) };
}

/// Prints to the domain's console stream, with a line feed.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::output::print(::core::format_args!("{}\n", ::core::format_args!($($arg)*))) };
}
