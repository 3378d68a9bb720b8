//! Placeholder for the C ABI, by man-page family.
