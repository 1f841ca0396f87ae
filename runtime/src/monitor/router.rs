//! [`Router`]: which service or connection a notice of the monitor is about. Pure.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::task::Waker;

use super::Role;
use crate::bells::BellId;
use crate::interface::monitor::{Iref, Notice};

/// How the other end of a connection went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// It closed the connection.
    Closed,
    /// Its domain ended.
    Died,
}

/// Somebody who wants to connect to a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The number of the connection.
    pub connection: u64,
    /// The client's core.
    pub core: u32,
    /// Lines of each ring.
    pub lines: u64,
    /// Bytes of the pool.
    pub pool: u64,
    /// What the service would be.
    pub role: Role,
}

/// What came for a service and was not taken yet.
#[derive(Default)]
pub(super) struct Arrivals {
    offers: RefCell<VecDeque<Offer>>,
    waker: Cell<Option<Waker>>,
}

impl Arrivals {
    pub(super) fn take(&self) -> Option<Offer> {
        self.offers.borrow_mut().pop_front()
    }

    pub(super) fn wait(&self, waker: &Waker) {
        self.waker.set(Some(waker.clone()));
    }
}

/// What the monitor said about a connection.
#[derive(Default)]
pub(super) struct Fate {
    gone: Cell<Option<Gone>>,
    bell: Cell<Option<BellId>>,
}

impl Fate {
    pub(super) fn gone(&self) -> Option<Gone> {
        self.gone.get()
    }

    /// The bell to ring when the other end goes.
    pub(super) fn set_bell(&self, bell: BellId) {
        self.bell.set(Some(bell));
    }
}

/// Who must look at what a notice changed.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    pub(super) waker: Option<Waker>,
    pub(super) bell: Option<BellId>,
}

/// The services and connections of this domain.
#[derive(Default)]
pub(super) struct Router {
    services: BTreeMap<Iref, Rc<Arrivals>>,
    connections: BTreeMap<u64, Rc<Fate>>,
}

impl Router {
    pub(super) const fn new() -> Router {
        Router { services: BTreeMap::new(), connections: BTreeMap::new() }
    }

    pub(super) fn add_service(&mut self, iref: Iref) -> Rc<Arrivals> {
        self.services.entry(iref).or_default().clone()
    }

    pub(super) fn remove_service(&mut self, iref: Iref) {
        self.services.remove(&iref);
    }

    /// A new connection: what was said about a former one of its number does not concern it.
    pub(super) fn add_connection(&mut self, number: u64) -> Rc<Fate> {
        let fate = Rc::new(Fate::default());
        self.connections.insert(number, fate.clone());
        fate
    }

    pub(super) fn remove_connection(&mut self, number: u64) {
        self.connections.remove(&number);
    }

    /// Takes a notice in. One that is not understood, or concerns nothing that is known, changes nothing.
    pub(super) fn route(&mut self, words: &[u64; 10]) -> Concerned {
        let [code, first, second, core, lines, pool, consumer, ..] = *words;
        match Notice::from_code(code) {
            Some(Notice::Incoming) => {
                let Some(arrivals) = self.services.get(&Iref(first)) else { return Concerned::default() };
                let role = if consumer == 1 { Role::Producer } else { Role::Consumer };
                let offer = Offer { connection: second, core: core as u32, lines, pool, role };
                arrivals.offers.borrow_mut().push_back(offer);
                Concerned { waker: arrivals.waker.take(), bell: None }
            }
            Some(Notice::Closed) => {
                let Some(fate) = self.connections.get(&first) else { return Concerned::default() };
                fate.gone.set(Some(if second == 1 { Gone::Died } else { Gone::Closed }));
                Concerned { waker: None, bell: fate.bell.get() }
            }
            None => Concerned::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<const N: usize>(given: [u64; N]) -> [u64; 10] {
        let mut words = [0; 10];
        words[..N].copy_from_slice(&given);
        words
    }

    #[test]
    fn offers_reach_their_service_in_order() {
        let mut router = Router::new();
        let (a, b) = (Iref::new(0, 1), Iref::new(0, 2));
        let (first, second) = (router.add_service(a), router.add_service(b));
        for (iref, connection, consumer) in [(a, 7, 0), (b, 8, 1), (a, 9, 0)] {
            router.route(&words([Notice::Incoming as u64, iref.0, connection, 3, 64, 4096, consumer]));
        }
        let offer = |connection, role| Offer { connection, core: 3, lines: 64, pool: 4096, role };
        assert_eq!(first.take(), Some(offer(7, Role::Consumer)));
        assert_eq!(first.take(), Some(offer(9, Role::Consumer)));
        assert_eq!(first.take(), None);
        assert_eq!(second.take(), Some(offer(8, Role::Producer)));
    }

    #[test]
    fn who_waits_for_an_offer_is_woken_once() {
        let mut router = Router::new();
        let arrivals = router.add_service(Iref(5));
        arrivals.wait(Waker::noop());
        let notice = words([Notice::Incoming as u64, 5, 1, 0, 64, 0, 0]);
        assert!(router.route(&notice).waker.is_some());
        assert!(router.route(&notice).waker.is_none());
    }

    #[test]
    fn the_end_of_a_connection_rings_its_bell() {
        let mut router = Router::new();
        let (one, two) = (router.add_connection(1), router.add_connection(2));
        two.set_bell(BellId(77));
        let concerned = router.route(&words([Notice::Closed as u64, 2, 1]));
        assert_eq!((concerned.bell, two.gone(), one.gone()), (Some(BellId(77)), Some(Gone::Died), None));
        assert_eq!(router.route(&words([Notice::Closed as u64, 1, 0])).bell, None);
        assert_eq!(one.gone(), Some(Gone::Closed));
    }

    #[test]
    fn a_number_that_is_used_again_starts_afresh() {
        let mut router = Router::new();
        router.add_connection(1);
        router.route(&words([Notice::Closed as u64, 1, 0]));
        router.remove_connection(1);
        router.route(&words([Notice::Closed as u64, 1, 0]));
        assert_eq!(router.add_connection(1).gone(), None);
    }

    #[test]
    fn what_concerns_nothing_known_is_ignored() {
        let mut router = Router::new();
        for notice in [words([Notice::Incoming as u64, 1, 2]), words([Notice::Closed as u64, 3]), words([99])]
        {
            let concerned = router.route(&notice);
            assert!(concerned.waker.is_none() && concerned.bell.is_none());
        }
    }
}
