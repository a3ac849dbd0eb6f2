//! Slots: the tasks that run, and how many of them still download.
//!
//! A download holds its slot until its body is whole, not until its object is stored: while the storage takes the object the next
//! download goes on, which makes a third more of them in the same time. Both are bounded.

use crate::hosts::Trail;
use crate::processor::Processed;
use queue::{ClaimedJob, LeaseField};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// Objects that are downloaded and not stored yet are bounded as well: with the downloads, this many times the slots.
const STORING_FACTOR: usize = 3;

/// How a task ended, and which.
pub(super) type Finished = Result<(Id, Processed), JoinError>;

/// An attempt at a job.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) job: ClaimedJob,
    pub(super) host: Arc<str>,
    pub(super) trail: Arc<Trail>,
    /// It is the job's first one.
    pub(super) is_fresh: bool,
}

struct Running {
    attempt: Attempt,
    is_downloading: bool,
    task: AbortHandle,
}

/// What runs.
pub(super) struct Slots {
    pub(super) tasks: JoinSet<Processed>,
    /// Tasks whose bodies are whole.
    pub(super) downloaded: mpsc::UnboundedReceiver<Id>,
    tell_downloaded: mpsc::UnboundedSender<Id>,
    running: HashMap<Id, Running>,
    downloading: usize,
}

impl Slots {
    pub(super) fn new() -> Slots {
        let (tell_downloaded, downloaded) = mpsc::unbounded_channel();
        Slots { tasks: JoinSet::new(), downloaded, tell_downloaded, running: HashMap::new(), downloading: 0 }
    }

    /// Tasks whose bodies are not whole yet.
    pub(super) fn downloading(&self) -> usize {
        self.downloading
    }

    /// All tasks whose end is waited for.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether another one may start when there are so many slots.
    pub(super) fn has_room(&self, slots: usize) -> bool {
        self.downloading < slots && self.running.len() < slots * STORING_FACTOR
    }

    /// Starts an attempt. `work` gets what it has to call when its body is whole.
    pub(super) fn start<F>(&mut self, attempt: Attempt, work: impl FnOnce(Downloaded) -> F)
    where
        F: Future<Output = Processed> + Send + 'static,
    {
        let task = self.tasks.spawn(work(Downloaded(self.tell_downloaded.clone())));
        self.downloading += 1;
        self.running.insert(task.id(), Running { attempt, is_downloading: true, task });
    }

    /// A body is whole: its slot is free. Its place at the host is so already.
    pub(super) fn free(&mut self, id: Id) {
        if let Some(running) = self.running.get_mut(&id)
            && running.is_downloading
        {
            running.is_downloading = false;
            self.downloading -= 1;
        }
    }

    /// A task is over: its attempt, and what it came to, which is nothing if it panicked. `None` for one that was abandoned.
    pub(super) fn ended(&mut self, finished: Finished) -> Option<(Attempt, Option<Processed>)> {
        let (id, processed) = match finished {
            Ok((id, processed)) => (id, Some(processed)),
            Err(error) => (error.id(), None),
        };
        self.remove(id).map(|(attempt, _)| (attempt, processed))
    }

    fn remove(&mut self, id: Id) -> Option<(Attempt, AbortHandle)> {
        let Running { attempt, is_downloading, task } = self.running.remove(&id)?;
        self.downloading -= usize::from(is_downloading);
        Some((attempt, task))
    }

    /// Breaks off the attempts at jobs that are lost. What they stored is complete or nothing.
    pub(super) fn abandon(&mut self, is_lost: impl Fn(&LeaseField) -> bool) -> Vec<Attempt> {
        let lost = self.running.iter().filter(|(_, running)| is_lost(&running.attempt.job.field));
        let lost: Vec<Id> = lost.map(|(id, _)| *id).collect();
        let abandoned = lost.into_iter().filter_map(|id| self.remove(id));
        abandoned
            .map(|(attempt, task)| {
                // It would hold a place at its host, and nobody would hear of it.
                task.abort();
                attempt
            })
            .collect()
    }

    /// Breaks off all attempts; in the order in which their jobs were claimed. Their temporary files are removed, and their results
    /// are never sent.
    pub(super) fn break_off(&mut self) -> Vec<Attempt> {
        self.tasks.abort_all();
        self.downloading = 0;
        let mut rest: Vec<Attempt> = self.running.drain().map(|(_, running)| running.attempt).collect();
        rest.sort_by_key(|attempt| attempt.job.field.order());
        rest
    }
}

#[cfg(test)]
impl Slots {
    /// All bodies are whole.
    pub(super) fn free_all(&mut self) {
        let ids: Vec<Id> = self.running.keys().copied().collect();
        ids.into_iter().for_each(|id| self.free(id));
    }

    /// Replaces all tasks with such that never end.
    pub(super) fn stall(&mut self) {
        let running: Vec<Attempt> = self.running.drain().map(|(_, running)| running.attempt).collect();
        (self.tasks, self.downloading) = (JoinSet::new(), 0);
        running.into_iter().for_each(|attempt| self.start(attempt, |_| std::future::pending()));
    }
}

/// Tells that the body of the task that calls it is whole.
pub(super) struct Downloaded(mpsc::UnboundedSender<Id>);

impl Downloaded {
    pub(super) fn tell(self) {
        // The slots live as long as their tasks.
        let _ = self.0.send(tokio::task::id());
    }
}
