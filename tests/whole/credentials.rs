//! Credentials that end: the keeper that `connect` leaves behind, with plugins as users have them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use podway::status::{RenewalLine, SessionStatus};
use serde_json::json;

use crate::login::{LASTS, Login, config_of, may_all, refuse, refuse_anew};
use crate::world::{Daemon, LIMIT, World, seconds, until};

fn keepers(world: &World) -> usize {
    world.ws.processes().iter().filter(|words| words.contains("podway-keeper")).count()
}

fn no_keeper(world: &World) {
    until("the keeper's end", seconds(10), || (keepers(world) == 0).then_some(()));
}

fn renewal(status: &SessionStatus) -> Option<RenewalLine> {
    status.credentials.as_ref().map(|credentials| credentials.renewal)
}

/// Waits for that state of the renewal.
fn renews(podway: &Daemon<'_>, wanted: RenewalLine, limit: Duration) -> SessionStatus {
    let look = || Some(podway.status()).filter(|status| renewal(status) == Some(wanted));
    until(&format!("{wanted:?}"), limit, look).0
}

#[test]
fn a_connection_goes_on_past_the_end_of_its_credentials_and_no_secret_is_anywhere() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    let secret = login.gives(&world, "admin");
    world.with_daemon(|podway| {
        podway.connect(&["--kubeconfig", &login.kubeconfig]);
        let first = renews(podway, RenewalLine::Automatic, LIMIT).credentials_expire_at.unwrap();
        let mut stream = world.ws.reach("web", 9001).unwrap();
        let mut echo = || {
            stream.write_all(b"as before").unwrap();
            let mut back = [0; 9];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"as before");
        };
        echo();
        // Twice, and past the end of the first ones.
        let ends = i64::try_from(LASTS).unwrap();
        let later = || podway.status().credentials_expire_at.filter(|at| *at > first + ends);
        let (last, took) = until("credentials that end later", seconds(40), later);
        println!("{} runs of the plugin in {took:?}: {first}, then {last}", login.runs());
        echo();
        let status = podway.status();
        assert!(status.warnings.is_empty() && status.holds("Ready"), "{status:?}");
        assert_eq!((keepers(&world), world.ws.who("web").is_ok()), (1, true));
        // As often as they end, not more.
        assert!(login.runs() <= 4 + usize::try_from(took.as_secs()).unwrap() / 2, "{} runs", login.runs());

        assert!(podway.expect(0, &["logs"]).out.contains("the credentials were renewed"));
        let shown = [&["status", "-o", "json"][..], &["status"], &["logs", "--level", "trace"], &["config", "view"]];
        for words in shown {
            let done = podway.expect(0, words);
            assert!(!done.out.contains(&secret) && !done.err.contains(&secret), "podway {words:?}: {done:?}");
        }
        assert!(!podway.log().contains(&secret), "in the log");
        for (words, secrets) in world.ws.secrets(&secret) {
            assert!(secrets.is_empty(), "{words}: in its {secrets:?}");
        }
        assert_eq!(world.ws.files_with("/run/podway", &secret), Vec::<String>::new());
        podway.disconnect(&[]);
        no_keeper(&world);
    });
}

#[test]
fn other_credentials_are_asked_for_when_the_api_server_refuses_these() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    may_all(&world, "none");
    // The certificates last for years: the first refusal tells.
    login.put("endless", "");
    world.with_daemon(|podway| {
        podway.connect(&["--kubeconfig", &login.kubeconfig]);
        renews(podway, RenewalLine::Automatic, LIMIT);
        login.gives(&world, "none");
        refuse(&world, "admin");
        let needs_login = |status: &SessionStatus| status.conditions.iter().any(|c| c.reason == "NeedsLogin");
        // A service of now is known to whom the API server takes.
        let name = "podway-new.demo.svc.cluster.local";
        let metadata = json!({"namespace": "demo", "name": "podway-new"});
        let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
        world.cluster.apply(service).unwrap();
        let (_, took) = until("its name", seconds(30), || world.ws.lookup(name).ok());
        println!("other credentials after {took:?}");
        let look = || Some(podway.status()).filter(|status| status.holds("Ready"));
        let (status, _) = until("Ready", seconds(30), look);
        assert!(!needs_login(&status) && status.warnings.is_empty(), "{status:?}");
        podway.disconnect(&[]);
        no_keeper(&world);
    });
}

#[test]
fn a_dial_that_is_refused_is_enough_to_ask_for_other_credentials() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    may_all(&world, "none");
    login.put("endless", "");
    world.with_daemon(|podway| {
        podway.connect(&["--kubeconfig", &login.kubeconfig]);
        renews(podway, RenewalLine::Automatic, LIMIT);
        world.ws.who("web").unwrap();
        login.gives(&world, "none");
        // The watches go on: only what is asked for anew is refused, and links are.
        refuse_anew(&world, "admin");
        let links = json!({"resource": "pods/portforward"});
        assert!(world.cluster.fault(json!({"do": "cut", "on": links})).unwrap().as_u64().unwrap() > 0);
        let (_, took) = until("a flow", seconds(30), || world.ws.who("web").ok());
        println!("a flow with other credentials after {took:?}, {} runs", login.runs());
        until("Ready", seconds(30), || podway.status().holds("Ready").then_some(()));
        podway.disconnect(&[]);
        no_keeper(&world);
    });
}

