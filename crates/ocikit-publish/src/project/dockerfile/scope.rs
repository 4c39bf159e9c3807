use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ocikit::Platform;

use super::error::DockerfileProblem as Problem;
use super::expand::{Variables, expand};
use super::traced::Traced;
use crate::project::limits::MAX_EXPANSION_BYTES;

/// The values that a build gives to the variables of a Dockerfile.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Arguments {
    /// The build arguments.
    pub build: BTreeMap<String, String>,
    /// The platform to build for; sets `TARGETPLATFORM` and its like.
    pub platform: Option<Platform>,
    /// The names of the contexts that replace stages and images.
    pub named_contexts: BTreeSet<String>,
}

impl Arguments {
    /// Adds a build argument.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Arguments {
        self.build.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the platform.
    #[must_use]
    pub fn on(mut self, platform: Platform) -> Arguments {
        self.platform = Some(platform);
        self
    }
}

/// The variables that exist before the first `FROM`.
const PLATFORM_VARIABLES: [&str; 10] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETOSVERSION",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "BUILDOSVERSION",
];

/// The variables while a Dockerfile is read.
pub(super) struct Scope<'a> {
    arguments: &'a Arguments,
    escape: u8,
    /// The arguments before the first `FROM`.
    global: BTreeMap<String, Rc<Traced>>,
    /// The arguments and environment of the current stage.
    stage: BTreeMap<String, Rc<Traced>>,
    in_stage: bool,
    /// The variables of the current expansion that have no value.
    unset: RefCell<BTreeSet<String>>,
    /// Whether a value depends on the platform.
    pub(super) uses_platform: Cell<bool>,
    produced: Cell<usize>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(arguments: &'a Arguments, escape: u8) -> Scope<'a> {
        Scope {
            arguments,
            escape,
            global: BTreeMap::new(),
            stage: BTreeMap::new(),
            in_stage: false,
            unset: RefCell::default(),
            uses_platform: Cell::new(false),
            produced: Cell::new(0),
        }
    }

    /// Enters the next stage. It has no variable of the previous one.
    pub(super) fn enter_stage(&mut self) {
        self.in_stage = true;
        self.stage.clear();
    }

    /// Reads `ARG NAME` or `ARG NAME=VALUE`.
    pub(super) fn argument(&mut self, name: &str, default: Option<&Traced>) -> Result<(), Problem> {
        let given = self.arguments.build.get(name).map(|value| Rc::new(Traced::untraced(value)));
        let value = match (given, default) {
            (Some(given), _) => Some(given),
            (None, Some(default)) => Some(Rc::new(self.expand(default)?)),
            (None, None) => self.global.get(name).cloned().filter(|_| self.in_stage),
        };
        let Some(value) = value else { return Ok(()) };
        let variables = if self.in_stage { &mut self.stage } else { &mut self.global };
        variables.insert(name.to_owned(), value);
        Ok(())
    }

    /// Reads `ENV NAME=VALUE`, with the value expanded.
    pub(super) fn set_environment(&mut self, name: String, value: Traced) {
        self.stage.insert(name, Rc::new(value));
    }

    /// Expands text within the current stage.
    ///
    /// BuildKit refuses variables in `COPY --from` and `RUN --mount=from`. Programs that replace them before the build use
    /// the global arguments, so they count here too.
    pub(super) fn expand(&self, text: &Traced) -> Result<Traced, Problem> {
        self.run(text, self.in_stage)
    }

    /// Expands text of `FROM`, which sees the arguments before the first `FROM` only.
    pub(super) fn expand_global(&self, text: &Traced) -> Result<Traced, Problem> {
        self.run(text, false)
    }

    fn run(&self, text: &Traced, in_stage: bool) -> Result<Traced, Problem> {
        expand(text, self.escape, &View { scope: self, in_stage })
    }

    /// Returns the variables without a value since the last call.
    pub(super) fn take_unset(&self) -> BTreeSet<String> {
        self.unset.take()
    }

    fn of_platform(&self, name: &str) -> Option<Traced> {
        let platform = self.arguments.platform.as_ref()?;
        let part = name.strip_prefix("TARGET").or_else(|| name.strip_prefix("BUILD"))?;
        let value = match part {
            "PLATFORM" => platform.to_string(),
            "OS" => platform.os.clone(),
            "ARCH" => platform.architecture.clone(),
            "VARIANT" => platform.variant.clone().unwrap_or_default(),
            "OSVERSION" => platform.os_version.clone().unwrap_or_default(),
            _ => return None,
        };
        Some(Traced::untraced(&value))
    }
}

/// The variables that one expansion sees.
struct View<'a, 'b> {
    scope: &'a Scope<'b>,
    in_stage: bool,
}

impl Variables for View<'_, '_> {
    fn get(&self, name: &str) -> Option<Rc<Traced>> {
        let scope = self.scope;
        let stage = self.in_stage.then(|| scope.stage.get(name)).flatten();
        let found = stage.or_else(|| scope.global.get(name)).cloned();
        let found = found.or_else(|| {
            let is_of_platform = PLATFORM_VARIABLES.contains(&name);
            scope.uses_platform.set(scope.uses_platform.get() || is_of_platform);
            is_of_platform.then(|| scope.of_platform(name).map(Rc::new)).flatten()
        });
        if found.is_none() {
            scope.unset.borrow_mut().insert(name.to_owned());
        }
        found
    }

    fn charge(&self, bytes: usize) -> Result<(), Problem> {
        let produced = &self.scope.produced;
        produced.set(produced.get().saturating_add(bytes));
        match produced.get() > MAX_EXPANSION_BYTES {
            true => Err(Problem::TooMuchExpansion),
            false => Ok(()),
        }
    }
}
