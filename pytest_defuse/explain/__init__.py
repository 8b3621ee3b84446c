"""Which visual features of real images go with a model's failures (Barlow)."""
