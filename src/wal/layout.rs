//! Every file name of the log is built and parsed here, and nowhere else.

use std::path::{Component, Path, PathBuf};

use crate::operation::{OperationId, Time};

/// Where the files of one log are.
#[derive(Debug, Clone)]
pub struct Layout {
    base: PathBuf,
}

/// Which of the log's locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockName {
    /// One drain loop per log.
    Process,
    /// Whoever writes Parquet files.
    Checkpoint,
    /// Whoever appends to the journal.
    Append,
    /// Whoever flushes the journal.
    Sync,
}

impl LockName {
    /// The file's name.
    pub fn file_name(self) -> &'static str {
        match self {
            LockName::Process => "process.lock",
            LockName::Checkpoint => "checkpoint.lock",
            LockName::Append => "lock",
            LockName::Sync => "sync.lock",
        }
    }
}

impl Layout {
    /// The log in this directory.
    pub fn new(base: impl Into<PathBuf>) -> Layout {
        Layout { base: base.into() }
    }

    /// The log's directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The manifest.
    pub fn manifest(&self) -> PathBuf {
        self.base.join("MANIFEST.json")
    }

    /// The directory of generations.
    pub fn journal(&self) -> PathBuf {
        self.base.join("journal")
    }

    /// One generation.
    pub fn generation(&self, generation: u64) -> PathBuf {
        self.base.join("journal").join(format!("journal_{generation:010}.log"))
    }

    /// Returns the generation that a file name in `journal/` denotes.
    pub fn parse_generation(name: &str) -> Option<u64> {
        let digits = name.strip_prefix("journal_")?.strip_suffix(".log")?;
        let generation =
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
        // Another spelling of the number is the name of another file, which no generation has.
        (format!("{generation:010}") == digits).then_some(generation)
    }

    /// The directory of partitions.
    pub fn partitions(&self) -> PathBuf {
        self.base.join("partitions")
    }

    /// The directory of archives.
    pub fn archives(&self) -> PathBuf {
        self.base.join("archives")
    }

    /// A new partition's name, relative to the log.
    pub fn partition_name(now: Time, counter: u64) -> String {
        format!("partitions/wal_{}_{counter:06}.parquet", now.as_millis().div_euclid(1000))
    }

    /// A new archive's name, relative to the log; `day` is any instant of its day.
    pub fn archive_name(day: Time, counter: u64) -> String {
        format!("archives/archive_{}_{counter:06}.parquet", day.yyyymmdd())
    }

    /// The counter in a Parquet file's name. Archives of the original have none: there the day
    /// comes last.
    pub fn counter_of(name: &str) -> Option<u64> {
        let (stem, _) = name.rsplit('/').next()?.split_once(".parquet")?;
        let (_, rest) = stem.split_once('_')?;
        rest.rsplit_once('_')?.1.parse().ok().filter(|counter| *counter < u64::MAX / 2)
    }

    /// Whether a Parquet file's name has a counter as we write it; the original's are shorter.
    pub fn is_numbered(name: &str) -> bool {
        let counter = name.split_once(".parquet").and_then(|(stem, _)| stem.rsplit_once('_'));
        Layout::counter_of(name).is_some() && counter.is_some_and(|(_, digits)| digits.len() >= 6)
    }

    /// Whether the name of a file, relative to the log, is that of an archive.
    pub fn is_in_archives(name: &str) -> bool {
        name.starts_with("archives/")
    }

    /// Whether a name, relative to the log, is that of a Parquet file among its partitions or
    /// archives.
    pub fn is_table_name(name: &str) -> bool {
        let file = name.strip_prefix("partitions/").or_else(|| name.strip_prefix("archives/"));
        file.is_some_and(|file| Layout::is_parquet(file) && !file.contains(['/', '\0']))
    }

    /// Whether a name, relative to the log, leads to something in it.
    pub fn is_inside(name: &str) -> bool {
        let parts = Path::new(name).components();
        !name.is_empty()
            && !name.contains('\0')
            && parts.into_iter().all(|part| matches!(part, Component::Normal(_)))
    }

