//! What there is on the simulated Imgur: a pure function of the seed and the options.
//!
//! A gallery is a list of items; an item is an image or an album. Ids are made from the place in the gallery, so the same
//! question has the same answer for as long as anybody asks.

use super::Config;
use super::picture::{self, Format};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Seven letters and digits.
    pub id: String,
    /// What it is.
    pub format: Format,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// A GIF with several frames.
    pub animated: bool,
    /// Gone: the host answers with the placeholder.
    pub removed: bool,
    seed: u64,
}

/// An item of a gallery.
#[derive(Debug, Clone)]
pub enum Item {
    /// A single image.
    Image(Image),
    /// An album, with all its images.
    Album(Album),
}

/// An album.
#[derive(Debug, Clone)]
pub struct Album {
    /// Seven letters and digits.
    pub id: String,
    /// All of them; listings show the first three.
    pub images: Vec<Image>,
}

/// Everything that was ever shown, so that it is found again by its id.
#[derive(Debug)]
pub struct Catalog {
    config: Config,
    images: Mutex<HashMap<String, Image>>,
    albums: Mutex<HashMap<String, Album>>,
    files: Mutex<HashMap<String, Bytes>>,
}

impl Catalog {
    /// An empty memory.
    pub fn new(config: Config) -> Catalog {
        Catalog { config, images: Mutex::default(), albums: Mutex::default(), files: Mutex::default() }
    }

    /// The items of a page of a gallery; none past the last page.
    pub fn page(&self, gallery: &str, page: usize) -> Vec<Item> {
        if page >= self.config.pages {
            return Vec::new();
        }
        (0..self.config.page_items).map(|place| self.item(gallery, page, place)).collect()
    }

    /// All images of a page, those of its albums included.
    pub fn images_of_page(&self, gallery: &str, page: usize) -> Vec<Image> {
        self.page(gallery, page)
            .into_iter()
            .flat_map(|item| match item {
                Item::Image(image) => vec![image],
                Item::Album(album) => album.images,
            })
            .collect()
    }

    fn item(&self, gallery: &str, page: usize, place: usize) -> Item {
        let number = page * self.config.page_items + place;
        let seed = hash(self.config.seed, &format!("{gallery} {number}"));
        if number % 4 == 2 {
            let images = (0..3 + seed % 7).map(|n| self.image(hash(seed, &format!("image {n}")), 1 + number)).collect();
            let album = Album { id: id(hash(seed, "album")), images };
            remember(&self.albums, &album.id, &album);
            Item::Album(album)
        } else {
            Item::Image(self.image(seed, number))
        }
    }

    fn image(&self, seed: u64, number: usize) -> Image {
        let mut random = fastrand::Rng::with_seed(seed);
        let format = random.choice([Format::Jpeg, Format::Jpeg, Format::Png, Format::Gif, Format::Webp]);
        let format = format.unwrap_or(Format::Jpeg);
        let every = self.config.removed_every;
        let image = Image {
            id: id(seed),
            format,
            width: random.u32(12..40) * 10,
            height: random.u32(9..30) * 10,
            animated: format == Format::Gif && random.bool(),
            removed: every > 0 && number % every == every - 1,
            seed,
        };
        remember(&self.images, &image.id, &image);
        image
    }

    /// An image that was shown.
    pub fn find_image(&self, id: &str) -> Option<Image> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// An album that was shown.
    pub fn find_album(&self, id: &str) -> Option<Album> {
        self.albums.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The file of an image.
    pub fn file(&self, image: &Image) -> Bytes {
        if let Some(bytes) = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&image.id) {
            return bytes.clone();
        }
        let bytes = picture::file(image.seed, image.format, image.width, image.height, image.animated);
        remember(&self.files, &image.id, &bytes);
        bytes
    }
}

fn remember<T: Clone>(memory: &Mutex<HashMap<String, T>>, id: &str, value: &T) {
    memory.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), value.clone());
}

/// FNV-1a, with a last mix so that similar texts differ in all bits.
fn hash(seed: u64, text: &str) -> u64 {
    let fnv = text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    fastrand::Rng::with_seed(fnv).u64(..)
}

/// Seven letters and digits. The last is never one of the size suffixes, so that nobody doubts where an id ends.
fn id(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x1d);
    let mut id: String = (0..6).map(|_| random.alphanumeric()).collect();
    id.push(random.digit(10));
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_the_same_answer() {
        let ids = |catalog: &Catalog, gallery: &str| -> Vec<String> {
            catalog.images_of_page(gallery, 0).into_iter().map(|image| image.id).collect()
        };
        let (one, other) = (Catalog::new(Config::default()), Catalog::new(Config::default()));
        assert_eq!(ids(&one, "random"), ids(&other, "random"));
        assert_ne!(ids(&one, "random"), ids(&one, "hot"));
        assert!(one.page("random", Config::default().pages).is_empty());
        let mut all = ids(&one, "random");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), ids(&one, "random").len());
    }
}
