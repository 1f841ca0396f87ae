//! Kernel objects in memory that user space provided: dispatchers, endpoints, notifications.
//!
//! They are reached by typed references, which are made only from capabilities of that type (or from other
//! objects that are told when the target goes). All state is in [`Cell`]s: a core runs its CPU driver on one
//! thread, and objects refer to each other.

use crate::arch::window;
use caps::{Capability, Cte, SlotAddr};
use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::ops::Deref;
use lmp::ObjType;
use lmp::frame::DispatcherFrame;
use lmp::invocation::{DispatcherState, EndCause};

/// A type that lies in memory behind capabilities of one type. All zeroes is a valid, new object.
///
/// # Safety
/// `TYPE` must be the capability type whose objects have this layout, with all state in cells.
pub(crate) unsafe trait KernelObject: Sized {
    /// The capability type.
    const TYPE: ObjType;
}

/// A reference to a kernel object: its physical address.
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
        (cap.ty == T::TYPE).then_some(Ref(cap.base, PhantomData))
    }
}

impl<T: KernelObject> Deref for Ref<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: a `Ref` is made from a capability of the right type, whose memory was zeroed and belongs
        // to this core as long as the capability exists; references end with it. All state is in cells.
        unsafe { &*window::ptr::<T>(self.0) }
    }
}

/// An optional reference in a kernel object; zero is none.
pub(crate) struct Link<T>(Cell<u64>, PhantomData<T>);

impl<T: KernelObject> Link<T> {
    /// The reference, if there is one.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<Ref<T>> {
        match self.0.get() {
            0 => None,
            pa => Some(Ref(pa, PhantomData)),
        }
    }

    /// Change it.
    #[inline(always)]
    pub(crate) fn set(&self, to: Option<Ref<T>>) {
        self.0.set(to.map_or(0, |r| r.0));
    }
}

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
}

/// A dispatcher.
#[repr(C)]
pub(crate) struct Dispatcher {
    slots: UnsafeCell<[Cte; 4]>,
    /// Window address of the frame; valid while the slot is.
    frame: Cell<u64>,
    /// Where it stands.
    pub state: Cell<DispatcherState>,
    /// Where its registers are.
    pub saved: Cell<Saved>,
    /// Why it ended.
    pub cause: Cell<EndCause>,
    /// It is in the ready queue.
    pub queued: Cell<bool>,
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
    /// MXCSR and x87 control word, while it does not run; 0 = never ran.
    pub fp_control: Cell<u64>,
    /// First of the notifications bound to it.
    pub bound: Link<Notification>,
    /// First of the endpoints bound to it.
    pub endpoints: Link<Endpoint>,
    /// Its name in reports.
    pub name: Cell<[u8; 16]>,
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

    /// Set where the frame is: the window address of what the slot is for.
    pub(crate) fn set_frame(&self, physical: u64) {
        self.frame.set(window::ptr::<u8>(physical) as u64);
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
    /// The address of one of the dispatcher's own slots.
    pub(crate) fn slot(self, which: Own) -> SlotAddr {
        SlotAddr(self.0).offset(which as u32)
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
    /// Messages that fit.
    pub len: Cell<u32>,
    /// Messages written since it was bound.
    pub written: Cell<u64>,
    /// The bit of the frame's `events` to set.
    pub event: Cell<u8>,
}

const _: () = assert!(size_of::<Endpoint>() <= 64);

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
