//! A page of Markdown, in the few forms of this repository: fenced and indented code, `code`
//! within prose, headings with `#`.

use std::fs;
use std::path::{Path, PathBuf};

/// A page.
pub(crate) struct Page {
    /// The path from the root of the repository.
    pub(crate) path: PathBuf,
    pub(crate) lines: Vec<Line>,
}

/// A line of a page.
pub(crate) enum Line {
    Prose(String),
    /// Without indentation.
    Code(String),
}

impl Line {
    pub(crate) const fn is_code(&self) -> bool {
        matches!(self, Self::Code(_))
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Prose(text) | Self::Code(text) => text,
        }
    }
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let path = PathBuf::from(path);
        let text = fs::read_to_string(root().join(&path)).expect("the page can be read");
        Self { path, lines: lines_of(&text) }
    }

    /// The name for messages.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            Line::Code(code) => Some(&**code),
            Line::Prose(_) => None,
        })
    }

    pub(crate) fn prose(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            Line::Prose(prose) => Some(&**prose),
            Line::Code(_) => None,
        })
    }

    /// The texts of `code` within prose. No span goes over the end of a line.
    pub(crate) fn spans(&self) -> impl Iterator<Item = &str> {
        self.prose().flat_map(|prose| prose.split('`').skip(1).step_by(2))
    }

    /// All code: whole lines, and `code` within prose.
    pub(crate) fn all_code(&self) -> impl Iterator<Item = &str> {
        self.code().chain(self.spans())
    }

    /// The texts of the headings.
    pub(crate) fn headings(&self) -> impl Iterator<Item = &str> {
        let heading = |prose: &'_ str| prose.starts_with('#');
        self.prose().filter(move |prose| heading(prose)).map(|prose| prose.trim_start_matches('#'))
    }
}

/// All pages of the repository for users and engineers.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    for folder in ["", "docs", "packaging"] {
        let entries = fs::read_dir(root().join(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("readable").file_name());
        let names = names.map(|name| name.into_string().expect("a name in UTF-8"));
        paths.extend(names.filter(|name| name.ends_with(".md")).map(|name| match folder {
            "" => name,
            folder => format!("{folder}/{name}"),
        }));
    }
    assert!(paths.len() >= 20, "pages are missing: {paths:?}");
    paths.iter().map(|path| Page::read(path)).collect()
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn lines_of(text: &str) -> Vec<Line> {
    let (mut is_fenced, mut after_blank, mut is_indented) = (false, true, false);
    let mut lines = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("```") {
            is_fenced = !is_fenced;
            continue;
        }
        // Indented text is code behind a blank line, and prose within a list or a paragraph.
        is_indented = line.starts_with("    ") && (after_blank || is_indented);
        after_blank = trimmed.is_empty();
        lines.push(if is_fenced || is_indented {
            Line::Code(trimmed.to_owned())
        } else {
            Line::Prose(line.to_owned())
        });
    }
    lines
}
