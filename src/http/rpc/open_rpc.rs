//! `rpc.discover`: the OpenRPC document, made from the methods' own definitions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::methods::{Definition, Method, Scope, definitions};
use super::protocol::{ErrorKind, RpcError};

/// Where OpenRPC describes its own documents.
const META_SCHEMA: &str =
    "https://raw.githubusercontent.com/open-rpc/meta-schema/master/schema.json";

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
    type Result = Value;

    async fn call(_: Scope<'_>, _: DiscoverParams) -> Result<Value, RpcError> {
        Ok(DOCUMENT.clone())
    }
}

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let schemas: BTreeMap<&str, &Value> = definitions()
        .iter()
        .flat_map(|definition| &definition.schemas)
        .map(|(name, schema)| (name.as_str(), schema))
        .collect();
    let errors: serde_json::Map<String, Value> = ErrorKind::ALL
        .iter()
        .map(|kind| (kind.name().to_owned(), error(*kind)))
        .collect();
    json!({
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
    })
});

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
        json!({"$ref": META_SCHEMA})
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
