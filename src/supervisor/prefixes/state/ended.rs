//! What became of what was ordered: files that are whole, and what goes for them.

use std::time::Duration;

use super::{LoadOrder, NotKept, SaveOrder, State, record_of};
use crate::supervisor::handle::WholeCache;
use crate::supervisor::prefixes::index::PrefixId;
use crate::supervisor::prefixes::marks::Marked;

impl State {
    /// The library has written all of it. Returns what goes for it, before it gets its name.
    pub fn whole(
        &mut self,
        order: &SaveOrder,
        written: WholeCache,
    ) -> Result<Vec<PrefixId>, NotKept> {
        if let Some(model) = self.models.get_mut(&order.of.key()) {
            model.is_cleared();
        }
        let most = self.index.cell_bytes(&order.of);
        if let (Some(cell_bytes), Some(most)) = (written.cell_bytes, most)
            && cell_bytes < most
        {
            return Err(NotKept::CutShort { cell_bytes: most });
        }
        if let Some(model) = self.models.get_mut(&order.of.key()) {
            model.size.told(written.bytes, order.tokens);
        }
        if !self.is_wanted(&record_of(order, written)) {
            return Err(NotKept::Unwanted);
        }
        let others = self.under_way.iter().filter(|(id, _)| **id != order.id);
        let others = others.map(|(_, other)| other.whole);
        let wanted = others.fold(written.bytes, u64::saturating_add);
        let limit = self.bounds.files_bytes;
        if self.index.to_make_room(wanted, limit).is_none() {
            return Err(NotKept::Unwanted);
        }
        // What has less for each token than this one was cut short itself.
        let mut going = self.remove_where(|other| {
            other.of == order.of
                && other.cell_bytes.is_some()
                && other.cell_bytes < written.cell_bytes
        });
        let for_room = self.index.to_make_room(wanted, limit).unwrap_or_default();
        for &id in &for_room {
            self.index.remove(id);
        }
        going.extend(for_room);
        if let Some(this) = self.under_way.get_mut(&order.id) {
            this.whole = written.bytes;
        }
        Ok(going)
    }

    /// It is there; `text`: the order's. Returns what goes for it.
    pub fn saved(
        &mut self,
        order: &SaveOrder,
        text: &Marked<'_>,
        written: WholeCache,
        took: Duration,
    ) -> Vec<PrefixId> {
        self.disk.wrote(written.bytes, took);
        let record = record_of(order, written);
        if let Some(this) = self.under_way.get_mut(&order.id) {
            this.whole = 0;
        }
        if !self.is_wanted(&record) {
            return vec![order.id];
        }
        let mut going = self.index.insert(order.id, record, Some(text));
        for &id in &going {
            self.index.remove(id);
        }
        self.let_pinned_stay();
        going.extend(self.trim());
        going
    }

    /// So many bytes were written for a save, to whatever end.
    pub fn wrote(&mut self, id: PrefixId, bytes: u64, hour: u64) {
        self.daily.add(bytes, hour);
        if let Some(this) = self.under_way.get_mut(&id) {
            this.reserved = 0;
        }
    }

    /// It has ended.
    pub fn save_ended(&mut self, id: PrefixId) {
        self.under_way.remove(&id);
    }

    /// A load is over; `took`: it was made.
    pub fn load_ended(&mut self, order: &LoadOrder, took: Option<Duration>) {
        self.index.unpin(order.id);
        if let Some(took) = took {
            self.disk.read(order.file_bytes, took);
            if let Some(model) = self.models.get_mut(&order.of.key()) {
                model.is_cleared();
            }
        }
    }

    /// What does not fit is taken out. Returns it.
    pub fn trim(&mut self) -> Vec<PrefixId> {
        let limit = self.bounds.files_bytes;
        let going = self.index.to_make_room(0, limit);
        let going = going.or_else(|| self.index.to_fit(limit));
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
}
