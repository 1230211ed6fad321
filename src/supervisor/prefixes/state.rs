//! Decides for a turn what is written and what is read: the one owner of what is known of prefixes. It
//! looks at no disk and no clock; what it orders is carried out by `swap`.

mod ended;
mod looks;
mod of_model;
mod orders;
mod wanted;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::daily::Daily;
use super::index::{Index, PrefixId};
use super::marks::{Marked, Marks};
use super::policy::{self, DiskRates, Known, Saving, tokens_of};
use super::record::{Identity, ModelAndAdapter, Owner, Record};
use crate::generation::ModelId;
use looks::kept_bytes;
use of_model::OfModel;
pub use orders::{Fault, Held, LoadOrder, NotKept, Now, Plan, SaveOrder, Turn, record_of};
pub use wanted::{Installed, Named};

/// Files are about as large as those before: by no more than this part larger.
const HEADROOM: u64 = 16;

/// What is kept to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub files_bytes: u64,
    pub daily_bytes: u64,
    pub least_tokens: u32,
}

/// A save that was ordered and has not ended.
#[derive(Debug)]
struct UnderWay {
    model: ModelId,
    /// Bytes of the day that are kept for it, until it has told.
    reserved: u64,
    /// Bytes of the folder that it takes, once it is whole.
    whole: u64,
    /// It is every key's.
    is_shared: bool,
}

#[derive(Debug)]
pub struct State {
    bounds: Bounds,
    index: Index,
    next_id: PrefixId,
    models: HashMap<ModelAndAdapter, OfModel>,
    under_way: BTreeMap<PrefixId, UnderWay>,
    disk: DiskRates,
    daily: Daily,
    /// The models that are installed; `None`: not told.
    installed: Option<Vec<Installed>>,
    /// The clients that have keys, likewise.
    keys: Option<HashSet<u64>>,
    /// Until when nothing is written, because the disk had no room or failed.
    resting_until: Option<Instant>,
    /// Until when nothing is read, because it did not answer.
    unread_until: Option<Instant>,
}

