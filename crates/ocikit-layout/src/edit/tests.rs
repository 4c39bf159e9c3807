use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Creates an archive of these entries, in order, with its end.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let files: Vec<_> =
        entries.iter().map(|(name, bytes)| ((*name).to_owned(), Bytes::copy_from_slice(bytes))).collect();
    [&lay_out(&files, 0)[..], &END].concat()
}

/// Creates an archive in the order that most programs write.
fn usual() -> Vec<u8> {
    archive(&[("blobs/a", &[1; 5000]), ("blobs/b", b"b"), ("index.json", b"old"), ("oci-layout", b"{}")])
}

fn apply(file: &mut Vec<u8>, step: &EditStep) {
    match step {
        EditStep::Write { at, bytes } => write_bytes(file, *at as usize, bytes),
        EditStep::Cut { at } => file.resize(*at as usize, 0),
        EditStep::Sync => {}
    }
}

fn write_bytes(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Returns the file after each prefix of the steps, with writes of more than a block cut at every block.
fn interrupted(file: &[u8], steps: &[EditStep]) -> Vec<Vec<u8>> {
    let mut file = file.to_vec();
    let mut states = vec![file.clone()];
    for step in steps {
        if let EditStep::Write { at, bytes } = step {
            for (position, block) in bytes.chunks(BLOCK as usize).enumerate() {
                write_bytes(&mut file, *at as usize + position * BLOCK as usize, block);
                states.push(file.clone());
            }
        } else {
            apply(&mut file, step);
            states.push(file.clone());
        }
    }
    states
}

/// Returns what a reader finds that uses the last, or the first, entry of a name.
fn found(file: &[u8], last: bool) -> HashMap<String, Vec<u8>> {
    let index = TarIndex::read(file).unwrap();
    let mut found = HashMap::new();
    for entry in index.entries() {
        let bytes = file[entry.data.offset as usize..][..entry.data.size as usize].to_vec();
        let name = entry.name.clone().unwrap();
        if last || !found.contains_key(&name) {
            found.insert(name, bytes);
        }
    }
    found
}

fn without_padding(mut found: HashMap<String, Vec<u8>>) -> HashMap<String, Vec<u8>> {
    found.retain(|name, _| !name.starts_with(".ocikit/"));
    found
}

fn edition(number: usize, size: usize) -> Vec<(String, Bytes)> {
    vec![
        (format!("blobs/doc{number}"), vec![b'd'; size].into()),
        ("index.json".to_owned(), format!("edition {number}").into()),
        ("oci-layout".to_owned(), Bytes::from_static(b"{}")),
    ]
}

/// Applies an edition, checks every intermediate state, and returns the file.
fn edit(file: &[u8], files: &[(String, Bytes)]) -> Vec<u8> {
    let index = TarIndex::read(file).unwrap();
    let tail = Tail::find(&index).expect("a proper end");
    let steps = splice(&index, tail, files, None);
    let states = interrupted(file, &steps);
    let index_json = |file: &[u8], last| found(file, last)["index.json"].clone();
    let (old_first, old_last) = (index_json(file, false), index_json(file, true));
    let new = files.iter().find(|(name, _)| name == "index.json").unwrap().1.to_vec();
    let committed = steps.iter().filter(|step| matches!(step, EditStep::Write { .. })).count() > 1;
    assert!(committed);
    for state in &states {
        for (last, old) in [(false, &old_first), (true, &old_last)] {
            let found = found(state, last);
            let seen = &found["index.json"];
            assert!(seen == old || *seen == new, "a reader sees {:?}", String::from_utf8_lossy(seen));
            if *seen == new {
                for (name, bytes) in files {
                    assert_eq!(found[name], bytes[..], "{name}");
                }
            }
            // Layers never move and never change.
            assert_eq!(found["blobs/a"], [1; 5000]);
        }
    }
    let file = states.into_iter().last().unwrap();
    assert_eq!(index_json(&file, false), new);
    assert_eq!(index_json(&file, true), new);
    file
}

#[test]
fn usual_archive_is_committed_by_one_block() {
    let file = usual();
    let index = TarIndex::read(&file).unwrap();
    let tail = Tail::find(&index).unwrap();
    assert_eq!(tail.kind, TailKind::Metadata);
    let steps = splice(&index, tail, &edition(1, 10), None);
    let [EditStep::Write { at, .. }, EditStep::Sync, EditStep::Write { at: commit, bytes }, EditStep::Sync] =
        &steps[..]
    else {
        panic!("{steps:?}")
    };
    assert_eq!((*at, *commit, bytes.len()), (file.len() as u64, tail.switch, 512));
    let edited = edit(&file, &edition(1, 10));
    let names: Vec<_> =
        TarIndex::read(&edited).unwrap().entries().iter().map(|entry| entry.name.clone().unwrap()).collect();
    assert_eq!(names, ["blobs/a", "blobs/b", SWITCH, "blobs/doc1", "index.json", "oci-layout"]);
}

#[test]
fn archive_stays_small_after_many_edits() {
    let mut file = usual();
    let mut lengths = Vec::new();
    for number in 0..1000 {
        file = edit(&file, &edition(number, 3000 + number % 7));
        lengths.push(file.len());
    }
    let one = lay_out(&edition(0, 3006), 0).len();
    assert!(lengths[999] <= lengths[10], "{:?}", &lengths[..12]);
    assert!(lengths[999] < usual().len() + 4 * one, "{} {}", lengths[999], one);
}

#[test]
fn metadata_anywhere_is_replaced_for_every_reader() {
    for entries in [
        &[("index.json", &b"old"[..]), ("oci-layout", b"{}"), ("blobs/a", &[1; 5000])][..],
        &[("oci-layout", b"{}"), ("blobs/a", &[1; 5000]), ("index.json", b"old"), ("blobs/b", b"b")],
        &[("index.json", b"older"), ("blobs/a", &[1; 5000]), ("index.json", b"old"), ("oci-layout", b"{}")],
        &[
            ("blobs/a", &[1; 5000]),
            ("index.json", b"old"),
            ("manifest.json", b"[]"),
            ("oci-layout", b"{}"),
            ("repositories", b"{}"),
        ],
        &[("manifest.json", b"[]"), ("blobs/a", &[1; 5000]), ("index.json", b"older"), ("index.json", b"old")],
    ] {
        let mut file = archive(entries);
        for number in 0..5 {
            file = edit(&file, &edition(number, 100));
            assert!(
                !found(&file, false).contains_key("manifest.json") || found(&file, false)["manifest.json"] == b"[]"
            );
        }
        assert_eq!(without_padding(found(&file, true)), without_padding(found(&file, false)));
    }
}

#[test]
fn an_interrupted_edit_is_finished_by_the_next() {
    for original in [usual(), archive(&[("index.json", b"old"), ("oci-layout", b"{}"), ("blobs/a", &[1; 5000])])] {
        let mut current = original;
        for number in 0..4 {
            let files = edition(number, 900);
            let index = TarIndex::read(&current).unwrap();
            let steps = splice(&index, Tail::find(&index).unwrap(), &files, None);
            for state in interrupted(&current, &steps) {
                let done = edit(&state, &edition(100, 2000));
                assert_eq!(without_padding(found(&done, true)), without_padding(found(&done, false)));
            }
            current = edit(&current, &files);
        }
    }
}

#[test]
fn layers_grow_in_front_of_the_tail() {
    let mut file = usual();
    for number in 0..4 {
        let index = TarIndex::read(&file).unwrap();
        let tail = Tail::find(&index).unwrap();
        let start = growth(&index);
        let name = format!("blobs/layer{number}");
        let layer = lay_out(&[(name.clone(), vec![7; 10_000].into())], 0);
        let mut grown = file.clone();
        write_bytes(&mut grown, start as usize, &layer);
        assert_eq!(found(&grown, true), found(&file, true), "readers do not see it yet");
        let steps = splice(&index, tail, &edition(number, 100), Some(start..start + layer.len() as u64));
        for state in interrupted(&grown, &steps) {
            for last in [false, true] {
                let found = found(&state, last);
                let committed = found["index.json"] == format!("edition {number}").as_bytes();
                assert_eq!(found.contains_key(&name), committed);
                assert_eq!(found["blobs/a"], [1; 5000]);
            }
        }
        file = grown;
        steps.iter().for_each(|step| apply(&mut file, step));
        file = edit(&file, &edition(10 + number, 200));
        file = edit(&file, &edition(20 + number, 300));
        let found = found(&file, true);
        assert!((0..=number).all(|number| found[&format!("blobs/layer{number}")] == [7; 10_000]));
    }
}

#[test]
fn archive_without_end_cannot_be_edited_in_place() {
    let file = usual();
    for zeros in [0, 512] {
        let cut = &file[..file.len() - 1024 + zeros];
        assert_eq!(Tail::find(&TarIndex::read(cut).unwrap()), None);
    }
}

proptest! {
    #[test]
    fn any_sequence_of_edits_is_safe(sizes in proptest::collection::vec(0..4000_usize, 1..12), order in Just(["blobs/a", "index.json", "oci-layout", "manifest.json"]).prop_shuffle()) {
        let entries: Vec<(&str, &[u8])> = order.iter().map(|name| (*name, match *name {
            "blobs/a" => &[1; 5000][..],
            "index.json" => b"old",
            _ => b"{}",
        })).collect();
        let mut file = archive(&entries);
        for (number, size) in sizes.into_iter().enumerate() {
            file = edit(&file, &edition(number, size));
        }
    }
}
