//! Names of models as Ollama's clients write them: with a tag or without, in any case.

use std::sync::Arc;

use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::look_up;
use crate::models::{Catalog, InstalledModel};

/// The tag of what has no other.
const LATEST: &str = ":latest";

/// The model of this name, which must be given and open to the caller.
pub(super) fn installed(
    state: &HttpState,
    context: &RequestContext,
    name: Option<&str>,
) -> Result<Arc<InstalledModel>, RequestError> {
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| RequestError::missing("model"))?;
    let catalog = state.engine.catalog();
    let model = match find(&catalog, name) {
        Some(model) => model,
        None => look_up(&catalog, name)?,
    };
    context.caller.check_model(model)?;
    context.for_model(&model.id);
    Ok(Arc::clone(model))
}

/// What is spelled exactly so comes first, with its tag or without.
fn find<'a>(catalog: &'a Catalog, name: &str) -> Option<&'a Arc<InstalledModel>> {
    let exactly = catalog.find(name);
    let exactly = exactly.or_else(|| catalog.find(name.strip_suffix(LATEST)?));
    exactly.or_else(|| {
        let wanted = plain(name);
        catalog.models().iter().find(|model| {
            let aliases = model.facts.aliases.iter().map(String::as_str);
            let mut names = std::iter::once(&*model.id).chain(aliases);
            names.any(|name| plain(name) == wanted)
        })
    })
}

/// What the spellings of a name have in common.
fn plain(name: &str) -> String {
    let lower = name.to_lowercase();
    match lower.strip_suffix(LATEST) {
        Some(plain) => plain.to_owned(),
        None => lower,
    }
}

/// A model's id as Ollama lists it, with a tag.
pub(super) fn listed(id: &str) -> String {
    match id.contains(':') {
        true => id.to_owned(),
        false => format!("{id}{LATEST}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelFacts;

    fn catalog() -> Catalog {
        let model = |id: &str, aliases: &[&str]| InstalledModel {
            id: id.into(),
            path: id.into(),
            facts: ModelFacts {
                aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
                ..ModelFacts::default()
            },
            ..InstalledModel::default()
        };
        Catalog::of_models([
            model("Qwen/Qwen3-0.6B", &["small"]),
            model("small2:4b", &[]),
            model("SMALL", &[]),
        ])
    }

    #[test]
    fn a_name_is_known_with_its_tag_or_without_in_any_case() {
        let catalog = catalog();
        let found = |name| find(&catalog, name).map(|model| model.id.to_string());
        for name in [
            "Qwen/Qwen3-0.6B",
            "qwen/qwen3-0.6b:latest",
            "QWEN/QWEN3-0.6B:LATEST",
            "small:latest",
        ] {
            assert_eq!(found(name).as_deref(), Some("Qwen/Qwen3-0.6B"), "{name}");
        }
        assert_eq!(found("SMALL").as_deref(), Some("SMALL"), "as it is spelled");
        assert_eq!(found("Small2:4B").as_deref(), Some("small2:4b"));
        for name in ["small2", "small2:latest", "small:4b", "", ":latest", "qwen"] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_listed_is_found() {
        let catalog = catalog();
        for model in catalog.models() {
            let listed = listed(&model.id);
            assert!(listed.contains(':'), "{listed}");
            assert_eq!(find(&catalog, &listed).expect("it is there").id, model.id);
        }
    }
}
