use proptest::prelude::*;

use super::*;

fn arguments() -> Arguments {
    Arguments::default().with("REGISTRY", "r.example/p")
}

/// Returns how, what and where a Dockerfile refers to.
fn references(text: &str) -> Vec<(Via, String, String)> {
    let found = found(text);
    let written = |reference: &ImageReference| text[reference.span.range()].to_owned();
    found.iter().map(|reference| (reference.via, reference.text.text().into_owned(), written(reference))).collect()
}

/// Returns the expanded texts of the references.
fn texts(text: &str) -> Vec<String> {
    references(text).into_iter().map(|(_, text, _)| text).collect()
}

fn problem(text: &str) -> (DockerfileProblem, usize, usize) {
    let read = Dockerfile::parse(text.as_bytes()).and_then(|file| file.references(&arguments()));
    let error = read.unwrap_err();
    (error.problem, error.line, error.column)
}

#[test]
fn cip_2_every_spelling_of_a_reference_is_found() {
    for (text, via, written) in [
        ("ARG REGISTRY\nFROM ${REGISTRY}/base:1.0.0\n", Via::From, "${REGISTRY}/base:1.0.0"),
        ("ARG REGISTRY\nFROM $REGISTRY/base:1.0.0 AS b\n", Via::From, "$REGISTRY/base:1.0.0"),
        ("arg REGISTRY\nfrom --platform=linux/amd64 ${REGISTRY}/base:1.0.0\n", Via::From, "${REGISTRY}/base:1.0.0"),
        ("ARG REGISTRY=x\nFROM \"${REGISTRY}\"/base:1.0.0\n", Via::From, "\"${REGISTRY}\"/base:1.0.0"),
        ("ARG REGISTRY\nFROM ${REGISTRY:-docker.io}/base:1.0.0\n", Via::From, "${REGISTRY:-docker.io}/base:1.0.0"),
        ("ARG REGISTRY\nARG BASE=${REGISTRY}/base:1.0.0\nFROM ${BASE}\n", Via::From, "${BASE}"),
        ("ARG REGISTRY\nARG V=\"1.0.0\"\nFROM ${REGISTRY}/base:$V\n", Via::From, "${REGISTRY}/base:$V"),
        ("ARG REGISTRY\nFROM \\\n # comment\n  ${REGISTRY}/\\\nbase:1.0.0\n", Via::From, "${REGISTRY}/\\\nbase:1.0.0"),
        ("FROM scratch\nCOPY --from=r.example/p/base:1.0.0 / /\n", Via::CopyFrom, "r.example/p/base:1.0.0"),
        (
            "ARG REGISTRY\nFROM scratch\nCOPY --chown=1 --from=${REGISTRY}/base:1.0.0 / /\n",
            Via::CopyFrom,
            "${REGISTRY}/base:1.0.0",
        ),
        (
            "ARG REGISTRY\nFROM scratch\nRUN --mount=type=bind,from=${REGISTRY}/base:1.0.0,target=/x true\n",
            Via::MountFrom,
            "${REGISTRY}/base:1.0.0",
        ),
        (
            "ARG REGISTRY\nFROM scratch\nRUN --mount=\"type=bind,from=${REGISTRY}/base:1.0.0\" true\n",
            Via::MountFrom,
            "${REGISTRY}/base:1.0.0",
        ),
        (
            "ARG REGISTRY\nFROM scratch\nONBUILD COPY --from=${REGISTRY}/base:1.0.0 / /\n",
            Via::CopyFrom,
            "${REGISTRY}/base:1.0.0",
        ),
        ("FROM scratch\nARG REGISTRY\nENV B=$REGISTRY/base\nCOPY --from=$B:1.0.0 / /\n", Via::CopyFrom, "$B:1.0.0"),
    ] {
        let written = written.to_owned();
        assert_eq!(references(text), [(via, "r.example/p/base:1.0.0".to_owned(), written)], "{text}");
    }
}

#[test]
fn stages_scratch_and_numbers_are_no_images() {
    let text = "FROM a AS One\nFROM one AS two\nCOPY --from=0 / /\nCOPY --from=ONE / /\nCOPY --from=two / /\n\
                RUN --mount=from=one,target=/x true\nRUN --mount=type=cache,target=/y true\nFROM scratch\nFROM later\nFROM x AS later\n";
    assert_eq!(texts(text), ["a", "later", "x"]);
}

