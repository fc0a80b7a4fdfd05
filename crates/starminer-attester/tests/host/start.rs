//! How the last start ended, by the image's first process.

use super::tree::StandIn;
use starminer_verify::HostMeasure::EndedInOrder;
use starminer_verify::PostureState::{Absent, InForce, NotChecked};

#[test]
fn how_the_last_start_ended_is_told_as_it_was_left() {
    let check = |text: &str, state, says: &str| {
        StandIn::new().file("run/starminer/start.json", text).check(EndedInOrder, state, says);
    };
    check(r#"{"start":1,"last_ended_in_order":true}"#, InForce, "start 1");
    check(r#"{"start":4711,"last_ended_in_order":false}"#, Absent, "start 4711: the one before was cut off");
    for strange in [
        "",
        "{}",
        r#"{"start":1}"#,
        r#"{"start":-1,"last_ended_in_order":true}"#,
        r#"{"start":1,"last_ended_in_order":true,"more":1}"#,
    ] {
        check(strange, NotChecked, "not understood");
    }
    StandIn::new().check(EndedInOrder, NotChecked, "no measured image");
}
