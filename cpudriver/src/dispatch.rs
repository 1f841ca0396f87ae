//! Scheduling: which dispatcher has the core, how it goes on, and how it ends.
//!
//! Ready dispatchers form a ring; the first has the core. The timer is one-shot and set only while there is
//! something to wait for: the end of a time slice with two or more dispatchers ready, or a deadline. An idle
//! core halts without a timer.

use crate::arch::entry::{self, EntryState, MESSAGE_WORDS};
use crate::arch::user::{self, Vector};
use crate::arch::{cpu, paging};
use crate::core_state::{Core, Kernel, Memory};
use crate::objects::{Dispatcher, Notification, Own, READY, Ref, Saved, Wait};
use caps::{Budget, CSpace};
use lmp::SysError;
use lmp::frame::{SaveArea, reg};
use lmp::invocation::{Counter, DispatcherState, EndCause};
use lmp::layout::USER_TOP;

/// Length of a time slice in milliseconds.
const SLICE_MS: u64 = 10;

/// MXCSR 0x1f80 and x87 control word 0x37f: all exceptions masked, round to nearest.
pub(crate) const FP_CONTROL_INITIAL: u64 = 0x037f_0000_1f80;

/// Where in the ready queue a dispatcher that can run again goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In front: it gets the core next.
    First,
    /// Behind all others.
    Last,
}

impl Kernel {
    /// Put a dispatcher into the ready queue, if it is not there. The one that runs has to share the core then.
    pub(crate) fn enqueue(&mut self, d: Ref<Dispatcher>, place: Place) {
        if d.queued.replace(true) {
            return;
        }
        self.ready_count += 1;
        READY.append(&self.ready, d);
        if place == Place::First {
            self.ready.set(Some(d));
        }
        if self.ready_count > 1 && self.timer_at > self.slice_end {
            self.update_timer();
        }
    }

    /// Take a dispatcher out of the ready queue, if it is there.
    pub(crate) fn dequeue(&mut self, d: Ref<Dispatcher>) {
        if !d.queued.replace(false) {
            return;
        }
        self.ready_count -= 1;
        READY.remove(&self.ready, d);
    }

    /// `to`, which is not in the ready queue, takes the place of `from`, which is.
    #[inline(always)]
    pub(crate) fn hand_place(&mut self, from: Ref<Dispatcher>, to: Ref<Dispatcher>) {
        READY.replace(&self.ready, from, to);
        from.queued.set(false);
        to.queued.set(true);
    }

    /// The first in the ready queue goes behind all others.
    pub(crate) fn rotate(&mut self) {
        READY.rotate(&self.ready);
    }

    /// Wake `d` at `deadline`, in TSC ticks.
    pub(crate) fn set_deadline(&mut self, d: Ref<Dispatcher>, deadline: u64) {
        self.clear_deadline(d);
        d.deadline.set(deadline);
        let (mut previous, mut next) = (None, self.deadlines);
        while let Some(n) = next.filter(|n| n.deadline.get() <= deadline) {
            previous = Some(n);
            next = n.next_deadline.get();
        }
        d.previous_deadline.set(previous);
        d.next_deadline.set(next);
        if let Some(next) = next {
            next.previous_deadline.set(Some(d));
        }
        match previous {
            Some(previous) => previous.next_deadline.set(Some(d)),
            None => self.deadlines = Some(d),
        }
    }

    /// Undo [`Kernel::set_deadline`].
    pub(crate) fn clear_deadline(&mut self, d: Ref<Dispatcher>) {
        if d.deadline.replace(0) == 0 {
            return;
        }
        let (next, previous) = (d.next_deadline.get(), d.previous_deadline.get());
        if let Some(next) = next {
            next.previous_deadline.set(previous);
        }
        match previous {
            Some(previous) => previous.next_deadline.set(next),
            None => self.deadlines = next,
        }
        d.next_deadline.set(None);
        d.previous_deadline.set(None);
    }

    /// Wake those whose deadline has passed.
    pub(crate) fn expire_deadlines(&mut self) {
        let now = cpu::tsc();
        while let Some(d) = self.deadlines.filter(|d| d.deadline.get() <= now) {
            self.end_wait(d, SysError::TimedOut, Place::First);
        }
    }

    /// Set bits of a notification and tell the dispatcher it is bound to.
    pub(crate) fn signal(&mut self, n: Ref<Notification>, bits: u64, place: Place) {
        n.word.set(n.word.get() | bits);
        if let Some(d) = n.dispatcher.get() {
            self.raise_event(d, n.event.get(), place);
        }
    }

