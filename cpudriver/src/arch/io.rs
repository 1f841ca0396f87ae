//! I/O ports, on behalf of domains that hold a capability for them.

use x86_64::instructions::port::Port;

/// Widths of an access.
#[derive(Clone, Copy)]
pub(crate) enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
}

impl Width {
    /// The width of `n` bytes.
    pub(crate) fn from_bytes(n: u64) -> Option<Width> {
        match n {
            1 => Some(Width::Byte),
            2 => Some(Width::Word),
            4 => Some(Width::Dword),
            _ => None,
        }
    }
}

/// Read a port.
///
/// # Safety
/// The caller must hold authority over the device behind the port.
pub(crate) unsafe fn input(port: u16, width: Width) -> u32 {
    // SAFETY: a port access touches no memory of ours; the device is the caller's.
    unsafe {
        match width {
            Width::Byte => Port::<u8>::new(port).read().into(),
            Width::Word => Port::<u16>::new(port).read().into(),
            Width::Dword => Port::<u32>::new(port).read(),
        }
    }
}

/// Write a port.
///
/// # Safety
/// The caller must hold authority over the device behind the port.
pub(crate) unsafe fn output(port: u16, width: Width, value: u32) {
    // SAFETY: a port access touches no memory of ours; the device is the caller's.
    unsafe {
        match width {
            Width::Byte => Port::<u8>::new(port).write(value as u8),
            Width::Word => Port::<u16>::new(port).write(value as u16),
            Width::Dword => Port::<u32>::new(port).write(value),
        }
    }
}
