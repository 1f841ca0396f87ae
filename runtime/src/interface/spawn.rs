//! The monitor and `init` of one core. `init` makes and ends the domains; the monitor knows what they are connected
//! to. Both only *send* to the other's endpoint and never wait in a call for it, so neither can block the other.

use super::methods;

methods! {
    /// What a monitor asks `init` for; word 0 of the message.
    Order {
        /// Make and start a domain: w1 = request number | KiB of RAM << 32 (0: the usual), w2–w5 = module,
        /// w6–w9 = arguments.
        Spawn = 1;
        /// End domain w1, which `init` then reports as any other end.
        Kill = 2;
        /// The monitor has let go of all that domain w1 had: it may be taken down.
        Released = 3;
    }
}

methods! {
    /// What `init` tells its monitor; word 0 of the message, sent with badge 0.
    Report {
        /// Request w1 is done: w2 = number of the new domain, or 0 if it cannot be started.
        Spawned = 64;
        /// Domain w1 has ended: w2 = `EndCause`, w3 = exit code or fault address, w4 = physical address and
        /// w5 = bytes of the memory that it consists of. `init` keeps it until [`Order::Released`], when no other
        /// core has copies of any of that memory.
        Ended = 65;
    }
}
