use std::collections::HashMap;

use super::error::{MAX_VALUE_BYTES, TemplateError, TemplateProblem};
use super::method::method;
use super::parse::{Base, Command, Head, Node, Operand, Pipeline};
use super::value::{Fields, Value};

pub(super) fn render(nodes: &[Node], fields: &dyn Fields) -> Result<String, TemplateError> {
    let mut run = Run { fields, variables: HashMap::new(), printed: String::new() };
    run.nodes(nodes)?;
    Ok(run.printed)
}

struct Run<'a> {
    fields: &'a dyn Fields,
    /// Variables are visible to the end of the template, while those of Go end with their `if`.
    variables: HashMap<String, Value>,
    printed: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node]) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.print(0, text)?,
                Node::Print(pipeline) => {
                    let offset = pipeline.commands.first().map_or(0, |command| command.offset);
                    let value = self.pipeline(pipeline)?;
                    self.print(offset, &value.text())?;
                }
                Node::Set { offset, name, is_new, pipeline } => {
                    if !is_new && !self.variables.contains_key(name) {
                        let problem = TemplateProblem::NoVariable(name.clone());
                        return Err(TemplateError { offset: *offset, problem });
                    }
                    let value = self.pipeline(pipeline)?;
                    self.variables.insert(name.clone(), value);
                }
                Node::If { condition, then, otherwise } => {
                    let chosen = if self.pipeline(condition)?.is_true() { then } else { otherwise };
                    self.nodes(chosen)?;
                }
            }
        }
        Ok(())
    }

    fn print(&mut self, offset: usize, text: &str) -> Result<(), TemplateError> {
        if self.printed.len() + text.len() > MAX_VALUE_BYTES {
            return Err(TemplateError { offset, problem: TemplateProblem::TooLarge });
        }
        self.printed.push_str(text);
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline) -> Result<Value, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last)?);
        }
        // The parser creates no pipeline without a command.
        Ok(last.unwrap_or(Value::Text(String::new())))
    }

    fn command(&self, command: &Command, piped: Option<Value>) -> Result<Value, TemplateError> {
        let at = |problem| TemplateError { offset: command.offset, problem };
        let value = match &command.head {
            Head::Function(function) if function.is_short_circuit() => {
                // The arguments after the decisive one are not evaluated, as in Go.
                let mut value = None;
                for argument in &command.arguments {
                    let found = self.call(argument, &[])?;
                    if function.is_decided_by(found.is_true()) {
                        return Ok(found);
                    }
                    value = Some(found);
                }
                piped.or(value).ok_or_else(|| at(function.wrong("needs an argument")))
            }
            Head::Function(function) => function.call(&self.arguments(&command.arguments, piped)?).map_err(at),
            Head::Operand(operand) => {
                let arguments = self.arguments(&command.arguments, piped)?;
                return self.call(operand, &arguments);
            }
        }?;
        match &value {
            Value::Text(text) if text.len() > MAX_VALUE_BYTES => Err(at(TemplateProblem::TooLarge)),
            _ => Ok(value),
        }
    }

    fn arguments(&self, operands: &[Operand], piped: Option<Value>) -> Result<Vec<Value>, TemplateError> {
        let values = operands.iter().map(|operand| self.call(operand, &[]));
        values.chain(piped.map(Ok)).collect()
    }

    /// Evaluates an operand; the arguments are those of its last method.
    fn call(&self, operand: &Operand, arguments: &[Value]) -> Result<Value, TemplateError> {
        let at = |problem| TemplateError { offset: operand.offset, problem };
        let (mut value, path) = match (&operand.base, &operand.path[..]) {
            (Base::Fields, [name, rest @ ..]) if name == "Env" => {
                let [Value::Text(name)] = arguments else {
                    let problem = "needs the name of a variable".to_owned();
                    return Err(at(TemplateProblem::Arguments { function: ".Env".to_owned(), problem }));
                };
                let found = self.fields.env(name);
                let found = found.ok_or_else(|| at(TemplateProblem::NotAllowed(name.clone())))?;
                if let [next, ..] = rest {
                    return Err(at(TemplateProblem::NoField(format!("Env.{next}"))));
                }
                if found.len() > MAX_VALUE_BYTES {
                    return Err(at(TemplateProblem::TooLarge));
                }
                return Ok(Value::Text(found));
            }
            (Base::Fields, [name, rest @ ..]) => {
                let found = self.fields.field(name);
                (found.ok_or_else(|| at(TemplateProblem::NoField(name.clone())))?, rest)
            }
            // The parser does not accept it.
            (Base::Fields, []) => return Err(at(TemplateProblem::NoField(String::new()))),
            (Base::Variable(name), path) => {
                let found = self.variables.get(name).cloned();
                (found.ok_or_else(|| at(TemplateProblem::NoVariable(name.clone())))?, path)
            }
            (Base::Text(text), path) => (Value::Text(text.clone()), path),
            (Base::Number(number), path) => (Value::Number(*number), path),
            (Base::Bool(bool), path) => (Value::Bool(*bool), path),
            (Base::Nested(pipeline), path) => (self.pipeline(pipeline)?, path),
        };
        for (number, name) in path.iter().enumerate() {
            let given = if number + 1 == path.len() { arguments } else { &[] };
            value = match value {
                Value::Time(time) => method(time, name, given).map_err(at)?,
                _ => return Err(at(TemplateProblem::NoField(name.clone()))),
            };
        }
        if path.is_empty() && !arguments.is_empty() {
            let problem = "takes no arguments".to_owned();
            return Err(at(TemplateProblem::Arguments { function: "a value".to_owned(), problem }));
        }
        Ok(value)
    }
}
