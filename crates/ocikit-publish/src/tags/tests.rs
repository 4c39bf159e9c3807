use base64::Engine;
use base64::engine::general_purpose::STANDARD as STANDARD_ENGINE;

use super::*;

fn values(set: &TagSet) -> Vec<&str> {
    set.tags.iter().map(|planned| planned.tag.as_str()).collect()
}

fn git(change: impl FnOnce(&mut GitState)) -> GitState {
    let mut git = GitState { base_sha: Some("6c22711aabbccddeeff00112233".to_owned()), ..GitState::default() };
    change(&mut git);
    git
}

fn fixed(git: &GitState) -> Result<TagSet, TagError> {
    let request = TagRequest { fixed: Some(FixedScheme::default()), ..TagRequest::default() };
    compute(&request, git, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH)
}

fn named(tags: &[&str], git: &GitState) -> Result<TagSet, TagError> {
    let named = tags.iter().map(|tag| tag.parse()).collect::<Result<_, _>>()?;
    let environment = [("REF".to_owned(), "main".to_owned()), ("SECRET".to_owned(), "hunter2".to_owned())].into();
    let environment = AllowedEnvironment::new(["REF".to_owned()], &environment);
    compute(&TagRequest { named, ..TagRequest::default() }, git, &environment, Timestamp::UNIX_EPOCH)
}

fn tags(texts: &[&str]) -> Vec<ocikit::Tag> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn plp_10_branches_have_their_commit_and_the_default_branch_has_latest() {
    let main = git(|git| (git.branch, git.is_default_branch) = (Some("main".to_owned()), true));
    assert_eq!(values(&fixed(&main).unwrap()), ["main", "main-6c22711", "latest"]);
}

#[test]
fn plp_11_branches_are_sanitized_or_refused() {
    let of = |name: &str| fixed(&git(|git| git.branch = Some(name.to_owned())));
    assert_eq!(values(&of("feature/xyz").unwrap()), ["feature-xyz", "feature-xyz-6c22711"]);
    for name in ["///", "", &"x".repeat(130), &"x".repeat(125)] {
        assert!(matches!(of(name), Err(TagError::Invalid { .. })), "{name}");
    }
    assert_eq!(fixed(&git(|_| {})), Err(TagError::NoContext));
    let no_commit = GitState { branch: Some("main".to_owned()), ..GitState::default() };
    assert_eq!(fixed(&no_commit), Err(TagError::NoCommit { of: "the branch main".to_owned() }));
}

