//! Orders on their way to the writers, and answers on their way back, several at a time.

use super::writer::{Order, Reply, WRITERS};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Orders on their way to the writers. To wake a sleeping thread costs a system call and a change of threads, so what comes
/// up while the runtime goes once through its tasks is handed over together.
#[derive(Default)]
pub(super) struct Outbox {
    orders: Mutex<Orders>,
    filled: Notify,
}

#[derive(Default)]
struct Orders {
    of: [Vec<Order>; WRITERS],
    /// Who gets the orders that anybody may carry out.
    turn: usize,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// For one writer, or for any. Orders to one writer are carried out in their order.
    pub(super) fn put(&self, writer: Option<usize>, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = orders.of.iter().all(Vec::is_empty);
        let writer = writer.unwrap_or(orders.turn);
        orders.of[writer].push(order);
        drop(orders);
        if is_first {
            self.filled.notify_one();
        }
    }

    pub(super) async fn deliver(self: Arc<Self>, writers: Vec<mpsc::UnboundedSender<Vec<Order>>>) {
        loop {
            self.filled.notified().await;
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            orders.turn = (orders.turn + 1) % WRITERS;
            for (writer, orders) in writers.iter().zip(&mut orders.of) {
                if !orders.is_empty() {
                    // Writers live as long as their senders.
                    let _ = writer.send(std::mem::take(orders));
                }
            }
        }
    }
}

/// Passes on what the writers answer. To wake a task of a runtime from another thread costs a system call, and to wake it
/// from inside next to nothing; so the writers hand over a few answers at a time, and the rest happens here.
pub(super) async fn forward(mut replies: mpsc::UnboundedReceiver<Vec<Reply>>) {
    while let Some(replies) = replies.recv().await {
        replies.into_iter().for_each(Reply::send);
    }
}
