//! Aligned tables that stream: rows are formatted in batches, and columns only get wider.

use std::io::{self, Write};

use bgp_proto::types::is_direction_mark;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Number of rows that are formatted together.
const BATCH_ROWS: usize = 512;
/// Minimum width to which a text column is shortened, in terminal columns.
const TEXT_WIDTH_MIN: usize = 12;
/// The gap between columns.
const GAP: &str = "  ";

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// For text.
    Left,
    /// For numbers.
    Right,
}

/// The meaning of a cell, which determines its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Paint {
    #[default]
    Plain,
    /// In the wanted state.
    Good,
    /// Not in the wanted state yet.
    Pending,
    /// Not in the wanted state.
    Bad,
    /// Emphasised.
    Strong,
}

impl Paint {
    /// `text` with the escape sequences of the colour.
    pub(super) fn on(self, text: &str) -> String {
        let code = match self {
            Paint::Plain => return text.to_owned(),
            Paint::Good => "32",
            Paint::Pending => "33",
            Paint::Bad => "31",
            Paint::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Text in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(super) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Cell { text: text.into(), paint }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::painted(text, Paint::Plain)
    }
}

/// A row that is not written yet.
enum Row {
    Cells(Vec<Cell>),
    /// As the row before it, but for the text of one cell.
    LikeLast(usize, String),
}

/// The line of a row around one of its cells.
struct Around {
    at: usize,
    before: String,
    after: String,
}

/// A table that is being written. If a row is too wide for the terminal, its last column continues
/// below, indented; if the columns before it are too wide, the widest texts lose their middle, so
/// that every number and state stays visible. Widths are in terminal columns.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    /// The widths that the cells so far need.
    widths: Vec<usize>,
    /// The widths in use.
    given: Vec<usize>,
    rows: Vec<Row>,
    /// The last row that was written as a whole.
    last: Option<Vec<Cell>>,
    width_max: Option<usize>,
    has_colour: bool,
    header_written: bool,
    /// The column that is left out if the rows before the header have nothing in it.
    optional: Option<usize>,
    /// The column that was left out.
    omitted: Option<usize>,
}

