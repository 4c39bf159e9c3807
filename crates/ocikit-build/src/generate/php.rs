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
    if !project.has("composer.json") {
        return Err("composer.json not found in source directory".into());
    }
    let files = project.existing(&["composer.json", "composer.lock"]);
    let install = "composer install --no-dev --no-interaction --no-scripts --no-autoloader --ignore-platform-reqs";
    let autoload = "composer dump-autoload --no-dev --no-scripts --optimize --ignore-platform-reqs";
    let mut recipe =
        recipe.stage(COMPOSER, "vendor").workdir("/app").install(&files, false, &[install]).run(&[autoload]);
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
