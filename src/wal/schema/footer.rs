//! Footers of Parquet files that may be damaged.
//!
//! The Parquet reader trusts lengths and counts, allocates memory accordingly, and panics at some
//! that are impossible. The claims of a footer are therefore checked before the reader sees them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ColumnChunkMetaData;

/// The bytes with which a Parquet file begins and ends.
pub const MAGIC: &[u8] = b"PAR1";

/// The size in bytes beyond which a decompressed page counts as damaged. Writers end a page at
/// about a mebibyte.
const PAGE_MAX: u64 = 64 << 20;

/// Reads the footer of a file. Fails if it claims something impossible.
pub fn footer(bytes: &Bytes) -> Result<ArrowReaderMetadata, String> {
    // The length of the footer is checked before the reader seeks to it.
    let len = bytes.len().checked_sub(8).ok_or("it is cut short")?;
    let footer =
        bytes.get(len..len + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
            as usize;
    if !bytes.starts_with(MAGIC) || !bytes.ends_with(MAGIC) || footer + MAGIC.len() > len {
        return Err("it does not begin and end with the magic bytes".into());
    }
    let metadata = caught(|| ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new()))?;
    let metadata = metadata.map_err(|error| error.to_string())?;
    let groups = metadata.metadata().row_groups();
    // Every row has an id of its own, so it takes at least a byte.
    let mut rows = 0_u64;
    for group in groups {
        rows = rows.saturating_add(
            u64::try_from(group.num_rows())
                .map_err(|_| "a row group has a negative number of rows")?,
        );
    }
    if rows > bytes.len() as u64 {
        return Err(format!("{rows} rows cannot fit into its {} bytes", bytes.len()));
    }
    for column in groups.iter().flat_map(|group| group.columns()) {
        check_column(&bytes[..len - footer], column)
            .map_err(|what| format!("column `{}`: {what}", column.column_path()))?;
    }
    Ok(metadata)
}

/// Runs a function of the Parquet reader. A panic in it is returned as an error.
pub fn caught<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|_| "the Parquet reader panicked".into())
}

/// Fails if a page lies outside the file, or decompresses to more than [`PAGE_MAX`].
fn check_column(bytes: &[u8], column: &ColumnChunkMetaData) -> Result<(), &'static str> {
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let offset = |at: i64| usize::try_from(at).ok().filter(|at| *at <= bytes.len());
    let outside = "it lies outside the file";
    let start = offset(start).ok_or(outside)?;
    offset(column.data_page_offset()).ok_or(outside)?;
    let size = usize::try_from(column.compressed_size()).map_err(|_| outside)?;
    let pages = bytes.get(start..start.checked_add(size).ok_or(outside)?).ok_or(outside)?;
    if column.num_values() < 0 {
        return Err("it has a negative number of values");
    }
    let mut rest = pages;
    while !rest.is_empty() {
        let Some((decompressed, behind)) = page(rest) else {
            // The reader reports a header that cannot be parsed here.
            return Ok(());
        };
        if decompressed > PAGE_MAX {
            return Err("a page decompresses to more than 64 MiB");
        }
        rest = behind;
    }
    Ok(())
}

/// Returns the decompressed size of the first page, and the bytes behind that page.
fn page(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut header = Thrift(bytes);
    let (mut decompressed, mut compressed) = (None, None);
    let mut field = 0_i64;
    while let Some(kind) = header.field(&mut field)? {
        match (field, kind) {
            (2, INTEGER) => decompressed = Some(header.integer()?),
            (3, INTEGER) => compressed = Some(header.integer()?),
            _ => header.skip(kind, 0)?,
        }
    }
    let compressed = usize::try_from(compressed?).ok()?;
    // A negative size must not pass as a small one.
    Some((decompressed?.try_into().unwrap_or(u64::MAX), header.0.get(compressed..)?))
}

const INTEGER: u8 = 5;
const DEPTH_MAX: usize = 8;

/// A reader of Thrift's compact encoding, as far as page headers need it.
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

    /// Returns the type of the next field, whose number replaces `last`. The inner option is none
    /// at the end of a structure.
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
            // Page headers contain no lists, sets or maps.
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

    /// Returns a page with a header that claims this decompressed size.
    fn page_of(decompressed: i64, compressed: &[u8]) -> Vec<u8> {
        let zigzag = |value: i64| varint((value << 1 ^ value >> 63) as u64);
        let mut bytes = vec![0x15, 0, 0x15];
        bytes.extend(zigzag(decompressed));
        bytes.push(0x15);
        bytes.extend(zigzag(compressed.len() as i64));
        // A structure with a number, a text, a flag, and a field with an explicit number.
        bytes.extend([0x2c, 0x15, 2, 0x18, 1, b'x', 0x11, 0x06, 0x50, 9, 0, 0]);
        bytes.extend(compressed);
        bytes
    }

    #[test]
    fn pages_are_walked_from_header_to_header() {
        let two = [page_of(70, b"abc"), page_of(i64::from(i32::MAX), b"")].concat();
        let (decompressed, rest) = page(&two).unwrap();
        assert_eq!((decompressed, page(rest)), (70, Some((i32::MAX as u64, &[][..]))));
        assert_eq!(page(&page_of(-1, b"")), Some((u64::MAX, &[][..])));
        (0..two.len() / 2).for_each(|len| {
            assert_eq!(page(&two[..len]).map(|(_, rest)| rest.len()).unwrap_or(0), 0)
        });
    }

    #[test]
    fn all_pages_of_a_real_file_are_found() {
        let bytes = Bytes::from_static(FOREIGN);
        let metadata = footer(&bytes).unwrap();
        for column in metadata.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let start =
                column.dictionary_page_offset().unwrap_or(column.data_page_offset()) as usize;
            let mut rest = &FOREIGN[start..start + column.compressed_size() as usize];
            let mut sum = 0;
            while !rest.is_empty() {
                let (decompressed, behind) = page(rest).expect("a page follows");
                sum += decompressed;
                rest = behind;
            }
            // The column's size includes the headers.
            assert!(
                sum > 0 && sum <= column.uncompressed_size() as u64,
                "{}",
                column.column_path()
            );
        }
    }

    #[test]
    fn a_page_that_decompresses_to_gigabytes_is_refused() {
        let bytes = Bytes::from_static(FOREIGN);
        let metadata = footer(&bytes).unwrap();
        let column = metadata.metadata().row_group(0).column(0);
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset()) as usize;
        let mut bomb = FOREIGN.to_vec();
        let claim = page_of(i64::from(i32::MAX), b"");
        bomb[start..start + claim.len()].copy_from_slice(&claim);
        let error = footer(&Bytes::from(bomb)).map(drop).expect_err("the page has 2 GiB");
        assert!(error.contains("decompresses to more than 64 MiB"), "{error}");
    }

    #[test]
    fn a_column_outside_the_file_is_refused() {
        // The footer is unchanged, and the columns that it names are missing.
        let footer_at = FOREIGN.len()
            - 8
            - u32::from_le_bytes(FOREIGN[FOREIGN.len() - 8..][..4].try_into().unwrap()) as usize;
        let short = [MAGIC, &FOREIGN[footer_at..]].concat();
        assert!(
            footer(&Bytes::from(short))
                .map(drop)
                .expect_err("the pages are missing")
                .contains("lies outside the file")
        );
        (0..FOREIGN.len())
            .step_by(97)
            .for_each(|len| assert!(footer(&Bytes::from_static(&FOREIGN[..len])).is_err()));
    }
}
