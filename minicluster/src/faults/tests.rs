use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::link::LinkStream;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to see that nothing comes.
const QUIET: Duration = Duration::from_millis(100);

fn who(verb: &str, user: &str) -> Who {
    Who { verb: verb.to_owned(), resource: "pods".to_owned(), user: user.to_owned(), ..Who::default() }
}

/// A connection below faults, and its other end.
async fn connection(faults: &Faults) -> (LinkStream, TcpStream, Arc<Link>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (near, _) = listener.accept().await.unwrap();
    let link = faults.connected();
    (LinkStream::new(near, Arc::clone(&link)), far, link)
}

#[test]
fn a_counted_rule_is_used_up_by_those_it_is_about() {
    let faults = Faults::new();
    let link = faults.connected();
    let refuse = Fault::Refuse { code: 500, message: None, retry_after: None };
    faults.set(Rule::times(2, Matcher::of("list", "pods"), refuse));
    let met = |verb: &str| faults.requested(&link, &who(verb, "jane")).len();
    assert_eq!([met("get"), met("list"), met("list"), met("list")], [0, 1, 1, 0]);
}

#[test]
fn rules_are_data() {
    let mut rule = json!({"on": {"resource": "pods/portforward", "user": "jane"}, "fault": "black_hole", "times": 1});
    let read: Rule = serde_json::from_value(rule.clone()).unwrap();
    let on = Matcher { user: Some("jane".to_owned()), ..Matcher::portforward() };
    assert_eq!(read, Rule::times(1, on, Fault::BlackHole { way: Way::Both }));
    rule["way"] = json!("both");
    assert_eq!(serde_json::to_value(&read).unwrap(), rule);
    let faults = Faults::new();
    let set = json!({"do": "set", "rule": {"fault": "refuse", "code": 429, "retry_after": 1}});
    assert_eq!(faults.control(set), Ok(json!(1)));
    assert_eq!(faults.control(json!({"do": "withdraw", "id": 1})), Ok(json!(true)));
    assert_eq!(faults.control(json!({"do": "withdraw", "id": 1})), Ok(json!(false)));
    assert!(faults.control(json!({"do": "dance"})).is_err());
    assert!(faults.control(json!({"do": "cut", "on": {"colour": "red"}})).is_err());
}

#[tokio::test]
async fn a_cut_ends_the_connections_of_those_it_is_about() {
    let faults = Faults::new();
    let (mut jane, mut jane_far, link) = connection(&faults).await;
    faults.requested(&link, &who("watch", "jane"));
    let (mut john, mut john_far, link) = connection(&faults).await;
    faults.requested(&link, &who("watch", "john"));
    let on = Matcher { user: Some("jane".to_owned()), ..Matcher::all() };
    assert_eq!(faults.connections(&on), 1);
    // It is noticed although nothing comes.
    let (read, cut) = tokio::join!(timeout(PATIENCE, jane.read_u8()), async { faults.cut(&on, true) });
    assert_eq!((read.unwrap().unwrap_err().kind(), cut), (std::io::ErrorKind::ConnectionReset, 1));
    // Though it is still held.
    let error = timeout(PATIENCE, jane_far.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    john_far.write_all(b"x").await.unwrap();
    assert_eq!(john.read_u8().await.unwrap(), b'x');
    assert_eq!(faults.cut(&on, true), 0, "it is gone");
}

#[tokio::test]
async fn a_black_hole_holds_all_bytes_and_lets_them_go() {
    let faults = Faults::new();
    let (mut near, mut far, _link) = connection(&faults).await;
    let id = faults.set(Rule::always(Matcher::all(), Fault::BlackHole { way: Way::Both }));
    far.write_all(b"there").await.unwrap();
    assert!(timeout(QUIET, near.read_u8()).await.is_err(), "a byte came in");
    assert!(timeout(QUIET, near.write_all(b"back")).await.is_err(), "a byte went out");
    let mut got = [0; 5];
    let (read, _) = tokio::join!(timeout(PATIENCE, near.read_exact(&mut got)), async { faults.withdraw(id) });
    read.unwrap().unwrap();
    assert_eq!(&got, b"there");
    near.write_all(b"back").await.unwrap();
    let mut got = [0; 4];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"back");
}

