//! The audit on request: see [`crate::audit`].

use super::{Invoked, Registers};
use crate::core_state::Core;
use lmp::invocation::Violation;
use lmp::{ObjType, Rights, SysError, SysResult};

pub(super) fn audit(core: &mut Core, r: &mut Registers<'_>, it: Invoked<'_>) -> SysResult {
    it.expect(ObjType::Kcb)?;
    it.need(Rights::READ)?;
    let (violation, at) = match core.audit_step() {
        Ok(false) => return Err(SysError::Again),
        Ok(true) => (Violation::None, 0),
        Err(found) => (found.violation, found.at),
    };
    // The next invocation begins a new pass.
    let audit = core::mem::take(&mut core.k.audit);
    r.set_word(0, violation as u64);
    r.set_word(1, at);
    r.set_word(2, audit.tree.capabilities);
    r.set_word(3, audit.entries);
    r.set_word(4, audit.bytes);
    Ok(())
}
