use super::*;
use crate::config::Settings;
use crate::operation::State;

/// An error type of a caller, which knows nothing of this crate.
#[derive(Debug, thiserror::Error)]
#[error("cannot render page {page}")]
struct RenderError {
    page: u32,
    source: std::num::ParseIntError,
}

fn render(page: u32) -> Result<Outcome, RenderError> {
    let size = "wide".parse().map_err(|source| RenderError { page, source })?;
    Ok(Outcome { size: Some(size), ..Outcome::default() })
}

/// Returns the failure that is recorded for a function.
fn failure_of(function: impl FnOnce(&Request) -> anyhow::Result<Outcome>) -> Failure {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::builder(Settings::at(directory.path().join("wal"))).build();
    let (job, local) = (OperationType::new("render").unwrap(), BackendName::new("local").unwrap());
    let operation = client.wrap(&job, &local, Fields::new(), function).unwrap();
    let State::Failed { failure, .. } = operation.state else { panic!("{operation:?}") };
    failure
}

#[test]
fn an_error_of_the_caller_is_recorded_with_its_causes() {
    let failure = failure_of(|_| Ok(render(7)?));
    assert_eq!((failure.class, &failure.error_type[..]), (FailureClass::Permanent, "caller"));
    assert_eq!(failure.message, "cannot render page 7: invalid digit found in string");
}

#[test]
fn an_attempt_error_of_the_caller_is_recorded_as_it_is() {
    let failure = failure_of(|_| Err(AttemptError::permanent("no_paper", "out of paper").into()));
    assert_eq!((&failure.error_type[..], &failure.message[..]), ("no_paper", "out of paper"));
    let lost = Failure {
        class: FailureClass::Transient,
        error_type: "lost".into(),
        message: "the printer did not answer".into(),
    };
    let failure = failure_of(|_| Err(AttemptError::UnknownOutcome(lost).into()));
    assert_eq!(failure.error_type, crate::operation::failure::IN_DOUBT);
    assert!(failure.message.contains("the printer did not answer"), "{}", failure.message);
}
