//! A serial port behind an I/O port capability: 16550-compatible, used for output without interrupts.
//!
//! Register numbers and bits: National Semiconductor PC16550D data sheet, section 8.

use lmp::syscall::{port_in, port_out};
use lmp::{CPtr, SysError};

/// Bytes that the transmitter's FIFO takes once it is empty.
const FIFO: usize = 16;

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;

const DIVISOR_ACCESS: u32 = 0x80;
const EIGHT_BITS: u32 = 3;
const FIFO_ON_AND_CLEAR: u32 = 7;
const READY_TO_SEND: u32 = 3;
const TRANSMITTER_EMPTY: u32 = 0x20;

/// How often to look for an empty transmitter: far longer than any real one takes for its FIFO.
const PATIENCE: u32 = 1 << 20;

/// A serial port.
pub(crate) struct Serial {
    ports: CPtr,
    base: u16,
    present: bool,
}

impl Serial {
    /// Sets the port at `base` up for 115200 baud, 8 bits, no parity. A port that is not there takes everything
    /// and says nothing.
    pub(crate) fn new(ports: CPtr, base: u16) -> Serial {
        let set_up = || -> Result<bool, SysError> {
            let out = |register, value| port_out(ports, base + register, 1, value);
            out(INTERRUPT_ENABLE, 0)?;
            out(LINE_CONTROL, DIVISOR_ACCESS)?;
            out(DATA, 1)?;
            out(INTERRUPT_ENABLE, 0)?;
            out(LINE_CONTROL, EIGHT_BITS)?;
            out(FIFO_CONTROL, FIFO_ON_AND_CLEAR)?;
            out(MODEM_CONTROL, READY_TO_SEND)?;
            // An empty bus reads as all ones; a line status never does.
            Ok(port_in(ports, base + LINE_STATUS, 1)? != 0xff)
        };
        Serial { ports, base, present: set_up().unwrap_or(false) }
    }

    /// Sends `bytes`, as fast as the port takes them.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(FIFO) {
            if !self.wait_until_empty() {
                return;
            }
            for &byte in part {
                let _ = port_out(self.ports, self.base + DATA, 1, u32::from(byte));
            }
        }
    }

    fn wait_until_empty(&mut self) -> bool {
        if !self.present {
            return false;
        }
        for _ in 0..PATIENCE {
            match port_in(self.ports, self.base + LINE_STATUS, 1) {
                Ok(status) if status & TRANSMITTER_EMPTY != 0 => return true,
                Ok(_) => core::hint::spin_loop(),
                Err(_) => break,
            }
        }
        self.present = false;
        false
    }
}
