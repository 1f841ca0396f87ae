//! The operations on capabilities, and how a system call carries them.
//!
//! Every system call is an invocation of one capability:
//!
//! | register | in | out |
//! |---|---|---|
//! | `rax` | bits 0–31 capability reference, 32–47 operation, 48–63 operation-specific | bits 0–15 status (0 or [`SysError`](crate::SysError)), 16–63 operation-specific |
//! | `rdi rsi rdx r8 r9 r10 r12 r13 r14 r15` | message words 0–9 | message words 0–9, or unchanged |
//! | `rbx` | – | the badge of what was received (receiving forms); else unchanged |
//! | `rbp` | bits 0–31 capability to send, 32–63 slot for one that comes (message forms with those flags) | unchanged |
//! | `rcx`, `r11` | – | destroyed by `syscall`/`sysret` |
//! | vector and x87 registers | – | destroyed (zero on return); MXCSR and x87 control word survive |
//!
//! An invocation that is refused, or that answers [`Again`](crate::SysError::Again), leaves every register
//! but `rax`, `rcx`, `r11` and the vector registers as it was. A message form ([`MessageInfo`]) that waited, or
//! that received, leaves in the word registers what was received ([`ReceivedInfo`]) and zeroes.

macro_rules! operations {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal; )*) => {
        /// Operations. The numbers are part of the ABI; each belongs to one type of capability.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum Op { $( $(#[doc = $doc])+ $name = $code, )* }

        impl Op {
            /// Every operation.
            pub const ALL: &'static [Op] = &[$(Op::$name,)*];

            /// What it is invoked on, a colon, and what it does with which words.
            pub const fn summary(self) -> &'static str {
                match self { $(Op::$name => concat!($($doc),+),)* }
            }

            /// The operation with this number.
            pub const fn from_code(code: u16) -> Option<Op> {
                match code { $($code => Some(Op::$name),)* _ => None }
            }
        }
    };
}

