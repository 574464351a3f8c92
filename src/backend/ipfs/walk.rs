//! Walking from block to block: through a file in order, and through a sharded directory.
//!
//! The blocks may be malicious: a few blocks that each refer to the next one twice, level upon
//! level, can describe more steps than any machine can take. So each block of a file must
//! contribute the bytes it declares, a block that declares none is fetched once, and a block of a
//! directory may occur in it once.

use std::collections::HashSet;

use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::unixfs::{Block, Cid};

/// The deepest nesting of blocks.
const DEPTH_MAX: usize = 128;

/// A source of blocks, and the error for blocks that are malformed.
pub(super) struct BlockWalker<'a> {
    pub(super) fetch: &'a dyn Fn(&Cid) -> Result<Block>,
    pub(super) malformed: &'a dyn Fn(&'static str) -> AttemptError,
}

/// The parts of one block that are still to be read.
struct Level {
    parts: std::vec::IntoIter<Cid>,
    /// The number of bytes that these parts must contribute.
    bytes_left: u64,
}

impl BlockWalker<'_> {
    /// Passes the content of the file that begins with `first` to `sink`, and returns its length.
    pub(super) fn file_content(
        &self,
        first: Block,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        let wrong_size = || (self.malformed)("a block does not have the size it declares");
        let mut read = 0;
        let mut levels: Vec<Level> = Vec::new();
        let mut empty = HashSet::new();
        let mut next = Some((first, None));
        loop {
            if let Some((block, cid)) = next.take() {
                let Block::File { data, parts, size } = block else {
                    return Err((self.malformed)("a part of the file is not a file block"));
                };
                if let Some(above) = levels.last_mut() {
                    above.bytes_left = above.bytes_left.checked_sub(size).ok_or_else(wrong_size)?;
                }
                let bytes_left = size.checked_sub(data.len() as u64).ok_or_else(wrong_size)?;
                if size == 0 {
                    empty.extend(cid);
                } else {
                    sink(&data)?;
                    read += data.len() as u64;
                    levels.push(Level { parts: parts.into_iter(), bytes_left });
                }
            }
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return Ok(read) };
            match level.parts.next() {
                Some(cid) if empty.contains(&cid) => {}
                Some(_) if depth > DEPTH_MAX => {
                    return Err((self.malformed)("its blocks are nested too deeply"));
                }
                Some(cid) => next = Some(((self.fetch)(&cid)?, Some(cid))),
                None if level.bytes_left > 0 => return Err(wrong_size()),
                None => drop(levels.pop()),
            }
        }
    }

    /// Returns the entries of a sharded directory: these, and those of its parts.
    pub(super) fn shard_entries(
        &self,
        mut entries: Vec<(String, Cid)>,
        mut parts: Vec<Cid>,
    ) -> Result<Vec<(String, Cid)>> {
        let mut seen = HashSet::new();
        while let Some(part) = parts.pop() {
            // Its entries would occur twice, which is not possible in a directory.
            if !seen.insert(part) {
                return Err((self.malformed)("a part of the directory occurs twice"));
            }
            let Block::Shard { entries: more, parts: below } = (self.fetch)(&part)? else {
                return Err((self.malformed)("a part of the directory is not a directory block"));
            };
            entries.extend(more);
            parts.extend(below);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;

    use super::*;
    use crate::backend::unixfs::{CidVersion, symlink};

    /// Returns a CID that depends on a number alone.
    fn cid(nth: u64) -> Cid {
        symlink(&nth.to_le_bytes(), CidVersion::V1).cid
    }

    fn file(data: &[u8], size: u64, parts: &[u64]) -> Block {
        Block::File { data: data.to_vec(), size, parts: parts.iter().copied().map(cid).collect() }
    }

    fn shard(names: &[&str], parts: &[u64]) -> Block {
        let entries = names.iter().map(|name| ((*name).to_owned(), cid(9))).collect();
        Block::Shard { entries, parts: parts.iter().copied().map(cid).collect() }
    }

    /// Walks these blocks, of which the first has the number 0, and returns the result and the
    /// number of fetches; too many fetches fail the test.
    fn walked<T>(
        blocks: Vec<Block>,
        walk: impl FnOnce(&BlockWalker<'_>, Block) -> Result<T>,
    ) -> (Result<T>, usize) {
        let known: HashMap<Cid, Block> = (0..).map(cid).zip(blocks).collect();
        let fetched = Cell::new(0);
        let fetch = |cid: &Cid| {
            fetched.set(fetched.get() + 1);
            assert!(fetched.get() < 10_000, "the walk does not end");
            Ok(known[cid].clone())
        };
        let malformed = |what: &'static str| AttemptError::permanent("malformed", what);
        let result =
            walk(&BlockWalker { fetch: &fetch, malformed: &malformed }, known[&cid(0)].clone());
        (result, fetched.get())
    }

    fn read(blocks: Vec<Block>) -> (Option<String>, usize) {
        let mut content = Vec::new();
        let (result, fetched) = walked(blocks, |blocks, first| {
            blocks.file_content(first, &mut |data| {
                content.extend_from_slice(data);
                Ok(())
            })
        });
        let content = String::from_utf8(content).unwrap();
        (result.ok().map(|read| content[..read as usize].to_owned()), fetched)
    }

    #[test]
    fn a_file_is_read_in_order_however_it_is_cut() {
        assert_eq!(read(vec![file(b"all", 3, &[])]), (Some("all".into()), 0));
        assert_eq!(read(vec![file(b"", 0, &[])]), (Some(String::new()), 0));
        // Data before parts, a part that occurs twice, and an empty part between them.
        let leaf = file(b"leaf", 4, &[]);
        let blocks =
            vec![file(b">", 13, &[1, 2, 3]), file(b"", 8, &[3, 2, 3]), file(b"", 0, &[]), leaf];
        assert_eq!(read(blocks), (Some(">leafleafleaf".into()), 5));
    }

    #[test]
    fn a_block_with_another_size_than_declared_is_refused() {
        for blocks in [
            vec![file(b"more", 3, &[])],
            vec![file(b"less", 5, &[])],
            vec![file(b"", 5, &[1]), file(b"part", 4, &[])],
            vec![file(b"", 3, &[1]), file(b"part", 4, &[])],
            // One part has a byte more, the next one a byte less.
            vec![
                file(b"", 8, &[1, 2]),
                file(b"", 5, &[3]),
                file(b"", 3, &[3]),
                file(b"part", 4, &[]),
            ],
            vec![file(b"", 4, &[1, 2]), file(b"part", 4, &[]), file(b"more", 0, &[])],
            vec![file(b"", u64::MAX, &[1, 1]), file(b"", u64::MAX, &[2]), file(b"part", 4, &[])],
            vec![file(b"", 4, &[1]), shard(&[], &[])],
        ] {
            assert_eq!(read(blocks.clone()).0, None, "{blocks:?}");
        }
    }

    #[test]
    fn blocks_without_content_do_not_make_a_file_endless() {
        // Each refers to the next one twice: 2^100 blocks to walk, without a byte of content.
        let doubled = |size: fn(u64) -> u64| {
            let mut blocks: Vec<Block> =
                (0..100).map(|nth| file(b"", size(nth), &[nth + 1, nth + 1])).collect();
            blocks.push(file(b"", size(100), &[]));
            blocks
        };
        assert_eq!(read(doubled(|_| 0)), (Some(String::new()), 0));
        assert_eq!(read(doubled(|nth| if nth == 0 { 1 } else { 0 })), (None, 1));
        assert_eq!(read(doubled(|nth| if nth < 60 { 1 << (60 - nth) } else { 0 })), (None, 60));
        assert_eq!(read(doubled(|_| 1)), (None, 100));
        // The same with content after it.
        let mut blocks = doubled(|_| 0);
        blocks[0] = file(b"", 2, &[1, 1, 101]);
        blocks.push(file(b"ok", 2, &[]));
        assert_eq!(read(blocks), (Some("ok".into()), 2));
        let many: Vec<u64> = (0..50_000).map(|_| 1).chain([2]).collect();
        let blocks = vec![file(b"", 2, &many), file(b"", 0, &[]), file(b"ok", 2, &[])];
        assert_eq!(read(blocks), (Some("ok".into()), 2));
        // A chain of blocks.
        let mut deep: Vec<Block> = (0..200).map(|nth| file(b"", 1, &[nth + 1])).collect();
        deep.push(file(b"x", 1, &[]));
        assert_eq!(read(deep), (None, DEPTH_MAX));
    }

    #[test]
    fn a_part_occurs_once_in_a_directory() {
        let entries = |blocks: Vec<Block>| {
            let (result, fetched) = walked(blocks, |blocks, first| {
                let Block::Shard { entries, parts } = first else { panic!("{first:?}") };
                blocks.shard_entries(entries, parts)
            });
            let names = |entries: Vec<(String, Cid)>| {
                let mut names: Vec<String> = entries.into_iter().map(|(name, _)| name).collect();
                names.sort_unstable();
                names.concat()
            };
            (result.ok().map(names), fetched)
        };
        let blocks = vec![
            shard(&["a"], &[1, 2]),
            shard(&["b"], &[3]),
            shard(&["c", "d"], &[]),
            shard(&["e"], &[]),
        ];
        assert_eq!(entries(blocks), (Some("abcde".into()), 3));
        let mut doubled: Vec<Block> = (0..100).map(|nth| shard(&[], &[nth + 1, nth + 1])).collect();
        doubled.push(shard(&[], &[]));
        assert_eq!(entries(doubled), (None, 100));
        assert_eq!(entries(vec![shard(&[], &[1]), file(b"", 0, &[])]), (None, 1));
    }
}
