//! Reads EDN (<https://github.com/edn-format/edn>) with the place of every form, so that an edit keeps comments, unknown
//! keys and layout.

use super::limits::MAX_EDN_DEPTH;
use super::place::Span;

/// A form and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Form {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// The value of a form.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    /// Without the colon.
    Keyword(String),
    /// A symbol, number, character, `nil`, `true` or `false`, as it is written.
    Atom(String),
    /// A list, vector or set.
    Sequence(Vec<Form>),
    Map(Vec<(Form, Form)>),
    /// A form with a tag, such as `#inst "…"`.
    Tagged(Box<Form>),
}

/// Why EDN cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(super) struct EdnError {
    pub(super) offset: usize,
    pub(super) problem: &'static str,
}

/// Reads the only form of a text. A second one would have no meaning, so it is refused.
pub(super) fn read(text: &str) -> Result<Form, EdnError> {
    let mut reader = Reader { text, at: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 } };
    let Some(form) = reader.form(0)? else { return Err(reader.fail("there is no form")) };
    match reader.form(0)? {
        Some(second) => {
            Err(EdnError { offset: second.span.start, problem: "a second form follows, which would have no meaning" })
        }
        None if reader.peek().is_some() => Err(reader.fail("a closing bracket follows that was never opened")),
        None => Ok(form),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn fail(&self, problem: &'static str) -> EdnError {
        EdnError { offset: self.at, problem }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip(&mut self) {
        while let Some(letter) = self.peek() {
            match letter {
                ';' => self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at),
                letter if letter.is_whitespace() || letter == ',' => self.at += letter.len_utf8(),
                _ => return,
            }
        }
    }

    /// Reads the next form; `None` at the end or before a closing bracket.
    fn form(&mut self, depth: usize) -> Result<Option<Form>, EdnError> {
        if depth > MAX_EDN_DEPTH {
            return Err(self.fail("forms are nested too deeply"));
        }
        loop {
            self.skip();
            let start = self.at;
            let Some(letter) = self.peek() else { return Ok(None) };
            let value = match letter {
                ')' | ']' | '}' => return Ok(None),
                '(' => self.sequence(')', depth)?,
                '[' => self.sequence(']', depth)?,
                '{' => self.map(depth)?,
                '"' => self.string()?,
                '\\' => self.character()?,
                '#' => {
                    self.at += 1;
                    match self.peek() {
                        Some('{') => self.sequence('}', depth)?,
                        Some('_') => {
                            self.at += 1;
                            if self.form(depth + 1)?.is_none() {
                                return Err(self.fail("`#_` discards nothing"));
                            }
                            continue;
                        }
                        Some(letter) if letter.is_alphabetic() => {
                            self.token();
                            let form = self.form(depth + 1)?;
                            Value::Tagged(Box::new(form.ok_or_else(|| self.fail("a tag has no form"))?))
                        }
                        _ => return Err(self.fail("`#` is not followed by `{`, `_` or a tag")),
                    }
                }
                ':' => {
                    self.at += 1;
                    match self.token() {
                        "" => return Err(self.fail("a keyword has no name")),
                        name => Value::Keyword(name.to_owned()),
                    }
                }
                _ => match self.token() {
                    "" => return Err(self.fail("this character is not expected here")),
                    name => Value::Atom(name.to_owned()),
                },
            };
            return Ok(Some(Form { span: (start..self.at).into(), value }));
        }
    }

    /// Takes a symbol, number or the name of a keyword.
    fn token(&mut self) -> &str {
        let start = self.at;
        let ends = |letter: char| {
            letter.is_whitespace() || matches!(letter, ',' | ';' | '"' | '(' | ')' | '[' | ']' | '{' | '}')
        };
        self.at += self.text[start..].find(ends).unwrap_or(self.text.len() - start);
        &self.text[start..self.at]
    }

    fn sequence(&mut self, close: char, depth: usize) -> Result<Value, EdnError> {
        self.at += 1;
        let mut forms = Vec::new();
        while let Some(form) = self.form(depth + 1)? {
            forms.push(form);
        }
        self.close(close)?;
        Ok(Value::Sequence(forms))
    }

    fn map(&mut self, depth: usize) -> Result<Value, EdnError> {
        self.at += 1;
        let mut pairs: Vec<(Form, Form)> = Vec::new();
        while let Some(key) = self.form(depth + 1)? {
            let value = self.form(depth + 1)?.ok_or_else(|| self.fail("a key of the map has no value"))?;
            pairs.push((key, value));
        }
        self.close('}')?;
        Ok(Value::Map(pairs))
    }

    fn close(&mut self, close: char) -> Result<(), EdnError> {
        match self.peek() {
            Some(letter) if letter == close => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(self.fail("the closing bracket is of another kind")),
            None => Err(self.fail("a bracket is not closed")),
        }
    }

    fn string(&mut self) -> Result<Value, EdnError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let letter = self.peek().ok_or_else(|| self.fail("a string is not closed"))?;
            self.at += letter.len_utf8();
            match letter {
                '"' => return Ok(Value::Text(text)),
                '\\' => {
                    let escaped = self.peek().ok_or_else(|| self.fail("a string is not closed"))?;
                    self.at += escaped.len_utf8();
                    text.push(match escaped {
                        't' => '\t',
                        'r' => '\r',
                        'n' => '\n',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        '\\' | '"' => escaped,
                        'u' => {
                            let digits = self.text.get(self.at..self.at + 4);
                            let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                            let found = code.and_then(char::from_u32);
                            let found = found.ok_or_else(|| self.fail("`\\u` needs the four digits of a character"))?;
                            self.at += 4;
                            found
                        }
                        _ => return Err(self.fail("this escape sequence is not known")),
                    });
                }
                letter => text.push(letter),
            }
        }
    }

    fn character(&mut self) -> Result<Value, EdnError> {
        self.at += 1;
        let letter = self.peek().ok_or_else(|| self.fail("a character is missing"))?;
        let start = self.at;
        self.at += letter.len_utf8();
        if letter.is_alphanumeric() {
            self.token();
        }
        Ok(Value::Atom(format!("\\{}", &self.text[start..self.at])))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get<'a>(form: &'a Form, name: &str) -> Option<&'a Form> {
        let Value::Map(pairs) = &form.value else { return None };
        pairs.iter().find(|(key, _)| key.value == Value::Keyword(name.to_owned())).map(|(_, value)| value)
    }

    #[test]
    fn forms_of_all_kinds_are_read() {
        let text = r#"; first
            {:a "x\t\u00e9\"", :b [1 -2.5M \newline \c nil true sym/bol], #_ignored :c #{:d} :e #inst "2020" :f (1 ; two
            2) "g" {}} ; end
            #_discarded"#;
        let form = read(text).unwrap();
        assert_eq!(get(&form, "a").unwrap().value, Value::Text("x\té\"".to_owned()));
        let Value::Sequence(items) = &get(&form, "b").unwrap().value else { panic!() };
        assert_eq!(items.len(), 7);
        let Value::Sequence(items) = &get(&form, "f").unwrap().value else { panic!() };
        assert_eq!(&text[items[1].span.range()], "2");
        assert!(matches!(get(&form, "e").unwrap().value, Value::Tagged(_)));
    }

    #[test]
    fn broken_forms_are_refused() {
        for (text, problem, offset) in [
            ("", "there is no form", 0),
            ("{:a", "a key of the map has no value", 3),
            ("[1 2}", "the closing bracket is of another kind", 4),
            ("[1 2", "a bracket is not closed", 4),
            ("\"a", "a string is not closed", 2),
            ("\"\\q\"", "this escape sequence is not known", 3),
            ("\"\\u12", "`\\u` needs the four digits of a character", 3),
            ("#", "`#` is not followed by `{`, `_` or a tag", 1),
            ("{:a #_}", "`#_` discards nothing", 6),
            (": a", "a keyword has no name", 1),
            ("{:a 1} {:a 2}", "a second form follows, which would have no meaning", 7),
            ("{:a 1} ; b\n}", "a closing bracket follows that was never opened", 11),
        ] {
            assert_eq!(read(text).unwrap_err(), EdnError { offset, problem }, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(read(&deep).unwrap_err().problem, "forms are nested too deeply");
        let deep = "#_".repeat(100_000);
        assert_eq!(read(&deep).unwrap_err().problem, "forms are nested too deeply");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\](){}#_;:\"\\\\a1 \\nü,]{0,40}") {
            if let Ok(form) = read(&text) {
                prop_assert!(form.span.end <= text.len());
            }
        }
    }
}
