//! Places of a schema as its client wrote them.

use std::collections::BTreeSet;

use crate::constraint::schema::pointer;

/// Where `oneOf` was said by `anyOf`.
#[derive(Debug, Default)]
pub struct Moved(BTreeSet<String>);

impl Moved {
    /// In the schema that the client wrote.
    pub fn add(&mut self, place: &str) {
        self.0.insert(place.to_owned());
    }

    /// What the client wrote at a place of the schema as it is said.
    pub fn written(&self, said: &str) -> String {
        let mut written = String::new();
        for part in said.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            let is_moved = part == "anyOf" && self.0.contains(&written);
            written = pointer(&written, if is_moved { "oneOf" } else { &part });
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_as_they_were_written() {
        let mut moved = Moved::default();
        moved.add("/properties/a~1b");
        moved.add("/properties/a~1b/oneOf/1");
        for (said, written) in [
            ("", ""),
            ("/anyOf/0", "/anyOf/0"),
            (
                "/properties/a~1b/anyOf/1/anyOf/0/x",
                "/properties/a~1b/oneOf/1/oneOf/0/x",
            ),
            (
                "/properties/a~1b/anyOf/0/anyOf",
                "/properties/a~1b/oneOf/0/anyOf",
            ),
        ] {
            assert_eq!(moved.written(said), written);
        }
    }
}
