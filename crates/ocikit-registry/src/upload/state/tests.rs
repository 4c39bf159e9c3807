use super::*;

const SIZE: u64 = 200 << 20;

fn url(text: &str) -> Url {
    format!("https://r/{text}").parse().unwrap()
}

fn status(status: u16) -> Outcome {
    Outcome { kind: Kind::Status(status), named: status == 201, ..Outcome::default() }
}

fn at(status: u16, location: &str) -> Outcome {
    Outcome { kind: Kind::Status(status), location: Some(url(location)), ..Outcome::default() }
}

fn has(received: u64) -> Outcome {
    Outcome { kind: Kind::Status(204), received: Some(received), ..Outcome::default() }
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
        Step::Close { url } => format!("close {}", name(url)),
        Step::Ask { url } => format!("ask {}", name(url)),
        Step::Look => "look".to_owned(),
        Step::Done { mounted } => if *mounted { "mounted" } else { "done" }.to_owned(),
        Step::Failed => "failed".to_owned(),
    }
}

/// Runs an upload against these answers; every step is the one that they lead to.
fn run(mut upload: Upload, conversation: Vec<(&str, Outcome)>, end: &str) {
    for (expected, outcome) in conversation {
        assert_eq!(shown(upload.step()), expected);
        upload.proceed(outcome);
    }
    assert_eq!(shown(upload.step()), end);
}

fn new() -> Upload {
    Upload::new(SIZE, false, None)
}

#[test]
fn sends_all_at_once() {
    run(new(), vec![("start", at(202, "a")), ("whole a", status(201))], "done");
    run(Upload::new(0, false, None), vec![("start", at(202, "a")), ("close a", status(201))], "done");
}

#[test]
fn mounts_or_uses_the_session_that_it_got_instead() {
    let mount = || Upload::new(SIZE, true, None);
    run(mount(), vec![("mount", status(201))], "mounted");
    run(mount(), vec![("mount", at(202, "a")), ("whole a", status(201))], "done");
    for refused in [403, 404, 405, 400, 202] {
        run(mount(), vec![("mount", status(refused)), ("start", at(202, "a"))], "whole a");
    }
}

#[test]
fn goes_on_where_it_broke_off() {
    run(
        new(),
        vec![
            ("start", at(202, "a")),
            ("whole a", broken()),
            ("ask a", Outcome { location: Some(url("b")), ..has(64 << 20) }),
            ("chunk b 64M+136M", broken()),
            ("ask b", has(100 << 20)),
            ("chunk b 100M+100M", at(202, "c")),
            ("close c", status(201)),
        ],
        "done",
    );
    run(
        new(),
        vec![("start", at(202, "a")), ("whole a", broken()), ("ask a", has(SIZE)), ("close a", status(201))],
        "done",
    );
    // nothing arrived, which some spell as one byte
    run(new(), vec![("start", at(202, "a")), ("whole a", broken()), ("ask a", has(1))], "whole a");
    // a chunk that arrived in part
    let partial = Outcome { received: Some(150 << 20), ..status(202) };
    let conversation =
        vec![("start", at(202, "a")), ("whole a", broken()), ("ask a", has(1 << 20)), ("chunk a 1M+199M", partial)];
    run(new(), conversation, "chunk a 150M+50M");
}

#[test]
fn begins_again_where_a_broken_request_arrived_late() {
    let conversation =
        vec![("start", at(202, "a")), ("whole a", broken()), ("ask a", has(0)), ("whole a", status(400))];
    run(new(), conversation.clone(), "start");
    // In another session nothing can have arrived.
    let again = vec![("start", at(202, "b")), ("whole b", status(400))];
    run(new(), [conversation, again].concat(), "failed");
    run(new(), vec![("start", at(202, "a")), ("whole a", status(400))], "failed");
}

#[test]
fn finds_out_whether_a_lost_session_was_a_success() {
    for lost in [status(404), status(400), has(SIZE + 1)] {
        let conversation = vec![("start", at(202, "a")), ("whole a", broken()), ("ask a", lost.clone())];
        let next = if lost.received.is_some() { "start" } else { "look" };
        run(new(), conversation, next);
    }
    run(new(), vec![("start", at(202, "a")), ("whole a", status(404)), ("look", status(200))], "done");
    run(new(), vec![("start", at(202, "a")), ("whole a", status(404)), ("look", status(404))], "start");
    run(new(), vec![("start", at(202, "a")), ("whole a", status(202)), ("look", status(200))], "done");
}

