//! Inserts a missing weight. Owns: its place behind its cluster's name, and its layout, which is
//! that of the text around it. Must not: decide what it is.

use super::edit::Insert;
use crate::xds::yaml;

/// Writes `, weight: ` with quotes and spaces as in `name: x`, `"name": "x"` or `"name":"x"`.
pub(super) fn in_flow(field: &str) -> Insert {
    let quote = field.get(..1).filter(|q| matches!(*q, "\"" | "'"));
    let quote = quote.unwrap_or("");
    let tight = !quote.is_empty() && field[1..].contains(&format!("{quote}:{quote}"));
    let space = if tight { "" } else { " " };
    Insert {
        before: format!(",{space}{quote}weight{quote}:{space}"),
        after: String::new(),
    }
}

/// Writes a line of its own below the name's, at the same column.
pub(super) fn in_block(text: &str, key_at: usize, value_end: usize) -> Option<(usize, Insert)> {
    let line_start = text[..key_at].rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let lead = &text[line_start..key_at];
    let rest = &text[value_end..];
    let line_end = rest.find(['\n', '\r']).unwrap_or(rest.len());
    let tail = rest[..line_end].trim_start_matches([' ', '\t']);
    let one_line = !text[key_at..value_end].contains(['\n', '\r']);
    if !one_line
        || !lead.is_ascii()
        || lead.contains('\t')
        || !(tail.is_empty() || tail.starts_with('#'))
    {
        return None;
    }
    let newline = yaml::line_end(text);
    let lead = lead.len();
    let before = format!("{newline}{}weight: ", " ".repeat(lead));
    let after = String::new();
    Some((value_end + line_end, Insert { before, after }))
}
