//! Parameters, by name or by position, read as the type a method gives them. Both forms mean the same:
//! a position is the place of a parameter in the method's definition.

use serde::de::{DeserializeOwned, DeserializeSeed};
use serde_json::value::RawValue;

use super::error::RpcError;
use super::message::AtMost;
use crate::http::request::json_words;
use crate::http::request::numbers::Numbers;

/// A call's parameters as the client wrote them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Params {
    None,
    /// Text of an object.
    Named(Box<str>),
    /// Text of an array.
    Positional(Box<str>),
}

impl Params {
    /// `None` when they are neither an object nor an array.
    pub fn of(raw: Option<&RawValue>) -> Option<Self> {
        let Some(raw) = raw else {
            return Some(Self::None);
        };
        let text = raw.get();
        match text.as_bytes().first()? {
            b'{' => Some(Self::Named(text.into())),
            b'[' => Some(Self::Positional(text.into())),
            _ => None,
        }
    }

    /// Bytes of their text.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Named(text) | Self::Positional(text) => text.len(),
        }
    }

    /// Reads them as a struct whose fields are the parameters. `names` are their names by position.
    ///
    /// # Errors
    ///
    /// `-32602` that names the parameter.
    pub fn read<T: DeserializeOwned>(&self, names: &[String]) -> Result<T, RpcError> {
        match self {
            Self::None => from_object("{}"),
            Self::Named(text) => from_object(text),
            Self::Positional(text) => from_object(&named(text, names)?),
        }
    }
}

fn from_object<T: DeserializeOwned>(text: &str) -> Result<T, RpcError> {
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(Numbers(&mut json)).map_err(|error| {
        let param = error.path().to_string();
        let error = error.into_inner();
        let reason = json_words::reason(&error);
        if param == "." {
            RpcError::invalid_params(reason)
        } else {
            RpcError::invalid_params(format!("`{param}`: {reason}")).with("param", param)
        }
    })
}

/// An object's text from an array's. A null in a place counts as an absent parameter.
fn named(text: &str, names: &[String]) -> Result<String, RpcError> {
    let values = AtMost(names.len()).deserialize(&mut serde_json::Deserializer::from_str(text));
    let values = values.map_err(|error| RpcError::invalid_params(json_words::sentence(&error)))?;
    let Some(values) = values else {
        return Err(RpcError::invalid_params(format!(
            "more parameters by position than the {} that the method has",
            names.len()
        )));
    };
    let mut object = String::with_capacity(text.len() + 16 * values.len());
    object.push('{');
    for (name, value) in names.iter().zip(&values) {
        if value.get() == "null" {
            continue;
        }
        if object.len() > 1 {
            object.push(',');
        }
        object.push('"');
        object.push_str(name);
        object.push_str("\":");
        object.push_str(value.get());
    }
    object.push('}');
    Ok(object)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        handle: String,
        #[serde(default)]
        keep: Option<i32>,
        #[serde(default)]
        list: Vec<f32>,
    }

    fn names() -> Vec<String> {
        ["handle", "keep", "list"].map(str::to_owned).to_vec()
    }

    fn read(json: &str) -> Result<Example, RpcError> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        Params::of(Some(&raw)).unwrap().read(&names())
    }

    #[test]
    fn absent_parameters_are_an_empty_object() {
        let error = Params::None.read::<Example>(&names()).unwrap_err();
        assert_eq!(error.code(), -32602);
        assert!(format!("{error:?}").contains("handle"));
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        let error = format!(
            "{:?}",
            read(r#"{"handle":"a","list":[1,"x"]}"#).unwrap_err()
        );
        assert!(error.contains("list[1]"), "{error}");
        assert!(!error.contains("at line"), "{error}");
        let error = format!("{:?}", read(r#"["a",1.5]"#).unwrap_err());
        assert!(error.contains("keep"), "{error}");
        let error = format!(
            "{:?}",
            read(r#"{"handle":"a","list":[1,1e39]}"#).unwrap_err()
        );
        assert!(error.contains("list[1]"), "{error}");
        assert_eq!(
            read(r#"{"handle":"a","keep":16.0}"#).unwrap().keep,
            Some(16)
        );
        let error = format!("{:?}", read(r#"{"handle":"\ud800"}"#).unwrap_err());
        assert!(error.contains("surrogate pair"), "{error}");
        let error = format!("{:?}", read(r#"["a",3000000000]"#).unwrap_err());
        assert!(error.contains("from -2147483648 to 2147483647"), "{error}");
        assert!(read(r#"{"handle":"a","other":1}"#).is_err());
        assert!(read(r#"["a",1,[],4]"#).is_err());
    }

    #[test]
    fn other_json_is_no_parameters() {
        for json in ["1", "\"a\"", "null", "true"] {
            let raw = RawValue::from_string(json.to_owned()).unwrap();
            assert_eq!(Params::of(Some(&raw)), None, "{json}");
        }
    }

    proptest! {
        #[test]
        fn names_and_positions_mean_the_same(
            handle in any::<String>(),
            keep in proptest::option::of(any::<i32>()),
            list in proptest::collection::vec(-1e6f32..1e6, 0..4),
        ) {
            let by_position = serde_json::json!([handle, keep, list]).to_string();
            let by_name = serde_json::json!({"handle": handle, "keep": keep, "list": list}).to_string();
            let expected = Example { handle, keep, list };
            prop_assert_eq!(&read(&by_position).unwrap(), &expected);
            prop_assert_eq!(&read(&by_name).unwrap(), &expected);
        }
    }
}
