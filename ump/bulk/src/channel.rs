//! [`Channel`]: what bulk transport needs of the channel that carries its descriptors.

use ump::{Endpoint, Kind, Message, SendError};

/// A channel to the peer, whatever wraps it.
pub trait Channel {
    /// Sends `message`, or returns at once.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    fn try_send(&mut self, message: &Message) -> Result<(), SendError>;

    /// Closes the channel because the peer sent a message of `kind` that it was not allowed to send.
    fn refuse(&mut self, kind: Kind);
}

impl<const N: usize> Channel for Endpoint<'_, N> {
    #[inline]
    fn try_send(&mut self, message: &Message) -> Result<(), SendError> {
        Self::try_send(self, message)
    }

    fn refuse(&mut self, kind: Kind) {
        Self::refuse(self, kind);
    }
}
