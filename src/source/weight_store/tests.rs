use super::*;
use crate::kube::http_route::HttpRouteSpec;
use crate::snapshot::{ResourceVersion, Version};
use serde_json::{Value, json};

const NAME: &str = "podinfo";

/// A store of the HTTPRoute of that name, or of all.
fn store(name: Option<&str>) -> WeightStore {
    let kind = ObjectKind::HttpRoute;
    let name = name.map(str::to_owned);
    WeightStore::new(kind, "default".to_owned(), name, Rc::from([]))
}

fn object(version: u64, spec: &Value) -> Object {
    Object {
        name: NAME.to_owned(),
        version: Version {
            uid: "u".to_owned(),
            resource_version: ResourceVersion::new(version.to_string()).unwrap(),
        },
        body: Body::HttpRoute {
            created: "2026-11-01T00:00:00Z".to_owned(),
            spec: HttpRouteSpec::read(spec),
        },
    }
}

/// An HTTPRoute for a Service, with these weights.
fn weighing(weights: [u64; 2]) -> Value {
    let [primary, canary] = weights;
    json!({"parentRefs": [{"group": "", "kind": "Service", "name": NAME}], "rules": [{
        "backendRefs": [{"name": "primary", "weight": primary}, {"name": "canary", "weight": canary}],
    }]})
}

fn apply(store: &mut WeightStore, spec: &Value, now: Instant) -> bool {
    let changed = store.take(Event::Applied(object(1, spec)), now);
    changed == Changed::Yes
}

/// The weights that count.
fn counting(store: &WeightStore) -> Option<[u64; 2]> {
    let usable = store.usable();
    let (_, weights) = usable.first()?;
    let backends = &weights.rules[0].backends;
    Some([backends[0].weight, backends[1].weight])
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn a_deleted_one_counts_for_10_s_and_on_if_it_is_made_again_by_then() {
    let (mut store, start) = (store(Some(NAME)), Instant::now());
    assert!(apply(&mut store, &weighing([80, 20]), start));
    let delete = |store: &mut WeightStore, at| {
        let _ = store.take(Event::Deleted(NAME.to_owned()), at);
    };
    delete(&mut store, after(start, 1));
    assert_eq!(store.deadline(), Some(after(start, 11)));
    assert!(
        !apply(&mut store, &weighing([80, 20]), after(start, 5)),
        "the same weights"
    );
    assert_eq!((store.deadline(), counting(&store)), (None, Some([80, 20])));
    // A list without it is as good.
    let _ = store.take(Event::Replaced(Vec::new()), after(start, 20));
    assert_eq!(store.tick(after(start, 29)), Changed::No);
    assert_eq!(counting(&store), Some([80, 20]));
    assert_eq!(store.tick(after(start, 30)), Changed::Yes);
    assert_eq!((counting(&store), store.has_objects()), (None, false));
}

#[test]
fn lost_weights_are_believed_after_10_s_and_reported_once() {
    let (mut store, start) = (store(Some(NAME)), Instant::now());
    assert!(apply(&mut store, &weighing([80, 20]), start));
    assert!(!apply(&mut store, &weighing([1, 1]), after(start, 1)));
    assert!(store.warned.contains_key(NAME));
    // A status that is written does not put it off.
    assert!(!apply(&mut store, &weighing([1, 1]), after(start, 5)));
    assert_eq!(store.deadline(), Some(after(start, 11)));
    // The tool has written them again.
    assert!(apply(&mut store, &weighing([70, 30]), after(start, 6)));
    assert_eq!(store.deadline(), None);
    assert!(!store.warned.contains_key(NAME), "its all-clear was given");
    assert!(!apply(&mut store, &weighing([1, 1]), after(start, 20)));
    assert_eq!(store.tick(after(start, 30)), Changed::Yes);
    assert_eq!(counting(&store), Some([1, 1]));
    assert!(!store.warned.contains_key(NAME), "it is no fault any more");
}

#[test]
fn one_that_is_deleted_while_its_weights_are_lost_goes_with_the_last_ones() {
    let (mut store, start) = (store(Some(NAME)), Instant::now());
    assert!(apply(&mut store, &weighing([80, 20]), start));
    assert!(!apply(&mut store, &weighing([1, 1]), after(start, 1)));
    let _ = store.take(Event::Deleted(NAME.to_owned()), after(start, 5));
    let _ = store.tick(after(start, 11));
    assert_eq!(counting(&store), Some([80, 20]));
    // Made again without weights, it has lost them still.
    assert!(!apply(&mut store, &weighing([1, 1]), after(start, 14)));
    assert_eq!(store.tick(after(start, 24)), Changed::Yes);
    assert_eq!(counting(&store), Some([1, 1]));
}

#[test]
fn a_fault_is_reported_once_even_if_others_write_a_status() {
    let (mut store, start) = (store(Some(NAME)), Instant::now());
    let fault = |store: &mut WeightStore, version, error| {
        let _ = store.take(Event::Applied(object(version, &json!({}))), start);
        let message = Messages::of(ObjectKind::HttpRoute).invalid;
        let is_news = store.is_news(NAME, message, error, start);
        assert!(!is_news, "version {version} was told in other words");
    };
    fault(&mut store, 1, "it names no backend");
    fault(&mut store, 2, "it names no backend");
    assert!(apply(&mut store, &weighing([80, 20]), start));
    assert!(!store.warned.contains_key(NAME));
}

#[test]
fn of_all_only_those_that_are_for_us_are_kept() {
    let (mut store, start) = (store(None), Instant::now());
    let mut gateway = weighing([50, 50]);
    gateway["parentRefs"] = json!([{"name": "gateway"}]);
    assert!(!apply(&mut store, &gateway, start));
    assert!(!store.has_objects());
    assert!(apply(&mut store, &weighing([80, 20]), start));
    // It is a Gateway's again.
    assert!(!apply(&mut store, &gateway, after(start, 1)));
    assert_eq!(
        (store.deadline(), counting(&store)),
        (Some(after(start, 11)), Some([80, 20]))
    );
}
