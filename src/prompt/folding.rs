//! A text as a tokeniser's normaliser may have made it before the tokeniser looks for tokens.
//!
//! Folding takes away at least what any of the usual normalisers does (lower case, NFC to NFKD, accents,
//! white space, characters without a shape): two texts that one of them makes equal are folded to equal
//! texts. It looks at one character at a time, so it is linear, and each place of the folded text
//! belongs to one character of the original. The tables are those of the `tokenizers` crate.

use std::ops::Range;

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::{decompose_compatible, is_combining_mark};

/// A folded text, and where its characters were.
pub(super) struct Folded {
    pub text: String,
    /// The characters that folding made more, longer or shorter, in order; others keep their length.
    resized: Vec<Resized>,
}

struct Resized {
    folded: Range<usize>,
    original: Range<usize>,
}

impl Folded {
    pub fn new(text: &str) -> Self {
        let mut folded = Self {
            text: String::with_capacity(text.len()),
            resized: Vec::new(),
        };
        for (at, c) in text.char_indices() {
            let start = folded.text.len();
            fold_char(c, &mut folded.text);
            let range = start..folded.text.len();
            let is_one = folded.text[start..].chars().nth(1).is_none();
            if !is_one || range.len() != c.len_utf8() {
                folded.resized.push(Resized {
                    folded: range,
                    original: at..at + c.len_utf8(),
                });
            }
        }
        folded
    }

    /// The characters of the original, all of each, that a part of the folded text was made of.
    pub fn original(&self, part: Range<usize>) -> Range<usize> {
        let start = self.byte(part.start).start;
        let end = self.byte(part.end.saturating_sub(1)).end;
        start..end.max(start)
    }

    /// The bytes of the original that became the byte at `at`.
    fn byte(&self, at: usize) -> Range<usize> {
        let before = self.resized.partition_point(|c| c.folded.start <= at);
        match self.resized[..before].last() {
            None => at..at + 1,
            Some(last) if at < last.folded.end => last.original.clone(),
            Some(last) => {
                let start = last.original.end + (at - last.folded.end);
                start..start + 1
            }
        }
    }
}

pub(super) fn fold(text: &str) -> String {
    Folded::new(text).text
}

fn fold_char(c: char, out: &mut String) {
    if c.is_ascii() {
        if c.is_ascii_graphic() {
            out.push(c.to_ascii_lowercase());
        }
        return;
    }
    let mut keep = |c: char| {
        if !is_combining_mark(c) && !leaves(c) {
            // Σ has two lower cases, and ϲ, the lower case of a Σ of another shape, is decomposed to the other one.
            out.push(if c == 'ς' { 'σ' } else { c });
        }
    };
    // Upper case may come from a decomposition and have one of its own.
    decompose_compatible(c, |c| {
        for c in c.to_lowercase() {
            decompose_compatible(c, &mut keep);
        }
    });
}

/// White space, what stands for it in vocabularies, and what has no shape.
fn leaves(c: char) -> bool {
    c == '▁' || c == char::REPLACEMENT_CHARACTER || c.is_whitespace() || c.is_other()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

    use super::*;

    #[test]
    fn what_normalisers_make_of_a_character_is_found_where_it_was() {
        for (text, part, original) in [
            ("a<|IM|>", "<|im|>", "<|IM|>"),
            ("é<\u{200B}| ＩＭ|>x", "<|im|>", "<\u{200B}| ＩＭ|>"),
            ("K…x", ".x", "…x"),
            ("x½", "1⁄", "½"),
            ("e\u{301}ﬁx", "ix", "ﬁx"),
            ("\u{200B}ab\u{200B}", "ab", "ab"),
        ] {
            let folded = Folded::new(text);
            let start = folded.text.find(part).expect(part);
            let range = folded.original(start..start + part.len());
            assert_eq!(&text[range], original, "{text:?}");
        }
    }

    fn normalizers() -> Vec<NormalizerWrapper> {
        [
            r#"{"type":"Lowercase"}"#,
            r#"{"type":"NFC"}"#,
            r#"{"type":"NFD"}"#,
            r#"{"type":"NFKC"}"#,
            r#"{"type":"NFKD"}"#,
            r#"{"type":"StripAccents"}"#,
            r#"{"type":"Nmt"}"#,
            r#"{"type":"Replace","pattern":{"String":" "},"content":"▁"}"#,
            r#"{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}"#,
            r#"{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Lowercase"}]}"#,
        ]
        .map(|json| serde_json::from_str(json).unwrap())
        .into()
    }

    fn normalized(normalizer: &NormalizerWrapper, text: &str) -> String {
        let mut text = NormalizedString::from(text);
        normalizer.normalize(&mut text).unwrap();
        text.get().to_owned()
    }

    #[test]
    fn each_character_is_folded_as_what_a_normaliser_makes_of_it() {
        // The bar is between the characters, because no character composes with it.
        let alone =
            (char::MIN..=char::MAX).filter(|&c| !fold(c.encode_utf8(&mut [0; 4])).contains('|'));
        let text: String = alone.flat_map(|c| [c, '|']).collect();
        let folded = fold(&text);
        for normalizer in normalizers() {
            let seen = fold(&normalized(&normalizer, &text));
            let pairs = seen.split('|').zip(folded.split('|'));
            assert_eq!(
                pairs.clone().find(|(seen, folded)| seen != folded),
                None,
                "{normalizer:?}"
            );
            assert_eq!(seen.len(), folded.len(), "{normalizer:?}");
        }
    }

    proptest! {
        #[test]
        fn folding_sees_no_less_than_a_normaliser(
            text in prop_oneof![any::<String>(), "[<|IMimＩéﬁKſİ\u{301}\u{200B} ▁>]{0,12}"],
        ) {
            for normalizer in normalizers() {
                let seen = normalized(&normalizer, &text);
                prop_assert_eq!(fold(&seen), fold(&text), "{:?}", normalizer);
            }
        }
    }
}
