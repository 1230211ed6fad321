//! What `/openapi.json` says of items that have several forms.

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, Schema, Type};

const KINDS: [&str; 6] = [
    "InputMessage",
    "InputCall",
    "InputResult",
    "InputReasoning",
    "InputReference",
    "InputCompaction",
];

pub(super) fn message_content() -> Schema {
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ArrayBuilder::new().items(Ref::from_schema_name("InputPart")))
        .description(Some(
            "A string or parts. Parts of kinds that are not known are left out and named in \
             `x-rkllmd-not-applied`; images, files and sounds are refused.",
        ))
        .into()
}

pub(in crate::http::dialects::responses) fn input_schema() -> Schema {
    let kinds = KINDS.iter().fold(OneOfBuilder::new(), |kinds, name| {
        kinds.item(Ref::from_schema_name(*name))
    });
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ArrayBuilder::new().items(kinds))
        .description(Some(
            "A user's message, or items: `message`, `function_call`, `function_call_output`, `reasoning`, \
             `compaction`, and `item_reference`, which stands for the item of its `id` in a response that is kept. Items \
             of kinds that are not known are left out and named in `x-rkllmd-not-applied`. A last message of the \
             assistant is continued. What goes on from a response may have none.",
        ))
        .into()
}
