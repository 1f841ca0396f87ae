//! System calls: every one is an invocation of a capability.
//!
//! The reference is looked up, the operation matched with the capability's type, and done. A refusal changes
//! nothing and leaves the caller's registers alone; results go into the saved registers.

mod audit;
mod cores;
mod cspace;
mod dispatcher;
mod exchange;
mod links;
mod messages;
mod remote;
mod vspace;

use crate::arch::entry::{EntryState, MESSAGE_WORDS, interrupts, system_calls};
use crate::arch::{apic, io};
use crate::core_state::{self, Core, Memory};
use crate::dispatch::{Place, badge_bits};
use crate::objects::{Dispatcher, KernelObject, Notification, Own, Ref};
use caps::{Capability, Mark, SlotAddr, Slots};
use lmp::arguments::Words;
use lmp::frame::reg;
use lmp::invocation::{Counter, Op};
use lmp::{CPtr, ObjType, Rights, SysError, SysResult};

/// The caller's registers.
pub(crate) struct Registers<'a>(&'a mut EntryState);

impl Registers<'_> {
    /// Message word `n`.
    #[inline(always)]
    fn word(&self, n: usize) -> u64 {
        self.0.gpr[MESSAGE_WORDS[n]]
    }

    /// The slots that a message form names.
    fn slots(&self) -> u64 {
        self.0.gpr[reg::RBP]
    }

    /// Answer message word `n`. Only the first six are loaded on the short way back.
    #[inline(always)]
    fn set_word(&mut self, n: usize, value: u64) {
        debug_assert!(n < 6);
        self.0.gpr[MESSAGE_WORDS[n]] = value;
    }

    /// Set message word `n` for a return that loads all of them.
    #[inline(always)]
    fn set_message_word(&mut self, n: usize, value: u64) {
        self.0.gpr[MESSAGE_WORDS[n]] = value;
    }

    /// Clear the message words from `len` on, which are not sent, for a return that loads all of them.
    #[inline(always)]
    fn clear_words(&mut self, len: usize) {
        for (n, at) in MESSAGE_WORDS.into_iter().enumerate() {
            if n >= len {
                self.0.gpr[at] = 0;
            }
        }
    }

    /// Message word `n`, as a capability reference.
    fn cptr(&self, n: usize) -> SysResult<CPtr> {
        u32::try_from(self.word(n)).map(CPtr).map_err(|_| SysError::NoSuchSlot)
    }
}

impl Words for Registers<'_> {
    #[inline(always)]
    fn word(&self, n: usize) -> u64 {
        Registers::word(self, n)
    }
}

/// A capability that is being invoked, and its slot. What may change the slot works on a copy.
#[derive(Clone, Copy)]
pub(crate) struct Invoked<'a> {
    cap: &'a Capability,
    slot: SlotAddr,
}

impl Invoked<'_> {
    #[inline(always)]
    fn expect(&self, ty: ObjType) -> SysResult {
        if self.cap.ty == ty { Ok(()) } else { Err(self.not_applicable()) }
    }

    #[inline(always)]
    fn object<T: KernelObject>(&self) -> SysResult<Ref<T>> {
        Ref::from_cap(self.cap).ok_or_else(|| self.not_applicable())
    }

    #[cold]
    fn not_applicable(&self) -> SysError {
        if self.cap.is_null() { SysError::EmptySlot } else { SysError::NoSuchOperation }
    }

    #[inline(always)]
    fn need(&self, rights: Rights) -> SysResult {
        if self.cap.rights.contains(rights) { Ok(()) } else { Err(SysError::MissingRight) }
    }
}

/// Called by the entry code; answers the status for `rax`.
pub(crate) extern "C" fn entry(state: &mut EntryState) -> u64 {
    // SAFETY: called by the entry code, once per entry.
    let core = unsafe { core_state::take() };
    let header = state.gpr[reg::RAX];
    match invoke(core, &mut Registers(state), header) {
        Ok(()) => 0,
        Err(e) => e as u64,
    }
}

