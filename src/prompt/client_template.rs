//! A template that came with a request, in the place of the model's own. What a conversation says never becomes a
//! control token in it; what the template itself writes becomes one only where its owner may write such.

use serde::{Deserialize, Serialize};

use super::conversation::{client_texts, fields_with_tokens, texts_of};
use super::environment::RenderLimits;
use super::go_template::{
    Budget, GoField, GoTemplate, RunError, TurnTexts, Value, Written, of_conversation, of_turn,
};
use super::{
    ChatMessage, ChatRole, ClientField, ControlTokenPolicy, ControlTokens, PromptEnd,
    RenderRequest, Rendered, TemplateError, seal,
};

/// What is told of control tokens in it.
const TEMPLATE: &str = "template";
const SUFFIX: &str = "suffix";
/// A question that is only asked to see where the turn before it ends.
const NEXT: &str = "next";
/// What texts that a template makes may take together, in the longest prompts.
const BUILT_FACTOR: usize = 8;

/// A template in Go's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTemplate {
    pub source: String,
    /// What is behind a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Whether control tokens that it writes are such.
    pub may_control: bool,
}

impl ClientTemplate {
    /// The prompt of a conversation: of all of it at once where the template knows messages, else turn by turn, what
    /// the system says, a question, its answer.
    ///
    /// # Errors
    ///
    /// It has no place for something in the conversation, does what cannot be done or too much of it, or a control
    /// token is refused.
    pub fn render(
        &self,
        request: &RenderRequest,
        tokens: &ControlTokens,
        limits: RenderLimits,
    ) -> Result<Rendered, TemplateError> {
        let template = GoTemplate::parse(&self.source);
        let template = template.map_err(|error| TemplateError::Broken(error.to_string()))?;
        // What is around a gap is no conversation.
        let is_whole = template.knows_messages() && self.suffix.is_none();
        has_place_for(request, is_whole.then_some(&template))?;
        if request.control_tokens == ControlTokenPolicy::Reject {
            self.reject(request, tokens)?;
        }
        let suffix = self.suffix.as_deref().unwrap_or_default();
        let texts = client_texts(request).into_iter().map(str::len);
        let said = texts.sum::<usize>() + suffix.len();
        let limit = limits.output_bytes.saturating_add(said.saturating_mul(4));
        let mut run = Run {
            template: &template,
            request,
            tokens,
            budget: Budget {
                steps: limits.steps,
                bytes: limit.saturating_mul(BUILT_FACTOR),
            },
            limit,
        };
        let written = match is_whole {
            true => run.conversation()?,
            false => run.turns(suffix)?,
        };
        if written.text.is_empty() {
            let reason = "the template writes nothing of it".to_owned();
            return Err(TemplateError::Unfit(reason));
        }
        let own = match self.may_control {
            true => written.own.as_slice(),
            false => &[],
        };
        let mut rendered = seal::seal_own(&written.text, own, tokens);
        if rendered.neutralised > 0 {
            let in_texts = fields_with_tokens(request, tokens);
            let in_suffix = tokens.find(suffix).is_some();
            let in_template = !self.may_control && tokens.find(&self.source).is_some();
            // What a template puts together of several texts counts as theirs.
            let is_none = !in_suffix
                && client_texts(request)
                    .iter()
                    .all(|it| tokens.find(it).is_none());
            let fields = &mut rendered.neutralised_in;
            fields.extend(in_template.then_some(ClientField::Template));
            match (is_none, in_suffix) {
                (true, _) => fields.extend((!in_template).then_some(ClientField::Texts)),
                (false, true) => fields.push(ClientField::Texts),
                (false, false) => fields.extend(in_texts),
            }
        }
        Ok(rendered)
    }

