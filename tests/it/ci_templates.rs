//! The action, the workflow and the templates for CI systems: their scripts run with recorded environments, and no input
//! becomes a part of their text.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ocikit_tests::{Outcome, Registry, json, testdata, verified_digest};
use serde_json::Value;

use crate::bench;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap()
}

/// Reads the documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    text(path).split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// The YAML files with scripts.
const FILES: [&str; 6] = [
    ".github/actions/publish/action.yml",
    ".github/workflows/image-builder.yml",
    ".github/workflows/ci.yml",
    ".github/workflows/advisories.yml",
    "docs/ci/gitlab.yml",
    "docs/ci/azure-pipelines.yml",
];

/// Collects all scripts below a value: `run` of GitHub, `script` of GitLab, `bash` of Azure.
fn scripts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("run" | "script" | "bash", Value::String(script)) => found.push(script.clone()),
                    ("script", Value::Array(lines)) => {
                        found.extend(lines.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    (_, value) => scripts(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| scripts(value, found)),
        _ => {}
    }
}

fn scripts_of(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    yaml(path).iter().for_each(|document| scripts(document, &mut found));
    found
}

/// Returns the script between `sh '''` and `'''`.
fn jenkins_script() -> String {
    let text = text("docs/ci/Jenkinsfile");
    text.split("sh '''").nth(1).unwrap().split("'''").next().unwrap().to_owned()
}

#[test]
fn no_input_is_interpolated_into_a_script() {
    for path in FILES {
        for script in scripts_of(path) {
            for interpolation in ["${{", "$[[", "$(inputs", "$(parameters"] {
                assert!(!script.contains(interpolation), "{path}: {script}");
            }
        }
    }
    for script in scripts_of("docs/ci/azure-pipelines.yml") {
        assert!(!script.contains("$("), "Azure replaces macros in scripts: {script}");
    }
    let jenkins = text("docs/ci/Jenkinsfile");
    assert!(!jenkins.contains("sh \"") && !jenkins.contains("\"\"\""), "Groovy replaces in double quotes: {jenkins}");
    for script in ["install.sh", "publish.sh"] {
        assert!(!text(&format!(".github/actions/publish/{script}")).contains("eval"), "{script}");
    }
    // The scan above finds scripts at all.
    assert!(FILES.iter().all(|path| *path == ".github/workflows/advisories.yml" || !scripts_of(path).is_empty()));
}

