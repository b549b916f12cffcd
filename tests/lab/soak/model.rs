//! The cluster of the storm: every state that its ConfigMaps and TrafficSplits have ever been in,
//! and what of it may stand on disk.

use super::manifests::{
    MAPS, SPLITS, Shape, TOTAL, backends, file_name, merged_state, text as expected, weights_of,
};
use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use serde_json::{Value, json};
use testkit::objects::{config_map, traffic_split};

/// What one state of an object is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Good,
    /// Not fit to be published, in one of several ways.
    Bad(u8),
    Gone,
}

/// The ways in which an object can be bad.
const BAD_WAYS: u8 = 5;

/// A state that a ConfigMap was in; its number is its place among all of them.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub form: Form,
    keys: usize,
    bytes: usize,
}

/// Everything that the cluster ever said.
pub struct World {
    maps: Vec<Vec<State>>,
    splits: Vec<Vec<Form>>,
}

/// What stands on disk at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By ConfigMap: which state.
    pub maps: Vec<usize>,
    /// By split: which state's weights; `None`: the ConfigMaps' own.
    pub splits: Vec<Option<usize>>,
}

/// What one file is of.
#[derive(Clone)]
pub struct Origin {
    pub map: usize,
    pub state: usize,
    pub weights: Vec<(usize, Option<usize>)>,
}

impl World {
    /// Everything good, in its first state.
    pub fn new() -> World {
        let good = |shape: &Shape| State {
            form: Form::Good,
            keys: shape.keys,
            bytes: shape.bytes,
        };
        World {
            maps: MAPS.iter().map(|shape| vec![good(shape)]).collect(),
            splits: SPLITS.iter().map(|_| vec![Form::Good]).collect(),
        }
    }

    /// The objects as they are now.
    pub fn objects(&self) -> Vec<Value> {
        let maps = (0..MAPS.len()).filter_map(|map| self.config_map(map));
        let splits = (0..SPLITS.len()).filter_map(|split| self.traffic_split(split));
        maps.chain(splits).collect()
    }

    pub fn map(&self, map: usize) -> Form {
        self.maps[map].last().map_or(Form::Gone, |state| state.form)
    }

    pub fn split(&self, split: usize) -> Form {
        self.splits[split].last().copied().unwrap_or(Form::Gone)
    }

    /// How many states there have been, the latest one's number and one.
    pub fn count(&self, map: usize) -> usize {
        self.maps[map].len()
    }

    /// The next state of a ConfigMap; `None`: it is gone in it.
    pub fn change_map(&mut self, map: usize, form: Form, rng: &mut TestRng) -> Option<Value> {
        let shape = &MAPS[map];
        let (mut keys, mut bytes) = (shape.keys, shape.bytes);
        if shape.varied {
            keys = rng.random_range(1..=keys);
            bytes = rng.random_range(0..=bytes);
        }
        self.maps[map].push(State { form, keys, bytes });
        self.config_map(map)
    }

    /// The next state of a ConfigMap, of the size that it has at the beginning.
    pub fn restore_map(&mut self, map: usize) -> Option<Value> {
        let first = self.maps[map][0];
        self.maps[map].push(first);
        self.config_map(map)
    }

    /// The next state of a TrafficSplit; `None`: it is gone in it.
    pub fn change_split(&mut self, split: usize, form: Form) -> Option<Value> {
        self.splits[split].push(form);
        self.traffic_split(split)
    }

    /// A form that is not good.
    pub fn bad(rng: &mut TestRng) -> Form {
        Form::Bad(rng.random_range(0..BAD_WAYS))
    }

    fn config_map(&self, map: usize) -> Option<Value> {
        let number = self.maps[map].len() - 1;
        let state = self.maps[map][number];
        let keys = (0..state.keys).map(|key| {
            let text = expected([map, key, number], state.bytes, |_| None);
            (file_name(map, key), text)
        });
        let mut keys: Vec<(String, String)> = keys.collect();
        let last = keys.len() - 1;
        let text = &mut keys[last].1;
        match state.form {
            Form::Good => {}
            Form::Gone => return None,
            Form::Bad(0) => text.push_str("broken: [a\n"),
            Form::Bad(1) => *text = format!("a: [b\n{text}"),
            Form::Bad(2) => text.clear(),
            // Not a list alone: where nothing stood, that is published with a warning.
            Form::Bad(3) => *text = "a: *nowhere\n".into(),
            Form::Bad(_) => keys.clear(),
        }
        let data: Vec<(&str, &str)> = keys.iter().map(|(k, t)| (k.as_str(), t.as_str())).collect();
        Some(config_map(MAPS[map].name, &data))
    }

