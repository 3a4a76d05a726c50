//! How the demo tells what it saw, at most 80 columns wide but for lines that are there to be copied. Pure: a styled
//! text that whoever writes it strips where colours would not be seen.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use serde_json::{Value, json};

use super::probe::Measured;
use super::seen::{Pod, Proof};
use crate::cli::table::GOOD;

const HEAD: Style = Style::new().bold();
const SOFT: Style = Style::new().dimmed();
const TYPED: Style = AnsiColor::Cyan.on_default();

/// The command that connects.
pub const CONNECT: [&str; 5] = ["connect", "-n", "demo", "--proxy-via", "service=web"];
/// The service that is asked.
pub const SERVICE: &str = "api.other";

/// The first line.
pub fn title() -> String {
    format!("{HEAD}podway demo{HEAD:#}  a cluster, a workstation beside it, a real connection between them\n\n")
}

/// A step that succeeded.
pub fn step(name: &str, took: Duration, what: &str) -> String {
    format!("  {GOOD}✓{GOOD:#} {name:<9}{SOFT}{:>5.2} s{SOFT:#}   {what}\n", took.as_secs_f64())
}

/// What the request showed.
pub fn proof(proof: &Proof) -> String {
    let mut text = heading("Which way did it take?");
    let marked = format!("{GOOD}{}{GOOD:#}", pod(&proof.via));
    row(&mut text, &format!("{SERVICE} is"), proof.virtual_address, "a virtual address, which podway has made");
    row(&mut text, "answered by", proof.answered.address, &pod(&proof.answered));
    row(&mut text, "its caller was", proof.via.address, &marked);
    row(&mut text, "without the rule", proof.without.address, &pod(&proof.without));
    let _ = write!(
        text,
        "\n  Its caller was a pod of web: that is --proxy-via service=web at work.\n  \
         {SOFT}Without the rule: the caller of the same pod when it was asked by its own\n  address, which the rule leaves alone.{SOFT:#}\n"
    );
    text
}

fn pod(pod: &Pod) -> String {
    let Pod { name, namespace, workload, .. } = pod;
    match workload.starts_with("job/") || workload.is_empty() {
        true => format!("{name}, podway's own pod"),
        false => format!("{name}, {workload} in {namespace}"),
    }
}

/// What it costs.
pub fn figures(measured: &Measured) -> String {
    let mut text = heading("How fast is it here?");
    let ms = |us: u64| format!("{}.{:02} ms", us / 1000, us % 1000 / 10);
    let latency = format!("p50 {:<12}p99 {:<12}", ms(measured.p50_us), ms(measured.p99_us));
    figure(&mut text, "latency", &latency, &format!("64-byte echo, {} x", measured.rounds));
    figure(&mut text, "down", &megabytes(measured.down), "one TCP flow from the pod");
    figure(&mut text, "up", &megabytes(measured.up), "one TCP flow to the pod");
    text
}

fn megabytes(rate: u64) -> String {
    format!("{} MB/s", rate / 1_000_000)
}

fn figure(text: &mut String, name: &str, value: &str, note: &str) {
    let _ = writeln!(text, "  {name:<18}{value:<32}{SOFT}{note}{SOFT:#}");
}

fn heading(words: &str) -> String {
    format!("\n{HEAD}{words}{HEAD:#}\n")
}

fn row(text: &mut String, name: &str, value: impl ToString, note: &str) {
    let _ = writeln!(text, "  {name:<17}{:<16}{note}", value.to_string());
}

/// The same for programs; `join` is how a demo that stays is joined.
pub fn document(steps: &[Value], proof: &Proof, measured: &Measured, join: Option<Value>) -> Value {
    let pod = |pod: &Pod| json!({ "address": pod.address, "name": pod.name, "namespace": pod.namespace, "workload": pod.workload });
    let mut document = json!({
        "steps": steps,
        "service": SERVICE,
        "virtual_address": proof.virtual_address,
        "answered": pod(&proof.answered),
        "via": pod(&proof.via),
        "without": pod(&proof.without),
        "measured": measured,
    });
    if let Some(join) = join {
        document["stays"] = join;
    }
    document
}

