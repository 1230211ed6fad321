use crate::conversation::{ReplyPiece, TokenLogprob, TokenLogprobs};

/// What the pieces of a reply come to, for answers that are written as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeReply {
    pub reasoning: String,
    pub text: String,
    pub calls: Vec<WholeCall>,
    /// Of `calls`, those that came to their end.
    pub whole_calls: u32,
    /// What came one behind the other.
    pub order: Vec<WholePart>,
    /// How likely the tokens of `text` were, where it is asked.
    pub logprobs: Vec<TokenLogprobs>,
    /// How likely the prompt's tokens were, where it is asked.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    bytes: usize,
}

/// What stands in one place of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WholePart {
    /// So many bytes of `reasoning`.
    Reasoning(usize),
    /// So many bytes of `text`, and so many tokens of `logprobs`. The bytes of tokens do not tell: where one is no
    /// UTF-8 the text has another.
    Text { bytes: usize, tokens: usize },
    /// The next one of `calls`.
    Call,
}

/// A call, as far as the model came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeCall {
    /// `None`: the model's format has none.
    pub id: Option<String>,
    pub name: String,
    /// JSON text, as the model wrote it or made of what it wrote.
    pub arguments: String,
    /// Whether it came to its end.
    pub is_whole: bool,
}

impl WholeReply {
    pub fn push(&mut self, piece: ReplyPiece) {
        match piece {
            ReplyPiece::Reasoning(text) => {
                self.in_order(WholePart::Reasoning(text.len()));
                append(&mut self.reasoning, &mut self.bytes, &text);
            }
            ReplyPiece::Text(text) => {
                self.in_order(WholePart::Text {
                    bytes: text.len(),
                    tokens: 0,
                });
                append(&mut self.text, &mut self.bytes, &text);
            }
            ReplyPiece::ScoredText(scored) => {
                self.in_order(WholePart::Text {
                    bytes: scored.text.len(),
                    tokens: scored.tokens.len(),
                });
                append(&mut self.text, &mut self.bytes, &scored.text);
                self.bytes += scored.tokens.iter().map(logprobs_bytes).sum::<usize>();
                self.logprobs.extend(scored.tokens);
            }
            ReplyPiece::PromptLogprobs(tokens) => {
                self.bytes += tokens.iter().map(logprobs_bytes).sum::<usize>();
                self.prompt_logprobs.extend(tokens);
            }
            ReplyPiece::ToolCall { id, name, .. } => {
                self.bytes += size_of::<WholeCall>() + name.len();
                self.bytes += id.as_ref().map_or(0, String::len);
                self.in_order(WholePart::Call);
                self.calls.push(WholeCall {
                    id,
                    name,
                    arguments: String::new(),
                    is_whole: false,
                });
            }
            // Calls do not overlap.
            ReplyPiece::ToolArguments { delta, .. } => {
                if let Some(call) = self.calls.last_mut() {
                    append(&mut call.arguments, &mut self.bytes, &delta);
                }
            }
            ReplyPiece::ToolCallEnd { .. } => {
                self.whole_calls += 1;
                if let Some(call) = self.calls.last_mut() {
                    call.is_whole = true;
                }
            }
        }
    }

    fn in_order(&mut self, part: WholePart) {
        match (self.order.last_mut(), part) {
            (Some(WholePart::Reasoning(bytes)), WholePart::Reasoning(more)) => *bytes += more,
            (
                Some(WholePart::Text { bytes, tokens }),
                WholePart::Text {
                    bytes: more_bytes,
                    tokens: more_tokens,
                },
            ) => {
                *bytes += more_bytes;
                *tokens += more_tokens;
            }
            _ => {
                self.bytes += size_of::<WholePart>();
                self.order.push(part);
            }
        }
    }

    /// About so many bytes are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a token's log probabilities take, and what is written of them.
pub(crate) fn logprobs_bytes(logprobs: &TokenLogprobs) -> usize {
    const WRITTEN: usize = 5;
    let all = std::iter::once(&logprobs.token).chain(&logprobs.top);
    all.map(|token| size_of::<TokenLogprob>() + WRITTEN * (token.bytes.len() + 8))
        .sum()
}

fn append(to: &mut String, bytes: &mut usize, piece: &str) {
    to.push_str(piece);
    *bytes += piece.len();
}
