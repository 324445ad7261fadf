//! Where text is put on the screen: no control character of a neighbour's passes, and no colour is
//! white or black, which are invisible on one half of all terminals.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};
use unicode_width::UnicodeWidthStr;

use crate::cli::render::{Colour, clean, without_middle};

/// The meaning of a text, which determines its style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tint {
    Plain,
    Good,
    Pending,
    Bad,
    Strong,
    Faint,
    /// Heads of columns.
    Head,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ink(pub(super) Colour);

impl Ink {
    fn style(self, tint: Tint) -> Style {
        let colour = |colour: Color| match self.0 {
            Colour::On => Style::new().fg(colour),
            Colour::Off => Style::new(),
        };
        match tint {
            Tint::Plain => Style::new(),
            Tint::Good => colour(Color::Green),
            Tint::Pending => colour(Color::Yellow),
            Tint::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Tint::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tint::Faint => Style::new().add_modifier(Modifier::DIM),
            Tint::Head => Style::new().add_modifier(Modifier::UNDERLINED),
        }
    }
}

/// How text is placed in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// A line of the screen that is being written from left to right.
pub(super) struct Line<'a> {
    buffer: &'a mut Buffer,
    ink: Ink,
    x: u16,
    y: u16,
}

impl<'a> Line<'a> {
    /// The line `y`, empty; writing outside of the screen has no effect.
    pub(super) fn new(buffer: &'a mut Buffer, ink: Ink, y: u16) -> Self {
        let x = buffer.area.x;
        Line { buffer, ink, x, y }
    }

    /// Columns to the right edge.
    pub(super) fn room(&self) -> usize {
        usize::from(self.buffer.area.right().saturating_sub(self.x))
    }

    /// Writes as much of a text as fits.
    pub(super) fn put(&mut self, text: &str, tint: Tint) {
        if self.y >= self.buffer.area.bottom() {
            return;
        }
        let (text, room) = (clean(text), self.room());
        let (x, _) = self.buffer.set_stringn(self.x, self.y, text, room, self.ink.style(tint));
        self.x = x;
    }

    /// Writes a text in a column of this width, and a blank behind it.
    pub(super) fn column(&mut self, text: &str, width: usize, side: Side, tint: Tint) {
        let width = width.min(self.room());
        let text = without_middle(&clean(text), width);
        let pad = " ".repeat(width.saturating_sub(text.width()));
        let (text, pad) = match side {
            Side::Left => (text + &pad, " "),
            Side::Right => (pad + &text, " "),
        };
        self.put(&text, tint);
        self.put(pad, tint);
    }

    /// Marks the whole line as the chosen one.
    pub(super) fn choose(&mut self) {
        let area = self.buffer.area;
        for x in area.x..area.right() {
            if let Some(cell) = self.buffer.cell_mut((x, self.y)) {
                cell.modifier.insert(Modifier::REVERSED);
            }
        }
    }
}
