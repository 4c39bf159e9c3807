use std::collections::BTreeMap;
use std::fmt;

use ocikit::Annotations;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::model::{Access, Attest, Config, ConfigError, MAX_CONFIG_BYTES, MAX_REGISTRIES, Rule, Stage, Target};
use super::prefix::Prefix;
use crate::formats::LayerFormat;
use crate::git::Event;
use crate::lazy::{LazyPlacement, LazyRequest, LazySuffix};
use crate::oidc::TrustedIssuer;
use crate::signify;
use crate::tags::{FixedScheme, NamedTag, TagYaml};
use crate::yaml::yaml_problem;

/// The keys of the file. Those of the image builder have their names there.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    name: Option<Spanned<String>>,
    registry: Option<Spanned<OneOrMore>>,
    dev_registry: Option<Spanned<OneOrMore>>,
    restricted_registry: Option<Spanned<OneOrMore>>,
    restricted_dev_registry: Option<Spanned<OneOrMore>>,
    #[serde(default)]
    events: BTreeMap<Event, EventYaml>,
    tag_scheme: Option<SchemeYaml>,
    #[serde(default)]
    tags: Vec<Spanned<TagYaml>>,
    default_commit_tag: Option<Spanned<NamedTag>>,
    default_pr_tag: Option<Spanned<NamedTag>>,
    default_merge_group_tag: Option<Spanned<NamedTag>>,
    additional_pr_tag: Option<Spanned<NamedTag>>,
    #[serde(default)]
    allow_env: Vec<String>,
    #[serde(default)]
    allow_moving_back: bool,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    formats: Vec<Spanned<LayerFormat>>,
    lazy: Option<Spanned<LazyYaml>>,
    #[serde(default)]
    trusted_issuers: Vec<TrustedIssuer>,
    sign_config: Option<IgnoredAny>,
    // For the programs of the image builder that build and that start pipelines.
    cache: Option<Cache>,
    log_format: Option<LogFormat>,
    reproducible: Option<bool>,
    ado_config: Option<AdoConfig>,
}

enum OneOrMore {
    One(String),
    More(Vec<Spanned<TargetYaml>>),
}

/// Written out, because a derived untagged enum loses the places of what is in it.
impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMore, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a registry or a list of registries")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
                let mut targets = Vec::new();
                while let Some(target) = list.next_element()? {
                    targets.push(target);
                }
                Ok(OneOrMore::More(targets))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = "a registry is a text, or an object with `push` and `read`")]
