use super::language::{Language, Versions, first_version};
use super::project::Project;
use super::recipe::{Problem, Recipe};

pub(super) const GO: Language = Language {
    name: "go",
    files: &["go.mod"],
    versions: Versions::Minor,
    default_version: "1.25",
    stated_version: |project| {
        let text = project.read("go.mod")?;
        text.lines().find_map(|line| first_version(line.trim().strip_prefix("go ")?))
    },
    base: |version| format!("golang:{version}-alpine"),
    ignored: &[],
    write,
};

/// The image of the final stage. It has the certificates that a static program needs.
const FINAL: &str = "alpine:3.22";

fn write(project: &Project<'_>, recipe: Recipe, base: &str) -> Result<Recipe, Problem> {
    if !project.has("go.mod") {
        return Err("go.mod not found in source directory".into());
    }
    let package = main_package(project)?;
    let files = project.existing(&["go.mod", "go.sum"]);
    // A workspace or a vendored project has all it needs, and a replaced module may be in the project.
    let has_replacement = project.read("go.mod").is_some_and(|text| text.contains("=> ."));
    let recipe = recipe.stage(base, "build").workdir("/src");
    let recipe = match project.has("go.work") || project.has_directory("vendor") || has_replacement {
        true => recipe.copy_all(),
        false => recipe.install(&files, false, &["go mod download"]),
    };
    let build = format!("CGO_ENABLED=0 go build -trimpath -o /out/app {package}");
    let recipe = recipe.run(&[&build]).from(FINAL);
    Ok(recipe.copy_from("build", "/out/app", "/usr/local/bin/app").cmd(&["/usr/local/bin/app"]))
}

/// Returns the package of the program: the top directory, or the only directory below `cmd`.
fn main_package(project: &Project<'_>) -> Result<String, Problem> {
    let is_main = |directory: &str| {
        let names = project.names(directory).into_iter();
        let mut sources = names.filter(|name| name.ends_with(".go") && !name.ends_with("_test.go"));
        sources.any(|name| {
            let text = project.read(&if directory == "." { name } else { format!("{directory}/{name}") });
            text.is_some_and(|text| text.lines().any(|line| line.split_whitespace().eq(["package", "main"])))
        })
    };
    if is_main(".") {
        return Ok(".".to_owned());
    }
    let programs: Vec<_> = match project.has_directory("cmd") {
        true => {
            project.names("cmd").into_iter().map(|name| format!("cmd/{name}")).filter(|path| is_main(path)).collect()
        }
        false => Vec::new(),
    };
    match &programs[..] {
        [program] => Ok(format!("./{program}")),
        [] => Err("no package `main` is in the top directory or in a directory below cmd".into()),
        several => Err(format!("there are several programs: {}", several.join(", ")).into()),
    }
}
