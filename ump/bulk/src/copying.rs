//! The two other ways to move data across a channel, to compare with handing buffers over.
//!
//! - Through messages: seven words each, in bursts; nothing is shared but the channel. The data is copied
//!   twice. [`send`] and [`receive`].
//! - Through shared memory: copied into a slot, handed over and copied out, as one does with a buffer that
//!   must stay where it is, or with a peer that must not be able to change what was checked.
//!   [`Buf::copy_from_words`](crate::Buf::copy_from_words) and [`View::copy_words_to`](crate::View::copy_words_to)
//!   are the two copies.

use ump::{Endpoint, Kind, Message, PAYLOAD_WORDS, SendError, Violation};

use crate::memory::Word;

/// Sends the first of `data` in one burst of messages of `kind`, and returns how many words: all, if there is
/// room.
///
/// # Errors
/// [`SendError`]; nothing was sent.
pub fn send<const N: usize>(
    channel: &mut Endpoint<'_, N>,
    kind: Kind,
    data: &[Word],
) -> Result<usize, SendError> {
    let sent = channel.try_send_burst_with(data.len().div_ceil(PAYLOAD_WORDS), |index| {
        let chunk = &data[index * PAYLOAD_WORDS..];
        match chunk.first_chunk::<PAYLOAD_WORDS>() {
            Some(words) => Message::new(kind, words.each_ref().map(Word::load)),
            None => {
                let words = core::array::from_fn(|index| chunk.get(index).map_or(0, Word::load));
                Message::from_first(kind, chunk.len(), words)
            }
        }
    })?;
    Ok(data.len().min(sent * PAYLOAD_WORDS))
}

/// Takes the messages of `kind` that are there, as many as `data` has room for, stores their words to its
/// beginning, and returns how many.
///
/// # Errors
/// The [`Violation`] that closed the channel; it is closed too if a message is of another kind, or brings more
/// words than there is room for.
pub fn receive<const N: usize>(
    channel: &mut Endpoint<'_, N>,
    kind: Kind,
    data: &[Word],
) -> Result<usize, Violation> {
    let mut count = 0;
    while count < data.len() {
        let Some(message) = channel.try_recv()? else { break };
        let (room, words) = (&data[count..], message.words());
        if message.kind() != kind || words.len() > room.len() {
            return Err(channel.refuse(message.kind()));
        }
        if let (Some(room), Some(words)) = (room.first_chunk(), words.first_chunk::<PAYLOAD_WORDS>()) {
            // Most have all their words.
            let room: &[Word; PAYLOAD_WORDS] = room;
            room.iter().zip(words).for_each(|(word, value)| word.store(*value));
        } else {
            room.iter().zip(words).for_each(|(word, value)| word.store(*value));
        }
        count += words.len();
    }
    Ok(count)
}
