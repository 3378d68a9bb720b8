//! `sockshim bench`: libc sockets, sockshim and the limit of the machine in one table.

mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use sockshim_bench::question::Question;
use sockshim_bench::questions::{GROUPS, Group};
use sockshim_bench::results::Row;
use sockshim_bench::run::Run;
use sockshim_bench::{Trouble, contest};

use crate::args::Bench;
use crate::{Failure, run};

pub(crate) fn run(args: &Bench) -> Result<ExitCode, Failure> {
    let groups = chosen(&args.questions)?;
    let library = run::library(args.library.as_deref())?;
    let run = Run::new(&library, args.quick)?;
    run.clean_up_when_interrupted();
    ask(&run, &groups, args.json).inspect_err(|_| Run::wait_if_interrupted())
}

fn ask(run: &Run, groups: &[&Group], json: bool) -> Result<ExitCode, Failure> {
    let mut rows = Vec::new();
    let mut out = io::stdout();
    if !json {
        write!(out, "{}", table::header())?;
    }
    for group in groups {
        if !json {
            writeln!(out, "{}", table::title(group))?;
        }
        for question in group.questions(run.quick) {
            let progress = Progress::show(&question);
            let row = contest::ask(run, &question).map_err(|trouble| about(&question, trouble))?;
            drop(progress);
            if !json {
                write!(out, "{}", table::lines(&row))?;
            }
            rows.push(row);
        }
    }
    if json {
        print_json(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(rows: &[Row]) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(rows).map_err(io::Error::from)?;
    text.push(b'\n');
    Ok(io::stdout().write_all(&text)?)
}

fn about(question: &Question, trouble: Trouble) -> Trouble {
    Trouble(format!("{}, {}: {trouble}", question.group, question.row))
}

/// The groups with these names, in the order of the catalogue.
fn chosen(names: &[String]) -> Result<Vec<&'static Group>, Failure> {
    for name in names {
        if name != ALL && !GROUPS.iter().any(|group| group.name == *name) {
            let known: Vec<_> = GROUPS.iter().map(|group| group.name).collect();
            let message = format!("there is no question {name:?}; there are {}, {ALL}", known.join(", "));
            return Err(Failure::new(2, message));
        }
    }
    let wanted = |group: &&Group| {
        names.is_empty() && group.usual || names.iter().any(|name| name == ALL || name == group.name)
    };
    Ok(GROUPS.iter().filter(wanted).collect())
}

const ALL: &str = "all";

/// What is being asked, on a terminal, until the answer is there.
struct Progress(bool);

impl Progress {
    fn show(question: &Question) -> Self {
        let shown = io::stderr().is_terminal();
        if shown {
            eprint!("\r  {} {} ...\x1b[K", question.group, question.row);
        }
        Self(shown)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.0 {
            eprint!("\r\x1b[K");
        }
    }
}

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
