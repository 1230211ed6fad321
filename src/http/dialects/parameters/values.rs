//! Values of parameters: their ranges, what asks for nothing, and how the API's description shows them.

use std::borrow::Cow;

use serde_json::Value;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::settings::ChatSettings;

pub(crate) fn token_budget(
    param: &'static str,
    value: Option<i64>,
) -> Result<Option<u32>, RequestError> {
    match value {
        None => Ok(None),
        Some(value) if value < -1 => Err(RequestError::out_of_range(
            param,
            "must be a number of tokens, or -1 for as many as the context leaves",
        )),
        // -1, or more than any context holds: as many as the context leaves.
        Some(value) => Ok(Some(u32::try_from(value).unwrap_or(u32::MAX))),
    }
}

/// Checks how many prompts a request has.
pub(crate) fn within_count(limits: &ChatSettings, count: usize) -> Result<(), RequestError> {
    let most = limits.max_prompts;
    match count <= most {
        true => Ok(()),
        false => Err(RequestError::out_of_range(
            "prompt",
            format!("has {count} prompts; `max-prompts` in the [chat] settings allows {most}"),
        )),
    }
}

/// Texts that end an answer, of the field `param`; empty ones end none.
pub(crate) fn stop_texts(
    param: &'static str,
    stops: &[String],
    limits: &ChatSettings,
) -> Result<Vec<String>, RequestError> {
    let (most, longest) = (limits.max_stops, limits.stop_limit_bytes);
    if stops.len() > most {
        return Err(RequestError::out_of_range(
            param,
            format!(
                "has {} strings; `max-stops` in the [chat] settings allows {most}",
                stops.len()
            ),
        ));
    }
    if let Some(stop) = stops.iter().find(|stop| stop.len() > longest) {
        return Err(RequestError::out_of_range(
            param,
            format!(
                "holds a string of {} bytes; `stop-limit-bytes` in the [chat] settings allows \
                 {longest}",
                stop.len()
            ),
        ));
    }
    let stops = stops.iter().filter(|stop| !stop.is_empty());
    Ok(stops.cloned().collect())
}

/// `value` where it lies between the two, which belong to the range.
pub(super) fn within(
    param: &'static str,
    value: Option<f64>,
    (low, high): (f64, f64),
) -> Result<Option<f32>, RequestError> {
    match value {
        None => Ok(None),
        Some(value) if low <= value && value <= high => Ok(Some(value as f32)),
        Some(_) => Err(RequestError::out_of_range(
            param,
            format!("must be from {low} to {high}"),
        )),
    }
}

/// Refuses a parameter unless it is null or has a value that asks for nothing.
pub(crate) fn neutral(
    param: &'static str,
    value: &Option<Outline>,
    is_neutral: impl FnOnce(&Value) -> bool,
    allowed: &'static str,
) -> Result<(), RequestError> {
    match value {
        None => Ok(()),
        Some(value) if is_neutral(&value.0) => Ok(()),
        Some(_) => Err(RequestError::unsupported(
            param,
            Cow::from(format!("{allowed} or null is accepted")),
        )),
    }
}

/// `[]`, `{}` or `""`.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

pub(crate) fn is_false(value: &Value) -> bool {
    *value == Value::Bool(false)
}

pub(super) fn stop_schema() -> Schema {
    string_or_strings("Text that ends the answer and is not part of it: one or several.")
}

fn string_or_strings(description: &str) -> Schema {
    let string = || ObjectBuilder::new().schema_type(Type::String);
    OneOfBuilder::new()
        .item(string())
        .item(ArrayBuilder::new().items(string()))
        .description(Some(description))
        .into()
}