    fn traffic_split(&self, split: usize) -> Option<Value> {
        let (name, number) = (SPLITS[split], self.splits[split].len() - 1);
        let [primary, canary] = backends(name);
        let weights = weights_of(Some(number));
        let backends = [
            (primary.as_str(), weights[0]),
            (canary.as_str(), weights[1]),
        ];
        let mut object = traffic_split(name, name, &backends);
        match self.splits[split][number] {
            Form::Good => {}
            Form::Gone => return None,
            Form::Bad(0 | 1) => object["spec"]["backends"][0]["weight"] = json!(-1),
            Form::Bad(2) => object["spec"]["backends"][1]["weight"] = json!("heavy"),
            Form::Bad(_) => {
                object["spec"]["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "x"}]);
            }
        }
        Some(object)
    }

    /// Which state a file is of; an error where it is none that ever was, whole and good.
    pub fn origin(&self, name: &str, bytes: &[u8]) -> Result<Origin, String> {
        let wrong = |what: &str| {
            let head = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            format!("{name}, {} bytes, {head:?}: {what}", bytes.len())
        };
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("no text"))?;
        let head = text.lines().next().and_then(|l| l.strip_prefix("# soak "));
        let numbers = head.map(|head| head.split(' ').map_while(|n| n.parse().ok()).collect());
        let numbers: Vec<usize> = numbers.unwrap_or_default();
        let &[map, key, state] = numbers.as_slice() else {
            return Err(wrong("no file of ours"));
        };
        if map >= MAPS.len() || file_name(map, key) != name {
            return Err(wrong("another file"));
        }
        match self.maps[map].get(state) {
            None => return Err(wrong("a state that never was")),
            Some(known) if known.form != Form::Good => return Err(wrong("a bad state")),
            Some(known) if key >= known.keys => return Err(wrong("a key that it has not")),
            Some(_) => {}
        }
        let splits = if key == 0 { MAPS[map].splits } else { &[] };
        let weights: Vec<_> = splits
            .iter()
            .map(|&split| (split, merged_state(text, SPLITS[split])))
            .collect();
        for &(_, merged) in &weights {
            if merged.is_some_and(|merged| merged > TOTAL as usize) {
                return Err(wrong("weights of no split"));
            }
        }
        let of = |split| weights.iter().find(|(s, _)| *s == split)?.1;
        let bytes = self.maps[map][state].bytes;
        let want = expected([map, key, state], bytes, of);
        if want != text {
            let at = want
                .bytes()
                .zip(text.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            let shown = |text: &str| {
                text.get(at..)
                    .unwrap_or_default()
                    .chars()
                    .take(40)
                    .collect()
            };
            let (found, want): (String, String) = (shown(text), shown(&want));
            return Err(wrong(&format!(
                "not whole: at {at} {found:?}, not {want:?}"
            )));
        }
        for &(split, merged) in &weights {
            let known = merged.map(|merged| self.splits[split].get(merged).copied());
            if known.is_some_and(|known| known != Some(Form::Good)) {
                return Err(wrong("weights that no good split had"));
            }
        }
        Ok(Origin {
            map,
            state,
            weights,
        })
    }

    /// The files that stand for one set, by name; an error where they are none.
    pub fn snapshot(&self, origins: &[Origin], merged_alike: bool) -> Result<Snapshot, String> {
        let mut snapshot = Snapshot::default();
        for (map, shape) in MAPS.iter().enumerate() {
            let of_map = || origins.iter().filter(|origin| origin.map == map);
            let Some(first) = of_map().next() else {
                return Err(format!("nothing of {}", shape.name));
            };
            if let Some(other) = of_map().find(|origin| origin.state != first.state) {
                let (one, other) = (first.state, other.state);
                return Err(format!("{}: states {one} and {other} mixed", shape.name));
            }
            let (have, want) = (of_map().count(), self.maps[map][first.state].keys);
            if have != want {
                let state = first.state;
                return Err(format!(
                    "{}: {have} of {want} files of state {state}",
                    shape.name
                ));
            }
            snapshot.maps.push(first.state);
        }
        for (split, name) in SPLITS.iter().enumerate() {
            let mut merged = origins
                .iter()
                .flat_map(|origin| &origin.weights)
                .filter(|(s, _)| *s == split)
                .map(|(_, merged)| *merged);
            let first = merged.next().flatten();
            if merged_alike && let Some(other) = merged.find(|other| *other != first) {
                return Err(format!("{name}: weights {first:?} and {other:?} mixed"));
            }
            snapshot.splits.push(first);
        }
        Ok(snapshot)
    }

    /// What a snapshot lacks of being what the cluster says. A ConfigMap that is bad or gone keeps
    /// a good state, none from before `floor`; weights count only where `own_weights_known`.
    pub fn differs(
        &self,
        snapshot: &Snapshot,
        floor: &Snapshot,
        own_weights_known: bool,
    ) -> Option<String> {
        for (map, shape) in MAPS.iter().enumerate() {
            let (at, last) = (snapshot.maps[map], self.maps[map].len() - 1);
            let floor = floor.maps.get(map).copied().unwrap_or(0);
            match self.maps[map][last].form {
                Form::Good if at != last => {
                    return Some(format!(
                        "{}: state {at} on disk, {last} in the cluster",
                        shape.name
                    ));
                }
                Form::Bad(_) | Form::Gone if at < floor => {
                    return Some(format!(
                        "{}: state {at} on disk, {floor} was there",
                        shape.name
                    ));
                }
                _ => {}
            }
        }
        let all_good = (0..MAPS.len()).all(|map| self.map(map) == Form::Good);
        for (split, name) in SPLITS.iter().enumerate() {
            let last = self.splits[split].len() - 1;
            let want = (self.splits[split][last] == Form::Good).then_some(last);
            let counts = own_weights_known || all_good;
            if counts && snapshot.splits[split] != want {
                let at = snapshot.splits[split];
                return Some(format!("{name}: weights {at:?} on disk, not {want:?}"));
            }
        }
        None
    }
}
