//! The message forms: send, call, receive, reply.
//!
//! If the receiver waits, the core goes straight to it: the words stay in the saved registers of this entry, the
//! sender's few other registers go to its [`Short`](crate::objects::Short), the receiver's come from there. On a
//! call the receiver also takes the sender's place in the ready queue and the rest of its time slice. Calls and
//! answers that need nothing but that usually do not get here: [`crate::arch`] has a short way for them. What can
//! be refused is checked before anything changes.

use super::{Invoked, Registers, own_dispatcher};
use crate::arch::cpu;
use crate::core_state::{Core, Memory};
use crate::dispatch::Place;
use crate::objects::{CALLED, Dispatcher, Endpoint, Own, Ref, WORDS, Wait};
use crate::waiting;
use caps::{CSpace, SlotAddr, Slots};
use lmp::frame::{EndpointBuffer, Message};
use lmp::invocation::{DispatcherState, MessageInfo, ReceivedInfo};
use lmp::{CPtr, ObjType, Rights, SlotRef, SysError, SysResult};

/// Callers that one receive looks at: those whose capability cannot be passed on are sent back.
const CALLERS_PER_ENTRY: u32 = 16;

/// What a message form asks for besides the words.
#[derive(Clone, Copy)]
struct Form {
    info: MessageInfo,
    /// The capability to send; null if none.
    cargo: CPtr,
    /// The slot for one that comes; null if none.
    landing: CPtr,
}

impl Form {
    fn new(r: &Registers<'_>, header: u64) -> SysResult<Form> {
        let info = MessageInfo((header >> 48) as u16);
        if info.words() > WORDS {
            return Err(SysError::TooLong);
        }
        let slots = r.slots();
        let named = |flag, slot: u64| if info.has(flag) { CPtr(slot as u32) } else { CPtr::NULL };
        let cargo = named(MessageInfo::SEND_CAP, slots);
        if info.has(MessageInfo::SEND_CAP) && cargo == CPtr::NULL {
            return Err(SysError::EmptySlot);
        }
        Ok(Form { info, cargo, landing: named(MessageInfo::RECEIVE_CAP, slots >> 32) })
    }

    /// Of a message to an endpoint, by a capability that allows it.
    fn to_endpoint(r: &Registers<'_>, it: Invoked<'_>, header: u64) -> SysResult<Form> {
        it.need(Rights::WRITE)?;
        let form = Form::new(r, header)?;
        if form.sends_cap() {
            it.need(Rights::GRANT)?;
        }
        Ok(form)
    }

    fn sends_cap(&self) -> bool {
        self.cargo != CPtr::NULL
    }

    fn gives(&self) -> bool {
        self.info.has(MessageInfo::GIVE)
    }
}

/// Whether `d` waits for a message to `e`.
fn waits_at(d: Ref<Dispatcher>, e: Ref<Endpoint>) -> bool {
    match d.wait.get() {
        Wait::ReceiveAny => true,
        Wait::Receive => d.at.get() == Some(e),
        _ => false,
    }
}

/// The running dispatcher.
fn caller(core: &Core) -> SysResult<Ref<Dispatcher>> {
    core.k.current.get().ok_or(SysError::WrongState)
}

/// Whether `d` can be sent to.
fn check_alive(d: Ref<Dispatcher>) -> SysResult {
    if d.state.get() != DispatcherState::Ended && d.is_configured() { Ok(()) } else { Err(SysError::Dead) }
}

/// Enter `to`, which is ready, with the first `len` words of this entry.
fn enter(core: &mut Core, r: &mut Registers<'_>, to: Ref<Dispatcher>, len: usize) -> ! {
    r.clear_words(len);
    core.switch_to(to);
    core.return_with(to, r.0)
}

