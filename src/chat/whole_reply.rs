use crate::conversation::ReplyPiece;

/// What the pieces of a reply come to, for answers that are written as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeReply {
    pub reasoning: String,
    pub text: String,
    pub calls: Vec<WholeCall>,
    /// Of `calls`, those that came to their end.
    pub whole_calls: u32,
    bytes: usize,
}

/// A call, as far as the model came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeCall {
    /// `None`: the model's format has none.
    pub id: Option<String>,
    pub name: String,
    /// JSON text, as the model wrote it or made of what it wrote.
    pub arguments: String,
}

impl WholeReply {
    pub fn push(&mut self, piece: ReplyPiece) {
        match piece {
            ReplyPiece::Reasoning(text) => append(&mut self.reasoning, &mut self.bytes, &text),
            ReplyPiece::Text(text) => append(&mut self.text, &mut self.bytes, &text),
            ReplyPiece::ToolCall { id, name, .. } => {
                self.bytes += size_of::<WholeCall>() + name.len();
                self.bytes += id.as_ref().map_or(0, String::len);
                self.calls.push(WholeCall {
                    id,
                    name,
                    arguments: String::new(),
                });
            }
            // Calls do not overlap.
            ReplyPiece::ToolArguments { delta, .. } => {
                if let Some(call) = self.calls.last_mut() {
                    append(&mut call.arguments, &mut self.bytes, &delta);
                }
            }
            ReplyPiece::ToolCallEnd { .. } => self.whole_calls += 1,
        }
    }

    /// About so many bytes are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn append(to: &mut String, bytes: &mut usize, piece: &str) {
    to.push_str(piece);
    *bytes += piece.len();
}
