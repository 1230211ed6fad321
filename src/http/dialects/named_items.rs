//! Items of kept responses that a request names instead of sending them. They are looked for in the newest response first:
//! it holds the conversation that it goes on from, so that others are seldom looked at.

use std::collections::HashMap;
use std::sync::Arc;

use super::kept_items::Item;
use super::kept_responses::KeptResponse;

/// What a client may name.
#[derive(Debug)]
pub(crate) struct NamedItems {
    /// Those that were not looked at, the newest last.
    responses: Vec<Arc<KeptResponse>>,
    seen: HashMap<String, Arc<Item>>,
}

impl NamedItems {
    /// Of all responses of a client, the newest last.
    pub fn of(responses: Vec<Arc<KeptResponse>>) -> Self {
        Self {
            responses,
            seen: HashMap::new(),
        }
    }

    pub fn find(&mut self, id: &str) -> Option<Arc<Item>> {
        while !self.seen.contains_key(id) {
            for item in &self.responses.pop()?.items {
                if !self.seen.contains_key(&item.id) {
                    self.seen.insert(item.id.clone(), Arc::clone(item));
                }
            }
        }
        self.seen.get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dialects::kept_items::Said;

    #[test]
    fn the_newest_response_is_looked_at_first() {
        let item = |id: &str, text: &str| {
            let text = text.to_owned();
            let said = Said::Reasoning { text };
            let id = id.to_owned();
            Arc::new(Item { id, said })
        };
        let response = |items: Vec<Arc<Item>>| {
            Arc::new(KeptResponse {
                id: "resp_1".to_owned(),
                json: "{}".into(),
                items,
                asked: 0,
            })
        };
        let mut named = NamedItems::of(vec![
            response(vec![item("a", "old"), item("b", "old")]),
            response(vec![item("b", "new")]),
        ]);
        let newest = named.find("b").expect("an item");
        assert_eq!(newest, item("b", "new"));
        assert_eq!(named.responses.len(), 1);
        assert_eq!(named.find("a"), Some(item("a", "old")));
        assert_eq!(named.find("b"), Some(newest));
        assert_eq!(named.find("c"), None);
    }
}
