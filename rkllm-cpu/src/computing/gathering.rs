//! Which sequences change streams so that those of a step lie side by side. llama.cpp evaluates streams
//! together only as far as their numbers follow each other: a gap costs a further pass over the weights. A
//! decision only.

/// A stream, in the order of their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Its sequence is in the steps.
    pub(super) is_member: bool,
    pub(super) cells: usize,
}

/// Two streams that change their contents next, a member's first, and how many cells are copied for that. None:
/// the members lie side by side, or there are more than `most` to copy. Where nothing is to be copied, members
/// come to the first streams, which have been used before.
pub(super) fn next_exchange(streams: &[Stream], most: usize) -> Option<([usize; 2], usize)> {
    let members = streams.iter().filter(|stream| stream.is_member).count();
    let moves = |begin: usize| {
        let within = begin..begin + members;
        let every = streams.iter().enumerate();
        every.filter(move |(at, stream)| stream.is_member != within.contains(at))
    };
    let cells = |begin: &usize| moves(*begin).map(|(_, stream)| stream.cells).sum::<usize>();
    let begin = (0..=streams.len() - members).min_by_key(cells)?;
    let least = |is_member| {
        let alike = moves(begin).filter(|(_, stream)| stream.is_member == is_member);
        alike.min_by_key(|(_, stream)| stream.cells)
    };
    let ((outside, member), (inside, other)) = (least(true)?, least(false)?);
    let copied = member.cells + other.cells;
    (copied <= most).then_some(([outside, inside], copied))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IN: fn(usize) -> Stream = |cells| Stream {
        is_member: true,
        cells,
    };
    const OUT: fn(usize) -> Stream = |cells| Stream {
        is_member: false,
        cells,
    };

    #[test]
    fn the_least_is_copied() {
        let streams = [IN(300), OUT(50), IN(20), IN(500), OUT(0)];
        assert_eq!(next_exchange(&streams, 400), Some(([0, 4], 300)));
        assert_eq!(next_exchange(&streams, 299), None);
        let streams = [IN(300), OUT(50), IN(20), OUT(500), OUT(0)];
        assert_eq!(next_exchange(&streams, 400), Some(([2, 1], 70)));
    }

    #[test]
    fn a_run_that_begins_is_put_beside_the_others() {
        let streams = [OUT(0), IN(900), OUT(0), OUT(70), IN(0)];
        assert_eq!(next_exchange(&streams, 0), Some(([4, 0], 0)));
    }

    proptest! {
        #[test]
        fn all_come_to_lie_side_by_side(
            streams in prop::collection::vec((any::<bool>(), 0..500_usize), 1..12),
        ) {
            let mut streams: Vec<Stream> = streams
                .into_iter()
                .map(|(is_member, cells)| Stream { is_member, cells })
                .collect();
            for _ in 0..streams.len() {
                if let Some(([a, b], _)) = next_exchange(&streams, usize::MAX) {
                    prop_assert!(streams[a].is_member && !streams[b].is_member);
                    streams.swap(a, b);
                }
            }
            let is_member = |stream: &Stream| stream.is_member;
            let members = streams.iter().filter(|stream| stream.is_member).count();
            let first = streams.iter().position(is_member).unwrap_or(0);
            prop_assert!(streams[first..first + members].iter().all(is_member));
            prop_assert_eq!(next_exchange(&streams, usize::MAX).map(|_| ()), None);
        }
    }
}
