//! Kernel objects in memory that user space provided: dispatchers, endpoints, notifications.
//!
//! They are reached by typed references, which are made only from capabilities of that type (or from other
//! objects that are told when the target goes). All state is in [`Cell`]s: a core runs its CPU driver on one
//! thread, and objects refer to each other.

use crate::arch::window;
use caps::{CSpace, Capability, Cte, SlotAddr};
use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::ops::Deref;
use lmp::buffer::Ring;
use lmp::frame::DispatcherFrame;
use lmp::invocation::{DispatcherState, EndCause, MessageInfo, ReceivedInfo};
use lmp::{CPtr, ObjType};

/// A type that lies in memory behind capabilities of one type. All zeroes is a valid, new object.
///
/// # Safety
/// `TYPE` must be the capability type whose objects have this layout, with all state in cells.
pub(crate) unsafe trait KernelObject: Sized {
    /// The capability type.
    const TYPE: ObjType;
}

/// A reference to a kernel object: where the window shows it.
///
/// It must not outlive the object: whoever keeps one is told by `Objects::finalize`.
pub(crate) struct Ref<T>(u64, PhantomData<T>);

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ref<T> {}
impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Ref<T> {}

impl<T: KernelObject> Ref<T> {
    /// The object that `cap` is for; `None` if it is for something else.
    #[inline(always)]
    pub(crate) fn from_cap(cap: &Capability) -> Option<Ref<T>> {
        (cap.ty == T::TYPE).then_some(Ref(window::ptr::<T>(cap.base) as u64, PhantomData))
    }

    /// The physical address of the object.
    pub(crate) fn physical(self) -> u64 {
        window::physical(self.0)
    }

    /// The address of slot `n` of those at the start of the object.
    pub(crate) fn own_slot(self, n: u32) -> SlotAddr {
        SlotAddr(window::physical(self.0)).offset(n)
    }
}

impl<T: KernelObject> Deref for Ref<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: a `Ref` is made from a capability of the right type, whose memory was zeroed and belongs
        // to this core as long as the capability exists; references end with it. All state is in cells.
        unsafe { &*(self.0 as *const T) }
    }
}

/// An optional reference in a kernel object; zero is none.
#[repr(transparent)]
pub(crate) struct Link<T>(Cell<u64>, PhantomData<T>);

impl<T: KernelObject> Link<T> {
    /// No reference.
    pub(crate) const fn none() -> Link<T> {
        Link(Cell::new(0), PhantomData)
    }

    /// The reference, if there is one.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<Ref<T>> {
        match self.0.get() {
            0 => None,
            at => Some(Ref(at, PhantomData)),
        }
    }

    /// Change it.
    #[inline(always)]
    pub(crate) fn set(&self, to: Option<Ref<T>>) {
        self.0.set(to.map_or(0, |r| r.0));
    }
}

/// How rings of objects are linked: each ring has a head outside, which is its first member.
pub(crate) struct Rings<T> {
    pub next: fn(&T) -> &Link<T>,
    pub previous: fn(&T) -> &Link<T>,
}

impl<T: KernelObject> Rings<T> {
    /// Take `object`, which is in no such ring, in as the last one.
    #[inline]
    pub(crate) fn append(&self, head: &Link<T>, object: Ref<T>) {
        let first = head.get().unwrap_or(object);
        let last = (self.previous)(&first).get().unwrap_or(object);
        (self.next)(&last).set(Some(object));
        (self.previous)(&object).set(Some(last));
        (self.next)(&object).set(Some(first));
        (self.previous)(&first).set(Some(object));
        head.set(Some(first));
    }

    /// Take `object` out. If it was the first, the next one is.
    #[inline]
    pub(crate) fn remove(&self, head: &Link<T>, object: Ref<T>) {
        let (next, previous) = ((self.next)(&object).get(), (self.previous)(&object).get());
        if let (Some(next), Some(previous)) = (next, previous) {
            (self.next)(&previous).set(Some(next));
            (self.previous)(&next).set(Some(previous));
        }
        if head.get() == Some(object) {
            head.set(next.filter(|next| *next != object));
        }
        (self.next)(&object).set(None);
        (self.previous)(&object).set(None);
    }

