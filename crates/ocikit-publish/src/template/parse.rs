//! Builds the tree of a template.

use super::error::{MAX_DEPTH, TemplateError, TemplateProblem};
use super::function::Function;
use super::lex::{Part, Token, TokenKind, split, unexpected};

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    /// `$name := pipeline`, or `$name = pipeline` if the variable exists already.
    Set {
        offset: usize,
        name: String,
        is_new: bool,
        pipeline: Pipeline,
    },
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// Commands of which each gets the value of the one before as its last argument.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) offset: usize,
    pub(super) head: Head,
    pub(super) arguments: Vec<Operand>,
}

#[derive(Debug, Clone)]
pub(super) enum Head {
    Function(Function),
    Operand(Operand),
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) offset: usize,
    pub(super) base: Base,
    /// The fields and methods after it.
    pub(super) path: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    /// The values of the template.
    Fields,
    Variable(String),
    Text(String),
    Number(i64),
    Bool(bool),
    Nested(Pipeline),
}

/// Parts of Go's templates that could loop, recurse, or change what the dot means.
const UNSUPPORTED: [&str; 8] = ["range", "with", "template", "define", "block", "break", "continue", "nil"];

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let parts = split(text)?;
    let mut parser = Blocks { parts: parts.into_iter().peekable() };
    let (nodes, end) = parser.nodes(0)?;
    match end {
        Some((offset, word)) => Err(unexpected(offset, format!("`{word}`"))),
        None => Ok(nodes),
    }
}

struct Blocks<I: Iterator<Item = Part>> {
    parts: std::iter::Peekable<I>,
}

/// The `else` or `end` that ended a list of nodes, with the tokens after `else`.
type BlockEnd = Option<(usize, String)>;

impl<I: Iterator<Item = Part>> Blocks<I> {
    /// Parses up to `else` or `end`, which stays to be taken if it is `else`.
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, BlockEnd), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.peek() {
            if let Part::Action { offset, tokens } = part
                && let Some(Token { kind: TokenKind::Word(word), .. }) = tokens.first()
                && (word == "else" || word == "end")
            {
                return Ok((nodes, Some((*offset, word.clone()))));
            }
            match self.parts.next() {
                Some(Part::Text(text)) => nodes.push(Node::Text(text)),
                Some(Part::Action { offset, tokens }) => nodes.push(self.action(offset, &tokens, depth)?),
                None => {}
            }
        }
        Ok((nodes, None))
    }

    fn action(&mut self, offset: usize, tokens: &[Token], depth: usize) -> Result<Node, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(TemplateError { offset, problem: TemplateProblem::TooDeep });
        }
        match &tokens.iter().map(|token| &token.kind).collect::<Vec<_>>()[..] {
            [] => Err(unexpected(offset, "empty action")),
            [TokenKind::Word(word), ..] if word == "if" => self.conditional(offset, &tokens[1..], depth),
            [TokenKind::Variable(name), sign @ (TokenKind::Declare | TokenKind::Assign), ..] => {
                let pipeline = whole(offset, &tokens[2..])?;
                let is_new = **sign == TokenKind::Declare;
                Ok(Node::Set { offset, name: (*name).clone(), is_new, pipeline })
            }
            _ => Ok(Node::Print(whole(offset, tokens)?)),
        }
    }

    fn conditional(&mut self, offset: usize, condition: &[Token], depth: usize) -> Result<Node, TemplateError> {
        let condition = whole(offset, condition)?;
        let (then, _) = self.nodes(depth + 1)?;
        let otherwise = match self.parts.next() {
            Some(Part::Action { offset, tokens }) => match &tokens[..] {
                [Token { kind: TokenKind::Word(word), .. }] if word == "end" => Vec::new(),
                [_] => {
                    let (nodes, _) = self.nodes(depth + 1)?;
                    match self.parts.next() {
                        Some(Part::Action { tokens, .. }) if is_end(&tokens) => nodes,
                        _ => return Err(unexpected(offset, "`else` without `end`")),
                    }
                }
                [_, Token { kind: TokenKind::Word(word), .. }, rest @ ..] if word == "if" => {
                    if depth >= MAX_DEPTH {
                        return Err(TemplateError { offset, problem: TemplateProblem::TooDeep });
                    }
                    vec![self.conditional(offset, rest, depth + 1)?]
                }
                _ => return Err(unexpected(offset, "text after `else` or `end`")),
            },
            _ => return Err(unexpected(offset, "`if` without `end`")),
        };
        Ok(Node::If { condition, then, otherwise })
    }
}

