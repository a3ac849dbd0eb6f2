//! What the queue was like before: lines that the heartbeat script leaves every ten seconds and every five minutes, however
//! many workers there are, in two lists that do not grow beyond two hours and eight days.

use super::Queue;
use common::error::QueueError;
use serde::Serialize;

/// The queue at one time. The last four are totals since the queue began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are those of the status")]
pub struct Sample {
    /// When, ms since 1970 by the Redis clock.
    pub at_ms: u64,
    pub ready: u64,
    pub delayed: u64,
    pub dead: u64,
    pub stored: u64,
    pub rejected: u64,
    pub failed: u64,
    pub bytes: u64,
}

/// All samples that there are, oldest first. There are none of a time in which no worker was alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// Every ten seconds, at most 720.
    pub fine: Vec<Sample>,
    /// Every five minutes, at most 2,304.
    pub coarse: Vec<Sample>,
    /// What time it was for Redis when they were read.
    pub now_ms: u64,
}

impl Sample {
    /// Reads the line that `heartbeat.lua` wrote; `None` when it is of another kind.
    fn read(line: &str) -> Option<Sample> {
        let mut numbers = line.split(' ').map(|number| number.parse::<f64>().map(|n| n.max(0.0) as u64));
        let mut next = || numbers.next()?.ok();
        Some(Sample {
            at_ms: next()?,
            ready: next()?,
            delayed: next()?,
            dead: next()?,
            stored: next()?,
            rejected: next()?,
            failed: next()?,
            bytes: next()?,
        })
    }
}

impl Queue {
    /// What the queue was like, up to eight days back: at most 3,024 lines of about 60 bytes.
    ///
    /// # Errors
    /// As every call.
    pub async fn history(&self) -> Result<History, QueueError> {
        let mut pipe = redis::pipe();
        pipe.lrange(self.keys.history_fine(), 0, -1).lrange(self.keys.history_coarse(), 0, -1).cmd("TIME");
        let mut reply = self.channel.replies("read the history", &pipe).await?;
        let (fine, coarse) = (reply.texts("the fine lines")?, reply.texts("the coarse lines")?);
        // A line of another kind somebody else wrote, or a later version.
        let read = |lines: Vec<String>| lines.iter().filter_map(|line| Sample::read(line)).collect();
        Ok(History { fine: read(fine), coarse: read(coarse), now_ms: reply.time_ms()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_lua_writes_them() {
        let sample = Sample::read("1700000000000 1 2 3 4 5 -1 1.5e+15").expect("a line");
        assert_eq!((sample.at_ms, sample.ready, sample.delayed, sample.dead), (1_700_000_000_000, 1, 2, 3));
        assert_eq!((sample.stored, sample.rejected, sample.failed, sample.bytes), (4, 5, 0, 1_500_000_000_000_000));
        assert_eq!(Sample::read("1 2 3"), None);
        assert_eq!(Sample::read("x"), None);
    }
}
