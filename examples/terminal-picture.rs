//! Makes a picture of what a command printed: reads it from standard input, writes an SVG. The words are the command as
//! it was typed. `just picture` makes the README's.

use std::io::{Read as _, Write as _};

use anstyle::{Ansi256Color, RgbColor, Style};
use anstyle_svg::Term;

/// Dark, as terminals mostly are, and readable on a page of either colour.
const TERMINAL: Term = Term::new()
    .bg_color(anstyle::Color::Rgb(RgbColor(22, 27, 34)))
    .fg_color(anstyle::Color::Rgb(RgbColor(230, 237, 243)))
    .palette(anstyle_svg::WIN10_CONSOLE);
const PROMPT: Style = Ansi256Color(12).on_default().bold();

fn main() -> std::io::Result<()> {
    let typed = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let mut printed = String::new();
    std::io::stdin().read_to_string(&mut printed)?;
    let screen = format!("{PROMPT}${PROMPT:#} {typed}\n\n{}", printed.trim_end());
    std::io::stdout().write_all(TERMINAL.render_svg(&screen).as_bytes())
}