#[tokio::test]
async fn a_black_hole_of_one_way_lets_the_other_pass() {
    for way in [Way::ToServer, Way::ToClient] {
        let faults = Faults::new();
        let (mut near, mut far, _link) = connection(&faults).await;
        faults.set(Rule::always(Matcher::all(), Fault::BlackHole { way }));
        far.write_all(b"x").await.unwrap();
        assert_eq!(timeout(QUIET, near.read_u8()).await.is_ok(), way == Way::ToClient, "{way:?}");
        assert_eq!(timeout(QUIET, near.write_all(b"y")).await.is_ok(), way == Way::ToServer, "{way:?}");
        assert_eq!(timeout(QUIET, far.read_u8()).await.is_ok(), way == Way::ToServer, "{way:?}");
    }
}

#[test]
fn requests_are_counted_by_verb_and_resource() {
    let faults = Faults::new();
    let link = faults.connected();
    for (verb, user) in [("list", "jane"), ("list", "john"), ("watch", "jane")] {
        faults.requested(&link, &who(verb, user));
    }
    let counted = |on: Value| faults.control(json!({"do": "requests", "on": on})).unwrap();
    assert_eq!(counted(json!({"verb": "list", "resource": "pods"})), json!(2));
    assert_eq!(counted(json!({})), json!(3));
    assert_eq!(counted(json!({"resource": "services"})), json!(0));
}

#[tokio::test]
async fn a_new_connection_is_as_the_rules_say() {
    let faults = Faults::new();
    faults.set(Rule::times(1, Matcher::all(), Fault::Cut { reset: false }));
    let (mut near, _far, _link) = connection(&faults).await;
    assert!(near.read_u8().await.is_err());
    let (mut near, mut far, _link) = connection(&faults).await;
    far.write_all(b"x").await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_long_connection_delays_and_keeps_the_order() {
    let faults = Faults::new();
    let (near, far, _link) = connection(&faults).await;
    let millis = 60;
    faults.set(Rule::always(Matcher::all(), Fault::Link { delay_millis: millis, bytes_per_second: None }));
    let begun = timeout(Duration::from_millis(2 * millis - 10), echo(near, far, 300_000)).await;
    let Err(_) = begun else { panic!("a round trip was shorter than the delay") };
    let (near, far, _link) = connection(&faults).await;
    timeout(PATIENCE, echo(near, far, 300_000)).await.unwrap();
}

#[tokio::test]
async fn a_thin_connection_is_slow_and_becomes_fast_again() {
    let faults = Faults::new();
    let (near, far, _link) = connection(&faults).await;
    let slow = Fault::Link { delay_millis: 0, bytes_per_second: Some(1_000_000) };
    let id = faults.set(Rule::always(Matcher::all(), slow));
    // 5 MB take 5 s.
    let mut all = Box::pin(echo(near, far, 5_000_000));
    assert!(timeout(Duration::from_secs(1), &mut all).await.is_err(), "faster than a megabyte a second");
    faults.withdraw(id);
    timeout(Duration::from_secs(3), all).await.expect("still slow");
}

/// Sends bytes from the far end, back from the near one, and compares.
async fn echo(near: LinkStream, far: TcpStream, count: usize) {
    let bytes: Vec<u8> = (0..count).map(|n| (n % 251) as u8).collect();
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = far.into_split();
    let mut back = vec![0; count];
    let there = async {
        far_write.write_all(&bytes).await.unwrap();
        far_write.shutdown().await.unwrap();
    };
    let turn = async {
        tokio::io::copy(&mut near_read, &mut near_write).await.unwrap();
        near_write.shutdown().await.unwrap();
    };
    let home = async {
        far_read.read_exact(&mut back).await.unwrap();
        assert_eq!(far_read.read(&mut [0]).await.unwrap(), 0, "more came than was sent");
    };
    tokio::join!(there, turn, home);
    assert!(back == bytes, "the bytes differ");
}
