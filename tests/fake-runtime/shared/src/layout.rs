//! Where each field of each family's structs lies, from the measured facts.

/// The ABI of one family.
#[derive(Clone, Copy)]
pub struct Layout {
    pub family: &'static str,
    /// Size of RKLLMParam, which is returned by value.
    pub param_bytes: usize,
    pub callback_returns_int: bool,
    pub init_takes_callback_struct: bool,
    pub structs: &'static [Struct],
}

#[derive(Clone, Copy)]
pub struct Struct {
    pub name: &'static str,
    pub bytes: usize,
    pub fields: &'static [(&'static str, usize)],
}

include!(concat!(env!("OUT_DIR"), "/layouts.rs"));

impl Layout {
    pub fn find(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|found| found.name == name)
    }

    pub fn get(&self, name: &str) -> &Struct {
        self.find(name).expect("a struct that the family has")
    }
}

impl Struct {
    /// `None` when the family's struct has no such field.
    pub fn find(&self, field: &str) -> Option<usize> {
        self.fields
            .iter()
            .find(|(name, _)| *name == field)
            .map(|(_, offset)| *offset)
    }

    pub fn at(&self, field: &str) -> usize {
        self.find(field).expect("a field that the family has")
    }

    /// # Safety
    /// `base` must point to this struct, and the field must have type `T`.
    pub unsafe fn read<T: Copy>(&self, base: *const u8, field: &str) -> Option<T> {
        let offset = self.find(field)?;
        // SAFETY: passed on from the caller; the offset lies inside the struct.
        Some(unsafe { base.add(offset).cast::<T>().read_unaligned() })
    }
}
