//! What a live process shows of itself.
