//! Decides for a turn what is written and what is read: the one owner of what is known of prefixes. It
//! looks at no disk and no clock; what it orders is carried out by `swap`.

mod of_model;
mod orders;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::daily::Daily;
use super::index::{Index, PrefixId};
use super::marks::Marked;
use super::policy::{self, DiskRates, Known, Saving, tokens_of};
use super::record::{Identity, Owner, Record};
use crate::generation::ModelId;
use of_model::OfModel;
pub use orders::{Held, LoadOrder, Now, Plan, SaveOrder, record_of};

/// Files are about as large as those before: by no more than this part larger.
const HEADROOM: u64 = 16;

/// What is kept to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub files_bytes: u64,
    pub daily_bytes: u64,
    pub least_tokens: u32,
}

#[derive(Debug)]
pub struct State {
    bounds: Bounds,
    index: Index,
    next_id: PrefixId,
    models: HashMap<ModelId, OfModel>,
    disk: DiskRates,
    daily: Daily,
    /// The models that are installed, with the beginning of what their files are told by; `None`: not told.
    installed: Option<Vec<(ModelId, String)>>,
    /// The clients that have keys, likewise.
    keys: Option<HashSet<u64>>,
    /// Until when nothing is written, because the disk had no room or failed.
    resting_until: Option<Instant>,
}

impl State {
    pub fn new(bounds: Bounds, records: Vec<(PrefixId, Record)>, daily: Daily) -> Self {
        let mut index = Index::default();
        for (id, record) in records {
            index.insert(id, record, None);
        }
        Self {
            bounds,
            next_id: index.next_id(),
            index,
            models: HashMap::new(),
            disk: DiskRates::default(),
            daily,
            installed: None,
            keys: None,
            resting_until: None,
        }
    }

    pub fn files(&self) -> usize {
        self.index.files()
    }

    pub fn bytes(&self) -> u64 {
        self.index.bytes()
    }

    pub fn daily(&self) -> &Daily {
        &self.daily
    }

    /// What a turn needs whose prompt a slot is given that holds something else. `can_load`: the worker
    /// counts prompts also after a load.
    pub fn plan(
        &mut self,
        now: Now<'_>,
        held: Option<Held<'_>>,
        (prompt, owner): (&str, &Owner),
        can_load: bool,
    ) -> Plan {
        let mut plan = Plan {
            stale: self.meet(now.of),
            ..Plan::default()
        };
        let Some(model) = self.models.get_mut(&now.of.model) else {
            return plan;
        };
        if model.is_off() {
            return plan;
        }
        let mut kept = 0;
        if let Some(held) = &held
            && held.owner.tenant == owner.tenant
        {
            kept = shared_bytes(held.text, prompt);
        }
        // Whose slot has all of it, or who is the only one, asks for nothing else.
        let is_held = held.as_ref().is_some_and(|held| held.text.len() == kept);
        let marked =
            (!is_held && (model.has_lost() || self.index.files() > 0)).then(|| Marked::new(prompt));
        if let Some(prompt) = &marked {
            model.look_for_returned(prompt, &owner.tenant);
        }
        if let Some(held) = held
            && tokens_of(held.text.len() - kept) >= self.bounds.least_tokens
        {
            plan.save = self.order_save(now, &held);
            if let Some(model) = self.models.get_mut(&now.of.model) {
                model.is_lost(&held, now.at);
            }
        }
        if can_load && let Some(prompt) = &marked {
            plan.load = self.order_load(now, prompt, owner, kept);
        }
        plan
    }

    /// A save behind an answer, where slots lose what is worth keeping.
    pub fn after_answer(&mut self, now: Now<'_>, held: &Held<'_>) -> Option<SaveOrder> {
        let model = self.models.get(&now.of.model)?;
        (model.is_crowded(now.at) && model.of == *now.of && !model.is_off())
            .then(|| self.order_save(now, held))
            .flatten()
    }

    fn order_save(&mut self, now: Now<'_>, held: &Held<'_>) -> Option<SaveOrder> {
        let tokens = tokens_of(held.text.len());
        let rests = self.resting_until.is_some_and(|until| now.at < until);
        if tokens < self.bounds.least_tokens || rests {
            return None;
        }
        let text = Marked::new(held.text);
        let stored = self.index.find(now.of, &held.owner.tenant, &text);
        let new_bytes = held.text.len() - stored.map_or(0, |stored| stored.shared);
        let known = self.known(now)?;
        let saving = Saving {
            tokens,
            new_tokens: tokens_of(new_bytes),
        };
        if !policy::is_worth_saving(saving, &known) {
            return None;
        }
        let expected = known.size.expected(tokens).unwrap_or(1);
        let wanted = expected + expected / HEADROOM;
        let today = self.daily.bytes(now.hour);
        if today.saturating_add(wanted) > self.bounds.daily_bytes {
            return None;
        }
        let remove = self.index.to_make_room(wanted, self.bounds.files_bytes)?;
        for &id in &remove {
            self.index.remove(id);
        }
        let id = self.next_id;
        self.next_id += 1;
        Some(SaveOrder {
            id,
            of: now.of.clone(),
            owner: held.owner.clone(),
            text: held.text.to_owned(),
            tokens,
            assumed_bytes: known.size.assumed(tokens),
            remove,
        })
    }