#[test]
fn plp_12_versions_do_not_move_tags_back() {
    let of = |tag: &str| fixed(&git(|git| git.tag = Some(tag.to_owned()))).unwrap();
    for tag in ["v1.2.3", "1.2.3"] {
        assert_eq!(values(&of(tag)), ["1.2.3", "1.2", "1"]);
    }
    let after = of("v1.2.4").never_back(&tags(&["1.3.0", "1.2.3", "latest", "v0.9.0", "2.0.0-rc.1"]));
    assert_eq!(values(&after), ["1.2.4", "1.2"]);
    assert_eq!(after.skipped[0].reason.to_string(), "1.3.0 is published, which is newer");
    assert_eq!(values(&of("v1.10.0").never_back(&tags(&["1.9.0"]))), ["1.10.0", "1.10", "1"]);
    assert_eq!(values(&of("v1.2.4").never_back(&tags(&["1.2.10"]))), ["1.2.4"]);
    let scheme = FixedScheme { keep_v: true, latest_release: true };
    let request = TagRequest { fixed: Some(scheme), ..TagRequest::default() };
    let state = git(|git| git.tag = Some("v1.2.3".to_owned()));
    let set = compute(&request, &state, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(values(&set), ["1.2.3", "1.2", "1", "v1.2.3", "latest"]);
    assert_eq!(values(&set.never_back(&tags(&["2.0.0"]))), ["1.2.3", "1.2", "1", "v1.2.3"]);
}

#[test]
fn plp_13_pre_releases_move_nothing() {
    let state = git(|git| {
        git.tag = Some("v1.2.3-rc.1".to_owned());
    });
    assert_eq!(values(&fixed(&state).unwrap()), ["v1.2.3-rc.1"]);
    let state = GitState { branch: Some("main".to_owned()), is_default_branch: true, ..state };
    let set = fixed(&state).unwrap();
    assert_eq!(values(&set), ["v1.2.3-rc.1", "main", "main-6c22711"]);
    assert_eq!((set.skipped[0].tag.as_str(), &set.skipped[0].reason), ("latest", &SkipReason::PreRelease));
}

#[test]
fn plp_15_every_context_adds_its_tags() {
    let state = git(|git| {
        (git.branch, git.is_default_branch) = (Some("main".to_owned()), true);
        (git.pull_request, git.tag) = (Some(7), Some("v1.2.3".to_owned()));
    });
    let expected = ["1.2.3", "1.2", "1", "pr-7", "pr-7-6c22711", "main", "main-6c22711", "latest"];
    assert_eq!(values(&fixed(&state).unwrap()), expected);
    let same = git(|git| (git.branch, git.tag) = (Some("1.2".to_owned()), Some("v1.2.3".to_owned())));
    let set = fixed(&same).unwrap().never_back(&tags(&["1.2.9"]));
    assert_eq!(values(&set), ["1.2.3", "1.2", "1.2-6c22711"]);
    assert_eq!(set.skipped[0].reason, SkipReason::Duplicate("1.2".to_owned()));
}

#[test]
fn kym_1_templates_and_default_come_in_order() {
    let commit = NamedTag {
        name: "default_tag".to_owned(),
        value: "v{{ .Date }}-{{ .ShortSHA }}".to_owned(),
        validation: Some("^(v[0-9]{8}-[0-9a-f]{8})$".to_owned()),
    };
    let request = TagRequest {
        named: vec!["latest".parse().unwrap(), "v=v{{ .ShortSHA }}".parse().unwrap()],
        defaults: DefaultTags { commit: Some(commit), ..DefaultTags::default() },
        ..TagRequest::default()
    };
    let state = git(|git| git.base_sha = Some("da39a3ee5e6b4b0d3255bfef95601890afd80709".to_owned()));
    let set = compute(&request, &state, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH).unwrap();
    let names: Vec<_> = set.tags.iter().map(|planned| (&*planned.name, planned.tag.as_str())).collect();
    assert_eq!(names, [("latest", "latest"), ("v", "vda39a3ee"), ("default_tag", "v19700101-da39a3ee")]);
    let pull_request = GitState { event: Event::PullRequest, ..state };
    let none = compute(&request, &pull_request, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(none, Err(TagError::NoDefault { kind: "pull requests" }));
}

#[test]
fn kym_2_names_come_from_values() {
    for (text, name, value) in [
        ("latest", "latest", "latest"),
        ("v{{ .ShortSHA }}-{{ .Date }}", "vShortSHA-Date", "v{{ .ShortSHA }}-{{ .Date }}"),
        ("{{ .Env \"REF\" }}-{{ .ShortSHA }}", "EnvREF-ShortSHA", "{{ .Env \"REF\" }}-{{ .ShortSHA }}"),
        ("v1.2.3", "v123", "v1.2.3"),
        ("a=b", "a", "b"),
        ("{{ $x := 1 }}v{{ $x }}", "x1vx", "{{ $x := 1 }}v{{ $x }}"),
        ("a={{ if eq .Tag `` }}b{{ end }}", "a", "{{ if eq .Tag `` }}b{{ end }}"),
    ] {
        let found: NamedTag = text.parse().unwrap();
        assert_eq!((&*found.name, &*found.value), (name, value));
    }
    // `=` belongs to the value, which is no tag then.
    assert!(
        matches!(named(&["a=b=c"], &git(|_| {})), Err(TagError::Invalid { name, value, .. }) if name == "a" && value == "b=c")
    );
    for text in ["", "=", "a=", "=b", "{{ }}"] {
        assert!(matches!(text.parse::<NamedTag>(), Err(TagError::Empty { .. })), "{text}");
    }
}

#[test]
fn kym_4_validations_are_anchored_and_required() {
    let check = |name: &str, pattern: &str| {
        let named = NamedTag { name: name.to_owned(), value: "PR-7".to_owned(), validation: Some(pattern.to_owned()) };
        let request = TagRequest { named: vec![named], ..TagRequest::default() };
        compute(&request, &git(|_| {}), &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH)
    };
    assert!(check("t", "PR-[0-9]+").is_ok() && check("t", "^(PR-[0-9]+)$").is_ok() && check("t", "").is_ok());
    assert!(matches!(check("t", "PR"), Err(TagError::NoMatch { .. })));
    assert!(matches!(check("t", "x|PR"), Err(TagError::NoMatch { .. })));
    assert!(matches!(check("default_tag", ""), Err(TagError::NoValidation { .. })));
    assert!(matches!(check("t", "("), Err(TagError::Pattern { .. })));
    assert!(matches!(check("t", "(?:a{1000}){1000}"), Err(TagError::Pattern { .. })));
}

#[test]
fn kym_5_results_that_are_no_tags_are_named() {
    for (template, message) in [
        ("v={{ .PRNumber }}", "cannot use `` as the tag `v`: it is empty"),
        ("v=a/b", "cannot use `a/b` as the tag `v`: "),
        ("v=.a", "cannot use `.a` as the tag `v`: "),
    ] {
        let error = named(&[template], &git(|_| {})).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn kym_6_only_allowed_variables_are_read() {
    assert_eq!(values(&named(&[r#"v={{ .Env "REF" }}"#], &git(|_| {})).unwrap()), ["main"]);
    let error = named(&[r#"v={{ .Env "SECRET" }}"#], &git(|_| {})).unwrap_err().to_string();
    assert!(error.contains("`SECRET` is not on the allow-list") && !error.contains("hunter2"), "{error}");
}

#[test]
fn kym_7_encoded_tags_equal_flags() {
    let flags = ["a=v{{ printf `%s,%s` .ShortSHA `=` | trunc 3 }}", "latest", "b={{ $x := 1 }}v{{ $x }}"];
    let expected: Vec<NamedTag> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
    let json = serde_json::to_string(&flags).unwrap();
    for text in [flags.join(","), flags.join("\n"), json] {
        assert_eq!(decode_base64(&STANDARD_ENGINE.encode(&text)).unwrap(), expected, "{text}");
    }
    assert!(decode_base64("!").is_err() && decode_base64(&STANDARD_ENGINE.encode("[1]")).is_err());
}

#[test]
fn duplicates_are_reported() {
    let set = named(&["latest", "l=latest"], &git(|_| {})).unwrap();
    assert_eq!(values(&set), ["latest"]);
    assert_eq!(set.skipped[0].name, "l");
    let many: Vec<_> = (0..=MAX_TAGS).map(|number| format!("t{number}")).collect();
    let many: Vec<_> = many.iter().map(|tag| &**tag).collect();
    assert_eq!(named(&many, &git(|_| {})), Err(TagError::TooMany));
    assert_eq!(named(&[], &git(|_| {})), Err(TagError::None));
}

#[test]
fn versions_come_with_latest() {
    let of = |version: &str| {
        let request = TagRequest { version: Some(version.to_owned()), ..TagRequest::default() };
        compute(&request, &git(|_| {}), &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH)
    };
    assert_eq!(values(&of("1.2.3").unwrap()), ["1.2.3", "latest"]);
    assert_eq!(values(&of("1.2.3").unwrap().never_back(&tags(&["1.10.0"]))), ["1.2.3"], "CIP-18");
    assert_eq!(values(&of("1.0.0-rc1").unwrap()), ["1.0.0-rc1"]);
    for wrong in ["1.2", "x", "1.2.3+b"] {
        assert!(matches!(of(wrong), Err(TagError::Version { .. })), "{wrong}");
    }
}
