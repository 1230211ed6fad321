use bytes::BufMut;
use serde::Serialize;

/// Writes a value as JSON behind what is in the buffer.
pub(crate) fn append_json<T: Serialize + ?Sized>(buffer: &mut (impl BufMut + ?Sized), value: &T) {
    serde_json::to_writer(buffer.writer(), value)
        .expect("a buffer in memory takes everything, and these types have JSON forms");
}
