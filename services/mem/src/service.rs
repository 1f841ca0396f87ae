//! [`Service`]: the answer to each request.
//!
//! Requests come as words of `runtime::interface::mem`, with the badge of who asks. What an answer needs of the CPU
//! driver it asks of a [`Driver`], so that all of it runs on the host too.

use lmp::invocation::MessageInfo;
use lmp::{CPtr, SysError};
use runtime::interface::mem::{MemError, Request, Usage};

use crate::account::{Account, AccountError, Client, Reserved};

/// Words of a request or an answer.
pub type Words = [u64; MessageInfo::WORDS_MAX];

/// What the service needs of the CPU driver and of the monitor.
pub trait Driver {
    /// Makes the piece that was reserved; its slot.
    ///
    /// # Errors
    /// The CPU driver's, or [`SysError::Exhausted`] if there is no slot. Nothing was made then.
    fn make(&mut self, reserved: &Reserved) -> Result<CPtr, SysError>;

    /// Deletes the piece in slot `piece`, and every other capability for it or for what was made of it.
    ///
    /// # Errors
    /// The CPU driver's; [`SysError::RetryThroughMonitor`] if there are copies on other cores. The piece is there still.
    fn delete(&mut self, piece: CPtr) -> Result<(), SysError>;

    /// Has the copies on other cores of what was made of the piece taken back; false if that did not work.
    fn recall(&mut self, piece: CPtr) -> bool;
}

/// An answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    words: Words,
    len: usize,
    lent: Option<Lent>,
}

/// A piece that goes with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lent {
    client: Client,
    physical: u64,
    cap: CPtr,
}

impl Answer {
    /// The words.
    pub fn words(&self) -> &[u64] {
        &self.words[..self.len]
    }

    /// The capability to send a copy of.
    pub fn cap(&self) -> Option<CPtr> {
        self.lent.map(|lent| lent.cap)
    }

    fn done<const N: usize>(results: [u64; N]) -> Answer {
        const { assert!(N < MessageInfo::WORDS_MAX) };
        let mut words = [0; MessageInfo::WORDS_MAX];
        words[1..=N].copy_from_slice(&results);
        Answer { words, len: 1 + N, lent: None }
    }

    fn refused(error: MemError) -> Answer {
        let mut words = [0; MessageInfo::WORDS_MAX];
        words[0] = error as u64;
        Answer { words, len: 1, lent: None }
    }
}

impl From<AccountError> for MemError {
    fn from(error: AccountError) -> MemError {
        match error {
            AccountError::BadSize => MemError::BadArgument,
            AccountError::NoMemory => MemError::NoMemory,
            AccountError::OverQuota => MemError::OverQuota,
            AccountError::TooMany => MemError::TooMany,
            AccountError::NotFound => MemError::NotFound,
            AccountError::Closed => MemError::NotAllowed,
        }
    }
}

/// Why the CPU driver did not make or delete a piece, for the client.
fn refusal(error: SysError) -> MemError {
    match error {
        SysError::Exhausted => MemError::TooMany,
        SysError::RetryThroughMonitor => MemError::InUse,
        _ => MemError::Refused,
    }
}

/// The memory server.
#[derive(Debug)]
pub struct Service {
    account: Account,
}

impl Service {
    /// The server that lends what `account` has.
    pub fn new(account: Account) -> Service {
        Service { account }
    }

    /// Answers a request that came by `badge`. Words that the request does not have are 0.
    pub fn answer(&mut self, driver: &mut impl Driver, badge: u64, words: &Words) -> Answer {
        let client = Client::from_badge(badge);
        let of_client = client.ok_or(MemError::NotAllowed);
        let &[method, first, second, ..] = words;
        let answer = match Request::from_code(method) {
            None => Err(MemError::BadRequest),
            Some(Request::Allocate) => of_client.and_then(|c| self.allocate(driver, c, first, second)),
            Some(Request::Free) => {
                of_client.and_then(|c| self.free(driver, c, first)).map(|()| Answer::done([]))
            }
            Some(Request::Usage) => self.usage(client),
            // `init` alone has the endpoint without a badge.
            Some(Request::Release) if badge == 0 => self.release(driver, first),
            Some(Request::Release) => Err(MemError::NotAllowed),
        };
        answer.unwrap_or_else(Answer::refused)
    }

    /// The answer did not reach who asked: what goes with it is nobody's.
    pub fn undelivered(&mut self, driver: &mut impl Driver, answer: &Answer) {
        if let Some(Lent { client, physical, .. }) = answer.lent {
            // What cannot be taken back stays charged to the client until that is gone.
            let _ = self.free(driver, client, physical);
        }
    }

