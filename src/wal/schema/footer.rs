//! Parquet files that may be damaged: what their footers claim is checked before the reader relies
//! on it.
//!
//! The reader believes lengths and counts, and panics at some that cannot be.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ColumnChunkMetaData;

/// The bytes at both ends of a Parquet file.
pub const MAGIC: &[u8] = b"PAR1";

/// A page that unfolds to more than this is damaged: writers end them at a mebibyte or so.
const PAGE_MAX: u64 = 64 << 20;

/// The footer of a file, if all that it says can be.
pub fn footer(bytes: &Bytes) -> Result<ArrowReaderMetadata, String> {
    // Asked first, so that no wild length is followed.
    let len = bytes.len().checked_sub(8).ok_or("it is cut short")?;
    let footer =
        bytes.get(len..len + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
            as usize;
    if !bytes.starts_with(MAGIC) || !bytes.ends_with(MAGIC) || footer + MAGIC.len() > len {
        return Err("it does not begin and end like one".into());
    }
    let metadata = caught(|| ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new()))?;
    let metadata = metadata.map_err(|error| error.to_string())?;
    let groups = metadata.metadata().row_groups();
    // Every row has an id of its own, so that none takes less than a byte.
    let mut rows = 0_u64;
    for group in groups {
        rows = rows.saturating_add(
            u64::try_from(group.num_rows()).map_err(|_| "it has less than no rows")?,
        );
    }
    if rows > bytes.len() as u64 {
        return Err(format!("it has {} bytes, which do not hold {rows} rows", bytes.len()));
    }
    for column in groups.iter().flat_map(|group| group.columns()) {
        check_column(&bytes[..len - footer], column)
            .map_err(|what| format!("column `{}`: {what}", column.column_path()))?;
    }
    Ok(metadata)
}

/// What a function returns; an error if it panics.
pub fn caught<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read))
        .map_err(|_| "the reader of Parquet files gave up on what makes no sense".into())
}

/// The pages lie in the file, and none unfolds to more than anything makes sense of.
fn check_column(bytes: &[u8], column: &ColumnChunkMetaData) -> Result<(), &'static str> {
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let place = |at: i64| usize::try_from(at).ok().filter(|at| *at <= bytes.len());
    let outside = "it does not lie in the file";
    let start = place(start).ok_or(outside)?;
    place(column.data_page_offset()).ok_or(outside)?;
    let size = usize::try_from(column.compressed_size()).map_err(|_| outside)?;
    let pages = bytes.get(start..start.checked_add(size).ok_or(outside)?).ok_or(outside)?;
    if column.num_values() < 0 {
        return Err("it has less than no values");
    }
    let mut rest = pages;
    while !rest.is_empty() {
        let Some((unfolded, behind)) = page(rest) else {
            // What this cannot follow, the reader reports.
            return Ok(());
        };
        if unfolded > PAGE_MAX {
            return Err("a page unfolds to more than makes sense");
        }
        rest = behind;
    }
    Ok(())
}

/// Bytes to which the first page unfolds, and what is behind that page.
fn page(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut header = Thrift(bytes);
    let (mut unfolded, mut folded) = (None, None);
    let mut field = 0_i64;
    while let Some(kind) = header.field(&mut field)? {
        match (field, kind) {
            (2, INTEGER) => unfolded = Some(header.integer()?),
            (3, INTEGER) => folded = Some(header.integer()?),
            _ => header.skip(kind, 0)?,
        }
    }
    let folded = usize::try_from(folded?).ok()?;
    // Less than nothing is read as very much.
    Some((unfolded?.try_into().unwrap_or(u64::MAX), header.0.get(folded..)?))
}

const INTEGER: u8 = 5;
const DEPTH_MAX: usize = 8;

