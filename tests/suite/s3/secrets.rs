//! Neither output nor stored files contain credentials.

use std::path::Path;
use std::process::Command;

use super::server::{BUCKET, OWNER, S3};
use crate::suite::binary::Place;

const TOKEN: &str = "testsessiontoken00000000000000000001";

/// Returns the content of all files below a directory.
fn all_below(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_below(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn credentials_are_never_printed_or_stored() {
    let s3 = S3::shared();
    let refused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (away, there) = (format!("http://127.0.0.1:{refused}"), s3.endpoint());
    // Valid and wrong keys, a reachable and an unreachable service, a session token; in the
    // settings and in the environment.
    for (endpoint, secret, token, in_settings) in [
        (&there, OWNER.secret, "", true),
        (&there, "wrongsecret000000000000000000000000", "", true),
        (&there, OWNER.secret, TOKEN, true),
        (&away, OWNER.secret, "", true),
        (&there, OWNER.secret, "", false),
        (&there, "wrongsecret000000000000000000000000", TOKEN, false),
    ] {
        let place = Place::in_memory();
        let token_line =
            if token.is_empty() { String::new() } else { format!("session_token = \"{token}\"\n") };
        let keys = match in_settings {
            true => format!(
                "access_key_id = \"{}\"\nsecret_access_key = \"{secret}\"\n{token_line}",
                OWNER.key
            ),
            false => String::new(),
        };
        place.settings(&format!(
            "default_backend = \"s3\"\nretry_delay = 0.01\nmax_retries = 1\n[backends.s3]\n\
             endpoint = \"{endpoint}\"\n\
             bucket = \"{BUCKET}\"\npart_size = \"5 MiB\"\n{keys}"
        ));
        place.file("small", "x\n");
        std::fs::write(place.path("large"), vec![1; 6 << 20]).unwrap();
        let run = |arguments: &str| {
            let mut command: Command = place.command(arguments);
            command
                .env("IPFS_KIT_WAL_LOG", "trace")
                .env("RUST_LOG", "trace")
                .env("RUST_BACKTRACE", "1");
            if !in_settings {
                command.env("AWS_ACCESS_KEY_ID", OWNER.key).env("AWS_SECRET_ACCESS_KEY", secret);
                if !token.is_empty() {
                    command.env("AWS_SESSION_TOKEN", token);
                }
            }
            command.output().unwrap()
        };
        let mut seen = Vec::new();
        for arguments in [
            "submit upload small secret/small",
            "submit upload large secret/large",
            "submit get secret/absent out",
            "submit list secret --json",
            "process --debug",
            "process --debug --json",
            "status --debug",
            "status --json",
            "list all --json",
            "show 1 --history",
            "show 2 --json",
            "why 1 2 3 4",
            "failures --json",
            "health --debug",
            "health --json",
            "config show",
            "config show --json",
            "config get backends.s3.secret_access_key",
            "config get backends.s3.access_key_id",
            "config check",
            "checkpoint --debug",
            "cleanup --debug",
            "verify --debug",
        ] {
            let output = run(arguments);
            seen.push((format!("stdout of `{arguments}`"), output.stdout));
            seen.push((format!("stderr of `{arguments}`"), output.stderr));
        }
        let debugged = seen.iter().find(|(what, _)| what == "stderr of `process --debug`").unwrap();
        assert!(
            debugged.1.len() > 500,
            "nothing is traced: {}",
            String::from_utf8_lossy(&debugged.1)
        );
        all_below(&place.log(), &mut seen);
        for (what, bytes) in seen {
            for hidden in [OWNER.key, OWNER.secret, secret, TOKEN] {
                let at = bytes.windows(hidden.len()).position(|part| part == hidden.as_bytes());
                let around = at.map(|at| &bytes[at.saturating_sub(200)..bytes.len().min(at + 200)]);
                assert!(
                    at.is_none(),
                    "{hidden} is in {what}: …{}…",
                    String::from_utf8_lossy(around.unwrap())
                );
            }
        }
    }
}
