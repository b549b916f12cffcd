//! Clusters put into a file's text, as the real Envoy sees them: each is what it was before, and so
//! is all that stood there.

use crossover::testing::FileName;
use crossover::testing::sequence::{Declined, clusters_of, union};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use testkit::envoy::Envoy;
use testkit::until;

const TYPE: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// An Envoy that is offered one file of clusters after the other.
struct Clusters {
    envoy: Envoy,
    dir: TempDir,
    file: &'static str,
}

/// What Envoy counts.
struct Counts {
    taken: u64,
    refused: u64,
    modified: u64,
}

impl Clusters {
    fn start(file: &'static str) -> Clusters {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(file);
        fs::write(&path, r#"{"resources": []}"#).unwrap();
        let envoy = Envoy::start(&format!(
            "node: {{id: union, cluster: union}}\ndynamic_resources: {{cds_config: \
             {{resource_api_version: V3, path_config_source: {{path: \"{}\"}}}}}}\n",
            path.display()
        ));
        Clusters { envoy, dir, file }
    }

    fn counts(&self) -> Counts {
        let stats = self.envoy.get("/stats?filter=^cluster_manager");
        let count = |name: &str| -> u64 {
            let mut lines = stats.lines();
            let count = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            count.map_or(0, |count| count.parse().unwrap())
        };
        Counts {
            taken: count("cluster_manager.cds.update_success"),
            refused: count("cluster_manager.cds.update_failure")
                + count("cluster_manager.cds.update_rejected"),
            modified: count("cluster_manager.cluster_modified"),
        }
    }

    /// Offers a text that must be taken; returns how many clusters are others than before.
    #[track_caller]
    fn offer(&self, what: &str, text: &[u8]) -> u64 {
        let before = self.counts();
        let staged = self.dir.path().join("staged");
        fs::write(&staged, text).unwrap();
        fs::rename(&staged, self.dir.path().join(self.file)).unwrap();
        let after = until(what, || {
            let now = self.counts();
            let text = || String::from_utf8_lossy(text);
            assert_eq!(
                now.refused,
                before.refused,
                "{what}: {}\n{}",
                self.envoy.log(),
                text()
            );
            (now.taken > before.taken).then_some(now)
        });
        after.modified - before.modified
    }

    /// The names of the clusters that are there, sorted.
    fn names(&self) -> Vec<String> {
        let dump = self
            .envoy
            .json("/config_dump?resource=dynamic_active_clusters&mask=cluster.name");
        let all = dump["configs"].as_array().cloned().unwrap_or_default();
        let name = |config: &Value| config["cluster"]["name"].as_str().map(str::to_owned);
        let mut names: Vec<String> = all.iter().filter_map(name).collect();
        names.sort();
        names
    }

    fn name(&self) -> FileName {
        FileName::new(self.file).unwrap()
    }

    /// Offers `old`, then `new` with what vanishes, then `new`; returns how many clusters are
    /// others than before, in all.
    #[track_caller]
    fn change(&self, what: &str, old: &str, new: &str) -> Result<u64, Declined> {
        let (name, target) = (self.name(), new.as_bytes().into());
        let (olds, news) = (
            clusters_of(&name, old.as_bytes())?,
            clusters_of(&name, new.as_bytes())?,
        );
        let is_new = |of: &str| news.iter().any(|new| new.name == of);
        let gone = olds.iter().filter(|old| !is_new(&old.name));
        let lines: Result<Vec<_>, _> = gone.map(|old| old.line.clone()).collect();
        let lines = lines?;
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        let union = union(&name, &target, &lines)?;
        self.offer(what, old.as_bytes());
        let names = |all: &[_]| {
            let mut names: Vec<String> = all.to_vec();
            names.sort();
            names.dedup();
            names
        };
        let olds: Vec<String> = olds.into_iter().map(|old| old.name).collect();
        let news: Vec<String> = news.into_iter().map(|new| new.name).collect();
        assert_eq!(self.names(), names(&olds), "{what}: {old}");
        let modified = self.offer(what, &union.bytes);
        let all = names(&[olds, news.clone()].concat());
        let text = String::from_utf8_lossy(&union.bytes);
        assert_eq!(self.names(), all, "{what}: {text}");
        let modified = modified + self.offer(what, new.as_bytes());
        assert_eq!(self.names(), names(&news), "{what}: {new}");
        Ok(modified)
    }
}

#[test]
fn envoy_takes_each_case_and_sees_no_cluster_change() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/union");
    let envoys = ["cds.yaml", "cds.json"].map(Clusters::start);
    let mut count = 0;
    for case in fs::read_dir(data).unwrap() {
        let case = case.unwrap().path();
        for (extension, envoy) in [("yaml", &envoys[0]), ("json", &envoys[1])] {
            let file = |name: &str| case.join(format!("{name}.{extension}"));
            if !file("want").exists() {
                continue;
            }
            let read = |name: &str| fs::read_to_string(file(name)).unwrap();
            let what = case.display().to_string();
            let modified = envoy.change(&what, &read("old"), &read("new"));
            assert_eq!(modified, Ok(0), "{what}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

/// Every style against every other one, in each direction.
#[test]
fn envoy_sees_no_cluster_change_between_any_two_styles() {
    let envoy = Clusters::start("cds.yaml");
    let styles = styles();
    let (mut right, mut declined) = (0, Vec::new());
    for (old_style, old) in &styles {
        for (new_style, new) in &styles {
            let what = format!("{old_style} -> {new_style}");
            let (old, new) = (old(&["gone", "same"]), new(&["come", "same"]));
            // Only these have more than the least in their clusters.
            let are_rich = [old_style, new_style].map(|style| *style == "values");
            match envoy.change(&what, &old, &new) {
                Ok(modified) => {
                    assert_eq!(modified, u64::from(are_rich[0] != are_rich[1]), "{what}");
                    right += 1;
                }
                Err(why) => declined.push(format!("{what}: {why}")),
            }
        }
    }
    println!(
        "{right} right, {} declined:\n{}",
        declined.len(),
        declined.join("\n")
    );
    // Nothing is put into an anchored list.
    let styles = styles.len();
    assert_eq!(right, styles * (styles - 1), "{declined:#?}");
}

fn cluster(name: &str) -> Value {
    json!({
        "@type": TYPE,
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1.5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint":
            {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}]}]},
    })
}

