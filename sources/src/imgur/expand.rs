//! From a place on Imgur to the links of its images: pages in turn, albums opened, types chosen.
//!
//! One page is in memory at a time. Asking is left to `client`; what a link or a line of a list is, to `target`.

use super::answer::{ImgurError, Item};
use super::client::ImgurClient;
use super::source::{ApiPath, ImgurSource};
use super::target::{ImgurPage, ImgurSites, Target, classify, imgur_image_link};
use crate::Pages;
use common::media::{MediaType, MediaTypes};
use percent_encoding::percent_decode_str;
use std::collections::VecDeque;

/// Ids have 5 or 7 letters and digits today.
const ID_BYTES_MAX: usize = 32;

/// Where the images are found.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Pages of the API.
    Listing(ImgurSource),
    /// One answer of the API: an album, an image, or a gallery entry of either kind.
    Entry(ApiPath),
    /// An album by the endpoint of Imgur's pages, which wants no client id.
    WebAlbum {
        id: String,
        /// A gallery link may be a single image as well: it is taken for one when there is no such album.
        or_image: bool,
    },
    /// An image of which the id is all that is known, and nobody can be asked.
    BareImage(String),
}

/// What an expansion gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expanded {
    /// An image's canonical link.
    Link(String),
    /// An album of a listing could not be opened: only the links of its first images follow.
    PartialAlbum {
        /// Its page.
        link: String,
        /// How many are known of how many, and why.
        why: String,
    },
}

/// The images of one place, one after the other.
pub(crate) struct Expansion {
    place: Place,
    types: MediaTypes,
    /// The page to ask for next; `None` after the last.
    next_page: Option<u32>,
    /// The first page that is not asked for any more.
    pages_end: u32,
    /// What is left of the page, in order.
    items: VecDeque<Item>,
    /// What is left of the item, in order.
    links: VecDeque<String>,
    /// Images of types that are not wanted, or not known.
    skipped: u64,
}

impl Expansion {
    fn new(place: Place, pages: Pages, types: MediaTypes) -> Expansion {
        let pages_end = match (&place, pages) {
            (Place::Listing(source), Pages::All) if source.is_paged() => u32::MAX,
            (Place::Listing(source), Pages::Count(count)) if source.is_paged() => count.get(),
            _ => 1,
        };
        let (items, links) = Default::default();
        Expansion { place, types, next_page: Some(0), pages_end, items, links, skipped: 0 }
    }

    /// The images of an `imgur:` source. The caller has seen to it that there is a client id where it needs one.
    pub(crate) fn of_source(source: &ImgurSource, has_client_id: bool, pages: Pages, types: MediaTypes) -> Expansion {
        let place = match source {
            ImgurSource::Album(id) => album(id, has_client_id),
            listing => Place::Listing(listing.clone()),
        };
        Expansion::new(place, pages, types)
    }

    /// The images behind a page's link; the same holds for the client id.
    pub(crate) fn of_page(page: &ImgurPage, has_client_id: bool, pages: Pages, types: MediaTypes) -> Expansion {
        let place = match page {
            ImgurPage::Album(id) => album(id, has_client_id),
            ImgurPage::Gallery(id) if has_client_id => Place::Entry(ApiPath::new(&["gallery", id])),
            ImgurPage::Gallery(id) => Place::WebAlbum { id: id.clone(), or_image: true },
            ImgurPage::Image(id) if has_client_id => Place::Entry(ApiPath::new(&["image", id])),
            ImgurPage::Image(id) => Place::BareImage(id.clone()),
            ImgurPage::User(name) => Place::Listing(ImgurSource::user(&decoded(name))),
            ImgurPage::Tag(name) => Place::Listing(ImgurSource::tag(&decoded(name))),
            ImgurPage::Subreddit(name) => Place::Listing(ImgurSource::subreddit(&decoded(name))),
        };
        Expansion::new(place, pages, types)
    }

