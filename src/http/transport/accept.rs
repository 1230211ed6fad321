//! What a client says it can read (RFC 9110, 12.5.1): media ranges with their qualities.

use axum::http::{HeaderMap, header};

/// A media range of an `Accept` header.
#[derive(Debug, PartialEq)]
pub(crate) struct Range<'a> {
    /// `*` for any.
    kind: &'a str,
    /// `*` for any.
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Range<'a> {
    /// `None` for what is no media range.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self {
            kind,
            subtype,
            parameters: Vec::new(),
            quality: 1.0,
        };
        for parameter in parts.filter(|part| !part.is_empty()) {
            let (name, value) = parameter.split_once('=')?;
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("q") {
                let quality: f32 = value.parse().ok()?;
                if !(0.0..=1.0).contains(&quality) {
                    return None;
                }
                range.quality = quality;
            } else {
                range.parameters.push((name, value));
            }
        }
        Some(range)
    }

    /// How closely it names a type; `None`: it does not.
    fn closeness(&self, kind: &str, subtype: &str) -> Option<u8> {
        if self.kind == "*" && self.subtype == "*" {
            return Some(0);
        }
        if !self.kind.eq_ignore_ascii_case(kind) {
            return None;
        }
        match self.subtype {
            "*" => Some(1),
            named => named.eq_ignore_ascii_case(subtype).then_some(2),
        }
    }

    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        let named = |(key, _): &&(&str, &str)| key.eq_ignore_ascii_case(name);
        self.parameters.iter().find(named).map(|&(_, value)| value)
    }
}

/// How a type is asked for.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub quality: f32,
    /// It is named itself, not by a range with `*`.
    pub by_name: bool,
    /// Its place among the ranges.
    pub place: usize,
    pub range: Range<'a>,
}

/// All ranges that a request names; what cannot be read is left out.
pub(crate) fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| Range::parse(range.trim()))
        .collect()
}

/// The wish for a type among those that `fits` admits: of the ranges that name it most closely the one
/// of the highest quality. `None`: it is not wanted.
pub(crate) fn wish<'a>(
    headers: &'a HeaderMap,
    (kind, subtype): (&str, &str),
    fits: impl Fn(&Range<'_>) -> bool,
) -> Option<Wish<'a>> {
    let mut best: Option<(u8, Wish<'a>)> = None;
    for (place, range) in ranges(headers).into_iter().enumerate() {
        let Some(closeness) = range.closeness(kind, subtype).filter(|_| fits(&range)) else {
            continue;
        };
        let better = best
            .as_ref()
            .is_none_or(|(closest, wish)| (closeness, range.quality) > (*closest, wish.quality));
        if better {
            let wish = Wish {
                quality: range.quality,
                by_name: closeness == 2,
                place,
                range,
            };
            best = Some((closeness, wish));
        }
    }
    best.map(|(_, wish)| wish).filter(|wish| wish.quality > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(accept: &'static str, (kind, subtype): (&str, &str)) -> Option<f32> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        wish(&headers, (kind, subtype), |_| true).map(|wish| wish.quality)
    }

    #[test]
    fn the_closest_range_counts() {
        let json = ("application", "json");
        for (accept, expected) in [
            ("application/json", Some(1.0)),
            ("APPLICATION/JSON;q=0.5", Some(0.5)),
            ("*/*;q=0.1, application/*;q=0.2", Some(0.2)),
            ("application/json;q=0, */*", None),
            ("text/html", None),
            ("application/json;q=2", None),
            ("application/json;q=nan", None),
            ("application/json ; charset=utf-8 ; q=0.25,", Some(0.25)),
            ("nonsense, */*", Some(1.0)),
        ] {
            assert_eq!(quality(accept, json), expected, "{accept}");
        }
    }
}