/// The reusable workflow has the inputs and outputs of the one that it replaces, and passes each input on.
#[test]
fn workflow_has_the_inputs_and_outputs_of_the_image_builder() {
    let workflow = &yaml(".github/workflows/image-builder.yml")[0];
    // `on` is a boolean in YAML 1.1 and a key in YAML 1.2.
    let call = &workflow.get("on").or_else(|| workflow.get("true")).unwrap()["workflow_call"];
    for (name, kind, default) in [
        ("name", "string", "${{ github.event.repository.name }}"),
        ("dockerfile", "string", "./Dockerfile"),
        ("context", "string", "."),
        ("build-args", "string", ""),
        ("tags", "string", ""),
        ("export-tags", "boolean", "false"),
        ("use-go-internal-sap-modules", "boolean", "false"),
        ("platforms", "string", "linux/arm64\nlinux/amd64\n"),
        ("target", "string", ""),
        ("use-restricted-registry", "boolean", "false"),
    ] {
        let input = &call["inputs"][name];
        let found = match &input["default"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!((input["type"].as_str().unwrap(), found.as_str()), (kind, default), "{name}");
        let used = text(".github/workflows/image-builder.yml").contains(&format!("inputs.{name}"));
        assert!(used, "{name} is used");
    }
    let outputs: Vec<_> = call["outputs"].as_object().unwrap().keys().map(String::as_str).collect();
    for name in ["images", "adoResult", "digest", "build-report", "architectures"] {
        assert!(outputs.contains(&name), "{name}");
    }
    let action = &yaml(".github/actions/publish/action.yml")[0];
    let steps = workflow["jobs"]["build-image"]["steps"].as_array().unwrap();
    let with = steps.iter().find_map(|step| step.get("with").filter(|with| with.get("tags").is_some())).unwrap();
    for name in with.as_object().unwrap().keys() {
        assert!(action["inputs"].get(name).is_some(), "the action has the input {name}");
    }
    let mut names = action["runs"]["steps"][1]["env"].as_object().unwrap().clone();
    names.extend(action["runs"]["steps"][0]["env"].as_object().unwrap().clone());
    for name in action["inputs"].as_object().unwrap().keys() {
        let variable = name.to_uppercase().replace('-', "_");
        assert_eq!(names[&variable], format!("${{{{ inputs.{name} }}}}").as_str(), "{name} is in the environment");
    }
}

/// Each output of the workflow leads over its job and the action to one that the program writes.
#[test]
fn workflow_outputs_come_from_the_program() {
    let workflow = &yaml(".github/workflows/image-builder.yml")[0];
    let action = &yaml(".github/actions/publish/action.yml")[0];
    let call = &workflow.get("on").or_else(|| workflow.get("true")).unwrap()["workflow_call"];
    let job = &workflow["jobs"]["build-image"];
    let last = |value: &Value, start: &str| {
        let inner = value.as_str()?.strip_prefix("${{ ")?.strip_suffix(" }}")?;
        inner.strip_prefix(start).map(str::to_owned)
    };
    for (name, output) in call["outputs"].as_object().unwrap() {
        let of_job = last(&output["value"], "jobs.build-image.outputs.").unwrap();
        let value = &job["outputs"][&of_job];
        if name == "adoResult" {
            assert_eq!(value, "${{ steps.publish.outcome == 'success' && 'succeeded' || 'failed' }}");
            continue;
        }
        let of_step = last(value, "steps.publish.outputs.").unwrap();
        assert_eq!(&of_step, name);
        let of_action = last(&action["outputs"][&of_step]["value"], "steps.publish.outputs.").unwrap();
        assert!(["images", "architectures", "digest", "build-report"].contains(&&*of_action), "{of_action}");
    }
    for (steps, uses) in [(&job["steps"], "ocikit/ocikit/.github/actions/publish@main"), (&action["runs"]["steps"], "")]
    {
        let mut steps = steps.as_array().unwrap().iter();
        let step = steps.find(|step| step["id"] == "publish").unwrap();
        assert_eq!(step["uses"].as_str().unwrap_or_default(), uses);
    }
}

#[test]
fn workflow_refuses_what_it_does_not_support() {
    let script = scripts_of(".github/workflows/image-builder.yml").concat();
    let outcome = Job::new().run(&script, "github-push", &[]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stdout.starts_with("::error::use-go-internal-sap-modules is not supported"), "{outcome}");
}

/// A place to run scripts in: a configuration for one registry, and the program under its own name.
struct Job {
    bench: ocikit_tests::Bench,
    registry: Registry,
}

impl Job {
    fn new() -> Job {
        let (bench, registry) = (bench(), Registry::start());
        let name = registry.name();
        let config = format!("registry: {name}/prod\ndev-registry: {name}/dev\ntags: [fixed]\n");
        bench.write("publish.yaml", config);
        fs::create_dir(bench.path("bin")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ocikit-under-test"), bench.path("bin/ocikit")).unwrap();
        fs::copy(testdata("buildkit-single/image.tar"), bench.path("container-image.tar")).unwrap();
        Job { bench, registry }
    }

    /// Runs a script with a recorded environment and more variables.
    fn run(&self, script: &str, fixture: &str, more: &[(&str, &str)]) -> Outcome {
        let recorded: Value =
            serde_json::from_slice(&fs::read(testdata(&format!("ci/{fixture}.json"))).unwrap()).unwrap();
        self.bench.write("event.json", recorded["event"].to_string());
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(self.bench.path("."));
        command.env_clear().env("HOME", self.bench.path("home"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.bench.path("bin")].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).unwrap());
        for (name, value) in recorded["environment"].as_object().unwrap() {
            command.env(name, value.as_str().unwrap());
        }
        command.envs(more.iter().copied());
        ocikit_tests::run(&mut command, &[])
    }

    /// Checks that an image has the tags `fixed`, and one that would be a command if a script read it as text.
    fn check(&self, outcome: Outcome) -> Outcome {
        let digest = verified_digest(&testdata("buildkit-single/image.tar"));
        for tag in ["fixed", "v6c22711f"] {
            assert_eq!(self.registry.verified_digest("prod/app", tag), Some(digest), "{tag}: {outcome}");
        }
        assert_eq!(outcome.code, 0, "{outcome}");
        assert!(!self.bench.path("canary").exists(), "nothing in an input is a command");
        outcome
    }
}

/// Values that a shell would run if they were a part of its text.
const HOSTILE_ARGUMENT: &str = "org.example.note=\"; touch canary; $(touch canary) `touch canary` 'x'";

#[test]
fn action_publishes_with_a_recorded_environment() {
    let job = Job::new();
    let script = text(".github/actions/publish/publish.sh");
    let annotation = format!("--annotation={HOSTILE_ARGUMENT}");
    let variables = [
        ("CONFIG", "publish.yaml"),
        ("NAME", "app"),
        ("IMAGE", "container-image.tar"),
        ("TAGS", "v{{ .ShortSHA }}\r\n\nsame=fixed\n"),
        ("EXPORT_TAGS", "false"),
        ("RESTRICTED", "false"),
        ("GITHUB_OUTPUT", "outputs"),
        ("GITHUB_STEP_SUMMARY", "summary.md"),
    ];
    job.check(job.run(&script, "github-push", &variables));
    let outputs = job.bench.read("outputs");
    assert!(
        ["images", "architectures", "digest", "build-report"].iter().all(|name| outputs.contains(&format!("{name}<<")))
    );
    assert!(job.bench.read("summary.md").contains("/prod/app:fixed"));
    // Inputs with the text of commands are data.
    let hostile = [&variables[..], &[("ARGUMENTS", &*annotation), ("TAGS", "v6c22711f")]].concat();
    let outcome = job.run(&script, "github-push", &hostile);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(!job.bench.path("canary").exists());
    let raw = job.bench.ok(&["inspect", "--raw", &format!("{}/prod/app:fixed", job.registry.name())]);
    let manifest = json(&raw);
    let (_, value) = HOSTILE_ARGUMENT.split_once('=').unwrap();
    assert_eq!(manifest["annotations"]["org.example.note"], value);
    for hostile in ["\"; touch canary; echo \"", "$(touch canary)", "`touch canary`", "--help"] {
        let outcome = job.run(&script, "github-push", &[&variables[..], &[("TAGS", hostile)]].concat());
        assert_eq!(outcome.code, 2, "{hostile}: {outcome}");
        assert!(!job.bench.path("canary").exists(), "{hostile}");
    }
    let outcome = job.run(&script, "github-push", &[&variables[..], &[("DRY_RUN", "true")]].concat());
    assert!(outcome.stdout.starts_with("dry run: push event"), "{outcome}");
}

#[test]
fn action_builds_with_every_input() {
    let job = Job::new();
    let script = text(".github/actions/publish/publish.sh").replace("exec ocikit", "printf '%s\\n'");
    let variables = [
        ("CONTEXT", "a dir"),
        ("DOCKERFILE", "./Dockerfile"),
        ("BUILD_ARGS", "A=x=y\nB=1,2 3\n"),
        ("PLATFORMS", "linux/arm64\nlinux/amd64\n"),
        ("TARGET", "final"),
        ("EXPORT_TAGS", "true"),
        ("RESTRICTED", "true"),
        ("EXCHANGE", "true"),
        ("NAME", "app"),
    ];
    let expected = "publish\n--config=publish.yaml\n--name=app\n--build=a dir\n--file=a dir/./Dockerfile\n--build-arg=A=x=y
--build-arg=B=1,2 3\n--platform=linux/arm64\n--platform=linux/amd64\n--target=final\n--export-tags\n--restricted\n--exchange";
    assert_eq!(job.run(&script, "github-push", &variables).ok(), expected);
}

/// Runs the action's script for BuildKit with programs that record their calls. `ocikit buildkit status` succeeds after `usable`
/// installations; 0 is a machine that has a BuildKit. Returns the calls, and the variables for later steps.
#[cfg(unix)]
fn installed_by_the_action(usable: u32, variables: &[(&str, &str)], has_docker: bool) -> (String, String) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let job = Job::new();
    let script = |name: &str, text: &str| {
        let path = job.bench.path(&format!("bin/{name}"));
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let ocikit = format!(
        "#!/bin/bash\necho \"ocikit $*\" >> calls\ninstalled=0\n[[ ! -e installed ]] || installed=1\ncase \"$1 $2\" in\n\
         'buildkit status') ((installed >= {usable})) ;;\n'buildkit install') : > installed ;;\n'digest --') echo sha256:00 ;;\nesac\n"
    );
    script("ocikit", &ocikit);
    if has_docker {
        script("docker", "#!/bin/bash\necho \"docker $*\" >> calls\n");
    }
    // A search path without Docker, BuildKit and cargo.
    let search = std::env::var_os("PATH").unwrap();
    let bash = std::env::split_paths(&search).map(|path| path.join("bash")).find(|path| path.exists()).unwrap();
    symlink(bash, job.bench.path("bin/bash")).unwrap();
    let path = job.bench.path("bin").display().to_string();
    let all = [&[("PATH", &*path), ("GITHUB_ENV", "variables")], variables].concat();
    job.run(&text(".github/actions/publish/install.sh"), "github-push", &all).ok();
    assert!(!job.bench.path("canary").exists(), "nothing in an input is a command");
    let read = |name: &str| fs::read_to_string(job.bench.path(name)).unwrap_or_default();
    (read("calls"), read("variables"))
}

/// Where there is no BuildKit, a build installs one with the program itself; without a build, nothing is installed.
#[cfg(unix)]
#[test]
fn action_installs_a_buildkit_for_builds_only() {
    let status = "ocikit buildkit status\n";
    assert_eq!(installed_by_the_action(0, &[("IMAGE", "app.tar")], true), (String::new(), String::new()));
    assert_eq!(installed_by_the_action(0, &[], true), (status.to_owned(), String::new()));
    let (calls, variables) = installed_by_the_action(1, &[], true);
    let lines: Vec<_> = calls.lines().collect();
    assert!(lines[1].starts_with("ocikit digest -- moby/buildkit:v"), "{calls}");
    let image = lines[1].strip_prefix("ocikit digest -- ").unwrap();
    assert_eq!(lines[2], format!("ocikit buildkit install --from={image}@sha256:00"), "by digest");
    assert_eq!((lines[3], lines.len(), &*variables), ("ocikit buildkit status", 4, ""), "{calls}");

    // An image with its digest is not looked up, and no text of it is a command.
    let own = "registry.example/buildkit@sha256:11; touch canary; $(touch canary)";
    let (calls, _) = installed_by_the_action(1, &[("BUILDKIT", own)], true);
    assert_eq!(calls, format!("{status}ocikit buildkit install --from={own}\n{status}"));

    // What is installed cannot be used, for example without user namespaces.
    let (calls, variables) = installed_by_the_action(2, &[], true);
    assert!(calls.contains("\ndocker run --detach --privileged --name ocikit-buildkitd moby/buildkit:v"), "{calls}");
    assert_eq!(variables, "BUILDKIT_HOST=docker-container://ocikit-buildkitd\n");
    let (calls, variables) = installed_by_the_action(2, &[], false);
    assert!(!calls.contains("docker") && variables.is_empty(), "the build says what is missing: {calls}");
}

#[test]
fn gitlab_template_publishes_with_a_recorded_environment() {
    let job = Job::new();
    let script = scripts_of("docs/ci/gitlab.yml").concat();
    let name = job.registry.name();
    let variables = [
        ("PUBLISH_NAME", "app"),
        ("PUBLISH_CONFIG", "publish.yaml"),
        ("PUBLISH_IMAGE", "container-image.tar"),
        ("PUBLISH_TAGS", "v{{.ShortSHA}} same=fixed"),
        ("CI_REGISTRY", &*name),
        ("CI_JOB_TOKEN", "canary-token"),
    ];
    let outcome = job.check(job.run(&script, "gitlab-push", &variables));
    assert!(!outcome.to_string().contains("canary-token"), "{outcome}");
    let outputs = job.bench.read("publish.env");
    assert!(outputs.contains("OCIKIT_DIGEST=sha256:") && outputs.contains("OCIKIT_IMAGES=["), "{outputs}");
}

#[test]
fn jenkins_example_publishes_with_a_recorded_environment() {
    let job = Job::new();
    let variables = [
        ("PUBLISH_NAME", "app"),
        ("PUBLISH_CONFIG", "publish.yaml"),
        ("PUBLISH_IMAGE", "container-image.tar"),
        ("PUBLISH_TAGS", "v{{.ShortSHA}}"),
        ("OCIKIT_USR", "canary-user"),
        ("OCIKIT_PSW", "canary-password"),
    ];
    let outcome = job.check(job.run(&jenkins_script(), "jenkins-push", &variables));
    assert!(!outcome.to_string().contains("canary"), "{outcome}");
    assert!(job.bench.read("publish.env").contains("OCIKIT_DIGEST="));
}

#[test]
fn azure_template_publishes_with_a_recorded_environment() {
    let job = Job::new();
    let script = scripts_of("docs/ci/azure-pipelines.yml").concat();
    let variables = [
        ("PUBLISH_NAME", "app"),
        ("PUBLISH_CONFIG", "publish.yaml"),
        ("PUBLISH_IMAGE", "container-image.tar"),
        ("PUBLISH_TAGS", "v{{ .ShortSHA }}\n"),
    ];
    let outcome = job.check(job.run(&script, "azure-postsubmit", &variables));
    assert!(outcome.to_string().contains("##vso[task.setvariable variable=digest;"), "{outcome}");
}

/// Text from outside, in every variable that a CI system fills with it and in every input of a template: it is data for the program,
/// which refuses it or uses it as it is, and no shell reads it.
#[test]
fn text_from_outside_is_never_a_command() {
    const TEXTS: [&str; 3] =
        ["x\"; touch canary; $(touch canary) `touch canary`; echo \"", "x'; touch canary; echo '", "x\ntouch canary\n"];
    let (azure, gitlab) =
        (scripts_of("docs/ci/azure-pipelines.yml").concat(), scripts_of("docs/ci/gitlab.yml").concat());
    let action = text(".github/actions/publish/publish.sh");
    let inputs = ["PUBLISH_NAME", "PUBLISH_CONFIG", "PUBLISH_IMAGE", "PUBLISH_TAGS"];
    let github =
        ["NAME", "CONFIG", "IMAGE", "TAGS", "CONTEXT", "DOCKERFILE", "BUILD_ARGS", "PLATFORMS", "TARGET", "ARGUMENTS"];
    for (script, fixture, inputs, outside) in [
        (
            &action,
            "github-push",
            &github[..],
            &["GITHUB_REF", "GITHUB_REF_NAME", "GITHUB_HEAD_REF", "GITHUB_ACTOR"][..],
        ),
        (
            &gitlab,
            "gitlab-push",
            &inputs,
            &["CI_COMMIT_BRANCH", "CI_COMMIT_REF_NAME", "CI_COMMIT_TITLE", "CI_COMMIT_MESSAGE"],
        ),
        (&gitlab, "gitlab-merge-request", &inputs, &["CI_MERGE_REQUEST_TITLE", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"]),
        (&jenkins_script(), "jenkins-push", &inputs, &["BRANCH_NAME", "GIT_BRANCH", "CHANGE_TITLE", "CHANGE_BRANCH"]),
        (
            &azure,
            "azure-postsubmit",
            &inputs,
            &["BUILD_SOURCEBRANCH", "BUILD_SOURCEBRANCHNAME", "BUILD_SOURCEVERSIONMESSAGE"],
        ),
    ] {
        let job = Job::new();
        let usual = [
            ("PUBLISH_NAME", "app"),
            ("PUBLISH_CONFIG", "publish.yaml"),
            ("PUBLISH_IMAGE", "container-image.tar"),
            ("PUBLISH_TAGS", "same=fixed"),
            ("NAME", "app"),
            ("CONFIG", "publish.yaml"),
            ("IMAGE", "container-image.tar"),
            ("OCIKIT_USR", ""),
            ("OCIKIT_PSW", ""),
        ];
        for (variable, text) in inputs.iter().chain(outside).flat_map(|variable| TEXTS.map(|text| (*variable, text))) {
            let outcome = job.run(script, fixture, &[&usual[..], &[(variable, text)]].concat());
            assert!(!job.bench.path("canary").exists(), "{fixture}: {variable}={text}: {outcome}");
            assert!(outcome.code < 126 && !outcome.stderr.contains("syntax error"), "{variable}={text}: {outcome}");
        }
    }
}

/// Returns the arguments of the entry point of a target in `docs/ci/Dockerfile`.
fn entry_point(target: &str) -> Vec<String> {
    let text = text("docs/ci/Dockerfile");
    let stage =
        text.split("\nFROM ").find(|stage| stage.lines().next().unwrap().ends_with(&format!(" AS {target}"))).unwrap();
    let line = stage.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let words: Vec<String> = serde_json::from_str(line).unwrap();
    assert_eq!(words[0], "/usr/local/bin/ocikit");
    words[1..].to_vec()
}

/// Returns the variables of the call of an image in the page for users who move. A variable without a value has that of
/// `given`.
fn variables_of(image: &str, given: &[(&str, &str)]) -> Vec<(String, String)> {
    let page = text("docs/from-pipelines.md").replace("\\\n", " ");
    let call = page.lines().find(|line| line.starts_with("docker run ") && line.ends_with(image)).unwrap().to_owned();
    let words: Vec<_> = call.split_whitespace().collect();
    let values = words.windows(2).filter(|pair| pair[0] == "-e").map(|pair| match pair[1].split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => {
            let (name, value) = given.iter().find(|(name, _)| *name == pair[1]).unwrap();
            ((*name).to_owned(), (*value).to_owned())
        }
    });
    values.collect()
}

#[test]
fn docker_run_of_the_publisher_plugin_works_as_written() {
    let registry = Registry::for_user("canary-user", "canary-password");
    let mut bench = bench();
    fs::copy(testdata("buildkit-attested/multi.tar"), bench.path("container-image.tar")).unwrap();
    let secrets = [("PLP_REGISTRY_USERNAME", "canary-user"), ("PLP_REGISTRY_PASSWORD", "canary-password")];
    for (name, value) in variables_of("ocikit-publisher", &secrets) {
        let value = value.replace("/build", &bench.path("").display().to_string()).replace("ghcr.io", &registry.name());
        bench = bench.with(&name, &value);
    }
    let printed = bench.ok(&entry_point("publisher"));
    let digest = verified_digest(&testdata("buildkit-attested/multi.tar"));
    for tag in ["main", "main-6c22711", "latest"] {
        assert!(printed.contains(&format!("{}/acme/app:{tag}@{digest}", registry.name())), "{printed}");
    }
    let names: Vec<_> = variables_of("ocikit-builder", &[]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        (names, entry_point("builder")),
        (vec!["GIT_REPOSITORY_URL".to_owned(), "GIT_SHA".to_owned()], vec!["build".to_owned()])
    );
}

/// The example of the workflow uses inputs and outputs that it has.
#[test]
fn workflow_example_uses_what_exists() {
    let page = text("docs/from-pipelines.md");
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let example: Value = serde_saphyr::from_str(example).unwrap();
    let workflow = &yaml(".github/workflows/image-builder.yml")[0];
    let call = &workflow.get("on").or_else(|| workflow.get("true")).unwrap()["workflow_call"];
    for name in example["jobs"]["build-image"]["with"].as_object().unwrap().keys() {
        assert!(call["inputs"].get(name).is_some(), "{name}");
    }
    let used = example["jobs"]["deploy"]["steps"][0]["env"]["IMAGES"].as_str().unwrap();
    assert_eq!(used, "${{ needs.build-image.outputs.images }}");
    assert!(call["outputs"].get("images").is_some());
}