    /// How many images were left out until now because their type is not wanted.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next link, or `None` at the end.
    ///
    /// Cancel safe: nothing is taken off before its answer is there, so that a dropped call is only asked again.
    ///
    /// # Errors
    /// Any [`ImgurError`] but `Limited`. A definite one ends the expansion of this place; of an album within a listing
    /// it costs only the rest of that album, and is told as [`Expanded::PartialAlbum`].
    pub(crate) async fn next(&mut self, client: &mut ImgurClient) -> Result<Option<Expanded>, ImgurError> {
        loop {
            if let Some(link) = self.links.pop_front() {
                return Ok(Some(Expanded::Link(link)));
            }
            if let Some(partial) = self.open_item(client).await? {
                return Ok(Some(partial));
            }
            if !self.links.is_empty() || !self.items.is_empty() {
                continue;
            }
            let Some(page) = self.next_page else {
                return Ok(None);
            };
            self.read_page(page, client).await?;
        }
    }

    /// Turns the first item into links, asking for an album's images where the listing holds only the first of them.
    async fn open_item(&mut self, client: &mut ImgurClient) -> Result<Option<Expanded>, ImgurError> {
        let Some(item) = self.items.front() else {
            return Ok(None);
        };
        let asked = match self.album_to_ask_for(item) {
            Some(path) => Some(client.items(&path).await),
            None => None,
        };
        if let Some(Err(error)) = &asked
            && !error.is_definite()
        {
            return Err(error.clone());
        }
        let Some(mut item) = self.items.pop_front() else {
            return Ok(None);
        };
        let preview = item.images.as_ref().map_or(0, Vec::len);
        let mut partial = None;
        match asked {
            // An answer shorter than the preview has lost something on its way.
            Some(Ok(images)) if images.len() >= preview => item.images = Some(images),
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                let id = item.id.as_deref().unwrap_or_default();
                let of = item.images_count.map(|count| format!(" of {count}")).unwrap_or_default();
                partial = Some(Expanded::PartialAlbum {
                    link: format!("{}/a/{id}", client.sites().web.as_str().trim_end_matches('/')),
                    why: format!("only the first {preview}{of} images of this album are known: {error}"),
                });
            }
        }
        let images = if is_album(&item) { item.images.unwrap_or_default() } else { vec![item] };
        for image in images {
            match link_of(&image, client.sites(), self.types) {
                Some(link) => self.links.push_back(link),
                None => self.skipped += 1,
            }
        }
        Ok(partial)
    }

    /// Where the API has all images of an album of which not all are here.
    fn album_to_ask_for(&self, item: &Item) -> Option<ApiPath> {
        if !is_album(item) {
            return None;
        }
        let here = item.images.as_ref().map(Vec::len);
        let complete = match (item.images_count, here) {
            (Some(count), here) => here.unwrap_or(0) as u64 >= count,
            // An untold count: listings hold only the first few, the album's own answer all.
            (None, Some(_)) => !matches!(self.place, Place::Listing(_)),
            (None, None) => false,
        };
        let id = item.id.as_deref().filter(|_| !complete)?;
        Some(ApiPath::new(&["album", id, "images"]))
    }

    async fn read_page(&mut self, page: u32, client: &mut ImgurClient) -> Result<(), ImgurError> {
        let items = match &self.place {
            Place::Listing(source) => client.items(&source.page(page)).await?,
            Place::Entry(path) => client.items(path).await?,
            Place::WebAlbum { id, or_image } => match client.web_album(id).await {
                Ok(items) if !(items.is_empty() && *or_image) => items,
                Ok(_) | Err(ImgurError::NotFound(_)) if *or_image => {
                    self.links.push_back(imgur_image_link(client.sites(), id, "jpg"));
                    Vec::new()
                }
                Ok(items) => items,
                Err(error) => return Err(error),
            },
            // Imgur serves an image under any extension; what it is, the worker tells by its bytes.
            Place::BareImage(id) => {
                self.links.push_back(imgur_image_link(client.sites(), id, "jpg"));
                Vec::new()
            }
        };
        // A page past the end is empty.
        self.next_page = page.checked_add(1).filter(|&next| !items.is_empty() && next < self.pages_end);
        self.items = items.into();
        Ok(())
    }
}

fn album(id: &str, has_client_id: bool) -> Place {
    if has_client_id {
        Place::Entry(ApiPath::new(&["album", id]))
    } else {
        Place::WebAlbum { id: id.to_owned(), or_image: false }
    }
}