/// What to try after the report; `program` as it was typed.
pub fn next(program: &str) -> String {
    let mut text = heading("Try next");
    for (command, note) in [
        ("demo -- bash", "a shell on that workstation"),
        ("demo -- curl -s http://api.other", "one command there"),
        ("demo -- podway status", "what podway says of the connection"),
        ("demo --keep", "stay, to join from other terminals"),
    ] {
        typed(&mut text, &format!("{program} {command}"), note);
    }
    text
}

/// How to join a demo that stays: lines for a shell, to which a command is added. `podway` is how this program is
/// started there.
pub fn keep([own, plain]: &[String; 2], podway: &str, kubeconfig: &str) -> String {
    let mut text = heading("It stays until Ctrl-C. From another terminal");
    let _ = writeln!(text, "  {TYPED}{own} bash{TYPED:#}\nor\n  {TYPED}{plain} bash{TYPED:#}");
    text.push_str(&heading("and there"));
    for (command, note) in [
        (format!("{podway} status").as_str(), "the connection, its ranges and agents"),
        ("curl http://api.other", "a service by name"),
        ("curl http://store-0.store.demo", "one pod of a StatefulSet"),
    ] {
        typed(&mut text, command, note);
    }
    let _ = writeln!(text, "  {TYPED}export KUBECONFIG={kubeconfig}{TYPED:#}\n  {TYPED}kubectl get pods -A{TYPED:#}");
    text
}

/// A command with what it is good for, on a line of its own where both do not fit on one.
fn typed(text: &mut String, command: &str, note: &str) {
    let gap = match command.chars().count() {
        0..=40 => format!("{:width$}", "", width = 42 - command.chars().count()),
        41.. => "\n      ".to_owned(),
    };
    let _ = writeln!(text, "  {TYPED}{command}{TYPED:#}{gap}{SOFT}{note}{SOFT:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(program: &str) -> String {
        let pod = |address: &str, name: &str, namespace: &str, workload: &str| Pod {
            address: address.parse().expect("an address"),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
        };
        let seen = Proof {
            virtual_address: "246.246.1.0".parse().expect("an address"),
            answered: pod("10.42.0.107", "api-7c9d8b6f5c-x2x1k", "other", "deployment/api"),
            via: pod("10.42.0.104", "web-55d4f7c9b8-k8s2q", "demo", "deployment/web"),
            without: pod("10.42.0.111", "podway-agent-4f21c09a-zq8vn", "demo", "job/podway-agent-4f21c09a"),
        };
        let measured = Measured { rounds: 1000, p50_us: 184, p99_us: 12_409, down: 412_345_678, up: 1_380_000_000 };
        let millis = Duration::from_millis;
        [
            title(),
            step("cluster", millis(312), "API at https://192.0.2.1:6443, 9 pods"),
            step("daemon", millis(41), "podwayd 0.1.0, with a TUN device on the workstation"),
            step("connect", millis(402), "podway connect -n demo --proxy-via service=web"),
            step("request", millis(20), "curl http://api.other"),
            step("measure", millis(12_345), "plain sockets, by name"),
            proof(&seen),
            figures(&measured),
            next(program),
        ]
        .concat()
    }

    #[test]
    fn the_report_is_as_committed_and_keeps_to_80_columns() {
        let report = report("cargo run --release --");
        let plain = anstream::adapter::strip_str(&report).to_string();
        assert_ne!(plain, report, "it has colours");
        for line in plain.lines() {
            assert!(line.chars().count() <= 80 && line == line.trim_end(), "{line:?}");
        }
        insta::assert_snapshot!(plain);
    }

    #[test]
    fn lines_to_join_are_whole() {
        let lines =
            ["/opt/podway as podway-minicluster enter 7 --".to_owned(), "nsenter --target 7 --net --".to_owned()];
        let text = keep(&lines, "podway", "/run/cluster/admin");
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
