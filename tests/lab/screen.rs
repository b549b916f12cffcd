//! The output of the demo, in 78 columns: a row for each step, redrawn while the step lasts if stdout
//! is a terminal, and otherwise one plain line when it has ended.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Cells of a bar.
const BAR: usize = 26;
const BLUE: &str = "34";
const GREEN: &str = "32";
const RED: &str = "1;31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// One step, as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What the cluster says; `None`: not known here.
    pub weights: Option<[u32; 2]>,
    /// The part of the answers that the first backend gave, 0 to 1, and the other.
    pub shares: Option<[f64; 2]>,
    /// How many answers that was.
    pub answers: u64,
    /// From the change to the file.
    pub file: Option<Duration>,
    /// From the change to the first answer by the new weights.
    pub traffic: Option<Duration>,
    /// Requests that were not answered with a 200.
    pub failed: usize,
}

impl Row {
    /// Whether the share is what the weights say, but for chance: six standard deviations.
    pub fn is_likely(&self) -> bool {
        let (Some([one, other]), Some([share, _])) = (self.weights, self.shares) else {
            return false;
        };
        let want = f64::from(one) / f64::from(one + other);
        let deviation = (want * (1.0 - want) / self.answers as f64).sqrt();
        (share - want).abs() <= 6.0 * deviation
    }
}

/// Stdout.
pub struct Screen {
    live: bool,
    colours: bool,
    glyphs: [char; 2],
}

impl Screen {
    /// Looks what stdout is.
    pub fn new() -> Screen {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let live = io::stdout().is_terminal() && !dumb;
        // A locale that is not set says nothing about the terminal.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let unicode =
            locale.is_none_or(|l| l.to_ascii_lowercase().replace('-', "").contains("utf8"));
        Screen {
            live,
            colours: live && set("NO_COLOR").is_none(),
            glyphs: if live && unicode {
                ['█', '░']
            } else {
                ['#', '.']
            },
        }
    }

    /// A line of text.
    pub fn say(&self, text: &str) {
        self.put(&format!("{text}\n"));
    }

    /// The title.
    pub fn title(&self, text: &str) {
        self.say(&self.paint(BOLD, text));
    }

    /// A name and what it is, aligned.
    pub fn fact(&self, name: &str, text: &str) {
        self.say(&format!(
            "  {}{text}",
            self.paint(DIM, &format!("{name:<11}"))
        ));
    }

    /// The heads of the columns.
    pub fn heads(&self) {
        let heads = format!(
            "\n  {:<9}{:<width$}{:>8}{:>10}{:>8}",
            "weights",
            "share of the answers",
            "file",
            "traffic",
            "failed",
            width = BAR + 17
        );
        self.say(&self.paint(DIM, &heads));
    }

    /// What the next steps are, and which part of a bar is whose.
    pub fn part(&self, title: &str, backends: [&str; 2]) {
        let [first, other] = self.glyphs.map(|glyph| glyph.to_string().repeat(2));
        let [first, other] = [self.paint(BLUE, &first), self.paint(GREEN, &other)];
        let [one, two] = backends;
        self.say(&format!("\n  {}", self.paint(BOLD, title)));
        self.say(&format!("  {first} {one}   {other} {two}"));
    }

    /// A step that goes on.
    pub fn draw(&self, row: &Row) {
        if self.live {
            self.put(&format!("\r{}\x1b[K", self.line(row)));
        }
    }

    /// A step that has ended.
    pub fn settle(&self, row: &Row) {
        self.draw(row);
        if self.live {
            self.say("");
        } else {
            self.say(&self.line(row));
        }
    }

    fn line(&self, row: &Row) -> String {
        let weights = match row.weights {
            Some([one, other]) => format!("{one:>3} {other:>3}"),
            None => format!("{:>7}", "now"),
        };
        let shares = row.shares.map_or_else(String::new, |[one, other]| {
            format!("{:5.1} {:5.1} %", one * 100.0, other * 100.0)
        });
        let failed = format!("{:>8}", row.failed);
        format!(
            "  {weights}  {}  {shares:<13}  {}{}{}",
            self.bar(row.shares),
            time(row.file, 8),
            time(row.traffic, 10),
            if row.failed == 0 {
                failed
            } else {
                self.paint(RED, &failed)
            },
        )
    }

    fn bar(&self, shares: Option<[f64; 2]>) -> String {
        let Some([share, _]) = shares else {
            return " ".repeat(BAR);
        };
        let cells = (share * BAR as f64).round() as usize;
        let [first, other] = self.glyphs;
        let first = first.to_string().repeat(cells);
        let other = other.to_string().repeat(BAR - cells);
        self.paint(BLUE, &first) + &self.paint(GREEN, &other)
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours && !text.is_empty() {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    /// A reader that went away is not a reason to stop cleaning up.
    fn put(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Milliseconds, right-aligned.
fn time(time: Option<Duration>, width: usize) -> String {
    let text = time.map_or_else(String::new, |t| format!("{:.1} ms", t.as_secs_f64() * 1e3));
    format!("{text:>width$}")
}
