//! From block to block: through a file in its order, and through a large directory.
//!
//! Whoever made the blocks may have meant harm: a few of them that name each other twice, level upon level, are more
//! to walk than anybody can. So each block of a file has to bring the bytes that it says, and what says that it has none
//! is fetched once; a block of a directory is in it once.

use std::collections::HashSet;

use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::unixfs::{Block, Cid};

/// Blocks are not nested deeper than this.
const DEPTH_MAX: usize = 128;

/// Where blocks come from, and what is said of those that are not as they should be.
pub(super) struct Blocks<'a> {
    pub(super) fetch: &'a dyn Fn(&Cid) -> Result<Block>,
    pub(super) malformed: &'a dyn Fn(&'static str) -> AttemptError,
}

/// What is still to be read of one block's parts.
struct Level {
    parts: std::vec::IntoIter<Cid>,
    /// Bytes that they are to bring.
    left: u64,
}

impl Blocks<'_> {
    /// Hands on the content of a file that begins with this block; how many bytes that were.
    pub(super) fn file(
        &self,
        first: Block,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        let other_size = || (self.malformed)("it is not what its size says");
        let mut read = 0;
        let mut levels: Vec<Level> = Vec::new();
        let mut empty = HashSet::new();
        let mut next = Some((first, None));
        loop {
            if let Some((block, cid)) = next.take() {
                let Block::File { data, parts, size } = block else {
                    return Err((self.malformed)("a part of it is no part of a file"));
                };
                if let Some(above) = levels.last_mut() {
                    above.left = above.left.checked_sub(size).ok_or_else(other_size)?;
                }
                let left = size.checked_sub(data.len() as u64).ok_or_else(other_size)?;
                if size == 0 {
                    empty.extend(cid);
                } else {
                    sink(&data)?;
                    read += data.len() as u64;
                    levels.push(Level { parts: parts.into_iter(), left });
                }
            }
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return Ok(read) };
            match level.parts.next() {
                Some(cid) if empty.contains(&cid) => {}
                Some(_) if depth > DEPTH_MAX => {
                    return Err((self.malformed)("it is nested too deeply"));
                }
                Some(cid) => next = Some(((self.fetch)(&cid)?, Some(cid))),
                None if level.left > 0 => return Err(other_size()),
                None => drop(levels.pop()),
            }
        }
    }

    /// What is in a directory that is spread over blocks: these entries, and those in its parts.
    pub(super) fn shards(
        &self,
        mut entries: Vec<(String, Cid)>,
        mut parts: Vec<Cid>,
    ) -> Result<Vec<(String, Cid)>> {
        let mut seen = HashSet::new();
        while let Some(part) = parts.pop() {
            // Its entries would be there twice, which no directory can have.
            if !seen.insert(part) {
                return Err((self.malformed)("a part of it is in it twice"));
            }
            let Block::Shard { entries: more, parts: below } = (self.fetch)(&part)? else {
                return Err((self.malformed)("a part of it is no part of a directory"));
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

    /// Some CID, the same one for the same number.
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

    /// What comes of these blocks, the first of which is numbered 0, and how many were fetched; too many end the test.
    fn walked<T>(
        blocks: Vec<Block>,
        walk: impl FnOnce(&Blocks<'_>, Block) -> Result<T>,
    ) -> (Result<T>, usize) {
        let known: HashMap<Cid, Block> = (0..).map(cid).zip(blocks).collect();
        let fetched = Cell::new(0);
        let fetch = |cid: &Cid| {
            fetched.set(fetched.get() + 1);
            assert!(fetched.get() < 10_000, "it has no end");
            Ok(known[cid].clone())
        };
        let malformed = |what: &'static str| AttemptError::permanent("malformed", what);
        let result = walk(&Blocks { fetch: &fetch, malformed: &malformed }, known[&cid(0)].clone());
        (result, fetched.get())
    }

    fn read(blocks: Vec<Block>) -> (Option<String>, usize) {
        let mut content = Vec::new();
        let (result, fetched) = walked(blocks, |blocks, first| {
            blocks.file(first, &mut |data| {
                content.extend_from_slice(data);
                Ok(())
            })
        });
        let content = String::from_utf8(content).unwrap();
        (result.ok().map(|read| content[..read as usize].to_owned()), fetched)
    }

    #[test]
    fn a_file_comes_in_order_however_it_is_cut() {
        assert_eq!(read(vec![file(b"all", 3, &[])]), (Some("all".into()), 0));
        assert_eq!(read(vec![file(b"", 0, &[])]), (Some(String::new()), 0));
        // Data before parts, the same part twice, an empty one between.
        let leaf = file(b"leaf", 4, &[]);
        let blocks =
            vec![file(b">", 13, &[1, 2, 3]), file(b"", 8, &[3, 2, 3]), file(b"", 0, &[]), leaf];
        assert_eq!(read(blocks), (Some(">leafleafleaf".into()), 5));
    }

    #[test]
    fn a_block_that_does_not_bring_what_its_size_says_is_refused() {
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
    fn blocks_that_bring_nothing_do_not_make_a_file_endless() {
        // Each names the next one twice: 2^100 blocks to walk, and not a byte in them.
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
        // The same with content behind it.
        let mut blocks = doubled(|_| 0);
        blocks[0] = file(b"", 2, &[1, 1, 101]);
        blocks.push(file(b"ok", 2, &[]));
        assert_eq!(read(blocks), (Some("ok".into()), 2));
        let many: Vec<u64> = (0..50_000).map(|_| 1).chain([2]).collect();
        let blocks = vec![file(b"", 2, &many), file(b"", 0, &[]), file(b"ok", 2, &[])];
        assert_eq!(read(blocks), (Some("ok".into()), 2));
        // One below the other.
        let mut deep: Vec<Block> = (0..200).map(|nth| file(b"", 1, &[nth + 1])).collect();
        deep.push(file(b"x", 1, &[]));
        assert_eq!(read(deep), (None, DEPTH_MAX));
    }

    #[test]
    fn parts_of_a_directory_are_in_it_once() {
        let entries = |blocks: Vec<Block>| {
            let (result, fetched) = walked(blocks, |blocks, first| {
                let Block::Shard { entries, parts } = first else { panic!("{first:?}") };
                blocks.shards(entries, parts)
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
