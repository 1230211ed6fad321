//! Conversations that a client keeps as tokens. What comes next is rendered in a longer conversation, and of that only
//! what stands behind the turn before: so a turn is closed as its template closes one, and nothing of its beginning is
//! there twice.

use std::collections::HashSet;

use super::cut_tokens::Cut;
use super::{ChatService, ContextLimit, Fitted, PromptPart};
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::prompt::{
    ChatMessage, ChatRole, ClientField, ControlTokenPolicy, PromptEnd, RenderRequest, TemplateError,
};
use crate::reader::{Encoding, ReaderError};

/// The field that a client gives the tokens in.
const CONTEXT: &str = "context";
const QUESTION: &str = "question";
/// Questions of which no two begin alike.
const OTHERS: [&str; 2] = ["a", "0"];
/// Of a prompt's room, tokens of so large a part go together.
const STEPS: usize = 4;
/// What is looked for in a rendering is this and so many digits.
const MARK: &str = "answer";
const DIGITS: usize = 9;

/// What comes next in a conversation.
#[derive(Clone, Debug)]
pub struct ConversationTurn {
    /// The conversation so far, closed turns all of it; empty: this is its beginning.
    pub before: Vec<i32>,
    /// Whether control tokens may be among them.
    pub may_control: bool,
    /// How many of its first tokens stay where some go; `None`: it is not said.
    pub kept_tokens: Option<usize>,
    /// What a system says is in its beginning, and in no later turn.
    pub request: RenderRequest,
}

/// What a turn's text is, and where control tokens in it were made plain text.
#[derive(Clone)]
struct Behind {
    text: String,
    neutralised: Vec<ClientField>,
}

impl ConversationTurn {
    /// What its texts and tokens take.
    pub fn bytes(&self) -> usize {
        let texts = self.request.messages.iter().map(|it| it.content.len());
        let template = self.request.template.as_ref();
        let template = template.map_or(0, |template| template.source.len());
        texts.sum::<usize>() + template + size_of_val(self.before.as_slice())
    }
}

impl ChatService {
    pub(super) async fn goes_on(
        &self,
        model: &InstalledModel,
        turn: ConversationTurn,
    ) -> Result<Prompt, ReaderError> {
        self.check_before(model, &turn).await?;
        let behind = self.behind(model, &turn.request).await?;
        self.joined(model, turn.before, behind).await
    }

    /// The same, of what of it fits beside an answer of `room_tokens`: its oldest turns go.
    pub(super) async fn goes_on_fitting(
        &self,
        model: &InstalledModel,
        turn: ConversationTurn,
        room_tokens: u32,
    ) -> Result<Fitted, ReaderError> {
        self.check_before(model, &turn).await?;
        let behind = self.behind(model, &turn.request).await?;
        let whole = self.joined(model, turn.before.clone(), behind.clone());
        let whole = whole.await?;
        let limit = ContextLimit::of(&*self.engine, model);
        let all = whole.tokens.as_ref().map(Vec::len);
        let (Some(all), Some(size)) = (all, limit.size(&whole)) else {
            return Ok(Fitted::whole(whole));
        };
        if limit.holds(size) {
            return Ok(Fitted::whole(whole));
        }
        let room = limit.tokens_beside(room_tokens);
        let opening = self.opening(model, &turn.request, &behind.text).await?;
        let added = all.saturating_sub(turn.before.len());
        let cut = Cut::of(
            &turn.before,
            &opening,
            room.saturating_sub(added),
            room / STEPS,
            turn.kept_tokens,
        );
        let kept = cut.apply(&turn.before);
        let prompt = self.joined(model, kept, behind).await?;
        let fits = limit.size(&prompt).is_some_and(|size| limit.holds(size));
        Ok(match fits {
            true => Fitted {
                dropped: cut.messages,
                dropped_tokens: cut.tokens(),
                ..Fitted::whole(prompt)
            },
            // Nothing that may go would do.
            false => Fitted::whole(whole),
        })
    }

    async fn check_before(
        &self,
        model: &InstalledModel,
        turn: &ConversationTurn,
    ) -> Result<(), ReaderError> {
        if turn.may_control {
            return Ok(());
        }
        let checked = self.of_tokens(model, turn.before.clone(), false).await;
        checked.map_err(|error| match error {
            ReaderError::ControlToken { token, .. } => {
                let field = CONTEXT.to_owned();
                ReaderError::Template(TemplateError::ControlTokenIn { field, token })
            }
            other => other,
        })?;
        Ok(())
    }

    async fn joined(
        &self,
        model: &InstalledModel,
        before: Vec<i32>,
        behind: Behind,
    ) -> Result<Prompt, ReaderError> {
        let parts = vec![PromptPart::Tokens(before), PromptPart::Text(behind.text)];
        // The template has written its own control tokens, and no other is left.
        let prompt = self.of_parts(model, parts, None).await?;
        Ok(Prompt {
            neutralised: behind.neutralised,
            ..prompt
        })
    }

