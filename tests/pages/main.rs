//! The pages for users, held against the program: links lead somewhere, command lines are
//! understood.
//!
//! - `text`: a page as prose and code; - `links`: links, and named files;
//! - `commands`: command lines, options and rules;
//! - `messages`: the messages in docs/troubleshooting.md.

mod commands;
mod links;
mod messages;
mod text;
