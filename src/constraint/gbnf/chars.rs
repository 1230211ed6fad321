//! Sets of characters.

/// In the order of their ranges, none of which touches another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chars(Vec<(u32, u32)>);

const LAST: u32 = char::MAX as u32;
/// No characters, and in no text.
const SURROGATES: (u32, u32) = (0xD800, 0xDFFF);

/// Bytes that a text may begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes([u64; 4]);

impl Chars {
    pub fn of(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (low, high) in ranges {
            for (low, high) in [
                (low, high.min(SURROGATES.0 - 1)),
                (low.max(SURROGATES.1 + 1), high.min(LAST)),
            ] {
                match merged.last_mut() {
                    _ if low > high => {}
                    Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                    _ => merged.push((low, high)),
                }
            }
        }
        Self(merged)
    }

    pub fn any() -> Self {
        Self::of(vec![(0, LAST)])
    }

    pub fn others(&self) -> Self {
        let mut next = 0;
        let mut others = Vec::new();
        for &(low, high) in &self.0 {
            if low > next {
                others.push((next, low - 1));
            }
            next = high + 1;
        }
        if next <= LAST {
            others.push((next, LAST));
        }
        Self::of(others)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    pub fn has(&self, char: u32) -> bool {
        let place = self.0.partition_point(|&(low, _)| low <= char);
        place.checked_sub(1).is_some_and(|at| char <= self.0[at].1)
    }

    pub fn first_bytes(&self) -> Bytes {
        let mut bytes = Bytes::default();
        for &(low, high) in &self.0 {
            (first_byte(low)..=first_byte(high)).for_each(|byte| bytes.insert(byte));
        }
        bytes
    }
}

fn first_byte(char: u32) -> u8 {
    let mut buffer = [0; 4];
    let char = char::from_u32(char).unwrap_or_default();
    char.encode_utf8(&mut buffer).as_bytes()[0]
}

impl Bytes {
    pub const NONE: Self = Self([0; 4]);

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte) / 64] |= 1 << (byte % 64);
    }

    /// Whether any were new.
    pub fn extend(&mut self, others: Self) -> bool {
        let before = *self;
        for (mine, others) in self.0.iter_mut().zip(others.0) {
            *mine |= others;
        }
        *self != before
    }

    pub fn with(mut self, others: Self) -> Self {
        self.extend(others);
        self
    }

    pub fn shares(&self, others: &Self) -> bool {
        self.0
            .iter()
            .zip(others.0)
            .any(|(mine, others)| mine & others != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_have_no_surrogates() {
        let chars = Chars::of(vec![(0x62, 0x64), (0x61, 0x61), (0xD000, 0xE000)]);
        assert_eq!(
            chars.ranges(),
            [(0x61, 0x64), (0xD000, 0xD7FF), (0xE000, 0xE000)]
        );
        assert!(chars.has(0x63) && !chars.has(0x65) && !chars.has(0xD900));
        assert_eq!(chars.others().others(), chars);
        assert!(Chars::any().others().is_empty());
    }

    #[test]
    fn first_bytes_are_those_of_utf8() {
        let letters = Chars::of(vec![(0xE9, 0xE9), (0x61, 0x61)]).first_bytes();
        let other = Chars::of(vec![(0xE0, 0xE0)]).first_bytes();
        assert!(letters.shares(&other));
        assert!(!other.shares(&Chars::of(vec![(0x61, 0x7F)]).first_bytes()));
    }
}
