//! Selectors of labels, as objects carry them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::{list, text, texts};

/// Whether a label selector (`matchLabels`, `matchExpressions`) matches; one that is missing matches nothing, an empty
/// one everything.
pub fn matches(selector: &Value, labels: &BTreeMap<&str, &str>) -> bool {
    selector.is_object()
        && matches_map(selector.get("matchLabels"), labels)
        && list(selector, "/matchExpressions").iter().all(|expression| expression_matches(expression, labels))
}

/// Whether all labels of a map are there.
pub fn matches_map(map: Option<&Value>, labels: &BTreeMap<&str, &str>) -> bool {
    texts(map).iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// Whether one expression holds; also of node selectors, which compare numbers too.
pub fn expression_matches(expression: &Value, labels: &BTreeMap<&str, &str>) -> bool {
    let have = labels.get(text(expression, "/key"));
    let values = list(expression, "/values");
    let listed = have.is_some_and(|have| values.iter().any(|value| value == have));
    let compared = |holds: fn(i64, i64) -> bool| {
        let bound = values.first().and_then(Value::as_str).and_then(|value| value.parse().ok());
        have.and_then(|have| have.parse().ok()).zip(bound).is_some_and(|(have, bound)| holds(have, bound))
    };
    match text(expression, "/operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => compared(|have, bound| have > bound),
        "Lt" => compared(|have, bound| have < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_kubernetes_defines_them() {
        let labels = BTreeMap::from([("app", "web"), ("rank", "3")]);
        for (selector, holds) in [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "web", "tier": "x"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db", "web"]}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["db"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false),
            (json!({"matchExpressions": [{"key": "rank", "operator": "Gt", "values": ["2"]}]}), true),
            (json!({"matchExpressions": [{"key": "rank", "operator": "Lt", "values": ["2"]}]}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "Near"}]}), false),
        ] {
            assert_eq!(matches(&selector, &labels), holds, "{selector}");
        }
    }
}
