//! Bugs that other stacks had, each as a scenario here.
