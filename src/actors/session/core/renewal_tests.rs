//! Orders of what happens around credentials that end.

use super::*;

const KEEPER: KeeperId = KeeperId(1);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn at(count: u64) -> Millis {
    Millis(count * 1000)
}

/// Credentials of an hour, and a keeper from the start.
fn kept() -> Renewal {
    let mut renewal = Renewal::new(Some(3600));
    renewal.begin(at(0), Some(seconds(3600)), 0);
    renewal.came(at(0), KEEPER);
    renewal
}

/// The same, asked.
fn asked() -> (Renewal, AskId) {
    let mut renewal = kept();
    let ask = renewal.reconcile(at(2880)).expect("it is due");
    (renewal, ask.id)
}

#[test]
fn it_is_asked_for_at_four_fifths_a_minute_before_the_end_or_at_half() {
    for (lasts, due) in [(3600, 2880), (100, 50), (200, 140), (10, 5), (0, 0)] {
        let mut renewal = Renewal::new(None);
        renewal.begin(at(0), Some(seconds(lasts)), 0);
        renewal.came(at(0), KEEPER);
        assert_eq!(renewal.deadline(), Some(at(due)), "{lasts} s");
    }
    let mut renewal = Renewal::new(None);
    renewal.begin(at(0), Some(seconds(3600)), 255);
    renewal.came(at(0), KEEPER);
    assert_eq!(renewal.deadline(), Some(at(2592)), "spread by a tenth");
}

#[test]
fn nothing_is_asked_before_it_is_due_nor_twice() {
    let mut renewal = kept();
    assert_eq!(renewal.reconcile(Millis(2_879_999)), None);
    let ask = renewal.reconcile(at(2880)).expect("it is due");
    assert_eq!((ask.id, ask.within), (AskId(1), ANSWER_LIMIT));
    assert_eq!(renewal.reconcile(at(2881)), None, "it has been asked");
    renewal.renewed(at(2882), Some(ask.id), Some(7000), Some(seconds(3600)));
    assert_eq!((renewal.reconcile(at(2900)), renewal.expires_at()), (None, Some(7000)));
    assert_eq!(renewal.deadline(), Some(at(2882 + 2880)));
    assert_eq!(renewal.outlook(), Outlook::Automatic);
}

#[test]
fn after_a_leap_of_the_clock_what_is_left_counts_and_nothing_comes_later_for_it() {
    // Ten minutes in, the host slept for half an hour, in which its own time stood still.
    let mut renewal = kept();
    renewal.leapt(at(600), Some(seconds(1200)));
    assert_eq!(renewal.deadline(), Some(at(600 + 960)));
    // A clock that was set back gives nobody more time.
    renewal.leapt(at(700), Some(seconds(9000)));
    renewal.leapt(at(700), None);
    assert_eq!(renewal.deadline(), Some(at(600 + 960)));
    // Over by now: at once, and once.
    renewal.leapt(at(800), Some(Duration::ZERO));
    let ask = renewal.reconcile(at(800)).expect("it is due");
    renewal.leapt(at(801), Some(Duration::ZERO));
    assert_eq!(renewal.reconcile(at(801)), None, "it has been asked");
    renewal.renewed(at(802), Some(ask.id), Some(9000), Some(seconds(3600)));
    assert_eq!(renewal.deadline(), Some(at(802 + 2880)));
    let mut endless = Renewal::new(None);
    endless.leapt(at(1), Some(Duration::ZERO));
    assert_eq!(endless.deadline(), None);
}

#[test]
fn without_a_keeper_nobody_is_asked_and_one_that_comes_is_at_once() {
    let mut renewal = Renewal::new(Some(3600));
    renewal.begin(at(0), Some(seconds(3600)), 0);
    assert_eq!((renewal.reconcile(at(3600)), renewal.deadline()), (None, None));
    assert_eq!(renewal.outlook(), Outlook::ByHand);
    renewal.judged(true);
    assert_eq!((renewal.reconcile(at(3601)), renewal.outlook()), (None, Outlook::NeedsLogin));
    renewal.came(at(3602), KEEPER);
    assert!(renewal.reconcile(at(3602)).is_some());
}

#[test]
fn a_refusal_is_asked_about_at_once_also_where_no_end_is_known() {
    let mut renewal = Renewal::new(None);
    renewal.begin(at(0), None, 0);
    renewal.came(at(0), KEEPER);
    assert_eq!((renewal.reconcile(at(9000)), renewal.deadline()), (None, None));
    renewal.judged(true);
    let ask = renewal.reconcile(at(9000)).expect("refused");
    renewal.renewed(at(9001), Some(ask.id), None, None);
    assert_eq!(renewal.reconcile(at(9001)), None, "one refusal, one question");
    renewal.judged(false);
    assert_eq!((renewal.deadline(), renewal.outlook()), (None, Outlook::Automatic));
}

