//! The order of reopened operations relative to later ones, to pending ones, and to each other.

use super::{assert_found, put_back, reported};
use crate::suite::binary::Place;

#[test]
fn a_reopening_does_not_undo_later_operations() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("old", "old\n");
    place.file("new", "new\n");
    place.run("submit upload old /n/f --wait"); // 1
    place.run("submit upload old /d/x --wait"); // 2
    place.run("submit upload old /alone --wait"); // 3
    place.run("submit upload new /n/f"); // 4
    place.run("submit rm /d --param recursive=true"); // 5
    place.run("hold 5");
    let files = place.log().join("local/files");
    for gone in ["n/f", "d/x", "alone"] {
        std::fs::remove_file(files.join(gone)).unwrap();
    }
    let (exit, document) = reported(&place, "verify --remote --reopen");
    assert_eq!((exit, &document["reopened"]), (1, &1.into()), "{document:#}");
    assert_found(&document, &[1, 2, 3], &[]);
    for (nth, number) in [(0, 4), (1, 5)] {
        let why = document["gone"][nth]["refused"].as_str().unwrap();
        assert!(why.starts_with(&format!("operation {number} concerns the same target")), "{why}");
    }
    place.run("process");
    assert_eq!(std::fs::read_to_string(files.join("n/f")).unwrap(), "new\n");
    place.run("cancel 5");
    put_back(&place, 1);
    assert_eq!(std::fs::read_to_string(files.join("d/x")).unwrap(), "old\n");
}

#[test]
fn a_copy_is_reopened_only_if_its_source_is_unchanged() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("one", "one\n");
    place.file("two", "two\n");
    place.run("submit upload one /s/one --wait"); // 1
    place.run("submit upload two /s/two --wait"); // 2
    place.run("submit copy /s /t --wait"); // 3
    place.run("submit copy /s/one /u --wait"); // 4
    let files = place.log().join("local/files");
    std::fs::remove_dir_all(files.join("s")).unwrap();
    std::fs::remove_dir_all(files.join("t")).unwrap();
    let (_, document) = reported(&place, "verify --remote --reopen");
    assert_found(&document, &[1, 2, 3], &[]);
    assert_eq!(document["reopened"], 3, "{document:#}");
    let copy = place.json("show 7");
    assert_eq!(
        copy["operation"]["depends_on"].as_array().unwrap().len(),
        2,
        "the copy depends on all entries: {copy:#}"
    );
    place.run("process");
    assert_eq!(std::fs::read_to_string(files.join("t/two")).unwrap(), "two\n");
    // The restored operation has a higher number than its copy, and still runs first.
    std::fs::remove_dir_all(files.join("s")).unwrap();
    put_back(&place, 2);
    std::fs::remove_dir_all(files.join("s")).unwrap();
    std::fs::remove_dir_all(files.join("t")).unwrap();
    let (_, document) = reported(&place, "verify --remote --reopen");
    assert_found(&document, &[7, 8, 9], &[]);
    let copy = place.json(&format!("show {}", document["gone"][0]["went_on_as"]["number"]));
    assert_eq!(copy["operation"]["depends_on"].as_array().unwrap().len(), 2, "{copy:#}");
    place.run("process");
    // Restoring the source did not change it.
    std::fs::remove_file(files.join("u")).unwrap();
    put_back(&place, 1);
    assert_eq!(std::fs::read_to_string(files.join("u")).unwrap(), "one\n");
    // This changes it.
    place.run("submit upload two /s/one --wait");
    std::fs::remove_file(files.join("u")).unwrap();
    let (_, document) = reported(&place, "verify --remote --reopen");
    assert_eq!(document["reopened"], 0, "{document:#}");
    let why = document["gone"][0]["refused"].as_str().unwrap();
    assert!(why.contains("changed or removed the source of this copy"), "{why}");
}

#[test]
fn a_tree_with_intended_removals_is_not_restored_whole() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    for name in ["d", "e"] {
        std::fs::create_dir(place.path(name)).unwrap();
        place.file(&format!("{name}/kept"), "kept\n");
        place.file(&format!("{name}/secret"), "secret\n");
    }
    place.file("new", "new\n");
    place.run("submit upload d /d --recursive --wait"); // 1
    place.run("submit rm /d/secret --wait"); // 2
    place.run("submit upload e /e --recursive --wait"); // 3
    place.run("submit upload new /e/kept --wait"); // 4
    let files = place.log().join("local/files");
    std::fs::remove_dir_all(files.join("d")).unwrap();
    std::fs::remove_dir_all(files.join("e")).unwrap();
    let (_, document) = reported(&place, "verify --remote --reopen");
    assert_found(&document, &[1, 3, 4], &[]);
    assert_eq!(document["reopened"], 2, "{document:#}");
    let why = document["gone"][0]["refused"].as_str().unwrap();
    assert!(why.contains("a part of it"), "{why}");
    // They run in their original order, although several may run at once.
    let later = place.json("show 6");
    assert_eq!(later["operation"]["depends_on"].as_array().unwrap().len(), 1, "{later:#}");
    place.run("process");
    assert_eq!(std::fs::read_to_string(files.join("e/kept")).unwrap(), "new\n");
    assert!(!files.join("d").exists());
}
