"""From a divergence to a report."""