#[test]
fn substitutions_are_those_of_buildkit() {
    for (word, expected) in [
        ("${X:-y}", "y"),
        ("${X-y}", "y"),
        ("${E:-y}", "y"),
        ("a${E-y}", "a"),
        ("${V:-y}", "v.v"),
        ("a${X:+y}", "a"),
        ("a${E:+y}", "a"),
        ("a${E+y}", "ay"),
        ("${V:+y}", "y"),
        ("${V:?no}", "v.v"),
        ("${X:-${Y:-${V}}}", "v.v"),
        ("${X:-\"a.b\"}", "a.b"),
        ("${V#*.}", "v"),
        ("${V%.*}", "v"),
        ("${W##*/}", "c"),
        ("${W#*/}", "b/c"),
        ("${W%%/*}", "a"),
        ("${W%/*}", "a/b"),
        ("${W/\\//-}", "a-b/c"),
        ("${W//\\//-}", "a-b-c"),
        ("${W//b/}", "a//c"),
        ("\\$V", "$V"),
        ("'$V'", "$V"),
        ("\"$V\"", "v.v"),
        ("\"\\$V\\a\"", "$V\\a"),
        ("a$", "a$"),
        ("a$-b", "ab"),
        ("ä${V}ü", "äv.vü"),
        ("${W/[ab]/x}", "a/b/c"),
    ] {
        let text = format!("ARG V=v.v\nARG E=\nARG W=a/b/c\nFROM {word}\n");
        assert_eq!(texts(&text), [expected], "{word}");
    }
}

#[test]
fn arguments_follow_the_scopes_of_buildkit() {
    // `FROM` sees the arguments before the first stage only.
    assert_eq!(texts("ARG A=1\nFROM a:$A\nARG A=2\nFROM a:$A\n"), ["a:1", "a:1"]);
    // A stage inherits an argument when it declares it, and `ENV` wins.
    assert_eq!(texts("ARG A=1\nFROM scratch\nARG A\nENV A=2\nCOPY --from=a:$A / /\n"), ["a:2"]);
    // All values of one instruction see the variables before it.
    assert_eq!(texts("FROM scratch\nENV A=1\nENV A=2 B=$A\nCOPY --from=a:$B / /\n"), ["a:1"]);
    assert_eq!(texts("FROM scratch\nENV A the rest\nCOPY --from=a:$A / /\n"), ["a:the rest"]);
    // A build argument wins over a default, and is not expanded.
    assert_eq!(texts("ARG REGISTRY=x\nARG B=${REGISTRY}\nFROM $B/a\n"), ["r.example/p/a"]);
    // Without a declaration, the variable has no value.
    let file = Dockerfile::parse(b"FROM ${REGISTRY}/a\n").unwrap();
    let found = file.references(&arguments()).unwrap().references;
    assert_eq!(found[0].text.text(), "/a");
    assert!(found[0].unset.contains("REGISTRY"));
}

#[test]
fn the_platform_gives_variables() {
    let file = Dockerfile::parse(b"FROM --platform=$BUILDPLATFORM a:${TARGETARCH}${TARGETVARIANT}\n").unwrap();
    let platform: ocikit::Platform = "linux/arm/v7".parse().unwrap();
    let found = file.references(&Arguments::default().on(platform)).unwrap();
    assert!(found.depends_on_platform);
    assert_eq!(found.references[0].text.text(), "a:armv7");
    assert_eq!(found.references[0].platform.as_deref(), Some("linux/arm/v7"));
}