    fn allocate(
        &mut self,
        driver: &mut impl Driver,
        client: Client,
        bytes: u64,
        align: u64,
    ) -> Result<Answer, MemError> {
        let reserved = self.account.reserve(client, bytes, align)?;
        let Reserved { physical, size, .. } = reserved;
        match driver.make(&reserved) {
            Ok(cap) => {
                self.account.commit(reserved, cap);
                let lent = Some(Lent { client, physical, cap });
                Ok(Answer { lent, ..Answer::done([physical, size]) })
            }
            Err(error) => {
                self.account.cancel(reserved);
                Err(refusal(error))
            }
        }
    }

    fn free(&mut self, driver: &mut impl Driver, client: Client, physical: u64) -> Result<(), MemError> {
        let cap = self.account.piece(client, physical)?;
        driver.delete(cap).map_err(refusal)?;
        Ok(self.account.release(client, physical)?)
    }

    fn usage(&self, client: Option<Client>) -> Result<Answer, MemError> {
        self.account.check().map_err(|_| MemError::Unbalanced)?;
        let Usage { total, free, held, quota } = self.account.usage(client);
        Ok(Answer::done([total, free, held, quota]))
    }

    /// Takes back one piece of a domain that is gone.
    fn release(&mut self, driver: &mut impl Driver, number: u64) -> Result<Answer, MemError> {
        let client = Client::from_badge(number).ok_or(MemError::BadArgument)?;
        self.account.close(client);
        if let Some((physical, cap)) = self.account.any_piece(client) {
            let mut deleted = driver.delete(cap);
            if deleted == Err(SysError::RetryThroughMonitor) && driver.recall(cap) {
                deleted = driver.delete(cap);
            }
            deleted.map_err(refusal)?;
            self.account.release(client, physical)?;
        }
        Ok(Answer::done([self.account.pieces_of(client) as u64, self.account.lent()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const MIB: u64 = 1 << 20;

    /// A CPU driver with slots that are in use, of which some have copies on other cores.
    #[derive(Default)]
    struct Fake {
        next: u32,
        made: BTreeSet<CPtr>,
        remote: BTreeSet<CPtr>,
        refuse: Option<SysError>,
        deaf: bool,
    }

    impl Driver for Fake {
        fn make(&mut self, reserved: &Reserved) -> Result<CPtr, SysError> {
            assert!(reserved.size > 0);
            match self.refuse {
                Some(error) => Err(error),
                None => {
                    self.next += 1;
                    self.made.insert(CPtr(self.next));
                    Ok(CPtr(self.next))
                }
            }
        }

        fn delete(&mut self, piece: CPtr) -> Result<(), SysError> {
            if self.remote.contains(&piece) {
                return Err(SysError::RetryThroughMonitor);
            }
            assert!(self.made.remove(&piece), "it is there");
            Ok(())
        }

        fn recall(&mut self, piece: CPtr) -> bool {
            !self.deaf && self.remote.remove(&piece)
        }
    }

    fn service() -> Service {
        Service::new(Account::new(16 * MIB, 8 * MIB, 4 * MIB))
    }

    fn ask(
        service: &mut Service,
        driver: &mut Fake,
        badge: u64,
        words: &[u64],
    ) -> Result<Vec<u64>, MemError> {
        let mut padded = [0; MessageInfo::WORDS_MAX];
        padded[..words.len()].copy_from_slice(words);
        let answer = service.answer(driver, badge, &padded);
        match answer.words()[0] {
            0 => Ok(answer.words()[1..].to_vec()),
            code => {
                assert_eq!((answer.words().len(), answer.cap()), (1, None));
                Err(MemError::from_code(code).expect("an error of the table"))
            }
        }
    }

    #[test]
    fn memory_is_lent_and_comes_back() {
        let (mut service, mut driver) = (service(), Fake::default());
        let allocate = [Request::Allocate as u64, MIB, 0];
        let lent = ask(&mut service, &mut driver, 7, &allocate).unwrap();
        assert_eq!(lent, [16 * MIB, MIB]);
        let usage = |service: &mut Service, driver: &mut Fake, badge| {
            ask(service, driver, badge, &[Request::Usage as u64])
        };
        assert_eq!(usage(&mut service, &mut driver, 7), Ok(vec![8 * MIB, 7 * MIB, MIB, 4 * MIB]));
        assert_eq!(usage(&mut service, &mut driver, 0), Ok(vec![8 * MIB, 7 * MIB, 0, 4 * MIB]));
        let free = [Request::Free as u64, 16 * MIB];
        assert_eq!(ask(&mut service, &mut driver, 8, &free), Err(MemError::NotFound));
        assert_eq!(ask(&mut service, &mut driver, 7, &free), Ok(vec![]));
        assert_eq!(ask(&mut service, &mut driver, 7, &free), Err(MemError::NotFound));
        assert_eq!(usage(&mut service, &mut driver, 7), Ok(vec![8 * MIB, 8 * MIB, 0, 4 * MIB]));
        assert!(driver.made.is_empty());
    }

    #[test]
    fn each_refusal_has_its_error() {
        let (mut service, mut driver) = (service(), Fake::default());
        let allocate = |service: &mut Service, driver: &mut Fake, badge, bytes, align| {
            ask(service, driver, badge, &[Request::Allocate as u64, bytes, align])
        };
        assert_eq!(allocate(&mut service, &mut driver, 7, 0, 0), Err(MemError::BadArgument));
        assert_eq!(allocate(&mut service, &mut driver, 7, u64::MAX, 0), Err(MemError::BadArgument));
        assert_eq!(allocate(&mut service, &mut driver, 7, MIB, 3), Err(MemError::BadArgument));
        assert_eq!(allocate(&mut service, &mut driver, 7, 5 * MIB, 0), Err(MemError::OverQuota));
        assert_eq!(allocate(&mut service, &mut driver, 7, MIB, 1 << 40), Err(MemError::NoMemory));
        assert_eq!(allocate(&mut service, &mut driver, 0, MIB, 0), Err(MemError::NotAllowed));
        assert_eq!(allocate(&mut service, &mut driver, 1 << 40, MIB, 0), Err(MemError::NotAllowed));
        assert_eq!(ask(&mut service, &mut driver, 7, &[99]), Err(MemError::BadRequest));
        assert_eq!(
            ask(&mut service, &mut driver, 7, &[Request::Release as u64, 7]),
            Err(MemError::NotAllowed)
        );
        assert_eq!(
            ask(&mut service, &mut driver, 0, &[Request::Release as u64, 0]),
            Err(MemError::BadArgument)
        );
        for (cause, error) in
            [(SysError::Exhausted, MemError::TooMany), (SysError::Overlap, MemError::Refused)]
        {
            driver.refuse = Some(cause);
            assert_eq!(allocate(&mut service, &mut driver, 7, MIB, 0), Err(error));
        }
        assert_eq!(service.account.lent(), 0, "a refusal costs nothing");
    }

    #[test]
    fn what_a_domain_had_comes_back_piece_by_piece_when_it_is_gone() {
        let (mut service, mut driver) = (service(), Fake::default());
        for _ in 0..3 {
            ask(&mut service, &mut driver, 7, &[Request::Allocate as u64, MIB, 0]).unwrap();
        }
        driver.remote.insert(CPtr(1));
        assert_eq!(
            ask(&mut service, &mut driver, 7, &[Request::Free as u64, 16 * MIB]),
            Err(MemError::InUse)
        );
        let release = [Request::Release as u64, 7];
        driver.deaf = true;
        assert_eq!(ask(&mut service, &mut driver, 0, &release), Err(MemError::InUse));
        driver.deaf = false;
        for left in [2, 1, 0, 0] {
            assert_eq!(ask(&mut service, &mut driver, 0, &release), Ok(vec![left, left * MIB]));
        }
        assert!(driver.made.is_empty());
        assert_eq!(
            ask(&mut service, &mut driver, 7, &[Request::Allocate as u64, MIB, 0]),
            Err(MemError::NotAllowed)
        );
    }

    #[test]
    fn what_was_not_delivered_is_not_charged() {
        let (mut service, mut driver) = (service(), Fake::default());
        let mut words = [0; MessageInfo::WORDS_MAX];
        (words[0], words[1]) = (Request::Allocate as u64, MIB);
        let answer = service.answer(&mut driver, 7, &words);
        assert_eq!(answer.cap(), Some(CPtr(1)));
        service.undelivered(&mut driver, &answer);
        assert_eq!((service.account.lent(), driver.made.len()), (0, 0));
    }

    proptest! {
        /// Wild words of wild callers do no harm.
        #[test]
        fn the_account_balances_whatever_is_asked(
            requests in prop::collection::vec(
                (0u64..4, 0u64..6, prop_oneof![0u64..8, 0u64..2 * MIB, 16 * MIB..18 * MIB, any::<u64>()], any::<u64>()),
                1..100
            )
        ) {
            let (mut service, mut driver) = (service(), Fake::default());
            for (badge, method, first, second) in requests {
                let align = if second % 3 == 0 { second } else { 0 };
                let first = if second % 2 == 0 { first } else { first / (64 << 10) * (64 << 10) };
                let _ = ask(&mut service, &mut driver, badge, &[method, first, align]);
                prop_assert_eq!(service.account.check(), Ok(()));
            }
            for number in 1..8 {
                while ask(&mut service, &mut driver, 0, &[Request::Release as u64, number]).unwrap()[0] > 0 {}
            }
            prop_assert_eq!((service.account.lent(), driver.made.len()), (0, 0));
        }
    }
}