impl Table {
    /// A table of at most `width_max` terminal columns, or of any width; the last column is the one
    /// that continues below.
    pub(super) fn new(
        columns: &[(&'static str, Align)],
        width_max: Option<usize>,
        has_colour: bool,
    ) -> Self {
        let widths: Vec<usize> = columns.iter().map(|(title, _)| title.width()).collect();
        Table {
            columns: columns.to_vec(),
            given: widths.clone(),
            widths,
            rows: Vec::new(),
            last: None,
            width_max,
            has_colour,
            header_written: false,
            optional: None,
            omitted: None,
        }
    }

    /// Leaves the column with this title out if the first rows have nothing in it.
    pub(super) fn with_optional(mut self, title: &str) -> Self {
        self.optional = self.columns.iter().position(|(own, _)| *own == title);
        self
    }

    fn omit_if_empty(&mut self) {
        let Some(at) = self.optional.take() else { return };
        let is_empty = |row: &Row| match row {
            Row::Cells(row) => row.get(at).is_none_or(|cell| cell.text.is_empty()),
            Row::LikeLast(..) => false,
        };
        if self.rows.iter().all(is_empty) {
            self.columns.remove(at);
            self.widths.remove(at);
            for row in &mut self.rows {
                if let Row::Cells(row) = row
                    && at < row.len()
                {
                    row.remove(at);
                }
            }
            self.omitted = Some(at);
        }
    }

    /// Adds a row, with the cells in column order.
    pub(super) fn row(&mut self, mut cells: Vec<Cell>, out: &mut impl Write) -> io::Result<()> {
        if let Some(at) = self.omitted.filter(|at| *at < cells.len()) {
            cells.remove(at);
        }
        for (width, cell) in self.widths.iter_mut().zip(&mut cells) {
            if !is_printable_ascii(&cell.text) {
                cell.text = clean(&cell.text);
            }
            *width = (*width).max(columns(&cell.text));
        }
        self.push(Row::Cells(cells), out)
    }

    /// Adds a row as the one that was added last, but for the text of one cell, which is ASCII. Costs
    /// next to nothing: in a long list of routes, most rows differ from the last one in the prefix only.
    /// Not for a table with an optional column.
    pub(super) fn row_like_last(
        &mut self,
        at: usize,
        text: &str,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let text = if is_printable_ascii(text) { text.to_owned() } else { clean(text) };
        if let Some(width) = self.widths.get_mut(at) {
            *width = (*width).max(columns(&text));
        }
        self.push(Row::LikeLast(at, text), out)
    }

    fn push(&mut self, row: Row, out: &mut impl Write) -> io::Result<()> {
        self.rows.push(row);
        if self.rows.len() >= BATCH_ROWS { self.flush(out) } else { Ok(()) }
    }

    /// Writes the rows so far; before the first, the header.
    pub(super) fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.omit_if_empty();
        self.given = self.fitting_widths();
        if !self.header_written {
            let title = |(title, _): &(&str, Align)| Cell::painted(*title, Paint::Strong);
            let titles: Vec<Cell> = self.columns.iter().map(title).collect();
            out.write_all(self.layout(&titles).as_bytes())?;
            self.header_written = true;
        }
        let mut lines = String::new();
        let mut around: Option<Around> = None;
        for row in std::mem::take(&mut self.rows) {
            match row {
                Row::Cells(cells) => {
                    around = None;
                    self.push_row(&cells, &mut lines);
                    self.last = Some(cells);
                }
                Row::LikeLast(at, text) => {
                    let kept = around.as_ref().filter(|around| around.at == at);
                    if let Some(around) = kept
                        && self.push_inside(around, &text, &mut lines)
                    {
                        continue;
                    }
                    let mut cells = self.last.take().unwrap_or_default();
                    if let Some(cell) = cells.get_mut(at) {
                        cell.text = text;
                    }
                    let start = lines.len();
                    self.push_row(&cells, &mut lines);
                    around = lines.get(start..).and_then(|line| self.around(&cells, at, line));
                    self.last = Some(cells);
                }
            }
        }
        out.write_all(lines.as_bytes())
    }

    fn push_row(&self, cells: &[Cell], lines: &mut String) {
        if !self.push_whole(cells, lines) {
            lines.push_str(&self.layout(cells));
        }
    }

    /// What is around a cell of a row in its line; `None` if the line is not simply its cells in their
    /// columns, so that each row has to be laid out.
    fn around(&self, cells: &[Cell], at: usize, line: &str) -> Option<Around> {
        let is_plain = self.width_max.is_none() && !self.has_colour;
        let is_ascii = cells.iter().all(|cell| is_printable_ascii(&cell.text));
        let is_last = cells.iter().rposition(|cell| !cell.text.is_empty()) == Some(at);
        let (_, align) = self.columns.get(at)?;
        if !is_plain || !is_ascii || is_last || *align != Align::Left {
            return None;
        }
        let width = *self.given.get(at)?;
        let start: usize = self.given.get(..at)?.iter().map(|width| width + GAP.len()).sum();
        let before = line.get(..start)?.to_owned();
        let after = line.get(start + width..)?.to_owned();
        Some(Around { at, before, after })
    }

    /// Adds the line of a row that differs in one cell; adds nothing if the text is too wide.
    fn push_inside(&self, around: &Around, text: &str, lines: &mut String) -> bool {
        let width = self.given.get(around.at).copied().unwrap_or_default();
        let Some(blanks) = width.checked_sub(text.len()).filter(|_| is_printable_ascii(text))
        else {
            return false;
        };
        lines.push_str(&around.before);
        lines.push_str(text);
        lines.extend(std::iter::repeat_n(' ', blanks));
        lines.push_str(&around.after);
        true
    }

    /// The widths that the cells need, reduced to the width of the terminal.
    fn fitting_widths(&self) -> Vec<usize> {
        let mut given = self.widths.clone();
        let (Some(max), Some((_, head))) = (self.width_max, given.split_last_mut()) else {
            return given;
        };
        let gaps = GAP.len() * head.len().saturating_sub(1);
        let needed = |head: &[usize]| gaps + head.iter().sum::<usize>();
        if needed(head) <= max {
            return given;
        }
        // The header ends with the mark of its cut title, which needs room too.
        while needed(head) + GAP.len() > max {
            let texts = head.iter_mut().zip(&self.columns);
            let texts = texts.filter(|(_, (_, align))| *align == Align::Left);
            let widest = texts.map(|(width, _)| width).max_by_key(|width| **width);
            match widest.filter(|width| **width > TEXT_WIDTH_MIN) {
                Some(width) => *width -= 1,
                None => break,
            }
        }
        given
    }

    /// Adds the line of a row if nothing in it has to be cut or continued, as is the case for almost
    /// every row of a long list; else adds nothing. The line is that of [`Table::layout`].
    fn push_whole(&self, cells: &[Cell], lines: &mut String) -> bool {
        let Some(last) = cells.iter().rposition(|cell| !cell.text.is_empty()) else { return false };
        let placed = || cells.iter().zip(&self.given).zip(&self.columns).take(last + 1).enumerate();
        let mut width = GAP.len() * last;
        for (at, ((cell, given), (_, align))) in placed() {
            let own = columns(&cell.text);
            if own > *given && at + 1 < self.columns.len() {
                return false;
            }
            width += if at == last && *align == Align::Left { own } else { own.max(*given) };
        }
        if self.width_max.is_some_and(|max| width > max) || cells.len() > self.columns.len() {
            return false;
        }
        let start = lines.len();
        for (at, ((cell, given), (_, align))) in placed() {
            if at > 0 {
                lines.push_str(GAP);
            }
            let blanks = given.saturating_sub(columns(&cell.text));
            let word = cell.text.trim_end();
            let before = if *align == Align::Right { blanks } else { 0 };
            let after = if *align == Align::Left && at != last { blanks } else { 0 };
            if self.has_colour && cell.paint != Paint::Plain {
                // As layout: blanks in front of a number are inside of its colour.
                let text = format!("{:before$}{word}", "");
                if !word.is_empty() {
                    lines.push_str(&cell.paint.on(&text));
                } else {
                    lines.push_str(&text);
                }
            } else {
                lines.extend(std::iter::repeat_n(' ', before));
                lines.push_str(word);
            }
            lines.extend(std::iter::repeat_n(' ', after + cell.text.len() - word.len()));
        }
        let written = lines.get(start..).map_or(0, |line| line.trim_end().len());
        lines.truncate(start + written);
        lines.push('\n');
        true
    }

    fn layout(&self, cells: &[Cell]) -> String {
        let last = cells.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or_default();
        let padded = |at: usize| -> String {
            let text = cells.get(at).map_or("", |cell| cell.text.as_str());
            let width = self.given.get(at).copied().unwrap_or_default();
            let is_head = at + 1 < self.columns.len();
            let text = if is_head { without_middle(text, width) } else { text.to_owned() };
            let blanks = " ".repeat(width.saturating_sub(text.width()));
            match self.columns.get(at) {
                Some((_, Align::Right)) => blanks + &text,
                _ if at == last => text,
                _ => text + &blanks,
            }
        };
        let texts: Vec<String> = (0..=last).map(padded).collect();
        let is_too_wide = |texts: &[String]| {
            let gaps = GAP.len() * texts.len().saturating_sub(1);
            let width = gaps + texts.iter().map(|text| text.width()).sum::<usize>();
            self.width_max.filter(|max| width > *max)
        };
        let Some(max) = is_too_wide(&texts) else { return self.line(&texts, cells, None) };
        // The last column is text: better continued below than cut.
        let is_continued = self.header_written && last > 0 && last + 1 == self.columns.len();
        let Some((text, head)) = texts.split_last().filter(|_| is_continued) else {
            return self.line(&texts, cells, Some(max));
        };
        let mut lines = self.line(head, cells, is_too_wide(head));
        for more in wrap(text, max.saturating_sub(INDENT.len()).max(20), LINES_BELOW_MAX) {
            lines.push_str(INDENT);
            lines.push_str(&more);
            lines.push('\n');
        }
        lines
    }

    /// Formats one line, cut to `max` terminal columns.
    fn line(&self, texts: &[String], cells: &[Cell], max: Option<usize>) -> String {
        let mut line = String::new();
        let mut left = max.map_or(usize::MAX, |max| max.saturating_sub(1));
        for (at, (text, cell)) in texts.iter().zip(cells).enumerate() {
            let gap = if at > 0 { GAP } else { "" };
            let room = left.saturating_sub(gap.len());
            let shown = start(text, room);
            line.push_str(gap.get(..left.min(gap.len())).unwrap_or_default());
            let paint = if self.has_colour { cell.paint } else { Paint::Plain };
            // Blanks that fill the column are not coloured.
            let word = shown.trim_end();
            let blanks = shown.len() - word.len();
            line.push_str(&if word.is_empty() { String::new() } else { paint.on(word) });
            line.push_str(&" ".repeat(blanks));
            left = room.saturating_sub(shown.width());
        }
        line.truncate(line.trim_end().len());
        if max.is_some() {
            line.push('…');
        }
        line.push('\n');
        line
    }
}

/// Whether every octet is a printable ASCII character: one terminal column each, and safe to print.
fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|octet| matches!(octet, b' '..=b'~'))
}

