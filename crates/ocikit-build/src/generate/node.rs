use serde_json::Value;

use super::language::{Language, Versions, first_version};
use super::project::Project;
use super::recipe::{Problem, Recipe};

pub(super) const NODE: Language = Language {
    name: "nodejs",
    files: &["package.json"],
    versions: Versions::Major,
    default_version: "22",
    stated_version,
    base: |version| format!("node:{version}-alpine"),
    ignored: &["node_modules"],
    write,
};

/// The files that are tried as the program, in this order.
const ENTRIES: [&str; 5] = ["index.js", "src/index.js", "main.js", "app.js", "server.js"];

/// Scripts of a package that run when its dependencies are installed. They may need any file.
const INSTALL_SCRIPTS: [&str; 4] = ["preinstall", "install", "postinstall", "prepare"];

fn stated_version(project: &Project<'_>) -> Option<String> {
    let file = project.first(&[".nvmrc", ".node-version"])?;
    first_version(&project.read(file)?)
}

/// A package manager, by the lock file that the project has.
struct Manager {
    program: &'static str,
    /// The files that it needs; those that do not exist are left out.
    files: &'static [&'static str],
    commands: &'static [&'static str],
}

const PNPM: Manager = Manager {
    program: "pnpm",
    files: &["package.json", "pnpm-lock.yaml", ".npmrc"],
    commands: &["corepack enable", "pnpm install --frozen-lockfile"],
};
const YARN: Manager = Manager {
    program: "yarn",
    files: &["package.json", "yarn.lock", ".npmrc", ".yarnrc"],
    commands: &["yarn install --frozen-lockfile"],
};
/// Yarn 2 and later, which the images of Node.js do not have.
const YARN_BERRY: Manager = Manager {
    program: "yarn",
    files: &["package.json", "yarn.lock", ".yarnrc.yml"],
    commands: &["corepack enable", "yarn install --immutable"],
};
const NPM: Manager = Manager {
    program: "npm",
    files: &["package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"],
    commands: &["npm ci"],
};
const NPM_WITHOUT_LOCK: Manager =
    Manager { program: "npm", files: &["package.json", ".npmrc"], commands: &["npm install"] };

impl Manager {
    /// Returns the manager of the first lock file that exists.
    fn of(project: &Project<'_>) -> Manager {
        let is_berry = || project.read("yarn.lock").is_some_and(|text| text.contains("__metadata:"));
        match project.first(&["pnpm-lock.yaml", "yarn.lock", "package-lock.json", "npm-shrinkwrap.json"]) {
            Some("pnpm-lock.yaml") => PNPM,
            Some("yarn.lock") if is_berry() => YARN_BERRY,
            Some("yarn.lock") => YARN,
            Some(_) => NPM,
            None => NPM_WITHOUT_LOCK,
        }
    }
}

fn write(project: &Project<'_>, recipe: Recipe, base: &str) -> Result<Recipe, Problem> {
    let text = project.read("package.json").ok_or("package.json not found in source directory")?;
    let package: Value = serde_json::from_str(&text).map_err(|error| format!("package.json is not valid: {error}"))?;
    let has_script = |name: &str| package["scripts"][name].is_string();
    let manager = Manager::of(project);
    let needs_all = !package["workspaces"].is_null()
        || project.has("pnpm-workspace.yaml")
        || project.has_directory(".yarn")
        || project.has_directory("patches")
        || INSTALL_SCRIPTS.into_iter().any(has_script);
    let mut recipe =
        recipe.from(base).workdir("/app").install(&project.existing(manager.files), needs_all, manager.commands);
    if manager.commands == NPM_WITHOUT_LOCK.commands {
        recipe = recipe.note("there is no lock file: `npm install` takes the newest versions of the dependencies");
    }
    if has_script("build") {
        recipe = recipe.run(&[&format!("{} run build", manager.program)]);
    }
    let main = package["main"].as_str().filter(|main| is_inside(main));
    let main = main.filter(|main| has_script("build") || project.has(main.trim_start_matches("./")));
    match (project.first(&ENTRIES), main) {
        (Some(entry), _) | (None, Some(entry)) => Ok(recipe.cmd(&["node", entry])),
        (None, None) if has_script("start") => Ok(recipe.cmd(&[manager.program, "run", "start"])),
        (None, None) => {
            Err(format!("none of {} exists, and package.json has no `main` and no script `start`", ENTRIES.join(", "))
                .into())
        }
    }
}

/// Returns whether a path stays in the project.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..")
}
