use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A change of a name that is not durable yet.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
    /// The old name, the new one, the inode, and true for a directory, which takes its contents
    /// along.
    Rename(PathBuf, PathBuf, u64, bool),
}

impl NameChange {
    pub(super) fn touches(&self, directory: &Path) -> bool {
        match self {
            NameChange::Set(path, _) | NameChange::Remove(path) => path.parent() == Some(directory),
            NameChange::Rename(from, to, ..) => {
                from.parent() == Some(directory) || to.parent() == Some(directory)
            }
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Set(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to, inode, directory) => {
                // Another file may have taken the old name, since changes become durable in any
                // order.
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
                if !directory || from == to {
                    return;
                }
                let below = |path: &&PathBuf| path.starts_with(from);
                let moved: Vec<PathBuf> = names
                    .range(from.clone()..)
                    .map(|(path, _)| path)
                    .take_while(below)
                    .cloned()
                    .collect();
                for path in moved {
                    if let (Ok(suffix), Some(inode)) =
                        (path.strip_prefix(from), names.remove(&path))
                    {
                        names.insert(to.join(suffix), inode);
                    }
                }
            }
        }
    }
}
