//! Auditing this core: a whole pass over all that its CPU driver keeps.

use core::fmt;

use lmp::invocation::Violation;
use lmp::syscall::{self, Audit};
use lmp::{CPtr, SysError};

/// Why an audit did not end well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditError {
    /// The audit was refused.
    Refused(SysError),
    /// It found something.
    Found(Audit),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuditError::Refused(error) => write!(f, "audit: {error}"),
            AuditError::Found(audit) => write!(
                f,
                "audit: {} ({:#x}; after {} capabilities, {} page-table entries and {} bytes)",
                audit.violation.text(),
                audit.at,
                audit.capabilities,
                audit.entries,
                audit.bytes
            ),
        }
    }
}

impl core::error::Error for AuditError {}

/// Audits this core from where the audit stands to the end of the pass, with the KCB `kcb`, which must allow to
/// read. Other domains may do anything meanwhile.
///
/// # Errors
/// What is wrong, and where; or why it cannot be known.
pub fn audit(kcb: CPtr) -> Result<Audit, AuditError> {
    loop {
        match syscall::kcb_audit_step(kcb) {
            Ok(None) => {}
            Ok(Some(audit)) if audit.violation == Violation::None => return Ok(audit),
            Ok(Some(audit)) => return Err(AuditError::Found(audit)),
            Err(error) => return Err(AuditError::Refused(error)),
        }
    }
}