    fn order_load(
        &mut self,
        now: Now<'_>,
        prompt: &Marked<'_>,
        owner: &Owner,
        kept: usize,
    ) -> Option<LoadOrder> {
        let found = self.index.find(now.of, &owner.tenant, prompt)?;
        let gained = tokens_of(found.shared.saturating_sub(kept));
        let known = self.known(now)?;
        if !policy::is_worth_loading(gained, found.file_bytes, &known) {
            return None;
        }
        self.index.pin(found.id);
        Some(LoadOrder {
            id: found.id,
            of: now.of.clone(),
            file_bytes: found.file_bytes,
            gained,
            kept_bytes: kept,
        })
    }

    /// It is there. Returns what goes for it.
    pub fn saved(&mut self, order: &SaveOrder, bytes: u64, took: Duration) -> Vec<PrefixId> {
        self.disk.wrote(bytes, took);
        let text = Marked::new(&order.text);
        if let Some(model) = self.models.get_mut(&order.of.model) {
            model.size.told(bytes, order.tokens);
        }
        let record = record_of(order, bytes);
        if !self.is_wanted(&record) {
            return vec![order.id];
        }
        let mut going = self.index.insert(order.id, record, Some(&text));
        for &id in &going {
            self.index.remove(id);
        }
        going.extend(self.trim());
        going
    }

    /// So many bytes were written, to whatever end.
    pub fn wrote(&mut self, bytes: u64, hour: u64) {
        self.daily.add(bytes, hour);
    }

    /// A load is over; `took`: it was made.
    pub fn load_ended(&mut self, order: &LoadOrder, took: Option<Duration>) {
        self.index.unpin(order.id);
        if let Some(took) = took {
            self.disk.read(order.file_bytes, took);
        }
    }

    /// What does not fit is taken out. Returns it.
    pub fn trim(&mut self) -> Vec<PrefixId> {
        let going = self.index.to_make_room(0, self.bounds.files_bytes);
        let going = going.unwrap_or_default();
        for &id in &going {
            self.index.remove(id);
        }
        going
    }

    /// Takes one out. Returns whether it was there.
    pub fn remove(&mut self, id: PrefixId) -> bool {
        self.index.remove(id)
    }

    /// From now on these are installed. Returns what goes for it.
    pub fn set_installed(&mut self, models: Vec<(ModelId, String)>) -> Vec<PrefixId> {
        self.installed = Some(models);
        self.remove_unwanted()
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

    /// Its model is installed as it was, and its key is none that was revoked.
    fn is_wanted(&self, record: &Record) -> bool {
        let is_it = |(id, file): &(ModelId, String)| {
            *id == record.of.model && record.of.file.starts_with(file)
        };
        let installed = self.installed.as_ref();
        let keys = self.keys.as_ref().filter(|_| record.owner.has_key);
        installed.is_none_or(|models| models.iter().any(is_it))
            && keys.is_none_or(|keys| keys.contains(&record.owner.client))
    }

    /// Takes out what is so. Returns it.
    fn remove_where(&mut self, is_it: impl FnMut(&Record) -> bool) -> Vec<PrefixId> {
        let ids = self.index.ids_where(is_it);
        for &id in &ids {
            self.index.remove(id);
        }
        ids
    }

    /// Nothing is written for a while. Returns whether that is new.
    pub fn rest(&mut self, now: Instant, length: Duration) -> bool {
        let was_resting = self.resting_until.is_some_and(|until| now < until);
        self.resting_until = Some(now + length);
        !was_resting
    }

    /// The library has failed at it. `for_good`: it cannot do it at all. Returns whether the model's
    /// prefixes are not swapped any more from now on.
    pub fn failed(&mut self, of: &Identity, for_good: bool) -> bool {
        let model = self.models.get_mut(&of.model);
        let Some(model) = model.filter(|model| model.of == *of && !model.is_off()) else {
            return false;
        };
        model.failed(for_good);
        model.is_off()
    }

    /// What was loaded has spared evaluation.
    pub fn succeeded(&mut self, of: &Identity) {
        let model = self.models.get_mut(&of.model);
        if let Some(model) = model.filter(|model| model.of == *of && !model.is_off()) {
            model.succeeded();
        }
    }

    fn known(&self, now: Now<'_>) -> Option<Known> {
        let model = self.models.get(&now.of.model)?;
        Some(Known {
            prefill_per_token: now.prefill_per_token,
            disk: self.disk,
            size: model.size,
            returns: model.returns,
        })
    }

    /// A worker is there that this is known of. Returns prefixes of its model that it cannot take.
    fn meet(&mut self, of: &Identity) -> Vec<PrefixId> {
        if self.models.get(&of.model).is_some_and(|it| it.of == *of) {
            return Vec::new();
        }
        let new = OfModel::new(of.clone());
        self.models.insert(of.model.clone(), new);
        self.remove_where(|record| record.of.model == of.model && record.of != *of)
    }
}

fn shared_bytes(a: &str, b: &str) -> usize {
    let pairs = a.bytes().zip(b.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
