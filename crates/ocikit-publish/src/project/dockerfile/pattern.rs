//! Patterns of `${NAME#PATTERN}`: `*` is any text, `?` any letter, and a backslash takes the next letter as it is.

use super::error::DockerfileProblem as Problem;
use super::traced::{Traced, letter};
use crate::project::limits::{MAX_EXPANDED_BYTES, MAX_PATTERN_BYTES};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Letter(char),
}

/// A pattern. The lengths of patterns and values are bounded, because matching takes their product.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Part>);

impl Pattern {
    /// Reads a pattern that is matched against a value of this length.
    pub(super) fn of(text: &[u8], value_bytes: usize) -> Result<Pattern, Problem> {
        if text.len().max(value_bytes) > MAX_PATTERN_BYTES {
            return Err(Problem::LongPattern);
        }
        let mut letters = letters(text).into_iter().map(|(letter, _)| letter);
        let mut parts = Vec::new();
        while let Some(letter) = letters.next() {
            parts.push(match letter {
                '*' => Part::Any,
                '?' => Part::One,
                '\\' => {
                    let escaped = letters.next().ok_or(Problem::Substitution("its pattern ends with a backslash"))?;
                    Part::Letter(escaped)
                }
                letter => Part::Letter(letter),
            });
        }
        Ok(Pattern(parts))
    }

    /// Returns the numbers of letters at the beginning of a text that match, the smallest and the largest.
    fn matches(&self, letters: impl Iterator<Item = char>) -> Option<(usize, usize)> {
        let mut states = vec![false; self.0.len() + 1];
        states[0] = true;
        let skip = |states: &mut Vec<bool>| {
            for (at, part) in self.0.iter().enumerate() {
                if *part == Part::Any && states[at] {
                    states[at + 1] = true;
                }
            }
        };
        skip(&mut states);
        let mut found = states[self.0.len()].then_some((0, 0));
        for (count, letter) in letters.enumerate() {
            let mut next = vec![false; states.len()];
            for (at, part) in self.0.iter().enumerate().filter(|(at, _)| states[*at]) {
                match part {
                    Part::Any => next[at] = true,
                    Part::One => next[at + 1] = true,
                    Part::Letter(expected) if *expected == letter => next[at + 1] = true,
                    Part::Letter(_) => {}
                }
            }
            skip(&mut next);
            states = next;
            if states[self.0.len()] {
                found = Some((found.map_or(count + 1, |(first, _)| first), count + 1));
            }
            if !states.contains(&true) {
                break;
            }
        }
        found
    }
}

fn letters(text: &[u8]) -> Vec<(char, usize)> {
    let (mut letters, mut at) = (Vec::new(), 0);
    while let Some((letter, width)) = letter(&text[at..]) {
        letters.push((letter, width));
        at += width;
    }
    letters
}

/// Returns the length in bytes of the first letters that match; 0 if none do.
fn matched(pattern: &Pattern, letters: impl Iterator<Item = (char, usize)> + Clone, is_longest: bool) -> usize {
    let found = pattern.matches(letters.clone().map(|(letter, _)| letter));
    let count = found.map_or(0, |(first, last)| if is_longest { last } else { first });
    letters.take(count).map(|(_, width)| width).sum()
}

/// Returns the length in bytes of the beginning that matches; 0 if none does.
pub(super) fn longest_prefix(pattern: &Pattern, value: &[u8], is_longest: bool) -> usize {
    matched(pattern, letters(value).into_iter(), is_longest)
}

/// Returns the length in bytes of the end that matches; 0 if none does.
pub(super) fn longest_suffix(pattern: &Pattern, value: &[u8], is_longest: bool) -> usize {
    let reversed = Pattern(pattern.0.iter().rev().copied().collect());
    matched(&reversed, letters(value).into_iter().rev(), is_longest)
}

/// Replaces the first match, or each match, by a text. Matches are as long as possible.
pub(super) fn replace(
    pattern: &Pattern,
    value: &Traced,
    replacement: &Traced,
    is_each: bool,
) -> Result<Traced, Problem> {
    let letters = letters(value.bytes());
    let (mut result, mut at, mut position, mut is_done) = (Traced::default(), 0, 0, false);
    while position <= letters.len() {
        let found = match is_done {
            true => None,
            false => pattern.matches(letters[position..].iter().map(|(letter, _)| *letter)),
        };
        if let Some((_, count)) = found {
            result.append(replacement);
            is_done = !is_each;
            at += letters[position..][..count].iter().map(|(_, width)| width).sum::<usize>();
            position += count;
            if result.len() > MAX_EXPANDED_BYTES {
                return Err(Problem::TooMuchExpansion);
            }
            if count > 0 {
                continue;
            }
        }
        if let Some((_, width)) = letters.get(position) {
            result.push(value, at..at + width);
            at += width;
        }
        position += 1;
    }
    Ok(result)
}
