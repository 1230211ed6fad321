//! Frames: a little-endian u32 length, then that many bytes of postcard. No I/O here, so that the
//! blocking worker and the async daemon share it. Large messages are made and read aside.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aside::{LARGE_BYTES, aside};

/// Larger frames are refused on both ends: no message is near this, so it is a broken peer.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;
/// Consumed bytes are moved out of the buffer only past this, so that many small frames cost one
/// move.
const COMPACT_AT_BYTES: usize = 64 * 1024;

/// What a buffer keeps when it is empty: a large message must not stay in memory as a buffer of its
/// size for as long as the connection lives.
const KEPT_BYTES: usize = 64 * 1024;

/// Empties a buffer of frames.
pub fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is larger than any that may come")]
    TooLarge(usize),
    #[error("a frame does not hold a message of this protocol: {0}")]
    Malformed(#[from] postcard::Error),
    #[error("{0}")]
    Impossible(&'static str),
}

/// Appends one message to `buffer` as a frame.
pub fn encode<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    let mut written = append(message, buffer, LARGE_BYTES);
    if let Err(postcard::Error::SerializeBufferFull) = written {
        buffer.truncate(start + LENGTH_BYTES);
        written = aside(usize::MAX, || append(message, buffer, usize::MAX));
    }
    if let Err(error) = written {
        buffer.truncate(start);
        return Err(error.into());
    }
    let length = buffer.len() - start - LENGTH_BYTES;
    if length > MAX_FRAME_BYTES {
        buffer.truncate(start);
        return Err(FrameError::TooLarge(length));
    }
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLarge(length))?;
    buffer[start..start + LENGTH_BYTES].copy_from_slice(&prefix.to_le_bytes());
    Ok(())
}

fn append<T: Serialize>(
    message: &T,
    buffer: &mut Vec<u8>,
    most_bytes: usize,
) -> postcard::Result<()> {
    let left = most_bytes;
    postcard::serialize_with_flavor(message, Bounded { buffer, left })
}

/// A buffer, and how many bytes may still be appended.
struct Bounded<'a> {
    buffer: &'a mut Vec<u8>,
    left: usize,
}

impl Flavor for Bounded<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        let left = self.left.checked_sub(data.len());
        self.left = left.ok_or(postcard::Error::SerializeBufferFull)?;
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.try_extend(&[data])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Cuts a byte stream into messages. Bytes go in as they arrive, whole messages come out.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    consumed: usize,
    limit_bytes: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::with_limit(MAX_FRAME_BYTES)
    }
}

impl FrameReader {
    /// One whose peer sends no frame larger than this.
    pub fn with_limit(limit_bytes: usize) -> Self {
        Self {
            buffer: Vec::new(),
            consumed: 0,
            limit_bytes: limit_bytes.min(MAX_FRAME_BYTES),
        }
    }

