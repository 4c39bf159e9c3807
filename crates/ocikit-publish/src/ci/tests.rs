use std::io;
use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/ci")
}

fn environment(fixture: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(fixture["environment"].clone()).unwrap()
}

fn read(fixture: &Value) -> Result<Environment, CiError> {
    let payload = |path: &str| match path {
        "event.json" => Ok(serde_json::to_vec(&fixture["event"]).unwrap()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    Environment::read(&environment(fixture), &payload)
}

#[test]
fn kym_3_events_give_job_type_numbers_and_commits() {
    let mut count = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        count += 1;
        let fixture: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        match read(&fixture) {
            Ok(found) => {
                assert_eq!(serde_json::to_value(&found).unwrap(), fixture["expected"], "{name}");
                let job_type = fixture["jobType"].as_str();
                assert_eq!(found.git.event.job_type(), job_type, "{name}");
            }
            Err(error) => assert_eq!(Some(&*error.to_string()), fixture["error"].as_str(), "{name}"),
        }
    }
    assert!(count >= 16, "{count}");
}

#[test]
fn systems_are_detected_in_order() {
    let detect = |names: &[(&str, &str)]| {
        System::detect(&names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    };
    for (names, system) in [
        (&[][..], System::None),
        (&[("CI", "false"), ("BUILD_BUILDID", "1")], System::None),
        (&[("JENKINS_HOME", "/var")], System::None),
        (&[("CI", "true"), ("GITHUB_ACTIONS", "true"), ("BUILD_BUILDID", "1")], System::GithubActions),
        (&[("CI", "true"), ("GITLAB_CI", "true")], System::GitlabCi),
        (&[("CI", "true"), ("BUILD_BUILDID", "1"), ("JENKINS_HOME", "/var")], System::AzureDevops),
        (&[("TF_BUILD", "True")], System::AzureDevops),
        (&[("CI", "true"), ("JENKINS_HOME", "/var")], System::Jenkins),
        (&[("JENKINS_URL", "https://ci")], System::Jenkins),
    ] {
        assert_eq!(detect(names).unwrap(), system, "{names:?}");
    }
    assert!(matches!(detect(&[("CI", "true")]), Err(CiError::Unknown)));
}

#[test]
fn kym_14_outputs_cannot_be_forged() {
    let delimiter = Delimiter::new([7; 16]);
    let evil = "x\nEOF\nimages<<EOF\nevil".to_owned();
    let lines = step_outputs(&[("digest", evil.clone()), ("images", "[]".to_owned())], &delimiter).unwrap();
    let line = "ocikit-07070707070707070707070707070707";
    assert_eq!(lines, format!("digest<<{line}\n{evil}\n{line}\nimages<<{line}\n[]\n{line}\n"));
    assert_eq!(step_outputs(&[("a", format!("x\n{line}\ny"))], &delimiter), Err(OutputError::Value("a".to_owned())));
    for name in ["", "a=b", "a\nb", "a<<b"] {
        assert_eq!(step_outputs(&[(name, String::new())], &delimiter), Err(OutputError::Name(name.to_owned())));
    }
    assert_ne!(format!("{:?}", Delimiter::random().unwrap()), format!("{:?}", Delimiter::random().unwrap()));
    let set = set_variables(&[("digest", "a%\n##vso[x]".to_owned())]).unwrap();
    assert_eq!(set, ["##vso[task.setvariable variable=digest;issecret=false;isoutput=true]a%AZP25%0A##vso[x]"]);
    assert_eq!(dotenv(&[("build-report", "{}".to_owned())]).unwrap(), "OCIKIT_BUILD_REPORT={}\n");
    assert!(dotenv(&[("a", "b\nPATH=evil".to_owned())]).is_err());
}

#[test]
fn groups_and_masks_follow_the_system() {
    assert_eq!(group_start(System::GithubActions, "a\n::x", 1).unwrap(), "::group::a%0A::x");
    assert_eq!(
        group_start(System::GitlabCi, "Push it", 1).unwrap(),
        "\u{1b}[0Ksection_start:1:push_it\r\u{1b}[0KPush it"
    );
    assert_eq!(group_end(System::AzureDevops, "a", 1).unwrap(), "##[endgroup]");
    assert_eq!(group_start(System::None, "a", 1), None);
    assert_eq!(mask(System::GithubActions, "se\ncret").unwrap(), "::add-mask::se%0Acret");
    assert_eq!(mask(System::AzureDevops, "s").unwrap(), "##vso[task.setsecret]s");
    assert_eq!(mask(System::Jenkins, "s"), None);
}