/// A name out of a link's path, which is percent-encoded there and will be encoded anew.
fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// Albums have no type; recorded ones of 2018 lack `is_album` too.
fn is_album(item: &Item) -> bool {
    item.is_album
        .unwrap_or_else(|| item.content_type.is_none() && (item.images.is_some() || item.images_count.is_some()))
}

/// The canonical link of an image, rebuilt from its id and its type; `None` when its type is not wanted or not known.
/// Its own link is not taken: for large GIFs it is a thumbnail's.
fn link_of(item: &Item, sites: &ImgurSites, types: MediaTypes) -> Option<String> {
    let extension = chosen_extension(item, types)?;
    match item.id.as_deref() {
        Some(id) if id.len() <= ID_BYTES_MAX && id.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            Some(imgur_image_link(sites, id, extension))
        }
        _ => match classify(item.link.as_deref()?, sites, types) {
            Ok(Target::File(link)) => Some(link),
            Ok(Target::Page(_)) | Err(_) => None,
        },
    }
}

fn chosen_extension(item: &Item, types: MediaTypes) -> Option<&'static str> {
    let told = item.content_type.as_deref().and_then(|text| text.split_once('/'));
    let linked = item.link.as_deref().and_then(|link| link.split(['?', '#']).next()?.rsplit_once('.'));
    let kind = told.and_then(|(_, subtype)| MediaType::from_extension(subtype)).or_else(|| match linked?.1 {
        // The page around a video.
        "gifv" => Some(MediaType::Mp4),
        extension => MediaType::from_extension(extension),
    })?;
    let wanted = |media_type: MediaType| types.contains(media_type).then(|| media_type.extension());
    match kind {
        // Imgur has a GIF and a video of what moves, whichever of them was uploaded.
        MediaType::Gif if item.animated.unwrap_or(item.mp4.is_some()) => {
            wanted(MediaType::Gif).or_else(|| wanted(MediaType::Mp4))
        }
        MediaType::Mp4 | MediaType::Webm => {
            wanted(MediaType::Gif).or_else(|| wanted(MediaType::Mp4)).or_else(|| wanted(kind))
        }
        MediaType::Gif | MediaType::Jpeg | MediaType::Png | MediaType::Webp | MediaType::Avif => wanted(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{Reply, TestImgur, error_body};
    use super::*;
    use std::num::NonZeroU32;

    fn image(id: &str) -> String {
        format!(r#"{{"id":"{id}","type":"image/jpeg","animated":false,"link":"https://i.imgur.com/{id}.jpg"}}"#)
    }
    fn album_of(id: &str, count: u32, images: &[&str]) -> String {
        let images: Vec<_> = images.iter().map(|id| image(id)).collect();
        format!(
            r#"{{"id":"{id}","is_album":true,"link":"https://imgur.com/a/{id}","images_count":{count},"images":[{}]}}"#,
            images.join(",")
        )
    }
    fn data(data: &str) -> Reply {
        Reply::json(&format!(r#"{{"data":{data},"success":true,"status":200}}"#))
    }
    fn list(items: &[String]) -> Reply {
        data(&format!("[{}]", items.join(",")))
    }
    fn some(pages: u32) -> Pages {
        Pages::Count(NonZeroU32::new(pages).expect("not 0"))
    }
    fn random(pages: Pages) -> Expansion {
        Expansion::of_source(&ImgurSource::Random, true, pages, MediaTypes::default())
    }
    /// Ids with extensions, and "!" for a partial album.
    async fn all(mut expansion: Expansion, client: &mut ImgurClient) -> Result<Vec<String>, ImgurError> {
        let mut found = Vec::new();
        while let Some(next) = expansion.next(client).await? {
            found.push(match next {
                Expanded::Link(link) => {
                    let base = format!("{}/", client.sites().image);
                    link.strip_prefix(&base).expect("below the image host").to_owned()
                }
                Expanded::PartialAlbum { .. } => "!".to_owned(),
            });
        }
        Ok(found)
    }

    #[tokio::test]
    async fn pages_are_read_until_the_empty_one_or_as_many_as_wanted() {
        let pages = || vec![list(&[image("aaaaaaa"), image("bbbbbbb")]), list(&[image("ccccccc")]), list(&[])];
        for (wanted, found, asked) in [
            (Pages::All, vec!["aaaaaaa.jpg", "bbbbbbb.jpg", "ccccccc.jpg"], 3),
            (some(9), vec!["aaaaaaa.jpg", "bbbbbbb.jpg", "ccccccc.jpg"], 3),
            (some(2), vec!["aaaaaaa.jpg", "bbbbbbb.jpg", "ccccccc.jpg"], 2),
            (some(1), vec!["aaaaaaa.jpg", "bbbbbbb.jpg"], 1),
        ] {
            let imgur = TestImgur::start(pages()).await;
            let mut client = imgur.client(Some("id"));
            assert_eq!(all(random(wanted), &mut client).await, Ok(found.iter().map(|&f| f.to_owned()).collect()));
            let paths: Vec<_> = (0..asked).map(|n| format!("/api/3/gallery/random/random/{n}")).collect();
            assert_eq!(imgur.paths(), paths, "{wanted:?}");
        }
    }

    #[tokio::test]
    async fn an_album_longer_than_its_preview_is_asked_for() {
        let imgur = TestImgur::start(vec![
            list(&[album_of("xxxxxxx", 3, &["aaaaaaa"]), album_of("yyyyyyy", 1, &["ddddddd"])]),
            list(&[image("aaaaaaa"), image("bbbbbbb"), image("ccccccc")]),
        ])
        .await;
        let found = all(random(some(1)), &mut imgur.client(Some("id"))).await.expect("links");
        assert_eq!(found, ["aaaaaaa.jpg", "bbbbbbb.jpg", "ccccccc.jpg", "ddddddd.jpg"]);
        assert_eq!(imgur.paths(), ["/api/3/gallery/random/random/0", "/api/3/album/xxxxxxx/images"]);
    }

    #[tokio::test]
    async fn an_album_that_went_away_gives_its_preview_and_is_told() {
        let imgur = TestImgur::start(vec![
            list(&[album_of("xxxxxxx", 3, &["aaaaaaa"]), image("bbbbbbb")]),
            Reply::json(&error_body("gone", 404)).status(404),
        ])
        .await;
        let found = all(random(some(1)), &mut imgur.client(Some("id"))).await.expect("links");
        assert_eq!(found, ["!", "aaaaaaa.jpg", "bbbbbbb.jpg"]);
    }

    #[tokio::test]
    async fn a_page_link_goes_through_the_api_with_an_id() {
        let id = || "xxxxxxx".to_owned();
        for (page, path, reply) in [
            (ImgurPage::Album(id()), "album/xxxxxxx", album_of("xxxxxxx", 1, &["aaaaaaa"])),
            (ImgurPage::Gallery(id()), "gallery/xxxxxxx", album_of("xxxxxxx", 1, &["aaaaaaa"])),
            (ImgurPage::Gallery(id()), "gallery/xxxxxxx", image("aaaaaaa")),
            (ImgurPage::Image(id()), "image/xxxxxxx", image("aaaaaaa")),
            (ImgurPage::User("a%20b".into()), "account/a%20b/submissions/0", format!("[{}]", image("aaaaaaa"))),
            (
                ImgurPage::Tag("caf%C3%A9".into()),
                "gallery/t/caf%C3%A9/viral/week/0",
                format!(r#"{{"items":[{}]}}"#, image("aaaaaaa")),
            ),
            (ImgurPage::Subreddit("aww".into()), "gallery/r/aww/time/week/0", format!("[{}]", image("aaaaaaa"))),
        ] {
            let imgur = TestImgur::start(vec![data(&reply)]).await;
            let expansion = Expansion::of_page(&page, true, some(1), MediaTypes::default());
            assert_eq!(all(expansion, &mut imgur.client(Some("id"))).await, Ok(vec!["aaaaaaa.jpg".to_owned()]));
            assert_eq!(imgur.paths(), [format!("/api/3/{path}")]);
        }
    }

    #[tokio::test]
    async fn a_page_link_needs_no_id() {
        let web = r#"{"count":2,"images":[{"hash":"aaaaaaa","ext":".jpg","animated":false},
            {"hash":"bbbbbbb","ext":".gif","animated":true}]}"#;
        let id = || "xxxxxxx".to_owned();
        for (page, reply, found) in [
            (ImgurPage::Album(id()), web, Ok(vec!["aaaaaaa.jpg", "bbbbbbb.gif"])),
            (ImgurPage::Album(id()), "[]", Err(ImgurError::NotFound(String::new()))),
            (ImgurPage::Gallery(id()), web, Ok(vec!["aaaaaaa.jpg", "bbbbbbb.gif"])),
            (ImgurPage::Gallery(id()), "[]", Ok(vec!["xxxxxxx.jpg"])),
            (ImgurPage::Gallery(id()), r#"{"count":0,"images":[]}"#, Ok(vec!["xxxxxxx.jpg"])),
            (ImgurPage::Image(id()), "[]", Ok(vec!["xxxxxxx.jpg"])),
        ] {
            let imgur = TestImgur::start(vec![data(reply)]).await;
            let expansion = Expansion::of_page(&page, false, some(1), MediaTypes::default());
            let found = found.map(|f| f.iter().map(|&f| f.to_owned()).collect());
            assert_eq!(all(expansion, &mut imgur.client(None)).await, found, "{page:?} {reply}");
            let asked = usize::from(!matches!(page, ImgurPage::Image(_)));
            assert_eq!(imgur.paths(), vec!["/web/ajaxalbums/getimages/xxxxxxx/hit.json"; asked]);
        }
    }

    #[tokio::test]
    async fn images_of_types_that_are_not_wanted_are_counted() {
        let imgur = TestImgur::start(vec![list(&[image("aaaaaaa"), image("bbbbbbb")]), list(&[])]).await;
        let types = "png".parse().expect("types");
        let mut expansion = Expansion::of_source(&ImgurSource::Hot, true, Pages::All, types);
        assert_eq!(expansion.next(&mut imgur.client(Some("id"))).await, Ok(None));
        assert_eq!(expansion.skipped(), 2);
    }

    #[test]
    fn the_extension_follows_the_type_and_what_is_wanted() {
        let default = "jpeg,png,gif,webp,avif";
        for (content_type, animated, link, types, expected) in [
            ("image/jpeg", Some(false), "", default, Some("q6TxQKy.jpg")),
            ("image/png", Some(true), "", default, Some("q6TxQKy.png")),
            ("image/gif", Some(true), "https://i.imgur.com/q6TxQKyh.gif", default, Some("q6TxQKy.gif")),
            ("image/gif", Some(true), "", "mp4", Some("q6TxQKy.mp4")),
            ("image/gif", Some(true), "", "mp4,gif", Some("q6TxQKy.gif")),
            ("image/gif", Some(false), "", "mp4", None),
            ("image/gif", None, "", "mp4", None),
            ("video/mp4", Some(true), "", default, Some("q6TxQKy.gif")),
            ("video/mp4", None, "", "mp4", Some("q6TxQKy.mp4")),
            ("video/mp4", Some(true), "", "jpeg", None),
            ("video/webm", Some(true), "", "webm", Some("q6TxQKy.webm")),
            ("image/jpeg", Some(false), "", "png", None),
            ("", None, "https://i.imgur.com/q6TxQKy.png?1", default, Some("q6TxQKy.png")),
            ("", None, "https://i.imgur.com/q6TxQKy.gifv", "mp4", Some("q6TxQKy.mp4")),
            ("image/tiff", None, "", default, None),
            ("", None, "", default, None),
        ] {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let (content_type, link) = (some(content_type), some(link));
            let item = Item { id: Some("q6TxQKy".into()), content_type, link, animated, ..Item::default() };
            let got = link_of(&item, &ImgurSites::default(), types.parse().expect("types"));
            assert_eq!(got, expected.map(|e| format!("https://i.imgur.com/{e}")), "{item:?} {types}");
        }
        let link = Some("https://i.imgur.com/q6TxQKyh.gif".to_owned());
        let item = Item { link, ..Item::default() };
        let got = link_of(&item, &ImgurSites::default(), MediaTypes::default());
        assert_eq!(got.as_deref(), Some("https://i.imgur.com/q6TxQKy.gif"), "without an id, its link is read");
    }
}
