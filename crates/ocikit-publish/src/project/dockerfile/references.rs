//! Finds the references to images in a Dockerfile.

use std::collections::BTreeSet;

use super::error::{DockerfileError, DockerfileProblem as Problem};
use super::model::{Dockerfile, Instruction};
use super::scope::{Arguments, Scope};
use super::traced::Traced;
use super::words::{blank_separated, fields, first_word, pair, quoted};
use crate::project::place::Span;

/// How a Dockerfile refers to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// `FROM`.
    From,
    /// `COPY --from`.
    CopyFrom,
    /// `RUN --mount=from=`.
    MountFrom,
    /// A named context of the metadata.
    Context,
}

impl Via {
    /// Returns the words for messages.
    pub fn words(self) -> &'static str {
        match self {
            Via::From => "FROM",
            Via::CopyFrom => "COPY --from",
            Via::MountFrom => "RUN --mount=from",
            Via::Context => "named context",
        }
    }
}

/// A reference to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageReference {
    /// How it is referred to.
    pub via: Via,
    /// The reference, with variables expanded.
    pub text: Traced,
    /// The reference as it is written.
    pub written: Traced,
    /// The place of the reference.
    pub span: Span,
    /// The value of `--platform` of `FROM`, with variables expanded.
    pub platform: Option<String>,
    /// Whether it stands in an `ONBUILD` instruction, which runs in the builds of descendants.
    pub on_build: bool,
    /// The variables in it that have no value.
    pub unset: BTreeSet<String>,
}

impl ImageReference {
    /// Returns whether BuildKit refuses the reference because of its variables.
    pub fn has_refused_variable(&self) -> bool {
        matches!(self.via, Via::CopyFrom | Via::MountFrom) && self.text != self.written
    }
}

/// The references of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct References {
    /// The references to images: neither to stages nor to `scratch`.
    pub references: Vec<ImageReference>,
    /// The names of the stages, in lower case; empty for stages without a name.
    pub stages: Vec<String>,
    /// Whether any of them depends on the platform of the build.
    pub depends_on_platform: bool,
}

/// The name of the image without content.
const SCRATCH: &str = "scratch";

impl Dockerfile {
    /// Finds the references to images, with the variables expanded.
    ///
    /// # Errors
    ///
    /// [`DockerfileError`] for a substitution or an instruction that BuildKit refuses.
    pub fn references(&self, arguments: &Arguments) -> Result<References, DockerfileError> {
        let scope = Scope::new(arguments, self.escape);
        let mut finder = Finder { file: self, arguments, scope, stages: Vec::new(), found: Vec::new() };
        for instruction in &self.instructions {
            finder.read(instruction)?;
        }
        let Finder { scope, stages, found, .. } = finder;
        let is_image = |reference: &ImageReference| {
            let text = reference.text.text();
            if arguments.named_contexts.contains(&*text) {
                return true;
            }
            match reference.via {
                Via::From => true,
                Via::CopyFrom | Via::MountFrom | Via::Context => {
                    text.parse::<usize>().is_err() && !stages.contains(&text.to_lowercase())
                }
            }
        };
        let references = found.into_iter().filter(|reference| is_image(reference)).collect();
        Ok(References { references, depends_on_platform: scope.uses_platform.get(), stages })
    }
}

struct Finder<'a> {
    file: &'a Dockerfile,
    arguments: &'a Arguments,
    scope: Scope<'a>,
    stages: Vec<String>,
    found: Vec<ImageReference>,
}