/// A cluster in block style, a line each.
fn lines(name: &str) -> Vec<String> {
    let text = format!(
        "\"@type\": {TYPE}
name: {name}
type: STATIC
connect_timeout: 1.5s
load_assignment:
  cluster_name: {name}
  endpoints:
  - lb_endpoints:
    - endpoint:
        address:
          socket_address:
            address: 127.0.0.1
            port_value: 1"
    );
    text.lines().map(str::to_owned).collect()
}

/// A list in block style, behind so many spaces.
fn block(lead: usize, first: &str, items: &[Vec<String>]) -> String {
    let lead = " ".repeat(lead);
    let mut text = "resources:\n".to_owned();
    for item in items {
        for (at, line) in item.iter().enumerate() {
            let before = if at == 0 { first } else { "  " };
            writeln!(text, "{lead}{before}{line}").unwrap();
        }
    }
    text
}

fn plain(lead: usize, names: &[&str]) -> String {
    let items: Vec<_> = names.iter().map(|name| lines(name)).collect();
    block(lead, "- ", &items)
}

fn values(names: &[&str]) -> String {
    let rich = "alt_stat_name: \"odd, [name] {x}: #1\"
metadata:
  filter_metadata:
    x.y:
      yes_no: yes
      quoted: \"yes\"
      num: 012
      hex: 0x1F
      flt: 1e3
      nul: ~
      empty:
      uni: \"h\\u00e9llo \\u2028 \u{1f600}\"
      url: http://x/y?z={1,2}#frag
      text: |
        line one
          indented # no comment

        last
      fold: >-
        folded
        text
      multi: plain over
        two lines
      q: 'it''s'
      list: [a, 'b', \"c\", 1, true]";
    let rich = || rich.lines().map(str::to_owned);
    let item = |name: &&str| lines(name).into_iter().chain(rich()).collect();
    block(0, "- ", &names.iter().map(item).collect::<Vec<_>>())
}

fn commented(names: &[&str]) -> String {
    let text = plain(4, names).replace("    - \"@", "    # about it\n    - \"@");
    let text = text.replace("resources:\n", "resources: # list\n\n");
    format!("# head\nversion_info: \"7\"\n\n{text}\n# tail\n")
}

fn json_of(names: &[&str]) -> Value {
    let clusters: Vec<Value> = names.iter().map(|name| cluster(name)).collect();
    json!({"resources": clusters, "version_info": "x"})
}

fn pretty(names: &[&str]) -> String {
    serde_json::to_string_pretty(&json_of(names)).unwrap()
}

/// `{a: b}`, as long as there is no comma in a string.
fn flow(name: &str) -> String {
    let json = cluster(name).to_string().replace("\":", "\": ");
    json.replace(",\"", ", \"").replace("\"STATIC\"", "STATIC")
}

fn anchored(names: &[&str]) -> String {
    let text = plain(0, names);
    let text = text.replacen("connect_timeout: 1.5s", "connect_timeout: &t 1.5s", 1);
    text.replace("connect_timeout: 1.5s", "connect_timeout: *t")
}

fn type_last(names: &[&str]) -> String {
    let mut items: Vec<_> = names.iter().map(|name| lines(name)).collect();
    items.iter_mut().for_each(|item| item.rotate_left(1));
    block(0, "- ", &items)
}

fn dash_alone(names: &[&str]) -> String {
    let mut items: Vec<_> = names.iter().map(|name| lines(name)).collect();
    items
        .iter_mut()
        .for_each(|item| item.insert(0, String::new()));
    block(0, "-", &items)
}

fn flow_items(names: &[&str]) -> String {
    let items: Vec<_> = names.iter().map(|name| vec![flow(name)]).collect();
    block(2, "- ", &items)
}

fn trailing_comma(names: &[&str]) -> String {
    let items: Vec<_> = names.iter().map(|name| flow(name) + ",\n").collect();
    format!("resources: [\n{}]\n", items.concat())
}

type Style = (&'static str, fn(&[&str]) -> String);

/// Lone carriage returns are not among them: Envoy 1.36 does not take them for line ends.
fn styles() -> [Style; 17] {
    [
        ("block 0", |names| plain(0, names)),
        ("block 2", |names| plain(2, names)),
        ("block 4, comments", commented),
        ("values", values),
        ("flow list", |names| {
            let items: Vec<_> = names.iter().map(|name| flow(name)).collect();
            format!("resources: [{}]\n", items.join(",\n  "))
        }),
        ("flow items", flow_items),
        ("JSON", pretty),
        ("JSON, compact", |names| json_of(names).to_string()),
        ("anchors", anchored),
        ("CRLF", |names| plain(0, names).replace('\n', "\r\n")),
        ("resources first", |names| {
            plain(0, names) + "version_info: z\n"
        }),
        ("documents", |names| {
            format!("---\n{}---\nresources: []\n", plain(2, names))
        }),
        ("anchored list", |names| {
            plain(0, names).replace("resources:", "resources: &all")
        }),
        ("BOM", |names| format!("\u{feff}{}", plain(0, names))),
        ("dash alone", dash_alone),
        ("trailing comma", trailing_comma),
        ("@type last", type_last),
    ]
}