    /// The name, relative to the log, of a file in it.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.base).unwrap_or(path).display().to_string()
    }

    /// The name of a file of the original system once it is adopted, from its name before.
    pub fn set_aside_name(name: &str) -> String {
        format!("quarantine/original/{name}")
    }

    /// The path of a file that the manifest names.
    pub fn file(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Whether an entry of this name, in the log's folder, belongs to a log, or to a local backend
    /// beside it.
    pub fn is_part(name: &str) -> bool {
        let parts = [
            "MANIFEST.json",
            "journal",
            "partitions",
            "archives",
            "tmp",
            "quarantine",
            "spool",
            "local",
        ];
        let beside = ["run", "uploads", "health.json", "progress.json", "reserve"];
        parts.contains(&name) || beside.contains(&name) || name == "lock" || name.ends_with(".lock")
    }

    /// Whether a file name ends like those of Parquet files.
    pub fn is_parquet(name: &str) -> bool {
        name.ends_with(".parquet")
    }

    /// Where files are staged.
    pub fn tmp(&self) -> PathBuf {
        self.base.join("tmp")
    }

    /// Where a named file is staged.
    pub fn staged(&self, name: &str) -> PathBuf {
        self.tmp().join(name.rsplit('/').next().unwrap_or(name))
    }

    /// The directory of content that was copied into the log.
    pub fn spool(&self) -> PathBuf {
        self.base.join("spool")
    }

    /// Content in the spool, by its name.
    pub fn spooled(&self, name: &str) -> PathBuf {
        self.base.join("spool").join(name)
    }

    /// Returns the path of an operation's own link to content in the spool.
    pub fn spooled_for(&self, name: &str, id: OperationId) -> PathBuf {
        self.base.join("spool").join(format!("{name}.{id}"))
    }

    /// The content's name in that of a file in `spool/`, and the operation whose link that file is,
    /// if it is one.
    pub fn parse_spooled(file_name: &str) -> Option<(&str, Option<OperationId>)> {
        let (name, id) = match file_name.split_once('.') {
            Some((name, id)) => (name, Some(OperationId::parse(id)?)),
            None => (file_name, None),
        };
        (matches!(name.len(), 32 | 64) && name.bytes().all(|b| b.is_ascii_hexdigit()))
            .then_some((name, id))
    }

    /// Where a process that adds files stages what it copies: `token` is its own, `what` a number
    /// or `lock`.
    pub fn staged_content(&self, token: &str, what: &str) -> PathBuf {
        self.base.join("tmp").join(format!("spool-{token}-{what}"))
    }

    /// The token in a name that [`Layout::staged_content`] made.
    pub fn parse_staged_content(file_name: &str) -> Option<&str> {
        file_name.strip_prefix("spool-")?.split_once('-').map(|(token, _)| token)
    }

    /// Where files are set aside.
    pub fn quarantine(&self) -> PathBuf {
        self.base.join("quarantine")
    }

    /// Room that is set aside for a full disk.
    pub fn reserve(&self) -> PathBuf {
        self.base.join("reserve")
    }

    /// The history of probes.
    pub fn health(&self) -> PathBuf {
        self.base.join("health.json")
    }

    /// How far running attempts have come.
    pub fn progress(&self) -> PathBuf {
        self.base.join("progress.json")
    }

    /// A lock's file.
    pub fn lock(&self, lock: LockName) -> PathBuf {
        self.base.join(lock.file_name())
    }

    /// The directories that a log consists of, in the order in which they are made.
    pub fn directories(&self) -> [PathBuf; 5] {
        [self.journal(), self.partitions(), self.archives(), self.tmp(), self.quarantine()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_from_days() {
        let cases = [
            ("partitions/wal_1735680000_000012.parquet", Some(12), true),
            ("archive_20250101_000013.parquet.1", Some(13), true),
            ("wal_1735680000_0.parquet", Some(0), false),
            ("archive_20250101.parquet", None, false),
            ("wal_1_18446744073709551615.parquet", None, false),
            ("x.parquet", None, false),
        ];
        for (name, counter, numbered) in cases {
            assert_eq!(
                (Layout::counter_of(name), Layout::is_numbered(name)),
                (counter, numbered),
                "{name}"
            );
        }
    }

    #[test]
    fn names_that_lead_out_of_the_log_are_none_of_it() {
        for (name, table, inside) in [
            ("partitions/wal_1735680000_000012.parquet", true, true),
            ("archives/archive_20250101.parquet", true, true),
            ("quarantine/original/partitions/x.parquet", false, true),
            ("partitions/../../x.parquet", false, false),
            ("../x.parquet", false, false),
            ("/x.parquet", false, false),
            ("partitions/x", false, true),
            ("lock", false, true),
            ("", false, false),
        ] {
            assert_eq!(
                (Layout::is_table_name(name), Layout::is_inside(name)),
                (table, inside),
                "{name}"
            );
        }
    }

    #[test]
    fn generation_names_are_read_back() {
        let layout = Layout::new("/wal");
        for generation in [1, 42, 9_999_999_999, 10_000_000_000] {
            let path = layout.generation(generation);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Layout::parse_generation(name), Some(generation));
        }
        for bad in [
            "journal_1.log",
            "journal_00000000001.log",
            "journal_000000000x.log",
            "journal_0000000001.log~",
            "x",
        ] {
            assert_eq!(Layout::parse_generation(bad), None, "{bad}");
        }
    }
}
