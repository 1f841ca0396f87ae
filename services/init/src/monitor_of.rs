//! Starting a monitor: what every core's gets. The core's memory server comes with it.

use alloc::format;
use alloc::string::String;

use lmp::{ObjType, Rights, cptr::task};
use monitor::handover::slot;
use runtime::memory;
use runtime::spawn::DomainBuilder;

use crate::memory_of;
use crate::spawner::Spawner;

/// Starts the core's monitor, `dress` adding what depends on the core; domains are made from then on.
pub(crate) fn start(
    spawner: &mut Spawner,
    dress: impl FnOnce(DomainBuilder<'_>) -> DomainBuilder<'_>,
) -> Result<(), String> {
    let (_, stream) = spawner.streams.open("monitor").ok_or("there is no console stream for the monitor")?;
    let endpoint = memory::allocate(ObjType::Endpoint, 0).map_err(|e| format!("{e}"))?.cap;
    let orders = spawner.orders();
    spawner.service("monitor", |b| {
        let b = b
            .stream(stream)
            .grant(slot::IPI, task::IPIS)
            .grant(slot::KCB, task::KCB)
            .grant(slot::ENDPOINT, endpoint)
            .grant_less(slot::INIT, orders, Rights::WRITE, 0);
        dress(b)
    })?;
    spawner.set_monitor(endpoint);
    memory_of::start(spawner)
}
