//! JSON has one kind of number, so what a client may write for a field does not hang on Rust's types:
//! `16.0` is the integer 16, and a number that a field's type cannot hold is refused, never rounded to
//! infinity. [`Numbers`] goes around a deserializer and reaches every field below it, so no field has
//! to say so itself.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

/// What is read through it has numbers as JSON means them. It stands for the deserializer, and for
/// the visitors, seeds and accesses that pass it on.
pub(crate) struct Numbers<T>(pub T);

/// A visitor that was asked for a number of a type.
struct Asked<V> {
    visitor: V,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Integer,
    /// 32 bits wide.
    Float32,
    Float64,
}

/// The integer that this number is.
pub(crate) fn whole(number: f64) -> Option<i128> {
    // Past this not every integer is a double, and no field takes such a one.
    const LARGEST: f64 = 1e30;
    (number.fract() == 0.0 && number.abs() <= LARGEST).then_some(number as i128)
}

/// Said of an integer that its field cannot hold, in the words that serde has for it.
fn beyond<E: Error>(number: impl fmt::Display, expected: &dyn Expected) -> E {
    let integer = format!("integer `{number}`");
    E::invalid_value(Unexpected::Other(&integer), expected)
}

/// The id of a token that this integer is.
pub(crate) fn token_id<E: Error>(number: impl Into<i128>) -> Result<i32, E> {
    let number = number.into();
    let id = i32::try_from(number).ok().filter(|id| *id >= 0);
    id.ok_or_else(|| beyond(number, &"a token id"))
}

/// The id of a token that this number is.
pub(crate) fn token_id_of<E: Error>(number: f64) -> Result<i32, E> {
    match whole(number) {
        Some(integer) => token_id(integer),
        None if number.fract() == 0.0 => Err(beyond(format_args!("{number:e}"), &"a token id")),
        None => Err(E::custom(format_args!("{number} cannot be a token id"))),
    }
}

macro_rules! forward {
    ($($method:ident($($arg:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($arg,)* Numbers(visitor))
        }
    )*};
}

macro_rules! forward_number {
    ($($method:ident as $inner:ident: $kind:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$inner(Asked { visitor, kind: Kind::$kind })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Numbers<D> {
    type Error = D::Error;

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    forward_number! {
        deserialize_i8 as deserialize_i64: Integer;
        deserialize_i16 as deserialize_i64: Integer;
        deserialize_i32 as deserialize_i64: Integer;
        deserialize_i64 as deserialize_i64: Integer;
        // A text of digits alone would be read for it, without what follows them.
        deserialize_i128 as deserialize_i64: Integer;
        deserialize_u8 as deserialize_u64: Integer;
        deserialize_u16 as deserialize_u64: Integer;
        deserialize_u32 as deserialize_u64: Integer;
        deserialize_u64 as deserialize_u64: Integer;
        deserialize_u128 as deserialize_u64: Integer;
        deserialize_f32 as deserialize_f64: Float32;
        deserialize_f64 as deserialize_f64: Float64;
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Asked<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<V::Value, E> {
        self.visitor.visit_u64(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<V::Value, E> {
        self.visitor.visit_i64(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<V::Value, E> {
        match self.kind {
            Kind::Integer => match whole(number) {
                None if number.fract() == 0.0 => {
                    Err(beyond(format_args!("{number:e}"), &self.visitor))
                }
                None => self.visitor.visit_f64(number),
                Some(integer) => match (u64::try_from(integer), i64::try_from(integer)) {
                    (Ok(integer), _) => self.visitor.visit_u64(integer),
                    (_, Ok(integer)) => self.visitor.visit_i64(integer),
                    _ => Err(beyond(integer, &self.visitor)),
                },
            },
            Kind::Float32 if (number as f32).is_infinite() => Err(E::custom(format_args!(
                "{number:e} is more than a 32-bit number can be"
            ))),
            Kind::Float32 | Kind::Float64 => self.visitor.visit_f64(number),
        }
    }

    // What is no number is the visitor's to refuse.
    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.visitor.visit_bool(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        self.visitor.visit_str(text)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(map)
    }
}

macro_rules! visit {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Numbers<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool(bool);
        visit_i64(i64);
        visit_i128(i128);
        visit_u64(u64);
        visit_u128(u128);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Numbers(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Numbers(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Numbers(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Numbers(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Numbers(data))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Numbers<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Numbers(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Numbers<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Numbers(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Numbers<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Numbers(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Numbers<A> {
    type Error = A::Error;
    type Variant = Numbers<A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(seed)?;
        Ok((value, Numbers(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Numbers<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.newtype_variant_seed(Numbers(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Numbers(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Numbers(visitor))
    }
}

#[cfg(test)]
mod tests;
