//! Compares documents as JSON, so that unknown fields are compared too.

use ocikit_spec::MediaType;
use serde_json::{Map, Value};

use super::report::{Area, Class, Difference, Report};

/// Reports every value that differs, by its keys.
pub(crate) fn compare(report: &mut Report, area: Area, at: &str, left: &Value, right: &Value) {
    compare_values(report, area, at, Some(left), Some(right));
}

fn compare_values(report: &mut Report, area: Area, at: &str, left: Option<&Value>, right: Option<&Value>) {
    if is_same(left, right) {
        return;
    }
    let nothing = Value::Object(Map::new());
    match (left, right) {
        // For a missing map each value is reported with its own class.
        (Some(Value::Object(_)), None) => compare_values(report, area, at, left, Some(&nothing)),
        (None, Some(Value::Object(_))) => compare_values(report, area, at, Some(&nothing), right),
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            for (key, value) in one {
                compare_values(report, area, &below(at, key), Some(value), other.get(key));
            }
            for (key, value) in other.iter().filter(|(key, _)| !one.contains_key(*key)) {
                compare_values(report, area, &below(at, key), None, Some(value));
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) if is_unordered(at) && is_reordered(one, other) => {
            report.add(Difference::of(area, at, Class::Order, text(left), text(right)));
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) if one.len() == other.len() || has_maps(one, other) => {
            for number in 0..one.len().max(other.len()) {
                compare_values(report, area, &below(at, &number.to_string()), one.get(number), other.get(number));
            }
        }
        _ => report.add(Difference::of(area, at, class_of(at, left, right), text(left), text(right))),
    }
}

/// Lists of maps, such as the history, are compared item by item; lists of words are reported as a whole.
fn has_maps(left: &[Value], right: &[Value]) -> bool {
    left.iter().chain(right).all(Value::is_object)
}

/// Returns whether two values are equal. An empty value equals a missing one, because tools differ in which they write.
fn is_same(left: Option<&Value>, right: Option<&Value>) -> bool {
    let is_nothing = |value: Option<&Value>| match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    };
    left == right || is_nothing(left) && is_nothing(right)
}

