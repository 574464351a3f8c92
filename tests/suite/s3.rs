//! The backend `s3`, on SeaweedFS; what is there is looked at with another client.
#![expect(clippy::disallowed_methods, reason = "it makes files as a user would")]

mod server;

use server::{BUCKET, KEY, S3, SECRET};

use super::binary::Place;

/// A log whose backend `s3` is this service.
fn configure(place: &Place, s3: &S3, more: &str) {
    place.settings(&format!(
        "default_backend = \"s3\"\n[backends.s3]\nendpoint = \"{}\"\nregion = \"us-east-1\"\nbucket = \"{BUCKET}\"\n\
         access_key_id = \"{KEY}\"\nsecret_access_key = \"{SECRET}\"\n{more}",
        s3.endpoint()
    ));
}

#[test]
fn what_is_put_is_there_for_others_and_comes_back() {
    let (place, s3) = (Place::new(), S3::shared());
    configure(&place, s3, "");
    place.run("health --backend s3");
    place.file("hello.txt", "hello world\n");
    place.run(&format!("submit upload hello.txt s3://{BUCKET}/first/hello.txt --wait"));
    let shown = place.json("show 1");
    let operation = &shown["operation"];
    assert_eq!(operation["result"]["size"], 12, "{shown:#}");
    assert_eq!(operation["receipt"]["key"], "first/hello.txt", "{shown:#}");
    assert_eq!(operation["receipt"]["etag"], "\"6f5902ac237024bdd0c176cb93063dc4\"", "{shown:#}");
    let body =
        format!("print(s3.get_object(Bucket={BUCKET:?}, Key='first/hello.txt')['Body'].read().decode(), end='')");
    assert_eq!(s3.python(&body), "hello world");
    place.run("submit get first/hello.txt back.txt --wait");
    assert_eq!(std::fs::read_to_string(place.path("back.txt")).unwrap(), "hello world\n");
    place.run("submit copy first/hello.txt first/copy.txt --wait");
    place.run("submit move first/copy.txt first/moved.txt --wait");
    place.run("submit list first --wait");
    let listing = place.json("show 5")["operation"]["receipt"]["listing"].clone();
    let names: Vec<String> = listing.as_str().unwrap().lines().map(str::to_owned).collect();
    assert_eq!(names.len(), 2, "{listing}");
    assert!(names[0].contains("hello.txt") && names[1].contains("moved.txt"), "{listing}");
    place.run("submit rm first/moved.txt --wait");
    place.run("submit rm first/hello.txt --wait");
    let left = format!("print(s3.list_objects_v2(Bucket={BUCKET:?}, Prefix='first/')['KeyCount'])");
    assert_eq!(s3.python(&left), "0");
}
