use ocikit::{Digest, MediaType};

use super::*;
use crate::git::Event;

fn report(state: &'static str, signed: bool) -> Report {
    let tag = |tag: &str, state, problem: Option<&str>| TagReport {
        tag: tag.to_owned(),
        name: tag.to_owned(),
        because: "the branch",
        state,
        problem: problem.map(str::to_owned),
    };
    let count = |blobs, bytes| CountReport { blobs, bytes };
    Report {
        status: if state == "verified" { Status::Succeeded } else { Status::Partial },
        image: "team/app".to_owned(),
        event: Event::Push,
        digest: Digest::sha256_of(b"x"),
        media_type: MediaType::OCI_INDEX,
        size: 1,
        platforms: vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()],
        signing: "signed".to_owned(),
        recorded_by: Vec::new(),
        targets: vec![TargetReport {
            repository: "r.example/push/team/app".to_owned(),
            read: "r.example/prod/team/app".to_owned(),
            tags: vec![tag("main", "verified", None), tag("latest", state, Some("<script>|\n"))],
            skipped: vec![SkippedReport { tag: "1".to_owned(), reason: "a & b".to_owned() }],
            uploaded: count(2, 750),
            mounted: count(0, 0),
            present: count(1, 250),
            stored_seconds: 0.5,
            seconds: 0.75,
            signed,
            signatures: Vec::new(),
            attestations: Vec::new(),
            statement_problem: None,
        }],
        lazy: Vec::new(),
        started: String::new(),
        finished: String::new(),
        seconds: 1.0,
    }
}

#[test]
fn kym_15_build_report_has_nine_honest_keys() {
    let found = serde_json::to_value(report("verified", true).build_report()).unwrap();
    let keys: Vec<_> = found.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "status",
            "pushed",
            "signed",
            "image_name",
            "images_list",
            "digest",
            "tags",
            "repository_path",
            "architectures"
        ]
    );
    assert_eq!((&found["pushed"], &found["signed"]), (&true.into(), &true.into()));
    assert_eq!(found["images_list"][0], "r.example/prod/team/app:main");
    assert_eq!(found["repository_path"], "r.example/prod");
    let partial = report("failed", true).build_report();
    assert_eq!(
        (partial.pushed, partial.signed, partial.status, &partial.tags[..]),
        (false, false, "Failed", &["main".to_owned()][..])
    );
    assert!(!report("verified", false).build_report().signed);
}

#[test]
fn kym_14_outputs_and_summary() {
    let report = report("verified", true);
    let outputs = report.outputs();
    let names: Vec<_> = outputs.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["images", "architectures", "digest", "build-report"]);
    assert_eq!(outputs[1].1, r#"["linux/amd64","linux/arm64"]"#);
    let markdown = report.markdown();
    assert!(markdown.contains("| r.example/prod/team/app:main | linux/amd64, linux/arm64 |\n"), "{markdown}");
    let none = Report { targets: Vec::new(), ..report };
    assert_eq!(none.markdown(), "");
}

#[test]
fn untrusted_text_is_escaped() {
    let report = report("failed", true);
    let page = report.html();
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;") && page.contains("a &amp; b"), "{page}");
    assert!(page.contains("width=\"750.00\"") && page.contains("default-src 'none'"));
    let markdown = report.markdown();
    assert!(markdown.contains("latest failed**: &lt;script>\\| \n"), "{markdown}");
}
