//! The functions: those of Go that tags need, and some for texts.

use std::cmp::Ordering;

use super::error::{MAX_VALUE_BYTES, TemplateProblem};
use super::printf;
use super::value::Value;

/// A function, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Function(&'static str);

const FUNCTIONS: [&str; 21] = [
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "print",
    "printf",
    "slice",
    "default",
    "lower",
    "upper",
    "replace",
    "sanitize",
    "trimPrefix",
    "trimSuffix",
    "trunc",
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Function> {
        FUNCTIONS.into_iter().find(|known| *known == name).map(Function)
    }

    pub(super) fn is_short_circuit(self) -> bool {
        matches!(self.0, "and" | "or")
    }

    /// Returns whether an argument ends `and` or `or`.
    pub(super) fn is_decided_by(self, is_true: bool) -> bool {
        (self.0 == "or") == is_true
    }

    pub(super) fn wrong(self, problem: &str) -> TemplateProblem {
        TemplateProblem::Arguments { function: self.0.to_owned(), problem: problem.to_owned() }
    }

    pub(super) fn call(self, arguments: &[Value]) -> Result<Value, TemplateProblem> {
        let text = |text: String| Ok(Value::Text(text));
        match (self.0, arguments) {
            ("not", [value]) => Ok(Value::Bool(!value.is_true())),
            ("eq", [first, others @ ..]) if !others.is_empty() => {
                let orders = others.iter().map(|other| self.compare(first, other)).collect::<Result<Vec<_>, _>>()?;
                Ok(Value::Bool(orders.contains(&Ordering::Equal)))
            }
            ("ne" | "lt" | "le" | "gt" | "ge", [one, two]) => {
                let order = self.compare(one, two)?;
                Ok(Value::Bool(match self.0 {
                    "ne" => order.is_ne(),
                    "lt" => order.is_lt(),
                    "le" => order.is_le(),
                    "gt" => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            ("len", [Value::Text(text)]) => Ok(Value::Number(text.len() as i64)),
            ("print", values) => text(print(values)),
            ("printf", [Value::Text(format), values @ ..]) => {
                printf::printf(format, values).map(Value::Text).map_err(|error| self.wrong(&error.to_string()))
            }
            ("slice", [Value::Text(whole), bounds @ ..]) if bounds.len() <= 2 => text(self.slice(whole, bounds)?),
            ("default", [default, value]) => Ok(if value.is_true() { value } else { default }.clone()),
            ("lower", [Value::Text(value)]) => text(value.to_lowercase()),
            ("upper", [Value::Text(value)]) => text(value.to_uppercase()),
            ("replace", [Value::Text(old), Value::Text(new), Value::Text(whole)]) => {
                // The size is known before the text is built.
                let count = if old.is_empty() { whole.chars().count() + 1 } else { whole.matches(&**old).count() };
                if whole.len().saturating_add(count.saturating_mul(new.len())) > 2 * MAX_VALUE_BYTES {
                    return Err(TemplateProblem::TooLarge);
                }
                text(whole.replace(&**old, new))
            }
            ("sanitize", [Value::Text(value)]) => text(crate::sanitize::sanitize(value)),
            ("trimPrefix", [Value::Text(prefix), Value::Text(whole)]) => {
                text(whole.strip_prefix(&**prefix).unwrap_or(whole).to_owned())
            }
            ("trimSuffix", [Value::Text(suffix), Value::Text(whole)]) => {
                text(whole.strip_suffix(&**suffix).unwrap_or(whole).to_owned())
            }
            ("trunc", [Value::Number(length), Value::Text(whole)]) => {
                text(whole.chars().take(usize::try_from(*length).unwrap_or_default()).collect())
            }
            _ => {
                let found: Vec<_> = arguments.iter().map(|value| value.kind()).collect();
                let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
                Err(self.wrong(&format!("does not take {found}")))
            }
        }
    }

    fn compare(self, one: &Value, two: &Value) -> Result<Ordering, TemplateProblem> {
        match (one, two) {
            (Value::Text(one), Value::Text(two)) => Ok(one.cmp(two)),
            (Value::Number(one), Value::Number(two)) => Ok(one.cmp(two)),
            (Value::Bool(one), Value::Bool(two)) if matches!(self.0, "eq" | "ne") => Ok(one.cmp(two)),
            (one, two) => {
                let (one, two) = (one.kind(), two.kind());
                Err(self.wrong(&format!("cannot compare {one} with {two}")))
            }
        }
    }

    fn slice(self, whole: &str, bounds: &[Value]) -> Result<String, TemplateProblem> {
        let bound = |position: usize, default: usize| match bounds.get(position) {
            None => Ok(default),
            Some(Value::Number(number)) => usize::try_from(*number).map_err(|_| self.wrong("has a negative bound")),
            Some(_) => Err(self.wrong("needs numbers as bounds")),
        };
        let (from, to) = (bound(0, 0)?, bound(1, whole.len())?);
        let part = whole.get(from..to);
        part.map(str::to_owned).ok_or_else(|| self.wrong(&format!("is out of range for {} bytes", whole.len())))
    }
}

/// Puts values together. As in Go, a space goes between two of which neither is a text.
fn print(values: &[Value]) -> String {
    let mut printed = String::new();
    for (position, value) in values.iter().enumerate() {
        if position > 0 && ![&values[position - 1], value].iter().any(|value| matches!(value, Value::Text(_))) {
            printed.push(' ');
        }
        printed.push_str(&value.text());
        if printed.len() > MAX_VALUE_BYTES {
            break;
        }
    }
    printed
}
