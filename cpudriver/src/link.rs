//! Links: notifications from core to core.
//!
//! A link object is one end of one direction between two cores. The writer's end puts the number of an entry
//! into a ring ([`ump::notify`]) and sends an inter-processor interrupt, which says only "look". The reader's
//! end belongs to a list of this core; on the interrupt each of them is looked at, and what its ring names is
//! signalled: the notification in that slot of the link's table, an L2 CNode that user space filled.
//!
//! Nothing in a ring is believed: an index is checked, and whatever does not add up counts for every entry of
//! the table. Work is done in portions of [`PORTION`] steps per interrupt; if that is not enough the core sends
//! itself another interrupt, so that what is waiting gets its turn between.

use crate::arch::apic::{LINK_REST_VECTOR, LINK_VECTOR};
use crate::arch::link_area::{self, LinkPage};
use crate::core_state::{Kernel, Memory};
use crate::dispatch::{Place, badge_bits};
use crate::objects::{KernelObject, Link, Notification, Ref, Rings};
use caps::{Capability, Cte, Mark, SlotAddr, Slots};
use core::cell::{Cell, UnsafeCell};
use lmp::cptr::L2_SLOTS;
use lmp::invocation::Counter;
use lmp::objects::LINK_SLOTS;
use lmp::{ObjType, Rights};
use ump::notify::{News, PageRing, Position, Reader, Rest, Writer};

/// Steps per interrupt: a step looks at a link, takes a notification out of its ring, or signals an entry when
/// all are to be.
const PORTION: u32 = 64;

/// Entries of a table.
const ENTRIES: u16 = L2_SLOTS as u16;

/// Which end of a link an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum End {
    /// None yet.
    Unconfigured = 0,
    /// The end that signals.
    Writer = 1,
    /// The end that is signalled; in the core's list.
    Reader = 2,
}

/// What a link's own slots hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OwnSlot {
    /// The mapping of the ring's page in the link area. It goes when the frame does, and the page with it.
    Ring = 0,
    /// The reader's table of notifications.
    Table = 1,
}

/// One end of a link.
#[repr(C)]
pub(crate) struct LinkEnd {
    slots: UnsafeCell<[Cte; LINK_SLOTS as usize]>,
    /// Which end it is.
    pub end: Cell<End>,
    /// The page with the ring; valid while the slot for it is filled.
    pub page: Cell<LinkPage>,
    /// How far it has come.
    pub position: Cell<Position>,
    /// Writer: the core to interrupt.
    pub apic_id: Cell<u32>,
    next: Link<LinkEnd>,
    previous: Link<LinkEnd>,
}

const _: () = assert!(size_of::<LinkEnd>() <= 1024);

// SAFETY: the layout behind `ObjType::Link`; all state is in cells, zero is valid.
unsafe impl KernelObject for LinkEnd {
    const TYPE: ObjType = ObjType::Link;
}

impl LinkEnd {
    /// The capability in one of the link's own slots, if it is of type `ty` and nothing is under way with it: a
    /// slot that is being emptied may hold what is none of the link's.
    #[inline(always)]
    fn own(&self, which: OwnSlot, ty: ObjType) -> Option<&Capability> {
        // SAFETY: the reference lives within an entry, and the database is not called while it does.
        let cap = unsafe { &(*self.slots.get())[which as usize].cap };
        (cap.tag() == ty as u16).then_some(cap)
    }

    /// The ring, unless its frame went.
    #[inline(always)]
    fn ring(&self) -> Option<&PageRing> {
        self.own(OwnSlot::Ring, ObjType::Mapping)?;
        // SAFETY: the page was mapped when the slot was filled, writable for a writer, and is unmapped in the
        // same step in which the slot is emptied.
        Some(unsafe { link_area::ring(self.page.get()) })
    }

    /// Start the ring anew.
    pub(crate) fn format(&self) {
        if let Some(ring) = self.ring() {
            self.position.set(Writer::new(ring).position());
        }
    }

    /// Put `entry` into the ring. Answers whether there still is one.
    #[inline(always)]
    pub(crate) fn publish(&self, entry: u16) -> bool {
        let Some(ring) = self.ring() else { return false };
        let mut writer = Writer::resume(ring, self.position.get());
        writer.notify(entry);
        self.position.set(writer.position());
        true
    }

    /// The notification in slot `entry` of the table, and the bits to set in it; `None` if there is nothing
    /// to signal.
    #[inline(always)]
    fn target(&self, entry: u16) -> Option<(Ref<Notification>, u64)> {
        let table = self.own(OwnSlot::Table, ObjType::L2CNode).filter(|_| entry < ENTRIES)?;
        // The table is a CNode as long as the link has a capability for it.
        let cap = &Memory.get(SlotAddr(table.base).offset(entry.into())).cap;
        let usable = cap.mark == Mark::Ready && cap.rights.contains(Rights::WRITE);
        let notification = Ref::<Notification>::from_cap(cap).filter(|_| usable)?;
        Some((notification, badge_bits(cap.badge)))
    }
}

