//! The other side of a fuzzing domain's messages: answers each call, then calls the endpoint that came with it.

use lmp::cptr::task;
use lmp::error::SysResult;
use lmp::frame::FRAME_SIZE;
use lmp::message::{self, Along};
use lmp::{CPtr, ObjType, syscall};
use selftest::fuzzing::slot;

/// Where capabilities land.
const LANDING: CPtr = CPtr::new(0, 96);
/// Messages that can wait.
const ROOM: u64 = 8;
/// The event of messages that wait; nobody looks at them.
const EVENT: u64 = 40;

pub(crate) fn run() -> u64 {
    if syscall::endpoint_bind(slot::PARTNER, task::DISPATCHER, FRAME_SIZE, ROOM, EVENT, 0).is_err() {
        return 1;
    }
    loop {
        // Each wait ends, if only because the domain at the other side does.
        let _ = turn();
    }
}

fn turn() -> SysResult {
    runtime::events::take(u64::MAX);
    let along = Along { landing: LANDING, ..Along::default() };
    let call = message::receive_with(task::DISPATCHER, along)?;
    if call.info.is_call() {
        message::reply(call.words)?;
    }
    if call.info.cap() {
        let is_endpoint = syscall::cap_identify(task::ROOT, LANDING).is_ok_and(|i| i.ty == ObjType::Endpoint);
        if is_endpoint {
            let _ = message::call::<2, 1>(LANDING, [call.badge, 1]);
        }
        let _ = syscall::cap_delete(task::ROOT, LANDING);
    }
    Ok(())
}
