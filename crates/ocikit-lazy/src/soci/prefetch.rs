//! The spans of a layer that a snapshotter fetches first, by the rule of the reference.

use std::collections::HashMap;

use ocikit_image::files::Path;

use crate::soci::parse::Ztoc;

/// The type of a list of spans in a SOCI index.
pub const PREFETCH: &str = "application/vnd.amazon.soci.prefetch.v1+json";

/// The version of the list.
const VERSION: &str = "1.0";

/// The files and directories that are fetched first. A file is that of the highest layer that has it.
#[derive(Debug)]
pub(crate) struct Prefetch {
    /// Whether a layer had the file, by its path.
    wanted: HashMap<Path, bool>,
}

impl Prefetch {
    pub(crate) fn of(paths: &[Path]) -> Prefetch {
        Prefetch { wanted: paths.iter().map(|path| (path.clone(), false)).collect() }
    }

    /// Returns the list for a layer, whose layers above were asked before; `None` if it has no such file.
    pub(crate) fn list(&mut self, ztoc: &Ztoc) -> Option<String> {
        let mut spans = Vec::new();
        for file in ztoc.files.iter().filter(|file| file.kind == "reg") {
            let path = Path::confined(&file.name);
            let is_below =
                || std::iter::successors(path.parent(), Path::parent).any(|above| self.wanted.contains_key(&above));
            let is_listed = match self.wanted.get(&path) {
                Some(was_found) => !was_found,
                None => is_below(),
            };
            if is_listed {
                // The end is that of the reference: the span of the byte after the file.
                let (start, end) = (span(ztoc, file.offset), span(ztoc, file.offset.saturating_add(file.size)));
                spans.push((start, end.max(start)));
                if let Some(was_found) = self.wanted.get_mut(&path) {
                    *was_found = true;
                }
            }
        }
        // The keys of the reference, in its order.
        let text = |(start, end)| format!("{{\"start_span\":{start},\"end_span\":{end}}}");
        let spans: Vec<_> = merged(spans).into_iter().map(text).collect();
        let list = || format!("{{\"version\":\"{VERSION}\",\"prefetch_spans\":[{}]}}", spans.join(","));
        (!spans.is_empty()).then(list)
    }
}

/// Returns the number of the span with a byte of the tar.
fn span(ztoc: &Ztoc, offset: u64) -> u64 {
    if ztoc.checkpoints.is_empty() {
        return offset / ztoc.span_size.max(1);
    }
    let before = ztoc.checkpoints.partition_point(|checkpoint| checkpoint.uncompressed <= offset);
    before.saturating_sub(1) as u64
}

/// Merges spans that overlap or follow each other.
fn merged(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in spans {
        match merged.last_mut() {
            Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_follow_each_other_are_one() {
        assert_eq!(merged(vec![(7, 9), (0, 1), (2, 2), (4, 5), (8, 8)]), [(0, 2), (4, 5), (7, 9)]);
    }
}
