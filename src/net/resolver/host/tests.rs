use std::collections::BTreeSet;
use std::fs;

use super::look::resolvers;
use super::*;

fn plan(interface: &str) -> LinkPlan {
    LinkPlan {
        ifindex: 7,
        interface: interface.into(),
        servers: vec!["246.246.0.2".parse().unwrap()],
        search: Vec::new(),
        routing: vec!["cluster.local".into()],
    }
}

#[test]
fn the_host_s_servers_are_those_of_before_and_those_that_resolved_asks() {
    let etc = tempfile::tempdir().unwrap();
    let uplink = etc.path().join("uplink");
    let found = || resolvers(etc.path(), &uplink).iter().map(IpAddr::to_string).collect::<Vec<_>>();
    assert!(found().is_empty());
    fs::write(etc.path().join("resolv.conf"), "nameserver 127.0.0.53\nnameserver 192.0.2.53\n").unwrap();
    fs::write(&uplink, "nameserver 10.96.0.53\n").unwrap();
    assert_eq!(found(), ["10.96.0.53", "192.0.2.53"]);
    ResolvConf::new(etc.path()).apply(&plan("podway0")).unwrap();
    assert_eq!(found(), ["10.96.0.53", "192.0.2.53"], "ours is no server of the host");
}

#[tokio::test]
async fn a_host_on_which_nothing_can_be_attached_is_told_so() {
    let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink("elsewhere", etc.path().join("resolv.conf")).unwrap();
    let resolver = HostResolver::new(etc.path(), OsJournal::new(run.path()), FileEditor::default());
    let failed = resolver.attach(DnsMode::Auto, &plan("podway0")).await.unwrap_err();
    assert_eq!(failed.outlook, Outlook::Hopeless);
    assert!(failed.message.contains("not attached") && failed.message.contains("--dns off"), "{}", failed.message);
    fs::remove_file(etc.path().join("resolv.conf")).unwrap();
    assert_eq!(resolver.attach(DnsMode::Auto, &plan("podway0")).await.unwrap().backend, Backend::File);
    assert_eq!(resolver.detach().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_was_begun_before_detaching_is_not_done_after() {
    const THEIRS: &str = "nameserver 192.0.2.53\n";
    let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = etc.path().join("resolv.conf");
    fs::write(&path, THEIRS).unwrap();
    let editor = FileEditor::default();
    let resolver = HostResolver::new(etc.path(), OsJournal::new(run.path()), editor.clone());
    // Both wait here, and then go on in either order.
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let holding = tokio::spawn({
        let resolver = resolver.clone();
        async move {
            let wait = move |_: &Arc<Mutex<Done>>| {
                begin.send(()).unwrap();
                gate.recv().unwrap();
                Ok(())
            };
            resolver.writing(wait).await.unwrap();
        }
    });
    begun.await.unwrap();
    let attaching = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.attach(DnsMode::File, &plan("podway0")).await }
    });
    // It waits behind that one.
    while Arc::strong_count(&resolver.done) < 6 {
        tokio::task::yield_now().await;
    }
    attaching.abort();
    let detaching = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.detach().await }
    });
    while *resolver.detached.borrow() == 0 {
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    holding.await.unwrap();
    assert_eq!(detaching.await.unwrap(), Vec::<String>::new());
    // Whoever comes next waits for both.
    assert_eq!(resolver.detach().await, Vec::<String>::new());
    resolver.writing(|_| Ok(())).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), THEIRS);
    assert_eq!(resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap().backend, Backend::File);
    resolver.detach().await;
    assert!(fs::read_dir(run.path()).unwrap().next().is_none(), "nothing is left in the journal");
}

/// What a resolved of the test was told.
#[derive(Debug, Default)]
struct Told {
    servers: Vec<(i32, Vec<u8>)>,
    domains: Vec<(String, bool)>,
    reverted: Vec<i32>,
    /// Whether it answers nothing about links any more.
    hangs: bool,
}

