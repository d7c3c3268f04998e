//! The one integration binary; this file is its table of contents.
