//! What a model's template tells of functions and replies, found when the template is compiled.

use std::collections::HashMap;

use super::told_replies::ToldReplies;
use crate::prompt::{
    ChatMessage, ChatRole, ChatTemplate, Functions, PromptEnd, RenderRequest, SeveralCalls,
    TemplateError, markers_in_words,
};
use crate::reply::analysis::{Conversation, Renderings, analyse};
use crate::reply::{FormatNote, FormatSource, FoundFormat, ReplyFamily, is_markup};

/// Finds how the model replies, and has the template render functions accordingly: a model that is
/// told of functions in words is read in the form that the words say. A draft becomes a template for clients.
pub fn find_format(
    source: &str,
    template: &mut ChatTemplate,
    ids: &HashMap<String, i32>,
    told: &ToldReplies,
) -> Result<FoundFormat, TemplateError> {
    let known = Renderings::default();
    let mut found = analyse(source, &|conversation| {
        known.of(conversation, &|it| written(template, it))
    });
    let traits = found.template;
    template.set_functions(Functions {
        are_shown: traits.shows_tools,
        calls_are_shown: traits.shows_tools && traits.shows_calls,
        results_are_shown: traits.shows_tools && traits.shows_results,
        arguments_as_text: traits.arguments_as_text,
        nine_letter_ids: traits.nine_letter_ids,
        several_calls: match (traits.hides_calls, traits.shows_calls_apart) {
            (false, _) => SeveralCalls::Shown,
            (true, true) => SeveralCalls::ShownApart,
            (true, false) => SeveralCalls::Lost,
        },
    });
    told.tell(&mut found);
    if !traits.shows_tools {
        let worded = ReplyFamily::Generic.format().calls;
        // It may use what it was taught all the same, also where its owner says what that is.
        let own = std::mem::replace(&mut found.format.calls, worded);
        found.format.also_calls = own.filter(|own| found.format.calls.as_ref() != Some(own));
        found.calls_from = FormatSource::Generic;
        if found.format.harmony {
            found.notes.push(FormatNote::WordsUnread);
        }
    }
    if ids.is_empty() && found.has_own_markers() {
        found.notes.push(FormatNote::TokensUnknown);
    }
    // Functions are fitted to clients' conversations alone: what was written before is written now.
    let render = |conversation: &Conversation| known.of(conversation, &|it| written(template, it));
    let reasoning = found.format.reasoning.take();
    found.format.reasoning = reasoning.map(|reasoning| reasoning.with_openings(&render));
    found.format = found.format.with_ids(&|text| ids.get(text).copied());
    let thought = found.format.reasoning.as_ref();
    let thought = thought.map(|thought| [thought.open.text.clone(), thought.close.text.clone()]);
    *template = template.with_markup(source, markup(source, &found, ids), thought)?;
    Ok(found)
}

/// What the model reads as markup though no file calls it special: the markers of its replies, its tokens of
/// that kind that its template speaks of, and what it is told of in words.
fn markup(source: &str, found: &FoundFormat, ids: &HashMap<String, i32>) -> Vec<String> {
    let mut markup = found.format.markup();
    let tokens = ids.keys().filter(|text| is_markup(text));
    markup.extend(
        tokens
            .filter(|text| source.contains(text.as_str()))
            .cloned(),
    );
    let traits = found.template;
    if !(traits.shows_tools && traits.shows_calls && traits.shows_results) {
        markup.extend(markers_in_words().map(str::to_owned));
    }
    markup
}

/// What a template writes of a conversation that shows how it writes.
pub fn written(template: &ChatTemplate, conversation: &Conversation) -> Option<String> {
    let messages = conversation.messages.iter().map(|fields| {
        let mut more = fields.clone();
        let mut text = |name: &str| {
            let value = more.shift_remove(name)?;
            value.as_str().map(str::to_owned)
        };
        let role = match text("role")?.as_str() {
            "system" => ChatRole::System,
            "user" => ChatRole::User,
            "assistant" => ChatRole::Assistant,
            _ => ChatRole::Tool,
        };
        let (content, name) = (text("content")?, text("name"));
        Some(ChatMessage {
            name,
            more,
            ..ChatMessage::new(role, content)
        })
    });
    let request = RenderRequest {
        tools: conversation.tools.clone(),
        variables: conversation.variables.clone(),
        end: match conversation.asks_for_answer {
            true => PromptEnd::Answer,
            false => PromptEnd::Messages,
        },
        ..RenderRequest::new(
            messages.collect::<Option<_>>()?,
            jiff::civil::DateTime::ZERO,
        )
    };
    template.render_as_is(&request).ok()
}
