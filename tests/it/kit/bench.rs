//! `make bench`, in a short form: that every figure can be measured, not what it is.

use crate::kit::demo::lab;
use serde_json::Value;
use std::fs;
use std::process::Command;
use tempfile::TempDir;
use testkit::candidate::release;
use testkit::crossover::Crossover;

#[test]
fn every_figure_is_measured_beside_its_floor_and_another_crossover() {
    let temp = TempDir::new().unwrap();
    let json = temp.path().join("bench.json");
    let mut command = Command::new(lab());
    command.args(["bench", "--quick", "--json"]).arg(&json);
    command.arg("--baseline").arg(release("crossover"));
    let bench = Crossover::spawn(command);
    for figure in [
        "RSS, 3",
        "merged",
        "-onetime",
        "TrafficSplit changed",
        "4 watched",
        "STATIC, path",
        "in a row",
    ] {
        bench.wait_for_stdout(figure, |text| text.contains(figure));
    }
    let finished = bench.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);

    let figures: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let figures = figures.as_array().unwrap();
    // A head, and a line for each.
    assert_eq!(finished.stdout.lines().count(), 1 + figures.len());
    for figure in figures {
        let name = figure["figure"].as_str().unwrap();
        let columns: &[&str] = match name {
            "binary, bytes" | "RSS, 3 idle TLS watches" | "exec to first byte sent, median" => {
                &["crossover", "hello", "loop", "baseline"]
            }
            _ if name.starts_with("image") || is_of_verdicts(figure) => &["crossover"],
            _ if is_of_order(figure) => &["crossover", "baseline"],
            _ => &["crossover", "loop", "baseline"],
        };
        for column in columns {
            let value = figure["values"][column].as_f64().unwrap_or(-1.0);
            let is_nothing = is_of_order(figure) || is_of_verdicts(figure);
            let may_be_none = name.starts_with("wake-ups") || name == "CPU" || is_nothing;
            assert!(value > 0.0 || (may_be_none && value == 0.0), "{figure}");
        }
        let goal = figure["goal"].as_str();
        assert_eq!(goal.is_some(), figure["met"].is_boolean(), "{figure}");
        assert!(finished.stdout.contains(name), "{name}");
    }
    // The same program on both sides takes the same.
    for alike in ["binary, bytes", "threads"] {
        let figure = figures.iter().find(|f| f["figure"] == alike).unwrap();
        assert_eq!(figure["ratios"]["baseline"], 1.0, "{figure}");
    }
    let goals = figures.iter().filter(|f| f["goal"].is_string()).count();
    assert_eq!(goals, 14);
}

/// Whether it is of Envoy's verdicts, which are measured of our program alone.
fn is_of_verdicts(figure: &Value) -> bool {
    let names = [&figure["figure"], &figure["of"]];
    names
        .iter()
        .any(|name| name.as_str().unwrap().contains("verdict"))
}

/// Whether it is of Envoys whose clusters are replaced: all may go well.
fn is_of_order(figure: &Value) -> bool {
    [&figure["figure"], &figure["of"]].iter().any(|name| {
        let name = name.as_str().unwrap();
        name.contains(" replaced")
    })
}
