//! The models that requests have made of installed ones: a file each in the state folder, which a power
//! cut leaves as it was or as it is to be, and what is served of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::apart::{self, Subject};
use crate::durable_write::{LockedFolder, Readers};
use crate::models::{Catalog, Variant, VariantError};
use crate::regular_file;
use crate::settings::Settings;

const FOLDER: &str = "variants";
/// Longest time to write one; a client waits no longer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Largest file that is read.
const MOST_BYTES: u64 = 64 << 20;

/// What is served of models.
#[derive(Debug)]
pub(super) struct Served {
    folder: PathBuf,
    models: RwLock<Models>,
}

#[derive(Debug)]
struct Models {
    installed: Arc<Catalog>,
    variants: Vec<Variant>,
    limit: usize,
    /// Both.
    all: Arc<Catalog>,
}

impl Models {
    fn changed(&mut self) {
        self.all = Arc::new(self.installed.with_variants(self.variants.iter().cloned()));
    }
}

impl Served {
    /// Reads what was made before. To be called before anything is served, so that nothing is held up.
    pub fn open(settings: &Settings, installed: Arc<Catalog>) -> Self {
        let folder = settings.library.state_dir.join(FOLDER);
        let mut models = Models {
            all: Arc::clone(&installed),
            installed,
            variants: read_all(&folder),
            limit: settings.models.max_variants,
        };
        models.changed();
        Self {
            folder,
            models: RwLock::new(models),
        }
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        let models = self.models.read();
        Arc::clone(&models.unwrap_or_else(PoisonError::into_inner).all)
    }

    pub fn installed(&self, catalog: Arc<Catalog>, settings: &Settings) {
        self.change(|models| {
            models.installed = catalog;
            models.limit = settings.models.max_variants;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Models)) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut models);
        models.changed();
    }

    pub async fn save(self: &Arc<Self>, variant: Variant) -> Result<(), VariantError> {
        let name = variant.name.to_string();
        let this = Arc::clone(self);
        self.apart(name, move || this.save_now(variant)).await
    }

    pub async fn remove(self: &Arc<Self>, name: String) -> Result<(), VariantError> {
        let (this, removed) = (Arc::clone(self), name.clone());
        self.apart(name, move || this.remove_now(&removed)).await
    }

    /// One after the other: a subject has one call at a time.
    async fn apart(
        &self,
        name: String,
        call: impl FnOnce() -> Result<(), VariantError> + Send + 'static,
    ) -> Result<(), VariantError> {
        let subject = Subject::File(self.folder.clone());
        let called = apart::ask(subject, WRITE_LIMIT, call).await;
        called.unwrap_or_else(|| {
            let limit = WRITE_LIMIT.as_secs();
            let reason = format!("its folder has not answered within {limit} s");
            Err(VariantError::Folder { name, reason })
        })
    }

    fn save_now(&self, variant: Variant) -> Result<(), VariantError> {
        let (is_new, count, limit) = {
            let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
            let is_new = models.variants.iter().all(|it| it.name != variant.name);
            (is_new, models.variants.len(), models.limit)
        };
        if is_new && count >= limit {
            let name = variant.name.to_string();
            return Err(VariantError::TooMany { name, limit });
        }
        let written = serde_json::to_vec_pretty(&variant)
            .map_err(io::Error::other)
            .and_then(|json| {
                fs::create_dir_all(&self.folder)?;
                let folder = LockedFolder::lock(&self.folder)?;
                folder.replace(&file_name(&variant.name), &json, Readers::OwnerOnly)
            });
        written.map_err(|error| failed(&variant.name, &error))?;
        self.change(|models| {
            models.variants.retain(|it| it.name != variant.name);
            models.variants.push(variant);
            models.variants.sort_by(|a, b| a.name.cmp(&b.name));
        });
        Ok(())
    }

    fn remove_now(&self, name: &str) -> Result<(), VariantError> {
        let removed =
            LockedFolder::lock(&self.folder).and_then(|folder| folder.remove(&file_name(name)));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(name, &error)),
            _ => {
                self.change(|models| models.variants.retain(|it| *it.name != *name));
                Ok(())
            }
        }
    }
}

