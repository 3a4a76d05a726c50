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
    let ask = renewal.reconcile(at(3300)).expect("it is due");
    (renewal, ask.id)
}

#[test]
fn it_is_asked_for_five_minutes_before_the_end_or_at_four_fifths_or_at_half() {
    for (lasts, due) in [(86_400, 86_100), (3600, 3300), (1000, 800), (100, 50), (200, 140), (10, 5), (0, 0)] {
        let mut renewal = Renewal::new(None);
        renewal.begin(at(0), Some(seconds(lasts)), 0);
        renewal.came(at(0), KEEPER);
        assert_eq!(renewal.deadline(), Some(at(due)), "{lasts} s");
    }
    let mut renewal = Renewal::new(None);
    renewal.begin(at(0), Some(seconds(3600)), 255);
    renewal.came(at(0), KEEPER);
    assert_eq!(renewal.deadline(), Some(at(3240)), "spread by a minute");
}

#[test]
fn nothing_is_asked_before_it_is_due_nor_twice() {
    let mut renewal = kept();
    assert_eq!(renewal.reconcile(Millis(3_299_999)), None);
    let ask = renewal.reconcile(at(3300)).expect("it is due");
    assert_eq!((ask.id, ask.within), (AskId(1), ANSWER_LIMIT));
    assert_eq!(renewal.reconcile(at(3301)), None, "it has been asked");
    renewal.renewed(at(3302), Some(ask.id), Some(7000), Some(seconds(3600)));
    assert_eq!((renewal.reconcile(at(3320)), renewal.expires_at()), (None, Some(7000)));
    assert_eq!(renewal.deadline(), Some(at(3302 + 3300)));
    assert_eq!(renewal.outlook(), Outlook::Automatic);
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
    renewal.judged(true);
    // Nobody is told that this goes well.
    assert_eq!((renewal.outlook(), renewal.trouble()), (Outlook::NeedsLogin, Some(UNTAKEN)));
    renewal.judged(false);
    assert_eq!((renewal.outlook(), renewal.trouble()), (Outlook::Automatic, None));
    renewal.judged(true);
    let mut waited = renewal.clone();
    let ask = waited.reconcile(at(100_000)).expect("refused");
    waited.renewed(at(100_000), Some(ask.id), None, None);
    assert_eq!(waited.not_before.since(at(100_000)), backoff::spread(PAUSE_FIRST, 0), "what helped counts no more");
}

#[test]
fn what_fails_is_told_and_asked_again_later() {
    let (mut renewal, ask) = asked();
    renewal.failed(at(3301), Some(ask), "the plugin \"x\" failed:\u{1b}[31m no\n login");
    assert_eq!(renewal.outlook(), Outlook::Failing);
    assert_eq!(renewal.trouble(), Some("the plugin \"x\" failed:[31m no login"));
    assert_eq!(renewal.reconcile(at(3302)), None);
    let again = renewal.reconcile(at(3304)).expect("a pause is over");
    renewal.judged(true);
    assert_eq!(renewal.outlook(), Outlook::NeedsLogin);
    renewal.renewed(at(3305), Some(again.id), Some(7000), Some(seconds(3600)));
    assert_eq!((renewal.outlook(), renewal.trouble()), (Outlook::Automatic, None));
    let (mut renewal, ask) = asked();
    renewal.failed(at(3301), Some(ask), &"é".repeat(4000));
    assert_eq!(renewal.trouble().map(|why| why.chars().count()), Some(LONGEST));
}

#[test]
fn who_gives_no_answer_is_asked_again_and_a_late_answer_still_counts() {
    let (mut renewal, first) = asked();
    assert_eq!(renewal.deadline(), Some(at(3345)));
    assert_eq!(renewal.reconcile(at(3345)), None, "after a pause only");
    assert!(renewal.trouble().is_some_and(|why| why.contains("no answer")));
    let second = renewal.reconcile(at(3350)).expect("the pause is over");
    renewal.failed(at(3351), Some(first), "late, and of another question");
    assert!(renewal.trouble().is_some_and(|why| why.contains("no answer")));
    assert!(renewal.accepts(Some(first)));
    renewal.renewed(at(3351), Some(first), Some(7000), Some(seconds(3600)));
    assert!(!renewal.accepts(Some(second.id)), "other credentials were taken up since");
    assert!(!renewal.accepts(Some(AskId(9))), "never asked");
    assert!(renewal.accepts(None));
}

