//! Runs groups, each on a cluster of its own, several at a time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::look::{Answers, Look, STATUS};
use crate::rig::Rig;
use crate::row::{Case, Group, Row};
use crate::world::World;

/// Groups at a time: most of a row's time is waiting.
const AT_A_TIME: usize = 2;
/// Who runs: a row of each group, or one alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// Runs those that hold `only`, and gives their rows in the order of the groups.
pub fn all(mut groups: Vec<Group>, only: &str) -> Vec<Row> {
    for group in &mut groups {
        if !group.title.contains(only) {
            group.cases.retain(|case| case.fault.contains(only));
        }
    }
    groups.retain(|group| !group.cases.is_empty());
    let count = groups.len();
    let waiting = Mutex::new(groups.into_iter().enumerate());
    let done: Mutex<Vec<Vec<Row>>> = Mutex::new((0..count).map(|_| Vec::new()).collect());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(count) {
            scope.spawn(|| {
                loop {
                    let Some((at, group)) = waiting.lock().unwrap().next() else { return };
                    let rows = self::group(&group);
                    done.lock().unwrap()[at] = rows;
                }
            });
        }
    });
    done.into_inner().unwrap().into_iter().flatten().collect()
}

fn group(group: &Group) -> Vec<Row> {
    let mut rows = Vec::new();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let world = World::start().expect("root may have one");
        world.with_daemon(|podway| {
            let look = Look::start(&world);
            let mut rig = Rig { world: &world, podway, look, connect: group.connect };
            for case in &group.cases {
                let row = one(&mut rig, group, case);
                show(&row);
                rows.push(row);
            }
            rig.connect = None;
            rig.mend();
            drop(rig.look);
            world.podway(&["disconnect", "--all"]);
        });
    }));
    if let Err(why) = ran {
        let why = format!("the group's end: {}", said_by(&*why));
        match rows.last_mut() {
            Some(row) => row.wrong.push(why),
            None => rows.push(Row { group: group.title, wrong: vec![why], ..Row::default() }),
        }
        show(rows.last().unwrap());
    }
    rows
}

fn one(rig: &mut Rig<'_, '_>, group: &Group, case: &Case) -> Row {
    let mut row = Row { group: group.title, fault: case.fault.clone(), bar: case.bar, ..Row::default() };
    let _machine: Box<dyn Any> = match case.alone {
        true => Box::new(MACHINE.write().unwrap_or_else(PoisonError::into_inner)),
        false => Box::new(MACHINE.read().unwrap_or_else(PoisonError::into_inner)),
    };
    let ready = catch_unwind(AssertUnwindSafe(|| rig.mend()));
    rig.look.answers();
    let began = Instant::now();
    let ran = ready.and_then(|()| catch_unwind(AssertUnwindSafe(|| (case.run)(rig, &mut row))));
    row.took = began.elapsed();
    if let Err(why) = ran {
        row.wrong.push(said_by(&*why));
        row.figures.extend(rig.look.story_since(began));
    }
    let Answers { slowest, asked, late, overslept, failed } = rig.look.answers();
    row.slowest = slowest;
    row.wrong.extend(failed);
    let at = |(at, took): &(Instant, Duration)| format!("{took:.0?} at {:.2?}", *at - began);
    if !late.is_empty() {
        row.figure(format!("slow answers to status: {}", late.iter().map(at).collect::<Vec<_>>().join(", ")));
    }
    // One of a hundred may meet a machine that does something else. One that is as busy tells nothing.
    // Where whole connections are made all the time, ten.
    let part = if group.connect.is_some() { 100 } else { 10 };
    match case.floods || overslept * 100 > asked {
        false => row.holds(late.len() * part <= asked, || {
            format!("{} of {asked} answers to status took longer than {STATUS:?}, one {slowest:.0?}", late.len())
        }),
        true => {
            row.figure(format!("status is not held to {STATUS:?}: {overslept} of {asked} pauses took twice as long"))
        }
    }
    if !row.wrong.is_empty() {
        // What the daemon said since, for whoever looks for the cause.
        let log = rig.podway.log();
        let lines: Vec<&str> = log.lines().rev().take(40).collect();
        row.figures.extend(lines.into_iter().rev().map(|line| format!("log: {line}")));
    }
    row
}

fn said_by(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn show(row: &Row) {
    let mark = if row.wrong.is_empty() { "ok  " } else { "FAIL" };
    let time = |time: Option<Duration>| time.map_or("    –".to_owned(), |time| format!("{:5.2}", time.as_secs_f64()));
    let mut text = format!(
        "{mark}  seen {} s  healed {} s  {:18} status at most {:.0?}  took {:.1?}  {}\n",
        time(row.seen),
        time(row.healed),
        row.flows,
        row.slowest,
        row.took,
        row.name()
    );
    row.shows.iter().for_each(|line| text += &format!("          shows: {line}\n"));
    row.figures.iter().for_each(|line| text += &format!("          {line}\n"));
    row.wrong.iter().for_each(|line| text += &format!("          WRONG: {line}\n"));
    print!("{text}");
}
