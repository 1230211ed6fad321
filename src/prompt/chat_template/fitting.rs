//! What is tried of a conversation that a template refuses. What is told of one that nothing helps is why
//! the first try was refused.

use std::borrow::Cow;

use super::{ChatTemplate, Client};
use crate::prompt::calls::Functions;
use crate::prompt::conversation::TemplateMessage;
use crate::prompt::probe::SystemMessage;
use crate::prompt::{ChatRole, RenderRequest, TemplateError, completion, forms};

/// Makes a conversation one that a stricter template takes.
type Form = fn(Vec<TemplateMessage>) -> Vec<TemplateMessage>;

/// Adds what a conversation lacks; `false`: it lacks nothing.
type Completion = fn(&mut Vec<TemplateMessage>, &mut Cow<'_, RenderRequest>, Functions) -> bool;

impl ChatTemplate {
    /// Tries the conversation, then with one thing after the other added that its template may miss.
    /// What is told of a conversation that nothing helps is why the first was refused.
    pub(super) fn write_completed(
        &self,
        mut messages: Vec<TemplateMessage>,
        client: &Client<'_>,
    ) -> Result<String, TemplateError> {
        let mut request = Cow::Borrowed(client.request);
        let refused = match self.write_in_some_form(messages.clone(), client) {
            Err(error @ (TemplateError::Raised(_) | TemplateError::Broken(_)))
                if client.request.arguments_are_text =>
            {
                error
            }
            written => return written,
        };
        let completions: [Completion; 3] = [
            |messages, _, functions| {
                functions.takes_objects() && completion::arguments_in_an_object(messages)
            },
            |_, request, _| completion::empty_descriptions(request),
            |messages, _, _| completion::contents_in_thoughts(messages),
        ];
        for complete in completions {
            if !complete(&mut messages, &mut request, self.functions) {
                continue;
            }
            let client = Client {
                request: &request,
                ..*client
            };
            match self.write_in_some_form(messages.clone(), &client) {
                Err(TemplateError::Raised(_) | TemplateError::Broken(_)) => {}
                written => return written,
            }
        }
        Err(refused)
    }

    /// Tries the conversation as it is, then in the forms that stricter templates take. What is told
    /// of a conversation that no form helps is why the first was refused.
    fn write_in_some_form(
        &self,
        messages: Vec<TemplateMessage>,
        client: &Client<'_>,
    ) -> Result<String, TemplateError> {
        let has_system = messages
            .iter()
            .any(|message| message.role == ChatRole::System);
        let must_fold = has_system && self.system_message == SystemMessage::Missing;
        // A system message that is shown at the start is perhaps not where this one is.
        let fold: &[Form] = match has_system {
            true => &[forms::fold_system],
            false => &[],
        };
        let strict: [Form; 3] = [
            forms::merge_neighbours,
            forms::begin_with_the_user,
            forms::one_call_an_answer,
        ];
        let as_it_is: Option<Form> = (!must_fold).then_some(|messages| messages);
        let forms = as_it_is.into_iter().chain(fold.iter().copied());
        let mut messages = messages;
        let mut refused = None;
        for form in forms.chain(strict) {
            messages = form(messages);
            match self.write(messages.clone(), client) {
                Err(error @ TemplateError::Raised(_)) => drop(refused.get_or_insert(error)),
                written => return written,
            }
        }
        Err(refused.unwrap_or(TemplateError::NotContinuable))
    }
}