fn failed(name: &str, error: &io::Error) -> VariantError {
    VariantError::Folder {
        name: name.to_owned(),
        reason: error.to_string(),
    }
}

/// Names may hold what no file's name can.
fn file_name(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let digits: String = digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{digits}.json")
}

/// What cannot be read is told and left where it is.
fn read_all(folder: &Path) -> Vec<Variant> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(folder = %folder.display(), %error, "the models that requests have made cannot be read");
            }
            return Vec::new();
        }
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut variants: Vec<Variant> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .filter_map(|path| match read(&path) {
            Ok(variant) => Some(variant),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a model that a request has made cannot be read");
                None
            }
        })
        .collect();
    variants.sort_by(|a, b| a.name.cmp(&b.name));
    variants
}

fn read(path: &Path) -> io::Result<Variant> {
    let text = regular_file::read_text(path, MOST_BYTES)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{InstalledModel, VariantValues};

    fn variant(name: &str) -> Variant {
        Variant {
            name: name.into(),
            from: "m".into(),
            created: 1,
            system: Some("be kind".to_owned()),
            messages: Vec::new(),
            template: None,
            values: VariantValues {
                stop: vec!["x".to_owned()],
                ..VariantValues::default()
            },
            license: Vec::new(),
        }
    }

    fn settings(folder: &Path) -> Settings {
        let mut settings = Settings::default();
        settings.library.state_dir = folder.to_owned();
        settings.models.max_variants = 2;
        settings
    }

    fn served(settings: &Settings) -> Arc<Served> {
        let installed = Catalog::of_models([InstalledModel {
            id: "m".into(),
            ..InstalledModel::default()
        }]);
        Arc::new(Served::open(settings, Arc::new(installed)))
    }

    fn names(served: &Served) -> Vec<String> {
        let catalog = served.catalog();
        catalog.listed().map(|it| it.name().to_string()).collect()
    }

    #[tokio::test]
    async fn what_was_made_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(folder.path());
        let before = served(&settings);
        for name in ["a/b:c", "Ä", "Ä"] {
            before.save(variant(name)).await.expect("it is made");
        }
        assert_eq!(names(&before), ["m", "a/b:c", "Ä"]);
        let after = served(&settings);
        assert_eq!(names(&after), ["m", "a/b:c", "Ä"]);
        let catalog = after.catalog();
        let found = catalog.find("Ä").and_then(|model| model.variant.clone());
        assert_eq!(found.as_deref(), Some(&variant("Ä")));
        after.remove("Ä".to_owned()).await.expect("it goes");
        after.remove("Ä".to_owned()).await.expect("it has gone");
        assert_eq!(names(&served(&settings)), ["m", "a/b:c"]);
    }

    #[tokio::test]
    async fn there_are_no_more_than_settings_allow() {
        let folder = tempfile::tempdir().expect("a folder");
        let served = served(&settings(folder.path()));
        for name in ["a", "b", "b"] {
            served.save(variant(name)).await.expect("it is made");
        }
        let refused = served.save(variant("c")).await;
        assert!(matches!(
            refused,
            Err(VariantError::TooMany { limit: 2, .. })
        ));
        assert_eq!(names(&served), ["m", "a", "b"]);
    }

    #[tokio::test]
    async fn a_broken_file_costs_one_model_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(folder.path());
        served(&settings)
            .save(variant("a"))
            .await
            .expect("it is made");
        let broken = folder.path().join(FOLDER).join("broken.json");
        fs::write(&broken, "{").expect("a file");
        assert_eq!(names(&served(&settings)), ["m", "a"]);
        assert!(broken.exists());
        // A folder that cannot be written to is told.
        let nowhere = folder.path().join("file");
        fs::write(&nowhere, "").expect("a file");
        let mut settings = settings.clone();
        settings.library.state_dir = nowhere;
        let refused = served(&settings).save(variant("b")).await;
        assert!(
            matches!(refused, Err(VariantError::Folder { .. })),
            "{refused:?}"
        );
    }
}
