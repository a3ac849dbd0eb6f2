//! `producer pause` and `producer resume`.

use super::{CommandError, Ended, print};
use queue::Queue;

pub(super) async fn set_paused(queue: &Queue, paused: bool) -> Result<Ended, CommandError> {
    queue.set_paused(paused).await?;
    let name = queue.name();
    if paused {
        print(&format!(
            "queue {name} is paused: what is in flight finishes, nothing more is claimed until `producer resume`"
        ))?;
    } else {
        print(&format!("queue {name} goes on"))?;
    }
    Ok(Ended::Done)
}
