use std::sync::Arc;

use super::{ContextLimit, Engine, Reply};
use crate::constraint::{Compiled, Limits, Wanted};
use crate::generation::{GenerationError, GenerationRequest, RunStart};
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::prompt::{ControlTokenPolicy, RenderRequest};
use crate::reader::ReaderError;
use crate::reply::{ReplyOptions, ReplyPlan, ToolTypes};

/// What a prompt is made of, by a reader.
pub enum PromptSource {
    Conversation(Box<RenderRequest>),
    Text {
        text: String,
        /// `None`: texts of control tokens become those tokens.
        policy: Option<ControlTokenPolicy>,
    },
}

/// What a request wants to be told apart from content in its reply.
#[derive(Clone, Debug)]
pub struct ReplyReading {
    /// The functions that may be called; `None`: calls are not looked for.
    pub tools: Option<Arc<ToolTypes>>,
    pub keeps_thoughts: bool,
    /// The most tokens of thoughts; `None`: as many as the model likes.
    pub thought_tokens: Option<u32>,
    /// The answer ends with its first call.
    pub one_call: bool,
}

impl ReplyReading {
    /// How the reply to `prompt` is read.
    pub fn plan(&self, model: &InstalledModel, prompt: &Prompt) -> Option<ReplyPlan> {
        let reply = model.reply.as_ref()?;
        let (before, begun) = prompt.around_begun_answer();
        let options = ReplyOptions {
            keeps_thoughts: self.keeps_thoughts,
            tools: self.tools.clone(),
            opened_in: reply.found.format.opened_by(before, begun),
        };
        reply.plan(&options, self.one_call, self.thought_tokens)
    }
}

/// Renders and submits. Cheap to clone.
#[derive(Clone)]
pub struct ChatService {
    engine: Arc<dyn Engine>,
}

impl ChatService {
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    /// The text that the runtime gets.
    pub async fn render(
        &self,
        model: &InstalledModel,
        source: PromptSource,
    ) -> Result<Prompt, ReaderError> {
        match source {
            PromptSource::Conversation(request) => self.engine.render(model, &request).await,
            // There is nothing to be done with it.
            PromptSource::Text { text, policy: None } if model.tokenizer_json.is_none() => {
                Ok(Prompt {
                    text,
                    ..Prompt::default()
                })
            }
            PromptSource::Text { text, policy } => {
                let prompts = self.engine.plain(model, vec![text], policy, true).await?;
                Ok(prompts.into_iter().next().unwrap_or_default())
            }
        }
    }

    /// The grammar of what an answer is to be.
    pub async fn constrain(
        &self,
        model: &InstalledModel,
        wanted: Wanted,
        limits: Limits,
    ) -> Result<Compiled, ReaderError> {
        self.engine.constrain(model, wanted, limits).await
    }

    /// Submits a request, if its prompt fits the model's context. Dropping its reply cancels it.
    pub fn chat(&self, request: GenerationRequest) -> Result<Reply, GenerationError> {
        if let Some(model) = self.engine.catalog().find(&request.model) {
            ContextLimit::of(&*self.engine, model).check(&request)?;
        }
        let status = self.engine.status().model(&request.model);
        let facts = status.and_then(|status| status.facts);
        request.check_constraint(facts.map(|facts| facts.abilities()).unwrap_or_default())?;
        self.engine.submit(request).map(Reply::new)
    }

    /// What can be told of a run before it has started.
    pub fn expected_start(&self, request: &GenerationRequest) -> RunStart {
        let status = self.engine.status().model(&request.model);
        let facts = status.and_then(|status| status.facts);
        let runtime = facts.map(|facts| facts.abilities()).unwrap_or_default();
        RunStart {
            not_applied: request.not_applied(runtime),
        }
    }
}
