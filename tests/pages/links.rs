//! Links between pages, and files of the repository.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::text::{Page, pages, root};

#[test]
fn relative_links_lead_to_files_and_headings() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in &pages {
        for target in page.prose().flat_map(targets_of) {
            seen += 1;
            if let Err(reason) = follow(&pages, page, &target) {
                wrong.push(format!("{}: ({target}): {reason}", page.name()));
            }
        }
    }
    assert!(seen > 100, "only {seen} links");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The targets of a line's links within the repository.
fn targets_of(prose: &str) -> Vec<String> {
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

fn follow(pages: &[Page], from: &Page, target: &str) -> Result<(), String> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = from.path.parent().expect("a page has a folder");
    let path = if file.is_empty() { from.path.clone() } else { normal(&folder.join(file)) };
    if !root().join(&path).exists() {
        return Err(format!("there is no {}", path.display()));
    }
    if anchor.is_empty() {
        return Ok(());
    }
    let page = pages.iter().find(|page| page.path == path).ok_or("an anchor in no page")?;
    match page.headings().map(anchor_of).any(|known| known == anchor) {
        true => Ok(()),
        false => Err(format!("no heading has the anchor {anchor}")),
    }
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(normal.pop(), "{} leaves", path.display()),
            other => normal.push(other),
        }
    }
    normal
}

/// The anchor of a heading, as GitHub makes it.
fn anchor_of(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn the_readme_leads_to_every_page() {
    let readme = Page::read("README.md");
    let targets: Vec<String> = readme.prose().flat_map(targets_of).collect();
    for page in pages().into_iter().map(|page| page.name()).filter(|name| name != "README.md") {
        assert!(targets.contains(&page), "README.md has no link to {page}");
    }
}

/// The sources that pages name in `code`, by the end of the path.
#[test]
fn named_sources_exist() {
    let folders = ["src", "program", "sys", "tests", "testkit", "benches", "fuzz", "examples"];
    let sources: Vec<PathBuf> = folders.iter().flat_map(|name| files(&root().join(name))).collect();
    let mut missing = Vec::new();
    for page in pages() {
        let named = page.spans().filter(|span| span.ends_with(".rs") && !span.contains(' '));
        let is_missing = |span: &&str| !sources.iter().any(|source| source.ends_with(span));
        missing.extend(named.filter(is_missing).map(|span| format!("{}: {span}", page.name())));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn anchors_are_those_of_github() {
    for (heading, anchor) in [
        (" FPGA or debug probe over `ssh -R`", "fpga-or-debug-probe-over-ssh--r"),
        (" What happens: `usbferry events`", "what-happens-usbferry-events"),
        (" libusb 1.0.27, .28", "libusb-1027-28"),
    ] {
        assert_eq!(anchor_of(heading), anchor);
    }
}
