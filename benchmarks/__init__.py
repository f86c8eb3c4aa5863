"""What the speed and memory claims are measured with: ``tox run -e bench``."""
