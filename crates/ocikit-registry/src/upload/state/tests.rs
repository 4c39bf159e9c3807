use super::*;

const SIZE: u64 = 200 << 20;

fn url(text: &str) -> Url {
    format!("https://r/{text}").parse().unwrap()
}

fn status(status: u16) -> Outcome {
    Outcome { status: Some(status), named: status == 201, ..Outcome::default() }
}

fn at(status: u16, location: &str) -> Outcome {
    Outcome { status: Some(status), location: Some(url(location)), ..Outcome::default() }
}

fn has(received: u64) -> Outcome {
    Outcome { status: Some(204), received: Some(received), ..Outcome::default() }
}

fn broken() -> Outcome {
    Outcome::default()
}

/// One letter for every step, with the name of the session and what is sent.
fn shown(step: &Step) -> String {
    let name = |url: &Url| url.path()[1..].to_owned();
    let mib = |bytes: &u64| if bytes.is_multiple_of(1 << 20) { format!("{}M", bytes >> 20) } else { bytes.to_string() };
    match step {
        Step::Start { mount: true } => "mount".to_owned(),
        Step::Start { mount: false } => "start".to_owned(),
        Step::Whole { url } => format!("whole {}", name(url)),
        Step::Chunk { url, offset, length } => format!("chunk {} {}+{}", name(url), mib(offset), mib(length)),
        Step::Commit { url } => format!("commit {}", name(url)),
        Step::QueryOffset { url } => format!("query {}", name(url)),
        Step::HeadBlob => "head".to_owned(),
        Step::Done { mounted } => if *mounted { "mounted" } else { "done" }.to_owned(),
        Step::Failed => "failed".to_owned(),
    }
}

/// Runs an upload against these answers; every step is the one that they lead to.
fn run(mut upload: Upload, conversation: Vec<(&str, Outcome)>, end: &str) {
    for (expected, outcome) in conversation {
        assert_eq!(shown(&upload.step), expected);
        upload.proceed(outcome);
    }
    assert_eq!(shown(&upload.step), end);
}

fn new() -> Upload {
    Upload::new(SIZE, false, None)
}

#[test]
fn sends_blob_in_one_piece() {
    run(new(), vec![("start", at(202, "a")), ("whole a", status(201))], "done");
    run(Upload::new(0, false, None), vec![("start", at(202, "a")), ("commit a", status(201))], "done");
}

#[test]
fn mounts_or_uses_the_session_of_the_mount_request() {
    let mount = || Upload::new(SIZE, true, None);
    run(mount(), vec![("mount", status(201))], "mounted");
    run(mount(), vec![("mount", at(202, "a")), ("whole a", status(201))], "done");
    for refused in [403, 404, 405, 400, 202] {
        run(mount(), vec![("mount", status(refused)), ("start", at(202, "a"))], "whole a");
    }
}

#[test]
fn resumes_interrupted_upload() {
    run(
        new(),
        vec![
            ("start", at(202, "a")),
            ("whole a", broken()),
            ("query a", Outcome { location: Some(url("b")), ..has(64 << 20) }),
            ("chunk b 64M+136M", broken()),
            ("query b", has(100 << 20)),
            ("chunk b 100M+100M", at(202, "c")),
            ("commit c", status(201)),
        ],
        "done",
    );
    run(
        new(),
        vec![("start", at(202, "a")), ("whole a", broken()), ("query a", has(SIZE)), ("commit a", status(201))],
        "done",
    );
    // nothing arrived, which some spell as one byte
    run(new(), vec![("start", at(202, "a")), ("whole a", broken()), ("query a", has(1))], "whole a");
    // a chunk that arrived in part
    let partial = Outcome { received: Some(150 << 20), ..status(202) };
    let conversation =
        vec![("start", at(202, "a")), ("whole a", broken()), ("query a", has(1 << 20)), ("chunk a 1M+199M", partial)];
    run(new(), conversation, "chunk a 150M+50M");
}

#[test]
fn restarts_after_a_late_request_spoiled_the_session() {
    let conversation =
        vec![("start", at(202, "a")), ("whole a", broken()), ("query a", has(0)), ("whole a", status(400))];
    run(new(), conversation.clone(), "start");
    // In another session nothing can have arrived.
    let again = vec![("start", at(202, "b")), ("whole b", status(400))];
    run(new(), [conversation, again].concat(), "failed");
    run(new(), vec![("start", at(202, "a")), ("whole a", status(400))], "failed");
}

#[test]
fn checks_blob_after_a_lost_session() {
    for lost in [status(404), status(400), has(SIZE + 1)] {
        let conversation = vec![("start", at(202, "a")), ("whole a", broken()), ("query a", lost.clone())];
        let next = if lost.received.is_some() { "start" } else { "head" };
        run(new(), conversation, next);
    }
    run(new(), vec![("start", at(202, "a")), ("whole a", status(404)), ("head", status(200))], "done");
    run(new(), vec![("start", at(202, "a")), ("whole a", status(404)), ("head", status(404))], "start");
    run(new(), vec![("start", at(202, "a")), ("whole a", status(202)), ("head", status(200))], "done");
}

