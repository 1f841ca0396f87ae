//! [`Account`]: which parts of the pool are free, and which domain has which piece of the rest.
//!
//! At any time the pieces and what is free are the pool, to the byte ([`Account::check`]). What a client asks for is
//! bounded by its own share and its own number of pieces, so nothing it does costs others more than that. The list of
//! free ranges has room for one more than there can be pieces, so a piece that was handed out always finds its way back.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::fmt;
use core::num::NonZero;

use lmp::CPtr;
use runtime::interface::mem::{GRANULE, PIECES_MAX, Usage};
use runtime::memory::{ANYWHERE, Extents};

/// Pieces there can be at a time, of all clients together.
pub const MAX_PIECES: usize = 1024;

/// A client: the number of a domain on its core, the badge it calls by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Client(NonZero<u32>);

impl Client {
    /// The client of that badge; `None` if no domain has it.
    pub fn from_badge(badge: u64) -> Option<Client> {
        u32::try_from(badge).ok().and_then(NonZero::new).map(Client)
    }
}

/// Why there is no piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccountError {
    /// Nobody can ask for so many bytes, or for such an alignment.
    BadSize,
    /// The pool has no free range of that size.
    NoMemory,
    /// The client would have more than its share.
    OverQuota,
    /// The client has as many pieces as it can have, or all clients together.
    TooMany,
    /// The client has no such piece.
    NotFound,
    /// The client is gone.
    Closed,
}

/// Memory taken for a piece that is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "it is neither free nor a piece until it is committed or cancelled"]
pub struct Reserved {
    client: Client,
    /// Its physical address.
    pub physical: u64,
    /// Its bytes.
    pub size: u64,
    /// Where in the pool it begins, in bytes.
    pub offset: u64,
}

/// A piece that a client has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    client: Client,
    size: u64,
    cap: CPtr,
}

/// What a client has, those it reserved included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Held {
    bytes: u64,
    pieces: usize,
}

/// How the account does not balance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Imbalance {
    /// Pieces, reservations and free ranges are so many bytes, not the pool's.
    Sum(u64),
    /// The pieces of this client are not what it is charged for.
    Client(Client),
    /// The piece here overlaps the one before, or lies outside of the pool.
    Place(u64),
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sum(bytes) => write!(f, "pieces and free ranges are {bytes} bytes"),
            Self::Client(client) => {
                write!(f, "domain {} is charged for something else than it has", client.0)
            }
            Self::Place(at) => write!(f, "the piece at {at:#x} is not where one can be"),
        }
    }
}

/// Numbers of clients that are gone, as ranges: numbers are given out in ascending order and each domain ends once, so
/// there are hardly more ranges than domains that run.
#[derive(Debug, Default)]
struct Closed(BTreeMap<u32, u32>);

impl Closed {
    fn contains(&self, number: u32) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, &last)| number <= last)
    }

    fn insert(&mut self, number: u32) {
        if self.contains(number) {
            return;
        }
        let before = self.0.range(..number).next_back().filter(|&(_, &last)| last + 1 == number);
        let first = before.map_or(number, |(&first, _)| first);
        let after = number.checked_add(1).and_then(|next| self.0.remove(&next));
        self.0.insert(first, after.unwrap_or(number));
    }
}

/// The pool of a core.
#[derive(Debug)]
pub struct Account {
    base: u64,
    total: u64,
    quota: u64,
    free: Box<Extents<{ MAX_PIECES + 1 }>>,
    pieces: BTreeMap<u64, Piece>,
    /// Clients that have something.
    clients: BTreeMap<Client, Held>,
    closed: Closed,
    /// Bytes and number of what is reserved.
    reserved: Held,
}

/// What one domain may have of a pool of so many bytes: a quarter, but 1 MiB where that is no more than half.
pub const fn quota(total: u64) -> u64 {
    const LEAST: u64 = 1 << 20;
    let (quarter, half) = (total / 4, total / 2);
    let quota = if quarter > LEAST {
        quarter
    } else if half < LEAST {
        half
    } else {
        LEAST
    };
    quota / GRANULE * GRANULE
}

impl Account {
    /// The pool of `total` bytes at physical address `base`, of which each client may have `quota` bytes.
    pub fn new(base: u64, total: u64, quota: u64) -> Account {
        let mut free = Box::new(Extents::new());
        free.free(base, total, 0);
        Account {
            base,
            total,
            quota,
            free,
            pieces: BTreeMap::new(),
            clients: BTreeMap::new(),
            closed: Closed::default(),
            reserved: Held::default(),
        }
    }

