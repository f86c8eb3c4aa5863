"""Find or fetch clang and its kin, and run them."""
