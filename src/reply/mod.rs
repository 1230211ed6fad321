//! What a model says becomes the events of a reply: thoughts, content and calls, told apart by the
//! markers of the model's own format.
//!
//! A pure library: no HTTP, no task, no file. What was told is never taken back; markup never reaches
//! content; text that is no markup is never lost; no answer is an error. A format is data
//! ([`ReplyFormat`]), which a [`ReplyReader`] turns into a machine once for each model.
//!
//! A marker whose token is known is known by its id, so the same characters in ordinary tokens are
//! text. A marker that is known only by its text is one wherever a model writes that text, also if it
//! only repeats what it was told.

pub mod analysis;
mod bounds;
mod build;
mod call;
mod families;
mod format;
mod found;
mod harmony;
mod json_calls;
mod json_value;
mod json_writer;
mod key_values;
mod machine;
mod markup;
mod model_reply;
mod openers;
mod parameters;
mod parser;
mod python;
mod response_template;
mod token;
mod tool_types;

use std::sync::Arc;

pub use bounds::Unreasonable;
pub use families::ReplyFamily;
pub use format::{
    Around, CallBody, Calls, IdPlace, JsonKeys, Marker, NameThenJson, OpenedIn, Parameters,
    Reasoning, ReplyFormat,
};
pub use found::{FormatNote, FormatSource, FoundFormat, TemplateTraits};
pub use markup::is_markup;
pub use model_reply::{ModelReply, ReplyPlan, ThoughtBudget};
pub use parser::ReplyParser;
pub use response_template::ResponseTemplate;
pub use token::ReplyToken;
pub use tool_types::ToolTypes;

use build::{Wanted, build};
use machine::Machine;

/// In the order of a model's machines; `None`: calls are not looked for.
const CALLS: [Option<CallsAt>; 3] = [None, Some(CallsAt::Anywhere), Some(CallsAt::Beginning)];

/// The machines of one model.
#[derive(Clone, Debug)]
pub struct ReplyReader {
    /// By whether thoughts, and which calls are told apart from content.
    machines: [[Arc<Machine>; 3]; 2],
}

/// What a request wants to be told apart from content.
#[derive(Clone, Debug, Default)]
pub struct ReplyOptions {
    /// Thoughts stay in the content, markers included.
    pub keeps_thoughts: bool,
    /// The functions that may be called; `None`: calls are not looked for.
    pub tools: Option<Arc<ToolTypes>>,
    pub calls_at: CallsAt,
    pub opened_in: OpenedIn,
}

/// Where calls are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallsAt {
    #[default]
    Anywhere,
    /// Before any text of the answer, and behind other calls: the text of an answer that is kept to a format has
    /// none, whatever it spells.
    Beginning,
}

impl ReplyReader {
    pub fn new(format: &ReplyFormat) -> Self {
        let machine = |thoughts, calls| Arc::new(build(format, Wanted { thoughts, calls }));
        Self {
            machines: [false, true].map(|thoughts| CALLS.map(|calls| machine(thoughts, calls))),
        }
    }

    pub fn parser(&self, options: &ReplyOptions) -> ReplyParser {
        let thoughts = usize::from(!options.keeps_thoughts);
        let calls = options.tools.as_ref().map(|_| options.calls_at);
        let calls = CALLS.iter().position(|of| *of == calls).unwrap_or(0);
        ReplyParser::new(
            Arc::clone(&self.machines[thoughts][calls]),
            options.tools.clone().unwrap_or_default(),
            options.opened_in,
        )
    }
}