    /// Set an event bit in a dispatcher's frame, and wake it unless it has called somebody.
    pub(crate) fn raise_event(&mut self, d: Ref<Dispatcher>, event: u8, place: Place) {
        if let Some(frame) = d.frame() {
            // SAFETY: the frame is mapped in the window while the dispatcher has it. The domain, which may
            // write the word too, does not run meanwhile.
            unsafe { (*frame).control.events |= 1 << (event & 63) };
            if matches!(d.wait.get(), Wait::Block | Wait::Receive | Wait::ReceiveAny) {
                self.end_wait(d, SysError::Interrupted, place);
            }
        }
    }

    /// Program the timer for what is next, if that changed.
    pub(crate) fn update_timer(&mut self) {
        let mut at = if self.ready_count > 1 { self.slice_end } else { u64::MAX };
        if let Some(d) = self.deadlines {
            at = at.min(d.deadline.get());
        }
        if self.retired.get().is_some() {
            at = 0;
        }
        if at == self.timer_at {
            return;
        }
        self.timer_at = at;
        if at == u64::MAX {
            self.apic.set_timer(0);
            return;
        }
        let ticks = u128::from(at.saturating_sub(cpu::tsc())) * u128::from(self.timer_ticks);
        self.apic.set_timer(u32::try_from(ticks >> 32).unwrap_or(u32::MAX).max(1));
    }

    /// The timer fired.
    pub(crate) fn timer_fired(&mut self) {
        self.count(Counter::TimerTicks);
        self.timer_at = u64::MAX;
        self.expire_deadlines();
        if cpu::tsc() >= self.slice_end && self.ready.get() == self.current.get() {
            self.rotate();
        }
    }
}

impl Core {
    /// Give the core to the first ready dispatcher, or halt until there is one.
    pub(crate) fn dispatch(&mut self) -> ! {
        loop {
            let Some(d) = self.k.ready.get() else { self.idle() };
            if !d.is_configured() {
                self.end(d, EndCause::Deleted, 0, 0);
                continue;
            }
            self.run(d);
        }
    }

    /// Halt until an interrupt. Objects whose deletion nobody can name any more are taken down meanwhile, a
    /// bounded part at a time: the timer fires at once while some are left.
    fn idle(&mut self) -> ! {
        self.k.count(Counter::Idles);
        self.clean();
        self.k.update_timer();
        if self.db.has_unfinished() {
            self.k.timer_at = 0;
            self.k.apic.set_timer(1);
        }
        user::idle()
    }

    /// Go on with deletions that were left unfinished, such as that of a domain which deleted itself.
    pub(crate) fn clean(&mut self) {
        self.k.release_retired();
        if self.db.has_unfinished() {
            let mut budget = Budget::ENTRY;
            let _ = self.db.clean(&mut Memory, &mut self.k, &mut budget);
        }
    }

    /// Enter a configured dispatcher. Comes back only if its save area cannot be used: then it has ended.
    fn run(&mut self, d: Ref<Dispatcher>) {
        let Some(frame) = d.frame() else { return };
        if self.k.current.get() != Some(d) {
            self.switch_to(d);
            self.k.begin_slice();
        }
        self.k.update_timer();
        // SAFETY: the frame is mapped while the dispatcher has it; the domain does not run meanwhile.
        let control = unsafe { (*frame).control };
        if d.saved.get() == Saved::Short {
            if control.events == 0 {
                self.return_short(d);
            }
            self.spill(d);
        }
        match d.saved.get() {
            // `spill` left nothing there.
            Saved::Short => {}
            Saved::Enabled if control.run != 0 => self.upcall(d, control.run, [control.events, 0, 0]),
            Saved::Enabled => self.resume(d, offsets::ENABLED),
            Saved::Disabled => self.resume(d, offsets::DISABLED),
        }
    }

    /// Load the address space and state of a dispatcher other than the current one.
    #[inline(always)]
    pub(crate) fn switch_to(&mut self, d: Ref<Dispatcher>) {
        self.k.count(Counter::Switches);
        let root = d.own(Own::VSpace).base;
        if root != paging::current_root() {
            // SAFETY: every root VNode of this core has the CPU driver's own upper half.
            unsafe { paging::load_root(root) };
        }
        cpu::clear_data_segments();
        self.k.cspace = d.space.get();
        self.k.current.set(Some(d));
    }

