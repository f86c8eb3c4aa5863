"""From a C file to functions under test, their drivers and their input vectors."""
