//! Shared-memory layout and byte rings.
