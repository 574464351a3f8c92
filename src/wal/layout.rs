//! The names of all files of a log: they are built and parsed here, and nowhere else.

use std::path::{Component, Path, PathBuf};

use crate::operation::{OperationId, Time};

/// The paths of the files of one log.
#[derive(Debug, Clone)]
pub struct Layout {
    base: PathBuf,
}

/// A lock of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockName {
    /// Held by a drain loop: there is one at a time.
    Process,
    /// Held while Parquet files are written.
    Checkpoint,
    /// Held while a frame is appended to the journal.
    Append,
    /// Held while the journal is flushed.
    Sync,
}

impl LockName {
    /// Returns the name of the lock file.
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
    /// Returns the layout of a log in this directory.
    pub fn new(base: impl Into<PathBuf>) -> Layout {
        Layout { base: base.into() }
    }

    /// Returns the directory of the log.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Returns the path of the manifest.
    pub fn manifest(&self) -> PathBuf {
        self.base.join("MANIFEST.json")
    }

    /// Returns the directory of generations.
    pub fn journal(&self) -> PathBuf {
        self.base.join("journal")
    }

    /// Returns the path of a generation.
    pub fn generation(&self, generation: u64) -> PathBuf {
        self.base.join("journal").join(format!("journal_{generation:010}.log"))
    }

    /// Returns the generation with this file name; none if it is not one of a generation.
    pub fn parse_generation(name: &str) -> Option<u64> {
        let digits = name.strip_prefix("journal_")?.strip_suffix(".log")?;
        let generation =
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
        // A name with fewer or more leading zeros would be another file.
        (format!("{generation:010}") == digits).then_some(generation)
    }

    /// Returns the directory of partitions.
    pub fn partitions(&self) -> PathBuf {
        self.base.join("partitions")
    }

    /// Returns the directory of archives.
    pub fn archives(&self) -> PathBuf {
        self.base.join("archives")
    }

    /// Returns the name of a new partition, relative to the log.
    pub fn partition_name(now: Time, counter: u64) -> String {
        format!("partitions/wal_{}_{counter:06}.parquet", now.as_millis().div_euclid(1000))
    }

    /// Returns the name of a new archive, relative to the log. `day` is any instant of its day.
    pub fn archive_name(day: Time, counter: u64) -> String {
        format!("archives/archive_{}_{counter:06}.parquet", day.yyyymmdd())
    }

    /// Returns the counter in the name of a Parquet file; none if it has no counter. Archives of
    /// the original system end with the day instead.
    pub fn counter_of(name: &str) -> Option<u64> {
        let (stem, _) = name.rsplit('/').next()?.split_once(".parquet")?;
        let (_, rest) = stem.split_once('_')?;
        rest.rsplit_once('_')?.1.parse().ok().filter(|counter| *counter < u64::MAX / 2)
    }

    /// Returns true if the counter in the name of a Parquet file has as many digits as this program
    /// writes. Those of the original system are shorter.
    pub fn is_numbered(name: &str) -> bool {
        let counter = name.split_once(".parquet").and_then(|(stem, _)| stem.rsplit_once('_'));
        Layout::counter_of(name).is_some() && counter.is_some_and(|(_, digits)| digits.len() >= 6)
    }

    /// Returns true if a name, relative to the log, is in the directory of archives.
    pub fn is_in_archives(name: &str) -> bool {
        name.starts_with("archives/")
    }

    /// Returns true if a name, relative to the log, is a Parquet file in the directory of
    /// partitions or archives.
    pub fn is_table_name(name: &str) -> bool {
        let file = name.strip_prefix("partitions/").or_else(|| name.strip_prefix("archives/"));
        file.is_some_and(|file| Layout::is_parquet(file) && !file.contains(['/', '\0']))
    }

