//! A minimal outbox: logs the addition of a file, executes it, and prints the CID.
//!
//! `cargo run --example outbox -- FILE`

use std::path::PathBuf;

use wal_cli::{AddOptions, BackendName, Client, NoObserver, Reference, Settings, State, Stop};

fn main() -> anyhow::Result<()> {
    let file = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "README.md".into()));
    let log = std::env::temp_dir().join("wal-cli-example");
    let client = Client::builder(Settings::at(log)).program("outbox-example").build();

    // The operation is durable when this returns: it survives a loss of power.
    let options = AddOptions::default().with_backend(BackendName::new("local")?);
    let receipt = client.add(&file, &options)?;
    println!("logged as operation {}, id {}", receipt.number, receipt.id);

    // Executes the operation in this process, or waits for a running drain loop to execute it.
    let references = [Reference::Number(receipt.number)];
    for operation in client.run_and_wait(&references, None, &Stop::new(), &mut NoObserver)? {
        match operation.state {
            State::Completed { outcome, .. } => println!("{}", outcome.cid.unwrap_or_default()),
            State::Failed { failure, .. } => anyhow::bail!("failed: {}", failure.message),
            state => anyhow::bail!("not ended: {state:?}"),
        }
    }
    Ok(())
}
