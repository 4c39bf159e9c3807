use super::*;
use crate::Digest;

const MANIFEST: &str = r#"{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "size": 2
  },
  "layers": [],
  "zzz": [1.50, 1e3, "\u0026"],
  "annotations": {
    "b": "\u0026",
    "a": "1"
  }
}"#;

const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"x":1.0,"platform":{"architecture":"arm64","os":"linux","os.version":"1","y":[]}}],"x":null}"#;

#[test]
fn an_untouched_document_keeps_its_bytes() {
    let manifest = Manifest::parse(MANIFEST).unwrap();
    assert_eq!(manifest.text(), MANIFEST);
    assert_eq!(manifest.edit().finish().unwrap().text(), MANIFEST);
    assert_eq!(manifest.edit().annotate("b", "&").remove_annotation("c").finish().unwrap().text(), MANIFEST);
    let index = Index::parse(INDEX).unwrap();
    assert_eq!(index.edit().finish().unwrap().text(), INDEX);
    assert_eq!(index.edit().remove_entry_annotation(0, "a").finish().unwrap().text(), INDEX);
}

#[test]
fn edit_changes_only_the_requested_fields() {
    let manifest = Manifest::parse(MANIFEST).unwrap();
    let edited = manifest.edit().annotate("a", "x,\"=ä").annotate("c", "new").finish().unwrap();
    assert_eq!(edited.annotations().iter().collect::<Vec<_>>(), [("b", "&"), ("a", "x,\"=ä"), ("c", "new")]);
    let expected = MANIFEST.replace(r#""a": "1""#, "\"a\": \"x,\\\"=ä\",\n    \"c\": \"new\"");
    let expected = expected.replace("[1.50, 1e3, \"\\u0026\"]", "[\n    1.50,\n    1e3,\n    \"\\u0026\"\n  ]");
    assert_eq!(edited.text(), expected);
}

#[test]
fn annotations_are_removed_with_the_last_one() {
    let edited =
        Manifest::parse(MANIFEST).unwrap().edit().remove_annotation("a").remove_annotation("b").finish().unwrap();
    assert!(!edited.text().contains("annotations"), "{}", edited.text());
}

#[test]
fn an_entry_is_repointed_and_keeps_the_rest() {
    let digest = Digest::sha256_of(b"new");
    let index = Index::parse(INDEX).unwrap();
    let edited = index.edit().repoint(0, &digest, 3).annotate_entry(0, "k", "v").finish().unwrap();
    let expected = INDEX
        .replace("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", &digest.to_string())
        .replace(r#""size":2"#, r#""size":3"#)
        .replace(r#""y":[]}}"#, r#""y":[]},"annotations":{"k":"v"}}"#);
    assert_eq!(edited.text(), expected);
    let back = edited.edit().remove_entry_annotation(0, "k").finish().unwrap();
    assert!(!back.text().contains("annotations"));
}

#[test]
fn a_subject_is_repointed_and_keeps_the_rest() {
    let manifest = Manifest::parse(MANIFEST).unwrap();
    let digest = Digest::sha256_of(b"new");
    assert_eq!(manifest.edit().repoint_subject(&digest, 3).finish().unwrap().text(), MANIFEST);
    let subject = r#""subject": {"mediaType": "a/b", "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "size": 2, "x": 1.0}, "zzz""#;
    let about = Manifest::parse(MANIFEST.replace("\"zzz\"", subject)).unwrap();
    let edited = about.edit().repoint_subject(&digest, 3).finish().unwrap();
    assert_eq!(edited.subject().map(|subject| (subject.digest, subject.size)), Some((digest, 3)));
    assert!(edited.text().contains("\"x\": 1.0"));
}

#[test]
fn entries_are_added_and_removed() {
    let index = Index::of(&[]);
    assert_eq!(
        index.text(),
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
    );
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, b"{}");
    let one = index.edit().push(&descriptor).finish().unwrap();
    assert_eq!(one.manifests(), [descriptor]);
    assert_eq!(one.edit().remove(0).remove(7).finish().unwrap().text(), index.text());
}

#[test]
fn null_map_list_or_string_is_absent() {
    let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let descriptor = format!(
        r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":2,"urls":null,
        "annotations":{{"a":null,"b":"1"}},"data":null,"platform":null,"artifactType":null}}"#
    );
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":null,"artifactType":null,"config":{descriptor},"layers":null,
        "manifests":null,"subject":null,"annotations":{{"a":null,"b":"1"}}}}"#
    );
    let (media_type, document) = Document::sniff(text.clone()).unwrap();
    assert_eq!((media_type, document.bytes()), (MediaType::OCI_MANIFEST, &Bytes::from(text)));
    assert_eq!(document.annotations().iter().collect::<Vec<_>>(), [("b", "1")]);
    let Document::Manifest(manifest) = document else { panic!("a manifest") };
    let config = manifest.config().unwrap();
    assert_eq!(config.annotations.iter().collect::<Vec<_>>(), [("b", "1")]);
    // Other fields keep their bytes when an annotation changes.
    let edited = manifest.edit().annotate("c", "2").finish().unwrap();
    assert!(edited.text().contains(r#""a":null,"b":"1","c":"2""#), "{}", edited.text());
    let index = Index::parse(
        r#"{"schemaVersion":2,"mediaType":null,"manifests":[],"config":null,"layers":null,"annotations":{"a":null}}"#,
    );
    assert!(index.unwrap().annotations().is_empty());
    let config = Config::parse(
        r#"{"created":null,"author":null,"architecture":"arm64","os":"linux","variant":null,"os.version":null,
        "os.features":null,"config":{"User":null,"ExposedPorts":null,"Env":null,"Entrypoint":null,"Cmd":null,"Volumes":null,
        "WorkingDir":null,"Labels":{"a":null,"b":"1"},"StopSignal":null},"rootfs":{"type":null,"diff_ids":null},
        "history":[{"created":null,"created_by":null,"author":null,"comment":null,"empty_layer":null}]}"#,
    );
    let config = config.unwrap();
    assert_eq!(config.platform().unwrap().to_string(), "linux/arm64");
    assert_eq!(config.execution().labels.iter().collect::<Vec<_>>(), [("b", "1")]);
    assert_eq!(config.history(), [History::default()]);
    let config =
        Config::parse(r#"{"architecture":null,"os":null,"config":null,"rootfs":null,"history":null}"#).unwrap();
    assert!(config.platform().is_none() && config.history().is_empty());
}

#[test]
fn go_null_is_empty() {
    let text = r#"{"schemaVersion":2,"manifests":null,"annotations":null}"#;
    let index = Index::parse(text).unwrap();
    assert!(index.manifests().is_empty());
    assert_eq!(index.edit().annotate("a", "b").finish().unwrap().annotations().len(), 1);
}

#[test]
fn rejects_ambiguous_documents() {
    let config = r#""config":{"mediaType":"a/b","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}"#;
    let good = format!(r#"{{"schemaVersion":2,{config},"layers":[]}}"#);
    assert!(Manifest::parse(good.clone()).is_ok());
    for bad in [
        good.replace(r#""layers":[]"#, r#""layers":[],"manifests":[]"#),
        good.replace(r#""layers":[]"#, r#""layers":[],"Manifests":[]"#),
        good.replace(r#""layers":[]"#, r#""layers":[],"Layers":[]"#),
        good.replace(r#""layers":[]"#, r#""layers":[],"layers":[]"#),
        good.replace(r#""layers":[]"#, r#""layers":{}"#),
        good.replace(r#""schemaVersion":2,"#, ""),
        good.replace(r#""schemaVersion":2,"#, r#""schemaVersion":1,"#),
        good.replace(config, r#""x":1"#),
        good.replace(r#""size":2"#, r#""size":-2"#),
        good.replace(r#""size":2"#, r#""size":99999999999999999999"#),
        good.replace(r#""size":2"#, r#""size":2.5"#),
        good.replace(r#""size":2"#, r#""size":2,"size":3"#),
        good.replace(r#""size":2"#, r#""size":2,"Size":3"#),
        good.replace(r#""size":2"#, "\"size\":2,\"\u{17f}ize\":3"),
        good.replace(r#""layers":[]"#, "\"layers\":[],\"layer\u{17f}\":[]"),
        good.replace(r#""layers":[]"#, "\"layers\":[],\"manife\u{17f}ts\":[]"),
        good.replace("sha256:44", "sha256:4"),
        good.replace("sha256:44", "sha1:44"),
        good[..good.len() - 1].to_owned(),
        format!("{good}x"),
        format!("\u{feff}{good}"),
        "[".repeat(100_000),
        String::new(),
    ] {
        assert!(Manifest::parse(bad.clone()).is_err(), "{}", crate::error::excerpt(&bad));
    }
    assert!(Manifest::parse(&b"{\"schemaVersion\":2,\"\xff\":1}"[..]).is_err());
    assert!(Index::parse(good).is_err());
    assert!(Index::parse(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#).is_err());
    assert!(Index::parse(r#"{"schemaVersion":2}"#).is_err());
    let entry = r#""manifests":[{"mediaType":"a/b","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","platform":{"os":"linux","architecture":"amd64"}}]"#;
    let index = format!(r#"{{"schemaVersion":2,{entry}}}"#);
    assert!(Index::parse(index.clone()).is_ok());
    for (from, to) in [
        (r#""size":2"#, r#""size":2,"Digest":"sha256:1""#),
        (r#""size":2"#, r#""size":2,"dige\u017ft":"sha256:1""#),
        (r#""size":2"#, r#""size":2,"Platform":null"#),
        (r#""os":"linux""#, r#""os":"linux","OS":"windows""#),
        (r#""schemaVersion":2"#, r#""schemaVersion":2,"Manifests":[]"#),
        (r#""schemaVersion":2"#, r#""schemaVersion":2,"manife\u017fts":[]"#),
        (r#""schemaVersion":2"#, r#""schemaVersion":2,"layer\u017f":[]"#),
    ] {
        let error = Index::parse(index.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains("which"), "{error}");
        assert!(Content::of(&MediaType::OCI_INDEX, index.replace(from, to)).is_err(), "{to}");
    }
    for bad in [
        r#"{"os":"linux","architecture":"unknown","Architecture":"arm64"}"#,
        r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[],"Diff_IDs":[]}}"#,
        r#"{"os":"linux","architecture":"amd64","rootf\u017f":{}}"#,
        r#"{"config":{"Env":[],"env":[]}}"#,
        r#"{"history":[{"Empty_layer":true}]}"#,
    ] {
        assert!(Config::parse(bad).is_err(), "{bad}");
    }
    // Other media types hide no document in keys of another case.
    let unknown = MediaType::from("application/x");
    for bad in [
        r#"{"schemaVersion":2,"Manifests":[]}"#,
        r#"{"schemaVersion":2,"Config":{},"layer\u017f":[]}"#,
        r#"{"x":{"Digest":"sha256:1","\u017fize":1}}"#,
    ] {
        assert!(Content::of(&unknown, bad).is_err(), "{bad}");
    }
}

#[test]
fn bytes_decide_the_kind_of_a_document() {
    let docker = MANIFEST.replace("vnd.oci.image.manifest.v1+json", "VND.docker.distribution.manifest.v2+json; a=b");
    let unstated = MANIFEST.replace(r#""mediaType": "application/vnd.oci.image.manifest.v1+json","#, "");
    assert_ne!(unstated, MANIFEST);
    let stated = INDEX.replacen('{', r#"{"mediaType":"application/vnd.oci.image.index.v1+json","#, 1);
    let shouted = MediaType::from("Application/vnd.docker.distribution.manifest.v2+JSON; charset=utf-8");
    for (label, bytes, expected) in [
        (MediaType::OCI_MANIFEST, MANIFEST, MediaType::OCI_MANIFEST),
        (MediaType::DOCKER_MANIFEST, MANIFEST, MediaType::OCI_MANIFEST),
        (MediaType::DOCKER_SCHEMA1_SIGNED, MANIFEST, MediaType::OCI_MANIFEST),
        (MediaType::OCI_INDEX, MANIFEST, MediaType::OCI_MANIFEST),
        (MediaType::OCTET_STREAM, MANIFEST, MediaType::OCI_MANIFEST),
        (MediaType::new(""), MANIFEST, MediaType::OCI_MANIFEST),
        (MediaType::DOCKER_MANIFEST_LIST, INDEX, MediaType::DOCKER_MANIFEST_LIST),
        (MediaType::DOCKER_MANIFEST_LIST, &stated, MediaType::OCI_INDEX),
        (MediaType::OCI_INDEX, INDEX, MediaType::OCI_INDEX),
        (MediaType::OCI_MANIFEST, INDEX, MediaType::OCI_INDEX),
        (shouted.clone(), &unstated, MediaType::DOCKER_MANIFEST),
        (MediaType::OCI_INDEX, &unstated, MediaType::OCI_MANIFEST),
        (MediaType::new("text/plain"), &unstated, MediaType::OCI_MANIFEST),
        (MediaType::OCI_MANIFEST, &docker, MediaType::DOCKER_MANIFEST),
    ] {
        let document = Document::parse(&label, bytes.to_owned());
        assert_eq!(document.unwrap().media_type(&label), expected, "{label}");
    }
    assert!(Document::parse(&MediaType::OCI_LAYER, MANIFEST).is_ok());
    assert!(Document::parse(&MediaType::OCI_LAYER, "layer").is_err());
    assert!(Document::parse_exactly(&MediaType::DOCKER_MANIFEST, MANIFEST).is_err());
    assert!(Document::parse_exactly(&MediaType::OCI_MANIFEST, MANIFEST).is_ok());
    let (media_type, document) = Document::sniff(INDEX).unwrap();
    assert_eq!(media_type, MediaType::OCI_INDEX);
    assert_eq!(document.children().count(), 1);
}

#[test]
fn unknown_document_is_a_blob_only_without_references() {
    const BLOB: &str =
        r#"{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
    let unknown = MediaType::from("application/x");
    for text in
        ["", "plain", "{", "[1]", "<html>", "{}", r#"{"layers":[{"blob":"sha256:1"}]}"#, r#"{"mediaType":"a/b"}"#]
    {
        assert!(matches!(Content::of(&unknown, text), Ok(Content::Blob)), "{text}");
        assert!(Content::of(&MediaType::OCI_INDEX, text).is_err(), "{text}");
    }
    for text in [
        format!(r#"{{"mediaType":"a/b","parts":[[{BLOB}]]}}"#),
        format!(r#"{{"image":{{"base":{BLOB}}}}}"#),
        format!(r#"{{"layers":[{BLOB}]}}"#),
        format!(r#"{{"schemaVersion":3,"layers":[{BLOB}]}}"#),
        format!(r#"{{"schemaVersion":2,"layers":[{BLOB}],"manifests":[{BLOB}]}}"#),
        format!(r#"{{"schemaVersion":1,"fsLayers":[],"layers":[{BLOB}]}}"#),
    ] {
        assert!(Content::of(&unknown, text.clone()).is_err(), "{text}");
    }
    let schema1 = r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:1"}]}"#;
    for label in [MediaType::OCI_MANIFEST, MediaType::DOCKER_SCHEMA1, unknown] {
        let content = Content::of(&label, schema1).unwrap();
        assert!(matches!(content, Content::Schema1) && content.media_type(&label).is_schema1(), "{label}");
    }
}

#[test]
fn unknown_fields_of_descriptors_and_configs_are_bounded() {
    let zeros = vec!["0"; 100_000].join(",");
    let descriptor = |extra: &str| {
        format!(
            r#"{{"mediaType":"a/b","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,
            "x":{extra}}}"#
        )
    };
    assert!(serde_json::from_str::<Descriptor>(&descriptor(&format!("[{zeros}]"))).is_err());
    let kept: Descriptor = serde_json::from_str(&descriptor(r#"{"a":[1,-1,1.5,null,true,"y"]}"#)).unwrap();
    assert_eq!(kept.extra["x"], serde_json::json!({"a": [1, -1, 1.5, null, true, "y"]}));
    let again = serde_json::to_string(&kept).unwrap();
    assert_eq!(serde_json::from_str::<Descriptor>(&again).unwrap(), kept);
    assert!(serde_json::from_str::<Descriptor>(&descriptor(r#"1,"size":3"#)).is_err());
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
    assert!(Config::parse(deep.clone()).is_err());
    assert!(Content::of(&"application/x".into(), deep).is_err());
    // Ignored fields take no memory.
    let config = Config::parse(format!(r#"{{"os":"linux","architecture":"amd64","x":[{zeros}]}}"#)).unwrap();
    assert_eq!(config.platform().unwrap().to_string(), "linux/amd64");
}

#[test]
fn tells_artifacts_from_images() {
    assert_eq!(Manifest::parse(MANIFEST).unwrap().artifact_type(), None);
    let helm = MANIFEST.replace("vnd.oci.image.config.v1", "vnd.cncf.helm.config.v1");
    let expected = MediaType::from("application/vnd.cncf.helm.config.v1+json");
    assert_eq!(Manifest::parse(helm).unwrap().artifact_type(), Some(&expected));
    let empty = MANIFEST.replace("vnd.oci.image.config.v1+json", "vnd.oci.empty.v1+json");
    let typed = empty.replace(r#""layers""#, r#""artifactType": "a/b", "layers""#);
    assert_eq!(Manifest::parse(empty).unwrap().artifact_type(), None);
    assert_eq!(Manifest::parse(typed).unwrap().artifact_type(), Some(&"a/b".into()));
}

#[test]
fn reads_the_config_of_docker_and_of_buildkit() {
    let config = Config::parse(
        r#"{"architecture":"arm","variant":"v7","os":"linux","config":{"Env":["A=b"],"Cmd":null,"ExposedPorts":{"80/tcp":{}},
            "Labels":{"x":"y"},"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":
            ["sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"]},
            "history":[{"created_by":"COPY","empty_layer":true}],"moby.buildkit.x":1}"#,
    )
    .unwrap();
    assert_eq!(config.platform().unwrap().to_string(), "linux/arm/v7");
    assert_eq!(config.execution().env, ["A=b"]);
    assert_eq!(config.execution().exposed_ports, ["80/tcp"]);
    assert_eq!(config.execution().labels.get("x"), Some("y"));
    assert_eq!(config.rootfs().diff_ids.len(), 1);
    assert!(config.history()[0].empty_layer);
    let bare = Config::parse("{}").unwrap();
    assert_eq!(bare.platform(), None);
    assert!(Config::parse("[]").is_err());
}

proptest::proptest! {
    #[test]
    fn any_annotation_is_kept_byte_for_byte(key in ".*", value in ".*") {
        let edited = Manifest::parse(MANIFEST).unwrap().edit().annotate(&key, &value).finish().unwrap();
        proptest::prop_assert_eq!(edited.annotations().get(&key), Some(value.as_str()));
        let read = Manifest::parse(edited.bytes().clone()).unwrap();
        proptest::prop_assert_eq!(read.annotations().get(&key), Some(value.as_str()));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Document::sniff(bytes);
    }
}
