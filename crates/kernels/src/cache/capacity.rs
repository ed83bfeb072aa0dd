//! How long a list of entries can become.