fn is_end(tokens: &[Token]) -> bool {
    matches!(tokens, [Token { kind: TokenKind::Word(word), .. }] if word == "end")
}

/// Parses all tokens of an action as a pipeline.
fn whole(offset: usize, tokens: &[Token]) -> Result<Pipeline, TemplateError> {
    let mut reader = Reader { tokens, at: 0, end: offset };
    let pipeline = reader.pipeline(0)?;
    match reader.next() {
        Some(token) => Err(unexpected(token.offset, token.kind.describe())),
        None => Ok(pipeline),
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    /// The offset of the action, for errors at its end.
    end: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<&Token> {
        self.at += 1;
        self.tokens.get(self.at - 1)
    }

    fn pipeline(&mut self, depth: usize) -> Result<Pipeline, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(TemplateError { offset: self.end, problem: TemplateProblem::TooDeep });
        }
        let mut commands = vec![self.command(depth)?];
        while matches!(self.peek(), Some(Token { kind: TokenKind::Pipe, .. })) {
            self.at += 1;
            let command = self.command(depth)?;
            let takes_arguments = match &command.head {
                Head::Function(_) => true,
                Head::Operand(operand) => !operand.path.is_empty(),
            };
            if !takes_arguments {
                return Err(unexpected(command.offset, "value after `|`"));
            }
            commands.push(command);
        }
        Ok(Pipeline { commands })
    }

    fn command(&mut self, depth: usize) -> Result<Command, TemplateError> {
        let Some(Token { offset, kind, .. }) = self.peek().cloned() else {
            return Err(unexpected(self.end, "end of the action"));
        };
        let head = match kind {
            TokenKind::Word(word) if word != "true" && word != "false" => {
                self.at += 1;
                if UNSUPPORTED.contains(&&*word) {
                    return Err(TemplateError { offset, problem: TemplateProblem::Unsupported(word) });
                }
                let function = Function::named(&word);
                Head::Function(function.ok_or(TemplateError { offset, problem: TemplateProblem::NoFunction(word) })?)
            }
            _ => Head::Operand(self.operand(depth)?),
        };
        let mut arguments = Vec::new();
        while !matches!(self.peek(), None | Some(Token { kind: TokenKind::Pipe | TokenKind::Close, .. })) {
            arguments.push(self.operand(depth)?);
        }
        Ok(Command { offset, head, arguments })
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, TemplateError> {
        let Some(Token { offset, kind, .. }) = self.next().cloned() else {
            return Err(unexpected(self.end, "end of the action"));
        };
        let mut path = Vec::new();
        let base = match kind {
            TokenKind::Field(name) if name.is_empty() => return Err(unexpected(offset, "`.` without a field")),
            TokenKind::Field(name) => {
                path.push(name);
                Base::Fields
            }
            TokenKind::Variable(name) if name == "$" => Base::Fields,
            TokenKind::Variable(name) => Base::Variable(name),
            TokenKind::Text(text) => Base::Text(text),
            TokenKind::Number(number) => Base::Number(number),
            TokenKind::Word(word) if word == "true" || word == "false" => Base::Bool(word == "true"),
            TokenKind::Open => {
                let nested = self.pipeline(depth + 1)?;
                match self.next() {
                    Some(Token { kind: TokenKind::Close, .. }) => Base::Nested(nested),
                    _ => return Err(unexpected(offset, "`(` without `)`")),
                }
            }
            other => return Err(unexpected(offset, other.describe())),
        };
        while let Some(Token { kind: TokenKind::Field(name), spaced: false, offset }) = self.peek() {
            if name.is_empty() {
                return Err(unexpected(*offset, "`.` without a field"));
            }
            path.push(name.clone());
            self.at += 1;
        }
        if matches!(base, Base::Fields) && path.is_empty() {
            return Err(unexpected(offset, "`$` without a field"));
        }
        Ok(Operand { offset, base, path })
    }
}
