//! Calls in JSON: an object with a name and arguments, a list of such, or several in a row. The
//! arguments are handed on as they come. Members that have no place in a call are kept, and are content
//! behind it.

use super::call::Call;
use super::format::JsonKeys;
use super::json_value::{JsonValue, unquoted};
use crate::conversation::ReplyPiece;

#[derive(Clone, Debug, Default)]
pub(super) struct JsonCalls {
    at: At,
    key: String,
    is_escape: bool,
    value: JsonValue,
    word: String,
    /// Members of the call that have no place in it.
    left_over: String,
    nested: u32,
    /// A call has come to its end.
    had_call: bool,
    /// A list has begun.
    is_in_list: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Outside,
    BeforeKey,
    InKey,
    AfterKey,
    BeforeValue(Target),
    InValue(Target),
    AfterValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Name,
    Arguments,
    Id,
    /// An object that holds name and arguments, or the name.
    Function,
    /// `"type": "function"`
    Kind,
    /// An id, where the format has none.
    Skipped,
    /// It has no place in a call.
    Other,
}

/// How strictly an object must look like a call.
#[derive(Clone, Copy)]
pub(super) enum Proof<'n> {
    /// A marker said that it is one.
    Marker,
    /// It must have both keys and nothing unusual before them, or the name of a known function.
    Keys { known: &'n dyn Fn(&str) -> bool },
}

impl Proof<'_> {
    fn is_needed(self) -> bool {
        matches!(self, Self::Keys { .. })
    }
}

/// Why reading stopped before the end of the text.
pub(super) enum Stop {
    /// All was read.
    Empty,
    /// A call has come to its end.
    End,
    /// What follows is written in another way.
    Other,
    /// What was read or what follows is no call, or no part of the one that was told.
    NotACall,
}

const MOST_ID_BYTES: usize = 64;
const NAMES: [&str; 1] = ["name"];
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];

/// Whether a value may be an id, of which nothing is to be told any more.
fn is_id(value: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '"' | '_' | '-' | '.' | ':');
    value.len() <= MOST_ID_BYTES && value.chars().all(is_part)
}

impl JsonCalls {
    pub fn is_in_string(&self) -> bool {
        match self.at {
            At::InKey => true,
            At::InValue(_) => self.value.is_in_string(),
            _ => false,
        }
    }

    /// A key has begun that is, or may be, that of the arguments, and no value of it.
    pub fn awaits_arguments(&self) -> bool {
        matches!(
            self.at,
            At::InKey | At::AfterKey | At::BeforeValue(Target::Arguments)
        )
    }

    /// Reads what it can of `text`, and tells how much that was.
    pub fn read(
        &mut self,
        text: &str,
        keys: &JsonKeys,
        proof: Proof<'_>,
        call: &mut Call,
        out: &mut Vec<ReplyPiece>,
    ) -> (usize, Stop) {
        let mut at = 0;
        while at < text.len() {
            let byte = text.as_bytes()[at];
            let is_space = byte.is_ascii_whitespace();
            match self.at {
                At::Outside => match byte {
                    b'{' => {
                        call.begin();
                        self.left_over.clear();
                        self.at = At::BeforeKey;
                        self.nested = 0;
                    }
                    b'[' => self.is_in_list = true,
                    b']' | b',' | b';' => {}
                    // One too many.
                    b'}' if self.had_call => {}
                    _ if is_space => {}
                    _ if proof.is_needed() && self.is_in_list => return (at, Stop::NotACall),
                    _ => return (at, Stop::Other),
                },
                At::BeforeKey => match byte {
                    b'"' => {
                        self.key.clear();
                        self.key.push('"');
                        self.at = At::InKey;
                    }
                    b'}' => {
                        if let Some(stop) = self.end_object(proof, call) {
                            return (at + 1, stop);
                        }
                    }
                    b',' => {}
                    _ if is_space => {}
                    _ => return (at, Stop::NotACall),
                },
                At::InKey => {
                    let end = self.string_end(&text[at..]);
                    self.key.push_str(&text[at..at + end.0]);
                    at += end.0;
                    if end.1 {
                        self.at = At::AfterKey;
                    }
                    continue;
                }
                At::AfterKey if byte == b':' => {
                    let Some(target) = self.target(keys, call) else {
                        self.left_over.push_str(&self.key);
                        return (at, Stop::NotACall);
                    };
                    let is_unusual = matches!(target, Target::Other | Target::Skipped);
                    if is_unusual && proof.is_needed() && !call.is_announced() {
                        return (at, Stop::NotACall);
                    }
                    self.at = At::BeforeValue(target);
                }
                At::AfterKey if is_space => {}
                At::AfterKey => {
                    self.left_over.push_str(&self.key);
                    return (at, Stop::NotACall);
                }
                At::BeforeValue(_) if is_space => {}
                At::BeforeValue(Target::Function) if byte == b'{' => {
                    self.nested += 1;
                    self.at = At::BeforeKey;
                }
                At::BeforeValue(target) => {
                    if target == Target::Arguments && proof.is_needed() && byte != b'{' {
                        return (at, Stop::NotACall);
                    }
                    self.value = JsonValue::default();
                    self.word.clear();
                    self.at = At::InValue(target);
                    if target == Target::Arguments {
                        call.announce(out);
                    }
                    continue;
                }
                At::InValue(target) => {
                    let read = self.value.read(&text[at..]);
                    let part = &text[at..at + read];
                    at += read;
                    match target {
                        Target::Arguments => call.arguments(part, out),
                        _ => self.word.push_str(part),
                    }
                    if self.value.is_done() {
                        self.at = At::AfterValue;
                        self.end_value(target, proof, call, out);
                    }
                    continue;
                }
                At::AfterValue => match byte {
                    b',' => self.at = At::BeforeKey,
                    b'}' => {
                        if let Some(stop) = self.end_object(proof, call) {
                            return (at + 1, stop);
                        }
                    }
                    // A comma too few, or a bracket too many.
                    b'"' => {
                        self.at = At::BeforeKey;
                        continue;
                    }
                    b']' => {}
                    _ if is_space => {}
                    _ => return (at, Stop::NotACall),
                },
            }
            at += 1;
        }
        (text.len(), Stop::Empty)
    }

