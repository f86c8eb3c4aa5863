"""The ways to execute a program."""
