//! What a job publishes: the repositories, the tags and whether to sign, from its configuration and git state.

use ocikit::{Digest, Repository};

use crate::config::{Access, Attest, Config, Prefix, Stage, Target};
use crate::git::{Event, GitState};
use crate::tags::TagSet;

/// A repository that an image is pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Destination {
    /// The repository that receives the image.
    pub push: Repository,
    /// The repository that the image is read from: another name of the same one.
    pub read: Repository,
}

impl Destination {
    /// Creates a destination that is read where it is pushed to.
    pub fn new(push: Repository) -> Destination {
        Destination { read: push.clone(), push }
    }
}

/// Whether the image is signed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signing {
    /// The rule of the event asks for it.
    Wanted,
    /// The rule of the event forbids it.
    NotForEvent(Event),
    /// No signer is configured.
    NoSigner,
}

impl Signing {
    /// Returns the decision in words.
    pub fn words(self) -> String {
        match self {
            Signing::Wanted => "signed".to_owned(),
            Signing::NotForEvent(event) => format!("not signed: images of {event} events are not"),
            Signing::NoSigner => "not signed: no signer is configured".to_owned(),
        }
    }
}

/// What is published.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    /// The event.
    pub event: Event,
    /// The repositories, at least one.
    pub destinations: Vec<Destination>,
    /// The tags in each repository.
    pub tags: TagSet,
    /// Whether the image is signed.
    pub signing: Signing,
    /// Whether moving tags may go back to an older version.
    pub allow_back: bool,
    /// Whether tags are put one after another, in their order, and none after one that fails. The last tag then says that
    /// the image has all of them.
    pub in_order: bool,
    /// The attestations to make.
    pub attest: Attest,
    /// The digests that the images had before they were annotated, which the attestations of their build may name.
    pub annotated_from: Vec<Digest>,
    /// Where the image comes from, for the statement about the publication.
    pub source: GitState,
}

/// Why there is nothing to publish to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The configuration excludes the event.
    #[error("cannot publish: the configuration excludes {0} events")]
    Excluded(Event),
    /// There is no registry of the kind that the event needs.
    #[error("cannot publish: the configuration has no `{key}`, which {event} events need")]
    NoRegistry {
        /// The missing key.
        key: &'static str,
        /// The event.
        event: Event,
    },
    /// The image has no name.
    #[error("cannot publish: the name of the image is not given")]
    NoName,
    /// A repository is not valid.
    #[error("cannot publish to {prefix}: {problem}")]
    Repository {
        /// The registry and path.
        prefix: String,
        /// The problem.
        problem: String,
    },
}

impl Plan {
    /// Creates a plan for these repositories, without signing. A repository that is listed again is left out.
    pub fn new(event: Event, destinations: Vec<Destination>, tags: TagSet) -> Plan {
        let mut distinct: Vec<Destination> = Vec::new();
        for destination in destinations {
            if !distinct.iter().any(|known| known.push == destination.push) {
                distinct.push(destination);
            }
        }
        Plan {
            event,
            destinations: distinct,
            tags,
            signing: Signing::NoSigner,
            allow_back: false,
            in_order: false,
            attest: Attest::default(),
            annotated_from: Vec::new(),
            source: GitState { event, ..GitState::default() },
        }
    }

    /// Signs the image if the event is one whose images are signed, for a plan without a configuration: pull requests and
    /// merge groups are not.
    #[must_use]
    pub fn signed_by_event(mut self) -> Plan {
        self.signing = match self.event {
            Event::PullRequest | Event::MergeGroup => Signing::NotForEvent(self.event),
            Event::Push | Event::Dispatch | Event::Schedule | Event::Local => Signing::Wanted,
        };
        self
    }

