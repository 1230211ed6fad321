//! What is made of a reply before its end is told.

use std::pin::Pin;

use crate::conversation::ReplyPiece;
use crate::generation::ReplyEvent;

/// What is being made; dropping it means that it is not wanted any more.
pub type Making = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Follows a reply, and makes something of it once it has ended well. It has to keep to a time of its own.
pub trait Closing: Send {
    fn piece(&mut self, piece: &ReplyPiece);

    /// What it keeps before there is a reply, in bytes.
    fn waiting_bytes(&self) -> usize;

    /// What it keeps of the reply beside that, in bytes.
    fn held_bytes(&self) -> usize;

    fn ended(self: Box<Self>) -> Making;
}

/// Shows it an event that is not the last one.
pub(super) fn show(closing: &mut dyn Closing, event: &ReplyEvent) {
    match event {
        ReplyEvent::Piece(piece) => closing.piece(piece),
        ReplyEvent::Pieces(pieces) => pieces.iter().for_each(|piece| closing.piece(piece)),
        ReplyEvent::Started(_) | ReplyEvent::Finished(_) | ReplyEvent::Failed(_) => {}
    }
}
