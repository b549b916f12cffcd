//! A list as it comes, page by page. Owns: how much is asked for at once, and what has come so far.
//! Pure.

use crate::kube::api::List;
use crate::kube::object::Object;
use crate::snapshot::ResourceVersion;

/// The number of objects that are asked for at once (client-go's value).
const PAGE: usize = 500;

/// The pages of a list that have arrived, and the request for the next one.
#[derive(Debug)]
pub struct Pages {
    limit: usize,
    /// The server's token of the next page; `None` for the first page.
    next: Option<String>,
    items: Vec<Object>,
    /// The last answer calls for another request at once.
    goes_on: bool,
    /// The list has begun again because its rest had expired.
    expired: bool,
}

impl Default for Pages {
    fn default() -> Pages {
        Pages {
            limit: PAGE,
            next: None,
            items: Vec::new(),
            goes_on: false,
            expired: false,
        }
    }
}

impl Pages {
    /// Returns the number of objects to ask for, and the token of the page.
    pub fn wanted(&self) -> (usize, Option<&str>) {
        (self.limit, self.next.as_deref())
    }

    /// Returns whether to ask again at once.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Takes in a page. Returns the whole list after its last page, and an error if the list has no
    /// end.
    pub fn take(&mut self, page: List) -> Result<Option<(ResourceVersion, Vec<Object>)>, String> {
        self.items.extend(page.items);
        if page.next.is_empty() {
            let items = std::mem::take(&mut self.items);
            self.restart();
            self.expired = false;
            return Ok(Some((page.at, items)));
        }
        if self.next.as_ref() == Some(&page.next) {
            self.restart();
            return Err("a page of the list is followed by itself".to_owned());
        }
        (self.next, self.goes_on) = (Some(page.next), true);
        Ok(None)
    }

    /// Begins again, and drops the pages that have arrived.
    pub fn restart(&mut self) {
        self.items.clear();
        (self.next, self.goes_on) = (None, false);
    }

    /// Takes in that the token of the next page has expired. Returns true if the list begins again
    /// at once, which it does one time.
    pub fn expire(&mut self) -> bool {
        let again = self.next.is_some() && !self.expired;
        self.restart();
        (self.goes_on, self.expired) = (again, again);
        again
    }

    /// Takes in that a page was too large to be read. Returns true if it is asked for again with
    /// fewer objects, and false if it was of a single object.
    pub fn shrink(&mut self) -> bool {
        self.goes_on = self.limit > 1;
        self.limit = self.limit.div_ceil(4);
        self.goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::api;
    use crate::kube::object::{ObjectKind, Projection};
    use serde_json::json;

    fn page(names: &[&str], next: &str) -> List {
        let item = |name: &&str| json!({"metadata": {"name": name, "resourceVersion": "1"}});
        let items: Vec<_> = names.iter().map(item).collect();
        let metadata = json!({"resourceVersion": "7", "continue": next});
        let list = json!({"kind": "ConfigMapList", "metadata": metadata, "items": items});
        api::list(
            list.to_string().as_bytes(),
            ObjectKind::ConfigMap,
            Projection::Full,
        )
        .unwrap()
    }

    fn names(objects: &[Object]) -> Vec<&str> {
        objects.iter().map(|object| object.name.as_str()).collect()
    }

    #[test]
    fn a_list_is_whole_with_its_last_page() {
        let mut pages = Pages::default();
        assert_eq!(pages.wanted(), (PAGE, None));
        assert!(pages.take(page(&["a", "b"], "x")).unwrap().is_none());
        assert!(pages.goes_on());
        assert_eq!(pages.wanted(), (PAGE, Some("x")));
        let (at, objects) = pages.take(page(&["c"], "")).unwrap().unwrap();
        assert_eq!((at.0.as_str(), names(&objects)), ("7", vec!["a", "b", "c"]));
        assert!(!pages.goes_on());
        assert_eq!(pages.wanted(), (PAGE, None));
    }

    #[test]
    fn one_that_expires_midway_begins_again_and_at_the_beginning_it_does_not() {
        let mut pages = Pages::default();
        assert!(!pages.expire() && !pages.goes_on());
        pages.take(page(&["a"], "x")).unwrap();
        assert!(pages.expire() && pages.goes_on());
        pages.take(page(&["a"], "x")).unwrap();
        assert!(!pages.expire() && !pages.goes_on(), "not again and again");
        let (_, objects) = pages.take(page(&["b"], "")).unwrap().unwrap();
        assert_eq!(names(&objects), ["b"]);
        pages.take(page(&["a"], "x")).unwrap();
        assert!(pages.expire());
    }

    #[test]
    fn a_page_that_is_too_large_is_asked_for_in_smaller_ones_down_to_one_object() {
        let mut pages = Pages::default();
        pages.take(page(&["a"], "x")).unwrap();
        let mut limits = Vec::new();
        while pages.shrink() {
            assert!(pages.goes_on());
            limits.push(pages.wanted().0);
        }
        assert_eq!(limits, [125, 32, 8, 2, 1]);
        assert!(!pages.goes_on());
        assert_eq!(pages.wanted(), (1, Some("x")), "what has come is kept");
    }

    #[test]
    fn a_list_without_an_end_is_an_error() {
        let mut pages = Pages::default();
        pages.take(page(&["a"], "x")).unwrap();
        assert!(pages.take(page(&["a"], "x")).is_err());
        assert_eq!(pages.wanted(), (PAGE, None));
    }
}