    /// The tokens that a turn begins with whatever is said in it; none where it begins with what is said. `text`: the
    /// turn of this request.
    async fn opening(
        &self,
        model: &InstalledModel,
        request: &RenderRequest,
        text: &str,
    ) -> Result<Vec<i32>, ReaderError> {
        let mut other = request.clone();
        let said = other.messages.iter_mut();
        for message in said.filter(|message| message.role == ChatRole::User) {
            let is_alike = message.content.trim_start().starts_with(OTHERS[0]);
            message.content = OTHERS[usize::from(is_alike)].to_owned();
        }
        let other = self.behind(model, &other).await?.text;
        let one = self.tokens_of(model, text.to_owned()).await?;
        let other = self.tokens_of(model, other).await?;
        let alike = one.into_iter().zip(other);
        let alike = alike.take_while(|(one, other)| one == other);
        Ok(alike.map(|(id, _)| id).collect())
    }

    async fn tokens_of(
        &self,
        model: &InstalledModel,
        text: String,
    ) -> Result<Vec<i32>, ReaderError> {
        let encoded = self.engine.encode(model, text, Encoding::default()).await?;
        let ids = encoded.tokens.into_iter();
        Ok(ids.filter_map(|id| id.try_into().ok()).collect())
    }

    /// The tokens of the conversation with an answer to what came last.
    ///
    /// # Errors
    ///
    /// The model has no tokenizer, or its template does not show where a turn ends.
    pub async fn with_answer(
        &self,
        model: &InstalledModel,
        turn: ConversationTurn,
        answer: String,
    ) -> Result<Vec<i32>, ReaderError> {
        let mut request = turn.request;
        let answer = ChatMessage::new(ChatRole::Assistant, answer);
        request.insert(request.messages.len(), vec![answer]);
        request.end = PromptEnd::Messages;
        // What the model says is no client's to be blamed for.
        request.control_tokens = ControlTokenPolicy::Neutralise;
        let text = match turn.before.is_empty() {
            true => self.engine.render(model, &request).await?.text,
            false => self.behind(model, &request).await?.text,
        };
        let ids = self.tokens_of(model, text).await?;
        Ok(turn.before.into_iter().chain(ids).collect())
    }

    /// What a request's last turn adds to a conversation.
    async fn behind(
        &self,
        model: &InstalledModel,
        request: &RenderRequest,
    ) -> Result<Behind, ReaderError> {
        let mark = mark(request);
        let mut before = RenderRequest {
            messages: vec![
                ChatMessage::new(ChatRole::User, QUESTION),
                ChatMessage::new(ChatRole::Assistant, mark.as_str()),
            ],
            sent_at: Vec::new(),
            end: PromptEnd::Messages,
            ..request.clone()
        };
        if let Some(template) = &mut before.template {
            template.suffix = None;
        }
        let closed = self.engine.render(model, &before).await?;
        let mut whole = request.clone();
        let is_said = |message: &ChatMessage| message.role != ChatRole::System;
        whole.sent_at = (0..request.messages.len())
            .filter(|at| is_said(&request.messages[*at]))
            .map(|at| request.sent_at.get(at).copied().unwrap_or(at))
            .collect();
        whole.messages.retain(is_said);
        whole.insert(0, before.messages);
        let whole = self.engine.render(model, &whole).await?;
        let closing = closed.text.split_once(&mark);
        let text = whole.text.split_once(&mark);
        let text = closing
            .zip(text)
            .and_then(|((_, closing), (_, behind))| behind.strip_prefix(closing));
        let text = text.filter(|text| !text.is_empty()).ok_or_else(|| {
            let reason = "it does not show where a turn of a conversation ends".to_owned();
            ReaderError::Template(TemplateError::Unfit(reason))
        })?;
        Ok(Behind {
            text: text.to_owned(),
            neutralised: whole.neutralised,
        })
    }
}

/// An answer that nothing in a request holds.
fn mark(request: &RenderRequest) -> String {
    let template = request.template.as_ref();
    let template = template.map(|template| template.source.as_str());
    let texts = request.messages.iter().map(|it| it.content.as_str());
    let taken: HashSet<&str> = texts
        .chain(template)
        .flat_map(|text| {
            let found = text.match_indices(MARK);
            found.filter_map(|(at, _)| text[at + MARK.len()..].get(..DIGITS))
        })
        .collect();
    let mut numbers = 0_u64..;
    let free = numbers.find_map(|number| {
        let digits = format!("{number:0DIGITS$}");
        (!taken.contains(digits.as_str())).then_some(digits)
    });
    format!("{MARK}{}", free.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_in_no_text() {
        let now = jiff::civil::DateTime::ZERO;
        let asked = |text: &str| {
            let message = ChatMessage::new(ChatRole::User, text);
            mark(&RenderRequest::new(vec![message], now))
        };
        assert_eq!(asked("an answer"), "answer000000000");
        let taken = "answer000000000answer0000000010 answer00000000";
        assert_eq!(asked(taken), "answer000000002");
        // Also where most of a large text could be one.
        assert!(asked(&format!("answer{}", "0".repeat(5_000_000))).ends_with('1'));
    }
}
