use serde_json::json;

use super::*;
use crate::notation::testing::*;

#[test]
fn an_unavailable_plugin_is_not_skipped() {
    let attributes = |others: Value, critical: &[&str]| {
        let attributes = Attributes {
            critical: [&[SCHEME], critical].concat().into_iter().map(str::to_owned).collect(),
            content_type: Some(PAYLOAD_TYPE),
            scheme: Some("notary.x509"),
            time: Some(at("2026-06-01")),
            authentic_time: None,
            expiry: None,
            others: others.as_object().unwrap().clone(),
        };
        attributes.check().map(|(_, extended)| extended)
    };
    assert_eq!(attributes(json!({"com.example.note": 1}), &[]), Ok(None));
    let extended = attributes(
        json!({PLUGIN: "p", PLUGIN_VERSION: "1.0.0", "com.example.note": 1, "com.example.must": "x"}),
        &[PLUGIN, PLUGIN_VERSION, "com.example.must"],
    );
    let others = json!({"com.example.must": "x"}).as_object().unwrap().clone();
    assert_eq!(extended, Ok(Some(PluginRequest { plugin: "p".to_owned(), version: Some("1.0.0".to_owned()), others })));
    for (others, critical) in [
        (json!({PLUGIN: "p"}), &[][..]),
        (json!({PLUGIN: "p", PLUGIN_VERSION: "1.0.0"}), &[PLUGIN]),
        (json!({PLUGIN: " "}), &[PLUGIN]),
        (json!({PLUGIN: 1}), &[PLUGIN]),
        (json!({PLUGIN_VERSION: "1.0.0"}), &[PLUGIN_VERSION]),
        (json!({"io.cncf.notary.x": "p"}), &[]),
        (json!({"com.example.must": "x"}), &["com.example.must"]),
        (json!({PLUGIN: "p"}), &[PLUGIN, "com.example.must"]),
    ] {
        assert!(attributes(others.clone(), critical).is_err(), "{others} {critical:?}");
    }
}

#[test]
fn attributes_have_to_agree() {
    let time = Some(at("2026-06-01"));
    let check = |change: &dyn Fn(&mut Attributes<'_>)| {
        let mut attributes = Attributes {
            critical: vec![SCHEME.to_owned()],
            content_type: Some(PAYLOAD_TYPE),
            scheme: Some("notary.x509"),
            time,
            authentic_time: None,
            expiry: None,
            others: Map::new(),
        };
        change(&mut attributes);
        attributes.check()
    };
    assert!(check(&|_| {}).is_ok());
    let changes: [&dyn Fn(&mut Attributes<'_>); 9] = [
        &|all| all.critical.clear(),
        &|all| all.critical.push(SCHEME.to_owned()),
        &|all| all.critical.push("io.cncf.notary.verificationPlugin".to_owned()),
        &|all| all.critical.push(AUTHENTIC_TIME.to_owned()),
        &|all| all.scheme = Some("notary.x509.signingAuthority"),
        &|all| all.scheme = Some("notary.x510"),
        &|all| all.authentic_time = time,
        &|all| {
            all.expiry = time;
            all.critical.push(EXPIRY.to_owned());
        },
        &|all| all.time = None,
    ];
    for (position, change) in changes.into_iter().enumerate() {
        assert!(check(change).is_err(), "{position}");
    }
}
