use serde_json::Value;

use super::error::RequestError;

/// The runtimes take C strings, in which a NUL would silently end the prompt.
pub(crate) fn refuse_nul(text: &str, param: impl FnOnce() -> String) -> Result<(), RequestError> {
    if text.contains('\0') {
        return Err(RequestError::out_of_range(
            param(),
            "must not contain the NUL character",
        ));
    }
    Ok(())
}

/// Likewise of every text and name in a value.
pub(crate) fn refuse_nul_within(
    value: &Value,
    param: impl Fn() -> String + Copy,
) -> Result<(), RequestError> {
    match value {
        Value::String(text) => refuse_nul(text, param),
        Value::Array(values) => values
            .iter()
            .try_for_each(|value| refuse_nul_within(value, param)),
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            refuse_nul(name, param)?;
            refuse_nul_within(value, param)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
