//! Duties: what runs beside the main task, for as long as the process or one worker name lives. All of it is owned here, by name.
//!
//! None of them ends by itself. One that does, or panics, leaves a worker that looks alive and is not: a lease that nobody renews,
//! settlements that nobody sends. So the process ends with it, and says what it was.

use futures_util::FutureExt as _;
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinError, JoinSet};

/// A duty ended that should not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {duty} died: {why}")]
pub(crate) struct Died {
    duty: &'static str,
    why: String,
}

impl Died {
    /// What to make of it.
    pub(crate) fn hint(&self) -> &'static str {
        "this is a fault of imgq and not of your set-up: please report it with the lines above; other workers take over the jobs \
         that this one held, within seconds"
    }
}

/// Running duties; all of them stop when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    /// Each answers with why it ended. A thread has a task here that waits for its end.
    tasks: JoinSet<String>,
    running: Vec<(&'static str, AbortHandle)>,
    threads: Vec<DutyThread>,
}

#[derive(Debug)]
struct DutyThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for DutyThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only waits for a signal that was just given.
            let _ = thread.join();
        }
    }
}

impl Duties {
    /// Starts a duty on this runtime.
    pub(crate) fn start(&mut self, name: &'static str, duty: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(duty.map(|()| ended_by_itself()));
        self.running.push((name, task));
    }

    /// Starts a duty on a thread of its own, with a runtime of its own.
    pub(crate) fn start_on_thread<F>(
        &mut self,
        name: &'static str,
        duty: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (tell_end, end) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let run = AssertUnwindSafe(|| {
                runtime.block_on(async {
                    tokio::select! {
                        () = duty() => {}
                        _ = stopped => {}
                    }
                });
            });
            let why = catch_unwind(run).map_or_else(|panic| panicked(&*panic), |()| ended_by_itself());
            // Nobody listens where it was told to stop.
            let _ = tell_end.send(why);
        })?;
        self.threads.push(DutyThread { stop: Some(stop), thread: Some(thread) });
        let task = self.tasks.spawn(async move { end.await.unwrap_or_else(|_| ended_by_itself()) });
        self.running.push((name, task));
        Ok(())
    }

    /// Does `work`, which is a duty called `name` itself, to its end.
    ///
    /// # Errors
    /// [`Died`] when it panics, or another duty ends meanwhile.
    pub(crate) async fn alongside<T>(&mut self, name: &'static str, work: impl Future<Output = T>) -> Result<T, Died> {
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::select! {
            done = work => done.map_err(|panic| Died { duty: name, why: panicked(&*panic) }),
            died = self.death() => Err(died),
        }
    }

    /// Stops a duty that is not needed any more.
    pub(crate) fn stop(&mut self, name: &'static str) {
        for (_, task) in self.running.extract_if(.., |(running, _)| *running == name) {
            task.abort();
        }
    }

    /// Waits for a duty that is about to end, as its work is done. Cancel safe.
    ///
    /// # Errors
    /// [`Died`] when it panics, or another one ends before.
    pub(crate) async fn end_of(&mut self, name: &'static str) -> Result<(), Died> {
        if !self.running.iter().any(|(running, _)| *running == name) {
            return Ok(());
        }
        let died = self.death().await;
        if died.duty == name && died.why == ended_by_itself() { Ok(()) } else { Err(died) }
    }

    /// Waits for a duty to end that was not told to. Cancel safe.
    async fn death(&mut self) -> Died {
        loop {
            let (id, why) = match self.tasks.join_next_with_id().await {
                None => std::future::pending().await,
                Some(Ok((id, why))) => (id, why),
                Some(Err(error)) => (error.id(), why_of(error)),
            };
            // One that was stopped has no name any more.
            if let Some(at) = self.running.iter().position(|(_, task)| task.id() == id) {
                return Died { duty: self.running.swap_remove(at).0, why };
            }
        }
    }
}

fn why_of(error: JoinError) -> String {
    error.try_into_panic().map_or_else(|error| error.to_string(), |panic| panicked(&*panic))
}

fn ended_by_itself() -> String {
    "it ended by itself".to_owned()
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", message.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    async fn for_ever() {
        std::future::pending().await
    }

    async fn death_of(duties: &mut Duties) -> String {
        let bound = tokio::time::timeout(Duration::from_secs(20), duties.alongside("main", for_ever()));
        bound.await.expect("it is noticed").expect_err("it died").to_string()
    }

    #[tokio::test]
    async fn a_duty_that_dies_ends_the_work_beside_it_and_is_named() {
        let mut duties = Duties::default();
        duties.start("settler", for_ever());
        duties.start("admitter", async { panic!("no {}", "more") });
        assert_eq!(death_of(&mut duties).await, "the admitter died: it panicked: no more");
        let mut duties = Duties::default();
        duties.start("pulse", async {});
        assert_eq!(death_of(&mut duties).await, "the pulse died: it ended by itself");
    }

    #[tokio::test]
    async fn so_does_a_thread() {
        let mut duties = Duties::default();
        duties.start_on_thread("heartbeat", || async { panic!("no beat") }).expect("a thread");
        assert_eq!(death_of(&mut duties).await, "the heartbeat died: it panicked: no beat");
        duties.start_on_thread("metrics server", || async {}).expect("a thread");
        assert_eq!(death_of(&mut duties).await, "the metrics server died: it ended by itself");
    }

    #[tokio::test]
    async fn the_main_duty_is_one_as_well() {
        let mut duties = Duties::default();
        duties.start("settler", for_ever());
        assert_eq!(duties.alongside("dispatcher", async { 7 }).await, Ok(7));
        let died = duties.alongside("dispatcher", async { panic!("a bug") }).await;
        assert_eq!(
            died.map_err(|died: Died| died.to_string()),
            Err::<(), _>("the dispatcher died: it panicked: a bug".into())
        );
    }

    #[tokio::test]
    async fn what_is_stopped_does_not_die_and_what_has_done_its_work_may_end() {
        let mut duties = Duties::default();
        duties.start("admitter", for_ever());
        duties.stop("admitter");
        let quiet = tokio::time::timeout(Duration::from_millis(50), duties.alongside("main", for_ever())).await;
        assert!(quiet.is_err(), "{quiet:?}");
        duties.start("settler", tokio::task::yield_now());
        assert_eq!(duties.end_of("settler").await, Ok(()));
        assert_eq!(duties.end_of("settler").await, Ok(()), "it is over");
        duties.start("settler", async { panic!("full") });
        assert!(duties.end_of("settler").await.is_err());
    }

    #[tokio::test]
    async fn all_stop_with_their_owner() {
        struct Ended(Arc<AtomicBool>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let ended = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let mut duties = Duties::default();
        let guards = ended.clone().map(Ended);
        let [task, thread] = guards;
        duties.start("task", async move {
            let _task = task;
            for_ever().await;
        });
        duties
            .start_on_thread("thread", move || async move {
                let _thread = thread;
                for_ever().await;
            })
            .expect("a thread");
        tokio::task::yield_now().await;
        drop(duties);
        tokio::task::yield_now().await;
        assert!(ended.iter().all(|ended| ended.load(Ordering::SeqCst)));
    }
}