/// A resolved at the other end of a socket, which keeps what it is told.
async fn fake_resolved() -> (Resolved, Arc<Mutex<Told>>) {
    use futures_util::StreamExt as _;
    use zbus::{ObjectPath, Variant as Value};

    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let guid = zbus::Guid::generate();
    let server = zbus::connection::Builder::unix_stream(theirs).server(guid).p2p().build();
    let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
    let (server, client) = tokio::try_join!(server, client).unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let keeps = Arc::clone(&told);
    tokio::spawn(async move {
        let mut calls = zbus::MessageStream::from(&server);
        while let Some(Ok(call)) = calls.next().await {
            let header = call.header();
            let (member, body) = (header.member().unwrap().to_string(), call.body());
            if member.contains("Link") && locked(&keeps).hangs {
                continue;
            }
            match member.as_str() {
                "GetLink" => {
                    let path = ObjectPath::try_from("/org/freedesktop/resolve1/link/_7").unwrap();
                    server.reply(&header, &path).await.unwrap();
                    continue;
                }
                "Get" => {
                    let (of, name): (String, String) = body.deserialize().unwrap();
                    let value = {
                        let told = locked(&keeps);
                        match name.as_str() {
                            "DNS" => Value::from(told.servers.clone()),
                            "Domains" if of.ends_with("Manager") => Value::from(vec![
                                (0, "lan.example", false),
                                (3, "corp.example.", true),
                                (3, ".", true),
                                (7, "cluster.local", true),
                            ]),
                            "Domains" => Value::from(told.domains.clone()),
                            "DefaultRoute" => Value::from(false),
                            _ => Value::from(1_u64),
                        }
                    };
                    server.reply(&header, &value).await.unwrap();
                    continue;
                }
                "SetLinkDNS" => locked(&keeps).servers = body.deserialize::<(i32, _)>().unwrap().1,
                "SetLinkDomains" => locked(&keeps).domains = body.deserialize::<(i32, _)>().unwrap().1,
                "RevertLink" => {
                    let (index,) = body.deserialize().unwrap();
                    let mut told = locked(&keeps);
                    told.reverted.push(index);
                    (told.servers, told.domains) = Default::default();
                }
                _ => {}
            }
            server.reply(&header, &()).await.unwrap();
        }
    });
    (Resolved::over(client), told)
}

#[tokio::test]
async fn settings_of_resolved_are_reverted_by_who_outlives_the_one_that_made_them() {
    let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (resolved, told) = fake_resolved().await;
    let mut session = HostResolver::new(etc.path(), OsJournal::new(run.path()), FileEditor::default());
    session.resolved = Some(resolved);
    // Dns has a clone, and panics: what it did is the session's to undo.
    let dns = session.clone();
    let attached = dns.attach(DnsMode::Resolved, &plan("podway0")).await.unwrap();
    assert_eq!(
        (attached.backend, attached.domains.unwrap_or_default().join(" ").as_str()),
        (Backend::Resolved, "lan.example corp.example")
    );
    assert_eq!(locked(&told).servers, [(2, vec![246, 246, 0, 2])]);
    assert_eq!(locked(&told).domains, [("cluster.local".to_owned(), true)]);
    drop(dns);
    assert_eq!(session.detach().await, Vec::<String>::new());
    let seen = || {
        let told = locked(&told);
        (told.reverted.len(), told.servers.len(), told.domains.len())
    };
    assert_eq!(seen(), (1, 0, 0));
    assert_eq!(locked(&told).reverted, [7]);
    assert_eq!(session.detach().await, Vec::<String>::new());
    assert_eq!(seen().0, 1, "once is enough");

    // In the middle of it, too.
    let dns = session.clone();
    let attaching = tokio::spawn(async move { dns.attach(DnsMode::Resolved, &plan("podway0")).await });
    while locked(&told).domains.is_empty() {
        tokio::task::yield_now().await;
    }
    attaching.abort();
    assert_eq!(session.detach().await, Vec::<String>::new());
    assert_eq!(seen(), (2, 0, 0));

    // One that hangs is told of, and tried again by the next.
    session.attach(DnsMode::Resolved, &plan("podway0")).await.unwrap();
    locked(&told).hangs = true;
    let left = session.detach().await;
    assert!(left.len() == 1 && left[0].contains("did not answer RevertLink within 1 s"), "{left:?}");
    locked(&told).hangs = false;
    assert_eq!(session.detach().await, Vec::<String>::new());
    assert_eq!(seen().0, 3);
}

