//! The domain of the system knowledge base. What it knows and answers is in `skb_service::service`; this binary takes
//! stock of what `init` gave it, moves the messages and invokes the capabilities.
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::fmt;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::invocation::MapFlags;
use lmp::{CPtr, ObjType, SysError, syscall};
use runtime::endpoint::{Caps, Endpoint, EndpointError};
use runtime::events::Deadline;
use runtime::memory::{self, MemoryError};
use runtime::{Env, println};
use skb::{BadTopology, Topology};
use skb_service::book::Reserved;
use skb_service::handover::{MAX_RAM_CAPS, ram, slot, word};
use skb_service::service::{Driver, Service};

runtime::entry!(main);

/// Why the knowledge base cannot work.
enum Failure {
    Topology(BadTopology),
    Memory(MemoryError),
    Endpoint(EndpointError),
    Refused(&'static str, SysError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Topology(error) => error.fmt(f),
            Failure::Memory(error) => error.fmt(f),
            Failure::Endpoint(error) => error.fmt(f),
            Failure::Refused(operation, cause) => write!(f, "{operation} was refused: {cause}"),
        }
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Failure::Memory(error)
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        Failure::Endpoint(error)
    }
}

/// The CPU driver of this core.
struct Invocations;

impl Driver for Invocations {
    fn make(&mut self, reserved: &Reserved) -> Result<CPtr, SysError> {
        let Reserved { source, offset, size, .. } = *reserved;
        memory::make_at(source, ObjType::Frame, offset, size)
    }

    fn delete(&mut self, frame: CPtr) -> Result<(), SysError> {
        memory::unmake(frame)
    }
}

/// The topology, from the frame that `init` filled.
fn topology(words: usize) -> Result<Topology, Failure> {
    let mapped = memory::map(slot::TOPOLOGY, 0, 8 * words as u64, MapFlags::READ)?;
    // SAFETY: the frame is mapped readable, as many whole pages as hold the words; `init` filled it before it passed
    // it on, and does not write it again. The slice is not used beyond the mapping.
    let decoded = unsafe {
        let decoded = Topology::decode(core::slice::from_raw_parts(mapped.as_ptr::<u64>(), words));
        memory::unmap(mapped);
        decoded
    };
    decoded.map_err(Failure::Topology)
}

/// What is known when the domain starts.
fn take_stock(env: &Env) -> Result<Service, Failure> {
    let count = |word: usize| env.info().words[word] as usize;
    let mut service = Service::new(topology(count(word::TOPOLOGY_WORDS))?);
    for index in 0..count(word::RAM_CAPS).min(MAX_RAM_CAPS) as u32 {
        let cap = ram(index);
        let info = syscall::cap_identify(task::ROOT, cap)
            .map_err(|e| Failure::Refused("looking at a RAM capability", e))?;
        if service.add(cap, info.base, info.size).is_err() {
            println!("skb: {:#x} bytes at {:#x} lie on no node and are not used", info.size, info.base);
        }
    }
    Ok(service)
}

fn main(env: &Env) -> u64 {
    match serve(env) {
        Ok(never) => match never {},
        Err(failure) => {
            println!("skb: {failure}");
            runtime::start::EXIT_ERROR
        }
    }
}

/// Room for messages of which nobody waits for an answer: there are none.
const BUFFER: u32 = 1;

fn serve(env: &Env) -> Result<Infallible, Failure> {
    let mut service = take_stock(env)?;
    let mut queries = Endpoint::adopt(slot::ENDPOINT, BUFFER, Caps::Refused)?;
    syscall::notification_signal(slot::READY).map_err(|e| Failure::Refused("saying so", e))?;
    let mut next = queries.receive_blocking(Deadline::NEVER)?;
    loop {
        next = match next.reply {
            Some(reply) => {
                let answer = service.answer(&mut Invocations, next.words.padded());
                queries.answer_and_receive(reply, answer.words(), answer.cap(), Deadline::NEVER)?
            }
            None => queries.receive_blocking(Deadline::NEVER)?,
        };
    }
}
