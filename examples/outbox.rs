//! An outbox in a few lines: log a file, carry it out, print its CID.
//!
//! `cargo run --example outbox -- FILE`

use std::path::PathBuf;

use wal_cli::client::{AddOptions, Client, Silent, Stop};
use wal_cli::client::{ClientError, Reference};
use wal_cli::config::Settings;
use wal_cli::operation::{BackendName, State};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "README.md".into()));
    let log = std::env::temp_dir().join("wal-cli-example");
    let client = Client::open(Settings::at(log), "example");

    // Durable when this returns: the power may go now.
    let options = AddOptions { backend: Some(BackendName::new("local")?), ..AddOptions::default() };
    let receipt = client.add(&file, &options)?;
    println!("logged as number {}, id {}", receipt.number, receipt.id);

    // Carries it out, unless a drain loop does so already.
    let reference = [Reference::Number(receipt.number)];
    let done = client.wait_carrying_out(&reference, None, &Stop::new(), &mut Silent)?;
    for operation in done {
        match operation.state {
            State::Completed { outcome, .. } => println!("{}", outcome.cid.unwrap_or_default()),
            state => return Err(ClientError::BadReference(format!("{state:?}")).into()),
        }
    }
    Ok(())
}