/// The capability is a copy: what is passed on may be the invoked one.
pub(super) fn send(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>, header: u64) -> SysResult {
    let (e, form) = (it.object::<Endpoint>()?, Form::to_endpoint(r, it, header)?);
    let me = caller(core)?;
    let d = e.dispatcher.get().ok_or(SysError::NotBound)?;
    check_alive(d)?;
    let (len, badge) = (form.info.words(), it.cap.badge);
    let received = ReceivedInfo::new(len, form.sends_cap(), false, e.call.get().label());
    if waits_at(d, e) {
        if form.sends_cap() {
            transfer(core, core.k.cspace, form.cargo, d, d.landing.get(), form.gives())?;
        }
        core.save_short(me, r.0);
        me.short.rax.set(0);
        me.len.set(0);
        core.k.leave_wait(d);
        d.short.rax.set(received.0);
        d.short.rbx.set(badge);
        core.k.begin_slice();
        core.k.make_ready(d, Place::First);
        core.k.update_timer();
        enter(core, r, d, len)
    }
    let Some(frame) = d.frame() else { return Err(SysError::Dead) };
    let mut ring = e.ring.get();
    // SAFETY: the buffer lies in the frame, as checked when it was bound; the domain does not run meanwhile.
    let buffer = unsafe { frame.byte_add(e.offset.get() as usize).cast::<EndpointBuffer>() };
    // SAFETY: as above.
    let slot = ring.vacancy(unsafe { (*buffer).consumed }).ok_or(SysError::BufferFull)?;
    let mut landed = CPtr::NULL;
    if form.sends_cap() {
        landed = e.landing.get();
        transfer(core, core.k.cspace, form.cargo, d, landed, form.gives())?;
        e.landing.set(CPtr::NULL);
    }
    let mut message = Message { badge, info: received, landed: landed.0.into(), ..Message::default() };
    for (n, word) in message.words[..len].iter_mut().enumerate() {
        *word = r.word(n);
    }
    ring.advance();
    e.ring.set(ring);
    // SAFETY: as above; the slot is below the buffer's length.
    unsafe {
        buffer.add(1).cast::<Message>().add(slot as usize).write(message);
        (*buffer).written = ring.written();
    }
    core.k.raise_event(d, e.event.get(), Place::Last);
    Ok(())
}

/// As in [`send`], the capability is a copy.
pub(super) fn call(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>, header: u64) -> SysResult {
    let (e, form) = (it.object::<Endpoint>()?, Form::to_endpoint(r, it, header)?);
    let me = caller(core)?;
    let d = e.dispatcher.get().ok_or(SysError::NotBound)?;
    check_alive(d)?;
    if me == d {
        // Nobody else can answer.
        return Err(SysError::WrongState);
    }
    let deadline = deadline(me, form.info)?;
    let (len, badge) = (form.info.words(), it.cap.badge);
    if waits_at(d, e) {
        if form.sends_cap() {
            transfer(core, core.k.cspace, form.cargo, d, d.landing.get(), form.gives())?;
        }
        core.save_short(me, r.0);
        me.landing.set(form.landing);
        me.state.set(DispatcherState::Blocked);
        core.k.take_call(d, me);
        // It goes on in the caller's time slice.
        core.k.hand_place(me, d);
        core.k.leave_wait(d);
        core.k.make_ready(d, Place::First);
        set_deadline(core, me, deadline);
        d.short.rax.set(ReceivedInfo::new(len, form.sends_cap(), true, e.call.get().label()).0);
        d.short.rbx.set(badge);
        core.k.update_timer();
        enter(core, r, d, len)
    }
    if form.sends_cap() {
        cargo(core.k.cspace, form.cargo)?;
    }
    me.landing.set(form.landing);
    me.cargo.set(form.cargo);
    me.gives.set(form.gives());
    me.badge.set(badge);
    me.len.set(len as u8);
    for (n, word) in me.words[..len].iter().enumerate() {
        word.set(r.word(n));
    }
    core.save_short(me, r.0);
    me.state.set(DispatcherState::Blocked);
    core.k.dequeue(me);
    core.k.queue(e, d, me);
    set_deadline(core, me, deadline);
    core.k.raise_event(d, e.event.get(), Place::Last);
    core.dispatch()
}

