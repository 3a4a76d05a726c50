//! Label selectors as text: `app=web,tier in (a,b),!old`. Pure.
//!
//! The grammar and the words of refusals are those of `k8s.io/apimachinery/pkg/labels`.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::{Value, json};

use super::invalid::FieldError;
use super::names;

/// What objects have to be like; empty takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Exists,
    DoesNotExist,
    In,
    NotIn,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// Reads one.
    ///
    /// # Errors
    /// What a real API server says of it.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        Parser { tokens: tokens(text).into_iter().peekable() }.selector()
    }

    /// Whether it takes everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it takes an object.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|requirement| requirement.matches(labels[requirement.key.as_str()].as_str()))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::GreaterThan => self.compare(value, |value, limit| value > limit),
            Operator::LessThan => self.compare(value, |value, limit| value < limit),
        }
    }

    fn compare(&self, value: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let limit = self.values.first().and_then(|limit| number(limit));
        value.and_then(number).zip(limit).is_some_and(|(value, limit)| holds(value, limit))
    }

    fn check(self) -> Result<Requirement, String> {
        let numbers = matches!(self.operator, Operator::GreaterThan | Operator::LessThan);
        let mut faults = Vec::new();
        for (at, value) in self.values.iter().enumerate() {
            if numbers && value.parse::<i64>().is_err() {
                let text = "for 'Gt', 'Lt' operators, the value must be an integer";
                faults.push(FieldError::invalid(&format!("values[{at}]"), json!(value), text));
            }
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                let field = format!("values[{at}][{}]", self.key);
                faults.push(FieldError::invalid(&field, json!(value), &wrong.join("; ")));
            }
        }
        match faults.as_slice() {
            [] => Ok(self),
            [one] => Err(one.to_string()),
            more => Err(format!("[{}]", more.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(&'static str),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Sign(sign) => sign,
        }
    }
}

const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"];

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            found.push(Token::Sign(sign));
            rest = rest.get(sign.len()..).unwrap_or_default();
        } else {
            let end = rest.find(|c| is_space(c) || "=!(),<>".contains(c)).unwrap_or(rest.len());
            let (word, more) = rest.split_at(end);
            found.push(Token::Word(word.to_owned()));
            rest = more;
        }
        rest = rest.trim_start_matches(is_space);
    }
    found
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

struct Parser {
    tokens: Peekable<IntoIter<Token>>,
}

impl Parser {
    fn sign(&mut self, wanted: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Sign(sign) if *sign == wanted)).is_some()
    }

    fn at_sign(&mut self, wanted: &[&str]) -> bool {
        matches!(self.tokens.peek(), Some(Token::Sign(sign)) if wanted.contains(sign))
    }

    fn text(&mut self) -> String {
        self.tokens.peek().map_or_else(String::new, |token| token.text().to_owned())
    }

    fn word(&mut self) -> Option<String> {
        let word = self.tokens.next_if(|token| matches!(token, Token::Word(_)))?;
        Some(word.text().to_owned())
    }

    fn selector(mut self) -> Result<LabelSelector, String> {
        let mut all = Vec::new();
        loop {
            match self.tokens.peek() {
                None => return Ok(LabelSelector(all)),
                Some(Token::Word(_) | Token::Sign("!")) => {}
                Some(Token::Sign(sign)) => {
                    return Err(format!("found '{sign}', expected: !, identifier, or 'end of string'"));
                }
            }
            all.push(self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?);
            if self.tokens.peek().is_none() {
                return Ok(LabelSelector(all));
            }
            if !self.sign(",") {
                return Err(format!("found '{}', expected: ',' or 'end of string'", self.text()));
            }
            if !matches!(self.tokens.peek(), Some(Token::Word(_) | Token::Sign("!"))) {
                return Err(format!("found '{}', expected: identifier after ','", self.text()));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.sign("!");
        let Some(key) = self.word() else { return Err(format!("found '{}', expected: identifier", self.text())) };
        let wrong = names::key(&key);
        if !wrong.is_empty() {
            return Err(FieldError::invalid("<nil>", json!(key), &wrong.join("; ")).to_string());
        }
        let of = |operator, values| Requirement { key, operator, values };
        if absent {
            return of(Operator::DoesNotExist, BTreeSet::new()).check();
        }
        if self.tokens.peek().is_none() || self.at_sign(&[","]) {
            return of(Operator::Exists, BTreeSet::new()).check();
        }
        let operator = match self.text().as_str() {
            "=" | "==" | "in" => Operator::In,
            "!=" | "notin" => Operator::NotIn,
            ">" => Operator::GreaterThan,
            "<" => Operator::LessThan,
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let set = matches!(self.tokens.next(), Some(Token::Word(_)));
        let values = if set { self.values()? } else { BTreeSet::from([self.value()?]) };
        of(operator, values).check()
    }

    fn value(&mut self) -> Result<String, String> {
        if self.tokens.peek().is_none() || self.at_sign(&[","]) {
            return Ok(String::new());
        }
        self.word().ok_or_else(|| format!("found '{}', expected: identifier", self.text()))
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        if !self.sign("(") {
            return Err(format!("found '{}' expected: '('", self.text()));
        }
        let mut values = BTreeSet::new();
        loop {
            match self.word() {
                Some(word) => drop(values.insert(word)),
                None if self.at_sign(&[",", ")"]) => drop(values.insert(String::new())),
                None => return Err(format!("found '{}', expected: ',', or identifier", self.text())),
            }
            if self.sign(")") {
                return Ok(values);
            }
            if !self.sign(",") {
                return Err(format!("found '{}', expected: ',' or ')'", self.text()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str) -> bool {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "n": "5", "empty": ""}}});
        LabelSelector::parse(selector).expect(selector).matches(&object)
    }

    #[test]
    fn what_is_asked_for_is_taken() {
        for yes in [
            "",
            "app=web",
            "app==web",
            "app",
            "!old",
            "app in (db, web)",
            "app notin (db)",
            "old!=x",
            "old notin (x)",
            "n>4",
            "n<6",
            "app=web,tier=front",
            "empty=",
            "empty in ()",
            " app = web , tier ",
            "in!=x",
            "empty in (,x)",
        ] {
            assert!(matches(yes), "{yes:?} does not match");
        }
        for no in ["app=db", "app!=web", "old", "!app", "app in (db)", "app notin (web)", "n>5", "tier>1", "old=x"] {
            assert!(!matches(no), "{no:?} matches");
        }
    }

    #[test]
    fn refusals_say_what_was_expected() {
        for (text, why) in [
            ("app=web,", "found '', expected: identifier after ','"),
            ("=web", "found '=', expected: !, identifier, or 'end of string'"),
            ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
            ("app in web", "unable to parse requirement: found 'web' expected: '('"),
            ("app=web db", "found 'db', expected: ',' or 'end of string'"),
            ("app=(", "unable to parse requirement: found '(', expected: identifier"),
        ] {
            assert_eq!(LabelSelector::parse(text).expect_err(text), why);
        }
        assert!(
            LabelSelector::parse("app=-x").expect_err("bad value").contains("values[0][app]: Invalid value: \"-x\"")
        );
        assert!(LabelSelector::parse("a/b/c").expect_err("bad key").contains("<nil>: Invalid value: \"a/b/c\""));
    }
}