#[test]
fn sends_chunks_where_the_whole_is_refused() {
    run(
        new(),
        vec![
            ("start", at(202, "a")),
            ("whole a", status(413)),
            ("start", Outcome { minimum: Some(100 << 20), ..at(202, "b") }),
            ("chunk b 0M+100M", at(201, "c")),
            ("chunk c 100M+100M", status(202)),
            ("close c", status(201)),
        ],
        "done",
    );
    let mut upload = new();
    upload.proceed(at(202, "a"));
    for _ in 0..8 {
        upload.proceed(status(413));
        if upload.step() == &Step::Failed {
            return;
        }
        upload.proceed(at(202, "a"));
    }
    panic!("a registry that takes nothing is believed in the end");
}

#[test]
fn sends_less_at_once_where_nothing_arrives() {
    run(
        new(),
        vec![
            ("start", at(202, "a")),
            ("whole a", broken()),
            ("ask a", has(0)),
            ("whole a", broken()),
            ("ask a", has(0)),
            ("chunk a 0M+64M", broken()),
            ("ask a", has(0)),
            ("chunk a 0M+32M", status(202)),
            ("chunk a 32M+32M", status(202)),
        ],
        "chunk a 64M+32M",
    );
}

#[test]
fn starts_again_where_a_session_cannot_be_continued() {
    run(
        new(),
        vec![
            ("start", at(202, "a")),
            ("whole a", broken()),
            ("ask a", has(1 << 20)),
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
fn takes_up_what_a_dead_process_left() {
    let recalled = || Upload::new(SIZE, true, Some(url("old")));
    run(recalled(), vec![("ask old", has(64 << 20))], "chunk old 64M+136M");
    run(recalled(), vec![("ask old", has(0))], "whole old");
    run(recalled(), vec![("ask old", status(404)), ("start", at(202, "a"))], "whole a");
    run(recalled(), vec![("ask old", broken())], "start");
    // what was wrong in there is not sent again
    run(recalled(), vec![("ask old", has(SIZE)), ("close old", status(400))], "start");
}

#[test]
fn counts_failures_until_it_gets_on() {
    let mut upload = new();
    upload.proceed(at(202, "a"));
    assert!(upload.proceed(broken()));
    assert!(!upload.proceed(has(0)));
    assert!(upload.proceed(broken()));
    assert_eq!(upload.failures(), 2);
    assert!(!upload.proceed(has(10)));
    assert_eq!(upload.failures(), 0);
}

#[test]
fn a_registry_that_takes_chunks_and_never_has_more_is_given_up() {
    for received in [0, 1, 5] {
        let mut upload = new();
        upload.proceed(at(202, "a"));
        upload.proceed(status(413));
        upload.proceed(at(202, "b"));
        for _ in 0..100 {
            upload.proceed(Outcome { received: Some(received), ..status(202) });
        }
        assert!(upload.failures() > 6 || upload.step() == &Step::Failed, "{received}: {:?}", upload.step());
    }
}

fn outcomes() -> impl proptest::strategy::Strategy<Value = Outcome> {
    use proptest::prelude::*;
    let kind = prop_oneof![
        Just(Kind::Broken),
        prop::sample::select(vec![200, 201, 202, 204, 400, 401, 404, 405, 413, 416, 500]).prop_map(Kind::Status)
    ];
    let received = prop_oneof![Just(None), (0..=SIZE + 1).prop_map(Some)];
    (kind, any::<bool>(), received, prop::option::of(0..SIZE)).prop_map(|(kind, located, received, minimum)| Outcome {
        named: located,
        kind,
        location: located.then(|| url("x")),
        received,
        minimum,
    })
}

proptest::proptest! {
    #[test]
    fn no_answers_lead_astray(outcomes in proptest::collection::vec(outcomes(), 1..60), mount: bool) {
        let mut upload = Upload::new(SIZE, mount, None);
        for outcome in outcomes {
            if let Step::Chunk { offset, length, .. } = upload.step() {
                proptest::prop_assert!(*length > 0 && offset + length <= SIZE);
            }
            upload.proceed(outcome);
        }
    }

    #[test]
    fn a_registry_that_only_fails_is_given_up(answers in proptest::collection::vec(outcomes(), 5)) {
        let mut upload = Upload::new(SIZE, true, None);
        let mut failures = 0;
        for round in 0..10_000 {
            if matches!(upload.step(), Step::Failed | Step::Done { .. }) || upload.failures() > 6 {
                return Ok(());
            }
            let mut answer = answers[round % answers.len()].clone();
            // Whatever it says, it never takes more bytes.
            answer.received = answer.received.map(|_| 0);
            if matches!(upload.step(), Step::Chunk { .. }) {
                answer.kind = Kind::Broken;
            }
            failures += u32::from(upload.proceed(answer));
        }
        proptest::prop_assert!(false, "still going after {failures} failures");
    }
}