#[tokio::test]
async fn nobody_is_beside_a_connection_that_has_not_got_the_file() {
    let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = etc.path().join("resolv.conf");
    let editor = FileEditor::default();
    let resolver = || HostResolver::new(etc.path(), OsJournal::new(run.path()), editor.clone());
    let (first, second) = (resolver(), resolver());
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    assert_eq!(first.attach(DnsMode::File, &plan("podway0")).await.unwrap_err().outlook, Outlook::Hopeless);
    for mode in [DnsMode::File, DnsMode::Auto] {
        let waits = second.attach(mode, &plan("podway1")).await.unwrap_err();
        assert_eq!((waits.outlook, waits.message.contains("another connection")), (Outlook::Taken, true));
    }
    assert!(first.beside().is_empty());
    first.detach().await;
    fs::remove_file(&path).unwrap();
    assert_eq!(second.attach(DnsMode::Auto, &plan("podway1")).await.unwrap().backend, Backend::File);
    second.detach().await;
}

#[tokio::test]
async fn one_connection_edits_the_file_and_another_after_it() {
    const THEIRS: &str = "nameserver 192.0.2.53\n";
    let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = etc.path().join("resolv.conf");
    fs::write(&path, THEIRS).unwrap();
    let editor = FileEditor::default();
    let resolver = || HostResolver::new(etc.path(), OsJournal::new(run.path()), editor.clone());
    let (first, second) = (resolver(), resolver());
    assert_eq!(first.attach(DnsMode::File, &plan("podway0")).await.unwrap().backend, Backend::File);
    let ours = fs::read(&path).unwrap();
    for mode in [DnsMode::File, DnsMode::Auto] {
        let beside = second.attach(mode, &plan("podway1")).await.unwrap();
        assert_eq!((beside.backend, beside.message.as_str()), (Backend::Beside, BESIDE));
    }
    assert_eq!(first.beside(), plan("podway1").servers, "asked once");
    assert!(second.beside().is_empty(), "it is not asked itself");
    // What another connection did is not the second's to undo.
    assert_eq!(second.detach().await, Vec::<String>::new());
    assert_eq!(fs::read(&path).unwrap(), ours);
    assert!(first.beside().is_empty(), "what has detached is asked no more");
    second.attach(DnsMode::Auto, &plan("podway1")).await.unwrap();
    assert_eq!(first.attach(DnsMode::File, &plan("podway0")).await.unwrap().backend, Backend::File);

    assert_eq!(first.detach().await, Vec::<String>::new());
    assert_eq!(fs::read_to_string(&path).unwrap(), THEIRS);
    assert_eq!(second.attach(DnsMode::File, &plan("podway1")).await.unwrap().backend, Backend::File);
    assert!(first.beside().is_empty(), "who edits the file is beside nobody");
    // Without a word, as a connection that panicked: the next takes it over.
    drop(second);
    let third = resolver();
    assert_eq!(third.attach(DnsMode::File, &plan("podway2")).await.unwrap().backend, Backend::File);
    assert_eq!(third.detach().await, Vec::<String>::new());
    assert_eq!(fs::read_to_string(&path).unwrap(), THEIRS);
}

