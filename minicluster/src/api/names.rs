//! What names, keys and values may look like, and what a real API server says where they do not. Pure.

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                           and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
                           '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                     and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                       alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
                       used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// Characters of `part` are taken by `inner`; the first and the last are letters or digits by `outer`.
fn shaped(part: &str, outer: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match part.as_bytes() {
        [] => false,
        [one] => outer(*one),
        [first, middle @ .., last] => outer(*first) && outer(*last) && middle.iter().all(|byte| inner(*byte)),
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn lower_inner(byte: u8) -> bool {
    lower(byte) || byte == b'-'
}

fn any(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn any_inner(byte: u8) -> bool {
    any(byte) || matches!(byte, b'-' | b'_' | b'.')
}

fn longest(most: usize) -> String {
    format!("must be no more than {most} characters")
}

fn check(value: &str, most: usize, good: bool, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > most {
        faults.push(longest(most));
    }
    if !good {
        faults.push(text.to_owned());
    }
    faults
}

/// What is wrong with the name of most kinds of objects.
pub fn subdomain(value: &str) -> Vec<String> {
    check(value, 253, value.split('.').all(|part| shaped(part, lower, lower_inner)), SUBDOMAIN)
}

/// What is wrong with the name of a namespace, a container or a port.
pub fn label(value: &str) -> Vec<String> {
    check(value, 63, shaped(value, lower, lower_inner), LABEL)
}

/// What is wrong with the name of a service.
pub fn service(value: &str) -> Vec<String> {
    let good = shaped(value, lower, lower_inner) && value.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    check(value, 63, good, SERVICE)
}

/// What is wrong with the name of a role: any segment of a path will do.
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    let bad = ["/", "%"].into_iter().filter(|bad| value.contains(bad));
    bad.map(|bad| format!("may not contain '{bad}'")).collect()
}

/// What is wrong with the value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    check(value, 63, value.is_empty() || shaped(value, any, any_inner), LABEL_VALUE)
}

/// What is wrong with the key of a label or of an annotation.
pub fn key(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match value.split_once('/') {
        None => value,
        Some((_, name)) if name.contains('/') => {
            let text = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED} {text}")];
        }
        Some(("", name)) => {
            faults.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            faults.extend(subdomain(prefix).into_iter().map(|fault| format!("prefix part {fault}")));
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        faults.push(format!("name part {}", longest(63)));
    }
    if !shaped(name, any, any_inner) {
        faults.push(format!("name part {QUALIFIED}"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_taken() {
        for good in ["a", "web-1", "web.example", "0"] {
            assert!(subdomain(good).is_empty(), "{good}");
        }
        for good in ["app", "app.kubernetes.io/name", "A_b.c"] {
            assert!(key(good).is_empty(), "{good}");
        }
        assert!(label_value("").is_empty());
    }

    #[test]
    fn bad_names_are_refused_with_every_reason() {
        for bad in ["", "A", "-a", "a-", "a..b", "a_b"] {
            assert_eq!(subdomain(bad).len(), 1, "{bad}");
        }
        assert_eq!(label(&"A".repeat(64)).len(), 2);
        assert_eq!(service("1a").len(), 1);
        for bad in ["", "a/b/c", "/a", "a/", "a b"] {
            assert!(!key(bad).is_empty(), "{bad}");
        }
    }
}
