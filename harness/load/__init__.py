"""From object bytes to linked programs."""
