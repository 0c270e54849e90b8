"""Load on a live server, through Locust, with every request kept as a raw sample."""
