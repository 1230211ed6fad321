//! Which prefixes there are, which of them a prompt begins with, and which go first when there is no
//! room. Pure: nothing here looks at a disk.

use std::collections::BTreeMap;

use super::marks::{Marked, Marks};
use super::record::{Identity, Record};

/// Names a prefix and its files.
pub type PrefixId = u64;

#[derive(Debug)]
struct Entry {
    record: Record,
    /// The larger, the later it was used.
    used: u64,
    /// Loads that go on.
    pins: u32,
    /// It makes no room for others.
    stays: bool,
}

#[derive(Debug, Default)]
pub struct Index {
    entries: BTreeMap<PrefixId, Entry>,
    uses: u64,
}

/// What of a prompt is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: PrefixId,
    /// Bytes of the prompt.
    pub shared: usize,
    pub file_bytes: u64,
}

impl Index {
    /// Adds a prefix. Returns those that have nothing that it has not.
    pub fn insert(
        &mut self,
        id: PrefixId,
        record: Record,
        text: Option<&Marked<'_>>,
    ) -> Vec<PrefixId> {
        let is_superseded = |other: &Record| {
            other.of == record.of
                && other.owner.is_like(&record.owner)
                && text.is_some_and(|text| text.shared_with(&other.marks) == other.marks.length)
        };
        let mut superseded = self.ids_where(is_superseded);
        superseded.retain(|id| self.entries.get(id).is_some_and(|entry| !entry.stays));
        self.uses += 1;
        let used = self.uses;
        let entry = Entry {
            record,
            used,
            pins: 0,
            stays: false,
        };
        self.entries.insert(id, entry);
        superseded.into_iter().filter(|&it| it != id).collect()
    }

    pub fn remove(&mut self, id: PrefixId) -> bool {
        self.entries.remove(&id).is_some()
    }

    pub fn record(&self, id: PrefixId) -> Option<&Record> {
        self.entries.get(&id).map(|entry| &entry.record)
    }

    pub fn next_id(&self) -> PrefixId {
        self.entries.last_key_value().map_or(1, |(id, _)| id + 1)
    }

