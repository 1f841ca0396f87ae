//! Status codes of system calls: one per cause.

macro_rules! errors {
    ($( $(#[$doc:meta])* $name:ident = $code:literal, $text:literal; )*) => {
        /// Why an invocation was refused. A refused invocation changed nothing, except for [`SysError::Again`],
        /// which says that it is under way.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum SysError { $( $(#[$doc])* $name = $code, )* }

        impl SysError {
            /// Every code, in order.
            pub const ALL: &'static [SysError] = &[$(SysError::$name,)*];

            /// What went wrong, in words.
            pub const fn text(self) -> &'static str {
                match self { $(SysError::$name => $text,)* }
            }

            /// The error for a status code; `None` for 0 (success) and for codes that no kernel returns.
            pub const fn from_code(code: u16) -> Option<SysError> {
                match code { $($code => Some(SysError::$name),)* _ => None }
            }
        }
    };
}

errors! {
    /// The operation is long and not finished: invoke it again with the same registers.
    Again = 1, "unfinished: invoke again";
    /// The capability has relations on other cores: ask the monitor.
    RetryThroughMonitor = 2, "the capability has relations on other cores: ask the monitor";
    /// A wait was ended by another event; the saved state is intact.
    Interrupted = 3, "a wait was ended by another event";
    /// The capability reference names no slot.
    NoSuchSlot = 4, "the capability reference names no slot";
    /// The named slot is empty.
    EmptySlot = 5, "the slot is empty";
    /// The destination slot holds a capability.
    SlotOccupied = 6, "the destination slot is occupied";
    /// The capability is of the wrong type for this operation.
    WrongType = 7, "the capability has the wrong type for this operation";
    /// The type has no such operation.
    NoSuchOperation = 8, "the capability's type has no such operation";
    /// A right is missing.
    MissingRight = 9, "the capability lacks a right that the operation needs";
    /// An argument is outside its range.
    BadArgument = 10, "an argument is outside its range";
    /// An address, offset or size is not aligned as the object needs.
    Misaligned = 11, "an address, offset or size is not aligned";
    /// A range does not lie within the source, or its arithmetic overflows.
    OutOfRange = 12, "the range does not lie within the source";
    /// The range overlaps an object that was already made from the source.
    Overlap = 13, "the range overlaps an existing object";
    /// The source type cannot be retyped so.
    BadRetype = 14, "this source type cannot be retyped to that type";
    /// The slot is in the middle of another long operation.
    SlotBusy = 15, "the slot is in the middle of another operation";
    /// The page-table entry is in use.
    EntryOccupied = 16, "the page-table entry is in use";
    /// The page-table entry is empty.
    EntryEmpty = 17, "the page-table entry is empty";
    /// The dispatcher lacks something it needs to run.
    NotConfigured = 18, "the dispatcher is not configured";
    /// The dispatcher has ended.
    Dead = 19, "the dispatcher has ended";
    /// The object is already bound, or running.
    AlreadyBound = 20, "the object is already bound";
    /// The object is bound to nothing.
    NotBound = 21, "the object is bound to nothing";
    /// The endpoint's buffer is full; nothing was sent.
    BufferFull = 22, "the endpoint's buffer is full";
    /// The message is longer than the ABI allows.
    TooLong = 23, "the message is too long";
    /// The memory is not this core's.
    ForeignMemory = 24, "the memory belongs to another core";
    /// A resource of the kernel (a table of fixed size) is used up.
    Exhausted = 25, "a kernel table of fixed size is full";
    /// The object's state does not allow the operation now.
    WrongState = 26, "the object's state does not allow this now";
    /// The operation needs hardware that this machine does not have.
    Unsupported = 27, "this machine does not support the operation";
    /// The boot image or module is malformed.
    BadImage = 28, "the image is malformed";
    /// The deadline passed before anything came.
    TimedOut = 29, "the deadline passed before anything came";
    /// Whoever received the call gave up the right to answer it.
    NoReply = 30, "whoever received the call will not answer it";
    /// There is no call to answer, or its caller waits no more.
    NoCaller = 31, "no caller waits for this answer";
    /// The receiver declared no slot for a capability.
    NoLanding = 32, "the receiver declared no slot for a capability";
    /// The capability is of a type that cannot be passed to where it was to go.
    NotTransferable = 33, "a capability of this type cannot be passed on so";
}

impl core::fmt::Display for SysError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for SysError {}

/// What a system call comes to.
pub type SysResult<T = ()> = Result<T, SysError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_invertible() {
        for (i, e) in SysError::ALL.iter().enumerate() {
            assert_eq!(*e as usize, i + 1, "{e:?}");
            assert_eq!(SysError::from_code(*e as u16), Some(*e));
        }
        assert_eq!(SysError::from_code(0), None);
        assert_eq!(SysError::from_code(SysError::ALL.len() as u16 + 1), None);
    }
}