/// Who is heard by a receive: the running dispatcher, at one of its endpoints or at all.
fn listener(core: &Core, it: Invoked<'_>) -> SysResult<(Ref<Dispatcher>, Option<Ref<Endpoint>>)> {
    if it.cap.ty == ObjType::Endpoint {
        let e = it.object::<Endpoint>()?;
        it.need(Rights::READ)?;
        match e.dispatcher.get() {
            Some(d) if core.k.current.get() == Some(d) => Ok((d, Some(e))),
            Some(_) => Err(SysError::WrongState),
            None => Err(SysError::NotBound),
        }
    } else {
        Ok((own_dispatcher(core, it)?, None))
    }
}

/// Whether an event is pending for the running dispatcher.
fn has_event(d: Ref<Dispatcher>) -> bool {
    // SAFETY: the frame is mapped while the dispatcher runs, and the domain does not meanwhile.
    d.frame().is_some_and(|frame| unsafe { (*frame).control.events } != 0)
}

/// Whether callers are queued where `d` listens.
fn has_callers(d: Ref<Dispatcher>, at: Option<Ref<Endpoint>>) -> bool {
    match at {
        Some(e) => e.queue.get().is_some(),
        None => d.called.get().is_some(),
    }
}

pub(super) fn receive(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>, header: u64) -> SysResult {
    let (me, at) = listener(core, it)?;
    let form = Form::new(r, header)?;
    receive_from(core, r, me, at, form)
}

fn receive_from(
    core: &mut Core,
    r: &mut Registers<'_>,
    me: Ref<Dispatcher>,
    at: Option<Ref<Endpoint>>,
    form: Form,
) -> SysResult {
    if has_event(me) {
        return Err(SysError::Interrupted);
    }
    for _ in 0..CALLERS_PER_ENTRY {
        let Some(e) = at.or_else(|| me.called.get()) else { break };
        let Some(next) = e.queue.get() else { break };
        take_queued(core, r, me, (e, next), form.landing);
    }
    if has_callers(me, at) {
        return Err(SysError::Again);
    }
    let deadline = deadline(me, form.info)?;
    core.save_short(me, r.0);
    me.landing.set(form.landing);
    me.wait.set(if at.is_some() { Wait::Receive } else { Wait::ReceiveAny });
    me.at.set(at);
    me.state.set(DispatcherState::Blocked);
    core.k.dequeue(me);
    set_deadline(core, me, deadline);
    core.dispatch()
}

/// `me` receives the message of `next`, first in the queue of `e`, and goes on. Comes back if the capability that
/// `next` sends cannot be passed on; then `next` is told why.
fn take_queued(
    core: &mut Core,
    r: &mut Registers<'_>,
    me: Ref<Dispatcher>,
    (e, next): (Ref<Endpoint>, Ref<Dispatcher>),
    landing: CPtr,
) {
    let cargo = next.cargo.get();
    if cargo != CPtr::NULL {
        let space = CSpace::new(&next.own(Own::CSpace)).unwrap_or(CSpace::EMPTY);
        if let Err(why) = transfer(core, space, cargo, me, landing, next.gives.get()) {
            return core.k.end_wait(next, why, Place::Last);
        }
    }
    waiting::leave_queue(next);
    if me.called.get() == Some(e) {
        // The other endpoints come first now.
        CALLED.rotate(&me.called);
    }
    core.k.take_call(me, next);
    let len = usize::from(next.len.get());
    core.save_short(me, r.0);
    me.short.rax.set(ReceivedInfo::new(len, cargo != CPtr::NULL, true, e.call.get().label()).0);
    me.short.rbx.set(next.badge.get());
    for (n, word) in next.words[..len].iter().enumerate() {
        r.set_message_word(n, word.get());
    }
    r.clear_words(len);
    core.k.update_timer();
    core.return_with(me, r.0)
}

pub(super) fn reply_receive(
    core: &mut Core,
    r: &mut Registers<'_>,
    it: Invoked<'_>,
    header: u64,
) -> SysResult {
    let (me, at) = listener(core, it)?;
    let form = Form::new(r, header)?;
    if let Some(c) = me.caller.get() {
        answer(core, r, c, form)?;
    }
    receive_from(core, r, me, at, form)
}

