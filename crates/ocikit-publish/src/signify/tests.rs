use ocikit::MediaType;

use super::*;

const TEXT: &str = "
registry: [localhost]
default-commit-tag: {name: default_tag, value: 'v1'}
sign-config:
  enabled-signers:
    '*': [all]
    acme/app: [merged, all]
  signers:
    - name: all
      type: notary
      config: {endpoint: https://sign.example/sign, timeout: 5m, retry-timeout: 1m30s, secret: {path: /all.json, type: signify}}
    - name: merged
      type: notary
      job-type: [postsubmit, schedule]
      config: {endpoint: https://sign.example:1234/, secret: {path: merged.json}}
    - name: unused
      config: {endpoint: https://sign.example/, secret: {path: x}}
";

#[test]
fn signers_are_chosen_by_repository_and_job() {
    let config = Config::parse(TEXT).unwrap();
    let all = &config.services[0];
    assert_eq!((all.timeout, all.pause), (Duration::from_secs(300), Duration::from_secs(90)));
    for (sources, job, expected) in [
        ("acme/other", Job::Local, &["all"][..]),
        ("acme/other", Job::Of("postsubmit".to_owned()), &["all"]),
        ("acme/app", Job::Local, &["all"]),
        ("acme/app", Job::Unknown, &["all", "merged"]),
        ("acme/app", Job::Of("postsubmit".to_owned()), &["all", "merged"]),
        ("acme/app", Job::Of("presubmit".to_owned()), &["all"]),
    ] {
        let found = config.select(sources, &job).unwrap();
        let names: Vec<_> = found.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, expected, "{sources} {job:?}");
        let enabled = if sources == "acme/app" { 2 } else { 1 };
        assert_eq!(found.skipped.len(), enabled - names.len(), "{sources} {job:?}");
    }
    let config = Config::parse(&TEXT.replace("'*': [all]", "'*': [merged]")).unwrap();
    let error = config.select("acme/other", &Job::Of("merge_group".to_owned())).unwrap_err().to_string();
    assert!(error.contains("in a merge_group job; not asked: merged"), "{error}");
    let config = Config::parse(&TEXT.replace("'*': [all]", "acme/lib: [all]")).unwrap();
    let error = config.select("acme/other", &Job::Local).unwrap_err().to_string();
    assert!(error.contains("no signer is enabled for acme/other"), "{error}");
}

#[test]
fn invalid_configurations_are_refused() {
    for (from, to, problem) in [
        ("job-type: [postsubmit, schedule]", "jobtype: [postsubmit]", "jobtype"),
        ("'*': [all]", "'*': [missing]", "no signer `missing`"),
        ("name: unused", "name: all", "two signers"),
        ("https://sign.example:1234/", "http://sign.example/", "not https"),
        ("https://sign.example:1234/", "https://me:secret@sign.example/", "has credentials"),
        ("https://sign.example:1234/", "nowhere", "not a URL"),
        ("timeout: 5m", "timeout: 5", "`5` is not a duration"),
        ("timeout: 5m", "timeout: 2h", "at most 1 hour"),
        ("timeout: 5m", "timeout: 0s", "timeout is zero"),
        ("timeout: 5m", "timeout: -1s", "not a duration"),
        ("sign-config:", "sign-configs:", "sign-config"),
    ] {
        let error = Config::parse(&TEXT.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(problem) && !error.contains("me:secret"), "{to}: {error}");
    }
}

#[test]
fn a_secret_has_two_base64_fields() {
    let found = identity(br#"{"certData": "QUJD\n", "privateKeyData": "REVG", "clientID": "x"}"#).unwrap();
    assert_eq!((found.certificate, found.key), (b"ABC".to_vec().into(), b"DEF".to_vec().into()));
    for text in ["", "{}", r#"{"certData": "QUJD"}"#, r#"{"certData": "QUJD", "privateKeyData": "TOP-SECRET!"}"#] {
        let error = identity(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("cannot use the client certificate") && !error.contains("SECRET"), "{error}");
    }
}

#[test]
fn repositories_have_globally_unique_names() {
    let found = Descriptor::new(MediaType::OCI_INDEX, Digest::sha256_of(b"x"), 7);
    for (reference, gun, tag) in [
        ("alpine", "index.docker.io/library/alpine", "latest"),
        ("acme/app:1", "index.docker.io/acme/app", "1"),
        ("localhost:5000/a/b:v1.2", "localhost:5000/a/b", "v1.2"),
    ] {
        let target = Target::new(&reference.parse().unwrap(), &found).unwrap();
        assert_eq!((target.gun.as_str(), target.tag.as_str()), (gun, tag));
    }
    let alone = format!("alpine@{}", found.digest);
    assert!(Target::new(&alone.parse().unwrap(), &found).is_err());
    let long = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let long = Descriptor::new(MediaType::OCI_INDEX, long, 7);
    assert!(Target::new(&"alpine".parse().unwrap(), &long).is_err());
}

#[test]
fn client_errors_are_final() {
    for (status, expected) in [(200, false), (302, false), (400, true), (403, true), (429, false), (500, false)] {
        assert_eq!(is_final(status), expected, "{status}");
    }
}

proptest::proptest! {
    #[test]
    fn untrusted_input_does_not_panic(text in ".*") {
        let _ = Config::parse(&text);
        let _ = identity(text.as_bytes());
        let _ = duration(&text);
    }
}
