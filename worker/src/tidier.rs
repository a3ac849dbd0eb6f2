//! The tidier: forgets what the queue need not keep any more, when a heartbeat says that it is time.
//!
//! Every worker is one. Several may try at once: the script lets one of them do it.

use crate::hosts::say_dropped;
use queue::{Queue, Tidied};
use std::collections::BTreeSet;

/// Remembers which readers were named as silent, to say it once of each.
#[derive(Debug, Default)]
pub(crate) struct Tidier {
    silent: BTreeSet<String>,
}

impl Tidier {
    /// Forgets some. An error leaves it to the next heartbeat of anybody.
    pub(crate) async fn tidy(&mut self, queue: &Queue) {
        match queue.tidy(false).await {
            Ok(tidied) => {
                for word in self.words(&tidied) {
                    tracing::warn!("{word}");
                }
                say_dropped(&tidied.dropped);
                let Tidied { batches, results, dead, .. } = tidied;
                if batches + results + dead > 0 {
                    tracing::info!("forgot {batches} batches, {results} results and {dead} dead letters by their age");
                }
            }
            Err(error) => tracing::warn!("cannot forget what is old yet: {error}"),
        }
    }

    /// What is to be said of readers: once of each, until it has moved.
    fn words(&mut self, tidied: &Tidied) -> Vec<String> {
        let silent: BTreeSet<String> = tidied.silent_readers.iter().cloned().collect();
        let new = silent.difference(&self.silent);
        let words = new.map(|reader| {
            format!(
                "reader {} has taken no result for so long that results are not kept for it any more; `producer results \
                 --drop-reader` forgets it, `producer retention --keep-readers` says for how long they are kept",
                common::text::harmless(reader)
            )
        });
        let words = words.collect();
        // Nobody is named where it was not this worker that looked.
        if !silent.is_empty() {
            self.silent = silent;
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_reader_is_named_once() {
        let mut tidier = Tidier::default();
        let silent = |readers: &[&str]| Tidied {
            silent_readers: readers.iter().map(|reader| (*reader).to_owned()).collect(),
            ..Tidied::default()
        };
        assert_eq!(tidier.words(&silent(&["a"])).len(), 1);
        assert_eq!(tidier.words(&silent(&[])).len(), 0);
        assert_eq!(tidier.words(&silent(&["a", "b"])).len(), 1);
        assert_eq!(tidier.words(&silent(&["b"])).len(), 0);
        assert_eq!(tidier.words(&silent(&["a", "b"])).len(), 1, "it moved, and was silent again");
    }
}
