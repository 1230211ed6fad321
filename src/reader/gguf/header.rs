//! Moves over a header value by value. Every length is checked against the file before it is believed.

use std::io::{Read, Seek, SeekFrom};

use super::{GgufError, MAGIC, MAX_HEADER_BYTES, MAX_KEY_BYTES};

const MAX_ARRAY_DEPTH: u32 = 4;

/// A reader that knows where it is and how much is left.
pub(super) struct Header<R> {
    pub source: R,
    pub offset: u64,
    pub len: u64,
}

impl<R: Read + Seek> Header<R> {
    /// `read` goes past the value of each pair.
    pub fn each_pair(
        &mut self,
        mut read: impl FnMut(&mut Self, &str, ValueType) -> Result<(), GgufError>,
    ) -> Result<(), GgufError> {
        if self.len < 4 || self.read_array()? != MAGIC {
            return Err(GgufError::NotGguf);
        }
        match u32::from_le_bytes(self.read_array()?) {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => return Err(GgufError::BigEndian),
            version => return Err(GgufError::Version(version)),
        }
        let _tensors = self.read_u64()?;
        let pairs = self.read_u64()?;
        for _ in 0..pairs {
            let key = self.read_string("a key", MAX_KEY_BYTES)?;
            let Some(key) = key else {
                return Err(self.damaged("a key that is not a name"));
            };
            let kind = ValueType::of(u32::from_le_bytes(self.read_array()?))
                .ok_or_else(|| self.damaged("an unknown value type"))?;
            read(self, &key, kind)?;
        }
        Ok(())
    }

    pub fn read_array_head(&mut self) -> Result<(ValueType, u64), GgufError> {
        let kind = ValueType::of(u32::from_le_bytes(self.read_array()?))
            .ok_or_else(|| self.damaged("an unknown value type"))?;
        Ok((kind, self.read_u64()?))
    }

    pub fn skip_value(&mut self, kind: ValueType, depth: u32) -> Result<(), GgufError> {
        match kind {
            ValueType::Scalar(bytes) => self.skip("a value", bytes),
            ValueType::String => self.skip_string("a value"),
            ValueType::Array if depth < MAX_ARRAY_DEPTH => {
                let (kind, count) = self.read_array_head()?;
                self.skip_items(kind, count, depth + 1)
            }
            ValueType::Array => Err(self.damaged("arrays nested too deeply")),
        }
    }

    pub fn skip_items(&mut self, kind: ValueType, count: u64, depth: u32) -> Result<(), GgufError> {
        if let ValueType::Scalar(bytes) = kind {
            return self.skip("an array", bytes.saturating_mul(count));
        }
        for _ in 0..count {
            self.skip_value(kind, depth)?;
        }
        Ok(())
    }

    pub fn read_u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.read_array()?))
    }

    /// A little-endian integer of 1 to 8 bytes.
    pub fn read_integer(&mut self, bytes: u64) -> Result<u64, GgufError> {
        let mut value = [0; 8];
        let used = value.len().min(usize::try_from(bytes).unwrap_or(8));
        self.read_exact("a number", &mut value[..used])?;
        Ok(u64::from_le_bytes(value))
    }

    pub fn read_array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.read_exact("a number", &mut bytes)?;
        Ok(bytes)
    }

    /// A string of at most `limit` bytes; `None` if it is longer or not UTF-8.
    pub fn read_string(
        &mut self,
        what: &'static str,
        limit: u64,
    ) -> Result<Option<String>, GgufError> {
        let len = self.read_u64()?;
        if len > limit {
            self.skip(what, len)?;
            return Ok(None);
        }
        self.check_room(what, len)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read_exact(what, &mut bytes)?;
        Ok(String::from_utf8(bytes).ok())
    }

    pub fn skip_string(&mut self, what: &'static str) -> Result<(), GgufError> {
        let len = self.read_u64()?;
        self.skip(what, len)
    }

    pub fn read_exact(&mut self, what: &'static str, bytes: &mut [u8]) -> Result<(), GgufError> {
        let len = bytes.len() as u64;
        self.check_room(what, len)?;
        self.source.read_exact(bytes)?;
        self.offset += len;
        Ok(())
    }

    pub fn skip(&mut self, what: &'static str, len: u64) -> Result<(), GgufError> {
        self.check_room(what, len)?;
        // Fits: check_room keeps offsets below the header's limit.
        self.source.seek_relative(len as i64)?;
        self.offset += len;
        Ok(())
    }

    pub fn seek_to(&mut self, offset: u64) -> Result<(), GgufError> {
        self.source.seek(SeekFrom::Start(offset))?;
        self.offset = offset;
        Ok(())
    }

    fn check_room(&self, what: &'static str, len: u64) -> Result<(), GgufError> {
        let offset = self.offset;
        let end = offset.checked_add(len);
        match end {
            Some(end) if end <= self.len.min(MAX_HEADER_BYTES) => Ok(()),
            Some(end) if end <= self.len => Err(GgufError::HeaderTooLong),
            _ => Err(GgufError::PastEnd { what, offset }),
        }
    }

    pub fn damaged(&self, what: &'static str) -> GgufError {
        GgufError::Damaged {
            what,
            offset: self.offset,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum ValueType {
    /// A number or a bool, with its size in bytes.
    Scalar(u64),
    String,
    Array,
}

impl ValueType {
    fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 | 1 | 7 => Self::Scalar(1),
            2 | 3 => Self::Scalar(2),
            4..=6 => Self::Scalar(4),
            8 => Self::String,
            9 => Self::Array,
            10..=12 => Self::Scalar(8),
            _ => return None,
        })
    }
}
