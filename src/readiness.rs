//! poll, select and epoll.
