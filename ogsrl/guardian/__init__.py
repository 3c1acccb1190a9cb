"""The region that data support: what may be recommended, and where the answer is `defer`."""
