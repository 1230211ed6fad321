//! Keys that an object has already. A grammar has no memory of them, so what follows JSON here does: a
//! token that would end a key a second time is not allowed.
//!
//! Around the JSON there may be a call's markers: what is in no object and no list is not looked at.

use std::collections::HashSet;

use super::UniqueIn;

/// What an answer whose keys are looked at begins with, until it is said.
#[derive(Clone, Debug)]
pub enum Beginning {
    Json,
    /// One of the texts or a special token; with what was said so far.
    OneOf {
        texts: Vec<String>,
        said: Vec<u8>,
    },
}

impl Beginning {
    /// `None`: keys are looked at whatever it begins with, or not at all.
    pub fn of(unique: &UniqueIn) -> Option<Self> {
        match unique {
            UniqueIn::None | UniqueIn::All => None,
            UniqueIn::Json => Some(Self::Json),
            UniqueIn::Begun(texts) => Some(Self::OneOf {
                texts: texts.clone(),
                said: Vec::new(),
            }),
        }
    }

    /// Takes in what was said. `None`: it is not known yet whether the answer begins so.
    pub fn is_said(&mut self, bytes: &[u8], is_special: bool) -> Option<bool> {
        match self {
            Self::Json => {
                let first = bytes.trim_ascii_start().first()?;
                Some(b"{[".contains(first))
            }
            Self::OneOf { .. } if is_special => Some(true),
            Self::OneOf { texts, said } => {
                said.extend_from_slice(bytes);
                let said = said.as_slice();
                if said.is_empty() {
                    return None;
                }
                let mut all = texts.iter().map(|text| text.as_bytes());
                if all.clone().any(|text| said.starts_with(text)) {
                    return Some(true);
                }
                let may_be_said = all.any(|text| text.starts_with(said));
                (!may_be_said).then_some(false)
            }
        }
    }
}

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

    #[test]
    fn an_answer_begins_with_one_of_its_texts_once_all_of_it_is_said() {
        let unique = UniqueIn::Begun(vec!["<call>".to_owned(), "{".to_owned()]);
        let cases: [(&[&str], Option<bool>); 8] = [
            (&["<", "call", ">"], Some(true)),
            (&["<call>{\"a\""], Some(true)),
            (&["{"], Some(true)),
            (&["<", "b"], Some(false)),
            (&["yes"], Some(false)),
            (&["", "<cal"], None),
            // White space is the text's.
            (&["\n"], Some(false)),
            (&[" {"], Some(false)),
        ];
        for (said, expected) in cases {
            let mut beginning = Beginning::of(&unique).expect("it is looked at");
            let is_said = said
                .iter()
                .map(|part| beginning.is_said(part.as_bytes(), false));
            let known: Vec<_> = is_said.collect();
            assert_eq!(known.last(), Some(&expected), "{said:?}");
            let before = &known[..known.len() - 1];
            assert!(before.iter().all(Option::is_none), "{said:?}");
        }
        let mut beginning = Beginning::of(&unique).expect("it is looked at");
        assert_eq!(beginning.is_said(b"<other>", true), Some(true));
        // All its openers are tokens.
        let mut beginning = Beginning::of(&UniqueIn::Begun(Vec::new())).expect("it is looked at");
        assert_eq!(beginning.is_said(b"", false), None);
        assert_eq!(beginning.is_said(b"<call>", true), Some(true));
    }
}
