use serde_json::Value;

use super::language::{Language, Versions, first_version};
use super::project::Project;
use super::recipe::{Problem, Recipe};

pub(super) const PHP: Language = Language {
    name: "php",
    files: &["composer.json"],
    versions: Versions::Minor,
    default_version: "8.4",
    stated_version: |project| first_version(&project.read(".php-version")?),
    base: |version| format!("php:{version}-cli"),
    ignored: &["vendor"],
    write,
};

/// The image that installs dependencies: Composer with git and unzip, which the images of PHP lack.
const COMPOSER: &str = "composer:2";

fn write(project: &Project<'_>, recipe: Recipe, base: &str) -> Result<Recipe, Problem> {
    let text = project.read("composer.json").ok_or("composer.json not found in source directory")?;
    let package: Value = serde_json::from_str(&text).map_err(|error| format!("composer.json is not valid: {error}"))?;
    // The repositories are a list, or a map.
    let repositories = package["repositories"].as_array().cloned().unwrap_or_default();
    let named = package["repositories"].as_object().into_iter().flat_map(|named| named.values());
    let needs_all = repositories.iter().chain(named).any(|repository| repository["type"] == "path");
    let files = project.existing(&["composer.json", "composer.lock"]);
    let install = "composer install --no-dev --no-interaction --no-scripts --no-autoloader --ignore-platform-reqs";
    let autoload = "composer dump-autoload --no-dev --no-scripts --optimize --ignore-platform-reqs";
    let mut recipe =
        recipe.stage(COMPOSER, "vendor").workdir("/app").install(&files, needs_all, &[install]).run(&[autoload]);
    if !project.has("composer.lock") {
        recipe = recipe.note("there is no composer.lock: Composer takes the newest versions of the dependencies");
    }
    let recipe = recipe.from(base).workdir("/app").copy_from("vendor", "/app", ".");
    match project.first(&["public/index.php", "index.php", "main.php", "server.php"]) {
        Some("public/index.php") => Ok(recipe.cmd(&["php", "-S", "0.0.0.0:8080", "-t", "public"])),
        Some("index.php") => Ok(recipe.cmd(&["php", "-S", "0.0.0.0:8080"])),
        Some(entry) => Ok(recipe.cmd(&["php", entry])),
        None => Err("none of public/index.php, index.php, main.php, server.php exists".into()),
    }
}
