use ocikit::Platform;
use ocikit_build::Node;

use super::placement::Placement;
use super::schedule::Schedule;
use crate::project::{Project, ProjectOptions};

/// A project whose images depend on these.
fn project(parents: &[&[usize]]) -> (tempfile::TempDir, Project) {
    let directory = tempfile::tempdir().unwrap();
    for (image, parents) in parents.iter().enumerate() {
        let path = directory.path().join(format!("contexts/{image}-image{image}"));
        std::fs::create_dir_all(&path).unwrap();
        let mut dockerfile = "ARG REGISTRY\nFROM scratch\n".to_owned();
        for parent in *parents {
            dockerfile.push_str(&format!("COPY --from=$REGISTRY/image{parent}:1.0.0 / /{parent}\n"));
        }
        std::fs::write(path.join("Dockerfile"), dockerfile).unwrap();
        std::fs::write(path.join("info.edn"), "{:version \"1.0.0\"}\n").unwrap();
    }
    let project = Project::load(directory.path(), &ProjectOptions::default()).unwrap();
    (directory, project)
}

fn schedule(project: &Project, keep_going: bool) -> Schedule {
    Schedule::new(project, &(0..project.images().len()).collect::<Vec<_>>(), keep_going)
}

fn take(schedule: &mut Schedule) -> Vec<usize> {
    std::iter::from_fn(|| schedule.next()).collect()
}

#[test]
fn cip_1_independent_images_start_together() {
    let (_directory, project) = project(&[&[], &[], &[0, 1, 0], &[0]]);
    let mut schedule = schedule(&project, false);
    assert_eq!(take(&mut schedule), [0, 1]);
    schedule.done(0);
    assert_eq!(take(&mut schedule), [3]);
    schedule.done(1);
    assert_eq!(take(&mut schedule), [2]);
    assert!(schedule.not_started().is_empty());
}

#[test]
fn cip_13_a_failure_skips_its_descendants_only() {
    let (_directory, project) = project(&[&[], &[], &[0], &[2], &[1]]);
    let mut going = schedule(&project, true);
    assert_eq!(take(&mut going), [0, 1]);
    going.failed(0);
    going.done(1);
    assert_eq!(take(&mut going), [4]);
    assert_eq!(going.not_started(), [2, 3]);
    let mut stopping = schedule(&project, false);
    take(&mut stopping);
    stopping.failed(0);
    stopping.done(1);
    assert_eq!(take(&mut stopping), [0; 0]);
    assert_eq!(stopping.not_started(), [2, 3, 4]);
}

#[test]
fn builders_with_warm_caches_are_preferred() {
    let amd64: Platform = "linux/amd64".parse().unwrap();
    let arm64: Platform = "linux/arm64".parse().unwrap();
    let nodes: Vec<Node> = ["linux/amd64=tcp://a:1", "linux/amd64=tcp://b:1", "linux/arm64=tcp://c:1"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let mut placement = Placement::new(nodes);
    let address = |placed: &super::placement::Placed| placed.nodes[0].address.to_string();
    let first = placement.place(0, std::slice::from_ref(&amd64), &[]).unwrap();
    let second = placement.place(1, std::slice::from_ref(&amd64), &[]).unwrap();
    assert_eq!((address(&first), address(&second)), ("tcp://a:1".to_owned(), "tcp://b:1".to_owned()));
    placement.release(&first);
    placement.release(&second);
    // The builder of the parent, until it is much busier than the other.
    for expected in ["tcp://b:1", "tcp://b:1", "tcp://b:1", "tcp://a:1"] {
        assert_eq!(address(&placement.place(2, std::slice::from_ref(&amd64), &[1]).unwrap()), expected);
    }
    let both = placement.place(3, &[amd64, arm64], &[]).unwrap();
    assert_eq!(both.nodes.len(), 2);
    let other: Platform = "linux/s390x".parse().unwrap();
    assert_eq!(placement.place(4, std::slice::from_ref(&other), &[]).unwrap_err(), other);
}

#[test]
fn tags_that_fail_are_shown_with_their_reasons() {
    use crate::publish::{PublishedTag, TagState};
    use crate::tags::{AllowedEnvironment, TagRequest, compute};
    let request = TagRequest { version: Some("1.0.0".to_owned()), ..TagRequest::default() };
    let git = crate::git::GitState::default();
    let set = compute(&request, &git, &AllowedEnvironment::default(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    let state = |tag: &str| match tag {
        "latest" => TagState::Failed(ocikit::Error::not_found("the tag", "here")),
        _ => TagState::Moved(None),
    };
    let tags = set.tags.into_iter().map(|planned| PublishedTag { state: state(planned.tag.as_str()), planned });
    let message = super::model::not_tagged(&tags.collect::<Vec<_>>());
    assert!(message.starts_with("some tags do not point to the image: "), "{message}");
    assert!(message.contains("1.0.0: it does not exist"), "{message}");
    let failed = ocikit::spec::with_causes(&ocikit::Error::not_found("the tag", "here"));
    assert!(message.contains(&format!("latest: {failed}")), "{message}");
}
