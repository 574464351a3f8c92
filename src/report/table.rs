use comfy_table::{CellAlignment, ContentArrangement, presets};

use super::text::{shortened, visible, width};
use super::{Color, Style};

/// One cell: a text on one line.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    paint: Color,
    right: bool,
    elastic: bool,
}

impl Cell {
    /// Plain text.
    pub fn plain(text: impl AsRef<str>) -> Cell {
        Cell { text: visible(text.as_ref()), paint: Color::Plain, right: false, elastic: false }
    }

    /// Text in a colour.
    pub fn painted(text: impl AsRef<str>, paint: Color) -> Cell {
        Cell { paint, ..Cell::plain(text) }
    }

    /// Text at the right edge of its column: numbers.
    pub fn right(text: impl AsRef<str>) -> Cell {
        Cell { right: true, ..Cell::plain(text) }
    }

    /// The same cell in a colour.
    pub fn paint(self, paint: Color) -> Cell {
        Cell { paint, ..self }
    }

    /// Text that is shortened when the row is too wide; the last cell of its row.
    pub fn elastic(text: impl AsRef<str>) -> Cell {
        Cell { elastic: true, ..Cell::plain(text) }
    }
}

/// Columns between two cells.
const GAP: usize = 2;

/// What a cell that elastic keeps in any case.
const MIN_WIDTH: usize = 12;

/// A table without borders, a line for each row.
#[derive(Debug)]
pub struct Table {
    style: Style,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(style: Style) -> Table {
        Table { style, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each row ended by a newline.
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
        let mut text = String::new();
        for (line, row) in table.lines().zip(&self.rows) {
            text.push_str(&paint(line.trim_end(), row, self.style.color));
            text.push('\n');
        }
        text
    }

    /// Shortens the last cells so that every row fits the terminal.
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

/// The line with its cells in their colours. They stand in it in their order, each on one line.
fn paint(line: &str, row: &[Cell], color: bool) -> String {
    if !color {
        return line.to_owned();
    }
    let mut painted = String::with_capacity(line.len() + 16);
    let mut rest = line;
    for cell in row.iter().filter(|cell| !cell.text.is_empty()) {
        let Some(at) = rest.find(cell.text.trim_end()) else { continue };
        let (before, from) = rest.split_at(at);
        let (text, after) = from.split_at(cell.text.trim_end().len());
        painted.push_str(before);
        painted.push_str(&cell.paint.on(text, color));
        rest = after;
    }
    painted.push_str(rest);
    painted
}
