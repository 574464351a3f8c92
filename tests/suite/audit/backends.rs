//! `verify --remote` with the real program: on the local store, a Kubo node and SeaweedFS.

use super::*;

#[test]
fn losses_in_the_local_store_are_found_and_restored() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    for name in ["one", "two", "three", "four"] {
        place.file(name, &format!("{name}\n"));
    }
    std::fs::create_dir(place.path("d")).unwrap();
    place.file("d/five", "five\n");
    place.run("add one two three --wait"); // 1 to 3
    place.run("add d --recursive --wait"); // 4
    place.run("submit upload four /n/four --wait"); // 5
    place.run("submit copy /n/four /n/copy --wait"); // 6
    place.run("submit mkdir /m --wait"); // 7
    place.run("submit upload d /tree --wait"); // 8
    place.run("submit list --wait"); // 9
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(
        (exit, &document["checked"], &document["nothing"]),
        (0, &8.into(), &1.into()),
        "{document:#}"
    );

    std::fs::remove_file(stored(&place, "one\n")).unwrap();
    std::fs::write(stored(&place, "two\n"), "twx\n").unwrap();
    std::fs::remove_file(stored(&place, "five\n")).unwrap();
    let files = place.log().join("local/files");
    std::fs::remove_file(files.join("n/four")).unwrap();
    std::fs::write(files.join("n/copy"), "other").unwrap();
    std::fs::remove_dir(files.join("m")).unwrap();
    std::fs::write(files.join("tree/more"), "more").unwrap();
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1, 5, 7], &[2, 4, 6, 8]);
    assert_eq!(document["intact"], 1, "{document:#}");

    let output = place.output("verify --remote");
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(
        shown.contains(&format!("missing  1  local  add     {}", place.path("one").display())),
        "{shown}"
    );
    assert!(shown.contains("`/n/four` no longer exists"), "{shown}");
    assert!(
        shown.contains("of 9 completed operations, 1 intact, 3 missing, 4 altered, 1 with nothing"),
        "{shown}"
    );
    assert!(said.contains("failed verification: 3 missing, 4 altered"), "{said}");
    assert!(said.contains("--reopen"), "{said}");

    // A tree with additional entries is removed first, since restoring does not remove entries.
    place.run("submit rm /tree --param recursive=true --wait"); // 10
    let output = place.output("verify --remote --reopen");
    let shown = text(&output.stdout);
    assert_eq!(code(&output), Some(1), "{shown}");
    assert!(shown.contains("reopened as operation 11"), "{shown}");
    assert!(text(&output.stderr).contains("wal-cli process"));
    let (_, document) = reported(&place, "verify --remote --reopen");
    assert_eq!(
        (&document["reopened"], &document["gone"][0]["went_on_as"]["new"]),
        (&0.into(), &false.into())
    );
    let shown = place.run("show 1");
    assert!(shown.contains("replaced by") && shown.contains("completed"), "{shown}");
    let next = document["gone"][0]["went_on_as"]["number"].as_u64().unwrap();
    assert!(place.run(&format!("show {next}")).contains("replaces"));
    assert!(
        place.run("why 1").contains(&format!("so it was reopened as operation {next} (pending)"))
    );
    // Copies from the tree wait for its restoration.
    let copy = place.json("show 15");
    assert_eq!(copy["operation"]["operation_type"], "copy");
    assert_eq!(
        copy["operation"]["depends_on"][0],
        place.json("show 14")["operation"]["operation_id"]
    );
    place.run("process");
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!((exit, &document["clean"]), (0, &true.into()), "{document:#}");
    assert_eq!(std::fs::read_to_string(files.join("n/copy")).unwrap(), "four\n");
    assert!(place.run("list failed").is_empty());
    place.run("verify");
}

#[test]
fn a_reopening_that_is_refused_does_not_stop_the_others() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    for name in ["same", "gone", "changed", "touched"] {
        place.file(name, &format!("{name}\n"));
    }
    place.run("add same gone changed touched --wait"); // 1 to 4
    place.run("submit upload same /n/a --wait"); // 5
    place.run("submit move /n/a /n/b --wait"); // 6
    for name in ["same", "gone", "changed", "touched"] {
        std::fs::remove_file(stored(&place, &format!("{name}\n"))).unwrap();
    }
    std::fs::remove_file(place.log().join("local/files/n/b")).unwrap();
    std::fs::remove_file(place.path("gone")).unwrap();
    place.file("changed", "chanGed\n");
    // The same bytes in another file: the hash of the log's copy identifies them.
    std::fs::remove_file(place.path("touched")).unwrap();
    place.file("touched", "touched\n");
    let (exit, document) = reported(&place, "verify --remote --reopen");
    assert_eq!(exit, 1);
    assert_found(&document, &[1, 2, 3, 4, 6], &[]);
    let refused: Vec<&str> = document["gone"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["refused"].as_str().unwrap_or(""))
        .collect();
    assert!(refused[0].is_empty() && refused[3].is_empty(), "{refused:?}");
    assert!(refused[1].ends_with("gone` no longer exists"), "{refused:?}");
    assert!(refused[2].ends_with("changed` has changed since it was sent"), "{refused:?}");
    assert!(refused[4].contains("the move itself removed its source"), "{refused:?}");
    assert_eq!(
        (&document["reopened"], place.run("list all -q --limit 0").lines().count()),
        (&2.into(), 8)
    );
    // Copied into the log again: the file is no longer needed.
    std::fs::remove_file(place.path("touched")).unwrap();
    place.run("process");
    stored(&place, "touched\n");
    place.run("verify");
}

