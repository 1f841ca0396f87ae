//! Where the memory server finds what `init` gives it.

/// Task slots of the memory server.
pub mod slot {
    use lmp::CPtr;

    /// The endpoint that requests come to, made by `init` and bound by the memory server.
    pub const ENDPOINT: CPtr = CPtr::new(0, 32);
    /// The RAM that is lent.
    pub const POOL: CPtr = CPtr::new(0, 33);
}
