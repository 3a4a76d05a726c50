//! Kubeconfigs in temporary directories, with real files and real plugins.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::net::kube_client::base64;

struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("directories");
        std::fs::write(&path, text).expect("written");
        path
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, &format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path
    }

    fn around(&self, kubeconfig: Option<&str>) -> Surroundings {
        Surroundings {
            kubeconfig: kubeconfig.map(Into::into),
            home: Some(self.0.path().into()),
            ..Surroundings::default()
        }
    }
}

#[tokio::test]
async fn root_by_sudo_is_told_whose_kubeconfig_it_lacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let around =
        Surroundings { home: Some(dir.path().into()), sudo_user: Some("ann".into()), ..Surroundings::default() };
    let error = resolve(&ConnectionFlags::default(), &around).await.expect_err("there is none");
    assert_eq!(behalf(Some("ann".into()), true), Some("ann".into()));
    assert_eq!(behalf(Some("ann".into()), false).or(behalf(Some("root".into()), true)), None);
    assert!(error.hint.contains("run podway as ann") && error.hint.contains("~ann/.kube/config"), "{error:?}");
}

fn config(user: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Config
current-context: dev
contexts:
- name: dev
  context: {{cluster: c, user: u, namespace: demo}}
- name: production
  context: {{cluster: c, user: u}}
clusters:
- name: c
  cluster: {{server: 'https://192.0.2.1:6443', certificate-authority: pki/ca.pem, tls-server-name: api}}
users:
- name: u
  user: {user}
"
    )
}

fn home(user: &str) -> Home {
    let home = Home::new();
    home.write(".kube/config", &config(user));
    home.write(".kube/pki/ca.pem", "CA");
    home
}

#[tokio::test]
async fn the_home_file_is_read_with_its_relative_files() {
    let home = home("{client-certificate: pki/c.pem, client-key: pki/k.pem}");
    home.write(".kube/pki/c.pem", "CERT");
    home.write(".kube/pki/k.pem", "KEY");
    let found = resolve(&ConnectionFlags::default(), &home.around(None)).await.expect("resolved");
    assert_eq!((found.context.as_str(), found.namespace.as_str()), ("dev", "demo"));
    assert_eq!(found.access.certificate_authority_data.as_deref(), Some("CA"));
    assert_eq!(found.access.tls_server_name.as_deref(), Some("api"));
    let wanted = Credential::ClientCertificate { certificate: "CERT".into(), key: "KEY".into() };
    assert!(found.access.credential == wanted);
}

#[tokio::test]
async fn flags_outweigh_the_file() {
    let home = home("{token: t}");
    let ca = home.write("other.pem", "OTHER");
    let flags = ConnectionFlags {
        context: Some("production".into()),
        server: Some("https://h:1".into()),
        token: Some("mine".into()),
        as_user: Some("jane".into()),
        as_groups: vec!["g".into()],
        certificate_authority: Some(ca),
        proxy_url: Some("socks5://p:1".into()),
        namespace: Some("ns".into()),
        ..ConnectionFlags::default()
    };
    let found = resolve(&flags, &home.around(None)).await.expect("resolved");
    assert_eq!((found.context.as_str(), found.namespace.as_str()), ("production", "ns"));
    assert_eq!(found.access.server, "https://h:1");
    assert!(found.access.credential == Credential::Token("mine".into()));
    assert_eq!(found.access.certificate_authority_data.as_deref(), Some("OTHER"));
    assert_eq!(found.access.impersonate.map(|who| (who.user, who.groups)), Some(("jane".into(), vec!["g".into()])));
    assert_eq!(found.access.proxy_url.as_deref(), Some("socks5://p:1"));
}

#[tokio::test]
async fn a_list_is_merged_and_its_missing_files_are_skipped() {
    let home = home("{token: t}");
    let first = home.write("first", "current-context: production\n");
    let list = format!("/nonexistent:{}:{}", first.display(), home.0.path().join(".kube/config").display());
    let found = resolve(&ConnectionFlags::default(), &home.around(Some(&list))).await.expect("resolved");
    assert_eq!((found.context.as_str(), found.namespace.as_str()), ("production", "default"));
}