#[inline(always)]
fn invoke(core: &mut Core, r: &mut Registers<'_>, header: u64) -> SysResult {
    let memory = Memory;
    let slot = core.k.cspace.slot(&memory, CPtr(header as u32))?;
    let it = Invoked { cap: &memory.get(slot).cap, slot };
    if it.cap.mark != Mark::Ready {
        return Err(SysError::SlotBusy);
    }
    let Some(op) = Op::from_code((header >> 32) as u16) else { return Err(SysError::NoSuchOperation) };
    match op {
        Op::Poll => {
            let n = it.object::<Notification>()?;
            it.need(Rights::READ)?;
            r.set_word(0, n.word.replace(0));
            Ok(())
        }
        Op::Signal => {
            let Ok(n) = it.object::<Notification>() else { return links::signal(core, it) };
            it.need(Rights::WRITE)?;
            core.k.signal(n, badge_bits(it.cap.badge), Place::Last);
            Ok(())
        }
        Op::Yield => dispatcher::give_core(core, it),
        Op::Block => dispatcher::block(core, it),
        _ => slow(core, r, slot, op, header),
    }
}

/// Everything whose speed does not decide a round trip.
#[inline(never)]
fn slow(core: &mut Core, r: &mut Registers<'_>, slot: SlotAddr, op: Op, header: u64) -> SysResult {
    let cap = Memory.get(slot).cap;
    if cap.is_null() {
        return Err(SysError::EmptySlot);
    }
    let it = Invoked { cap: &cap, slot };
    match op {
        Op::Copy => cspace::copy(core, r, it),
        Op::Mint => cspace::mint(core, r, it),
        Op::Retype => cspace::retype(core, r, it),
        Op::Delete => cspace::delete(core, r, it),
        Op::Revoke => cspace::revoke(core, r, it),
        Op::Identify => cspace::identify(core, r, it),
        Op::Map => vspace::map(core, r, it),
        Op::Unmap => vspace::unmap(core, r, it),
        Op::Protect => vspace::protect(core, r, it),
        Op::Configure => dispatcher::configure(core, r, it),
        Op::Resume => dispatcher::resume(core, it),
        Op::Suspend => dispatcher::suspend(core, it),
        Op::ResizeRoot => dispatcher::resize_root(core, r, it),
        Op::SetEndNotice => dispatcher::set_end_notice(core, r, it),
        Op::Status => dispatcher::status(r, it),
        Op::Exit => dispatcher::exit(core, r, it),
        Op::BindEndpoint => messages::bind_endpoint(core, r, it),
        Op::Send => exchange::send(core, r, it, header),
        Op::Call => exchange::call(core, r, it, header),
        Op::Receive => exchange::receive(core, r, it, header),
        Op::ReplyReceive => exchange::reply_receive(core, r, it, header),
        Op::Reply => exchange::reply(core, r, it, header),
        Op::SaveReply => exchange::save_reply(core, r, it),
        Op::SetLanding => exchange::set_landing(core, r, it),
        Op::BindNotification => messages::bind_notification(core, r, it),
        Op::BindIrq => messages::bind_irq(core, r, it),
        Op::AckIrq => messages::acknowledge_irq(core, r, it),
        Op::SendIpi => send_ipi(core, r, it),
        Op::PortIn => port(r, it, Rights::READ),
        Op::PortOut => port(r, it, Rights::WRITE),
        Op::LoadKernel => cores::load(core, r, it),
        Op::GiveMemory => cores::give(core, r, it),
        Op::Arm => cores::arm(core, r, it),
        Op::SendInit => cores::send_init(core, it),
        Op::SendSipi => cores::send_sipi(core, it),
        Op::TrampolineStatus => cores::status(core, r, it),
        Op::Disarm => cores::disarm(core, it),
        Op::ReadCounter => read_counter(core, r, it),
        Op::SetLogDoorbell => set_log_doorbell(r, it),
        Op::Panic => {
            it.expect(ObjType::Kcb)?;
            it.need(Rights::WRITE)?;
            panic!("asked for by an invocation of the KCB")
        }
        Op::Poll | Op::Signal | Op::Yield | Op::Block => Err(SysError::NoSuchOperation),
        Op::CreateForeign => remote::create_foreign(core, r, it),
        Op::SetRemote => remote::set_remote(core, r, it),
        Op::Audit => audit::audit(core, r, it),
        Op::ConfigureLink => links::configure(core, r, it),
    }
}

