use std::sync::Arc;

use super::fitting::{self, Fitted, Long, MarkedGap, text_prompt};
use super::goes_on::ConversationTurn;
use super::{ContextLimit, Engine, Reply};
use crate::constraint::{Compiled, Limits, Wanted};
use crate::generation::{GenerationError, GenerationRequest, RunExtensions, RunStart};
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::prompt::{ControlTokenPolicy, FillIn, Gap, RenderRequest};
use crate::reader::ReaderError;
use crate::reply::{CallsAt, ReplyOptions, ReplyPlan, ToolTypes};

/// What a prompt is made of, by a reader.
pub enum PromptSource {
    Conversation(Box<RenderRequest>),
    Text {
        text: String,
        /// `None`: texts of control tokens become those tokens.
        policy: Option<ControlTokenPolicy>,
    },
    /// A text with a gap that is to be filled in.
    FillIn {
        gap: Box<Gap>,
        /// As of a text.
        policy: Option<ControlTokenPolicy>,
    },
    /// The runtime gets these, and no text.
    Tokens {
        tokens: Vec<i32>,
        /// Whether control tokens may be among them.
        may_control: bool,
    },
    /// What comes next in a conversation that is there as tokens.
    GoesOn(Box<ConversationTurn>),
    /// One behind the other, which the runtime gets as tokens.
    Parts {
        parts: Vec<PromptPart>,
        /// As of a text.
        policy: Option<ControlTokenPolicy>,
    },
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptPart {
    Text(String),
    Tokens(Vec<i32>),
}

impl PromptSource {
    /// Whether the runtime gets its tokens, and no text.
    pub fn goes_by_tokens(&self) -> bool {
        matches!(
            self,
            Self::Tokens { .. } | Self::Parts { .. } | Self::GoesOn(_)
        )
    }
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
    pub fn plan(
        &self,
        model: &InstalledModel,
        prompt: &Prompt,
        calls_at: CallsAt,
    ) -> Option<ReplyPlan> {
        let reply = model.reply.as_ref()?;
        let (before, begun) = prompt.around_begun_answer();
        let options = ReplyOptions {
            keeps_thoughts: self.keeps_thoughts,
            tools: self.tools.clone(),
            calls_at,
            opened_in: reply.found.format.opened_by(before, begun),
        };
        reply.plan(&options, self.one_call, self.thought_tokens)
    }
}

/// Renders and submits. Cheap to clone.
#[derive(Clone)]
pub struct ChatService {
    pub(super) engine: Arc<dyn Engine>,
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
            PromptSource::Text { text, policy: None } => {
                text_prompt(&*self.engine, model, text).await
            }
            PromptSource::FillIn { gap, policy } => {
                let marked = self.marked(model, *gap, policy).await?;
                marked.render(&*self.engine, model, 0).await
            }
            PromptSource::Tokens {
                tokens,
                may_control,
            } => self.of_tokens(model, tokens, may_control).await,
            PromptSource::Parts { parts, policy } => self.of_parts(model, parts, policy).await,
            PromptSource::GoesOn(turn) => self.goes_on(model, *turn).await,
            PromptSource::Text { text, policy } => {
                let prompts = self.engine.plain(model, vec![text], policy, true).await?;
                Ok(prompts.into_iter().next().unwrap_or_default())
            }
        }
    }

    /// The same, of what of it fits beside an answer of `room_tokens`: the oldest turns of a conversation go, and
    /// the first ones of the files beside a gap; nothing where none that may go would do.
    pub async fn render_fitting(
        &self,
        model: &InstalledModel,
        source: PromptSource,
        room_tokens: u32,
    ) -> Result<Fitted, ReaderError> {
        let long = match source {
            PromptSource::Conversation(request) => Long::conversation(*request),
            PromptSource::FillIn { gap, policy } => {
                Long::Gap(self.marked(model, *gap, policy).await?)
            }
            PromptSource::GoesOn(turn) => {
                return self.goes_on_fitting(model, *turn, room_tokens).await;
            }
            other => return self.render(model, other).await.map(Fitted::whole),
        };
        fitting::fitted(&*self.engine, model, long, room_tokens).await
    }

    /// A gap as the model knows it.
    async fn marked(
        &self,
        model: &InstalledModel,
        gap: Gap,
        policy: Option<ControlTokenPolicy>,
    ) -> Result<MarkedGap, ReaderError> {
        let cannot = || ReaderError::NoFillIn {
            model: model.id.to_string(),
        };
        let readers = self.engine.readers().ok_or_else(cannot)?;
        let vocabulary = readers.vocabulary(model).await?;
        let markers = FillIn::find(|text| vocabulary.has(text.as_bytes())).ok_or_else(cannot)?;
        let mut changed = Prompt::default();
        let gap = match policy {
            None => gap,
            policy => {
                let texts = gap.into_texts();
                let plain = self.engine.plain(model, texts, policy, false).await?;
                let texts = plain.into_iter().map(|part| {
                    changed.neutralised.extend(part.neutralised);
                    part.text
                });
                Gap::of_texts(texts)
            }
        };
        Ok(MarkedGap {
            markers,
            gap,
            changed,
        })
    }

    pub(super) async fn of_tokens(
        &self,
        model: &InstalledModel,
        tokens: Vec<i32>,
        may_control: bool,
    ) -> Result<Prompt, ReaderError> {
        let ids = tokens.iter().map(|&id| id.cast_unsigned()).collect();
        let text = self.engine.decode(model, ids).await?;
        if !may_control {
            let policy = Some(ControlTokenPolicy::Reject);
            let texts = vec![text.clone()];
            self.engine.plain(model, texts, policy, false).await?;
        }
        Ok(Prompt {
            text,
            tokens: Some(tokens),
            ..Prompt::default()
        })
    }

    pub(super) async fn of_parts(
        &self,
        model: &InstalledModel,
        parts: Vec<PromptPart>,
        policy: Option<ControlTokenPolicy>,
    ) -> Result<Prompt, ReaderError> {
        let texts = parts.iter().filter_map(|part| match part {
            PromptPart::Text(text) => Some(text.clone()),
            PromptPart::Tokens(_) => None,
        });
        let texts = Vec::from_iter(texts);
        let has_text = !texts.is_empty();
        if has_text && model.tokenizer_json.is_none() {
            return Err(ReaderError::NoTokenizer {
                model: model.id.to_string(),
            });
        }
        let mut plain = match has_text {
            true => self.engine.plain(model, texts, policy, true).await?,
            false => Vec::new(),
        }
        .into_iter();
        let mut tokens = Vec::new();
        let mut neutralised = Vec::new();
        for part in parts {
            match part {
                PromptPart::Tokens(part) => tokens.extend(part),
                PromptPart::Text(_) => {
                    let part = plain.next().unwrap_or_default();
                    let Some(of_text) = part.tokens else {
                        // It has more bytes than any prompt that fits.
                        return Ok(Prompt::of_text(part.text));
                    };
                    tokens.extend(of_text);
                    neutralised.extend(part.neutralised);
                }
            }
        }
        let prompt = self.of_tokens(model, tokens, policy.is_none()).await?;
        Ok(Prompt {
            neutralised,
            ..prompt
        })
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

    /// Whether it may be kept to a grammar without being asked to: what has no hook takes the model's tokens,
    /// and what has not been loaded yet may have one.
    pub fn may_constrain(&self, model: &InstalledModel) -> bool {
        let status = self.engine.status().model(&model.id);
        let facts = status.and_then(|status| status.facts);
        let has_no_hook =
            facts.is_some_and(|facts| facts.run_extensions == Some(RunExtensions::None));
        model.tokenizer_json.is_some() || !has_no_hook
    }

    /// Submits a request, if its prompt fits the model's context. Dropping its reply cancels it.
    pub fn chat(&self, request: GenerationRequest) -> Result<Reply, GenerationError> {
        if let Some(model) = self.engine.catalog().find(&request.model) {
            ContextLimit::of(&*self.engine, model).check(&request)?;
        }
        let status = self.engine.status().model(&request.model);
        let facts = status.and_then(|status| status.facts);
        request.check_runtime(facts.map(|facts| facts.abilities()).unwrap_or_default())?;
        self.engine.submit(request).map(Reply::new)
    }

    /// What can be told of a run before it has started.
    pub fn expected_start(&self, request: &GenerationRequest) -> RunStart {
        let status = self.engine.status().model(&request.model);
        let is_loaded = (status.as_ref()).is_some_and(|status| status.phase.is_loaded());
        let facts = status.and_then(|status| status.facts).unwrap_or_default();
        let not_applied = request.not_applied(facts.abilities());
        // The worker that will be there may be of another library.
        let fingerprint = is_loaded.then(|| {
            facts.fingerprint(
                request.repeats(&not_applied),
                request.adapter.as_ref().map(|adapter| &*adapter.stamp),
            )
        });
        RunStart {
            not_applied,
            fingerprint: fingerprint.flatten(),
            reads_logits: request.reads_logits(facts.abilities()),
            has_loaded_penalties: request.has_loaded_penalties(facts.abilities()),
        }
    }
}