    /// Where the next bytes of the stream are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.consumed > COMPACT_AT_BYTES {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        &mut self.buffer
    }

    /// The next whole message, `None` until more bytes have arrived.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let pending = &self.buffer[self.consumed..];
        let Some((prefix, rest)) = pending.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > self.limit_bytes {
            return Err(FrameError::TooLarge(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = aside(length, || postcard::from_bytes(body))?;
        self.consumed += LENGTH_BYTES + length;
        if self.consumed == self.buffer.len() {
            empty(&mut self.buffer);
            self.consumed = 0;
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ipc::{Command, Event};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    proptest! {
        #[test]
        fn messages_survive_any_cut(messages in prop::collection::vec(".{0,40}", 0..20), cut in 1usize..50) {
            let mut bytes = Vec::new();
            for message in &messages {
                encode(message, &mut bytes).unwrap();
            }
            let mut reader = FrameReader::default();
            let mut received: Vec<String> = Vec::new();
            for piece in bytes.chunks(cut) {
                reader.buffer().extend_from_slice(piece);
                while let Some(message) = reader.next_message().unwrap() {
                    received.push(message);
                }
            }
            prop_assert_eq!(received, messages);
        }

        #[test]
        fn a_large_message_leaves_no_large_buffer(large in (1usize << 20)..(2 << 20), small in 0usize..100) {
            let mut bytes = Vec::new();
            for length in [large, small] {
                encode(&"x".repeat(length), &mut bytes).unwrap();
            }
            let mut reader = FrameReader::default();
            reader.buffer().extend_from_slice(&bytes);
            for length in [large, small] {
                let message: String = reader.next_message().unwrap().unwrap();
                prop_assert_eq!(message.len(), length);
            }
            prop_assert!(reader.buffer.capacity() <= KEPT_BYTES);
            empty(&mut bytes);
            prop_assert!(bytes.capacity() <= KEPT_BYTES);
        }

        /// Whether or not they are made aside.
        #[test]
        fn frames_of_any_size_follow_each_other(lengths in prop::collection::vec(
            prop_oneof![0usize..100, LARGE_BYTES - 8..LARGE_BYTES + 8, LARGE_BYTES..4 * LARGE_BYTES], 1..6,
        )) {
            let mut bytes = Vec::new();
            for &length in &lengths {
                let before = bytes.len();
                let message = "x".repeat(length);
                encode(&message, &mut bytes).unwrap();
                let whole = postcard::to_stdvec(&message).unwrap();
                prop_assert_eq!(&bytes[before + LENGTH_BYTES..], &whole[..]);
            }
            let mut reader = FrameReader::default();
            reader.buffer().extend_from_slice(&bytes);
            for &length in &lengths {
                let message: String = reader.next_message().unwrap().unwrap();
                prop_assert_eq!(message.len(), length);
            }
        }

        #[test]
        fn junk_is_told_apart_from_messages(junk in prop::collection::vec(any::<u8>(), 0..200)) {
            settle::<Event>(&junk);
            settle::<Command>(&junk);
        }

        /// Whatever the messages of this build are: what decodes is one, and survives the way.
        #[test]
        fn events_and_commands_survive_any_cut(
            events in messages::<Event>(),
            commands in messages::<Command>(),
            cuts in prop::collection::vec(1usize..40, 1..20),
        ) {
            prop_assert_eq!(sent_in_pieces(&events, &cuts), events);
            prop_assert_eq!(sent_in_pieces(&commands, &cuts), commands);
        }

        #[test]
        fn a_damaged_stream_gives_messages_or_an_error(
            events in messages::<Event>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = encoded(&events);
            for (at, byte) in damage {
                let at = at.index(bytes.len() + 1);
                bytes.get_mut(at).into_iter().for_each(|damaged| *damaged = byte);
            }
            settle::<Event>(&bytes);
        }
    }

    /// Messages of this build's protocol, made from bytes that decode to one.
    fn messages<T: DeserializeOwned + std::fmt::Debug>() -> impl Strategy<Value = Vec<T>> {
        // Variants are the first byte; small bytes make flags, variants, lengths that fit and text
        // that is UTF-8.
        let byte = prop_oneof![3 => 0u8..2, 1 => 0u8..128];
        let bytes = (0u8..8, prop::collection::vec(byte, 16..80));
        prop::collection::vec(bytes, 0..6).prop_map(|tries| {
            tries
                .into_iter()
                .filter_map(|(variant, rest)| {
                    let bytes = [&[variant][..], &rest].concat();
                    let (message, _) = postcard::take_from_bytes(&bytes).ok()?;
                    Some(message)
                })
                .collect()
        })
    }

    fn kinds_made<T: DeserializeOwned + std::fmt::Debug>() -> usize {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let made = (0..100).flat_map(|_| messages::<T>().new_tree(&mut runner).unwrap().current());
        let kinds: HashSet<_> = made
            .map(|message| std::mem::discriminant(&message))
            .collect();
        kinds.len()
    }

    #[test]
    fn most_kinds_of_messages_are_made() {
        assert!(kinds_made::<Event>() >= 5);
        assert!(kinds_made::<Command>() >= 3);
    }

    fn encoded<T: Serialize>(messages: &[T]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            encode(message, &mut bytes).unwrap();
        }
        bytes
    }

    /// What comes out when `messages` travel in pieces of the sizes `cuts`, over and over.
    fn sent_in_pieces<T: Serialize + DeserializeOwned>(messages: &[T], cuts: &[usize]) -> Vec<T> {
        let bytes = encoded(messages);
        let mut rest = bytes.as_slice();
        let mut reader = FrameReader::default();
        let mut received = Vec::new();
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            reader.buffer().extend_from_slice(piece);
            while let Some(message) = reader.next_message().unwrap() {
                received.push(message);
            }
            rest = behind;
            if rest.is_empty() {
                return received;
            }
        }
        unreachable!("there is at least one cut")
    }

    /// Reads until the reader wants more bytes or refuses these. What it took for a message is one:
    /// it can be sent again.
    fn settle<T: Serialize + DeserializeOwned + std::fmt::Debug>(
        bytes: &[u8],
    ) -> Option<FrameError> {
        let mut reader = FrameReader::default();
        reader.buffer().extend_from_slice(bytes);
        loop {
            match reader.next_message::<T>() {
                Ok(Some(message)) => {
                    encode(&message, &mut Vec::new()).unwrap();
                }
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    }

    /// Cases that were found, or that a reader of lengths gets wrong first.
    #[test]
    fn known_hard_frames() {
        let malformed =
            |bytes: &[u8]| matches!(settle::<Event>(bytes), Some(FrameError::Malformed(_)));
        let unfinished = |bytes: &[u8]| settle::<Event>(bytes).is_none();
        assert!(unfinished(&[]));
        assert!(unfinished(&[9, 0, 0]), "half a length");
        assert!(unfinished(&[1, 0, 0, 0]), "a length and no body");
        assert!(malformed(&[0, 0, 0, 0]), "an empty frame holds no message");
        assert!(malformed(&[1, 0, 0, 0, 250]), "no such variant");
        let text = Event::LoadFailed {
            reason: "abc".to_owned(),
            failure: None,
        };
        let text = encoded(&[text]);
        let (length_at, last) = (text.len() - 5, text.len() - 2);
        let with = |at: usize, byte: u8| {
            let mut bytes = text.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(unfinished(&text));
        assert!(malformed(&with(length_at, 4)), "text longer than its frame");
        assert!(malformed(&with(last, 0xff)), "text that is not UTF-8");
        let limit = u32::try_from(MAX_FRAME_BYTES).unwrap();
        assert!(unfinished(&limit.to_le_bytes()));
        let over = settle::<Event>(&(limit + 1).to_le_bytes());
        assert!(matches!(over, Some(FrameError::TooLarge(_))), "{over:?}");
    }

    #[test]
    fn an_oversized_length_is_refused_before_it_arrives() {
        let mut reader = FrameReader::default();
        reader.buffer().extend_from_slice(&u32::MAX.to_le_bytes());
        let error = reader.next_message::<String>().unwrap_err();
        assert!(matches!(error, FrameError::TooLarge(_)), "{error}");
        let mut reader = FrameReader::with_limit(1000);
        reader.buffer().extend_from_slice(&1001_u32.to_le_bytes());
        let error = reader.next_message::<String>().unwrap_err();
        assert!(matches!(error, FrameError::TooLarge(1001)), "{error}");
    }
}