/// The width of `text` in terminal columns.
fn columns(text: &str) -> usize {
    if is_printable_ascii(text) { text.len() } else { text.width() }
}

/// The start of `text`, up to `width` terminal columns.
fn start(text: &str, width: usize) -> &str {
    let mut used = 0;
    let mut fits = |c: char| {
        used += c.width().unwrap_or_default();
        used <= width
    };
    let octets: usize = text.chars().take_while(|c| fits(*c)).map(char::len_utf8).sum();
    text.get(..octets).unwrap_or_default()
}

/// The text if it fits, else its start and its end, as long names often differ only at the end.
pub(in crate::cli) fn without_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let head = start(text, room.div_ceil(2));
    let mut tail = text;
    while head.width() + tail.width() > room {
        let mut chars = tail.chars();
        chars.next();
        tail = chars.as_str();
    }
    format!("{head}…{tail}")
}

/// The indentation of lines that continue a row.
const INDENT: &str = "    ";
/// Maximum number of lines that continue a row; longer text is cut.
const LINES_BELOW_MAX: usize = 4;

/// Wraps `text` at blanks into at most `lines_max` lines of `width` columns.
pub(in crate::cli) fn wrap(text: &str, width: usize, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    if lines.len() > lines_max {
        lines.truncate(lines_max);
        if let Some(line) = lines.last_mut() {
            line.push_str(" …");
        }
    }
    lines
}

