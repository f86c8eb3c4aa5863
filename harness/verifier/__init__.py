"""The Linux verifier's decisions, in Python."""
