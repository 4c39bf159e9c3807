use std::fs;
use std::path::Path;

use super::*;

/// Writes the files of a project.
pub(super) fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = root.join("contexts").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Project, ProjectError>) {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), files);
    let project = Project::load(directory.path(), &ProjectOptions::default());
    (directory, project)
}

fn problems(files: &[(&str, &str)]) -> Vec<String> {
    match project(files).1 {
        Err(ProjectError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn names(project: &Project) -> Vec<&str> {
    project.images().iter().map(|image| image.name.as_str()).collect()
}

const SCRATCH: &str = "FROM scratch\n";
const INFO: &str = "{:version \"1.0.0\"}\n";

#[test]
fn cip_1_the_order_follows_dependencies_then_numbers() {
    let (_directory, independent) = project(&[
        ("2-b/Dockerfile", SCRATCH),
        ("2-b/info.edn", INFO),
        ("10-c/Dockerfile", SCRATCH),
        ("10-c/info.edn", INFO),
        ("00-a/Dockerfile", SCRATCH),
        ("00-a/info.edn", INFO),
        ("z/Dockerfile", SCRATCH),
        ("z/info.edn", INFO),
    ]);
    let independent = independent.unwrap();
    assert_eq!(names(&independent), ["a", "b", "c", "z"]);
    assert_eq!(independent.stages(), 1);
    let (_directory, dependent) = project(&[
        ("2-b/Dockerfile", "ARG REGISTRY\nFROM $REGISTRY/c:1.0.0\n"),
        ("2-b/info.edn", INFO),
        ("10-c/Dockerfile", SCRATCH),
        ("10-c/info.edn", INFO),
        ("00-a/Dockerfile", "ARG REGISTRY\nFROM $REGISTRY/b:1.0.0\n"),
        ("00-a/info.edn", INFO),
    ]);
    let dependent = dependent.unwrap();
    assert_eq!(names(&dependent), ["c", "b", "a"]);
    assert_eq!(dependent.images().iter().map(|image| image.stage).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn cip_2_cycles_and_unknown_siblings_are_errors_with_places() {
    let from = |name: &str| format!("ARG REGISTRY\nFROM scratch\nCOPY --from=${{REGISTRY}}/{name}:1.0.0 / /\n");
    let (a, b, c) = (from("b"), from("c"), from("a"));
    let found = problems(&[
        ("1-a/Dockerfile", &a),
        ("1-a/info.edn", INFO),
        ("2-b/Dockerfile", &b),
        ("2-b/info.edn", INFO),
        ("3-c/Dockerfile", &c),
        ("3-c/info.edn", INFO),
        ("4-d/Dockerfile", &a),
        ("4-d/info.edn", INFO),
    ]);
    assert_eq!(
        found,
        [
            "the images a → b → c → a depend on each other: contexts/1-a/Dockerfile:3:13, contexts/2-b/Dockerfile:3:13, contexts/3-c/Dockerfile:3:13"
        ]
    );
    let own = problems(&[("1-b/Dockerfile", &a), ("1-b/info.edn", INFO)]);
    assert_eq!(own, ["the images b → b depend on each other: contexts/1-b/Dockerfile:3:13"]);
    let unknown = problems(&[("1-a/Dockerfile", &a), ("1-a/info.edn", INFO)]);
    assert_eq!(unknown, ["contexts/1-a/Dockerfile:3:13: the project has no image `b`"]);
    let undeclared = problems(&[("1-a/Dockerfile", "FROM ${REGISTRY}/b:1\n"), ("1-a/info.edn", INFO)]);
    assert_eq!(
        undeclared,
        [
            "contexts/1-a/Dockerfile:1:6: the variable `REGISTRY` has no value here; declare it with ARG before the first FROM"
        ]
    );
}

#[test]
fn cip_16_wrong_directories_are_errors() {
    let found = problems(&[
        ("0-a/Dockerfile", SCRATCH),
        ("1-b/info.edn", INFO),
        (".hidden/file", ""),
        ("2-c/Dockerfile", SCRATCH),
        ("2-c/info.edn", INFO),
        ("2-c/image.toml", "version = \"1.0.0\"\n"),
        ("3-D/Dockerfile", SCRATCH),
        ("3-D/info.edn", INFO),
        ("4-e/Dockerfile", SCRATCH),
        ("4-e/info.edn", "{:version 1}"),
        ("5-f/Dockerfile", "FROM a b\n"),
        ("5-f/info.edn", INFO),
        ("6-g/Dockerfile", SCRATCH),
        ("6-g/info.edn", INFO),
        ("7-g/Dockerfile", SCRATCH),
        ("7-g/info.edn", INFO),
        ("file", ""),
    ]);
    assert_eq!(
        found,
        [
            "contexts/0-a: it has no `info.edn`",
            "contexts/1-b: it has no `Dockerfile`",
            "contexts/2-c: it has both `info.edn` and `image.toml`",
            "contexts/3-D: `D` is not a valid name of an image",
            "contexts/4-e/info.edn:1:11: :version is not a string",
            "contexts/5-f/Dockerfile:1:6: FROM needs an image, or an image, `AS` and a stage",
            "contexts/7-g: the image `g` exists in contexts/6-g too",
        ]
    );
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Project::load(directory.path(), &ProjectOptions::default()), Err(ProjectError::Io { .. })));
    fs::create_dir(directory.path().join("contexts")).unwrap();
    let error = Project::load(directory.path(), &ProjectOptions::default()).unwrap_err();
    assert!(matches!(error, ProjectError::Invalid(problems) if problems == [Problem::NoImages("contexts".into())]));
}

#[test]
fn named_contexts_are_dependencies() {
    let (_directory, project) = project(&[
        ("0-base/Dockerfile", SCRATCH),
        ("0-base/image.toml", "version = \"1.3.0\"\n"),
        ("1-app/Dockerfile", "FROM deps AS x\nFROM debian:12\n"),
        ("1-app/image.toml", "version = '0.1.0' # ours\nowner = 1\n[contexts]\ndeps = \"base:1.2.9\"\n"),
    ]);
    let project = project.unwrap();
    let app = &project.images()[1];
    assert_eq!((app.name.as_str(), app.stage, &app.bases[..]), ("app", 1, &["debian:12".to_owned()][..]));
    assert_eq!(app.dependencies[0].context.as_deref(), Some("deps"));
    let cascade = project.cascade(CascadePolicy::default()).unwrap();
    assert_eq!(cascade.changes.len(), 1);
    assert_eq!(
        String::from_utf8_lossy(&cascade.changes[0].after),
        "version = \"0.1.1\" # ours\nowner = 1\n[contexts]\ndeps = \"base:1.3.0\"\n"
    );
}

/// A project in which `base` has a new version.
fn bumped() -> Vec<(&'static str, &'static str)> {
    vec![
        ("00-base/Dockerfile", "FROM debian:12"),
        ("00-base/info.edn", "{:version \"1.3.0\"}"),
        ("01-dev/Dockerfile", "ARG REGISTRY\r\nFROM ${REGISTRY}/base:1.2.9 AS b\r\nRUN true"),
        ("01-dev/info.edn", "; dev\n{:owner \"us\", ; keep\n :version \"2.0.9\" :platforms [\"linux/amd64\"]}"),
        (
            "02-two/Dockerfile",
            "ARG REGISTRY\nARG V=1.2.9\nFROM --platform=linux/amd64 $REGISTRY/base:$V-alpine\nCOPY --from=$REGISTRY/dev:2.0.9@sha256:00 / /\n",
        ),
        ("02-two/info.edn", "{:version \"0.1.0\"}\n"),
        ("03-other/Dockerfile", "FROM debian:12\r\nRUN true"),
        ("03-other/info.edn", "{:version \"1.0.0-rc1\"}"),
    ]
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join("contexts").join(path)).unwrap()
}

#[test]
fn cip_8_each_descendant_is_bumped_once() {
    let (directory, project) = project(&bumped());
    let cascade = project.unwrap().cascade(CascadePolicy::default()).unwrap();
    let bumps: Vec<_> =
        cascade.bumps.iter().map(|bump| (bump.image.as_str(), bump.from.as_str(), bump.to.as_str())).collect();
    assert_eq!(bumps, [("dev", "2.0.9", "2.0.10"), ("two", "0.1.0", "0.1.1")]);
    cascade.apply().unwrap();
    let again = Project::load(directory.path(), &ProjectOptions::default()).unwrap();
    let again = again.cascade(CascadePolicy::default()).unwrap();
    assert_eq!((again.bumps.len(), again.changes.len()), (0, 0));
    // CIP-9 and CIP-10: nothing but the versions changes.
    let root = directory.path();
    assert_eq!(read(root, "01-dev/Dockerfile"), "ARG REGISTRY\r\nFROM ${REGISTRY}/base:1.3.0 AS b\r\nRUN true");
    assert_eq!(
        read(root, "02-two/Dockerfile"),
        "ARG REGISTRY\nARG V=1.3.0\nFROM --platform=linux/amd64 $REGISTRY/base:$V-alpine\nCOPY --from=$REGISTRY/dev:2.0.10@sha256:00 / /\n"
    );
    assert_eq!(read(root, "03-other/Dockerfile"), "FROM debian:12\r\nRUN true");
    assert_eq!(read(root, "03-other/info.edn"), "{:version \"1.0.0-rc1\"}");
    // CIP-11: comments and unknown keys survive.
    assert_eq!(
        read(root, "01-dev/info.edn"),
        "; dev\n{:owner \"us\", ; keep\n :version \"2.0.10\" :platforms [\"linux/amd64\"]}"
    );
    assert_eq!(read(root, "02-two/info.edn"), "{:version \"0.1.1\"}\n");
}

#[test]
fn cip_8_the_policy_decides_the_level() {
    let files: Vec<_> = bumped()
        .into_iter()
        .filter(|(path, _)| path.starts_with("00") || path.starts_with("02") || path.starts_with("03"))
        .map(|(path, text)| match path {
            "02-two/Dockerfile" => (path, "ARG REGISTRY\nFROM $REGISTRY/base:1.2.9\n"),
            _ => (path, text),
        })
        .collect();
    for (policy, expected) in [
        (CascadePolicy::default(), "0.1.1"),
        (CascadePolicy::new(Level::Minor, Level::Minor), "0.2.0"),
        (CascadePolicy::new(Level::Major, Level::Minor), "1.0.0"),
    ] {
        let cascade = project(&files).1.unwrap().cascade(policy).unwrap();
        assert_eq!(cascade.bumps[0].to, expected);
    }
}

#[test]
fn cip_10_a_digest_is_kept_and_reported() {
    let mut files = bumped();
    files[2].1 = "ARG REGISTRY\nFROM $REGISTRY/base:1.2.9@sha256:00 AS b\nFROM $REGISTRY/base AS c\n";
    let cascade = project(&files).1.unwrap().cascade(CascadePolicy::default()).unwrap();
    let notes: Vec<_> = cascade.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "contexts/01-dev/Dockerfile:2:6: the reference to `base` keeps its digest, which is that of another version",
            "contexts/01-dev/Dockerfile:3:6: the reference to `base` has no version x.y.z and is left as it is",
            "contexts/02-two/Dockerfile:4:13: the reference to `dev` keeps its digest, which is that of another version",
        ]
    );
    let change = cascade.changes.iter().find(|change| change.path.ends_with("01-dev/Dockerfile")).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&change.after),
        "ARG REGISTRY\nFROM $REGISTRY/base:1.3.0@sha256:00 AS b\nFROM $REGISTRY/base AS c\n"
    );
}

