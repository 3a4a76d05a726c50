use super::*;

fn caller() -> Caller {
    Caller { uid: 1000, gid: 1000, pid: None }
}

fn open(ask: u64, name: &str) -> Input {
    let spec = serde_json::json!({ "name": name, "namespace": "demo", "timeout_ms": 1000 });
    let access = serde_json::from_value(serde_json::json!({ "server": "https://192.0.2.1:6443" })).unwrap();
    let spec = Box::new(serde_json::from_value(spec).unwrap());
    Input::Open { ask: ReplyId(ask), caller: caller(), spec, cluster: Cluster::of(&access) }
}

fn feed(core: &mut DaemonCore, at: u64, input: Input) -> Vec<Effect> {
    core.handle(Millis(at), input);
    std::iter::from_fn(|| core.poll_effect()).collect()
}

#[test]
fn what_waits_for_an_end_is_started_after_it_in_the_order_in_which_it_came() {
    let mut core = DaemonCore::new();
    assert_eq!(feed(&mut core, 0, open(1, "a")), [Effect::Start(ReplyId(1))]);
    assert_eq!(feed(&mut core, 0, open(2, "a")), [Effect::Found(ReplyId(2), "a".into())]);
    feed(&mut core, 0, Input::Ending(["a".into()].into()));
    assert_eq!(feed(&mut core, 5, open(3, "a")), []);
    assert_eq!((feed(&mut core, 6, open(4, "a")), core.poll_deadline()), (vec![], Some(Millis(1005))));
    let came = feed(&mut core, 7, Input::Ended("a".into()));
    assert_eq!(came, [Effect::Start(ReplyId(3)), Effect::Found(ReplyId(4), "a".into())]);
    assert_eq!(core.poll_deadline(), None);
}

#[test]
fn a_daemon_that_shuts_down_begins_nothing_and_says_once_when_it_is_empty() {
    let mut core = DaemonCore::new();
    feed(&mut core, 0, open(1, "a"));
    assert_eq!(feed(&mut core, 0, Input::Shutdown), [Effect::End("a".into())]);
    assert_eq!(feed(&mut core, 0, open(2, "b")), [Effect::Forget(ReplyId(2))]);
    assert_eq!(feed(&mut core, 0, Input::Ended("a".into())), [Effect::Empty]);
    assert_eq!(feed(&mut core, 0, Input::Woke), []);
}
