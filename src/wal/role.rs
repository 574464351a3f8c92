//! The role of a path in the log, as a word for the names of failpoints.

use std::path::Path;

use crate::wal::layout::Layout;

impl Layout {
    /// Returns the role of a path: `generation`, `manifest`, `staged-partition`, `lock`, …;
    /// `outside` if it is not in the log.
    pub fn role_of(&self, path: &Path) -> String {
        let Ok(relative) = path.strip_prefix(self.base()) else { return "outside".into() };
        let mut parts = relative.iter().map(|part| part.to_str().unwrap_or("unnamed"));
        let Some(first) = parts.next() else { return "log".into() };
        let role = match (first, parts.next()) {
            ("MANIFEST.json", _) => "manifest",
            ("journal", Some(_)) => "generation",
            ("partitions", Some(_)) => "partition",
            ("archives", Some(_)) => "archive",
            ("tmp", Some("MANIFEST.json")) => "staged-manifest",
            ("tmp", Some(name)) if name.starts_with("wal_") => "staged-partition",
            ("tmp", Some(name)) if name.starts_with("archive_") => "staged-archive",
            ("tmp", Some(name)) if Layout::parse_staged_content(name).is_some() => {
                if name.ends_with("-lock") { "stage-lock" } else { "staged-content" }
            }
            ("tmp", Some(_)) => "staged",
            ("quarantine", Some(_)) => "set-aside",
            ("spool", Some(name)) if name.contains('.') => "content-link",
            ("spool", Some(_)) => "content",
            ("sync.lock", _) => "sync-lock",
            ("checkpoint.lock", _) => "checkpoint-lock",
            ("process.lock", _) => "process-lock",
            // A local backend in the same directory has subdirectories of its own.
            (first, Some(second)) => return format!("{first}-{second}"),
            (first, None) => first,
        };
        role.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{OperationId, Time};

    #[test]
    fn every_path_of_the_log_has_a_role() {
        let layout = Layout::new("/wal");
        let id = OperationId::new(Time::from_millis(1), 0, 7);
        for (path, role) in [
            (layout.base().to_owned(), "log"),
            (layout.manifest(), "manifest"),
            (layout.staged("MANIFEST.json"), "staged-manifest"),
            (layout.journal(), "journal"),
            (layout.generation(1), "generation"),
            (layout.partitions(), "partitions"),
            (layout.staged(&Layout::partition_name(Time::from_millis(1), 1)), "staged-partition"),
            (layout.file(&Layout::archive_name(Time::from_millis(1), 1)), "archive"),
            (layout.staged_content("0f", "lock"), "stage-lock"),
            (layout.staged_content("0f", "1"), "staged-content"),
            (layout.spooled("ab"), "content"),
            (layout.spooled_for("ab", id), "content-link"),
            (layout.lock(crate::wal::layout::LockName::Append), "lock"),
            (layout.lock(crate::wal::layout::LockName::Sync), "sync-lock"),
            (layout.base().join("local/content/xy/cid"), "local-content"),
            ("/elsewhere".into(), "outside"),
        ] {
            assert_eq!(layout.role_of(&path), role, "{}", path.display());
        }
    }
}
