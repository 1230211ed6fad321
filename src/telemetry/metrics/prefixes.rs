//! What is counted of the prefixes of conversations on disk.

use super::Metrics;
use super::labels::{ByModel, ByReason};

impl Metrics {
    /// A prefix was loaded.
    pub fn prefix_loaded(&self, model: &str, bytes: u64) {
        let labels = ByModel::new(model);
        self.0.prefix_loads.get_or_create(&labels).inc();
        let family = &self.0.prefix_loaded_bytes;
        family.get_or_create(&labels).inc_by(bytes);
    }

    /// One that was loaded has spared evaluation.
    pub fn prefix_hit(&self, model: &str) {
        let labels = ByModel::new(model);
        self.0.prefix_hits.get_or_create(&labels).inc();
    }

    /// A prefix was written.
    pub fn prefix_written(&self, model: &str, bytes: u64) {
        let labels = ByModel::new(model);
        self.0.prefix_saves.get_or_create(&labels).inc();
        let family = &self.0.prefix_written_bytes;
        family.get_or_create(&labels).inc_by(bytes);
    }

    /// The library did not do it. `what`: `save` or `load`.
    pub fn prefix_failed(&self, model: &str, what: &'static str) {
        let model = model.to_owned();
        let labels = ByReason {
            model,
            reason: what,
        };
        self.0.prefix_failures.get_or_create(&labels).inc();
    }
}