operations! {
    // On an L1 CNode: the slots of that capability space. Slots are `SlotRef` words. Sources are looked up
    // in the caller's own space, destinations in the invoked one.
    /// L1 CNode: copy. w0 = destination slot, w1 = source slot.
    Copy = 1;
    /// L1 CNode: copy with fewer rights and, on a notification or endpoint, a badge. w0 = destination
    /// slot, w1 = source slot, w2 = rights to keep, w3 = badge (0: keep the source's).
    Mint = 2;
    /// L1 CNode: make objects. w0 = first destination slot (the others follow in the same CNode),
    /// w1 = source slot, w2 = type code, w3 = offset into the source, w4 = size of each, w5 = how many.
    /// May answer `Again` while it zeroes.
    Retype = 3;
    /// L1 CNode: delete the capability in slot w0, and the object with its last capability. May answer `Again`.
    Delete = 4;
    /// L1 CNode: delete all descendants and other copies of the capability in slot w0. May answer `Again`.
    Revoke = 5;
    /// L1 CNode: what is in slot w0? Out: w0 = type | rights << 8 | relation bits << 16 | owner core << 32,
    /// w1 = base, w2 = size, w3 = badge.
    Identify = 6;

    // On a page table.
    /// Page table: fill entries. w0 = first entry, w1 = frame or next-level table (own space),
    /// w2 = byte offset into the frame, w3 = `MapFlags`, w4 = number of entries, w5 = slot for the mapping.
    Map = 16;
    /// Page table: unmap. w0 = mapping of entries of this table (own space), which is deleted; the entries are cleared
    /// with its last copy. `Delete` does the same without the table.
    Unmap = 18;
    /// Mapping: change access. w0 = `MapFlags`, no more than the frame's rights.
    Protect = 17;

    // On a dispatcher.
    /// Dispatcher: set what it runs with. w0 = L1 CNode, w1 = PML4, w2 = dispatcher frame, w3–w4 = name,
    /// 16 bytes. All three are required; refused while it runs.
    Configure = 32;
    /// Dispatcher: let it run.
    Resume = 33;
    /// Dispatcher: take it off the core; `Resume` lets it go on.
    Suspend = 34;
    /// Dispatcher: notification to signal when it ends (w0; own space), with that capability's badge.
    SetEndNotice = 35;
    /// Dispatcher: out: w0 = `DispatcherState`, w1 = end cause, w2 = exit code or fault address,
    /// w3 = instruction pointer at the fault.
    Status = 36;
    /// Own dispatcher: give the core to the next one that can run.
    Yield = 37;
    /// Own dispatcher: wait until an event is pending or `receive_deadline` passes.
    Block = 38;
    /// Own dispatcher: end this domain with exit code w0.
    Exit = 39;
    /// Dispatcher: use another capability space. w0 = L1 CNode (own space), any size. Nothing moves: the caller
    /// copies what it wants to keep there before. `WrongState` if the old L1 CNode has no other capability left.
    ResizeRoot = 40;

    // On an endpoint.
    /// Endpoint: where its messages go. w0 = dispatcher, w1 = byte offset of the buffer in its dispatcher
    /// frame, w2 = length of the buffer in messages, w3 = event number, w4 = label (32 bits), which every
    /// receive from it returns.
    BindEndpoint = 48;
    /// Endpoint: send up to 10 words ([`MessageInfo`]), and a capability if the flag says so. A receiver that
    /// waits there gets the core and the words in registers; otherwise they go to the endpoint's buffer and
    /// the sender goes on.
    Send = 49;
    /// Endpoint: send as `Send`, and wait for the answer, which comes in registers. Never buffered: if nobody
    /// waits there, the caller is queued until somebody receives.
    Call = 50;
    /// Endpoint, or own dispatcher for all endpoints bound to it: receive. A queued caller's message is taken
    /// at once; else wait for one. Ends with `Interrupted` if an event is pending or comes.
    Receive = 51;
    /// Endpoint or own dispatcher: answer the last call received, and receive, in one step. Without a call to
    /// answer: only receive.
    ReplyReceive = 52;
    /// Own dispatcher: answer the last call received. Reply right: answer that call; the right is used up.
    Reply = 53;
    /// Own dispatcher: move the right to answer the last call received to slot w0, so that another can be
    /// received before it is answered.
    SaveReply = 54;
    /// Endpoint: the slot (w0; 0 = none) for the next capability that comes with a buffered message.
    SetLanding = 55;

    // On a notification.
    /// Notification: set the badge bits of the capability (bit 0 if it has no badge) and wake the bound dispatcher.
    Signal = 56;
    /// Notification: out: w0 = pending bits, which are cleared.
    Poll = 57;
    /// Notification: bind. w0 = dispatcher (own space), w1 = event bit 0–63 in its frame's `events`.
    BindNotification = 58;

    // On a range of interrupt vectors.
    /// Interrupt vectors: w0 = vector in the range, w1 = notification (own space) to signal.
    BindIrq = 64;
    /// Interrupt vectors: w0 = vector; it may be delivered again.
    AckIrq = 65;

    // On a range of inter-processor interrupts.
    /// Inter-processor interrupts: send w0 = `apic_id << 8 | vector`, which must lie in the range.
    SendIpi = 72;

    // On a range of I/O ports.
    /// I/O ports: w0 = port, w1 = bytes (1, 2, 4). Out: w0 = value.
    PortIn = 80;
    /// I/O ports: w0 = port, w1 = bytes (1, 2, 4), w2 = value.
    PortOut = 81;

    // On a kernel instance.
    /// Kernel instance: load the CPU driver's image. w0 = an instance on the same node whose read-only part
    /// is to be shared, or 0; w1 = index of the core it is for, w2 = APIC id, w3 = node. May answer `Again`.
    LoadKernel = 96;
    /// Kernel instance, loaded: hand memory (w0; RAM without relations, or a frame that stays readable here)
    /// to the core. May answer `Again`.
    GiveMemory = 97;

    // On the trampoline.
    /// Trampoline: prepare the start of the core that a loaded kernel instance (w0) is for. w1 = doorbell
    /// (`apic_id << 8 | vector`) to ring after each log record, w2 = doorbell to ring when the core is up;
    /// 0 = none.
    Arm = 104;
    /// Trampoline, armed: send INIT.
    SendInit = 105;
    /// Trampoline, armed: send SIPI.
    SendSipi = 106;
    /// Trampoline: out: w0 = `TrampolineState`. A start that succeeded leaves it free.
    TrampolineStatus = 107;
    /// Trampoline, armed: give up the start; the core is held in INIT and its memory stays lost to this core.
    Disarm = 108;

    // On the KCB.
    /// KCB: out: w0 = value of counter w0 (`Counter`).
    ReadCounter = 112;
    /// KCB: ring w0 (`apic_id << 8 | vector`; 0 = nothing) after each log record.
    SetLogDoorbell = 113;
    /// KCB: panic this core, to test what reports it.
    Panic = 114;
    /// KCB: make a capability for memory of another core, as its monitor says. w0 = destination slot,
    /// w1 = type (a frame) | rights << 8, w2 = base, w3 = size, w4 = owner core.
    CreateForeign = 115;
    /// KCB: set what relations the object in slot w0 has on other cores: w1 = relation bits.
    SetRemote = 116;
    /// KCB: go on with an audit of all that this core's CPU driver keeps. Answers `Again` until a pass is done or
    /// something is found: out: w0 = [`Violation`], w1 = where, w2 = capabilities seen, w3 = page-table entries
    /// seen, w4 = bytes of memory accounted for. There is one audit per core; whoever invokes it goes on with it.
    Audit = 117;

    // On a link.
    /// Link: w0 = frame, w1 = byte offset in it of the ring, a page; w2 = [`LinkEnd`]; writer: w3 = APIC id of
    /// the reading core; reader: w3 = table of notifications, an L2 CNode. `Signal` on a writing link with
    /// badge `n` + 1 signals entry `n` of the reader's table.
    ConfigureLink = 120;
}