    /// `to`, which is in no such ring, takes the place of `from`.
    #[inline(always)]
    pub(crate) fn replace(&self, head: &Link<T>, from: Ref<T>, to: Ref<T>) {
        let next = (self.next)(&from).get().filter(|next| *next != from).unwrap_or(to);
        let previous = (self.previous)(&from).get().filter(|previous| *previous != from).unwrap_or(to);
        (self.next)(&to).set(Some(next));
        (self.previous)(&next).set(Some(to));
        (self.previous)(&to).set(Some(previous));
        (self.next)(&previous).set(Some(to));
        (self.next)(&from).set(None);
        (self.previous)(&from).set(None);
        if head.get() == Some(from) {
            head.set(Some(to));
        }
    }

    /// The first one becomes the last one.
    pub(crate) fn rotate(&self, head: &Link<T>) {
        if let Some(first) = head.get() {
            head.set((self.next)(&first).get());
        }
    }
}

/// Dispatchers that are ready, or that ended and whose callers are still to be told.
pub(crate) const READY: Rings<Dispatcher> = Rings { next: |d| &d.next, previous: |d| &d.previous };
/// Callers queued at an endpoint, or those for which a dispatcher saved the right to answer.
pub(crate) const CALLERS: Rings<Dispatcher> =
    Rings { next: |d| &d.next_caller, previous: |d| &d.previous_caller };
/// Endpoints of a dispatcher that have callers.
pub(crate) const CALLED: Rings<Endpoint> =
    Rings { next: |e| &e.next_called, previous: |e| &e.previous_called };

/// What a dispatcher's own slots hold: capabilities that keep what it runs with alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Own {
    /// The L1 CNode.
    CSpace = 0,
    /// The root page table.
    VSpace = 1,
    /// The dispatcher frame.
    Frame = 2,
    /// The notification to signal at the end.
    EndNotice = 3,
}

impl Own {
    /// All of them.
    pub(crate) const ALL: [Own; 4] = [Own::CSpace, Own::VSpace, Own::Frame, Own::EndNotice];
}

/// Where a dispatcher's registers are, and so how it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Saved {
    /// In the enabled save area: a `run` upcall.
    Enabled = 0,
    /// In the disabled save area: resumed.
    Disabled = 1,
    /// In the dispatcher itself ([`Short`]), at a message form: it returns from that, by a `run` upcall if an
    /// event is pending.
    Short = 2,
}

/// What a blocked dispatcher waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Wait {
    /// It does not.
    None = 0,
    /// An event.
    Block = 1,
    /// A message to the endpoint `Dispatcher::at`, or an event.
    Receive = 2,
    /// A message to any of its endpoints, or an event.
    ReceiveAny = 3,
    /// That the receiver of the endpoint `Dispatcher::at` takes its call.
    Queued = 4,
    /// The answer to its call, from `Dispatcher::partner`.
    Answer = 5,
}

/// What survives a message form of a dispatcher's registers, kept in the dispatcher while others run. All else
/// is message or lost by the ABI.
#[repr(C)]
pub(crate) struct Short {
    /// Instruction pointer after the system call.
    pub rip: Cell<u64>,
    /// Stack pointer.
    pub rsp: Cell<u64>,
    /// Flags.
    pub rflags: Cell<u64>,
    /// See the ABI.
    pub rbp: Cell<u64>,
    /// What it has, or will have: the badge of what it received.
    pub rbx: Cell<u64>,
    /// FS base.
    pub fs_base: Cell<u64>,
    /// GS base.
    pub gs_base: Cell<u64>,
    /// MXCSR and x87 control word, however it was saved; 0 = never ran.
    pub fp_control: Cell<u64>,
    /// What it is answered.
    pub rax: Cell<u64>,
}

/// Words of a message.
pub(crate) const WORDS: usize = MessageInfo::WORDS_MAX;