enum TargetYaml {
    Prefix(String),
    Virtual { push: String, read: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct EventYaml {
    registry: Option<StageYaml>,
    sign: Option<bool>,
    #[serde(default)]
    attest: Vec<AttestYaml>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum AttestYaml {
    Build,
    Published,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StageYaml {
    Dev,
    Prod,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LazyYaml {
    formats: Vec<LayerFormat>,
    placement: Option<Spanned<String>>,
    suffix: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SchemeYaml {
    #[serde(default)]
    keep_v: bool,
    #[serde(default)]
    latest_release: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the keys of another program are checked, not used")]
struct Cache {
    enabled: Option<bool>,
    cache_run_layers: Option<bool>,
    cache_copy_layers: Option<bool>,
    cache_repo: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LogFormat {
    Color,
    Text,
    Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the keys of another program are checked, not used")]
struct AdoConfig {
    ado_organization_url: Option<String>,
    ado_project_name: Option<String>,
    ado_pipeline_id: Option<u64>,
    ado_pipeline_version: Option<u64>,
    ado_retry_strategy: Option<AdoRetries>,
    ado_refresh_interval: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the keys of another program are checked, not used")]
struct AdoRetries {
    attempts: Option<u64>,
    delay: Option<String>,
}

impl Config {
    /// Parses a configuration in YAML.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the place of the first problem. Unknown keys are problems.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::Syntax { problem: format!("it has more than {MAX_CONFIG_BYTES} bytes") });
        }
        let file: File =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Syntax { problem: yaml_problem(&error) })?;
        let mut config = Config { allow_back: file.allow_moving_back, ..Config::default() };
        if let Some(name) = file.name {
            check_name(&name)?;
            config.name = Some(name.value);
        }
        for (key, kind, given) in [
            ("registry", (Stage::Prod, Access::Open), file.registry),
            ("dev-registry", (Stage::Dev, Access::Open), file.dev_registry),
            ("restricted-registry", (Stage::Prod, Access::Restricted), file.restricted_registry),
            ("restricted-dev-registry", (Stage::Dev, Access::Restricted), file.restricted_dev_registry),
        ] {
            if let Some(given) = given {
                config.registries.insert(kind, targets(key, given)?);
            }
        }
        for (event, EventYaml { registry, sign, attest }) in file.events {
            let default = Rule::default_of(event);
            let stage = match registry {
                None => default.stage,
                Some(StageYaml::Dev) => Some(Stage::Dev),
                Some(StageYaml::Prod) => Some(Stage::Prod),
                Some(StageYaml::None) => None,
            };
            let attest = Attest {
                build: attest.contains(&AttestYaml::Build),
                published: attest.contains(&AttestYaml::Published),
            };
            config.rules.insert(event, Rule { stage, sign: sign.unwrap_or(default.sign), attest });
        }
        config.scheme =
            file.tag_scheme.map(|SchemeYaml { keep_v, latest_release }| FixedScheme { keep_v, latest_release });
        for tag in file.tags {
            let place = place(&tag);
            config.tags.push(tag.value.tag().map_err(|source| tag_error("tags", &place, source))?);
        }
        for (key, given, place) in [
            ("default-commit-tag", file.default_commit_tag, &mut config.defaults.commit),
            ("default-pr-tag", file.default_pr_tag, &mut config.defaults.pull_request),
            ("default-merge-group-tag", file.default_merge_group_tag, &mut config.defaults.merge_group),
            ("additional-pr-tag", file.additional_pr_tag, &mut config.additional_pull_request),
        ] {
            // The image builder reads an empty value as no tag.
            let Some(given) = given.filter(|tag| !tag.value.value.is_empty()) else { continue };
            given.value.check().map_err(|source| tag_error(key, &given, source))?;
            *place = Some(given.value);
        }
        config.allowed_environment = file.allow_env;
        config.annotations = file.annotations.into_iter().collect::<Annotations>();
        for format in file.formats {
            if config.formats.contains(&format.value) {
                return Err(value_error("formats", &format, format!("{} is listed twice", format.value)));
            }
            config.formats.push(format.value);
        }
        if let Some(lazy) = &file.lazy {
            config.lazy = lazy_request(lazy)?;
        }
        file.trusted_issuers.iter().try_for_each(TrustedIssuer::check)?;
        config.trusted_issuers = file.trusted_issuers;
        if file.sign_config.is_some() {
            config.signify = Some(signify::Config::parse(text)?);
        }
        let ignored = [
            ("cache", file.cache.is_some()),
            ("log-format", file.log_format.is_some()),
            ("reproducible", file.reproducible.is_some()),
            ("ado-config", file.ado_config.is_some()),
        ];
        config.ignored = ignored.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key).collect();
        Ok(config)
    }
}

fn lazy_request(lazy: &Spanned<LazyYaml>) -> Result<LazyRequest, ConfigError> {
    let LazyYaml { formats, placement, suffix } = &lazy.value;
    let mut request = LazyRequest::default();
    for format in formats {
        let found = format.lazy();
        request.formats.push(found.ok_or_else(|| value_error("lazy", lazy, format!("{format} is not lazily pulled")))?);
    }
    if let Some(given) = placement {
        request.placement =
            given.value.parse::<LazyPlacement>().map_err(|problem| value_error("placement", given, problem))?;
    }
    if let Some(given) = suffix {
        request.suffix = given.value.parse::<LazySuffix>().map_err(|problem| value_error("suffix", given, problem))?;
    }
    request.check().map_err(|problem| value_error("lazy", lazy, problem))?;
    Ok(request)
}

fn check_name(name: &Spanned<String>) -> Result<(), ConfigError> {
    let registry = ocikit::Registry::docker_hub();
    ocikit::Repository::new(registry, &name.value).map(|_| ()).map_err(|error| value_error("name", name, error))
}

fn targets(key: &str, given: Spanned<OneOrMore>) -> Result<Vec<Target>, ConfigError> {
    let whole = place(&given);
    let parse = |text: &str, place: &Spanned<()>| text.parse().map_err(|error| value_error(key, place, error));
    let targets = match given.value {
        OneOrMore::One(text) => vec![Target::new(parse(&text, &whole)?)],
        OneOrMore::More(list) if list.len() > MAX_REGISTRIES => {
            return Err(value_error(key, &list[MAX_REGISTRIES], format!("more than {MAX_REGISTRIES} registries")));
        }
        OneOrMore::More(list) => {
            let target = |entry: &Spanned<TargetYaml>| match &entry.value {
                TargetYaml::Prefix(text) => Ok(Target::new(parse(text, &place(entry))?)),
                TargetYaml::Virtual { push, read } => {
                    Ok(Target { push: parse(push, &place(entry))?, read: parse(read, &place(entry))? })
                }
            };
            list.iter().map(target).collect::<Result<_, ConfigError>>()?
        }
    };
    let pushes: Vec<&Prefix> = targets.iter().map(|target| &target.push).collect();
    match pushes.iter().enumerate().find(|(at, prefix)| pushes[..*at].contains(prefix)) {
        Some((_, twice)) => Err(value_error(key, &whole, format!("{twice} is listed twice"))),
        None => Ok(targets),
    }
}

fn place<T>(spanned: &Spanned<T>) -> Spanned<()> {
    Spanned::new((), spanned.referenced, spanned.defined)
}

fn value_error<T>(key: &str, at: &Spanned<T>, problem: impl ToString) -> ConfigError {
    let (line, column) = (at.referenced.line(), at.referenced.column());
    ConfigError::Value { key: key.to_owned(), line, column, problem: problem.to_string() }
}

fn tag_error<T>(key: &str, at: &Spanned<T>, source: crate::tags::TagError) -> ConfigError {
    let (line, column) = (at.referenced.line(), at.referenced.column());
    ConfigError::Tag { key: key.to_owned(), line, column, source }
}