    pub fn ids_where(&self, mut is_it: impl FnMut(&Record) -> bool) -> Vec<PrefixId> {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| is_it(&entry.record))
            .map(|(&id, _)| id)
            .collect()
    }

    /// The most that a file of these cells has for each token, where their format tells.
    pub fn cell_bytes(&self, of: &Identity) -> Option<u64> {
        let records = self.entries.values().map(|entry| &entry.record);
        let same = records.filter(|record| record.of == *of);
        same.filter_map(|record| record.cell_bytes).max()
    }

    pub fn files(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> u64 {
        let bytes = self.entries.values().map(|entry| entry.record.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// The longest beginning of a prompt that `tenant` may use.
    pub fn find(&self, of: &Identity, tenant: &str, prompt: &Marked<'_>) -> Option<Found> {
        let entries = self.entries.iter().filter(|(_, entry)| {
            let record = &entry.record;
            record.of == *of && record.owner.lets(tenant)
        });
        entries
            .map(|(&id, entry)| Found {
                id,
                shared: prompt.shared_with(&entry.record.marks),
                file_bytes: entry.record.bytes,
            })
            .filter(|found| found.shared > 0)
            // Of equals the one that is read faster.
            .max_by_key(|found| (found.shared, u64::MAX - found.file_bytes))
    }

    /// Whether all of a text that every key may use is there.
    pub fn has_shared(&self, of: &Identity, marks: &Marks) -> bool {
        let mut records = self.entries.values().map(|entry| &entry.record);
        records.any(|it| it.owner.is_shared && it.of == *of && it.marks == *marks)
    }

    /// From now on these, and no others, make no room.
    pub fn let_stay(&mut self, stays: impl Fn(&Record) -> bool) {
        for entry in self.entries.values_mut() {
            entry.stays = stays(&entry.record);
        }
    }

    pub fn stays(&self, id: PrefixId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.stays)
    }

    /// It is being loaded: it stays until that is over.
    pub fn pin(&mut self, id: PrefixId) {
        self.uses += 1;
        let used = self.uses;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.pins += 1;
            entry.used = used;
        }
    }

    pub fn unpin(&mut self, id: PrefixId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }

    /// What has to go so that `wanted` bytes fit, those used least recently first. `None`: they do not fit.
    pub fn to_make_room(&self, wanted: u64, limit: u64) -> Option<Vec<PrefixId>> {
        self.going(wanted, limit, |entry| !entry.stays)
    }

    /// What has to go so that all that is left fits: also what stays, after all others. `None`: loads that go on
    /// have more.
    pub fn to_fit(&self, limit: u64) -> Option<Vec<PrefixId>> {
        self.going(0, limit, |_| true)
    }

    fn going(
        &self,
        wanted: u64,
        limit: u64,
        may_go: impl Fn(&Entry) -> bool,
    ) -> Option<Vec<PrefixId>> {
        let mut left = self.bytes();
        let entries = self.entries.iter();
        let mut idle: Vec<_> = entries
            .filter(|(_, it)| it.pins == 0 && may_go(it))
            .collect();
        idle.sort_unstable_by_key(|(_, entry)| (entry.stays, entry.used));
        let mut going = Vec::new();
        let mut idle = idle.into_iter();
        while left.saturating_add(wanted) > limit {
            let (&id, entry) = idle.next()?;
            left = left.saturating_sub(entry.record.bytes);
            going.push(id);
        }
        Some(going)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::prefixes::record::{Owner, VERSION};
    use proptest::prelude::*;

    fn identity(file: &str) -> Identity {
        Identity {
            model: "m".into(),
            file: file.to_owned(),
            runtime: "r".to_owned(),
            adapter: None,
        }
    }

    fn record(text: &str, tenant: &str, bytes: u64) -> Record {
        Record {
            version: VERSION,
            of: identity("f"),
            owner: Owner {
                tenant: tenant.to_owned(),
                client: 1,
                has_key: true,
                is_shared: false,
            },
            marks: Marked::new(text).marks().clone(),
            tokens: 1,
            bytes,
            cell_bytes: None,
        }
    }

    fn add(index: &mut Index, text: &str, tenant: &str, bytes: u64) -> (PrefixId, Vec<PrefixId>) {
        let id = index.next_id();
        let marked = Marked::new(text);
        (
            id,
            index.insert(id, record(text, tenant, bytes), Some(&marked)),
        )
    }

    #[test]
    fn the_longest_beginning_of_the_tenants_own_is_found() {
        let mut index = Index::default();
        let (short, long) = ("a ".repeat(200), "a ".repeat(400));
        add(&mut index, &long, "others", 9);
        let (first, _) = add(&mut index, &short, "mine", 9);
        let prompt = long.clone() + "b";
        let prompt = Marked::new(&prompt);
        let found = index.find(&identity("f"), "mine", &prompt).unwrap();
        assert_eq!((found.id, found.shared), (first, short.len()));
        assert_eq!(index.find(&identity("other"), "mine", &prompt), None);
        assert_eq!(index.find(&identity("f"), "third", &prompt), None);
        let (second, superseded) = add(&mut index, &long, "mine", 9);
        assert_eq!(superseded, [first], "the longer one has all of it");
        assert!(index.remove(first));
        let found = index.find(&identity("f"), "mine", &prompt).unwrap();
        assert_eq!((found.id, found.shared), (second, long.len()));
    }

    #[test]
    fn what_is_used_least_recently_goes_first_and_nothing_that_is_being_loaded() {
        let mut index = Index::default();
        let ids = ["a", "b", "c"].map(|text| add(&mut index, &text.repeat(300), "", 10).0);
        index.pin(ids[0]);
        assert_eq!(index.to_make_room(5, 100), Some(vec![]));
        assert_eq!(index.to_make_room(5, 30), Some(vec![ids[1]]));
        assert_eq!(index.to_make_room(20, 30), Some(vec![ids[1], ids[2]]));
        assert_eq!(index.to_make_room(21, 30), None);
        index.unpin(ids[0]);
        assert_eq!(
            index.to_make_room(30, 30),
            Some(vec![ids[1], ids[2], ids[0]])
        );
        assert_eq!(index.to_make_room(31, 30), None);
    }

    #[test]
    fn what_stays_makes_room_for_nothing_and_goes_last_where_there_is_less() {
        let mut index = Index::default();
        let ids = ["a", "b", "c"].map(|text| add(&mut index, &text.repeat(300), "", 10).0);
        let pinned = Marked::new(&"a".repeat(300)).marks().clone();
        index.let_stay(|record| record.marks == pinned);
        assert!(index.stays(ids[0]) && !index.stays(ids[1]));
        assert_eq!(index.to_make_room(20, 30), Some(vec![ids[1], ids[2]]));
        assert_eq!(index.to_make_room(21, 30), None);
        // A longer one that has all of it takes it away no more than others do.
        let (longer, superseded) = add(&mut index, &"a".repeat(600), "", 10);
        assert_eq!(superseded, NONE);
        assert_eq!(index.to_fit(10), Some(vec![ids[1], ids[2], longer]));
        assert_eq!(index.to_fit(9), Some(vec![ids[1], ids[2], longer, ids[0]]));
        index.let_stay(|_| false);
        assert_eq!(index.to_make_room(0, 30), Some(vec![ids[0]]));
    }

    const NONE: [PrefixId; 0] = [];

    proptest! {
        #[test]
        fn room_is_made_or_there_is_none(
            sizes in prop::collection::vec(0u64..50, 0..12), wanted in 0u64..100, limit in 0u64..200,
        ) {
            let mut index = Index::default();
            for (nth, &bytes) in sizes.iter().enumerate() {
                add(&mut index, &format!("{nth} {}", "x".repeat(300)), "", bytes);
            }
            match index.to_make_room(wanted, limit) {
                None => prop_assert!(wanted > limit),
                Some(going) => {
                    for id in going { index.remove(id); }
                    prop_assert!(index.bytes() + wanted <= limit);
                }
            }
        }
    }
}