/// Bits 48–63 of the first word of a message form: how many words there are, and what else is to happen.
///
/// | bits | meaning |
/// |---|---|
/// | 0–3 | number of words sent, at most 10 |
/// | 4 | [`MessageInfo::SEND_CAP`]: `rbp` bits 0–31 name a capability to send along |
/// | 5 | [`MessageInfo::RECEIVE_CAP`]: `rbp` bits 32–63 name an empty slot for one that comes |
/// | 6 | [`MessageInfo::DEADLINE`]: wait no longer than the frame's `receive_deadline` |
/// | 7 | [`MessageInfo::GIVE`]: the capability is moved, not copied |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct MessageInfo(pub u16);

impl MessageInfo {
    /// Words that a message has at most.
    pub const WORDS_MAX: usize = 10;
    /// Send the capability that `rbp` bits 0–31 name; the invoked endpoint capability needs the grant right.
    pub const SEND_CAP: u16 = 1 << 4;
    /// A capability that comes along goes to the slot that `rbp` bits 32–63 name.
    pub const RECEIVE_CAP: u16 = 1 << 5;
    /// Wait no longer than until the dispatcher frame's `receive_deadline`.
    pub const DEADLINE: u16 = 1 << 6;
    /// With [`Self::SEND_CAP`]: the sender's slot is empty afterwards.
    pub const GIVE: u16 = 1 << 7;

    /// So many words, with those flags.
    pub const fn new(words: usize, flags: u16) -> MessageInfo {
        MessageInfo(words as u16 & 15 | flags)
    }

    /// Number of words.
    pub const fn words(self) -> usize {
        (self.0 & 15) as usize
    }

    /// Whether a flag is set.
    pub const fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }
}

/// What a message form that received something returns in `rax`; the badge comes in `rbx`.
///
/// | bits | meaning |
/// |---|---|
/// | 0–15 | status, 0 |
/// | 16–19 | number of words |
/// | 20 | a capability came |
/// | 21 | it is a call: there is a caller to answer |
/// | 32–63 | label of the endpoint it came to; 0 for an answer |
///
/// The word registers beyond the number of words are 0. An answer to a call has no badge and leaves `rbx` alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct ReceivedInfo(pub u64);

