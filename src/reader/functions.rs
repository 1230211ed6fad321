//! What a model's template tells of functions and replies, found when the template is compiled.

use std::collections::HashMap;

use super::told_replies::ToldReplies;
use crate::prompt::{ChatMessage, ChatRole, ChatTemplate, Functions, PromptEnd, RenderRequest};
use crate::reply::analysis::{Conversation, analyse};
use crate::reply::{FormatNote, FormatSource, FoundFormat, ReplyFamily};

/// Finds how the model replies, and has the template render functions accordingly: a model that is
/// told of functions in words is read in the form that the words say.
pub fn find_format(
    source: &str,
    template: &mut ChatTemplate,
    ids: &HashMap<String, i32>,
    told: &ToldReplies,
) -> FoundFormat {
    let mut found = analyse(source, &|conversation| written(template, conversation));
    let traits = found.template;
    template.set_functions(Functions {
        are_shown: traits.shows_tools,
        calls_are_shown: traits.shows_tools && traits.shows_calls,
        results_are_shown: traits.shows_tools && traits.shows_results,
        arguments_as_text: traits.arguments_as_text,
        nine_letter_ids: traits.nine_letter_ids,
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
    found.format = found.format.with_ids(&|text| ids.get(text).copied());
    found
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
