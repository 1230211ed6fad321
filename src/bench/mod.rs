//! `rkllmd bench board-facts`: measures what only a board can tell of the vendor's library, to be sent as one JSON.
//!
//! Everything runs in worker processes with the daemon's own deadlines; this process loads no library. A fact that
//! could not be measured is null, beside the reason, and the others are measured all the same.

mod fact;
mod figures;
mod made;
mod measure;
mod report;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::descriptor_limit;
use crate::generation::ModelId;
use crate::models::Catalog;
use crate::settings::Settings;
use crate::supervisor::Supervisor;
use crate::telemetry::Metrics;

pub use fact::Fact;
use measure::{Bench, MOST_HANDLES};
pub use report::BoardFacts;

/// Workers that do not end by then are ended with this process.
const LAST_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, Error)]
pub enum BenchError {
    #[error("the models folder {} cannot be read: {source}", folder.display())]
    Models { folder: PathBuf, source: io::Error },
    #[error("no model `{name}` is installed in {}", folder.display())]
    NoModel { name: String, folder: PathBuf },
    #[error("`{name}` is `{model}` with an adapter: `{model}` can be measured")]
    Adapted { name: String, model: ModelId },
    #[error("starting to measure: {0}")]
    Start(#[from] io::Error),
}

/// Measures with an installed model, and says on the way what is measured.
///
/// # Errors
///
/// Nothing could be begun. What fails later is a fact without a value.
pub fn board_facts(
    mut settings: Settings,
    model: &str,
    progress: impl Fn(&str),
) -> Result<BoardFacts, BenchError> {
    descriptor_limit::raise();
    // Handles are measured side by side, whatever serves beside each other else.
    settings.models.max_loaded = settings.models.max_loaded.max(MOST_HANDLES);
    let folder = settings.models.dir.clone();
    let catalog = Catalog::scan_apart(&settings, None).map_err(|source| BenchError::Models {
        folder: folder.clone(),
        source,
    })?;
    let Ok(installed) = catalog.look_up(model) else {
        let name = model.to_owned();
        return Err(BenchError::NoModel { name, folder });
    };
    // A handle is of a model as it is.
    if installed.adapted.is_some() {
        let (name, model) = (installed.name().to_string(), ModelId::clone(&installed.id));
        return Err(BenchError::Adapted { name, model });
    }
    let (id, path) = (ModelId::clone(&installed.id), installed.path.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let facts = runtime.block_on(async {
        // Of its own state and conversations a daemon beside it keeps what it has.
        let metrics = Metrics::new();
        let (supervisor, _status) = Supervisor::start_beside(&settings, &catalog, metrics)?;
        let bench = Bench::new(supervisor.clone(), id, &path);
        let facts = report::measure(&bench, &path, &progress).await;
        supervisor.shut_down(LAST_WAIT).await;
        Ok::<_, io::Error>(facts)
    })?;
    runtime.shutdown_background();
    Ok(facts)
}
