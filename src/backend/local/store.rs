//! Content under its CID.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::errors::{damaged, no_content};
use super::{Attempt, LocalBackend};
use crate::backend::atomic::Staged;
use crate::backend::errors::{Result, ours};
use crate::backend::files::{entries_on_disk, parent_of, pump};
use crate::backend::unixfs::{
    Cid, CidVersion, DAG_PB, FileHasher, Options, RAW, SHA2_256, Version,
};
use crate::disk::{Access, DiskResult, FileKind};

/// The name of a directory's file ends so.
const DIRECTORY: &str = ".dir";

/// The name of the file that says how content was cut into blocks ends so.
const LAYOUT: &str = ".layout";

/// Content that is there, under the form of its CID that it was stored under.
#[derive(Debug)]
pub(super) enum Found {
    /// A file.
    File { path: PathBuf, cid: Cid, size: u64 },
    /// A directory.
    Directory { path: PathBuf, cid: Cid },
}

impl Found {
    pub(super) fn cid(&self) -> &Cid {
        match self {
            Found::File { cid, .. } | Found::Directory { cid, .. } => cid,
        }
    }
}

/// How a file was cut into blocks: one of the ways that give its CID.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    raw_leaves: bool,
    chunk_size: usize,
    max_links: usize,
}

impl Layout {
    fn of(options: &Options) -> Layout {
        let Options { raw_leaves, chunk_size, max_links, .. } = *options;
        Layout { raw_leaves, chunk_size, max_links }
    }

    /// What Kubo does by default for CIDs of this version.
    fn usual(cid: &Cid) -> Layout {
        Layout { raw_leaves: cid.version() == Version::V1, ..Layout::of(&Options::default()) }
    }

    fn options(&self, cid: &Cid) -> Options {
        let Layout { raw_leaves, chunk_size, max_links } = *self;
        let cid_version =
            if cid.version() == Version::V0 { CidVersion::V0 } else { CidVersion::V1 };
        Options { cid_version, raw_leaves, chunk_size, max_links, ..Options::default() }
    }
}

/// Computes the CID of content as it is read.
enum Verifier {
    /// One raw block, however large.
    Raw(Sha256),
    /// A tree of blocks.
    Tree(Box<FileHasher>),
}

impl Verifier {
    fn update(&mut self, data: &[u8]) {
        match self {
            Verifier::Raw(hash) => hash.update(data),
            Verifier::Tree(hasher) => hasher.update(data),
        }
    }

    fn agrees(self, cid: &Cid) -> bool {
        match self {
            Verifier::Raw(hash) => cid.hash().digest() == &hash.finalize()[..],
            Verifier::Tree(hasher) => hasher.finish().cid == *cid,
        }
    }
}

/// One form for all ways to write the same CID.
pub(super) fn canonical(cid: &Cid) -> Cid {
    Cid::new_v1(cid.codec(), *cid.hash())
}

/// The same block under the other version, if it has one.
fn twin(cid: &Cid) -> Option<Cid> {
    match cid.version() {
        Version::V0 => Some(canonical(cid)),
        Version::V1 if cid.codec() == DAG_PB && cid.hash().code() == SHA2_256 => {
            Cid::new_v0(*cid.hash()).ok()
        }
        Version::V1 => None,
    }
}

/// Both forms of a CID.
pub(super) fn forms(cid: &Cid) -> impl Iterator<Item = Cid> {
    [Some(*cid), twin(cid)].into_iter().flatten()
}

impl LocalBackend {
    fn content_path(&self, cid: &Cid, suffix: &str) -> PathBuf {
        let text = cid.to_string();
        // The last character of a CID takes only some of all values; those before it take all.
        let shard =
            text.len().checked_sub(3).and_then(|start| text.get(start..start + 2)).unwrap_or("_");
        self.content_dir().join(shard).join(format!("{text}{suffix}"))
    }

