//! Names of models as Ollama's clients know them: with a tag.

use crate::models::LATEST;

/// A model's id as Ollama lists it.
pub(super) fn listed(id: &str) -> String {
    match id.contains(':') {
        true => id.to_owned(),
        false => format!("{id}{LATEST}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Catalog, InstalledModel};

    #[test]
    fn what_is_listed_is_found() {
        let model = |id: &str| InstalledModel {
            id: id.into(),
            path: id.into(),
            ..InstalledModel::default()
        };
        let catalog = Catalog::of_models(["Qwen/Qwen3-0.6B", "small2:4b", "SMALL"].map(model));
        for model in catalog.models() {
            let listed = listed(&model.id);
            assert!(listed.contains(':'), "{listed}");
            assert_eq!(catalog.look_up(&listed).expect("it is there").id, model.id);
        }
    }
}
