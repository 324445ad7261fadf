//! Aligned tables that stream: rows are laid out a batch at a time, columns only grow.

use std::io::{self, Write};

/// Rows that are laid out together.
const BATCH_ROWS: usize = 512;
/// Between columns.
const GAP: &str = "  ";

/// How a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table on its way out.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    width_max: Option<usize>,
    header_written: bool,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)], width_max: Option<usize>) -> Self {
        let widths = columns.iter().map(|(title, _)| title.chars().count()).collect();
        Table {
            columns: columns.to_vec(),
            widths,
            rows: Vec::new(),
            width_max,
            header_written: false,
        }
    }

    /// Adds a row; cells are in the order of the columns.
    pub(super) fn row(&mut self, cells: Vec<String>, out: &mut impl Write) -> io::Result<()> {
        let cells: Vec<String> = cells.iter().map(|cell| clean(cell)).collect();
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(cells);
        if self.rows.len() >= BATCH_ROWS { self.flush(out) } else { Ok(()) }
    }

    /// Writes the rows so far, and the header before the first.
    pub(super) fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        if !self.header_written {
            let titles: Vec<String> = self.columns.iter().map(|(t, _)| (*t).to_owned()).collect();
            out.write_all(self.layout(&titles).as_bytes())?;
            self.header_written = true;
        }
        for row in std::mem::take(&mut self.rows) {
            out.write_all(self.layout(&row).as_bytes())?;
        }
        Ok(())
    }

    fn layout(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for (index, ((_, align), cell)) in self.columns.iter().zip(cells).enumerate() {
            if index > 0 {
                line.push_str(GAP);
            }
            let width = self.widths.get(index).copied().unwrap_or_default();
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        line.truncate(line.trim_end().len());
        if let Some(max) = self.width_max.filter(|max| line.chars().count() > *max) {
            line = line.chars().take(max.saturating_sub(1)).chain(['…']).collect();
        }
        line.push('\n');
        line
    }
}

/// The text without what could move a cursor, change colours or reverse what is read: names and
/// messages come from peers.
pub(super) fn clean(text: &str) -> String {
    let is_safe = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_safe(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &mut Table, rows: &[[&str; 3]]) -> String {
        let mut out = Vec::new();
        for row in rows {
            table.row(row.map(str::to_owned).to_vec(), &mut out).unwrap();
        }
        table.flush(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const COLUMNS: [(&str, Align); 3] =
        [("A", Align::Left), ("NUMBER", Align::Right), ("REST", Align::Left)];

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let text = written(
            &mut Table::new(&COLUMNS, None),
            &[["x", "1", ""], ["äöü", "1000000", "some words"]],
        );
        assert_eq!(text, "A     NUMBER  REST\nx          1\näöü  1000000  some words\n");
    }

    #[test]
    fn lines_are_cut_to_the_terminal_by_characters() {
        let text =
            written(&mut Table::new(&COLUMNS, Some(12)), &[["ä", "1", "ööööö"], ["b", "2", ""]]);
        assert_eq!(text, "A  NUMBER  …\nä       1  …\nb       2\n");
    }

    #[test]
    fn an_empty_table_is_its_header_and_many_rows_have_one() {
        assert_eq!(written(&mut Table::new(&COLUMNS, None), &[]), "A  NUMBER  REST\n");
        let rows = vec![["x", "1", "y"]; 3 * BATCH_ROWS + 1];
        let text = written(&mut Table::new(&COLUMNS, None), &rows);
        assert_eq!(text.lines().count(), rows.len() + 1);
        assert_eq!(text.matches("NUMBER").count(), 1);
    }

    #[test]
    fn what_peers_say_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    }
}