    /// Content that is there, by either form of its CID.
    pub(super) fn find(&self, cid: &Cid) -> DiskResult<Option<Found>> {
        for cid in forms(cid) {
            let path = self.content_path(&cid, "");
            match self.disk.symlink_metadata(&path) {
                Ok(metadata) => return Ok(Some(Found::File { path, cid, size: metadata.len })),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            // Only dag-pb has directories.
            let path = self.content_path(&cid, DIRECTORY);
            if cid.codec() == DAG_PB && self.disk.exists(&path)? {
                return Ok(Some(Found::Directory { path, cid }));
            }
        }
        Ok(None)
    }

    /// Puts a file's content, already written and hashed, under its CID.
    pub(super) fn publish_file(
        &self,
        staged: Staged<'_>,
        cid: &Cid,
        options: &Options,
    ) -> DiskResult<()> {
        let layout = Layout::of(options);
        // A raw root is one block: its hash is the content's. Elsewhere the CID does not tell.
        if cid.codec() != RAW && layout != Layout::usual(cid) {
            let text = serde_json::to_vec(&layout).unwrap_or_default();
            self.publish(self.stage(&text)?, &self.content_path(cid, LAYOUT))?;
        }
        self.publish(staged, &self.content_path(cid, ""))
    }

    /// Puts a directory's listing under its CID.
    pub(super) fn publish_listing(&self, listing: &[u8], cid: &Cid) -> DiskResult<()> {
        self.publish(self.stage(listing)?, &self.content_path(cid, DIRECTORY))
    }

    fn stage(&self, data: &[u8]) -> DiskResult<Staged<'_>> {
        let mut staged = Staged::create(&*self.disk, self.tmp_path()?)?;
        staged.write(data)?;
        Ok(staged)
    }

    fn publish(&self, staged: Staged<'_>, path: &Path) -> DiskResult<()> {
        let directory = parent_of(path);
        self.ensure_dir(directory)?;
        // What stands there already may be damaged; what was just read and hashed is not.
        staged.publish(path)
    }

    /// Hands a file's content to `sink`, and says whether it was what its CID says.
    pub(super) fn read_content(
        &self,
        attempt: &Attempt,
        cid: &Cid,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(Found::File { path, cid, .. }) = self.find(cid).map_err(ours)? else {
            return Err(no_content(cid));
        };
        let mut verifier = if cid.codec() == RAW {
            Verifier::Raw(Sha256::new())
        } else {
            let options = self.layout_of(&cid)?.options(&cid);
            Verifier::Tree(Box::new(FileHasher::new(options)))
        };
        let file = self.disk.open(&path, Access::Read).map_err(ours)?;
        pump(attempt, &*file, ours, &mut |data| {
            verifier.update(data);
            sink(data)
        })?;
        if verifier.agrees(&cid) { Ok(()) } else { Err(damaged(&path, &cid)) }
    }

    fn layout_of(&self, cid: &Cid) -> Result<Layout> {
        let path = self.content_path(cid, LAYOUT);
        match self.disk.read(&path) {
            Ok(data) => serde_json::from_slice(&data)
                .ok()
                // What a file on a disk says may be anything.
                .filter(|layout: &Layout| layout.chunk_size > 0 && layout.max_links > 1)
                .ok_or_else(|| damaged(&path, cid)),
            Err(error) if error.is_not_found() => Ok(Layout::usual(cid)),
            Err(error) => Err(ours(error)),
        }
    }

    /// Removes content and what belongs to it; what is not there is passed over.
    pub(super) fn delete(&self, cid: &Cid) -> DiskResult<()> {
        for path in forms(cid)
            .flat_map(|cid| ["", DIRECTORY, LAYOUT].map(|suffix| self.content_path(&cid, suffix)))
        {
            match self.disk.remove_file(&path) {
                Ok(()) => self.disk.sync_dir(parent_of(&path))?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes it durable that content is gone.
    pub(super) fn sync_absence(&self, cid: &Cid) -> DiskResult<()> {
        for cid in forms(cid) {
            match self.disk.sync_dir(parent_of(&self.content_path(&cid, ""))) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Calls `visit` for all content, in the order of its places.
    pub(super) fn each_content(
        &self,
        visit: &mut dyn FnMut(&Cid, FileKind, &Path) -> Result<()>,
    ) -> Result<()> {
        let content = self.content_dir();
        self.ensure_dir(&content).map_err(ours)?;
        for (shard, kind) in entries_on_disk(&*self.disk, &content)? {
            if kind != FileKind::Directory {
                continue;
            }
            let directory = content.join(shard);
            for (name, _) in entries_on_disk(&*self.disk, &directory)? {
                let (text, kind) = match name.strip_suffix(DIRECTORY) {
                    Some(text) => (text, FileKind::Directory),
                    None => (&name[..], FileKind::File),
                };
                // Layouts, and files that somebody else put here, are no content.
                if let Ok(cid) = Cid::try_from(text) {
                    visit(&cid, kind, &directory.join(&name))?;
                }
            }
        }
        Ok(())
    }
}
