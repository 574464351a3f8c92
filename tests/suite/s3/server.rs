//! An S3 service: SeaweedFS with a directory of its own on free ports of this machine, or an
//! existing one whose address `WAL_CLI_TEST_S3` contains, with `BUCKET` and the keys of `OWNER` and
//! `READER`.
#![expect(
    clippy::disallowed_methods,
    reason = "waits for another program, in files and time of the real machine"
)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::suite::tools::{Need, python, weed};

/// A user of the service. The keys have the form that Garage requires; other services accept any.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    pub key: &'static str,
    pub secret: &'static str,
}

/// A user with all permissions.
pub const OWNER: Identity = Identity {
    key: "GK0a1b2c3d4e5f60718293a401",
    secret: "5ec4e7000000000000000000000000000000000000000000000000000000a401",
};

/// A user that may only read.
pub const READER: Identity = Identity {
    key: "GK0a1b2c3d4e5f60718293a402",
    secret: "5ec4e7000000000000000000000000000000000000000000000000000000a402",
};

macro_rules! tls {
    ($name:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/", $name)
    };
}

/// The certificate of the service, made with `openssl req -x509` for these tests alone.
pub const CERTIFICATE: &str = tls!("certificate.pem");

/// The bucket that exists from the beginning.
pub const BUCKET: &str = "wal-test";

/// The longest time for the service to start, much more than it takes.
const READY_MAX: Duration = Duration::from_secs(120);

/// Ends the service when the test that started it ends, even if it was killed: the guard then reads
/// the end of the pipe.
/// It is killed, because a graceful stop would wait for idle connections.
const GUARD: &str = r#"
"$0" "$@" </dev/null >"$FOLDER/weed.log" 2>&1 &
echo $!
cat >/dev/null
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
rm -rf "$FOLDER"
"#;

/// A service with its directory.
pub struct S3 {
    guard: Option<Child>,
    port: u16,
    tls_port: u16,
}

impl S3 {
    /// Returns the service shared by tests that leave it running and use keys of their own.
    pub fn shared() -> &'static S3 {
        // The first test that uses it starts it.
        Need::Python.check();
        static SHARED: OnceLock<S3> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("WAL_CLI_TEST_S3") {
            Ok(address) => S3::at(&address),
            Err(_) => S3::new(),
        })
    }

    fn at(address: &str) -> S3 {
        let port = address.strip_prefix("http://127.0.0.1:").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| {
            panic!("WAL_CLI_TEST_S3 is {address}, not like http://127.0.0.1:9000")
        });
        let s3 = S3 { guard: None, port, tls_port: 0 };
        s3.python(&format!("s3.head_bucket(Bucket={BUCKET:?})"));
        s3
    }

    /// Returns a new service, which ends when it is dropped.
    pub fn new() -> S3 {
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.unwrap().keep();
        let ports: Vec<u16> = free_ports(6);
        let mut guard = Command::new("sh");
        guard
            .arg("-c")
            .arg(GUARD)
            .arg(weed())
            .arg("mini")
            .arg(format!("-dir={}", folder.display()));
        for (name, port) in ["master", "volume", "filer", "s3", "admin"].iter().zip(&ports) {
            guard
                .arg(format!("-{name}.port={port}"))
                .arg(format!("-{name}.port.grpc={}", port + 10_000));
        }
        guard.arg(format!("-s3.port.https={}", ports[5]));
        guard
            .arg(format!("-s3.cert.file={CERTIFICATE}"))
            .arg(format!("-s3.key.file={}", tls!("key.pem")));
        guard.args([
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            &format!("-bucket={BUCKET}"),
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-s3.autoCreateBucket=false",
        ]);
        let who = |name: &str, Identity { key, secret }: Identity, actions: &[&str]| {
            let credentials = json!([{"accessKey": key, "secretKey": secret}]);
            json!({"name": name, "credentials": credentials, "actions": actions})
        };
        let all = ["Admin", "Read", "Write", "List", "Tagging"];
        let identities = [who("owner", OWNER, &all), who("reader", READER, &["Read", "List"])];
        let identities = json!({"identities": identities});
        let config = folder.join("identities.json");
        std::fs::write(&config, identities.to_string()).unwrap();
        guard.arg(format!("-s3.config={}", config.display()));
        guard.env("FOLDER", &folder).env("HOME", &folder).env("TMPDIR", &folder);
        guard.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut guard = guard.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid: u32 = line.trim().parse().unwrap();
        let s3 = S3 { guard: Some(guard), port: ports[3], tls_port: ports[5] };
        let since = Instant::now();
        // The bucket is created shortly after the service starts to respond.
        while s3.try_python(&format!("s3.head_bucket(Bucket={BUCKET:?})")).is_err() {
            let lives = Path::new(&format!("/proc/{pid}")).exists();
            let said = || std::fs::read_to_string(folder.join("weed.log")).unwrap_or_default();
            assert!(lives && since.elapsed() < READY_MAX, "SeaweedFS does not start:\n{}", said());
            std::thread::sleep(Duration::from_millis(100));
        }
        s3
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns its URL over TLS, for clients that trust `CERTIFICATE`.
    pub fn tls_endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.tls_port)
    }

    /// Returns the keys of unfinished uploads that begin with `prefix`, a line each.
    pub fn uploads(&self, prefix: &str) -> String {
        self.python(&format!(
            "found = s3.list_multipart_uploads(Bucket={BUCKET:?}, Prefix={prefix:?})\n\
             for u in found.get('Uploads', []): print(u['Key'])"
        ))
    }

    /// Returns the output of lines of Python, in which `s3` is another client.
    pub fn python(&self, lines: &str) -> String {
        self.try_python(lines).unwrap_or_else(|said| panic!("{lines}\n{said}"))
    }

    fn try_python(&self, lines: &str) -> Result<String, String> {
        let preamble = format!(
            "import boto3, botocore.config, hashlib\n\
             config = botocore.config.Config(s3={{'addressing_style': 'path'}}, \
             retries={{'total_max_attempts': 1}})\n\
             s3 = boto3.client('s3', endpoint_url='{}', region_name='us-east-1', config=config,\n\
                 aws_access_key_id='{}', aws_secret_access_key='{}')\n",
            self.endpoint(),
            OWNER.key,
            OWNER.secret
        );
        let output = python().arg("-c").arg(preamble + lines).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(guard) = &mut self.guard {
            drop(guard.stdin.take());
            guard.wait().unwrap();
        }
    }
}

/// Returns free ports, for which the ports 10,000 above them are free as well.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < count {
        let port = 15_000 + fastrand::u16(..30_000);
        let pair = [port, port + 10_000].map(|port| TcpListener::bind(("127.0.0.1", port)));
        if let [Ok(one), Ok(other)] = pair {
            held.push((one, other));
            ports.push(port);
        }
    }
    ports
}
