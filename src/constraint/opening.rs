//! Where in a free answer a call begins, which is what its grammar is followed from.
//!
//! Text is watched and never held up: until an opener has begun, nothing is looked at but what was said
//! last.

use serde::{Deserialize, Serialize};

use super::Thought;

/// What a call begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opener {
    /// A text that is made of ordinary tokens, wherever it is said.
    Text(String),
    /// A token, and what is said right behind it.
    Token { id: i32, then: String },
    /// The answer, or what follows a thought or a call, begins with this JSON, white space aside.
    Bare(String),
}

/// What a grammar is to be told, from the opener on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Token(i32),
    Bytes(Vec<u8>),
}

/// White space before it that an opener in JSON may hold.
const MOST_BARE_BYTES: usize = 4096;

/// Watches what is said.
#[derive(Clone, Debug)]
pub struct Watch {
    openers: Vec<Opener>,
    /// What closes a thought.
    close: Option<(String, Option<i32>)>,
    /// The end of what was said, as far as a text may have begun in it.
    tail: Vec<u8>,
    longest: usize,
    /// A token that opens with more behind it, and what was said behind it.
    behind: Option<(i32, Vec<u8>)>,
    /// What was said since a call without a marker may begin; `None`: none may.
    bare: Option<Vec<u8>>,
}

impl Watch {
    pub fn new(openers: Vec<Opener>, thought: Option<&Thought>) -> Self {
        let of_texts = openers.iter().map(|opener| match opener {
            Opener::Text(text) => text.len(),
            Opener::Token { .. } | Opener::Bare(_) => 0,
        });
        let close = thought.map(|thought| (thought.close.clone(), thought.close_id));
        let of_close = close.iter().map(|(text, _)| text.len());
        let longest = of_texts.chain(of_close).max().unwrap_or(0);
        let mut watch = Self {
            openers,
            close,
            tail: Vec::new(),
            longest,
            behind: None,
            bare: None,
        };
        if !thought.is_some_and(|thought| thought.is_open) {
            watch.may_be_bare();
        }
        watch
    }

    /// A call without a marker may begin here.
    pub fn may_be_bare(&mut self) {
        self.tail.clear();
        self.behind = None;
        let is_bare = |opener: &Opener| matches!(opener, Opener::Bare(_));
        self.bare = self.openers.iter().any(is_bare).then(Vec::new);
    }

    /// An opener may have begun: some of the next tokens may end it, and go on.
    pub fn has_begun(&self) -> bool {
        let is_bare = self.bare.as_ref().is_some_and(|said| said.contains(&b'"'));
        is_bare || self.behind.is_some() || self.begun().next().is_some()
    }

    /// Texts of which a beginning was said last, and what is missing of each.
    fn begun(&self) -> impl Iterator<Item = &[u8]> {
        let texts = self.openers.iter().filter_map(|opener| match opener {
            Opener::Text(text) => Some(text.as_bytes()),
            Opener::Token { .. } | Opener::Bare(_) => None,
        });
        texts.flat_map(|text| {
            let begun = (1..text.len()).filter(|&len| self.tail.ends_with(&text[..len]));
            begun.map(|len| &text[len..])
        })
    }

    /// Whether a token might end an opener that has begun, and go on behind it. Cheap, and sure of a no.
    pub fn may_end_in(&self, piece: &[u8]) -> bool {
        let is_longer = |rest: &[u8]| piece.len() > rest.len() && piece.starts_with(rest);
        let is_behind = || {
            let (id, said) = self.behind.as_ref()?;
            let mut openers = self.openers.iter();
            Some(openers.any(|opener| match opener {
                Opener::Token { id: of, then } if of == id => {
                    is_longer(&then.as_bytes()[said.len().min(then.len())..])
                }
                _ => false,
            }))
        };
        let is_bare = self.bare.is_some() && piece.contains(&b':') && !piece.ends_with(b":");
        is_bare || is_behind().unwrap_or(false) || self.begun().any(is_longer)
    }

