use std::collections::BTreeSet;
use std::path::Path;

use ocikit::{Digest, Platform};

use super::*;
use crate::project::{Project, ProjectOptions};

fn project(count: usize, parents: impl Fn(usize) -> Vec<usize>) -> (tempfile::TempDir, Project) {
    let directory = tempfile::tempdir().unwrap();
    for image in 0..count {
        let path = directory.path().join(format!("contexts/{image}-image{image}"));
        std::fs::create_dir_all(&path).unwrap();
        let mut dockerfile = "ARG REGISTRY\nFROM scratch\n".to_owned();
        for parent in parents(image) {
            dockerfile.push_str(&format!("COPY --from=$REGISTRY/image{parent}:1.0.0 / /{parent}\n"));
        }
        std::fs::write(path.join("Dockerfile"), dockerfile).unwrap();
        std::fs::write(path.join("info.edn"), "{:version \"1.0.0\"}\n").unwrap();
    }
    let project = Project::load(directory.path(), &ProjectOptions::default()).unwrap();
    (directory, project)
}

fn options() -> PlanOptions {
    PlanOptions { default_platforms: ProjectOptions::default().platforms, ..PlanOptions::default() }
}

fn present(platforms: &[&str]) -> Published {
    Published::Present {
        digest: Digest::sha256_of(b""),
        platforms: platforms.iter().map(|text| text.parse().unwrap()).collect(),
        inputs: None,
        base: None,
    }
}

#[test]
fn cip_3_complete_images_are_not_built() {
    let (_directory, project) = project(4, |image| if image == 0 { vec![] } else { vec![image - 1] });
    let both = present(&["linux/amd64", "linux/arm64/v8"]);
    let published = [both.clone(), present(&["linux/amd64"]), Published::Absent, both];
    let plan = project.plan(Some(&published), &options());
    let decisions: Vec<_> = plan.images.iter().map(|image| (image.decision.clone(), image.stage)).collect();
    let up_to_date = Decision::UpToDate { digest: Digest::sha256_of(b"") };
    let missing = Reason::MissingPlatforms { missing: vec!["linux/arm64".to_owned()] };
    assert_eq!(
        decisions,
        [
            (up_to_date.clone(), 0),
            (Decision::Build(missing), 1),
            (Decision::Build(Reason::NotPublished), 2),
            (up_to_date, 3),
        ]
    );
    assert_eq!((plan.builds().count(), plan.stages()), (2, 3));
}

#[test]
fn cip_7_platforms_of_an_image_win_and_the_only_platform_wins_over_both() {
    let (directory, _) = project(1, |_| vec![]);
    std::fs::write(
        directory.path().join("contexts/0-image0/info.edn"),
        "{:version \"1.0.0\" :platforms [\"linux/s390x\" \"linux/s390x\"]}",
    )
    .unwrap();
    let project = Project::load(directory.path(), &ProjectOptions::default()).unwrap();
    let plan = project.plan(None, &options());
    assert_eq!(plan.images[0].platforms, [Platform::new("linux", "s390x")]);
    let only = PlanOptions { only_platforms: Some(vec![Platform::new("linux", "amd64")]), ..options() };
    assert_eq!(project.plan(None, &only).images[0].platforms, [Platform::new("linux", "amd64")]);
}

#[test]
fn inputs_and_bases_count_when_they_are_given() {
    let (_directory, project) = project(1, |_| vec![]);
    let digest = Digest::sha256_of(b"1");
    let published = |inputs: &str| {
        [Published::Present {
            digest,
            platforms: ProjectOptions::default().platforms,
            inputs: Some(inputs.to_owned()),
            base: None,
        }]
    };
    let with = PlanOptions { inputs: Some(vec![digest]), ..options() };
    let decision = |published: &[Published]| project.plan(Some(published), &with).images[0].decision.clone();
    assert_eq!(decision(&published(&digest.to_string())), Decision::UpToDate { digest });
    assert_eq!(decision(&published("sha256:0")), Decision::Build(Reason::InputsChanged));
}

#[test]
fn a_change_touches_images_and_their_descendants() {
    let (_directory, project) = project(4, |image| if image == 3 { vec![1] } else { vec![] });
    let paths = ["contexts/1-image1/a/b", "contexts/1-image10/x", "README.md", "contexts/x"].map(Path::new);
    let touched = project.touched_by(paths);
    assert_eq!(touched, BTreeSet::from([1]));
    let plan = project.plan(None, &PlanOptions { touched: Some(touched), ..options() });
    assert_eq!(plan.builds().map(|image| image.position).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn shards_are_balanced_and_agree() {
    // A graph like those of real projects: few bases, many applications, some of them deep.
    let (_directory, project) = project(2000, |image| match image {
        0..4 => vec![],
        4..40 => vec![image % 4],
        _ => vec![4 + image * 7919 % (image - 4).min(400), image % 4],
    });
    let plan = project.plan(None, &options());
    let shards = assign(&plan, 64, Share::Builds);
    assert_eq!(shards, assign(&plan, 64, Share::Builds), "machines that plan alone agree");
    let total = shards.total();
    let (least, most) = (*total.iter().min().unwrap(), *total.iter().max().unwrap());
    assert!(most * 10 <= least * 11, "{least} to {most}");
    assert!(shards.shard_of.iter().all(Option::is_some));
    // What others publish in the meantime changes nothing.
    let published: Vec<_> = (0..2000)
        .map(|image| if image < 500 { present(&["linux/amd64", "linux/arm64"]) } else { Published::Absent })
        .collect();
    let later = project.plan(Some(&published), &options());
    assert_eq!(assign(&later, 64, Share::Considered), shards);
    for stage in &shards.work {
        let (least, most) = (stage.iter().min().unwrap(), stage.iter().max().unwrap());
        assert!(most - least <= 2, "one image of two platforms");
    }
}

#[test]
fn shards_are_read_from_text() {
    assert_eq!("2/64".parse::<Shard>().unwrap().to_string(), "2/64");
    for text in ["", "0/1", "2/1", "1/0", "a/1", "1", "1/20000"] {
        assert!(text.parse::<Shard>().is_err(), "{text}");
    }
}

#[test]
fn matrices_name_machines_with_work() {
    let (_directory, project) = project(3, |image| if image == 2 { vec![0] } else { vec![] });
    let plan = project.plan(None, &options());
    let shards = assign(&plan, 3, Share::Builds);
    let matrix = |engine| matrix(&project, &plan, &shards, engine);
    assert_eq!(
        matrix(CiMatrix::GitHub),
        "{\"stages\":[{\"include\":[{\"shard\":\"1/3\",\"images\":\"image0\"},{\"shard\":\"2/3\",\"images\":\"image1\"}]},\
         {\"include\":[{\"shard\":\"3/3\",\"images\":\"image2\"}]}]}\n"
    );
    assert!(
        matrix(CiMatrix::Azure).starts_with("{\"stages\":[{\"shard_1_of_3\":{\"shard\":\"1/3\",\"images\":\"image0\"}")
    );
    assert!(matrix(CiMatrix::Jenkins).starts_with("{\"stages\":[[{\"name\":\"shard_1_of_3\",\"shard\":\"1/3\""));
    assert!(matrix(CiMatrix::GitLab).contains("stage-1-0:\n  stage: stage-1\n"));
}
