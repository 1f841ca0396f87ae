//! Endpoints, notifications and interrupts: what is bound to what. Messages are in [`super::exchange`].

use super::{Invoked, Registers, operand, operand_object};
use crate::core_state::{Core, IrqBinding};
use crate::dispatch::{Place, badge_bits};
use crate::objects::{Dispatcher, Endpoint, Notification, bind};
use lmp::buffer::Ring;
use lmp::frame::{EndpointBuffer, FRAME_SIZE, Message};
use lmp::invocation::{ReceivedInfo, USER_VECTOR_FIRST};
use lmp::{ObjType, Rights, SysError, SysResult};

pub(super) fn bind_endpoint(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let e = it.object::<Endpoint>()?;
    it.need(Rights::READ)?;
    let d = operand_object::<Dispatcher>(core, r, 0)?;
    let (offset, len, event) = (r.word(1), r.word(2), r.word(3));
    let label = u32::try_from(r.word(4)).map_err(|_| SysError::BadArgument)?;
    if e.dispatcher.get().is_some() {
        return Err(SysError::AlreadyBound);
    }
    if event > 63 || len == 0 || len > 1 << 16 {
        return Err(SysError::BadArgument);
    }
    let frame = d.own(crate::objects::Own::Frame);
    if frame.ty != ObjType::Frame {
        return Err(SysError::NotConfigured);
    }
    if !offset.is_multiple_of(64) {
        return Err(SysError::Misaligned);
    }
    let size = size_of::<EndpointBuffer>() as u64 + len * Message::SIZE;
    if offset < FRAME_SIZE || offset > frame.size || size > frame.size - offset {
        return Err(SysError::OutOfRange);
    }
    e.offset.set(offset as u32);
    e.ring.set(Ring::new(len as u32));
    e.event.set(event as u8);
    e.call.set(ReceivedInfo::new(0, false, true, label));
    bind(e, d);
    if let Some(f) = d.frame() {
        // SAFETY: the buffer lies in the frame, as just checked, 64-byte aligned.
        unsafe { f.byte_add(offset as usize).cast::<EndpointBuffer>().write(EndpointBuffer::default()) };
    }
    Ok(())
}

pub(super) fn bind_notification(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    let n = it.object::<Notification>()?;
    it.need(Rights::READ)?;
    let d = operand_object::<Dispatcher>(core, r, 0)?;
    let event = u8::try_from(r.word(1)).ok().filter(|e| *e < 64).ok_or(SysError::BadArgument)?;
    if n.dispatcher.get().is_some() {
        return Err(SysError::AlreadyBound);
    }
    n.event.set(event);
    bind(n, d);
    if n.word.get() != 0 {
        core.k.raise_event(d, event, Place::Last);
    }
    Ok(())
}

/// The index of the vector in word 0, which the invoked capability must cover.
fn vector(r: &Registers<'_>, it: Invoked<'_>) -> SysResult<usize> {
    it.expect(ObjType::Irq)?;
    let v = r.word(0);
    if v < it.cap.base || v >= it.cap.end() {
        return Err(SysError::OutOfRange);
    }
    Ok((v - USER_VECTOR_FIRST) as usize)
}

pub(super) fn bind_irq(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.need(Rights::WRITE)?;
    let i = vector(r, it)?;
    let n = operand_object::<Notification>(core, r, 1)?;
    let (_, cap) = operand(core, r, 1)?;
    let binding = core.k.irqs.get_mut(i).ok_or(SysError::OutOfRange)?;
    if binding.notification.is_some() {
        return Err(SysError::AlreadyBound);
    }
    *binding = IrqBinding { notification: Some(n), badge: cap.badge, ..IrqBinding::default() };
    n.vectors.set(n.vectors.get() + 1);
    Ok(())
}

pub(super) fn acknowledge_irq(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.need(Rights::WRITE)?;
    let i = vector(r, it)?;
    let binding = core.k.irqs.get_mut(i).ok_or(SysError::OutOfRange)?;
    let Some(n) = binding.notification else { return Err(SysError::NotBound) };
    let again = core::mem::take(&mut binding.again);
    binding.in_service = again;
    if again {
        let bits = badge_bits(binding.badge);
        core.k.signal(n, bits, Place::Last);
    }
    Ok(())
}
