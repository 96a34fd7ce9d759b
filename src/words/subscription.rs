//! What a connection wants: the words for its subscriptions.

/// What a connection calls one of its subscriptions; the core compares it and reads nothing into
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionKey {
    /// The queue itself: one subscription a queue.
    Queue,
    /// A number of the protocol's own.
    Number(u64),
}

/// How a subscription is handed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// When the connection asks for one, now or after a wait.
    OnRequest,
    /// As they come, while at most so many are in the connection's hands; 1 or more.
    Window(u32),
}
