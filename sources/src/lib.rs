//! Sources: from what the user names to canonical links, one after the other, in flat memory.
//!
//! Here sources are told apart, checked before the first link, and read in turn. `list` reads lists, `imgur` expands
//! what is Imgur's. Comparing links and enqueueing them is left to the caller.

mod causes;
mod error;
mod imgur;
mod list;

pub use error::{BadLine, Rejected, SourceError};
pub use imgur::{
    ImgurAccount, ImgurCredits, ImgurError, ImgurPage, ImgurSites, ImgurSource, SharedBudget, Target, TargetError,
    classify,
};
pub use list::{ColumnNames, Format, ListOptions};

use common::job::Wanted;
use common::link::{canonical_url, without_userinfo};
use common::media::MediaTypes;
use imgur::{Expanded, Expansion, ImgurClient};
use list::{Entry, Input, List};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use url::Url;

/// Takes one-line notices for the user, such as "Imgur's limit is used up; waiting 12m0s".
pub type Notify = Arc<dyn Fn(String) + Send + Sync>;

/// What a user names as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `imgur:…`.
    Imgur(ImgurSource),
    /// A link, as given; a page of Imgur is expanded when it is read.
    Url(String),
    /// A file of links.
    List(PathBuf),
    /// `list:https://…`: a list at a URL.
    ListUrl(String),
    /// `-`.
    Stdin,
}

impl Source {
    /// Tells what `text` names. Whether it is there is left to [`Source::check`].
    ///
    /// # Errors
    /// [`SourceError::UnknownImgur`] and [`SourceError::BadUrl`]: usage errors.
    pub fn parse(text: &str) -> Result<Source, SourceError> {
        if text == "-" {
            return Ok(Source::Stdin);
        }
        if let Some(rest) = text.strip_prefix("imgur:") {
            let unknown = |why| SourceError::UnknownImgur { text: error::shown(&without_userinfo(text)), why };
            return ImgurSource::parse(rest).map(Source::Imgur).map_err(unknown);
        }
        if let Some(url) = text.strip_prefix("list:") {
            let url = canonical_url(url)
                .map_err(|why| SourceError::BadUrl { text: error::shown(&without_userinfo(text)), why: why.into() })?;
            return Ok(Source::ListUrl(url.into()));
        }
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme.trim());
        let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        if is_http || text.contains("://") {
            return match canonical_url(text) {
                Ok(_) => Ok(Source::Url(text.trim().to_owned())),
                Err(why) => Err(SourceError::BadUrl { text: error::shown(&without_userinfo(text)), why: why.into() }),
            };
        }
        Ok(Source::List(PathBuf::from(text)))
    }

    /// Whether a list's file is there and opens, and whether a table has the columns that are needed. Other sources have
    /// nothing to check without asking somebody.
    ///
    /// # Errors
    /// [`SourceError::NoSuchFile`], [`SourceError::Unreadable`].
    pub fn check(&self, options: &ListOptions) -> Result<(), SourceError> {
        let Source::List(path) = self else {
            return Ok(());
        };
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                SourceError::NoSuchFile { path: path.display().to_string() }
            }
            _ => list::unreadable(path, &error),
        })?;
        if metadata.is_dir() {
            return Err(list::unreadable(path, &ErrorKind::IsADirectory.into()));
        }
        // Opening a named pipe waits for its writer, and closing it again would end the writer.
        if metadata.is_file() {
            File::open(path).map_err(|error| list::unreadable(path, &error))?;
            list::check(path, options)?;
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Imgur(source) => source.fmt(f),
            Source::Url(url) => f.write_str(&error::shown(&without_userinfo(url))),
            Source::List(path) => path.display().fmt(f),
            Source::ListUrl(url) => f.write_str(&error::shown(&without_userinfo(url))),
            Source::Stdin => f.write_str("stdin"),
        }
    }
}

/// How many pages of a listing are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// At most so many.
    Count(NonZeroU32),
    /// Until an empty one.
    All,
}

impl Default for Pages {
    fn default() -> Self {
        Pages::Count(NonZeroU32::MIN)
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pages::Count(count) => count.fmt(f),
            Pages::All => f.write_str("all"),
        }
    }
}

impl FromStr for Pages {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Pages::All),
            number => number.parse().map(Pages::Count).map_err(|_| "give a number from 1, or all".to_owned()),
        }
    }
}

/// How sources are read.
#[derive(Clone)]
pub struct SourceOptions {
    /// Of each listing.
    pub pages: Pages,
    /// What is wanted of Imgur's images; other links are taken as they are.
    pub types: MediaTypes,
    /// Where Imgur is.
    pub sites: ImgurSites,
    /// Of Imgur's API; an empty one counts as none.
    pub client_id: Option<String>,
    /// Sent to Imgur's API and pages, and to where lists are.
    pub user_agent: String,
    /// Of all lists.
    pub lists: ListOptions,
    /// Where notices go.
    pub notify: Notify,
}

/// What a source holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A canonical link, and what its object has to be.
    Link(Wanted),
    /// A line that is none.
    Bad(BadLine),
}