/// Answer `c`, which goes on.
fn answer(core: &mut Core, r: &Registers<'_>, c: Ref<Dispatcher>, form: Form) -> SysResult {
    if form.sends_cap() {
        transfer(core, core.k.cspace, form.cargo, c, c.landing.get(), form.gives())?;
    }
    let len = form.info.words();
    core.k.leave_wait(c);
    for (n, word) in c.words[..len].iter().enumerate() {
        word.set(r.word(n));
    }
    c.len.set(len as u8);
    c.short.rax.set(ReceivedInfo::new(len, form.sends_cap(), false, 0).0);
    core.k.make_ready(c, Place::Last);
    core.k.update_timer();
    Ok(())
}

pub(super) fn reply(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>, header: u64) -> SysResult {
    let form = Form::new(r, header)?;
    if it.cap.ty != ObjType::Reply {
        let me = own_dispatcher(core, it)?;
        let c = me.caller.get().ok_or(SysError::NoCaller)?;
        return answer(core, r, c, form);
    }
    let c = Ref::of_right(it.cap);
    if let Some(c) = c {
        answer(core, r, c, form)?;
    }
    // Used, or of no use any more.
    core.db.take_reply(&mut Memory, it.slot)?;
    c.map(|_| ()).ok_or(SysError::NoCaller)
}

pub(super) fn save_reply(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let me = own_dispatcher(core, it)?;
    let c = me.caller.get().ok_or(SysError::NoCaller)?;
    let place = core.k.cspace.resolve(&Memory, SlotRef::L2(r.cptr(0)?))?;
    core.db.insert_reply(&mut Memory, place, c.to_word())?;
    waiting::save_right(c, me, place.slot);
    Ok(())
}

pub(super) fn set_landing(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let (_, e) = listener(core, it)?;
    let e = e.ok_or(SysError::NoSuchOperation)?;
    e.landing.set(r.cptr(0)?);
    Ok(())
}

/// Until when `d` waits at most, in TSC ticks; `TimedOut` if that has passed.
fn deadline(d: Ref<Dispatcher>, info: MessageInfo) -> SysResult<u64> {
    if !info.has(MessageInfo::DEADLINE) {
        return Ok(u64::MAX);
    }
    // SAFETY: the frame is mapped while the dispatcher runs, and the domain does not meanwhile.
    let deadline = d.frame().map_or(0, |frame| unsafe { (*frame).control.receive_deadline });
    if deadline > cpu::tsc() { Ok(deadline) } else { Err(SysError::TimedOut) }
}

fn set_deadline(core: &mut Core, d: Ref<Dispatcher>, deadline: u64) {
    if deadline != u64::MAX {
        core.k.set_deadline(d, deadline);
        core.k.update_timer();
    }
}

/// The slot of a capability that may be passed on.
fn cargo(space: CSpace, reference: CPtr) -> SysResult<SlotAddr> {
    let slot = space.capability(&Memory, reference)?;
    match Memory.get(slot).cap.ty {
        // What maps memory belongs to an address space, and who answers a call was decided by its receiver.
        ObjType::Mapping | ObjType::Reply => Err(SysError::NotTransferable),
        _ => Ok(slot),
    }
}

/// Pass the capability `from` of `space` on to the slot `landing` of `to`.
fn transfer(
    core: &mut Core,
    space: CSpace,
    from: CPtr,
    to: Ref<Dispatcher>,
    landing: CPtr,
    gives: bool,
) -> SysResult {
    let source = cargo(space, from)?;
    if landing == CPtr::NULL {
        return Err(SysError::NoLanding);
    }
    let target = CSpace::new(&to.own(Own::CSpace)).map_err(|_| SysError::Dead)?;
    let place = target.resolve(&Memory, SlotRef::L2(landing))?;
    if gives { core.db.give(&mut Memory, place, source) } else { core.db.copy(&mut Memory, place, source) }
}
