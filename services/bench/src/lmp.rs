//! What the benchmarks of local messages share: a server in a domain of its own.

use lmp::cptr::task;
use lmp::frame::FRAME_SIZE;
use lmp::{CPtr, ObjType, syscall};
use runtime::Env;
use runtime::bench::{BenchError, refused};
use runtime::memory;
use runtime::spawn::{Child, DomainBuilder};

/// The slot in which a server finds its endpoint.
pub const ENDPOINT: CPtr = task::FIRST_FREE;

/// Messages that fit into the server's buffer.
const ROOM: u64 = 4;

/// A server that waits for calls.
pub struct Server {
    child: Child,
    /// Its endpoint.
    pub endpoint: CPtr,
}

impl Server {
    /// Starts `bench_lmp_server` with the arguments `args`, and gives it the core so that it waits.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn start(env: &Env, args: &str) -> Result<Server, BenchError> {
        let endpoint = memory::allocate(ObjType::Endpoint, 0)?.cap;
        let child = DomainBuilder::new("lmp_server", crate::module(env, "bench_lmp_server")?)
            .args(args)
            .grant(ENDPOINT, endpoint)
            .build()?;
        syscall::endpoint_bind(endpoint, child.dispatcher(), FRAME_SIZE, ROOM, 0, 0)
            .map_err(refused("binding the server's endpoint"))?;
        child.start()?;
        syscall::yield_core().map_err(refused("yielding"))?;
        Ok(Server { child, endpoint })
    }

    /// Takes it down.
    ///
    /// # Errors
    /// Why that did not work.
    pub fn stop(self) -> Result<(), BenchError> {
        self.child.destroy()?;
        Ok(())
    }
}
