use super::language::{Language, Versions, first_version};
use super::project::{Project, is_plain};
use super::recipe::{Problem, Recipe};

pub(super) const RUST: Language = Language {
    name: "rust",
    files: &["Cargo.toml"],
    versions: Versions::Minor,
    default_version: "1",
    stated_version: |project| {
        let file = project.first(&["rust-toolchain.toml", "rust-toolchain"])?;
        let text = project.read(file)?;
        let channel = text.lines().find(|line| line.trim_start().starts_with("channel")).unwrap_or(&text);
        first_version(channel)
    },
    // The same Debian as that of the final stage, whose C library the program uses.
    base: |version| format!("rust:{version}-slim-bookworm"),
    ignored: &["target"],
    write,
};

/// The image of the final stage.
const FINAL: &str = "debian:bookworm-slim";

fn write(project: &Project<'_>, recipe: Recipe, base: &str) -> Result<Recipe, Problem> {
    let manifest = project.read("Cargo.toml").ok_or("Cargo.toml not found in source directory")?;
    let name = program(&manifest)?;
    let recipe = recipe.stage(base, "build").workdir("/src").copy_all();
    let recipe = match project.has("Cargo.lock") {
        true => recipe.run(&["cargo install --locked --path . --root /out"]),
        false => recipe
            .run(&["cargo install --path . --root /out"])
            .note("there is no Cargo.lock: cargo takes the newest versions of the dependencies"),
    };
    let program = format!("/usr/local/bin/{name}");
    Ok(recipe.from(FINAL).copy_from("build", "/out/bin/", "/usr/local/bin/").cmd(&[&program]))
}

/// Returns the name of the program: the default one, that of the only `[[bin]]`, or that of the package.
fn program(manifest: &str) -> Result<String, Problem> {
    let manifest: toml::Table = manifest.parse().map_err(|error| format!("Cargo.toml is not valid: {error}"))?;
    let text = |table: &toml::Table, key: &str| Some(table.get(key)?.as_str()?.to_owned());
    let package = manifest.get("package").and_then(toml::Value::as_table);
    let package = package.ok_or("Cargo.toml has no package; a workspace has several")?;
    let programs = manifest.get("bin").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = match programs {
        [program] => program.as_table().and_then(|program| text(program, "name")),
        _ => None,
    };
    let name = text(package, "default-run").or(named).or_else(|| text(package, "name"));
    name.filter(|name| is_plain(name)).ok_or_else(|| "Cargo.toml has no valid name of a package".into())
}
