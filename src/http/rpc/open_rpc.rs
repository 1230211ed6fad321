//! `rpc.discover`: the OpenRPC document, made from the methods' own definitions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::methods::{Definition, Method, Scope, definitions};
use super::protocol::{ErrorKind, RpcError};

/// Errors that any call may give; a method lists its own beside them.
const COMMON: [ErrorKind; 4] = [
    ErrorKind::InvalidRequest,
    ErrorKind::MethodNotFound,
    ErrorKind::InvalidParams,
    ErrorKind::InternalError,
];

pub(crate) struct Discover;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiscoverParams {}

impl Method for Discover {
    const NAME: &'static str = "rpc.discover";
    const SUMMARY: &'static str = "Describes all methods as an OpenRPC document.";
    const ERRORS: &'static [ErrorKind] = &[];
    type Params = DiscoverParams;
    type Result = Document;

    async fn call(scope: Scope<'_>, _: DiscoverParams) -> Result<Document, RpcError> {
        let bytes = DOCUMENT.get().len();
        scope.charge.grow(bytes).map_err(RpcError::of_budget)?;
        Ok(Document(&DOCUMENT))
    }
}

/// The document as it is sent.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub(crate) struct Document(&'static RawValue);

static DOCUMENT: LazyLock<Box<RawValue>> = LazyLock::new(|| {
    let schemas: BTreeMap<&str, &Value> = definitions()
        .iter()
        .flat_map(|definition| &definition.schemas)
        .map(|(name, schema)| (name.as_str(), schema))
        .collect();
    let errors: serde_json::Map<String, Value> = ErrorKind::ALL
        .iter()
        .map(|kind| (kind.name().to_owned(), error(*kind)))
        .collect();
    let document = plain(json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "rkllmd",
            "description": "The functions of rkllm.h, one to one. docs/json-rpc.md tells about \
                transports, handles and limits.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "methods": definitions().iter().map(method).collect::<Vec<_>>(),
        "components": {"schemas": schemas, "errors": errors},
    }));
    to_raw_value(&document).expect("a value of JSON has a text")
});

/// The document in what JSON Schema itself has: OpenAPI's formats of numbers (`int32`, `float`) and its
/// `example` are unknown there, and strict validators refuse what they do not know.
fn plain(document: Value) -> Value {
    match document {
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(members) => {
            let members = members
                .into_iter()
                .filter_map(|(name, value)| match name.as_str() {
                    "format" if value.is_string() => None,
                    "example" => Some(("examples".to_owned(), Value::Array(vec![value]))),
                    _ => Some((name, plain(value))),
                });
            Value::Object(members.collect())
        }
        other => other,
    }
}

fn error(kind: ErrorKind) -> Value {
    json!({
        "code": kind.code(),
        "message": kind.meaning(),
        "data": {"code": kind.name()},
    })
}

fn method(definition: &Definition) -> Value {
    let errors: Vec<Value> = COMMON
        .iter()
        .chain(definition.errors)
        .map(|kind| json!({"$ref": format!("#/components/errors/{}", kind.name())}))
        .collect();
    let params: Vec<Value> = definition
        .params
        .iter()
        .map(|param| {
            let mut described = json!({"name": param.name, "required": param.required});
            if let Some(description) = &param.description {
                described["description"] = json!(description);
            }
            described["schema"] = param.schema.clone();
            described
        })
        .collect();
    let result = if definition.name == Discover::NAME {
        json!({"type": "object", "description": "An OpenRPC document."})
    } else {
        definition.result.clone()
    };
    json!({
        "name": definition.name,
        "summary": definition.summary,
        "paramStructure": "either",
        "params": params,
        "result": {"name": "result", "schema": result},
        "errors": errors,
    })
}
