//! The measurements of the bench: a row for each, printed as it comes, and all of them as JSON.

use serde_json::{Map, Value, json};
use std::fmt;

/// The column of what is measured; all others are compared with it.
pub const OURS: &str = "crossover";
/// A program that does nothing.
pub const HELLO: &str = "hello";
/// A program that reads and renames.
pub const LOOP: &str = "loop";
/// Another crossover.
pub const BASELINE: &str = "baseline";

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Kib,
    Ms,
    Number,
}

/// What a figure is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    /// So many times what this column has.
    TimesOf(&'static str, f64),
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    figure: String,
    unit: Unit,
    values: Vec<(&'static str, f64)>,
    goal: Option<Goal>,
}

impl Row {
    /// Of what was measured, by column.
    pub fn new(figure: &str, unit: Unit, values: Vec<(&'static str, f64)>) -> Row {
        Row {
            figure: figure.to_string(),
            unit,
            values,
            goal: None,
        }
    }

    /// The same, with a goal.
    pub fn goal(mut self, goal: Goal) -> Row {
        self.goal = Some(goal);
        self
    }

    fn value(&self, column: &str) -> Option<f64> {
        let found = self.values.iter().find(|(name, _)| *name == column);
        found.map(|(_, value)| *value)
    }

    /// What we take, in parts of what another column has.
    fn ratio(&self, column: &str) -> Option<f64> {
        let (ours, other) = (self.value(OURS)?, self.value(column)?);
        (column != OURS && other > 0.0).then(|| ours / other)
    }

    fn is_met(&self) -> Option<bool> {
        match self.goal? {
            Goal::AtMost(most) => Some(self.value(OURS)? <= most),
            Goal::TimesOf(column, most) => Some(self.ratio(column)? <= most),
        }
    }

    fn show(&self, value: f64) -> String {
        match self.unit {
            Unit::Ms => format!("{value:.2} ms"),
            Unit::Bytes | Unit::Number => grouped(value),
            Unit::Kib => format!("{} KiB", grouped(value)),
        }
    }

    fn cell(&self, column: &str) -> String {
        let value = self.value(column).map(|value| self.show(value));
        let ratio = self.ratio(column).map(|ratio| format!("{ratio:.2}x"));
        match column {
            OURS => format!("{:>14}", value.unwrap_or_default()),
            _ => format!(
                "{:>14} {:>7}",
                value.unwrap_or_default(),
                ratio.unwrap_or_default()
            ),
        }
    }

    /// `of`: the row that an indented one belongs to.
    fn json(&self, of: &str) -> Value {
        let values: Map<_, _> = self
            .values
            .iter()
            .map(|(name, value)| (name.to_string(), json!(value)))
            .collect();
        let ratios: Map<_, _> = self
            .values
            .iter()
            .filter_map(|(name, _)| Some((name.to_string(), json!(self.ratio(name)?))))
            .collect();
        let unit = match self.unit {
            Unit::Bytes => "bytes",
            Unit::Kib => "KiB",
            Unit::Ms => "ms",
            Unit::Number => "",
        };
        json!({
            "figure": self.figure.trim(), "of": of.trim(), "unit": unit, "values": values, "ratios": ratios,
            "goal": self.goal.map(|goal| goal.to_string()), "met": self.is_met(),
        })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtMost(most) => write!(f, "{}", grouped(*most)),
            Goal::TimesOf(column, most) => write!(f, "{most}x {column}"),
        }
    }
}

/// All figures.
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Table {
    /// Prints the heads.
    pub fn new(columns: Vec<&'static str>) -> Table {
        let heads = columns.iter().map(|column| match *column {
            OURS => format!("{OURS:>14}"),
            _ => format!("{column:>14} {:>7}", "ratio"),
        });
        let heads: Vec<String> = heads.collect();
        println!("{:<41}{}  goal", "", heads.join(" "));
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Prints a row, and keeps it.
    pub fn push(&mut self, row: Row) {
        let cells = self.columns.iter().map(|column| row.cell(column));
        let cells: Vec<String> = cells.collect();
        let verdict = match row.is_met() {
            Some(true) => ": met",
            Some(false) => ": MISSED",
            None => "",
        };
        let goal = row.goal.map(|goal| format!("{goal}{verdict}"));
        let line = format!(
            "{:<41}{}  {}",
            row.figure,
            cells.join(" "),
            goal.unwrap_or_default()
        );
        println!("{}", line.trim_end());
        self.rows.push(row);
    }

    /// All of it, for programs.
    pub fn json(&self) -> Value {
        let mut of = "";
        let rows = self.rows.iter().map(|row| {
            if !row.figure.starts_with(' ') {
                of = &row.figure;
            }
            row.json(of)
        });
        rows.collect()
    }
}

/// 1,234,567
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    let groups: Vec<_> = groups.into_iter().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