/// All reading links of a core, in the order in which they are looked at.
const READERS: Rings<LinkEnd> = Rings { next: |l| &l.next, previous: |l| &l.previous };

/// The reading links of this core, and how far it has come with reading them.
pub(crate) struct Readers {
    /// The one to look at next, of a ring of all.
    first: Link<LinkEnd>,
    count: u32,
    /// How many are still to be looked at since the last interrupt from another core.
    to_look: u32,
    /// What is left to do of signalling all entries of the first one's table.
    sweep: Option<Sweep>,
}

/// All entries of a table are being signalled.
#[derive(Clone, Copy)]
struct Sweep {
    /// The next one.
    entry: u16,
    /// Whether to read on in the ring afterwards.
    then: Rest,
}

/// How far a portion of work came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Portion {
    /// There is no more.
    Done,
    /// It is used up.
    Spent,
}

impl Readers {
    /// None.
    pub(crate) const fn new() -> Readers {
        Readers { first: Link::none(), count: 0, to_look: 0, sweep: None }
    }

    /// Take in a reading link.
    pub(crate) fn add(&mut self, link: Ref<LinkEnd>) {
        READERS.append(&self.first, link);
        self.count += 1;
    }

    /// Take out a link that goes; nothing if it is not a reading one.
    pub(crate) fn remove(&mut self, link: Ref<LinkEnd>) {
        if link.end.replace(End::Unconfigured) != End::Reader {
            return;
        }
        if self.first.get() == Some(link) {
            self.sweep = None;
        }
        READERS.remove(&self.first, link);
        self.count -= 1;
        self.to_look = self.to_look.min(self.count);
    }
}

impl Kernel {
    /// Another core says that there is news in a link.
    pub(crate) fn link_interrupt(&mut self) {
        self.readers.to_look = self.readers.count;
        if let Some(sweep) = &mut self.readers.sweep {
            sweep.then = Rest::Perhaps;
        }
        self.read_links();
    }

    /// Look at the reading links that are still to be looked at.
    pub(crate) fn read_links(&mut self) {
        let mut steps = PORTION;
        while self.readers.to_look > 0 {
            let Some(link) = self.readers.first.get() else { break };
            if self.read_link(link, &mut steps) == Portion::Spent {
                let own = self.handover.apic_id;
                self.apic.send(own, LINK_REST_VECTOR);
                return;
            }
            READERS.rotate(&self.readers.first);
            self.readers.to_look -= 1;
        }
    }

    /// Signal what the ring of one link names.
    fn read_link(&mut self, link: Ref<LinkEnd>, steps: &mut u32) -> Portion {
        loop {
            while let Some(Sweep { entry, then }) = self.readers.sweep {
                if *steps == 0 {
                    return Portion::Spent;
                }
                *steps -= 1;
                self.signal_entry(link, entry);
                let more = entry + 1 < ENTRIES;
                self.readers.sweep = more.then_some(Sweep { entry: entry + 1, then });
                if !more && then == Rest::Nothing {
                    return Portion::Done;
                }
            }
            if *steps == 0 {
                return Portion::Spent;
            }
            *steps -= 1;
            let Some(ring) = link.ring() else { return Portion::Done };
            let mut reader = Reader::resume(ring, link.position.get());
            let mut everything = false;
            let polled = reader.poll(*steps, ENTRIES, |news| match news {
                News::Entry(entry) => self.signal_entry(link, entry),
                News::Everything(_) => everything = true,
            });
            link.position.set(reader.position());
            *steps -= polled.news;
            if everything {
                self.readers.sweep = Some(Sweep { entry: 0, then: polled.rest });
            } else if polled.rest == Rest::Nothing {
                return Portion::Done;
            }
        }
    }

    #[inline(always)]
    fn signal_entry(&mut self, link: Ref<LinkEnd>, entry: u16) {
        if let Some((notification, bits)) = link.target(entry) {
            self.signal(notification, bits, Place::First);
        }
    }

    /// Interrupt the core that reads what `link` writes.
    #[inline(always)]
    pub(crate) fn interrupt_reader(&mut self, link: Ref<LinkEnd>) {
        self.count(Counter::IpisSent);
        self.apic.send(link.apic_id.get(), LINK_VECTOR);
    }

    /// Look at a link that has just begun to read: notifications may have come before it.
    pub(crate) fn look_at_new_reader(&mut self, link: Ref<LinkEnd>) {
        self.readers.add(link);
        let own = self.handover.apic_id;
        self.apic.send(own, LINK_VECTOR);
    }
}
