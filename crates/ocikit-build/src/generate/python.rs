use serde_json::Value;

use super::language::{Language, Versions, first_version};
use super::project::Project;
use super::recipe::{Problem, Recipe};

pub(super) const PYTHON: Language = Language {
    name: "python",
    files: &["pyproject.toml", "requirements.txt", "Pipfile", "Pipfile.lock", "poetry.lock", "setup.py"],
    versions: Versions::Minor,
    default_version: "3.12",
    stated_version: |project| first_version(&project.read(".python-version")?),
    base: |version| format!("python:{version}-slim"),
    ignored: &["**/__pycache__", "**/*.pyc", ".venv", "venv"],
    write,
};

/// The files that are tried as the program, in this order.
const ENTRIES: [&str; 5] = ["main.py", "app.py", "run.py", "server.py", "src/main.py"];

/// `--only main` replaces `--no-dev`, which Poetry 2 does not have. The project itself is not installed, because its files are not
/// copied yet.
const POETRY: [&str; 3] = [
    "pip install poetry",
    "poetry config virtualenvs.create false",
    "poetry install --only main --no-root --no-interaction --no-ansi",
];
const PIPENV: [&str; 2] = ["pip install pipenv", "pipenv install --system --deploy --ignore-pipfile"];
const HASHED: &str = "pip install --require-hashes --only-binary :all: -r requirements.txt";
const PLAIN: &str = "pip install --no-cache-dir -r requirements.txt";
const PACKAGE: &str = "pip install --no-cache-dir .";

fn write(project: &Project<'_>, recipe: Recipe, base: &str) -> Result<Recipe, Problem> {
    let recipe = recipe.from(base).workdir("/app");
    let needs = |name: &str| -> Result<(), Problem> {
        match project.has(name) {
            true => Ok(()),
            false => Err(format!("{name} not found in source directory").into()),
        }
    };
    let known = ["poetry.lock", "Pipfile.lock", "requirements.txt", "pyproject.toml", "setup.py"];
    let recipe = match project.first(&known) {
        Some("poetry.lock") => {
            needs("pyproject.toml")?;
            let lock = project.read("poetry.lock").unwrap_or_default();
            let is_local = |line: &str| line == "type = \"directory\"" || line == "type = \"file\"";
            let needs_all = lock.lines().map(str::trim).any(is_local);
            recipe.install(&["pyproject.toml", "poetry.lock"], needs_all, &POETRY)
        }
        Some("Pipfile.lock") => {
            needs("Pipfile")?;
            let needs_all = locks_files(&project.read("Pipfile.lock").unwrap_or_default());
            recipe.install(&["Pipfile", "Pipfile.lock"], needs_all, &PIPENV)
        }
        Some("requirements.txt") => {
            let text = project.read("requirements.txt").ok_or("requirements.txt cannot be read")?;
            let command = if text.contains("--hash=") { HASHED } else { PLAIN };
            recipe.install(&["requirements.txt"], names_files(&text), &[command])
        }
        Some(_) => recipe
            .install(&[], true, &[PACKAGE])
            .note("there is no lock file: `pip install` takes the newest versions of the dependencies"),
        None => return Err(format!("none of {} exists", known.join(", ")).into()),
    };
    let entry = project.first(&ENTRIES).ok_or_else(|| format!("none of {} exists", ENTRIES.join(", ")))?;
    Ok(recipe.cmd(&["python", entry]))
}

/// Returns whether a lock file of Pipenv names directories or files of the project.
fn locks_files(lock: &str) -> bool {
    let lock: Value = serde_json::from_str(lock).unwrap_or_default();
    let packages = lock["default"].as_object().into_iter().flat_map(|packages| packages.values());
    let mut sources = packages.filter_map(|package| package["path"].as_str().or_else(|| package["file"].as_str()));
    sources.any(|source| !source.contains("://") || source.starts_with("file:"))
}

/// Returns whether requirements name files of the project: other requirements, constraints, or packages in directories.
fn names_files(requirements: &str) -> bool {
    const OPTIONS: [&str; 7] = ["-r", "-c", "-e", "--requirement", "--constraint", "--editable", "--find-links"];
    requirements.lines().map(str::trim).any(|line| {
        OPTIONS.iter().any(|option| line.starts_with(option))
            || line.starts_with(['.', '/'])
            || line.contains("file:")
            || [".whl", ".tar.gz"].iter().any(|end| line.ends_with(end) && !line.contains("://"))
    })
}
