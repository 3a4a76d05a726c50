//! `podway rbac`: the committed `config/rbac.yaml`, for one namespace and one subject.

use serde_json::{Value, json};

use super::args::{RbacAgent, RbacArgs, TextOrJson, YamlOrJson};
use super::say::say;
use super::{Exit, Failure};
use crate::digest::short_name;
use crate::error::{Reason, UserError};

const SHIPPED: &str = include_str!("../../config/rbac.yaml");
/// The namespace and the user that the file names.
const NAMESPACE: &str = "demo";
const SUBJECT: &str = "kind: User, name: someone@example.com";

/// Prints the rights. Asks neither the daemon nor the cluster: it is for who has no rights yet.
///
/// # Errors
///
/// A namespace or a subject that is none.
pub fn run(args: &RbacArgs) -> Result<Exit, Failure> {
    let text = yaml(args).map_err(|message| Failure {
        exit: Exit::Usage,
        error: UserError::new(Reason::BadRequest, message, "podway rbac --help"),
    })?;
    match args.output {
        YamlOrJson::Yaml => say(text.trim_end()),
        YamlOrJson::Json => {
            let list = list_of(&text)
                .map_err(|error| UserError::new(Reason::Internal, format!("rbac: {error}"), "use -o yaml"))?;
            say(format_args!("{list:#}"));
        }
    }
    Ok(Exit::Done)
}

impl RbacArgs {
    /// How errors are written.
    pub fn error_form(&self) -> TextOrJson {
        match self.output {
            YamlOrJson::Yaml => TextOrJson::Text,
            YamlOrJson::Json => TextOrJson::Json,
        }
    }
}

/// Documents of YAML as one object.
fn list_of(yaml: &str) -> Result<Value, serde_saphyr::Error> {
    let items: Vec<Value> = yaml.split("\n---\n").map(serde_saphyr::from_str).collect::<Result<_, _>>()?;
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

fn yaml(args: &RbacArgs) -> Result<String, String> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if args.namespace.is_empty() || args.namespace.len() > 63 || !args.namespace.chars().all(label) {
        return Err(format!("rbac: {:?} is not a namespace", args.namespace));
    }
    let (kind, name) = match (&args.user, &args.group) {
        (_, Some(group)) => ("Group", group),
        (Some(user), None) => ("User", user),
        (None, None) => {
            return Err(
                "rbac: for whom? give --user NAME (`kubectl auth whoami` says yours) or --group NAME".to_owned()
            );
        }
    };
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(format!("rbac: {name:?} is neither a user nor a group"));
    }
    // JSON's strings are YAML's: no name can end the string that it stands in.
    let subject = format!("kind: {kind}, name: {}", Value::from(name.as_str()));
    // A binding is one subject's: applied for another one, it leaves this one's alone. RBAC's names are segments of a
    // path (Kubernetes API, ValidatePathSegmentName).
    let mut whose = format!(":{}:{}", kind.to_lowercase(), name.replace(['/', '%'], "-"));
    if name.contains(['/', '%']) {
        // Two names are never one.
        whose = format!("{whose}:{}", short_name(name));
    }
    let mut texts = Vec::new();
    for document in SHIPPED.split("\n---\n") {
        // The comment at the top tells how to do by hand what is done here; the optional part at the end is not needed.
        let lines = document.lines().skip_while(|line| line.starts_with('#') || line.is_empty());
        let lines = lines.take_while(|line| *line != "#");
        let lines: Vec<&str> = lines.collect();
        let text = rules(&lines.join("\n"), args.agent);
        let text = text.replace(&format!("namespace: {NAMESPACE}"), &format!("namespace: {}", args.namespace));
        // One set of rules is one Role: another one does not take from it.
        let text = text.replace("name: podway-agent", &format!("name: podway-agent{}", of_mode(args.agent)));
        texts.push(named(&text.replace(SUBJECT, &subject), &whose));
    }
    // To narrow rights takes more than to apply the narrower ones.
    let note = "# Bindings made with another --agent stay: kubectl get rolebindings shows them, kubectl delete takes them away.";
    Ok(format!("{note}\n{}\n", texts.join("\n---\n")))
}

fn of_mode(agent: RbacAgent) -> &'static str {
    match agent {
        RbacAgent::Auto => "",
        RbacAgent::Ephemeral => "-ephemeral",
        RbacAgent::Pod => "-pod",
    }
}

/// A RoleBinding with its subject in its name; another document as it is.
fn named(document: &str, whose: &str) -> String {
    let own = document.lines().find_map(|line| line.strip_prefix("  name: "));
    match (document.contains("kind: RoleBinding"), own) {
        (true, Some(name)) => {
            let whole = Value::from(format!("{name}{whose}"));
            document.replacen(&format!("\n  name: {name}\n"), &format!("\n  name: {whole}\n"), 1)
        }
        (true, None) | (false, _) => document.to_owned(),
    }
}

