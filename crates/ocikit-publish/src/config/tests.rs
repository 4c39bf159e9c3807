use std::collections::BTreeMap;

use super::*;
use crate::formats::LayerFormat;
use crate::git::Event;

const IMAGE_BUILDER: &str = r#"
registry: europe-docker.pkg.dev/kyma-project/prod
dev-registry:
  - europe-docker.pkg.dev/kyma-project/dev
  - localhost:5000
cache:
  enabled: true
  cache-run-layers: true
  cache-copy-layers: true
  cache-repo: europe-docker.pkg.dev/kyma-project/cache/cache
log-format: json
reproducible: true
default-commit-tag:
  name: default_tag
  value: v{{ .Date }}-{{ .ShortSHA }}
  validation: ^(v[0-9]{8}-[0-9a-f]{8})$
default-pr-tag:
  name: default_tag
  value: PR-{{ .PRNumber }}
  validation: ^(PR-[0-9]+)$
default-merge-group-tag:
  name: default_tag
  value: 0.0.0-MG.{{ .ShortSHA }}
  validation: ^0\.0\.0-MG\.[0-9a-f]{8}$
additional-pr-tag:
  name: semver_pr_tag
  value: v{{ .PRNumber }}-PR
  validation: ^v[0-9]+-PR$
sign-config:
  enabled-signers:
    '*': [default]
  signers:
    - name: default
      type: notary
      job-type: [postsubmit]
      config:
        endpoint: https://signing.example.com/sign
        timeout: 5m
        retry-timeout: 10s
        secret: {path: /secret.json, type: signify}
ado-config:
  ado-organization-url: https://dev.azure.com/hyperspace-pipelines
  ado-project-name: kyma
  ado-pipeline-id: 14902
  ado-retry-strategy: {attempts: 3, delay: 5s}
  ado-refresh-interval: 15s
"#;

const OWN: &str = "
name: team/app
registry:
  - ghcr.io/acme
  - {push: pkg.example/restricted-images-prod, read: pkg.example/restricted-prod}
restricted-registry: pkg.example/r
restricted-dev-registry: pkg.example/rd
events:
  schedule: {registry: dev, sign: false, attest: [build, published]}
  local: {registry: none}
tag-scheme: {keep-v: true}
tags: [latest, {name: v, value: 'v{{ .ShortSHA }}'}]
allow-env: [BUILD]
allow-moving-back: true
annotations: {org.opencontainers.image.vendor: Acme}
formats: [gzip, zstd]
lazy: {formats: [nydus], placement: index}
trusted-issuers:
  - name: github
    issuer: https://token.actions.example
    audiences: [image-builder]
    workflows: [acme/infra/.github/workflows/image-builder.yml@refs/heads/main]
    claims: {repository_owner: acme}
    algorithms: [RS256, ES256]
";

#[test]
fn file_of_the_image_builder_is_read() {
    let config = Config::parse(IMAGE_BUILDER).unwrap();
    let dev = &config.registries[&(Stage::Dev, Access::Open)];
    assert_eq!(dev[0].push.repository("app").unwrap().to_string(), "europe-docker.pkg.dev/kyma-project/dev/app");
    assert_eq!(dev[1].push.repository("app").unwrap().to_string(), "localhost:5000/app");
    assert_eq!(config.defaults.merge_group.unwrap().value, "0.0.0-MG.{{ .ShortSHA }}");
    assert_eq!(config.ignored, ["cache", "log-format", "reproducible", "ado-config"]);
    assert!(config.signify.is_some() && config.scheme.is_none());
}

#[test]
fn own_keys_are_read() {
    let config = Config::parse(OWN).unwrap();
    let prod = &config.registries[&(Stage::Prod, Access::Open)];
    assert_eq!(prod[1].read.repository("a").unwrap().to_string(), "pkg.example/restricted-prod/a");
    let (attest, all) = (Attest::default(), Attest { build: true, published: true });
    assert_eq!(config.rule(Event::Schedule), Rule { stage: Some(Stage::Dev), sign: false, attest: all });
    assert_eq!(config.rule(Event::Local), Rule { stage: None, sign: false, attest });
    assert_eq!(config.rule(Event::Push), Rule { stage: Some(Stage::Prod), sign: true, attest });
    assert_eq!(config.rule(Event::MergeGroup), Rule { stage: Some(Stage::Dev), sign: false, attest });
    assert_eq!(config.formats, [LayerFormat::Gzip, LayerFormat::Zstd]);
    assert_eq!((config.lazy.formats[0].name(), config.lazy.placement.name()), ("nydus", "index"));
    assert_eq!(config.trusted_issuers[0].workflows.len(), 1);
    assert!(config.scheme.unwrap().keep_v && config.allow_back);
    assert_eq!(config.tags.len(), 2);
}

#[test]
fn errors_name_the_place() {
    for (text, expected) in [
        ("registri: a", "line 1"),
        (
            "registry: a\ntags:\n  - '{{ .X'\n",
            "line 3, column 5: `tags`: cannot compute the tag `X`: unexpected action without `}}`",
        ),
        (
            "default-pr-tag: {name: default_tag, value: x}",
            "line 1, column 17: `default-pr-tag`: cannot use the tag `default_tag`: it needs a validation",
        ),
        ("default-pr-tag: {name: t, value: x, validation: '('}", "`default-pr-tag`: cannot validate the tag `t`"),
        ("name: A", "line 1, column 7: `name`: "),
        ("registry: [a.b/c, 'UPPER/CASE']", "line 1, column 19: `registry`: "),
        ("registry: [a.b/c, a.b/c]", "`registry`: a.b/c is listed twice"),
        ("registry: [{push: a.b/c}]", "a registry is a text, or an object with `push` and `read`"),
        ("tags: [{nam: t}]", "a tag is a text, or an object with"),
        ("events: {pull: {}}", "line 1"),
        ("events: {push: {registry: nowhere}}", "line 1"),
        ("cache: {enable: true}", "line 1"),
        ("sign-config: {}", "the sign-config is not valid"),
        ("formats: [gzip, gzip]", "line 1, column 17: `formats`: gzip is listed twice"),
        ("formats: [xz]", "line 1"),
        ("events: {push: {attest: [all]}}", "line 1"),
        (
            "trusted-issuers: [{name: x, issuer: 'https://a.example', audiences: []}]",
            "`trusted-issuers`: the issuer `x`: it has no audience",
        ),
        ("trusted-issuers: [{name: x, issuer: 'https://a.example', audiences: [a], algorithms: [none]}]", "line 1"),
        ("trusted-issuers: [{name: x, issuer: 'https://a.example', audiences: [a], secret: b}]", "line 1"),
        ("log-format: xml", "line 1"),
        ("[", "line 1"),
    ] {
        let error = Config::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// The schema has the keys that are read, and no other.
#[test]
fn schema_has_every_key() {
    let schema = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/publish.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    let mut listed: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let texts = [IMAGE_BUILDER, OWN].map(|text| {
        let keys: BTreeMap<String, serde::de::IgnoredAny> = serde_saphyr::from_str(text).unwrap();
        keys.into_keys()
    });
    let mut known: Vec<_> = texts.into_iter().flatten().collect();
    known.sort();
    known.dedup();
    listed.sort();
    assert_eq!(listed, known, "each key is in an example above");
    for key in &listed {
        let error = Config::parse(&format!("{key}: [[[]]]")).map(|_| ()).unwrap_err().to_string();
        assert!(!error.contains("unknown"), "{key}: {error}");
    }
    assert_eq!(schema["additionalProperties"], false);
}
