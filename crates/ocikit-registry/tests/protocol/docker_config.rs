//! Credential files and helpers, with real files and programs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ocikit_registry::{Credential, CredentialPlaces, DockerConfig, HelperOptions, Keychain};
use ocikit_spec::Registry;
use tempfile::TempDir;

use crate::support::failed;

struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Creates a helper that logs its input and behaves like this.
    fn helper(&self, name: &str, script: &str) {
        let (path, log) = (self.path(&format!("docker-credential-{name}")), self.path("log"));
        let text = format!("#!/bin/sh\ninput=$(cat)\necho \"$1 $input\" >>'{}'\n{script}\n", log.display());
        // Written by another process: if this process has the file open for writing while another test starts a
        // program, the file cannot be executed.
        let mut writer = Command::new("sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
    }

    fn config(&self, text: &str) -> DockerConfig {
        fs::write(self.path("config.json"), text).unwrap();
        self.open()
    }

    fn open(&self) -> DockerConfig {
        let helpers =
            HelperOptions::default().directories(vec![self.0.path().to_owned()]).timeout(Duration::from_secs(20));
        DockerConfig::with_helpers(self.path("config.json"), helpers)
    }
}

fn hub() -> Registry {
    Registry::docker_hub()
}

fn ghcr() -> Registry {
    "ghcr.io".parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn login_stores_and_logout_removes_a_credential() {
    let home = Home::new();
    let nested = DockerConfig::new(home.path("a/b/config.json"));
    assert_eq!(nested.credential(&ghcr(), "").await.unwrap(), None);
    for (registry, credential) in [
        (hub(), Credential::password("user", "pass:word")),
        (ghcr(), Credential::Identity("refresh".into())),
        ("localhost:5000".parse().unwrap(), Credential::Bearer("token".into())),
    ] {
        nested.login(&(&registry).into(), &credential).await.unwrap();
        for config in [&nested, &DockerConfig::new(nested.path())] {
            assert_eq!(config.credential(&registry, "any/repository").await.unwrap(), Some(credential.clone()));
        }
    }
    assert_eq!((mode(nested.path()), mode(&home.path("a"))), (0o600, 0o700));
    assert!(home.read("a/b/config.json").contains("https://index.docker.io/v1/"), "docker finds it too");
    assert!(nested.logout(&hub().into()).await.unwrap());
    assert!(!nested.logout(&hub().into()).await.unwrap());
    assert_eq!(nested.credential(&hub(), "").await.unwrap(), None);
    assert!(nested.credential(&ghcr(), "").await.unwrap().is_some());
}

#[tokio::test]
async fn other_fields_of_the_file_are_preserved() {
    let home = Home::new();
    let before = "{\n\t\"z\": 1,\n\t\"auths\": {\n\t\t\"index.docker.io\": {\n\t\t\t\"auth\": \"b2xkOm9sZA==\"\n\t\t},\n\t\t\"b\": {}\n\t},\n\t\"a\": null\n}\n";
    let config = home.config(before);
    fs::set_permissions(config.path(), fs::Permissions::from_mode(0o644)).unwrap();
    config.login(&hub().into(), &Credential::password("new", "new")).await.unwrap();
    assert_eq!(home.read("config.json"), before.replace("b2xkOm9sZA==", "bmV3Om5ldw=="));
    assert_eq!(mode(config.path()), 0o600);

    for text in ["[]", "{", r#"{"auths":[]}"#] {
        let config = home.config(text);
        failed(config.login(&hub().into(), &Credential::password("u", "p")).await);
        assert_eq!(home.read("config.json"), text);
    }
    assert!(fs::read_dir(home.0.path()).unwrap().count() == 1, "no temporary file is left");
}

#[tokio::test]
async fn symlink_is_kept() {
    let home = Home::new();
    fs::write(home.path("real.json"), "{}").unwrap();
    std::os::unix::fs::symlink(home.path("real.json"), home.path("config.json")).unwrap();
    home.open().login(&hub().into(), &Credential::password("u", "p")).await.unwrap();
    assert!(fs::symlink_metadata(home.path("config.json")).unwrap().is_symlink());
    assert!(home.read("real.json").contains("auths"));
}

#[tokio::test]
async fn helper_runs_once() {
    let home = Home::new();
    home.helper("x", r#"echo '{"ServerURL":"h","Username":"user","Secret":"s3cret"}'"#);
    let config = home.config(r#"{"credHelpers":{"ghcr.io":"x"}}"#);
    let ghcr = ghcr();
    let asked = futures::future::join_all((0..10).map(|_| config.credential(&ghcr, "a/b"))).await;
    for found in asked {
        assert_eq!(found.unwrap(), Some(Credential::password("user", "s3cret")));
    }
    assert_eq!(home.read("log"), "get ghcr.io\n");
    assert_eq!(config.credential(&hub(), "").await.unwrap(), None);
}

#[tokio::test]
async fn store_uses_the_legacy_key_of_docker_hub() {
    let home = Home::new();
    home.helper("x", r#"if [ "$input" = https://index.docker.io/v1/ ]; then echo '{"Username":"<token>","Secret":"t"}'; else echo 'credentials not found in native keychain'; exit 1; fi"#);
    let config = home.config(r#"{"credsStore":"x","auths":{"ghcr.io":{"auth":"dTpw"}}}"#);
    assert_eq!(config.credential(&hub(), "").await.unwrap(), Some(Credential::Identity("t".into())));
    assert_eq!(config.credential(&ghcr(), "").await.unwrap(), Some(Credential::password("u", "p")));
    assert_eq!(config.credential(&"other.io".parse().unwrap(), "").await.unwrap(), None);
}

#[tokio::test]
async fn failing_helper_is_named_and_its_output_hidden() {
    let home = Home::new();
    for (script, said) in [
        ("echo 'keychain is locked'; exit 1", Some("keychain is locked")),
        (r#"echo '{"Username":"u","Secret":"s3cret"}'; exit 3"#, None),
        ("echo s3cret", None),
        (r#"echo '{"Secret":{"s3cret":1}}'"#, None),
        ("exec sleep 100", Some("longer than")),
    ] {
        home.helper("x", script);
        let timeout = if script.contains("sleep") { Duration::from_millis(300) } else { Duration::from_secs(20) };
        let helpers = HelperOptions::default().directories(vec![home.0.path().to_owned()]).timeout(timeout);
        fs::write(home.path("config.json"), r#"{"credsStore":"x"}"#).unwrap();
        let config = DockerConfig::with_helpers(home.path("config.json"), helpers);
        let error = failed(config.credential(&ghcr(), "").await);
        assert!(error.starts_with("the credential helper `x` is broken: "), "{error}");
        assert!(!error.contains("s3cret") && error.contains(said.unwrap_or_default()), "{error}");
    }
    for name in ["../x", "a b", "no-such-helper-anywhere"] {
        let config = home.config(&format!(r#"{{"credsStore":"{name}"}}"#));
        assert!(failed(config.credential(&ghcr(), "").await).contains("the credential helper"), "{name}");
    }
}

#[tokio::test]
async fn failing_helper_runs_once_and_hides_no_other_entry() {
    let home = Home::new();
    home.helper("x", "echo 'keychain is locked'; exit 1");
    let config = home.config(r#"{"credsStore":"x","auths":{"ghcr.io":{"auth":"dTpw"},"quay.io":{"auth":"!"}}}"#);
    assert_eq!(config.credential(&ghcr(), "").await.unwrap(), Some(Credential::password("u", "p")));
    for path in ["a", "b", ""] {
        failed(config.credential(&"other.io".parse().unwrap(), path).await);
    }
    assert_eq!(home.read("log"), "get ghcr.io\nget other.io\n");
    let keychains = ocikit_registry::Keychains(vec![
        std::sync::Arc::new(home.config("{ broken")),
        std::sync::Arc::new(ocikit_registry::Fixed { registry: None, credential: Credential::password("u", "p") }),
    ]);
    assert_eq!(keychains.credential(&ghcr(), "").await.unwrap(), Some(Credential::password("u", "p")));
}

#[tokio::test]
async fn output_after_the_credential_is_ignored() {
    let home = Home::new();
    for (script, expected) in [
        (r#"echo '{"ServerURL":"h","Username":null,"Secret":""}'"#, None),
        (r#"printf '{"username":"u","secret":"p"}\nnoise'"#, Some(Credential::password("u", "p"))),
    ] {
        home.helper("x", script);
        let config = home.config(r#"{"credsStore":"x"}"#);
        assert_eq!(config.credential(&ghcr(), "").await.unwrap(), expected, "{script}");
    }
}

#[tokio::test]
async fn login_and_logout_use_the_helper() {
    let home = Home::new();
    home.helper("x", "true");
    let config = home.config(r#"{"credHelpers":{"docker.io":"x"}}"#);
    config.login(&hub().into(), &Credential::password("u", "s3cret")).await.unwrap();
    assert!(!home.read("config.json").contains("s3cret"));
    config.logout(&hub().into()).await.unwrap();
    let log = home.read("log");
    assert_eq!(
        log,
        "store {\"ServerURL\":\"https://index.docker.io/v1/\",\"Username\":\"u\",\"Secret\":\"s3cret\"}\n\
         erase https://index.docker.io/v1/\n"
    );
}

#[tokio::test]
async fn podman_7563_files_are_asked_in_order() {
    let home = Home::new();
    let entry = |user: &str| format!(r#"{{"auths":{{"ghcr.io":{{"username":"{user}","password":"p"}}}}}}"#);
    // containers/podman#7563, containers/podman#26189 and containers/buildah#5333: credentials of `podman login` are
    // found in every location.
    let files = [
        "first.json",
        "run/containers/auth.json",
        "config/containers/auth.json",
        "run/containers/1000/auth.json",
        "docker/config.json",
    ];
    let places = CredentialPlaces::default()
        .registry_auth_file(Some(home.path(files[0])))
        .runtime_directory(Some(home.path("run")))
        .configuration_directory(Some(home.path("config")))
        .run_directory(Some(home.path("run/containers/1000")))
        .docker_config(Some(home.path("docker")))
        .home(Some(home.path("empty")));
    for (position, file) in files.iter().enumerate().rev() {
        fs::create_dir_all(home.path(file).parent().unwrap()).unwrap();
        fs::write(home.path(file), entry(&position.to_string())).unwrap();
        let found = places.keychain(&HelperOptions::default()).credential(&ghcr(), "a").await.unwrap();
        assert_eq!(found, Some(Credential::password(position.to_string(), "p")), "{file}");
    }
    let at_home = CredentialPlaces::default().home(Some("/h".into()));
    assert_eq!(at_home.files(), ["/h/.config/containers/auth.json", "/h/.docker/config.json"].map(PathBuf::from));
}