impl ReceivedInfo {
    const WORDS: u32 = 16;
    const CAP: u64 = 1 << 20;
    const CALL: u64 = 1 << 21;
    const LABEL: u32 = 32;

    /// What the CPU driver puts together.
    pub const fn new(words: usize, cap: bool, call: bool, label: u32) -> ReceivedInfo {
        let cap = if cap { Self::CAP } else { 0 };
        let call = if call { Self::CALL } else { 0 };
        ReceivedInfo((words as u64 & 15) << Self::WORDS | cap | call | (label as u64) << Self::LABEL)
    }

    /// Number of words.
    pub const fn words(self) -> usize {
        (self.0 >> Self::WORDS & 15) as usize
    }

    /// Whether a capability came.
    pub const fn cap(self) -> bool {
        self.0 & Self::CAP != 0
    }

    /// Whether there is a caller to answer.
    pub const fn is_call(self) -> bool {
        self.0 & Self::CALL != 0
    }

    /// The label that the receiver gave the endpoint.
    pub const fn label(self) -> u32 {
        (self.0 >> Self::LABEL) as u32
    }
}

bitflags::bitflags! {
    /// How a mapping may be accessed.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct MapFlags: u64 {
        /// Readable. A mapping without it is refused.
        const READ = 1;
        /// Writable.
        const WRITE = 2;
        /// Executable. Refused together with `WRITE`.
        const EXECUTE = 4;
        /// Not cached (device memory).
        const UNCACHED = 8;
        /// One large entry: 2 MiB in a PD, 1 GiB in a PDPT.
        const LARGE = 16;
    }
}

