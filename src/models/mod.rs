//! What is installed on disk, and where each fact came from, as readers reported it.
//!
//! Nothing here opens a file: readers do, so that whatever stands in the models folder neither holds
//! the daemon up nor harms it. No model is loaded and no worker asked, so `rkllmd models` works while
//! no daemon runs. A broken entry is a problem in words.

mod adapted;
mod catalog;
mod installed_model;
mod listing;
mod scan;
mod slots;
mod unlisted;
mod variant;

pub use crate::ipc::{PinnedPrompt, SharedPrefixes, TemplateState};
pub use crate::reader::{
    ADAPTERS, AdapterFacts, EmbeddingDefaults, ModelFacts, ModelKind, TemplateSource,
};
pub use adapted::Adapted;
pub use catalog::{Catalog, LATEST, ModelProblem, NoModel};
pub use installed_model::{InstalledModel, longest_text_bytes};
pub use listing::{Listing, readable_size};
pub use scan::{SCANS_AT_ONCE, Unread};
pub use slots::{SlotLimits, SlotPlan};
pub use unlisted::unlisted;
pub use variant::{Variant, VariantError, VariantValues};