/// A dispatcher.
#[repr(C)]
pub(crate) struct Dispatcher {
    slots: UnsafeCell<[Cte; 4]>,
    /// Window address of the frame; valid while the slot is.
    pub frame: Cell<u64>,
    /// Where it stands. From here to `landing` is what the short way of messages writes at once.
    pub state: Cell<DispatcherState>,
    /// Where its registers are.
    pub saved: Cell<Saved>,
    /// What it waits for; not `None` only while it is blocked.
    pub wait: Cell<Wait>,
    /// It is in the ready queue, or among those that ended and whose callers are still to be told.
    pub queued: Cell<bool>,
    /// The slot for a capability that comes with what it waits for; 0 = none.
    pub landing: Cell<CPtr>,
    /// Its capability space; valid while the slot is.
    pub space: Cell<CSpace>,
    /// Why it ended.
    pub cause: Cell<EndCause>,
    /// Next and previous in the ready queue (a ring).
    pub next: Link<Dispatcher>,
    /// See `next`.
    pub previous: Link<Dispatcher>,
    /// Next and previous among those with a deadline.
    pub next_deadline: Link<Dispatcher>,
    /// See `next_deadline`.
    pub previous_deadline: Link<Dispatcher>,
    /// When to wake it, in TSC ticks; 0 = it is not waiting for a time.
    pub deadline: Cell<u64>,
    /// Exit code, or address of the fault it ended by.
    pub detail: Cell<u64>,
    /// Instruction pointer at that fault.
    pub fault_rip: Cell<u64>,
    /// First of the notifications bound to it.
    pub bound: Link<Notification>,
    /// First of the endpoints bound to it.
    pub endpoints: Link<Endpoint>,
    /// Its name in reports.
    pub name: Cell<[u8; 16]>,
    /// How many of `words` are valid.
    pub len: Cell<u8>,
    /// Its registers, while `saved` is `Short`.
    pub short: Short,
    /// The endpoint at which it receives or is queued.
    pub at: Link<Endpoint>,
    /// The caller whose call it received last and has not answered.
    pub caller: Link<Dispatcher>,
    /// While it waits for an answer: the dispatcher that received its call.
    pub partner: Link<Dispatcher>,
    /// Then: where the right to answer it was saved; 0 = `partner` has it as its `caller`.
    pub right: Cell<SlotAddr>,
    /// First of the callers that the rights it saved are for, a ring.
    pub saved_callers: Link<Dispatcher>,
    /// Next and previous in an endpoint's queue, or in `partner`'s ring `saved_callers`.
    pub next_caller: Link<Dispatcher>,
    /// See `next_caller`.
    pub previous_caller: Link<Dispatcher>,
    /// First of its endpoints that have callers queued, a ring.
    pub called: Link<Endpoint>,
    /// While it is queued: the words of its message; when it is to go on: those it gets.
    pub words: [Cell<u64>; WORDS],
    /// While it is queued: the badge of its message.
    pub badge: Cell<u64>,
    /// While it is queued: the capability that goes along, and whether it is given; 0 = none.
    pub cargo: Cell<CPtr>,
    /// See `cargo`.
    pub gives: Cell<bool>,
}

const _: () = assert!(size_of::<Dispatcher>() <= 1024);

// SAFETY: the layout behind `ObjType::Dispatcher`; all state is in cells, zero is valid.
unsafe impl KernelObject for Dispatcher {
    const TYPE: ObjType = ObjType::Dispatcher;
}

impl Dispatcher {
    /// The capability in one of the dispatcher's own slots.
    #[inline(always)]
    pub(crate) fn own(&self, which: Own) -> Capability {
        // SAFETY: nobody holds a reference to a slot across a call; the copy ends before any change.
        unsafe { (*self.slots.get())[which as usize].cap }
    }

    /// The frame, if the dispatcher still has it and it was not given to another core.
    #[inline(always)]
    pub(crate) fn frame(&self) -> Option<*mut DispatcherFrame> {
        let cap = self.own(Own::Frame);
        let here = cap.ty == ObjType::Frame && cap.owner == self.own(Own::CSpace).owner;
        here.then_some(self.frame.get() as *mut DispatcherFrame)
    }

    /// Keep at hand what the slots are for, which have just been filled.
    pub(crate) fn set_up(&self) {
        self.frame.set(window::ptr::<u8>(self.own(Own::Frame).base) as u64);
        self.space.set(CSpace::new(&self.own(Own::CSpace)).unwrap_or(CSpace::EMPTY));
    }

    /// Whether it has all it needs to run.
    pub(crate) fn is_configured(&self) -> bool {
        self.own(Own::CSpace).ty == ObjType::L1CNode
            && self.own(Own::VSpace).ty == ObjType::Pml4
            && self.frame().is_some()
    }

    /// The name in reports; what is not UTF-8 is left out.
    pub(crate) fn with_name<R>(&self, f: impl FnOnce(&str) -> R) -> R {
        let name = self.name.get();
        let len = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        f(core::str::from_utf8(&name[..len]).unwrap_or("?"))
    }
}

impl Ref<Dispatcher> {
    /// As kept in a reply right.
    pub(crate) fn to_word(self) -> u64 {
        self.0
    }

    /// The caller that a reply right is for, if it still waits. The word of the capability is the kernel's own.
    pub(crate) fn of_right(cap: &Capability) -> Option<Ref<Dispatcher>> {
        match (cap.ty, cap.data[0]) {
            (_, 0) => None,
            (ObjType::Reply, caller) => Some(Ref(caller, PhantomData)),
            _ => None,
        }
    }