#[test]
fn versions_are_traced_to_the_place_where_they_are_written() {
    for (text, expected) in [
        ("ARG REGISTRY\nFROM $REGISTRY/base:1.0.0\n", Some(33)),
        ("ARG V=1.0.0\nFROM r.example/p/base:$V\n", Some(6)),
        ("ARG V='1.0.0'\nARG W=$V\nFROM r.example/p/base:${W:-2.0.0}\n", Some(7)),
        ("FROM r.example/p/base:${X:-1.0.0}\n", Some(27)),
        ("ARG M=1\nFROM r.example/p/base:$M.0.0\n", None),
        ("FROM r.example/p/base:1.\\\n0.0\n", None),
        ("ARG V=1.0.0-x\nFROM r.example/p/base:${V%-x}\n", Some(6)),
    ] {
        let file = Dockerfile::parse(text.as_bytes()).unwrap();
        let found = file.references(&arguments()).unwrap().references;
        let text = &found[0].text;
        let start = text.len() - "1.0.0".len();
        assert_eq!(text.slice(start..text.len()).text(), "1.0.0");
        assert_eq!(text.span(start..text.len()).map(|span| span.start), expected, "{}", text.text());
    }
}

#[test]
fn odd_files_are_split_as_buildkit_splits_them() {
    for (text, keywords) in [
        ("\u{feff}FROM a\r\nRUN b\r\n", &["FROM", "RUN"][..]),
        ("# escape=`\nFROM a\nRUN a `\n b\nRUN c\\\nUSER d\n", &["FROM", "RUN", "RUN", "USER"]),
        ("#escape = `\r\n# syntax=x\nFROM a\nRUN a`  \n\n # c\n b\n", &["FROM", "RUN"]),
        ("# no directive\n# escape=`\nFROM a\nRUN a `\nUSER b\n", &["FROM", "RUN", "USER"]),
        ("\n# escape=`\nFROM a\nRUN a `\nUSER b\n", &["FROM", "RUN", "USER"]),
        ("FROM a\nRUN a \\\\\nUSER b\n", &["FROM", "RUN", "USER"]),
        ("FROM a\nRUN <<EOF\nFROM b\nEOF\nUSER c\n", &["FROM", "RUN", "USER"]),
        ("FROM a\nRUN <<-'E F' cat <<G\nx\n\tE F\nFROM b\nG\nUSER c\n", &["FROM", "RUN", "USER"]),
        ("FROM a\nCOPY << EOF /x\nUSER b\nEOF\nUSER c\n", &["FROM", "COPY", "USER"]),
        ("FROM a\nRUN [\"<<EOF\"]\nUSER c\n", &["FROM", "RUN", "USER"]),
        ("FROM a\nRUN echo \"<<EOF\"\nUSER c\n", &["FROM", "RUN", "USER"]),
        ("FROM a\nENV X=<<EOF\nUSER c\n", &["FROM", "ENV", "USER"]),
        ("FROM a\nONBUILD RUN <<EOF\nUSER b\nEOF\nUSER c", &["FROM", "ONBUILD", "USER"]),
        ("FROM a\n  \\\n\n  RUN x\n", &["FROM", "RUN"]),
        ("FROM a\nRUN x \\", &["FROM", "RUN"]),
    ] {
        let file = Dockerfile::parse(text.as_bytes()).unwrap();
        assert_eq!(file.keywords().collect::<Vec<_>>(), keywords, "{text}");
    }
}

#[test]
fn wrong_files_are_refused_with_their_place() {
    use DockerfileProblem as P;
    for (text, expected) in [
        ("", (P::Empty, 1, 1)),
        ("# escape=x\nFROM a\n", (P::Escape, 1, 1)),
        ("# escape=`\n# escape=`\nFROM a\n", (P::RepeatedDirective("escape"), 2, 1)),
        ("FROM a\nRUN <<EOF\nx\n", (P::Heredoc("EOF".to_owned()), 2, 1)),
        ("FROM a\nRUN [1]\n", (P::NotStrings, 2, 1)),
        ("FROM a b\n", (P::From, 1, 6)),
        ("FROM\n", (P::From, 1, 1)),
        ("FROM a AS 1x\n", (P::StageName("1x".to_owned()), 1, 11)),
        ("RUN x\nFROM a\n", (P::NoStage("RUN".to_owned()), 1, 1)),
        ("FROM ${X\n", (P::Substitution("`}` is missing"), 1, 6)),
        ("FROM ${X:=a}\n", (P::Substitution("its modifier is not known"), 1, 6)),
        ("FROM ${}\n", (P::Substitution("it has no name"), 1, 6)),
        ("FROM a'b\n", (P::Substitution("a single quote is not closed"), 1, 6)),
        ("FROM ${X:?say}\n", (P::Required { name: "X".to_owned(), message: "say".to_owned() }, 1, 6)),
        ("FROM a\nRUN --mount=a\\\"b c\n", (P::Mount, 2, 13)),
    ] {
        assert_eq!(problem(text), expected, "{text}");
    }
}

