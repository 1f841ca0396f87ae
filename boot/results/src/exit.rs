//! How a guest and how the host command end.

/// IO port of QEMU's `isa-debug-exit` device in our machines: writing v ends QEMU with status v × 2 + 1.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;

/// IO port of QEMU's `pvpanic` device in our machines. A panicking CPU driver writes [`PANIC_EVENT`] there, after
/// its message and before [`GuestExit::Panic`]: the host command then finds the machine stopped in the act and
/// reads every core's registers and stack. Where nobody listens the write does nothing.
pub const PANIC_PORT: u16 = 0x505;

/// The byte to write to [`PANIC_PORT`]: `PVPANIC_PANICKED` in QEMU's `docs/specs/pvpanic`.
pub const PANIC_EVENT: u8 = 1;

/// What a guest writes to [`DEBUG_EXIT_PORT`], as a 32-bit word.
///
/// The statuses they become are all above 31, so none is one of QEMU's own (0: powered off, 1: its own error).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum GuestExit {
    /// Everything asked for was done.
    Success = 0x10,
    /// A CPU driver panicked; its message is on the console.
    Panic = 0x11,
    /// A benchmark could not be run or could not get valid samples.
    BenchFailed = 0x12,
    /// `init` or a monitor could not do its work, so that the system did not come up.
    InitFailed = 0x13,
    /// A test scenario found something wrong.
    CheckFailed = 0x14,
    /// The command line asks for something that the guest does not know.
    BadCommandLine = 0x15,
}

impl GuestExit {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Success,
        Self::Panic,
        Self::BenchFailed,
        Self::InitFailed,
        Self::CheckFailed,
        Self::BadCommandLine,
    ];

    /// The word to write to the port.
    #[must_use]
    pub const fn word(self) -> u32 {
        self as u32
    }

    /// The status that QEMU ends with.
    #[must_use]
    pub const fn qemu_status(self) -> i32 {
        ((self.word() << 1) | 1) as i32
    }

    /// Whose status that is, if a guest's.
    #[must_use]
    pub fn from_qemu_status(status: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.qemu_status() == status)
    }
}

/// The exit codes of the host command: one per cause, stable, so that scripts can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HostExit {
    /// Everything asked for was done.
    Success = 0,
    /// Something outside our control failed, such as reading a file.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// This machine cannot run it: not x86-64 Linux.
    Unsupported = 3,
    /// QEMU is missing or too old and could not be set up.
    Setup = 4,
    /// The images of the OS could not be built.
    Build = 5,
    /// A file could not be written: no room, or a read-only directory.
    Write = 6,
    /// The accelerator asked for does not work here.
    Accelerator = 7,
    /// QEMU did not start the machine.
    Qemu = 8,
    /// A CPU driver panicked.
    GuestPanic = 10,
    /// The guest stopped making progress: every core halted for good.
    GuestHang = 11,
    /// The guest did not finish in the time given, but still ran.
    TimeOut = 12,
    /// A benchmark failed in the guest.
    BenchFailed = 13,
    /// The system did not come up in the guest.
    InitFailed = 14,
    /// A test scenario found something wrong.
    CheckFailed = 15,
    /// The guest refused its command line.
    GuestUsage = 16,
    /// The machine ended without an exit code, such as after a triple fault.
    GuestLost = 17,
    /// The guest's results do not follow the schema.
    BadResults = 18,
    /// The guest found another machine than QEMU was told to make.
    TopologyDiffers = 19,
    /// SIGINT, as a shell reports it.
    Interrupted = 130,
    /// SIGTERM, as a shell reports it.
    Terminated = 143,
}

impl HostExit {
    /// The process exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart_from_qemus_own_and_from_signals() {
        for exit in GuestExit::ALL {
            let status = exit.qemu_status();
            assert!((32..128).contains(&status), "{exit:?}: {status}");
            assert_eq!(GuestExit::from_qemu_status(status), Some(exit));
        }
        assert_eq!(GuestExit::Success.qemu_status(), 33);
        for foreign in [0, 1, 2, 32, 127] {
            assert_eq!(GuestExit::from_qemu_status(foreign), None);
        }
    }
}
