//! The content of the store, and its directories, by CID.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Attempt;
use super::directory::StoreDirectory;
use super::errors::{damaged, no_content};
use crate::backend::atomic::Staged;
use crate::backend::errors::{Result, ours};
use crate::backend::files::{entries_on_disk, parent_of, pump};
use crate::backend::unixfs::{
    Cid, CidVersion, DAG_PB, FileHasher, Options, RAW, SHA2_256, Version,
};
use crate::disk::{Access, Disk, DiskResult, FileKind};

/// The suffix of a directory's file.
const DIRECTORY: &str = ".dir";

/// The suffix of the file with the layout of content.
const LAYOUT: &str = ".layout";

/// Stored content, and the form of its CID under which it is stored.
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

/// The layout of a file in blocks, which its CID depends on.
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

    /// Returns Kubo's default for CIDs of this version.
    fn default_for(cid: &Cid) -> Layout {
        Layout { raw_leaves: cid.version() == Version::V1, ..Layout::of(&Options::default()) }
    }

    fn options(&self, cid: &Cid) -> Options {
        let Layout { raw_leaves, chunk_size, max_links } = *self;
        let cid_version =
            if cid.version() == Version::V0 { CidVersion::V0 } else { CidVersion::V1 };
        Options { cid_version, raw_leaves, chunk_size, max_links, ..Options::default() }
    }
}

/// Computes the CID of content while it is read.
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

    fn matches(self, cid: &Cid) -> bool {
        match self {
            Verifier::Raw(hash) => cid.hash().digest() == &hash.finalize()[..],
            Verifier::Tree(hasher) => hasher.finish().cid == *cid,
        }
    }
}

/// Returns a CID in the one version by which CIDs of the same block are compared.
pub(super) fn canonical(cid: &Cid) -> Cid {
    Cid::new_v1(cid.codec(), *cid.hash())
}

/// Returns the CID of the same block in the other version, if it has one.
fn other_version(cid: &Cid) -> Option<Cid> {
    match cid.version() {
        Version::V0 => Some(canonical(cid)),
        Version::V1 if cid.codec() == DAG_PB && cid.hash().code() == SHA2_256 => {
            Cid::new_v0(*cid.hash()).ok()
        }
        Version::V1 => None,
    }
}

/// Returns a CID in both versions, if it has two.
pub(super) fn forms(cid: &Cid) -> impl Iterator<Item = Cid> {
    [Some(*cid), other_version(cid)].into_iter().flatten()
}

/// The content of a store, in `content/`, and its pins, in `pins/`.
#[derive(Debug)]
pub(super) struct ContentStore {
    pub(super) directory: Arc<StoreDirectory>,
}

impl ContentStore {
    pub(super) fn new(directory: Arc<StoreDirectory>) -> ContentStore {
        ContentStore { directory }
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.directory.disk
    }

    fn content_path(&self, cid: &Cid, suffix: &str) -> PathBuf {
        let text = cid.to_string();
        // The last character of a CID has fewer possible values than those before it.
        let shard =
            text.len().checked_sub(3).and_then(|start| text.get(start..start + 2)).unwrap_or("_");
        self.directory.content().join(shard).join(format!("{text}{suffix}"))
    }

