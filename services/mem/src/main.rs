//! The domain of the memory server. What it answers is in `mem::service`; this binary moves the messages and invokes the
//! capabilities. It keeps the capability of each piece and hands out copies, so that one revoke takes back a piece with
//! everything that was made of it. It waits for nobody but the monitor, and for that only when a domain is gone that has
//! passed its memory on to other cores.
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::fmt;

use boot_freestanding as _;
use lmp::cptr::task;
use lmp::{CPtr, ObjType, SysError, syscall};
use mem::account::{Account, Reserved, quota};
use mem::handover::slot;
use mem::service::{Driver, Service};
use runtime::endpoint::{Caps, Endpoint, EndpointError};
use runtime::events::Deadline;
use runtime::{Env, memory, monitor, println};

runtime::entry!(main);

/// Why the memory server cannot work.
enum Failure {
    Endpoint(EndpointError),
    Pool(SysError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Endpoint(error) => error.fmt(f),
            Failure::Pool(cause) => write!(f, "looking at the pool was refused: {cause}"),
        }
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
        let Reserved { offset, size, .. } = *reserved;
        memory::make_at(slot::POOL, ObjType::Ram, offset, size)
    }

    fn delete(&mut self, piece: CPtr) -> Result<(), SysError> {
        memory::unmake(piece)
    }

    fn recall(&mut self, piece: CPtr) -> bool {
        monitor::revoke_remote(piece).is_ok()
    }
}

fn main(_: &Env) -> u64 {
    match serve() {
        Ok(never) => match never {},
        Err(failure) => {
            println!("mem: {failure}");
            runtime::start::EXIT_ERROR
        }
    }
}

/// Room for messages of which nobody waits for an answer: there are none.
const BUFFER: u32 = 1;

fn serve() -> Result<Infallible, Failure> {
    let pool = syscall::cap_identify(task::ROOT, slot::POOL).map_err(Failure::Pool)?;
    let mut service = Service::new(Account::new(pool.base, pool.size, quota(pool.size)));
    let mut requests = Endpoint::adopt(slot::ENDPOINT, BUFFER, Caps::Refused)?;
    loop {
        let request = requests.receive_blocking(Deadline::NEVER)?;
        let Some(reply) = request.reply else { continue };
        let answer = service.answer(&mut Invocations, request.badge, request.words.padded());
        if reply.answer(answer.words(), answer.cap()).is_err() {
            service.undelivered(&mut Invocations, &answer);
        }
    }
}