#[test]
fn a_plugin_that_gives_what_is_refused_is_run_ever_more_seldom_and_that_is_told() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    login.put("endless", "");
    world.with_daemon(|podway| {
        podway.connect(&["--kubeconfig", &login.kubeconfig]);
        renews(podway, RenewalLine::Automatic, LIMIT);
        let before = login.runs();
        refuse(&world, "admin");
        let began = std::time::Instant::now();
        let status = renews(podway, RenewalLine::NeedsLogin, LIMIT);
        assert!(status.credentials.unwrap().message.contains("refuses what was had anew"), "{:?}", status.warnings);
        std::thread::sleep(seconds(20).saturating_sub(began.elapsed()));
        let runs = login.runs() - before;
        println!("{runs} runs in {:?}", began.elapsed());
        assert!((2..=6).contains(&runs), "{runs} runs");
        podway.disconnect(&[]);
        no_keeper(&world);
    });
}

#[test]
fn the_keeper_outlives_the_terminal_and_no_directory_is_in_use() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    world.with_daemon(|podway| {
        for _ in 0..5 {
            assert!(world.podway_on_a_terminal(&["connect", "-n", "demo", "--kubeconfig", &login.kubeconfig]));
            let wanted = || (keepers(&world) == 1).then_some(());
            until("one keeper", seconds(5), wanted);
            // One that would end with the terminal has by then.
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(keepers(&world), 1);
        }
        login.put("endless", "");
        let nowhere = || world.ws.directories("podway-keeper") == [PathBuf::from("/")];
        until("a keeper that is nowhere", LIMIT, || nowhere().then_some(()));
        renews(podway, RenewalLine::Automatic, LIMIT);
        podway.disconnect(&[]);
        no_keeper(&world);
    });
}

#[test]
fn the_keeper_of_former_credentials_ends_when_others_are_given_that_do_not_come_again() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    may_all(&world, "none");
    world.with_daemon(|podway| {
        podway.connect(&["--kubeconfig", &login.kubeconfig]);
        renews(podway, RenewalLine::Automatic, LIMIT);
        // Another user of the same cluster, whose certificate is in the file; what ran before must not come back.
        let mut config = config_of(&world, "admin");
        config["users"][0]["user"] = config_of(&world, "none")["users"][0]["user"].take();
        login.put("given", &config.to_string());
        let given = login.directory.join("given").display().to_string();
        podway.connect(&["--kubeconfig", &given]);
        no_keeper(&world);
        let runs = login.runs();
        std::thread::sleep(seconds(LASTS + 2));
        assert_eq!(login.runs(), runs);
        let status = podway.status();
        assert!(renewal(&status) != Some(RenewalLine::Automatic) && status.holds("Ready"), "{status:?}");
        podway.disconnect(&[]);
    });
}

#[test]
fn a_plugin_that_fails_is_told_with_its_last_words_and_what_comes_later_is_taken() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    world.with_daemon(|podway| {
        podway.connect(&["--kubeconfig", &login.kubeconfig]);
        login.put("fail", "no session: log in at https://login.example\n");
        let status = renews(podway, RenewalLine::Failing, LIMIT);
        let words = "exit status: 3: no session: log in at https://login.example";
        assert!(status.credentials.unwrap().message.ends_with(words), "{:?}", status.warnings);
        assert!(status.warnings.iter().any(|line| line.contains(words) && line.contains("podway connect")));
        let log = podway.expect(0, &["logs"]).out;
        assert!(log.contains("the credentials could not be renewed") && log.contains(words), "{log}");
        refuse(&world, "admin");
        let status = renews(podway, RenewalLine::NeedsLogin, LIMIT);
        let watch = status.conditions.iter().find(|c| c.r#type == "WatchReady").unwrap();
        assert!(watch.reason == "NeedsLogin" && watch.message.contains(words), "{watch:?}");
        may_all(&world, "none");
        login.gives(&world, "none");
        fs::remove_file(login.directory.join("fail")).unwrap();
        // Connecting again asks at once, and leaves another keeper.
        podway.connect(&["--kubeconfig", &login.kubeconfig]);
        renews(podway, RenewalLine::Automatic, LIMIT);
        until("the older keeper's end", seconds(10), || (keepers(&world) == 1).then_some(()));
        podway.disconnect(&[]);
        no_keeper(&world);
    });
}

#[test]
fn a_plugin_that_hangs_holds_nothing_up_and_ends_with_the_connection() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    let hangs = || world.ws.processes().iter().filter(|words| words.contains("sleep 600")).count();
    world.with_daemon(|podway| {
        podway.connect(&["--kubeconfig", &login.kubeconfig]);
        login.put("hang", "");
        until("a plugin that hangs", LIMIT, || (hangs() == 1).then_some(()));
        world.ws.who("web").unwrap();
        let status = renews(podway, RenewalLine::Failing, seconds(60));
        assert!(status.credentials.unwrap().message.contains("no answer in 30 s"), "{:?}", status.warnings);
        until("another try", seconds(30), || (login.runs() >= 3 && hangs() == 1).then_some(()));
        let took = podway.disconnect(&[]);
        println!("disconnected in {took:?}");
        no_keeper(&world);
        until("the plugin's end", seconds(10), || (hangs() == 0).then_some(()));
    });
}

#[test]
fn the_keeper_ends_with_the_daemon_and_by_a_signal_and_connecting_again_leaves_another() {
    let Some(world) = World::start() else { return };
    let login = Login::of(&world, "admin");
    let connect = ["--kubeconfig", login.kubeconfig.as_str()];
    world.with_daemon(|podway| {
        podway.connect(&connect);
        renews(podway, RenewalLine::Automatic, LIMIT);
        world.ws.end_processes("podway-keeper");
        no_keeper(&world);
        // It may have been renewed just before: what it is by then is told by its absence.
        renews(podway, RenewalLine::ByHand, LIMIT);
        podway.connect(&connect);
        renews(podway, RenewalLine::Automatic, LIMIT);
        podway.kill();
        no_keeper(&world);
        podway.start();
    });
}
