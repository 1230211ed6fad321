//! A model with one of its adapters: a model of its own for clients, with the same files and worker.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{InstalledModel, ModelProblem};
use crate::generation::{Adapter, ModelId};
use crate::reader::AdapterFacts;

/// Which adapter a model is made with.
#[derive(Clone, Debug, Default)]
pub struct Adapted {
    /// `model:adapter`.
    pub name: ModelId,
    pub facts: AdapterFacts,
    /// For its runs.
    pub adapter: Arc<Adapter>,
}

/// What these models are with each of their adapters. A name that a model has is no other's.
pub(super) fn adapted(
    models: &[Arc<InstalledModel>],
    problems: &mut Vec<ModelProblem>,
) -> Vec<Arc<InstalledModel>> {
    let mut taken: BTreeSet<String> = models
        .iter()
        .flat_map(|model| model.names())
        .map(str::to_lowercase)
        .collect();
    let mut made = Vec::new();
    for model in models {
        for facts in &model.facts.adapters {
            let name = named(&model.id, &facts.name);
            if !taken.insert(name.to_lowercase()) {
                problems.push(ModelProblem {
                    path: model.path.clone(),
                    problem: format!("its adapter has no id: `{name}` is another model's"),
                    serves: true,
                });
                continue;
            }
            let aliases = model.facts.aliases.iter();
            let aliases = aliases.map(|alias| named(alias, &facts.name));
            let aliases = aliases.filter(|alias| taken.insert(alias.to_lowercase()));
            made.push(Arc::new(with(model, facts, &name, aliases.collect())));
        }
    }
    made
}

fn named(model: &str, adapter: &str) -> String {
    format!("{model}:{adapter}")
}

fn with(
    model: &InstalledModel,
    facts: &AdapterFacts,
    name: &str,
    aliases: Vec<String>,
) -> InstalledModel {
    let mut model = InstalledModel::clone(model);
    model.facts.aliases = aliases;
    model.facts.adapters = Vec::new();
    model.adapted = Some(Arc::new(Adapted {
        name: name.into(),
        facts: facts.clone(),
        adapter: Arc::new(Adapter {
            name: facts.name.as_str().into(),
            stamp: facts.stamp(),
        }),
    }));
    model
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Catalog, ModelFacts, NoModel, Variant, VariantValues};

    fn model(id: &str, aliases: &[&str], adapters: &[&str]) -> InstalledModel {
        let adapters = adapters.iter().map(|name| AdapterFacts {
            name: (*name).to_owned(),
            file: format!("{name}.gguf"),
            scale: 1.0,
            ..AdapterFacts::default()
        });
        InstalledModel {
            id: id.into(),
            path: id.into(),
            facts: ModelFacts {
                aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
                adapters: adapters.collect(),
                ..ModelFacts::default()
            },
            ..InstalledModel::default()
        }
    }

    fn found(catalog: &Catalog, name: &str) -> Result<(String, Option<String>), NoModel> {
        let model = catalog.look_up(name)?;
        let adapter = model.adapter().map(|adapter| adapter.name.to_string());
        Ok((model.id.to_string(), adapter))
    }

    #[test]
    fn an_id_with_an_adapter_is_found_however_it_is_spelled() {
        let catalog = Catalog::of_models([
            model("Qwen/Qwen3-0.6B", &["small"], &["Tone", "json"]),
            model("small2:4b", &[], &["tone"]),
        ]);
        let with = |id: &str, adapter: &str| Ok((id.to_owned(), Some(adapter.to_owned())));
        for (name, id, adapter) in [
            ("Qwen/Qwen3-0.6B:Tone", "Qwen/Qwen3-0.6B", "Tone"),
            ("qwen/qwen3-0.6b:tone", "Qwen/Qwen3-0.6B", "Tone"),
            ("Qwen/Qwen3-0.6B:Tone:latest", "Qwen/Qwen3-0.6B", "Tone"),
            ("small:json", "Qwen/Qwen3-0.6B", "json"),
            ("SMALL:JSON:latest", "Qwen/Qwen3-0.6B", "json"),
            ("small2:4b:tone", "small2:4b", "tone"),
        ] {
            assert_eq!(found(&catalog, name), with(id, adapter), "{name}");
        }
        for (name, id) in [
            ("small:latest", "Qwen/Qwen3-0.6B"),
            ("small2:4b:latest", "small2:4b"),
        ] {
            assert_eq!(found(&catalog, name), Ok((id.to_owned(), None)), "{name}");
        }
        for name in [
            "small:other",
            "small2:tone",
            "small:json:tone",
            "tone",
            ":tone",
        ] {
            assert_eq!(found(&catalog, name), Err(NoModel::Unknown), "{name}");
        }
        let listed: Vec<&str> = catalog.listed().map(|model| &**model.name()).collect();
        let ids = ["Qwen/Qwen3-0.6B", "small2:4b"];
        let with = [
            "Qwen/Qwen3-0.6B:Tone",
            "Qwen/Qwen3-0.6B:json",
            "small2:4b:tone",
        ];
        assert_eq!(listed, [ids.as_slice(), with.as_slice()].concat());
        assert_eq!(catalog.models().len(), 2, "one worker each");
    }

    #[test]
    fn an_adapter_takes_no_name_that_a_model_has() {
        let catalog = Catalog::of_models([
            model("a", &["c"], &["x", "y"]),
            model("A:X", &[], &[]),
            model("b", &["c:y"], &[]),
        ]);
        assert_eq!(found(&catalog, "a:x"), Ok(("A:X".to_owned(), None)));
        assert_eq!(found(&catalog, "c:y"), Ok(("b".to_owned(), None)));
        assert_eq!(
            found(&catalog, "a:y"),
            Ok(("a".to_owned(), Some("y".to_owned())))
        );
        let problems = catalog.problems();
        assert!(
            problems
                .iter()
                .any(|it| it.problem.contains("`a:x`") && it.serves)
        );
    }

    #[test]
    fn a_variant_of_a_model_with_an_adapter_keeps_it() {
        let catalog = Catalog::of_models([model("a", &[], &["x"])]).with_variants([Variant {
            name: "mine".into(),
            from: "a:x".into(),
            created: 0,
            system: None,
            messages: Vec::new(),
            template: None,
            values: VariantValues::default(),
            license: Vec::new(),
        }]);
        let mine = catalog.look_up("mine").expect("it is there");
        assert_eq!((&**mine.name(), &*mine.id), ("mine", "a"));
        assert_eq!(mine.adapter().map(|adapter| &*adapter.name), Some("x"));
    }
}
