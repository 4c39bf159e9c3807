use super::language::{Language, Versions, first_version};
use super::project::Project;
use super::recipe::{Problem, Recipe};

pub(super) const RUBY: Language = Language {
    name: "ruby",
    files: &["Gemfile"],
    versions: Versions::Minor,
    default_version: "3.4",
    stated_version: |project| first_version(&project.read(".ruby-version")?),
    // The small image has no compiler, which gems with native extensions need.
    base: |version| format!("ruby:{version}"),
    ignored: &[".bundle", "vendor/bundle"],
    write,
};

/// The files that are tried as the program, in this order.
const ENTRIES: [&str; 4] = ["main.rb", "app.rb", "server.rb", "run.rb"];

fn write(project: &Project<'_>, recipe: Recipe, base: &str) -> Result<Recipe, Problem> {
    let gemfile = project.read("Gemfile").ok_or("Gemfile not found in source directory")?;
    // The description of a gem, or gems in directories, are other files of the project.
    let needs_all = gemfile.contains("gemspec") || gemfile.contains("path:") || gemfile.contains(":path");
    let recipe = recipe.from(base).workdir("/app");
    let recipe = match project.has("Gemfile.lock") {
        true => recipe.install(
            &["Gemfile", "Gemfile.lock"],
            needs_all,
            &["bundle config set frozen true", "bundle config set without development:test", "bundle install"],
        ),
        false => recipe
            .install(&["Gemfile"], needs_all, &["bundle config set without development:test", "bundle install"])
            .note("there is no Gemfile.lock: `bundle install` takes the newest versions of the gems"),
    };
    match (project.has("config.ru"), project.first(&ENTRIES)) {
        (true, _) => Ok(recipe.cmd(&["bundle", "exec", "rackup", "--host", "0.0.0.0"])),
        (false, Some(entry)) => Ok(recipe.cmd(&["bundle", "exec", "ruby", entry])),
        (false, None) => Err(format!("none of config.ru, {} exists", ENTRIES.join(", ")).into()),
    }
}
