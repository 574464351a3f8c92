//! A backend of your own: a ledger that books each amount exactly once.
//!
//! `cargo run --example custom_backend`

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use wal_cli::{
    Attempt, AttemptError, AttemptStatus, Backend, BackendName, Client, Failure, FailureClass,
    Fields, Logged, NoObserver, OperationType, OperationTypes, Outcome, ParameterError,
    ProcessOptions, Reference, Request, Settings, State, Stop,
};

/// A text file with a line per booking: the id of its operation, and the amount.
#[derive(Debug)]
struct Ledger {
    path: PathBuf,
}

impl Ledger {
    fn read(&self) -> std::io::Result<String> {
        let mut text = String::new();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).open(&self.path)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn outcome(&self) -> Outcome {
        Outcome { destination: Some(self.path.display().to_string()), ..Outcome::default() }
    }
}

impl Backend for Ledger {
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Only(&["book"])
    }

    /// Called before an operation is logged, so that what is logged can be executed.
    fn check(&self, _: &OperationType, parameters: &Fields) -> Result<(), ParameterError> {
        let amount = parameters.get("amount").and_then(|amount| amount.parse::<i64>().ok());
        amount.map(drop).ok_or_else(|| ParameterError::new("`book` needs an integer `amount`"))
    }

    fn execute(&self, request: &Request, _: &Attempt) -> Result<Outcome, AttemptError> {
        let line = format!("{} {}\n", request.id, request.parameters["amount"]);
        // A file that cannot be opened is unchanged: this failure may be retried.
        let file = OpenOptions::new().append(true).create(true).open(&self.path);
        let mut file = file.map_err(|error| AttemptError::transient("open", error.to_string()))?;
        // A write or sync that fails may have reached the file: the outcome is unknown.
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
            let (class, error_type) = (FailureClass::Transient, "write".to_owned());
            AttemptError::UnknownOutcome(Failure { class, error_type, message: error.to_string() })
        })?;
        Ok(self.outcome())
    }

    /// Called after an unknown outcome or a crash. The id in the ledger prevents a second booking.
    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError> {
        let ledger = self.read();
        let ledger = ledger.map_err(|error| AttemptError::transient("read", error.to_string()))?;
        let id = request.id.to_string();
        let is_booked = ledger.lines().any(|line| line.starts_with(&id));
        Ok(if is_booked { AttemptStatus::Done(self.outcome()) } else { AttemptStatus::NotDone })
    }

    fn health(&self) -> Result<(), Failure> {
        // An outage: operations wait until a probe succeeds.
        let (class, error_type) = (FailureClass::Outage, "read".to_owned());
        let failed =
            |error: std::io::Error| Failure { class, error_type, message: error.to_string() };
        self.read().map(drop).map_err(failed)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir();
    let ledger = Ledger { path: directory.join("wal-cli-ledger.txt") };
    let name = BackendName::new("ledger")?;
    let client = Client::builder(Settings::at(directory.join("wal-cli-ledger")))
        .backend(name.clone(), Arc::new(ledger))
        .build();

    // Durable when this returns. The last argument is the number of retries.
    let parameters = Fields::from([("amount".to_owned(), "-250".to_owned())]);
    let operation = Logged::new(OperationType::new("book")?, name, parameters, 5);
    let receipt = client.submit(operation)?;
    println!("logged as operation {}", receipt.number);

    // Usually in another process that registers the same backend, in a loop.
    client.process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver)?;
    match client.operation(&Reference::Number(receipt.number))?.state {
        State::Completed { outcome, .. } => println!("booked: {outcome:?}"),
        State::Failed { failure, .. } => println!("failed: {}", failure.message),
        state => println!("not ended yet: {state:?}"),
    }
    Ok(())
}
