use jiff::Timestamp;

/// A value in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// A truth value.
    Bool(bool),
    /// A time, in UTC.
    Time(Timestamp),
}

impl Value {
    /// Returns the name of the type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Number(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::Time(_) => "a time",
        }
    }

    /// Returns the text that a template prints for the value.
    pub fn text(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(bool) => bool.to_string(),
            Value::Time(time) => super::time::format(*time, "2006-01-02 15:04:05 -0700 MST"),
        }
    }

    /// Returns whether a condition holds: the value is not empty, zero or false.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Text(text) => !text.is_empty(),
            Value::Number(number) => *number != 0,
            Value::Bool(bool) => *bool,
            Value::Time(_) => true,
        }
    }
}

/// The values of a template.
pub trait Fields {
    /// Returns the field with this name, without the dot.
    fn field(&self, name: &str) -> Option<Value>;

    /// Returns a variable of the environment: empty if it is not set, `None` if it is not on the allow-list.
    fn env(&self, name: &str) -> Option<String>;
}