#[test]
fn sends_chunks_after_413() {
    run(
        new(),
        vec![
            ("start", at(202, "a")),
            ("whole a", status(413)),
            ("start", Outcome { minimum: Some(100 << 20), ..at(202, "b") }),
            ("chunk b 0M+100M", at(201, "c")),
            ("chunk c 100M+100M", status(202)),
            ("commit c", status(201)),
        ],
        "done",
    );
    let mut upload = new();
    upload.proceed(at(202, "a"));
    for _ in 0..8 {
        upload.proceed(status(413));
        if upload.step == Step::Failed {
            return;
        }
        upload.proceed(at(202, "a"));
    }
    panic!("a registry that takes nothing is believed in the end");
}

#[test]
fn sends_smaller_chunks_without_progress() {
    run(
        new(),
        vec![
            ("start", at(202, "a")),
            ("whole a", broken()),
            ("query a", has(0)),
            ("whole a", broken()),
            ("query a", has(0)),
            ("chunk a 0M+64M", broken()),
            ("query a", has(0)),
            ("chunk a 0M+32M", status(202)),
            ("chunk a 32M+32M", status(202)),
        ],
        "chunk a 64M+32M",
    );
}

#[test]
fn restarts_if_a_session_cannot_be_resumed() {
    run(
        new(),
        vec![
            ("start", at(202, "a")),
            ("whole a", broken()),
            ("query a", has(1 << 20)),
            ("chunk a 1M+199M", status(405)),
            ("start", at(202, "b")),
            ("whole b", broken()),
            ("start", at(202, "c")),
            ("whole c", status(201)),
        ],
        "done",
    );
}

#[test]
fn resumes_session_of_a_dead_process() {
    let recalled = || Upload::new(SIZE, true, Some(url("old")));
    run(recalled(), vec![("query old", has(64 << 20))], "chunk old 64M+136M");
    run(recalled(), vec![("query old", has(0))], "whole old");
    run(recalled(), vec![("query old", status(404)), ("head", status(404)), ("start", at(202, "a"))], "whole a");
    run(recalled(), vec![("query old", status(404)), ("head", status(200))], "done");
    run(recalled(), vec![("query old", broken())], "start");
    // what was wrong in there is not sent again
    run(recalled(), vec![("query old", has(SIZE)), ("commit old", status(400))], "start");
}

#[test]
fn progress_resets_failures() {
    let mut upload = new();
    upload.proceed(at(202, "a"));
    assert!(upload.proceed(broken()));
    assert!(!upload.proceed(has(0)));
    assert!(upload.proceed(broken()));
    assert_eq!(upload.failures, 2);
    assert!(!upload.proceed(has(10)));
    assert_eq!(upload.failures, 0);
}

#[test]
fn upload_ends_without_progress() {
    for received in [0, 1, 5] {
        let mut upload = new();
        upload.proceed(at(202, "a"));
        upload.proceed(status(413));
        upload.proceed(at(202, "b"));
        for _ in 0..100 {
            upload.proceed(Outcome { received: Some(received), ..status(202) });
        }
        assert!(upload.failures > 6 || upload.step == Step::Failed, "{received}: {:?}", upload.step);
    }
}

fn outcomes() -> impl proptest::strategy::Strategy<Value = Outcome> {
    use proptest::prelude::*;
    let status = prop_oneof![
        Just(None),
        prop::sample::select(vec![200, 201, 202, 204, 400, 401, 404, 405, 413, 416, 500]).prop_map(Some)
    ];
    let received = prop_oneof![Just(None), (0..=SIZE + 1).prop_map(Some)];
    (status, any::<bool>(), received, prop::option::of(0..SIZE)).prop_map(|(status, located, received, minimum)| {
        Outcome { named: located, status, location: located.then(|| url("x")), received, minimum }
    })
}

proptest::proptest! {
    #[test]
    fn no_answers_lead_to_an_invalid_chunk(outcomes in proptest::collection::vec(outcomes(), 1..60), mount: bool) {
        let mut upload = Upload::new(SIZE, mount, None);
        for outcome in outcomes {
            if let Step::Chunk { offset, length, .. } = &upload.step {
                proptest::prop_assert!(*length > 0 && offset + length <= SIZE);
            }
            upload.proceed(outcome);
        }
    }

    #[test]
    fn upload_ends_if_every_answer_is_a_failure(answers in proptest::collection::vec(outcomes(), 5)) {
        let mut upload = Upload::new(SIZE, true, None);
        let mut failures = 0;
        for round in 0..10_000 {
            if matches!(upload.step, Step::Failed | Step::Done { .. }) || upload.failures > 6 {
                return Ok(());
            }
            let mut answer = answers[round % answers.len()].clone();
            // Whatever it says, it never takes more bytes.
            answer.received = answer.received.map(|_| 0);
            if matches!(upload.step, Step::Chunk { .. }) {
                answer.status = None;
            }
            failures += u32::from(upload.proceed(answer));
        }
        proptest::prop_assert!(false, "still going after {failures} failures");
    }
}