/// The text with control characters and direction marks replaced: names and messages may come from
/// peers and must not move the cursor, change colours or reverse text.
pub(in crate::cli) fn clean(text: &str) -> String {
    let is_safe = |c: char| !c.is_control() && !is_direction_mark(c);
    text.chars().map(|c| if is_safe(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &mut Table, rows: &[[&str; 3]]) -> String {
        let mut out = Vec::new();
        for row in rows {
            let cells = row.iter().map(|text| Cell::from((*text).to_owned())).collect();
            table.row(cells, &mut out).unwrap();
        }
        table.flush(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const COLUMNS: [(&str, Align); 3] =
        [("A", Align::Left), ("NUMBER", Align::Right), ("REST", Align::Left)];

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let text = written(&mut plain(None), &[["x", "1", ""], ["äöü", "1000000", "some words"]]);
        assert_eq!(text, "A     NUMBER  REST\nx          1\näöü  1000000  some words\n");
    }

    fn plain(width: Option<usize>) -> Table {
        Table::new(&COLUMNS, width, false)
    }

    #[test]
    fn text_that_does_not_fit_continues_below() {
        let words = "one two three four five six seven eight nine ten eleven twelve thirteen";
        let text = written(&mut plain(Some(24)), &[["ä", "1", words], ["b", "2", ""]]);
        let wanted = "A  NUMBER  REST\nä       1\n    one two three four\n    five six seven eight\n    \
                      nine ten eleven\n    twelve thirteen\nb       2\n";
        assert_eq!(text, wanted);
        let long = format!("{words} {words}");
        let text = written(&mut plain(Some(24)), &[["a", "1", &long]]);
        assert!(text.ends_with(" …\n") && text.lines().count() == 6, "{text}");
        assert!(
            written(&mut plain(None), &[["a", "1", &long]]).contains(&long),
            "nothing is cut in a pipe"
        );
    }

    #[test]
    fn lines_are_cut_at_characters_to_the_width_of_the_terminal() {
        let text = written(&mut plain(Some(9)), &[["ööööö", "1", ""], ["b", "2", ""]]);
        assert_eq!(text, "A      N…\nööööö…\nb…\n", "cut lines end with a mark");
    }

    /// One peer with a long name must not push the states of all others out of view.
    #[test]
    fn long_texts_lose_their_middle_before_other_columns_are_cut() {
        let long = format!("Node_{}_port_1790", "fd00_".repeat(12));
        let text =
            written(&mut plain(Some(40)), &[[long.as_str(), "12", "words"], ["b", "345", ""]]);
        let wanted = "A                               NUMBER…\n\
                      Node_fd00_fd00_…d00__port_1790      12\n    words\n\
                      b                                  345\n";
        assert_eq!(text, wanted);
        assert!(written(&mut plain(None), &[[long.as_str(), "12", "words"]]).contains(&long));
    }

    #[test]
    fn widths_are_in_terminal_columns() {
        let text = written(&mut plain(None), &[["日本", "1", "x"], ["e\u{301}", "2", "y"]]);
        assert_eq!(text, "A     NUMBER  REST\n日本       1  x\ne\u{301}          2  y\n");
        let text =
            written(&mut plain(Some(20)), &[["日本日本日本日本日本日本日本日本日本", "1", ""]]);
        assert_eq!(text, "A             NUMBE…\n日本日…日本        1\n", "no half characters");
        assert_eq!(start("日本", 3), "日");
    }

    #[test]
    fn colours_enclose_words_and_do_not_count_as_width() {
        let mut table = Table::new(&COLUMNS, Some(40), true);
        let mut out = Vec::new();
        let cells = vec![
            Cell::painted("up", Paint::Good),
            Cell::from("1".to_owned()),
            Cell::painted("", Paint::Bad),
        ];
        table.row(cells, &mut out).unwrap();
        table.flush(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let wanted = "\u{1b}[1mA\u{1b}[0m   \u{1b}[1mNUMBER\u{1b}[0m  \u{1b}[1mREST\u{1b}[0m\n\
                      \u{1b}[32mup\u{1b}[0m       1\n";
        assert_eq!(text, wanted);
    }

    /// The shorter way to a line gives the same line as the one that can cut and wrap.
    #[test]
    fn whole_rows_are_laid_out_as_others() {
        let texts = ["", "x", "12", "日本", "e\u{301}", "some words", "ends blank "];
        for (has_colour, width) in
            [(false, None), (true, None), (false, Some(40)), (true, Some(22)), (true, Some(14))]
        {
            let mut table = Table::new(&COLUMNS, width, has_colour);
            table.widths = vec![11, 11, 11];
            table.header_written = true;
            table.given = table.fitting_widths();
            let (mut whole, mut rows) = (0, 0);
            for at in 0..texts.len().pow(3) {
                let text = |n: usize| texts[at / texts.len().pow(2 - n as u32) % texts.len()];
                let paints = [Paint::Good, Paint::Plain, Paint::Bad];
                let cell = |n: usize| Cell::painted(text(n), paints[(n + at) % 3]);
                let row: Vec<Cell> = (0..3).map(cell).collect();
                let mut line = String::new();
                rows += 1;
                if table.push_whole(&row, &mut line) {
                    whole += 1;
                    assert_eq!(line, table.layout(&row), "{row:?}");
                } else {
                    assert_eq!(line, "");
                }
            }
            let fits_always = width.is_none_or(|width| width == 40);
            assert_eq!(whole == rows - 1, fits_always, "{whole} of {rows}: only the empty row");
        }
    }

    #[test]
    fn every_table_has_one_header() {
        assert_eq!(written(&mut plain(None), &[]), "A  NUMBER  REST\n");
        let rows = vec![["x", "1", "y"]; 3 * BATCH_ROWS + 1];
        let text = written(&mut plain(None), &rows);
        assert_eq!(text.lines().count(), rows.len() + 1);
        assert_eq!(text.matches("NUMBER").count(), 1);
    }

    #[test]
    fn text_from_peers_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    }
}