impl State {
    pub fn new(bounds: Bounds, records: Vec<(PrefixId, Record)>, daily: Daily) -> Self {
        let mut index = Index::default();
        for (id, record) in records {
            index.insert(id, record, None);
        }
        // Any of these may be pinned: which are is told later.
        index.let_stay(|record| record.owner.is_shared);
        Self {
            bounds,
            next_id: index.next_id(),
            index,
            models: HashMap::new(),
            under_way: BTreeMap::new(),
            disk: DiskRates::default(),
            daily,
            installed: None,
            keys: None,
            resting_until: None,
            unread_until: None,
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

    /// What a turn needs whose prompt a slot is given that holds something else.
    pub fn plan(&mut self, now: Now<'_>, held: Option<Held<'_>>, turn: Turn<'_>) -> Plan {
        let mut plan = Plan {
            stale: self.meet(now.of),
            ..Plan::default()
        };
        let model = self.models.get(&now.of.key());
        if model.is_none_or(|it| !it.may_swap(now.is_alone) || it.of != *now.of) {
            return plan;
        }
        let kept = kept_bytes(now.of, held.as_ref(), &turn);
        if self.looks_at_prompt(now, held.as_ref(), kept, &turn) {
            let prompt = turn.prompt.marked();
            if let Some(model) = self.models.get_mut(&now.of.key()) {
                model.look_for_returned(prompt, &turn.owner.tenant);
            }
            if turn.can_load {
                plan.load = self.order_load(now, prompt, turn.owner, kept);
            }
        }
        // Where a slot holds more of the prompt it would be lost for it.
        let shared = self.shared_by(now.of, &turn);
        if plan.load.is_none()
            && let Some(shared) = shared.filter(|shared| kept <= shared.text.len())
        {
            plan.share = self.order_sharing(now, &shared);
        }
        if let Some(held) = held.filter(|held| self.loses(held, kept)) {
            let of_held = Now {
                of: &held.of,
                ..now
            };
            // It may be another adapter's, of which less goes well.
            let of_its = self.models.get(&held.of.key());
            if of_its.is_some_and(|it| it.of == held.of && it.may_swap(now.is_alone)) {
                plan.save = self.order_save(of_held, &held);
            }
            if let Some(model) = self.models.get_mut(&held.of.key()) {
                model.is_lost(&held, now.at);
            }
        }
        plan
    }

    /// Whether there may be a save behind an answer: where slots lose what is worth keeping.
    pub fn may_save(&self, now: Now<'_>, held: &Held<'_>) -> bool {
        let model = self.models.get(&now.of.key());
        let is_long = tokens_of(held.text.len()) >= self.bounds.least_tokens;
        let is_wanted = |model: &OfModel| {
            model.is_crowded(now.at) && model.of == *now.of && model.may_swap(now.is_alone)
        };
        is_long && model.is_some_and(is_wanted)
    }

    /// A save behind an answer.
    pub fn after_answer(&mut self, now: Now<'_>, held: &Held<'_>) -> Option<SaveOrder> {
        match self.may_save(now, held) {
            true => self.order_save(now, held),
            false => None,
        }
    }

    fn order_save(&mut self, now: Now<'_>, held: &Held<'_>) -> Option<SaveOrder> {
        let tokens = tokens_of(held.text.len());
        if tokens < self.bounds.least_tokens || self.rests(now.at) {
            return None;
        }
        let text = held.text.marked();
        let stored = self.index.find(now.of, &held.owner.tenant, text);
        let new_bytes = held.text.len() - stored.map_or(0, |stored| stored.shared);
        let known = self.known(now)?;
        let saving = Saving {
            tokens,
            new_tokens: tokens_of(new_bytes),
        };
        if !policy::is_worth_saving(saving, &known) {
            return None;
        }
        self.order(
            now,
            (text.as_str(), text.marks()),
            held.owner.clone(),
            &known,
        )
    }

    /// A save of what `model.toml` names, once. It is evaluated for that, as the prompt needs it in any case.
    /// What is pinned is wanted whether or not it pays.
    fn order_sharing(&mut self, now: Now<'_>, named: &Named) -> Option<SaveOrder> {
        let text = &*named.text;
        let tokens = tokens_of(text.len());
        let known = self.known(now)?;
        let assumed = known.size.assumed(tokens);
        let pays =
            tokens >= self.bounds.least_tokens && policy::is_worth_loading(tokens, assumed, &known);
        let installed = self.installed_as(&now.of.model);
        let is_wanted = pays || installed.is_some_and(|model| model.pins(now.of, text));
        let mut others = self.under_way.values();
        if !is_wanted
            || self.rests(now.at)
            || others.any(|other| other.is_shared && other.model == now.of.model)
        {
            return None;
        }
        match self.index.has_shared(now.of, &named.marks) {
            true => None,
            false => self.order(now, (text, &named.marks), Owner::all(), &known),
        }
    }

    /// Keeps what a save will need of the bounds. `None`: there is not so much.
    fn order(
        &mut self,
        now: Now<'_>,
        (text, marks): (&str, &Marks),
        owner: Owner,
        known: &Known,
    ) -> Option<SaveOrder> {
        let tokens = tokens_of(marks.length);
        let expected = known.size.expected(tokens);
        let mut others = self.under_way.values();
        // The first file of a model tells how large the others are.
        if expected.is_none() && others.any(|other| other.model == now.of.model) {
            return None;
        }
        let expected = expected.unwrap_or(1);
        let wanted = expected + expected / HEADROOM;
        let reserved = |other: &UnderWay| other.reserved.max(other.whole);
        let others = self.under_way.values().map(reserved);
        let with_others = others.fold(wanted, u64::saturating_add);
        let today = self.daily.bytes(now.hour);
        if today.saturating_add(with_others) > self.bounds.daily_bytes {
            return None;
        }
        // What goes for it goes once it is whole.
        self.index
            .to_make_room(with_others, self.bounds.files_bytes)?;
        let id = self.next_id;
        self.next_id += 1;
        let under_way = UnderWay {
            model: now.of.model.clone(),
            reserved: wanted,
            whole: 0,
            is_shared: owner.is_shared,
        };
        self.under_way.insert(id, under_way);
        Some(SaveOrder {
            id,
            of: now.of.clone(),
            owner,
            text: text.to_owned(),
            marks: marks.clone(),
            tokens,
            assumed_bytes: known.size.assumed(tokens),
            most_bytes: known.size.most(tokens),
        })
    }

    fn order_load(
        &mut self,
        now: Now<'_>,
        prompt: &Marked<'_>,
        owner: &Owner,
        kept: usize,
    ) -> Option<LoadOrder> {
        if self.unread_until.is_some_and(|until| now.at < until) {
            return None;
        }
        let found = self.index.find(now.of, &owner.tenant, prompt)?;
        let gained = tokens_of(found.shared.saturating_sub(kept));
        let known = self.known(now)?;
        // What is pinned is read also before it was measured what that spares.
        let is_told = known.prefill_per_token.is_some() || !self.index.stays(found.id);
        let pays = match is_told {
            true => policy::is_worth_loading(gained, found.file_bytes, &known),
            false => gained > 0,
        };
        if !pays {
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

    /// Whether all of a text that every key may use is there.
    pub fn has_shared(&self, of: &Identity, marks: &Marks) -> bool {
        self.index.has_shared(of, marks)
    }

    /// Nothing is written for a while. Returns whether that is new.
    pub fn rest(&mut self, now: Instant, length: Duration) -> bool {
        let was_resting = self.rests(now);
        self.resting_until = Some(now + length);
        !was_resting
    }

    /// And nothing is read.
    pub fn leave_unread(&mut self, now: Instant, length: Duration) {
        self.unread_until = Some(now + length);
    }

    fn rests(&self, now: Instant) -> bool {
        self.resting_until.is_some_and(|until| now < until)
    }

    /// It has failed. Returns whether the model's prefixes are not swapped any more from now on.
    pub fn failed(&mut self, of: &Identity, fault: Fault) -> bool {
        let model = self.models.get_mut(&of.key());
        let Some(model) = model.filter(|model| model.of == *of && !model.is_off()) else {
            return false;
        };
        model.failed(fault);
        model.is_off()
    }

    /// What was loaded has spared evaluation.
    pub fn succeeded(&mut self, of: &Identity) {
        let model = self.models.get_mut(&of.key());
        if let Some(model) = model.filter(|model| model.of == *of && !model.is_off()) {
            model.succeeded();
        }
    }

    fn known(&self, now: Now<'_>) -> Option<Known> {
        let model = self.models.get(&now.of.key())?;
        Some(Known {
            prefill_per_token: now.prefill_per_token,
            disk: self.disk,
            size: model.size,
            returns: model.returns,
        })
    }

    /// A worker is there that this is known of. Returns prefixes of its model that it cannot take.
    pub fn meet(&mut self, of: &Identity) -> Vec<PrefixId> {
        let key = of.key();
        if self.models.get(&key).is_some_and(|it| it.of == *of) {
            return Vec::new();
        }
        let new = OfModel::new(of.clone());
        self.models.insert(key, new);
        self.remove_where(|record| of.has_replaced(&record.of))
    }
}

#[cfg(test)]
mod tests;
