//! A format as a machine: states, what text means in each, and the markers that lead from one to
//! another. Built once for each model; answers share it.

use super::format::{JsonKeys, Marker};

pub(super) type StateId = usize;

/// The states that every machine has.
pub(super) const START: StateId = 0;
pub(super) const CONTENT: StateId = 1;
/// Behind a thought, before any content.
pub(super) const AFTER_THOUGHT: StateId = 2;
/// Behind a call, before any further content.
pub(super) const AFTER_CALL: StateId = 3;
/// Right behind what opened a thought.
pub(super) const THOUGHT_START: StateId = 4;
pub(super) const THOUGHT: StateId = 5;
pub(super) const FIXED_STATES: usize = 6;

/// What text is in a state.
#[derive(Clone, Debug)]
pub(super) enum Sink {
    Content,
    Thought,
    /// White space between things; anything else belongs to `next`.
    Gap {
        next: StateId,
        /// White space is dropped for certain; else it is content if content follows.
        is_dropped: bool,
        /// Brackets and commas that are left over from a call are dropped too.
        drops_brackets: bool,
        /// Where an opening brace or bracket leads.
        json: Option<StateId>,
    },
    /// Before a text that is begun by its first character, also where that is white space.
    Opening {
        /// Where an opening brace or bracket leads.
        json: Option<StateId>,
    },
    /// A part of the markup that says nothing.
    Skipped,
    Name {
        /// Where an opening brace or bracket as the first character leads.
        json: Option<StateId>,
        /// Where an opening brace behind the name leads.
        arguments: Option<StateId>,
        /// It is the call's id, which has the name inside: `functions.NAME:0`.
        is_id: bool,
    },
    Id,
    JsonCalls {
        keys: JsonKeys,
        is_bare: bool,
        /// Where what is no JSON leads.
        other: StateId,
    },
    /// A JSON value, handed on as it is.
    JsonArguments {
        done: StateId,
    },
    /// All text up to a marker, which need not be JSON.
    MessageArguments,
    Key,
    Value,
    KeyValues {
        done: StateId,
    },
    QuotedText,
    Python {
        json: StateId,
    },
    Header,
}

/// What a marker does beside leading elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    OpenThought,
    CloseThought,
    /// A closer of a thought where none is open.
    StrayCloser,
    BeginContent,
    BeginCall,
    EndCall,
    /// The last closer of a call that has ended before it.
    LateCloser,
    /// Ends the call before it, if there is one.
    NextCall,
    /// What was read is no part of the name that follows.
    BeginName,
    /// The name is whole, the call is not told yet.
    TakeName,
    /// The name is whole; arguments follow.
    EndName,
    EndId,
    BeginKey,
    EndKey,
    EndValue,
    EndParameters,
    BeginKeyValues,
    Quote,
    BeginHeader,
    /// A header begins with whom the message is for.
    Recipient,
    /// Separates the words of a header.
    HeaderWord,
    EndMessage,
    OpenMessage,
}

/// Where a marker is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    Always,
    /// Only as a token that the runtime does not print.
    Silent,
    /// Only as a token.
    Token,
    /// Only if there was no thought.
    NoThoughtYet,
    /// Only if there was a thought, or as a token that the runtime does not print.
    BehindThought,
    /// As a token, or if a call ended without its closer.
    CallUnclosed,
}

#[derive(Clone, Debug)]
pub(super) struct Edge {
    /// White space and text.
    pub whole: String,
    pub lead_len: usize,
    pub id: Option<i32>,
    pub guard: Guard,
    pub action: Action,
    pub to: StateId,
}

impl Edge {
    pub fn text(&self) -> &str {
        &self.whole[self.lead_len..]
    }

    pub fn lead(&self) -> &str {
        &self.whole[..self.lead_len]
    }
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub sink: Sink,
    pub edges: Vec<Edge>,
    /// First bytes of the edges' texts and leads.
    pub starts: Bytes,
}

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bytes([u64; 4]);

impl Bytes {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub states: Vec<State>,
    /// Texts of tokens that are printed although the runtime does not.
    pub printed: Vec<(i32, String)>,
    /// Where a message's body goes in harmony.
    pub bodies: Option<Bodies>,
    /// Thoughts are told apart; else their text is content.
    pub tells_thoughts: bool,
    /// The end of a thought is looked for, also where its text is content.
    pub finds_thoughts: bool,
    pub tells_calls: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bodies {
    pub thought: StateId,
    pub content: StateId,
    pub arguments: StateId,
}

impl Machine {
    pub fn new() -> Self {
        let gap = |is_dropped| Sink::Gap {
            next: CONTENT,
            is_dropped,
            drops_brackets: false,
            json: None,
        };
        let mut machine = Self {
            states: Vec::new(),
            printed: Vec::new(),
            bodies: None,
            tells_thoughts: true,
            finds_thoughts: true,
            tells_calls: true,
        };
        for sink in [
            gap(false),
            Sink::Content,
            gap(true),
            gap(true),
            Sink::Gap {
                next: THOUGHT,
                is_dropped: true,
                drops_brackets: false,
                json: None,
            },
            Sink::Thought,
        ] {
            machine.add(sink);
        }
        debug_assert_eq!(machine.states.len(), FIXED_STATES);
        machine
    }

    pub fn add(&mut self, sink: Sink) -> StateId {
        self.states.push(State {
            sink,
            edges: Vec::new(),
            starts: Bytes::default(),
        });
        self.states.len() - 1
    }

    pub fn on(&mut self, from: StateId, marker: &Marker, action: Action, to: StateId) {
        self.guarded(from, marker, Guard::Always, action, to);
    }

    pub fn guarded(
        &mut self,
        from: StateId,
        marker: &Marker,
        guard: Guard,
        action: Action,
        to: StateId,
    ) {
        if marker.text.is_empty() && marker.id.is_none() {
            return;
        }
        let state = &mut self.states[from];
        let is_known = |edge: &Edge| edge.text() == marker.text && edge.guard == guard;
        if state.edges.iter().any(is_known) {
            return;
        }
        let whole = format!("{}{}", marker.lead, marker.text);
        let starts = marker.text.bytes().take(1);
        for start in marker.lead.bytes().chain(starts) {
            state.starts.insert(start);
        }
        state.edges.push(Edge {
            lead_len: marker.lead.len(),
            whole,
            id: marker.id,
            guard,
            action,
            to,
        });
    }

    /// The edge of `from` that this token is.
    pub fn edge_of_id(
        &self,
        from: StateId,
        id: i32,
        is_silent: bool,
        had_thought: bool,
    ) -> Option<usize> {
        self.states[from].edges.iter().position(|edge| {
            edge.id == Some(id)
                && match edge.guard {
                    Guard::Always | Guard::Token | Guard::CallUnclosed => true,
                    Guard::Silent => is_silent,
                    Guard::NoThoughtYet => is_silent || !had_thought,
                    Guard::BehindThought => is_silent || had_thought,
                }
        })
    }
}