    /// The address of one of the dispatcher's own slots.
    pub(crate) fn slot(self, which: Own) -> SlotAddr {
        self.own_slot(which as u32)
    }
}

/// A notification: a word of pending bits.
#[repr(C)]
pub(crate) struct Notification {
    /// Bits signalled and not yet polled.
    pub word: Cell<u64>,
    /// The dispatcher to wake.
    pub dispatcher: Link<Dispatcher>,
    /// Next of those bound to the same dispatcher.
    pub next: Link<Notification>,
    /// Previous of those.
    pub previous: Link<Notification>,
    /// The bit of the frame's `events` to set.
    pub event: Cell<u8>,
    /// Interrupt vectors bound to it.
    pub vectors: Cell<u16>,
}

const _: () = assert!(size_of::<Notification>() <= 64);

// SAFETY: the layout behind `ObjType::Notification`; all state is in cells, zero is valid.
unsafe impl KernelObject for Notification {
    const TYPE: ObjType = ObjType::Notification;
}

/// An endpoint: where a dispatcher receives messages. The indices here are authoritative; of what the buffer's
/// owner writes only its count of consumed messages is read, and a wild one counts as a full buffer.
#[repr(C)]
pub(crate) struct Endpoint {
    /// The dispatcher whose frame holds the buffer.
    pub dispatcher: Link<Dispatcher>,
    /// Next of those bound to the same dispatcher.
    pub next: Link<Endpoint>,
    /// Previous of those.
    pub previous: Link<Endpoint>,
    /// Byte offset of the buffer in the frame.
    pub offset: Cell<u32>,
    /// The buffer.
    pub ring: Cell<Ring>,
    /// What a call without words to it looks like: the receiver's label.
    pub call: Cell<ReceivedInfo>,
    /// The slot for the next capability that comes with a buffered message; 0 = none.
    pub landing: Cell<CPtr>,
    /// First of the callers that wait for the receiver, a ring.
    pub queue: Link<Dispatcher>,
    /// Next of those of the receiver's endpoints that have callers (a ring).
    pub next_called: Link<Endpoint>,
    /// Previous of those.
    pub previous_called: Link<Endpoint>,
    /// The bit of the frame's `events` to set.
    pub event: Cell<u8>,
}

const _: () = assert!(size_of::<Endpoint>() <= 128);

// SAFETY: the layout behind `ObjType::Endpoint`; all state is in cells, zero is valid.
unsafe impl KernelObject for Endpoint {
    const TYPE: ObjType = ObjType::Endpoint;
}

/// A list through objects that belong to a dispatcher.
pub(crate) trait Linked: KernelObject {
    /// The dispatcher whose list it is in.
    fn dispatcher(&self) -> &Link<Dispatcher>;
    /// Next in the list.
    fn next(&self) -> &Link<Self>;
    /// Previous in the list.
    fn previous(&self) -> &Link<Self>;
    /// The head of the list.
    fn head(dispatcher: &Dispatcher) -> &Link<Self>;
}

macro_rules! linked {
    ($object:ident through $head:ident) => {
        impl Linked for $object {
            fn dispatcher(&self) -> &Link<Dispatcher> {
                &self.dispatcher
            }
            fn next(&self) -> &Link<Self> {
                &self.next
            }
            fn previous(&self) -> &Link<Self> {
                &self.previous
            }
            fn head(dispatcher: &Dispatcher) -> &Link<Self> {
                &dispatcher.$head
            }
        }
    };
}

linked!(Notification through bound);
linked!(Endpoint through endpoints);

/// Bind `object` to a dispatcher.
pub(crate) fn bind<T: Linked>(object: Ref<T>, dispatcher: Ref<Dispatcher>) {
    let head = T::head(&dispatcher);
    let first = head.get();
    object.dispatcher().set(Some(dispatcher));
    object.next().set(first);
    object.previous().set(None);
    if let Some(first) = first {
        first.previous().set(Some(object));
    }
    head.set(Some(object));
}

/// Undo [`bind`]; nothing if it is not bound.
pub(crate) fn unbind<T: Linked>(object: Ref<T>) {
    let Some(dispatcher) = object.dispatcher().get() else { return };
    let (next, previous) = (object.next().get(), object.previous().get());
    match previous {
        Some(previous) => previous.next().set(next),
        None => T::head(&dispatcher).set(next),
    }
    if let Some(next) = next {
        next.previous().set(previous);
    }
    object.dispatcher().set(None);
    object.next().set(None);
    object.previous().set(None);
}
