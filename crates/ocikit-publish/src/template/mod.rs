//! Templates for tags: the part of Go's `text/template` that cannot loop, recurse or reach outside its values.
//!
//! A template has text, comments, trim markers, pipelines, fields, variables, `if`, and pure functions. There are no
//! loops, no nested templates and no calls into the host, so the work is bounded by the length of the template times
//! [`MAX_VALUE_BYTES`]. See `docs/decisions/publish.md`.

mod error;
mod evaluate;
mod function;
mod lex;
mod method;
mod parse;
mod printf;
mod time;
mod value;

use std::str::FromStr;

pub use error::{MAX_DEPTH, MAX_TEMPLATE_BYTES, MAX_VALUE_BYTES, TemplateError, TemplateProblem};
use parse::Node;
pub use value::{Fields, Value};

/// A parsed template.
///
/// ```
/// use ocikit_publish::template::{Fields, Template, TemplateProblem, Value};
///
/// struct Commit;
///
/// impl Fields for Commit {
///     fn field(&self, name: &str) -> Option<Value> {
///         (name == "ShortSHA").then(|| Value::Text("da39a3ee".to_owned()))
///     }
///
///     fn env(&self, _: &str) -> Option<String> {
///         None
///     }
/// }
///
/// let template: Template = "v{{ .ShortSHA }}".parse()?;
/// assert_eq!(template.render(&Commit)?, "vda39a3ee");
/// assert!(matches!(
///     "{{ .Missing }}".parse::<Template>()?.render(&Commit).unwrap_err().problem,
///     TemplateProblem::NoField(_),
/// ));
/// # Ok::<(), ocikit_publish::template::TemplateError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<Node>,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError { offset: 0, problem: TemplateProblem::TooLong });
        }
        Ok(Template { nodes: parse::parse(text)? })
    }
}

impl Template {
    /// Returns the text for these values.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] for an unknown field, a variable of the environment that is not allowed, arguments that do not
    /// fit their function, and a value longer than [`MAX_VALUE_BYTES`].
    pub fn render(&self, fields: &dyn Fields) -> Result<String, TemplateError> {
        evaluate::render(&self.nodes, fields)
    }
}

#[cfg(test)]
mod tests;
