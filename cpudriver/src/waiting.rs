//! What a dispatcher waits for at a message form, who is to answer it, and how the wait ends.
//!
//! | `wait` | it is in | ends by |
//! |---|---|---|
//! | `Receive`, `ReceiveAny` | – | a message, an event, its deadline, the end of the endpoint |
//! | `Queued` | the ring `Endpoint::queue` | the receiver that takes the call, its deadline, the end of the receiver |
//! | `Answer` | `partner.caller`, or the ring `partner.saved_callers` | the answer, the end of the right to answer, its deadline, the end of `partner` |
//!
//! Whatever ends a wait takes the dispatcher out of where it is first, so that nobody refers to one that does not
//! wait there. A saved right names its caller, and the caller the slot of the right: a reply right never moves.

use crate::core_state::{Kernel, Memory};
use crate::dispatch::Place;
use crate::objects::{CALLED, CALLERS, Dispatcher, Endpoint, READY, Ref, Wait};
use caps::{Budget, Progress, SlotAddr, Slots};
use lmp::SysError;
use lmp::invocation::DispatcherState;

impl Kernel {
    /// Let `d` go on, whose wait is over.
    pub(crate) fn make_ready(&mut self, d: Ref<Dispatcher>, place: Place) {
        self.clear_deadline(d);
        d.state.set(DispatcherState::Runnable);
        self.enqueue(d, place);
    }

    /// End the wait of `d`: it goes on with `why`. (Whoever invoked `Block` just goes on.)
    pub(crate) fn end_wait(&mut self, d: Ref<Dispatcher>, why: SysError, place: Place) {
        self.leave_wait(d);
        d.short.rax.set(why as u64);
        d.len.set(0);
        self.make_ready(d, place);
    }

    /// Take `d` out of wherever it waits.
    pub(crate) fn leave_wait(&mut self, d: Ref<Dispatcher>) {
        match d.wait.replace(Wait::None) {
            Wait::None | Wait::Block => {}
            Wait::Receive | Wait::ReceiveAny => d.at.set(None),
            Wait::Queued => leave_queue(d),
            Wait::Answer => void_right(d),
        }
    }

    /// Queue `caller` at `e`, whose receiver is `receiver`.
    pub(crate) fn queue(&mut self, e: Ref<Endpoint>, receiver: Ref<Dispatcher>, caller: Ref<Dispatcher>) {
        if e.queue.get().is_none() {
            CALLED.append(&receiver.called, e);
        }
        CALLERS.append(&e.queue, caller);
        caller.at.set(Some(e));
        caller.wait.set(Wait::Queued);
    }

    /// `receiver` takes the call of `caller`, which is in no queue: it has the right to answer it, and what it had
    /// not answered before will not be.
    #[inline(always)]
    pub(crate) fn take_call(&mut self, receiver: Ref<Dispatcher>, caller: Ref<Dispatcher>) {
        if let Some(old) = receiver.caller.get() {
            self.end_wait(old, SysError::NoReply, Place::Last);
        }
        receiver.caller.set(Some(caller));
        caller.partner.set(Some(receiver));
        caller.wait.set(Wait::Answer);
    }

    /// Tell callers of `d`, which has ended, as many as the budget allows.
    pub(crate) fn release_callers(&mut self, d: Ref<Dispatcher>, budget: &mut Budget) -> Progress {
        let next = || {
            let queued = || d.called.get().and_then(|e| e.queue.get());
            d.caller.get().or_else(|| d.saved_callers.get()).or_else(queued)
        };
        while let Some(caller) = next() {
            if !budget.take_object() {
                return Progress::Again;
            }
            self.end_wait(caller, SysError::Dead, Place::Last);
        }
        Progress::Done
    }

    /// Let go of those who wait at `e`, which is to be unbound.
    pub(crate) fn release_endpoint(&mut self, e: Ref<Endpoint>, budget: &mut Budget) -> Progress {
        while let Some(caller) = e.queue.get() {
            if !budget.take_object() {
                return Progress::Again;
            }
            self.end_wait(caller, SysError::NotBound, Place::Last);
        }
        if let Some(receiver) = e.dispatcher.get()
            && receiver.wait.get() == Wait::Receive
            && receiver.at.get() == Some(e)
        {
            self.end_wait(receiver, SysError::NotBound, Place::Last);
        }
        Progress::Done
    }

    /// `d` never runs again. Its callers are told now or, if there are many, step by step.
    pub(crate) fn retire(&mut self, d: Ref<Dispatcher>) {
        self.clear_deadline(d);
        self.dequeue(d);
        self.leave_wait(d);
        d.state.set(DispatcherState::Ended);
        let mut budget = Budget::ENTRY;
        if self.release_callers(d, &mut budget) == Progress::Again {
            d.queued.set(true);
            READY.append(&self.retired, d);
        }
    }

    /// Tell further callers of dispatchers that have ended.
    pub(crate) fn release_retired(&mut self) {
        let mut budget = Budget::ENTRY;
        while let Some(d) = self.retired.get() {
            if self.release_callers(d, &mut budget) == Progress::Again {
                return;
            }
            d.queued.set(false);
            READY.remove(&self.retired, d);
        }
    }

    /// `d` goes; the same for all of its callers, as far as the budget reaches.
    pub(crate) fn forget(&mut self, d: Ref<Dispatcher>, budget: &mut Budget) -> Progress {
        if self.release_callers(d, budget) == Progress::Again {
            return Progress::Again;
        }
        if d.queued.replace(false) {
            READY.remove(&self.retired, d);
        }
        Progress::Done
    }
}

/// Take a caller out of the queue of the endpoint where it is.
pub(crate) fn leave_queue(caller: Ref<Dispatcher>) {
    let Some(e) = caller.at.get() else { return };
    CALLERS.remove(&e.queue, caller);
    caller.at.set(None);
    if e.queue.get().is_none()
        && let Some(receiver) = e.dispatcher.get()
    {
        CALLED.remove(&receiver.called, e);
    }
}

/// Nobody can answer `caller` any more.
#[inline(always)]
pub(crate) fn void_right(caller: Ref<Dispatcher>) {
    let Some(partner) = caller.partner.get() else { return };
    caller.partner.set(None);
    match caller.right.replace(SlotAddr(0)) {
        SlotAddr(0) => partner.caller.set(None),
        slot => void_saved(caller, partner, slot),
    }
}

#[cold]
fn void_saved(caller: Ref<Dispatcher>, partner: Ref<Dispatcher>, slot: SlotAddr) {
    Memory.get_mut(slot).cap.data[0] = 0;
    CALLERS.remove(&partner.saved_callers, caller);
}

/// The right to answer `caller`, which `partner` received last, goes to `slot`, where it now is.
pub(crate) fn save_right(caller: Ref<Dispatcher>, partner: Ref<Dispatcher>, slot: SlotAddr) {
    partner.caller.set(None);
    caller.right.set(slot);
    CALLERS.append(&partner.saved_callers, caller);
}
