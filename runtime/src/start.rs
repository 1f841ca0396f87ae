//! From the entry point to `main`, and to the end of the domain.

use core::sync::atomic::{Ordering, compiler_fence};

use lmp::frame::DispatcherFrame;
use lmp::start::StartInfo;

use crate::local::Local;
use crate::{Env, memory, output, upcall};

/// Exit code of a domain that panicked.
pub const EXIT_PANIC: u64 = 101;
/// Exit code of a domain whose `main` returned an error.
pub const EXIT_ERROR: u64 = 1;
/// Exit code of a domain that its parent started with a page that is no [`StartInfo`].
pub const EXIT_NO_START_INFO: u64 = 102;

static FRAME: Local<Option<&'static DispatcherFramePtr>> = Local::new(None);
static INFO: Local<Option<&'static StartInfo>> = Local::new(None);

/// The dispatcher frame as seen through a shared reference: never read or written but through raw pointers,
/// because the CPU driver writes it too.
pub(crate) struct DispatcherFramePtr(core::cell::UnsafeCell<DispatcherFrame>);

impl DispatcherFramePtr {
    pub(crate) fn get(&self) -> *mut DispatcherFrame {
        self.0.get()
    }
}

/// The domain's dispatcher frame.
pub(crate) fn frame() -> *mut DispatcherFrame {
    match FRAME.get() {
        Some(frame) => frame.get(),
        None => core::ptr::null_mut(),
    }
}

/// The start information, once the runtime runs.
pub fn info() -> Option<&'static StartInfo> {
    INFO.get()
}

/// What `main` may return: how the domain ends.
pub trait Outcome {
    /// The exit code, after saying what is to be said.
    fn report(self) -> u64;
}

impl Outcome for () {
    fn report(self) -> u64 {
        0
    }
}

impl Outcome for u64 {
    fn report(self) -> u64 {
        self
    }
}

impl<E: core::fmt::Display> Outcome for Result<(), E> {
    fn report(self) -> u64 {
        match self {
            Ok(()) => 0,
            Err(error) => {
                crate::println!("error: {error}");
                EXIT_ERROR
            }
        }
    }
}

/// The heap and the panic handler of a binary. They belong to the binary, so that the runtime can be built for
/// the host's tests; a binary with [`entry!`](crate::entry!) has them.
#[macro_export]
macro_rules! environment {
    () => {
        #[global_allocator]
        static HEAP: $crate::heap::Heap = $crate::heap::new();

        #[panic_handler]
        fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::start::panicked(info)
        }
    };
}

/// Makes `$main`, a `fn(&Env) -> impl Outcome`, the domain's main function.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        $crate::environment!();

        /// Entered by the parent or the CPU driver as `lmp::start` says: disabled, with a stack as after a call.
        #[unsafe(no_mangle)]
        extern "C" fn _start(
            frame: *mut $crate::lmp::frame::DispatcherFrame,
            info: *const $crate::lmp::start::StartInfo,
        ) -> ! {
            // SAFETY: these are the arguments of the entry point, and nothing ran before.
            unsafe { $crate::start::run(frame, info, |env| $crate::start::Outcome::report($main(env))) }
        }
    };
}

/// Sets up the runtime, enables the dispatcher and calls `main`; ends the domain with what it returns.
///
/// # Safety
/// `frame` and `info` must be what the domain was entered with, and this its first call.
pub unsafe fn run(frame: *mut DispatcherFrame, info: *const StartInfo, main: impl FnOnce(&Env) -> u64) -> ! {
    // SAFETY: the parent mapped the start information there, read-only, for the life of the domain.
    let info: &'static StartInfo = unsafe { &*info };
    if info.magic != StartInfo::MAGIC || info.version != StartInfo::VERSION {
        lmp::syscall::exit(EXIT_NO_START_INFO);
    }
    // SAFETY: the parent mapped the dispatcher frame there, writable, for the life of the domain; the type
    // hands out nothing but a raw pointer to it.
    FRAME.set(Some(unsafe { &*frame.cast::<DispatcherFramePtr>() }));
    INFO.set(Some(info));
    memory::init(info);
    upcall::init(frame);
    output::init(info);
    // From here on upcalls may come: everything above is in memory before `disabled` is cleared.
    compiler_fence(Ordering::Release);
    upcall::enable(frame);
    let code = main(&Env::new(info));
    exit(code)
}

/// The end of a domain that broke its own rules.
pub fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::println!("{info}");
    exit(EXIT_PANIC)
}

/// Ends the domain, once its output is in its stream.
pub fn exit(code: u64) -> ! {
    output::flush();
    lmp::syscall::exit(code)
}