#[test]
fn an_answer_for_older_credentials_is_of_no_use_and_connecting_again_always_is() {
    let (mut renewal, ask) = asked();
    renewal.renewed(at(3301), None, Some(9000), Some(seconds(6000)));
    assert!(!renewal.accepts(Some(ask)));
    renewal.failed(at(3302), Some(ask), "too late");
    assert_eq!((renewal.trouble(), renewal.expires_at()), (None, Some(9000)));
    assert_eq!(renewal.deadline(), Some(at(3301 + 5700)));
}

#[test]
fn a_keeper_that_goes_while_asked_leaves_no_question_and_a_newer_one_takes_its_place() {
    let (mut renewal, ask) = asked();
    renewal.went(KEEPER);
    assert_eq!((renewal.deadline(), renewal.outlook()), (None, Outlook::ByHand));
    assert!(renewal.accepts(Some(ask)), "it may have answered before it went");
    renewal.came(at(3310), KeeperId(2));
    let second = renewal.reconcile(at(3310)).expect("still due");
    renewal.went(KEEPER);
    assert_eq!(renewal.reconcile(at(3311)), None);
    renewal.failed(at(3311), Some(ask), "of the one before");
    assert_eq!((renewal.trouble(), renewal.outlook()), (None, Outlook::Automatic));
    renewal.failed(at(3312), Some(second.id), "its own");
    assert_eq!(renewal.trouble(), Some("its own"));
}

#[test]
fn a_plugin_that_gives_the_same_until_it_ends_is_asked_with_pauses_and_is_no_trouble() {
    let (mut renewal, ask) = asked();
    renewal.renewed(at(3301), Some(ask), Some(3600), Some(seconds(299)));
    assert_eq!((renewal.outlook(), renewal.reconcile(at(3302))), (Outlook::Automatic, None));
    let (mut now, mut count) = (at(3301), 0);
    while now < at(3600) {
        now = renewal.deadline().expect("a pause");
        let ask = renewal.reconcile(now).expect("the pause is over");
        renewal.renewed(now, Some(ask.id), Some(3600), Some(at(3600).since(now)));
        count += 1;
    }
    assert!(count < 12, "{count} times");
    // Asked as they end, when there may be others; what has ended is a trouble, and asked for with short pauses at first.
    assert!(now <= at(3601), "{now:?}");
    assert_eq!((renewal.outlook(), renewal.reconcile(now)), (Outlook::Failing, None));
    let pause = renewal.deadline().expect("a pause").since(now);
    assert!(pause <= PAUSE_FIRST * 5 / 4, "{pause:?}");
}

#[test]
fn what_the_user_gives_ends_the_keeper_of_what_was_there_at_once() {
    let (mut renewal, ask) = asked();
    renewal.by_hand();
    // The client for them is still being made, and an answer comes.
    assert!(!renewal.accepts(Some(ask)));
    assert_eq!((renewal.reconcile(at(4000)), renewal.outlook()), (None, Outlook::ByHand));
    renewal.failed(at(4000), None, "unusable: no key");
    assert_eq!((renewal.trouble(), renewal.outlook()), (Some("unusable: no key"), Outlook::ByHand));
    renewal.came(at(4001), KeeperId(2));
    assert!(renewal.reconcile(at(4001)).is_some(), "those of before are still there, and due");
}

#[test]
fn time_that_passes_while_the_host_sleeps_and_a_clock_that_is_set_count() {
    let mut renewal = kept();
    renewal.left(at(60), seconds(3540));
    assert_eq!(renewal.deadline(), Some(at(3300)), "as it was");
    let mut slept = renewal.clone();
    slept.left(at(90), seconds(299));
    assert!(slept.reconcile(at(90)).is_some());
    let mut ended = renewal.clone();
    ended.left(at(90), Duration::ZERO);
    assert!(ended.reconcile(at(90)).is_some());
    renewal.left(at(90), seconds(7200));
    assert_eq!(renewal.deadline(), Some(at(90 + 7200 - 300)), "the clock was set back");
    let mut endless = Renewal::new(None);
    endless.came(at(0), KEEPER);
    endless.left(at(1), Duration::ZERO);
    assert_eq!(endless.deadline(), None);
}
