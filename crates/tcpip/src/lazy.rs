//! Memory that a connection holds only while it needs it: most connections are idle most of the time.

use alloc::boxed::Box;
use core::ops::{Deref, DerefMut};

/// A type with a value that it has as long as it is unchanged.
pub(crate) trait Blank: Default + 'static {
    const BLANK: &'static Self;
}

/// A value that takes memory from when it is changed until it is given back.
#[derive(Debug, Clone)]
pub(crate) struct Lazy<T>(Option<Box<T>>);

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Lazy<T> {
    /// A value that is still blank.
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Makes it blank again, without memory.
    pub(crate) fn give_back(&mut self) {
        self.0 = None;
    }
}

impl<T: Blank + PartialEq> Lazy<T> {
    /// Gives the memory back if nothing is in it.
    pub(crate) fn tidy(&mut self) {
        if **self == *T::BLANK {
            self.give_back();
        }
    }
}

impl<T: Blank> Deref for Lazy<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BLANK)
    }
}

impl<T: Blank> DerefMut for Lazy<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(value) => value,
            none => none.insert(fresh()),
        }
    }
}

/// A function of its own, because most changes are to a value that has memory already.
#[cold]
#[inline(never)]
fn fresh<T: Blank>() -> Box<T> {
    Box::default()
}

/// Makes the constant `$make` the blank value of `$type`.
macro_rules! blank {
    ($type:ty, $make:expr) => {
        impl $crate::lazy::Blank for $type {
            const BLANK: &'static Self = {
                static BLANK: $type = $make;
                &BLANK
            };
        }

        impl Default for $type {
            fn default() -> Self {
                $make
            }
        }
    };
}

pub(crate) use blank;
