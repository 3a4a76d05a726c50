//! Lists in pages, each of them of the same state of the cluster. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::status::Status;
use crate::store::Event;

/// Objects by what they are ordered by: namespace and name, or the name where a list is of one namespace.
pub type Ordered = BTreeMap<String, Arc<Value>>;

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The state that the first page was of; none: the newest one, come what may.
    pub revision: Option<u64>,
    /// The first key that is wanted.
    pub start: String,
}

impl Token {
    /// As clients carry it.
    pub fn encode(&self) -> String {
        let revision = self.revision.map_or(json!(-1), |revision| json!(revision));
        let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    /// Reads one.
    ///
    /// # Errors
    /// 400 when it is none of ours.
    pub fn decode(text: &str) -> Result<Token, Status> {
        let bad = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad("illegal base64 data"))?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
        if token["v"] != "meta.k8s.io/v1" {
            let version = token["v"].as_str().unwrap_or_default();
            return Err(bad(&format!("server does not recognize this encoded version {version}")));
        }
        let revision = match token["rv"].as_i64() {
            Some(-1) => None,
            Some(revision) if revision > 0 => u64::try_from(revision).ok(),
            Some(_) | None => return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
        };
        let start = token["start"].as_str().unwrap_or_default();
        if start.is_empty() {
            return Err(bad("encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(Token { revision, start: start.to_owned() })
    }
}

/// A page.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// Its objects.
    pub items: Vec<Arc<Value>>,
    /// Where the next one begins.
    pub next: Option<String>,
    /// Objects after it, selected or not.
    pub remaining: usize,
}

/// The page from `start` on, of at most `limit` objects that are wanted.
pub fn page(all: &Ordered, start: &str, limit: Option<usize>, wanted: impl Fn(&Value) -> bool) -> Page {
    let mut page = Page { items: Vec::new(), next: None, remaining: 0 };
    let mut last = None;
    for (key, object) in all.range(start.to_owned()..) {
        if limit.is_some_and(|limit| page.items.len() >= limit) {
            page.remaining += 1;
            page.next = page.next.or_else(|| last.take().map(|last| format!("{last}\0")));
            continue;
        }
        if wanted(object) {
            page.items.push(Arc::clone(object));
        }
        last = Some(key.clone());
    }
    page
}

/// Takes changes back, newest first: `events` are all of them after the wanted state.
pub fn rewind(objects: &mut Ordered, events: &[Event], key: impl Fn(&Event) -> Option<String>) {
    for event in events.iter().rev() {
        let Some(key) = key(event) else { continue };
        match &event.previous {
            Some(before) => objects.insert(key, Arc::clone(before)),
            None => objects.remove(&key),
        };
    }
}

/// The refusal of a page whose state is forgotten, with the token to go on regardless.
pub fn expired(start: &str) -> (Status, String) {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                   list without the continue parameter, or use the continue token in this response to retrieve the \
                   remainder of the results. Continuing with the provided token results in an inconsistent list - \
                   objects that were created, modified, or deleted between the time the first chunk was returned and now \
                   may show up in the list.";
    (Status::expired(message), Token { revision: None, start: start.to_owned() }.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::PODS;
    use crate::store::{Key, Store};

    fn ordered(names: &[&str]) -> Ordered {
        names.iter().map(|name| ((*name).to_owned(), Arc::new(json!({"metadata": {"name": name}})))).collect()
    }

    fn names(items: &[Arc<Value>]) -> Vec<&str> {
        items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
    }

    #[test]
    fn pages_make_up_the_list() {
        let all = ordered(&["a", "b", "c", "d", "e"]);
        let (mut start, mut seen, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let page = page(&all, &start, Some(2), |_| true);
            seen.extend(names(&page.items).iter().map(ToString::to_string).collect::<Vec<_>>());
            pages += 1;
            assert_eq!(page.remaining, 5 - seen.len());
            match page.next {
                Some(next) => start = next,
                None => break,
            }
        }
        assert_eq!((pages, seen.join("")), (3, "abcde".to_owned()));
        assert_eq!(page(&all, "", Some(5), |_| true).next, None, "nothing comes after the last");
    }

    #[test]
    fn a_limit_counts_what_is_wanted() {
        let all = ordered(&["a", "b", "c", "d"]);
        let wanted = |object: &Value| object["metadata"]["name"] != "b";
        let page = page(&all, "", Some(2), wanted);
        assert_eq!((names(&page.items), page.next.as_deref()), (vec!["a", "c"], Some("c\0")));
    }

    #[test]
    fn tokens_are_read_back_and_others_refused() {
        let token = Token { revision: Some(7), start: "demo/a\0".to_owned() };
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        let token = Token { revision: None, start: "x".to_owned() };
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        for bad in ["x", "!", &URL_SAFE_NO_PAD.encode("{}"), &URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1"}"#)] {
            assert_eq!(Token::decode(bad).unwrap_err().code, 400, "{bad}");
        }
    }

    #[test]
    fn an_earlier_state_is_seen_again() {
        let store = Store::new(|| "2026-01-01T00:00:00Z".to_owned());
        let key = |name: &str| Key::new(&PODS, "demo", name);
        for name in ["a", "b"] {
            store.create(&key(name), json!({})).unwrap();
        }
        let (then, before) = store.list(&PODS, None);
        store.remove(&key("a")).unwrap();
        store.create(&key("c"), json!({})).unwrap();
        store.update(&key("b"), None, |pod| pod["spec"] = json!(1)).unwrap();
        let mut objects: Ordered = store
            .list(&PODS, None)
            .1
            .into_iter()
            .map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object))
            .collect();
        rewind(&mut objects, &store.since(&PODS, then).unwrap(), |event| Some(event.key.name.clone()));
        assert_eq!(objects.into_values().collect::<Vec<_>>(), before);
    }
}
