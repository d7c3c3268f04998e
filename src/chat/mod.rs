//! The product: what happens when somebody writes to their parent.
//!
//! It checks for danger, keeps the message, builds the prompt from persona, memories and history, lets the engine
//! generate, and tells every device. It does not know HTTP or JSON.

pub mod live;
pub mod safety;
