/// Why a Dockerfile cannot be generated.
#[derive(Debug)]
pub(super) struct Problem(pub(super) String);

impl From<String> for Problem {
    fn from(text: String) -> Problem {
        Problem(text)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Problem {
        Problem(text.to_owned())
    }
}

/// The instructions of a Dockerfile in order.
#[derive(Debug, Default)]
pub(super) struct Recipe {
    instructions: Vec<String>,
    notes: Vec<String>,
}

impl Recipe {
    /// Starts a stage from an image.
    pub(super) fn from(self, image: &str) -> Recipe {
        self.add(format!("FROM {image}"))
    }

    /// Starts a stage with a name from an image.
    pub(super) fn stage(self, image: &str, name: &str) -> Recipe {
        self.add(format!("FROM {image} AS {name}"))
    }

    pub(super) fn workdir(self, directory: &str) -> Recipe {
        self.add(format!("WORKDIR {directory}"))
    }

    /// Sets an environment variable to a value without spaces.
    pub(super) fn env(self, name: &str, value: &str) -> Recipe {
        self.add(format!("ENV {name}={value}"))
    }

    /// Copies files of the project to the working directory.
    pub(super) fn copy(self, files: &[&str]) -> Recipe {
        self.add(format!("COPY {} ./", files.join(" ")))
    }

    /// Copies the whole project to the working directory.
    pub(super) fn copy_all(self) -> Recipe {
        self.add("COPY . .".to_owned())
    }

    /// Copies a path of another stage.
    pub(super) fn copy_from(self, stage: &str, from: &str, to: &str) -> Recipe {
        self.add(format!("COPY --from={stage} {from} {to}"))
    }

    /// Installs dependencies: copies only the files that list them, so that the step is cached while other files change. If the
    /// installation needs more files, copies the whole project first.
    pub(super) fn install(self, files: &[&str], needs_all: bool, commands: &[&str]) -> Recipe {
        match needs_all {
            true => self.copy_all().run(commands),
            false => self.copy(files).run(commands).copy_all(),
        }
    }

    /// Runs commands, each if the one before succeeds.
    pub(super) fn run(self, commands: &[&str]) -> Recipe {
        self.add(format!("RUN {}", commands.join(" && ")))
    }

    /// Sets the command as a JSON array, in which any text can stand.
    pub(super) fn cmd(self, words: &[&str]) -> Recipe {
        let words: Vec<_> = words.iter().map(|word| serde_json::Value::from(*word).to_string()).collect();
        self.add(format!("CMD [{}]", words.join(",")))
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Recipe {
        self.notes.push(note.into());
        self
    }

    /// Returns the text and the notes. One blank line is between instructions.
    pub(super) fn finish(self) -> (String, Vec<String>) {
        (self.instructions.join("\n\n") + "\n", self.notes)
    }

    fn add(mut self, instruction: String) -> Recipe {
        self.instructions.push(instruction);
        self
    }
}
