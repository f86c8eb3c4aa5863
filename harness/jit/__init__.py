"""From a verified program to native code."""
