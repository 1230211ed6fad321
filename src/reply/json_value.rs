//! Where a JSON value ends, found byte by byte; what it says is not looked at.

/// A value that is being read.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonValue {
    state: State,
    depth: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Before,
    Structure,
    Text,
    Escape,
    /// A number, a word, or what is no JSON at all.
    Word,
    Done,
}

impl JsonValue {
    /// Markers made of text are not looked for inside a string.
    pub fn is_in_string(&self) -> bool {
        matches!(self.state, State::Text | State::Escape)
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub fn has_begun(&self) -> bool {
        self.state != State::Before
    }

    /// Reads until the value ends. Returns how much of `text` was read: all of it, unless it is done.
    /// A word ends before a comma or a bracket that closes what is around it.
    pub fn read(&mut self, text: &str) -> usize {
        for (at, byte) in text.bytes().enumerate() {
            match self.state {
                State::Done => return at,
                State::Before => match byte {
                    b' ' | b'\t' | b'\n' | b'\r' => {}
                    b'{' | b'[' => {
                        self.state = State::Structure;
                        self.depth = 1;
                    }
                    b'"' => self.state = State::Text,
                    b',' | b'}' | b']' => {
                        self.state = State::Done;
                        return at;
                    }
                    _ => self.state = State::Word,
                },
                State::Structure => match byte {
                    b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                    b'"' => self.state = State::Text,
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            self.state = State::Done;
                            return at + 1;
                        }
                    }
                    _ => {}
                },
                State::Text => match byte {
                    b'\\' => self.state = State::Escape,
                    b'"' if self.depth == 0 => {
                        self.state = State::Done;
                        return at + 1;
                    }
                    b'"' => self.state = State::Structure,
                    _ => {}
                },
                State::Escape => self.state = State::Text,
                State::Word => {
                    if matches!(byte, b',' | b'}' | b']') {
                        self.state = State::Done;
                        return at;
                    }
                }
            }
        }
        text.len()
    }
}

/// The text that a JSON string in its quotes stands for; what is no JSON string stands for itself.
pub(super) fn unquoted(text: &str) -> String {
    let text = text.trim();
    serde_json::from_str::<String>(text).unwrap_or_else(|_| text.trim_matches('"').to_owned())
}

/// Appends `text` as the inside of a JSON string.
pub(super) fn push_escaped(out: &mut String, text: &str) {
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => {
                out.push_str(&text[copied..at]);
                out.push_str("\\u00");
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
                }
                copied = at + 1;
                continue;
            }
            _ => continue,
        };
        out.push_str(&text[copied..at]);
        out.push_str(escape);
        copied = at + 1;
    }
    out.push_str(&text[copied..]);
}

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    push_escaped(&mut out, text);
    out.push('"');
    out
}
