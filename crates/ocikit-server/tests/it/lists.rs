use ocikit_server::{Rules, Server, Switch};
use ocikit_spec::{Descriptor, Digest, MediaType};

use crate::http::{Http, json, manifest, start, start_with};

/// Follows the links from page to page and returns the pages.
async fn pages(http: &Http, first: &str, key: &str) -> Vec<serde_json::Value> {
    let mut pages = Vec::new();
    let mut next = first.to_owned();
    loop {
        let answer = http.get(&next).await;
        assert_eq!(answer.status, 200, "{next}");
        pages.push(answer.json()[key].clone());
        match answer.header("link").strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")) {
            Some(link) => next = link.to_owned(),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn tags_are_listed_in_order_and_in_pages() {
    let (_running, http) = start().await;
    let text = http.push_image("a", "b", "layer").await;
    for tag in ["a", "C", "10", "9", "_x"] {
        http.put_manifest("a", tag, &text).await;
    }
    let all = http.get("/v2/a/tags/list").await;
    assert_eq!(all.json(), serde_json::json!({"name": "a", "tags": ["10", "9", "C", "_x", "a", "b"]}));
    assert_eq!(pages(&http, "/v2/a/tags/list?n=4", "tags").await[1], serde_json::json!(["a", "b"]));
    assert_eq!(pages(&http, "/v2/a/tags/list?n=3", "tags").await.len(), 2, "a full last page has no link");
    assert_eq!(http.get("/v2/a/tags/list?last=_x").await.json()["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(http.get("/v2/a/tags/list?n=1&last=9").await.json()["tags"], serde_json::json!(["C"]));
    assert_eq!(pages(&http, "/v2/a/tags/list?n=0", "tags").await, [serde_json::json!([])]);
    assert_eq!(http.status("GET /v2/a/tags/list?n=-1").await, 400);
    let unknown = http.get("/v2/b/tags/list").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "NAME_UNKNOWN"));

    http.push("empty", b"blob").await;
    assert_eq!(http.get("/v2/empty/tags/list").await.json()["tags"], serde_json::json!([]));
}

#[tokio::test]
async fn repositories_are_listed() {
    let rules = Rules::default().page(Some(2));
    let (_running, http) = start_with(Server::default().rules(rules)).await;
    for name in ["b", "a/b", "a"] {
        http.push(name, b"x").await;
    }
    let expected = [serde_json::json!(["a", "a/b"]), serde_json::json!(["b"])];
    assert_eq!(pages(&http, "/v2/_catalog", "repositories").await, expected);
    assert_eq!(pages(&http, "/v2/_catalog?n=1", "repositories").await.len(), 3);

    let digest = Digest::sha256_of(b"x");
    assert_eq!(http.status(&format!("DELETE /v2/a/blobs/{digest}")).await, 202);
    assert_eq!(pages(&http, "/v2/_catalog", "repositories").await[0], serde_json::json!(["a/b", "b"]));

    let rules = Rules::default().catalog(Switch::Off);
    let (_running, http) = start_with(Server::default().rules(rules)).await;
    assert_eq!(http.status("GET /v2/_catalog").await, 404);
}

#[tokio::test]
async fn referrers_are_listed_filtered_and_in_pages() {
    let (running, http) = start().await;
    let subject = http.push_image("a", "v1", "layer").await;
    let subject = Descriptor::of(MediaType::OCI_MANIFEST, subject.as_bytes());
    let about = |more: &str| manifest("layer", &format!(r#","subject":{}{more}"#, json(&subject)));
    let texts = [
        about(r#","artifactType":"application/one","annotations":{"k":"v"}"#),
        about(r#","artifactType":"application/two""#),
        about(r#","artifactType":"""#),
        about(""),
    ];
    let mut digests = Vec::new();
    for text in &texts {
        let digest = Digest::sha256_of(text.as_bytes());
        assert_eq!(http.put_manifest("a", &digest.to_string(), text).await.status, 201);
        digests.push(digest.to_string());
    }
    let path = format!("/v2/a/referrers/{}", subject.digest);
    let answer = http.get(&path).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, MediaType::OCI_INDEX.as_str()));
    assert_eq!(answer.json()["mediaType"], MediaType::OCI_INDEX.as_str());
    assert_eq!(answer.header("oci-filters-applied"), "");
    let listed = answer.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 4);
    let one = listed.iter().find(|listed| listed["digest"] == digests[0]).unwrap();
    assert_eq!(one["annotations"]["k"], "v");
    assert_eq!(one["size"], texts[0].len());
    assert_eq!(one["artifactType"], "application/one");
    for digest in &digests[2..] {
        let plain = listed.iter().find(|listed| listed["digest"] == **digest).unwrap();
        assert_eq!(
            plain["artifactType"],
            MediaType::OCI_CONFIG.as_str(),
            "without an artifact type, the media type of the config is used"
        );
    }

    let filtered = http.get(&format!("{path}?artifactType=application%2Ftwo")).await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(pages(&http, &format!("{path}?n=3"), "manifests").await.len(), 2);
    let both = format!("{path}?n=1&artifactType={}", MediaType::OCI_CONFIG.as_str().replace('/', "%2F"));
    assert_eq!(pages(&http, &both, "manifests").await.len(), 2, "a link keeps the filter");

    for path in [format!("/v2/a/referrers/{}", Digest::sha256_of(b"")), format!("/v2/nowhere/referrers/{}", digests[0])]
    {
        let answer = http.get(&path).await;
        assert_eq!((answer.status, answer.json()["manifests"].clone()), (200, serde_json::json!([])), "{path}");
    }
    assert_eq!(http.status("GET /v2/a/referrers/x").await, 400);

    assert_eq!(http.status(&format!("DELETE /v2/a/manifests/{}", digests[0])).await, 202);
    assert_eq!(http.get(&path).await.json()["manifests"].as_array().unwrap().len(), 3);
    running.shutdown().await;
}

#[tokio::test]
async fn referrers_api_can_be_disabled() {
    let rules = Rules::default().referrers(Switch::Off);
    let (_running, http) = start_with(Server::default().rules(rules)).await;
    assert_eq!(http.status(&format!("GET /v2/a/referrers/{}", Digest::sha256_of(b""))).await, 404);
}
