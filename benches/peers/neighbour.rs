//! What a crowd gets while another process burns one core.

use std::thread;
use std::time::Duration;

use crate::burned_core::beside_a_neighbour;
use crate::clients::report_rounds;
use crate::crowd::round;
use crate::pairs::in_turns;
use crate::report::Report;
use crate::served::Served;

const TOKENS: u32 = 96;
/// The library looks again within this time whether a core that it left is free.
const SETTLING: Duration = Duration::from_millis(1500);

pub fn measure(report: &mut Report) {
    for (clients, key, title) in [
        (
            1,
            "neighbour_1",
            "1 client beside a process that burns a core, in turns",
        ),
        (
            8,
            "neighbour_8",
            "8 clients beside a process that burns a core, in turns",
        ),
    ] {
        report.section(key, title);
        let (ours, theirs) = (Served::ours(clients), Served::theirs(clients));
        let rounds = in_turns(|number, is_ours| {
            let served = if is_ours { &ours } else { &theirs };
            thread::sleep(SETTLING);
            beside_a_neighbour(|| round(served.address(), clients, number, TOKENS))
        });
        report_rounds(report, &rounds, 1.0);
    }
}
