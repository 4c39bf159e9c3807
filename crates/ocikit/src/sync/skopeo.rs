//! Parser for the files of `skopeo sync`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ocikit_image::Referrers;
use ocikit_registry::Credential;
use serde::Deserialize;

use super::config::{Access, Config, DEFAULT_JOBS, Invalid, Prefix, Rule, source};
use super::select::{InvalidSelection, Select};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Registry {
    #[serde(default)]
    images: BTreeMap<String, Option<Vec<String>>>,
    #[serde(default)]
    images_by_tag_regex: BTreeMap<String, String>,
    #[serde(default)]
    images_by_semver: BTreeMap<String, String>,
    credentials: Option<Credentials>,
    tls_verify: Option<bool>,
    cert_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    username: String,
    password: String,
}

/// Parses a file. Everything is copied below one target, which is not part of the file, and with all platforms, as
/// skopeo does.
pub(super) fn parse(text: &str, to: Option<&Prefix>) -> Result<Config, Invalid> {
    let file: BTreeMap<String, Registry> = serde_saphyr::from_str(text).map_err(Invalid::syntax)?;
    let mut config = Config { jobs: DEFAULT_JOBS, per_minute: None, rules: Vec::new(), registries: BTreeMap::new() };
    for (host, registry) in file {
        let mut add = |image: &str, select: Result<Select, InvalidSelection>| {
            let name = format!("{host}/{image}");
            let from = source(&name)?;
            let to = to.ok_or_else(|| Invalid::NoTarget { image: name.clone() })?.target(&name, &from)?;
            let select = select.map_err(|problem| Invalid::selection(&name, problem))?;
            config.rules.push(Rule { from, to, select, platforms: Vec::new(), referrers: Referrers::All });
            Ok(())
        };
        for (image, tags) in &registry.images {
            add(image, Select::of(tags.as_deref().unwrap_or_default(), &[], None, &[]))?;
        }
        for (image, expression) in &registry.images_by_tag_regex {
            add(image, Select::of(&[], std::slice::from_ref(expression), None, &[]))?;
        }
        for (image, versions) in &registry.images_by_semver {
            add(image, Select::of(&[], &[], Some(versions), &[]))?;
        }
        let credential = registry.credentials.map(|found| Credential::password(found.username, found.password));
        let insecure = registry.tls_verify == Some(false);
        config.registries.insert(host, Access { credential, insecure, certificates: registry.cert_dir });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_of_skopeo() {
        let text = "
registry.example.com:
  images:
    busybox: []
    redis: ['1.0', 2.0, 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855']
  images-by-tag-regex:
    nginx: ^1\\.13\\.[12]-alpine-perl$
  images-by-semver:
    library/alpine: '>= 3.12'
  credentials:
    username: john
    password: secret
  tls-verify: false
  cert-dir: /certs
quay.io:
  tls-verify: true
  images:
    coreos/etcd: [latest]
";
        let config = Config::parse(text, Some(&"localhost:5000/mirror".parse().unwrap())).unwrap();
        let rules: Vec<_> = config.rules.iter().map(|rule| format!("{} {}", rule.from, rule.to)).collect();
        assert_eq!(
            rules,
            [
                "quay.io/coreos/etcd localhost:5000/mirror/etcd",
                "registry.example.com/busybox localhost:5000/mirror/busybox",
                "registry.example.com/redis localhost:5000/mirror/redis",
                "registry.example.com/nginx localhost:5000/mirror/nginx",
                "registry.example.com/library/alpine localhost:5000/mirror/alpine",
            ]
        );
        assert_eq!(config.rules[2].select.choose(&[]).len(), 3);
        let access = &config.registries["registry.example.com"];
        assert!(access.insecure && access.credential.is_some() && access.certificates.is_some());
        assert!(!format!("{config:?}").contains("secret"));
        assert!(!config.registries["quay.io"].insecure);
        assert!(Config::parse(text, None).is_err());
    }
}
