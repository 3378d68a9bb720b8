//! `sockshim ss`: the live connections of this user.

use std::process::ExitCode;

use crate::Failure;
use crate::args::Ss;

pub(crate) fn run(args: &Ss) -> Result<ExitCode, Failure> {
    let Ss { json: _, watch: _ } = args;
    Err(Failure::new(1, "`ss` is not built into this version"))
}
