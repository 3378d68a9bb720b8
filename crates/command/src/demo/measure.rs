//! A plain socket program with libc alone and with sockshim, by turns: the questions of `sockshim bench` that say most.

use std::io::{self, Write as _};

use sockshim_bench::run::Run;
use sockshim_bench::{questions, show};

use crate::{Failure, run};

/// Prints the table that compares libc with sockshim.
pub(super) fn compare() -> Result<(), Failure> {
    let run = Run::new(&run::library(None)?, false)?;
    let mut out = io::stdout().lock();
    writeln!(out, "The same program, with libc alone and with sockshim (medians, taken in turn)\n")?;
    writeln!(
        out,
        "    {:<28}{:>16}{:>16}{:>9}{:>16}{:>16}",
        "", "libc", "sockshim", "ratio", "CPU libc", "sockshim"
    )?;
    for (title, question) in questions::that_say_most() {
        let row = question.ask(&run).inspect_err(|_| Run::wait_if_interrupted())?;
        let Some(sockshim) = row.entrant("sockshim") else { continue };
        let libc = &row.entrants[0];
        let [before, after] = [libc, sockshim]
            .map(|entrant| (show::figure(row.measure, entrant.figure.median), show::cpu(entrant)));
        let ratio = show::number(sockshim.to_libc.median) + "x";
        writeln!(
            out,
            "    {title:<28}{:>16}{:>16}{ratio:>9}{:>16}{:>16}",
            before.0, after.0, before.1, after.1
        )?;
        out.flush()?;
    }
    writeln!(
        out,
        "\n    ratio: how many times better sockshim is; CPU: user+system time of both ends, per message.\n    \
         More: sockshim bench"
    )?;
    Ok(())
}
