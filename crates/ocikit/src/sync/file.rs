use std::collections::BTreeMap;

use ocikit_image::Referrers;
use ocikit_spec::MediaType;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::config::{Config, DEFAULT_JOBS, Invalid, Prefix, Rule, repository, source};
use super::select::Select;
use super::skopeo;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    jobs: Option<usize>,
    per_minute: Option<u32>,
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    from: String,
    to: Option<String>,
    /// YAML reads `1.20` as a number; when a string is requested, the parser returns it as it is written.
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default, rename = "match")]
    matches: Vec<String>,
    semver: Option<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default)]
    referrers: AlongWith,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "referrers are true, false, or a list of artifact types")]
enum AlongWith {
    Whether(bool),
    Types(Vec<String>),
}

impl Default for AlongWith {
    fn default() -> AlongWith {
        AlongWith::Whether(true)
    }
}

impl Config {
    /// Parses a file with a list of `images`, or one in the format of `skopeo sync`, which names registries. `to` is
    /// the target of images for which the file states none: of all images in skopeo's format.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with the position of the problem.
    pub fn parse(text: &str, to: Option<&Prefix>) -> Result<Config, Invalid> {
        let keys: BTreeMap<String, IgnoredAny> = serde_saphyr::from_str(text).map_err(Invalid::syntax)?;
        if !keys.contains_key("images") {
            return skopeo::parse(text, to);
        }
        let file: File = serde_saphyr::from_str(text).map_err(Invalid::syntax)?;
        let rules = file.images.into_iter().map(|image| image.rule(to)).collect::<Result<_, _>>()?;
        let jobs = file.jobs.unwrap_or(DEFAULT_JOBS).max(1);
        Ok(Config { jobs, per_minute: file.per_minute, rules, registries: BTreeMap::new() })
    }
}

impl Image {
    fn rule(self, to: Option<&Prefix>) -> Result<Rule, Invalid> {
        let image = &self.from;
        let from = source(image)?;
        let to = match (&self.to, to) {
            (Some(to), _) => repository(to).map_err(|problem| Invalid::Target {
                image: image.clone(),
                target: to.clone(),
                problem: problem.to_string(),
            })?,
            (None, Some(prefix)) => prefix.target(image, &from)?,
            (None, None) => return Err(Invalid::NoTarget { image: image.clone() }),
        };
        let platforms = self.platforms.iter().map(|platform| platform.parse());
        Ok(Rule {
            from,
            to,
            select: Select::of(&self.tags, &self.matches, self.semver.as_deref(), &self.except)
                .map_err(|problem| Invalid::selection(image, problem))?,
            platforms: platforms.collect::<Result<_, _>>().map_err(|error| Invalid::selection(image, error))?,
            referrers: match self.referrers {
                AlongWith::Whether(true) => Referrers::All,
                AlongWith::Whether(false) => Referrers::None,
                AlongWith::Types(types) => Referrers::OfTypes(types.into_iter().map(MediaType::new).collect()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use ocikit_image::Name;
    use ocikit_spec::Reference;

    use super::*;

    #[test]
    fn reads_own_format() {
        let text = "
jobs: 2
perMinute: 30
images:
  - from: alpine
    to: localhost:5000/mirror/alpine
    tags: [3.20, latest]
    platforms: [linux/amd64]
    referrers: false
  - from: ghcr.io/acme/app
    match: ['^v1']
    except: [-rc]
    referrers: [application/vnd.dev.cosign.artifact.sig.v1+json]
";
        let config = Config::parse(text, Some(&"localhost:5000/all".parse().unwrap())).unwrap();
        assert_eq!((config.jobs, config.per_minute), (2, Some(30)));
        let [one, two] = &config.rules[..] else { panic!("two rules") };
        assert_eq!(one.from.to_string(), "docker.io/library/alpine");
        assert_eq!(one.to.to_string(), "localhost:5000/mirror/alpine");
        assert_eq!(one.select.choose(&[])[0], Name::Tag("3.20".parse().unwrap()), "not a number");
        assert_eq!((one.platforms.len(), &one.referrers), (1, &Referrers::None));
        assert_eq!(two.to.to_string(), "localhost:5000/all/app");
        assert!(matches!(&two.referrers, Referrers::OfTypes(types) if types.len() == 1));
    }

    #[test]
    fn rejects_invalid_files() {
        for (text, problem) in [
            ("images: [{from: alpine}]", "it has no target"),
            ("images: [{from: 'alpine:1', to: localhost/a}]", "tags"),
            ("images: [{from: alpine, to: localhost/a, tagz: [1]}]", "tagz"),
            ("images: [{from: alpine, to: localhost/a, match: ['(']}]", "regex"),
            ("images: [{from: alpine, to: localhost/a, semver: x.y}]", "x.y"),
            ("images: [{from: alpine, to: localhost/a, platforms: ['/']}]", "platform"),
            ("images: 1", "line 1, column 9"),
            ("[", ""),
        ] {
            let error = Config::parse(text, None).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn repositories_go_below_a_prefix() {
        let from: Reference = "ghcr.io/acme/app".parse().unwrap();
        for (prefix, scoped, expected) in [
            ("localhost:5000", false, "localhost:5000/app"),
            ("localhost:5000/a/b/", false, "localhost:5000/a/b/app"),
            ("localhost:5000/a", true, "localhost:5000/a/ghcr.io/acme/app"),
        ] {
            let prefix = prefix.parse::<Prefix>().unwrap().scoped(scoped);
            assert_eq!(prefix.below(from.repository()).unwrap().to_string(), expected);
        }
        assert!("localhost/A".parse::<Prefix>().is_err());
    }
}
