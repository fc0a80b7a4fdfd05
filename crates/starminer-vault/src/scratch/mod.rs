//! Scratch
