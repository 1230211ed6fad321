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

/// In the order of a model's machines.
const CALLS_AT: [CallsAt; 3] = [
    CallsAt::Anywhere,
    CallsAt::Beginning,
    CallsAt::FirstCharacter,
];

/// The machines of one model.
#[derive(Clone, Debug)]
pub struct ReplyReader {
    /// By whether thoughts are told apart from content, whether calls are, and where these are looked for.
    machines: [[[Arc<Machine>; 3]; 2]; 2],
}

/// What a request wants to be told apart from content.
#[derive(Clone, Debug, Default)]
pub struct ReplyOptions {
    /// Thoughts stay in the content, markers included.
    pub keeps_thoughts: bool,
    /// The functions that may be called; `None`: calls are not looked for.
    pub tools: Option<Arc<ToolTypes>>,
    /// Says where text begins also where no calls are looked for.
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
    /// The same, where a text of the format may begin with white space: a call has none before it.
    FirstCharacter,
}

impl CallsAt {
    /// Whether the answer is kept to a format, so that all of it behind a thought is calls or of that.
    fn is_kept(self) -> bool {
        self != Self::Anywhere
    }
}

impl ReplyReader {
    pub fn new(format: &ReplyFormat) -> Self {
        let machines = |thoughts, calls| {
            CALLS_AT.map(|calls_at| {
                let wanted = Wanted {
                    thoughts,
                    calls,
                    calls_at,
                };
                Arc::new(build(format, wanted))
            })
        };
        let whether = [false, true];
        Self {
            machines: whether.map(|thoughts| whether.map(|calls| machines(thoughts, calls))),
        }
    }

    pub fn parser(&self, options: &ReplyOptions) -> ReplyParser {
        let thoughts = usize::from(!options.keeps_thoughts);
        let calls = usize::from(options.tools.is_some());
        let at = CALLS_AT.iter().position(|of| *of == options.calls_at);
        ReplyParser::new(
            Arc::clone(&self.machines[thoughts][calls][at.unwrap_or(0)]),
            options.tools.clone().unwrap_or_default(),
            options.opened_in,
        )
    }
}
