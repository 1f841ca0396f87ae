//! [`Peer`]: the channel to another monitor, the links beside it, and how the two greeted.

use lmp::cptr::task;
use lmp::invocation::MapFlags;
use lmp::{CPtr, ObjType, Rights, SysError, syscall};
use monitor::OWN_ENTRY;
use monitor::handover::slot;
use monitor::mesh::{LINES, OUTBOX_SIZE, SIZE, outbox_offset, ring_offset};
use monitor::protocol::{ACCEPTS, Leader, Member};
use runtime::memory;
use ump::{Endpoint, Message, Outbox};

use crate::server::Failure;

/// Where a channel between monitors lies.
pub(crate) struct Place {
    /// The frame.
    pub(crate) frame: CPtr,
    /// Byte offset of the channel in it.
    pub(crate) offset: u64,
    /// This monitor's side.
    pub(crate) side: usize,
    /// The APIC identifier of the other core.
    pub(crate) apic: u32,
}

/// How another monitor is told that there is a message.
#[derive(Clone, Copy)]
pub(crate) enum Wake {
    /// By an interrupt: between the first core and another, from the start on.
    Bell(u64),
    /// By the link, like a domain: its own entry.
    Link,
}

/// Where the greetings stand.
pub(crate) enum Greeting {
    /// This is the first core's monitor.
    Leader(Leader),
    /// The other one is.
    Member(Member),
    /// The first core introduced the two.
    Introduced,
}

/// Another monitor.
pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint<'static, LINES>,
    pub(crate) greeting: Greeting,
    /// The end of the link that signals entries of its table.
    link: CPtr,
    wake: CPtr,
    bell: Option<u64>,
    /// It is to be woken.
    sent: bool,
    /// It broke the protocol, and its channel is closed.
    pub(crate) lost: bool,
}

impl Peer {
    /// Sets up this side's end of everything in `place`; `table` is what the other core's link signals.
    pub(crate) fn new(place: &Place, table: CPtr, wake: Wake, greeting: Greeting) -> Result<Peer, Failure> {
        let (own, other) = (place.side, 1 - place.side);
        let mapped = memory::map(place.frame, place.offset, SIZE, MapFlags::READ | MapFlags::WRITE)?;
        let outbox = |side| {
            let base = mapped.as_ptr::<u8>().wrapping_add(outbox_offset(side));
            // SAFETY: the memory is mapped writable for good (the mapping is never taken down), the two outboxes
            // lie within it and apart, and only the two monitors use them, as outboxes.
            unsafe { Outbox::<LINES>::from_raw(base, OUTBOX_SIZE) }
        };
        // The layout makes both aligned and large enough.
        let malformed = |_| Failure::Refused("laying out a channel", SysError::Misaligned);
        let (mine, theirs) = (outbox(own).map_err(malformed)?, outbox(other).map_err(malformed)?);
        let refused = |operation| move |cause| Failure::Refused(operation, cause);
        // First the reading end, so that whatever is signalled is seen from the first message on.
        let reader = memory::allocate(ObjType::Link, 0)?.cap;
        let ring = |side| place.offset + ring_offset(side) as u64;
        syscall::link_configure_reader(reader, place.frame, ring(other), table)
            .map_err(refused("configuring the reading end of a link"))?;
        let link = memory::allocate(ObjType::Link, 0)?.cap;
        syscall::link_configure_writer(link, place.frame, ring(own), place.apic)
            .map_err(refused("configuring the writing end of a link"))?;
        let (wake, bell) = match wake {
            Wake::Bell(bell) => (CPtr::NULL, Some(bell)),
            Wake::Link => (mint(link, OWN_ENTRY).map_err(refused("minting a link"))?, None),
        };
        Ok(Peer {
            endpoint: Endpoint::new(mine, theirs, ACCEPTS),
            greeting,
            link,
            wake,
            bell,
            sent: false,
            lost: false,
        })
    }

    /// What signals entry `entry` of the other core's table.
    pub(crate) fn notifier(&self, entry: u8) -> Result<CPtr, SysError> {
        mint(self.link, entry)
    }

    /// Sends a message, unless there is no room for it now.
    pub(crate) fn send(&mut self, message: &Message) -> bool {
        let sent = self.endpoint.try_send(message).is_ok();
        self.sent |= sent;
        sent
    }

    /// Wakes the other one if there is something new for it.
    pub(crate) fn wake(&mut self) {
        if core::mem::take(&mut self.sent) {
            // Both capabilities are this domain's own, and nobody takes them down.
            let _ = match self.bell {
                Some(bell) => syscall::ipi_send(slot::IPI, bell),
                None => syscall::notification_signal(self.wake),
            };
        }
    }
}

/// A capability that signals entry `entry` through `link`.
fn mint(link: CPtr, entry: u8) -> Result<CPtr, SysError> {
    let slot = memory::slot().map_err(|_| SysError::Exhausted)?;
    match syscall::cap_mint(task::ROOT, slot, link, Rights::WRITE, u64::from(entry) + 1) {
        Ok(()) => Ok(slot),
        Err(cause) => {
            memory::free_slot(slot);
            Err(cause)
        }
    }
}