fn below(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

fn class_of(at: &str, left: Option<&Value>, right: Option<&Value>) -> Class {
    // Keys of annotations contain dots and slashes themselves.
    if ["created", "timestamp", "date"].contains(&at.rsplit(['.', '/', '-', '_']).next().unwrap_or_default()) {
        return Class::Time;
    }
    let media_type = |value: Option<&Value>| value.and_then(Value::as_str).map(MediaType::new);
    match (at.rsplit('.').next(), media_type(left), media_type(right)) {
        (Some("mediaType"), Some(left), Some(right)) if is_same_thing(&left, &right) => Class::Encoding,
        _ => Class::Semantic,
    }
}

/// Returns whether two media types are equivalent: the OCI and the Docker name, or another compression.
fn is_same_thing(left: &MediaType, right: &MediaType) -> bool {
    let both = |is: fn(&MediaType) -> bool| is(left) && is(right);
    both(MediaType::is_layer)
        || both(MediaType::is_image_config)
        || both(MediaType::is_manifest)
        || both(MediaType::is_index)
}

/// Returns whether the order of a list has no meaning, by the specification or by convention.
fn is_unordered(at: &str) -> bool {
    at == "config.Env" || at.ends_with("os.features")
}

fn is_reordered(left: &[Value], right: &[Value]) -> bool {
    let sorted = |values: &[Value]| {
        let mut texts: Vec<_> = values.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    sorted(left) == sorted(right)
}

fn text(value: Option<&Value>) -> Option<String> {
    value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Returns a value without some of its keys.
pub(crate) fn without(value: &Value, keys: &[&str]) -> Value {
    let mut value = value.clone();
    if let Value::Object(map) = &mut value {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
    value
}

/// Reports different media types of two documents, which the documents themselves may omit.
pub(crate) fn media_type(report: &mut Report, area: Area, left: &MediaType, right: &MediaType) {
    if left != right {
        let class = if is_same_thing(left, right) { Class::Encoding } else { Class::Semantic };
        report.add(Difference::of(area, "mediaType", class, Some(left.to_string()), Some(right.to_string())));
    }
}

/// Reports documents with the same contents and different bytes: white space, order of keys, empty fields.
pub(crate) fn spelling(report: &mut Report, area: Area, left: &[u8], right: &[u8]) {
    let same = || serde_json::from_slice::<Value>(left).ok() == serde_json::from_slice::<Value>(right).ok();
    if left != right && same() {
        let size = |bytes: &[u8]| Some(format!("{} bytes", bytes.len()));
        report.add(Difference::of(area, "", Class::Encoding, size(left), size(right)).about("spelling"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(left: &Value, right: &Value) -> Vec<(String, Class)> {
        let mut report = Report::default();
        compare(&mut report, Area::Config, "", left, right);
        report.differences.into_iter().map(|difference| (difference.at, difference.class)).collect()
    }

    #[test]
    fn values_are_sorted_into_classes() {
        let base = json!({
            "created": "2024-01-01T00:00:00Z",
            "config": {"Env": ["A=1", "B=2"], "Cmd": ["a", "b"], "Labels": {"org.opencontainers.image.created": "x"}},
            "history": [{"created": "x", "created_by": "y"}],
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        });
        for (pointer, value, at, class) in [
            ("/created", json!("2025"), "created", Class::Time),
            ("/history/0/created", json!("2025"), "history.0.created", Class::Time),
            (
                "/config/Labels/org.opencontainers.image.created",
                json!("2025"),
                "config.Labels.org.opencontainers.image.created",
                Class::Time,
            ),
            ("/history/0/created_by", json!("z"), "history.0.created_by", Class::Semantic),
            ("/config/Env", json!(["B=2", "A=1"]), "config.Env", Class::Order),
            ("/config/Env/1", json!("B=3"), "config.Env.1", Class::Semantic),
            ("/config/Env", json!(["A=1"]), "config.Env", Class::Semantic),
            ("/config/Cmd", json!(["b", "a"]), "config.Cmd.0", Class::Semantic),
            ("/mediaType", json!("application/vnd.docker.image.rootfs.diff.tar.gzip"), "mediaType", Class::Encoding),
            ("/mediaType", json!("application/vnd.in-toto+json"), "mediaType", Class::Semantic),
        ] {
            let mut other = base.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            assert_eq!(found(&base, &other).first(), Some(&(at.to_owned(), class)), "{pointer}");
        }
        assert_eq!(found(&base, &base), []);
        let annotated =
            json!({"annotations": {"buildkit/rewritten-timestamp": "1", "a": "b"}, "history": [{"a": "b"}]});
        let at: Vec<_> = found(&json!({}), &annotated).into_iter().map(|(at, _)| at).collect();
        assert_eq!(at, ["annotations.buildkit/rewritten-timestamp", "annotations.a", "history"]);
        let longer = json!({"history": [{"a": "b"}, {"c": "d"}]});
        assert_eq!(found(&json!({"history": [{"a": "b"}]}), &longer), [("history.1.c".to_owned(), Class::Semantic)]);
    }

    #[test]
    fn empty_values_equal_missing_ones() {
        let left = json!({"a": null, "b": [], "c": {}, "d": "", "e": false, "f": {"g": null}});
        assert_eq!(found(&left, &json!({"f": {}})), []);
        assert_eq!(found(&json!({"a": 0}), &json!({})).len(), 1);
    }

    #[test]
    fn order_of_keys_is_encoding() {
        let mut report = Report::default();
        spelling(&mut report, Area::Config, br#"{"a":1,"b":2}"#, br#"{"b":2, "a":1}"#);
        spelling(&mut report, Area::Config, br#"{"a":1}"#, br#"{"a":2}"#);
        assert_eq!(report.differences.len(), 1);
        assert_eq!(report.differences[0].class, Class::Encoding);
    }
}
