use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

struct Build;

impl Fields for Build {
    fn field(&self, name: &str) -> Option<Value> {
        Some(match name {
            "ShortSHA" => Value::Text("da39a3ee".to_owned()),
            "CommitSHA" => Value::Text("da39a3ee5e6b4b0d3255bfef95601890afd80709".to_owned()),
            "PRNumber" => Value::Text(String::new()),
            "Branch" => Value::Text("feature/x".to_owned()),
            "Time" => Value::Time(Timestamp::from_second(1_764_331_445).unwrap()),
            _ => return None,
        })
    }

    fn env(&self, name: &str) -> Option<String> {
        (name == "REF").then(|| "main".to_owned())
    }
}

fn render(text: &str) -> Result<String, TemplateError> {
    text.parse::<Template>()?.render(&Build)
}

#[test]
fn renders_the_language() {
    for (template, expected) in [
        ("latest", "latest"),
        ("v{{ .ShortSHA }}", "vda39a3ee"),
        ("a {{- .ShortSHA -}} b", "ada39a3eeb"),
        ("x{{/* a comment */}}y", "xy"),
        ("x {{- /* a comment */ -}} y", "xy"),
        (r#"{{ .Env "REF" }}-{{.ShortSHA}}"#, "main-da39a3ee"),
        (r#"{{ "REF" | .Env }}"#, "main"),
        ("{{ if .PRNumber }}pr{{ else }}commit{{ end }}", "commit"),
        (r#"{{ if eq .Branch "main" }}a{{ else if eq .Branch "x" "feature/x" }}b{{ else }}c{{ end }}"#, "b"),
        ("{{ if and .Branch (not .PRNumber) }}b{{ end }}", "b"),
        ("{{ or .PRNumber .ShortSHA }}", "da39a3ee"),
        ("{{ and .PRNumber .ShortSHA }}", ""),
        ("{{ $x := .ShortSHA }}{{ $x }}-{{ len $x }}", "da39a3ee-8"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ printf \"%s-%05d-%t\" .ShortSHA 42 true }}", "da39a3ee-00042-true"),
        ("{{ printf \"%.7s|%-4d|%4d|%+d|%x|%q%%\" .CommitSHA 1 2 3 255 `a` }}", "da39a3e|1   |   2|+3|ff|\"a\"%"),
        ("{{ slice .CommitSHA 0 7 }}{{ slice .CommitSHA 38 }}", "da39a3e09"),
        ("{{ .CommitSHA | trunc 4 | upper }}", "DA39"),
        (r#"{{ .Branch | replace "/" "-" | trimPrefix "feature-" }}"#, "x"),
        ("{{ .Branch | sanitize }}", "feature-x"),
        (r#"{{ .PRNumber | default "none" }}"#, "none"),
        (r#"{{ .Time.Format "20060102-150405" }}"#, "20251128-120405"),
        (r#"{{ .Time.UTC.Format "Mon, 2 Jan 06 3:04PM Z07:00 -0700" }}"#, "Fri, 28 Nov 25 12:04PM Z +0000"),
        ("{{ .Time.Unix }}.{{ .Time.Year }}.{{ .Time.YearDay }}", "1764331445.2025.332"),
        ("{{ .Time }}", "2025-11-28 12:04:05 +0000 UTC"),
        ("{{ print 1 2 `a` 3 }}", "1 2a3"),
        ("{{ (printf `%s` .ShortSHA) }}{{ $.ShortSHA | len }}", "da39a3ee8"),
        ("}} {", "}} {"),
        ("{{ if lt 1 2 }}a{{ end }}{{ if ge `b` `a` }}b{{ end }}", "ab"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn errors_say_what_and_where() {
    for (template, expected) in [
        ("a{{ .Missing }}", "there is no field `.Missing`, at character 5"),
        ("{{ .ShortSHA.Foo }}", "there is no field `.Foo`, at character 4"),
        ("{{ .ParseTags }}", "there is no field `.ParseTags`, at character 4"),
        (
            r#"{{ .Env "AUTHORIZATION" }}"#,
            "the environment variable `AUTHORIZATION` is not on the allow-list, at character 4",
        ),
        ("{{ .Env }}", ".Env needs the name of a variable, at character 4"),
        ("{{ range .X }}{{ end }}", "`range` is not supported in a tag, at character 4"),
        ("{{ template `x` }}", "`template` is not supported in a tag, at character 4"),
        ("{{ define `x` }}{{ end }}", "`define` is not supported in a tag, at character 4"),
        ("{{ block `x` . }}{{ end }}", "`block` is not supported in a tag, at character 4"),
        ("{{ readFile `/etc/passwd` }}", "there is no function `readFile`, at character 4"),
        ("{{ call .X }}", "there is no function `call`, at character 4"),
        ("{{ $x }}", "there is no variable `$x`, at character 4"),
        ("{{ .ShortSHA", "unexpected action without `}}`, at character 1"),
        ("{{ }}", "unexpected empty action, at character 1"),
        ("{{ if .ShortSHA }}", "unexpected `if` without `end`, at character 1"),
        ("{{ end }}", "unexpected `end`, at character 1"),
        ("{{ 1 | 2 }}", "unexpected value after `|`, at character 8"),
        ("{{ eq 1 `a` }}", "eq cannot compare a number with a text, at character 4"),
        ("{{ slice .ShortSHA 9 }}", "slice is out of range for 8 bytes, at character 4"),
        ("{{ upper 1 }}", "upper does not take a number, at character 4"),
        ("{{ printf `%d` `a` }}", "printf cannot write a text with `%d`, at character 4"),
        ("{{ printf `%s` }}", "printf has no value for `%s`, at character 4"),
    ] {
        assert_eq!(render(template).unwrap_err().to_string(), expected, "{template}");
    }
}

/// KYM-5 and the template engine under attack: every attempt is a bounded error.
#[test]
fn attacks_are_bounded_errors() {
    let doubling = "{{ $x := `ha` }}".to_owned() + &"{{ $x = print $x $x }}".repeat(40) + "{{ $x }}";
    let deep = "(".repeat(1000) + "1" + &")".repeat(1000);
    let nested = "{{ if 1 }}".repeat(200) + &"{{ end }}".repeat(200);
    let chain = "{{ if 0 }}".to_owned() + &"{{ else if 0 }}".repeat(200) + "{{ end }}";
    for (template, problem) in [
        (doubling, TemplateProblem::TooLarge),
        (format!("{{{{ {deep} }}}}"), TemplateProblem::TooDeep),
        (nested, TemplateProblem::TooDeep),
        (chain, TemplateProblem::TooDeep),
        ("x".repeat(MAX_TEMPLATE_BYTES + 1), TemplateProblem::TooLong),
        (
            "{{ $x := `aaaaaaaaaaaaaaaa` }}".to_owned()
                + &"{{ $x = replace `a` `aaaaaaaaaaaaaaaaaaaa` $x }}".repeat(20),
            TemplateProblem::TooLarge,
        ),
        ("{{ .CommitSHA }}".repeat(250), TemplateProblem::TooLarge),
    ] {
        assert_eq!(render(&template).unwrap_err().problem, problem, "{}", &template[..60]);
    }
    let wide = render("{{ printf `%999999999d` 1 }}").unwrap_err().to_string();
    assert_eq!(wide, "printf has a width of more than 128, at character 4");
}

proptest! {
    #[test]
    fn any_text_is_a_template_or_an_error(text in "[ -~]{0,60}", inner in "[ .$a-z0-9|()\"`:=-]{0,40}") {
        let _ = render(&text);
        let _ = render(&format!("{{{{{inner}}}}}"));
    }

    #[test]
    fn text_without_actions_stays(text in "[^{]{0,100}") {
        prop_assert_eq!(render(&text).unwrap(), text);
    }
}
