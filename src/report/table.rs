//! Tables without borders, for terminals and pipes.

use comfy_table::{CellAlignment, ContentArrangement, presets};

use super::text::{shortened, visible, width};
use super::{Color, Style};

/// A cell: text on a single line.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    color: Color,
    right: bool,
    elastic: bool,
}

impl Cell {
    /// Returns a cell without colour.
    pub fn plain(text: impl AsRef<str>) -> Cell {
        Cell { text: visible(text.as_ref()), color: Color::Plain, right: false, elastic: false }
    }

    /// Returns a cell in a colour.
    pub fn painted(text: impl AsRef<str>, color: Color) -> Cell {
        Cell { color, ..Cell::plain(text) }
    }

    /// Returns a right-aligned cell, for numbers.
    pub fn right(text: impl AsRef<str>) -> Cell {
        Cell { right: true, ..Cell::plain(text) }
    }

    /// Returns the cell in another colour.
    pub fn color(self, color: Color) -> Cell {
        Cell { color, ..self }
    }

    /// Returns a cell that is shortened if its row is too wide. It must be the last one of its row.
    pub fn elastic(text: impl AsRef<str>) -> Cell {
        Cell { elastic: true, ..Cell::plain(text) }
    }
}

/// Columns between two cells.
const GAP: usize = 2;

/// The smallest width to which an elastic cell is shortened.
const MIN_WIDTH: usize = 12;

/// A table without borders, one line per row.
#[derive(Debug)]
pub struct Table {
    style: Style,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Returns a table without rows.
    pub fn new(style: Style) -> Table {
        Table { style, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Returns true if the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the table as text; every row ends with a newline.
    pub fn render(mut self) -> String {
        self.shrink();
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| {
                let alignment = if cell.right { CellAlignment::Right } else { CellAlignment::Left };
                comfy_table::Cell::new(&cell.text).set_alignment(alignment)
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP as u16));
        }
        let widths = table.column_max_content_widths();
        let mut text = String::new();
        for (line, row) in table.lines().zip(&self.rows) {
            let line = line.trim_end();
            match self.style.color {
                true => text.push_str(&colored(line, row, &widths)),
                false => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }

    /// Shortens elastic cells so that every row fits the terminal.
    fn shrink(&mut self) {
        let Some(room) = self.style.width else { return };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let fixed: usize = (0..columns.saturating_sub(1))
            .map(|at| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(at))
                    .map(|cell| width(&cell.text))
                    .max()
                    .unwrap_or(0)
            })
            .map(|width| width + GAP)
            .sum();
        let left = room.saturating_sub(fixed).max(MIN_WIDTH);
        for cell in
            self.rows.iter_mut().filter_map(|row| row.last_mut()).filter(|cell| cell.elastic)
        {
            cell.text = shortened(&cell.text, left);
        }
    }
}

/// Returns a rendered line with its cells in their colours.
///
/// The cells are found by the widths of their columns, since a text may occur twice in a line.
fn colored(line: &str, row: &[Cell], widths: &[u16]) -> String {
    let mut text = String::with_capacity(line.len() + 16);
    let mut rest = line;
    for (cell, column) in row.iter().zip(widths) {
        let slot = usize::from(*column);
        let padding = slot.saturating_sub(width(&cell.text));
        let (before, after) = if cell.right { (padding, 0) } else { (0, padding) };
        text.push_str(take(&mut rest, before));
        let content = take(&mut rest, cell.text.len());
        text.push_str(&if content.is_empty() {
            String::new()
        } else {
            cell.color.on(content, true)
        });
        text.push_str(take(&mut rest, after + GAP));
    }
    text + rest
}

/// Takes at most `len` bytes from the front of a text; it ends between two characters.
fn take<'a>(rest: &mut &'a str, len: usize) -> &'a str {
    let len = (0..=len.min(rest.len())).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(0);
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Time;

    fn render(rows: &[Vec<Cell>], color: bool, width: Option<usize>) -> String {
        let mut table = Table::new(Style { color, width, now: Time::from_millis(0) });
        rows.iter().cloned().for_each(|row| table.row(row));
        table.render()
    }

    #[test]
    fn each_cell_gets_its_own_color() {
        let rows = [
            vec![Cell::plain("ok"), Cell::right("7"), Cell::painted("ok", Color::Ok)],
            vec![
                Cell::painted("", Color::Bold),
                Cell::right("12"),
                Cell::painted("漢字", Color::Error),
            ],
            vec![Cell::painted("failed", Color::Error), Cell::right("1"), Cell::plain("x")],
        ];
        let expected = "ok       7  \x1b[32mok\x1b[0m\n        12  \x1b[31m漢字\x1b[0m\n\
                        \x1b[31mfailed\x1b[0m   1  x\n";
        assert_eq!(render(&rows, true, None), expected);
    }

    #[test]
    fn colors_change_nothing_else() {
        let plain = |text: &str| {
            let pattern = regex::Regex::new("\x1b\\[[0-9]+m").unwrap();
            pattern.replace_all(text, "").into_owned()
        };
        let texts = ["", "a", "two words", "漢字", "e\u{301}"];
        for (first, second) in texts.iter().flat_map(|a| texts.iter().map(move |b| (a, b))) {
            let row =
                |color: fn(&str) -> Cell| vec![color(first), Cell::right(second), color(second)];
            let rows =
                [row(|text| Cell::painted(text, Color::Warn)), row(|text| Cell::plain(text))];
            let colored = render(&rows, true, Some(40));
            assert_eq!(plain(&colored), render(&rows, false, Some(40)), "{first:?} {second:?}");
        }
    }

    #[test]
    fn elastic_cells_are_shortened_to_the_terminal() {
        let long = "a".repeat(100);
        for (width, expected) in [(Some(40), 40), (Some(3), 8 + MIN_WIDTH), (None, 108)] {
            let text = render(&[vec![Cell::plain("status"), Cell::elastic(&long)]], false, width);
            assert_eq!(text.trim_end().chars().count(), expected);
        }
    }
}