#[test]
fn credentials_that_are_refused_again_and_again_are_asked_for_ever_more_seldom() {
    let mut renewal = kept();
    let (mut now, mut pauses) = (at(10), Vec::new());
    for _ in 0..5 {
        renewal.judged(true);
        let next = renewal.deadline().expect("refused").max(now);
        pauses.push(next.since(now));
        let ask = renewal.reconcile(next).expect("refused");
        now = next;
        renewal.renewed(now, Some(ask.id), None, None);
    }
    assert!(pauses.windows(2).all(|two| two[0] < two[1]), "{pauses:?}");
    renewal.judged(false);
    renewal.judged(true);
    let mut waited = renewal.clone();
    let ask = waited.reconcile(at(100_000)).expect("refused");
    waited.renewed(at(100_000), Some(ask.id), None, None);
    assert_eq!(waited.not_before.since(at(100_000)), backoff::spread(PAUSE_FIRST, 0), "what helped counts no more");
}

#[test]
fn what_fails_is_told_and_asked_again_later() {
    let (mut renewal, ask) = asked();
    renewal.failed(at(2881), ask, "the plugin \"x\" failed:\u{1b}[31m no\n login");
    assert_eq!(renewal.outlook(), Outlook::Failing);
    assert_eq!(renewal.trouble(), Some("the plugin \"x\" failed:[31m no login"));
    assert_eq!(renewal.reconcile(at(2882)), None);
    let again = renewal.reconcile(at(2884)).expect("a pause is over");
    renewal.judged(true);
    assert_eq!(renewal.outlook(), Outlook::NeedsLogin);
    renewal.renewed(at(2885), Some(again.id), Some(7000), Some(seconds(3600)));
    assert_eq!((renewal.outlook(), renewal.trouble()), (Outlook::Automatic, None));
    let (mut renewal, ask) = asked();
    renewal.failed(at(2881), ask, &"é".repeat(4000));
    assert_eq!(renewal.trouble().map(|why| why.chars().count()), Some(LONGEST));
}

#[test]
fn who_gives_no_answer_is_asked_again_and_a_late_answer_still_counts() {
    let (mut renewal, first) = asked();
    assert_eq!(renewal.deadline(), Some(at(2925)));
    assert_eq!(renewal.reconcile(at(2925)), None, "after a pause only");
    assert!(renewal.trouble().is_some_and(|why| why.contains("no answer")));
    let second = renewal.reconcile(at(2930)).expect("the pause is over");
    renewal.failed(at(2931), first, "late, and of another question");
    assert!(renewal.trouble().is_some_and(|why| why.contains("no answer")));
    assert!(renewal.accepts(Some(first)));
    renewal.renewed(at(2931), Some(first), Some(7000), Some(seconds(3600)));
    assert!(!renewal.accepts(Some(second.id)), "other credentials were taken up since");
    assert!(!renewal.accepts(Some(AskId(9))), "never asked");
    assert!(renewal.accepts(None));
}

#[test]
fn an_answer_for_older_credentials_is_of_no_use_and_connecting_again_always_is() {
    let (mut renewal, ask) = asked();
    renewal.renewed(at(2881), None, Some(9000), Some(seconds(6000)));
    assert!(!renewal.accepts(Some(ask)));
    renewal.failed(at(2882), ask, "too late");
    assert_eq!((renewal.trouble(), renewal.expires_at()), (None, Some(9000)));
    assert_eq!(renewal.deadline(), Some(at(2881 + 4800)));
}

#[test]
fn a_keeper_that_goes_while_asked_leaves_no_question_and_a_newer_one_takes_its_place() {
    let (mut renewal, ask) = asked();
    renewal.went(KEEPER);
    assert_eq!((renewal.deadline(), renewal.outlook()), (None, Outlook::ByHand));
    assert!(renewal.accepts(Some(ask)), "it may have answered before it went");
    renewal.came(at(2890), KeeperId(2));
    let second = renewal.reconcile(at(2890)).expect("still due");
    renewal.went(KEEPER);
    assert_eq!(renewal.reconcile(at(2891)), None);
    renewal.failed(at(2891), ask, "of the one before");
    assert_eq!((renewal.trouble(), renewal.outlook()), (None, Outlook::Automatic));
    renewal.failed(at(2892), second.id, "its own");
    assert_eq!(renewal.trouble(), Some("its own"));
}

#[test]
fn a_plugin_that_gives_the_same_until_it_ends_is_asked_with_pauses_and_is_no_trouble() {
    let (mut renewal, ask) = asked();
    renewal.renewed(at(2881), Some(ask), Some(3600), Some(seconds(719)));
    assert_eq!((renewal.outlook(), renewal.reconcile(at(2882))), (Outlook::Automatic, None));
    let (mut now, mut count) = (at(2881), 0);
    while now < at(3600) {
        now = renewal.deadline().expect("a pause");
        let ask = renewal.reconcile(now).expect("the pause is over");
        renewal.renewed(now, Some(ask.id), Some(3600), Some(at(3600).since(now)));
        count += 1;
    }
    assert!(count < 12, "{count} times");
    // What has ended is a trouble, and asked for with pauses too.
    assert_eq!((renewal.outlook(), renewal.reconcile(now)), (Outlook::Failing, None));
}
