//! Imgur as a source of links: what a link points at (`target`), what can be asked for (`source`), what the answers mean (`answer`), how politely to ask
//! (`limits`), the asking (`client`), and the links that come of it (`expand`).

pub(crate) mod answer;
mod budget;
pub(crate) mod client;
pub(crate) mod expand;
mod limits;
pub(crate) mod source;
mod target;
#[cfg(test)]
pub(crate) mod test_server;

pub use answer::ImgurError;
pub use budget::{ImgurAccount, ImgurCredits, SharedBudget};
pub(crate) use client::ImgurClient;
pub(crate) use expand::{Expanded, Expansion};
pub use source::ImgurSource;
pub use target::{ImgurPage, ImgurSites, Target, TargetError, classify};
