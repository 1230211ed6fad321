//! The item of a stream that is being written.

use super::output::{COMPLETED, IN_PROGRESS, INCOMPLETE, OutputItem};
use crate::http::dialects::logprobs::ContentLogprob;

/// An item on its way.
pub(super) struct Open {
    pub kind: Kind,
    pub id: String,
    /// As far as it came.
    pub text: String,
    /// From `event:` to the value of a delta.
    pub before: Box<[u8]>,
}

pub(super) enum Kind {
    Message {
        logprobs: Vec<ContentLogprob>,
    },
    Reasoning,
    Call {
        index: u32,
        call_id: String,
        name: String,
        /// The model has come to its end.
        is_whole: bool,
    },
}

impl Kind {
    /// What its id begins with.
    pub fn prefix(&self) -> &'static str {
        match self {
            Self::Message { .. } => "msg",
            Self::Reasoning => "rs",
            Self::Call { .. } => "fc",
        }
    }

    pub fn delta(&self) -> &'static str {
        match self {
            Self::Message { .. } => "response.output_text.delta",
            Self::Reasoning => "response.reasoning_text.delta",
            Self::Call { .. } => "response.function_call_arguments.delta",
        }
    }

    /// How the item ends where its reply does, or goes on, with this status. A call that the model has left is not whole,
    /// however its reply ends.
    pub fn ended(&self, status: &'static str) -> &'static str {
        match self {
            Self::Call { is_whole: true, .. } => COMPLETED,
            Self::Call { .. } => INCOMPLETE,
            Self::Message { .. } | Self::Reasoning => status,
        }
    }

    /// The model has come to the end of a call.
    pub fn makes_whole(&mut self) {
        if let Self::Call { is_whole, .. } = self {
            *is_whole = true;
        }
    }

    /// The item at its beginning.
    pub fn item(&self, id: String) -> OutputItem {
        match self {
            Self::Message { .. } => OutputItem::message(id, IN_PROGRESS, Vec::new()),
            Self::Reasoning => OutputItem::reasoning(id, IN_PROGRESS, None, None),
            Self::Call { call_id, name, .. } => OutputItem::FunctionCall {
                id,
                status: IN_PROGRESS,
                call_id: call_id.clone(),
                name: name.clone(),
                arguments: String::new(),
            },
        }
    }
}
