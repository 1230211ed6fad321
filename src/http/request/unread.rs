//! The names of a request's fields that nothing reads, so that its client can be told.

use serde::de::MapAccess;

use super::together::Fields;

/// Of more the rest is not told.
const MOST: usize = 16;
/// A longer name is cut.
const MOST_BYTES: usize = 64;

/// Those that have a value.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    pub names: Vec<String>,
}

impl<'de> Fields<'de> for Unread {
    const NAMES_UNREAD: bool = true;

    fn place(_name: &str) -> Option<usize> {
        None
    }

    fn once(_place: usize) -> Option<&'static str> {
        None
    }

    fn take<A: MapAccess<'de>>(&mut self, _place: usize, _map: &mut A) -> Result<(), A::Error> {
        Ok(())
    }

    fn unread(&mut self, name: String) {
        if self.names.len() < MOST && !self.names.contains(&name) {
            self.names.push(name);
        }
    }
}

/// As much of a name as is told.
pub(super) fn told(name: &str) -> String {
    let end = name.floor_char_boundary(MOST_BYTES);
    name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::body::fields;
    use crate::http::request::together::{Together, fields_of};

    #[derive(Debug, Default)]
    struct Known {
        number: Option<i64>,
    }

    fields_of!(Known { number });

    #[test]
    fn what_nothing_reads_is_named_where_it_says_something() {
        let long = "ä".repeat(100);
        let body =
            format!(r#"{{"a":[{{"number":2}}],"number":1,"b":null,"a":3,"{long}":"","c d":1}}"#);
        let Together(known, unread): Together<Known, Unread> =
            fields(body.as_bytes()).expect("an object");
        assert_eq!(known.number, Some(1));
        assert_eq!(unread.names, ["a", &"ä".repeat(32), "c d"]);
        let many: Vec<String> = (0..100).map(|i| format!("\"f{i}\":1")).collect();
        let body = format!("{{{}}}", many.join(","));
        let Together(_, unread): Together<Known, Unread> =
            fields(body.as_bytes()).expect("an object");
        assert_eq!(unread.names.len(), MOST);
    }
}