#[tokio::test]
async fn names_of_two_users_stay_apart() {
    let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(etc.path().join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    let editor = FileEditor::default();
    let of = |uid| HostResolver::new(etc.path(), OsJournal::new(run.path()), editor.clone()).of(uid);
    let (first, second, others) = (of(1000), of(1000), of(1001));
    assert_eq!(first.attach(DnsMode::File, &plan("podway0")).await.unwrap().backend, Backend::File);
    assert_eq!(second.attach(DnsMode::File, &plan("podway1")).await.unwrap().backend, Backend::Beside);
    let refused = others.attach(DnsMode::File, &plan("podway2")).await.unwrap_err();
    assert!(refused.outlook == Outlook::Taken && refused.message.contains("another user"), "{refused:?}");
    assert!(first.beside().len() == 1 && others.beside().is_empty(), "{:?}", others.beside());
    assert_eq!(first.detach().await, Vec::<String>::new());
    assert_eq!(others.attach(DnsMode::File, &plan("podway2")).await.unwrap().backend, Backend::File);
    assert!(others.beside().is_empty(), "{:?}", others.beside());
    assert_eq!(others.detach().await, Vec::<String>::new());
}

/// A host with this resolv.conf, and connections on it.
struct Host {
    etc: tempfile::TempDir,
    run: tempfile::TempDir,
    editor: FileEditor,
}

impl Host {
    fn new(resolv_conf: &str) -> Host {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(etc.path().join("resolv.conf"), resolv_conf).unwrap();
        Host { etc, run, editor: FileEditor::default() }
    }

    fn connection(&self) -> HostResolver {
        HostResolver::new(self.etc.path(), OsJournal::new(self.run.path()), self.editor.clone())
    }

    fn path(&self) -> PathBuf {
        self.etc.path().join("resolv.conf")
    }
}

fn asked_at(server: &str) -> LinkPlan {
    LinkPlan { servers: vec![server.parse().unwrap()], ..plan("podway0") }
}

#[tokio::test]
async fn an_attaching_that_was_called_before_detaching_does_nothing_after_it() {
    let host = Host::new("nameserver 192.0.2.53\n");
    let (resolved, told) = fake_resolved().await;
    let mut resolver = host.connection();
    resolver.resolved = Some(resolved);
    for mode in [DnsMode::File, DnsMode::Auto, DnsMode::Resolved] {
        let late = resolver.attach(mode, &plan("podway0"));
        assert_eq!(resolver.detach().await, Vec::<String>::new());
        assert!(late.await.unwrap_err().message.contains("put back meanwhile"));
        assert_eq!(fs::read_to_string(host.path()).unwrap(), "nameserver 192.0.2.53\n");
        assert!(locked(&told).servers.is_empty());
    }
}

#[tokio::test]
async fn a_detaching_that_is_late_to_hear_of_its_end_takes_no_later_attaching_back() {
    let host = Host::new("nameserver 192.0.2.53\n");
    let resolver = host.connection();
    resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    let mut detaching = Box::pin(resolver.detach());
    // Its thread comes to its end, of which it has not heard.
    {
        let _one = locked(&host.editor.writing);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while Arc::strong_count(&resolver.done) < 3 {
            assert!(detaching.as_mut().poll(&mut context).is_pending());
            std::thread::yield_now();
        }
    }
    while resolver.done().file {
        tokio::task::yield_now().await;
    }
    resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    assert_eq!(detaching.await, Vec::<String>::new());
    let beside = host.connection().attach(DnsMode::File, &plan("podway1")).await.unwrap();
    assert_eq!(beside.backend, Backend::Beside, "the file is still the first one's");
    assert_eq!(resolver.detach().await, Vec::<String>::new());
    assert_eq!(fs::read_to_string(host.path()).unwrap(), "nameserver 192.0.2.53\n", "and given back by it");
}

#[tokio::test]
async fn no_connection_asks_another_that_asks_it_back() {
    // A server of the host is where the second connection is asked, as an earlier run may have left it.
    let host = Host::new("search lan.example\nnameserver 246.247.0.2\nnameserver 192.0.2.53\n");
    let (first, second, third) = (host.connection(), host.connection(), host.connection());
    let attached = first.attach(DnsMode::File, &asked_at("246.246.0.2")).await.unwrap();
    assert_eq!(attached.domains, Some(vec!["lan.example".to_owned()]));
    second.attach(DnsMode::File, &asked_at("246.247.0.2")).await.unwrap();
    third.attach(DnsMode::File, &asked_at("246.248.0.2")).await.unwrap();
    assert_eq!(first.upstream(), ["192.0.2.53".parse::<IpAddr>().unwrap()]);
    assert_eq!(first.beside().len(), 2);
    for beside in [&second, &third] {
        assert!(beside.beside().is_empty() && beside.upstream().is_empty(), "it would go round in a circle");
    }
    first.detach().await;
    assert!(first.beside().is_empty() && first.upstream().is_empty(), "what it once knew is another's now");
    second.attach(DnsMode::File, &asked_at("246.247.0.2")).await.unwrap();
    first.attach(DnsMode::File, &asked_at("246.246.0.2")).await.unwrap();
    assert!(second.beside().len() == 2 && first.beside().is_empty());
    for connection in [second, first, third] {
        assert_eq!(connection.detach().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_check_that_fails_leaves_it_open_whether_the_file_is_ours() {
    let host = Host::new("nameserver 192.0.2.53\n");
    let resolver = host.connection();
    resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    let backup = host.etc.path().join("resolv.conf.podway-backup");
    let whole = fs::read(&backup).unwrap();
    let upstream = ["192.0.2.53".parse::<IpAddr>().unwrap()];
    fs::write(&backup, "damaged").unwrap();
    let failed = resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap_err();
    assert!(failed.file, "{failed:?}");
    assert_eq!(resolver.upstream(), upstream, "names of the host come here still");
    fs::remove_file(&backup).unwrap();
    assert!(resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap_err().file);
    assert_eq!(resolver.upstream(), upstream);
    fs::write(&backup, whole).unwrap();
    resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    fs::remove_file(host.path()).unwrap();
    std::os::unix::fs::symlink("elsewhere", host.path()).unwrap();
    let failed = resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap_err();
    assert!(!failed.file, "{failed:?}");
    resolver.detach().await;
}

#[tokio::test]
async fn where_the_file_is_lost_to_a_link_what_is_best_is_chosen_anew() {
    let host = Host::new("nameserver 192.0.2.53\n");
    let (resolved, told) = fake_resolved().await;
    let mut resolver = host.connection();
    resolver.resolved = Some(resolved);
    assert_eq!(resolver.attach(DnsMode::Auto, &plan("podway0")).await.unwrap().backend, Backend::File);
    // Somebody sets the host up for resolved.
    fs::remove_file(host.path()).unwrap();
    std::os::unix::fs::symlink("elsewhere", host.path()).unwrap();
    fs::write(host.etc.path().join("nsswitch.conf"), "hosts: files resolve dns\n").unwrap();
    assert!(!resolver.attach(DnsMode::Auto, &plan("podway0")).await.unwrap_err().file, "it is seen");
    assert_eq!(resolver.attach(DnsMode::Auto, &plan("podway0")).await.unwrap().backend, Backend::Resolved);
    assert!(!locked(&told).servers.is_empty());
    assert_eq!(resolver.detach().await, Vec::<String>::new());
    assert!(host.path().is_symlink() && !host.etc.path().join("resolv.conf.podway-backup").exists());
}

#[tokio::test(start_paused = true)]
async fn a_detaching_that_waits_takes_no_later_attaching_back() {
    let host = Host::new("nameserver 192.0.2.53\n");
    let resolver = host.connection();
    resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    // Somebody is writing it, and does not come to an end.
    fs::write(host.path(), "nameserver ").unwrap();
    let detaching = tokio::spawn(tokio::time::timeout(Duration::from_millis(1300), resolver.detach()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let attaching = tokio::spawn(resolver.attach(DnsMode::File, &plan("podway0")));
    assert_eq!(detaching.await.unwrap().expect("a disconnect waits for it"), Vec::<String>::new());
    attaching.await.unwrap().unwrap();
    let ours = fs::read_to_string(host.path()).unwrap();
    assert!(ours.contains("246.246.0.2") && resolver.may_be_asked(), "{ours}");
    resolver.detach().await;
}

#[tokio::test]
async fn a_connection_beside_the_editor_knows_the_domains_of_the_host_too() {
    let host = Host::new("search lan.example\nnameserver 192.0.2.53\n");
    let (first, second) = (host.connection(), host.connection());
    for (connection, backend) in [(&first, Backend::File), (&second, Backend::Beside)] {
        let attached = connection.attach(DnsMode::File, &plan("podway0")).await.unwrap();
        assert_eq!((attached.backend, attached.domains), (backend, Some(vec!["lan.example".to_owned()])));
    }
    fs::write(host.etc.path().join("resolv.conf.podway-backup"), "damaged").unwrap();
    let attached = second.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    assert_eq!(attached.domains, None, "what cannot be read is as it was");
    first.detach().await;
}

#[tokio::test]
async fn an_edit_that_takes_us_out_is_told_and_nobody_counts_as_beside() {
    let host = Host::new("nameserver 192.0.2.53\n");
    let (first, second) = (host.connection(), host.connection());
    first.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    second.attach(DnsMode::File, &plan("podway1")).await.unwrap();
    let ours = fs::read_to_string(host.path()).unwrap();
    fs::write(host.path(), ours.replace("nameserver 246.246.0.2", "nameserver 203.0.113.7")).unwrap();
    let failed = first.attach(DnsMode::File, &plan("podway0")).await.unwrap_err();
    assert_eq!((failed.outlook, failed.file), (Outlook::Edited, true));
    assert!(failed.message.contains("put that line back"), "{}", failed.message);
    assert_eq!(second.attach(DnsMode::File, &plan("podway1")).await.unwrap_err().outlook, Outlook::Taken);
    fs::write(host.path(), ours).unwrap();
    first.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    assert_eq!(second.attach(DnsMode::File, &plan("podway1")).await.unwrap().backend, Backend::Beside);
    first.detach().await;
}

#[tokio::test]
async fn edits_that_were_moved_aside_are_told_until_the_end() {
    let host = Host::new("nameserver 192.0.2.53\n");
    let resolver = host.connection();
    let other = |name: &str| LinkPlan { search: vec![name.to_owned()], ..plan("podway0") };
    resolver.attach(DnsMode::File, &other("a.example")).await.unwrap();
    for name in ["b.example", "c.example"] {
        let edited = fs::read_to_string(host.path()).unwrap() + "# mine\n";
        fs::write(host.path(), edited).unwrap();
        for _ in 0..2 {
            let attached = resolver.attach(DnsMode::File, &other(name)).await.unwrap();
            assert!(attached.message.contains("podway-edited"), "{}", attached.message);
        }
    }
    let told = resolver.detach().await;
    assert!(told.len() == 2 && told[0].ends_with("podway-edited") && told[1].ends_with("podway-edited-2"), "{told:?}");
}

#[tokio::test]
async fn who_writes_the_file_in_several_steps_comes_to_an_end() {
    use std::io::Write as _;
    let host = Host::new("nameserver 192.0.2.53\n");
    let resolver = host.connection();
    resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    let mut slow = fs::File::create(host.path()).unwrap();
    let attaching = tokio::spawn(resolver.attach(DnsMode::File, &plan("podway0")));
    for step in ["nameserver ", "203.0.113.7\n", "search lan.example\n"] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        slow.write_all(step.as_bytes()).unwrap();
    }
    drop(slow);
    assert!(attaching.await.unwrap().unwrap().repaired);
    resolver.detach().await;
    assert_eq!(fs::read_to_string(host.path()).unwrap(), "nameserver 203.0.113.7\nsearch lan.example\n");
}

#[tokio::test]
async fn who_is_about_to_write_the_file_when_podway_leaves_comes_to_an_end() {
    use std::io::Write as _;
    let host = Host::new("nameserver 192.0.2.53\n");
    let resolver = host.connection();
    resolver.attach(DnsMode::File, &plan("podway0")).await.unwrap();
    let mut slow = fs::File::create(host.path()).unwrap();
    let detaching = tokio::spawn(resolver.detach());
    tokio::time::sleep(Duration::from_millis(300)).await;
    slow.write_all(b"nameserver 203.0.113.7\n").unwrap();
    assert_eq!(detaching.await.unwrap(), Vec::<String>::new());
    assert_eq!(fs::read_to_string(host.path()).unwrap(), "nameserver 203.0.113.7\n");
}

#[tokio::test]
async fn a_fifo_in_the_place_of_a_file_of_the_host_holds_nobody_up() {
    let etc = tempfile::tempdir().unwrap();
    for name in ["resolv.conf", "nsswitch.conf"] {
        nix::unistd::mkfifo(&etc.path().join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let path = etc.path().to_owned();
    let looked =
        std::thread::spawn(move || (uses_resolved(&path), is_ours(&path), resolvers(&path, &path.join("resolv.conf"))));
    let until = Duration::from_secs(5);
    for _ in 0..100 {
        if looked.is_finished() {
            return assert_eq!(looked.join().unwrap(), (false, false, BTreeSet::new()));
        }
        tokio::time::sleep(until / 100).await;
    }
    panic!("it waits for a writer");
}
