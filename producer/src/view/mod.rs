//! What people see of a queue on a terminal: the progress of a wait, the summary, what to do next, and a watched screen.

pub(crate) mod advice;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod style;
pub(crate) mod summary;