#[test]
fn cip_12_other_versions_are_refused_before_any_write() {
    for version in ["1.2", "1.0.0-rc1", "v1.0.0"] {
        for path in ["00-base/info.edn", "01-dev/info.edn"] {
            let info = format!("{{:a 1\n :version \"{version}\"}}");
            let mut files = bumped();
            files.iter_mut().filter(|(name, _)| *name == path).for_each(|(_, text)| *text = &info);
            files[2].1 = "ARG REGISTRY\nFROM $REGISTRY/base:1.2.9\n";
            let (_directory, project) = project(&files);
            let error = project.unwrap().cascade(CascadePolicy::default()).unwrap_err();
            let ProjectError::Invalid(problems) = error else { panic!("{error}") };
            let expected = format!("contexts/{path}:2:11: the version `{version}` of");
            assert!(problems[0].to_string().starts_with(&expected), "{problems:?}");
        }
    }
}

#[test]
fn versions_that_cannot_be_replaced_are_refused() {
    for (text, problem) in [
        (
            "ARG REGISTRY\nARG M=1\nFROM $REGISTRY/base:$M.2.9\n",
            "contexts/01-dev/Dockerfile:3:6: the version of `base` in this reference is put together from several parts",
        ),
        (
            "ARG REGISTRY\nARG V=1.2.9\nFROM $REGISTRY/base:$V\nFROM $REGISTRY/second:$V\n",
            "contexts/01-dev/Dockerfile:4:6: this version belongs to several images, which would need 1.3.0 and 1.2.9",
        ),
    ] {
        let mut files = bumped();
        files[2].1 = text;
        files.retain(|(path, _)| !path.starts_with("02"));
        files.extend([("00-second/Dockerfile", SCRATCH), ("00-second/info.edn", "{:version \"1.2.9\"}")]);
        let error = project(&files).1.unwrap().cascade(CascadePolicy::default()).unwrap_err();
        let ProjectError::Invalid(problems) = error else { panic!("{error}") };
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [problem]);
    }
}