/// Leaves out the rules that a kind of agent does not need.
fn rules(document: &str, agent: RbacAgent) -> String {
    let unneeded = match agent {
        RbacAgent::Ephemeral => {
            ["resources: [jobs]\n  verbs: [create", "resources: [pods]\n  verbs: [create"].as_slice()
        }
        RbacAgent::Pod => ["resources: [pods/ephemeralcontainers]"].as_slice(),
        RbacAgent::Auto => [].as_slice(),
    };
    // A rule is its comment and what follows, up to the next comment or item at the margin.
    let mut rules: Vec<Vec<&str>> = vec![Vec::new()];
    for line in document.lines() {
        let last = rules.last().and_then(|rule| rule.last().copied()).unwrap_or_default();
        let starts =
            line.starts_with('#') && !last.starts_with('#') || line.starts_with("- ") && !last.starts_with('#');
        match (rules.last_mut(), starts) {
            (Some(rule), false) => rule.push(line),
            (_, _) => rules.push(vec![line]),
        }
    }
    let kept = rules.into_iter().map(|rule| rule.join("\n"));
    kept.filter(|rule| !unneeded.iter().any(|part| rule.contains(part))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(agent: RbacAgent) -> RbacArgs {
        RbacArgs {
            namespace: "shop".into(),
            user: Some("ann@example.com".into()),
            group: None,
            agent,
            output: YamlOrJson::Yaml,
        }
    }

    #[test]
    fn the_rights_are_as_committed_and_are_yaml() {
        for (agent, name) in
            [(RbacAgent::Auto, "rbac_auto"), (RbacAgent::Ephemeral, "rbac_ephemeral"), (RbacAgent::Pod, "rbac_pod")]
        {
            let text = yaml(&args(agent)).expect("rights");
            for document in text.split("\n---\n") {
                let read: Value = serde_saphyr::from_str(document).expect("YAML");
                assert_eq!(read["metadata"]["namespace"], "shop");
            }
            insta::assert_snapshot!(name, text);
        }
    }

    #[test]
    fn as_json_they_are_one_list_of_the_same_objects() {
        let text = yaml(&args(RbacAgent::Auto)).expect("rights");
        let list = list_of(&text).expect("a list");
        let kinds: Vec<&str> = list["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| item["kind"].as_str().expect("a kind"))
            .collect();
        assert_eq!(kinds, ["Role", "Role", "RoleBinding", "RoleBinding"]);
        assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str()), (Some("List"), Some("v1")));
    }

    #[test]
    fn each_subject_has_bindings_of_its_own() {
        let bindings = |args: RbacArgs| {
            let text = yaml(&args).expect("rights");
            let read = text.split("\n---\n").map(|document| serde_saphyr::from_str(document).expect("YAML"));
            let bindings = read.filter(|read: &Value| read["kind"] == "RoleBinding");
            bindings.map(|read| read["metadata"]["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
        };
        let ann = bindings(args(RbacAgent::Auto));
        assert_eq!(ann, ["podway-connect:user:ann@example.com", "podway-agent:user:ann@example.com"]);
        let group = bindings(RbacArgs { group: Some("https://id/devs".into()), ..args(RbacAgent::Auto) });
        let (first, digest) = group[0].rsplit_once(':').expect("a digest");
        assert_eq!((first, digest.len()), ("podway-connect:group:https:--id-devs", short_name("x").len()));
        let other = bindings(RbacArgs { group: Some("https://id-devs".into()), ..args(RbacAgent::Auto) });
        assert_ne!(group, other);
        let nobody = RbacArgs { user: None, ..args(RbacAgent::Auto) };
        assert!(yaml(&nobody).expect_err("refused").contains("--user"));
    }

    #[test]
    fn a_name_cannot_change_the_document() {
        let odd = RbacArgs { group: Some("a\"}\\ # b".into()), ..args(RbacAgent::Auto) };
        let text = yaml(&odd).expect("rights");
        let binding = text.split("\n---\n").last().expect("a document");
        let read: Value = serde_saphyr::from_str(binding).expect("YAML");
        assert_eq!(read["subjects"][0]["name"], "a\"}\\ # b");
        assert_eq!(read["subjects"][0]["kind"], "Group");
        assert_eq!(read["metadata"]["name"], "podway-agent:group:a\"}\\ # b");
        for bad in ["", "a b", "a\nkind: x", "A"] {
            assert!(yaml(&RbacArgs { namespace: bad.into(), ..args(RbacAgent::Auto) }).is_err(), "{bad:?} was taken");
        }
    }
}
