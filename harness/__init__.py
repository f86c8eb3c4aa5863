"""Cross-check of BPF programs whose functions take more than five arguments."""
