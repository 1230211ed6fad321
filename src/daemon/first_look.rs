//! The models that are there when the daemon starts.

use std::io;

use anyhow::anyhow;

use crate::models::{Catalog, NoModel, Unread, unlisted};
use crate::printable::printable;
use crate::reader::Readers;
use crate::settings::Settings;
use crate::supervisor::Supervisor;

pub(super) async fn first_look(
    settings: &Settings,
    readers: &Readers,
) -> anyhow::Result<(Catalog, Option<Unread>)> {
    let folder = &settings.models.dir;
    let (catalog, unread) = match Catalog::first_look(readers, settings).await {
        // It hangs: a reload finds what is there once it does not.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            (Catalog::unread(folder, error.to_string()), None)
        }
        looked => looked.map_err(|error| anyhow!(unlisted(folder, &error)))?,
    };
    log_catalog(&catalog);
    if unread.is_some() {
        tracing::warn!("models that take long to be read are read on while others are served");
    } else if catalog.models().is_empty() {
        tracing::warn!(folder = %folder.display(),
            "no model is installed: put one there, or bring one with `rkllmd pull OWNER/NAME`");
    }
    Ok((catalog, unread))
}

pub(super) fn log_catalog(catalog: &Catalog) {
    for problem in catalog.problems() {
        let path = problem.path.display().to_string();
        let (path, problem, serves) = (
            printable(&path),
            printable(&problem.problem),
            problem.serves,
        );
        match serves {
            true => tracing::warn!(%path, %problem, "a model serves without a part of it"),
            false => tracing::warn!(%path, %problem, "model skipped"),
        }
    }
    for model in catalog.models() {
        let path = model.path.display().to_string();
        tracing::info!(model = &*model.id, path = %printable(&path), "model installed");
    }
}

pub(super) fn preload(settings: &Settings, catalog: &Catalog, supervisor: &Supervisor) {
    for name in &settings.models.preload {
        match catalog.look_up(name) {
            Ok(model) => supervisor.preload(model.id.clone()),
            // Once it is read.
            Err(NoModel::Unread) => {}
            Err(NoModel::Unknown) => {
                tracing::error!(model = name, "the model to preload is not installed")
            }
        }
    }
}
