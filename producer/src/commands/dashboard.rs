//! `producer dashboard`: the queue in a browser, until Ctrl-C or SIGTERM.

use super::{CommandError, Ended, print};
use crate::cli::DashboardArgs;
use ::dashboard::{Dashboard, TOKEN_CHARACTERS_MIN};
use program::listen::{ListenAddress, reachable};
use program::settings::QueueArgs;
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn dashboard(queue_args: &QueueArgs, args: DashboardArgs) -> Result<Ended, CommandError> {
    if args.token.as_ref().is_some_and(|token| token.chars().count() < TOKEN_CHARACTERS_MIN) {
        return Err(CommandError::Other {
            message: format!("the token has fewer than {TOKEN_CHARACTERS_MIN} characters: it could be guessed"),
            hint: "make one with `openssl rand -hex 24`, and give it as IMGQ_DASHBOARD_TOKEN".into(),
            code: 2,
        });
    }
    // Taken first: what is wrong with it is said before anything waits for Redis.
    let listener = args.listen.bind().map_err(|error| CommandError::Other {
        message: format!("cannot listen on {}: {error}", args.listen),
        hint: ListenAddress::hint(&error, "--listen or IMGQ_LISTEN"),
        code: 1,
    })?;
    let doing = "cannot start the dashboard";
    let address = listener.local_addr().map_err(CommandError::system(doing))?;
    if !address.ip().is_loopback() && args.token.is_none() {
        return Err(CommandError::Other {
            message: format!("{} can be reached from other machines, and there is no token", args.listen),
            hint: "set IMGQ_DASHBOARD_TOKEN to a secret (`openssl rand -hex 24`), which people then log in with; or listen on \
                   127.0.0.1, and reach it through `ssh -L`"
                .into(),
            code: 2,
        });
    }
    let queue = super::open_to_stay(queue_args).await?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::system(doing))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::system(doing))?;
    let dashboard = Dashboard::new(queue, address, args.token, args.storage);
    let listener = Dashboard::listener(listener).map_err(CommandError::system(doing))?;
    print(&format!("queue {} at http://{}/", queue_args.queue, reachable(address)))?;
    tokio::select! {
        () = dashboard.serve(listener) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(Ended::Done)
}