    /// Creates the plan of a job by its configuration. `has_signer` says whether anything could sign.
    ///
    /// # Errors
    ///
    /// [`PlanError`].
    pub fn of(
        config: &Config,
        git: &GitState,
        name: Option<&str>,
        access: Access,
        tags: TagSet,
        has_signer: bool,
    ) -> Result<Plan, PlanError> {
        let rule = config.rule(git.event);
        let stage = rule.stage.ok_or(PlanError::Excluded(git.event))?;
        let name = name.or(config.name.as_deref()).ok_or(PlanError::NoName)?;
        let targets = config.registries.get(&(stage, access)).filter(|targets| !targets.is_empty());
        let targets = targets.ok_or(PlanError::NoRegistry { key: key(stage, access), event: git.event })?;
        let destinations = targets.iter().map(|target| destination(target, name)).collect::<Result<_, _>>()?;
        let signing = match (rule.sign, has_signer) {
            (false, _) => Signing::NotForEvent(git.event),
            (true, false) => Signing::NoSigner,
            (true, true) => Signing::Wanted,
        };
        Ok(Plan {
            signing,
            allow_back: config.allow_back,
            attest: rule.attest,
            source: git.clone(),
            ..Plan::new(git.event, destinations, tags)
        })
    }
}

fn key(stage: Stage, access: Access) -> &'static str {
    match (stage, access) {
        (Stage::Prod, Access::Open) => "registry",
        (Stage::Dev, Access::Open) => "dev-registry",
        (Stage::Prod, Access::Restricted) => "restricted-registry",
        (Stage::Dev, Access::Restricted) => "restricted-dev-registry",
    }
}

fn destination(target: &Target, name: &str) -> Result<Destination, PlanError> {
    let repository = |prefix: &Prefix| {
        let repository = prefix.repository(name);
        repository.map_err(|error| PlanError::Repository { prefix: prefix.to_string(), problem: error.to_string() })
    };
    Ok(Destination { push: repository(&target.push)?, read: repository(&target.read)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(event: Event, access: Access) -> Result<Plan, PlanError> {
        let config = Config::parse(
            "
            registry: [r.example/prod, s.example/prod]
            dev-registry: r.example/dev
            restricted-registry: [{push: r.example/restricted-images, read: r.example/virtual}]
            events: {local: {registry: none}}
            ",
        )
        .unwrap();
        let git = GitState { event, ..GitState::default() };
        Plan::of(&config, &git, Some("app"), access, TagSet::default(), true)
    }

    #[test]
    fn kym_13_events_decide_repositories_and_signing() {
        for (event, repositories, signing) in [
            (Event::Push, &["r.example/prod/app", "s.example/prod/app"][..], Signing::Wanted),
            (Event::Schedule, &["r.example/prod/app", "s.example/prod/app"], Signing::Wanted),
            (Event::Dispatch, &["r.example/prod/app", "s.example/prod/app"], Signing::Wanted),
            (Event::PullRequest, &["r.example/dev/app"], Signing::NotForEvent(Event::PullRequest)),
            (Event::MergeGroup, &["r.example/dev/app"], Signing::NotForEvent(Event::MergeGroup)),
        ] {
            let plan = plan(event, Access::Open).unwrap();
            let found: Vec<_> = plan.destinations.iter().map(|found| found.push.to_string()).collect();
            assert_eq!(
                (&found[..], plan.signing),
                (&repositories.iter().map(ToString::to_string).collect::<Vec<_>>()[..], signing)
            );
        }
        assert_eq!(plan(Event::Local, Access::Open).unwrap_err(), PlanError::Excluded(Event::Local));
    }

    #[test]
    fn kym_16_restricted_images_are_read_at_the_virtual_repository() {
        let found = plan(Event::Push, Access::Restricted).unwrap();
        assert_eq!(found.destinations[0].push.to_string(), "r.example/restricted-images/app");
        assert_eq!(found.destinations[0].read.to_string(), "r.example/virtual/app");
        let none = plan(Event::PullRequest, Access::Restricted).unwrap_err();
        assert_eq!(none, PlanError::NoRegistry { key: "restricted-dev-registry", event: Event::PullRequest });
    }

    #[test]
    fn repositories_are_published_to_once() {
        let destinations = ["r.example/a", "r.example/b", "R.example:443/a", "r.example/a"];
        let destinations = destinations.map(|name| Destination::new(name.parse().unwrap())).to_vec();
        let plan = Plan::new(Event::Push, destinations, TagSet::default());
        let distinct: Vec<_> = plan.destinations.iter().map(|destination| destination.push.to_string()).collect();
        assert_eq!(distinct, ["r.example/a", "r.example/b"]);
    }
}
