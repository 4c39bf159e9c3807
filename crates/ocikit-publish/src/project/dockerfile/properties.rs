//! Properties of the parser, for generated Dockerfiles.

use proptest::prelude::*;

use super::*;

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
    let arguments = Arguments::default().with("REGISTRY", "r.example/p");
    Dockerfile::parse(text.as_bytes()).unwrap().references(&arguments).unwrap().references
}

fn texts(text: &str) -> Vec<String> {
    found(text).iter().map(|reference| reference.text.text().into_owned()).collect()
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
}
