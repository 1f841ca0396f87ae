//! The writer's side of an endpoint's buffer: where the next message goes. Pure.
//!
//! The buffer is a ring in the receiver's dispatcher frame ([`EndpointBuffer`](crate::frame::EndpointBuffer)).
//! The CPU driver keeps its own [`Ring`] and of what the receiver writes reads only how many messages it
//! consumed. That number may be anything: one that cannot be right counts as a full buffer, so that a message is
//! never written over one that was not consumed, and never outside of the buffer.

/// What the writer knows of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Ring {
    written: u64,
    len: u32,
    next: u32,
}

impl Ring {
    /// An empty buffer of `len` messages.
    pub const fn new(len: u32) -> Ring {
        Ring { written: 0, len, next: 0 }
    }

    /// Messages written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The slot that the next message goes to, if the receiver's count `consumed` leaves room for it.
    #[inline]
    pub const fn vacancy(&self, consumed: u64) -> Option<u32> {
        match self.written.checked_sub(consumed) {
            Some(unread) if unread < self.len as u64 => Some(self.next),
            _ => None,
        }
    }

    /// A message was written to the slot that [`vacancy`](Self::vacancy) named.
    #[inline]
    pub const fn advance(&mut self) {
        self.written += 1;
        self.next = if self.next + 1 >= self.len { 0 } else { self.next + 1 };
    }
}
