//! The atomics of this crate, in the one place where the model checker replaces them.
//!
//! An access whose ordering is stronger than Relaxed goes through a [`Site`], which names the pair of
//! accesses that it belongs to. In a normal build a site is a constant and costs nothing. Under loom a test
//! can weaken one side of one site ([`weaken`]) and must then see the model fail: that is how we know that
//! the models notice a missing fence.
//!
//! The acquiring side is always a Relaxed load, followed, once the value turns out to be of interest, by an
//! acquire fence. It is as strong as an acquiring load, and it is the form that the documentation of
//! `core::sync::atomic` allows on memory mapped read-only, which is how a peer's lines ought to be mapped.

#[cfg(not(loom))]
pub(crate) use core::hint::spin_loop;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::hint::spin_loop;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// A pair of accesses, one in each endpoint, of which the second must see what came before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(loom), expect(unreachable_pub, reason = "only the loom tests name sites from outside"))]
pub enum Site {
    /// The store of a header after the payload (`Endpoint::try_send`), with its load before the payload is
    /// copied (`Endpoint::try_recv`): a receiver that sees the number sees the message. The acknowledgement
    /// in the header rides on the same pair: the receiver's copy of a line comes before the sender's next
    /// store to it.
    Message,
    /// The store of the count of taken messages on the acknowledgement line, after the lines were copied
    /// (`Endpoint::try_recv`), with its load before they are stored to again (`Endpoint::try_send` without
    /// credits); also, the count of sent messages that is stored before it and loaded after it is at least
    /// as new.
    Acknowledgement,
    /// The store of the state after the last message (`Endpoint::hang_up`), with its load before the ring
    /// is looked at again (`Endpoint::is_finished`): who sees the end sees all messages before it.
    HangUp,
    /// Two fences, each between a store and a load, of which at least one load sees the other side's store:
    /// a sleeper stores its generation, fences and looks for messages and credits
    /// (`Endpoint::prepare_sleep`), a waker stores those, fences and looks at the generation
    /// (`Endpoint::must_notify`). The release side is the waker's.
    Sleep,
    /// The store of the log's claimed position, before the claimed lines are overwritten
    /// (`logring::Writer`), with the load of that position after a reader copied lines
    /// (`logring::Reader`): a reader that copied a word of the new record sees the claim.
    LogClaim,
    /// The store of the log's written position after the record (`logring::Writer`), with its load before a
    /// reader copies lines (`logring::Reader`): a reader that sees the position sees the record.
    LogWritten,
    /// The store of the log's magic number after the rest of the header (`logring::Writer::new`), with its
    /// load in `logring::Reader::attach`: a reader that sees the magic number sees the header.
    LogFormat,
    /// The store of a notification's word (`notify::Writer`), with its load before the entry is signalled
    /// (`notify::Reader`): who is woken by a notification sees what was stored before it.
    Notify,
}

impl Site {
    /// Stores `value` so that whoever reads it and then calls [`accept`](Self::accept) sees every access
    /// that came before.
    #[inline(always)]
    pub(crate) fn publish(self, word: &AtomicU64, value: u64) {
        #[cfg(loom)]
        if is_weakened(self, Side::Release) {
            return word.store(value, Ordering::Relaxed);
        }
        // Ordering: Release, pairs with `accept` of the same site.
        word.store(value, Ordering::Release);
    }

    /// Orders every access that follows after the Relaxed loads that came before.
    #[inline(always)]
    pub(crate) fn accept(self) {
        #[cfg(loom)]
        if is_weakened(self, Side::Acquire) {
            return;
        }
        // Ordering: Acquire, pairs with `publish` or `announce` of the same site.
        fence(Ordering::Acquire);
    }

    /// Orders every store that follows after the stores that came before: whoever reads one of the later
    /// ones and calls [`accept`](Self::accept) sees the earlier ones.
    #[inline(always)]
    pub(crate) fn announce(self) {
        #[cfg(loom)]
        if is_weakened(self, Side::Release) {
            return;
        }
        // Ordering: Release, pairs with `accept` of the same site.
        fence(Ordering::Release);
    }

    /// Orders every load that follows after the stores that came before. Both sides of a site do so: then
    /// at least one of two such loads sees the other side's store.
    #[inline(always)]
    pub(crate) fn settle(self, side: Side) {
        #[cfg(loom)]
        if is_weakened(self, side) {
            return;
        }
        #[cfg(not(loom))]
        let _ = (self, side);
        // Ordering: SeqCst, pairs with `settle` of the other side. Nothing weaker orders a store before a load.
        fence(Ordering::SeqCst);
    }
}

/// One end of a [`Site`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(loom), expect(unreachable_pub, reason = "only the loom tests name sides from outside"))]
pub enum Side {
    /// The store, or the fence before it; the waker's fence.
    Release,
    /// The fence after the load; the sleeper's fence.
    Acquire,
}

#[cfg(loom)]
std::thread_local! {
    // Loom runs all threads of a model on the thread that started it, so this one is the model's own.
    static WEAKENED: std::cell::Cell<Option<(Site, Side)>> = const { std::cell::Cell::new(None) };
}

/// Runs `model` with one side of one site made Relaxed.
#[cfg(loom)]
pub fn weaken<R>(site: Site, side: Side, model: impl FnOnce() -> R) -> R {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            WEAKENED.set(None);
        }
    }
    let _restore = Restore;
    WEAKENED.set(Some((site, side)));
    model()
}

#[cfg(loom)]
fn is_weakened(site: Site, side: Side) -> bool {
    WEAKENED.get() == Some((site, side))
}

/// Tells the model checker that a line's payload is being copied or stored.
///
/// Payload words are atomic, so the checker by itself accepts any interleaving of them. This cell makes it
/// report a copy and a store of one line that no pair of orderings keeps apart, which is the only way in
/// which it notices that an acknowledgement is too weak.
#[cfg(loom)]
#[derive(Debug, Default)]
pub(crate) struct Access(loom::cell::UnsafeCell<()>);

#[cfg(loom)]
impl Access {
    pub(crate) fn copying(&self) {
        self.0.with(|_| ());
    }

    pub(crate) fn storing(&self) {
        self.0.with_mut(|_| ());
    }
}

// SAFETY: the cell holds no data; the model checker reports accesses to it that are not ordered.
#[cfg(loom)]
#[allow(unsafe_code)]
unsafe impl Sync for Access {}
