//! Keys that an object has already. A grammar has no memory of them, so what follows JSON here does: a
//! token that would end a key a second time is not allowed.
//!
//! Around the JSON there may be a call's markers: what is in no object and no list is not looked at.

use std::collections::HashSet;

#[derive(Clone, Debug, Default)]
pub struct UniqueKeys {
    open: Vec<Open>,
    string: Option<Text>,
}

/// An object or a list that is not closed yet.
#[derive(Clone, Debug)]
struct Open {
    /// `None`: it is a list.
    keys: Option<HashSet<String>>,
    /// A key comes next.
    wants_key: bool,
}

#[derive(Clone, Debug, Default)]
struct Text {
    /// As it is written, for a key; nothing of another text is kept.
    written: Vec<u8>,
    is_key: bool,
    is_escape: bool,
}

impl UniqueKeys {
    /// Takes in what was said.
    pub fn says(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Some(text) = &mut self.string {
            if text.ends_with(byte)
                && let Some(text) = self.string.take()
                && text.is_key
                && let Some(Open {
                    keys: Some(keys), ..
                }) = self.open.last_mut()
            {
                keys.insert(read(&text.written));
            }
            return;
        }
        match byte {
            b'{' | b'[' => self.open.push(Open {
                keys: (byte == b'{').then(HashSet::new),
                wants_key: byte == b'{',
            }),
            b'}' | b']' => {
                self.open.pop();
            }
            b',' => {
                if let Some(open) = self.open.last_mut() {
                    open.wants_key = open.keys.is_some();
                }
            }
            b'"' => {
                if let Some(open) = self.open.last_mut() {
                    self.string = Some(Text {
                        is_key: std::mem::take(&mut open.wants_key),
                        ..Text::default()
                    });
                }
            }
            _ => {}
        }
    }

    /// Whether any token has to be looked at.
    pub fn has_keys(&self) -> bool {
        let has_keys = |open: &Open| open.keys.as_ref().is_some_and(|keys| !keys.is_empty());
        self.open.iter().any(has_keys)
    }

    /// Whether a token would end a key that its object has.
    pub fn is_repeated_by(&self, piece: &[u8]) -> bool {
        // What the token opens itself; below are those that are open.
        let mut own: Vec<bool> = Vec::new();
        let mut at = self.open.len();
        let mut string = self.string.as_ref().map(|text| Text {
            written: if text.is_key {
                text.written.clone()
            } else {
                Vec::new()
            },
            ..*text
        });
        let mut wants_key = self.open.last().is_some_and(|open| open.wants_key);
        for &byte in piece {
            if let Some(text) = &mut string {
                if text.ends_with(byte)
                    && let Some(text) = string.take()
                    && text.is_key
                    && own.is_empty()
                    && let Some(Open {
                        keys: Some(keys), ..
                    }) = at.checked_sub(1).and_then(|at| self.open.get(at))
                    && keys.contains(&read(&text.written))
                {
                    return true;
                }
                continue;
            }
            let is_object = |own: &[bool], at: usize| match own.last() {
                Some(is_object) => *is_object,
                None => at > 0 && self.open[at - 1].keys.is_some(),
            };
            match byte {
                b'{' | b'[' => {
                    own.push(byte == b'{');
                    wants_key = byte == b'{';
                }
                b'}' | b']' => {
                    if own.pop().is_none() {
                        at = at.saturating_sub(1);
                    }
                    wants_key = false;
                }
                b',' => wants_key = is_object(&own, at),
                b'"' if at > 0 || !own.is_empty() => {
                    string = Some(Text {
                        is_key: std::mem::take(&mut wants_key),
                        ..Text::default()
                    });
                }
                _ => {}
            }
        }
        false
    }
}

impl Text {
    /// Whether it ends with this byte; else the byte is in it.
    fn ends_with(&mut self, byte: u8) -> bool {
        if byte == b'"' && !self.is_escape {
            return true;
        }
        self.is_escape = byte == b'\\' && !self.is_escape;
        if self.is_key {
            self.written.push(byte);
        }
        false
    }
}

/// A key as it reads.
fn read(written: &[u8]) -> String {
    let written = String::from_utf8_lossy(written);
    serde_json::from_str(&format!("\"{written}\"")).unwrap_or_else(|_| written.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(said: &str) -> UniqueKeys {
        let mut keys = UniqueKeys::default();
        keys.says(said.as_bytes());
        keys
    }

    #[test]
    fn a_key_is_said_once_in_each_object() {
        for (said, piece) in [
            (r#"{"a": 1, "#, r#""a""#),
            (r#"{"a": 1, "a"#, r#"""#),
            (r#"{"a": 1, "b": {"c": 2}"#, r#", "a":"#),
            (r#"{"a": {"b": 1"#, r#"}, "a": "#),
            (r#"{"é\n": 1, "é"#, r#"\n":"#),
            (r#"<call>[{"name": "f", "arguments": {"x": "y", "#, r#""x""#),
        ] {
            assert!(
                after(said).is_repeated_by(piece.as_bytes()),
                "{said} {piece}"
            );
        }
        for (said, piece) in [
            (r#"{"a": "#, r#""a""#),
            (r#"{"a": 1, "a"#, r#"b""#),
            (r#"{"a": {"#, r#""a""#),
            (r#"{"a": [1, "#, r#""a""#),
            (r#"{"a": 1, "b": "a"#, r#"""#),
            (r#"{"a": 1}], "#, r#""a""#),
            (r#"{"a": 1, "b": "#, r#"{"a": 2"#),
        ] {
            assert!(
                !after(said).is_repeated_by(piece.as_bytes()),
                "{said} {piece}"
            );
        }
        assert!(!after("{\"a").has_keys() && after("[{\"a\":").has_keys());
    }
}
