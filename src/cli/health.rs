//! `health`: probes the backends.

use super::Exit;
use super::args::Health;
use super::context::Context;
use super::error::CliError;
use crate::client::HealthStatus;
use crate::report::{self, ErrorType, write_health};

/// Runs the command.
pub fn run(context: &mut Context<'_>, args: &Health) -> Result<Exit, CliError> {
    context.check_backend(args.backend.as_ref())?;
    let all = context.client.backend_health(args.backend.as_ref())?;
    let offline: Vec<&str> = all
        .iter()
        .filter(|health| health.status == HealthStatus::Offline)
        .map(|health| health.backend.as_str())
        .collect();
    let error = (!offline.is_empty()).then(|| {
        let (word, verb) = if offline.len() == 1 { ("backend", "is") } else { ("backends", "are") };
        let message = format!("{word} `{}` {verb} offline", offline.join("`, `"));
        CliError::new(ErrorType::Offline, message)
            .hint("operations for it wait and are sent when it is back")
            .with(|facts| facts.offline = Some(offline.iter().map(ToString::to_string).collect()))
    });
    let now = context.client.clock().now();
    context.terminal.outcome(report::Health::new(&all), error.as_ref(), |terminal| {
        let style = report::Style { now, ..terminal.style };
        terminal.text(&write_health(&all, &style))
    })
}