#[test]
fn hostile_files_stay_within_the_limits() {
    use DockerfileProblem as P;
    let deep = format!("FROM {}x{}\n", "${X:-".repeat(1000), "}".repeat(1000));
    assert_eq!(problem(&deep).0, P::TooDeep);
    let mut doubling = "ARG A=aaaaaaaaaaaaaaaa\n".to_owned();
    for _ in 0..40 {
        doubling.push_str("ARG A=$A$A\n");
    }
    doubling.push_str("FROM $A\n");
    assert_eq!(problem(&doubling).0, P::TooMuchExpansion);
    let mut many = format!("ARG A={}\n", "a".repeat(60_000));
    many.push_str(&"FROM $A\n".repeat(1000));
    assert_eq!(problem(&many).0, P::TooMuchExpansion);
    // Also values that are dropped again count.
    let dropped = format!("ARG A={}\nFROM {}\n", "a".repeat(60_000), "${X:+$A}".repeat(5_000));
    assert_eq!(problem(&dropped).0, P::TooMuchExpansion);
    assert_eq!(problem(&format!("FROM {}\n", "a".repeat(70_000))).0, P::LongLine);
    assert_eq!(Dockerfile::parse(&vec![b'\n'; (1 << 20) + 1]).unwrap_err().problem, P::TooLarge);
    let pattern = format!("ARG A={}\nFROM ${{A#{}}}\n", "a".repeat(2000), "*".repeat(2000));
    assert_eq!(problem(&pattern).0, P::LongPattern);
    let nested = format!("FROM a\nONBUILD {}RUN x\n", "ONBUILD ".repeat(5000));
    assert!(Dockerfile::parse(nested.as_bytes()).is_ok());
}

/// A line that is no reference, with odd contents.
fn filler() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "#[ a-z$\\{\\}<\"'üä]{0,20}",
        "RUN [a-z $/]{1,20}",
        "  RUN echo \"[a-z ]{0,8}\" '[a-z ]{0,8}'",
        "ENV [A-Z]{1,5}=[a-z]{1,5}",
        "LABEL \"a b\"=\"[a-z #]{0,9}\"",
        "COPY --chown=1:1 [a-z]{1,5} /[a-z]{1,5}/",
        "CMD \\[\"[a-z]{1,5}\", \"<<EOF\"\\]",
        "\t[uU][sS][eE][rR] [a-z]{1,5}",
    ]
}

/// Lines before and after a reference.
fn fillers() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(filler(), 0..6)
}

fn version() -> impl Strategy<Value = String> {
    (0u16..500, 0u16..500, 0u16..500).prop_map(|(major, minor, patch)| format!("{major}.{minor}.{patch}"))
}

/// A spelling of a reference to `base`; `VERSION` stands for the version.
fn spelling() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "FROM ${REGISTRY}/base:VERSION",
        "FROM $REGISTRY/base:VERSION AS stage",
        "from --platform=linux/amd64 ${REGISTRY}/base:VERSION",
        "FROM \"${REGISTRY}/base:VERSION\"",
        "FROM \"$REGISTRY\"'/base:VERSION'",
        "FROM ${REGISTRY:-other}/base:VERSION",
        "FROM ${REGISTRY:+r.example/p}/base:VERSION",
        "FROM \\\n  ${REGISTRY}/base:VERSION",
        "FROM \\\n# comment\n\n  ${REGISTRY}/base:VERSION \\\n  AS x",
        "FROM scratch\nCOPY --from=${REGISTRY}/base:VERSION / /",
        "FROM scratch\nCOPY --chown=0 --from=$REGISTRY/base:VERSION [\"a b\", \"/\"]",
        "FROM scratch\nRUN --mount=type=bind,from=$REGISTRY/base:VERSION,target=/x true",
        "FROM scratch\nONBUILD COPY --from=$REGISTRY/base:VERSION / /",
    ])
}

