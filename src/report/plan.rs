//! The text of `process --dry-run`.

use std::io::{self, Write};

use crate::client::Plan;

/// Writes the work that a drain loop would do; the operations themselves are a separate table.
pub fn write_plan(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let due: u64 = plan.due.values().sum();
    let named = plan.operations.len() as u64;
    match due {
        0 => writeln!(out, "nothing is due")?,
        _ if due > named => {
            writeln!(out, "{due} would be executed, {} of them not shown", due - named)?
        }
        _ => writeln!(out, "{due} would be executed")?,
    }
    let parts = [
        (plan.to_be_asked, "left claimed by a dead drain loop; their outcome is queried first"),
        (plan.backing_off, "waiting for another attempt"),
        (plan.delayed, "delayed"),
        (plan.waiting_for_others, "waiting for other operations"),
        (plan.held, "held"),
    ];
    for (n, what) in parts.into_iter().filter(|(n, _)| *n > 0) {
        writeln!(out, "{n} {what}")?;
    }
    for (backend, n) in &plan.no_backend {
        writeln!(out, "{n} for backend `{backend}`, which is not configured or not built in")?;
    }
    Ok(())
}
