//! What a method looks like from outside, taken from its types.

use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::Method;
use crate::http::rpc::protocol::ErrorKind;

/// One method, described.
pub(in crate::http::rpc) struct Definition {
    pub name: &'static str,
    pub summary: &'static str,
    pub errors: &'static [ErrorKind],
    /// Names of the parameters by position.
    pub positions: Vec<String>,
    pub params: Vec<Parameter>,
    pub result: Value,
    /// Schemas that the others refer to, by name.
    pub schemas: Vec<(String, Value)>,
}

/// One parameter.
pub(in crate::http::rpc) struct Parameter {
    pub name: String,
    pub description: Option<String>,
    pub required: bool,
    pub schema: Value,
}

impl Definition {
    pub(super) fn of<M: Method>() -> Self {
        let params = parameters(&to_json(&<M::Params as utoipa::PartialSchema>::schema()));
        let mut schemas = Vec::new();
        <M::Params as ToSchema>::schemas(&mut schemas);
        <M::Result as ToSchema>::schemas(&mut schemas);
        Self {
            name: M::NAME,
            summary: M::SUMMARY,
            errors: M::ERRORS,
            positions: params.iter().map(|param| param.name.clone()).collect(),
            params,
            result: to_json(&<M::Result as utoipa::PartialSchema>::schema()),
            schemas: schemas
                .iter()
                .map(|(name, schema)| (name.clone(), to_json(schema)))
                .collect(),
        }
    }
}

fn to_json(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

fn parameters(schema: &Value) -> Vec<Parameter> {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    properties
        .iter()
        .map(|(name, schema)| Parameter {
            name: name.clone(),
            description: schema["description"].as_str().map(str::to_owned),
            required: required.contains(&name.as_str()),
            schema: schema.clone(),
        })
        .collect()
}
