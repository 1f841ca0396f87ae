//! Starting a core's memory server, and telling it that a domain is gone.

use alloc::format;
use alloc::string::String;

use init::plan;
use lmp::cptr::task;
use lmp::message;
use lmp::{CPtr, ObjType, syscall};
use mem::handover::slot;
use runtime::interface::mem::{GRANULE, MemError, Request};
use runtime::memory;

use crate::spawner::Spawner;

/// RAM for the memory server's own use, in bytes: its tables and the slots of the pieces that it lends.
const RAM: u64 = 256 << 10;

/// Starts the core's memory server with a part of what the core has left; domains that are made from then on can ask it.
pub(crate) fn start(spawner: &mut Spawner) -> Result<(), String> {
    let failed = |e| format!("the memory server's pool: {e}");
    let bytes = plan::pool(memory::stats().free);
    let pool = memory::allocate_in(ObjType::Ram, bytes, GRANULE, &memory::ANYWHERE).map_err(failed)?;
    let endpoint = memory::allocate(ObjType::Endpoint, 0).map_err(failed)?.cap;
    let (_, stream) =
        spawner.streams.open("mem").ok_or("there is no console stream for the memory server")?;
    spawner.service_with_monitor("mem", |b| {
        b.memory(RAM).stream(stream).grant(slot::ENDPOINT, endpoint).grant(slot::POOL, pool.cap)
    })?;
    // It has one owner from now on.
    syscall::cap_delete(task::ROOT, pool.cap).map_err(|e| format!("the memory server's pool: {e}"))?;
    memory::forget(pool);
    spawner.set_memory_server(endpoint);
    Ok(())
}

/// Has the memory server take back what the domain with that number had, one piece at a time so that nobody waits long;
/// the bytes that others have.
pub(crate) fn release(server: CPtr, number: u64) -> Result<u64, String> {
    loop {
        let answer = message::call::<2, 3>(server, [Request::Release as u64, number]);
        let [code, left, lent] = answer.map_err(|e| format!("{e}"))?.words;
        match (MemError::from_code(code), left) {
            (Some(error), _) => return Err(format!("{error}")),
            (None, 0) => return Ok(lent),
            (None, _) => {}
        }
    }
}
