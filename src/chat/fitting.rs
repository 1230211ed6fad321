//! Prompts of what does not fit a model's context whole: the oldest turns of a conversation go, or the first of
//! the files beside a gap. What is too much is found by rendering, since only a rendering's tokens tell.

use super::history::{Search, Size, Turns};
use super::{ContextLimit, Engine};
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::prompt::{FillIn, Gap, RenderRequest};
use crate::reader::ReaderError;

/// A prompt of a conversation, or of what of it fits.
#[derive(Clone, Debug)]
pub struct Fitted {
    pub prompt: Prompt,
    /// Messages, or files beside a gap, that are not in it.
    pub dropped: usize,
    /// Tokens of a conversation in tokens that are not in it.
    pub dropped_tokens: usize,
    /// Its tokens were counted; otherwise it is not known whether it fits.
    pub is_counted: bool,
}

impl Fitted {
    /// Nothing was looked for that could go.
    pub fn whole(prompt: Prompt) -> Self {
        Self {
            is_counted: prompt.tokens.is_some(),
            prompt,
            dropped: 0,
            dropped_tokens: 0,
        }
    }
}

/// What is rendered without more and more of its parts.
pub(super) enum Long {
    Conversation {
        request: Box<RenderRequest>,
        /// How many turns go at each step; the first one is none.
        steps: Vec<usize>,
        turns: Turns,
    },
    /// A file beside the gap goes at each step.
    Gap(MarkedGap),
}

/// A gap whose texts hold no control token, and what its model marks it with.
pub(super) struct MarkedGap {
    pub markers: FillIn,
    pub gap: Gap,
    /// What its prompt says of texts that were changed.
    pub changed: Prompt,
}

impl Long {
    pub fn conversation(request: RenderRequest) -> Self {
        Self::Conversation {
            turns: Turns::of(&request.messages),
            request: Box::new(request),
            steps: vec![0],
        }
    }

    /// Bytes of what stays at each step, where a prompt may have so many tokens.
    fn bytes(&mut self, room: usize) -> Vec<usize> {
        match self {
            Self::Conversation {
                request,
                steps,
                turns,
            } => {
                let all = &request.messages;
                *steps = turns.steps(all, room);
                let bytes = |gone: &usize| turns.kept(*gone, all).map(|at| all[at].bytes()).sum();
                steps.iter().map(bytes).collect()
            }
            Self::Gap(MarkedGap { gap, markers, .. }) => (0..=gap.others.len())
                .map(|gone| markers.prompt(gap, gone).len())
                .collect(),
        }
    }

    /// What is gone at this step.
    fn dropped(&self, step: usize) -> usize {
        match self {
            Self::Conversation {
                request,
                steps,
                turns,
            } => {
                let all = &request.messages;
                all.len() - turns.kept(steps[step], all).count()
            }
            Self::Gap(_) => step,
        }
    }

    async fn render(
        &mut self,
        engine: &dyn Engine,
        model: &InstalledModel,
        step: usize,
    ) -> Result<Prompt, ReaderError> {
        match self {
            Self::Conversation { request, .. } if step == 0 => engine.render(model, request).await,
            Self::Conversation {
                request,
                steps,
                turns,
            } => {
                let mut all = std::mem::take(&mut request.messages);
                let sent_at = request.sent_at.clone();
                let kept: Vec<usize> = turns.kept(steps[step], &all).collect();
                let place = |at: &usize| sent_at.get(*at).copied().unwrap_or(*at);
                request.sent_at = kept.iter().map(place).collect();
                request.messages = kept
                    .iter()
                    .map(|at| std::mem::take(&mut all[*at]))
                    .collect();
                let prompt = engine.render(model, request).await?;
                for (at, message) in kept.iter().zip(request.messages.drain(..)) {
                    all[*at] = message;
                }
                request.messages = all;
                request.sent_at = sent_at;
                Ok(prompt)
            }
            Self::Gap(marked) => marked.render(engine, model, step).await,
        }
    }
}

impl MarkedGap {
    /// Without the first `gone` of the other files.
    pub async fn render(
        &self,
        engine: &dyn Engine,
        model: &InstalledModel,
        gone: usize,
    ) -> Result<Prompt, ReaderError> {
        let text = self.markers.prompt(&self.gap, gone);
        // Its markers are control tokens.
        let prompt = text_prompt(engine, model, text).await?;
        Ok(Prompt {
            neutralised: self.changed.neutralised.clone(),
            ..prompt
        })
    }
}

/// The prompt of a text in which control tokens are those tokens.
pub(super) async fn text_prompt(
    engine: &dyn Engine,
    model: &InstalledModel,
    text: String,
) -> Result<Prompt, ReaderError> {
    // There is nothing to be done with it.
    if model.tokenizer_json.is_none() {
        return Ok(Prompt::of_text(text));
    }
    let prompts = engine.plain(model, vec![text], None, true).await?;
    Ok(prompts.into_iter().next().unwrap_or_default())
}

/// The prompt of all of it, or of what fits beside an answer of `room_tokens`; of all of it where nothing that
/// may go would do.
pub(super) async fn fitted(
    engine: &dyn Engine,
    model: &InstalledModel,
    mut long: Long,
    room_tokens: u32,
) -> Result<Fitted, ReaderError> {
    let whole = long.render(engine, model, 0).await?;
    let limit = ContextLimit::of(engine, model);
    let size = limit.size(&whole);
    let Some(size) = size.filter(|size| !limit.holds(*size)) else {
        return Ok(Fitted {
            is_counted: size.is_some(),
            prompt: whole,
            dropped: 0,
            dropped_tokens: 0,
        });
    };
    let room = limit.tokens_beside(room_tokens);
    let bytes = long.bytes(room);
    let mut search = Search::new(room, &bytes, size);
    let last = bytes.len().saturating_sub(1);
    let mut fitted = Fitted {
        prompt: whole,
        dropped: 0,
        dropped_tokens: 0,
        is_counted: true,
    };
    while let Some(step) = search.next() {
        let prompt = long.render(engine, model, step).await?;
        let size = limit.size(&prompt).unwrap_or(Size::Endless);
        search.learn(step, size);
        // The last turn alone may leave less room than is wished.
        let is_tight = step == last && search.found().is_none() && limit.holds(size);
        if is_tight || search.found() == Some(step) {
            fitted.prompt = prompt;
            fitted.dropped = long.dropped(step);
        }
    }
    Ok(fitted)
}
