//! Frames: a little-endian u32 length, then that many bytes of postcard. No I/O here, so that the
//! blocking worker and the async daemon share it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Larger frames are refused on both ends: no message is near this, so it is a broken peer.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;
/// Consumed bytes are moved out of the buffer only past this, so that many small frames cost one
/// move.
const COMPACT_AT_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME_BYTES} bytes")]
    TooLarge(usize),
    #[error("a frame does not hold a message of this protocol: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Appends one message to `buffer` as a frame.
pub fn encode<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    let taken = std::mem::take(buffer);
    *buffer = postcard::to_extend(message, taken)?;
    let length = buffer.len() - start - LENGTH_BYTES;
    if length > MAX_FRAME_BYTES {
        buffer.truncate(start);
        return Err(FrameError::TooLarge(length));
    }
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLarge(length))?;
    buffer[start..start + LENGTH_BYTES].copy_from_slice(&prefix.to_le_bytes());
    Ok(())
}

/// Cuts a byte stream into messages. Bytes go in as they arrive, whole messages come out.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    consumed: usize,
}

impl FrameReader {
    /// Where the next bytes of the stream are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.consumed == self.buffer.len() {
            self.buffer.clear();
            self.consumed = 0;
        } else if self.consumed > COMPACT_AT_BYTES {
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
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = postcard::from_bytes(body)?;
        self.consumed += LENGTH_BYTES + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::default();
            reader.buffer().extend_from_slice(&junk);
            while let Ok(Some(_)) = reader.next_message::<crate::ipc::Event>() {}
        }
    }

    #[test]
    fn an_oversized_length_is_refused_before_it_arrives() {
        let mut reader = FrameReader::default();
        reader.buffer().extend_from_slice(&u32::MAX.to_le_bytes());
        let error = reader.next_message::<String>().unwrap_err();
        assert!(matches!(error, FrameError::TooLarge(_)), "{error}");
    }
}