    /// Takes `bytes`, rounded up to whole granules, aligned to `align` (0 or a power of two), for `client`.
    ///
    /// # Errors
    /// [`AccountError`]; the account is then as it was.
    pub fn reserve(&mut self, client: Client, bytes: u64, align: u64) -> Result<Reserved, AccountError> {
        if self.closed.contains(client.0.get()) {
            return Err(AccountError::Closed);
        }
        let size = bytes.checked_next_multiple_of(GRANULE).filter(|&size| size > 0);
        let size = size.ok_or(AccountError::BadSize)?;
        if align != 0 && !align.is_power_of_two() {
            return Err(AccountError::BadSize);
        }
        let held = self.clients.get(&client).copied().unwrap_or_default();
        if held.pieces >= PIECES_MAX || self.pieces.len() + self.reserved.pieces >= MAX_PIECES {
            return Err(AccountError::TooMany);
        }
        if held.bytes.checked_add(size).is_none_or(|bytes| bytes > self.quota) {
            return Err(AccountError::OverQuota);
        }
        let place = self.free.allocate(size, align.max(GRANULE), &ANYWHERE);
        let physical = place.ok_or(AccountError::NoMemory)?;
        self.clients.insert(client, Held { bytes: held.bytes + size, pieces: held.pieces + 1 });
        self.reserved = Held { bytes: self.reserved.bytes + size, pieces: self.reserved.pieces + 1 };
        Ok(Reserved { client, physical, size, offset: physical - self.base })
    }

    fn settle(&mut self, reserved: &Reserved) {
        self.reserved.bytes -= reserved.size;
        self.reserved.pieces -= 1;
    }

    /// The piece was made and is in slot `cap`.
    pub fn commit(&mut self, reserved: Reserved, cap: CPtr) {
        self.settle(&reserved);
        let Reserved { client, physical, size, .. } = reserved;
        self.pieces.insert(physical, Piece { client, size, cap });
    }

    /// The piece could not be made.
    pub fn cancel(&mut self, reserved: Reserved) {
        self.settle(&reserved);
        self.give_back(reserved.client, reserved.physical, reserved.size);
    }

    fn give_back(&mut self, client: Client, physical: u64, size: u64) {
        self.free.free(physical, size, 0);
        if let Some(held) = self.clients.get_mut(&client) {
            held.bytes -= size;
            held.pieces -= 1;
            if held.pieces == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// The slot of the piece of `client` at `physical`.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub fn piece(&self, client: Client, physical: u64) -> Result<CPtr, AccountError> {
        let piece = self.pieces.get(&physical).filter(|piece| piece.client == client);
        piece.map(|piece| piece.cap).ok_or(AccountError::NotFound)
    }

    /// The piece of `client` at `physical` is gone, with every capability for it.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub fn release(&mut self, client: Client, physical: u64) -> Result<(), AccountError> {
        self.piece(client, physical)?;
        let piece = self.pieces.remove(&physical).ok_or(AccountError::NotFound)?;
        self.give_back(client, physical, piece.size);
        Ok(())
    }

    /// The client is gone, and gets nothing more: others may have copies of what it called by.
    pub fn close(&mut self, client: Client) {
        self.closed.insert(client.0.get());
    }

    /// One of the pieces that `client` has: its physical address and slot.
    pub fn any_piece(&self, client: Client) -> Option<(u64, CPtr)> {
        self.clients.get(&client)?;
        let mut own = self.pieces.iter().filter(|(_, piece)| piece.client == client);
        own.next().map(|(&physical, piece)| (physical, piece.cap))
    }

    /// How many pieces `client` has.
    pub fn pieces_of(&self, client: Client) -> usize {
        self.clients.get(&client).map_or(0, |held| held.pieces)
    }

    /// Bytes that somebody has.
    pub fn lent(&self) -> u64 {
        self.total - self.free.free_units()
    }

    /// The account as `client` sees it; nobody's if it is none.
    pub fn usage(&self, client: Option<Client>) -> Usage {
        let held = client.and_then(|client| self.clients.get(&client)).map_or(0, |held| held.bytes);
        Usage { total: self.total, free: self.free.free_units(), held, quota: self.quota }
    }

