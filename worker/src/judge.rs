//! What stands between the storage, which knows bytes, and what images have to be like.

use common::media::MediaInfo;
use common::outcome::Rejection;
use content::{Content, Whole};
use std::io;
use std::sync::Arc;
use storage::{Judge, WholeObject};

/// Answers the storage out of what is demanded of images.
#[derive(Debug)]
pub(crate) struct ImageJudge(pub(crate) Arc<Content>);

impl Judge for ImageJudge {
    fn info_of(&self, beginning: &[u8]) -> Option<MediaInfo> {
        self.0.info_of(beginning)
    }

    fn judge(&self, object: WholeObject<'_>, progress: &dyn Fn()) -> io::Result<Result<(), Rejection>> {
        let WholeObject { file, bytes, sha256, info, sha256_wanted } = object;
        self.0.judge(Whole { file, bytes, sha256, info, sha256_wanted }, progress)
    }
}
