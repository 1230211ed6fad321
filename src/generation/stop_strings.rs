//! Stop strings over a stream: text is held back exactly while it may still become the start of a
//! stop string, and no text of a stop string is ever released.

/// Matches stop strings against text that arrives in pieces.
#[derive(Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    /// Which of them was reached.
    reached: Option<usize>,
}

impl StopStrings {
    /// Empty stop strings match nothing and are dropped.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            held: String::new(),
            reached: None,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty()
    }

    /// The one that was reached.
    pub fn reached(&self) -> Option<&str> {
        self.reached.map(|place| self.stops[place].as_str())
    }

    /// Whether the beginning of what may be one is held back.
    pub fn holds_text(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes the next piece. Returns what may be sent now and whether a stop string was reached;
    /// after it was, everything later is to be ignored.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (piece.to_owned(), false);
        }
        self.held.push_str(piece);
        // The match that ends first wins, so that the cut does not depend on how text was pieced.
        let matches = self.stops.iter().enumerate().filter_map(|(place, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, place))
        });
        if let Some((_, start, place)) = matches.min() {
            self.reached = Some(place);
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self
            .stops
            .iter()
            .map(|stop| self.overlap(stop))
            .max()
            .unwrap_or(0);
        let sendable = self.held.len() - keep;
        let rest = self.held.split_off(sendable);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is still held back when the generation ends without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of the held text that are a proper prefix of `stop`.
    fn overlap(&self, stop: &str) -> usize {
        let most = self.held.len().min(stop.len() - 1);
        (1..=most)
            .rev()
            .find(|&len| {
                stop.is_char_boundary(len)
                    && self.held.as_bytes().ends_with(&stop.as_bytes()[..len])
            })
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopStrings::new(stops.iter().map(|s| s.to_string()));
        let mut sent = String::new();
        for piece in pieces {
            let (text, stopped) = matcher.push(piece);
            sent.push_str(&text);
            if stopped {
                return (sent, true);
            }
        }
        sent.push_str(&matcher.finish());
        (sent, false)
    }

    #[test]
    fn a_stop_string_split_over_pieces_never_leaks() {
        assert_eq!(stream(&["END"], &["a E", "N", "Db"]), ("a ".into(), true));
    }

    #[test]
    fn held_text_is_released_when_it_turns_out_harmless() {
        assert_eq!(stream(&["END"], &["E", "N", "x"]), ("ENx".into(), false));
        assert_eq!(stream(&["END"], &["E", "N"]), ("EN".into(), false));
    }

    #[test]
    fn it_is_known_which_one_was_reached() {
        let mut matcher = StopStrings::new(["bb", "", "cd", "c"].map(str::to_owned));
        assert_eq!(matcher.push("ab"), ("a".to_owned(), false));
        assert_eq!(matcher.reached(), None);
        assert!(matcher.push("cd").1);
        assert_eq!(matcher.reached(), Some("c"));
    }

    #[test]
    fn the_stop_string_that_ends_first_wins() {
        assert_eq!(stream(&["cd", "b"], &["abcd"]), ("a".into(), true));
        assert_eq!(stream(&["bb", "abba"], &["abba"]), ("a".into(), true));
        assert_eq!(stream(&["bb", "abba"], &["abb", "a"]), ("a".into(), true));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,3}", 0..3),
            cuts in prop::collection::vec(0usize..24, 0..6),
        ) {
            let first = stops.iter().filter_map(|s| text.find(s.as_str()).map(|at| (at + s.len(), at))).min();
            let expected = match first {
                Some((_, at)) => (text[..at].to_owned(), true),
                None => (text.clone(), false),
            };
            let mut bounds: Vec<usize> = cuts.into_iter().filter(|&c| text.is_char_boundary(c) && c <= text.len()).collect();
            bounds.extend([0, text.len()]);
            bounds.sort_unstable();
            let pieces: Vec<&str> = bounds.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            prop_assert_eq!(stream(&stops, &pieces), expected);
        }
    }
}
