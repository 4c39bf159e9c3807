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

/// Corepack, which the images of Node.js have until version 24, provides pnpm and the later versions of Yarn.
const COREPACK: &str = "corepack enable";
const INSTALL_COREPACK: &str = "npm install --global corepack";
/// The first version of Node.js without Corepack.
const WITHOUT_COREPACK: u32 = 25;

const PNPM: Manager = Manager {
    program: "pnpm",
    files: &["package.json", "pnpm-lock.yaml", ".npmrc"],
    commands: &[COREPACK, "pnpm install --frozen-lockfile"],
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
    commands: &[COREPACK, "yarn install --immutable"],
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

    /// Returns the commands for a project, with the version of the package manager that can read the lock file. The project may
    /// name a version itself: `packageManager` of `package.json`, `yarnPath` of `.yarnrc.yml`.
    fn commands(&self, project: &Project<'_>, package: &Value, base: &str) -> Vec<&'static str> {
        let mut commands = self.commands.to_vec();
        if commands[0] != COREPACK {
            return commands;
        }
        let is_named = package["packageManager"].is_string() || setting(project, "yarnPath").is_some();
        if let Some(version) = (!is_named).then(|| self.version(project)).flatten() {
            commands.insert(1, version);
        }
        let node = base.strip_prefix("node:").and_then(first_version);
        if node.is_some_and(|node| node.parse().is_ok_and(|node: u32| node >= WITHOUT_COREPACK)) {
            commands.insert(0, INSTALL_COREPACK);
        }
        commands
    }

    /// Returns the command for the version that wrote the lock file, if the default of Corepack cannot read it. For Yarn that is
    /// Yarn 1, which ignores the lock file and `--immutable`.
    fn version(&self, project: &Project<'_>) -> Option<&'static str> {
        let stated = |file: &str, key: &str| {
            let text = project.read(file)?;
            let line =
                text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':').map(str::to_owned))?;
            first_version(&line)?.split('.').next()?.parse::<u32>().ok()
        };
        match self.program {
            "pnpm" => match stated("pnpm-lock.yaml", "lockfileVersion")? {
                5 => Some("corepack install --global pnpm@7"),
                6 => Some("corepack install --global pnpm@8"),
                _ => None,
            },
            _ => match stated("yarn.lock", "version") {
                Some(..=5) => Some("corepack install --global yarn@2"),
                Some(6 | 7) => Some("corepack install --global yarn@3"),
                _ => Some("corepack install --global yarn@4"),
            },
        }
    }
}

/// Returns a top-level setting of Yarn 2 and later.
fn setting(project: &Project<'_>, key: &str) -> Option<String> {
    let text = project.read(".yarnrc.yml")?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// Returns whether a dependency is a directory or archive of the project.
fn has_local_dependency(package: &Value) -> bool {
    let lists = ["dependencies", "devDependencies", "optionalDependencies", "resolutions", "overrides"];
    let values = lists.into_iter().filter_map(|list| package[list].as_object()).flat_map(|list| list.values());
    let local = ["file:", "link:", "portal:", "patch:", "./", "../"];
    values.filter_map(Value::as_str).any(|value| local.iter().any(|start| value.starts_with(start)))
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
        || has_local_dependency(&package)
        || INSTALL_SCRIPTS.into_iter().any(has_script);
    let commands = manager.commands(project, &package, base);
    let mut recipe = recipe.from(base).workdir("/app");
    if manager.program == "pnpm" && package["packageManager"].is_null() {
        // The newest pnpm needs a newer Node.js than that of the image. Corepack knows a version that fits.
        recipe = recipe.env("COREPACK_DEFAULT_TO_LATEST", "0");
    }
    recipe = recipe.install(&project.existing(manager.files), needs_all, &commands);
    if manager.commands == NPM_WITHOUT_LOCK.commands {
        recipe = recipe.note("there is no lock file: `npm install` takes the newest versions of the dependencies");
    }
    if has_script("build") {
        recipe = recipe.run(&[&format!("{} run build", manager.program)]);
    }
    let main = package["main"].as_str().filter(|main| is_inside(main));
    let main = main.filter(|main| has_script("build") || project.has(main.trim_start_matches("./")));
    match (project.first(&ENTRIES), main) {
        (Some(entry), _) | (None, Some(entry)) => {
            let is_plug_and_play = manager.commands == YARN_BERRY.commands
                && setting(project, "nodeLinker").is_none_or(|linker| linker == "pnp");
            let loader: &[&str] = match (is_plug_and_play, package["type"] == "module") {
                (false, _) => &[],
                (true, false) => &["--require", "./.pnp.cjs"],
                (true, true) => &["--require", "./.pnp.cjs", "--experimental-loader", "./.pnp.loader.mjs"],
            };
            Ok(recipe.cmd(&[&["node"], loader, &[entry]].concat()))
        }
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