/// The capability that message word `n` refers to in the caller's space.
fn operand(core: &Core, r: &Registers<'_>, n: usize) -> SysResult<(SlotAddr, Capability)> {
    let slot = core.k.cspace.capability(&Memory, r.cptr(n)?)?;
    Ok((slot, Memory.get(slot).cap))
}

/// The object that message word `n` refers to in the caller's space, by a capability that may change it.
fn operand_object<T: KernelObject>(core: &Core, r: &Registers<'_>, n: usize) -> SysResult<Ref<T>> {
    let (_, cap) = operand(core, r, n)?;
    let object = Ref::from_cap(&cap).ok_or(SysError::WrongType)?;
    if cap.rights.contains(Rights::WRITE) { Ok(object) } else { Err(SysError::MissingRight) }
}

/// After capabilities went: if the caller lost what it runs with, it ends instead of going on.
fn check_caller(core: &mut Core) -> SysResult {
    match core.k.current.get() {
        Some(d) if d.is_configured() => Ok(()),
        Some(d) => {
            core.end(d, lmp::invocation::EndCause::Deleted, 0, 0);
            core.dispatch()
        }
        None => core.dispatch(),
    }
}

/// The dispatcher invoked, which must be the caller.
fn own_dispatcher(core: &Core, it: Invoked<'_>) -> SysResult<Ref<Dispatcher>> {
    let d = it.object::<Dispatcher>()?;
    if core.k.current.get() == Some(d) { Ok(d) } else { Err(SysError::WrongState) }
}

/// A slot of a dispatcher, as a place for a capability.
fn own_place(d: Ref<Dispatcher>, which: Own) -> caps::Place {
    caps::Place { slot: d.slot(which), level: caps::Level::L2, room: 1 }
}

fn send_ipi(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::Ipi)?;
    it.need(Rights::WRITE)?;
    let target = r.word(0);
    if target < it.cap.base || target >= it.cap.end() {
        return Err(SysError::OutOfRange);
    }
    if !apic::is_user_doorbell(target) {
        return Err(SysError::BadArgument);
    }
    core.k.count(Counter::IpisSent);
    core.k.apic.send((target >> 8) as u32, target as u8);
    Ok(())
}

fn port(r: &mut Registers<'_>, it: Invoked<'_>, right: Rights) -> SysResult {
    it.expect(ObjType::IoPort)?;
    it.need(right)?;
    let (port, bytes) = (r.word(0), r.word(1));
    let width = io::Width::from_bytes(bytes).ok_or(SysError::BadArgument)?;
    let end = port.checked_add(bytes).ok_or(SysError::OutOfRange)?;
    if port < it.cap.base || end > it.cap.end() || end > 0x1_0000 {
        return Err(SysError::OutOfRange);
    }
    // SAFETY: the capability is the authority over these ports.
    unsafe {
        if right == Rights::READ {
            let value = io::input(port as u16, width);
            r.set_word(0, value.into());
        } else {
            io::output(port as u16, width, r.word(2) as u32);
        }
    }
    Ok(())
}

fn read_counter(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::Kcb)?;
    it.need(Rights::READ)?;
    let which = u8::try_from(r.word(0)).ok().and_then(Counter::from_code).ok_or(SysError::BadArgument)?;
    let value = match which {
        Counter::KernelEntries => system_calls() + interrupts(),
        Counter::SystemCalls => system_calls(),
        other => core.k.counters[other as usize],
    };
    r.set_word(0, value);
    Ok(())
}

fn set_log_doorbell(r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::Kcb)?;
    it.need(Rights::WRITE)?;
    let doorbell = r.word(0);
    if doorbell != 0 && !apic::is_user_doorbell(doorbell) {
        return Err(SysError::BadArgument);
    }
    crate::log_ring::set_doorbell(doorbell);
    Ok(())
}