/// The compact encoding of Thrift, as far as the headers of pages need it.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The type of the next field, whose number replaces `last`; none at the end of a structure.
    fn field(&mut self, last: &mut i64) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *last = match byte >> 4 {
            0 => self.integer()?,
            step => last.checked_add(i64::from(step))?,
        };
        Some(Some(byte & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.unsigned()?),
            7 => self.0 = self.0.get(8..)?,
            8 => {
                let len = usize::try_from(self.unsigned()?).ok()?;
                self.0 = self.0.get(len..)?;
            }
            12 => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            // Headers of pages hold no lists, sets or maps.
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &[u8] =
        include_bytes!("../../../tests/data/original/mixed/partitions/wal_1735680000_0.parquet");

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// The header of a page of this type that says it unfolds so far, and the bytes of the page.
    fn page_of(unfolded: i64, folded: &[u8]) -> Vec<u8> {
        let zigzag = |value: i64| varint((value << 1 ^ value >> 63) as u64);
        let mut bytes = vec![0x15, 0, 0x15];
        bytes.extend(zigzag(unfolded));
        bytes.push(0x15);
        bytes.extend(zigzag(folded.len() as i64));
        // A structure with a number, a text, a flag and a field whose number is written out.
        bytes.extend([0x2c, 0x15, 2, 0x18, 1, b'x', 0x11, 0x06, 0x50, 9, 0, 0]);
        bytes.extend(folded);
        bytes
    }

    #[test]
    fn pages_are_walked_from_header_to_header() {
        let two = [page_of(70, b"abc"), page_of(i64::from(i32::MAX), b"")].concat();
        let (unfolded, rest) = page(&two).unwrap();
        assert_eq!((unfolded, page(rest)), (70, Some((i32::MAX as u64, &[][..]))));
        assert_eq!(page(&page_of(-1, b"")), Some((u64::MAX, &[][..])));
        (0..two.len() / 2).for_each(|len| {
            assert_eq!(page(&two[..len]).map(|(_, rest)| rest.len()).unwrap_or(0), 0)
        });
    }

    #[test]
    fn all_pages_of_a_real_file_are_seen() {
        let bytes = Bytes::from_static(FOREIGN);
        let metadata = footer(&bytes).unwrap();
        for column in metadata.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let start =
                column.dictionary_page_offset().unwrap_or(column.data_page_offset()) as usize;
            let mut rest = &FOREIGN[start..start + column.compressed_size() as usize];
            let mut sum = 0;
            while !rest.is_empty() {
                let (unfolded, behind) = page(rest).expect("a page is there");
                sum += unfolded;
                rest = behind;
            }
            // Headers count, too.
            assert!(
                sum > 0 && sum <= column.uncompressed_size() as u64,
                "{}",
                column.column_path()
            );
        }
    }

    #[test]
    fn a_page_that_unfolds_beyond_all_measure_is_not_read() {
        let bytes = Bytes::from_static(FOREIGN);
        let metadata = footer(&bytes).unwrap();
        let column = metadata.metadata().row_group(0).column(0);
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset()) as usize;
        let mut bomb = FOREIGN.to_vec();
        let claim = page_of(i64::from(i32::MAX), b"");
        bomb[start..start + claim.len()].copy_from_slice(&claim);
        let told = footer(&Bytes::from(bomb)).map(drop).expect_err("two gibibytes are none");
        assert!(told.contains("unfolds to more than makes sense"), "{told}");
    }

    #[test]
    fn what_does_not_lie_in_the_file_is_not_read() {
        // The footer is as it was, and the columns are not where it says.
        let footer_at = FOREIGN.len()
            - 8
            - u32::from_le_bytes(FOREIGN[FOREIGN.len() - 8..][..4].try_into().unwrap()) as usize;
        let short = [MAGIC, &FOREIGN[footer_at..]].concat();
        assert!(
            footer(&Bytes::from(short))
                .map(drop)
                .expect_err("no pages are there")
                .contains("does not lie in the file")
        );
        (0..FOREIGN.len())
            .step_by(97)
            .for_each(|len| assert!(footer(&Bytes::from_static(&FOREIGN[..len])).is_err()));
    }
}
