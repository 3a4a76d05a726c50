use super::*;

fn policy() -> Policy {
    let store = Store::new(|| "2026-01-01T00:00:00Z".to_owned());
    for (key, object) in profiles::system().into_iter().chain(profiles::podway("demo")) {
        store.create(&key, object).unwrap();
    }
    Policy::of(&store)
}

fn who(group: &str) -> Subject {
    Subject { name: "jane".to_owned(), groups: vec![group.to_owned(), "system:authenticated".to_owned()] }
}

/// `verb resource[/subresource][.group] namespace`.
fn wants(text: &str) -> Attributes {
    let mut parts = text.split(' ');
    let (verb, what, namespace) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or_default());
    if what.starts_with('/') {
        return Attributes { verb: verb.to_owned(), path: what.to_owned(), ..Attributes::default() };
    }
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        verb: verb.to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: "web".to_owned(),
        path: String::new(),
    }
}

#[test]
fn each_profile_may_what_it_says() {
    let table = [
        ("podway:admin", "delete deployments.apps other", true),
        ("podway:admin", "get /metrics", true),
        ("podway:portforward-only", "list pods demo", true),
        ("podway:portforward-only", "list pods other", false),
        ("podway:portforward-only", "list pods", false),
        ("podway:portforward-only", "create pods/portforward demo", true),
        ("podway:portforward-only", "patch pods/ephemeralcontainers demo", false),
        ("podway:portforward-only", "create pods demo", false),
        ("podway:portforward-only", "list deployments.apps demo", true),
        ("podway:portforward-only", "list deployments demo", false),
        ("podway:ephemeral", "patch pods/ephemeralcontainers demo", true),
        ("podway:ephemeral", "create pods/portforward demo", true),
        ("podway:ephemeral", "delete pods demo", false),
        ("podway:none", "get pods demo", false),
        ("podway:none", "create selfsubjectaccessreviews.authorization.k8s.io", true),
        ("podway:none", "get /apis/apps/v1", true),
        ("podway:none", "get /metrics", false),
        ("system:masters", "impersonate users", true),
    ];
    let policy = policy();
    for (group, wanted, allowed) in table {
        assert_eq!(policy.decide(&who(group), &wants(wanted)).allowed, allowed, "{group}: {wanted}");
    }
}

#[test]
fn the_reason_names_the_binding() {
    let decision = policy().decide(&who("podway:portforward-only"), &wants("get pods demo"));
    let reason = r#"RBAC: allowed by RoleBinding "podway-portforward/demo" of Role "podway-portforward" to Group "podway:portforward-only""#;
    assert_eq!(decision.reason, reason);
}

#[test]
fn a_missing_role_is_named() {
    let mut policy = policy();
    policy.roles.clear();
    let decision = policy.decide(&who("podway:portforward-only"), &wants("get pods demo"));
    let reason = r#"RBAC: role.rbac.authorization.k8s.io "podway-portforward" not found"#;
    assert_eq!(decision, Decision { allowed: false, reason: reason.to_owned() });
}

#[test]
fn names_narrow_a_rule_and_patterns_widen_it() {
    let rule = json!({"apiGroups": [""], "resources": ["*/log"], "resourceNames": ["web"], "verbs": ["get"]});
    assert!(allows(&rule, &wants("get pods/log demo")));
    assert!(!allows(&rule, &wants("get pods demo")));
    assert!(!allows(&rule, &Attributes { name: "db".to_owned(), ..wants("get pods/log demo") }));
    let paths = json!({"nonResourceURLs": ["/logs/*"], "verbs": ["get"]});
    assert!(allows(&paths, &wants("get /logs/a")) && !allows(&paths, &wants("get /log")));
}

#[test]
fn a_service_account_is_known_by_its_user_name() {
    let subject = Subject { name: "system:serviceaccount:demo:bot".to_owned(), groups: Vec::new() };
    let account = json!({"kind": "ServiceAccount", "name": "bot"});
    assert!(applies(&account, &subject, "demo") && !applies(&account, &subject, "other"));
    assert!(!applies(&account, &subject, ""));
}

#[test]
fn all_rules_are_told() {
    let rules = policy().rules(&who("podway:ephemeral"), "demo");
    let resources = rules["resourceRules"].as_array().unwrap();
    assert!(resources.iter().any(|rule| rule["resources"] == json!(["pods/ephemeralcontainers"])), "{rules}");
    assert_eq!(rules["incomplete"], false);
}
