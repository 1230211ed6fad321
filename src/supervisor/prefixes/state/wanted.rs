//! Which prefixes are wanted at all: those of installed models, of clients that have keys.

use std::collections::HashSet;
use std::sync::Arc;

use super::State;
use crate::generation::ModelId;
use crate::supervisor::prefixes::index::PrefixId;
use crate::supervisor::prefixes::marks::{Marked, Marks};
use crate::supervisor::prefixes::record::{AdapterIdentity, Identity, Record};

/// A text that `model.toml` names. It has its marks from the beginning, so that none are made with the lock that turns
/// wait for.
#[derive(Clone, Debug)]
pub struct Named {
    pub text: Arc<str>,
    pub marks: Arc<Marks>,
}

impl From<&str> for Named {
    fn from(text: &str) -> Self {
        Self {
            text: text.into(),
            marks: Arc::new(Marked::new(text).marks().clone()),
        }
    }
}

/// An installed model.
#[derive(Clone, Debug)]
pub struct Installed {
    pub id: ModelId,
    /// The beginning of what its file is told by.
    pub file: String,
    /// What it names for all keys, of what prompts begin with.
    pub shared: Vec<Named>,
    /// Likewise, and kept whether or not that pays.
    pub pinned: Vec<Named>,
    /// Its adapters, as they are.
    pub adapters: Vec<AdapterIdentity>,
}

impl Installed {
    /// The longest that a prompt begins with.
    pub(super) fn shared_by(&self, prompt: &str) -> Option<Named> {
        let shared = self.shared.iter().chain(&self.pinned);
        let shared = shared.filter(|shared| prompt.starts_with(&*shared.text));
        shared.max_by_key(|shared| shared.text.len()).cloned()
    }

    /// Whether it pins this text, which is evaluated without an adapter: with one it is shared where that pays.
    pub(super) fn pins(&self, of: &Identity, text: &str) -> bool {
        of.adapter.is_none() && self.pinned.iter().any(|pinned| *pinned.text == *text)
    }

    /// Whether a record is of what it pins.
    fn has_pinned(&self, record: &Record) -> bool {
        let is_it = |pinned: &Named| *pinned.marks == record.marks;
        let may_be = record.owner.is_shared && record.of.adapter.is_none();
        may_be && self.id == record.of.model && self.pinned.iter().any(is_it)
    }

    /// Whether a record is of its file, and of what it still names.
    fn has(&self, record: &Record) -> bool {
        let is_named = |named: &Named| *named.marks == record.marks;
        let mut named = self.shared.iter().chain(&self.pinned);
        self.id == record.of.model
            && record.of.file.starts_with(&self.file)
            && (record.of.adapter.as_ref()).is_none_or(|it| self.adapters.contains(it))
            && (!record.owner.is_shared || named.any(is_named))
    }
}

impl State {
    /// From now on these are installed. Returns what goes for it.
    pub fn set_installed(&mut self, models: Vec<Installed>) -> Vec<PrefixId> {
        self.installed = Some(models);
        for model in self.models.values_mut() {
            model.forgive_pinned();
        }
        let going = self.remove_unwanted();
        self.let_pinned_stay();
        going
    }

    pub(super) fn let_pinned_stay(&mut self) {
        let installed = self.installed.as_deref().unwrap_or_default();
        let is_pinned = |record: &Record| installed.iter().any(|model| model.has_pinned(record));
        self.index.let_stay(is_pinned);
    }

    pub(super) fn installed_as(&self, id: &ModelId) -> Option<&Installed> {
        let mut installed = self.installed.iter().flatten();
        installed.find(|model| model.id == *id)
    }

    /// What a model pins, in its order.
    pub fn pinned_by(&self, id: &ModelId) -> Vec<Arc<str>> {
        let installed = self.installed_as(id);
        let pinned = installed.into_iter().flat_map(|model| &model.pinned);
        pinned.map(|pinned| Arc::clone(&pinned.text)).collect()
    }

    /// Whether one of these may be brought into a slot of a worker that was met: a library that ends worker after
    /// worker by it is left alone.
    pub fn may_pin(&self, of: &Identity, text: &str) -> bool {
        let model = self.models.get(&of.key());
        model.is_none_or(|model| model.of != *of || model.may_pin(text))
    }

    /// One was brought into a slot.
    pub fn is_pinned(&mut self, of: &Identity, text: &str) {
        let model = self.models.get_mut(&of.key());
        if let Some(model) = model.filter(|model| model.of == *of) {
            model.is_pinned(text);
        }
    }

    /// A worker was lost with one. Returns whether that is left alone from now on.
    pub fn is_lost_pinning(&mut self, of: &Identity, text: &str) -> bool {
        let model = self.models.get_mut(&of.key());
        if let Some(model) = model.filter(|model| model.of == *of) {
            model.is_lost_at(text);
        }
        !self.may_pin(of, text)
    }

    /// From now on these clients have keys. Returns what goes for it.
    pub fn set_keys(&mut self, keys: HashSet<u64>) -> Vec<PrefixId> {
        self.keys = Some(keys);
        self.remove_unwanted()
    }

    fn remove_unwanted(&mut self) -> Vec<PrefixId> {
        let ids = self.index.ids_where(|_| true);
        let unwanted = ids.into_iter().filter(|&id| {
            let record = self.index.record(id);
            record.is_some_and(|record| !self.is_wanted(record))
        });
        let unwanted: Vec<_> = unwanted.collect();
        for &id in &unwanted {
            self.index.remove(id);
        }
        unwanted
    }

    /// Its model is installed as it was and still names what all may use, and its key is none that was revoked.
    pub(super) fn is_wanted(&self, record: &Record) -> bool {
        let installed = self.installed.as_ref();
        let keys = self.keys.as_ref().filter(|_| record.owner.has_key);
        installed.is_none_or(|models| models.iter().any(|model| model.has(record)))
            && keys.is_none_or(|keys| keys.contains(&record.owner.client))
    }

    /// Takes out what is so. Returns it.
    pub(super) fn remove_where(&mut self, is_it: impl FnMut(&Record) -> bool) -> Vec<PrefixId> {
        let ids = self.index.ids_where(is_it);
        for &id in &ids {
            self.index.remove(id);
        }
        ids
    }
}