    /// Takes in what is said, all of which is this token. Returns what the grammar is to be told, once it
    /// begins.
    pub fn says(&mut self, bytes: &[u8], id: Option<i32>) -> Option<Vec<Said>> {
        if let Some(id) = id {
            if let Some(opened) = self.token(id) {
                return opened;
            }
            if self.close.as_ref().is_some_and(|(_, of)| *of == Some(id)) {
                self.may_be_bare();
                return None;
            }
        }
        self.behind_token(bytes)
            .or_else(|| self.bare(bytes))
            .or_else(|| self.text(bytes, id.is_some()))
    }

    /// `None`: it opens nothing.
    fn token(&mut self, id: i32) -> Option<Option<Vec<Said>>> {
        let mut openers = self.openers.iter().filter_map(|opener| match opener {
            Opener::Token { id: of, then } if *of == id => Some(then),
            _ => None,
        });
        let then = openers.next()?;
        if then.is_empty() || openers.any(String::is_empty) {
            return Some(Some(vec![Said::Token(id)]));
        }
        self.tail.clear();
        self.bare = None;
        self.behind = Some((id, Vec::new()));
        Some(None)
    }

    fn behind_token(&mut self, bytes: &[u8]) -> Option<Vec<Said>> {
        let (id, said) = self.behind.as_mut()?;
        said.extend_from_slice(bytes);
        let texts = self.openers.iter().filter_map(|opener| match opener {
            Opener::Token { id: of, then } if of == id => Some(then.as_bytes()),
            _ => None,
        });
        let mut goes_on = false;
        for then in texts {
            if said.starts_with(then) {
                return Some(vec![Said::Token(*id), Said::Bytes(std::mem::take(said))]);
            }
            goes_on |= then.starts_with(said);
        }
        if !goes_on {
            self.behind = None;
        }
        None
    }

    fn bare(&mut self, bytes: &[u8]) -> Option<Vec<Said>> {
        let said = self.bare.as_mut()?;
        said.extend_from_slice(bytes);
        let compact = compact(said);
        let mut goes_on = said.len() <= MOST_BARE_BYTES;
        let mut may_go_on = false;
        for opener in &self.openers {
            let Opener::Bare(begin) = opener else {
                continue;
            };
            let begin = begin.as_bytes();
            if compact.starts_with(begin) {
                let said = self.bare.take()?;
                let blank = said.len() - said.trim_ascii_start().len();
                return Some(vec![Said::Bytes(said[blank..].to_vec())]);
            }
            may_go_on |= begin.starts_with(&compact);
        }
        goes_on &= may_go_on;
        if !goes_on {
            self.bare = None;
        }
        None
    }

    /// `has_ids`: a marker that is a token is known by it, and its text is text.
    fn text(&mut self, bytes: &[u8], has_ids: bool) -> Option<Vec<Said>> {
        self.tail.extend_from_slice(bytes);
        let find = |text: &[u8]| self.tail.windows(text.len()).position(|at| at == text);
        let opened = self.openers.iter().filter_map(|opener| match opener {
            Opener::Text(text) if !text.is_empty() => find(text.as_bytes()),
            _ => None,
        });
        if let Some(at) = opened.min() {
            return Some(vec![Said::Bytes(self.tail.split_off(at))]);
        }
        if let Some((close, id)) = &self.close
            && (id.is_none() || !has_ids)
            && !close.is_empty()
            && let Some(at) = find(close.as_bytes())
        {
            let rest = self.tail.split_off(at + close.len());
            self.may_be_bare();
            return self.bare(&rest).or_else(|| self.text(&rest, has_ids));
        }
        let kept = self.longest.saturating_sub(1);
        self.tail.drain(..self.tail.len().saturating_sub(kept));
        None
    }
}