    fn reject(&self, request: &RenderRequest, tokens: &ControlTokens) -> Result<(), TemplateError> {
        for (index, message) in request.messages.iter().enumerate() {
            let in_content = tokens.find(&message.content);
            let mut others = texts_of(message).into_iter();
            let found = in_content.or_else(|| others.find_map(|text| tokens.find(text)));
            if let Some(token) = found {
                return Err(TemplateError::ControlToken {
                    index: request.sent_at.get(index).copied().unwrap_or(index),
                    is_in_content: in_content.is_some(),
                    token: token.to_owned(),
                });
            }
        }
        let source = Some(self.source.as_str()).filter(|_| !self.may_control);
        let fields = [(TEMPLATE, source), (SUFFIX, self.suffix.as_deref())];
        for (field, text) in fields {
            if let Some(token) = tokens.find(text.unwrap_or_default()) {
                return Err(TemplateError::ControlTokenIn {
                    field: field.to_owned(),
                    token: token.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Refuses what would be left out. `whole`: the template, if it is given all of the conversation.
fn has_place_for(request: &RenderRequest, whole: Option<&GoTemplate>) -> Result<(), TemplateError> {
    let is_some = |value: &Option<serde_json::Value>| {
        let value = value.as_ref();
        value.is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()))
    };
    let has_tools = whole.is_some_and(GoTemplate::takes_functions);
    let writes_calls = whole.is_some_and(|template| template.writes(GoField::ToolCalls));
    let any = |is_such: fn(&ChatMessage) -> bool| request.messages.iter().any(is_such);
    let has_calls = any(|message| message.more.contains_key("tool_calls"));
    let has_results = any(|message| message.role == ChatRole::Tool);
    let what = match () {
        () if is_some(&request.tools) && !has_tools => "functions",
        () if is_some(&request.documents) => "documents",
        () if has_calls && !writes_calls => "calls and their results",
        () if has_results && whole.is_none() => "calls and their results",
        () => return Ok(()),
    };
    let reason = format!("the template has no place for {what}");
    Err(TemplateError::Unfit(reason))
}

/// One rendering, and what is left of what it may take.
struct Run<'r> {
    template: &'r GoTemplate,
    request: &'r RenderRequest,
    tokens: &'r ControlTokens,
    budget: Budget,
    limit: usize,
}

impl Run<'_> {
    fn write(
        &mut self,
        root: Value,
        ends_with_answer: bool,
        to: &mut Written,
    ) -> Result<(), TemplateError> {
        let today = self.request.now.date();
        let budget = &mut self.budget;
        let written = self
            .template
            .write(root, ends_with_answer, today, budget, to);
        written.map_err(|error| match error {
            RunError::Failed(error) => TemplateError::Unfit(error.to_string()),
            RunError::TooMuch => TemplateError::TooMuch,
        })
    }

    fn turns(&mut self, suffix: &str) -> Result<Written, TemplateError> {
        let mut written = Written::within(self.limit);
        let turns = turns(self.request);
        let last = turns.len().saturating_sub(1);
        for (nth, mut turn) in turns.into_iter().enumerate() {
            let is_last = nth == last;
            if is_last {
                turn.suffix.push_str(suffix);
            }
            let is_open = is_last && self.request.end != PromptEnd::Messages;
            self.write(of_turn(&turn, self.request), is_open, &mut written)?;
        }
        Ok(written)
    }

    fn conversation(&mut self) -> Result<Written, TemplateError> {
        let mut written = Written::within(self.limit);
        self.write(of_conversation(self.request), false, &mut written)?;
        match self.request.end {
            PromptEnd::Answer => {}
            // What stands behind an answer would end it.
            PromptEnd::Continuation => match written.last_said {
                Some(end) => written.truncate(end),
                None => return Err(TemplateError::NotContinuable),
            },
            PromptEnd::Messages => {
                let end = self.end_of_turn(&written)?;
                written.truncate(end);
            }
        }
        Ok(written)
    }

    /// Where a conversation is alike whether an answer or a question is next: what is behind belongs to that.
    fn end_of_turn(&mut self, written: &Written) -> Result<usize, TemplateError> {
        let mut longer = self.request.clone();
        longer.messages.push(ChatMessage::new(ChatRole::User, NEXT));
        let mut asked = Written::within(self.limit.saturating_add(NEXT.len()));
        self.write(of_conversation(&longer), false, &mut asked)?;
        let both = written.text.char_indices().zip(asked.text.chars());
        let alike = both.take_while(|((_, one), other)| one == other);
        let mut end = alike.last().map_or(0, |((at, c), _)| at + c.len_utf8());
        // None of two control tokens that begin alike is cut.
        let texts = [written.text.as_str(), asked.text.as_str()];
        let found = texts.iter().flat_map(|text| self.tokens.occurrences(text));
        let mut found: Vec<_> = found.collect();
        // One that ends later is not cut by what an earlier one moves.
        found.sort_unstable_by_key(|found| std::cmp::Reverse(found.end));
        for found in found {
            if found.start < end && end < found.end {
                end = found.start;
            }
        }
        match written.last_said {
            Some(said) if said <= end => Ok(end),
            _ => {
                let reason = "it does not show where a turn of a conversation ends".to_owned();
                Err(TemplateError::Unfit(reason))
            }
        }
    }
}

/// Neighbours of one role are one text.
fn turns(request: &RenderRequest) -> Vec<TurnTexts> {
    #[derive(Default)]
    struct Texts([Option<String>; 3]);

    let mut turns = vec![Texts::default()];
    let mut before = None;
    for message in &request.messages {
        let place = match message.role {
            ChatRole::System => 0,
            ChatRole::User => 1,
            ChatRole::Assistant | ChatRole::Tool => 2,
        };
        let said = turns.last().map_or(&[][..], |turn| &turn.0[..]);
        let is_behind = said.iter().skip(place).any(Option::is_some);
        if is_behind && before != Some(place) {
            turns.push(Texts::default());
        }
        if let Some(turn) = turns.last_mut() {
            match &mut turn.0[place] {
                Some(text) => {
                    text.push_str("\n\n");
                    text.push_str(&message.content);
                }
                none => *none = Some(message.content.clone()),
            }
        }
        before = Some(place);
    }
    let turns = turns.into_iter().map(|Texts(texts)| {
        let [system, prompt, response] = texts.map(Option::unwrap_or_default);
        TurnTexts {
            system,
            prompt,
            response,
            suffix: String::new(),
        }
    });
    turns.collect()
}

#[cfg(test)]
mod tests;
