//! Conditions on the figures of the log, for `status --fail-if`.

use crate::client::{BackendHealth, LogStatus};
use crate::config::parse_seconds;
use crate::operation::{Status, Time};

/// A condition such as `failed>0`, `pending>=1000` or `oldest_pending>10min`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    text: String,
    figure: Figure,
    comparison: Comparison,
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Count(Status),
    Total,
    Archived,
    /// Milliseconds since the oldest pending operation was logged.
    OldestPending,
    FreeBytes,
    JournalBytes,
    /// Backends in use that were unreachable at their last check.
    Offline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    More,
    AtLeast,
    Less,
    AtMost,
    Equal,
    Unequal,
}

/// The figures, for messages.
const FIGURES: &str = "pending, processing, completed, failed, retrying, total, archived, \
                       oldest_pending, free_bytes, journal_bytes or offline";

impl Condition {
    /// Parses alternative conditions, separated by commas.
    pub fn parse_all(text: &str) -> Result<Vec<Condition>, String> {
        text.split(',').map(|one| Condition::parse(one.trim())).collect()
    }

    fn parse(text: &str) -> Result<Condition, String> {
        let comparisons = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            ("!=", Comparison::Unequal),
            ("==", Comparison::Equal),
            ("=", Comparison::Equal),
            (">", Comparison::More),
            ("<", Comparison::Less),
        ];
        let at = text
            .find(['<', '>', '=', '!'])
            .ok_or_else(|| format!("`{text}` is not a comparison such as `failed>0`"))?;
        let (word, comparison) =
            comparisons.into_iter().find(|(word, _)| text[at..].starts_with(word)).ok_or_else(
                || format!("`{text}` has an unknown operator; expected > >= < <= = or !="),
            )?;
        let (name, value) = (text[..at].trim(), text[at + word.len()..].trim());
        let figure = match name {
            "total" => Figure::Total,
            "archived" => Figure::Archived,
            "oldest_pending" => Figure::OldestPending,
            "free_bytes" => Figure::FreeBytes,
            "journal_bytes" => Figure::JournalBytes,
            "offline" => Figure::Offline,
            other => Figure::Count(
                Status::parse(other)
                    .ok_or_else(|| format!("unknown figure `{other}`; expected {FIGURES}"))?,
            ),
        };
        let limit = match figure {
            Figure::OldestPending => parse_seconds(value)
                .and_then(|time| u64::try_from(time.as_millis()).ok())
                .ok_or_else(|| {
                    format!("`{value}` is not a valid duration such as 90s, 10min or 1h30m")
                })?,
            Figure::FreeBytes | Figure::JournalBytes => value
                .parse::<bytesize::ByteSize>()
                .map(|size| size.as_u64())
                .map_err(|_| format!("`{value}` is not a valid size such as 1000000 or 64MiB"))?,
            _ => value.parse().map_err(|_| format!("`{value}` is not a valid number"))?,
        };
        Ok(Condition { text: text.to_owned(), figure, comparison, limit })
    }

    /// Returns a message if the condition holds. Without pending operations, no condition on their
    /// age holds; unknown free space counts as 0.
    pub fn holds(&self, stats: &LogStatus, now: Time) -> Option<String> {
        let value = match self.figure {
            Figure::Count(status) => stats.counts.of(status),
            Figure::Total => stats.counts.total(),
            Figure::Archived => stats.archived,
            Figure::OldestPending => {
                let at = stats.oldest_pending?.logged_at;
                u64::try_from(now.millis_since(at)).unwrap_or(0)
            }
            Figure::FreeBytes => stats.free_bytes.unwrap_or(0),
            Figure::JournalBytes => stats.journal_bytes,
            Figure::Offline => {
                let is_unreachable = |health: &&BackendHealth| {
                    health.failure.is_some() && stats.used.contains(&health.backend)
                };
                stats.health.iter().filter(is_unreachable).count() as u64
            }
        };
        let holds = match self.comparison {
            Comparison::More => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Less => value < self.limit,
            Comparison::AtMost => value <= self.limit,
            Comparison::Equal => value == self.limit,
            Comparison::Unequal => value != self.limit,
        };
        let shown = match self.figure {
            Figure::OldestPending => crate::report::span(i64::try_from(value).unwrap_or(i64::MAX)),
            Figure::FreeBytes | Figure::JournalBytes => crate::report::bytes(value),
            _ => value.to_string(),
        };
        holds.then(|| format!("`{}` holds: it is {shown}", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{BackendHealth, FileCounts, HealthStatus, OldestPending, StatusCounts};
    use crate::operation::Number;
    use crate::operation::{BackendName, Failure, FailureClass};

    fn health(is_reachable: bool) -> BackendHealth {
        let (check_history, changes) = Default::default();
        let backend = BackendName::new("a").unwrap();
        let failure = Failure {
            class: FailureClass::Outage,
            error_type: "refused".into(),
            message: "connection refused".into(),
        };
        let failure = (!is_reachable).then_some(failure);
        // One of the last three checks succeeded; only the last one counts.
        BackendHealth {
            backend,
            status: HealthStatus::Degraded,
            last_check: None,
            check_history,
            changes,
            failure,
        }
    }

    fn stats() -> LogStatus {
        LogStatus {
            counts: StatusCounts { pending: 3, failed: 2, ..StatusCounts::default() },
            archived: 0,
            backends: Default::default(),
            oldest_pending: Some(OldestPending {
                number: Number::new(1),
                logged_at: Time::from_millis(1_000),
            }),
            processing: None,
            journal_bytes: 2_000_000,
            files: FileCounts::default(),
            free_bytes: Some(1 << 30),
            health: [false, true].map(health).into(),
            used: [BackendName::new("a").unwrap()].into(),
            unread: Vec::new(),
            damage: None,
        }
    }

    #[test]
    fn conditions_compare_figures_of_the_log() {
        let now = Time::from_millis(601_000);
        for (text, expected) in [
            ("failed>0", true),
            ("failed>2", false),
            ("failed>=2", true),
            ("failed != 2", false),
            ("pending=3", true),
            ("total==5", true),
            ("retrying>0, pending>1", true),
            ("oldest_pending>9min", true),
            ("oldest_pending>11min", false),
            ("free_bytes<2GiB", true),
            ("journal_bytes<=1MB", false),
            ("offline>0", true),
            ("offline>1", false),
        ] {
            let conditions = Condition::parse_all(text).unwrap();
            let holds = conditions.iter().any(|condition| condition.holds(&stats(), now).is_some());
            assert_eq!(holds, expected, "{text}");
        }
        let nothing = LogStatus { oldest_pending: None, used: Default::default(), ..stats() };
        assert_eq!(
            Condition::parse("offline>0").unwrap().holds(&nothing, now),
            None,
            "unused backends do not count"
        );
        assert_eq!(Condition::parse_all("oldest_pending>0").unwrap()[0].holds(&nothing, now), None);
    }

    #[test]
    fn invalid_conditions_are_rejected() {
        for bad in [
            "",
            "failed",
            "falied>0",
            "failed>x",
            "failed>-1",
            "oldest_pending>soon",
            "free_bytes<lots",
            "failed~1",
        ] {
            assert!(Condition::parse_all(bad).is_err(), "{bad}");
        }
    }
}