macro_rules! codes {
    ($(#[$tdoc:meta])* $type:ident { $( $(#[$doc:meta])* $name:ident = $code:literal, $text:literal; )* }) => {
        $(#[$tdoc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum $type { $( $(#[$doc])* $name = $code, )* }

        impl $type {
            /// Every value.
            pub const ALL: &'static [$type] = &[$($type::$name,)*];

            /// The value with this code.
            pub const fn from_code(code: u8) -> Option<$type> {
                match code { $($code => Some($type::$name),)* _ => None }
            }

            /// In words.
            pub const fn text(self) -> &'static str {
                match self { $($type::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// Where a dispatcher stands.
    DispatcherState {
        /// Made, not configured, or never resumed.
        Inactive = 0, "inactive";
        /// Running or ready to.
        Runnable = 1, "runnable";
        /// Waiting for an event.
        Blocked = 2, "blocked";
        /// Taken off the core by `Suspend`.
        Suspended = 3, "suspended";
        /// Ended; see [`EndCause`].
        Ended = 4, "ended";
    }
}

codes! {
    /// Why a dispatcher ended.
    EndCause {
        /// It has not.
        None = 0, "not ended";
        /// It invoked `Exit`.
        Exit = 1, "exit";
        /// A page fault it could not handle.
        PageFault = 2, "page fault";
        /// Another exception it could not handle.
        Exception = 3, "exception";
        /// Its save area could not be loaded.
        BadSaveArea = 4, "bad save area";
        /// What it ran with was deleted.
        Deleted = 5, "deleted";
    }
}

codes! {
    /// An end of a link.
    LinkEnd {
        /// The core that signals.
        Writer = 0, "writer";
        /// The core that is signalled.
        Reader = 1, "reader";
    }
}

codes! {
    /// Where the trampoline stands.
    TrampolineState {
        /// No start under way.
        Free = 0, "free";
        /// A start is prepared or under way.
        Armed = 1, "armed";
    }
}

codes! {
    /// What an audit found. Where it is: a physical address, unless the text says otherwise.
    Violation {
        /// Nothing.
        None = 0, "nothing is wrong";
        /// A capability's links, height or place in the order are not what they should be.
        Tree = 1, "the tree of capabilities is broken at this slot";
        /// A slot is marked with what cannot be under way with it.
        Mark = 2, "this slot is marked with what is not under way";
        /// Two objects overlap that may not.
        Overlap = 3, "the object in this slot overlaps another one";
        /// A mapping has no object.
        Orphan = 4, "the mapping in this slot has no object";
        /// A capability is not in the tree.
        Missing = 5, "the capability in this slot is not in the tree";
        /// A page-table entry was made by no mapping that there is.
        Unbacked = 6, "no mapping accounts for this page-table entry";
        /// A page-table entry allows what the mapping's rights do not.
        Rights = 7, "this page-table entry allows more than its mapping";
        /// A page-table entry has bits that no invocation sets.
        Bits = 8, "this page-table entry has bits that nobody may set";
        /// Memory is both writable and executable.
        WriteExecute = 9, "the page of this page-table entry is writable and executable";
        /// The upper part of a root page table is not the CPU driver's.
        UpperHalf = 10, "this entry of a root page table is not the CPU driver's";
        /// A kernel object is in a list that does not lead back to it, or refers to what is not there.
        Object = 11, "the kernel object here and those it is linked with disagree";
        /// A count of references is not the number of owners.
        Count = 12, "the kernel object here counts other references than there are";
        /// Memory that the core was given is covered by no capability.
        Lost = 13, "no capability accounts for the memory here";
        /// A control register allows what it must not. Where: its number, 0 or 4; 0x80 is EFER, 0x100 is XCR0.
        Control = 14, "this control register is not as the CPU driver set it";
        /// The CPU driver's own page tables show a page to domains, or one writable and executable. Where: the
        /// physical address of the page.
        OwnPage = 15, "the CPU driver maps this page as it must not";
    }
}

codes! {
    /// Counters of a core, since it started.
    Counter {
        /// Entries into the CPU driver: system calls, exceptions, interrupts.
        KernelEntries = 0, "kernel entries";
        /// System calls.
        SystemCalls = 1, "system calls";
        /// Upcalls delivered.
        Upcalls = 2, "upcalls";
        /// Switches from one dispatcher to another.
        Switches = 3, "dispatcher switches";
        /// Times the core went idle.
        Idles = 4, "idles";
        /// Page-table entries written on behalf of domains.
        PageTableWrites = 5, "page-table writes";
        /// Inter-processor interrupts sent.
        IpisSent = 6, "IPIs sent";
        /// Inter-processor interrupts and device interrupts received.
        Interrupts = 7, "interrupts";
        /// Timer interrupts received.
        TimerTicks = 8, "timer interrupts";
        /// Dispatchers that ended by a fault.
        Faults = 9, "domains ended by a fault";
    }
}

/// First interrupt vector that user space may bind.
pub const USER_VECTOR_FIRST: u64 = 0x30;
/// Number of interrupt vectors that user space may bind.
pub const USER_VECTOR_COUNT: u64 = 0xc0;

/// The first word of a system call.
pub const fn header(cap: crate::CPtr, op: Op) -> u64 {
    cap.0 as u64 | (op as u64) << 32
}

/// [`header`] with the operation-specific bits 48–63.
pub const fn header_with(cap: crate::CPtr, op: Op, extra: u16) -> u64 {
    header(cap, op) | (extra as u64) << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_numbers_are_unique_and_invertible() {
        for (i, a) in Op::ALL.iter().enumerate() {
            assert_eq!(Op::from_code(*a as u16), Some(*a));
            assert!(Op::ALL[..i].iter().all(|b| *a as u16 != *b as u16), "{a:?}");
        }
        assert_eq!(Op::from_code(0), None);
    }

    #[test]
    fn a_summary_says_first_what_is_invoked() {
        for op in Op::ALL {
            assert!(op.summary().split_once(": ").is_some_and(|(on, _)| on.len() < 80), "{op:?}");
        }
    }

    #[test]
    fn a_header_packs_reference_and_operation() {
        let h = header_with(crate::CPtr::new(1, 2), Op::Send, 7);
        assert_eq!(h & 0xffff_ffff, 0x102);
        assert_eq!((h >> 32) & 0xffff, Op::Send as u64);
        assert_eq!(h >> 48, 7);
    }
}