    /// Finds content by either version of its CID.
    pub(super) fn find(&self, cid: &Cid) -> DiskResult<Option<Found>> {
        for cid in forms(cid) {
            let path = self.content_path(&cid, "");
            match self.disk().symlink_metadata(&path) {
                Ok(metadata) => return Ok(Some(Found::File { path, cid, size: metadata.len })),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            // Only dag-pb has directories.
            let path = self.content_path(&cid, DIRECTORY);
            if cid.codec() == DAG_PB && self.disk().exists(&path)? {
                return Ok(Some(Found::Directory { path, cid }));
            }
        }
        Ok(None)
    }

    /// Stores a file's content, which is written and hashed, under its CID.
    pub(super) fn publish_file(
        &self,
        staged: Staged<'_>,
        cid: &Cid,
        options: &Options,
    ) -> DiskResult<()> {
        let layout = Layout::of(options);
        // A raw root is a single block. The layout of other content does not follow from its CID.
        if cid.codec() != RAW && layout != Layout::default_for(cid) {
            let text = serde_json::to_vec(&layout).unwrap_or_default();
            self.publish(self.stage(&text)?, &self.content_path(cid, LAYOUT))?;
        }
        self.publish(staged, &self.content_path(cid, ""))
    }

    /// Stores a directory's listing under its CID.
    pub(super) fn publish_listing(&self, listing: &[u8], cid: &Cid) -> DiskResult<()> {
        self.publish(self.stage(listing)?, &self.content_path(cid, DIRECTORY))
    }

    /// Returns a new empty file in `tmp/`.
    pub(super) fn stage_empty(&self) -> DiskResult<Staged<'_>> {
        Staged::create(self.disk(), self.directory.staging_path()?)
    }

    fn stage(&self, data: &[u8]) -> DiskResult<Staged<'_>> {
        let mut staged = self.stage_empty()?;
        staged.write(data)?;
        Ok(staged)
    }

    fn publish(&self, staged: Staged<'_>, path: &Path) -> DiskResult<()> {
        self.directory.ensure(parent_of(path))?;
        // Replaces existing content, which may be damaged; the new content was just verified.
        staged.publish(path)
    }

    /// Writes a file's content to `sink`. Fails, after the last byte, if it does not have its CID.
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
        let file = self.disk().open(&path, Access::Read).map_err(ours)?;
        pump(attempt, &*file, ours, &mut |data| {
            verifier.update(data);
            sink(data)
        })?;
        if verifier.matches(&cid) { Ok(()) } else { Err(damaged(&path, &cid)) }
    }

    fn layout_of(&self, cid: &Cid) -> Result<Layout> {
        let path = self.content_path(cid, LAYOUT);
        match self.disk().read(&path) {
            Ok(data) => serde_json::from_slice(&data)
                .ok()
                // Other values would make the hasher panic or loop.
                .filter(|layout: &Layout| layout.chunk_size > 0 && layout.max_links > 1)
                .ok_or_else(|| damaged(&path, cid)),
            Err(error) if error.is_not_found() => Ok(Layout::default_for(cid)),
            Err(error) => Err(ours(error)),
        }
    }

    /// Removes content and its layout, in all versions of its CID.
    pub(super) fn delete(&self, cid: &Cid) -> DiskResult<()> {
        for path in forms(cid)
            .flat_map(|cid| ["", DIRECTORY, LAYOUT].map(|suffix| self.content_path(&cid, suffix)))
        {
            match self.disk().remove_file(&path) {
                Ok(()) => self.disk().sync_dir(parent_of(&path))?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the removal of content durable.
    pub(super) fn sync_absence(&self, cid: &Cid) -> DiskResult<()> {
        for cid in forms(cid) {
            match self.disk().sync_dir(parent_of(&self.content_path(&cid, ""))) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Calls `visit` for all content, in the order of its paths.
    pub(super) fn visit_all(
        &self,
        visit: &mut dyn FnMut(&Cid, FileKind, &Path) -> Result<()>,
    ) -> Result<()> {
        let content = self.directory.content();
        self.directory.ensure(&content).map_err(ours)?;
        for (shard, kind) in entries_on_disk(self.disk(), &content)? {
            if kind != FileKind::Directory {
                continue;
            }
            let directory = content.join(shard);
            for (name, _) in entries_on_disk(self.disk(), &directory)? {
                let (text, kind) = match name.strip_suffix(DIRECTORY) {
                    Some(text) => (text, FileKind::Directory),
                    None => (&name[..], FileKind::File),
                };
                // Layouts, and files of other programs, are not content.
                if let Ok(cid) = Cid::try_from(text) {
                    visit(&cid, kind, &directory.join(&name))?;
                }
            }
        }
        Ok(())
    }
}
