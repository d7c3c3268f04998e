//! The one integration binary; this file is its table of contents.

mod tidy; // the house rules: imports, sizes, unsafe, names
