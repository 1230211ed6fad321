//! Fields of one object that belong to several types, read in one pass over the body: what an
//! endpoint takes alone, what it shares with others, and the names of what none of them reads.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor,
};

use super::body;
use super::unread::{self, Unread};

/// Fields that are all optional; null counts as absent.
pub(crate) trait Fields<'de>: Default {
    /// Whether it is told of what no field is for.
    const NAMES_UNREAD: bool = false;

    /// Which of its fields has this name.
    fn place(name: &str) -> Option<usize>;

    /// The name of a field that may not be there twice.
    fn once(place: usize) -> Option<&'static str>;

    /// Reads the value of the field at `place`.
    fn take<A: MapAccess<'de>>(&mut self, place: usize, map: &mut A) -> Result<(), A::Error>;

    /// There is a value for which there is no field.
    fn unread(&mut self, _name: String) {}
}

/// A field as bodies name it: one that is a word of the language has a mark before it.
pub(crate) fn name_of(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Has a struct's fields, each an `Option`, read as [`Fields`].
macro_rules! fields_of {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl<'de> $crate::http::request::together::Fields<'de> for $type {
            fn place(name: &str) -> Option<usize> {
                let mut fields = [$(stringify!($field)),*].into_iter();
                fields.position(|field| $crate::http::request::together::name_of(field) == name)
            }

            fn once(place: usize) -> Option<&'static str> {
                let field = [$(stringify!($field)),*].get(place).copied();
                field.map($crate::http::request::together::name_of)
            }

            fn take<A: serde::de::MapAccess<'de>>(
                &mut self,
                place: usize,
                map: &mut A,
            ) -> Result<(), A::Error> {
                let mut places = 0..;
                $(if places.next() == Some(place) {
                    self.$field = map.next_value()?;
                    return Ok(());
                })*
                map.next_value::<serde::de::IgnoredAny>().map(drop)
            }
        }
    };
}
pub(crate) use fields_of;

/// An object inside a body: its fields, and the names of what none of them reads.
pub(crate) type Inner<X> = body::Object<Together<X, Unread>>;

/// The fields of both. A name that both have is the left one's.
#[derive(Debug, Default)]
pub(crate) struct Together<X, Y>(pub X, pub Y);

impl<'de, X: Fields<'de>, Y: Fields<'de>> Fields<'de> for Together<X, Y> {
    const NAMES_UNREAD: bool = X::NAMES_UNREAD || Y::NAMES_UNREAD;

    fn place(name: &str) -> Option<usize> {
        let left = X::place(name).map(|place| 2 * place);
        left.or_else(|| Y::place(name).map(|place| 2 * place + 1))
    }

    fn once(place: usize) -> Option<&'static str> {
        match place % 2 {
            0 => X::once(place / 2),
            _ => Y::once(place / 2),
        }
    }

    fn take<A: MapAccess<'de>>(&mut self, place: usize, map: &mut A) -> Result<(), A::Error> {
        match place % 2 {
            0 => self.0.take(place / 2, map),
            _ => self.1.take(place / 2, map),
        }
    }

    fn unread(&mut self, name: String) {
        match Y::NAMES_UNREAD {
            true => self.1.unread(name),
            false => self.0.unread(name),
        }
    }
}

impl<'de, X: Fields<'de>, Y: Fields<'de>> Deserialize<'de> for Together<X, Y> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object(PhantomData))
    }
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Fields<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut read = T::default();
        // No more than there are fields.
        let mut seen: Vec<usize> = Vec::new();
        while let Some(key) = map.next_key_seed(Key::<T>(PhantomData))? {
            let place = match key {
                Ok(place) => place,
                Err(name) => {
                    let value = map.next_value::<Option<IgnoredAny>>()?;
                    if let (Some(_), Some(name)) = (value, name) {
                        read.unread(name);
                    }
                    continue;
                }
            };
            if let Some(name) = T::once(place) {
                if seen.contains(&place) {
                    return Err(A::Error::duplicate_field(name));
                }
                seen.push(place);
            }
            read.take(place, &mut map)?;
        }
        Ok(read)
    }
}

/// The field that a key names; else, where that is to be told, the key.
struct Key<T>(PhantomData<T>);

type Named = Result<usize, Option<String>>;

impl<'de, T: Fields<'de>> DeserializeSeed<'de> for Key<T> {
    type Value = Named;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, T: Fields<'de>> Visitor<'de> for Key<T> {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(T::place(name).ok_or_else(|| T::NAMES_UNREAD.then(|| unread::told(name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::body::fields;
    use crate::http::request::error::RequestError;

    #[derive(Debug, Default)]
    struct Left {
        number: Option<i64>,
        shared: Option<String>,
    }

    #[derive(Debug, Default)]
    struct Right {
        list: Option<Vec<i64>>,
        shared: Option<String>,
        r#type: Option<String>,
    }

    fields_of!(Left { number, shared });
    fields_of!(Right {
        list,
        shared,
        r#type
    });

    fn read(body: &str) -> Result<Together<Left, Right>, RequestError> {
        fields(body.as_bytes())
    }

    #[test]
    fn each_field_is_its_own_types() {
        let Together(left, right) =
            read(r#"{"list":[1,2.0],"x":{"list":1},"number":3,"shared":"a"}"#).unwrap();
        assert_eq!(left.number, Some(3));
        assert_eq!(left.shared.as_deref(), Some("a"));
        assert_eq!(right.list, Some(vec![1, 2]));
        assert_eq!(right.shared, None);
        let Together(left, right) = read(r#"{"list":null,"type":"t"}"#).unwrap();
        assert_eq!((left.number, right.list), (None, None));
        assert_eq!(right.r#type.as_deref(), Some("t"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let error = read(r#"{"number":1,"list":[1,"a"]}"#).unwrap_err();
        assert!(
            matches!(&error, RequestError::WrongType { param, .. } if param == "list[1]"),
            "{error:?}"
        );
        let twice = RequestError::out_of_range("number", "must not be there twice");
        assert_eq!(read(r#"{"number":null,"number":1}"#).unwrap_err(), twice);
        let twice = RequestError::out_of_range("type", "must not be there twice");
        assert_eq!(read(r#"{"type":"a","type":"a"}"#).unwrap_err(), twice);
        assert_eq!(read("[]").unwrap_err(), RequestError::NotAnObject);
        assert_eq!(read("3").unwrap_err(), RequestError::NotAnObject);
    }
}