/// JSON without the white space between its tokens.
fn compact(json: &[u8]) -> Vec<u8> {
    let (mut is_text, mut is_escape) = (false, false);
    let mut compact = Vec::with_capacity(json.len());
    for &byte in json {
        if !is_text && byte.is_ascii_whitespace() {
            continue;
        }
        compact.push(byte);
        is_text ^= byte == b'"' && !is_escape;
        is_escape = is_text && byte == b'\\' && !is_escape;
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Opener {
        Opener::Text(text.to_owned())
    }

    fn bytes(said: &str) -> Option<Vec<Said>> {
        Some(vec![Said::Bytes(said.as_bytes().to_vec())])
    }

    fn last(watch: &mut Watch, pieces: &[&str]) -> Option<Vec<Said>> {
        let mut opened = None;
        for piece in pieces {
            assert_eq!(opened, None, "before {piece:?}");
            opened = watch.says(piece.as_bytes(), Some(1));
        }
        opened
    }

    #[test]
    fn a_text_opens_wherever_its_tokens_are_cut() {
        let mut watch = Watch::new(vec![text("<call>"), text("<fn=")], None);
        assert_eq!(last(&mut watch, &["so <", "c <cal", "x"]), None);
        assert_eq!(
            last(&mut watch, &["go<", "call", ">\n{"]),
            bytes("<call>\n{")
        );
        let mut watch = Watch::new(vec![text("<call>"), text("<fn=")], None);
        assert_eq!(last(&mut watch, &["a<fn", "=f"]), bytes("<fn=f"));
        assert!(watch.begun().next().is_none());
        let mut watch = Watch::new(vec![text("<call>")], None);
        assert!(!watch.has_begun());
        watch.says(b"x<ca", Some(1));
        assert!(watch.has_begun());
        assert!(watch.may_end_in(b"ll>{") && !watch.may_end_in(b"ll>") && !watch.may_end_in(b"x"));
    }

    #[test]
    fn a_token_opens_by_itself_or_with_a_text_behind_it() {
        let then = |then: &str| Opener::Token {
            id: 7,
            then: then.to_owned(),
        };
        let mut watch = Watch::new(vec![then("")], None);
        assert_eq!(watch.says(b"<call>", Some(1)), None, "its text is text");
        assert_eq!(watch.says(b"<call>", Some(7)), Some(vec![Said::Token(7)]));
        let mut watch = Watch::new(vec![then("commentary to=functions.")], None);
        assert_eq!(watch.says(b"<|channel|>", Some(7)), None);
        assert_eq!(watch.says(b"final", Some(1)), None);
        assert!(!watch.has_begun());
        assert_eq!(watch.says(b"<|channel|>", Some(7)), None);
        assert_eq!(watch.says(b"commentary to=", Some(1)), None);
        assert!(watch.may_end_in(b"functions.f") && !watch.may_end_in(b"functions."));
        let said = Said::Bytes(b"commentary to=functions.".to_vec());
        assert_eq!(
            watch.says(b"functions.", Some(1)),
            Some(vec![Said::Token(7), said])
        );
    }

    #[test]
    fn json_opens_only_where_an_answer_may_begin() {
        let bare = Opener::Bare("{\"name\":\"f\",\"parameters\":".to_owned());
        let begin = ["\n{\"name\": ", "\"f\",", "\n \"parameters\":"];
        let mut watch = Watch::new(vec![bare.clone()], None);
        assert_eq!(
            last(&mut watch, &begin),
            bytes("{\"name\": \"f\",\n \"parameters\":")
        );
        let mut watch = Watch::new(vec![bare.clone()], None);
        assert_eq!(
            last(&mut watch, &["{\"name\": \"g\"", ", \"parameters\":"]),
            None
        );
        let mut watch = Watch::new(vec![bare.clone()], None);
        assert_eq!(
            last(&mut watch, &["So: ", begin[0], begin[1], begin[2]]),
            None
        );
        let thought = Thought {
            open: "<think>".to_owned(),
            open_id: None,
            close: "</think>".to_owned(),
            close_id: None,
            is_open: true,
        };
        let mut watch = Watch::new(vec![bare], Some(&thought));
        assert_eq!(last(&mut watch, &begin), None, "it is a thought");
        assert_eq!(last(&mut watch, &["</thi", "nk>"]), None);
        assert!(last(&mut watch, &begin).is_some());
    }
}
