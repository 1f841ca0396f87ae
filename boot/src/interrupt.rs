//! Ctrl-C and termination: noticed between steps, so that whatever runs is stopped and reaped first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{Error, Result};

/// A flag that the signals set.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    /// The last signal, 0 for none. A flag of its own, so `Relaxed` is enough; `signal-hook` stores `SeqCst`.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// A flag that SIGINT, SIGTERM and SIGHUP set from now on, instead of ending the process.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let flag = Arc::clone(&interrupt.signal);
            signal_hook::flag::register_usize(signal, flag, signal as usize)?;
        }
        Ok(interrupt)
    }

    /// `Err` once a signal has come.
    ///
    /// # Errors
    /// [`Error::Interrupted`] or [`Error::Terminated`].
    pub fn check(&self) -> Result<()> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal if signal == SIGINT as usize => Err(Error::Interrupted),
            _ => Err(Error::Terminated),
        }
    }
}
