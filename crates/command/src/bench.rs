//! `sockshim bench`: libc sockets, sockshim and the limit of the machine in one table.

mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use sockshim_bench::questions::{GROUPS, Group};
use sockshim_bench::run::Run;

use crate::args::Bench;
use crate::{Failure, run};

pub(crate) fn run(args: &Bench) -> Result<ExitCode, Failure> {
    let groups = chosen(&args.questions)?;
    let library = run::library(args.library.as_deref())?;
    let run = Run::new(&library, args.quick)?;
    ask(&run, &groups, args.json)
}

/// A question without an answer does not prevent the others from being asked.
fn ask(run: &Run, groups: &[&Group], json: bool) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let (mut rows, mut failed) = (Vec::new(), 0);
    if !json {
        for (name, value) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SOCKSHIM_") {
                writeln!(out, "with {}={}", name.display(), value.display())?;
            }
        }
        write!(out, "{}", table::header())?;
    }
    for group in groups {
        if let Some(program) = group.lacks() {
            eprintln!("SKIPPED {}: {program} is not installed", group.name);
            continue;
        }
        if !json {
            writeln!(out, "{}", table::title(group))?;
        }
        let mut written = Ok(());
        progress(group);
        group.ask(run, |row, answer| {
            match answer {
                Ok(row) => {
                    if !json && written.is_ok() {
                        written = write!(out, "{}", table::lines(&row)).and_then(|()| out.flush());
                    }
                    rows.push(row);
                }
                Err(trouble) => {
                    Run::wait_if_interrupted();
                    eprintln!("sockshim: {}, {row}: {trouble}", group.name);
                    failed += 1;
                }
            }
            progress(group);
        });
        written?;
    }
    progress_ends();
    if json {
        let mut text = serde_json::to_vec_pretty(&rows).map_err(io::Error::from)?;
        text.push(b'\n');
        out.write_all(&text)?;
    }
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(Failure::new(1, format!("{failed} of the questions have no answer, see above"))),
    }
}

/// Prints which question is being asked, where no table is printed.
fn progress(group: &Group) {
    if io::stderr().is_terminal() && !io::stdout().is_terminal() {
        eprint!("\r{} ...\x1b[K", group.name);
    }
}

fn progress_ends() {
    if io::stderr().is_terminal() && !io::stdout().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

/// The groups with these names, in the order of the catalogue.
fn chosen(names: &[String]) -> Result<Vec<&'static Group>, Failure> {
    for name in names {
        if name != ALL && name != PROGRAMS && !GROUPS.iter().any(|group| group.name == *name) {
            let known: Vec<_> = GROUPS.iter().map(|group| group.name).collect();
            let known = known.join(", ");
            let message = format!("there is no question {name:?}; there are {known}, {PROGRAMS} and {ALL}");
            return Err(Failure::new(2, message));
        }
    }
    let wanted = |group: &&Group| {
        let named =
            |name: &String| name == ALL || name == group.name || name == PROGRAMS && group.is_program();
        names.is_empty() && group.usual || names.iter().any(named)
    };
    Ok(GROUPS.iter().filter(wanted).collect())
}

/// The words for all groups, and for those about existing programs.
const ALL: &str = "all";
const PROGRAMS: &str = "programs";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
        chosen(&wanted).unwrap().iter().map(|group| group.name).collect()
    }

    #[test]
    fn questions_are_asked_in_the_order_of_the_catalogue() {
        assert_eq!(names(&["epoll", "pingpong"]), ["pingpong", "epoll"]);
        assert_eq!(names(&["all"]).len(), GROUPS.len());
        assert!(names(&[]).contains(&"stream") && !names(&[]).contains(&"upgrade"));
    }

    #[test]
    fn an_unknown_question_is_told_what_there_is() {
        let failure = chosen(&["pingpog".to_owned()]).unwrap_err();
        assert_eq!(failure.code, 2);
        assert!(failure.message.contains("pingpog") && failure.message.contains("pingpong"), "{failure}");
    }
}
