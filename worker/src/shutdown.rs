//! The two steps of stopping: finish what is in flight, then give the rest back.

use std::io::Read;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How far stopping has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not stopping.
    Running,
    /// Nothing more is claimed; downloads may finish within the grace time.
    Finishing,
    /// Everything is given back now.
    GivingBack,
}

/// Tells how far stopping has gone, and wakes those who wait for it.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown {
    stage: watch::Receiver<Stage>,
}

impl Shutdown {
    /// As somebody else says.
    #[cfg(test)]
    pub(crate) fn at(stage: watch::Receiver<Stage>) -> Shutdown {
        Shutdown { stage }
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Returns once `stage` or a later one is reached. Cancel safe.
    pub(crate) async fn reached(&mut self, stage: Stage) {
        // Without its listener the supervisor ends the process.
        if self.stage.wait_for(|now| *now >= stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Listens for SIGTERM and Ctrl-C, and with `with_stdin` for the end of standard input: the first moves to
    /// [`Stage::Finishing`], the second to [`Stage::GivingBack`]. The returned duty does the listening.
    pub(crate) fn listen(with_stdin: bool) -> std::io::Result<(Shutdown, impl Future<Output = ()> + Send + 'static)> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, stage) = watch::channel(Stage::Running);
        let (stdin_sender, mut stdin_closed) = tokio::sync::mpsc::channel::<()>(1);
        let mut kept_open = Some(stdin_sender);
        if with_stdin {
            let stdin_sender = kept_open.take();
            // A thread of its own: a read of standard input cannot be cancelled, and the runtime would wait for it.
            std::thread::Builder::new().name("stdin".into()).spawn(move || {
                let mut sink = [0; 256];
                while std::io::stdin().read(&mut sink).is_ok_and(|n| n > 0) {}
                drop(stdin_sender);
            })?;
        }
        let listener = async move {
            let _kept_open = kept_open;
            let mut stdin_open = true;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = stdin_closed.recv(), if stdin_open => stdin_open = false,
                }
                let next = match *sender.borrow() {
                    Stage::Running => Stage::Finishing,
                    Stage::Finishing | Stage::GivingBack => Stage::GivingBack,
                };
                tracing::info!("stopping: {next:?}");
                sender.send_replace(next);
            }
        };
        Ok((Shutdown { stage }, listener))
    }
}
