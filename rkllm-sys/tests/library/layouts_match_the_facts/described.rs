//! What the Rust types say about themselves: sizes and offsets taken from the types, field names
//! checked by the compiler, no figure written down.

use rkllm_sys::abi;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the Rust types of one family say, in the shape of the facts.
#[derive(Default)]
pub struct Described {
    pub structs: BTreeMap<&'static str, Value>,
    pub enums: BTreeMap<&'static str, Value>,
    /// Number of parameters of each function and callback, and what it returns.
    pub signatures: BTreeMap<&'static str, Signature>,
}

#[derive(Debug, PartialEq)]
pub struct Signature {
    pub parameters: usize,
    pub returns: &'static str,
}

pub fn pointee_bytes<T>(_: *const T) -> usize {
    size_of::<T>()
}

/// Size, alignment and fields of a struct, each field's offset and size taken from the type.
/// A field is named as in Rust; `name = path` where C calls it something else.
macro_rules! structs {
    ($described:ident, $module:ident: $($name:ident { $($field:tt)* })*) => {
        $({
            let mut fields = serde_json::Map::new();
            structs!(@fields fields, abi::$module::$name, $($field)*);
            $described.structs.insert(stringify!($name), serde_json::json!({
                "size": size_of::<abi::$module::$name>(),
                "align": align_of::<abi::$module::$name>(),
                "fields": fields,
            }));
        })*
    };
    (@fields $fields:ident, $type:ty, ) => {};
    (@fields $fields:ident, $type:ty, $c_name:literal = $($path:ident).+, $($rest:tt)*) => {
        structs!(@field $fields, $type, $c_name, $($path).+);
        structs!(@fields $fields, $type, $($rest)*);
    };
    (@fields $fields:ident, $type:ty, $name:ident, $($rest:tt)*) => {
        structs!(@field $fields, $type, stringify!($name), $name);
        structs!(@fields $fields, $type, $($rest)*);
    };
    (@field $fields:ident, $type:ty, $c_name:expr, $($path:ident).+) => {{
        let place = std::mem::MaybeUninit::<$type>::uninit();
        // SAFETY: the address of a field inside `place`; nothing is read.
        let field = unsafe { &raw const (*place.as_ptr()).$($path).+ };
        let offset = std::mem::offset_of!($type, $($path).+);
        assert_eq!(field.addr() - place.as_ptr().addr(), offset);
        $fields.insert($c_name.to_owned(), serde_json::json!([offset, $crate::layouts_match_the_facts::described::pointee_bytes(field)]));
    }};
}

macro_rules! enums {
    ($described:ident, $module:ident: $($name:ident { $($value:ident)* })*) => {
        $($described.enums.insert(stringify!($name), serde_json::json!({
            "size": size_of::<abi::$module::$name>(),
            "values": { $(stringify!($value): abi::$module::$value),* },
        }));)*
    };
}

macro_rules! signatures {
    ($described:ident, $module:ident: $($c_name:ident = $type:ident)*) => {
        $($described.signatures.insert(
            stringify!($c_name),
            <abi::$module::$type as $crate::layouts_match_the_facts::described::HasSignature>::signature(),
        );)*
    };
}

pub trait HasSignature {
    fn signature() -> Signature;
}

pub trait CResult {
    const NAME: &'static str;
}

impl CResult for i32 {
    const NAME: &'static str = "int";
}

impl CResult for () {
    const NAME: &'static str = "void";
}

macro_rules! result_is_a_param {
    ($($module:ident)*) => {
        $(impl CResult for abi::$module::RKLLMParam {
            const NAME: &'static str = "RKLLMParam";
        })*
    };
}

// The other families share these types.
result_is_a_param!(v1_1 v1_2_0 v1_2_1 v1_3_0);

macro_rules! has_signature {
    ($count:literal: $($parameter:ident)*) => {
        impl<R: CResult, $($parameter),*> HasSignature
            for unsafe extern "C" fn($($parameter),*) -> R
        {
            fn signature() -> Signature {
                Signature { parameters: $count, returns: R::NAME }
            }
        }
    };
}

has_signature!(0:);
has_signature!(1: A);
has_signature!(2: A B);
has_signature!(3: A B C);
has_signature!(4: A B C D);
has_signature!(5: A B C D E);
