//! Sets of completion indexes as a Job's status writes them: `0,2-4`. Pure.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use k8s_openapi::api::core::v1::Pod;

/// The annotation and label that say which index a Pod works on.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub type Index = i32;

/// Reads ranges; those beyond `completions` and those that are no ranges are left out.
pub fn parse(text: &str, completions: Index) -> BTreeSet<Index> {
    let range = |part: &str| -> Option<RangeInclusive<Index>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse::<Index>().ok()?.min(completions - 1))
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Two neighbours are listed, three and more are a range, as upstream writes them.
pub fn format(indexes: &BTreeSet<Index>) -> String {
    let mut ranges: Vec<(Index, Index)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let range = |(first, last): &(Index, Index)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// The index of a Pod, if it has one that the Job still knows.
pub fn of(pod: &Pod, completions: Index) -> Option<Index> {
    let text = pod.metadata.annotations.as_ref()?.get(INDEX)?;
    text.parse().ok().filter(|index| (0..completions).contains(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_and_read() {
        let check = |text: &str, completions: Index, canonical: &str| {
            assert_eq!(format(&parse(text, completions)), canonical, "{text}");
        };
        check("", 5, "");
        check("0,2-4", 5, "0,2-4");
        check("0,1,3", 5, "0,1,3");
        check("0,1,2,3,7-9", 9, "0-3,7,8");
        check("x,1", 5, "1");
    }
}
