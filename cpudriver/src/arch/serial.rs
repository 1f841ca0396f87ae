//! The serial port, for a panic's last words and for what happens before the console domain is there, to which
//! it belongs in normal operation.

use core::fmt::{self, Write};
use uart_16550::Uart16550;
use uart_16550::backend::PioBackend;

/// COM1, written byte by byte without interrupts.
pub(crate) struct Serial(Option<Uart16550<PioBackend>>);

impl Serial {
    /// Take the port from whoever has it: nobody has it yet, or nothing else will run on this core any more.
    pub(crate) fn take() -> Serial {
        // SAFETY: the console domain is not there yet, or this core stops after writing, and a garbled line is
        // acceptable then.
        Serial(unsafe { Uart16550::new_port(results::CONSOLE_PORT) }.ok())
    }
}

impl Write for Serial {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if let Some(port) = &mut self.0 {
            for b in s.bytes() {
                if b == b'\n' {
                    port.send_bytes_exact(b"\r");
                }
                port.send_bytes_exact(&[b]);
            }
        }
        Ok(())
    }
}