#[test]
fn effects_replaced_or_removed_later_are_not_reported() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("a", "a\n");
    place.file("b", "b\n");
    std::fs::create_dir(place.path("d")).unwrap();
    place.file("d/x", "x\n");
    place.run("add a --wait"); // 1
    let cid = place.json("show 1")["operation"]["result"]["cid"].as_str().unwrap().to_owned();
    place.run(&format!("submit rm {cid} --wait"));
    place.run("submit upload a /n/f --wait"); // 3: replaced
    place.run("submit upload b /n/f --wait");
    place.run("submit upload a /n/g --wait"); // 5: moved
    place.run("submit move /n/g /o/g --wait");
    place.run("submit upload d /t --wait"); // 7: something in it is replaced
    place.run("submit upload a /t/x --wait");
    place.run("submit upload a /gone/deep/f --wait"); // 9: removed with its directory
    place.run("submit rm /gone --param recursive=true --wait");
    place.run("add d/x --wait"); // 11: removed with the directory that it is in as well
    place.run("add d --recursive --wait"); // 12
    let cid = place.json("show 12")["operation"]["result"]["cid"].as_str().unwrap().to_owned();
    place.run(&format!("submit rm {cid} --param recursive=true --wait"));
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 0, "{document:#}");
    assert_eq!(
        (&document["superseded"], &document["checked"]),
        (&7.into(), &3.into()),
        "{document:#}"
    );
}

#[test]
fn an_unmounted_store_does_not_count_as_lost() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("a", "a\n");
    place.run("add a --wait");
    std::fs::rename(place.log().join("local"), place.path("elsewhere")).unwrap();
    std::fs::create_dir(place.log().join("local")).unwrap();
    let (exit, document) = reported(&place, "verify --remote --reopen");
    assert_eq!((exit, &document["reopened"]), (1, &0.into()), "{document:#}");
    assert_found(&document, &[], &[]);
    assert!(
        document["unasked"][0]["error"].as_str().unwrap().contains("mount its disk"),
        "{document:#}"
    );
}

#[test]
fn losses_on_a_kubo_node_are_found_and_restored() {
    let place = Place::new();
    let mut kubo = Kubo::new(&[]);
    place.settings(&format!(
        "default_backend = \"ipfs\"\n[backends.ipfs]\nendpoint = \"{}\"\n",
        kubo.endpoint()
    ));
    for name in ["one", "two", "three", "four"] {
        place.file(name, &format!("{name}\n"));
    }
    place.run("add one two --wait"); // 1, 2
    let cid = |number: u64| {
        let shown = place.json(&format!("show {number}"));
        shown["operation"]["result"]["cid"].as_str().unwrap().to_owned()
    };
    place.run("submit upload three /n/three --wait"); // 3
    place.run("submit upload four /n/four --wait"); // 4
    place.run("submit mkdir /m --wait"); // 5
    place.run("add four --param pin=false --wait"); // 6
    place.run("add four --param to_files=/named --wait"); // 7
    place.run(&format!("submit pin {} --wait", cid(3))); // 8
    place.run("submit copy /n/three /n/copy --wait"); // 9
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!((exit, &document["intact"]), (0, &8.into()), "{document:#}");

    kubo.ipfs(&format!("pin rm {}", cid(1)));
    kubo.ipfs(&format!("pin rm {}", cid(3)));
    kubo.ipfs("files rm /n/three");
    kubo.ipfs("files rm /n/four");
    kubo.ipfs(&format!("files cp /ipfs/{} /n/four", cid(2)));
    kubo.ipfs("files rm -r /m");
    kubo.ipfs("files rm /named");
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1, 3, 5, 7, 8], &[4]);
    put_back(&place, 6);
    assert!(kubo.has_pin(&cid(1)) && kubo.has_pin(&cid(3)));
    assert_eq!(kubo.ipfs("files read /n/four"), "four");

    place.run("add one --backend local --wait");
    kubo.stop();
    let (exit, document) = reported(&place, "verify --remote --reopen");
    assert_eq!(
        (exit, &document["intact"], &document["reopened"]),
        (1, &1.into(), &0.into()),
        "{document:#}"
    );
    let [unasked] = &document["unasked"].as_array().unwrap()[..] else { panic!("{document:#}") };
    assert_eq!(
        (&unasked["backend"], &unasked["error_type"]),
        (&"ipfs".into(), &"unreachable".into()),
        "{document:#}"
    );
    let shown = text(&place.output("verify --remote").stdout);
    assert_eq!(shown.matches("is unreachable").count(), 1, "{shown}");

    // A server that accepts connections and never responds: Ctrl-C ends the wait.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = endpoint(silent.local_addr().unwrap().port());
    place.settings(&format!("[backends.ipfs]\nendpoint = \"{endpoint}\"\n"));
    let mut command = place.command("--json verify --remote --backend ipfs");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    silent.accept().unwrap();
    let begun = Instant::now();
    Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    contract::check("verify", &document);
    assert_eq!((code(&output), &document["stopped"]), (Some(130), &true.into()), "{document:#}");
}