impl Finder<'_> {
    fn read(&mut self, instruction: &Instruction) -> Result<(), DockerfileError> {
        let file = self.file;
        let fail = |at: Option<Span>| move |problem| file.error(at, instruction.span, problem);
        let extent = instruction.arguments.extent();
        match instruction.keyword.as_str() {
            "FROM" => return self.from(instruction),
            "ARG" => {
                for word in quoted(&instruction.arguments, file.escape) {
                    let read = match pair(&word) {
                        Some((name, value)) => self.scope.argument(&name, Some(&value)),
                        None => self.scope.argument(&word.text(), None),
                    };
                    read.map_err(fail(word.extent()))?;
                }
            }
            "ENV" if !self.stages.is_empty() => self.environment(instruction).map_err(fail(extent))?,
            "COPY" | "RUN" if !self.stages.is_empty() => self.uses(instruction, false)?,
            "ONBUILD" if !self.stages.is_empty() => {
                if let Some(trigger) = &instruction.trigger {
                    self.uses(trigger, true)?;
                }
            }
            keyword if self.stages.is_empty() => {
                return Err(fail(None)(Problem::NoStage(keyword.to_owned())));
            }
            _ => {}
        }
        // What is unset in a value that no reference uses is of no interest.
        self.scope.take_unset();
        Ok(())
    }

    fn from(&mut self, instruction: &Instruction) -> Result<(), DockerfileError> {
        let file = self.file;
        let fail = |at: Option<Span>| move |problem| file.error(at, instruction.span, problem);
        let words = blank_separated(&instruction.arguments);
        let (image, stage) = match &words[..] {
            [image] => (image, None),
            [image, word, stage] if word.bytes().eq_ignore_ascii_case(b"as") => (image, Some(stage)),
            _ => return Err(fail(instruction.arguments.extent())(Problem::From)),
        };
        let stage_name = match stage {
            None => String::new(),
            Some(stage) => {
                let name = stage.text().to_lowercase();
                let is_valid = name.starts_with(|letter: char| letter.is_ascii_lowercase())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
                if !is_valid {
                    return Err(fail(stage.extent())(Problem::StageName(stage.text().into_owned())));
                }
                name
            }
        };
        self.scope.take_unset();
        let platform = instruction.flags.iter().find_map(|flag| value_of(flag, b"--platform="));
        let platform = platform.map(|platform| self.scope.expand_global(&platform)).transpose();
        let platform = platform.map_err(fail(instruction.flags.first().and_then(Traced::extent)))?;
        self.scope.take_unset();
        let text = self.scope.expand_global(image).map_err(fail(image.extent()))?;
        let unset = self.scope.take_unset();
        let name = text.text().into_owned();
        // A stage that is defined later is an image here. Names of stages are in lower case, and are compared exactly.
        let is_stage = !name.is_empty() && self.stages.contains(&name);
        let is_replaced = self.arguments.named_contexts.contains(&name);
        if is_replaced || (!is_stage && name != SCRATCH) {
            self.found.push(ImageReference {
                via: Via::From,
                text,
                span: image.extent().unwrap_or(instruction.span),
                written: image.clone(),
                platform: platform.map(|platform| platform.text().into_owned()),
                on_build: false,
                unset,
            });
        }
        self.stages.push(stage_name);
        self.scope.enter_stage();
        Ok(())
    }

    fn environment(&mut self, instruction: &Instruction) -> Result<(), Problem> {
        let words = quoted(&instruction.arguments, self.file.escape);
        let Some(first) = words.first() else { return Ok(()) };
        if first.find(b'=').is_none() {
            // The old form: `ENV NAME the whole rest`.
            let arguments = &instruction.arguments;
            let (name, start) = first_word(arguments);
            let value = self.scope.expand(&arguments.slice(start..arguments.len()))?;
            self.scope.set_environment(name, value);
            return Ok(());
        }
        // All values of one instruction see the variables before it.
        let mut values = Vec::new();
        for (name, value) in words.iter().filter_map(pair) {
            values.push((name, self.scope.expand(&value)?));
        }
        values.into_iter().for_each(|(name, value)| self.scope.set_environment(name, value));
        Ok(())
    }

    /// Reads `COPY --from` and `RUN --mount`.
    fn uses(&mut self, instruction: &Instruction, on_build: bool) -> Result<(), DockerfileError> {
        let file = self.file;
        let mut sources = Vec::new();
        for flag in &instruction.flags {
            match instruction.keyword.as_str() {
                "COPY" => sources.extend(value_of(flag, b"--from=").map(|value| (Via::CopyFrom, value))),
                "RUN" => {
                    let Some(mount) = value_of(flag, b"--mount=") else { continue };
                    let fields =
                        fields(&mount).ok_or_else(|| file.error(mount.extent(), instruction.span, Problem::Mount))?;
                    let mut from = fields.iter().filter_map(pair).filter(|(key, _)| key.eq_ignore_ascii_case("from"));
                    sources.extend(from.next_back().map(|(_, value)| (Via::MountFrom, value)));
                }
                _ => {}
            }
        }
        for (via, written) in sources {
            self.scope.take_unset();
            let text = self.scope.expand(&written);
            let text = text.map_err(|problem| file.error(written.extent(), instruction.span, problem))?;
            let unset = self.scope.take_unset();
            if text.bytes() == SCRATCH.as_bytes() || (text.is_empty() && unset.is_empty()) {
                continue;
            }
            let span = written.extent().unwrap_or(instruction.span);
            self.found.push(ImageReference { via, text, written, span, platform: None, on_build, unset });
        }
        Ok(())
    }
}

/// Returns the value of a flag.
fn value_of(flag: &Traced, name: &[u8]) -> Option<Traced> {
    flag.bytes().starts_with(name).then(|| flag.slice(name.len()..flag.len()))
}
