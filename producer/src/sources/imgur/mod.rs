//! Imgur as a source of links: what can be asked for (`source`), what the answers mean (`answer`), how politely to ask
//! (`limits`), the asking (`client`), and the links that come of it (`expand`).

pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod expand;
mod limits;
pub(crate) mod source;
#[cfg(test)]
pub(crate) mod test_server;

pub(crate) use answer::ImgurError;
pub(crate) use client::ImgurClient;
pub(crate) use expand::{Expanded, Expansion};
pub(crate) use source::ImgurSource;