#[tokio::test]
async fn what_is_missing_is_named_with_a_hint() {
    let home = home("{token: t}");
    let flags = ConnectionFlags { context: Some("prodution".into()), ..ConnectionFlags::default() };
    let error = resolve(&flags, &home.around(None)).await.expect_err("unknown");
    assert_eq!((error.reason, error.hint.as_str()), (Reason::KubeconfigInvalid, "did you mean production?"));
    let error = resolve(&ConnectionFlags::default(), &home.around(Some("/nonexistent"))).await.expect_err("missing");
    assert!(error.message.contains("/nonexistent"), "{error}");
    let error = resolve(&ConnectionFlags::default(), &Surroundings::default()).await.expect_err("nothing");
    assert!(error.message.contains("no kubeconfig"), "{error}");
    let broken = home.write("broken", "token: canary: {");
    let flags = ConnectionFlags { kubeconfig: Some(broken), ..ConnectionFlags::default() };
    let error = resolve(&flags, &home.around(None)).await.expect_err("broken");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn a_token_file_is_read_and_its_end_known() {
    let home = home("{tokenFile: token}");
    let token = format!("h.{}.s", base64(br#"{"exp":1700000000}"#));
    home.write(".kube/token", &format!("{token}\n"));
    let found = resolve(&ConnectionFlags::default(), &home.around(None)).await.expect("resolved");
    assert!(found.access.credential == Credential::Token(token));
    assert_eq!(found.access.expires_at, Some(1_700_000_000));
}

#[tokio::test]
async fn a_plugin_answers_as_its_kubeconfig_says() {
    let home = home(
        "{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, args: [a], provideClusterInfo: true, \
         interactiveMode: Never, env: [{name: X, value: y}]}}",
    );
    home.script(
        ".kube/plugin",
        r#"case "$KUBERNETES_EXEC_INFO" in *192.0.2.1*) ;; *) exit 3;; esac
echo "{\"status\":{\"token\":\"$1-$X\",\"expirationTimestamp\":\"2023-11-14T22:13:20Z\"}}""#,
    );
    let found = resolve(&ConnectionFlags::default(), &home.around(None)).await.expect("resolved");
    assert!(found.access.credential == Credential::Token("a-y".into()));
    assert_eq!(found.access.expires_at, Some(1_700_000_000));
}

#[tokio::test]
async fn plugins_that_are_missing_fail_or_hang_are_explained() {
    let missing = home("{exec: {command: podway-no-such-plugin, installHint: install it, interactiveMode: Never}}");
    let error = resolve(&ConnectionFlags::default(), &missing.around(None)).await.expect_err("missing");
    assert!(error.message.contains("not installed"), "{error}");
    assert_eq!(error.hint, "install it");

    let failing = home("{exec: {command: ./plugin, interactiveMode: Never}}");
    failing.script(".kube/plugin", "echo canary; exit 7");
    let error = resolve(&ConnectionFlags::default(), &failing.around(None)).await.expect_err("failing");
    assert!(error.message.contains('7') && !error.message.contains("canary"), "{error}");

    let asking = home("{exec: {command: ./plugin, interactiveMode: Always}}");
    let error = resolve(&ConnectionFlags::default(), &asking.around(None)).await.expect_err("no terminal");
    assert!(error.message.contains("no terminal"), "{error}");

    let hanging = Home::new();
    let plugin = kube::config::ExecConfig {
        command: Some(hanging.script("hang", "exec sleep 60").display().to_string()),
        interactive_mode: Some(kube::config::ExecInteractiveMode::Never),
        ..serde_json::from_str("{}").expect("all optional")
    };
    let access = ClusterAccess::bare("https://h");
    let limit = Duration::from_millis(50);
    let error = exec::run_within(&plugin, &Cluster::default(), &access, (false, Words::Shown), limit)
        .await
        .expect_err("hanging");
    assert!(error.message.contains("no answer"), "{error}");
}

/// The error of a plugin that nobody watches.
async fn unwatched(home: &Home) -> String {
    let around = Surroundings { words: Words::Kept, ..home.around(None) };
    resolve(&ConnectionFlags::default(), &around).await.expect_err("it fails").message
}

#[tokio::test]
async fn the_last_words_of_a_plugin_that_nobody_watches_are_told_without_secrets() {
    let home = home("{exec: {command: ./plugin, interactiveMode: IfAvailable}}");
    let secret = "Q2FuYXJ5".repeat(8);
    let last = format!("\\033[31mlog in at https://login.example/a-long-path-of-a-page {secret} \\007again");
    home.script(".kube/plugin", &format!("echo canary; echo first >&2; printf '{last}\\n\\n' >&2; exit 7"));
    let error = unwatched(&home).await;
    let told = "exit status: 7: [31mlog in at https://login.example/a-long-path-of-a-page … again";
    assert!(error.ends_with(told), "{error}");
    let url =
        "see https://me:pw@login.example/a?code=abc now, or https://login.example/Q2FuYXJ5Q2FuYXJ5Q2FuYXJ5Q2FuYXJ5";
    home.script(
        ".kube/plugin",
        &format!("echo '{url} /Q2FuYXJ5Q2FuYXJ5Q2FuYXJ5Q2FuYXJ5+Q2 /home/me/login' >&2; exit 7"),
    );
    let error = unwatched(&home).await;
    assert!(error.ends_with("exit status: 7: see https://login.example/a… now, or … … /home/me/login"), "{error}");
    home.script(".kube/plugin", "head -c 100000 /dev/zero | tr '\\0' 'a b' >&2; exit 7");
    assert!(unwatched(&home).await.chars().count() < 300);
    home.script(".kube/plugin", "exit 7");
    assert!(unwatched(&home).await.ends_with("exit status: 7"));
}

#[tokio::test]
async fn a_plugin_that_nobody_watches_may_leave_something_behind_and_has_no_screen() {
    let home = home("{exec: {command: ./plugin, env: [{name: DISPLAY, value: \":0\"}]}}");
    let around = Surroundings { words: Words::Kept, ..home.around(None) };
    // What it leaves holds its words' end, as an agent that keeps a login does.
    let (left, screens) = (home.0.path().join("left"), home.0.path().join("screens"));
    let text = format!(
        r#"sleep 60 >/dev/null & echo $! >{}; env | grep -c DISPLAY >{}; echo '{{"status":{{"token":"t"}}}}'"#,
        left.display(),
        screens.display()
    );
    home.script(".kube/plugin", &text);
    let resolved = tokio::time::timeout(Duration::from_secs(10), async {
        let flags = ConnectionFlags::default();
        resolve(&flags, &around).await.map(|resolved| resolved.access.credential)
    });
    let resolved = resolved.await;
    let pid = std::fs::read_to_string(&left).expect("a number").trim().parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it runs on");
    assert_eq!(resolved.expect("it is waited for"), Ok(Credential::Token("t".into())));
    assert_eq!(std::fs::read_to_string(&screens).expect("a count").trim(), "0");
}

#[tokio::test]
async fn a_plugin_that_hangs_unwatched_ends_with_all_that_it_started() {
    let home = Home::new();
    let child = home.0.path().join("child");
    let text = format!("sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait", child.display());
    let plugin = kube::config::ExecConfig {
        command: Some(home.script("hang", &text).display().to_string()),
        ..serde_json::from_str("{}").expect("all optional")
    };
    let (access, cluster) = (ClusterAccess::bare("https://h"), Cluster::default());
    let limit = Duration::from_secs(30);
    {
        let running = exec::run_within(&plugin, &cluster, &access, (false, Words::Kept), limit);
        let started = async {
            while !child.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = running => panic!("{:?}", ended.err()),
            () = started => {}
        }
    }
    // SIGKILL was sent before the drop ended; the kernel carries it out when it likes.
    let pid = std::fs::read_to_string(&child).expect("a number");
    let stat = format!("/proc/{}/stat", pid.trim());
    let runs = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    tokio::time::timeout(Duration::from_secs(10), async {
        while runs() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("what the plugin started goes on");
}

#[tokio::test]
async fn a_token_file_that_is_empty_gives_no_token() {
    let home = home("{tokenFile: token}");
    home.write(".kube/token", "\n");
    let error = resolve(&ConnectionFlags::default(), &home.around(None)).await.expect_err("no token");
    assert!(error.message.ends_with("/token is empty"), "{error}");
}

#[tokio::test]
async fn where_a_credential_comes_from_says_whether_there_may_be_another() {
    for (user, source) in [
        ("{token: t}", Source::Given),
        ("{tokenFile: token}", Source::File),
        ("{exec: {command: ./plugin}}", Source::Plugin),
        ("{client-certificate: token, client-key: token}", Source::File),
        ("{client-certificate-data: Q0VSVA==, client-key-data: S0VZ}", Source::Given),
    ] {
        let home = home(user);
        home.write(".kube/token", "t");
        home.script(".kube/plugin", r#"echo '{"status":{"token":"t"}}'"#);
        let found = resolve(&ConnectionFlags::default(), &home.around(None)).await.expect(user);
        assert_eq!(found.source, source, "{user}");
        let flags = ConnectionFlags { token: Some("mine".into()), ..ConnectionFlags::default() };
        assert_eq!(resolve(&flags, &home.around(None)).await.expect(user).source, Source::Given);
    }
}

#[test]
fn proxies_of_the_environment_spare_whom_they_should() {
    let around = Surroundings {
        https_proxy: Some("p:3128".into()),
        no_proxy: Some(".corp.example, 192.0.2.0/24".into()),
        ..Surroundings::default()
    };
    for (server, wanted) in [
        ("https://api.example", Some("http://p:3128")),
        ("https://api.corp.example:6443", None),
        ("https://192.0.2.7", None),
        ("https://127.0.0.1:6443", None),
    ] {
        assert_eq!(proxy(&around, server).as_deref(), wanted, "{server}");
    }
}

#[tokio::test]
async fn identities_that_cannot_be_sent_whole_are_refused() {
    for (user, named) in [
        ("{token: t, as: jane, as-uid: '7'}", "as-uid"),
        ("{token: t, as: jane, as-user-extra: {scopes: [a]}}", "as-user-extra"),
        ("{token: t, as-groups: [g]}", "together with a user"),
    ] {
        let home = home(user);
        let error = resolve(&ConnectionFlags::default(), &home.around(None)).await.expect_err(user);
        assert_eq!(error.reason, Reason::KubeconfigInvalid);
        assert!(error.message.contains(named), "{error}");
    }
    let home = home("{token: t, as: jane, as-groups: [g]}");
    let found = resolve(&ConnectionFlags::default(), &home.around(None)).await.expect("resolved");
    assert_eq!(found.access.impersonate.map(|who| (who.user, who.groups)), Some(("jane".into(), vec!["g".into()])));
}