/// The links of several sources, in turn.
pub struct Sources {
    options: SourceOptions,
    waiting: VecDeque<Source>,
    /// The list that is being read.
    list: Option<List>,
    /// The place on Imgur that is being read: a source, or a page link of a source or of the list.
    expansion: Option<(Expansion, Origin)>,
    /// Made when it is first needed: lists of plain links never do.
    client: Option<ImgurClient>,
    /// Through which producers tell each other what is left of Imgur's budget.
    shared: Option<Arc<dyn SharedBudget>>,
    skipped: u64,
}

/// Where the place that is being expanded was named.
#[derive(Debug)]
enum Origin {
    /// On the command line.
    Source(String),
    /// On a line of the list.
    Line { line: u64, text: String },
}

impl Origin {
    /// The source and line of a bad line; line 0 is none.
    fn place<'a>(&'a self, list_name: &'a str) -> (&'a str, u64) {
        match self {
            Origin::Source(name) => (name, 0),
            Origin::Line { line, .. } => (list_name, *line),
        }
    }

    /// For an error's message.
    fn named(&self, list_name: &str) -> String {
        match self {
            Origin::Source(name) => name.clone(),
            Origin::Line { line, text } => format!("{} ({list_name}:{line})", error::shown(text)),
        }
    }
}

impl Sources {
    /// Checks everything that can be checked without asking anybody, so that a mistake in the last source is told
    /// before the first link of the first one is enqueued.
    ///
    /// # Errors
    /// Any of [`SourceError`], those of Imgur's answers excepted.
    pub fn new(sources: Vec<Source>, mut options: SourceOptions) -> Result<Sources, SourceError> {
        options.client_id = options.client_id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
        let mut sources = Sources {
            waiting: sources.into(),
            list: None,
            expansion: None,
            client: None,
            shared: None,
            skipped: 0,
            options,
        };
        let mut asks_imgur = false;
        for source in &sources.waiting {
            source.check(&sources.options.lists)?;
            let needs_client_id = match source {
                Source::Imgur(imgur) => Some(imgur.needs_client_id()),
                Source::Url(url) => match sources.classify(url)? {
                    Target::File(_) => None,
                    Target::Page(page) => Some(needs_client_id(&page)),
                },
                Source::List(_) | Source::ListUrl(_) | Source::Stdin => None,
            };
            if needs_client_id == Some(true) && sources.options.client_id.is_none() {
                return Err(SourceError::NoClientId { source_name: source.to_string() });
            }
            asks_imgur |= needs_client_id.is_some();
        }
        if asks_imgur {
            // A client id that no header can carry is found out here.
            sources.make_client()?;
        }
        Ok(sources)
    }

    /// How many of Imgur's images were left out until now because their type is not wanted.
    pub fn skipped(&self) -> u64 {
        self.skipped + self.expansion.as_ref().map_or(0, |(expansion, _)| expansion.skipped())
    }

    /// The next link or bad line, or `None` after the last source. Cancel safe.
    ///
    /// A page link within a list that Imgur definitely does not have, or that needs a client id where there is none, is
    /// a bad line; the same thing named on the command line is an error.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`], [`SourceError::Imgur`]. Links given before stay good; asking on after an error goes on
    /// where it happened.
    pub async fn next(&mut self) -> Result<Option<Found>, SourceError> {
        loop {
            if self.expansion.is_some() {
                if let Some(found) = self.expand().await? {
                    return Ok(Some(found));
                }
            } else if let Some(list) = &mut self.list {
                match list.next().await? {
                    Some(Entry::Link(link)) => return Ok(Some(Found::Link(link))),
                    Some(Entry::Bad(bad)) => return Ok(Some(Found::Bad(bad))),
                    Some(Entry::Page { page, line, text }) => {
                        if needs_client_id(&page) && self.options.client_id.is_none() {
                            let why = "needs an Imgur client id, and none is set".to_owned();
                            return Ok(Some(Found::Bad(BadLine::new(list.name(), line, &text, why))));
                        }
                        self.start_page(&page, Origin::Line { line, text });
                    }
                    None => self.list = None,
                }
            } else {
                match self.waiting.pop_front() {
                    None => return Ok(None),
                    Some(source) => {
                        if let Some(link) = self.start(source)? {
                            return Ok(Some(Found::Link(link.into())));
                        }
                    }
                }
            }
        }
    }

    /// Begins a source; one that is a single link is done with that.
    fn start(&mut self, source: Source) -> Result<Option<String>, SourceError> {
        let origin = || Origin::Source(source.to_string());
        let input = match &source {
            Source::Imgur(imgur) => {
                let options = &self.options;
                let has_id = options.client_id.is_some();
                let expansion = Expansion::of_source(imgur, has_id, options.pages, options.types);
                self.expansion = Some((expansion, origin()));
                return Ok(None);
            }
            Source::Url(url) => match self.classify(url)? {
                Target::File(link) => return Ok(Some(link)),
                Target::Page(page) => {
                    self.start_page(&page, origin());
                    return Ok(None);
                }
            },
            Source::List(path) => Input::File(path.clone()),
            Source::ListUrl(url) => Input::Url { url: url.clone(), user_agent: self.options.user_agent.clone() },
            Source::Stdin => Input::Stdin,
        };
        let options = &self.options;
        self.list = Some(List::open(input, options.lists.clone(), options.sites.clone(), options.types)?);
        Ok(None)
    }

