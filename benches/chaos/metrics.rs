//! The daemon's own figures, from its metrics page.

use std::collections::BTreeMap;

use crate::daemon_support::Daemon;

pub struct Metrics(String);

/// A histogram's cumulative counts by upper bound, all label sets together.
pub struct Histogram(Vec<(f64, f64)>);

impl Metrics {
    pub fn of(daemon: &Daemon) -> Self {
        let answer = daemon.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Self(answer.body)
    }

    /// A counter summed up by one of its labels.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.samples(name) {
            if let Some(key) = label_of(labels, label) {
                *sums.entry(key.to_owned()).or_default() += value;
            }
        }
        sums
    }

    /// A histogram of several daemons and label sets as one.
    pub fn histogram(pages: &[&Self], name: &str) -> Histogram {
        let bucket = format!("{name}_bucket");
        let mut counts: Vec<(f64, f64)> = Vec::new();
        for (labels, value) in pages.iter().flat_map(|page| page.samples(&bucket)) {
            let Some(bound) = label_of(labels, "le").and_then(|bound| bound.parse().ok()) else {
                continue;
            };
            match counts.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += value,
                None => counts.push((bound, value)),
            }
        }
        counts.sort_by(|left, right| left.0.total_cmp(&right.0));
        Histogram(counts)
    }

    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.split(' ').next()?.parse().ok()?))
        })
    }
}

impl Histogram {
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// Upper bound of the bucket that holds this share of the observations.
    pub fn at_most(&self, share: f64) -> Option<f64> {
        let wanted = self.count() * share;
        let bucket = self.0.iter().find(|(_, count)| *count >= wanted);
        bucket
            .filter(|(_, count)| *count > 0.0)
            .map(|(bound, _)| *bound)
    }
}

fn label_of<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}