    /// Whether all adds up: pieces, reservations and what is free are the pool, no two of them overlap, and each client
    /// is charged for what it has.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), Imbalance> {
        let lent: u64 = self.pieces.values().map(|piece| piece.size).sum();
        let sum = lent + self.reserved.bytes + self.free.free_units() + self.free.lost();
        if sum != self.total || self.free.lost() > 0 {
            return Err(Imbalance::Sum(sum));
        }
        let pieces = self.pieces.iter().map(|(&at, piece)| (at, at + piece.size));
        let mut all: alloc::vec::Vec<(u64, u64)> = pieces.collect();
        all.extend(self.free.ranges().map(|range| (range.start, range.end)));
        all.sort_unstable();
        let mut end = self.base;
        for (start, next) in all {
            if start < end || next > self.base + self.total {
                return Err(Imbalance::Place(start));
            }
            end = next;
        }
        let mut charged: BTreeMap<Client, Held> = BTreeMap::new();
        for piece in self.pieces.values() {
            let held = charged.entry(piece.client).or_default();
            (held.bytes, held.pieces) = (held.bytes + piece.size, held.pieces + 1);
        }
        // Who has reserved something is charged for it before it is a piece.
        let wrong = |(client, held): (&Client, &Held)| {
            let found = charged.get(client).copied().unwrap_or_default();
            (*held != found || held.bytes > self.quota).then_some(*client)
        };
        let none_reserved = self.reserved.pieces == 0;
        match self.clients.iter().find_map(wrong).filter(|_| none_reserved) {
            Some(client) => Err(Imbalance::Client(client)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const MIB: u64 = 1 << 20;
    const BASE: u64 = 16 * MIB;

    fn client(number: u32) -> Client {
        Client::from_badge(number.into()).unwrap()
    }

    fn cap(n: u32) -> CPtr {
        CPtr::new(1, n)
    }

    fn take(account: &mut Account, number: u32, bytes: u64) -> Result<u64, AccountError> {
        let reserved = account.reserve(client(number), bytes, 0)?;
        account.commit(reserved, cap(number));
        Ok(reserved.physical)
    }

    #[test]
    fn a_share_is_a_quarter_or_a_useful_size() {
        assert_eq!(quota(64 * MIB), 16 * MIB);
        assert_eq!(quota(3 * MIB), MIB);
        assert_eq!(quota(MIB), MIB / 2);
        assert_eq!(quota(0), 0);
    }

    #[test]
    fn badges_are_numbers_of_domains() {
        assert_eq!(Client::from_badge(0), None);
        assert_eq!(Client::from_badge(1 << 32), None);
        assert!(Client::from_badge(u32::MAX.into()).is_some());
    }

    #[test]
    fn what_one_has_is_charged_to_it_alone() {
        let mut account = Account::new(BASE, 8 * MIB, 2 * MIB);
        let at = take(&mut account, 1, 1).unwrap();
        assert_eq!(account.usage(Some(client(1))).held, GRANULE, "whole granules");
        assert_eq!(take(&mut account, 1, 2 * MIB), Err(AccountError::OverQuota));
        assert_eq!(take(&mut account, 1, u64::MAX), Err(AccountError::BadSize));
        assert_eq!(take(&mut account, 1, u64::MAX - 2 * GRANULE), Err(AccountError::OverQuota));
        assert_eq!(take(&mut account, 1, 0), Err(AccountError::BadSize));
        assert_eq!(account.reserve(client(1), 1, 3), Err(AccountError::BadSize));
        assert_eq!(account.reserve(client(1), 1, 1 << 63), Err(AccountError::NoMemory));
        assert_eq!(account.piece(client(2), at), Err(AccountError::NotFound), "it is another's");
        assert_eq!(account.release(client(2), at), Err(AccountError::NotFound));
        assert_eq!(account.release(client(1), at + GRANULE), Err(AccountError::NotFound));
        assert!(take(&mut account, 2, 2 * MIB).is_ok());
        assert_eq!(
            account.usage(None),
            Usage { total: 8 * MIB, free: 6 * MIB - GRANULE, held: 0, quota: 2 * MIB }
        );
        assert_eq!(account.lent(), 2 * MIB + GRANULE);
        assert_eq!(account.release(client(1), at), Ok(()));
        assert_eq!(account.release(client(1), at), Err(AccountError::NotFound));
        assert_eq!(account.check(), Ok(()));
    }

    #[test]
    fn alignment_is_kept() {
        let mut account = Account::new(BASE + GRANULE, 8 * MIB, 8 * MIB);
        let large = account.reserve(client(1), 2 * MIB, 2 * MIB).unwrap();
        assert_eq!((large.physical, large.offset), (BASE + 2 * MIB, 2 * MIB - GRANULE));
        account.cancel(large);
        assert_eq!(account.lent(), 0);
    }

    #[test]
    fn the_number_of_pieces_is_bounded() {
        let mut account = Account::new(BASE, 4096 * GRANULE, 4096 * GRANULE);
        for number in 1..=(MAX_PIECES / PIECES_MAX) as u32 {
            for _ in 0..PIECES_MAX {
                assert!(take(&mut account, number, 1).is_ok());
            }
            assert_eq!(take(&mut account, number, 1), Err(AccountError::TooMany), "of one client");
        }
        assert_eq!(take(&mut account, 999, 1), Err(AccountError::TooMany), "of all");
        // Every other one first, which leaves the most gaps.
        for parity in [0, 1] {
            let all: Vec<(u64, Client)> =
                account.pieces.iter().map(|(&at, piece)| (at, piece.client)).collect();
            for (at, client) in all {
                if parity == 1 || at / GRANULE % 2 == 0 {
                    account.release(client, at).unwrap();
                }
            }
            assert_eq!(account.check(), Ok(()));
        }
        assert_eq!(account.usage(None).free, account.total);
        assert_eq!(account.free.ranges().count(), 1);
    }

    #[test]
    fn who_is_gone_gets_nothing_more() {
        let mut account = Account::new(BASE, 8 * MIB, 2 * MIB);
        let at = take(&mut account, 3, MIB).unwrap();
        account.close(client(3));
        assert_eq!(take(&mut account, 3, 1), Err(AccountError::Closed));
        assert_eq!(account.any_piece(client(3)), Some((at, cap(3))));
        assert_eq!(account.pieces_of(client(3)), 1);
        assert_eq!(account.release(client(3), at), Ok(()));
        assert_eq!((account.any_piece(client(3)), account.lent()), (None, 0));
        assert!(take(&mut account, 2, 1).is_ok() && take(&mut account, 4, 1).is_ok());
    }

    proptest! {
        /// Clients that take, give back what they have and what they have not, fail half-way and end: the account
        /// balances after each step, and all is back in the end.
        #[test]
        fn the_account_balances(
            ops in prop::collection::vec((1u32..6, 0u64..3 * MIB, 0u32..24, any::<prop::sample::Index>(), 0u8..8), 1..200)
        ) {
            let (total, quota) = (16 * MIB, 4 * MIB);
            let mut account = Account::new(BASE, total, quota);
            let mut held: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
            for (number, bytes, shift, index, what) in ops {
                match what {
                    0..=3 => {
                        if let Ok(reserved) = account.reserve(client(number), bytes, 1 << shift) {
                            prop_assert!(reserved.physical.is_multiple_of(1 << shift) && reserved.size >= bytes);
                            prop_assert!(account.check().is_ok() || what == 0);
                            if what == 0 {
                                account.cancel(reserved);
                            } else {
                                account.commit(reserved, cap(number));
                                held.insert(reserved.physical, (reserved.size, number));
                            }
                        }
                    }
                    4 | 5 if !held.is_empty() => {
                        let (&at, &(_, owner)) = held.iter().nth(index.index(held.len())).unwrap();
                        let released = account.release(client(number), at);
                        prop_assert_eq!(released.is_ok(), owner == number);
                        if released.is_ok() {
                            held.remove(&at);
                        }
                    }
                    6 => prop_assert_eq!(account.release(client(number), BASE + bytes | 1), Err(AccountError::NotFound)),
                    7 => {
                        while let Some((at, _)) = account.any_piece(client(number)) {
                            prop_assert_eq!(account.release(client(number), at), Ok(()));
                            held.remove(&at);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(account.check(), Ok(()));
                prop_assert_eq!(account.usage(None).free + held.values().map(|(size, _)| size).sum::<u64>(), total);
                for number in 1..6 {
                    let has: u64 = held.values().filter(|(_, owner)| *owner == number).map(|(size, _)| size).sum();
                    prop_assert!(has <= quota);
                    prop_assert_eq!(account.usage(Some(client(number))).held, has);
                }
            }
            for (at, (_, owner)) in held {
                prop_assert_eq!(account.release(client(owner), at), Ok(()));
            }
            prop_assert_eq!((account.lent(), account.clients.len()), (0, 0));
            prop_assert!(account.reserve(client(1), quota, 1 << 20).is_ok(), "one range again");
        }

        /// Against a set: who is gone, in whatever order they went; and as few ranges as gaps make.
        #[test]
        fn the_gone_are_known(order in Just((1u32..60).collect::<Vec<_>>()).prop_shuffle(), part in 0usize..60) {
            let mut closed = Closed::default();
            let gone: std::collections::BTreeSet<u32> = order.iter().copied().take(part).collect();
            for &number in order.iter().take(part).chain(order.iter().take(part / 2)) {
                closed.insert(number);
            }
            let starts = gone.iter().filter(|n| !gone.contains(&(*n - 1))).count();
            prop_assert_eq!(closed.0.len(), starts);
            prop_assert!((0..70).all(|n| closed.contains(n) == gone.contains(&n)));
        }
    }

    #[test]
    fn the_last_number_can_go_too() {
        let mut closed = Closed::default();
        closed.insert(u32::MAX);
        closed.insert(u32::MAX - 1);
        assert_eq!(closed.0.len(), 1);
        assert!(closed.contains(u32::MAX) && !closed.contains(1));
    }
}