    /// Enter an upcall with up to three arguments after the frame's own address.
    fn upcall(&mut self, d: Ref<Dispatcher>, entry: u64, arguments: [u64; 3]) {
        let Some(frame) = d.frame() else { return };
        // SAFETY: as in `run`.
        let control = unsafe {
            (*frame).control.disabled = 1;
            (*frame).control
        };
        if entry >= USER_TOP {
            return self.end(d, EndCause::BadSaveArea, entry, 0);
        }
        self.k.count(Counter::Upcalls);
        let mut area = SaveArea { rip: entry, rflags: 0, ..SaveArea::default() };
        area.gpr[reg::RSP] = control.upcall_stack;
        area.gpr[reg::RDI] = control.self_va;
        [area.gpr[reg::RSI], area.gpr[reg::RDX], area.gpr[reg::RCX]] = arguments;
        let fp = if d.short.fp_control.get() == 0 { FP_CONTROL_INITIAL } else { d.short.fp_control.get() };
        user::enter(&self.k.features, &area, Vector::Initial(fp))
    }

    /// Load a save area.
    fn resume(&mut self, d: Ref<Dispatcher>, which: offsets::Area) {
        let Some(frame) = d.frame() else { return };
        // SAFETY: the offsets are those of a save area and its vector area; mapped as in `run`. The copy is
        // taken once and is what is checked and used.
        let area = unsafe { *frame.byte_add(which.area).cast::<SaveArea>() };
        if area.rip >= USER_TOP || !cpu::is_canonical(area.fs_base) || !cpu::is_canonical(area.gs_base) {
            return self.end(d, EndCause::BadSaveArea, area.rip, area.rip);
        }
        let vector = if area.vector_valid != 0 {
            Vector::Saved(frame as u64 + which.vector as u64)
        } else {
            Vector::Initial(area.fp_control)
        };
        user::enter(&self.k.features, &area, vector)
    }

    /// Go on with the interrupted dispatcher if it is still first, without an upcall unless an event waits;
    /// else with the first.
    pub(crate) fn continue_after_interrupt(&mut self) -> ! {
        if let Some(d) = self.k.current.get().filter(|d| self.k.ready.get() == Some(*d) && d.is_configured())
            && let Some(frame) = d.frame()
            // SAFETY: as in `run`.
            && (d.saved.get() == Saved::Disabled || unsafe { (*frame).control.events } == 0)
        {
            self.k.update_timer();
            let which = if d.saved.get() == Saved::Enabled { offsets::ENABLED } else { offsets::DISABLED };
            self.resume(d, which);
        }
        self.dispatch()
    }

    /// Deliver an exception to a dispatcher by upcall.
    pub(crate) fn deliver(&mut self, d: Ref<Dispatcher>, entry: u64, arguments: [u64; 3]) -> ! {
        self.upcall(d, entry, arguments);
        self.dispatch()
    }

    /// Save the registers of the running dispatcher at a system call, which will answer `status`.
    pub(crate) fn save_system_call(&mut self, d: Ref<Dispatcher>, status: u64) {
        // SAFETY: the entry code filled the state.
        let state = unsafe { &*entry::ENTRY.get() };
        let (fs_base, gs_base) = cpu::user_bases(&self.k.features);
        let mut gpr = state.gpr;
        gpr[reg::RAX] = status;
        let fp_control = user::fp_control();
        d.short.fp_control.set(fp_control);
        let (rip, rflags) = (state.gpr[reg::RCX], state.gpr[reg::R11]);
        write_area(d, SaveArea { gpr, rip, rflags, fs_base, gs_base, vector_valid: 0, fp_control });
    }

    /// Save what survives a message form of the running dispatcher's registers in the dispatcher.
    #[inline(always)]
    pub(crate) fn save_short(&mut self, d: Ref<Dispatcher>, state: &EntryState) {
        let short = &d.short;
        short.rip.set(state.gpr[reg::RCX]);
        short.rsp.set(state.gpr[reg::RSP]);
        short.rflags.set(state.gpr[reg::R11]);
        short.rbp.set(state.gpr[reg::RBP]);
        short.rbx.set(state.gpr[reg::RBX]);
        let (fs_base, gs_base) = cpu::user_bases(&self.k.features);
        short.fs_base.set(fs_base);
        short.gs_base.set(gs_base);
        short.fp_control.set(user::fp_control());
        d.saved.set(Saved::Short);
    }

    /// Go on with `d`, which is loaded, from what [`Self::save_short`] saved, with its words.
    pub(crate) fn return_short(&mut self, d: Ref<Dispatcher>) -> ! {
        // SAFETY: entries that have references to the state do not come here.
        let state = unsafe { &mut *entry::ENTRY.get() };
        let len = usize::from(d.len.get());
        for (n, at) in MESSAGE_WORDS.into_iter().enumerate() {
            state.gpr[at] = if n < len { d.words[n].get() } else { 0 };
        }
        self.return_with(d, state)
    }