#[test]
fn cip_11_a_dry_run_is_a_diff_that_patch_accepts() {
    let cascade = project(&bumped()).1.unwrap().cascade(CascadePolicy::default()).unwrap();
    let diff = cascade.changes[0].diff();
    assert_eq!(
        String::from_utf8_lossy(&diff),
        "--- a/contexts/01-dev/Dockerfile\n+++ b/contexts/01-dev/Dockerfile\n@@ -1,3 +1,3 @@\n ARG REGISTRY\r\n\
         -FROM ${REGISTRY}/base:1.2.9 AS b\r\n+FROM ${REGISTRY}/base:1.3.0 AS b\r\n RUN true\n\\ No newline at end of file\n"
    );
}

#[test]
fn cip_11_a_cascade_is_one_transaction() {
    let mut files = bumped();
    files[2].1 = "ARG REGISTRY\nFROM $REGISTRY/base:1.2.9\n";
    let (directory, project) = project(&files);
    let root = directory.path();
    let cascade = project.unwrap().cascade(CascadePolicy::default()).unwrap();
    // A file changed since it was read: nothing is written.
    fs::write(root.join("contexts/02-two/info.edn"), "{:version \"0.1.0\" }").unwrap();
    assert!(matches!(cascade.apply(), Err(ProjectError::Changed { .. })));
    assert_eq!(read(root, "01-dev/info.edn"), files[3].1);
    assert_eq!(fs::read_dir(root.join("contexts/01-dev")).unwrap().count(), 2, "no file is left");
    assert_eq!(finish_cascade(root).unwrap(), None);
    fs::write(root.join("contexts/02-two/info.edn"), files[5].1).unwrap();
    // Another process holds the lock.
    let lock = fs::File::open(root).unwrap();
    lock.lock().unwrap();
    assert!(matches!(cascade.apply(), Err(ProjectError::Locked { .. })));
    drop(lock);
    cascade.apply().unwrap();
    assert_eq!(fs::read_dir(root.join("contexts/01-dev")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
}

#[test]
fn cip_11_an_interrupted_cascade_is_finished() {
    let mut files = bumped();
    files[2].1 = "ARG REGISTRY\nFROM $REGISTRY/base:1.2.9\n";
    let (directory, project) = project(&files);
    let root = directory.path();
    let cascade = project.unwrap().cascade(CascadePolicy::default()).unwrap();
    // The state after the decision: the new contents are in their directory, and one is in place already.
    let new_contents = root.join(".ocikit-cascade");
    fs::create_dir(&new_contents).unwrap();
    let entries: Vec<_> = cascade
        .changes
        .iter()
        .enumerate()
        .map(|(position, change)| {
            fs::write(new_contents.join(position.to_string()), &change.after).unwrap();
            let digest = |bytes: &[u8]| ocikit::Digest::sha256_of(bytes).to_string();
            serde_json::json!({ "path": change.path, "before": digest(&change.before), "after": digest(&change.after) })
        })
        .collect();
    let first = &cascade.changes[0];
    let path = root.join(&first.path);
    fs::rename(new_contents.join("0"), &path).unwrap();
    let journal = root.join(".ocikit-cascade.json");
    fs::write(&journal, serde_json::json!({ "files": entries }).to_string()).unwrap();
    let error = Project::load(root, &ProjectOptions::default()).unwrap_err();
    assert!(matches!(error, ProjectError::Interrupted { .. }));
    // A file that is neither of the two stops it.
    let edited = root.join("contexts/02-two/info.edn");
    fs::write(&edited, "{:version \"9.9.9\"}").unwrap();
    assert!(matches!(finish_cascade(root), Err(ProjectError::Journal { .. })));
    fs::write(&edited, files[5].1).unwrap();
    assert_eq!(finish_cascade(root).unwrap().unwrap().len(), cascade.changes.len());
    assert!(!journal.exists() && !new_contents.exists());
    for change in &cascade.changes {
        assert_eq!(fs::read(root.join(&change.path)).unwrap(), change.after);
    }
    Project::load(root, &ProjectOptions::default()).unwrap();
    // A journal that names files outside of the project is refused.
    fs::write(&journal, serde_json::json!({ "files": [{ "path": "../x", "before": entries[0]["before"], "after": entries[0]["after"] }] }).to_string()).unwrap();
    assert!(matches!(finish_cascade(root), Err(ProjectError::Journal { .. })));
}

#[test]
fn cip_11_leftovers_of_killed_cascades_are_removed() {
    let (directory, project) = project(&bumped());
    let (root, project) = (directory.path(), project.unwrap());
    project.remove_leftovers().unwrap();
    // What a process leaves that is killed before its decision, and what previous versions left in a context.
    fs::create_dir(root.join(".ocikit-cascade")).unwrap();
    fs::write(root.join(".ocikit-cascade/0"), "new").unwrap();
    for name in [".Dockerfile.ocikit-cascade", ".info.edn.ocikit-cascade"] {
        fs::write(root.join("contexts/01-dev").join(name), "new").unwrap();
    }
    let lock = fs::File::open(root).unwrap();
    lock.lock().unwrap();
    assert!(matches!(project.remove_leftovers(), Err(ProjectError::Locked { .. })), "the contents may be in use");
    drop(lock);
    project.remove_leftovers().unwrap();
    assert_eq!(fs::read_dir(root.join("contexts/01-dev")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    // A cascade that cannot be decided leaves nothing, and says what it cannot write.
    fs::write(root.join(".ocikit-cascade.json"), "").unwrap();
    let cascade = project.cascade(CascadePolicy::default()).unwrap();
    assert!(matches!(cascade.apply(), Err(ProjectError::Interrupted { .. })));
    assert_eq!(fs::read_dir(root.join("contexts/01-dev")).unwrap().count(), 2);
}

#[test]
fn graphs_are_drawn() {
    let project = project(&bumped()).1.unwrap();
    assert_eq!(
        project.graph_lines(),
        [
            "stage 0",
            "  base 1.3.0",
            "  other 1.0.0-rc1",
            "stage 1",
            "  dev 2.0.9 ← base",
            "stage 2",
            "  two 0.1.0 ← base, dev",
        ]
    );
    assert!(project.graph_dot().contains("  \"base\" -> \"dev\";\n"));
    let svg = project.graph_svg();
    assert_eq!((svg.matches("<path ").count(), svg.matches("<rect ").count()), (3, 4));
    let json = serde_json::to_value(project.graph()).unwrap();
    let dev = json["images"].as_array().unwrap().iter().find(|image| image["name"] == "dev").unwrap();
    assert_eq!(dev["dependencies"][0]["name"], "base");
    assert_eq!(dev["dependencies"][0]["via"], "from");
    assert_eq!(dev["dependencies"][0]["place"]["line"], 2);
}

#[test]
fn inputs_follow_files_and_parents() {
    let (directory, project) = project(&bumped());
    let project = project.unwrap();
    let before = project.inputs().unwrap();
    assert_eq!(project.inputs().unwrap(), before);
    write(directory.path(), &[("00-base/new", "x")]);
    let after = project.inputs().unwrap();
    let changed: Vec<_> = project
        .images()
        .iter()
        .zip(before.iter().zip(&after))
        .filter(|(_, (before, after))| before != after)
        .map(|(image, _)| image.name.as_str())
        .collect();
    assert_eq!(changed, ["base", "dev", "two"]);
}
