use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant of wall time, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

/// Milliseconds of one day.
const DAY_MS: i64 = 86_400_000;

impl Time {
    /// Wraps milliseconds since 1970-01-01 UTC.
    pub const fn from_millis(ms: i64) -> Time {
        Time(ms)
    }

    /// Returns milliseconds since 1970-01-01 UTC.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns this instant moved by `ms`, saturating at the ends of the range.
    pub const fn plus_millis(self, ms: i64) -> Time {
        Time(self.0.saturating_add(ms))
    }

    /// Returns the milliseconds from `earlier` to this instant; negative if `earlier` is later.
    pub const fn millis_since(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the days since 1970-01-01 UTC.
    pub const fn day(self) -> i64 {
        self.0.div_euclid(DAY_MS)
    }

    /// Returns the UTC date as `YYYYMMDD`.
    pub fn yyyymmdd(self) -> String {
        self.to_utc().format("%Y%m%d").to_string()
    }

    fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }

    /// Parses an RFC 3339 instant.
    pub fn parse_rfc3339(text: &str) -> Option<Time> {
        DateTime::parse_from_rfc3339(text).ok().map(|time| Time(time.timestamp_millis()))
    }
}

impl std::fmt::Display for Time {
    /// Writes RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// Serialized as milliseconds: programs read the journal far more often than people do.
impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_rfc3339_with_milliseconds() {
        assert_eq!(Time::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Time::from_millis(1_763_800_000_123).to_string(), "2025-11-22T08:26:40.123Z");
        assert_eq!(
            Time::parse_rfc3339("2025-11-22T08:26:40.123Z"),
            Some(Time::from_millis(1_763_800_000_123))
        );
    }

    #[test]
    fn extremes_do_not_panic() {
        for ms in [i64::MIN, -1, i64::MAX] {
            let time = Time::from_millis(ms);
            let _ = (time.to_string(), time.yyyymmdd(), time.plus_millis(i64::MAX), time.day());
        }
        assert_eq!(Time::from_millis(-1).yyyymmdd(), "19691231");
    }
}
