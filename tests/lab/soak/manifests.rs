//! The storm's ConfigMaps and TrafficSplits, and the texts of their files. Every
//! line of a file says which state it is of, so that half a file and half a change are seen.

use std::fmt::Write;

/// A ConfigMap, as it always is.
pub struct Shape {
    pub name: &'static str,
    /// How many keys it has, at most.
    pub keys: usize,
    /// Of each file, at most.
    pub bytes: usize,
    /// Keys and sizes differ from state to state.
    pub varied: bool,
    /// The splits whose virtual hosts are in its first key.
    pub splits: &'static [usize],
}

const fn shape(name: &'static str, keys: usize, bytes: usize, splits: &'static [usize]) -> Shape {
    Shape {
        name,
        keys,
        bytes,
        varied: false,
        splits,
    }
}

pub const MAPS: [Shape; 8] = [
    shape("tiny", 1, 0, &[]),
    shape("two", 2, 2 << 10, &[]),
    shape("four", 3, 4 << 10, &[0]),
    shape("routes", 1, 8 << 10, &[0, 1]),
    shape("sixteen", 4, 4 << 10, &[]),
    shape("big", 1, 63 << 10, &[]),
    shape("large", 2, 32 << 10, &[2]),
    Shape {
        varied: true,
        ..shape("varied", 4, 32 << 10, &[1])
    },
];
pub const SPLITS: [&str; 3] = ["s0", "s1", "s2"];
/// What the weights of a split add up to.
pub const TOTAL: u64 = 1_000_000;

/// The file of a ConfigMap's key in one of its states, some `bytes` long, with these states of the
/// splits merged in.
pub fn text(
    [map, key, number]: [usize; 3],
    bytes: usize,
    merged: impl Fn(usize) -> Option<usize>,
) -> String {
    let shape = &MAPS[map];
    let mut text = String::with_capacity(bytes + 1024);
    let _ = write!(
        text,
        "# soak {map} {key} {number}\nresources:\n- name: r{number}\n  virtual_hosts:\n"
    );
    let splits = if key == 0 { shape.splits } else { &[] };
    for &split in splits {
        let [primary, canary] = backends(SPLITS[split]);
        let [one, other] = weights_of(merged(split));
        let _ = write!(
            text,
            "  - name: {service}\n    domains: [{service}]\n    routes:\n    \
             - match: {{prefix: /{number}}}\n      route:\n        weighted_clusters:\n          \
             clusters:\n          - {{name: {primary}, weight: {one}}}\n          \
             - {{name: {canary}, weight: {other}}}\n",
            service = SPLITS[split],
        );
    }
    // Weights may make it longer, never shorter.
    let mut left = bytes.saturating_sub(1024);
    for line in 0.. {
        let start = text.len();
        let _ = writeln!(
            text,
            "  - {{name: v{line}-{number}, domains: [\"v{line}.{key}.{number}.example\"]}}"
        );
        left = left.saturating_sub(text.len() - start);
        if left == 0 {
            break;
        }
    }
    let _ = writeln!(text, "# end {number}");
    text
}

/// The key of a file.
pub fn file_name(map: usize, key: usize) -> String {
    format!("{}-{key}.yaml", MAPS[map].name)
}

/// The services that a split shares its requests between.
pub fn backends(split: &str) -> [String; 2] {
    [format!("{split}-primary"), format!("{split}-canary")]
}

/// Their weights in a state of the split; `None`: the ConfigMap's own.
pub fn weights_of(split: Option<usize>) -> [u64; 2] {
    match split {
        None => [60, 40],
        Some(state) => [state as u64, TOTAL - state as u64],
    }
}

/// The state of a split whose weights a text has.
pub fn merged_state(text: &str, split: &str) -> Option<usize> {
    let [primary, canary] = backends(split).map(|name| {
        let mark = format!("name: {name}, weight: ");
        let rest = &text[text.find(&mark)? + mark.len()..];
        rest.split('}').next()?.parse::<usize>().ok()
    });
    match (primary, canary) {
        (Some(60), Some(40)) => None,
        (primary, _) => Some(primary.unwrap_or(usize::MAX)),
    }
}
