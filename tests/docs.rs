//! Pages and pictures that are written by something else are up to date, and links between pages lead somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_picture_is_what_its_script_draws() {
    let docs = root().join("docs");
    let output = Command::new("sh").arg(docs.join("how-it-works.sh")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = std::fs::read(docs.join("how-it-works.svg")).unwrap();
    assert!(found == output.stdout, "docs/how-it-works.svg is out of date: make picture");
}

#[test]
fn links_between_pages_lead_to_files() {
    let mut pages = vec![root().join("crates/ring/README.md"), root().join("crates/tcpip/README.md")];
    for folder in [root(), root().join("docs")] {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    let mut count = 0;
    for page in pages {
        for target in targets(&std::fs::read_to_string(&page).unwrap()) {
            let path = target.split('#').next().unwrap_or_default();
            count += 1;
            assert!(page.with_file_name(path).exists(), "{} links to {target}", page.display());
        }
    }
    assert!(count > 20, "only {count} links were found");
}

#[test]
fn the_map_has_every_module_and_every_crate_and_nothing_else() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let map = page.split("## The map\n").nth(1).and_then(|rest| rest.split("```").nth(1)).expect("a map");
    let mapped = map.lines().filter(|line| line.starts_with(|first: char| first.is_alphabetic()));
    let mapped: BTreeSet<&str> =
        mapped.filter_map(|line| Some(line.split(' ').next()?.trim_end_matches('/'))).collect();
    let names = |folder: &str| {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    let crates = names("crates").map(|name| format!("crates/{name}"));
    let crates = crates.filter(|name| root().join(name).join("Cargo.toml").exists());
    // A module with a folder is known by the folder.
    let modules = names("src").filter_map(|name| Some(format!("src/{}", name.strip_suffix(".rs")?)));
    let modules = modules.map(|name| if root().join(&name).is_dir() { name } else { name + ".rs" });
    let there: BTreeSet<String> = crates.chain(modules).collect();
    assert_eq!(mapped, there.iter().map(String::as_str).collect());
}

/// What a page links to by a relative path.
fn targets(page: &str) -> Vec<&str> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|target| {
            !target.contains("://") && !target.starts_with('#') && !target.contains(char::is_whitespace)
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
