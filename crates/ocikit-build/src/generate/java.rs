use super::language::{Language, Versions};
use super::project::Project;
use super::recipe::{Problem, Recipe};

pub(super) const JAVA: Language = Language {
    name: "java",
    files: &["pom.xml", "build.gradle", "build.gradle.kts"],
    versions: Versions::Major,
    default_version: "21",
    stated_version: |_| None,
    // The version alone; the image depends on the build tool.
    base: str::to_owned,
    ignored: &["target", "build", ".gradle"],
    write,
};

fn write(project: &Project<'_>, recipe: Recipe, base: &str) -> Result<Recipe, Problem> {
    let is_version = base.bytes().all(|byte| byte.is_ascii_digit());
    let (version, given) = if is_version { (base, None) } else { (JAVA.default_version, Some(base)) };
    let (image, command, jars) = match project.has("pom.xml") {
        true => (format!("maven:3-eclipse-temurin-{version}"), "mvn -B -DskipTests package", "target/*.jar"),
        false if project.first(&["build.gradle", "build.gradle.kts"]).is_some() => {
            (format!("gradle:8-jdk{version}"), "gradle --no-daemon build -x test", "build/libs/*.jar")
        }
        false => return Err("none of pom.xml, build.gradle, build.gradle.kts exists".into()),
    };
    // A program with its dependencies is larger than one without.
    let take = format!("cp \"$(ls -S {jars} | head -n 1)\" /app.jar");
    let recipe = recipe.stage(given.unwrap_or(&image), "build").workdir("/src").copy_all().run(&[command, &take]);
    let recipe = recipe.from(&format!("eclipse-temurin:{version}-jre")).copy_from("build", "/app.jar", "/app/app.jar");
    Ok(recipe.cmd(&["java", "-jar", "/app/app.jar"]))
}
