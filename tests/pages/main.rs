//! The pages for users, held against the program: links lead somewhere, command lines are
//! understood.
//!
//! - `text`: a page as prose and code; - `links`: the links of all pages;
//! - `commands`: the command lines and options that pages name.

mod commands;
mod links;
mod text;
