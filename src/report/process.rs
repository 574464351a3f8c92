//! The text of `process`.

use crate::client::ProcessReport;

/// Returns the number of operations with each outcome; outcomes without operations are left out.
pub fn process_counts(report: &ProcessReport) -> Vec<String> {
    let counts = [
        (report.completed, "completed"),
        (report.failed, "failed"),
        (report.retrying, "to be retried"),
        (report.cancelled, "cancelled"),
        (report.postponed, "postponed"),
        (report.handed_back, "returned to the queue"),
        (report.recovered, "recovered from a drain loop that died"),
        (report.in_doubt, "with an unknown outcome (see `why`)"),
    ];
    let counts = counts.iter().filter(|(n, _)| *n > 0);
    counts.map(|(n, what)| format!("{n} {what}")).collect()
}

/// Returns the summary of a run on one line.
pub fn process_summary(report: &ProcessReport) -> String {
    let names: Vec<String> =
        report.unreachable.iter().map(|backend| format!("`{backend}`")).collect();
    let unreachable = match names.as_slice() {
        [] => None,
        [name] => Some(format!("backend {name} is unreachable")),
        names => Some(format!("backends {} are unreachable", names.join(", "))),
    };
    let counts = process_counts(report);
    let line = match (counts.as_slice(), unreachable) {
        ([], None) => "nothing was due".to_owned(),
        ([], Some(unreachable)) => format!("nothing was sent: {unreachable}"),
        (counts, None) => counts.join(", "),
        (counts, Some(unreachable)) => format!("{}; {unreachable}", counts.join(", ")),
    };
    match report.out_of_time {
        true => format!("{line}; --max-time expired with more operations due"),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::BackendName;

    #[test]
    fn a_summary_names_outcomes_and_unreachable_backends() {
        let backend = |name| BackendName::new(name).unwrap();
        let counted = ProcessReport { completed: 3, failed: 1, ..ProcessReport::default() };
        let unreachable =
            ProcessReport { unreachable: vec![backend("s3")], ..ProcessReport::default() };
        let late = ProcessReport {
            postponed: 2,
            out_of_time: true,
            unreachable: vec![backend("ipfs"), backend("s3")],
            ..ProcessReport::default()
        };
        for (report, expected) in [
            (ProcessReport::default(), "nothing was due"),
            (counted, "3 completed, 1 failed"),
            (unreachable, "nothing was sent: backend `s3` is unreachable"),
            (
                late,
                "2 postponed; backends `ipfs`, `s3` are unreachable; --max-time expired with more \
                 operations due",
            ),
        ] {
            assert_eq!(process_summary(&report), expected);
        }
    }
}
