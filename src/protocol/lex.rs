//! Tokens, integers, key rules and base64, shared by classic text and meta.
