//! What monitors say to each other: one [`Intermon`] per line of the channel between two of them.
//!
//! A message of another kind or length than the table's is no message. The core that one is from follows from the
//! channel it came on and is never in it; identifiers belong to the core that is named in the documentation.

use ump::{Kind, Message, PAYLOAD_WORDS};

/// The first kind of this table; those below it are the greetings of [`protocol`](crate::protocol).
pub const FIRST_KIND: u16 = 3;

macro_rules! messages {
    ($( $(#[$doc:meta])* $name:ident = $kind:literal { $($field:ident),* $(; $array:ident: $len:literal)? } )*) => {
        /// A message between monitors.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[expect(missing_docs, reason = "each variant's documentation names its fields")]
        pub enum Intermon { $( $(#[$doc])* $name { $($field: u64,)* $($array: [u64; $len],)? }, )* }

        impl Intermon {
            /// Kinds from here on mean nothing.
            pub const KINDS_END: u16 = {
                let kinds = [$($kind as u16),*];
                let mut i = 0;
                while i < kinds.len() {
                    assert!(kinds[i] == FIRST_KIND + i as u16, "kinds are dense");
                    i += 1;
                }
                FIRST_KIND + kinds.len() as u16
            };

            /// The message as a line.
            pub fn encode(&self) -> Message {
                match *self { $(
                    Intermon::$name { $($field,)* $($array,)? } => {
                        const WORDS: usize = messages!(@count $($field)*) $(+ $len)?;
                        const { assert!(WORDS <= PAYLOAD_WORDS) };
                        let mut words = [0u64; WORDS];
                        let mut rest = words.iter_mut();
                        $( if let Some(word) = rest.next() { *word = $field; } )*
                        $( for (word, value) in rest.zip($array) { *word = value; } )?
                        Message::new(Kind($kind), words)
                    }
                )* }
            }

            /// The message in a line; `None` if it is none of the table.
            pub fn decode(message: &Message) -> Option<Intermon> {
                let words = message.words();
                match message.kind().0 {
                    $( $kind => {
                        const FIXED: usize = messages!(@count $($field)*);
                        const WORDS: usize = FIXED $(+ $len)?;
                        let words: &[u64; WORDS] = words.try_into().ok()?;
                        messages!(@decode $name words FIXED [$($field)*] $($array $len)?)
                    } )*
                    _ => None,
                }
            }
        }
    };
    (@count) => { 0 };
    (@count $head:ident $($tail:ident)*) => { 1 + messages!(@count $($tail)*) };
    (@decode $name:ident $words:ident $fixed:ident [$($field:ident)*]) => {{
        let [$($field),*] = *$words;
        Some(Intermon::$name { $($field),* })
    }};
    (@decode $name:ident $words:ident $fixed:ident [$($field:ident)*] $array:ident $len:literal) => {{
        let (fixed, rest) = $words.split_at($fixed);
        let [$($field),*] = *<&[u64; $fixed]>::try_from(fixed).ok()?;
        let $array = *<&[u64; $len]>::try_from(rest).ok()?;
        Some(Intermon::$name { $($field,)* $array })
    }};
}

messages! {
    // The mesh.
    /// To the first core: a channel to `peer`, please.
    MeshAsk = 3 { peer }
    /// From the first core: the channel to `peer` is in [`mesh::SIZE`](crate::mesh::SIZE) bytes of physical memory
    /// at `base`; `side` is 0 or 1, `apic` the APIC identifier of `peer`.
    MeshOffer = 4 { peer, base, side, apic }
    /// From the first core: there is no way to `peer`, because of `error`.
    MeshRefused = 5 { peer, error }

    // Connections.
    /// The client's connection `from` asks service number `service`. `form` is a [`Form`](crate::binding::Form),
    /// `pool` its bytes, `seed` that of a random policy, `wake` the client's entry of its core's table plus 1, or 0.
    Bind = 6 { from, service, form, pool, seed, wake }
    /// The service accepted connection `to` of the receiver; it is `from` at its own core, with the entry `wake`.
    Accepted = 7 { to, from, wake }
    /// Connection `to` does not come about, because of `error`.
    Refused = 8 { to, error }
    /// The end `from` of the sender is gone, for `reason`: 0 closed, 1 its domain ended. `to` is the receiver's
    /// end, or 0 if the sender does not know it.
    Gone = 9 { to, from, reason }

    // Channels, at the first core.
    /// To the first core: memory for the channel between `server`, a connection of the sender, and `client`, one of
    /// `client_core`.
    ChannelAsk = 10 { server, client_core, client, form, pool, seed }
    /// From the first core: connection `to`, whose peer is `peer` at its core, has the memory of `channel`. `layout`
    /// is a [`Layout`](crate::channels::Layout), `piece` the bytes of a piece, `forward` and `backward` are
    /// [`Home`](crate::channels::Home)s of the outboxes.
    Grant = 11 { to, peer, channel, layout, piece, forward, backward }
    /// From the first core: the homes of the pieces from `first` on, up to four of them.
    Pieces = 12 { to, channel, first; homes: 4 }
    /// From the first core: there is no memory for connection `to`, because of `error`.
    GrantRefused = 13 { to, error }
    /// To the first core: nobody uses `channel` at `end` (0 or 1) any more.
    ChannelDone = 14 { channel, end }

    // Capabilities passed over connections.
    /// To the owner of a frame: record that `core` gets a copy, and deliver it to its connection `to`; `request` is
    /// the sender's.
    Transfer = 15 { request, base, size, rights, core, to }
    /// From the owner of a frame: a copy for connection `to`, passed by request `request` of `core`.
    Deliver = 16 { to, base, size, rights, core, request }
    /// From the owner of a frame: delete all copies of it, and say so. `record` is the owner's.
    Revoke = 17 { record, base, size }
    /// The copies of `record` of the receiver are gone.
    Revoked = 18 { record }

    // Domains.
    /// Start `module` for request `request`, with `kib` KiB of RAM; the arguments follow.
    Spawn = 19 { request, kib; module: 4 }
    /// The arguments for `request`: start it now.
    SpawnArgs = 20 { request; args: 4 }
    /// End the domain that was started for `request`.
    Kill = 21 { request }
    /// The domain that was started for `request` has ended.
    Ended = 22 { request, cause, detail }

    // Names and cores, at the first core.
    /// To the first core: the sender's service `iref` is called `name`.
    Register = 23 { request, iref; name: 4 }
    /// To the first core: what is called `name`?
    Lookup = 24 { request; name: 4 }
    /// To the first core: whoever made the look-up `request` waits no more.
    Forget = 25 { request }
    /// To the first core: the sender's service `iref` is gone.
    Withdraw = 26 { iref }
    /// To the first core: about `core`.
    Core = 27 { request, core }
    /// From the first core: `up` cores are up; `core` is on `node`, one of `nodes`, and has APIC identifier `apic`.
    CoreIs = 28 { request, up, core, node, apic, nodes }

    // Answers.
    /// `request` of the receiver is done, with `value`.
    Done = 29 { request, value }
    /// `request` of the receiver cannot be done, because of `error`, a `MonitorError`'s code.
    Failed = 30 { request, error }
    /// To the first core: about the memory of `node`.
    Memory = 31 { request, node }
    /// From the first core: `free` bytes of `all` are free.
    MemoryIs = 32 { request, free, all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever decodes encodes to the same line: no two lines mean the same, and nothing is lost.
        #[test]
        fn lines_and_messages_are_one_to_one(kind in 0u16..40, words in prop::collection::vec(any::<u64>(), 0..8)) {
            let line = Message::from_words(Kind(kind), &words).unwrap();
            match Intermon::decode(&line) {
                Some(message) => prop_assert_eq!(message.encode(), line),
                None => prop_assert!(!(FIRST_KIND..Intermon::KINDS_END).contains(&kind) || words.len() != words_of(kind)),
            }
        }
    }

    /// The number of words of `kind`: the one length that decodes.
    fn words_of(kind: u16) -> usize {
        let fits =
            |n: usize| Intermon::decode(&Message::from_words(Kind(kind), &[0; 7][..n]).unwrap()).is_some();
        let lengths: Vec<usize> = (0..=7).filter(|n| fits(*n)).collect();
        assert_eq!(lengths.len(), 1, "kind {kind}");
        lengths[0]
    }
}
