"""Decision trees over named features, and rules that explain where failures are."""
