use bytes::BytesMut;

use crate::conversation::ReplyPiece;
use crate::generation::Completion;
use crate::http::request::error::RequestError;

/// Writes a reply's events as a dialect has them. Everything goes into one buffer, which is taken as
/// often as the socket can take it. A token's event costs the copying and escaping of its own text:
/// whatever is the same in each event is to be rendered once.
pub(crate) trait EventWriter: Send + Unpin + 'static {
    /// What a stream begins with, before any event.
    fn opening(&mut self, buffer: &mut BytesMut);

    /// A run has begun. With several replies each of their runs is told.
    fn started(&mut self, _buffer: &mut BytesMut) {}

    /// One piece.
    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut);

    /// What of it is held back until more has come, in bytes.
    fn held_bytes(&self) -> usize {
        0
    }

    /// The end of a reply that does not fail.
    fn finished(&mut self, completion: &Completion, buffer: &mut BytesMut);

    /// The end of a stream that does not fail, once all of its replies have ended; `all` is what they come
    /// to.
    fn end(&mut self, _all: &Completion, _buffer: &mut BytesMut) {}

    /// What tells a silent stream from a dead one, and means nothing to who reads events.
    fn keep_alive(&mut self, buffer: &mut BytesMut);

    /// The last event of a stream that fails.
    fn failed(&mut self, error: &RequestError, buffer: &mut BytesMut);
}