    fn end_value(
        &mut self,
        target: Target,
        proof: Proof<'_>,
        call: &mut Call,
        out: &mut Vec<ReplyPiece>,
    ) {
        match target {
            Target::Id if !call.is_announced() => call.set_id(&unquoted(&self.word)),
            Target::Name | Target::Function => {
                call.set_name(&unquoted(&self.word));
                if !proof.is_needed() || call.has_arguments() {
                    call.announce(out);
                }
            }
            Target::Kind if unquoted(&self.word) == "function" => {}
            Target::Id | Target::Skipped if is_id(&self.word) => {}
            Target::Id | Target::Skipped | Target::Kind | Target::Other => {
                let member = [&self.key, ": ", self.word.trim(), "\n"];
                self.left_over.extend(member);
            }
            Target::Arguments => {}
        }
    }

    /// What a call had that is no part of it.
    pub fn take_left_over(&mut self) -> String {
        std::mem::take(&mut self.left_over)
    }

    /// The length of the rest of a string, and whether it ends.
    fn string_end(&mut self, text: &str) -> (usize, bool) {
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if self.is_escape => self.is_escape = false,
                b'\\' => self.is_escape = true,
                b'"' => return (at + 1, true),
                _ => {}
            }
        }
        (text.len(), false)
    }

    /// What the value of the key is; `None`: it has no place in a call.
    fn target(&self, keys: &JsonKeys, call: &mut Call) -> Option<Target> {
        let key = unquoted(&self.key);
        let is = |known: &[&str], own: &str| known.contains(&key.as_str()) || key == own;
        if keys.name.is_empty() && self.nested == 0 {
            if call.has_arguments() {
                return None;
            }
            call.set_name(&key);
            return Some(Target::Arguments);
        }
        Some(if is(&NAMES, &keys.name) && call.name().is_empty() {
            Target::Name
        } else if is(&ARGUMENTS, &keys.arguments) && !call.has_arguments() {
            Target::Arguments
        } else if keys.id.as_deref() == Some(key.as_str()) {
            Target::Id
        } else if key == "id" {
            Target::Skipped
        } else if key == "function" && call.name().is_empty() {
            Target::Function
        } else if key == "type" {
            Target::Kind
        } else {
            Target::Other
        })
    }

    /// A closing brace. `None`: it was an inner one.
    fn end_object(&mut self, proof: Proof<'_>, call: &Call) -> Option<Stop> {
        if self.nested > 0 {
            self.nested -= 1;
            self.at = At::AfterValue;
            return None;
        }
        let is_proven = match proof {
            Proof::Marker => true,
            Proof::Keys { known } => {
                call.is_announced() || call.has_arguments() || known(call.name())
            }
        };
        if !is_proven || call.name().is_empty() {
            return Some(Stop::NotACall);
        }
        self.at = At::Outside;
        self.had_call = true;
        Some(Stop::End)
    }

    /// A marker says that the calls have ended.
    pub fn close(&mut self, call: &mut Call) {
        match self.at {
            At::Outside => call.begin(),
            At::InKey | At::AfterKey | At::BeforeValue(Target::Kind | Target::Other) => {
                self.left_over.push_str(&self.key);
            }
            At::InValue(Target::Id | Target::Skipped) if is_id(&self.word) => {}
            At::InValue(Target::Id | Target::Kind | Target::Other | Target::Skipped) => {
                self.left_over.extend([&self.key, ": ", &self.word]);
            }
            _ => {}
        }
    }
}