/// A log whose operations go to the shared service.
fn on_s3() -> Place {
    let place = Place::new();
    place.settings(&format!(
        "default_backend = \"s3\"\n[backends.s3]\nendpoint = \"{}\"\nregion = \"us-east-1\"\nbucket = \"{BUCKET}\"\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
        S3::shared().endpoint(),
        OWNER.key,
        OWNER.secret
    ));
    place
}

#[test]
fn a_deleted_bucket_and_foreign_objects_are_reported() {
    let (place, s3) = (on_s3(), S3::shared());
    s3.python("s3.create_bucket(Bucket='audit-gone')");
    std::fs::create_dir(place.path("d")).unwrap();
    for name in ["d/x", "d/y", "d/z", "f"] {
        place.file(name, name);
    }
    place.run("submit upload f s3://audit-gone/f --wait"); // 1
    place.run("submit upload d audit-others --wait"); // 2
    s3.python(&format!(
        "s3.delete_object(Bucket='audit-gone', Key='f')\ns3.delete_bucket(Bucket='audit-gone')\n\
         s3.put_object(Bucket={BUCKET:?}, Key='audit-others/x', Body=b'x')\n\
         s3.put_object(Bucket={BUCKET:?}, Key='audit-others/y', Body=b'y')"
    ));
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1], &[2]);
    assert_eq!(document["unasked"], serde_json::json!([]), "{document:#}");
    assert_eq!(document["gone"][0]["what"], "the bucket `audit-gone` no longer exists");
    let others = "; `audit-others/x` and 1 more were not put by this operation";
    assert!(document["altered"][0]["what"].as_str().unwrap().ends_with(others), "{document:#}");
}

#[test]
fn deleting_the_record_of_a_removal_warns_of_a_loss() {
    let place = Place::new();
    place.settings("default_backend = \"local\"\n");
    place.file("f", "f");
    place.run("submit upload f /f --wait");
    place.run("submit rm /f --wait");
    assert_eq!(reported(&place, "verify --remote").0, 0);
    let deleted = place.output("delete 2");
    assert!(
        String::from_utf8(deleted.stderr)
            .unwrap()
            .contains("operation 2 removed something on purpose")
    );
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1], &[]);
    let deleted = place.output("delete 1");
    assert!(deleted.stderr.is_empty(), "{deleted:?}");
}

#[test]
fn losses_in_a_bucket_are_found_and_restored() {
    let (place, s3) = (on_s3(), S3::shared());
    for name in ["one", "two", "three"] {
        place.file(name, &format!("{name}\n"));
    }
    std::fs::create_dir(place.path("d")).unwrap();
    place.file("d/x", "x\n");
    place.file("d/y", "y\n");
    place.run("submit upload one audit/one --wait"); // 1
    place.run("submit upload two audit/two --wait"); // 2
    place.run(&format!("submit upload three s3://{BUCKET}/audit/three --wait")); // 3
    place.run("submit upload d audit/d --wait"); // 4
    place.run("submit mkdir audit/m --wait"); // 5
    place.run("submit copy audit/three audit/copy --wait"); // 6
    place.run("submit upload one audit/old --wait"); // 7: superseded
    place.run("submit rm audit/old --wait"); // 8
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(
        (exit, &document["intact"], &document["superseded"]),
        (0, &6.into(), &1.into()),
        "{document:#}"
    );

    s3.python(&format!(
        "s3.delete_object(Bucket={BUCKET:?}, Key='audit/one')\n\
         s3.put_object(Bucket={BUCKET:?}, Key='audit/two', Body=b'TWO\\n')\n\
         s3.put_object(Bucket={BUCKET:?}, Key='audit/three', Body=b'longer than three\\n')\n\
         s3.delete_object(Bucket={BUCKET:?}, Key='audit/d/x')\n\
         s3.delete_object(Bucket={BUCKET:?}, Key='audit/m/')\n\
         s3.delete_object(Bucket={BUCKET:?}, Key='audit/copy')"
    ));
    let (exit, document) = reported(&place, "verify --remote");
    assert_eq!(exit, 1);
    assert_found(&document, &[1, 5, 6], &[2, 3, 4]);
    let what = |nth: usize| document["altered"][nth]["what"].as_str().unwrap();
    assert!(what(0).contains("is not what was put"), "{document:#}");
    assert!(what(1).ends_with("has 18 bytes, not 6"), "{document:#}");
    assert!(what(2).starts_with("1 of 2 objects"), "{document:#}");
    put_back(&place, 6);
    let body = format!(
        "print(s3.get_object(Bucket={BUCKET:?}, Key='audit/two')['Body'].read().decode(), end='')"
    );
    assert_eq!(s3.python(&body), "two");
}