    fn start_page(&mut self, page: &ImgurPage, origin: Origin) {
        let options = &self.options;
        let expansion = Expansion::of_page(page, options.client_id.is_some(), options.pages, options.types);
        self.expansion = Some((expansion, origin));
    }

    /// The next link of the expansion; `None` when it is over. What it changes, it changes after its only wait.
    async fn expand(&mut self) -> Result<Option<Found>, SourceError> {
        self.make_client()?;
        let (Some((expansion, origin)), Some(client)) = (&mut self.expansion, &mut self.client) else {
            return Ok(None);
        };
        let list_name = self.list.as_ref().map_or("", List::name);
        let outcome = expansion.next(client).await;
        match (outcome, &*origin) {
            (Ok(Some(Expanded::Link(link))), _) => Ok(Some(Found::Link(link.into()))),
            (Ok(Some(Expanded::PartialAlbum { link, why })), origin) => {
                let (source, line) = origin.place(list_name);
                Ok(Some(Found::Bad(BadLine::new(source, line, &link, why))))
            }
            (Ok(None), _) => {
                self.skipped += expansion.skipped();
                self.expansion = None;
                Ok(None)
            }
            (Err(error), Origin::Line { line, text }) if error.is_definite() => {
                let bad = BadLine::new(list_name, *line, text, error.to_string());
                self.skipped += expansion.skipped();
                self.expansion = None;
                Ok(Some(Found::Bad(bad)))
            }
            (Err(error), origin) => Err(SourceError::Imgur { source_name: origin.named(list_name), error }),
        }
    }

    /// How much of the list that is being read is read, from 0 to 1, where that can be known.
    pub fn list_share(&self) -> Option<f64> {
        self.list.as_ref()?.share()
    }

    /// From now on Imgur's budget is shared with the other producers of the same client id. Before the first link.
    pub fn share_budget(&mut self, shared: Arc<dyn SharedBudget>) {
        if let (Some(client), Some(client_id)) = (&mut self.client, &self.options.client_id) {
            client.share_budget(Arc::clone(&shared), client_id);
        }
        self.shared = Some(shared);
    }

    /// What is left of Imgur's budget.
    ///
    /// # Errors
    /// No client id, or what Imgur says.
    pub async fn imgur_credits(&mut self) -> Result<ImgurCredits, SourceError> {
        let source_name = "imgur-credits".to_owned();
        if self.options.client_id.is_none() {
            return Err(SourceError::NoClientId { source_name });
        }
        self.make_client()?;
        let Some(client) = &mut self.client else { return Err(SourceError::NoClientId { source_name }) };
        client.credits().await.map_err(|error| SourceError::Imgur { source_name, error })
    }

    fn make_client(&mut self) -> Result<(), SourceError> {
        if self.client.is_none() {
            let SourceOptions { sites, client_id, user_agent, notify, .. } = &self.options;
            let client = ImgurClient::new(sites.clone(), client_id.as_deref(), user_agent, notify.clone());
            let mut client = client.map_err(|error| SourceError::Imgur { source_name: "Imgur".into(), error })?;
            if let (Some(shared), Some(client_id)) = (&self.shared, client_id) {
                client.share_budget(Arc::clone(shared), client_id);
            }
            self.client = Some(client);
        }
        Ok(())
    }

    fn classify(&self, url: &str) -> Result<Target, SourceError> {
        classify(url, &self.options.sites, self.options.types)
            .map_err(|why| SourceError::BadUrl { text: error::shown(&without_userinfo(url)), why })
    }
}

/// Whether a page can be expanded only through the API.
fn needs_client_id(page: &ImgurPage) -> bool {
    match page {
        ImgurPage::Album(_) | ImgurPage::Gallery(_) | ImgurPage::Image(_) => false,
        ImgurPage::User(_) | ImgurPage::Tag(_) | ImgurPage::Subreddit(_) => true,
    }
}

/// Where Imgur is, by the values of `IMGUR_API_URL`, `IMGUR_WEB_URL` and `IMGUR_IMAGE_URL`, which may have a path.
///
/// # Errors
/// [`SourceError::BadSite`].
pub fn sites_from(api: &str, web: &str, image: &str) -> Result<ImgurSites, SourceError> {
    Ok(ImgurSites {
        api: site("IMGUR_API_URL", api)?,
        web: site("IMGUR_WEB_URL", web)?,
        image: site("IMGUR_IMAGE_URL", image)?,
    })
}

fn site(variable: &'static str, text: &str) -> Result<Url, SourceError> {
    let bad = |why: String| SourceError::BadSite { variable, text: error::shown(&without_userinfo(text)), why };
    let mut url = canonical_url(text).map_err(|why| bad(why.to_string()))?;
    if url.query().is_some() {
        return Err(bad("it has a query".into()));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests;
