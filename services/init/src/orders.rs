//! What the monitor asks for: the words of `runtime::interface::spawn`, checked.

use alloc::string::String;

use lmp::invocation::MessageInfo;
use runtime::interface::Text;
use runtime::interface::spawn as protocol;
use runtime::spawn::DEFAULT_MEMORY;

use crate::roster::Number;

/// Words of a message.
pub type Words = [u64; MessageInfo::WORDS_MAX];

/// A domain to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spawn {
    /// What the monitor calls the request.
    pub request: u32,
    /// RAM for the domain's own use, in bytes.
    pub memory: u64,
    /// The boot module.
    pub module: String,
    /// The argument string.
    pub args: String,
}

/// An order of the monitor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Make and start a domain.
    Spawn(Spawn),
    /// End a domain.
    Kill(Number),
    /// A domain that ended may be taken down.
    Released(Number),
}

/// Why words are no order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadOrder {
    /// The first word is none of the table.
    Unknown(u64),
    /// The module or the arguments of that request are not UTF-8.
    NotText {
        /// What the monitor calls it.
        request: u32,
    },
    /// No domain has such a number.
    NoNumber(u64),
}

impl Order {
    /// The order in `words`, of which those that were not sent are 0.
    ///
    /// # Errors
    /// [`BadOrder`].
    pub fn decode(words: &Words) -> Result<Order, BadOrder> {
        let &[code, first, m0, m1, m2, m3, a0, a1, a2, a3] = words;
        let number = || Number::from_word(first).ok_or(BadOrder::NoNumber(first));
        match protocol::Order::from_code(code).ok_or(BadOrder::Unknown(code))? {
            protocol::Order::Spawn => {
                let (request, kib) = (first as u32, first >> 32);
                let text = |words| Text::unpack(words).as_str().map(String::from);
                let bad = BadOrder::NotText { request };
                Ok(Order::Spawn(Spawn {
                    request,
                    memory: if kib == 0 { DEFAULT_MEMORY } else { kib << 10 },
                    module: text([m0, m1, m2, m3]).ok_or(bad)?,
                    args: text([a0, a1, a2, a3]).ok_or(bad)?,
                }))
            }
            protocol::Order::Kill => number().map(Order::Kill),
            protocol::Order::Released => number().map(Order::Released),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use runtime::interface::pack;

    fn spawn(first: u64, module: [u64; 4], args: [u64; 4]) -> Words {
        let [m0, m1, m2, m3] = module;
        let [a0, a1, a2, a3] = args;
        [protocol::Order::Spawn as u64, first, m0, m1, m2, m3, a0, a1, a2, a3]
    }

    #[test]
    fn orders_are_understood() {
        let words = spawn(7 | 64 << 32, pack("bench_child").unwrap(), pack("seed=1 x").unwrap());
        let expected =
            Spawn { request: 7, memory: 64 << 10, module: "bench_child".into(), args: "seed=1 x".into() };
        assert_eq!(Order::decode(&words), Ok(Order::Spawn(expected)));
        let usual = Order::decode(&spawn(u64::from(u32::MAX), pack("m").unwrap(), [0; 4]));
        let expected =
            Spawn { request: u32::MAX, memory: DEFAULT_MEMORY, module: "m".into(), args: String::new() };
        assert_eq!(usual, Ok(Order::Spawn(expected)));
        let number = Number::from_word(5).unwrap();
        let order = |code| Order::decode(&[code as u64, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(order(protocol::Order::Kill), Ok(Order::Kill(number)));
        assert_eq!(order(protocol::Order::Released), Ok(Order::Released(number)));
    }

    #[test]
    fn what_is_no_order_is_told_apart() {
        let order = |code: u64, first| Order::decode(&[code, first, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(order(0, 0), Err(BadOrder::Unknown(0)));
        assert_eq!(order(u64::MAX, 0), Err(BadOrder::Unknown(u64::MAX)));
        assert_eq!(order(protocol::Order::Kill as u64, 0), Err(BadOrder::NoNumber(0)));
        assert_eq!(order(protocol::Order::Released as u64, 1 << 32), Err(BadOrder::NoNumber(1 << 32)));
        let bad = [u64::MAX; 4];
        let good = pack("m").unwrap();
        for words in [spawn(3, bad, good), spawn(3, good, bad)] {
            assert_eq!(Order::decode(&words), Err(BadOrder::NotText { request: 3 }));
        }
    }

    proptest! {
        /// Wild words are an order or not, and the texts are never longer than they can be.
        #[test]
        fn wild_words_do_no_harm(mut words in prop::array::uniform10(any::<u64>()), code in 0u64..5) {
            words[0] = code;
            if let Ok(Order::Spawn(spawn)) = Order::decode(&words) {
                prop_assert!(spawn.module.len() <= 32 && spawn.args.len() <= 32 && spawn.memory > 0);
            }
        }
    }
}