    /// The same with the words in `state`.
    #[inline(always)]
    pub(crate) fn return_with(&mut self, d: Ref<Dispatcher>, state: &mut EntryState) -> ! {
        cpu::set_user_bases(&self.k.features, d.short.fs_base.get(), d.short.gs_base.get());
        // SAFETY: the registers in `short` are what an earlier system call of `d` saved, whose address space and
        // frame are loaded, so none of them faults.
        unsafe { entry::return_short(&d.short, state) }
    }

    /// Move what [`Self::save_short`] saved, and the words, to the save area in the frame.
    pub(crate) fn spill(&mut self, d: Ref<Dispatcher>) {
        let short = &d.short;
        let mut gpr = [0; 16];
        gpr[reg::RAX] = short.rax.get();
        gpr[reg::RBX] = short.rbx.get();
        gpr[reg::RBP] = short.rbp.get();
        gpr[reg::RSP] = short.rsp.get();
        for (at, word) in MESSAGE_WORDS.into_iter().zip(&d.words).take(d.len.get().into()) {
            gpr[at] = word.get();
        }
        let area = SaveArea {
            gpr,
            rip: short.rip.get(),
            rflags: short.rflags.get(),
            fs_base: short.fs_base.get(),
            gs_base: short.gs_base.get(),
            vector_valid: 0,
            fp_control: short.fp_control.get(),
        };
        write_area(d, area);
    }

    /// End a dispatcher: it never runs again. Who asked to know is told.
    pub(crate) fn end(&mut self, d: Ref<Dispatcher>, cause: EndCause, detail: u64, rip: u64) {
        if d.state.get() == DispatcherState::Ended {
            return;
        }
        self.k.retire(d);
        d.cause.set(cause);
        d.detail.set(detail);
        d.fault_rip.set(rip);
        if self.k.current.get() == Some(d) {
            self.k.leave_current();
        }
        if !matches!(cause, EndCause::Exit | EndCause::Deleted) {
            self.k.count(Counter::Faults);
            d.with_name(|name| {
                log::warn!("domain {name} ended: {} (detail {detail:#x}) at {rip:#x}", cause.text());
            });
        }
        let notice = d.own(Own::EndNotice);
        if let Some(n) = Ref::<Notification>::from_cap(&notice) {
            self.k.signal(n, badge_bits(notice.badge), Place::Last);
        }
    }
}

impl Kernel {
    /// The current dispatcher has a whole time slice from now on.
    #[inline(always)]
    pub(crate) fn begin_slice(&mut self) {
        self.slice_end = cpu::tsc() + SLICE_MS * self.handover.tsc_per_ms;
    }

    /// No dispatcher is loaded any more: use the CPU driver's own address space.
    pub(crate) fn leave_current(&mut self) {
        self.current.set(None);
        self.cspace = CSpace::EMPTY;
        // SAFETY: the CPU driver's own root.
        unsafe { paging::load_root(self.handover.root) };
    }
}

/// Write the registers of `d`, as a system call leaves them, to the save area that is for the place it is at.
fn write_area(d: Ref<Dispatcher>, area: SaveArea) {
    let Some(frame) = d.frame() else { return };
    // SAFETY: the frame is mapped while the dispatcher has it; the domain does not run meanwhile.
    unsafe {
        let control = (*frame).control;
        let critical = control.critical_start <= area.rip && area.rip < control.critical_end;
        if control.disabled != 0 || critical {
            (&raw mut (*frame).disabled_area).write(area);
            d.saved.set(Saved::Disabled);
        } else {
            (&raw mut (*frame).enabled).write(area);
            d.saved.set(Saved::Enabled);
        }
    }
}

/// The bits that a signal through a capability with `badge` sets.
pub(crate) fn badge_bits(badge: u64) -> u64 {
    if badge == 0 { 1 } else { badge }
}

/// Save areas in the dispatcher frame.
mod offsets {
    use lmp::frame::offset;

    /// A save area and its vector area.
    #[derive(Clone, Copy)]
    pub(super) struct Area {
        pub area: usize,
        pub vector: usize,
    }

    /// Registers of an enabled dispatcher.
    pub(super) const ENABLED: Area = Area { area: offset::ENABLED, vector: offset::ENABLED_VECTOR };
    /// Registers of a disabled dispatcher.
    pub(super) const DISABLED: Area = Area { area: offset::DISABLED_AREA, vector: offset::DISABLED_VECTOR };
}
