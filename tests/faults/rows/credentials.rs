//! Credentials that end, and that are taken back.

use std::time::Instant;

use podway::status::RenewalLine;
use serde_json::json;

use super::{HEALED, seconds};
use crate::login::{LASTS, Login, may_all};
use crate::rig::PATIENCE;
use crate::row::{Group, case};

pub fn group() -> Group {
    let ends = case(
        format!("credentials that last {LASTS} s, for 15 s"),
        "no open connection is lost, and nothing is to be seen",
        |rig, row| {
            let login = Login::of(rig.world, "admin");
            rig.podway.connect(&["--kubeconfig", &login.kubeconfig]);
            rig.well(Instant::now(), PATIENCE);
            let (flows, since) = (rig.flows("web"), Instant::now());
            rig.lasts(since, seconds(15));
            let shown = rig.look.shown_since(since);
            row.holds(shown.is_empty(), || format!("shown: {shown:?}"));
            row.figure(format!("the plugin ran {} times", login.runs()));
            let came = flows.end();
            row.holds(came.lost.is_empty(), || format!("lost: {:?}", came.lost));
            row.flows = came.told();
            rig.world.podway(&["disconnect", "--all"]);
            std::fs::remove_dir_all(&login.directory).unwrap();
        },
    );
    let revoked = case(
        "credentials are taken back, the plugin fails, and gives others 12 s later",
        "seen in 15 s, healed in 30 s without a person",
        |rig, row| {
            let world = rig.world;
            let login = Login::of(world, "admin");
            login.put("endless", "");
            may_all(world, "none");
            rig.podway.connect(&["--kubeconfig", &login.kubeconfig]);
            rig.well(Instant::now(), PATIENCE);
            let flows = rig.flows("web");
            login.put("fail", "no session: log in at https://login.example\n");
            let rule = json!({"fault": "refuse", "code": 401, "message": "Unauthorized", "on": {"user": "admin"}});
            let fault = rig.fault(&[rule]);
            let since = fault.since;
            rig.cut(json!({"verb": "watch"}), false);
            rig.look.until("it needs a login", PATIENCE, |status| {
                status.credentials.as_ref().is_some_and(|line| line.renewal == RenewalLine::NeedsLogin)
            });
            row.seen = Some(row.within("seen", since.elapsed(), seconds(15)));
            rig.lasts(since, seconds(12));
            login.gives(world, "none");
            std::fs::remove_file(login.directory.join("fail")).unwrap();
            let over = Instant::now();
            let well = rig.well(over, seconds(60));
            row.healed = Some(row.within("healed", well, seconds(30)));
            rig.appears("podway-others", over, HEALED + well);
            rig.note(since, row);
            rig.end(fault);
            let came = flows.end();
            row.holds(came.lost.is_empty(), || format!("lost: {:?}", came.lost));
            row.flows = came.told();
            world.podway(&["disconnect", "--all"]);
        },
    );
    Group { title: "Credentials", connect: None, cases: vec![ends, revoked] }
}