    /// Returns true if a name, relative to the log, does not lead out of it.
    pub fn is_inside(name: &str) -> bool {
        let parts = Path::new(name).components();
        !name.is_empty()
            && !name.contains('\0')
            && parts.into_iter().all(|part| matches!(part, Component::Normal(_)))
    }

    /// Returns the name of a path, relative to the log.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.base).unwrap_or(path).display().to_string()
    }

    /// Returns the name to which a file of the original system is moved once it is adopted. Both
    /// names are relative to the log.
    pub fn set_aside_name(name: &str) -> String {
        format!("quarantine/original/{name}")
    }

    /// Returns the path of a name that is relative to the log.
    pub fn file(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Returns true if a directory entry with this name belongs to a log, or to a local backend in
    /// the same directory.
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
        let others = ["run", "uploads", "health.json", "progress.json", "reserve"];
        parts.contains(&name) || others.contains(&name) || name == "lock" || name.ends_with(".lock")
    }

    /// Returns true if a file name has the extension of Parquet files.
    pub fn is_parquet(name: &str) -> bool {
        name.ends_with(".parquet")
    }

    /// Returns the directory in which files are staged.
    pub fn tmp(&self) -> PathBuf {
        self.base.join("tmp")
    }

    /// Returns the path at which a file with this name is staged.
    pub fn staged(&self, name: &str) -> PathBuf {
        self.tmp().join(name.rsplit('/').next().unwrap_or(name))
    }

    /// Returns the directory of the spool.
    pub fn spool(&self) -> PathBuf {
        self.base.join("spool")
    }

    /// Returns the path of content in the spool.
    pub fn spooled(&self, name: &str) -> PathBuf {
        self.base.join("spool").join(name)
    }

    /// Returns the path of an operation's own link to content in the spool.
    pub fn spooled_for(&self, name: &str, id: OperationId) -> PathBuf {
        self.base.join("spool").join(format!("{name}.{id}"))
    }

    /// Returns the name of the content that a file in `spool/` holds, and the operation to which
    /// the file belongs, if it belongs to one.
    pub fn parse_spooled(file_name: &str) -> Option<(&str, Option<OperationId>)> {
        let (name, id) = match file_name.split_once('.') {
            Some((name, id)) => (name, Some(OperationId::parse(id)?)),
            None => (file_name, None),
        };
        (matches!(name.len(), 32 | 64) && name.bytes().all(|b| b.is_ascii_hexdigit()))
            .then_some((name, id))
    }

    /// Returns the path at which a process stages content: `token` identifies the process, and
    /// `part` is a number or `lock`.
    pub fn staged_content(&self, token: &str, part: &str) -> PathBuf {
        self.base.join("tmp").join(format!("spool-{token}-{part}"))
    }

    /// Returns the token in a file name from [`Layout::staged_content`]; none for other names.
    pub fn parse_staged_content(file_name: &str) -> Option<&str> {
        file_name.strip_prefix("spool-")?.split_once('-').map(|(token, _)| token)
    }

    /// Returns the directory of files that were set aside.
    pub fn quarantine(&self) -> PathBuf {
        self.base.join("quarantine")
    }

    /// Returns the path of the reserve: space kept for finishing operations on a full disk.
    pub fn reserve(&self) -> PathBuf {
        self.base.join("reserve")
    }

    /// Returns the path of the health of backends.
    pub fn health(&self) -> PathBuf {
        self.base.join("health.json")
    }

    /// Returns the path of the progress of running attempts.
    pub fn progress(&self) -> PathBuf {
        self.base.join("progress.json")
    }

    /// Returns the path of a lock.
    pub fn lock(&self, lock: LockName) -> PathBuf {
        self.base.join(lock.file_name())
    }

    /// Returns the directories of a log, in the order in which they are created.
    pub fn directories(&self) -> [PathBuf; 5] {
        [self.journal(), self.partitions(), self.archives(), self.tmp(), self.quarantine()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_distinguished_from_days() {
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
    fn names_that_lead_out_of_the_log_are_refused() {
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