/// Returns a Dockerfile with one reference.
fn file(before: &[String], spelling: &str, version: &str, after: &[String], end: &str) -> String {
    // Only ARG and comments may come before the first stage.
    let comments = before.iter().filter(|line| line.is_empty() || line.starts_with('#')).cloned();
    let head = comments.chain(["ARG REGISTRY".to_owned(), spelling.replace("VERSION", version)]);
    head.chain(after.iter().cloned()).collect::<Vec<_>>().join(end) + end
}

fn found(text: &str) -> Vec<ImageReference> {
    Dockerfile::parse(text.as_bytes()).unwrap().references(&arguments()).unwrap().references
}

fn whole(file: &Dockerfile) -> Vec<u8> {
    file.pieces().iter().flat_map(|piece| file.bytes()[piece.span.range()].to_vec()).collect()
}

proptest! {
    #[test]
    fn every_spelling_is_found_among_other_lines(
        before in fillers(), after in fillers(), spelling in spelling(), version in version(),
    ) {
        let text = file(&before, spelling, &version, &after, "\n");
        prop_assert_eq!(texts(&text), [format!("r.example/p/base:{version}")], "{}", text);
    }

    #[test]
    fn line_ends_do_not_matter(after in fillers(), spelling in spelling(), version in version()) {
        let unix = file(&[], spelling, &version, &after, "\n");
        let dos = unix.replace('\n', "\r\n");
        prop_assert_eq!(texts(&unix), texts(&dos));
        prop_assert_eq!(whole(&Dockerfile::parse(dos.as_bytes()).unwrap()), dos.into_bytes());
    }

    #[test]
    fn a_byte_order_mark_and_a_missing_last_line_end_do_not_matter(
        after in fillers(), spelling in spelling(), version in version(),
    ) {
        let text = file(&[], spelling, &version, &after, "\n");
        let marked = format!("\u{feff}{}", text.trim_end_matches('\n'));
        prop_assert_eq!(texts(&text), texts(&marked));
        prop_assert_eq!(whole(&Dockerfile::parse(marked.as_bytes()).unwrap()), marked.into_bytes());
    }

    #[test]
    fn the_version_is_traced_to_its_bytes(
        before in fillers(), after in fillers(), spelling in spelling(), version in version(), next in version(),
    ) {
        let text = file(&before, spelling, &version, &after, "\n");
        let reference = &found(&text)[0];
        let length = reference.text.len();
        let span = reference.text.span(length - version.len()..length).unwrap();
        prop_assert_eq!(&text[span.range()], version.as_str());
        // Replacing these bytes gives the file that has the other version from the start.
        let replaced = format!("{}{next}{}", &text[..span.start], &text[span.end..]);
        prop_assert_eq!(&replaced, &file(&before, spelling, &next, &after, "\n"));
        prop_assert_eq!(texts(&replaced), [format!("r.example/p/base:{next}")]);
    }

    #[test]
    fn a_version_in_an_argument_is_traced_through_others(
        version in version(), depth in 1usize..8, quote in prop::sample::select(vec!["", "'", "\""]),
    ) {
        let mut text = format!("ARG V0={quote}{version}{quote}\n");
        for argument in 1..depth {
            text.push_str(&format!("ARG V{argument}=${{V{}}}\n", argument - 1));
        }
        text.push_str(&format!("FROM r.example/p/base:$V{}\n", depth - 1));
        let reference = &found(&text)[0];
        let length = reference.text.len();
        let span = reference.text.span(length - version.len()..length).unwrap();
        prop_assert_eq!((&text[span.range()], span.start), (version.as_str(), 7 + quote.len()));
    }

    #[test]
    fn heredocs_hide_what_looks_like_a_reference(
        body in proptest::collection::vec(filler(), 0..5), spelling in spelling(), version in version(),
        mark in prop::sample::select(vec!["<<EOF", "<<-EOF", "<<\"EOF\"", "<<'EOF'"]),
        command in prop::sample::select(vec!["RUN", "RUN --network=none", "COPY"]),
    ) {
        let target = if command == "COPY" { " /x" } else { "" };
        let hidden = spelling.replace("VERSION", &version);
        let text = format!(
            "ARG REGISTRY\nFROM scratch\n{command} {mark}{target}\n{}\n{hidden}\nEOF\nUSER a\n",
            body.join("\n")
        );
        prop_assert_eq!(texts(&text), [""; 0], "{}", text);
        let file = Dockerfile::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(file.keywords().last(), Some("USER"), "{}", text);
        prop_assert_eq!(whole(&file), text.into_bytes());
    }

    #[test]
    fn comments_hide_what_looks_like_a_reference(spelling in spelling(), version in version(), indent in "[ \t]{0,3}") {
        let hidden = spelling.replace("VERSION", &version).replace('\n', " ");
        let text = format!("FROM scratch\n{indent}# {hidden}\nRUN a \\\n{indent}# {hidden}\n b\n");
        prop_assert_eq!(texts(&text), [""; 0], "{}", text);
    }

    #[test]
    fn the_escape_directive_changes_what_continues_a_line(spelling in spelling(), version in version()) {
        let text = file(&[], spelling, &version, &[], "\n");
        let windows = format!("# escape=`\n{}", text.replace('\\', "`"));
        prop_assert_eq!(texts(&text), texts(&windows));
        prop_assert_eq!(whole(&Dockerfile::parse(windows.as_bytes()).unwrap()), windows.into_bytes());
    }

    #[test]
    fn stages_are_never_images(names in proptest::collection::vec("[a-z][a-z0-9]{1,8}", 1..6)) {
        let mut text = String::new();
        for (number, name) in names.iter().enumerate() {
            text.push_str(&format!("FROM {} AS {name}\n", if number == 0 { "scratch" } else { &names[number - 1] }));
            text.push_str(&format!("COPY --from={} / /\n", names[0].to_uppercase()));
        }
        prop_assume!(!names.iter().any(|name| name == "scratch"));
        // A copy from the own stage is refused by BuildKit later; it is no image either.
        prop_assert_eq!(texts(&text), [""; 0], "{}", text);
    }

    #[test]
    fn references_lie_in_instructions_and_do_not_overlap(
        before in fillers(), after in fillers(), spelling in spelling(), version in version(),
    ) {
        let text = file(&before, spelling, &version, &after, "\n");
        let parsed = Dockerfile::parse(text.as_bytes()).unwrap();
        for reference in found(&text) {
            let is_around = |piece: &&Piece| piece.span.start <= reference.span.start && reference.span.end <= piece.span.end;
            let piece = parsed.pieces().iter().find(is_around);
            prop_assert_eq!(piece.map(|piece| piece.kind), Some(PieceKind::Instruction));
        }
    }

    #[test]
    fn places_of_problems_are_in_the_file(text in "(FROM |RUN |a|\\$\\{|\\}|'|\"|<<E|\\\\|\n|ü|:-|--mount=|--from=| ){0,30}") {
        let read = Dockerfile::parse(text.as_bytes());
        let error = match read.and_then(|file| file.references(&Arguments::default())) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        prop_assert!(error.offset <= text.len(), "{error:?}");
        let line = text[..error.offset].matches('\n').count() + 1;
        prop_assert_eq!(error.line, line);
        prop_assert!(error.column >= 1);
    }

    #[test]
    fn patterns_never_panic(value in "[a-b*?/.]{0,12}", pattern in "[a-b*?/.\\\\]{0,8}", operator in prop::sample::select(vec!["#", "##", "%", "%%"])) {
        let text = format!("ARG V={value}\nFROM r.example/${{V{operator}{pattern}}}x\n");
        if let Ok(file) = Dockerfile::parse(text.as_bytes())
            && let Ok(found) = file.references(&Arguments::default())
        {
            let expanded = found.references[0].text.text().into_owned();
            prop_assert!(expanded.len() <= "r.example/x".len() + value.len());
        }
    }

    #[test]
    fn pieces_are_the_whole_file(text in "(FROM|RUN|COPY|ARG|ENV|#|escape=|<<|E|\"|'|\\$|\\{|\\}|:-|#|%|/|--mount=from=|--from=|a|=| |\\\\|`|\n|\r\n|\t|ü){0,40}") {
        if let Ok(file) = Dockerfile::parse(text.as_bytes()) {
            prop_assert_eq!(whole(&file), text.as_bytes());
            let _ = file.references(&arguments());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(file) = Dockerfile::parse(&[b"FROM a\n", &bytes[..]].concat()) {
            let _ = file.references(&Arguments::default());
        }
    }
}
